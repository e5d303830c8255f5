"""Whether ledgers close, and credits are what masking takes, on every data set that is a log.

Usage: python -m benchmarks.closing [SET …]

Of each set whole users are taken until there are 20,000 events, in an order drawn once. Where a set has no times its
rows are a log in the order that it does have. How good the models are does not matter here, so they are trained for
one epoch.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import stats

import influent
from benchmarks.common import data_set, measured_on, some_of, write_result
from influent import schema

LARGEST_GAP, LEAST_AGREEMENT = 1e-4, 1 - 1e-6
"""What is asked for."""
N_EVENTS, N_PREDICTIONS = 20_000, 200
UNITS_S = {"tpp-taxi": 3600, "cascades-android": 1, "cascades-christianity": 1}
"""Sets that have times since a beginning of their own, and how many seconds these count."""
ORDERS = ("pos", "period", "seq")
"""What else says what came first, the best first."""
OTHERS = (
    "amazon-beauty amazon-beauty-bert4rec amazon-grocery-train amazon-musical-instruments amazon-sports amazon-toys "
    "assistments-2009 bitcoin-otc cascades-douban cascades-memetracker cascades-twitter cdnow completejourney "
    "diginetica-sample epinions-ratings epinions-trust-growth fitbit foursquare-nyc foursquare-saopaulo lastfm-hetrec "
    "mind-sample movielens-100k movielens-1m retailrocket-filtered stackoverflow-badges steam-purchase-play tpp-taobao "
    "twitter-opinions"
)
SETS = sorted([*UNITS_S, *OTHERS.split()])
"""All but Open Bandit, which does not say who saw what."""


def models() -> dict[str, Callable[[influent.Split], influent.Model]]:
    """Return how to fit each model, by name."""

    def additive(split: influent.Split, **settings: Any) -> influent.Model:
        small = influent.ModelConfig(embedding_dim=16, n_heads=2, **settings)
        return influent.Predictor(model=small, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)

    return {
        "counts": lambda split: influent.DecayedCounts().fit(split.train),
        "itemknn": lambda split: influent.ItemKNN().fit(split.train),
        "additive": additive,
        "additive-query": lambda split: additive(split, gate="query"),
    }


def main(names: list[str]) -> None:
    """Measure on each set, and write the result where all were asked for."""
    about, found = measured_on(), {}
    for name in names or SETS:
        started = time.perf_counter()
        split = influent.split_last(influent.build_sequences(influent.clean(influent.read_events(log_of(name)))))
        moments = some_of(split.test, N_PREDICTIONS)
        rows = {model: checked(fit(split), moments) for model, fit in models().items()}
        found[name] = {
            "n_events": len(split.test.sequences),
            "n_users": split.test.sequences.n_users,
            "n_items": split.train.vocab.n_items,
            "is_timed": split.test.sequences.time_us is not None,
            "n_predictions": len(moments),
            "models": rows,
            "seconds": round(time.perf_counter() - started, 1),
        }
        print(f"{name}: {found[name]['n_events']:,} events; {'; '.join(map(said, rows, rows.values()))}", flush=True)
    if not names:
        write_result(
            "closing", {**about, "asked": {"largest_gap": LARGEST_GAP, "pearson": LEAST_AGREEMENT}, "sets": found}
        )


def log_of(name: str) -> pa.Table:
    """Return some users of a set with all their events, in an order that `read_events` can take."""
    log = pq.read_table(data_set(name) / "events.parquet")
    if name == "movielens-1m":
        # The times of lower ratings are mostly missing.
        log = log.filter(pc.greater_equal(log.column("value"), 4))
    user, n_events = np.unique(log.column(schema.USER_ID).to_numpy(zero_copy_only=False), return_counts=True)
    drawn = np.random.default_rng(0).permutation(len(user))
    taken = user[drawn[np.cumsum(n_events[drawn]) <= N_EVENTS]]
    log = log.filter(pc.is_in(log.column(schema.USER_ID), pa.array(taken, log.schema.field(schema.USER_ID).type)))
    if name in UNITS_S:
        seconds = pc.multiply(log.column("t_rel"), UNITS_S[name])
        time_us = pc.cast(pc.round(pc.multiply(seconds, 1e6)), pa.int64())
        log = log.append_column(schema.TIME_US, time_us)
    elif log.column("timestamp").null_count:
        # What has no time, MIND's earlier clicks, comes before what has one.
        first = next(column for column in ORDERS if column in log.column_names)
        time = pc.fill_null(log.column("timestamp"), 0)
        log = log.set_column(log.column_names.index("timestamp"), "timestamp", time)
        log = log.sort_by([("timestamp", "ascending"), (first, "ascending")])
    else:
        log = log.append_column(schema.TIME_US, pc.multiply(log.column("timestamp"), 1_000_000))
    kept = (schema.USER_ID, schema.ITEM_ID, schema.ACTION, schema.TIME_US, schema.VALUE)
    return log.select([column for column in kept if column in log.column_names])


def checked(model: influent.Model, moments: influent.Moments) -> dict[str, Any]:
    """Return how far the ledger of what came next is from closing, and credits from what masking takes.

    Where weights depend on the latest event, masking it takes more than its credit; it is left out of the correlation,
    and the largest difference of its own is given.
    """
    ledger = influent.explain(model, moments)
    item = model.vocab.items.to_idx(ledger.predictions.column(schema.ITEM_ID))
    credits = model.credits(moments, item[:, None])
    lag = moments.stop[credits.owner] - credits.place
    taken = taken_by_masking(model, moments, item, credits.place, credits.owner, lag)
    credit = credits.credit[:, 0]
    by_query = getattr(model, "exactness", "exact") != "exact"
    judged = lag > 1 if by_query else lag > 0
    varies = judged.any() and np.ptp(credit[judged]) > 0 and np.ptp(taken[judged]) > 0
    row: dict[str, Any] = {
        "largest_gap": ledger.largest_gap(),
        "n_events": int(judged.sum()),
        "pearson": float(stats.pearsonr(credit[judged], taken[judged]).statistic) if varies else None,
        "largest_difference": float(np.abs(credit - taken)[judged].max(initial=0.0)),
    }
    if by_query:
        row["largest_difference_of_the_latest"] = float(np.abs(credit - taken)[~judged].max(initial=0.0))
    return row


def taken_by_masking(
    model: influent.Model,
    moments: influent.Moments,
    item: np.ndarray,
    place: np.ndarray,
    owner: np.ndarray,
    lag: np.ndarray,
) -> np.ndarray:
    """Return what masking each event takes from its item's score, (S,)."""
    taken = np.zeros(len(place))
    score = np.take_along_axis(model.predict(moments), item[:, None], axis=1)[:, 0].astype(np.float64)
    # Moments are of different users, so one event of each can be masked at a time.
    for back in np.unique(lag):
        of, at = owner[lag == back], place[lag == back]
        masked = replace(moments.take(of), sequences=moments.sequences.masked(at))
        without = np.take_along_axis(model.predict(masked), item[of][:, None], axis=1)[:, 0]
        taken[lag == back] = score[of] - without
    return taken


def said(name: str, row: dict[str, Any]) -> str:
    """Return a model's row in words."""
    pearson = "has no correlation" if row["pearson"] is None else f"1−{1 - row['pearson']:.0e}"
    is_missed = row["largest_gap"] > LARGEST_GAP or (row["pearson"] or 1) < LEAST_AGREEMENT
    return f"{name} gap {row['largest_gap']:.0e}, removal {pearson}{' MISSED' if is_missed else ''}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", nargs="*")
    main(parser.parse_args().set)
