"""The methods that every model has, whatever it is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np

from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.data.vocab import Ids, Vocab
from influent.errors import LeakageError, NotFittedError, SchemaError
from influent.models.credits import Credits
from influent.models.methods import CreditMethod, MethodName
from influent.progress import Progress


class Fitted(Protocol):
    """What says by which ids, and from which events, it was fitted."""

    @property
    def name(self) -> str:
        """How reports call it."""
        ...

    @property
    def vocab(self) -> Vocab:
        """The ids it was fitted with."""
        ...

    @property
    def fitted_on(self) -> str:
        """Fingerprint of what it learned from; empty before `fit`."""
        ...


@runtime_checkable
class Model(Fitted, Protocol):
    """Fits sequences, scores every item at a moment, and says of which terms a score is the sum.

    Laws, checked for every model in `influent.testing`: the terms add up to the score; an event that is left out
    takes its credit with it; a moment's scores do not depend on the moments beside it; save then load changes
    nothing.
    """

    @property
    def popularity(self) -> np.ndarray:
        """The share of training events that are each item's, float64 (n_items,)."""
        ...

    @property
    def max_len(self) -> int | None:
        """How many of the latest events it reads; None for all."""
        ...

    def fit(self, train: Sequences, validation: Moments | None = None, *, progress: Progress | None = None) -> Self:
        """Learn from the training sequences; validation moments may only decide when to stop."""
        ...

    def predict(self, moments: Moments) -> np.ndarray:
        """Return a score for every item at each moment, float32 (N, n_items)."""
        ...

    def credits(self, moments: Moments, candidates: np.ndarray) -> Credits:
        """Return the terms of the scores of these items, int (N, C), at each moment."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the model into a folder: weights, settings, vocabulary."""
        ...


class Refittable(Model, Protocol):
    """A model that can be fitted again, with its settings as they are, on more events."""

    def refit(self, train: Sequences, *, progress: Progress | None = None) -> Refittable:
        """Return a model of the same settings, fitted anew on these events."""
        ...


@runtime_checkable
class EstimatedModel(Model, Protocol):
    """A model with more than one way to come to credits."""

    @property
    def methods(self) -> tuple[MethodName, ...]:
        """The ways that fit it, the default one first."""
        ...

    def credits(
        self,
        moments: Moments,
        candidates: np.ndarray,
        *,
        method: CreditMethod | None = None,
        mixture: np.ndarray | None = None,
    ) -> Credits:
        """Return the terms of scores, or of weighted sums of them, (N, X, C), as this method has them."""
        ...


def tasks_of(model: Model) -> tuple[str, ...]:
    """Return what a model of what comes next was fitted for; those that only count rank."""
    return getattr(model, "tasks", ("ranking",))


def check_fitted(model: Fitted) -> None:
    """Refuse a model that has learned nothing yet.

    Raises:
        NotFittedError: `fit` was not called.
    """
    if not getattr(model, "fitted_on", ""):
        raise NotFittedError(f"this {model.name} model is not fitted. Call fit(train) first.")


def check_same_ids(model: Fitted, moments: Moments) -> None:
    """Refuse moments of sequences whose indices mean other items or actions than the model's.

    Raises:
        NotFittedError: `fit` was not called.
        SchemaError: they do.
    """
    check_fitted(model)
    ours, theirs = model.vocab, moments.sequences.vocab
    _check_same(ours.items, theirs.items, model)
    _check_same(ours.actions, theirs.actions, model)


def check_same_categories(model: Fitted, moments: Moments) -> None:
    """Refuse moments of sequences whose categories are other columns, or count by other values, than the model's.

    Raises:
        SchemaError: they are.
    """
    ours, theirs = model.vocab.categories, moments.sequences.vocab.categories
    if tuple(ours) != tuple(theirs):
        raise SchemaError(
            f"this model was fitted on the categories {tuple(ours)}, these sequences have {tuple(theirs)}. "
            "Build them with build_sequences(events, vocab=model.vocab)."
        )
    for name in ours:
        _check_same(ours[name], theirs[name], model)


def check_same_category(model: Fitted, moments: Moments, name: str) -> None:
    """Refuse moments of sequences in which a category of events is there and not for the model, or has other values.

    Raises:
        SchemaError: so it is.
    """
    ours, theirs = (vocab.categories.get(name) for vocab in (model.vocab, moments.sequences.vocab))
    if ours is not None and theirs is not None:
        _check_same(ours, theirs, model)
    elif ours is not theirs:
        has, lacks = (
            ("this model was", "these sequences were") if theirs is None else ("these sequences were", "this model was")
        )
        raise SchemaError(
            f"{has} made of a log with the column {name!r}, {lacks} not. Build both from logs with the same columns, "
            "by build_sequences(events, vocab=model.vocab)."
        )


def _check_same(known: Ids, given: Ids, model: Fitted) -> None:
    if given.ids is not known.ids and not given.ids.equals(known.ids):
        raise SchemaError(
            f"these sequences count {known.kind} by another vocabulary than the {model.name} model. "
            "Build them with build_sequences(events, vocab=model.vocab)."
        )


def check_may_judge(model: Fitted, moments: Moments) -> None:
    """Refuse to judge a model at moments whose answers it may have learned from.

    Raises:
        NotFittedError: `fit` was not called.
        LeakageError: the model was fitted on other events than this split's training part. Moments of no split do
            not know their training part, and are not checked.
    """
    check_fitted(model)
    if moments.fingerprints and model.fitted_on not in moments.fingerprints:
        raise LeakageError(
            f"the {model.name} model was fitted on sequences {model.fitted_on}, these moments may judge models fitted "
            f"on {', '.join(sorted(moments.fingerprints))}: it may have learned from what it is asked to predict. "
            "Fit it on the training part of the same split. (Of a joint model and labels, judge readout(name).)"
        )
    for events in getattr(model, "vectors_fitted_on", ()):
        if moments.fingerprints and events not in moments.fingerprints:
            raise LeakageError(
                f"vectors of the {model.name} model come from an encoder that was fine-tuned on events {events}, which "
                "may hold what is asked here. Fine-tune it on the training part of the same split: "
                "finetune_text(split.train)."
            )
