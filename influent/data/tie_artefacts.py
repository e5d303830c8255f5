"""Ties and a log are searched for what would fool an analysis of who moved whom."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import sparse

from influent.data.moments import Moments
from influent.data.nulls import rewirings
from influent.data.sequences import Sequences
from influent.data.ties import Ties
from influent.data.time_artefacts import TimeArtefacts, find_time_artefacts
from influent.settings import check_int, check_type

_FEWEST = 30
"""Ties below which nothing is said."""
_LOOKED_AT = 50_000
"""Ties whose items are counted, drawn at random where there are more"""


@dataclass(frozen=True, kw_only=True)
class TieArtefacts:
    """What ties and times can and cannot carry. Shares lie in [0, 1]; None where it cannot be known.

    Of ties that were read off the log only the times are looked at.
    """

    times: TimeArtefacts
    mutual: float | None = None
    """Share of ties whose reverse is a tie"""
    lower_first: float | None = None
    """Share of ties from the user with the lower id to the one with the higher; half of them, where ids mean nothing"""
    lift: float | None = None
    """How many times the items that people share who are tied are those shared along rewired ties"""
    lift_low: float | None = None
    lift_high: float | None = None
    """Its 95 % interval, by what differs from rewiring to rewiring"""

    @property
    def is_unrelated(self) -> bool:
        """Return whether people who are tied share no more items than others do."""
        return self.lift_low is not None and self.lift_low <= 1

    @property
    def has_direction(self) -> bool:
        """Return whether it can be said who came first."""
        return self.times.has_direction

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, for JSON."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Return what is wrong, and what it does to a result."""
        lines = self.times.sentences()
        if self.mutual is not None and self.mutual > 0.99:
            lines.append(
                "Every tie runs both ways: the network says nothing of who moves whom, and time alone gives direction."
            )
        if self.mutual == 0 and self.lower_first in (0, 1):
            lines.append(
                "Every pair is tied once, and always by the order of ids: this is a list of pairs, and the direction "
                "of a tie means nothing. Give each both ways."
            )
        if self.is_unrelated:
            lines.append(
                f"People who are tied share {self.lift:.2f} times the items that rewired ties would give "
                f"[{self.lift_low:.2f}, {self.lift_high:.2f}], no more than strangers: are edges and events numbered "
                "alike? What is put down along these ties may be noise."
            )
        return lines


def find_tie_artefacts(
    ties: Ties, sequences: Sequences, *, test: Moments | None = None, n_draws: int = 20, seed: int = 0
) -> TieArtefacts:
    """Look for what in ties and times could be taken for influence, or hide it.

    Args:
        test: moments at which what is learned from this log is judged.
        n_draws: how many times ties are rewired.

    Raises:
        ConfigError: a number is out of range.
    """
    check_type("ties", ties, Ties, "build_ties(read_edges(...), sequences)")
    check_int("n_draws", n_draws, 2)
    times = find_time_artefacts(sequences, test=test)
    if not ties.are_given or len(ties) < _FEWEST:
        return TieArtefacts(times=times)
    lift, low, high = _lift(ties, sequences, n_draws, np.random.default_rng(seed))
    return TieArtefacts(
        times=times,
        mutual=float((ties.find(ties.target, ties.source) >= 0).mean()),
        lower_first=float((ties.source < ties.target).mean()),
        lift=lift,
        lift_low=low,
        lift_high=high,
    )


def _lift(
    ties: Ties, sequences: Sequences, n_draws: int, rng: np.random.Generator
) -> tuple[float | None, float | None, float | None]:
    """Return shared items by tie over those by rewired tie, and the interval.

    None where rewired ties share nothing, and where most people are tied to all that they could be tied to.
    """
    known = sequences.item_idx >= 0
    ends = sequences.user_idx[known], sequences.item_idx[known]
    has = sparse.csr_array(
        (np.ones(known.sum(), np.int32), ends), shape=(sequences.n_users, sequences.vocab.n_items), dtype=np.int32
    )
    has.data[:] = 1
    some = rng.permutation(len(ties))[:_LOOKED_AT]

    def shared(of: Ties) -> float:
        return float(has[of.source[some]].multiply(has[of.target[some]]).sum() / len(some))

    by_chance = np.array([shared(drawn) for drawn in rewirings(ties, n_draws, rng)])
    if not by_chance.any():
        return None, None, None
    mean = float(by_chance.mean())
    lift, spread = shared(ties) / mean, 1.96 * float(by_chance.std(ddof=1)) / mean
    return lift, lift * (1 - spread), lift * (1 + spread)
