"""Rows in groups to a coefficient and its standard error, which stays right where rows of a group go together.

Shapes: N rows, K columns, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from influent.errors import DataError
from influent.evaluation.report import Measure

_COLLINEAR = 1e-9
"""A column that keeps less than this of its length beside the others says nothing of its own."""


@dataclass(frozen=True)
class Coefficient:
    """One coefficient of a regression."""

    value: float
    standard_error: float
    degrees_of_freedom: float

    def measure(self) -> Measure:
        """Return it with its 95 % interval, by Student's t."""
        reach = float(stats.t.ppf(0.975, self.degrees_of_freedom)) * self.standard_error
        return Measure(self.value, self.value - reach, self.value + reach)


def fit_coefficient(
    columns: dict[str, np.ndarray], outcome: np.ndarray, weight: np.ndarray, group: np.ndarray, name: str
) -> Coefficient:
    """Fit by weighted least squares and return one coefficient.

    The standard error is CR2 (Bell and McCaffrey, 2002; Pustejovsky and Tipton, 2018,
    https://doi.org/10.1080/07350015.2016.1247004): the residuals of a group are made as large as they would be had it
    no part in the fit. Groups of one row make it HC2, which for two arms is s₁²/n₁ + s₀²/n₀. The degrees of freedom
    are those of the same paper, by the number of groups and how much each of them weighs.

    Args:
        columns: by name, float64 (N,) each, a constant among them.
        weight: float64 (N,), above 0.
        group: int64 (N,), 0 … G − 1.

    Raises:
        DataError: a column follows from those before it.
    """
    root = np.sqrt(weight)
    x_NK = np.stack(list(columns.values()), axis=1) * root[:, None]
    q_NK, r_KK = np.linalg.qr(x_NK)
    dependent = np.abs(np.diag(r_KK)) <= _COLLINEAR * np.linalg.norm(x_NK, axis=0)
    if dependent.any():
        raise DataError(
            f"{list(columns)[int(np.argmax(dependent))]!r} follows from the strata and the covariates before it, so "
            "that it adds nothing. Leave it out."
        )
    # The coefficient is a sum over rows, Σ q·a × √w·y; so is its error, with the residuals in place of y.
    a_K = np.linalg.solve(r_KK.T, np.eye(len(columns))[list(columns).index(name)])
    # A constant is among the columns, so taking the mean away changes no other coefficient, and keeps their digits.
    apart_N = root * (outcome - outcome.mean())
    fitted_K = q_NK.T @ apart_N
    residual_N = without_rounding(apart_N - q_NK @ fitted_K, root * outcome)
    adjusted_N = _adjusted(q_NK, a_K, group)
    error_G = np.bincount(group, weights=adjusted_N * residual_N)
    size_G = np.bincount(group, weights=adjusted_N**2)
    u_GK = np.stack([np.bincount(group, weights=adjusted_N * column) for column in q_NK.T], axis=1)
    value = float(without_rounding(a_K @ fitted_K, root * outcome))
    return Coefficient(value, float(np.sqrt((error_G**2).sum())), _degrees_of_freedom(size_G, u_GK))


def without_rounding(found: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return what was found by adding and taking away numbers, zero where it is nothing but their rounding.

    Without this a constant outcome would have an effect, by as little as its residuals.
    """
    return np.where(np.abs(found) <= 1e-13 * np.abs(of).max(initial=0), 0.0, found)


def _adjusted(q_NK: np.ndarray, a_K: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return (I − Q_g Q_gᵀ)^−½ Q_g a of each group g, in the order of the rows; all groups of one size at once."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    first, adjusted_N = np.cumsum(sizes) - sizes, np.empty(len(group))
    for size in np.unique(sizes[sizes > 0]):
        rows = order[first[sizes == size][:, None] + np.arange(size)]
        q = q_NK[rows]
        if size <= len(a_K):
            adjusted = _inverse_root(q @ q.transpose(0, 2, 1)) @ (q @ a_K)[:, :, None]
        else:  # the same by the smaller matrix, since (I − QQᵀ)^−½ Q = Q (I − QᵀQ)^−½
            adjusted = q @ (_inverse_root(q.transpose(0, 2, 1) @ q) @ a_K)[:, :, None]
        adjusted_N[rows] = adjusted[:, :, 0]
    return adjusted_N


def _inverse_root(gram: np.ndarray) -> np.ndarray:
    """Return (I − gram)^−½ of each matrix, and 0 in the directions that a group alone decides."""
    values, vectors = np.linalg.eigh(gram)
    left = 1 - values
    scale = np.where(left > 1e-9, 1 / np.sqrt(np.maximum(left, 1e-9)), 0.0)
    return np.asarray((vectors * scale[:, None, :]) @ vectors.transpose(0, 2, 1))


def _degrees_of_freedom(size_G: np.ndarray, u_GK: np.ndarray) -> float:
    """Return (tr P)² / tr P² of P = diag(size) − U Uᵀ, the covariance of what each group adds to the error."""
    gram = u_GK.T @ u_GK
    trace = size_G.sum() - np.trace(gram)
    of_square = (size_G**2).sum() - 2 * (size_G * (u_GK**2).sum(axis=1)).sum() + (gram**2).sum()
    return float(max(trace**2 / of_square, 1.0)) if of_square > 0 else 1.0
