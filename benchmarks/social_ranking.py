"""Does what others just did help to say what comes next? Lists of own pasts, with and without the social term.

Usage: python -m benchmarks.social_ranking [SET …]

SET is `android` or `christianity` (questions that people of a network took part in: next is the question that a person
takes part in), or a planted world by the strength of its ties: `world-0`, `world-0.1`, `world-0.2`, `world-0.4`. The
last event of each user is the test; others are read up to its moment, strictly before it. Users have three events or
more.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

import influent
from benchmarks.common import RESULTS, data_set, measured_on, peak_memory_mib, write_result
from influent.evaluation.metrics import bootstrap_interval
from influent.models.ranks import ndcg, target_ranks

NETWORKS = ("android", "christianity")
STRENGTHS = (0.0, 0.1, 0.2, 0.4)
SETS = (*NETWORKS, *(f"world-{strength:g}" for strength in STRENGTHS))


def main(names: list[str]) -> None:
    """Judge on each set and keep the result beside those that are there."""
    path = RESULTS / "social-ranking.json"
    found: dict[str, Any] = json.loads(path.read_text())["sets"] if path.exists() else {}
    for name in names or SETS:
        about = measured_on()
        found[name] = {**about, **judged(*read(name))}
        write_result("social-ranking", {"sets": {one: found[one] for one in SETS if one in found}})


def read(name: str) -> tuple[influent.Sequences, pa.Table]:
    """Return the events and edges of a set."""
    if name in NETWORKS:
        folder = data_set(f"cascades-{name}")
        events = influent.read_events(folder / "events.parquet", time="t_rel", time_unit="s")
        edges = influent.read_edges(folder / "edges.parquet")
    else:
        strength = float(name.removeprefix("world-"))
        settings: dict[str, Any] = {"n_users": 300, "n_ties": 5, "homophily": 0.3, "seed": 1}
        world = influent.simulate_world(influent.WorldConfig(**settings, social_strength=strength))
        events, edges = influent.read_events(world.events), influent.read_edges(world.edges)
    return influent.build_sequences(influent.clean(events, drop_duplicates=False, min_user_events=3)), edges


def judged(log: influent.Sequences, edges: pa.Table) -> dict[str, Any]:
    """Return the accuracy of both, and of the difference between them at the same moments."""
    split = influent.split_last(log)
    ties = influent.build_ties(edges, split.train)
    progress = influent.progress_for(sys.stderr)
    own = influent.Predictor(train=influent.TrainConfig(epochs=30)).fit(
        split.train, split.validation, progress=progress
    )
    started = time.process_time()
    whole = influent.SocialRanker(ties, own=own).fit(split.train, split.validation, progress=progress)
    seconds = time.process_time() - started
    report = influent.evaluate([own, whole], split.test, protocol=split.protocol, split=split.hash)
    print(report.to_markdown(), flush=True)
    ledger = influent.explain(whole, split.test)
    return {
        "split": split.hash,
        "n_moments": len(split.test),
        "n_items": log.vocab.n_items,
        "n_ties": len(ties),
        "fit_cpu_seconds": round(seconds, 1),
        "peak_memory_mib": peak_memory_mib(),
        "test": {name: {metric: asdict(one) for metric, one in row.items()} for name, row in report.rows.items()},
        "gained": gained(own, whole, split.test),
        "largest_gap": ledger.largest_gap(),
        "shares": ledger.shares(),
    }


def gained(own: influent.Model, whole: influent.Model, moments: influent.Moments) -> dict[str, Any]:
    """Return how much larger each measure is with the social term, at the same moments, with intervals over users."""
    both = [target_ranks(model, moments) for model in (own, whole)]
    measures = {
        "HR@10": [(ranks <= 10).astype(float) for ranks, _ in both],
        "NDCG@10": [ndcg(ranks, offsets, 10) for ranks, offsets in both],
    }
    found = {}
    for name, (before, after) in measures.items():
        low, high = bootstrap_interval(after - before, moments.user_idx)
        found[name] = {"mean": float(np.mean(after - before)), "low": low, "high": high}
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET")
    main(parser.parse_args().sets)
