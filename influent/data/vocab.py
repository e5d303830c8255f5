"""The caller's ids to ours, 0 … n − 1, and back: the only place that knows about unknown ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from influent import schema
from influent.data.events import Features
from influent.errors import RunFolderError, SchemaError, UnknownIdError, nearest

UNKNOWN = -1
"""The index of an id that the vocabulary does not hold."""


@dataclass(frozen=True)
class Ids:
    """The distinct ids of one kind, sorted; an id's place is its index.

    Example:
        >>> ids = Ids("item_id", pa.array(["apple", "pear"]))
        >>> ids.to_idx(["pear", "plum"]).tolist()
        [1, -1]
        >>> ids.to_ids(np.array([1, 0])).to_pylist()
        ['pear', 'apple']
    """

    kind: str
    ids: pa.Array

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of the ids, as texts, and of their order."""
        texts = [text or "" for text in self.ids.cast(pa.string()).to_pylist()]
        # Lengths first, so that "ab", "c" and "a", "bc" differ.
        return hashlib.sha256((repr([len(text) for text in texts]) + "".join(texts)).encode()).hexdigest()[:12]

    def to_idx(self, ids: Sequence[Any] | pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return the index of each id, `UNKNOWN` where there is none; int64.

        Ids of another type are compared as text, so that `"42"` from a command line finds the integer 42.
        """
        asked = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else id_array(ids)
        if len(asked) == 0:
            return np.zeros(0, dtype=np.int64)
        known = self.ids
        if asked.type != known.type:
            asked, known = asked.cast(pa.string()), known.cast(pa.string())
        found = pc.fill_null(pc.index_in(asked, value_set=known), UNKNOWN)
        return np.asarray(found, dtype=np.int64)

    def require_idx(self, ids: Sequence[Any]) -> np.ndarray:
        """Return the index of each id.

        Raises:
            UnknownIdError: an id is not there; the message names it and the nearest that is.
        """
        found = self.to_idx(ids)
        if (found == UNKNOWN).any():
            missing = ids[int(np.argmax(found == UNKNOWN))]
            near = self.nearest(missing)
            # Actions are few enough to be named.
            all_ = f" They are: {', '.join(map(str, self.ids.to_pylist()))}." if len(self) <= 10 else ""
            raise UnknownIdError(f"{self.kind} {missing!r} is not among the {len(self):,} known.{near or all_}")
        return found

    def nearest(self, missing: Any) -> str:
        """Return `" Did you mean 'x'?"` for the id closest to one that is not here, or an empty string."""
        return nearest(str(missing), map(str, self.ids[:10_000].to_pylist()))

    def to_ids(self, idx: np.ndarray) -> pa.Array:
        """Return the ids at these indices; null where the index is `UNKNOWN`."""
        return self.ids.take(pa.array(idx, mask=np.asarray(idx) == UNKNOWN))


def id_array(ids: Sequence[Any]) -> pa.Array:
    """Return the ids as an Arrow array; as texts where integers and texts are mixed."""
    try:
        return pa.array(ids)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if one is None else str(one) for one in ids])


def _of_one_type(known: pa.Array, new: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return both as the type of the known, where what is new is written as they are, or else as texts."""
    texts = new.cast(pa.string())
    try:
        read = new.cast(known.type)
    except pa.ArrowInvalid:
        return known.cast(pa.string()), texts
    # "01" is not the integer 1.
    return (known, read) if read.cast(pa.string()).equals(texts) else (known.cast(pa.string()), texts)


@dataclass(frozen=True, kw_only=True)
class Vocab:
    """The users, items, actions and categories of a log, with what is known about them."""

    users: Ids
    items: Ids
    actions: Ids
    categories: dict[str, Ids] = field(default_factory=dict)
    """The values of each category column of the events, such as `scene`, by its name"""
    item_features: pa.Table | None = field(default=None, repr=False)
    """One row per item, in index order; null where nothing is known."""
    user_features: pa.Table | None = field(default=None, repr=False)
    """One row per user, in index order; null where nothing is known."""

    @property
    def n_items(self) -> int:
        """Return the size of the catalogue."""
        return len(self.items)

    def with_users(self, user_ids: pa.Array) -> Vocab:
        """Return the vocabulary with those of these users whom it does not hold behind its own.

        Where one kind of id is written as integers and the other as texts, texts that are written integers are read
        as such, or else all become texts.
        """
        known = self.users.ids
        new = user_ids.filter(pa.array(self.users.to_idx(user_ids) == UNKNOWN)).unique()
        if len(new) == 0:
            return self
        if new.type != known.type:
            known, new = _of_one_type(known, new)
        return replace(self, users=Ids(self.users.kind, pa.concat_arrays([known, new])))

    def with_items(self, items: Features) -> Vocab:
        """Return the vocabulary with those of these items that it does not hold behind its own.

        What is known of its own items stays. A feature that is not known of them is left out of the new ones.

        Raises:
            SchemaError: the ids are integers here and texts there.
        """
        known = self.items.ids
        ids = items.table.column(self.items.kind).combine_chunks()
        if ids.type != known.type:
            raise SchemaError(
                f"the new items' ids are {ids.type}, those of this vocabulary are {known.type}. "
                "Write both as integers, or both as texts."
            )
        is_new = pa.array(self.items.to_idx(ids) == UNKNOWN)
        new = ids.filter(is_new)
        features = self.item_features
        if features is not None:
            rows = items.table.filter(is_new)
            shared = [name for name in features.column_names if name in rows.column_names]
            features = pa.concat_tables([features, rows.select(shared)], promote_options="permissive").combine_chunks()
        return replace(self, items=Ids(self.items.kind, pa.concat_arrays([known, new])), item_features=features)

    def title(self, item_idx: int) -> str:
        """Return the item's title, or its text, where one is known, otherwise its id."""
        for column in ("title", "text"):
            if self.item_features is not None and column in self.item_features.column_names:
                title = self.item_features.column(column)[item_idx].as_py()
                if title:
                    return str(title)
        return str(self.items.ids[item_idx].as_py())

    def save(self, folder: Path) -> None:
        """Write `vocab.parquet`, and `items.parquet` and `users.parquet` where features are known."""
        columns: dict[str, list[pa.Array]] = {"kind": [], "idx": [], "integer_id": [], "text_id": []}
        for ids in (self.users, self.items, self.actions, *self.categories.values()):
            n = len(ids)
            is_integer = pa.types.is_integer(ids.ids.type)
            columns["kind"].append(pa.array([ids.kind] * n, pa.string()))
            columns["idx"].append(pa.array(np.arange(n, dtype=np.int64)))
            columns["integer_id"].append(ids.ids.cast(pa.int64()) if is_integer else pa.nulls(n, pa.int64()))
            columns["text_id"].append(pa.nulls(n, pa.string()) if is_integer else ids.ids.cast(pa.string()))
        pq.write_table(
            pa.table({name: pa.chunked_array(parts) for name, parts in columns.items()}), folder / "vocab.parquet"
        )
        for name, features in (("items", self.item_features), ("users", self.user_features)):
            if features is not None:
                pq.write_table(features, folder / f"{name}.parquet")

    @classmethod
    def load(cls, folder: Path) -> Vocab:
        """Read what `save` wrote.

        Raises:
            RunFolderError: a file is missing or damaged.
        """
        table = read_saved(folder / "vocab.parquet")

        def ids_of(kind: str) -> Ids:
            rows = table.filter(pc.equal(table.column("kind"), kind)).combine_chunks()
            name = "text_id" if rows.column("integer_id").null_count else "integer_id"
            column = rows.column(name)
            return Ids(kind, column.chunk(0) if column.num_chunks else pa.array([], column.type))

        def features(name: str) -> pa.Table | None:
            path = folder / f"{name}.parquet"
            return read_saved(path) if path.exists() else None

        ours = (schema.USER_ID, schema.ITEM_ID, schema.ACTION)
        kinds = table.column("kind").unique().to_pylist()
        return cls(
            users=ids_of(schema.USER_ID),
            items=ids_of(schema.ITEM_ID),
            actions=ids_of(schema.ACTION),
            categories={kind: ids_of(kind) for kind in kinds if kind not in ours},
            item_features=features("items"),
            user_features=features("users"),
        )


def read_saved(path: Path) -> pa.Table:
    """Read a table that was saved here.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(f"{path} is missing or damaged ({error}). Run again: influent clean") from error
