"""Each step of the way from a log to recommendations, from run folder to run folder."""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from influent import __version__
from influent.data.artefacts import Artefacts, find_artefacts
from influent.data.clean import CleaningReport, clean
from influent.data.engine import Engine
from influent.data.events import Features, read_events, read_items, read_users
from influent.data.moments import Moments, latest_moments, moments_of
from influent.data.sequences import Sequences, build_sequences
from influent.data.split import Split, Target, split_at, split_last
from influent.errors import ConfigError, RunFolderError, SchemaError
from influent.evaluation.comparison import ComparisonReport, compare
from influent.evaluation.report import Report, check_lengths, evaluate
from influent.influence.explain import explain
from influent.influence.ledger import Ledger
from influent.models.config import ModelConfig, TrainConfig
from influent.models.item_to_item import DecayedCounts, Popularity
from influent.models.kinds import check_kind, model_config
from influent.models.methods import MethodName
from influent.models.model import Model
from influent.models.ranks import Seen
from influent.models.space import default_space, read_space
from influent.models.store import COUNTED, load_model
from influent.models.tracking import JsonLines, open_tracker
from influent.progress import Progress
from influent.recommendations import Recommendations, recommend
from influent.run import BEFORE_REFIT, Run, check_place, comparing, fitting, metrics_of, tuning, writing

if TYPE_CHECKING:
    from influent.models.tuning import Pruner, Tuned


@dataclass(frozen=True)
class Cleaned:
    """What `clean_log` made."""

    report: CleaningReport
    artefacts: Artefacts
    sequences: Sequences


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How a run's sequences are split; `at` is `last`, or where `split_at` cuts."""

    at: str = "last"
    target: Target = "first"
    actions: tuple[str, ...] = ()
    """With `last`, leave out the last event of these actions; by default of any."""

    def __post_init__(self) -> None:
        if self.target not in get_args(Target):
            raise ConfigError(f"target must be one of {', '.join(get_args(Target))}. Got {self.target!r}.")
        if self.actions and self.at != "last":
            raise ConfigError("target actions go with split='last'; a split by time takes what comes first.")

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> SplitConfig:
        """Return what a manifest says."""
        return cls(**{**plain, "actions": tuple(plain.get("actions", ()))})

    def split(self, sequences: Sequences) -> Split:
        """Return training sequences, validation and test moments."""
        if self.at == "last":
            return split_last(sequences, actions=self.actions)
        try:
            cut: str | float = float(self.at)
        except ValueError:
            cut = self.at
        return split_at(sequences, cut, target=self.target)


def clean_log(
    log: Any,
    folder: str | Path,
    *,
    columns: Mapping[str, Any] | None = None,
    rules: Mapping[str, Any] | None = None,
    items: Any = None,
    users: Any = None,
    numbers: Sequence[str] = ("value",),
    categories: Sequence[str] = ("scene",),
    memory_limit_bytes: int | None = None,
    progress: Progress | None = None,
) -> Cleaned:
    """Read and clean a log, put it in order, and begin a run folder with it.

    Args:
        columns: arguments of `read_events`.
        rules: arguments of `clean`.
        items: a table of items (`item_id`, `title`, …), as for `read_items`.
        users: a table of users, as for `read_users`.
        numbers: as for `build_sequences`.
        categories: likewise.
    """
    progress = progress or Progress()
    check_place(folder)
    engine = Engine(memory_limit_bytes=memory_limit_bytes)
    events = clean(read_events(log, engine=engine, **(columns or {})), **(rules or {}), progress=progress)
    sequences = build_sequences(
        events,
        items=None if items is None else _read_beside(read_items, items, "item", columns),
        users=None if users is None else _read_beside(read_users, users, "user", columns),
        numbers=numbers,
        categories=categories,
        progress=progress,
    )
    artefacts = find_artefacts(sequences)
    report = events.cleaning
    settings = {
        "log": str(log) if isinstance(log, str | Path) else type(log).__name__,
        "columns": columns or {},
        "rules": rules or {},
        "numbers": sequences.number_names,
        "categories": sequences.category_names,
        "versions": _versions(),
    }
    with writing(folder, "clean", settings) as new:
        engine.write_parquet(f"SELECT * FROM {events.name} ORDER BY event_id", new / "events.parquet")
        _write_json(new / "cleaning.json", {**report.to_dict(), "artefacts": artefacts.to_dict()})
        sequences.save(new)
    return Cleaned(report, artefacts, sequences)


def fit_run(
    folder: str | Path,
    *,
    kind: str | None = None,
    model: ModelConfig | None = None,
    train: TrainConfig | None = None,
    split: SplitConfig | None = None,
    refit: bool = False,
    track: Sequence[str] = (),
    progress: Progress | None = None,
) -> tuple[Model, Split]:
    """Fit a model on the training part of a run's sequences; goes on where an earlier, killed fit stopped.

    Args:
        kind: what `ModelConfig.backbone` may be, or one of the models that only count: see
            `influent.models.store.COUNTED`. By default what `model` says.
        refit: fit again with the validation events and keep that model, as one would to deploy it; the one before
            is kept beside it, and `evaluate_run` judges both.
        track: who else is told of each epoch, beside the run folder: `tensorboard`, `mlflow`. Lines of JSON are
            written there in any case while the fit is running.
    """
    run, split_config = Run.open(folder), split or SplitConfig()
    run.require("clean")
    parts = split_config.split(Sequences.load(run.folder))
    kind = kind or (model or ModelConfig()).backbone
    check_kind(kind)
    if kind in COUNTED and (model or train or track):
        raise ConfigError(
            f"the model {kind!r} only counts; it takes no settings of models that learn by gradient, and has no "
            "epochs to track."
        )
    if model is not None and model.backbone != kind:
        raise ConfigError(f"the model settings are of {model.backbone!r}, and {kind!r} is asked for. Leave one out.")
    with fitting(run.folder) as checkpoint, contextlib.ExitStack() as open_trackers:
        fitted: Model
        refitted: Model | None = None
        if kind in COUNTED:
            counted = COUNTED[kind]().fit(parts.train, progress=progress)
            fitted = counted
            if refit:
                refitted = counted.refit(parts.train_and_validation, progress=progress)
        else:
            from influent.models.predictor import Predictor

            predictor = Predictor(model=model or model_config(kind, {}), train=train)
            plain = {**asdict(predictor.model), **asdict(predictor.train)}
            trackers = [open_tracker(name, run.folder, name=kind, settings=plain) for name in track]
            trackers.append(JsonLines(metrics_of(run.folder)))
            for tracker in trackers:
                open_trackers.callback(tracker.close)
            fitted = predictor.fit(
                parts.train, parts.validation, checkpoint=checkpoint, trackers=trackers, progress=progress
            )
            if refit:
                refitted = predictor.refit(parts.train_and_validation, progress=progress)
        settings = {"split": asdict(split_config), "split_hash": parts.hash, "versions": _versions()}
        with writing(folder, "fit", settings, stands_on=run) as new:
            if refitted is not None:
                (new / BEFORE_REFIT).mkdir(exist_ok=True)
                fitted.save(new / BEFORE_REFIT)
            fitted = refitted or fitted
            fitted.save(new)
    return fitted, parts


def split_of(folder: str | Path) -> SplitConfig:
    """Return how a run's sequences were split to fit its model; leave last out where it has none.

    What is tuned or compared then learns from nothing that the model is tested on.
    """
    fitted = Run.open(folder).steps.get("fit")
    return SplitConfig.of(fitted["settings"]["split"]) if fitted else SplitConfig()


def compare_run(
    folder: str | Path,
    models: Mapping[str, Model],
    *,
    k: Sequence[int] = (10,),
    seen: Seen = "exclude",
    split: SplitConfig | None = None,
    refit: bool = False,
    n_explained: int = 200,
    progress: Progress | None = None,
) -> ComparisonReport:
    """Compare models on a run's sequences and keep the tables; goes on with the model where a killed one stopped.

    Args:
        models: unfitted, by the name that the tables call each; see `influent.models.kinds.new_model`.
        split: by default as the run's model was fitted, or leave last out.
    """
    run = Run.open(folder)
    run.require("clean")
    split = split or split_of(folder)
    parts = split.split(Sequences.load(run.folder))
    with comparing(run.folder) as keep:
        report = compare(
            models, parts, k=k, seen=seen, refit=refit, n_explained=n_explained, keep=keep, progress=progress
        )
        settings = {"models": list(models), "split": asdict(split), "split_hash": parts.hash, "versions": _versions()}
        with writing(run.folder, "compare", settings, stands_on=run) as new:
            (new / "comparison.json").write_text(report.to_json())
            (new / "comparison.md").write_text(report.to_markdown())
    return report


def tune_run(
    folder: str | Path,
    *,
    kind: str | None = None,
    model: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    space: Mapping[str, Any] | None = None,
    n_trials: int = 20,
    pruner: Pruner = "median",
    seed: int = 0,
    split: SplitConfig | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Tune a model on a run's training and validation events and keep the trials and the best settings.

    The test events are cut off before the first trial. Trials that the run folder holds of the same settings count
    among `n_trials`; tuning that was killed goes on where it stopped.

    Args:
        kind: what `ModelConfig.backbone` may be; by default what `model` says, or the additive model.
        model: fields of `ModelConfig`. What is given here is not searched by default.
        train: fields of `TrainConfig`, likewise.
        space: what to search, as TOML says it: see `influent.models.space.read_space`; by default what
            `default_space` has for the backbone.
        split: by default as the run's model was fitted, or leave last out.
    """
    from influent.models.predictor import Predictor
    from influent.models.tuning import tune

    run = Run.open(folder)
    run.require("clean")
    if kind in COUNTED:
        raise ConfigError(f"the model {kind!r} only counts; there is nothing to tune by epochs.")
    if kind is not None:
        check_kind(kind)
    fixed = {**(model or {}), **(train or {})}
    both = sorted(set(space or ()) & set(fixed))
    if both:
        raise ConfigError(f"{', '.join(both)}: given in [model] or [train], and in [space]. Leave one out.")
    base = Predictor(model=model_config(kind, model or {}), train=TrainConfig.from_dict(dict(train or {})))
    settled = {*fixed, *(("embedding_dim", "n_layers", "n_heads") if "size" in fixed else ())}
    searched = default_space(base.model, fixed=settled) if space is None else read_space(space)
    split = split or split_of(folder)
    parts = split.split(Sequences.load(run.folder))
    learned, validation = parts.train, parts.validation.within(parts.train_and_validation)
    with tuning(run.folder) as storage:
        if not storage.exists() and (run.folder / "trials.jsonl").exists():
            shutil.copyfile(run.folder / "trials.jsonl", storage)
        tuned = tune(
            base,
            learned,
            validation,
            space=searched,
            n_trials=n_trials,
            pruner=pruner,
            seed=seed,
            storage=storage,
            progress=progress,
        )
        about = {"n_trials": n_trials, "split": asdict(split), "split_hash": parts.hash, "versions": _versions()}
        with writing(run.folder, "tune", about, stands_on=run) as new:
            tuned.save(new)
            shutil.copyfile(storage, new / "trials.jsonl")
    return tuned


def evaluate_run(
    folder: str | Path,
    *,
    k: Sequence[int] = (10,),
    seen: Seen = "exclude",
    against: Sequence[Model] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Judge a run's model at its test moments, beside models that only count, fitted on the same events.

    Args:
        against: the models to stand beside it; by default popularity and decayed counts.
    """
    check_lengths(k)
    run, model, parts = _fitted(folder)
    others = [Popularity(), DecayedCounts()] if against is None else against
    before = run.folder / BEFORE_REFIT
    rivals = [load_model(before)] if before.is_dir() else []
    known = {model.name, *(rival.name for rival in rivals)}
    rivals += [other.fit(parts.train, progress=progress) for other in others if other.name not in known]
    report = evaluate(
        [model, *rivals], parts.test, k=k, seen=seen, protocol=parts.protocol, split=parts.hash, progress=progress
    )
    with writing(run.folder, "evaluate", {"k": list(k), "seen": seen}, stands_on=run) as new:
        (new / "evaluation.json").write_text(report.to_json())
        (new / "evaluation.md").write_text(report.to_markdown())
    return report


def explain_run(
    folder: str | Path,
    *,
    users: Sequence[Any] | None = None,
    items: Sequence[Any] | None = None,
    top: int | None = None,
    contrast: int | None = None,
    by_part: bool = False,
    method: MethodName | None = None,
    n_samples: int | None = None,
    n_steps: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Ledger:
    """Explain a run's test predictions and keep the ledger, or explain the latest moment of these users.

    Args:
        users: whose latest moment to explain; their ledger is returned and not written.
        items: which items to explain; by default what came next, or the best-scored.
        method: how credits are come by, and with the three settings after it how that is set: as for `explain`.
    """
    run, model, parts = _fitted(folder)
    asked: dict[str, Any] = {"items": items, "top": top, "contrast": contrast, "by_part": by_part}
    how: dict[str, Any] = {"method": method, "n_samples": n_samples, "n_steps": n_steps, "seed": seed}
    if users is not None:
        sequences = parts.test.sequences
        moments = latest_moments(sequences, sequences.vocab.users.require_idx(users))
        return explain(model, moments, **asked, **how, progress=progress)
    ledger = explain(model, parts.test, **asked, **how, progress=progress)
    with writing(run.folder, "explain", {**asked, **how}, stands_on=run) as new:
        ledger.save(new)
    return ledger


def recommend_run(
    folder: str | Path,
    *,
    users: Sequence[Any] | None = None,
    events: Any = None,
    columns: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Recommendations:
    """Recommend to every user of a run and keep the lists, or to these users only, or from events handed in.

    Args:
        users: whom to recommend to; their lists are returned and not written.
        events: a log of other events to recommend from, read with `columns`; nothing is written.
        settings: further arguments of `recommend`.
    """
    run, model, parts = _fitted(folder)
    if events is not None:
        handed_in = build_sequences(
            clean(read_events(events, **(columns or {}))),
            numbers=parts.train.number_names,
            categories=parts.train.category_names,
            vocab=model.vocab,
        )
        return recommend(model, _moments_for(handed_in, users), handed_in=True, **settings, progress=progress)
    moments = _moments_for(parts.test.sequences, users)
    recommendations = recommend(model, moments, **settings, progress=progress)
    if users is None:
        with writing(run.folder, "recommend", settings, stands_on=run) as new:
            recommendations.save(new)
    return recommendations


def _read_beside(read: Callable[..., Features], table: Any, noun: str, columns: Mapping[str, Any] | None) -> Features:
    """Read a table that lies beside the log; its id column may be called as in the log, or by our name."""
    name = (columns or {}).get(noun)
    if name is not None:
        with contextlib.suppress(SchemaError):
            return read(table, **{noun: name})
    return read(table)


def _moments_for(sequences: Sequences, users: Sequence[Any] | None) -> Moments:
    if users is not None:
        return moments_of(sequences, list(dict.fromkeys(users)))
    return latest_moments(sequences, np.flatnonzero(np.diff(sequences.offsets)))


def _fitted(folder: str | Path) -> tuple[Run, Model, Split]:
    """Return a run, its model, and the split that the model was fitted on."""
    run = Run.open(folder)
    run.require("clean")
    settings = run.require("fit")["settings"]
    model = load_model(run.folder)
    split = SplitConfig.of(settings["split"]).split(Sequences.load(run.folder))
    if split.hash != settings["split_hash"]:
        raise RunFolderError(
            f"the sequences in {run.folder} are not those the model was fitted on (split {split.hash}, "
            f"then {settings['split_hash']}). Run again: influent fit {run.folder}"
        )
    return run, model, split


def _versions() -> dict[str, str]:
    return {"influent": __version__, "python": platform.python_version()}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
