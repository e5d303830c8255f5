"""What a model that is a sum says of its scores: one term per past event, and the terms that no event owns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from influent.data.moments import Moments, ranges

Exactness = Literal["exact", "closes", "estimated"]
"""How good a model's credits are: `exact` ones add up and each is its removal; those of a model that `closes` add up
but events also change each other's weights or a context line; `estimated` ones leave a residual, which is reported."""


@dataclass(frozen=True, kw_only=True)
class Credits:
    """Terms of the scores of C candidates at each of N moments; S is the number of source events of all moments.

    The sources of moment `n` lie at `offsets[n]:offsets[n + 1]`, oldest first. An event that the model does not
    read (beyond its `max_len`) is not among them; its credit is zero.
    """

    offsets: np.ndarray
    """int64 (N + 1,)"""
    place: np.ndarray
    """int64 (S,): where in the moment's sequences the event lies"""
    credit: np.ndarray
    """float64 (S, C)"""
    bias: np.ndarray
    """float64 (N, C): the candidate's own term"""
    context: dict[str, np.ndarray] = field(default_factory=dict)
    """float64 (N, C) for each context column"""
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    """float64 (S, C) for each part of an event that has a vector of its own, adding up to `credit`; or nothing"""
    baseline: np.ndarray | None = None
    """float64 (N, C): of a score whose credits are estimated, what is left beside the bias when every event is masked:
    what place, time and context say alone; None where credits are exact"""
    residual: np.ndarray | None = None
    """float64 (N, C): what estimated credits leave over of score, bias and baseline; None where credits are exact"""
    error: np.ndarray | None = None
    """float64 (S, C): standard errors of credits that are drawn; None of others"""
    n_passes: int | None = None
    """How many histories a model read to estimate them; None where one pass for each moment gives all"""

    @property
    def owner(self) -> np.ndarray:
        """Return the moment of each source event, int64 (S,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def mixed(self, mixture: np.ndarray) -> Credits:
        """Return the terms of weighted sums of the candidates' scores; weights are (N, X, C) for X sums a moment.

        Standard errors do not mix: a method that draws is asked for credits of the sums themselves.
        """
        assert self.error is None, "the errors of sums are not sums of errors"

        def of_events(credit: np.ndarray) -> np.ndarray:
            return np.asarray(np.einsum("sxc,sc->sx", mixture[self.owner], credit))

        def of_moments(term: np.ndarray) -> np.ndarray:
            return np.asarray(np.einsum("nxc,nc->nx", mixture, term))

        return Credits(
            offsets=self.offsets,
            place=self.place,
            credit=of_events(self.credit),
            bias=of_moments(self.bias),
            context={name: of_moments(term) for name, term in self.context.items()},
            parts={name: of_events(credit) for name, credit in self.parts.items()},
            baseline=None if self.baseline is None else of_moments(self.baseline),
            residual=None if self.residual is None else of_moments(self.residual),
            n_passes=self.n_passes,
        )

    def total(self) -> np.ndarray:
        """Return the sum of all terms, float64 (N, C)."""
        total = self.bias.astype(np.float64).copy()
        for term in self.context.values():
            total += term
        if self.baseline is not None:
            total += self.baseline
        if self.residual is not None:
            total += self.residual
        np.add.at(total, self.owner, self.credit)
        return total


def mean_of(many: Sequence[Credits]) -> Credits:
    """Return the means of the terms of several models' scores at the same moments, read from the same events.

    Standard errors take the models' draws to be independent.
    """
    first, n = many[0], len(many)
    assert all(np.array_equal(one.place, first.place) for one in many), "the models read other events"

    def mean(terms: Sequence[np.ndarray]) -> np.ndarray:
        return np.asarray(sum(terms[1:], terms[0]) / n)

    def mean_where_known(terms: Sequence[np.ndarray | None]) -> np.ndarray | None:
        known = [term for term in terms if term is not None]
        return mean(known) if known else None

    errors = [one.error for one in many if one.error is not None]
    passes = [one.n_passes for one in many if one.n_passes is not None]
    return Credits(
        offsets=first.offsets,
        place=first.place,
        credit=mean([one.credit for one in many]),
        bias=mean([one.bias for one in many]),
        context={name: mean([one.context[name] for one in many]) for name in first.context},
        parts={name: mean([one.parts[name] for one in many]) for name in first.parts},
        baseline=mean_where_known([one.baseline for one in many]),
        residual=mean_where_known([one.residual for one in many]),
        error=np.sqrt(np.asarray(sum(error**2 for error in errors))) / n if errors else None,
        n_passes=sum(passes) if passes else n * (len(first.offsets) - 1),
    )


def sources_of(moments: Moments, max_len: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where the last `max_len` events before each moment lie: offsets (N + 1,), place (S,), lag (S,).

    Lag counts back from the moment: 1 is the latest event.
    """
    lengths = moments.stop - moments.start
    if max_len is not None:
        lengths = np.minimum(lengths, max_len)
    place = ranges(moments.stop - lengths, lengths)
    lag = np.repeat(moments.stop, lengths) - place
    return np.concatenate([[0], np.cumsum(lengths)]), place, lag
