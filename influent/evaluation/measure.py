"""A model that has learned nothing yet to what it can do and what that costs: accuracy, time, memory, exactness.

`python -m influent.evaluation.measure JOB` measures one model in a process of its own, so that its memory is not that
of the models before it: it reads `job.json` and the tables beside it, and writes `result.json`. No file can run code.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from influent import schema
from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.errors import ConfigError, DataError, InfluentError
from influent.evaluation.report import Measure, Report, evaluate
from influent.influence.explain import explain
from influent.influence.ledger import Ledger
from influent.models.credits import Exactness
from influent.models.kinds import from_plain
from influent.models.model import Model
from influent.models.ranks import Seen
from influent.progress import LineProgress, Progress


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a model takes."""

    fit_seconds: float
    """Until it may be judged: with the judging of each epoch and, where it was asked for, the refit"""
    peak_memory_bytes: int | None
    """The most memory its process held until it was judged, with interpreter, libraries and log and without what a
    GPU holds; None where it had no process of its own"""
    memory_before_bytes: int | None
    """The most until the fit began, which is no fault of the model's"""
    score_ms: float
    """To score every item at a moment, of a batch of them"""
    explain_ms: float
    """To score a moment and write the ledger of one prediction, of a batch of them"""


@dataclass(frozen=True, kw_only=True)
class CreditCheck:
    """What a model says of its credits, and what came out when that was measured; all but `exactness` in nats."""

    exactness: Exactness
    largest_gap: float
    """The most that credits, baseline and residual of a prediction are off its score"""
    mean_residual: float
    """Mean of what estimated credits leave over of a score, without its sign; 0 where nothing is left over"""
    latest_removal_gap: float
    """Mean distance between what masking the latest event takes from a score and that event's credit"""
    any_removal_gap: float
    """The same of an event drawn at random among those the model read"""
    mean_credit: float
    """Mean credit of the events drawn at random, without its sign: what the gaps are large or small beside"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All about one model."""

    accuracy: Report
    costs: Costs
    credits: CreditCheck
    before_refit: dict[str, Measure] | None = None
    """Its accuracy before it was fitted again with the validation events; None where it was not"""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Measured:
        """Return what `to_dict` told."""
        rows = {model: _measures(row) for model, row in plain["accuracy"]["rows"].items()}
        before = plain["before_refit"]
        return cls(
            accuracy=Report(**{**plain["accuracy"], "rows": rows}),
            costs=Costs(**plain["costs"]),
            credits=CreditCheck(**plain["credits"]),
            before_refit=None if before is None else _measures(before),
        )


def _measures(row: Mapping[str, Any]) -> dict[str, Measure]:
    return {name: Measure(**measure) for name, measure in row.items()}


@dataclass(frozen=True, kw_only=True)
class How:
    """How models are measured; the same for all of a comparison."""

    k: tuple[int, ...]
    seen: Seen
    refit: bool
    n_explained: int
    protocol: str
    split: str
    """Hash of the split"""


def measure(
    model: Model,
    train: Sequences,
    validation: Moments,
    test: Callable[[], Moments],
    how: How,
    *,
    is_alone: bool = False,
    progress: Progress | None = None,
) -> Measured:
    """Fit a model and say what it can do and what that takes.

    Args:
        validation: over sequences that hold nothing after them; with `how.refit` the model is fitted again on these.
        test: gives the test moments; called when the model has learned all it will.
        is_alone: whether this process does nothing else, so that its memory is the model's.
    """
    before = peak_memory_bytes() if is_alone else None
    started = time.perf_counter()
    first = model.fit(train, validation, progress=progress)
    model = _refitted(first, validation.sequences, progress) if how.refit else first
    fit_seconds = time.perf_counter() - started
    moments = test()
    about: dict[str, Any] = {"k": how.k, "seen": how.seen, "protocol": how.protocol, "split": how.split}
    accuracy = evaluate([model], moments, **about, progress=progress)
    before_refit = None
    if how.refit:
        [before_refit] = evaluate([first], moments, **about, progress=progress).rows.values()
    peak = peak_memory_bytes() if is_alone else None
    some = sample(moments, how.n_explained)
    # The first call pays for what is only made once.
    explain(model, some.take(slice(0, 8)))
    score_seconds = _least_seconds(lambda: model.predict(some))
    ledgers: list[Ledger] = []
    explain_seconds = _least_seconds(lambda: ledgers.append(explain(model, some)))
    costs = Costs(
        fit_seconds=fit_seconds,
        peak_memory_bytes=peak,
        memory_before_bytes=before,
        score_ms=1000 * score_seconds / len(some),
        explain_ms=1000 * explain_seconds / len(some),
    )
    credits = check_credits(model, some, ledgers[0])
    return Measured(accuracy=accuracy, costs=costs, credits=credits, before_refit=before_refit)


def removal_of_each(
    score: np.ndarray,
    score_without: Callable[[np.ndarray], np.ndarray],
    owner: np.ndarray,
    lag: np.ndarray,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return what masking each source event alone takes from its moment's score, (S,).

    Args:
        score: of each moment, one a user at most, with all of its events, (N,).
        score_without: returns the same where events, bool (S,), are masked.
        owner: the moment of each source event, (S,), and `lag` how many events back from it the event lies.
    """
    taken = np.zeros(len(lag))
    with (progress or Progress()).track("mask each event", int(lag.max(initial=0))) as advance:
        for one in range(1, int(lag.max(initial=0)) + 1):
            gone = lag == one
            taken[gone] = (score - score_without(gone))[owner[gone]]
            advance()
    return taken


def sample(moments: Moments, n: int) -> Moments:
    """Return the moments of `sample_rows`."""
    return moments.take(sample_rows(moments, n))


def sample_rows(moments: Moments, n: int) -> np.ndarray:
    """Return the places of up to `n` moments with a history, each user's latest, spread evenly over the users.

    Where every event of a user is a moment, the earliest would have a history of one event.

    Raises:
        DataError: no moment has a history.
    """
    with_history = np.flatnonzero(moments.stop > moments.start)
    if len(with_history) == 0:
        raise DataError("no test moment has a history, so there is nothing to explain. Split the log another way.")
    latest_first = with_history[np.argsort(-moments.stop[with_history], kind="stable")]
    _, first = np.unique(moments.user_idx[latest_first], return_index=True)
    rows = latest_first[first]
    return np.asarray(rows[np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))])


def check_credits(model: Model, moments: Moments, ledger: Ledger, *, seed: int = 0) -> CreditCheck:
    """Hold a ledger against the model: do its credits add up, and is each what masking its event takes away?

    Args:
        moments: one a user at most, so that masking an event for one changes no other; each with a history.
        ledger: one prediction for each of them, with every event.
        seed: where the draw of events comes from.
    """
    rows = ledger.table.select([schema.PREDICTION_ID, schema.SOURCE, schema.LAG, schema.CREDIT])
    events = rows.filter(pc.equal(rows.column(schema.SOURCE), "event"))
    prediction, lag, credit = (
        events.column(name).to_numpy() for name in (schema.PREDICTION_ID, schema.LAG, schema.CREDIT)
    )
    residual = rows.filter(pc.equal(rows.column(schema.SOURCE), "residual")).column(schema.CREDIT).to_numpy()
    items = model.vocab.items.to_idx(ledger.predictions.column(schema.ITEM_ID).to_pylist())
    score = ledger.predictions.column(schema.SCORE).to_numpy()

    def removal_gaps(wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return credit, and its distance to the removal, of the event this many before each moment."""
        chosen = np.flatnonzero(lag == wanted[prediction])
        chosen = chosen[np.argsort(prediction[chosen])]
        without = replace(moments, sequences=moments.sequences.masked(moments.stop - wanted))
        change = score - model.predict(without)[np.arange(len(moments)), items]
        return credit[chosen], np.abs(change - credit[chosen])

    n_read = np.bincount(prediction, minlength=len(moments))
    _, latest = removal_gaps(np.ones(len(moments), np.int64))
    drawn, of_any = removal_gaps(np.random.default_rng(seed).integers(1, n_read + 1))
    return CreditCheck(
        exactness=ledger.note.exactness,
        largest_gap=ledger.largest_gap(),
        mean_residual=float(np.abs(residual).mean()) if len(residual) else 0.0,
        latest_removal_gap=float(latest.mean()),
        any_removal_gap=float(of_any.mean()),
        mean_credit=float(np.abs(drawn).mean()),
    )


def peak_memory_bytes() -> int | None:
    """Return the most memory this process has held; None where the system does not tell."""
    try:
        # Linux hands `ru_maxrss` on from the process that started this one; the high-water mark is our own.
        status = Path("/proc/self/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _refitted(model: Model, train: Sequences, progress: Progress | None) -> Model:
    refit = getattr(model, "refit", None)
    if refit is None:
        raise ConfigError(f"the {model.name} model has no method refit. Compare without refit.")
    refitted: Model = refit(train, progress=progress)
    return refitted


def _least_seconds(call: Callable[[], object]) -> float:
    """Return the least time of up to three calls: what disturbs a call can only make it longer."""
    took: list[float] = []
    while len(took) < 3 and sum(took) < 1:
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return min(took)


def main(arguments: Sequence[str]) -> None:
    """Measure the model of a job."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job_folder = Path(arguments[0])
    job = json.loads((job_folder / "job.json").read_text())
    split = Path(job["split"])
    how = How(**{**job["how"], "k": tuple(job["how"]["k"])})
    result: dict[str, Any]
    try:
        measured = measure(
            from_plain(job["model"]),
            Sequences.load(split / "train"),
            Moments.load(split / "validation"),
            lambda: Moments.load(split / "test"),
            how,
            is_alone=True,
            progress=LineProgress(sys.stdout),
        )
        result = {"measured": measured.to_dict()}
    except InfluentError as error:
        result = {"error": str(error)}
    (job_folder / "result.json").write_text(json.dumps(result))


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however that ended: its end of the pipe closes."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
