"""Who moves whom on real data: the table of tests beside what the data cannot carry.

Usage: python -m benchmarks.ties [SET …]

twitter-opinions: posts of four topics and a network whose direction is not documented, so both are tested. An item is a
topic: the burst is all that others just posted on it, and a post can be an answer to one of the last hour and of the
latest fifty on its topic. Opinions: does what friends said in the last hour move what somebody says, beside what they
said last and what everybody just said? The same with what friends say in the hour after is the placebo.

foursquare-nyc, lastfm-hetrec, epinions: what of times and ties the checks notice, and how many more items people share
who are tied than along rewired ties.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import influent
from benchmarks.common import data_set, measured_on, peak_memory_mib, write_result

WINDOW, N_DRAWS = "1h", 10
_HOUR_US = 3_600_000_000
_REGRESSORS = ("friends", "own last", "everybody")


def main(sets: list[str]) -> None:
    """Look at each set, and write what was found."""
    about, found = measured_on(), {}
    for name, look in SETS.items():
        if not sets or name in sets:
            started = time.process_time()
            found[name] = look()
            found[name]["cpu_seconds"] = round(time.process_time() - started, 1)
            print(name, found[name], flush=True)
            write_result("ties", {**about, "sets": found, "peak_memory_mib": peak_memory_mib()})


def twitter() -> dict[str, Any]:
    """Test both directions of the network, in what people do and in what they say."""
    folder = data_set("twitter-opinions")
    log = read(pq.read_table(folder / "events.parquet"), time="timestamp")
    edges = pq.read_table(folder / "edges.parquet")
    row: dict[str, Any] = {"n_events": len(log)}
    for direction, ends in (("as written", (0, 1)), ("turned", (1, 0))):
        ties = influent.build_ties(both_ends(edges, ends), log)
        model = influent.Social(ties, config=influent.SocialConfig(window=WINDOW)).fit(log)
        report = influent.check_likeness(model, log, n_draws=N_DRAWS)
        print(report.to_markdown(), flush=True)
        row[direction] = {"activity": report.to_dict(), "opinion": opinions(log, ties)}
    return row


def opinions(log: influent.Sequences, ties: influent.Ties) -> dict[str, Any]:
    """Return how far what friends say goes with what somebody says: before, after, and over all posts."""
    assert log.time_us is not None
    said = log.numbers[:, log.number_names.index("value")].astype(np.float64)
    first, order = ties.of_targets(), np.argsort(log.time_us, kind="stable")
    columns: dict[str, list[np.ndarray]] = {"past": [], "future": []}
    for user in range(log.n_users):
        mine = slice(log.offsets[user], log.offsets[user + 1])
        friends = ties.source[first[user] : first[user + 1]]
        theirs = np.concatenate([[0], *(np.arange(log.offsets[v], log.offsets[v + 1]) for v in friends)]).astype(int)[
            1:
        ]
        theirs = theirs[np.argsort(log.time_us[theirs], kind="stable")]
        for side, found in columns.items():
            found.append(_mean_around(log.time_us[theirs], said[theirs], log.time_us[mine], side))
    own_last = np.concatenate([[np.nan], said[:-1]])
    own_last[log.offsets[:-1][np.diff(log.offsets) > 0]] = np.nan
    row: dict[str, Any] = {"correlation_of_means": _correlation_of_means(log, ties, said)}
    for side, found in columns.items():
        everybody = np.full(len(log), np.nan)
        for item in range(log.vocab.n_items):
            on_it = order[log.item_idx[order] == item]
            everybody[on_it] = _mean_around(log.time_us[on_it], said[on_it], log.time_us[on_it], side)
        row[side] = regression(said, [np.concatenate(found), own_last, everybody], log)
    return row


def regression(y: np.ndarray, columns: list[np.ndarray], log: influent.Sequences) -> dict[str, Any]:
    """Return the coefficients of a regression with one level for each topic, and their intervals clustered by user."""
    topic = log.item_idx[:, None] == np.arange(log.vocab.n_items)
    x = np.column_stack([*columns, topic]).astype(np.float64)
    known = np.isfinite(x).all(axis=1) & np.isfinite(y)
    x, y, user = x[known], y[known], log.user_idx[known]
    inverse = np.linalg.pinv(x.T @ x)
    slope = inverse @ (x.T @ y)
    score = x * (y - x @ slope)[:, None]
    by_user = np.zeros((log.n_users, x.shape[1]))
    np.add.at(by_user, user, score)
    n_users = len(np.unique(user))
    error = 1.96 * np.sqrt(np.diag(inverse @ (by_user.T @ by_user) @ inverse) * n_users / (n_users - 1))
    found: dict[str, Any] = {
        name: [float(slope[k]), float(slope[k] - error[k]), float(slope[k] + error[k])]
        for k, name in enumerate(_REGRESSORS)
    }
    return {**found, "n_posts": len(y), "n_users": n_users}


def _mean_around(times: np.ndarray, said: np.ndarray, moments: np.ndarray, side: str) -> np.ndarray:
    """Return the mean of what was said within the hour before, or after, each moment, which is not in it."""
    ends = (moments - _HOUR_US, moments) if side == "past" else (moments + 1, moments + 1 + _HOUR_US)
    low, high = (np.searchsorted(times, end) for end in ends)
    total = np.concatenate([[0.0], np.cumsum(said)])
    n = high - low
    return np.where(n > 0, (total[high] - total[low]) / np.maximum(n, 1), np.nan)


def _correlation_of_means(log: influent.Sequences, ties: influent.Ties, said: np.ndarray) -> float:
    mean = np.bincount(log.user_idx, said, log.n_users) / np.maximum(np.diff(log.offsets), 1)
    return float(np.corrcoef(mean[ties.source], mean[ties.target])[0, 1])


def foursquare() -> dict[str, Any]:
    """Say what hours of a week cannot carry, and how many more venues friends share, before and after."""
    folder = data_set("foursquare-nyc")
    events = pq.read_table(folder / "events.parquet").drop(["timestamp"])
    hours = pc.multiply(events.column("hour_of_week"), 3600)
    log = read(events.append_column("timestamp", hours), time="timestamp")
    edges, row = pq.read_table(folder / "edges.parquet"), {}
    for kind in ("friend_before", "friend_after"):
        listed = edges.filter(pc.equal(edges.column("kind"), kind))
        once = influent.build_ties(both_ends(listed, (0, 1)), log)
        ties = influent.build_ties(pa.concat_tables([both_ends(listed, (0, 1)), both_ends(listed, (1, 0))]), log)
        model = influent.Social(ties, config=influent.SocialConfig(window="6h")).fit(log)
        report = influent.check_likeness(model, log, n_draws=N_DRAWS)
        row[kind] = {
            "listed_once": influent.find_tie_artefacts(once, log).sentences(),
            "both_ways": influent.find_tie_artefacts(ties, log).to_dict(),
            "verdict": report.verdict,
            "reasons": report.reasons,
        }
    return row


def lastfm() -> dict[str, Any]:
    """Say what a log without times cannot carry, and how many more artists friends share."""
    folder = data_set("lastfm-hetrec")
    return checked(read(pq.read_table(folder / "events.parquet")), pq.read_table(folder / "edges.parquet"))


def epinions() -> dict[str, Any]:
    """Join two files that number people independently, which has to be noticed."""
    events = pq.read_table(data_set("epinions-ratings") / "events.parquet", columns=["user_id", "item_id", "action"])
    return checked(read(events), pq.read_table(data_set("epinions-trust-growth") / "edges.parquet"))


def checked(log: influent.Sequences, edges: pa.Table) -> dict[str, Any]:
    """Return what the checks say of a log and its edges."""
    found = influent.find_tie_artefacts(influent.build_ties(both_ends(edges, (0, 1)), log), log)
    return {**found.to_dict(), "sentences": found.sentences()}


def read(events: pa.Table, *, time: str | None = None) -> influent.Sequences:
    """Return sequences of the events as they are; without a time where none is named."""
    if time is None and "timestamp" in events.column_names:
        events = events.drop(["timestamp"])
    raw = influent.read_events(events, time=time)
    return influent.build_sequences(influent.clean(raw, drop_duplicates=False))


def both_ends(edges: pa.Table, ends: tuple[int, int]) -> pa.Table:
    """Return edges without times, from one end to the other."""
    names = ("source_user_id", "target_user_id")
    columns = {name: edges.column(names[end]) for name, end in zip(names, ends, strict=True)}
    return influent.read_edges(pa.table(columns))


SETS = {"twitter-opinions": twitter, "foursquare-nyc": foursquare, "lastfm-hetrec": lastfm, "epinions": epinions}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*")
    main(parser.parse_args().sets)
