"""A split to RecTools' SASRec or HSTU and back: files out, a process in the peer's environment, ranks in."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import influent
from benchmarks.common import ROOT
from influent.data.moments import ranges
from influent.evaluation.metrics import bootstrap_interval, hit_rate
from influent.models.ranks import ndcg

PYTHON = ROOT / ".venv-peer" / "bin" / "python"

# The width of ours, whole sequences as ours reads them, and RecTools' other defaults.
SETTINGS = {"n_factors": 64, "n_heads": 2, "windows": True, "patience": 8, "epochs": 100}


def run_rectools(split: influent.Split, model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit and judge the peer, and return its settings, epochs, memory and test accuracy."""
    if not PYTHON.exists():
        raise SystemExit("the peer's environment is not there. Build it: make peer")
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder)
        write_job(split, job, model, {**SETTINGS, **settings, "n_items": split.train.vocab.n_items})
        subprocess.run([PYTHON, ROOT / "benchmarks" / "peer" / "fit_rectools.py", job], check=True)
        result: dict[str, Any] = json.loads((job / "result.json").read_text())
        ranks = pq.read_table(job / "ranks.parquet").column("rank").to_numpy()
    return {**result, "model": f"rectools-{model}", "test": accuracy(ranks, split.test.user_idx)}


def write_job(split: influent.Split, folder: Path, model: str, settings: dict[str, Any]) -> None:
    """Write what the peer's script reads."""
    (folder / "job.json").write_text(json.dumps({"model": model, "settings": settings}))
    train = split.train
    pq.write_table(_events(train, np.arange(len(train))), folder / "train.parquet")
    for name, moments in (("validation", split.validation), ("test", split.test)):
        lengths = moments.stop - moments.start
        history = _events(moments.sequences, ranges(moments.start, lengths))
        pq.write_table(history, folder / f"{name}_history.parquet")
        target = pa.table({"user_idx": moments.user_idx, "item_idx": moments.sequences.item_idx[moments.stop]})
        pq.write_table(target, folder / f"{name}.parquet")


def _events(sequences: influent.Sequences, place: np.ndarray) -> pa.Table:
    user = sequences.user_idx[place]
    times = pa.nulls(len(place), pa.int64()) if sequences.time_us is None else sequences.time_us[place]
    columns = {"user_idx": user, "item_idx": sequences.item_idx[place], "order": place - sequences.offsets[user]}
    return pa.table({**columns, "time_us": times})


def accuracy(ranks: np.ndarray, owner: np.ndarray) -> dict[str, Any]:
    """Return HR@10 and NDCG@10 of one rank per moment, with intervals."""
    offsets = np.arange(len(ranks) + 1)
    values = {"HR@10": hit_rate(ranks, offsets, 10), "NDCG@10": ndcg(ranks, offsets, 10)}
    found = {}
    for name, value in values.items():
        low, high = bootstrap_interval(value, owner)
        found[name] = {"mean": float(value.mean()), "low": low, "high": high}
    return found
