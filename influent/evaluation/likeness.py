"""Is it influence, or are people alike? What is put down to others, held against the same with time reversed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from influent.data.sequences import Sequences
from influent.errors import ConfigError
from influent.evaluation.metrics import bootstrap_interval
from influent.evaluation.report import Measure
from influent.models.social import Social
from influent.progress import Progress

Verdict = Literal["directed beyond likeness", "likeness cannot be ruled out", "not enough data"]

_FEWEST = 30
"""People to whom something is put down, below which nothing is said."""


@dataclass(frozen=True, kw_only=True)
class LikenessReport:
    """How many events are put down to others, forwards and backwards in time."""

    forward: float
    backward: float
    """What likeness alone looks like: nobody is moved by what has not happened yet"""
    beyond: Measure
    """Forward minus backward for each user, with an interval by bootstrap over users"""
    n_users: int
    """Users to whom something is put down in either direction"""
    verdict: Verdict

    def sentence(self) -> str:
        """Return the verdict and why."""
        return (
            f"Forwards {self.forward:,.1f} training events are put down to others, with time reversed "
            f"{self.backward:,.1f}; for each of {self.n_users:,} users {self.beyond} more. Verdict: {self.verdict}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def check_likeness(
    model: Social, train: Sequences, *, n_resamples: int = 1000, seed: int = 0, progress: Progress | None = None
) -> LikenessReport:
    """Fit the model in both directions of time, and say whether others explain more forwards than backwards.

    People who are alike act on the same items before and after each other equally often; somebody who is moved acts
    after. It does not see through somebody who merely always comes first. Anagnostopoulos, Kumar and Mahdian, Influence
    and correlation in social networks, 2008, reverse the edges for the same reason.

    Args:
        model: fitted on `train`.

    Raises:
        NotFittedError: it is not.
        ConfigError: the log is order-only, or ties were read off it: these run both ways, so that what moves somebody
            forwards moves the other backwards, and nothing can be told from that.
    """
    if not model.ties.are_given:
        raise ConfigError(
            "ties that were read off the log run both ways, and time reversed tells nothing of them. Use ties that are "
            "known: build_ties(read_edges(...), sequences)."
        )
    forward, backward = model.received_both_ways(train, progress=progress)
    # A part of an event spread over many pairs is nobody's; half an event is.
    someone = np.flatnonzero((forward >= 0.5) | (backward >= 0.5))
    more = (forward - backward)[someone]
    measure = Measure(0.0, 0.0, 0.0)
    verdict: Verdict = "not enough data"
    if len(someone):
        low, high = bootstrap_interval(more, someone, n_resamples=n_resamples, seed=seed)
        measure = Measure(float(more.mean()), low, high)
    if len(someone) >= _FEWEST:
        verdict = "directed beyond likeness" if measure.low > 0 else "likeness cannot be ruled out"
    return LikenessReport(
        forward=float(forward.sum()),
        backward=float(backward.sum()),
        beyond=measure,
        n_users=len(someone),
        verdict=verdict,
    )
