"""Factors and credits to which factors matter: what a boosted model of log |credit| loses without each of them.

The model (gradient boosting, scikit-learn's `HistGradientBoostingRegressor`) learns from the credits of one half of the
users and is judged on those of the other half.

Shapes: N credits, F factors, L levels.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from influent.errors import DataError, MissingExtraError
from influent.influence.levels import EventCredits, Factor
from influent.influence.resampling import Resampling, interval, ratio

_MAX_ROWS = 50_000
_N_REPEATS = 3
_N_MARGINAL = 2_000
_FLOOR = 0.01


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much one factor tells of the size of credits, beyond what the others tell."""

    factor: str
    importance: float
    """share of the variance of log |credit|: half of what shuffling the factor adds to the squared error"""
    low: float
    high: float
    """95 % interval, by bootstrap over users"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """Factors by importance, and their levels adjusted for each other."""

    explained: float
    """part of the variance of log |credit| that all factors explain together (R²), of users not learned from"""
    factors: tuple[Importance, ...]
    """the most important first"""
    adjusted: dict[str, np.ndarray]
    """float64 (L,) by factor: how many times the mean |credit| a level has, the other factors being as they are"""


def rank_factors(credits: EventCredits, factors: Sequence[Factor], draws: Resampling, *, seed: int = 0) -> Ranking:
    """Fit the model and say what it loses without each factor.

    Importance is by permutation (Breiman 2001, https://doi.org/10.1023/A:1010933404324). Where factors are independent
    and their terms add up, a term's variance is half of what shuffling it adds to the squared error (Gregorutti et
    al. 2017, https://doi.org/10.1007/s11222-016-9646-1), so that halves are shares of the variance; factors that say
    the same, as lag and gap nearly do, share theirs. Adjusted levels are partial dependence (Friedman 2001,
    https://doi.org/10.1214/aos/1013203451): every one of a sample of credits is given the level, the model says its
    logarithm, and the power of the mean of these is set against its mean over all credits. The logarithm is of
    |credit| plus 1 % of its mean, so that credits of nothing do not decide. At most 50,000 credits of each half are
    read.

    Raises:
        MissingExtraError: scikit-learn is not installed.
        DataError: all credits are alike, or one half of the users has none.
    """
    rng = np.random.default_rng(seed)
    user = credits.user_of_credit
    size = np.abs(credits.credit)
    if np.ptp(size) == 0:
        raise DataError(f"all credits are {size[0]:g}: there is nothing that a factor could tell apart.")
    y = np.log(size + _FLOOR * size.mean())
    # Of users with a credit, so that neither half is empty.
    with_credit = np.unique(user)
    in_first = np.zeros(credits.n_users, bool)
    in_first[rng.permutation(with_credit)[: len(with_credit) // 2]] = True
    learn, judge = (_some(np.flatnonzero(of_half), rng) for of_half in (in_first[user], ~in_first[user]))
    if len(learn) == 0 or len(judge) == 0:
        raise DataError("credits are of one user only, and the factors of some are to be judged on others.")
    x = np.stack([factor.code for factor in factors], axis=1).astype(np.float32)
    model = _boosting()(
        categorical_features=[not factor.is_ordered for factor in factors], early_stopping=False, random_state=seed
    )
    model.fit(x[learn], y[learn])
    # Sums over users, so that the intervals need no further prediction.
    error = _squares(user[judge], y[judge] - model.predict(x[judge]), draws)
    spread = _squares(user[judge], y[judge] - y[judge].mean(), draws)
    found = []
    for place, factor in enumerate(factors):
        worse = np.zeros_like(error)
        for _ in range(_N_REPEATS):
            shuffled = x[judge]
            shuffled[:, place] = rng.permutation(shuffled[:, place])
            worse += _squares(user[judge], y[judge] - model.predict(shuffled), draws) / _N_REPEATS
        lost = (worse - error) / 2
        low, high = interval(ratio(draws.draw(lost), draws.draw(spread)))
        found.append(
            Importance(
                factor=factor.name,
                importance=float(lost.sum() / spread.sum()),
                low=float(low[0]),
                high=float(high[0]),
            )
        )
    sample = x[judge[rng.permutation(len(judge))[:_N_MARGINAL]]]
    return Ranking(
        explained=float(1 - error.sum() / spread.sum()),
        factors=tuple(sorted(found, key=lambda one: -one.importance)),
        adjusted={factor.name: _marginal(model, sample, place, factor) for place, factor in enumerate(factors)},
    )


def _some(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= _MAX_ROWS else rows[np.sort(rng.permutation(len(rows))[:_MAX_ROWS])]


def _squares(user: np.ndarray, error: np.ndarray, draws: Resampling) -> np.ndarray:
    """Return the sum of squares of each group of users, (G, 1)."""
    return draws.sums(user, np.zeros(len(user), np.int64), 1, error**2)


def _marginal(model: Any, sample: np.ndarray, place: int, factor: Factor) -> np.ndarray:
    x = np.tile(sample, (len(factor), 1))
    x[:, place] = np.repeat(np.arange(len(factor)), len(sample))
    log_size = model.predict(x).reshape(len(factor), len(sample)).mean(axis=1)
    share = np.bincount(factor.code, minlength=len(factor)) / len(factor.code)
    return np.asarray(np.exp(log_size) / (share @ np.exp(log_size)))


def _boosting() -> Any:
    try:
        return importlib.import_module("sklearn.ensemble").HistGradientBoostingRegressor
    except ImportError as error:
        raise MissingExtraError(
            "ranking factors needs scikit-learn: pip install 'influent[classical]'. Without a ranking: rank=False, or "
            "--no-rank."
        ) from error
