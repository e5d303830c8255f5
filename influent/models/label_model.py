"""The methods that every model of labels has, and what one that is a sum says of its answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np

from influent.data.labels import Labels
from influent.data.vocab import Vocab
from influent.errors import DataError, SchemaError
from influent.models.model import Fitted, check_may_judge
from influent.progress import Progress


@runtime_checkable
class LabelModel(Fitted, Protocol):
    """Learns from answered questions, and answers others of the same kind.

    Laws: an answer depends on nothing at or after its moment, and not on the questions beside it; save then load
    changes no answer.
    """

    @property
    def label_mean(self) -> float:
        """The mean of the training labels: what a constant would answer."""
        ...

    def fit(self, train: Labels, validation: Labels | None = None, *, progress: Progress | None = None) -> Self:
        """Learn from training labels; validation may only decide when to stop, and what a score means."""
        ...

    def predict(self, labels: Labels) -> np.ndarray:
        """Answer each question, float64 (L,): a probability, or a number in the label's unit."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write the model into a folder: weights, settings, vocabulary."""
        ...


@dataclass(frozen=True, kw_only=True)
class FeatureCredits:
    """What each feature adds to each answer: to the logit of a probability, or to the number itself.

    Example:
        >>> two = FeatureCredits(names=("n_events", "days_since_last"), credit=np.array([[0.5, -2.0]]), bias=0.25)
        >>> two.total().tolist()
        [-1.25]
    """

    names: tuple[str, ...]
    credit: np.ndarray
    """float64 (L, F)"""
    bias: float
    """The logit, or number, where every feature is at its centre."""

    def total(self) -> np.ndarray:
        """Return the sum of all terms, float64 (L,)."""
        return np.asarray(self.credit.sum(axis=1) + self.bias)


def check_answered(labels: Labels) -> None:
    """Refuse labels that cannot be learned from or judged by.

    Raises:
        DataError: there are none, or the answer to one is not known.
    """
    if len(labels) == 0:
        raise DataError(f"there are no labels of {labels.name!r}.")
    if np.isnan(labels.label).any():
        n = int(np.isnan(labels.label).sum())
        raise DataError(f"{n:,} of {len(labels):,} labels of {labels.name!r} are not known. Use labels from the log.")


def check_tells_apart(labels: Labels) -> None:
    """Refuse a classification to learn from that has one answer only.

    Raises:
        DataError: so it is.
    """
    if labels.kind == "classification" and np.ptp(labels.label) == 0:
        raise DataError(
            f"all {len(labels):,} training labels of {labels.name!r} are {labels.label[0]:g}: there is nothing to "
            "tell apart. Use more data, or another question."
        )


def check_question(model: str, question: str, labels: Labels) -> None:
    """Refuse labels that ask something else than a model was fitted on, be they called the same.

    Raises:
        DataError: so it is.
    """
    if labels.question != question:
        raise DataError(
            f"the {model} model was fitted on {labels.name!r} as: {question}. These labels, called the same, ask: "
            f"{labels.question}."
        )


def check_same_question(model: str, asked: str, question: str, vocab: Vocab, labels: Labels) -> None:
    """Refuse labels of another question, or of other ids, than a model was fitted on.

    Args:
        model: the model's name.
        asked: the name of the labels it was fitted on.
        question: what these ask.
        vocab: the ids it was fitted with.

    Raises:
        DataError: the question is another one.
        SchemaError: the indices mean other items or actions.
    """
    if labels.name != asked:
        raise DataError(f"the {model} model was fitted on {asked!r} and cannot answer {labels.name!r}.")
    check_question(model, question, labels)
    given = labels.moments.sequences.vocab
    for ours, theirs in ((vocab.items, given.items), (vocab.actions, given.actions)):
        if theirs.ids is not ours.ids and not theirs.ids.equals(ours.ids):
            raise SchemaError(
                f"these sequences count {ours.kind} by another vocabulary than the {model} model. "
                "Build them with build_sequences(events, vocab=model.vocab)."
            )


def check_may_answer(model: LabelModel, labels: Labels) -> None:
    """Refuse to judge a model by labels that it may have learned from.

    Raises:
        NotFittedError: `fit` was not called.
        LeakageError: the model was fitted on other labels than the training part of this split. Labels of no split do
            not know their training part, and are not checked.
    """
    check_may_judge(model, labels.moments)
