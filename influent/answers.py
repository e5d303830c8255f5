"""A run folder to a model that answers labels, and to how well it does it: the steps of questions about users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np

from influent.data.label_split import LabelSplit
from influent.data.labels import Labels
from influent.data.moments import latest_moments, moments_at
from influent.data.questions import LabelConfig
from influent.data.sequences import Sequences
from influent.errors import MissingExtraError
from influent.evaluation.labels import LabelReport, evaluate_labels
from influent.models.classical import load_label_model
from influent.models.config import ModelConfig, TrainConfig
from influent.models.kinds import LABEL_MODELS, check_choice, model_config
from influent.models.label_model import LabelModel
from influent.models.store import load_model
from influent.models.tracking import following
from influent.progress import Progress
from influent.run import Run, fitting, versions, writing

_BAR = {"classification": ("logistic", "boosting"), "regression": ("ridge", "boosting")}
"""What a model of labels has to be better than."""


def fit_labels_run(
    folder: str | Path,
    label: LabelConfig,
    *,
    kind: str | None = None,
    model: ModelConfig | None = None,
    train: TrainConfig | None = None,
    track: Sequence[str] = (),
    progress: Progress | None = None,
) -> tuple[LabelModel, LabelSplit]:
    """Fit a model that answers a question to a run's log; goes on where an earlier, killed fit stopped.

    Args:
        label: the question, and how its answers are split.
        kind: what `ModelConfig.backbone` may be, or a classical model: see `influent.models.kinds.LABEL_MODELS`. By
            default what `model` says.
        track: as for `fit_run`.

    Raises:
        ConfigError: there is no such model for such a question, or it takes no such settings.
        DataError, SchemaError, UnknownIdError: the log cannot be asked this; see `LabelConfig.split`.
    """
    run = Run.open(folder, writes=True)
    run.require("clean")
    kind = kind or (model or ModelConfig()).backbone
    parts = label.split(Sequences.load(run.folder))
    check_choice(kind, [parts.train.kind], model=model, train=train, track=track)
    with fitting(run.folder) as checkpoint:
        fitted: LabelModel
        if kind in LABEL_MODELS:
            fitted = LABEL_MODELS[kind]().fit(parts.train, parts.validation, progress=progress)
        else:
            from influent.models.predictor import Predictor

            predictor = Predictor(task=parts.train.kind, model=model or model_config(kind, {}), train=train)
            plain = {**asdict(predictor.model), **asdict(predictor.train)}
            with following(track, run.folder, name=kind, settings=plain) as trackers:
                fitted = predictor.fit(
                    parts.train, parts.validation, checkpoint=checkpoint, trackers=trackers, progress=progress
                )
        settings = {"label": asdict(label), "model": kind, "split_hash": parts.hash, "versions": versions()}
        with writing(folder, "fit", settings, stands_on=run) as new:
            fitted.save(new)
    return fitted, parts


def answers_labels(run: Run) -> bool:
    """Return whether the model of a run, which must be fitted, answers labels."""
    return "label" in run.require("fit")["settings"]


def fitted_on_labels(run: Run) -> tuple[LabelModel, LabelSplit]:
    """Return a run's model that answers labels, and the labels as they were split when it was fitted.

    Raises:
        RunFolderError: the sequences are not those it was fitted on, or the model is damaged.
    """
    run.require("clean")
    settings = run.require("fit")["settings"]
    is_classical = settings["model"] in LABEL_MODELS
    model = load_label_model(run.folder) if is_classical else cast(LabelModel, load_model(run.folder))
    labels = LabelConfig.from_dict(settings["label"]).split(Sequences.load(run.folder))
    run.check_split(labels.hash)
    return model, labels


def judge_answers(
    model: LabelModel, labels: LabelSplit, *, threshold: float | None = None, progress: Progress | None = None
) -> LabelReport:
    """Judge a model by the test labels, beside a constant and classical models fitted on the same training labels.

    Without scikit-learn the classical models are missing, and a line of progress says so.
    """
    progress, rivals = progress or Progress(), []
    try:
        for name in _BAR[labels.test.kind]:
            rival = LABEL_MODELS[name]()
            if rival.name != model.name:
                rivals.append(rival.fit(labels.train, labels.validation, progress=progress))
    except MissingExtraError as error:
        progress.say(f"judged without classical models: {error}")
    return evaluate_labels(
        [model, *rivals],
        labels.test,
        threshold=0.5 if threshold is None else threshold,
        protocol=labels.protocol,
        split=labels.hash,
        progress=progress,
    )


def ask_now(labels: LabelSplit, users: Sequence[Any], items: Sequence[Any] | None = None) -> Labels:
    """Return the question asked of these users when the log has ended, with answers that nobody knows yet.

    Args:
        items: of a question about items, which ones; each user is asked about each.

    Raises:
        ConfigError: items are named for a question about users, or none for one about items.
        UnknownIdError: a user or item is not in the log.
    """
    sequences = labels.test.moments.sequences
    if items is not None:
        sequences.vocab.items.require_idx(items)
    n_items = 1 if items is None else len(items)
    asked = [user for user in users for _ in range(n_items)]
    if sequences.time_us is None:
        moments = latest_moments(sequences, sequences.vocab.users.require_idx(asked))
    else:
        # An event at the very moment would not be in the history.
        moments = moments_at(sequences, asked, np.full(len(asked), sequences.time_us.max() + 1))
    return labels.test.ask(moments, None if items is None else [*items] * len(users))
