"""What a model is asked to learn from, checked, and its batches: windows of sequences, and labels at moments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from influent.data.label_split import LabelSplit
from influent.data.labels import Labels
from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.data.split import hold_out_last
from influent.errors import ConfigError, DataError, LeakageError
from influent.models.batch import Batch, Batcher, training_windows
from influent.models.label_model import check_answered, check_tells_apart
from influent.models.transitions import OwnTransitions
from influent.settings import check_type

_OF_LABELS = ("classification", "regression")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Training events and labels, and what decides when to stop."""

    sequences: Sequences
    """All training events"""
    learned: Sequences
    """Those that are learned from: all, or without what was held out to decide when to stop"""
    validation: Moments | None
    labels: tuple[tuple[Labels, Labels], ...]
    """Of each question the labels for training and for validation"""


def build_examples(
    tasks: Sequence[str], train: Sequences | Labels, validation: Moments | Labels | None, labels: Sequence[LabelSplit]
) -> Examples:
    """Check that what is given fits the tasks, and hold out what decides when to stop where nothing is given for it.

    Raises:
        ConfigError, DataError, LeakageError: as `Predictor.fit` says.
    """
    check_type("train", train, (Sequences, Labels), "split.train")
    if isinstance(train, Labels):
        return _of_labels_alone(tasks, train, validation, labels)
    if validation is not None and not isinstance(validation, Moments):
        raise ConfigError(
            "training sequences go with validation moments, not labels: fit(split.train, split.validation)."
        )
    if not {"ranking", "time"} & set(tasks):
        raise ConfigError(f"the task {' and '.join(tasks)} learns from labels: fit(labels.train, labels.validation).")
    _check_questions(tasks, [part.train for part in labels])
    for part in labels:
        check_tells_apart(part.train)
        _check_not_later(train, part)
    if validation is None:
        learned, validation = hold_out_last(train)
    elif not (validation.target_stop > validation.stop).any():
        raise DataError("no validation moment has a target, so nothing says when to stop. Leave validation out.")
    else:
        learned = train
    pairs = tuple((part.train, part.validation) for part in labels)
    return Examples(sequences=train, learned=learned, validation=validation, labels=pairs)


def _of_labels_alone(
    tasks: Sequence[str], train: Labels, validation: Moments | Labels | None, labels: Sequence[LabelSplit]
) -> Examples:
    if labels or {"ranking", "time"} & set(tasks):
        raise ConfigError("ranking and time learn from sequences: fit(split.train, split.validation, labels=[...]).")
    if validation is not None and not isinstance(validation, Labels):
        raise ConfigError("training labels go with validation labels: fit(labels.train, labels.validation).")
    _check_questions(tasks, [train])
    if validation is None:
        # One user in ten, the same whatever else is fitted on these labels.
        held_out = train.moments.user_idx % 10 == 9
        if held_out.all() or not held_out.any():
            held_out = np.arange(len(train.moments)) % 10 == 9
        if held_out.all() or not held_out.any():
            raise DataError(
                f"{len(train):,} labels of {train.name!r} are too few to hold some out for validation. Give "
                "validation labels: fit(labels.train, labels.validation)."
            )
        train, validation = train.take(np.flatnonzero(~held_out)), train.take(np.flatnonzero(held_out))
    check_answered(train)
    check_answered(validation)
    check_tells_apart(train)
    if validation.question != train.question:
        raise DataError(
            f"the model learns {train.question!r}, and validation asks {validation.question!r}. Give both of one split."
        )
    sequences = train.moments.sequences
    return Examples(sequences=sequences, learned=sequences, validation=None, labels=((train, validation),))


def _check_questions(tasks: Sequence[str], questions: Sequence[Labels]) -> None:
    asked, given = {task for task in tasks if task in _OF_LABELS}, {question.kind for question in questions}
    if asked != given:
        raise ConfigError(
            f"the tasks {', '.join(tasks)} need labels of {' and '.join(sorted(asked)) or 'no kind'}. "
            f"Got labels of {' and '.join(sorted(given)) or 'no kind'}."
        )
    names = [question.name for question in questions]
    if len(set(names)) < len(names):
        raise ConfigError(f"each question needs a name of its own. Got {', '.join(names)}.")


def _check_not_later(train: Sequences, part: LabelSplit) -> None:
    """Refuse sequences that hold what comes after a question that will be judged."""
    n_events = np.diff(train.offsets)
    for asked in (part.validation, part.test):
        moments = asked.moments
        known = moments.stop - moments.sequences.offsets[moments.user_idx]
        if (n_events[moments.user_idx] > known).any():
            raise LeakageError(
                f"the training sequences reach beyond moments at which {asked.name!r} is judged. Split both at the "
                "same time: split_at(sequences, cutoff) with a cutoff no later than the labels' validation."
            )


def gaps_of(sequences: Sequences) -> np.ndarray:
    """Return the seconds between events of a user that follow each other, float64."""
    assert sequences.time_us is not None
    gaps = np.diff(sequences.time_us) / 1e6
    return np.asarray(gaps[sequences.user_idx[1:] == sequences.user_idx[:-1]])


class TrainingBatches:
    """An epoch's batches: of windows, and between them of labels, each question in batches of its own."""

    def __init__(
        self,
        batcher: Batcher,
        examples: Examples,
        *,
        has_windows: bool,
        own: OwnTransitions | None,
        max_len: int,
        batch_size: int,
    ) -> None:
        self._batcher, self._examples, self._own = batcher, examples, own
        self._max_len, self._batch_size = max_len, batch_size
        self._windows = training_windows(examples.learned, max_len) if has_windows else None

    def __len__(self) -> int:
        of_labels = sum(-(-len(train.moments) // self._batch_size) for train, _ in self._examples.labels)
        return of_labels + (0 if self._windows is None else self._windows.n_batches(self._batch_size))

    def epoch(self, rng: np.random.Generator) -> Iterator[Batch]:
        """Return the batches of an epoch in random order."""
        plan: list[tuple[Labels | None, np.ndarray]] = []
        if self._windows is not None:
            plan += [(None, rows) for rows in self._windows.batches(self._batch_size, rng)]
        for train, _ in self._examples.labels:
            order = rng.permutation(len(train.moments))
            steps = range(0, len(order), self._batch_size)
            plan += [(train, np.sort(order[first : first + self._batch_size])) for first in steps]
        if self._examples.labels:
            plan = [plan[place] for place in rng.permutation(len(plan))]
        for labels, rows in plan:
            if labels is not None:
                yield self._batcher.label_batch(labels.take(rows), self._max_len)
            elif self._windows is not None:
                yield self._batcher.window_batch(self._examples.learned, self._windows, rows, self._own)
