"""Seconds and peak memory of the factor report on a ledger of about 1 million rows.

Usage: python -m benchmarks.factors. The report is made in a process of its own, from the run folder's tables.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import influent
from benchmarks.common import measured_on, peak_memory_mib, write_result

N_USERS = 29_000


def simulate(folder: Path) -> None:
    """Write the ledger of every event of a planted world's users after a cutoff, and its sequences."""
    world = influent.simulate_world(influent.WorldConfig(n_users=N_USERS, n_items=2_000, seed=0))
    events = influent.clean(influent.read_events(world.events))
    sequences = influent.build_sequences(
        events, items=influent.read_items(world.items), users=influent.read_users(world.users)
    )
    split = influent.split_last(sequences)
    model = influent.DecayedCounts().fit(split.train)
    influent.explain(model, split.test).save(folder)
    split.test.sequences.save(folder)


def measure(folder: Path) -> dict[str, Any]:
    """Read ledger and sequences, make the report, write it; return what it took."""
    before, started = time.process_time(), time.perf_counter()
    ledger = influent.Ledger.load(folder)
    found = influent.factors(ledger, sequences=influent.Sequences.load(folder))
    found.save(folder)
    assert found.ranking is not None
    return {
        "n_ledger_rows": ledger.table.num_rows,
        "n_users": len(ledger),
        "n_factors": len(found.names),
        "n_rows_of_the_table": found.table.num_rows,
        "page_bytes": (folder / "factors.html").stat().st_size,
        "share_of_variance_explained": round(found.ranking.explained, 4),
        "cpu_seconds": round(time.process_time() - before, 2),
        "wall_seconds": round(time.perf_counter() - started, 2),
        "peak_memory_mib": peak_memory_mib(),
    }


def main() -> None:
    """Simulate, measure each in a process of its own, and write the result."""
    about, output = measured_on(), ""
    with tempfile.TemporaryDirectory() as folder:
        for step in ("simulate", "measure"):
            command = [sys.executable, "-m", "benchmarks.factors", step, folder]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(output)
    print(found)
    write_result("factors", {**about, **found})


if __name__ == "__main__":
    if sys.argv[1:2] == ["simulate"]:
        simulate(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        main()
