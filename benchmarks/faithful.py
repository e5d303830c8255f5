"""How true credits are of models that read a sequence: MovieLens-100K, leave last out, every method that fits.

Usage: python -m benchmarks.faithful [MODEL …]

MODEL is one of `benchmarks.ranking`'s that learn by gradient, by default the additive model and three black boxes, each
with the set's settings. One is done after the other and kept as it comes; one whose result is there for this commit is
not done again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import Any

import influent
from benchmarks.common import RESULTS, commit, measured_on, write_result
from benchmarks.ranking import predictor
from benchmarks.sets import BENCHMARKS
from influent.evaluation.faithfulness import FaithfulnessReport, Removal

SET = "movielens-100k"
MODELS = ("additive", "sasrec", "hstu", "gru")
REMOVALS: tuple[Removal, ...] = ("masked", "dropped", "swapped by popularity")
N_MOMENTS = 200


def main(names: list[str]) -> None:
    """Judge the credits of each model that is not done, and write the result after each."""
    path = RESULTS / "faithful.json"
    found: dict[str, Any] = json.loads(path.read_text())["models"] if path.exists() else {}
    for name in names or MODELS:
        if found.get(name, {}).get("commit") != commit():
            found[name] = judged(name)
            write_result("faithful", {"set": SET, "models": found})


def judged(name: str) -> dict[str, Any]:
    """Fit a model and return what was found of its credits."""
    about, benchmark, progress = measured_on(), BENCHMARKS[SET], influent.progress_for(sys.stderr)
    split = benchmark.split()
    model, started = predictor(name, benchmark, seed=0), time.process_time()
    model.fit(split.train, split.validation, progress=progress)
    fitted = time.process_time()
    report = influent.check_faithfulness(
        model,
        split.test,
        train=split.train,
        removals=REMOVALS,
        n_moments=N_MOMENTS,
        protocol=split.protocol,
        split=split.hash,
        progress=progress,
    )
    for row in report.check_cells():
        print("| " + " | ".join(row) + " |", flush=True)
    return {
        **about,
        "settings": {"model": asdict(model.model), "train": asdict(model.train)},
        "fit_cpu_seconds": round(fitted - started, 1),
        "judge_cpu_seconds": round(time.process_time() - fitted, 1),
        "validation_ndcg@10": model.log.best_score,
        **without_single_events(report),
    }


def without_single_events(report: FaithfulnessReport) -> dict[str, Any]:
    """Return the report, of orders only what sums up the whole way from none to all events."""
    plain = report.to_dict()
    for orders in plain["orders"].values():
        for order, metrics in orders.items():
            orders[order] = {name: measure for name, measure in metrics.items() if not name.endswith(" events")}
    return plain


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="*")
    main(parser.parse_args().model)
