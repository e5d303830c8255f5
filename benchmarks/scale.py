"""CPU seconds and peak memory of reading, cleaning and building sequences, from 1 to 10 million events.

Usage: python -m benchmarks.scale. Each size runs in a process of its own, so that peaks do not mix.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import influent
from benchmarks.common import measured_on, peak_memory_mib, write_result

SIZES = (1_000_000, 3_000_000, 10_000_000)
EVENTS_PER_USER = 34.5
MEMORY_LIMIT_BYTES = 2**30


def simulate(n_events: int, path: Path) -> None:
    """Write a planted world of about this many events."""
    world = influent.simulate_world(influent.WorldConfig(n_users=round(n_events / EVENTS_PER_USER), n_items=20_000))
    pq.write_table(world.events, path, compression="zstd")


def measure(path: Path) -> dict[str, Any]:
    """Read, clean, build; return what it took."""
    before, started = time.process_time(), time.perf_counter()
    engine = influent.Engine(memory_limit_bytes=MEMORY_LIMIT_BYTES)
    events = influent.clean(influent.read_events(path, engine=engine))
    sequences = influent.build_sequences(events)
    return {
        "n_events": len(sequences),
        "n_users": sequences.n_users,
        "cpu_seconds": round(time.process_time() - before, 2),
        "wall_seconds": round(time.perf_counter() - started, 2),
        "peak_memory_mib": peak_memory_mib(),
    }


def main() -> None:
    """Simulate each size, measure it in a process of its own, and write the result."""
    about, rows = measured_on(), []
    with tempfile.TemporaryDirectory() as folder:
        for n_events in SIZES:
            path = Path(folder) / f"{n_events}.parquet"
            for step in ("simulate", "measure"):
                command = [sys.executable, "-m", "benchmarks.scale", step, str(n_events), str(path)]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append(json.loads(output))
            print(rows[-1], flush=True)
    per_event = [row["cpu_seconds"] / row["n_events"] for row in rows]
    content = {**about, "engine_memory_limit_bytes": MEMORY_LIMIT_BYTES, "sizes": rows}
    write_result("scale", {**content, "cpu_per_event_largest_over_smallest": round(per_event[-1] / per_event[0], 3)})


if __name__ == "__main__":
    if sys.argv[1:2] == ["simulate"]:
        simulate(int(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(Path(sys.argv[3]))))
    else:
        main()
