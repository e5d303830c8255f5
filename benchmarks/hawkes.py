"""The peer for what comes next and when: a multivariate Hawkes process with exponential kernels.

    λ_i(t) = μ_i + Σ_{j: t_j < t} Σ_d α_{k_j → i, d} · δ_d · exp(−δ_d (t − t_j))        k_j: the type of event j

All users share μ, α ≥ 0, and a fixed set of decays δ. A user's process begins at their first event, which is given.
Hawkes, Spectra of some self-exciting and mutually exciting point processes, 1971.

Usage: python -m benchmarks.hawkes     fits a simulated process and prints what was planted and what was found

Shapes: E events, N moments, K types as sources, I types as targets, D decays, G points of time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from scipy.optimize import minimize

import influent
from influent.evaluation.times import ConstantRate, gaps_to_next

_POINTS = 200
"""How many points of time the integrals over the next gap are computed on."""


@dataclass(frozen=True)
class Hawkes:
    """A fitted process, with the methods that `evaluate_times` asks for.

    What comes next is said in one of two ways. From the history alone, λ_i(t) is integrated over when the next event
    may come. At its time, λ_i(t) / Λ(t) at the time of the event that came: `log_density` and that together are the
    likelihood of the process, but it knows more than a model that does not see the time.
    """

    vocab: influent.Vocab
    fitted_on: str
    popularity: np.ndarray
    mean_gap_s: float
    decay_D: np.ndarray
    """Per second"""
    base_I: np.ndarray
    """Events per second"""
    branching_KDI: np.ndarray
    """Expected number of events of type i that one of type k leads to, by decay"""
    type_at: Literal["expected", "known"] = "expected"
    name: str = field(default="hawkes")

    @classmethod
    def fit(cls, train: influent.Sequences, decays: np.ndarray) -> Self:
        """Maximise the likelihood of every event but each user's first; it is concave, and falls apart by type."""
        constant = ConstantRate.of(train)
        stop = influent.each_moment(train).stop
        gap_s = _gaps(train)[stop]
        after_EKD = _excitement(train, decays)[stop - 1]
        left_ED = np.exp(-gap_s[:, None] * decays)
        spent_KD = np.einsum("ekd,ed->kd", after_EKD, 1 - left_ED)
        rates_EF = (after_EKD * (left_ED * decays)[:, None]).reshape(len(stop), -1)
        base, branching = _maximise(rates_EF, spent_KD.ravel(), float(gap_s.sum()), train.item_idx[stop], constant)
        return cls(
            constant.vocab,
            constant.fitted_on,
            constant.popularity,
            constant.mean_gap_s,
            decays,
            base,
            branching.reshape(*spent_KD.shape, -1),
        )

    def at_known_time(self) -> Hawkes:
        """Return the same process, which then says what comes given when it came."""
        return replace(self, type_at="known", name=f"{self.name}, type at its time")

    def predict(self, moments: influent.Moments) -> np.ndarray:
        """Return the logarithm of how likely each type comes next, (N, I)."""
        excited_NDI = self._excited(moments)
        if self.type_at == "known":
            weight_ND = self.decay_D * np.exp(-gaps_to_next(moments)[:, None] * self.decay_D)
            rate_NI = self.base_I + np.einsum("nd,ndi->ni", weight_ND, excited_NDI)
        else:
            _, alive_N, discounted_ND = self._integrals(excited_NDI.sum(axis=2))
            rate_NI = self.base_I * alive_N[:, None] + np.einsum("nd,ndi->ni", discounted_ND, excited_NDI)
        return np.asarray(np.log(rate_NI / rate_NI.sum(axis=1, keepdims=True)))

    def predict_gap(self, moments: influent.Moments) -> np.ndarray:
        """Return ∫ exp(−∫ Λ), in seconds."""
        return self._integrals(self._excited(moments).sum(axis=2))[1]

    def log_density(self, moments: influent.Moments) -> np.ndarray:
        """Return log Λ(gap) − ∫ Λ up to the gap, per second."""
        excited_ND, gap = self._excited(moments).sum(axis=2), gaps_to_next(moments)[:, None]
        left_ND = np.exp(-gap * self.decay_D)
        rate = self.base_I.sum() + (excited_ND * self.decay_D * left_ND).sum(axis=1)
        spent = self.base_I.sum() * gap[:, 0] + (excited_ND * (1 - left_ND)).sum(axis=1)
        return np.asarray(np.log(rate) - spent)

    def log_likelihood(self, moments: influent.Moments) -> float:
        """Return the mean log-likelihood of the events that came, per second."""
        log_NI = self.at_known_time().predict(moments)
        of_type = log_NI[np.arange(len(moments)), moments.sequences.item_idx[moments.stop]]
        return float((self.log_density(moments) + of_type).mean())

    def _excited(self, moments: influent.Moments) -> np.ndarray:
        """Return Σ_k α_{k → i, d} · Σ_j exp(−δ_d (t − t_j)) right after the latest event, (N, D, I)."""
        sequences = moments.sequences
        users = np.unique(moments.user_idx)
        keep = np.zeros(sequences.n_users, bool)
        keep[users] = True
        some = sequences.until(np.where(keep, sequences.offsets[1:], sequences.offsets[:-1]))
        place = moments.stop - 1 - sequences.offsets[moments.user_idx] + some.offsets[moments.user_idx]
        after_NKD = _excitement(some, self.decay_D)[place]
        return np.stack(
            [after_NKD[..., d] @ self.branching_KDI[:, d] for d in range(len(self.decay_D))], axis=1, dtype=np.float64
        )

    def _integrals(self, excited_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the grid, ∫ S and ∫ δ_d exp(−δ_d t) S over all t ≥ 0, where S(t) = exp(−∫ Λ) is being alone till t.

        The grid is even in log t and ends where the base rate alone has left e^−40. Between two points S, and S times
        the kernel, is taken as an exponential.
        """
        base = self.base_I.sum()
        t_G = np.concatenate([[0.0], np.geomspace(1e-6 / base, 40 / base, _POINTS - 1)])
        fading_DG = np.exp(-self.decay_D[:, None] * t_G)
        alive_N, discounted_ND = np.empty(len(excited_ND)), np.empty(excited_ND.shape)
        for first in range(0, len(excited_ND), 4096):
            rows = slice(first, first + 4096)
            log_NG = -base * t_G - excited_ND[rows] @ (1 - fading_DG)
            alive_N[rows] = _integral(log_NG, t_G)
            for d, decay in enumerate(self.decay_D):
                discounted_ND[rows, d] = decay * _integral(log_NG - decay * t_G, t_G)
        return t_G, alive_N, discounted_ND


def _integral(log_NG: np.ndarray, t_G: np.ndarray) -> np.ndarray:
    """Return ∫ exp(f) of functions that never rise, taken as linear between the points."""
    fall = log_NG[:, :-1] - log_NG[:, 1:]
    share = np.where(fall > 1e-8, -np.expm1(-fall) / np.maximum(fall, 1e-8), 1 - fall / 2)
    return np.asarray((np.exp(log_NG[:, :-1]) * share) @ np.diff(t_G))


def _gaps(sequences: influent.Sequences) -> np.ndarray:
    """Return the seconds from the event before, 0 at a user's first, (E,)."""
    assert sequences.time_us is not None
    gap_s = np.diff(sequences.time_us, prepend=0) / 1e6
    gap_s[sequences.offsets[:-1][np.diff(sequences.offsets) > 0]] = 0
    return np.asarray(gap_s)


def _excitement(sequences: influent.Sequences, decays: np.ndarray) -> np.ndarray:
    """Return Σ_j exp(−δ_d (t − t_j)) over a user's events of each type up to and with each event, (E, K, D).

    One recursion over the places in a sequence, for all users at once.
    """
    n_types, gap_s = sequences.vocab.n_items, _gaps(sequences)
    found_EKD = np.zeros((len(sequences), n_types, len(decays)), np.float32)
    length = np.diff(sequences.offsets)
    longest_first = np.argsort(-length, kind="stable")
    start, length = sequences.offsets[longest_first], length[longest_first]
    now_UKD = np.zeros((len(start), n_types, len(decays)))
    for place in range(int(length.max(initial=0))):
        n = int(np.searchsorted(-length, -place))
        event = start[:n] + place
        now_UKD[:n] *= np.exp(-gap_s[event][:, None] * decays)[:, None]
        now_UKD[np.arange(n), sequences.item_idx[event]] += 1
        found_EKD[event] = now_UKD[:n]
    return found_EKD


def _maximise(
    rates_EF: np.ndarray, spent_F: np.ndarray, total_s: float, item: np.ndarray, constant: ConstantRate
) -> tuple[np.ndarray, np.ndarray]:
    """Return base rates (I,) and weights (F, I) of the largest likelihood, each type on its own.

    In w_f = weight_f · spent_f / n, the expected share of a type's n events that feature f accounts for, the
    likelihood is Σ_e log Σ_f w_f y_ef − n Σ_f w_f: weights of a mixture, of which EM finds the order of magnitude and
    L-BFGS the rest. One further event in each type is laid to the base rate, so that no type is ever impossible.
    """
    n_types = len(constant.popularity)
    base, weights = np.full(n_types, 1 / total_s), np.zeros((len(spent_F), n_types))
    is_there = spent_F > 0
    scale_F = np.where(is_there, 1 / np.where(is_there, spent_F, 1.0), 0.0)
    for one in range(n_types):
        rates = rates_EF[item == one].astype(np.float64)
        n = len(rates) + 1
        y = np.vstack(
            [np.concatenate([[1.0], np.zeros(len(spent_F))]), np.c_[np.ones(len(rates)), rates * scale_F * total_s]]
        )
        share = np.full(y.shape[1], 1 / y.shape[1])
        for _ in range(30):
            share *= (y / (y @ share)[:, None]).mean(axis=0)
        share[0] = max(share[0], 1e-6)

        def loss(w: np.ndarray, y: np.ndarray = y, n: int = n) -> tuple[float, np.ndarray]:
            rate = y @ w
            return w.sum() - np.log(rate).sum() / n, 1 - (1 / rate) @ y / n

        bounds = [(1e-9, None)] + [(0, None)] * len(spent_F)
        done = minimize(loss, share, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500})
        base[one] = done.x[0] * n / total_s
        weights[:, one] = done.x[1:] * n * scale_F
    return base, weights


def choose_decays(
    train: influent.Sequences, validation: influent.Moments, *, n_decays: tuple[int, ...] = (2, 3, 4, 6, 8)
) -> tuple[Hawkes, dict[str, float]]:
    """Fit with several grids of decays and return the best on validation, and the figure of each.

    A grid is even in the logarithm, from kernels of twenty mean gaps to kernels of the 5 % quantile of the gaps.
    """
    gap_s = _gaps(train)[influent.each_moment(train).stop]
    slowest, fastest = 1 / (20 * gap_s.mean()), 1 / max(float(np.quantile(gap_s, 0.05)), 1e-3)
    found = {n: Hawkes.fit(train, np.geomspace(slowest, fastest, n)) for n in n_decays}
    score = {n: model.log_likelihood(validation) for n, model in found.items()}
    best = max(score, key=lambda n: score[n])
    return found[best], {f"{n} decays": value for n, value in score.items()}


def simulate(
    base_I: np.ndarray, branching_KI: np.ndarray, decay: float, *, n_users: int, horizon_s: float, seed: int
) -> influent.Sequences:
    """Draw a process with one decay by thinning. Ogata, On Lewis' simulation method for point processes, 1981."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, str, int]] = []
    for user in range(n_users):
        t, excited_I = 0.0, np.zeros(len(base_I))
        while True:
            # Between events the rate only falls, so what it is now bounds it.
            bound = float((base_I + decay * excited_I).sum())
            step = rng.exponential(1 / bound)
            t, excited_I = t + step, excited_I * np.exp(-decay * step)
            if t > horizon_s:
                break
            rate_I = base_I + decay * excited_I
            if rng.random() * bound > rate_I.sum():
                continue
            kind = int(rng.choice(len(rate_I), p=rate_I / rate_I.sum()))
            excited_I = excited_I + branching_KI[kind]
            rows.append((user, f"t{kind}", round(t * 1e6)))
    users, items, times = zip(*rows, strict=True)
    log = pa.table({"user_id": users, "item_id": items, "time_us": times})
    return influent.build_sequences(influent.clean(influent.read_events(log), drop_duplicates=False))


def main() -> None:
    """Fit a simulated process and compare what was planted with what was found."""
    base_I, branching_KI, decay = np.array([0.10, 0.02]), np.array([[0.3, 0.5], [0.0, 0.2]]), 0.5
    sequences = simulate(base_I, branching_KI, decay, n_users=300, horizon_s=500.0, seed=0)
    found = Hawkes.fit(sequences, np.array([decay]))
    print(f"{len(sequences):,} events\nbase planted {base_I}, found {found.base_I.round(3)}")
    print(f"branching planted {branching_KI.tolist()}, found {found.branching_KDI[:, 0].round(3).tolist()}")
    assert np.abs(found.base_I - base_I).max() < 0.01
    assert np.abs(found.branching_KDI[:, 0] - branching_KI).max() < 0.05
    some = influent.each_moment(sequences, np.arange(30))
    # Densities that integrate to one have a probability of 1 in all, and their mean is what is expected.
    assert np.allclose(np.exp(found.predict(some)).sum(axis=1), 1)
    few = some.take(slice(0, 50))
    print(f"mean gap {gaps_to_next(some).mean():.3f} s, expected {found.predict_gap(some).mean():.3f} s")
    assert abs(gaps_to_next(some).mean() / found.predict_gap(some).mean() - 1) < 0.05
    assert np.isfinite(found.log_likelihood(few))


if __name__ == "__main__":
    main()
