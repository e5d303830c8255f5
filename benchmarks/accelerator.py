"""What a GPU does to training and to ledgers: seconds, memory, and whether it adds up as a processor does.

Usage: python -m benchmarks.accelerator [SET]

Each model is trained for a few epochs in float32 and in bfloat16, and in bfloat16 a second time, to see whether the
same seed gives the same weights; the additive model meanwhile also on a core of the processor. Then the trained model
is read on both, and its scores and credits are compared.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import influent
from benchmarks.common import measured_on, some_of, write_result
from benchmarks.ranking import predictor
from benchmarks.sets import BENCHMARKS
from influent.models.config import Device, Precision

N_EPOCHS, N_PREDICTIONS, N_JUDGED = 3, 200, 1000
MODELS = ("additive", "sasrec", "hstu", "gru")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def main(name: str) -> None:
    """Train and read each model both ways, and write the result."""
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a GPU, and torch sees none.")
    about, split = measured_on(), split_of(name)
    found: dict[str, dict[str, Any]] = {}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as beside:
        on_processor = beside.submit(of_processor, name)
        for kind in MODELS:
            runs = [trained(kind, name, split, precision, "cuda") for precision in PRECISIONS]
            again = trained(kind, name, split, "bfloat16", "cuda")[0]
            model = runs[-1][0]
            some = some_of(split.test, N_PREDICTIONS)
            found[kind] = {
                **{precision: row for precision, (_, row) in zip(PRECISIONS, runs, strict=True)},
                "same_weights_again": bool(np.array_equal(model.predict(some), again.predict(some))),
                **read_on_both(model, some),
            }
            print(f"{kind}: {json.dumps(found[kind])}", flush=True)
        found["additive"]["processor"] = on_processor.result()
    print(f"additive on one core: {json.dumps(found['additive']['processor'])}", flush=True)
    write_result(f"accelerator-{name}", {**about, "set": name, "split": split.hash, "models": found})


def split_of(name: str) -> influent.Split:
    """Return the set's split, with fewer moments to judge epochs by."""
    split = BENCHMARKS[name].split()
    return replace(split, validation=some_of(split.validation, N_JUDGED))


def of_processor(name: str) -> dict[str, Any]:
    """Return what an epoch of the additive model takes on one core."""
    return trained("additive", name, split_of(name), "float32", "cpu", n_epochs=1)[1]


def trained(
    kind: str, name: str, split: influent.Split, precision: Precision, device: Device, n_epochs: int = N_EPOCHS
) -> tuple[influent.Predictor, dict[str, Any]]:
    """Return a trained model, and what its training took; a first epoch that warms up is left out of several."""
    model = predictor(kind, BENCHMARKS[name], seed=0)
    model.train = replace(model.train, epochs=n_epochs, precision=precision, device=device)
    torch.cuda.reset_peak_memory_stats()
    model.fit(split.train, split.validation)
    epochs = model.log.epochs[1:] or model.log.epochs
    return model, {
        "seconds_per_epoch": round(float(np.mean([epoch["seconds"] for epoch in epochs])), 2),
        "gpu_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20) if device == "cuda" else 0,
        "losses": [epoch["loss"] for epoch in model.log.epochs],
        "validation_ndcg@10": model.log.best_score,
    }


def read_on_both(model: influent.Predictor, some: influent.Moments) -> dict[str, Any]:
    """Return how far scores and credits that a GPU computes are from those of a processor."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        place = Path(folder) / "config.json"
        config = json.loads(place.read_text())
        config["settings"]["train"]["device"] = "cpu"
        place.write_text(json.dumps(config))
        beside = influent.load_model(folder)
    ledgers = [influent.explain(one, some) for one in (model, beside)]
    credits = [ledger.table.column("credit").to_numpy() for ledger in ledgers]
    return {
        "largest_gap": ledgers[0].largest_gap(),
        "largest_score_difference": float(np.abs(model.predict(some) - beside.predict(some)).max()),
        "largest_credit_difference": float(np.abs(credits[0] - credits[1]).max()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", nargs="?", default="movielens-1m", choices=BENCHMARKS)
    main(parser.parse_args().set)
