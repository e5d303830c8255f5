"""A run's ledger to what analysts ask of it, each a table in the run folder: the steps that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from influent.data.sequences import Sequences
from influent.influence.factors import Factors, factors
from influent.influence.ledger import Ledger
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


def _explained(folder: str | Path) -> tuple[Run, Ledger, Sequences]:
    """Return a run, its ledger and the events that this explains."""
    run = Run.open(folder)
    for step in ("clean", "fit", "explain"):
        run.require(step)
    return run, Ledger.load(run.folder), Sequences.load(run.folder)
