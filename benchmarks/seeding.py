"""Seconds, sets and memory of choosing 50 of 50,000 people, and what they reach beside other ways to choose.

Usage: python -m benchmarks.seeding. 800,000 arcs, out-degrees by a power law. In one spread an arc's chance is one in
the number of arcs into its target (weighted cascade), in the other it is 0.02 throughout. Each choice is made in a
process of its own. Asked: 30 s for epsilon 0.1 and 3 s for 0.5 on one core.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

import influent
from benchmarks.common import measured_on, peak_memory_mib, write_result
from influent.influence.centrality import page_rank

N_PEOPLE, N_ARCS, K = 50_000, 800_000, 50
SPREADS = ("weighted cascade", "0.02 throughout")
EPSILONS = (0.5, 0.1)
N_SIMULATIONS = 300


def simulate(name: str) -> influent.Spread:
    """Draw arcs from people whose out-degrees have a tail of exponent 1.5, to anybody."""
    rng = np.random.default_rng(0)
    weight = 1 + rng.pareto(1.5, N_PEOPLE)
    source = rng.choice(N_PEOPLE, int(1.2 * N_ARCS), p=weight / weight.sum())
    target = rng.integers(0, N_PEOPLE, len(source))
    key = np.unique(source * N_PEOPLE + target)
    key = rng.permutation(key[key // N_PEOPLE != key % N_PEOPLE])[:N_ARCS]
    source, target = key // N_PEOPLE, key % N_PEOPLE
    n_into = np.bincount(target, minlength=N_PEOPLE)
    chance = 1 / n_into[target] if name == SPREADS[0] else np.full(N_ARCS, 0.02)
    return influent.Spread.of_arrays(N_PEOPLE, source, target, chance)


def by_degree(spread: influent.Spread) -> np.ndarray:
    """Return people by how many they are expected to activate themselves."""
    return np.argsort(-np.bincount(spread.source, spread.probability, len(spread)), kind="stable")


def by_page_rank(spread: influent.Spread) -> np.ndarray:
    """Return people by PageRank on the arcs turned round, where each passes to those who activate it, by chance."""
    share = page_rank(len(spread), spread.source, spread.target, spread.probability)
    return np.argsort(-share, kind="stable")


def measure(name: str, epsilon: float) -> dict[str, Any]:
    """Choose, and say what it took; arcs are sorted for the draws within it."""
    spread = simulate(name)
    before, cpu, wall = peak_memory_mib(), time.process_time(), time.perf_counter()
    found = influent.choose_seeds(spread, K, epsilon=epsilon)
    return {
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "wall_seconds": round(time.perf_counter() - wall, 2),
        "peak_memory_mib": peak_memory_mib(),
        "peak_memory_before_mib": before,
        "n_sets": found.n_sets,
        "n_sets_drawn": found.n_drawn,
        "people_per_set": round(float(np.diff(found.sets[1].offsets).mean()), 2),
        "guaranteed_share": round(found.guaranteed_share, 4),
        "certified_share": round(found.certified_share, 4),
        "reach_by_reverse_sets": {
            key: round(found.table.column(key)[-1].as_py(), 1) for key in ("reach", "low", "high")
        },
        "seeds": found.user_ids,
    }


def changed(spread: influent.Spread) -> dict[str, Any]:
    """Say what choosing again takes after 100 more arcs at random, and whether the answer is that of all anew."""
    rng = np.random.default_rng(1)
    source, target = rng.integers(0, N_PEOPLE, (2, 100))
    more = influent.Spread.of_arrays(
        N_PEOPLE,
        np.append(spread.source, source),
        np.append(spread.target, target),
        np.append(spread.probability, np.full(100, 0.05)),
    )
    known = influent.choose_seeds(spread, K, epsilon=0.5)
    begun = time.process_time()
    again = influent.choose_seeds(more, K, epsilon=0.5, known=known)
    middle = time.process_time()
    anew = influent.choose_seeds(more, K, epsilon=0.5)
    return {
        "cpu_seconds": round(middle - begun, 2),
        "cpu_seconds_anew": round(time.process_time() - middle, 2),
        "n_sets_drawn": again.n_drawn,
        "n_sets_drawn_anew": anew.n_drawn,
        "same_answer": again.table.equals(anew.table),
    }


def main() -> None:
    """Choose in each way, simulate what it reaches, and write the result."""
    about, found = measured_on(), {}
    for name in SPREADS:
        spread = simulate(name)
        chosen = {
            "degree": by_degree(spread)[:K],
            "PageRank": by_page_rank(spread)[:K],
            "random": np.random.default_rng(2).choice(N_PEOPLE, K, replace=False),
        }
        took = {}
        for epsilon in EPSILONS:
            command = [sys.executable, "-m", "benchmarks.seeding", name, str(epsilon)]
            one = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            chosen[f"IMM, epsilon {epsilon}"] = np.array(one.pop("seeds"))
            took[str(epsilon)] = one
            print(name, epsilon, one, flush=True)
        reach = {}
        for way, seeds in chosen.items():
            one_reach = influent.expected_reach(spread, seeds.tolist(), n_simulations=N_SIMULATIONS)
            reach[way] = [round(x, 1) for x in (one_reach.mean, one_reach.low, one_reach.high)]
            print(name, way, reach[way], flush=True)
        found[name] = {"by_epsilon": took, "reach_mean_low_high": reach, "after_100_more_arcs": changed(spread)}
        print(name, found[name]["after_100_more_arcs"], flush=True)
    sizes = {"n_people": N_PEOPLE, "n_arcs": N_ARCS, "k": K, "n_simulations": N_SIMULATIONS}
    write_result("seeding", {**about, **sizes, "spreads": found})


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], float(sys.argv[2]))))
    else:
        main()
