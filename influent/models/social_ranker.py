"""A model of a user's own past, and what others just did, in one sum: the social term of a ranking.

    score(u, t, i) = own(u, t, i) + Σ_g β_g log(1 + n_g(i, u, t))
                     + Σ_v Σ_j w_g(t − t_j) · A(v → u, scene_j) / Ā · 1[item_j = i]

v: users that u is tied to, j: their events before t, g: bins of the gap, n_g: how many events everybody but u did to i
that long ago (the item's burst, which no friend owns). A is how strongly v moves u, drawn towards how open u and how
strong v is (`Social`), Ā its mean. β and w are all that is learned here, by the likelihood of what came next at the
validation moments: of the training part `own` knows what came next, and nobody else would have anything to say there.
A penalty draws them to zero, where the score is that of `own` (ridge regression of a conditional logit; McFadden,
Conditional logit analysis of qualitative choice behavior, 1973). It is the one with which weights from four fifths of
these moments say most of the other fifth; where none says more than nothing, weights are zero.

Shapes: N moments, C candidates, I items, G bins of the gap, R pairs of a moment and an item that others acted on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy import optimize, sparse, special

from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.data.ties import Ties
from influent.data.vocab import UNKNOWN, Vocab
from influent.errors import ConfigError
from influent.models.bursts import Bursts, bin_of
from influent.models.credits import Credits, Exactness
from influent.models.hawkes import SocialConfig
from influent.models.methods import CreditMethod, MethodName
from influent.models.model import EstimatedModel, Model, Refittable, check_fitted, check_same_ids
from influent.models.ranks import BATCH
from influent.models.social import Social, times_of
from influent.progress import Progress
from influent.run import made

_PENALTIES = (1.0, 10.0, 100.0, 1000.0)
_N_FOLDS = 5


class SocialRanker:
    """Adds what others just did to a model of what comes next by a user's own past.

    It looks at others until the moment of asking, which `own` may not know. Where ties, bursts or times say nothing,
    weights are zero and lists are those of `own`. An event of somebody else has one term, and is also a part of
    the burst of its item, so the credits of this model close and are not called removals.

    Args:
        ties: who may be moved by whom: `build_ties` of known edges, or `co_acting` where none are known.
        own: a fitted model that ranks by a user's own past.
        config: windows and priors of the strengths of ties.

    Raises:
        NotFittedError: `own` is not fitted.
    """

    tasks = ("ranking",)

    def __init__(self, ties: Ties, *, own: Refittable, config: SocialConfig | None = None) -> None:
        self.social = Social(ties, own=own, config=config)
        self.own = own

    @property
    def name(self) -> str:
        """Return how reports call the model."""
        return f"{self.own.name} + social"

    @property
    def vocab(self) -> Vocab:
        """Return the ids it was fitted with."""
        return self.own.vocab

    @property
    def popularity(self) -> np.ndarray:
        """Return the share of training events that are each item's, float64 (n_items,)."""
        return self.own.popularity

    @property
    def max_len(self) -> int | None:
        """Return how many of the user's latest events are read."""
        return self.own.max_len

    @property
    def fitted_on(self) -> str:
        """Return the fingerprint of the training events; empty before `fit`."""
        return self.own.fitted_on if hasattr(self, "weight") else ""

    @property
    def exactness(self) -> Exactness:
        """Return how good the credits are."""
        return "estimated" if getattr(self.own, "exactness", "exact") == "estimated" else "closes"

    @property
    def methods(self) -> tuple[MethodName, ...]:
        """Return the ways to the credits of a user's own events, the default one first; those of others are terms."""
        return getattr(self.own, "methods", ("exact",))

    def fit(self, train: Sequences, validation: Moments | None = None, *, progress: Progress | None = None) -> Self:
        """Learn strengths of ties from the training part, and what they and bursts weigh from validation moments.

        Raises:
            ConfigError: there are no validation moments, or the log is order-only.
            SchemaError: the ties count users by another vocabulary than the log.
        """
        answered = None if validation is None else _answered(validation)
        if not answered:
            raise ConfigError(
                f"{self.name} learns what others weigh from validation moments, of which it is known what came next. "
                "Give them: fit(train, validation)."
            )
        self.social.fit(train, progress=progress)
        strength = self.social.parameters.strength_LS
        self.mean_strength = float(strength.mean()) if strength.any() else 1.0
        self.weight = _Choices.at(self, answered).weights()
        return self

    def refit(self, train: Sequences, *, progress: Progress | None = None) -> SocialRanker:
        """Return a model whose strengths and whose `own` come from more events; what they weigh stays."""
        check_fitted(self)
        own = self.own.refit(train, progress=progress)
        other = SocialRanker(self.social.ties, own=own, config=self.social.config)
        other.social.fit(train, progress=progress)
        other.mean_strength, other.weight = self.mean_strength, self.weight
        return other

    def predict(self, moments: Moments) -> np.ndarray:
        """Score every item at each moment, float32 (N, n_items).

        Raises:
            ConfigError: the log is order-only.
            SchemaError: the sequences count users, items or actions by another vocabulary.
        """
        check_same_ids(self, moments)
        self.social.check_moments(moments)
        scores = self.own.predict(moments)
        bursts = Bursts(moments.sequences, self.social.edges_us)
        for first in range(0, len(moments), BATCH):
            owner, item, x_RF = self._features(moments.take(slice(first, first + BATCH)), bursts)
            scores[first + owner, item] += (x_RF @ self.weight).astype(np.float32)
        return scores

    def credits(
        self,
        moments: Moments,
        candidates: np.ndarray,
        *,
        method: CreditMethod | None = None,
        mixture: np.ndarray | None = None,
    ) -> Credits:
        """Return the terms of the scores of these items, int (N, C), at each moment, or of mixtures of them.

        Raises:
            ConfigError: the method does not fit `own`, or the log is order-only.
            SchemaError: the sequences count users, items or actions by another vocabulary.
        """
        check_same_ids(self, moments)
        self.social.check_moments(moments)
        if isinstance(self.own, EstimatedModel):
            own = self.own.credits(moments, candidates, method=method, mixture=mixture)
        else:
            own = self.own.credits(moments, candidates)
            own = own if mixture is None else own.mixed(mixture)
        others = self._credits_of_others(moments, candidates)
        return _joined(own, others if mixture is None else others.mixed(mixture))

    def _credits_of_others(self, moments: Moments, candidates: np.ndarray) -> Credits:
        bursts, parts = Bursts(moments.sequences, self.social.edges_us), []
        burst = np.zeros(candidates.shape)
        for first in range(0, len(moments), BATCH):
            some, asked = moments.take(slice(first, first + BATCH)), candidates[first : first + BATCH]
            everything = np.zeros((len(some), self.vocab.n_items))
            owner, item, x_RF = self._burst(some, bursts)
            everything[owner, item] = x_RF @ self.weight[: self._n_bins]
            burst[first : first + BATCH] = np.take_along_axis(everything, asked, axis=1)
            owner, place, value, of_bin = self._friends(some)
            credit = (value * self.weight[self._n_bins + of_bin])[:, None]
            credit = credit * (some.sequences.item_idx[place][:, None] == asked[owner])
            kept = credit.any(axis=1)
            parts.append((first + owner[kept], place[kept], credit[kept]))
        nothing = np.zeros(0, np.int64)
        parts.append((nothing, nothing, np.zeros((0, candidates.shape[1]))))
        owner, place, credit = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return Credits(
            offsets=_offsets(owner, len(moments)),
            place=place,
            credit=credit,
            bias=np.zeros(candidates.shape),
            context={"burst": burst},
        )

    @property
    def _n_bins(self) -> int:
        return len(self.social.edges_us) - 1

    def _features(self, moments: Moments, bursts: Bursts) -> tuple[np.ndarray, np.ndarray, sparse.csr_array]:
        """Return moment and item of each pair that others acted on, and by what its score grows, (R, 2 G)."""
        n_items = self.vocab.n_items
        owner, item, of_burst = self._burst(moments, bursts)
        friend, place, value, of_bin = self._friends(moments)
        key = friend * n_items + moments.sequences.item_idx[place]
        # Whatever a friend did, somebody did: each pair of a friend's is one of the burst's.
        pair = np.searchsorted(owner * n_items + item, key)
        of_friends = sparse.coo_array((value, (pair, of_bin)), shape=of_burst.shape).tocsr()
        return owner, item, sparse.hstack([of_burst, of_friends]).tocsr()

    def _burst(self, moments: Moments, bursts: Bursts) -> tuple[np.ndarray, np.ndarray, sparse.csr_array]:
        """Return moment and item of each pair in order, and the logarithm of one more than the counts, (R, G)."""
        owner, item, of_bin = bursts.counts(moments.user_idx, times_of(moments))
        key, pair = np.unique(owner * self.vocab.n_items + item, return_inverse=True)
        ones = np.ones(len(pair))
        counts = sparse.coo_array((ones, (pair, of_bin)), shape=(len(key), self._n_bins)).tocsr().log1p()
        return key // self.vocab.n_items, key % self.vocab.n_items, counts

    def _friends(self, moments: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return moment, place, strength over the mean strength, and bin of the gap of each friend's event."""
        owner, place, strength, gap_us = self.social.may_answer(moments)
        return owner, place, strength / self.mean_strength, bin_of(gap_us, self.social.edges_us)

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors`, `config.json`, the vocabulary, and below `social` the ties and `own`."""
        check_fitted(self)
        folder = made(folder)
        save_file({"weight": self.weight}, folder / "model.safetensors")
        config = {"model": "social ranker", "mean_strength": self.mean_strength}
        (folder / "config.json").write_text(json.dumps(config) + "\n")
        self.vocab.save(folder)
        self.social.save(folder / "social")

    @classmethod
    def restore(cls, social: Social, config: dict[str, Any], folder: Path) -> Self:
        """Return what `save` wrote; use `load_model`, which checks the folder first."""
        ranker = cls(social.ties, own=cast(Refittable, social.own), config=social.config)
        ranker.social, ranker.mean_strength = social, config["mean_strength"]
        ranker.weight = load_file(folder / "model.safetensors")["weight"]
        return ranker


@dataclass(frozen=True, kw_only=True, eq=False)
class _Choices:
    """What came next at moments, and what speaks for it and for the items that others acted on."""

    owner: np.ndarray
    """int64 (R,)"""
    x_RF: sparse.csr_array
    log_p: np.ndarray
    """float64 (R,): by a user's own past alone"""
    rest: np.ndarray
    """float64 (N,): the probability, by own pasts, of all items that nobody acted on"""
    chosen: np.ndarray
    """bool (R,): whether the item came next"""

    @classmethod
    def at(cls, ranker: SocialRanker, moments: Moments) -> _Choices:
        """Look at moments whose next item is known; there is one at least."""
        bursts = Bursts(moments.sequences, ranker.social.edges_us)
        parts = []
        for first in range(0, len(moments), BATCH):
            some = moments.take(slice(first, first + BATCH))
            owner, item, x_RF = ranker._features(some, bursts)
            log_p_NI = special.log_softmax(ranker.own.predict(some).astype(np.float64), axis=1)
            rest = np.clip(1 - np.bincount(owner, np.exp(log_p_NI[owner, item]), len(some)), 0, 1)
            chosen = some.sequences.item_idx[some.stop][owner] == item
            parts.append((first + owner, x_RF, log_p_NI[owner, item], rest, chosen))
        owners, xs, log_ps, rests, chosens = zip(*parts, strict=True)
        return cls(
            owner=np.concatenate(owners),
            x_RF=sparse.vstack(xs).tocsr(),
            log_p=np.concatenate(log_ps),
            rest=np.concatenate(rests),
            chosen=np.concatenate(chosens),
        )

    def weights(self) -> np.ndarray:
        """Return the weights with the penalty that serves moments which had no part in them, float64 (2 G,)."""
        gained = {penalty: self._gained_elsewhere(penalty) for penalty in _PENALTIES}
        best = max(gained, key=lambda penalty: gained[penalty])
        return self._fitted(best) if gained[best] > 0 else np.zeros(self.x_RF.shape[1])

    def _gained_elsewhere(self, penalty: float) -> float:
        """Return how much likelier what came next is than by own pasts, at moments that weights did not come from."""
        fold = np.arange(len(self.rest)) % _N_FOLDS
        return -sum(self._of(fold == n)._loss(self._of(fold != n)._fitted(penalty), 0.0)[0] for n in range(_N_FOLDS))

    def _of(self, kept: np.ndarray) -> _Choices:
        """Return these moments, bool (N,)."""
        rows = kept[self.owner]
        return _Choices(
            owner=(np.cumsum(kept) - 1)[self.owner[rows]],
            x_RF=self.x_RF[rows],
            log_p=self.log_p[rows],
            rest=self.rest[kept],
            chosen=self.chosen[rows],
        )

    def _fitted(self, penalty: float) -> np.ndarray:
        """Return the most likely weights less half the penalty for each square."""
        start = np.zeros(self.x_RF.shape[1])
        found = optimize.minimize(self._loss, start, args=(penalty,), jac=True, method="L-BFGS-B")
        return np.asarray(found.x)

    def _loss(self, weight: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """Return minus the log-likelihood of what came next, but for what weights do not change, and its gradient."""
        gain = self.x_RF @ weight
        height = self.log_p + gain
        top = np.zeros(len(self.rest))
        np.maximum.at(top, self.owner, height)
        total = self.rest * np.exp(-top) + np.bincount(self.owner, np.exp(height - top[self.owner]), len(top))
        loss = (top + np.log(total)).sum() - gain[self.chosen].sum() + penalty / 2 * weight @ weight
        chance = np.exp(height - top[self.owner]) / total[self.owner]
        return float(loss), self.x_RF.T @ (chance - self.chosen) + penalty * weight


def _answered(moments: Moments) -> Moments:
    """Return the moments whose next item is known."""
    places = np.flatnonzero(moments.target_stop > moments.stop)
    return moments.take(places[moments.sequences.item_idx[moments.stop[places]] != UNKNOWN])


def own_part(model: Model) -> Model:
    """Return the model of a user's own past that a model with social terms stands on; any other model as it is."""
    return model.own if isinstance(model, SocialRanker) else model


def _offsets(owner: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=n))])


def _joined(own: Credits, others: Credits) -> Credits:
    """Return the terms of both in one sum."""
    owner = np.concatenate([own.owner, others.owner])
    order = np.argsort(owner, kind="stable")

    def of_both(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
        return np.asarray(np.concatenate([mine, theirs])[order])

    nothing_of_own, nothing_of_others = np.zeros_like(own.credit), np.zeros_like(others.credit)
    parts = {name: of_both(credit, nothing_of_others) for name, credit in own.parts.items()}
    if parts:
        parts["social"] = of_both(nothing_of_own, others.credit)
    return replace(
        own,
        offsets=_offsets(owner, len(own.offsets) - 1),
        place=of_both(own.place, others.place),
        credit=of_both(own.credit, others.credit),
        context={**own.context, **others.context},
        parts=parts,
        error=None if own.error is None else of_both(own.error, nothing_of_others),
    )
