"""How often people who move nobody are said to, and people who do are found out, in seeded worlds.

Usage: python -m benchmarks.likeness [--worlds N] [--first-seed N]

Ties are given. Without influence, at three degrees to which people are tied to their like, the verdict "directed beyond
likeness" is a false alarm; asked for are 5 % of worlds at most. What each test says is counted beside the verdict.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from typing import Any

import influent
from benchmarks.common import measured_on, write_result

WORLDS = ((0.0, 0.0), (0.0, 0.5), (0.0, 0.9), (0.1, 0.5), (0.3, 0.5))
"""Strength of ties, and homophily"""


def main(n_worlds: int, first_seed: int) -> None:
    """Ask for the verdict in each world, and write how often it was which."""
    about, rows = measured_on(), []
    for strength, homophily in WORLDS:
        verdicts: Counter[str] = Counter()
        tests: dict[str, Counter[str]] = defaultdict(Counter)
        with influent.progress_for(sys.stderr).track(f"strength {strength}, {homophily}", n_worlds) as advance:
            for seed in range(first_seed, first_seed + n_worlds):
                report = report_of(strength, homophily, seed)
                verdicts[report.verdict] += 1
                for test in report.tests:
                    tests[test.name][test.speaks] += 1
                advance()
        rows.append({"strength": strength, "homophily": homophily, "verdicts": dict(verdicts), "tests": dict(tests)})
        print(rows[-1], flush=True)
    write_result("likeness", {**about, "first_seed": first_seed, "n_worlds": n_worlds, "rows": rows})


def report_of(strength: float, homophily: float, seed: int) -> influent.LikenessReport:
    """Return what is said of one world."""
    settings: dict[str, Any] = {"n_users": 100, "n_items": 80, "n_ties": 4, "horizon_days": 60}
    world = influent.simulate_world(
        influent.WorldConfig(**settings, social_strength=strength, homophily=homophily, seed=seed)
    )
    log = influent.build_sequences(influent.clean(influent.read_events(world.events), drop_duplicates=False))
    ties = influent.build_ties(influent.read_edges(world.edges), log)
    return influent.check_likeness(influent.Social(ties).fit(log), log, seed=seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0)
    asked = parser.parse_args()
    main(asked.worlds, asked.first_seed)
