"""Clean events become sequences: flat columns in order of user, time and row, with the offsets of each user."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influent import schema
from influent.data.columns import read_category
from influent.data.engine import quoted
from influent.data.events import Events, Features
from influent.data.vocab import UNKNOWN, Ids, Vocab, id_array, read_saved
from influent.errors import ConfigError, DataError, SchemaError, nearest
from influent.progress import Progress
from influent.run import made

_TAKEN = {*schema.EVENT_COLUMNS, "user_idx", "item_idx", "action_idx"}
"""What has a meaning of its own among the columns of events or of `sequences.parquet`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """Every user's events in order of time; ties keep the order of the log's rows.

    Shapes: E events, U users, F numbers and K categories per event. The events of user `u` lie at
    `offsets[u]:offsets[u + 1]`.
    """

    vocab: Vocab
    offsets: np.ndarray
    """int64 (U + 1,)"""
    event_id: np.ndarray
    """int64 (E,): the row of the log"""
    item_idx: np.ndarray
    """int32 (E,); `UNKNOWN` where the vocabulary does not hold the item"""
    action_idx: np.ndarray
    """int32 (E,)"""
    time_us: np.ndarray | None
    """int64 (E,): microseconds since 1970, UTC; None in an order-only log"""
    numbers: np.ndarray = field(repr=False)
    """float32 (E, F): the value and numeric context of each event as logged; NaN where the log says nothing"""
    number_names: tuple[str, ...] = ()
    categories: np.ndarray = field(repr=False)
    """int32 (E, K): the place of each event's value in each column of `vocab.categories`; `UNKNOWN` where the log
    says nothing, or what the vocabulary does not hold"""

    def __len__(self) -> int:
        return len(self.item_idx)

    @property
    def n_users(self) -> int:
        """Return the number of users, those without events included."""
        return len(self.offsets) - 1

    @property
    def category_names(self) -> tuple[str, ...]:
        """Return the names of the category columns, those that the vocabulary has the values of."""
        return tuple(self.vocab.categories)

    @cached_property
    def user_idx(self) -> np.ndarray:
        """Return the user of each event, int32 (E,)."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.offsets))

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of the ids, the events and their order; from which rows of a log they come is not in it."""
        digest = hashlib.sha256(repr((self.time_us is None, self.number_names, *self.category_names)).encode())
        vocab = self.vocab
        for known in (vocab.users, vocab.items, vocab.actions, *vocab.categories.values()):
            ids = known.ids
            texts = ids.cast(pa.string()).to_pylist()
            # Lengths first, so that "ab", "c" and "a", "bc" differ.
            digest.update(repr((pa.types.is_integer(ids.type), [len(text or "") for text in texts])).encode())
            digest.update("".join(text or "" for text in texts).encode())
        for column in (self.offsets, self.item_idx, self.action_idx, self.time_us, self.numbers, self.categories):
            digest.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:12]

    def until(self, stops: np.ndarray) -> Sequences:
        """Return sequences that end before `stops[u]`, an event's place, for each user u."""
        return self.without(np.flatnonzero(np.arange(len(self)) >= np.repeat(stops, np.diff(self.offsets))))

    def masked(self, places: np.ndarray) -> Sequences:
        """Return the same sequences with events that say nothing at these places, int (N,).

        Their item, action and categories are unknown and their numbers missing; place and time stay.
        """
        item_idx, action_idx, categories = self.item_idx.copy(), self.action_idx.copy(), self.categories.copy()
        item_idx[places] = action_idx[places] = categories[places] = UNKNOWN
        numbers = self.numbers.copy()
        numbers[places] = np.nan
        return replace(self, item_idx=item_idx, action_idx=action_idx, numbers=numbers, categories=categories)

    def swapped(self, places: np.ndarray, items: np.ndarray) -> Sequences:
        """Return the same sequences with the items, int (N,), of the events at these places exchanged for others."""
        item_idx = self.item_idx.copy()
        item_idx[places] = items
        return replace(self, item_idx=item_idx)

    def without(self, places: np.ndarray) -> Sequences:
        """Return sequences from which the events at these places, int (N,), are gone; those behind move up."""
        keep = np.ones(len(self), bool)
        keep[places] = False
        counts = np.bincount(self.user_idx[keep], minlength=self.n_users)
        return replace(
            self,
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            event_id=self.event_id[keep],
            item_idx=self.item_idx[keep],
            action_idx=self.action_idx[keep],
            time_us=None if self.time_us is None else self.time_us[keep],
            numbers=self.numbers[keep],
            categories=self.categories[keep],
        )

    def backwards(self) -> tuple[Sequences, np.ndarray]:
        """Return the same events with time running backwards, and the place here of each event there.

        Who came after is then before: whatever is found in both directions alike is no influence.

        Raises:
            ConfigError: the log is order-only.
        """
        if self.time_us is None:
            raise ConfigError("an order-only log has no times to run backwards.")
        start, end = self.offsets[self.user_idx], self.offsets[self.user_idx + 1]
        place = start + end - 1 - np.arange(len(self))
        ends = int(self.time_us.min()) + int(self.time_us.max()) if len(self) else 0
        columns = ("event_id", "item_idx", "action_idx", "numbers", "categories")
        return replace(
            self, time_us=ends - self.time_us[place], **{name: getattr(self, name)[place] for name in columns}
        ), place

    def with_users(self, user_ids: Sequence[Any]) -> Sequences:
        """Return the same sequences with these users, who have no events, behind the others."""
        vocab = self.vocab.with_users(id_array(user_ids))
        offsets = np.concatenate([self.offsets, np.full(len(vocab.users) - self.n_users, self.offsets[-1])])
        return replace(self, vocab=vocab, offsets=offsets)

    def with_items(self, items: Features) -> Sequences:
        """Return the same sequences with these items, which have no events, behind the others.

        Raises:
            SchemaError: the ids are integers here and texts there.
        """
        return replace(self, vocab=self.vocab.with_items(items))

    def n_events_of(self, user_idx: np.ndarray) -> np.ndarray:
        """Return how many events each of these users, int (N,), has, int64 (N,); none where the user is `UNKNOWN`."""
        n_events = np.diff(self.offsets)[np.maximum(user_idx, 0)]
        return np.where(user_idx == UNKNOWN, 0, n_events)

    def item_counts(self) -> np.ndarray:
        """Return how many events each item has, int64 (n_items,)."""
        known = self.item_idx[self.item_idx >= 0]
        return np.bincount(known, minlength=self.vocab.n_items)

    def popularity(self) -> np.ndarray:
        """Return the share of all events of known items that are each item's, float64 (n_items,)."""
        counts = self.item_counts()
        return np.asarray(counts / max(counts.sum(), 1))

    def save(self, folder: str | Path) -> None:
        """Write `sequences.parquet` and the vocabulary's tables."""
        folder = made(folder)
        self.vocab.save(folder)
        columns = {
            "user_idx": self.user_idx,
            schema.EVENT_ID: self.event_id,
            "item_idx": self.item_idx,
            "action_idx": self.action_idx,
            schema.TIME_US: pa.nulls(len(self), pa.int64()) if self.time_us is None else self.time_us,
        }
        columns |= {name: self.numbers[:, place] for place, name in enumerate(self.number_names)}
        columns |= {name: self.categories[:, place] for place, name in enumerate(self.category_names)}
        pq.write_table(pa.table(columns), folder / "sequences.parquet", compression="zstd")

    @classmethod
    def load(cls, folder: Path) -> Sequences:
        """Read what `save` wrote.

        Raises:
            RunFolderError: a file is missing or damaged.
        """
        table, vocab = read_saved(folder / "sequences.parquet"), Vocab.load(folder)
        names = tuple(name for name in table.column_names[5:] if name not in vocab.categories)
        is_timed = table.column(schema.TIME_US).null_count == 0
        counts = np.bincount(table.column("user_idx").to_numpy(), minlength=len(vocab.users))
        return cls(
            vocab=vocab,
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            event_id=table.column(schema.EVENT_ID).to_numpy(),
            item_idx=table.column("item_idx").to_numpy(),
            action_idx=table.column("action_idx").to_numpy(),
            time_us=table.column(schema.TIME_US).to_numpy() if is_timed else None,
            numbers=_beside_each_other(table, names, np.float32),
            number_names=names,
            categories=_beside_each_other(table, tuple(vocab.categories), np.int32),
        )


def _beside_each_other(table: pa.Table, names: tuple[str, ...], dtype: type) -> np.ndarray:
    columns = [table.column(name).to_numpy() for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 0), dtype)


def build_sequences(
    events: Events,
    *,
    items: Features | None = None,
    users: Features | None = None,
    numbers: Sequence[str] = (schema.VALUE,),
    categories: Sequence[str] | None = None,
    vocab: Vocab | None = None,
    progress: Progress | None = None,
) -> Sequences:
    """Put each user's events in order of time; events at the same time keep the order of the log's rows.

    Args:
        items: what is known about the items (titles for reasons).
        users: what is known about the users (features for context lines).
        numbers: numeric columns of the log that belong to an event's vector. One without any number is left out,
            unless a vocabulary is given. What is not finite, or too large for a float32, counts as missing.
        categories: columns of strings or integers that belong to an event's vector, such as `scene` and `device`;
            each is a part of its own. By default `scene`, or with an earlier vocabulary those that it has the values
            of. One without any value is left out. What is null or empty is unknown.
        vocab: ids of an earlier log, to read these events by. Items, actions and categories it does not hold become
            `UNKNOWN`; users it does not hold are added behind its own. Ids of another type are compared as text.

    Raises:
        SchemaError: the log has no such column, it is named twice or as something of ours, a category is neither
            string nor integer, the earlier vocabulary has no values of it, or what is known about items or users is
            about none of the log's.
        DataError: an event lacks its user or item, which `clean` would have dropped.
    """
    progress = progress or Progress()
    _check_clean(events)
    if categories is None:
        categories = (schema.SCENE,) if vocab is None else tuple(vocab.categories)
    names = _number_names(events, numbers, keep_all=vocab is not None)
    category_sql = _category_sql(events, categories, numbers, vocab)
    with progress.track("sequences", len(events)) as advance:
        vocab = _vocab(events, vocab, items, users, category_sql, progress)
        columns = _sorted_columns(events, vocab, names, category_sql, advance)
    counts = np.bincount(columns.pop("user_idx"), minlength=len(vocab.users))
    time_us = columns.pop(schema.TIME_US)
    return Sequences(
        vocab=vocab,
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        event_id=columns.pop(schema.EVENT_ID),
        item_idx=columns.pop("item_idx"),
        action_idx=columns.pop("action_idx"),
        time_us=time_us if events.is_timed else None,
        numbers=columns.pop("numbers"),
        number_names=names,
        categories=columns.pop("categories"),
    )


def _check_clean(events: Events) -> None:
    time_missing = "OR time_us IS NULL" if events.is_timed else ""
    found = events.engine.row(
        f"SELECT count(*) AS n FROM {events.name} WHERE user_id IS NULL OR item_id IS NULL {time_missing}"
    )
    if found["n"]:
        raise DataError(
            f"{found['n']:,} events lack a user, an item or a time. Drop them first: influent.clean(events)."
        )


def _vocab(
    events: Events,
    vocab: Vocab | None,
    items: Features | None,
    users: Features | None,
    category_sql: dict[str, str],
    progress: Progress,
) -> Vocab:
    if vocab is not None:
        categories = {name: ids for name, ids in vocab.categories.items() if name in category_sql}
        return replace(vocab, categories=categories).with_users(_distinct(events, schema.USER_ID))
    categories = {name: Ids(name, _distinct(events, sql)) for name, sql in category_sql.items()}
    user_ids = Ids(schema.USER_ID, _distinct(events, schema.USER_ID))
    item_ids = Ids(schema.ITEM_ID, _distinct(events, schema.ITEM_ID))
    return Vocab(
        users=user_ids,
        items=item_ids,
        actions=Ids(schema.ACTION, _distinct(events, schema.ACTION)),
        categories={name: ids for name, ids in categories.items() if len(ids)},
        item_features=None if items is None else _known_of(items, item_ids, progress),
        user_features=None if users is None else _known_of(users, user_ids, progress),
    )


def _known_of(features: Features, ids: Ids, progress: Progress) -> pa.Table:
    """Return the features in the order of `ids`, a row each; null where nothing is known."""
    given, what = features.table.column(ids.kind).combine_chunks(), ids.kind.removesuffix("_id") + "s"
    place = Ids(ids.kind, given).to_idx(ids.ids)
    n_known = int((place != UNKNOWN).sum())
    if n_known == 0:
        one, other = (some[0].as_py() if len(some) else None for some in (given, ids.ids))
        raise SchemaError(
            f"none of the log's {len(ids):,} {what} is in the table of {what}, whose first is {one!r} where the log's "
            f"is {other!r}. Write their ids alike, or leave the table out."
        )
    if n_known < len(ids):
        progress.say(f"{what}: {n_known:,} of the log's {len(ids):,} are in the table of {what}.")
    return features.table.take(pa.array(place, mask=place == UNKNOWN)).set_column(0, ids.kind, ids.ids)


def _distinct(events: Events, sql: str) -> pa.Array:
    # Sorted, so that the same events give the same indices whatever order they came in.
    table = events.engine.arrow(f"SELECT DISTINCT {sql} AS id FROM {events.name} WHERE {sql} IS NOT NULL ORDER BY 1")
    return table.column("id").combine_chunks()


def _number_names(events: Events, names: Sequence[str], *, keep_all: bool) -> tuple[str, ...]:
    _check_columns(events, names, "number", schema.VALUE)
    if keep_all or not names:
        return tuple(names)
    counts = ", ".join(f"count(TRY_CAST({quoted(name)} AS DOUBLE)) AS {quoted(name)}" for name in names)
    found = events.engine.row(f"SELECT {counts} FROM {events.name}")
    return tuple(name for name in names if found[name])


def _category_sql(events: Events, names: Sequence[str], numbers: Sequence[str], vocab: Vocab | None) -> dict[str, str]:
    """Return what reads each category column, by its name."""
    _check_columns(events, names, "category", schema.SCENE)
    for name in names:
        if name in schema.EVENT_PARTS:
            raise SchemaError(
                f"a category cannot be called {name!r}: {', '.join(schema.EVENT_PARTS)} are parts of every event. "
                "Give the column another name in the log."
            )
        if name in numbers:
            raise SchemaError(f"{name!r} is named as a number and as a category. Leave it out of one of the two.")
        if vocab is not None and name not in vocab.categories:
            raise SchemaError(
                f"the vocabulary has no values of the category {name!r}. It has those of: "
                f"{', '.join(vocab.categories) or 'none'}. Leave the others out."
            )
    return {name: read_category(events.engine, events.name, name) for name in names}


def _check_columns(events: Events, names: Sequence[str], kind: str, ours: str) -> None:
    there = [name for name in events.engine.columns(events.name) if name not in _TAKEN - {ours}]
    for name in names:
        if name not in there:
            raise SchemaError(
                f"events have no column {name!r} that could be a {kind}. They have: {', '.join(there)}."
                f"{nearest(name, there)}"
            )
    if len(set(names)) < len(names):
        raise SchemaError(f"a {kind} is named twice: {', '.join(names)}.")


def _sorted_columns(
    events: Events, vocab: Vocab, numbers: tuple[str, ...], category_sql: dict[str, str], advance: object
) -> dict[str, np.ndarray]:
    """Fetch the columns in order, batch by batch, into arrays made once."""
    engine, n = events.engine, len(events)
    read = _read_by_our_names(events, numbers, [category_sql[name] for name in vocab.categories])
    kinds = engine.columns(read)
    keys = {"user_idx": (schema.USER_ID, vocab.users), "item_idx": (schema.ITEM_ID, vocab.items)}
    keys |= {"action_idx": (schema.ACTION, vocab.actions)}
    keys |= {f"category_{place}": (f"value_{place}", ids) for place, ids in enumerate(vocab.categories.values())}
    joins, selected = [], []
    for name, (column, ids) in keys.items():
        table = engine.register(pa.table({"id": ids.ids, "idx": np.arange(len(ids), dtype=np.int32)}))
        sides = f"e.{column}", f"{table}.id"
        if kinds[column] != engine.columns(table)["id"]:
            sides = f"CAST({sides[0]} AS VARCHAR)", f"CAST({sides[1]} AS VARCHAR)"
        joins.append(f"LEFT JOIN {table} ON {sides[0]} = {sides[1]}")
        selected.append(f"coalesce({table}.idx, -1) AS {name}")
    wide = {"numbers": [f"number_{place}" for place in range(len(numbers))], "categories": list(keys)[3:]}
    selected += [f"e.{schema.EVENT_ID}", f"e.{schema.TIME_US}", *(f"e.{name}" for name in wide["numbers"])]
    columns = {name: np.empty(n, np.int32) for name in ("user_idx", "item_idx", "action_idx")}
    columns |= {name: np.empty(n, np.int64) for name in (schema.EVENT_ID, schema.TIME_US)}
    narrow = list(columns)
    columns["numbers"] = np.empty((n, len(wide["numbers"])), np.float32)
    columns["categories"] = np.empty((n, len(wide["categories"])), np.int32)
    start = 0
    order = f"ORDER BY 1, e.{schema.TIME_US}, e.{schema.EVENT_ID}"
    for batch in engine.batches(f"SELECT {', '.join(selected)} FROM {read} AS e {' '.join(joins)} {order}"):
        rows = slice(start, start + batch.num_rows)
        for name in narrow:
            columns[name][rows] = batch.column(name).to_numpy(zero_copy_only=False)
        for name, of_name in wide.items():
            for place, column in enumerate(of_name):
                columns[name][rows, place] = batch.column(column).to_numpy(zero_copy_only=False)
        start += batch.num_rows
        advance(batch.num_rows)  # type: ignore[operator]
    return columns


def _read_by_our_names(events: Events, numbers: Sequence[str], category_sql: Sequence[str]) -> str:
    """Return a view of the columns that are read; a log may have any of the names by which others are joined."""
    read = [schema.EVENT_ID, schema.USER_ID, schema.ITEM_ID, schema.ACTION]
    read.append(f"coalesce({schema.TIME_US}, 0) AS {schema.TIME_US}")
    for place, name in enumerate(numbers):
        number = f"TRY_CAST({quoted(name)} AS DOUBLE)"
        read.append(f"CASE WHEN isfinite({number}) THEN TRY_CAST({number} AS FLOAT) END AS number_{place}")
    read += [f"{sql} AS value_{place}" for place, sql in enumerate(category_sql)]
    return events.engine.create_view(f"SELECT {', '.join(read)} FROM {events.name}", "read")
