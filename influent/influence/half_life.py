"""A ledger, and the kernels of the model behind it, to how long an event's influence lasts.

Shapes: N credits, A actions, B bins of gaps, G groups of users, R resamples, S sampled events.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from scipy.optimize import isotonic_regression

from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.influence.levels import EventCredits, Factor
from influent.influence.resampling import Resampling, ratio
from influent.models.model import Model, tasks_of

_N_BINS = 24
_N_SAMPLED = 1_000
_N_GAPS = 40
_FIRST_GAP_US = 60e6


@runtime_checkable
class FadingModel(Model, Protocol):
    """A model that says how its events fade."""

    def faded_credits(self, moments: Moments, candidates: np.ndarray, gaps_s: np.ndarray) -> np.ndarray:
        """Return the credit of each moment's latest event, had it been alone and this long ago, (N, G)."""
        ...


def half_lives(
    credits: EventCredits,
    action: Factor,
    draws: Resampling,
    *,
    sequences: Sequences | None = None,
    model: Model | None = None,
    seed: int = 0,
) -> pa.Table:
    """Return after which time the credit of an event of each action has halved, as the ledger and as the model has it.

    From the ledger: the mean |credit| of bins of gaps with equally many credits each, made to fall by isotonic
    regression; the half-life is the time from the first bin to where the curve has half of its height there. That is
    of events as they come: an older one also has more others after it. From the model: |credit| of single events for
    what came next, asked at gaps from a minute on with nothing after them; of a sum that reads gaps. No shape is
    assumed. Of an exponential either is its half-life; of a kernel that falls fast and then slowly the two differ with
    where they begin, which `shortest_us` says.

    Returns:
        Columns `action`, `from` (`ledger`, `kernels`), `half_life_us`, `low_us`, `high_us` (95 %, over users or events;
        null where the curve does not come down to half within the gaps seen), `shortest_us`, `longest_us` (the first
        and last bin), `n_credits`.
    """
    user, size = credits.user_of_credit, np.abs(credits.credit)
    rows = []
    for place, name in enumerate(action.levels):
        of_action = action.code == place
        gap, n = credits.gap_us[of_action], int(of_action.sum())
        edges = np.unique(np.quantile(gap, np.arange(1, _N_BINS) / _N_BINS))
        code, n_bins = np.searchsorted(edges, gap, side="right"), len(edges) + 1
        count, total = (draws.sums(user[of_action], code, n_bins, one) for one in (None, size[of_action]))
        there = count.sum(axis=0) > 0
        count, total = count[:, there], total[:, there]
        middle = np.bincount(code, gap, n_bins)[there] / count.sum(axis=0)
        found = _half_lives(middle, count.sum(axis=0)[None], total.sum(axis=0)[None])[0]
        drawn = _half_lives(middle, draws.draw(count), draws.draw(total))
        rows.append(_row(name, "ledger", found, drawn, middle, n))
        if isinstance(model, FadingModel) and "ranking" in tasks_of(model) and sequences is not None:
            gaps_us = np.geomspace(min(_FIRST_GAP_US, middle[0] + 1e6), middle[-1] + 2e6, _N_GAPS)
            rows += _of_kernels(model, sequences, name, gaps_us, seed)
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


_SCHEMA = pa.schema(
    [("action", pa.string()), ("from", pa.string())]
    + [(name, pa.int64()) for name in ("half_life_us", "low_us", "high_us", "shortest_us", "longest_us", "n_credits")]
)


def _of_kernels(
    model: FadingModel, sequences: Sequences, action: str, gaps_us: np.ndarray, seed: int
) -> list[dict[str, object]]:
    """Ask single events of an action for what came next after them."""
    idx = sequences.vocab.actions.to_idx([action])[0]
    last = sequences.offsets[1:] - 1
    has_next = np.ones(len(sequences), bool)
    has_next[last[last >= sequences.offsets[:-1]]] = False
    next_item = np.append(sequences.item_idx[1:], -1)
    place = np.flatnonzero((sequences.action_idx == idx) & has_next & (next_item >= 0))
    if len(place) == 0:
        return []
    rng = np.random.default_rng(seed)
    place = np.sort(rng.permutation(place)[:_N_SAMPLED])
    moments = Moments(
        sequences=sequences,
        user_idx=sequences.user_idx[place],
        start=place,
        stop=place + 1,
        target_stop=place + 1,
    )
    faded = np.abs(model.faded_credits(moments, next_item[place], gaps_us / 1e6))
    weight = Resampling.of(len(place), seed=seed) if len(place) > 1 else None
    ones = np.ones(faded.shape)
    found = _half_lives(gaps_us, ones.sum(axis=0)[None], faded.sum(axis=0)[None])[0]
    drawn = np.full(2, np.nan)
    if weight is not None:
        drawn = _half_lives(gaps_us, weight.draw(ones), weight.draw(faded))
    return [_row(action, "kernels", found, drawn, gaps_us, len(place))]


def _half_lives(middle: np.ndarray, count: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return the half-life of each curve, (R, B) of sums; infinite where it does not come down to half."""
    mean = ratio(total, count)
    return np.array([_half_life(middle, one, n) for one, n in zip(mean, count, strict=True)])


def _half_life(middle: np.ndarray, mean: np.ndarray, count: np.ndarray) -> float:
    there = count > 0
    middle, mean, count = middle[there], mean[there], count[there]
    if len(mean) < 2 or mean.max() == 0:
        return float("inf")
    level = isotonic_regression(mean, weights=count, increasing=False).x
    half = level[0] / 2
    below = np.flatnonzero(level <= half)
    if len(below) == 0:
        return float("inf")
    stop = below[0]
    # Between two bins an exponential, so that of an exponential the half-life is exact.
    high, low = np.log(level[stop - 1]), np.log(max(level[stop], 1e-3 * half))
    share = (high - np.log(half)) / (high - low)
    return float(middle[stop - 1] + share * (middle[stop] - middle[stop - 1]) - middle[0])


def _row(action: str, source: str, found: float, drawn: np.ndarray, middle: np.ndarray, n: int) -> dict[str, object]:
    # Without a half-life a curve has one beyond what was seen, so it counts among the longest.
    low, high = np.quantile(np.where(np.isnan(drawn), np.inf, drawn), [0.025, 0.975], method="inverted_cdf")
    return {
        "action": action,
        "from": source,
        "half_life_us": _whole(found),
        "low_us": _whole(low),
        "high_us": _whole(high),
        "shortest_us": round(middle[0]),
        "longest_us": round(middle[-1]),
        "n_credits": n,
    }


def _whole(value: float) -> int | None:
    return round(value) if np.isfinite(value) else None
