"""Who acts next in a cascade: popularity, counts that stand still or stream, and the learned intensity, on five sets.

Usage: python -m benchmarks.cascades [SET …]; a set whose figures are there already is measured anew.

The last tenth of the cascades by start is for test, the tenth before for validation. Every act but a cascade's first is
predicted from strictly earlier acts of all cascades; users in the cascade are not ranked. All is done twice: acts at
the very same time have no order, or that of the file, as for a counter that reads it from above. Settings of counts are
chosen by MAP@100 on validation acts, and the weights of the intensity are learned from acts before the test begins.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

import influent
from benchmarks.common import RESULTS, data_set, measured_on, peak_memory_mib, write_result
from influent.evaluation.cascades import actor_ranks
from influent.evaluation.metrics import reciprocal_rank

TIMES = {
    "christianity": "t_rel",
    "android": "t_rel",
    "twitter": "timestamp",
    "memetracker": "timestamp",
    "douban": "timestamp",
}
SETTINGS: tuple[dict[str, float], ...] = (
    {"popularity_power": 0.3, "row_power": 0.5, "decay": 0.7},
    {"popularity_power": 0.0, "row_power": 1.0, "decay": 0.5, "pair_decay": 0.6, "window": 10},
    {"popularity_power": 0.0, "row_power": 1.0, "decay": 0.9, "reverse": 0.5},
    {"popularity_power": 0.0, "row_power": 1.0, "decay": 0.9, "half_life_days": 30.0},
)
"""What is tried for the counts"""
N_CHOOSING = 1000
"""Validation acts that settings are chosen by, drawn"""


def main(names: list[str]) -> None:
    """Measure each set and write the result, sets already there beside."""
    path = RESULTS / "cascades.json"
    sets: dict[str, Any] = json.loads(path.read_text())["sets"] if path.exists() else {}
    for name in names or TIMES:
        about = measured_on()
        sets[name] = {ties: measure(name, ties) for ties in ("unordered", "log")}
        write_result("cascades", {**about, "sets": {one: sets[one] for one in TIMES if one in sets}})


def measure(name: str, ties: Literal["unordered", "log"]) -> dict[str, Any]:
    """Return the figures of every model on one set, acts at the very same time read as told."""
    log = data_set(f"cascades-{name}") / "events.parquet"
    events = influent.read_events(log, time=TIMES[name], time_unit="s")
    cascades = influent.build_cascades(influent.clean(events, drop_duplicates=False), ties=ties)
    split = influent.split_cascades(cascades)
    settings = choose(split.validation)
    started = time.perf_counter()
    model = influent.ActorIntensity().fit(split.train_and_validation)
    fit_seconds = time.perf_counter() - started
    models = [
        influent.ActorPopularity(),
        influent.ActorCounts(streaming=False, **settings),  # type: ignore[arg-type]
        influent.ActorCounts(**settings),  # type: ignore[arg-type]
        model,
    ]
    started = time.perf_counter()
    report = influent.evaluate_next_actor(models, split.test, protocol=split.protocol, split=split.hash)
    print(f"{name}, ties {ties}\n{report.to_markdown()}", flush=True)
    return {
        "cascades": cascades.summary(),
        "overlap": split.overlap,
        "report": report.to_dict(),
        "settings_of_counts": settings,
        "intensity": {
            "log_likelihood_of_fitted_acts": model.log_likelihood,
            "gamma": model.gamma,
            "alpha": model.alpha.tolist(),
            "beta": model.beta.tolist(),
            "power": model.power.tolist(),
            "settings": {key: value for key, value in asdict(model).items() if key in ("n_acts", "max_len", "seed")},
        },
        "fit_seconds": round(fit_seconds, 1),
        "evaluate_seconds": round(time.perf_counter() - started, 1),
        "peak_memory_mib": peak_memory_mib(),
    }


def choose(validation: influent.NextActs) -> dict[str, float]:
    """Return the settings of the streaming counts with the best MAP@100."""
    rows = np.random.default_rng(0).permutation(len(validation))[:N_CHOOSING]
    acts = validation.take(rows)
    each = np.arange(len(acts) + 1)
    found = []
    for settings in SETTINGS:
        ranks = actor_ranks(influent.ActorCounts(**settings), acts)  # type: ignore[arg-type]
        found.append(float(reciprocal_rank(ranks, each, 100).mean()))
    return SETTINGS[int(np.argmax(found))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET")
    main(parser.parse_args().sets)
