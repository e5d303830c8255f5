"""Who moved whom in planted worlds: are the true ties found, and is as much put down to others as they caused?

Usage: python -m benchmarks.social [STRENGTH …] [--users N] [--items N] [--days N]; worlds already there beside.

No edges are given: whoever acted on an item after somebody else may have been moved. At four strengths of ties, from
none, pairs are ranked by I(v → u) over a model of users' own pasts and without one, beside two references that look at
no model: how often one acted after the other, and the credit distribution of Goyal, Bonchi and Lakshmanan, 2011, by
which an event is shared evenly among all who acted on its item before. The best that any ranking could do is beside
them too: that of who knows all of the world but the tie in question.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

import influent
from benchmarks.common import RESULTS, measured_on, peak_memory_mib, write_result
from benchmarks.social_bound import best_ranking, true_strengths
from influent.data.ties import find_co_actions

STRENGTHS = (0.0, 0.1, 0.2, 0.4)
"""How many events of a user's friends' each event of theirs causes."""


def main(strengths: list[float], **size: int) -> None:
    """Judge in each world, and write the result after each."""
    path = RESULTS / "social.json"
    worlds: dict[str, Any] = json.loads(path.read_text())["worlds"] if path.exists() else {}
    for strength in strengths or STRENGTHS:
        about = {**measured_on(), **size, "strength": strength}
        name = ", ".join(f"{one} {number}" for one, number in {**size, "strength": strength}.items())
        worlds[name] = {**about, **judged(strength, **size)}
        write_result("social", {"worlds": worlds})


def judged(strength: float, *, users: int, items: int, days: int) -> dict[str, Any]:
    """Return what is found in a world of this strength."""
    config = influent.WorldConfig(
        n_users=users, n_items=items, horizon_days=days, n_ties=5, social_strength=strength, homophily=0.3, seed=1
    )
    world = influent.simulate_world(config)
    log = influent.build_sequences(influent.clean(influent.read_events(world.events), drop_duplicates=False))
    split, ties = influent.split_last(log), influent.co_acting(log)
    is_true = true_strengths(world, log, ties) > 0
    pairs = find_co_actions(log, ties)
    of_event = np.bincount(pairs.event, minlength=len(log))
    rankings: dict[str, np.ndarray] = {
        "co-occurrence": np.bincount(pairs.tie, minlength=len(ties)),
        "credit distribution": np.bincount(pairs.tie, 1 / of_event[pairs.event], len(ties)),
    }
    row: dict[str, Any] = {"n_events": len(log), "n_pairs": len(ties), "n_true": int(is_true.sum())}
    row["caused_by_others"] = caused_by_others(world)
    if is_true.any():
        rankings["best possible"] = best_ranking(world, log, ties)
    own = influent.Predictor(train=influent.TrainConfig(epochs=8)).fit(split.train, split.validation)
    for name, model in (("social", influent.Social(ties)), ("social over own past", influent.Social(ties, own=own))):
        started = time.process_time()
        ledger = influent.explain_causes(model.fit(log), log)
        graph = influent.influence_graph(ledger)
        row[name] = {"cpu_seconds": round(time.process_time() - started, 1), "largest_gap": ledger.largest_gap()}
        row[name]["put_down_to_others"] = float(np.sum(graph.people.column("received").to_numpy()) / len(log))
        source, target = (log.vocab.users.to_idx(graph.edges.column(f"{end}_user_id")) for end in ("source", "target"))
        rankings[name] = np.zeros(len(ties))
        rankings[name][ties.find(source, target)] = graph.edges.column("influence").to_numpy()
    if is_true.any():
        row["average_precision"] = {
            name: float(average_precision_score(is_true, found)) for name, found in rankings.items()
        }
    row["peak_memory_mib"] = peak_memory_mib()
    print(f"strength {strength}: {row}", flush=True)
    return row


def caused_by_others(world: influent.World) -> float:
    """Return the share of events whose cause is an event of somebody else."""
    parent = world.parents.column("parent_event_id").fill_null(-1).to_numpy()
    user = np.array(world.events.column("user_id").to_pylist())
    return float(((parent >= 0) & (user != user[np.maximum(parent, 0)])).mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("strengths", nargs="*", type=float, metavar="STRENGTH")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--days", type=int, default=365)
    asked = parser.parse_args()
    main(asked.strengths, users=asked.users, items=asked.items, days=asked.days)
