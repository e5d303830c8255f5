"""The run folder: where each step leaves its tables, replaced as a whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import platform
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from influent import __version__
from influent.errors import RunFolderError, SchemaError

FORMAT_VERSION = 1
"""Of the run folder; a folder with a higher number is refused."""

_MANIFEST = "run.json"

_STEPS: dict[str, tuple[str, ...]] = {
    "clean": ("events.parquet", "cleaning.json", "sequences.parquet", "vocab.parquet"),
    "fit": ("config.json",),
    "evaluate": ("evaluation.json", "evaluation.md"),
    "explain": ("ledger.parquet", "predictions.parquet", "ledger.json"),
    "factors": ("factors.parquet", "factors.json", "factors.html"),
    "attribute": (
        "attribution.parquet",
        "what_if.parquet",
        "paths.parquet",
        "outcome_lags.parquet",
        "attribution.json",
    ),
    "drift": ("drift.parquet", "half_lives.parquet", "cohorts.parquet", "drift.json", "drift.html"),
    "graph": ("edges.parquet", "people.parquet", "graph.json", "leaders.parquet", "leaders.json"),
    "recommend": ("recommendations.parquet", "recommendations.json"),
    "compare": ("comparison.json", "comparison.md"),
    "faithfulness": ("faithfulness.json", "faithfulness.md"),
    "tune": ("trials.parquet", "trials.md", "trials.jsonl", "tuned.toml"),
}
"""What each step always writes."""

_STANDS_ON: dict[str, tuple[str, ...]] = {
    "clean": (),
    "fit": ("clean",),
    "compare": ("clean",),
    "tune": ("clean",),
    "factors": ("clean", "fit", "explain"),
    "drift": ("clean", "fit", "explain"),
    "attribute": ("clean", "fit", "explain"),
}
"""What each step reads; running one of those again leaves its files behind. All others stand on clean and fit."""

BEFORE_REFIT = "before_refit"
"""The folder of the model as it was before it was fitted again with the validation events."""

_SOMETIMES = {
    "clean": ("items.parquet", "users.parquet"),
    "evaluate": ("evaluation_times.json", "evaluation_times.md"),
    "graph": ("likeness.json", "likeness.md"),
    # A model carries the vocabulary that it was fitted with, and the models that it stands on.
    "fit": (
        "model.safetensors",
        "metrics.jsonl",
        "vocab.parquet",
        "items.parquet",
        "users.parquet",
        "members",
        "social",
        BEFORE_REFIT,
    ),
}
"""What a step writes besides, if there is something to put in it; some are folders."""


def versions() -> dict[str, str]:
    """Return what a step ran with, for the manifest."""
    return {"influent": __version__, "python": platform.python_version()}


def checkpoint_of(folder: str | Path) -> Path:
    """Return where a fit keeps what it goes on from: beside the run folder, which other steps may replace."""
    return _beside(folder, "checkpoint.safetensors")


def metrics_of(folder: str | Path) -> Path:
    """Return where a fit that is running writes a line for every epoch."""
    return _beside(folder, "metrics.jsonl")


@contextmanager
def fitting(folder: str | Path) -> Iterator[Path]:
    """Keep other fits out of a run folder, give the place of the checkpoint, and clear it when the fit is written.

    Raises:
        RunFolderError: another fit is running there.
    """
    checkpoint = checkpoint_of(folder)
    with _alone(folder, "fit", checkpoint.with_suffix(".lock")):
        yield checkpoint
        for left in (checkpoint, checkpoint.with_suffix("")):
            _remove(left)
        metrics_of(folder).unlink(missing_ok=True)


@contextmanager
def comparing(folder: str | Path) -> Iterator[Path]:
    """Do for a comparison what `fitting` does for a fit; the place is a folder, with a file for each model measured.

    Raises:
        RunFolderError: another comparison is running there.
    """
    measured = _beside(folder, "comparison")
    with _alone(folder, "compare", _beside(folder, "comparison.lock")):
        yield measured
        shutil.rmtree(measured, ignore_errors=True)


@contextmanager
def tuning(folder: str | Path) -> Iterator[Path]:
    """Do for tuning what `fitting` does for a fit; the place is a file of trials.

    Raises:
        RunFolderError: other tuning is running there.
    """
    trials = _beside(folder, "trials.jsonl")
    with _alone(folder, "tune", _beside(folder, "tuning.lock")):
        yield trials
        trials.unlink(missing_ok=True)


@contextmanager
def _alone(folder: str | Path, verb: str, lock: Path) -> Iterator[None]:
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise RunFolderError(
            f"another {verb} is running in {folder}. Wait for it, or {verb} in a run folder of its own."
        ) from error
    try:
        yield
    finally:
        held.release()


def _beside(folder: str | Path, name: str) -> Path:
    folder = Path(folder).resolve()
    return folder.parent / f".{folder.name}.{name}"


@dataclass(frozen=True)
class Run:
    """A run folder on disk."""

    folder: Path
    steps: Mapping[str, Mapping[str, Any]]
    """Step name to an id of its own, the settings it ran with and when it ended."""

    @classmethod
    def open(cls, folder: str | Path, *, writes: bool = False) -> Run:
        """Open a run folder, first putting back a folder whose replacement was cut short.

        Args:
            writes: whether a step will be written, which is refused before its work where it cannot be.

        Raises:
            RunFolderError: the folder is not there, is no run folder, is damaged, from a newer version, or cannot be
                replaced.
        """
        folder = Path(folder).resolve()
        if _waiting(folder).exists():
            with _lock(folder):
                _recover(folder)
        if not folder.is_dir():
            raise RunFolderError(f"there is no run folder {folder}. Make one: influent clean LOG --run {folder}")
        manifest = folder / _MANIFEST
        if not manifest.exists():
            raise RunFolderError(f"{folder} is not a run folder (no {_MANIFEST}). Name one that influent clean made.")
        try:
            content = json.loads(manifest.read_text())
            version, steps = int(content["format_version"]), dict(content["steps"])
            for about in steps.values():
                dict(about["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(
                f"{manifest} is damaged ({error}). Remove {folder}, or choose another --run, and run influent clean."
            ) from error
        if version > FORMAT_VERSION:
            raise RunFolderError(
                f"{folder} was written by a newer version (format {version}, this one reads up to {FORMAT_VERSION}). "
                "Upgrade: pip install --upgrade influent"
            )
        if writes:
            _check_writable(folder)
        return cls(folder, steps)

    def require(self, step: str) -> Mapping[str, Any]:
        """Return the settings that a step ran with.

        Raises:
            RunFolderError: the step has not run, or one of its files is gone.
        """
        if step not in self.steps:
            raise RunFolderError(f"{self.folder} has no {step} step yet. Run: {_command(step, self.folder)}")
        for name in _STEPS[step]:
            if not (self.folder / name).exists():
                raise RunFolderError(f"{self.folder} lacks {name}. Run again: {_command(step, self.folder)}")
        return self.steps[step]

    def check_split(self, split_hash: str) -> None:
        """Refuse a split that is not the one the run's model was fitted on.

        Raises:
            RunFolderError: it is another.
        """
        then = self.require("fit")["settings"]["split_hash"]
        if split_hash != then:
            raise RunFolderError(
                f"the sequences in {self.folder} are not those the model was fitted on (split {split_hash}, then "
                f"{then}). Run again: influent fit {self.folder}"
            )


@contextmanager
def writing(
    folder: str | Path, step: str, settings: Mapping[str, Any], *, stands_on: Run | None = None
) -> Iterator[Path]:
    """Give a temporary folder to write a step's files into, then put it in the run folder's place.

    The files of earlier steps are carried over (as links, without copying); those of later steps, which stood on
    what is now replaced, are left behind. If the block is left by an error or the process is killed, the old run
    folder is as it was.

    Args:
        stands_on: the run as it was when the step read it.

    Raises:
        RunFolderError: something that is not a run folder is in the way, or a step that this one stands on was run
            again meanwhile.
    """
    folder = Path(folder).resolve()
    check_place(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        yield from _writing(folder, step, settings, stands_on)


def _writing(folder: Path, step: str, settings: Mapping[str, Any], stands_on: Run | None) -> Iterator[Path]:
    _recover(folder)
    for left_by_a_kill in folder.parent.glob(f".{glob.escape(folder.name)}.new-*"):
        shutil.rmtree(left_by_a_kill, ignore_errors=True)
    old = _steps_below(folder, step)
    for below in _stands_on(step):
        if stands_on is not None and old.get(below) != stands_on.steps.get(below):
            raise RunFolderError(
                f"the {below} step of {folder} was run again meanwhile; this {step} is of the old one."
            )
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))
    try:
        for name in {name for done in old for name in _files(done)}:
            _link(folder / name, new / name)
        # What the step writes must not reach through a link into the old folder's file.
        for name in _files(step):
            _remove(new / name)
        yield new
        ended = datetime.now(UTC).isoformat(timespec="seconds")
        steps = {**old, step: {"id": uuid.uuid4().hex[:12], "settings": dict(settings), "ended": ended}}
        content = {"format_version": FORMAT_VERSION, "steps": steps}
        (new / _MANIFEST).write_text(json.dumps(content, indent=2, default=str) + "\n")
        new.chmod(0o755)
        for path in new.rglob("*"):
            # Weights come to be readable by their owner alone; whoever may read the folder may read them.
            path.chmod(0o755 if path.is_dir() else 0o644)
        _swap(folder, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _link(old: Path, new: Path) -> None:
    """Give a file, or the files of a folder, a second place."""
    if old.is_dir():
        shutil.copytree(old, new, copy_function=os.link)
    elif old.exists():
        os.link(old, new)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _command(step: str, folder: Path) -> str:
    return f"influent clean LOG --run {folder}" if step == "clean" else f"influent {step} {folder}"


def _stands_on(step: str) -> tuple[str, ...]:
    return _STANDS_ON.get(step, ("clean", "fit"))


def _files(step: str) -> tuple[str, ...]:
    return _STEPS[step] + _SOMETIMES.get(step, ())


def made(folder: str | Path) -> Path:
    """Return the folder, which is there from now on.

    Raises:
        RunFolderError: it cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be made: {error.strerror}. Choose another place.") from error
    return folder


def require_files(folder: Path, names: Sequence[str], *, noun: str, verb: str) -> None:
    """Refuse a folder that does not hold all that the step `verb` writes for its noun.

    Raises:
        SchemaError: a file is missing.
    """
    for name in names:
        if not (folder / name).exists():
            raise SchemaError(f"{folder} holds no {name}. Make a {noun} first: influent {verb} {folder}")


def check_place(folder: str | Path) -> None:
    """Refuse a place where no run folder can be made, before any work is done.

    Raises:
        RunFolderError: something that is not a run folder, or one of a newer version, is there, or nothing can be
            written there.
    """
    folder = Path(folder).resolve()
    _check_writable(folder)
    if Path.cwd().is_relative_to(folder):
        raise RunFolderError(f"{folder} is where you are, and a run folder is replaced as a whole. Go out of it: cd ..")
    if _is_free(folder):
        return
    if not (folder / _MANIFEST).exists():
        raise RunFolderError(f"{folder} exists and is not a run folder. Choose another place: --run OTHER")
    Run.open(folder)


def _check_writable(folder: Path) -> None:
    """Refuse a run folder that cannot be put in place: it is renamed into its parent, so that is where to try."""
    try:
        there = next(parent for parent in folder.parents if parent.exists())
        tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=there).cleanup()
    except OSError as error:
        raise RunFolderError(
            f"{folder} cannot be written: nothing can be in {folder.parent} ({error.strerror}). Make that writable, or "
            f"choose another place."
        ) from error


def _is_free(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _steps_below(folder: Path, step: str) -> dict[str, Any]:
    """Return what stays of the run that is there: the steps that do not stand on `step`."""
    if _is_free(folder):
        return {}
    steps = Run.open(folder).steps
    return {name: about for name, about in steps.items() if name != step and step not in _stands_on(name)}


def _swap(folder: Path, new: Path) -> None:
    """Put the new folder in the old one's place. Between the two renames the old one waits where `_recover` looks."""
    waiting = _waiting(folder)
    if folder.exists():
        folder.rename(waiting)
    new.rename(folder)
    shutil.rmtree(waiting, ignore_errors=True)


def _recover(folder: Path) -> None:
    """Put back a folder whose replacement was killed between its two renames, or clear away one that was replaced."""
    waiting = _waiting(folder)
    if waiting.exists() and not folder.exists():
        waiting.rename(folder)
    shutil.rmtree(waiting, ignore_errors=True)


def _waiting(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.old"


def _lock(folder: Path) -> FileLock:
    # A singleton may be taken again by who holds it: `Run.open` is also called under the lock.
    return FileLock(folder.parent / f".{folder.name}.lock", is_singleton=True)
