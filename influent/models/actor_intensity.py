"""Who acts next in a cascade, learned: how much each way of counting draws, and how much a user's own activity.

The intensity with which user v acts next is a sum with one term for each user u in the cascade, times a factor of v's
own. Both are read from an `ActorStream`, so nothing at or after the moment is in them:

    λ(v) = ρ(v) · (Σ_k α_k share_k(v) + floor + Σ_u Σ_m β_m · weight_m(lag_u, gap_u) · C_m[u, v] / (1 + ΣC_m[u]))
    ρ(v) = Π_k (activity_k(v) + ε)^w_k

share_k(v) is v's share of all activity with the k-th half-life: who is active right now. C_m are counts of who came
after whom, within different windows and halved with different half-lives. α and β are not negative, so the sum is the
intensity of a multivariate Hawkes process whose kernels are counted (Hawkes, Spectra of some self-exciting and mutually
exciting point processes, 1971). ρ corrects for users who come after everybody, and who became busier or quieter. All
weights are found together by maximum likelihood of who came next, P(v) ∝ λ(v)^γ (a conditional logit; McFadden 1973).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from scipy.optimize import minimize

from influent.data.cascades import NextActs
from influent.errors import DataError, LeakageError, NotFittedError
from influent.models.actor_stream import ActorMoment, ActorStream, PairCounting, walk
from influent.models.next_actor import StreamedModel
from influent.models.transitions import PairDecay
from influent.settings import check_int, check_type

_TINY = 1e-12
_ACTIVITY_FLOOR = 0.01
"""ε: an act that 6.6 half-lives have passed over counts as none."""
_L2, _L2_OF_POWERS = 1e-4, 1e-3
"""Pull of the logarithms of all weights to equal ones and of γ · w to 0, in nats per prediction: it settles what the
data leave open. Activities of many days tell one another: without the stronger pull their powers grow against each
other."""
_N_HARD, _N_DRAWN = 200, 200
"""Rivals of a fit: those best by equal weights, and others drawn, each of which stands for many."""


@dataclass(frozen=True)
class Reach:
    """How much an act of the cascade draws, by how many acts and how long ago it was."""

    decay: float
    half_life_days: float = float("inf")

    def weight(self, moment: ActorMoment) -> np.ndarray:
        """Return the weight of each earlier act, float64 (L,)."""
        days = moment.gap_us / 86_400e6
        return np.asarray(self.decay ** (moment.lag - 1.0) * 0.5 ** (days / self.half_life_days))


COUNTINGS = (
    PairCounting(pairs=PairDecay(window=8, decay=0.6, reverse=0.0)),
    PairCounting(pairs=PairDecay(window=30, decay=0.95, reverse=0.0)),
    PairCounting(pairs=PairDecay(window=30, decay=0.95, reverse=0.0), half_life_days=14.0),
    PairCounting(pairs=PairDecay(window=20, decay=0.8, reverse=1.0)),
    PairCounting(pairs=PairDecay(window=100, decay=1.0, reverse=1.0)),
)
"""Who comes right after whom, who comes soon after, who lately did, who is near, and who is there at all"""
REACHES = (Reach(0.5), Reach(0.9), Reach(1.0), Reach(1.0, 1 / 24))


@dataclass(kw_only=True)
class ActorIntensity(StreamedModel):
    """Activity and counts of who came after whom, with weights that are learned from acts before the test."""

    countings: tuple[PairCounting, ...] = COUNTINGS
    reaches: tuple[Reach, ...] = REACHES
    half_lives_days: tuple[float, ...] = (1 / 288, 1 / 24, 1.0, 7.0, 30.0, 90.0, float("inf"))
    max_len: int | None = 25
    """How many of the cascade's latest acts are read."""
    n_acts: int = 2000
    """How many acts the weights are learned from: those of the cascades that began last, most like what comes."""
    max_users: int = 20_000
    seed: int = 0

    name = "intensity"
    fitted_until_us: int | None = field(default=None, init=False)
    alpha: np.ndarray = field(init=False, repr=False)
    """float64 (H + 1,): weights of shares of activity, then of the floor"""
    beta: np.ndarray = field(init=False, repr=False)
    """float64 (M · R,): weights of counts, each with each reach"""
    power: np.ndarray = field(init=False, repr=False)
    """float64 (H,): w"""
    gamma: float = field(default=1.0, init=False)
    log_likelihood: float = field(default=float("nan"), init=False)
    """Mean of the fitted acts, in nats, among their rivals"""

    def fit(self, acts: NextActs) -> Self:
        """Find the weights by maximum likelihood of who came next.

        Args:
            acts: `split.train`, or `split.train_and_validation` once the settings are chosen.

        Raises:
            DataError: there are no acts.
            ConfigError: these are no acts, or `n_acts` is below 1.
        """
        check_type("acts", acts, NextActs, "split_cascades(cascades)")
        check_int("n_acts", self.n_acts, 1)
        if len(acts) == 0:
            raise DataError("there are no acts to learn from. Give more cascades, or a smaller part for tests.")
        n_sums = len(self.half_lives_days) + 1 + len(self.countings) * len(self.reaches)
        self.alpha, self.beta = np.split(np.full(n_sums, 1 / n_sums), [len(self.half_lives_days) + 1])
        self.power, self.gamma = np.zeros(len(self.half_lives_days)), 1.0
        chosen = self._latest(acts)
        terms, log_activity, log_odds = self._examples(chosen)
        objective = _Objective(terms, log_activity, log_odds)
        found = minimize(objective, objective.start, jac=True, method="L-BFGS-B", options={"maxiter": 1000})
        weights, self.power, self.gamma = objective.read(found.x)
        self.alpha, self.beta = np.split(weights, [len(self.alpha)])
        self.log_likelihood = -float(found.fun)
        self.fitted_until_us = int(chosen.time_us.max())
        return self

    def _latest(self, acts: NextActs) -> NextActs:
        start_us = acts.cascades.start_us[acts.cascade_idx]
        order = np.argsort(-start_us, kind="stable")
        enough = start_us >= start_us[order[: self.n_acts][-1]]
        # The last cascade that is needed may be long; what is too many is drawn away from all.
        rows = np.flatnonzero(enough)
        return acts.take(np.random.default_rng(self.seed).permutation(rows)[: self.n_acts])

    def _examples(self, acts: NextActs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return of each act its user and rivals: terms (N, C, S), log activity (N, C, H) and log odds (N, C).

        The user stands first. A rival that was drawn counts for as many as it stands for, one that is none for nothing.
        """
        rng = np.random.default_rng(self.seed)
        n_users, n_rivals = acts.cascades.n_users, _N_HARD + _N_DRAWN
        n_sums, n_lives = len(self.alpha) + len(self.beta), len(self.half_lives_days)
        terms = np.zeros((len(acts), 1 + n_rivals, n_sums), np.float32)
        log_activity = np.zeros((len(acts), 1 + n_rivals, n_lives), np.float32)
        log_odds = np.full((len(acts), 1 + n_rivals), -np.inf, np.float32)
        stream, users = self._read(acts), acts.user_idx
        for moment in walk(acts, stream, self.max_len):
            row, answer = moment.row, int(users[moment.row])
            sums = self._sums(stream, moment)
            order = sums.sum(axis=0)
            order[acts.cascades.user_idx[acts.cascades.history(int(acts.place[row]))]] = -np.inf
            order[answer] = -np.inf
            n_hard = min(_N_HARD, n_users)
            hard = np.argpartition(-order, n_hard - 1)[:n_hard]
            hard = hard[np.isfinite(order[hard])]
            order[hard] = -np.inf
            others = np.flatnonzero(np.isfinite(order))
            drawn = rng.choice(others, min(_N_DRAWN, len(others)), replace=False)
            chosen = np.concatenate([[answer], hard, drawn])
            terms[row, : len(chosen)] = sums[:, chosen].T
            log_activity[row, : len(chosen)] = np.log(stream.activity[:, chosen] + _ACTIVITY_FLOOR).T
            log_odds[row, : 1 + len(hard)] = 0
            log_odds[row, 1 + len(hard) : len(chosen)] = np.log(max(len(others), 1) / max(len(drawn), 1))
        return terms, log_activity, log_odds

    def _stream(self, acts: NextActs) -> ActorStream:
        if self.fitted_until_us is None:
            raise NotFittedError("this intensity model is not fitted. Call fit(split.train) first.")
        if len(acts) and self.fitted_until_us >= acts.time_us.min():
            raise LeakageError(
                "the weights were learned from acts that are not earlier than those to be predicted. "
                "Fit on split.train to be judged on validation, on split.train_and_validation to be judged on test."
            )
        return self._read(acts)

    def _read(self, acts: NextActs) -> ActorStream:
        return ActorStream(
            acts.cascades,
            countings=self.countings,
            half_lives_days=self.half_lives_days,
            max_users=self.max_users,
        )

    def _own(self, stream: ActorStream, moment: ActorMoment, users: np.ndarray | slice) -> np.ndarray:
        return np.asarray(self._factor(stream, users) * (self.alpha @ self._shares(stream, users)))

    def _drawn(self, stream: ActorStream, moment: ActorMoment, users: np.ndarray) -> np.ndarray:
        found = np.zeros((len(moment.place), len(users)))
        for beta, weight, counts in self._tables(stream, moment):
            found += (beta @ weight)[:, None] * counts[moment.user_idx[:, None], users]
        return np.asarray(found * self._factor(stream, users))

    def _total(self, stream: ActorStream, moment: ActorMoment) -> np.ndarray:
        drawn = np.zeros(stream.cascades.n_users)
        for beta, weight, counts in self._tables(stream, moment):
            drawn += (beta @ weight).astype(np.float32) @ counts[moment.user_idx]
        return np.asarray(self._own(stream, moment, slice(None)) + drawn * self._factor(stream, slice(None)))

    def _sums(self, stream: ActorStream, moment: ActorMoment) -> np.ndarray:
        """Return what the weights are of, for every user, float64 (S, U)."""
        drawn = [
            weight.astype(np.float32) @ counts[moment.user_idx] for _, weight, counts in self._tables(stream, moment)
        ]
        return np.concatenate([self._shares(stream, slice(None)), *drawn])

    def _tables(self, stream: ActorStream, moment: ActorMoment) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return for each counting its β (R,), the weights of the earlier acts' rows (R, L), and the counts (U, U)."""
        reach = np.stack([one.weight(moment) for one in self.reaches])
        found = []
        for table, beta in enumerate(np.split(self.beta, len(self.countings))):
            scale = stream.scale(table)
            row_sum = stream.row_sums[table][moment.user_idx] * scale
            found.append((beta, reach * (scale / (1 + row_sum)), stream.counts[table]))
        return found

    def _shares(self, stream: ActorStream, users: np.ndarray | slice) -> np.ndarray:
        """Return each user's share of all activity, and of all users, float64 (H + 1, X)."""
        activity = stream.activity
        share = activity[:, users] / np.maximum(activity.sum(axis=1, keepdims=True), _TINY)
        return np.concatenate([share, np.full((1, share.shape[1]), 1 / activity.shape[1])])

    def _factor(self, stream: ActorStream, users: np.ndarray | slice) -> np.ndarray:
        """Return ρ, float64 (X,)."""
        return np.asarray(np.exp(self.power @ np.log(stream.activity[:, users] + _ACTIVITY_FLOOR)))


class _Objective:
    """Minus the mean log-likelihood, and its gradient by the logarithms of α and β, by γ · w and the logarithm of γ."""

    def __init__(self, terms: np.ndarray, log_activity: np.ndarray, log_odds: np.ndarray) -> None:
        n_sums, n_lives = terms.shape[2], log_activity.shape[2]
        # Flat, so that each product is one of a matrix and a vector.
        self._terms, self._log_activity = terms.reshape(-1, n_sums), log_activity.reshape(-1, n_lives)
        self._log_odds, self._n_sums = log_odds, n_sums
        self.start = np.zeros(n_sums + n_lives + 1)
        self._pull = np.full(len(self.start), _L2)
        self._pull[n_sums:-1] = _L2_OF_POWERS

    def read(self, found: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """Return weights of sums, powers w and γ; ranks do not change with the scale of the weights."""
        weights, gamma = np.exp(found[: self._n_sums]), float(np.exp(found[-1]))
        return weights / weights.sum(), found[self._n_sums : -1] / gamma, gamma

    def __call__(self, found: np.ndarray) -> tuple[float, np.ndarray]:
        weights, powers, gamma = np.exp(found[: self._n_sums]), found[self._n_sums : -1], np.exp(found[-1])
        total = self._terms @ weights.astype(np.float32) + np.float32(_TINY)
        log_total = np.log(total)
        logits = np.float32(gamma) * log_total + self._log_activity @ powers.astype(np.float32)
        logits = logits.reshape(self._log_odds.shape) + self._log_odds
        chance = np.exp(logits - logits.max(axis=1, keepdims=True))
        chance /= chance.sum(axis=1, keepdims=True)
        n_acts = len(chance)
        value = -np.log(np.maximum(chance[:, 0], _TINY)).mean() + self._pull @ found**2
        chance[:, 0] -= 1
        pull = chance.ravel()
        by_term = (np.float32(gamma) * pull / total) @ self._terms
        by_power = pull @ self._log_activity
        gradient = np.concatenate([by_term * weights, by_power, [gamma * (pull @ log_total)]]) / n_acts
        return float(value), gradient + 2 * self._pull * found
