"""A file, a folder, a glob or a frame becomes a raw table: every row, every column, in the source's order."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from influent.data.engine import Engine, literal, quoted
from influent.errors import DataError, SchemaError

ROW = "__row"
"""The raw table's own column: the place of a row in the source, from 0."""

_TEXT_SUFFIXES = {".csv": ",", ".tsv": "\t"}
_JSON_SUFFIXES = {".jsonl", ".ndjson", ".json"}
_PARQUET_SUFFIXES = {".parquet", ".pq"}


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """What a source holds, before anyone says which column means what."""

    name: str
    """Its name in the engine."""
    columns: dict[str, str]
    """Column name to SQL type, in the source's order, without `ROW`."""
    is_text: bool
    """Whether values came as text without types of their own (CSV, TSV)."""
    label: str
    """How messages speak of the source."""


def open_source(engine: Engine, source: Any, *, delimiter: str | None = None) -> RawTable:
    """Make the rows of `source` readable in the engine.

    Args:
        source: a path or glob (CSV, TSV, JSON Lines, each also `.gz`; Parquet, also a folder of it), or a
            pandas, Polars or Arrow table.
        delimiter: what separates the fields of a text file; by default a tab in `.tsv`, and in `.csv` whichever
            of `,` `;` `|` or tab the header uses most.

    Raises:
        DataError: the source is missing, empty, damaged, or of a kind that cannot be read.
        SchemaError: a column name occurs twice.
    """
    if not isinstance(source, str | Path):
        return _open_frame(engine, source)
    files = _files(source)
    label = str(source)
    suffix = _suffix(files[0])
    strange = sorted({_suffix(file) for file in files} - {suffix})
    if strange:
        raise DataError(f"{label} mixes {suffix} with {', '.join(strange)} files. Read one kind at a time.")
    try:
        if suffix in _TEXT_SUFFIXES:
            raw = _open_text(engine, files, delimiter or _TEXT_SUFFIXES[suffix], guess=delimiter is None)
        elif suffix in _JSON_SUFFIXES:
            raw = _open_json(engine, files)
        elif suffix in _PARQUET_SUFFIXES:
            raw = _open_parquet(engine, files)
        else:
            raise DataError(
                f"{label}: files ending in {suffix or 'nothing'!r} cannot be read. "
                "Readable: .csv, .tsv, .jsonl (each also .gz), .parquet."
            )
    except duckdb.Error as error:
        raise _readable(error, label) from error
    if engine.row(f"SELECT count(*) AS n FROM (SELECT 1 FROM {raw.name} LIMIT 1)")["n"] == 0:
        raise DataError(f"{label} has columns ({', '.join(raw.columns)}) and no rows. Nothing can be learned from it.")
    return raw


def _files(source: str | Path) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if _suffix(file) in _PARQUET_SUFFIXES)
        if not found:
            raise DataError(f"the folder {path} holds no .parquet file. Name a file, a glob, or a folder of Parquet.")
    elif path.exists():
        found = [path]
    else:
        found = sorted(Path(name) for name in glob(str(source), recursive=True))
        if not found:
            raise DataError(f"no file at {source}. Check the path{_neighbours(path)}.")
    for file in found:
        if file.stat().st_size == 0:
            raise DataError(f"{file} is empty (0 bytes). It should hold a header and rows.")
    return found


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent} either"
    readable = {*_TEXT_SUFFIXES, *_JSON_SUFFIXES, *_PARQUET_SUFFIXES}
    names = sorted(file.name for file in path.parent.iterdir() if _suffix(file) in readable)
    return f"; {path.parent} holds {', '.join(names[:8])}" if names else f"; {path.parent} holds no readable file"


def _suffix(file: Path) -> str:
    return Path(file.stem).suffix.lower() if file.suffix.lower() == ".gz" else file.suffix.lower()


def _open_text(engine: Engine, files: Sequence[Path], delimiter: str, *, guess: bool) -> RawTable:
    headers = []
    for file in files:
        line = _first_line(file)
        if guess and delimiter == ",":
            delimiter = max(",;|\t", key=line.count)
        headers.append(next(csv.reader([line], delimiter=delimiter)))
    for file, header in zip(files, headers, strict=True):
        _check_unique(header, str(file))
        if header != headers[0]:
            raise SchemaError(f"{file} has the columns {header}, {files[0]} has {headers[0]}. They must agree.")
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in headers[0])
    scan = (
        f"read_csv({_list(files)}, columns = {{{columns}}}, auto_detect = false, header = true, nullstr = '', "
        f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', strict_mode = true)"
    )
    name = engine.create_table(f"SELECT *, row_number() OVER () - 1 AS {ROW} FROM {scan}", "raw")
    return RawTable(name=name, columns=dict.fromkeys(headers[0], "VARCHAR"), is_text=True, label=_label(files))


def _first_line(file: Path) -> str:
    """Return the header line; header names with line breaks inside are not supported, rows with them are."""
    try:
        with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
            return stream.readline().decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(_not_utf8(str(file))) from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{file} is damaged or cut short: {error}. Make or fetch it again.") from error


def _open_json(engine: Engine, files: Sequence[Path]) -> RawTable:
    label = _label(files)
    scan = f"read_json({_list(files)}, format = 'newline_delimited', sample_size = -1"
    # Texts that look like dates stay texts, so that ids come back as they were written; a column in which
    # texts and numbers mix is typed JSON, and whoever needs one type says so.
    kept = {"BIGINT", "UBIGINT", "HUGEINT", "DOUBLE", "BOOLEAN", "JSON"}
    found = engine.columns(scan + ")")
    _check_unique(list(found), label)
    types = {name: kind if kind in kept else "VARCHAR" for name, kind in found.items()}
    columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in types.items())
    name = engine.create_table(
        f"SELECT *, row_number() OVER () - 1 AS {ROW} FROM {scan}, columns = {{{columns}}})", "raw"
    )
    return RawTable(name=name, columns=types, is_text=False, label=label)


def _open_parquet(engine: Engine, files: Sequence[Path]) -> RawTable:
    label = _label(files)
    columns = engine.columns(f"read_parquet({_list(files)}, union_by_name = true)")
    _check_unique(list(columns), label)
    starts, first = [], 0
    for file in files:
        starts.append(f"SELECT {literal(str(file))} AS filename, {first} AS first_row")
        first += int(engine.row(f"SELECT num_rows AS n FROM parquet_file_metadata({literal(str(file))})")["n"])
    # The row's place in its file plus the rows of the files before: known without reading in sequence.
    names = ", ".join(f"f.{quoted(name)}" for name in columns)
    scan = f"read_parquet({_list(files)}, union_by_name = true, file_row_number = true, filename = true)"
    row = "f.file_row_number" if len(files) == 1 else "f.file_row_number + s.first_row"
    join = "" if len(files) == 1 else f" JOIN ({' UNION ALL '.join(starts)}) AS s ON s.filename = f.filename"
    name = engine.create_view(f"SELECT {names}, {row} AS {ROW} FROM {scan} AS f{join}", "raw")
    return RawTable(name=name, columns=columns, is_text=False, label=label)


def _open_frame(engine: Engine, frame: Any) -> RawTable:
    kind = type(frame).__module__.partition(".")[0]
    label = f"the {kind} table"
    if kind == "pandas":
        table = _from_pandas(frame, label)
    elif kind == "polars":
        table = frame.to_arrow() if hasattr(frame, "to_arrow") else frame.collect().to_arrow()
    elif isinstance(frame, pa.Table):
        table, label = frame, "the Arrow table"
    else:
        raise DataError(
            f"a log cannot be read from {type(frame).__name__}. Give a path, or a pandas, Polars or Arrow table."
        )
    _check_unique(table.column_names, label)
    if table.num_rows == 0:
        raise DataError(f"{label} has columns ({', '.join(table.column_names)}) and no rows. Nothing can be learned.")
    numbered = table.append_column(ROW, pa.array(np.arange(table.num_rows, dtype=np.int64)))
    name = engine.register(numbered)
    columns = {column: kind for column, kind in engine.columns(name).items() if column != ROW}
    return RawTable(name=name, columns=columns, is_text=False, label=label)


def _from_pandas(frame: Any, label: str) -> pa.Table:
    _check_unique([str(name) for name in frame.columns], label)
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        mixed = [name for name in frame.columns if frame[name].dropna().map(type).nunique() > 1]
        kinds = {name: sorted({kind.__name__ for kind in frame[name].dropna().map(type)}) for name in mixed}
        raise SchemaError(
            f"{label} mixes types in one column: {kinds}. Make each column one type, for example "
            f"frame[{str(mixed[0]) if mixed else '...'!r}].astype(str)."
        ) from error


def _check_unique(names: Sequence[str], label: str) -> None:
    # Parquet and DuckDB tell columns apart without regard to case.
    twice = [name for name, n in Counter(name.lower() for name in names).items() if n > 1]
    if twice:
        raise SchemaError(f"{label} has the column {twice[0]!r} more than once. Every column needs a name of its own.")
    if "" in names:
        raise SchemaError(f"{label} has a column without a name (number {list(names).index('') + 1}). Name it.")


def _label(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _list(files: Sequence[Path]) -> str:
    return "[" + ", ".join(literal(str(file)) for file in files) + "]"


def _not_utf8(label: str) -> str:
    return (
        f"{label} is not UTF-8 text. Convert it first, for example: "
        f"iconv -f LATIN1 -t UTF-8 {label} > utf8-{Path(label).name}"
    )


def _readable(error: duckdb.Error, label: str) -> DataError:
    """Say in our words what DuckDB could not read."""
    text = str(error)
    if "unicode" in text.lower() or "utf-8" in text.lower() or "utf8" in text.lower():
        return DataError(_not_utf8(label))
    damaged = ("GZIP", "gzip", "Parquet", "magic bytes", "Snappy", "ZSTD", "deserialize", "thrift")
    if any(word in text for word in damaged):
        return DataError(f"{label} is damaged or cut short: {_first_sentence(text)} Make or fetch it again.")
    return DataError(f"{label} cannot be read: {_first_sentence(text)}")


def _first_sentence(text: str) -> str:
    lines = [line.strip() for line in text.partition("Possible")[0].splitlines() if line.strip()]
    return " ".join(lines[:3]).rstrip(".") + "."
