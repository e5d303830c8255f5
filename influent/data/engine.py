"""SQL in, Arrow out: one embedded DuckDB that spills to disk instead of running out of memory."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from influent.errors import ConfigError, DataError

# What DuckDB raises over data, disks and memory; its other errors are bugs of ours and stay as they are.
_MENDABLE = (
    duckdb.IOException,
    duckdb.InvalidInputException,
    duckdb.NotImplementedException,
    duckdb.OutOfMemoryException,
)


class Engine:
    """A private database in which the tables of one log live.

    Args:
        memory_limit_bytes: ceiling for DuckDB's own memory; beyond it, work spills to a temporary folder. The
            default is DuckDB's (80 % of the machine).
        threads: how many threads DuckDB may use; default all.

    Raises:
        ConfigError: a setting is below 1.
        DataError: from any query, where the files beneath are damaged, or memory and disk do not suffice.
    """

    def __init__(self, *, memory_limit_bytes: int | None = None, threads: int | None = None) -> None:
        for name, value in (("memory_limit_bytes", memory_limit_bytes), ("threads", threads)):
            if value is not None and value < 1:
                raise ConfigError(f"The {name!r} parameter of Engine must be at least 1. Got {value!r} instead.")
        self.label = "the log"
        """How messages speak of what was opened last."""
        spill = tempfile.mkdtemp(prefix="influent-")
        weakref.finalize(self, shutil.rmtree, spill, ignore_errors=True)
        self._connection = duckdb.connect()
        self._n_names = 0
        # A time without a zone means UTC, wherever the machine stands.
        self.execute("SET TimeZone = 'UTC'")
        self.execute(f"SET temp_directory = {literal(spill)}")
        if memory_limit_bytes is not None:
            self.execute(f"SET memory_limit = '{memory_limit_bytes}B'")
        self.execute(f"SET threads = {threads or os.cpu_count() or 1}")

    def execute(self, sql: str) -> None:
        """Run a statement that returns nothing."""
        with self._in_words():
            self._connection.execute(sql)

    def row(self, sql: str) -> dict[str, Any]:
        """Return the only row of a query, by column name."""
        with self._in_words():
            relation = self._connection.sql(sql)
            [values] = relation.fetchall()
        return dict(zip(relation.columns, values, strict=True))

    def arrow(self, sql: str) -> pa.Table:
        """Return the rows of a query as an Arrow table."""
        with self._in_words():
            return self._connection.sql(sql).to_arrow_table()

    def batches(self, sql: str, rows: int = 1_000_000) -> Iterator[pa.RecordBatch]:
        """Return the rows of a query a batch at a time, so that they never lie in memory all at once."""
        with self._in_words():
            yield from self._connection.sql(sql).to_arrow_reader(rows)

    def columns(self, table: str) -> dict[str, str]:
        """Return the columns of a table, in order, with their SQL types."""
        with self._in_words():
            relation = self._connection.sql(f"SELECT * FROM {table} LIMIT 0")
        return dict(zip(relation.columns, map(str, relation.types), strict=True))

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        return int(self.row(f"SELECT count(*) AS n FROM {table}")["n"])

    def register(self, table: pa.Table) -> str:
        """Make an Arrow table readable under the returned name, without copying it."""
        name = self.new_name("frame")
        with self._in_words():
            self._connection.register(name, table)
        return name

    def create_table(self, sql: str, stem: str) -> str:
        """Store the rows of a query as a table and return its name."""
        name = self.new_name(stem)
        self.execute(f"CREATE TEMP TABLE {name} AS {sql}")
        return name

    def create_view(self, sql: str, stem: str) -> str:
        """Give a query a name, without running it, and return that name."""
        name = self.new_name(stem)
        self.execute(f"CREATE TEMP VIEW {name} AS {sql}")
        return name

    def new_name(self, stem: str) -> str:
        """Return a table name not used before."""
        self._n_names += 1
        return f"{stem}_{self._n_names}"

    def write_parquet(self, sql: str, path: Path) -> None:
        """Stream the rows of a query, in its order, into a Parquet file."""
        self.execute(f"COPY ({sql}) TO {literal(str(path))} (FORMAT parquet, COMPRESSION zstd)")

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            # A damaged page of Parquet comes as the bare base class.
            if not isinstance(error, _MENDABLE) and type(error) is not duckdb.Error:
                raise
            raise DataError(_in_our_words(str(error), self.label)) from error


def not_utf8(label: str) -> str:
    """Say that a file is no UTF-8 text, and how to make it one."""
    return (
        f"{label} is not UTF-8 text. Convert it first, for example: "
        f"iconv -f LATIN1 -t UTF-8 {label} > utf8-{Path(label).name}"
    )


def _in_our_words(text: str, label: str) -> str:
    # Without DuckDB's name for the kind of error, and its advice, which is about SQL.
    said = re.split(r"\nPossible|\n+Try |\. Try ", re.sub(r"^[\w ]+ Error: ", "", text))[0]
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    short = "; ".join(lines[:2] + lines[2:][-1:]).rstrip(".")
    short = f"{short[:300]} …" if len(short) > 300 else f"{short}."
    if "Out of Memory" in text:
        return f"{label} does not fit: {short} Give the Engine more memory_limit_bytes, or free the disk."
    if "not utf-8 encoded" in said or "invalid UTF-8" in said:
        return not_utf8(label)
    damaged = ("GZIP", "Parquet", "magic bytes", "Snappy", "ZSTD", "deserialize", "TProtocol")
    is_damaged = any(word in said for word in damaged) and not any(word in said for word in ("CSV Error", "supported"))
    if is_damaged:
        return f"{label} is damaged or cut short: {short} Make or fetch it again."
    if "state machine" in said:
        return f"{label} is no regular CSV. Its lines must all end alike, and every quote must be closed."
    return f"{label} cannot be read: {short}"


def literal(text: str) -> str:
    """Quote a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """Quote a column name for SQL."""
    return '"' + name.replace('"', '""') + '"'
