"""Cascades, act by act: what is known of users strictly before a moment, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from influent.data.cascades import Cascades, NextActs
from influent.data.moments import ranges
from influent.errors import ConfigError
from influent.models.transitions import PairDecay

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US

_MAX_DOUBLINGS = 60.0
"""Weights of ageing counts grow instead of the old ones shrinking; before a float32 could overflow all are scaled."""


@dataclass(frozen=True, kw_only=True)
class PairCounting:
    """How "v came after u in one cascade" is counted: by distance, and by how long ago it was seen.

    The distance of two acts is how many of the cascade's acts lie from the first one's moment up to the second's; acts
    at the very same time are at distance 0 and not counted.
    """

    pairs: PairDecay = field(default_factory=PairDecay)
    half_life_days: float = float("inf")
    """After how many days a pair counts half; without end by default."""


class ActorStream:
    """The state before a moment: decayed activity of each user, and decayed counts of who came after whom.

    Args:
        countings: one table C, float32 (U, U), is kept for each.
        half_lives_days: one row of activity is kept for each; infinity counts all acts alike.
        until_us: where the state stops taking in acts; never by default.
        max_users: refuse more users: a table takes 4 bytes times their square.

    Raises:
        ConfigError: there are more users.
    """

    def __init__(
        self,
        cascades: Cascades,
        *,
        countings: Sequence[PairCounting] = (),
        half_lives_days: Sequence[float] = (float("inf"),),
        until_us: int | None = None,
        max_users: int = 20_000,
    ) -> None:
        n_users = cascades.n_users
        if countings and n_users > max_users:
            raise ConfigError(
                f"counts of who comes after whom are tables over all {n_users:,} users "
                f"({4 * n_users**2 / 2**30:.0f} GiB each). They are limited to {max_users:,}: raise max_users, or drop "
                "rare users when cleaning."
            )
        self.cascades, self._until_us = cascades, until_us
        self._order = np.argsort(cascades.time_us, kind="stable")
        self._time_us = cascades.time_us[self._order]
        self._n_taken = 0
        self._now_us = int(self._time_us[0])
        self._half_life_us = np.asarray(half_lives_days, np.float64) * DAY_US
        self.activity = np.zeros((len(self._half_life_us), n_users))
        """float64 (H, U): acts of each user, each halved with every half-life that has passed"""
        self._countings = tuple(countings)
        self._origin_us = [self._now_us for _ in countings]
        self.counts = [np.zeros((n_users, n_users), np.float32) for _ in countings]
        """C, float32 (U, U) for each counting, all scaled by `scale`"""
        self.row_sums = [np.zeros(n_users) for _ in countings]
        """float64 (U,): the sums of C's rows, scaled likewise"""
        windows = [counting.pairs.window for counting in countings]
        self._pair_before, self._pair_after, self._pair_end = _pairs(cascades, self._order, max(windows, default=0))

    def scale(self, table: int) -> float:
        """Return what the entries of a table are to be multiplied by to be counts of now."""
        return float(0.5 ** ((self._now_us - self._origin_us[table]) / (self._half_life_days(table) * DAY_US)))

    def advance(self, time_us: int) -> None:
        """Take in every act strictly earlier than the moment; moments come in order of time."""
        stop_us = time_us if self._until_us is None else min(time_us, self._until_us)
        first, last = self._n_taken, int(np.searchsorted(self._time_us, stop_us, side="left"))
        if last > first:
            acts = self._order[first:last]
            self._add_pairs(first, last)
            self.activity *= 0.5 ** ((self._time_us[last - 1] - self._now_us) / self._half_life_us)[:, None]
            age_us = self._time_us[last - 1] - self._time_us[first:last]
            for row, half_life_us in zip(self.activity, self._half_life_us, strict=True):
                np.add.at(row, self.cascades.user_idx[acts], 0.5 ** (age_us / half_life_us))
            self._n_taken, self._now_us = last, int(self._time_us[last - 1])
        self.activity *= 0.5 ** ((stop_us - self._now_us) / self._half_life_us)[:, None]
        self._now_us = stop_us

    def _add_pairs(self, first: int, last: int) -> None:
        some = slice(self._pair_end[first], self._pair_end[last])
        before, after = self._pair_before[some], self._pair_after[some]
        cascades = self.cascades
        distance = cascades.n_before[after] - cascades.n_before[before]
        u, v, seen_us = cascades.user_idx[before], cascades.user_idx[after], cascades.time_us[after]
        for table, counting in enumerate(self._countings):
            half_life_us = self._half_life_days(table) * DAY_US
            self._make_room(table, int(self._time_us[last - 1]), half_life_us)
            grown = 2.0 ** ((seen_us - self._origin_us[table]) / half_life_us)
            for source, target, signed in ((u, v, distance), (v, u, -distance)):
                weight = counting.pairs.weight(signed) * grown
                counted = weight > 0
                np.add.at(self.counts[table], (source[counted], target[counted]), weight[counted].astype(np.float32))
                np.add.at(self.row_sums[table], source[counted], weight[counted])

    def _make_room(self, table: int, time_us: int, half_life_us: float) -> None:
        doublings = (time_us - self._origin_us[table]) / half_life_us
        if doublings > _MAX_DOUBLINGS:
            self.counts[table] *= np.float32(2.0**-doublings)
            self.row_sums[table] *= 2.0**-doublings
            self._origin_us[table] = time_us

    def _half_life_days(self, table: int) -> float:
        return self._countings[table].half_life_days


@dataclass(frozen=True)
class ActorMoment:
    """One prediction: who is in the cascade by then. The stream stands at the same moment."""

    row: int
    """Which of the acts that are to be predicted"""
    place: np.ndarray
    """int64 (L,): the strictly earlier acts of the cascade, oldest first"""
    user_idx: np.ndarray
    """int32 (L,): their users"""
    lag: np.ndarray
    """int64 (L,): how many of the cascade's acts lie from each one's moment up to now; 1 is the latest"""
    gap_us: np.ndarray
    """int64 (L,): how long ago each was"""


def walk(acts: NextActs, stream: ActorStream, max_len: int | None = None) -> Iterator[ActorMoment]:
    """Go through the predictions in order of time, the stream always standing at the moment of the one returned."""
    cascades = acts.cascades
    for row in np.argsort(acts.time_us, kind="stable"):
        act = int(acts.place[row])
        time_us = int(cascades.time_us[act])
        stream.advance(time_us)
        place = cascades.history(act)[-max_len if max_len else 0 :]
        yield ActorMoment(
            row=int(row),
            place=place,
            user_idx=cascades.user_idx[place],
            lag=cascades.n_before[act] - cascades.n_before[place],
            gap_us=time_us - cascades.time_us[place],
        )


def _pairs(cascades: Cascades, order: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs of acts of one cascade at distances 1 to `window`, as places, in the order of their later acts.

    The pairs of the first n acts in order of time are the first `end[n]`, int64 (E + 1,).
    """
    n_before = cascades.n_before[order]
    start = cascades.offsets[cascades.cascade_idx[order]]
    # An act stands at or behind the number of those before it, so all within the window stand behind this.
    first = start + np.maximum(n_before - window, 0)
    lengths = start + n_before - first
    before, after = ranges(first, lengths), np.repeat(order, lengths)
    return before, after, np.concatenate([[0], np.cumsum(lengths)])
