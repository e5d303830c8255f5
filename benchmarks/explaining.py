"""How long credits take: the additive model's exact ledger beside estimates on a SASRec of the same width.

Usage: python -m benchmarks.explaining

All test predictions of MovieLens-100K, and one prediction from a history of 2,000 events. How good the models are does
not matter here, so they are trained for one epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import influent
from benchmarks.common import data_set, measured_on, write_result

WIDTH: dict[str, Any] = {"embedding_dim": 64, "max_len": 100}


def main() -> None:
    """Measure, and write the result."""
    about = measured_on()
    split = influent.split_last(
        influent.build_sequences(influent.clean(influent.read_events(data_set("movielens-100k") / "events.parquet")))
    )
    once = influent.TrainConfig(epochs=1)
    models = {
        name: influent.Predictor(model=influent.ModelConfig.from_dict({"backbone": name, **WIDTH}), train=once).fit(
            split.train, split.validation
        )
        for name in ("additive", "sasrec")
    }
    items, _ = split.test.target_items()
    ids = split.train.vocab.items.to_ids(items).to_pylist()

    def ledger(name: str, **settings: Any) -> Callable[[], Any]:
        return lambda: influent.explain(models[name], split.test, items=[[item] for item in ids], **settings)

    rows = {
        "additive, exact": least_seconds(ledger("additive"), n=3),
        "sasrec, leave_one_out": least_seconds(ledger("sasrec", method="leave_one_out"), n=1),
        "sasrec, integrated_gradients, 50 steps": least_seconds(
            ledger("sasrec", method="integrated_gradients", n_steps=50), n=1
        ),
    }
    fast = rows["additive, exact"]
    for name, seconds in rows.items():
        print(f"{name}: {seconds:.2f} s, {seconds / fast:.0f} times", flush=True)
    long = one_long_history()
    print(f"all credits of one prediction after 2,000 events: {1000 * long:.1f} ms", flush=True)
    write_result(
        "explaining",
        {
            **about,
            "predictions": len(split.test),
            "torch_threads": torch.get_num_threads(),
            "seconds": rows,
            "ratios": {name: seconds / fast for name, seconds in rows.items()},
            "history_of_2000_ms": 1000 * long,
        },
    )


def one_long_history() -> float:
    """Return the seconds that a ledger of one prediction takes, of a user with 2,000 events."""
    rng = np.random.default_rng(0)
    log = {
        "user_id": np.repeat(np.arange(3), 2002),
        "item_id": rng.integers(0, 1000, 3 * 2002),
        "time_us": np.tile(np.cumsum(rng.integers(1, 10**10, 2002)), 3),
    }
    split = influent.split_last(influent.build_sequences(influent.clean(influent.read_events(pa.table(log)))))
    settings = influent.ModelConfig(embedding_dim=64, max_len=2000)
    model = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    moment = split.test.take(slice(0, 1))
    return least_seconds(lambda: influent.explain(model, moment, items=[0]), n=20)


def least_seconds(work: Callable[[], Any], *, n: int) -> float:
    """Return the least of `n` times, after one that is not counted where there are several."""
    if n > 1:
        work()
    found = []
    for _ in range(n):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


if __name__ == "__main__":
    main()
