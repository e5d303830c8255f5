"""How often the alarm of drift is raised where nothing changes, and where something does.

Usage: python -m benchmarks.drift. Stationary: planted ledgers, and planted Hawkes worlds explained by decayed counts.
"""

from __future__ import annotations

import time

import numpy as np
from scipy import stats

import influent
from benchmarks.common import measured_on, write_result

N_LEDGERS = 400
N_WORLDS = 100
N_CHANGED = 100
BURN_IN_DAYS = 21.0


def of_ledger(seed: int, **settings: object) -> influent.Drift:
    """Look for drift in a planted ledger."""
    ledger, _ = influent.simulate_ledger(influent.PlantedCredits(seed=seed, **settings))  # type: ignore[arg-type]
    return influent.drift(ledger, n_resamples=100, seed=seed)


def of_world(seed: int) -> influent.Drift:
    """Look for drift in a Hawkes world: counts of half of its users explain the others, after the world has settled."""
    config = influent.WorldConfig(n_users=300, n_items=50, horizon_days=84, base_rate_per_day=0.2, seed=seed)
    world = influent.simulate_world(config)
    sequences = influent.build_sequences(influent.clean(influent.read_events(world.events)))
    split = influent.split_users(sequences, test=0.5, seed=seed)
    model = influent.DecayedCounts().fit(split.train)
    moments = split.test
    assert moments.time_us is not None
    settled = moments.time_us >= config.start_us + BURN_IN_DAYS * 86_400_000_000
    ledger = influent.explain(model, moments.take(np.flatnonzero(settled)))
    return influent.drift(ledger, n_resamples=100, seed=seed)


def rate(alarms: list[bool]) -> dict[str, object]:
    """Return the share of alarms with its exact 95 % interval (Clopper and Pearson)."""
    found = stats.binomtest(sum(alarms), len(alarms)).proportion_ci()
    return {
        "n": len(alarms),
        "alarms": sum(alarms),
        "rate": sum(alarms) / len(alarms),
        "interval": [round(found.low, 4), round(found.high, 4)],
    }


def main() -> None:
    """Measure, print and write the result."""
    about, began = measured_on(), time.process_time()
    stationary = [of_ledger(seed).is_alarm for seed in range(N_LEDGERS)]
    print("stationary ledgers", rate(stationary), flush=True)
    worlds = [of_world(seed).is_alarm for seed in range(N_WORLDS)]
    print("stationary worlds", rate(worlds), flush=True)
    changed, weeks_off = [], []
    for seed in range(N_CHANGED):
        found = of_ledger(seed, change_day=42.0, change_factor=1.5, changed_actions=("cart",))
        cuts = [change.window for change in found.changes if "cart" in change.series]
        changed.append(bool(cuts))
        weeks_off += [min(abs(cut - 6) for cut in cuts)] if cuts else []
    print("changed", rate(changed), flush=True)
    content = {
        "asked_for": found.about["false_alarms"],
        "stationary_ledgers": rate(stationary),
        "stationary_worlds": rate(worlds),
        "carts_half_as_strong_again_from_week_7": {
            **rate(changed),
            "within_a_week": float(np.mean(np.array(weeks_off) <= 1)),
        },
        "cpu_seconds": round(time.process_time() - began, 1),
    }
    write_result("drift", {**about, **content})


if __name__ == "__main__":
    main()
