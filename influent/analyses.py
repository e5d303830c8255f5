"""A run's ledger to what analysts ask of it, from run folder to run folder: factors, drift."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from influent.answers import answers_labels
from influent.data.sequences import Sequences
from influent.influence.drift import Drift, drift
from influent.influence.factors import Factors, factors
from influent.influence.ledger import Ledger
from influent.models.store import load_model
from influent.progress import Progress
from influent.run import Run, versions, writing


def factors_run(
    folder: str | Path,
    *,
    by: Sequence[str] | None = None,
    session_gap: str = "30m",
    rank: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Factors:
    """Say what kinds of behaviour have large credits in a run's ledger, and keep tables and page.

    Args:
        by: the factors, by default all there are; the others likewise as for `factors`.
    """
    run, ledger, sequences = _explained(folder)
    found = factors(
        ledger, sequences=sequences, by=by, session_gap=session_gap, rank=rank, seed=seed, progress=progress
    )
    settings = {"by": by, "session_gap": session_gap, "rank": rank, "seed": seed, "versions": versions()}
    with writing(run.folder, "factors", settings, stands_on=run) as new:
        found.save(new)
    return found


def drift_run(
    folder: str | Path,
    *,
    by: Sequence[str] = ("action",),
    window: str = "7d",
    false_alarms: float = 0.02,
    seed: int = 0,
) -> Drift:
    """Say how influence changes over the moments of a run's ledger, and keep tables and page.

    The arguments are those of `drift`; half-lives also come from the run's model, if it ranks and is a sum.
    """
    run, ledger, sequences = _explained(folder)
    model = None if answers_labels(run) else load_model(run.folder)
    found = drift(ledger, sequences=sequences, model=model, by=by, window=window, false_alarms=false_alarms, seed=seed)
    settings = {"by": by, "window": window, "false_alarms": false_alarms, "seed": seed, "versions": versions()}
    with writing(run.folder, "drift", settings, stands_on=run) as new:
        found.save(new)
    return found


def _explained(folder: str | Path) -> tuple[Run, Ledger, Sequences]:
    """Return a run, its ledger and the events that this explains."""
    run = Run.open(folder)
    for step in ("clean", "fit", "explain"):
        run.require(step)
    return run, Ledger.load(run.folder), Sequences.load(run.folder)
