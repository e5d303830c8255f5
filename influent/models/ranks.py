"""Scores to ranks: where in the full catalogue the items stand that came next."""

from __future__ import annotations

from typing import Literal

import numpy as np

from influent.data.moments import Moments, ranges
from influent.models.model import Model
from influent.progress import Progress

Seen = Literal["exclude", "keep"]
"""Whether items of the history may be recommended again."""

BATCH = 256
"""Moments scored at a time: the scores of a batch are the largest thing in memory."""


def exclude_seen(scores: np.ndarray, moments: Moments) -> np.ndarray:
    """Return the scores with minus infinity for every item in the moment's whole history."""
    lengths = moments.stop - moments.start
    items = moments.sequences.item_idx[ranges(moments.start, lengths)]
    owner = np.repeat(np.arange(len(moments)), lengths)
    scores = scores.copy()
    scores[owner[items >= 0], items[items >= 0]] = -np.inf
    return scores


def target_ranks(
    model: Model, moments: Moments, *, seen: Seen = "exclude", progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rank of each target, flat float64, and each moment's offsets, (N + 1,).

    The rank counts from 1 over the full catalogue. Items with equal scores share the mean of their ranks, so that
    an order among ties that means nothing earns nothing. A target that may not be recommended (unknown, or seen and
    left out) has rank infinity.
    """
    items, offsets = moments.target_items()
    found = np.full(len(items), np.inf)
    with (progress or Progress()).track(f"rank {model.name}", len(moments)) as advance:
        for first in range(0, len(moments), BATCH):
            batch = moments.take(slice(first, first + BATCH))
            scores = model.predict(batch)
            if seen == "exclude":
                scores = exclude_seen(scores, batch)
            of_batch = slice(offsets[first], offsets[first + len(batch)])
            owner = np.repeat(np.arange(len(batch)), np.diff(offsets[first : first + len(batch) + 1]))
            found[of_batch] = _ranks(scores, owner, items[of_batch])
            advance(len(batch))
    return found, offsets


def _ranks(scores: np.ndarray, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
    target = np.where(items >= 0, scores[rows, items], -np.inf)
    ahead, level = np.empty(len(rows)), np.empty(len(rows))
    # A moment may have many targets; their score rows are copied a few at a time.
    for first in range(0, len(rows), BATCH):
        some = slice(first, first + BATCH)
        of_rows = scores[rows[some]]
        ahead[some] = (of_rows > target[some, None]).sum(axis=1)
        level[some] = (of_rows == target[some, None]).sum(axis=1)
    return np.where(np.isfinite(target), ahead + (level + 1) / 2, np.inf)


def ndcg(ranks: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """Return the discounted gain of the targets up to rank k, divided by the most there could be, (N,).

    The gain of a target is 1, its discount log2(1 + rank); the best order puts min(n, k) targets first. Järvelin and
    Kekäläinen, Cumulated gain-based evaluation of IR techniques, 2002, with binary gains.

    Example:
        >>> ndcg(np.array([1.0, 3.0]), np.array([0, 2]), k=10).round(4).tolist()  # (1 + 1/2) / (1 + 1/log2(3))
        [0.9197]
    """
    gain = np.add.reduceat(np.where(ranks <= k, 1 / np.log2(1 + ranks), 0.0), offsets[:-1])
    best = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    return np.asarray(gain / best[np.minimum(np.diff(offsets), k)])
