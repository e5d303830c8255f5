"""Models and a split to one table: how accurate each is, what it takes, and how exact its credits are."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from influent import __version__
from influent.data.split import Split
from influent.errors import ConfigError, DataError, InfluentError
from influent.evaluation.measure import Costs, CreditCheck, How, Measured, measure
from influent.evaluation.report import Measure, Report, by_name, check_lengths
from influent.models.classical import Classical
from influent.models.credits import Exactness
from influent.models.kinds import to_plain
from influent.models.model import Model
from influent.models.ranks import Seen
from influent.progress import Progress


@dataclass(frozen=True, kw_only=True)
class ComparisonReport:
    """Models side by side: accuracy, costs and the exactness of credits, each by the model's name."""

    accuracy: Report
    costs: dict[str, Costs]
    credits: dict[str, CreditCheck]
    failed: dict[str, str]
    """Why a model is not in the tables"""
    is_refitted: bool
    """Whether each was fitted again with the validation events before it was judged"""
    before_refit: dict[str, dict[str, Measure]]
    """The accuracy that each had before that; empty where none was"""
    n_explained: int
    """How many test moments the times and the exactness are of, at most"""
    machine: dict[str, Any]

    def shown(self) -> list[str]:
        """Return the metrics that the table shows; all are in the JSON."""
        return [name for name in self.accuracy.metrics() if name.split("@")[0] in ("HR", "NDCG")]

    def cells(self) -> list[list[str]]:
        """Return the table as texts: a header, then a row for each model."""
        shown = self.shown()
        header = ["model", *shown, "fit, s", "peak memory, MiB", "score, ms", "explain, ms", "credits"]
        body = []
        for name, costs in self.costs.items():
            memory = "–" if costs.peak_memory_bytes is None else f"{costs.peak_memory_bytes / 2**20:,.0f}"
            times = [memory, f"{costs.score_ms:.2f}", f"{costs.explain_ms:.2f}"]
            accuracy = [str(self.accuracy.rows[name][metric]) for metric in shown]
            body.append([name, *accuracy, f"{costs.fit_seconds:,.1f}", *times, self.credits[name].exactness])
            if before := self.before_refit.get(name):
                body.append([f"{name}, before", *(str(before[metric]) for metric in shown), *[""] * 5])
        return [header, *body]

    def credit_cells(self) -> list[list[str]]:
        """Return what the exactness of each model's credits came to, as texts."""
        header = ["model", "credits", "largest gap", "mean |residual|", "latest event masked", "any event masked"]
        body = []
        for name, check in self.credits.items():
            gaps = (check.largest_gap, check.mean_residual, check.latest_removal_gap, check.any_removal_gap)
            body.append([name, check.exactness, *(_gap(gap) for gap in gaps), f"{check.mean_credit:.3f}"])
        return [[*header, "mean |credit|"], *body]

    def price(self) -> str:
        """Return in one sentence what exact credits cost in accuracy, in this table."""
        metric = next(name for name in self.accuracy.metrics() if name.startswith("NDCG@"))
        exact, box = self._best("exact", metric), self._best("estimated", metric)
        if exact is None or box is None:
            missing = "exact model" if exact is None else "black box"
            return f"The price of exactness cannot be told: no {missing} is among these."
        ours, theirs = self.accuracy.rows[exact][metric], self.accuracy.rows[box][metric]
        change = f"{100 * (ours.mean / theirs.mean - 1):+.1f} %".replace("-", "−") if theirs.mean else "no share of 0"
        overlap = "; the 95 % intervals overlap" if ours.low <= theirs.high and theirs.low <= ours.high else ""
        return (
            f"The price of exactness: best exact model ({exact}, {ours.mean:.4f}) against best black box "
            f"({box}, {theirs.mean:.4f}): {change} {metric}{overlap}."
        )

    def caption(self) -> str:
        """Return what the tables are of."""
        refitted = "; each fitted again with the validation events, and before that" if self.is_refitted else ""
        threads = self.machine["OMP_NUM_THREADS"]
        return (
            f"{self.accuracy.caption().removesuffix('.')}{refitted}. Times per moment and exactness over at most "
            f"{self.n_explained:,} test moments, on {self.machine['processor']}, {self.machine['cores']} cores, "
            f"{'threads as the libraries choose' if threads is None else f'OMP_NUM_THREADS={threads}'}; memory is that "
            "of the model's own process, with interpreter, libraries and log. An event masked: how far what masking "
            "it takes from a score is from its credit, on average."
        )

    def failures(self) -> list[str]:
        """Return a sentence about each model that is not in the tables."""
        return [f"Not in the table: {name}: {why}" for name, why in self.failed.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "price": self.price()}

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_markdown(self) -> str:
        """Return both tables in Markdown, with the price of exactness and the caption."""
        parts = [_markdown(self.cells()), _markdown(self.credit_cells()), self.price(), *self.failures()]
        return "\n\n".join([*parts, self.caption()]) + "\n"

    def _best(self, exactness: Exactness, metric: str) -> str | None:
        names = [name for name, check in self.credits.items() if check.exactness == exactness]
        return max(names, key=lambda name: self.accuracy.rows[name][metric].mean, default=None)


def compare(
    models: Sequence[Model] | Mapping[str, Model],
    split: Split,
    *,
    k: Sequence[int] = (10,),
    seen: Seen = "exclude",
    refit: bool = False,
    n_explained: int = 200,
    keep: Path | None = None,
    progress: Progress | None = None,
) -> ComparisonReport:
    """Fit models on one split, each in a process of its own, and put side by side what they can do and what it takes.

    A model learns from the training part, and validation may tell it when to stop; the test moments are not read
    before it has learned. Models that are handed in stay as they are: what is fitted is one of the same settings.
    A model of your own, which only this process knows, is fitted here, and its memory is not measured.

    A model that cannot be fitted is named in `failed`, with the reason, and the others are measured.

    Args:
        models: unfitted; by name where two would have the same, such as two backbones of different settings.
        k: lengths of the lists that are judged.
        seen: whether items of the history may be recommended again.
        refit: whether to judge each model fitted again with the validation events.
        n_explained: how many test moments, of as many users, to explain. A black box is asked once for each event.
        keep: a folder for what was measured of each model. What is there of the same model, settings and split is
            not measured again, so that a comparison that was killed goes on with the next model.

    Raises:
        ConfigError: there is no model, two have one name, or an argument is out of range.
        DataError: no model could be measured.
    """
    named = by_name(models)
    for model in named.values():
        if isinstance(model, Classical):
            raise ConfigError(f"compare measures models that score items. Got {type(model).__name__}.")
    check_lengths(k)
    if seen not in get_args(Seen):
        raise ConfigError(f"The 'seen' parameter of compare must be 'exclude' or 'keep'. Got {seen!r} instead.")
    if isinstance(n_explained, bool) or not isinstance(n_explained, int) or n_explained < 1:
        raise ConfigError(
            f"The 'n_explained' parameter of compare must be an int in the range [1, inf). Got {n_explained!r} instead."
        )
    how = How(k=tuple(k), seen=seen, refit=refit, n_explained=n_explained, protocol=split.protocol, split=split.hash)
    progress = progress or Progress()
    measured, failed = {}, {}
    with progress.track("compare", len(named)) as advance, tempfile.TemporaryDirectory() as place:
        for name, model in named.items():
            try:
                measured[name] = _measured(name, model, split, how, Path(place), keep, progress)
            except InfluentError as error:
                failed[name] = str(error)
                progress.say(f"{name} cannot be compared: {error}")
            advance(1, name)
    if not measured:
        raise DataError("no model could be measured. " + " ".join(f"{name}: {why}" for name, why in failed.items()))
    first = next(iter(measured.values())).accuracy
    rows = {name: next(iter(one.accuracy.rows.values())) for name, one in measured.items()}
    return ComparisonReport(
        accuracy=Report(**{**vars(first), "rows": rows}),
        costs={name: one.costs for name, one in measured.items()},
        credits={name: one.credits for name, one in measured.items()},
        failed=failed,
        is_refitted=refit,
        before_refit={name: one.before_refit for name, one in measured.items() if one.before_refit is not None},
        n_explained=n_explained,
        machine={
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
    )


def _measured(
    name: str, model: Model, split: Split, how: How, place: Path, keep: Path | None, progress: Progress
) -> Measured:
    """Return what was kept of a model, or measure it and keep that."""
    plain = to_plain(model)
    if plain is None:
        return measure(model, split.train, split.validation, lambda: split.test, how, progress=progress)
    about = {"model": plain, "how": asdict(how), "version": __version__, "threads": os.environ.get("OMP_NUM_THREADS")}
    kept = None if keep is None else keep / f"{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]}.json"
    if kept is not None and (found := _read(kept)) is not None:
        progress.say(f"{name}: measured before, and kept in {kept}")
        return found
    parts = place / "split"
    if not parts.exists():
        for part in ("train", "validation", "test"):
            (parts / part).mkdir(parents=True)
        split.train.save(parts / "train")
        split.validation.save(parts / "validation")
        split.test.save(parts / "test")
    job = place / "job"
    job.mkdir(exist_ok=True)
    (job / "result.json").unlink(missing_ok=True)
    (job / "job.json").write_text(json.dumps({**about, "split": str(parts)}))
    result = _run(name, job, progress)
    if "error" in result:
        raise DataError(result["error"])
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"name": name, **about, **result}, indent=2) + "\n")
        os.replace(unfinished, kept)
    return Measured.from_dict(result["measured"])


def _read(kept: Path) -> Measured | None:
    """Return what is kept in a file, or nothing if it is not there or damaged."""
    try:
        return Measured.from_dict(json.loads(kept.read_text())["measured"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _run(name: str, job: Path, progress: Progress) -> dict[str, Any]:
    """Run a job in a process of its own that finds the same code, and pass on what it says."""
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    command = [sys.executable, "-P", "-m", "influent.evaluation.measure", str(job)]
    with (job / "stderr").open("w+") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        with process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    progress.say(f"{name}: {line.rstrip()}")
                process.wait()
            except BaseException:
                process.kill()
                raise
        if process.returncode == 0:
            result: dict[str, Any] = json.loads((job / "result.json").read_text())
            return result
        stderr.seek(0)
        last = (stderr.read().strip().splitlines() or ["it said nothing"])[-1]
    if process.returncode < 0:
        ended = signal.Signals(-process.returncode).name
        raise DataError(f"its process was ended by {ended}; the system does that when memory is short.")
    raise DataError(f"its process ended with code {process.returncode}: {last}")


def _gap(gap: float) -> str:
    return "0" if gap == 0 else f"{gap:.1e}" if gap < 1e-3 else f"{gap:.3f}"


def _markdown(cells: list[list[str]]) -> str:
    header, *body = cells
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in [header, *body]]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(header) - 1), *lines[1:]])
