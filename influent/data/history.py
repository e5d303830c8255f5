"""Moments and questions to a row of numbers each: what the history says in counts, sums and times, as SQL.

Everything is a running count or sum, looked up at the last event before the moment, so that the work grows with the
events and the moments and not with their product. Shapes: N moments, L questions, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from influent.data.clock import DAY_US
from influent.data.engine import Engine
from influent.data.labels import Labels
from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.data.vocab import UNKNOWN
from influent.errors import ConfigError, DataError, SchemaError, nearest

WINDOWS_DAYS = (1, 7, 30, 90)
"""How far back recent events are counted."""

_N_PARTS = 5
"""Of how many parts of the users one stays silent where an order-only log tells of items."""
_LATE_US = 2**62


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMatrix:
    """A row of named numbers for each moment or question; NaN where the history has nothing to say."""

    names: tuple[str, ...]
    values: np.ndarray
    """float64 (N or L, F)"""

    def __getitem__(self, name: str) -> np.ndarray:
        """Return one column.

        Raises:
            SchemaError: there is none of this name; the message names the nearest.
        """
        if name not in self.names:
            raise SchemaError(f"there is no feature {name!r}.{nearest(name, self.names)}")
        return np.asarray(self.values[:, self.names.index(name)])


def history_features(moments: Moments, *, actions: bool = True) -> FeatureMatrix:
    """Describe the history of each moment; nothing behind its end is read.

    | feature | what it is |
    |---|---|
    | `n_events`, `n_items` | events; different items among them |
    | `n_events[action]`, `share[action]` | events with this action; their share |
    | `days_since[action]`, `events_since[action]` | how far back the last of these is; 1 event is the latest |
    | `sum[number]`, `mean[number]`, `last[number]` | of the numbers that are known |
    | `days_since_last`, `days_since_first` | recency and tenure |
    | `mean_gap_days` | mean time from one event to the next |
    | `n_last_1d`, `…_7d`, `…_30d`, `…_90d` | events not longer ago than that |
    | `hour_sin`, `hour_cos`, `weekday_sin`, `weekday_cos` | where in its day and week the moment is, in UTC |

    What is counted in days needs a log with times; `events_since` is for a log without. Where a moment's time is not
    known, time counts from the latest event. A log of one action has no features of actions.

    Args:
        actions: whether there are to be features of single actions.

    Raises:
        DataError: a history begins after its user's first event.
    """
    sequences = moments.sequences
    if (moments.start != sequences.offsets[moments.user_idx]).any():
        raise DataError("features are made of whole histories. One of these begins after its user's first event.")
    engine = Engine()
    log, asked = _register(engine, moments, np.arange(len(moments)))
    of_users = {"n_events": "count(*)", "n_items": "count(*) FILTER (is_new)", "first_us": "min(time_us)"}
    features = {"n_events": "coalesce(n_events, 0)", "n_items": "coalesce(n_items, 0)"}
    for idx, action in _actions(sequences, actions):
        of_users[f"n_{idx}"] = f"count(*) FILTER (action_idx = {idx})"
        of_users[f"place_{idx}"] = f"max(place) FILTER (action_idx = {idx})"
        of_users[f"time_{idx}"] = f"max(time_us) FILTER (action_idx = {idx})"
        features[f"n_events[{action}]"] = f"coalesce(n_{idx}, 0)"
        features[f"share[{action}]"] = f"n_{idx} / n_events"
        features |= _since(sequences, f"[{action}]", f"time_{idx}", f"place_{idx}")
    for place, name in enumerate(sequences.number_names):
        of_users[f"sum_{place}"], of_users[f"mean_{place}"] = f"sum(number_{place})", f"avg(number_{place})"
        of_users[f"last_{place}"] = f"arg_max(number_{place}, place)"
        features |= {f"{what}[{name}]": f"{what}_{place}" for what in ("sum", "mean", "last")}
    so_far = _so_far(
        engine,
        "(SELECT *, item_idx >= 0 AND row_number() OVER (PARTITION BY user_idx, item_idx ORDER BY place) = 1 "
        f"AS is_new FROM {log})",
        "user_idx",
        of_users,
    )
    rows = engine.create_view(
        f"SELECT a.*, e.* EXCLUDE (user_idx, place) FROM {asked} AS a LEFT JOIN {so_far} AS e "
        "ON e.place = a.stop - 1 AND e.user_idx = a.user_idx",
        "rows",
    )
    if sequences.time_us is not None:
        features |= _TIMES
        ends = engine.create_table(f"SELECT user_idx, time_us, max(place) AS place FROM {log} GROUP BY ALL", "ends")
        for days in WINDOWS_DAYS:
            features[f"n_last_{days}d"] = f"stop - coalesce(before_{days} + 1, start)"
            rows = engine.create_view(
                f"SELECT r.*, e.place AS before_{days} FROM {rows} AS r ASOF LEFT JOIN {ends} AS e "
                f"ON r.user_idx = e.user_idx AND r.now_us - {days * DAY_US} > e.time_us",
                "rows",
            )
    return _matrix(engine, rows, features)


_TIMES = {
    "days_since_last": f"(now_us - latest_us) / {DAY_US}",
    "days_since_first": f"(now_us - first_us) / {DAY_US}",
    "mean_gap_days": f"(latest_us - first_us) / nullif(n_events - 1, 0) / {DAY_US}",
    "hour_sin": f"sin(2 * pi() * (at_us % {DAY_US}) / {DAY_US})",
    "hour_cos": f"cos(2 * pi() * (at_us % {DAY_US}) / {DAY_US})",
    # The first of January 1970 was a Thursday; weeks begin on Mondays.
    "weekday_sin": f"sin(2 * pi() * ((floor(at_us / {DAY_US}) + 3) % 7) / 7)",
    "weekday_cos": f"cos(2 * pi() * ((floor(at_us / {DAY_US}) + 3) % 7) / 7)",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemRates:
    """What the training labels say of each item, as of any moment."""

    table: pa.Table
    """`n_events`, `n_asked` and `label_sum` of each `item_idx` and `known_at`, in this order. `known_at` is the time
    after which they are known; in an order-only log, which fifth of the users they come from."""
    is_timed: bool
    mean: float
    """The mean label of all training questions."""
    smoothing: float
    """How many questions this mean counts as much as."""


def build_item_rates(train: Labels, *, smoothing: float = 20.0) -> ItemRates:
    """Count the training events of each item and add up its training labels.

    Args:
        smoothing: an item's label is (sum + smoothing · mean of all) / (number + smoothing).

    Raises:
        ConfigError: the labels are not about items, or `smoothing` is not above 0.
    """
    if train.item_idx is None:
        raise ConfigError(f"{train.name!r} is asked about the user: there is no item to have a rate.")
    if not smoothing > 0:
        raise ConfigError(f"The 'smoothing' parameter of build_item_rates must be above 0. Got {smoothing!r}.")
    sequences, times = train.moments.sequences, train.moments.time_us
    if sequences.time_us is None or times is None:
        event_at, label_at = sequences.user_idx % _N_PARTS, train.user_idx % _N_PARTS
    else:
        # What happens at a moment is known after it, the answer of a horizon when that is over.
        event_at, label_at = sequences.time_us, times[train.moment] + max(train.horizon_us, 1) - 1
    # One thread: the order of a sum is then always the same.
    engine = Engine(threads=1)
    events = engine.register(
        pa.table({"item_idx": sequences.item_idx.astype(np.int64), "known_at": event_at.astype(np.int64)})
    )
    asked = engine.register(
        pa.table({"item_idx": train.item_idx, "known_at": label_at.astype(np.int64), "label": train.label})
    )
    counts = (
        "count(*) FILTER (label IS NULL) AS n_events, count(label) AS n_asked, coalesce(sum(label), 0) AS label_sum"
    )
    table = engine.arrow(
        f"SELECT item_idx, known_at, {counts} FROM (FROM {events} UNION ALL BY NAME FROM {asked}) WHERE item_idx >= 0 "
        "GROUP BY item_idx, known_at ORDER BY item_idx, known_at"
    )
    is_timed = event_at is sequences.time_us
    return ItemRates(table=table, is_timed=is_timed, mean=float(train.label.mean()), smoothing=float(smoothing))


def question_features(labels: Labels, rates: ItemRates | None = None, *, actions: bool = True) -> FeatureMatrix:
    """Describe each question: the history of its moment and, where it is about an item, the item.

    | feature | what it is |
    |---|---|
    | `item_events`, `item_asked` | the item's training events and training questions so far |
    | `item_label` | mean label of these questions, smoothed towards the mean of all |
    | `item_met`, `item_met[action]` | how often the user had the item before |
    | `days_since_item`, `events_since_item` | how far back the last time is |
    | `category_met`, `category_met[action]`, `category_share` | the same of its category, where one is known |
    | `days_since_category`, `events_since_category` | likewise |

    So far: in a log with times, what was known before the moment. In an order-only log, what comes from the four
    fifths of the users that the asked one is not among, so that no question is described by its own answer.

    Args:
        rates: what training says of the items; needed where questions are about items.
        actions: whether there are to be features of single actions.

    Raises:
        ConfigError: the questions are about items and there are no rates.
        DataError: a history begins after its user's first event.
    """
    history = history_features(labels.moments, actions=actions)
    names, values = history.names, history.values[labels.moment]
    if labels.item_idx is None:
        return FeatureMatrix(names=names, values=values)
    if rates is None:
        raise ConfigError(f"{labels.name!r} is asked about items. Say what is known of them: build_item_rates(train).")
    item = _item_features(labels, labels.item_idx, rates, actions=actions)
    return FeatureMatrix(names=names + item.names, values=np.hstack([values, item.values]))


def _item_features(labels: Labels, item_idx: np.ndarray, rates: ItemRates, *, actions: bool) -> FeatureMatrix:
    sequences = labels.moments.sequences
    engine = Engine()
    log, asked = _register(engine, labels.moments, labels.moment, item_idx)
    rows, features = _rated(engine, asked, rates)
    kinds = ["item"] if _categories(sequences) is None else ["item", "category"]
    for what in kinds:
        key = f"{what}_idx"
        of_pairs = {f"{what}_n": "count(*)", f"{what}_time": "max(time_us)", f"{what}_place": "max(place)"}
        counts = {f"{what}_met": f"{what}_n"}
        for idx, action in _actions(sequences, actions):
            of_pairs[f"{what}_n_{idx}"] = f"count(*) FILTER (action_idx = {idx})"
            counts[f"{what}_met[{action}]"] = f"{what}_n_{idx}"
        if what == "category":
            counts["category_share"] = "category_n / (stop - start)"
        so_far = _so_far(engine, f"(FROM {log} WHERE {key} >= 0)", f"user_idx, {key}", of_pairs)
        rows = engine.create_view(
            f"SELECT r.*, e.* EXCLUDE (user_idx, {key}, place) FROM {rows} AS r ASOF LEFT JOIN {so_far} AS e "
            f"ON r.user_idx = e.user_idx AND r.{key} = e.{key} AND r.stop > e.place",
            "rows",
        )
        # An unknown item was never met; of an unknown category nothing can be said.
        is_known = "true" if what == "item" else "category_idx >= 0"
        features |= {name: f"CASE WHEN {is_known} THEN coalesce({sql}, 0) END" for name, sql in counts.items()}
        features |= _since(sequences, f"_{what}", f"{what}_time", f"{what}_place")
    return _matrix(engine, rows, features)


def _rated(engine: Engine, asked: str, rates: ItemRates) -> tuple[str, dict[str, str]]:
    """Return the questions with what is known of their items so far."""
    table = engine.register(rates.table)
    columns = ("n_events", "n_asked", "label_sum")
    if rates.is_timed:
        sums = ", ".join(f"sum({name}) OVER so_far AS {name}" for name in columns)
        window = "PARTITION BY item_idx ORDER BY known_at"
        so_far = f"(SELECT item_idx, known_at, {sums} FROM {table} WINDOW so_far AS ({window}))"
        join = f"ASOF LEFT JOIN {so_far} AS e ON a.item_idx = e.item_idx AND coalesce(a.at_us, {_LATE_US}) > e.known_at"
        found = ", ".join(f"e.{name}" for name in columns)
    else:
        sums = ", ".join(f"sum({name}) AS {name}" for name in columns)
        join = (
            f"LEFT JOIN (SELECT item_idx, {sums} FROM {table} GROUP BY item_idx) AS e ON a.item_idx = e.item_idx "
            f"LEFT JOIN {table} AS own ON a.item_idx = own.item_idx AND a.user_idx % {_N_PARTS} = own.known_at"
        )
        found = ", ".join(f"e.{name} - coalesce(own.{name}, 0) AS {name}" for name in columns)
    rows = engine.create_view(f"SELECT a.*, {found} FROM {asked} AS a {join}", "rows")
    # As texts, since SQL would read 0.25 as a decimal, which has too few digits to be multiplied.
    mean, smoothing = (f"CAST('{value!r}' AS DOUBLE)" for value in (rates.mean, rates.smoothing))
    label = f"(coalesce(label_sum, 0) + {smoothing} * {mean}) / (coalesce(n_asked, 0) + {smoothing})"
    return rows, {
        "item_events": "coalesce(n_events, 0)",
        "item_asked": "coalesce(n_asked, 0)",
        "item_label": label,
    }


def _register(
    engine: Engine, moments: Moments, moment: np.ndarray, item_idx: np.ndarray | None = None
) -> tuple[str, str]:
    """Make a table of these users' events, and one with a row for each `moment` that something is asked at."""
    sequences, category = moments.sequences, _categories(moments.sequences)
    needed = np.zeros(sequences.n_users, bool)
    needed[moments.user_idx] = True
    place = np.flatnonzero(needed[sequences.user_idx])
    log = {name: getattr(sequences, name)[place].astype(np.int64) for name in ("user_idx", "item_idx", "action_idx")}
    log |= {"place": place, "time_us": _times(sequences, place, np.ones(len(place), bool))}
    for nth in range(len(sequences.number_names)):
        number = sequences.numbers[place, nth].astype(np.float64)
        log[f"number_{nth}"] = pa.array(number, mask=np.isnan(number))
    asked = {name: getattr(moments, name)[moment].astype(np.int64) for name in ("user_idx", "start", "stop")}
    latest_us = _times(sequences, asked["stop"] - 1, asked["stop"] > asked["start"])
    at_us = pa.nulls(len(moment), pa.int64()) if moments.time_us is None else pa.array(moments.time_us[moment])
    asked |= {"nth": np.arange(len(moment)), "at_us": at_us, "latest_us": latest_us}
    asked["now_us"] = pc.coalesce(at_us, latest_us)
    if item_idx is not None:
        asked["item_idx"] = item_idx
    if category is not None:
        for table in (log, asked):
            if "item_idx" in table:
                table["category_idx"] = np.append(category, UNKNOWN)[table["item_idx"]]
    return engine.register(pa.table(log)), engine.register(pa.table(asked))


def _times(sequences: Sequences, place: np.ndarray, is_known: np.ndarray) -> pa.Array:
    if sequences.time_us is None:
        return pa.nulls(len(place), pa.int64())
    times = np.append(sequences.time_us, 0)
    return pa.array(times[np.where(is_known, place, 0)], mask=~is_known)


def _so_far(engine: Engine, events: str, keys: str, columns: dict[str, str]) -> str:
    """Store, at each event, what these aggregates say of it and of the earlier ones with the same keys."""
    selected = ", ".join(f"{sql} OVER so_far AS {name}" for name, sql in columns.items())
    frame = f"PARTITION BY {keys} ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
    return engine.create_table(f"SELECT {keys}, place, {selected} FROM {events} WINDOW so_far AS ({frame})", "so_far")


def _since(sequences: Sequences, of: str, time: str, place: str) -> dict[str, str]:
    if sequences.time_us is None:
        return {f"events_since{of}": f"stop - {place}"}
    return {f"days_since{of}": f"(now_us - {time}) / {DAY_US}"}


def _actions(sequences: Sequences, wanted: bool) -> list[tuple[int, str]]:
    names = sequences.vocab.actions.ids.to_pylist()
    return list(enumerate(names)) if wanted and len(names) > 1 else []


def _categories(sequences: Sequences) -> np.ndarray | None:
    """Return a number for the category of each item, `UNKNOWN` where there is none; None where none is known."""
    features = sequences.vocab.item_features
    if features is None or "category" not in features.column_names:
        return None
    codes = features.column("category").combine_chunks().dictionary_encode().indices
    return np.asarray(pc.fill_null(codes, UNKNOWN), dtype=np.int64)


def _matrix(engine: Engine, rows: str, features: dict[str, str]) -> FeatureMatrix:
    # Names come from data, and SQL does not tell upper from lower case in them.
    selected = ", ".join(f"CAST({sql} AS DOUBLE) AS feature_{place}" for place, sql in enumerate(features.values()))
    table = engine.arrow(f"SELECT {selected} FROM {rows} ORDER BY nth")
    columns = [column.to_numpy() for column in table.columns]
    return FeatureMatrix(names=tuple(features), values=np.column_stack(columns))
