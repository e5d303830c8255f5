"""Which model to take, and with which settings, from run folder to run folder: compare and tune."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from influent.data.sequences import Sequences
from influent.data.split import SplitConfig
from influent.errors import ConfigError
from influent.evaluation.comparison import ComparisonReport, compare
from influent.models.config import TrainConfig
from influent.models.kinds import check_kind, model_config
from influent.models.model import Model
from influent.models.ranks import Seen
from influent.models.space import default_space, read_space
from influent.models.store import COUNTED
from influent.progress import Progress
from influent.run import Run, comparing, tuning, versions, writing

if TYPE_CHECKING:
    from influent.models.tuning import Pruner, Tuned


def split_of(folder: str | Path) -> SplitConfig:
    """Return how a run's sequences were split to fit its model; leave last out where it has none, or answers labels.

    What is tuned or compared then learns from nothing that the model is tested on.
    """
    fitted = Run.open(folder).steps.get("fit", {"settings": {}})["settings"]
    return SplitConfig.of(fitted["split"]) if "split" in fitted else SplitConfig()


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
    run = Run.open(folder, writes=True)
    run.require("clean")
    split = split or split_of(folder)
    parts = split.split(Sequences.load(run.folder))
    with comparing(run.folder) as keep:
        report = compare(
            models, parts, k=k, seen=seen, refit=refit, n_explained=n_explained, keep=keep, progress=progress
        )
        settings = {"models": list(models), "split": asdict(split), "split_hash": parts.hash, "versions": versions()}
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
    from influent.models.tuning import check_trials, tune

    run = Run.open(folder, writes=True)
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
    with tuning(run.folder) as storage:
        kept = run.folder / "trials.jsonl"
        if not storage.exists() and kept.exists():
            check_trials(kept)
            shutil.copyfile(kept, storage)
        tuned = tune(
            base,
            parts.train,
            parts.validation,
            space=searched,
            n_trials=n_trials,
            pruner=pruner,
            seed=seed,
            storage=storage,
            progress=progress,
        )
        about = {"n_trials": n_trials, "split": asdict(split), "split_hash": parts.hash, "versions": versions()}
        with writing(run.folder, "tune", about, stands_on=run) as new:
            tuned.save(new)
            shutil.copyfile(storage, new / "trials.jsonl")
    return tuned
