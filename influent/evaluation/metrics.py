"""Ranks of what came next to measures of accuracy, one value per moment.

A rank counts from 1 and is shared by ties (the mean of their places); infinity is a target that could not be
recommended. Moments without a target have no value and are left out by the caller. `offsets` (N + 1,) says which
ranks belong to which moment.
"""

from __future__ import annotations

import numpy as np

from influent.models.ranks import ndcg
from influent.settings import check_int


def hit_rate(ranks: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """Return 1 where any target stands at rank k or better, else 0.

    Example:
        >>> hit_rate(np.array([3.0, 11.0]), np.array([0, 1, 2]), k=10).tolist()
        [1.0, 0.0]
    """
    return (_sum(ranks <= k, offsets) > 0).astype(np.float64)


def reciprocal_rank(ranks: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """Return 1 / rank of the best target, 0 where that is beyond k; its mean is the MRR.

    Example:
        >>> reciprocal_rank(np.array([4.0, 2.0]), np.array([0, 2]), k=10).tolist()
        [0.5]
    """
    best = np.minimum.reduceat(ranks, offsets[:-1])
    return np.where(best <= k, 1 / best, 0.0)


def recall(ranks: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """Return the share of the targets that stand at rank k or better.

    Example:
        >>> recall(np.array([1.0, 12.0]), np.array([0, 2]), k=10).tolist()
        [0.5]
    """
    return np.asarray(_sum(ranks <= k, offsets) / np.diff(offsets))


def precision(ranks: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """Return the share of the first k places that hold a target.

    Example:
        >>> precision(np.array([1.0, 12.0]), np.array([0, 2]), k=10).tolist()
        [0.1]
    """
    return np.asarray(_sum(ranks <= k, offsets) / k)


METRICS = {"HR": hit_rate, "NDCG": ndcg, "MRR": reciprocal_rank, "recall": recall, "precision": precision}


def bootstrap_interval(
    values: np.ndarray, owner: np.ndarray, *, n_resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `values` when users are drawn anew, with replacement.

    Percentile bootstrap (Efron 1979). All moments of a user are drawn together, since they are not independent.

    Args:
        values: one per moment, (N,).
        owner: the user of each, (N,).

    Example:
        >>> bootstrap_interval(np.ones(5), np.arange(5))
        (1.0, 1.0)
    """
    check_int("n_resamples", n_resamples, 1)
    _, user = np.unique(owner, return_inverse=True)
    total, count = np.bincount(user, weights=values), np.bincount(user)
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    for place in range(n_resamples):
        drawn = rng.integers(0, len(total), len(total))
        means[place] = total[drawn].sum() / count[drawn].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _sum(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values.astype(np.float64), offsets[:-1])
