"""Sums by window to the windows where their quotient changes: binary segmentation, tested over users, family-wise.

Shapes: G groups of users, W windows, K splits of a stretch of windows in two, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from influent.influence.resampling import Resampling, interval, ratio

_N_SIGNS = 2_000
MIN_USERS = 50
"""How many users have to have credits on each side of a change that is looked for"""
_CHUNK = 250


@dataclass(frozen=True, eq=False)
class Series:
    """A quotient over windows, as sums over the users of each group: what is there, and what is expected."""

    expected: np.ndarray
    """float64 (G, W)"""
    total: np.ndarray
    """float64 (G, W)"""


@dataclass(frozen=True, kw_only=True)
class Change:
    """Where a series changes, in windows from 0; the change lies right before the window."""

    series: str
    window: int
    low: int
    high: int
    """95 % interval of `window`, by bootstrap over users"""
    before: float
    after: float
    """quotient of the stretch before and after, up to the changes next to this one when it was found"""
    difference_low: float
    difference_high: float
    """95 % interval of after − before"""
    p_value: float
    """of the largest such difference anywhere, among all series that were looked at, where nothing changes"""


def find_changes(
    series: Mapping[str, Series], draws: Resampling, *, rate: float, seed: int = 0
) -> tuple[list[Change], list[str]]:
    """Cut each series where its quotient changes most, if chance alone would hardly make such a cut in any series.

    At every split of a stretch the difference of the two quotients is divided by its standard error over users. What
    chance would make of the largest of all is found by giving every user's part of each difference a random sign, the
    same in all series and at all splits (multiplier bootstrap of a maximum: Chernozhukov et al. 2013,
    https://doi.org/10.1214/13-AOS1161), so that what a user does in several windows or series stays together. A
    stretch that is cut is looked at again in two (binary segmentation: Vostrikova 1981).

    Args:
        series: by name.
        rate: how often a log in which nothing changes may show any change in any series. A round that follows true
            changes has the same rate of its own.

    Returns:
        The changes, by series and window, and the names of the series that could not be looked at: a split with fewer
        than 50 users on one side never is.
    """
    rng = np.random.default_rng(seed)
    found: list[Change] = []
    stretches = [(name, 0, one.expected.shape[1]) for name, one in series.items()]
    untested = [name for name, first, stop in stretches if _Splits.of(series[name], first, stop) is None]
    while stretches:
        looked_at = [(name, _Splits.of(series[name], first, stop)) for name, first, stop in stretches]
        looked_at = [(name, splits) for name, splits in looked_at if splits is not None]
        if not looked_at:
            break
        by_chance = _largest_by_chance([splits for _, splits in looked_at], rng)  # type: ignore[misc]
        stretches = []
        for name, splits in looked_at:
            assert splits is not None
            p_value = float((1 + (by_chance >= splits.largest).sum()) / (1 + len(by_chance)))
            if p_value <= rate:
                change = splits.change(name, draws, p_value)
                found.append(change)
                stretches += [(name, splits.first, change.window), (name, change.window, splits.stop)]
    return sorted(found, key=lambda one: (list(series).index(one.series), one.window)), untested


@dataclass(frozen=True, eq=False)
class _Splits:
    """Every way to cut a stretch of windows in two, of those with enough users on both sides."""

    series: Series
    first: int
    stop: int
    cut: np.ndarray
    """int (K,): the first window after the cut"""
    influence: np.ndarray
    """float64 (G, K): each group's part of the difference of the two quotients, divided by its standard error"""
    standard_error: np.ndarray
    """float64 (K,)"""
    largest: float

    @classmethod
    def of(cls, series: Series, first: int, stop: int) -> _Splits | None:
        cut = np.arange(first + 1, stop)
        if len(cut) == 0:
            return None
        n_users = np.minimum(*((side > 0).sum(axis=0) for side in _sides(series.expected, first, stop, cut)))
        cut = cut[n_users >= MIN_USERS]
        if len(cut) == 0:
            return None
        expected, total = _sides(series.expected, first, stop, cut), _sides(series.total, first, stop, cut)
        # Of the whole stretch, as if nothing changed: few users on one side then do not make their own error small.
        whole = series.total[:, first:stop].sum() / series.expected[:, first:stop].sum()
        before, after = ((t - whole * e) / e.sum(axis=0) for t, e in zip(total, expected, strict=True))
        influence = after - before
        difference = influence.sum(axis=0)
        n_groups = (series.expected[:, first:stop].sum(axis=1) > 0).sum()
        standard_error = np.sqrt((influence**2).sum(axis=0) * n_groups / max(n_groups - 1, 1))
        there = standard_error > 0
        if not there.any():
            return None
        influence, standard_error = influence[:, there] / standard_error[there], standard_error[there]
        largest = float(np.abs(difference[there] / standard_error).max())
        return cls(series, first, stop, cut[there], influence, standard_error, largest)

    def change(self, name: str, draws: Resampling, p_value: float) -> Change:
        drawn = _differences(draws.draw(self.series.expected), draws.draw(self.series.total), self)
        whole = self.series.expected.sum(axis=0)[None], self.series.total.sum(axis=0)[None]
        place = int(np.abs(_differences(*whole, self)[0] / self.standard_error).argmax())
        where = self.cut[np.nanargmax(np.abs(drawn) / self.standard_error, axis=1)]
        low, high = np.quantile(where, [0.025, 0.975], method="inverted_cdf")
        size_low, size_high = interval(drawn[:, place])
        cut = self.cut[place : place + 1]
        expected, total = (_sides(one, self.first, self.stop, cut) for one in whole)
        before, after = (float(t[0, 0] / e[0, 0]) for t, e in zip(total, expected, strict=True))
        return Change(
            series=name,
            window=int(cut[0]),
            low=int(low),
            high=int(high),
            before=before,
            after=after,
            difference_low=float(size_low),
            difference_high=float(size_high),
            p_value=p_value,
        )


def _sides(sums: np.ndarray, first: int, stop: int, cut: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of a stretch before and after each cut, (…, K) each."""
    below = np.cumsum(sums[:, first:stop], axis=1)
    before = below[:, cut - first - 1]
    return np.asarray(before), np.asarray(below[:, -1:] - before)


def _differences(expected: np.ndarray, total: np.ndarray, splits: _Splits) -> np.ndarray:
    """Return quotient after − quotient before each cut, (R, K)."""
    of_expected = _sides(expected, splits.first, splits.stop, splits.cut)
    of_total = _sides(total, splits.first, splits.stop, splits.cut)
    return np.asarray(ratio(of_total[1], of_expected[1]) - ratio(of_total[0], of_expected[0]))


def _largest_by_chance(looked_at: list[_Splits], rng: np.random.Generator) -> np.ndarray:
    """Return the largest standardised difference of all in each of many draws of signs, (2000,)."""
    influence = np.concatenate([splits.influence for splits in looked_at], axis=1)
    largest = []
    for _ in range(0, _N_SIGNS, _CHUNK):
        sign = rng.integers(0, 2, (_CHUNK, len(influence))) * 2.0 - 1.0
        largest.append(np.abs(sign @ influence).max(axis=1))
    return np.concatenate(largest)
