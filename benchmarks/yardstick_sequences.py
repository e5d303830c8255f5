"""Maps of importance on models that read a sequence, by the protocol of `benchmarks.yardstick` on MovieLens-1M.

Usage: python -m benchmarks.yardstick_sequences [MODEL …] [--users N] [--epochs N]

The same ratings and users as there, in the order of time: four users in five to learn from, and of each of the others
the best item that they have not is explained by their latest 100 events, which are taken out in ten steps. All models
have the same few epochs. One is done after the other and kept as it comes. Sampled Shapley values are left out: they
would read two thousand histories for each user.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

import influent
from benchmarks.common import RESULTS, data_set, measured_on, some_of, write_result
from benchmarks.faithful import without_single_events
from benchmarks.ranking import predictor
from benchmarks.sets import BENCHMARKS
from benchmarks.yardstick import liked_often
from influent.data.moments import latest_moments
from influent.evaluation.faithfulness import credits_by

MODELS = ("additive", "sasrec", "hstu", "gru")
N_VALIDATED = 1000
"""Moments, anywhere in histories of users neither learned from nor explained, that say which epoch is best"""


def main(names: list[str], n_users: int, n_epochs: int) -> None:
    """Fit and judge each model, and write the result after each."""
    path = RESULTS / "yardstick-sequences.json"
    found: dict[str, Any] = json.loads(path.read_text())["models"] if path.exists() else {}
    for name in names or MODELS:
        found[name] = judged(name, n_users, n_epochs)
        write_result("yardstick-sequences", {"models": {one: found[one] for one in MODELS if one in found}})


def read() -> tuple[influent.Sequences, influent.Split]:
    """Return all sequences, and the split of its users into those to learn from and those to explain."""
    log = liked_often(pd.read_parquet(data_set("movielens-1m") / "events.parquet"))
    sequences = influent.build_sequences(influent.clean(influent.read_events(log)))
    users = np.sort(log["user_id"].unique())
    order = np.random.default_rng(42).permutation(len(users))
    learned, asked = np.split(users[order], [int(0.8 * len(users))])
    validated = learned[: len(learned) // 20]
    return sequences, influent.split_users(sequences, validation=validated.tolist(), test=asked.tolist())


def judged(name: str, n_users: int, n_epochs: int) -> dict[str, Any]:
    """Fit a model and return what was found of its credits."""
    about, progress = measured_on(), influent.progress_for(sys.stderr)
    sequences, split = read()
    model = predictor(name, BENCHMARKS["movielens-1m"], seed=0)
    settings = {**asdict(model.model), "max_len": 100}
    train = influent.TrainConfig.from_dict({**asdict(model.train), "epochs": n_epochs})
    model = influent.Predictor(model=influent.ModelConfig.from_dict(settings), train=train)
    started = time.process_time()
    model.fit(split.train, some_of(split.validation, N_VALIDATED), progress=progress)
    fitted = time.process_time()
    report = influent.check_faithfulness(
        model,
        latest_moments(sequences, np.unique(split.test.user_idx)[:n_users]),
        train=split.train,
        methods=credits_by(model, [method for method in model.methods if method != "shapley"]),
        removals=("dropped",),
        n_moments=n_users,
        protocol="users to learn from and others to explain, 4 : 1",
        split=split.hash,
        progress=progress,
    )
    for row in report.check_cells():
        print("| " + " | ".join(row) + " |", flush=True)
    return {
        **about,
        "settings": {"model": settings, "train": asdict(train)},
        "fit_cpu_seconds": round(fitted - started, 1),
        "judge_cpu_seconds": round(time.process_time() - fitted, 1),
        "validation_ndcg@10": model.log.best_score,
        **without_single_events(report),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="*")
    parser.add_argument("--users", type=int, default=10_000, help="how many of the users to explain; all unless told")
    parser.add_argument("--epochs", type=int, default=20)
    asked = parser.parse_args()
    main(asked.model, asked.users, asked.epochs)
