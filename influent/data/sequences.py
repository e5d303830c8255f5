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
from influent.data.engine import quoted
from influent.data.events import Events, Features
from influent.data.vocab import Ids, Vocab, align
from influent.errors import DataError, SchemaError, nearest
from influent.progress import Progress


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """Every user's events in order of time; ties keep the order of the log's rows.

    Shapes: E events, U users, F numbers per event. The events of user `u` lie at `offsets[u]:offsets[u + 1]`.
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

    def __len__(self) -> int:
        return len(self.item_idx)

    @property
    def n_users(self) -> int:
        """Return the number of users, those without events included."""
        return len(self.offsets) - 1

    @cached_property
    def user_idx(self) -> np.ndarray:
        """Return the user of each event, int32 (E,)."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.offsets))

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of the events and their order: equal if and only if the sequences are."""
        digest = hashlib.sha256()
        for ids in (self.vocab.users.ids, self.vocab.items.ids, self.vocab.actions.ids):
            digest.update(np.asarray(ids.cast(pa.string()), dtype="U").tobytes())
        for column in (self.offsets, self.item_idx, self.action_idx, self.time_us, self.numbers):
            digest.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:12]

    def until(self, stops: np.ndarray) -> Sequences:
        """Return sequences that end before `stops[u]`, an event's place, for each user u."""
        keep = np.arange(len(self)) < np.repeat(stops, np.diff(self.offsets))
        offsets = np.concatenate([[0], np.cumsum(np.maximum(stops - self.offsets[:-1], 0))])
        return replace(
            self,
            offsets=offsets,
            event_id=self.event_id[keep],
            item_idx=self.item_idx[keep],
            action_idx=self.action_idx[keep],
            time_us=None if self.time_us is None else self.time_us[keep],
            numbers=self.numbers[keep],
        )

    def with_users(self, user_ids: Sequence[Any]) -> Sequences:
        """Return the same sequences with these users, who have no events, behind the others."""
        vocab = self.vocab.with_users(pa.array(user_ids))
        offsets = np.concatenate([self.offsets, np.full(len(vocab.users) - self.n_users, self.offsets[-1])])
        return replace(self, vocab=vocab, offsets=offsets)

    def item_counts(self) -> np.ndarray:
        """Return how many events each item has, int64 (n_items,)."""
        known = self.item_idx[self.item_idx >= 0]
        return np.bincount(known, minlength=self.vocab.n_items)

    def save(self, folder: Path) -> None:
        """Write `sequences.parquet` and the vocabulary's tables."""
        self.vocab.save(folder)
        columns = {
            "user_idx": self.user_idx,
            schema.EVENT_ID: self.event_id,
            "item_idx": self.item_idx,
            "action_idx": self.action_idx,
            schema.TIME_US: pa.nulls(len(self), pa.int64()) if self.time_us is None else self.time_us,
        }
        columns |= {name: self.numbers[:, place] for place, name in enumerate(self.number_names)}
        pq.write_table(pa.table(columns), folder / "sequences.parquet", compression="zstd")

    @classmethod
    def load(cls, folder: Path) -> Sequences:
        """Read what `save` wrote."""
        table, vocab = pq.read_table(folder / "sequences.parquet"), Vocab.load(folder)
        names = tuple(table.column_names[5:])
        is_timed = table.column(schema.TIME_US).null_count == 0
        numbers = [table.column(name).to_numpy() for name in names]
        counts = np.bincount(table.column("user_idx").to_numpy(), minlength=len(vocab.users))
        return cls(
            vocab=vocab,
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            event_id=table.column(schema.EVENT_ID).to_numpy(),
            item_idx=table.column("item_idx").to_numpy(),
            action_idx=table.column("action_idx").to_numpy(),
            time_us=table.column(schema.TIME_US).to_numpy() if is_timed else None,
            numbers=np.stack(numbers, axis=1) if names else np.zeros((table.num_rows, 0), np.float32),
            number_names=names,
        )


def build_sequences(
    events: Events,
    *,
    items: Features | None = None,
    users: Features | None = None,
    numbers: Sequence[str] = (schema.VALUE,),
    vocab: Vocab | None = None,
    progress: Progress | None = None,
) -> Sequences:
    """Put each user's events in order of time; events at the same time keep the order of the log's rows.

    Args:
        items: what is known about the items (titles for reasons).
        users: what is known about the users (features for context lines).
        numbers: numeric columns of the log that belong to an event's vector; one without any number is left out.
        vocab: ids of an earlier log, to read these events by. Items and actions it does not hold become
            `UNKNOWN`; users it does not hold are added behind its own.

    Raises:
        SchemaError: the log has no such numeric column.
        DataError: an event lacks its user or item, which `clean` would have dropped.
    """
    progress = progress or Progress()
    _check_clean(events)
    with progress.track("sequences", len(events)) as advance:
        vocab = _vocab(events, vocab, items, users)
        names = _number_names(events, numbers)
        columns = _sorted_columns(events, vocab, names, advance)
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


def _vocab(events: Events, vocab: Vocab | None, items: Features | None, users: Features | None) -> Vocab:
    if vocab is not None:
        return vocab.with_users(_distinct(events, schema.USER_ID))
    user_ids = Ids(schema.USER_ID, _distinct(events, schema.USER_ID))
    item_ids = Ids(schema.ITEM_ID, _distinct(events, schema.ITEM_ID))
    return Vocab(
        users=user_ids,
        items=item_ids,
        actions=Ids(schema.ACTION, _distinct(events, schema.ACTION)),
        item_features=None if items is None else align(items, item_ids),
        user_features=None if users is None else align(users, user_ids),
    )


def _distinct(events: Events, column: str) -> pa.Array:
    # Sorted, so that the same events give the same indices whatever order they came in.
    table = events.engine.arrow(f"SELECT DISTINCT {column} FROM {events.name} ORDER BY {column}")
    return table.column(column).combine_chunks()


def _number_names(events: Events, names: Sequence[str]) -> tuple[str, ...]:
    there = events.engine.columns(events.name)
    for name in names:
        if name not in there:
            raise SchemaError(f"events have no column {name!r}. They have: {', '.join(there)}.{nearest(name, there)}")
    if not names:
        return ()
    counts = ", ".join(f"count(TRY_CAST({quoted(name)} AS DOUBLE)) AS {quoted(name)}" for name in names)
    found = events.engine.row(f"SELECT {counts} FROM {events.name}")
    return tuple(name for name in names if found[name])


def _sorted_columns(events: Events, vocab: Vocab, numbers: tuple[str, ...], advance: object) -> dict[str, np.ndarray]:
    """Fetch the columns in order, batch by batch, into arrays made once."""
    engine, n = events.engine, len(events)
    keys = {"user_idx": (schema.USER_ID, vocab.users), "item_idx": (schema.ITEM_ID, vocab.items)}
    keys |= {"action_idx": (schema.ACTION, vocab.actions)}
    joins, selected = [], []
    for name, (column, ids) in keys.items():
        table = engine.register(pa.table({column: ids.ids, name: np.arange(len(ids), dtype=np.int32)}))
        joins.append(f"LEFT JOIN {table} USING ({column})")
        selected.append(f"coalesce({name}, -1) AS {name}")
    selected += [schema.EVENT_ID, f"coalesce({schema.TIME_US}, 0) AS {schema.TIME_US}"]
    selected += [f"CAST(TRY_CAST({quoted(name)} AS DOUBLE) AS FLOAT) AS {quoted(name)}" for name in numbers]
    columns = {name: np.empty(n, np.int32) for name in keys}
    columns |= {schema.EVENT_ID: np.empty(n, np.int64), schema.TIME_US: np.empty(n, np.int64)}
    columns["numbers"] = np.empty((n, len(numbers)), np.float32)
    start = 0
    order = f"ORDER BY user_idx, {schema.TIME_US}, {schema.EVENT_ID}"
    for batch in engine.batches(f"SELECT {', '.join(selected)} FROM {events.name} {' '.join(joins)} {order}"):
        rows = slice(start, start + batch.num_rows)
        for name in columns:
            if name != "numbers":
                columns[name][rows] = batch.column(name).to_numpy(zero_copy_only=False)
        for place, name in enumerate(numbers):
            columns["numbers"][rows, place] = batch.column(name).to_numpy(zero_copy_only=False)
        start += batch.num_rows
        advance(batch.num_rows)  # type: ignore[operator]
    return columns
