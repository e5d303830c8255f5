"""How often placebos come out as nothing, in seeded worlds.

Usage: python -m benchmarks.placebo [--worlds N] [--first-seed N]

Each world is kept in runs/placebo.json as soon as it is done, so a run that was stopped goes on where it was. Delete
that file where credits or placebos have changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import influent
from benchmarks.common import ROOT, measured_on, write_result
from influent.evaluation.placebo import check_placebos

N_DRAWS = 20
KEPT = ROOT / "runs" / "placebo.json"


def main(n_worlds: int, first_seed: int) -> None:
    """Fit both models in each world, hold their credits against placebos, and write how often 0 is held."""
    about = measured_on()
    seeds = [str(first_seed + world) for world in range(n_worlds)]
    done: dict[str, dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    left = [seed for seed in seeds if seed not in done]
    with influent.progress_for(sys.stderr).track("worlds", len(left)) as advance:
        for seed in left:
            done[seed] = {"commit": about["commit"], "held": held_in_world(int(seed))}
            keep(done)
            advance()
    worlds = [done[seed] for seed in seeds]
    rows = [
        {"model": model, "what": what, "times": sum(world["held"][model][what] for world in worlds)}
        for model, found in worlds[0]["held"].items()
        for what in found
    ]
    for row in rows:
        print(f"{row['model']}: {row['what']}: {row['times']} of {n_worlds}")
    made_of = {"first_seed": first_seed, "n_worlds": n_worlds, "n_draws": N_DRAWS}
    commits = sorted({world["commit"] for world in worlds})
    write_result("placebo", {**about, "commits_of_worlds": commits, **made_of, "rows": rows})


def held_in_world(seed: int) -> dict[str, dict[str, bool]]:
    """Return by model which intervals hold 0, and whether that of histories as they were lies above it."""
    world = influent.simulate_world(influent.WorldConfig(n_users=200, n_items=100, seed=seed))
    events = influent.clean(influent.read_events(world.events))
    split = influent.split_last(influent.build_sequences(events))
    short = influent.TrainConfig(epochs=5, seed=seed)
    small = influent.ModelConfig(embedding_dim=16, n_heads=2)
    models: list[Any] = [
        influent.DecayedCounts().fit(split.train),
        influent.Predictor(model=small, train=short).fit(split.train, split.validation),
    ]
    found = {}
    for model in models:
        report = check_placebos(model, split.test, n_draws=N_DRAWS, seed=seed)
        holds = {name: measure.low <= 0 <= measure.high for name, measure in report.placebos().items()}
        found[model.name] = {**holds, "history above 0": report.history.low > 0}
    return found


def keep(done: dict[str, dict[str, Any]]) -> None:
    """Write the worlds done; a run killed on the way leaves the file as it was."""
    KEPT.parent.mkdir(exist_ok=True)
    half = KEPT.with_suffix(".half")
    half.write_text(json.dumps(done, indent=2) + "\n")
    half.replace(KEPT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=0)
    asked = parser.parse_args()
    main(asked.worlds, asked.first_seed)
