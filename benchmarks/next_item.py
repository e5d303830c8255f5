"""Leave-one-out accuracy of every model on MovieLens-100K and Amazon Beauty, and the time of a full ledger.

Usage: python -m benchmarks.next_item [movielens-100k | amazon-beauty] …
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import asdict
from typing import Any

import torch

import influent
from benchmarks.common import data_set, measured_on, write_result
from influent.models.item_to_item import ItemToItem

SEEDS = (0, 1, 2)


def counted(name: str) -> list[ItemToItem]:
    """Return the models that need no gradient, with the settings that are known to serve these data."""
    if name == "movielens-100k":
        return [
            influent.Popularity(),
            influent.RecentPopularity(last_days=7),
            influent.Markov(),
            influent.ItemKNN(),
            influent.Ease(),
            influent.DecayedCounts(),
        ]
    counts = influent.DecayedCounts(popularity_power=0.0, reverse=0.0, decay=0.5)
    return [influent.Popularity(), influent.Markov(), influent.ItemKNN(), influent.Ease(), counts]


def settings(name: str) -> influent.ModelConfig:
    """Return the additive model's settings; where they are not the defaults, validation chose them."""
    if name == "amazon-beauty":
        return influent.ModelConfig(max_len=50, count_popularity_power=0.0, count_reverse=0.0)
    return influent.ModelConfig()


def run(name: str) -> None:
    """Fit, judge and explain on one data set, and write the result after every model."""
    about = measured_on()
    events = influent.clean(influent.read_events(data_set(name) / "events.parquet"))
    split = influent.split_last(influent.build_sequences(events))
    about |= {
        "protocol": split.protocol + "; full catalogue; seen items left out; not refitted with validation events",
        "split": split.hash,
        "n_events": len(events),
        "n_users": split.test.sequences.n_users,
        "n_items": split.train.vocab.n_items,
    }
    rows: list[dict[str, Any]] = []
    for model in counted(name):
        started = time.perf_counter()
        model.fit(split.train)
        rows.append(judged(model, split, time.perf_counter() - started))
    for seed in SEEDS if name == "movielens-100k" else SEEDS[:1]:
        started = time.perf_counter()
        predictor = influent.Predictor(model=settings(name), train=influent.TrainConfig(seed=seed))
        predictor.fit(split.train, split.validation, progress=influent.progress_for(sys.stderr))
        row = judged(predictor, split, time.perf_counter() - started)
        row |= {"seed": seed, "settings": {"model": asdict(predictor.model), "train": asdict(predictor.train)}}
        row |= {"best_epoch": predictor.log.best_epoch, "validation_ndcg@10": predictor.log.best_score}
        rows.append(row | explained(predictor, split))
        peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        write_result(name, {**about, "models": rows, "peak_rss_mib": peak})


def judged(model: influent.Model, split: influent.Split, fit_seconds: float) -> dict[str, Any]:
    """Return test accuracy with intervals."""
    report = influent.evaluate([model], split.test, protocol=split.protocol, split=split.hash)
    print(report.to_markdown().splitlines()[2], flush=True)
    measures = {name: asdict(measure) for name, measure in report.rows[model.name].items()}
    return {"model": model.name, "fit_seconds": round(fit_seconds, 2), "test": measures}


def explained(model: influent.Model, split: influent.Split) -> dict[str, Any]:
    """Return how long every credit of every test prediction takes, and how exactly it closes."""
    influent.explain(model, split.test.take(slice(0, 8)))
    started = time.perf_counter()
    ledger = influent.explain(model, split.test)
    seconds = time.perf_counter() - started
    return {
        "ledger": {
            "seconds": round(seconds, 3),
            "torch_threads": torch.get_num_threads(),
            "predictions": len(ledger),
            "rows": ledger.table.num_rows,
            "largest_gap": ledger.largest_gap(),
        }
    }


if __name__ == "__main__":
    for each in sys.argv[1:] or ("movielens-100k", "amazon-beauty"):
        run(each)
