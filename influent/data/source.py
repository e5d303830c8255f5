"""A file, a folder, a glob or a frame becomes a raw table: every row, every column, in the source's order."""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from influent.data.engine import Engine, literal, not_utf8
from influent.errors import ConfigError, DataError, SchemaError

ROW = "__row"
"""The raw table's own column: the place of a row in the source, from 0."""

_TEXT_SUFFIXES = {".csv": ",", ".tsv": "\t"}
_JSON_SUFFIXES = {".jsonl", ".ndjson", ".json"}
_PARQUET_SUFFIXES = {".parquet", ".pq"}
_PLACE_COLUMNS = ("file_row_number", "file_index")
"""Where DuckDB says from which row of which Parquet file a row comes, unless a column of the file's is called so."""


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
    mixed: frozenset[str] = frozenset()
    """Columns that are text in one file and numbers in another."""


def open_source(engine: Engine, source: Any, *, delimiter: str | None = None) -> RawTable:
    """Make the rows of `source` readable in the engine.

    Args:
        source: a path or glob (CSV, TSV, JSON Lines, each also `.gz`; Parquet, also a folder of it), or a
            pandas, Polars or Arrow table.
        delimiter: what separates the fields of a text file; by default a tab in `.tsv`, and in `.csv` whichever
            of `,` `;` `|` or tab the header uses most.

    Raises:
        DataError: the source is missing, empty, damaged, or of a kind that cannot be read.
        SchemaError: a column name occurs twice, or is one that is needed here.
        ConfigError: the delimiter is longer than one character.
    """
    if delimiter is not None and len(delimiter) != 1:
        raise ConfigError(f"The 'delimiter' must be one character. Got {delimiter!r}. A tab is the default in .tsv.")
    if not isinstance(source, str | Path):
        return _open_frame(engine, source)
    files = _files(source)
    label = engine.label = str(source)
    suffix = _suffix(files[0])
    strange = sorted({_suffix(file) for file in files} - {suffix})
    if strange:
        raise DataError(f"{label} mixes {suffix} with {', '.join(strange)} files. Read one kind at a time.")
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
    if engine.row(f"SELECT count(*) AS n FROM (SELECT 1 FROM {raw.name} LIMIT 1)")["n"] == 0:
        raise DataError(f"{label} has columns ({', '.join(raw.columns)}) and no rows. Nothing can be learned from it.")
    return raw


def _files(source: str | Path) -> list[Path]:
    path = Path(source)
    try:
        path.exists()
    except OSError as error:  # a name that is too long: the log itself, given as a text
        raise DataError(
            f"{str(source)[:40]!r}… is no path ({error.strerror}). Name a file, or read the text into a frame."
        ) from error
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if _suffix(file) in _PARQUET_SUFFIXES and file.is_file())
        if not found:
            raise DataError(f"the folder {path} holds no .parquet file. Name a file, a glob, or a folder of Parquet.")
    elif path.exists():
        found = [path]
    else:
        found = sorted(file for name in glob(str(source), recursive=True) if (file := Path(name)).is_file())
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
    names = sorted(
        file.name for file in path.parent.iterdir() if _suffix(file) in readable and not file.name.startswith(".")
    )
    return f"; {path.parent} holds {', '.join(names[:8])}" if names else f"; {path.parent} holds no readable file"


def _suffix(file: Path) -> str:
    return Path(file.stem).suffix.lower() if file.suffix.lower() == ".gz" else file.suffix.lower()


def _open_text(engine: Engine, files: Sequence[Path], delimiter: str, *, guess: bool) -> RawTable:
    headers = []
    for file in files:
        line = _first_line(file)
        if guess and delimiter == ",":
            delimiter = max(",;|\t", key=line.count)
        try:
            headers.append(next(csv.reader([line], delimiter=delimiter)))
        except csv.Error as error:
            raise DataError(f"the first line of {file} is no header: {error}.") from error
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
        with _open_bytes(file) as stream:
            line = stream.readline().decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(not_utf8(str(file))) from error
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{file} is damaged or cut short: {error}. Make or fetch it again.") from error
    if not line.strip():
        raise DataError(f"{file} begins with an empty line. It should hold a header and rows.")
    return line


def _open_bytes(file: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb")


def _open_json(engine: Engine, files: Sequence[Path]) -> RawTable:
    label = _label(files)
    scan = f"read_json({_list(files)}, format = 'newline_delimited', sample_size = -1"
    try:
        types = {name: _json_type(kind) for name, kind in engine.columns(scan + ")").items()}
        columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in types.items())
        name = engine.create_table(
            f"SELECT *, row_number() OVER () - 1 AS {ROW} FROM {scan}, columns = {{{columns}}})", "raw"
        )
    except DataError as error:
        raise DataError(_bad_line(files) or str(error)) from error
    if list(types) == ["json"] and (bad := _bad_line(files)):
        raise DataError(bad)
    _check_unique(list(types), label)
    return RawTable(name=name, columns=types, is_text=False, label=label)


def _json_type(found: str) -> str:
    """Return what to read a column as that DuckDB takes for `found`.

    Texts that look like dates stay texts, so that ids come back as they were written. A column in which types mix
    is JSON already, nested values become JSON, and whoever needs one type of it says so.
    """
    if found.endswith(("]", ")")):  # BIGINT[], STRUCT(…), MAP(…)
        return "JSON"
    return found if found in {"BIGINT", "UBIGINT", "HUGEINT", "DOUBLE", "BOOLEAN", "JSON"} else "VARCHAR"


def _bad_line(files: Sequence[Path]) -> str | None:
    """Say which line is the first that holds no JSON object."""
    for file in files:
        try:
            with _open_bytes(file) as stream:
                for number, line in enumerate(stream, start=1):
                    if line.strip() and not _is_object(line):
                        shown = line[:60].decode(errors="replace").strip()
                        return f"line {number} of {file} is no JSON object: {shown!r}. JSON Lines has one on each line."
        except (EOFError, OSError, zlib.error):
            return None
    return None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode()), dict)
    except UnicodeDecodeError:
        return True  # DuckDB's own message says more
    except ValueError:
        return False


def _open_parquet(engine: Engine, files: Sequence[Path]) -> RawTable:
    label = _label(files)
    scan = f"read_parquet({_list(files)}, union_by_name = true)"
    columns = engine.columns(scan)
    _check_unique(list(columns), label, reserved=(ROW, *_PLACE_COLUMNS))
    starts, kinds = [0], Counter[tuple[str, bool]]()
    for file in files:
        one = _sql_path(file)
        starts.append(starts[-1] + int(engine.row(f"SELECT num_rows AS n FROM parquet_file_metadata({one})")["n"]))
        kinds.update((name, kind == "VARCHAR") for name, kind in engine.columns(f"read_parquet({one})").items())
    # The row's place in its file plus the rows of the files before: known without reading in sequence.
    row = f"file_row_number + ({starts[:-1]}::BIGINT[])[file_index::BIGINT + 1]"
    name = engine.create_view(f"SELECT *, {row} AS {ROW} FROM {scan}", "raw")
    mixed = frozenset(name for name, is_text in kinds if is_text and (name, False) in kinds)
    return RawTable(name=name, columns=columns, is_text=False, label=label, mixed=mixed)


def _open_frame(engine: Engine, frame: Any) -> RawTable:
    kind = type(frame).__module__.partition(".")[0]
    label = engine.label = "the Arrow table" if isinstance(frame, pa.Table) else f"the {kind} table"
    if kind == "pandas" and hasattr(frame, "columns"):
        table = _from_pandas(frame, label)
    elif kind == "polars" and hasattr(frame, "lazy"):
        table = _from_polars(frame, label)
    elif isinstance(frame, pa.Table):
        table = frame
    else:
        raise DataError(
            f"a log cannot be read from {type(frame).__name__}. Give a path, or a pandas, Polars or Arrow table."
        )
    _check_unique(table.column_names, label)
    if table.num_rows == 0:
        raise DataError(f"{label} has columns ({', '.join(table.column_names)}) and no rows. Nothing can be learned.")
    # A column of nothing has no type; as text it can be read as anything.
    for place, field in enumerate(table.schema):
        if pa.types.is_null(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(pa.string()))
    numbered = table.append_column(ROW, pa.array(np.arange(table.num_rows, dtype=np.int64)))
    name = engine.register(numbered)
    columns = {column: kind for column, kind in engine.columns(name).items() if column != ROW}
    return RawTable(name=name, columns=columns, is_text=False, label=label)


def _from_pandas(frame: Any, label: str) -> pa.Table:
    _check_unique([str(name) for name in frame.columns], label)
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, OverflowError, TypeError) as error:
        kinds = {name: sorted({type(value).__name__ for value in frame[name].dropna()}) for name in frame.columns}
        mixed = {name: found for name, found in kinds.items() if len(found) > 1}
        if not mixed:
            raise SchemaError(f"{label} holds what no table on disk can: {error}. Convert or drop it.") from error
        raise SchemaError(
            f"{label} mixes types in one column: {mixed}. Make each column one type, for example "
            f"frame[{next(iter(mixed))!r}].astype(str)."
        ) from error


def _from_polars(frame: Any, label: str) -> pa.Table:
    try:
        return frame.lazy().collect().to_arrow()
    except pa.ArrowException as error:
        raise SchemaError(f"{label} holds what no Arrow table can: {error}. Convert or drop it.") from error


def _check_unique(names: Sequence[str], label: str, *, reserved: Sequence[str] = (ROW,)) -> None:
    # Parquet and DuckDB tell columns apart without regard to case.
    twice = [name for name, n in Counter(name.lower() for name in names).items() if n > 1]
    if twice:
        raise SchemaError(f"{label} has the column {twice[0]!r} more than once. Every column needs a name of its own.")
    if "" in names:
        raise SchemaError(f"{label} has a column without a name (number {list(names).index('') + 1}). Name it.")
    taken = [name for name in names if name.lower() in reserved]
    if taken:
        raise SchemaError(f"{label} has a column {taken[0]!r}, a name that reading needs for itself. Rename it.")


def _label(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _list(files: Sequence[Path]) -> str:
    return f"[{', '.join(map(_sql_path, files))}]"


def _sql_path(file: Path) -> str:
    """Return a path as an SQL literal in which DuckDB finds no glob."""
    return literal(re.sub(r"([*?\[])", r"[\1]", str(file)))
