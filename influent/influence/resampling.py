"""Sums over users to how far they would be off with other users: the bootstrap over users, without touching rows again.

Users are first put at random into at most `N_GROUPS` groups, and groups are drawn. Where there are more users than
that, the spread is estimated as well as that many users would tell it (random groups: Wolter 2007, Introduction to
Variance Estimation, ch. 2), at a cost that does not grow with the log.

Shapes: N rows, U users, G groups, R resamples, L levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from influent.errors import DataError
from influent.settings import check_int

N_GROUPS = 1_000
N_RESAMPLES = 500


@dataclass(frozen=True, eq=False)
class Resampling:
    """Users drawn anew, with replacement, R times."""

    group: np.ndarray
    """int64 (U,): the group of each user"""
    weight: np.ndarray
    """float64 (R, G): how often each group is drawn"""

    @classmethod
    def of(cls, n_users: int, *, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Resampling:
        """Draw groups of users.

        Raises:
            DataError: there is one user only.
            ConfigError: `n_resamples` is below 100, or `seed` below 0.
        """
        if n_users < 2:
            raise DataError("an interval needs two users or more, and this ledger is of one. Explain those of more.")
        check_int("n_resamples", n_resamples, 100)
        check_int("seed", seed, 0)
        rng = np.random.default_rng(seed)
        n_groups = min(n_users, N_GROUPS)
        group = np.arange(n_users) if n_users <= N_GROUPS else rng.permutation(n_users) % n_groups
        drawn = rng.integers(0, n_groups, (n_resamples, n_groups)) + n_groups * np.arange(n_resamples)[:, None]
        weight = np.bincount(drawn.reshape(-1), minlength=n_resamples * n_groups).reshape(n_resamples, n_groups)
        return cls(group, weight.astype(np.float64))

    @property
    def n_groups(self) -> int:
        """Return G."""
        return len(self.weight[0])

    def sums(self, user: np.ndarray, code: np.ndarray, n_levels: int, values: np.ndarray | None = None) -> np.ndarray:
        """Return the sum of `values` (N,), or the number of rows, of each group and level, float64 (G, L)."""
        cell = self.group[user] * n_levels + code
        sums = np.bincount(cell, values, self.n_groups * n_levels)
        return sums.reshape(self.n_groups, n_levels).astype(np.float64)

    def draw(self, sums: np.ndarray) -> np.ndarray:
        """Return the totals of (G, …) in each resample, (R, …)."""
        return np.asarray(np.tensordot(self.weight, sums, axes=1))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, NaN where there is nothing to divide by."""
    nothing = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    return np.asarray(np.divide(numerator, denominator, out=nothing, where=denominator != 0))


def interval(drawn: np.ndarray, n_groups: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % percentile interval over the first axis, without the resamples that have no value.

    Args:
        drawn: values in each resample, (R, …).
        n_groups: of how many groups of users each value is; of fewer than two there is no interval, and it is NaN.
    """
    empty = np.isnan(drawn).all(axis=0)
    if n_groups is not None:
        empty |= n_groups < 2
    low, high = np.nanquantile(np.where(empty, 0.0, drawn), [0.025, 0.975], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def null_if_nan(values: Any) -> Any:
    """Return float values as an Arrow array that is null where there is none, and anything else as it is."""
    is_real = isinstance(values, np.ndarray) and values.dtype.kind == "f"
    return pa.array(values, mask=np.isnan(values)) if is_real else values
