"""How often a planted effect lies within its interval, and how often one is seen where there is none, in seeded worlds.

Usage: python -m benchmarks.effects [--runs N] [--first-seed N]

People at 9 points of time, in clusters that differ, with people who differ in what they do and in what exposure does
to them, and a trend. Asked for are 93 % of the planted effects within 95 % intervals, 95 % of the placebos around 0,
and 5 % of p-values below .05 where nothing is planted.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np

import influent
from benchmarks.common import measured_on, write_result
from influent.evaluation.report import Measure

EFFECT = 0.3
SMALL: dict[str, Any] = {"n_users": 200, "n_clusters": 20}
DESIGNS: dict[str, dict[str, Any]] = {
    "users, once": {},
    "clusters, once": {"drawn": "cluster"},
    "users, at each point": {"each_wave": True, **SMALL},
    "clusters, at each point": {"drawn": "cluster", "each_wave": True, **SMALL},
    "users, chances .2, .5 and .8": {"probabilities": (0.2, 0.5, 0.8)},
    "users, once, no effect": {"effect": 0.0, **SMALL},
    "clusters, once, no effect": {"drawn": "cluster", "effect": 0.0, **SMALL},
    "users, at each point, no effect": {"each_wave": True, "effect": 0.0, **SMALL},
    "users, chances .2, .5 and .8, no effect": {"probabilities": (0.2, 0.5, 0.8), "effect": 0.0, **SMALL},
}


def main(n_runs: int, first_seed: int) -> None:
    """Run every design with every seed, and write what came of it."""
    about, rows = measured_on(), []
    for name, settings in DESIGNS.items():
        with influent.progress_for(sys.stderr).track(name, n_runs) as advance:
            reports = []
            for seed in range(first_seed, first_seed + n_runs):
                reports.append(report(influent.ExperimentConfig(**({"effect": EFFECT} | settings), seed=seed)))
                advance()
        rows.append({"design": name, "settings": settings, **summary(reports, settings.get("effect", EFFECT))})
        print(rows[-1], flush=True)
    write_result("effects", {**about, "first_seed": first_seed, "n_runs": n_runs, "effect": EFFECT, "rows": rows})


def report(config: influent.ExperimentConfig) -> influent.EffectReport:
    """Return what is said of one world."""
    return influent.estimate_effect(
        influent.simulate_experiment(config).units,
        probability="probability",
        cluster="cluster" if config.drawn == "cluster" else None,
        period="wave",
        each_period=config.each_wave,
        covariates=["outcome_before"],
        placebo="outcome_before",
        n_permutations=199,
        seed=config.seed,
    )


def summary(reports: list[influent.EffectReport], effect: float) -> dict[str, Any]:
    """Return coverage, bias and width of each estimate, and how often a p-value is below .05."""
    p_values = np.array([one.p_value for one in reports])
    estimates = {}
    for name in reports[0].rows:
        truth = 0.0 if name == "placebo" else effect
        measures = [one.rows[name] for one in reports]
        estimates[name] = {
            "coverage": share(measures, truth),
            "bias": float(np.mean([one.mean for one in measures])) - truth,
            "root_mean_square_error": float(np.sqrt(np.mean([(one.mean - truth) ** 2 for one in measures]))),
            "mean_width": float(np.mean([one.high - one.low for one in measures])),
        }
    return {"estimates": estimates, "p_below_5_percent": float((p_values < 0.05).mean())}


def share(measures: list[Measure], truth: float) -> float:
    """Return the share of intervals that hold the truth."""
    return float(np.mean([one.low <= truth <= one.high for one in measures]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--first-seed", type=int, default=0)
    asked = parser.parse_args()
    main(asked.runs, asked.first_seed)
