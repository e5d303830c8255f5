"""Whom to seed, judged by what came after: people chosen from the past, and who followed them in cascades begun later.

Usage: python -m benchmarks.seeding_cascades [SET …]; a set whose figures are there already is measured anew.

The last tenth of the cascades by start is for test; people are chosen from what was done before the first of these.
Reached is whoever acts in a test cascade strictly later than a seed did there, seeds themselves left out, and each
counts once over all cascades: distinct nodes influenced (DNI: Panagopoulos, Malliaros and Vazirgiannis 2020, Multi-task
Learning for Influence Estimation and Maximization). It is given of cascades that a seed started, that one joined with
fewer than five acts before, and that one joined at all. The interval is ± 1.96 standard deviations over resamples of
the test cascades: one drawn twice adds nobody, so the percentiles themselves would lie too low. That somebody followed
is not that they were moved.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import influent
from benchmarks.cascades import TIMES
from benchmarks.common import RESULTS, data_set, measured_on, peak_memory_mib, write_result
from influent.data.ties import Ties, find_co_actions

WINDOWS = {"christianity": "30d", "android": "30d", "twitter": "7d", "memetracker": "7d"}
"""How long ago what an act answers can be"""
NETWORKS = ("christianity", "android")
"""Where it is known who is tied to whom; elsewhere whoever acted after somebody else may have been moved"""
SIZES = (10, 25, 50)
JOINED = {"started": 0, "joined early": 4, "joined": np.iinfo(np.int64).max}
"""How many acts may come before that of a seed"""
REACH, N_RANDOM, N_RESAMPLES = 20, 20, 200


def main(names: list[str]) -> None:
    """Judge each set and write the result, sets already there beside."""
    path = RESULTS / "seeding_cascades.json"
    sets: dict[str, Any] = json.loads(path.read_text())["sets"] if path.exists() else {}
    for name in names or WINDOWS:
        about = measured_on()
        sets[name] = judged(name)
        write_result("seeding_cascades", {**about, "sets": {one: sets[one] for one in WINDOWS if one in sets}})


def judged(name: str) -> dict[str, Any]:
    """Choose by each way, and count whom the chosen reach later."""
    log = data_set(f"cascades-{name}") / "events.parquet"
    events = influent.clean(influent.read_events(log, time=TIMES[name], time_unit="s"), drop_duplicates=False)
    cascades = influent.build_cascades(events)
    begin_us = influent.split_cascades(cascades).test.begin_us
    past, is_test = cascades.time_us < begin_us, cascades.start_us >= begin_us
    seconds: dict[str, float] = {}
    chosen = ways(name, cascades, past, seconds)
    weight = drawn_cascades(is_test)
    found = {way: reached(cascades, is_test, orders, weight) for way, orders in chosen.items()}
    print(name, seconds, flush=True)
    rows = {way: {one: summary(of, found["most active"][one]) for one, of in row.items()} for way, row in found.items()}
    for way, row in rows.items():
        print(f"{way:20}", *(f"{one}: {[of[k]['dni'] for k in SIZES]}" for one, of in row.items()), flush=True)
    return {
        "n_acts_before": int(past.sum()),
        "n_test_cascades": int(is_test.sum()),
        "n_test_acts": int(is_test[cascades.cascade_idx].sum()),
        "cpu_seconds": seconds,
        "reached": rows,
        "peak_memory_mib": peak_memory_mib(),
    }


def ways(name: str, cascades: influent.Cascades, past: np.ndarray, seconds: dict[str, float]) -> dict[str, list[Any]]:
    """Return orders of places of people by each way to choose, from acts of the past only."""
    user, item = cascades.user_idx[past], cascades.cascade_idx[past]
    table = {"user_id": cascades.users.to_ids(user), "item_id": item, "time_us": cascades.time_us[past]}
    events = influent.read_events(pa.table(table), time_unit="us")
    log = influent.build_sequences(events)
    ties = influent.co_acting(log, window=WINDOWS[name], reach=REACH)
    if name in NETWORKS:
        pairs = pq.read_table(data_set(f"cascades-{name}") / "edges.parquet")
        network = nx.Graph(zip(pairs["source_user_id"].to_pylist(), pairs["target_user_id"].to_pylist(), strict=True))
        ties = influent.build_ties(influent.read_edges(network), log)
    started, orders = time.process_time(), {}

    def took(step: str) -> None:
        nonlocal started
        seconds[step], started = round(time.process_time() - started, 1), time.process_time()

    config = influent.SocialConfig(window=WINDOWS[name], reach=REACH)
    model = influent.Social(ties, config=config).fit(log)
    ledger = influent.explain_causes(model, log)
    graph = influent.influence_graph(ledger)
    orders["leaders"] = influent.leaders(ledger, ties).table.column("user_id").to_pylist()
    took("graph and leaders")
    for way, arcs in (("event", graph.probabilities()), ("a while", chances_of_a_while(graph))):
        orders[f"IMM, graph, {way}"] = seeds_of(arcs)
        took(f"IMM, graph, {way}")
    orders["IMM, counts"] = seeds_of(bernoulli(log, ties, WINDOWS[name]))
    took("IMM, counts")
    by_credit = influent.choose_seeds_by_credit(events, ties.to_table(), SIZES[-1])
    orders["credit distribution"] = by_credit.column("user_id").to_pylist()
    took("credit distribution")
    found = {way: [cascades.users.require_idx(ids)] for way, ids in orders.items()}
    n = cascades.n_users
    place = cascades.users.require_idx(ties.users.ids.to_pylist())
    sizes = np.bincount(item, minlength=len(cascades))
    found["most ties"] = [by_number(place[ties.source], n)]
    found["most active"] = [by_number(user, n)]
    # Acts of a cascade stand in order of time.
    found["most followed"] = [by_number(user, n, (np.cumsum(sizes) - 1)[item] - np.arange(len(item)))]
    found["most started"] = [by_number(user[cascades.n_before[past] == 0], n)]
    rng = np.random.default_rng(0)
    found["random"] = [rng.permutation(np.unique(user)) for _ in range(N_RANDOM)]
    return found


def seeds_of(arcs: pa.Table) -> list[Any]:
    """Return the 50 seeds of IMM; few sets check them, since where nearly all are reached each set holds nearly all."""
    return influent.choose_seeds(influent.Spread.of_table(arcs), SIZES[-1], n_checks=1_000).user_ids


def chances_of_a_while(graph: influent.InfluenceGraph) -> pa.Table:
    """Return the chance that what a person does in a tenth of the log's time brings about one event of another."""
    mean = graph.edges.column("influence").to_numpy() / 10
    ends = graph.edges.select(["source_user_id", "target_user_id"])
    return ends.append_column("probability", pa.array(-np.expm1(-mean)))


def by_number(user: np.ndarray, n: int, weight: np.ndarray | None = None) -> np.ndarray:
    """Return people by how often they are named, or by the sum of these weights."""
    return np.argsort(-np.bincount(user, weight, n), kind="stable")


def bernoulli(log: influent.Sequences, ties: Ties, window: str) -> pa.Table:
    """Return of each tie the share of the source's acts that the target's followed (Goyal, Bonchi, Lakshmanan 2010)."""
    pairs = find_co_actions(log, ties, window=window, reach=REACH)
    answered = np.unique(pairs.tie * len(log) + pairs.source) // len(log)
    share = np.bincount(answered, minlength=len(ties)) / np.diff(log.offsets)[ties.source]
    return ties.to_table().append_column("probability", pa.array(share)).filter(pa.array(share > 0))


def drawn_cascades(is_test: np.ndarray) -> np.ndarray:
    """Return which test cascades are there, bool (1 + N_RESAMPLES, C): all of them, then those of each resample."""
    rng, test = np.random.default_rng(1), np.flatnonzero(is_test)
    there = np.zeros((1 + N_RESAMPLES, len(is_test)), bool)
    there[0] = is_test
    for row in there[1:]:
        row[rng.choice(test, len(test))] = True
    return there


def reached(
    cascades: influent.Cascades, is_test: np.ndarray, orders: list[np.ndarray], there: np.ndarray
) -> dict[str, np.ndarray]:
    """Return DNI of the first 10, 25, 50 of each way to join, (sizes, 1 + N_RESAMPLES), in the mean over orders."""
    found = {}
    for name, most_before in JOINED.items():
        of_orders = [[dni(cascades, is_test, order[:k], most_before, there) for k in SIZES] for order in orders]
        found[name] = np.mean(of_orders, axis=0)
    return found


def dni(
    cascades: influent.Cascades, is_test: np.ndarray, seeds: np.ndarray, most_before: int, there: np.ndarray
) -> np.ndarray:
    """Return how many people act strictly later than a seed in the cascades that are there, float64."""
    is_seed = np.zeros(cascades.n_users, bool)
    is_seed[seeds] = True
    cascade, user, time_us = cascades.cascade_idx, cascades.user_idx, cascades.time_us
    joins = is_seed[user] & is_test[cascade] & (cascades.n_before <= most_before)
    first_us = np.full(len(cascades), np.iinfo(np.int64).max)
    np.minimum.at(first_us, cascade[joins], time_us[joins])
    follows = (time_us > first_us[cascade]) & ~is_seed[user]
    return np.array(
        [(np.bincount(user[follows], row[cascade[follows]], cascades.n_users) > 0).sum() for row in there], np.float64
    )


def summary(drawn: np.ndarray, reference: np.ndarray) -> dict[int, dict[str, float]]:
    """Return DNI with half of its interval, and how far it is from that of the most active with half of its."""
    apart = drawn - reference
    return {
        k: {
            "dni": round(float(drawn[place, 0]), 1),
            "half": round(1.96 * float(drawn[place, 1:].std()), 1),
            "over_most_active": round(float(apart[place, 0]), 1),
            "over_half": round(1.96 * float(apart[place, 1:].std()), 1),
        }
        for place, k in enumerate(SIZES)
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET")
    main(parser.parse_args().sets)
