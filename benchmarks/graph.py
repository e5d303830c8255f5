"""Seconds and memory from sequences to who moved whom and who leads: 50,000 people, 500,000 edges, a million events.

Usage: python -m benchmarks.graph. Each size runs in a process of its own. Edges go from people
by a power law to anybody. Events come over 90 days: most are of items by popularity, and a third repeat what somebody
whom the person follows did, hours later. Asked: 60 CPU seconds and 4 GiB for the largest, linear in co-actions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import influent
from benchmarks.common import measured_on, peak_memory_mib, write_result
from influent.data.ties import find_co_actions

SIZES = (250_000, 500_000, 1_000_000)
N_PEOPLE, N_EDGES, N_ITEMS, DAYS = 50_000, 500_000, 20_000, 90
DAY_US = 86_400_000_000


def simulate(n_events: int, folder: Path) -> None:
    """Write a log of this many events, and edges."""
    rng = np.random.default_rng(0)
    weight = 1 + rng.pareto(1.5, N_PEOPLE)
    source = rng.choice(N_PEOPLE, int(1.2 * N_EDGES), p=weight / weight.sum())
    target = rng.integers(0, N_PEOPLE, len(source))
    key = np.unique(target * N_PEOPLE + source)
    key = np.sort(rng.permutation(key[key // N_PEOPLE != key % N_PEOPLE])[:N_EDGES])
    target, source = key // N_PEOPLE, key % N_PEOPLE
    n_followed = n_events // 3
    n_first = n_events - n_followed
    popularity = 1 / np.arange(1, N_ITEMS + 1) ** 0.8
    user = rng.integers(0, N_PEOPLE, n_first)
    item = rng.choice(N_ITEMS, n_first, p=popularity / popularity.sum())
    time_us = rng.integers(0, DAYS * DAY_US, n_first)
    by_user = np.argsort(user, kind="stable")
    offsets = np.searchsorted(user[by_user], np.arange(N_PEOPLE + 1))
    n_of = np.diff(offsets)
    tie = rng.choice(np.flatnonzero(n_of[source] > 0), n_followed)
    whose = by_user[offsets[source[tie]] + (rng.random(n_followed) * n_of[source[tie]]).astype(np.int64)]
    answered_us = time_us[whose] + (rng.exponential(DAY_US / 4, n_followed)).astype(np.int64) + 1
    log = {
        "user_id": np.concatenate([user, target[tie]]),
        "item_id": np.concatenate([item, item[whose]]),
        "time_us": np.concatenate([time_us, answered_us]),
    }
    pq.write_table(pa.table(log), folder / "events.parquet")
    pq.write_table(pa.table({"source_user_id": source, "target_user_id": target}), folder / "edges.parquet")


def measure(folder: Path) -> dict[str, Any]:
    """Go from sequences to leaders; return what each step took."""
    events = influent.clean(influent.read_events(folder / "events.parquet", time_unit="us"))
    log = influent.build_sequences(events)
    edges = influent.read_edges(folder / "edges.parquet")
    cpu: dict[str, float] = {}
    wall: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begun, started = time.process_time(), time.perf_counter()
        found = work()
        cpu[name] = round(time.process_time() - begun, 2)
        wall[name] = round(time.perf_counter() - started, 2)
        return found

    before = peak_memory_mib()
    ties = timed("build_ties", lambda: influent.build_ties(edges, log))
    model = timed("fit", lambda: influent.Social(ties).fit(log))
    ledger = timed("explain_causes", lambda: influent.explain_causes(model, log))
    graph = timed("influence_graph", lambda: influent.influence_graph(ledger))
    leading = timed("leaders", lambda: influent.leaders(ledger, ties))
    return {
        "n_events": len(log),
        "n_ties": len(ties),
        "n_co_actions": len(find_co_actions(log, ties)),
        "n_edges": len(graph),
        "cpu_seconds": round(sum(cpu.values()), 2),
        "wall_seconds": round(sum(wall.values()), 2),
        "cpu_seconds_by_step": cpu,
        "wall_seconds_by_step": wall,
        "peak_memory_mib": peak_memory_mib(),
        "peak_memory_before_mib": before,
        "put_down_to_others": round(sum(graph.people.column("received").to_pylist()) / len(log), 4),
        "largest_gap": ledger.largest_gap(),
        "leaders": leading.about,
    }


def main() -> None:
    """Simulate each size, measure it in a process of its own, and write the result."""
    about, rows = measured_on(), []
    for n_events in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            for step in ("simulate", "measure"):
                command = [sys.executable, "-m", "benchmarks.graph", step, folder, str(n_events)]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(output))
        print(rows[-1], flush=True)
    sizes = {"n_people": N_PEOPLE, "n_edges": N_EDGES, "n_items": N_ITEMS, "days": DAYS}
    write_result("graph", {**about, **sizes, "sizes": rows})


if __name__ == "__main__":
    if sys.argv[1:2] == ["simulate"]:
        simulate(int(sys.argv[3]), Path(sys.argv[2]))
    elif sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        main()
