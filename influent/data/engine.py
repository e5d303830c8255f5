"""SQL in, Arrow out: one embedded DuckDB that spills to disk instead of running out of memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa


class Engine:
    """A private database in which the tables of one log live.

    Args:
        memory_limit_bytes: ceiling for DuckDB's own memory; beyond it, work spills to a temporary folder. The
            default is DuckDB's (80 % of the machine).
        threads: how many threads DuckDB may use; default all.
    """

    def __init__(self, *, memory_limit_bytes: int | None = None, threads: int | None = None) -> None:
        self._spill = tempfile.TemporaryDirectory(prefix="influent-")
        self._connection = duckdb.connect()
        self._n_names = 0
        # A time without a zone means UTC, wherever the machine stands.
        self.execute("SET TimeZone = 'UTC'")
        self.execute(f"SET temp_directory = {literal(self._spill.name)}")
        if memory_limit_bytes is not None:
            self.execute(f"SET memory_limit = '{memory_limit_bytes}B'")
        self.execute(f"SET threads = {threads or os.cpu_count() or 1}")

    def execute(self, sql: str) -> None:
        """Run a statement that returns nothing."""
        self._connection.execute(sql)

    def row(self, sql: str) -> dict[str, Any]:
        """Return the only row of a query, by column name."""
        relation = self._connection.sql(sql)
        [values] = relation.fetchall()
        return dict(zip(relation.columns, values, strict=True))

    def arrow(self, sql: str) -> pa.Table:
        """Return the rows of a query as an Arrow table."""
        return self._connection.sql(sql).to_arrow_table()

    def batches(self, sql: str, rows: int = 1_000_000) -> Iterator[pa.RecordBatch]:
        """Return the rows of a query a batch at a time, so that they never lie in memory all at once."""
        yield from self._connection.sql(sql).to_arrow_reader(rows)

    def columns(self, table: str) -> dict[str, str]:
        """Return the columns of a table, in order, with their SQL types."""
        relation = self._connection.sql(f"SELECT * FROM {table} LIMIT 0")
        return dict(zip(relation.columns, map(str, relation.types), strict=True))

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        return int(self.row(f"SELECT count(*) AS n FROM {table}")["n"])

    def register(self, table: pa.Table) -> str:
        """Make an Arrow table readable under the returned name, without copying it."""
        name = self.new_name("frame")
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


def literal(text: str) -> str:
    """Quote a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """Quote a column name for SQL."""
    return '"' + name.replace('"', '""') + '"'
