"""Files and frames become tables in our words: `Events`, and the items, users and edges around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from influent import schema
from influent.data.columns import (
    Reading,
    TimeUnit,
    find_column,
    read_id,
    read_number,
    read_text,
    read_time,
    require_column,
)
from influent.data.engine import Engine, quoted
from influent.data.source import ROW, RawTable, open_source
from influent.errors import DataError, SchemaError

_TIMES = (schema.TIME_US, "timestamp", "time")
"""Where a time is looked for unless it is named."""


@dataclass(frozen=True, kw_only=True)
class Events:
    """A log of behaviours, one row each, in an engine; rows stay on disk until they are needed.

    Columns are `schema.EVENT_COLUMNS`, then the log's own further columns (context) as they came. `event_id` is
    the place of the row in the source, from 0.
    """

    engine: Engine
    name: str
    """The table's name in the engine."""
    is_timed: bool
    """False in an order-only log: row order is then the order in time."""
    notes: tuple[str, ...] = ()
    """What reading decided, in sentences."""
    cleaning: Any = None
    """The `CleaningReport`, once cleaned."""

    def __len__(self) -> int:
        return self.engine.count(self.name)

    @property
    def context(self) -> tuple[str, ...]:
        """The names of the columns that are the log's own."""
        return tuple(name for name in self.engine.columns(self.name) if name not in schema.EVENT_COLUMNS)

    def to_arrow(self) -> pa.Table:
        """Return all rows, by `event_id`."""
        return self.engine.arrow(f"SELECT * FROM {self.name} ORDER BY {schema.EVENT_ID}")


def read_events(
    source: Any,
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    action: str | None = None,
    value: str | None = None,
    scene: str | None = None,
    source_user: str | None = None,
    time_unit: TimeUnit | None = None,
    delimiter: str | None = None,
    engine: Engine | None = None,
) -> Events:
    """Read a log of behaviours. Nothing is dropped; what cannot be read becomes null and is said in `notes`.

    Columns that are not named are looked for under our own names (`user_id`, `item_id`, `time_us` or `timestamp`
    or `time`, `action`, `value`, `scene`, `source_user_id`); only user and item must be there. Every other column
    is kept as context. Without a time the log is order-only: its rows are taken in the source's order.

    Args:
        source: a path or glob of CSV, TSV, JSON Lines (each also `.gz`) or Parquet, a folder of Parquet, or a
            pandas, Polars or Arrow table.
        user: the column that says who.
        item: the column that says to what.
        time: the column that says when: ISO 8601, a date, or a number since 1970. Without a zone it is UTC.
        action: the column that says what was done; without one every event is an `event`.
        value: a number that belongs to the event: rating, amount, seconds.
        scene: where it happened: home feed, search, shop.
        source_user: who passed the item on to this user.
        time_unit: what a number counts: `s`, `ms`, `us` or `ns`; by default decided by magnitude.
        delimiter: what separates the fields of a text file; by default found in its header.
        engine: where the tables are to live; by default an engine of their own.

    Raises:
        DataError: the source is missing, empty or damaged.
        SchemaError: a column is missing, or holds what it should not.
        ConfigError: `time_unit` or `delimiter` is none.

    Example:
        >>> log = pa.table({"uid": [7, 7], "sku": ["a", "b"], "at": ["2024-01-01", "2024-01-02"]})
        >>> events = read_events(log, user="uid", item="sku", time="at")
        >>> events.to_arrow().column("time_us").to_pylist()
        [1704067200000000, 1704153600000000]
        >>> events.notes
        ('at: 2 times carry no zone; read as UTC.',)
    """
    engine = engine or Engine()
    raw = open_source(engine, source, delimiter=delimiter)
    user = require_column(raw, user, schema.USER_ID, "user")
    item = require_column(raw, item, schema.ITEM_ID, "item")
    time = find_column(raw, time, _TIMES, "time")
    action = find_column(raw, action, (schema.ACTION,), "action")
    value = find_column(raw, value, (schema.VALUE,), "value")
    scene = find_column(raw, scene, (schema.SCENE,), "scene")
    source_user = find_column(raw, source_user, (schema.SOURCE_USER_ID,), "source_user")
    clock = None if time is None else read_time(engine, raw, time, time_unit)
    user_id = read_id(engine, raw, user)
    readings = {
        schema.EVENT_ID: Reading(ROW),
        schema.USER_ID: user_id,
        schema.ITEM_ID: read_id(engine, raw, item),
        schema.ACTION: read_text(raw, action, schema.DEFAULT_ACTION),
        schema.TIME_US: clock or Reading("CAST(NULL AS BIGINT)"),
        schema.VALUE: read_number(engine, raw, value),
        schema.SCENE: read_text(raw, scene),
        schema.SOURCE_USER_ID: (
            read_id(engine, raw, source_user) if source_user else Reading(f"CASE WHEN false THEN {user_id.sql} END")
        ),
    }
    notes = [note for reading in readings.values() for note in reading.notes]
    if clock is None:
        why = "no time was named" if time is None else f"{time} is empty in every row"
        notes.append(f"order-only log: {why}; events follow each other in the order of the rows.")
    used = {user, item, time, action, value, scene, source_user}
    context, renamed = _others(raw, used, schema.EVENT_COLUMNS)
    columns = [f"{reading.sql} AS {name}" for name, reading in readings.items()] + context
    name = engine.create_view(f"SELECT {', '.join(columns)} FROM {raw.name}", "events")
    return Events(engine=engine, name=name, is_timed=clock is not None, notes=(*notes, *renamed))


def _others(raw: RawTable, used: set[str | None], ours: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Keep every other column; one whose name is ours gets a name of its own."""
    selected, notes = [], []
    taken = {*ours, *(name.lower() for name in raw.columns)}
    for name in raw.columns:
        if name in used:
            continue
        # Parquet has no type for a length of time, which an interval is.
        column = f"CAST({quoted(name)} AS VARCHAR)" if raw.columns[name] == "INTERVAL" else quoted(name)
        if name.lower() not in ours:
            selected.append(f"{column} AS {quoted(name)}")
            continue
        kept = name
        while kept.lower() in taken:
            kept += "_in_log"
        taken.add(kept.lower())
        selected.append(f"{column} AS {quoted(kept)}")
        notes.append(f"{name}: kept under the name {kept}.")
    return selected, notes


@dataclass(frozen=True)
class Features:
    """What is known about items or users: their ids, and a column per feature, as the source wrote them."""

    table: pa.Table
    notes: tuple[str, ...] = field(default=())


def read_items(source: Any, *, item: str | None = None, delimiter: str | None = None) -> Features:
    """Read a table of items: `item_id`, then `title`, `text`, `category` and whatever else it holds.

    Raises:
        SchemaError: the id column is missing, or an id stands there twice.
    """
    return _read_features(source, item, schema.ITEM_ID, "item", delimiter)


def read_users(source: Any, *, user: str | None = None, delimiter: str | None = None) -> Features:
    """Read a table of users: `user_id`, then a column per feature.

    Raises:
        SchemaError: the id column is missing, or an id stands there twice.
    """
    return _read_features(source, user, schema.USER_ID, "user", delimiter)


def _read_features(source: Any, name: str | None, canonical: str, argument: str, delimiter: str | None) -> Features:
    engine = Engine()
    raw = open_source(engine, source, delimiter=delimiter)
    name = require_column(raw, name, canonical, argument)
    reading = read_id(engine, raw, name)
    others, renamed = _others(raw, {name}, (canonical,))
    selected = ", ".join([f"{reading.sql} AS {canonical}", *others])
    table = engine.arrow(f"SELECT {selected} FROM {raw.name} WHERE {reading.sql} IS NOT NULL ORDER BY {ROW}")
    ids = table.column(canonical)
    if len(ids.unique()) < len(ids):
        twice = next(row["values"] for row in ids.value_counts().to_pylist() if row["counts"] > 1)
        raise SchemaError(f"{raw.label} has {canonical} {twice!r} more than once. One row per id is needed.")
    return Features(table, (*reading.notes, *renamed))


def read_edges(
    source: Any,
    *,
    source_user: str | None = None,
    target_user: str | None = None,
    kind: str | None = None,
    time: str | None = None,
    time_unit: TimeUnit | None = None,
    delimiter: str | None = None,
) -> pa.Table:
    """Read who is tied to whom: `source_user_id`, `target_user_id`, `kind`, `time_us` (both nullable).

    Args:
        source: a file or table as for `read_events`, or a networkx graph: an edge (u, v) says that v may be moved by u,
            in an undirected graph either by the other. The others then name its attributes `kind` and `time`.

    Raises:
        DataError: there are no edges.
        SchemaError: a column is missing, or holds what it should not.
    """
    engine = Engine()
    if hasattr(source, "is_directed") and hasattr(source, "edges"):
        source = _table_of_graph(source, {kind or schema.KIND, *([time] if time else _TIMES)})
    raw = open_source(engine, source, delimiter=delimiter)
    time = find_column(raw, time, _TIMES, "time")
    clock = None if time is None else read_time(engine, raw, time, time_unit)
    ends = {
        schema.SOURCE_USER_ID: require_column(raw, source_user, schema.SOURCE_USER_ID, "source_user"),
        schema.TARGET_USER_ID: require_column(raw, target_user, schema.TARGET_USER_ID, "target_user"),
    }
    columns = [f"{read_id(engine, raw, name).sql} AS {ours}" for ours, name in ends.items()]
    columns.append(f"{read_text(raw, find_column(raw, kind, (schema.KIND,), 'kind')).sql} AS {schema.KIND}")
    columns.append(f"{clock.sql if clock else 'CAST(NULL AS BIGINT)'} AS {schema.TIME_US}")
    return engine.arrow(f"SELECT {', '.join(columns)} FROM {raw.name} ORDER BY {ROW}")


def _table_of_graph(graph: Any, attributes: set[str]) -> pa.Table:
    """Return a row for each edge of a networkx graph, and of an undirected one a row for each direction."""
    edges = list(graph.edges(data=True))
    if not edges:
        raise DataError("the graph has no edges, so nobody is tied to anybody.")
    if not graph.is_directed():
        edges += [(target, source, about) for source, target, about in edges]
    values = {
        schema.SOURCE_USER_ID: [source for source, _, _ in edges],
        schema.TARGET_USER_ID: [target for _, target, _ in edges],
    }
    there = {name for _, _, about in edges for name in about}
    values |= {name: [about.get(name) for _, _, about in edges] for name in sorted(attributes & there)}
    columns = {}
    for name, column in values.items():
        try:
            columns[name] = pa.array(column)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise SchemaError(f"{name} of the graph's edges is of different types: {error}. Make it one.") from error
    return pa.table(columns)
