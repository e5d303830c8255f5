"""How often placebos come out as nothing, in seeded worlds.

Usage: python -m benchmarks.placebo [--worlds N]
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import influent
from benchmarks.common import measured_on, write_result
from influent.evaluation.placebo import check_placebos


def main(n_worlds: int) -> None:
    """Fit both models in each world, hold their credits against placebos, and write how often 0 is held."""
    about = measured_on()
    held: dict[tuple[str, str], list[bool]] = {}
    with influent.progress_for(sys.stderr).track("worlds", n_worlds) as advance:
        for seed in range(n_worlds):
            world = influent.simulate_world(influent.WorldConfig(n_users=200, n_items=100, seed=seed))
            events = influent.clean(influent.read_events(world.events))
            split = influent.split_last(influent.build_sequences(events))
            short = influent.TrainConfig(epochs=5, seed=seed)
            small = influent.ModelConfig(embedding_dim=16, n_heads=2)
            models: list[Any] = [
                influent.DecayedCounts().fit(split.train),
                influent.Predictor(model=small, train=short).fit(split.train, split.validation),
            ]
            for model in models:
                report = check_placebos(model, split.test, seed=seed)
                for name, measure in report.placebos().items():
                    held.setdefault((model.name, name), []).append(measure.low <= 0 <= measure.high)
                held.setdefault((model.name, "history above 0"), []).append(report.history.low > 0)
            advance()
    rows = [{"model": model, "what": what, "times": sum(times)} for (model, what), times in held.items()]
    for row in rows:
        print(f"{row['model']}: {row['what']}: {row['times']} of {n_worlds}")
    write_result("placebo", {**about, "n_worlds": n_worlds, "rows": rows})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=100)
    main(parser.parse_args().worlds)
