"""Vectors that somebody else made (of texts, images, graphs) become named blocks: a row per item of a vocabulary."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influent import schema
from influent.data.columns import read_id, read_number, require_column
from influent.data.engine import Engine, quoted
from influent.data.source import RawTable, open_source
from influent.data.vocab import UNKNOWN, Ids, Vocab
from influent.errors import ConfigError, DataError, RunFolderError, SchemaError

Reduction = Literal["pca", "whiten"]

VECTOR = "vector"
"""The list column in which a table of vectors keeps them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemVectors:
    """A named block of item vectors, a row per item in the order of a vocabulary; zero where nothing is known.

    Raises:
        ConfigError: the name cannot name a file.
        SchemaError: the arrays have other types or shapes than below, hold what is not finite, or an unknown item has
            a vector.
    """

    name: str
    """What the block is of: `text`, `image`, …"""
    vectors: np.ndarray = field(repr=False)
    """float32 (n_items, V)"""
    is_known: np.ndarray = field(repr=False)
    """bool (n_items,): whether anything is known of the item."""
    source: str
    """Where the vectors come from, in words, for the manifest."""
    items: str = ""
    """`Ids.fingerprint` of the items of the rows; empty where they are not said"""
    fitted_on: str = ""
    """Fingerprint of the events that the encoder was fine-tuned on; empty where it was on none"""

    def __post_init__(self) -> None:
        check_name(self.name)
        for what, array, dtype, n_axes in (
            ("vectors", self.vectors, "float32", 2),
            ("is_known", self.is_known, "bool", 1),
        ):
            if array.dtype != dtype or array.ndim != n_axes:
                raise SchemaError(
                    f"the {what} of {self.name!r} must be {dtype} with {n_axes} axes. "
                    f"Got {array.dtype} of shape {array.shape}."
                )
        if len(self.vectors) != len(self.is_known) or not self.dim:
            raise SchemaError(
                f"the block {self.name!r} has vectors of shape {self.vectors.shape} and {len(self.is_known)} flags "
                "is_known. It needs one row and one flag per item, and at least one column."
            )
        if not np.isfinite(self.vectors).all():
            raise SchemaError(f"the block {self.name!r} holds numbers that are not finite. Leave such items unknown.")
        if self.vectors[~self.is_known].any():
            raise SchemaError(f"the block {self.name!r} has vectors of items that are not known. Set them to zero.")

    def __len__(self) -> int:
        return len(self.vectors)

    def check_items(self, ids: Ids) -> None:
        """Refuse ids whose rows these vectors are not; vectors that do not say of which items they are fit any.

        Raises:
            SchemaError: they are of others, or in another order.
        """
        if self.items and self.items != ids.fingerprint:
            raise SchemaError(
                f"the rows of {self.name!r} are of other items than the vocabulary's, or in another order. Make them "
                "with it: encode_items(vocab), read_vectors(..., vocab=vocab)."
            )

    @property
    def dim(self) -> int:
        """Return the width of a vector."""
        return int(self.vectors.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of the name, the vectors and which are known; not of the words in `source`."""
        digest = hashlib.sha256(repr((self.name, self.vectors.shape)).encode())
        for column in (self.is_known, self.vectors):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:12]

    def save(self, folder: Path) -> None:
        """Write `vectors_<name>.parquet`."""
        flat = pa.array(np.ascontiguousarray(self.vectors).reshape(-1))
        columns = {"is_known": pa.array(self.is_known), VECTOR: pa.FixedSizeListArray.from_arrays(flat, self.dim)}
        said = {"name": self.name, "source": self.source, "items": self.items, "fitted_on": self.fitted_on}
        about = {"influent": json.dumps(said)}
        table = pa.table({"item_idx": np.arange(len(self)), **columns}).replace_schema_metadata(about)
        pq.write_table(table, _path(folder, self.name), compression="zstd")

    @classmethod
    def load(cls, folder: Path, name: str) -> ItemVectors:
        """Read what `save` wrote.

        Raises:
            RunFolderError: the file is missing or damaged.
        """
        path = _path(folder, name)
        try:
            table = pq.read_table(path)
            about = json.loads(table.schema.metadata[b"influent"])
            column = table.column(VECTOR).combine_chunks()
            return cls(
                **about,
                vectors=column.flatten().to_numpy().reshape(len(column), column.type.list_size),
                is_known=np.asarray(table.column("is_known")),
            )
        except (OSError, pa.ArrowException, KeyError, TypeError, AttributeError, ValueError) as error:
            raise RunFolderError(f"{path} is missing or damaged ({error}). Make the vectors again.") from error


def check_name(name: str) -> None:
    """Refuse a name that could not name a file or a column.

    Raises:
        ConfigError: it is not made of letters, digits and `_`, beginning with a letter.
    """
    if not (name.isascii() and name.isidentifier()):
        raise ConfigError(f"a block of vectors is called by a word such as 'text' or 'image'. Got {name!r}.")


def _path(folder: Path, name: str) -> Path:
    return folder / f"vectors_{name}.parquet"


def read_vectors(source: Any, *, name: str, vocab: Vocab, item: str | None = None) -> ItemVectors:
    """Read vectors of items and put them in the order of a vocabulary.

    The table has a row per item: its id, and either a list column `vector` (other columns are passed over), or one
    column per entry of the vector and nothing else. An item without a row, or whose row is null, is unknown and gets
    zeros; rows of items that the vocabulary does not hold are passed over.

    Args:
        source: a path of Parquet, CSV, TSV or JSON Lines, or a pandas, Polars or Arrow table.
        name: what to call the block: `image`, `graph`, …
        item: the column that says of which item; by default `item_id`.

    Raises:
        DataError: the source cannot be read, or none of its items is in the vocabulary.
        SchemaError: a column is missing or holds no numbers, an id stands there twice, vectors differ in length, or
            hold what is not finite or too large for a float32.
        ConfigError: the name cannot name a file.

    Example:
        >>> from influent.data.vocab import Ids
        >>> items = Ids("item_id", pa.array(["apple", "pear", "plum"]))
        >>> users, actions = Ids("user_id", pa.array(["ann"])), Ids("action", pa.array(["buy"]))
        >>> vocab = Vocab(users=users, items=items, actions=actions)
        >>> table = pa.table({"item_id": ["plum", "apple"], "vector": [[1.0, 2.0], [3.0, 4.0]]})
        >>> block = read_vectors(table, name="taste", vocab=vocab)
        >>> block.vectors.tolist(), block.is_known.tolist()
        ([[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]], [True, False, True])
    """
    check_name(name)
    _check_has_ids(source)
    engine = Engine()
    raw = open_source(engine, source)
    item = require_column(raw, item, schema.ITEM_ID, "item")
    id_sql = read_id(engine, raw, item).sql
    rows = engine.create_view(
        f"SELECT {id_sql} AS id, {_vector_sql(engine, raw, item)} AS vector FROM {raw.name} WHERE {id_sql} IS NOT NULL",
        "vectors",
    )
    dim = _check_rows(engine, raw, rows)
    n_items = vocab.n_items
    vectors, is_known = np.zeros((n_items, dim), np.float32), np.zeros(n_items, bool)
    for batch in engine.batches(f"SELECT id, vector FROM {rows} WHERE vector IS NOT NULL", rows=100_000):
        place = vocab.items.to_idx(batch.column("id"))
        held = place != UNKNOWN
        numbers = batch.column(VECTOR).flatten().to_numpy(zero_copy_only=False).reshape(len(place), dim)
        with np.errstate(over="ignore"):
            vectors[place[held]] = numbers[held]
        is_known[place[held]] = True
    if not is_known.any():
        theirs = engine.row(f"SELECT any_value(id) AS id FROM {rows}")["id"]
        ours = vocab.items.ids[0].as_py() if n_items else None
        raise DataError(
            f"no item of {raw.label} with a vector is among the {n_items:,} items of the log. "
            f"Its ids look like {theirs!r}, the log's like {ours!r}."
        )
    broken = ~np.isfinite(vectors).all(axis=1)
    if broken.any():
        raise SchemaError(
            f"{raw.label} has vectors with numbers that are missing, not finite or too large, of {int(broken.sum()):,} "
            f"items, for example {vocab.items.ids[int(np.argmax(broken))].as_py()!r}. Leave out what is not known."
        )
    return ItemVectors(
        name=name,
        vectors=vectors,
        is_known=is_known,
        source=f"{raw.label}, which knows {int(is_known.sum()):,} of {n_items:,} items",
        items=vocab.items.fingerprint,
    )


def _check_has_ids(source: Any) -> None:
    if isinstance(source, np.ndarray) or str(source).lower().endswith((".npy", ".npz")):
        shown = "an array" if isinstance(source, np.ndarray) else str(source)
        raise DataError(
            f"{shown} does not say which row is of which item. Put the ids beside the rows: "
            "pyarrow.table({'item_id': ids, 'vector': list(vectors)})."
        )


def _vector_sql(engine: Engine, raw: RawTable, item: str) -> str:
    """Return SQL that is a row's vector as a list of doubles, or null where there is none."""
    if VECTOR in raw.columns:
        kind, column = raw.columns[VECTOR], quoted(VECTOR)
        if not (kind.endswith("]") or kind in {"VARCHAR", "JSON"}):
            raise SchemaError(f"the column {VECTOR!r} of {raw.label} holds {kind}; lists of numbers are needed.")
        # Texts and JSON write a list as [1, 2]; what cannot be read as one stays visible as an empty list.
        return f"CASE WHEN {column} IS NOT NULL THEN coalesce(TRY_CAST({column} AS DOUBLE[]), []) END"
    others = [name for name in raw.columns if name != item]
    if not others:
        raise SchemaError(f"{raw.label} has ids and nothing else. Add a list column {VECTOR!r}, or a column per entry.")
    entries = []
    for name in others:
        is_words = raw.columns[name] == "VARCHAR" and not raw.is_text
        reading = None if is_words else read_number(engine, raw, name)
        if reading is None or reading.notes:
            raise SchemaError(
                f"the column {name!r} of {raw.label} holds words, not numbers. Without a list column {VECTOR!r}, every "
                f"column but {item!r} is an entry of the vector."
            )
        entries.append(reading.sql)
    return f"CASE WHEN coalesce({', '.join(entries)}) IS NOT NULL THEN [{', '.join(entries)}] END"


def _check_rows(engine: Engine, raw: RawTable, rows: str) -> int:
    """Refuse ids that stand twice and vectors of several lengths; return the one length."""
    twice = engine.arrow(f"SELECT id FROM {rows} GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 1")
    if twice.num_rows:
        raise SchemaError(
            f"{raw.label} has item {twice.column('id')[0].as_py()!r} more than once. One row per item is needed."
        )
    lengths = engine.arrow(
        f"SELECT len(vector) AS dim, count(*) AS n, min(id) AS example FROM {rows} WHERE vector IS NOT NULL "
        "GROUP BY dim ORDER BY n DESC, dim"
    ).to_pylist()
    if not lengths:
        raise DataError(f"every vector of {raw.label} is null. Nothing is known of any item.")
    empty = next((found for found in lengths if found["dim"] == 0), None)
    if empty is not None:
        raise SchemaError(f"the vector of item {empty['example']!r} of {raw.label} is no list of numbers, or empty.")
    if len(lengths) > 1:
        found = ", ".join(f"{one['dim']} ({one['n']:,} items, such as {one['example']!r})" for one in lengths[:4])
        raise SchemaError(f"the vectors of {raw.label} have unequal lengths: {found}. All must be equally long.")
    return int(lengths[0]["dim"])


def reduce_vectors(
    block: ItemVectors, *, dim: int, method: Reduction = "pca", fit_on: np.ndarray | None = None
) -> ItemVectors:
    """Keep the `dim` directions in which the known vectors vary most.

    The centre and the directions come from known items only; unknown items stay zero. With `pca` to the full width
    all distances between known items stay what they were. With `whiten` every direction is scaled to variance 1, so
    that the known vectors' covariance (dividing by their number) is the identity.

    Args:
        dim: how many directions to keep; at most the width, and to whiten at most as many as vary at all.
        fit_on: bool (n_items,): the items from which to learn centre and directions, for example those of the
            training part; by default all that are known.

    Raises:
        ConfigError: `dim` or `method` is out of range, or `fit_on` is no mask of the items.
        DataError: fewer than two items are known, or they vary in fewer than `dim` directions.
    """
    if method not in get_args(Reduction):
        raise ConfigError(f"The 'method' parameter must be one of {', '.join(get_args(Reduction))}. Got {method!r}.")
    if not 1 <= dim <= block.dim:
        raise ConfigError(f"The 'dim' parameter must be an int in the range [1, {block.dim}]. Got {dim!r} instead.")
    learned = block.is_known
    if fit_on is not None:
        if fit_on.dtype != bool or fit_on.shape != learned.shape:
            raise ConfigError(f"'fit_on' must be bool of shape {learned.shape}. Got {fit_on.dtype} of {fit_on.shape}.")
        learned = learned & fit_on
    rows = block.vectors[learned].astype(np.float64)
    if len(rows) < 2:
        raise DataError(f"{method} needs two known items at least; {block.name!r} has {len(rows)} to learn from.")
    centre = rows.mean(axis=0)
    rows -= centre
    # The covariance is V × V however many items there are; its eigenvectors are the right singular vectors of `rows`.
    variances, directions = np.linalg.eigh(rows.T @ rows / len(rows))
    variances, directions = variances[::-1][:dim], directions[:, ::-1][:, :dim]
    # A direction and its opposite are equally good: the larger end is positive, so that equal vectors give equal ones.
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(dim)])
    if method == "whiten":
        n_vary = int((variances > variances[0] * 1e-10).sum()) if variances[0] > 0 else 0
        if n_vary < dim:
            raise DataError(
                f"the {len(rows):,} known vectors of {block.name!r} vary in {n_vary} directions, so they cannot be "
                f"whitened to {dim}. Ask for at most {n_vary}, or for pca."
            )
        directions = directions / np.sqrt(variances)
    reduced = np.zeros((len(block), dim), np.float32)
    reduced[block.is_known] = (block.vectors[block.is_known] - centre) @ directions
    return replace(block, vectors=reduced, source=f"{block.source}; {method} from {block.dim} to {dim} dimensions")
