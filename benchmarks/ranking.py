"""Accuracy, time and memory of one model on one data set, in a process of its own.

Usage: python -m benchmarks.ranking SET MODEL [--seed N] [--refit]

SET is one of `benchmarks.sets.BENCHMARKS`. MODEL is `additive`, `additive-text`, `additive-query`, `additive-moment`
(it knows when the target comes), `additive-ensemble` (the mean of three trainings, and each of them), a black box
(`sasrec`, `hstu`, `gru`, `lstm`), `feedback`, one that counts (`counts`, `popularity`, …), or the peer
(`rectools-sasrec`, `rectools-hstu`).
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

import influent
from benchmarks.common import measured_on, peak_memory_mib, set_and_model, write_result
from benchmarks.rectools import run_rectools
from benchmarks.sets import BENCHMARKS, Benchmark
from influent.models.item_to_item import ItemToItem

VARIANTS: dict[str, dict[str, Any]] = {"query": {"gate": "query"}, "moment": {"knows_moment": True}}
"""Settings by which a variant of a model differs from it."""


def counted(name: str, benchmark: Benchmark) -> ItemToItem:
    """Return a model that needs no gradient."""
    kinds: dict[str, ItemToItem] = {
        "popularity": influent.Popularity(),
        "recent_popularity": influent.RecentPopularity(last_days=7),
        "markov": influent.Markov(),
        "itemknn": influent.ItemKNN(),
        "ease": influent.Ease(),
        "counts": influent.DecayedCounts(**benchmark.counts),
    }
    return kinds[name]


def predictor(name: str, benchmark: Benchmark, seed: int) -> influent.Predictor:
    """Return a model that learns by gradient, with the set's settings."""
    backbone, _, variant = name.partition("-")
    is_sum = backbone in ("additive", "feedback")
    own = benchmark.model if is_sum else {"max_len": 50, **benchmark.box}
    train = benchmark.train if is_sum else benchmark.box_train
    if backbone in ("sasrec", "hstu"):
        own, train = {**own, **benchmark.attention}, {**train, **benchmark.attention_train}
    options = VARIANTS.get(variant, {})
    settings = influent.ModelConfig.from_dict({"backbone": backbone, **own, **options})
    return influent.Predictor(model=settings, train=influent.TrainConfig(seed=seed, **train))


def run(set_name: str, name: str, seed: int, refit: bool) -> None:
    """Fit, judge and explain, and write the result."""
    benchmark, about = BENCHMARKS[set_name], measured_on()
    split = benchmark.split()
    about |= {
        "set": set_name,
        "protocol": split.protocol + "; full catalogue; seen items left out",
        "split": split.hash,
        "n_events": len(split.test.sequences),
        "n_users": split.test.sequences.n_users,
        "n_items": split.train.vocab.n_items,
    }
    row: dict[str, Any] = {"model": name}
    if name.startswith("rectools-"):
        row |= {"seed": seed} | run_rectools(split, name.removeprefix("rectools-"), {"seed": seed, **benchmark.peer})
    elif name in ("popularity", "recent_popularity", "markov", "itemknn", "ease", "counts"):
        model, started = counted(name, benchmark), time.perf_counter()
        model.fit(split.train)
        row |= {"fit_seconds": round(time.perf_counter() - started, 2), "test": judged(model, split)}
        if refit:
            row["refitted"] = {"test": judged(model.refit(split.train_and_validation), split)}
    else:
        one = predictor(name, benchmark, seed)
        row |= {"seed": seed, "settings": {"model": asdict(one.model), "train": asdict(one.train)}}
        whole = influent.Ensemble(one) if name.endswith("-ensemble") else one
        row |= learned(whole, benchmark, split, refit, has_text=name.endswith("-text"))
    row["peak_memory_mib"] = row.get("peak_memory_mib", peak_memory_mib())
    seeded = f"-{seed}" if "seed" in row else ""
    write_result(f"{set_name}/{name}{seeded}", {**about, **row})


def learned(
    model: influent.Predictor | influent.Ensemble,
    benchmark: Benchmark,
    split: influent.Split,
    refit: bool,
    *,
    has_text: bool,
) -> dict[str, Any]:
    """Fit a model that learns by gradient, and look at its ledger."""
    vectors = [benchmark.text(split)] if has_text and benchmark.text is not None else []
    started, cpu = time.perf_counter(), time.process_time()
    model.fit(split.train, split.validation, vectors=vectors, progress=influent.progress_for(sys.stderr))
    row: dict[str, Any] = {
        "fit_seconds": round(time.perf_counter() - started, 1),
        "fit_cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_memory_mib": peak_memory_mib(),
        "test": judged(model, split),
        "test_of_rare_items": judged_on_rare_items(model, split),
        "exactness": model.exactness,
    }
    if isinstance(model, influent.Ensemble):
        row["members"] = [
            {"seed": member.train.seed, **_trained(member), "test": judged(member, split)} for member in model.members
        ]
    else:
        row |= _trained(model)
    if model.exactness != "estimated":
        row["ledger"] = explained(model, split)
    if refit:
        started = time.perf_counter()
        refitted = model.refit(split.train_and_validation, progress=influent.progress_for(sys.stderr))
        row["refitted"] = {"fit_seconds": round(time.perf_counter() - started, 1), "test": judged(refitted, split)}
        if isinstance(refitted, influent.Ensemble):
            for member, found in zip(refitted.members, row["members"], strict=True):
                found["refitted"] = {"test": judged(member, split)}
    return row


def _trained(model: influent.Predictor) -> dict[str, Any]:
    log = model.log
    return {"epochs": log.epochs, "best_epoch": log.best_epoch, "validation_ndcg@10": log.best_score}


def judged(model: influent.Model, split: influent.Split) -> dict[str, Any]:
    """Return test accuracy with intervals."""
    report = influent.evaluate([model], split.test, protocol=split.protocol, split=split.hash)
    print(report.to_markdown().splitlines()[2], flush=True)
    return {name: asdict(measure) for name, measure in report.rows[model.name].items()}


def judged_on_rare_items(model: influent.Model, split: influent.Split) -> dict[str, Any]:
    """Return test accuracy where what came next has fewer than five training events."""
    items, _ = split.test.target_items()
    rare = split.test.take(np.flatnonzero(split.train.item_counts()[items] < 5))
    if len(rare) == 0:
        return {"n_moments": 0}
    report = influent.evaluate([model], rare, k=(10, 100))
    return {"n_moments": len(rare), **{name: asdict(m) for name, m in report.rows[model.name].items()}}


def explained(model: influent.Model, split: influent.Split) -> dict[str, Any]:
    """Return how long every credit of up to a thousand test predictions takes, and how exactly it closes."""
    some = split.test.take(slice(0, 1000))
    influent.explain(model, some.take(slice(0, 8)))
    started = time.perf_counter()
    ledger = influent.explain(model, some)
    seconds = time.perf_counter() - started
    return {
        "seconds": round(seconds, 3),
        "torch_threads": torch.get_num_threads(),
        "predictions": len(ledger),
        "rows": ledger.table.num_rows,
        "largest_gap": ledger.largest_gap(),
    }


if __name__ == "__main__":
    parser = set_and_model(__doc__, BENCHMARKS)
    parser.add_argument("--refit", action="store_true", help="also fit again with the validation events")
    asked = parser.parse_args()
    run(asked.set, asked.model, asked.seed, asked.refit)
