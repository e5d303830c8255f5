"""Several trainings of one model become their mean: steadier and more accurate, and still a sum over events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.data.vectors import ItemVectors
from influent.data.vocab import Vocab
from influent.errors import ConfigError
from influent.models.credits import Credits, Exactness, mean_of
from influent.models.methods import CreditMethod, MethodName
from influent.models.model import check_fitted
from influent.models.predictor import Predictor
from influent.models.tracking import OfMember, Tracker
from influent.progress import Progress
from influent.run import made
from influent.settings import check_int


class Ensemble:
    """The mean of the scores of models that differ in nothing but the seed.

    A mean of sums is a sum: each credit is the mean of the members' credits, and where theirs are exact so is it. What
    members have learned by chance cancels out: Lakshminarayanan, Pritzel and Blundell, Simple and scalable predictive
    uncertainty estimation using deep ensembles, 2017. It takes as many times as long to fit, to score and to explain.

    Args:
        base: what each member is like; not fitted. Its seed and those after it are the members'.
        n_members: how many there are.

    Raises:
        ConfigError: `n_members` is out of range, or the base is for something else than ranking.

    Example:
        >>> [member.train.seed for member in Ensemble(Predictor(), n_members=3).members]
        [0, 1, 2]
    """

    tasks = ("ranking",)

    def __init__(self, base: Predictor, *, n_members: int = 3) -> None:
        check_int("n_members", n_members, 1)
        if not isinstance(base, Predictor):
            raise ConfigError(f"the members of an ensemble are trainings of a Predictor. Got {base!r} instead.")
        if base.tasks != ("ranking",):
            raise ConfigError(f"an ensemble ranks, and this predictor is for {' and '.join(base.tasks)}.")
        self.base = base
        self.members = [
            Predictor(model=base.model, train=replace(base.train, seed=base.train.seed + place))
            for place in range(n_members)
        ]

    @property
    def name(self) -> str:
        """Return how reports call the model."""
        return f"{len(self.members)} × {self.members[0].name}"

    @property
    def vocab(self) -> Vocab:
        """Return the ids it was fitted with."""
        return self.members[0].vocab

    @property
    def popularity(self) -> np.ndarray:
        """Return the share of training events that are each item's, float64 (n_items,)."""
        return self.members[0].popularity

    @property
    def max_len(self) -> int:
        """Return how many of the latest events are read."""
        return self.members[0].max_len

    @property
    def fitted_on(self) -> str:
        """Return the fingerprint of the training events; empty until the last member is fitted."""
        return self.members[-1].fitted_on

    @property
    def exactness(self) -> Exactness:
        """Return how good the credits are."""
        return self.members[0].exactness

    @property
    def methods(self) -> tuple[MethodName, ...]:
        """Return the ways to credits that fit the members, the default one first."""
        return self.members[0].methods

    def fit(
        self,
        train: Sequences,
        validation: Moments | None = None,
        *,
        vectors: Sequence[ItemVectors] = (),
        checkpoint: Path | None = None,
        trackers: Sequence[Tracker] = (),
        progress: Progress | None = None,
    ) -> Self:
        """Fit one member after the other, as `Predictor.fit` does.

        Args:
            checkpoint: a folder that keeps each member's checkpoint, which a fit that was stopped goes on from.
            trackers: hear of every epoch of every member, under names like `member_0_loss`.
        """
        if checkpoint is not None:
            checkpoint.mkdir(exist_ok=True)
        for place, member in enumerate(self.members):
            own = None if checkpoint is None else checkpoint / f"member_{place}.safetensors"
            told = [OfMember(tracker, place) for tracker in trackers]
            member.fit(train, validation, vectors=vectors, checkpoint=own, trackers=told, progress=progress)
        return self

    def refit(self, train: Sequences, *, progress: Progress | None = None) -> Ensemble:
        """Return an ensemble whose members were each fitted anew on more events, as `Predictor.refit` does."""
        check_fitted(self)
        other = Ensemble(self.base, n_members=len(self.members))
        other.members = [member.refit(train, progress=progress) for member in self.members]
        return other

    def with_items(self, vocab: Vocab, vectors: Sequence[ItemVectors]) -> Ensemble:
        """Return the same ensemble over more items, as `Predictor.with_items` does for each member."""
        check_fitted(self)
        other = Ensemble(self.base, n_members=len(self.members))
        other.members = [member.with_items(vocab, vectors) for member in self.members]
        return other

    @property
    def vectors_fitted_on(self) -> tuple[str, ...]:
        """Return the fingerprints of the events that its vectors were fitted on."""
        return self.members[0].vectors_fitted_on

    def predict(self, moments: Moments) -> np.ndarray:
        """Score every item at each moment, float32 (N, n_items)."""
        check_fitted(self)
        total = self.members[0].predict(moments)
        for member in self.members[1:]:
            total += member.predict(moments)
        total /= len(self.members)
        return total

    def credits(
        self,
        moments: Moments,
        candidates: np.ndarray,
        *,
        method: CreditMethod | None = None,
        mixture: np.ndarray | None = None,
    ) -> Credits:
        """Return the terms of the scores of these items, int (N, C), at each moment: the means of the members' terms.

        Raises:
            ConfigError: the method does not fit the members.
        """
        check_fitted(self)
        return mean_of([member.credits(moments, candidates, method=method, mixture=mixture) for member in self.members])

    def faded_credits(self, moments: Moments, candidates: np.ndarray, gaps_s: np.ndarray) -> np.ndarray:
        """Return what `Predictor.faded_credits` does, the mean of the members'."""
        check_fitted(self)
        return np.asarray(np.mean([member.faded_credits(moments, candidates, gaps_s) for member in self.members], 0))

    def save(self, folder: str | Path) -> None:
        """Write `config.json`, the vocabulary, and below `members` a folder for each."""
        check_fitted(self)
        folder = made(folder)
        (folder / "config.json").write_text(json.dumps({"model": "ensemble", "n_members": len(self.members)}) + "\n")
        self.vocab.save(folder)
        for place, member in enumerate(self.members):
            member.save(folder / "members" / str(place))

    @classmethod
    def restore(cls, config: dict[str, Any], folder: Path) -> Self:
        """Return what `save` wrote; use `load_model`, which checks the folder first."""
        members = []
        for place in range(config["n_members"]):
            of_member = folder / "members" / str(place)
            members.append(Predictor.restore(json.loads((of_member / "config.json").read_text()), of_member))
        ensemble = cls(Predictor(model=members[0].model, train=members[0].train), n_members=len(members))
        ensemble.members = members
        return ensemble
