"""Training and validation events to the settings that do best there, by Optuna; no test event has a say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout

from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.errors import ConfigError, DataError, MissingExtraError, RunFolderError
from influent.models.config import ModelConfig, TrainConfig
from influent.models.predictor import Predictor
from influent.models.space import Choices, Plain, Range, Space, check_space, default_space, value_of, with_values
from influent.progress import Progress
from influent.settings import check_type

Pruner = Literal["median", "none"]

_ABOUT = "Tuned on training and validation events only; the test events had no say."


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The settings with the best validation score, and all that were tried."""

    model: ModelConfig
    train: TrainConfig
    values: dict[str, Plain]
    """The settings that were searched, as they are best"""
    score: float
    score_name: str
    """What the score is, such as `ndcg@10`"""
    trials: pa.Table
    """One row a trial: `trial`, `state` (complete, pruned, failed), `score` (of its best epoch), `n_epochs`, `seconds`
    of training, a column for each setting, and `why` one failed"""

    def caption(self) -> str:
        """Return in a sentence or two what the table is of."""
        states = self.trials.column("state").to_pylist()
        counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed"))
        return f"{len(states)} trials ({counts}) by validation {self.score_name}, best first. {_ABOUT}"

    def cells(self) -> list[list[str]]:
        """Return the trials as texts: a header, then a row each, the best first and those cut short behind."""
        rows = self.trials.drop_columns(["why"]).to_pylist()
        rows.sort(key=lambda row: (row["state"] != "complete", row["state"] == "failed", -(row["score"] or 0.0)))
        names = self.trials.drop_columns(["why"]).column_names
        header = [f"validation {self.score_name}" if name == "score" else name for name in names]
        return [header, *([_text(name, row[name]) for name in names] for row in rows)]

    def to_markdown(self) -> str:
        """Return the trials in Markdown."""
        header, *body = self.cells()
        lines = ["| " + " | ".join(header) + " |", "|---:|---|" + "---:|" * (len(header) - 2)]
        lines += ["| " + " | ".join(row) + " |" for row in body]
        return "\n".join([*lines, "", self.caption()]) + "\n"

    def to_toml(self) -> str:
        """Return the best settings, as `influent fit --config` takes them; defaults that stayed are left out."""
        usual = Predictor(model=ModelConfig(backbone=self.model.backbone))
        of_model = _differing(self.model, usual.model, self.values)
        of_train = _differing(self.train, usual.train, self.values)
        lines = [f"# The best of {self.trials.num_rows} trials: validation {self.score_name} {self.score:.4f}.", _NOTE]
        lines += ["", "[model]", *_toml({"backbone": self.model.backbone} | of_model)]
        return "\n".join([*lines, "", "[train]", *_toml(of_train)]) + "\n"

    def save(self, folder: Path) -> None:
        """Write `trials.parquet`, `trials.md` and `tuned.toml`."""
        pq.write_table(self.trials, folder / "trials.parquet", compression="zstd")
        (folder / "trials.md").write_text(self.to_markdown())
        (folder / "tuned.toml").write_text(self.to_toml())


_NOTE = f"# {_ABOUT}"


def tune(
    model: Predictor,
    train: Sequences,
    validation: Moments | None = None,
    *,
    space: Space | None = None,
    n_trials: int = 20,
    pruner: Pruner = "median",
    seed: int = 0,
    storage: Path | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """Try settings, and return those with the best validation score.

    The first trial has the settings of `model`, so that what comes out is no worse than that on validation. What is
    tried next comes from the tree-structured Parzen estimator (Bergstra et al., 2011), all of whose randomness comes
    from the seed and the number of trials before: tuning that was killed and goes on tries the same as tuning that
    was not.

    Only these two are looked at. Moments whose sequences also hold later events can be cut first:
    `split.validation.within(split.train_and_validation)`.

    Args:
        model: its settings are those of every trial that are not searched. It is not fitted.
        validation: what decides; by default each training user's last event.
        space: where to search; by default as `default_space` says for the backbone.
        n_trials: how many trials there are to be, those in `storage` included.
        pruner: `median` gives up a trial whose best epoch so far is behind the median of the trials before at the
            same epoch; `none` lets each one end.
        seed: where the choice of trials comes from. How each is trained comes from the model's own seed.
        storage: a file to keep the trials in, written after every epoch (Optuna's journal: a JSON object a line, so
            that reading it runs no code). If it holds trials of the same events and settings, tuning goes on there.

    Raises:
        ConfigError: the space or another argument is out of range, or the model answers labels.
        DataError: no trial came to an end.
        RunFolderError: other tuning uses the storage, or it is damaged.
        MissingExtraError: Optuna is not installed.
    """
    optuna = _optuna()
    check_type("model", model, Predictor, "Predictor()")
    storage = None if storage is None else Path(storage)
    if not set(model.tasks) <= {"ranking", "time"}:
        raise ConfigError(f"tune is for ranking and time. Got a model for {', '.join(model.tasks)}.")
    if isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 1:
        raise ConfigError(f"The 'n_trials' parameter of tune must be an int in the range [1, inf). Got {n_trials!r}.")
    if pruner not in get_args(Pruner):
        raise ConfigError(f"The 'pruner' parameter of tune must be one of {get_args(Pruner)}. Got {pruner!r} instead.")
    space = default_space(model.model) if space is None else space
    check_space(space, model.model, model.train)
    progress = progress or Progress()
    name = _identity(model, train, validation, space, pruner, seed)
    checkpoint = None if storage is None else storage.with_suffix(".checkpoint.safetensors")
    with _study(optuna, storage, name, pruner) as study, progress.track("tune", n_trials) as advance:
        finished = _finished(study)
        if finished:
            progress.say(f"going on after {len(finished)} trials")
        advance(len(finished))
        while len(finished) < n_trials:
            study.sampler = optuna.samplers.TPESampler(seed=(seed * 1_000_003 + len(finished)) % 2**32)
            if not finished and not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
                study.enqueue_trial(_base(space, model))
            _try(optuna, study, model, train, validation, space, checkpoint)
            finished = _finished(study)
            advance(1, _said(finished))
        return _tuned(model, space, finished)


class _Watch:
    """A tracker that tells Optuna of each epoch, and ends a trial that has no prospects."""

    def __init__(self, optuna: Any, trial: Any) -> None:
        self._optuna, self._trial = optuna, trial
        self.n_epochs, self.seconds, self.score_name = 0, 0.0, ""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Report the score, or raise what makes the fit end."""
        self.n_epochs, self.seconds = self.n_epochs + 1, self.seconds + metrics["seconds"]
        name, score = next((name, value) for name, value in metrics.items() if name.startswith("validation_"))
        self.score_name = name.removeprefix("validation_")
        self._trial.report(score, step)
        if self._trial.should_prune():
            raise self._optuna.TrialPruned

    def close(self) -> None:
        """Do nothing."""


def _try(
    optuna: Any,
    study: Any,
    model: Predictor,
    train: Sequences,
    validation: Moments | None,
    space: Space,
    checkpoint: Path | None,
) -> None:
    """Fit with settings that were not tried yet, and tell the study what came out."""
    trial = study.ask()
    values = {name: _suggest(trial, name, where) for name, where in space.items()}
    trial.set_user_attr("values", values)
    watch = _Watch(optuna, trial)
    why, told = None, {}
    try:
        of_model, of_train = with_values(model.model, model.train, values)
        fitted = Predictor(task=model.tasks, model=of_model, train=of_train)
        fitted.fit(train, validation, checkpoint=checkpoint, trackers=[watch])
        told = {"values": fitted.log.best_score}
    except optuna.TrialPruned:
        told = {"state": optuna.trial.TrialState.PRUNED}
    except (ConfigError, DataError) as error:
        # Settings may not go together; with events that cannot be learned from no trial comes to an end.
        if isinstance(error, DataError) and watch.n_epochs == 0 and not _finished(study):
            raise
        why, told = str(error), {"state": optuna.trial.TrialState.FAIL}
    about = {"n_epochs": watch.n_epochs, "seconds": round(watch.seconds, 3), "score_name": watch.score_name}
    for name, value in {**about, "why": why, "is_finished": True}.items():
        trial.set_user_attr(name, value)
    study.tell(trial, **told)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)


def _suggest(trial: Any, name: str, where: Range | Choices) -> Plain:
    value: Plain
    if isinstance(where, Choices):
        value = trial.suggest_categorical(name, list(where.values))
    elif isinstance(where.low, int) and isinstance(where.high, int):
        value = trial.suggest_int(name, where.low, where.high, log=where.log)
    else:
        # Four digits are what a person can read, and as much as a score can tell apart.
        rounded = float(f"{trial.suggest_float(name, where.low, where.high, log=where.log):.4g}")
        value = min(max(rounded, where.low), where.high)
    return value


def _base(space: Space, model: Predictor) -> dict[str, Plain]:
    """Return the model's own settings, as far as they lie in the space."""
    own = {name: value_of(name, model.model, model.train) for name in space}
    return {name: value for name, value in own.items() if _lies_in(value, space[name])}


def _lies_in(value: Any, where: Range | Choices) -> bool:
    return value in where.values if isinstance(where, Choices) else bool(where.low <= value <= where.high)


@contextmanager
def _study(optuna: Any, storage: Path | None, name: str, pruner: Pruner) -> Iterator[Any]:
    """Open the study of this name, with no trial left over from a process that was killed."""
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    cut = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    options = {
        "study_name": name,
        "direction": "maximize",
        "pruner": cut if pruner == "median" else optuna.pruners.NopPruner(),
    }
    try:
        if storage is None:
            yield optuna.create_study(**options)
            return
        # A lock of the operating system's, which a kill releases; Optuna's own would have to be waited out.
        lock = FileLock(storage.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunFolderError(f"other tuning uses {storage}. Wait for it, or name another file.") from error
        try:
            study = _open(optuna, storage, lock, options)
            for left in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
                study.tell(left.number, state=optuna.trial.TrialState.FAIL)
            yield study
        finally:
            lock.release()
    finally:
        optuna.logging.set_verbosity(said)


def _open(optuna: Any, storage: Path, lock: FileLock, options: Mapping[str, Any]) -> Any:
    if storage.exists():
        # A kill can leave half a line at the end.
        whole = storage.read_bytes()
        with storage.open("r+b") as file:
            file.truncate(whole.rfind(b"\n") + 1)
    backend = optuna.storages.journal.JournalFileBackend(str(storage), lock_obj=lock)
    with _readable(storage):
        return optuna.create_study(storage=optuna.storages.JournalStorage(backend), load_if_exists=True, **options)


def check_trials(storage: Path) -> None:
    """Refuse a file that holds no trials.

    Raises:
        RunFolderError: it is damaged, or another kind of file.
    """
    optuna = _optuna()
    with _readable(storage):
        optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(storage))).get_all_studies()


@contextmanager
def _readable(storage: Path) -> Iterator[None]:
    try:
        for line in storage.read_bytes().splitlines():
            json.loads(line)
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{storage} is damaged, or no file of trials ({type(error).__name__}: {error}). Remove it to tune anew."
        ) from error


def _finished(study: Any) -> list[Any]:
    """Return the trials that came to an end of their own, in order."""
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return [trial for trial in ended if trial.user_attrs.get("is_finished")]


def _said(finished: list[Any]) -> str:
    *_, latest = finished
    scores = [trial.value for trial in finished if _state(trial) == "complete"]
    best = f", best {max(scores):.4f}" if scores else ""
    told = "" if _score(latest) is None else f" at {_score(latest):.4f}"
    return f"trial {len(finished) - 1} {_state(latest)}{told}{best}"


def _state(trial: Any) -> str:
    return {"complete": "complete", "pruned": "pruned", "fail": "failed"}[trial.state.name.lower()]


def _score(trial: Any) -> float | None:
    """Return the best score of a trial's epochs; None where it failed."""
    return None if _state(trial) == "failed" else max(trial.intermediate_values.values())


def _tuned(model: Predictor, space: Space, finished: list[Any]) -> Tuned:
    complete = [trial for trial in finished if _state(trial) == "complete"]
    if not complete:
        whys = "; ".join(dict.fromkeys(trial.user_attrs["why"] or "pruned" for trial in finished))
        raise DataError(f"none of {len(finished)} trials came to an end: {whys}")
    best = max(complete, key=lambda trial: trial.value)
    values = best.user_attrs["values"]
    of_model, of_train = with_values(model.model, model.train, values)
    columns: dict[str, list[Any]] = {
        "trial": list(range(len(finished))),
        "state": [_state(trial) for trial in finished],
        "score": [_score(trial) for trial in finished],
        "n_epochs": [trial.user_attrs["n_epochs"] for trial in finished],
        "seconds": [trial.user_attrs["seconds"] for trial in finished],
    }
    columns |= {name: [trial.user_attrs["values"][name] for trial in finished] for name in space}
    why = pa.array([trial.user_attrs["why"] for trial in finished], pa.string())
    return Tuned(
        model=of_model,
        train=of_train,
        values=values,
        score=best.value,
        score_name=best.user_attrs["score_name"],
        trials=pa.table({**columns, "why": why}),
    )


def _identity(
    model: Predictor, train: Sequences, validation: Moments | None, space: Space, pruner: Pruner, seed: int
) -> str:
    """Return a hash of all that decides which trials there are and what comes out of them."""
    digest = hashlib.sha256(repr((train.fingerprint, model.settings(), pruner, seed, torch.__version__)).encode())
    digest.update(repr(sorted(space.items())).encode())
    if validation is not None:
        digest.update(validation.stop.tobytes() + validation.target_stop.tobytes())
        digest.update(validation.sequences.fingerprint.encode())
    return digest.hexdigest()[:12]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("tuning needs Optuna: pip install 'influent[tune]'") from error
    return optuna


def _differing(settings: ModelConfig | TrainConfig, usual: object, searched: Mapping[str, Plain]) -> dict[str, Any]:
    """Return what is not as usual, and what was searched."""
    names = [field.name for field in fields(settings)]
    return {n: getattr(settings, n) for n in names if n in searched or getattr(settings, n) != getattr(usual, n)}


def _toml(settings: Mapping[str, Any]) -> list[str]:
    # Of texts, numbers, truths and lists of texts, JSON is TOML.
    return [f"{name} = {json.dumps(value)}" for name, value in settings.items()]


def _text(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return {"score": f"{value:.4f}", "seconds": f"{value:.1f}"}.get(name, f"{value:g}")
    return str(value).lower() if isinstance(value, bool) else str(value)
