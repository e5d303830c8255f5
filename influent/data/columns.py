"""What the caller's columns mean: SQL that turns a raw column into an id, a time or a number of ours.

Each function looks at the whole column once, so that one decision holds for every row, and says in a note what
it decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from influent import schema
from influent.data.clock import FIRST_US, LAST_US
from influent.data.engine import Engine, quoted
from influent.data.source import ROW, RawTable
from influent.errors import ConfigError, SchemaError, nearest

TimeUnit = Literal["s", "ms", "us", "ns"]

_WIDE = {"UBIGINT", "HUGEINT", "UHUGEINT"}
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"} | _WIDE
_FLOATS = {"FLOAT": 24, "DOUBLE": 53}
"""With the bits of their fraction: beyond 2 to that power, not every integer has a float of its own."""
_CLOCKS = {"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "DATE"}
_ZONE = r":.*(Z|z|[+-]\d{2}(:?\d{2})?| [A-Z]{3,5}| [A-Za-z]+(/[A-Za-z0-9_+-]+)+)$"
"""After a clock time: the day of 2024-01-05 is no zone."""
_UNIT_SIZES: dict[TimeUnit, tuple[float, float]] = {
    "s": (0.0, 1e11),
    "ms": (1e11, 1e14),
    "us": (1e14, 1e17),
    "ns": (1e17, 1e300),
}
"""How large numbers since 1970 are in each unit, from the year 1973 to the year 5138"""
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass(frozen=True)
class Reading:
    """SQL that reads one column, and what the reader should know about it."""

    sql: str
    notes: tuple[str, ...] = ()


def find_column(raw: RawTable, name: str | None, canonical: tuple[str, ...], argument: str) -> str | None:
    """Return the column called `name`, or where none is named the first of `canonical` that is there.

    Raises:
        SchemaError: `name` is given and there is no such column.
    """
    if name is None:
        return next((column for column in canonical if column in raw.columns), None)
    if name not in raw.columns:
        raise SchemaError(
            f"{raw.label} has no column {name!r}. It has: {', '.join(map(repr, raw.columns))}."
            f"{nearest(name, raw.columns)} Name yours with the option {argument!r}."
        )
    return name


def require_column(raw: RawTable, name: str | None, canonical: str, argument: str) -> str:
    """Return the column called `name`, by default `canonical`; there must be one.

    Raises:
        SchemaError: there is no such column.
    """
    column = find_column(raw, name, (canonical,), argument)
    if column is None:
        raise SchemaError(
            f"{raw.label} has no column {canonical!r}. It has: {', '.join(map(repr, raw.columns))}."
            f"{nearest(canonical, raw.columns)} Name yours with the option {argument!r}."
        )
    return column


def read_id(engine: Engine, raw: RawTable, name: str) -> Reading:
    """Read ids as integers or strings, whichever the caller wrote; empty ones become null.

    A text column holds integers only if every id is written as an integer prints, so `007` stays a string.
    Integers beyond 64 bits are kept as strings.

    Raises:
        SchemaError: the column mixes types, or holds something that is neither an integer nor a string.
    """
    kind, column = raw.columns[name], quoted(name)
    if kind == "JSON" or name in raw.mixed:
        return _read_mixed_id(engine, raw, name)
    if kind in _WIDE or (kind.startswith("DECIMAL") and kind.endswith(",0)")):
        return _read_wide_id(engine, raw, name)
    if kind in _INTEGERS:
        return Reading(f"CAST({column} AS BIGINT)")
    if kind in _FLOATS:
        return _read_float_id(engine, raw, name)
    if kind == "UUID" or kind.startswith("ENUM"):
        return Reading(f"nullif(CAST({column} AS VARCHAR), '')")
    if kind != "VARCHAR":
        raise SchemaError(f"the column {name!r} of {raw.label} holds {kind}; ids must be integers or strings.")
    if raw.is_text and _is_canonical_integer(engine, raw, column):
        return Reading(f"CAST({column} AS BIGINT)")
    return Reading(f"nullif({column}, '')")


def _is_canonical_integer(engine: Engine, raw: RawTable, column: str) -> bool:
    test = f"bool_and(CAST(TRY_CAST({column} AS BIGINT) AS VARCHAR) IS NOT DISTINCT FROM {column})"
    return bool(engine.row(f"SELECT {test} AS yes FROM {raw.name} WHERE {column} IS NOT NULL")["yes"])


def _read_float_id(engine: Engine, raw: RawTable, name: str) -> Reading:
    broken = _broken_floats(engine, raw.name, name)
    if broken is not None:
        raise SchemaError(f"the column {name!r} of {raw.label} holds {broken}. Ids must be integers or strings.")
    return Reading(_whole(name), (f"{name}: whole numbers stored as floats were read as integers.",))


def _whole(name: str) -> str:
    """Whole numbers stored as floats are what frames make of integers with gaps; NaN there is a gap."""
    column = quoted(name)
    return f"CASE WHEN NOT isnan({column}) THEN CAST({column} AS BIGINT) END"


def _broken_floats(engine: Engine, table: str, name: str) -> str | None:
    """Say how many of a column's floats are no integers, or none that a float of this size can tell apart."""
    column, n_bits = quoted(name), _FLOATS[engine.columns(table)[name]]
    broken = engine.row(
        f"SELECT count(*) AS n, min({column}) AS example FROM {table} "
        f"WHERE NOT isnan({column}) AND ({column} <> trunc({column}) OR abs({column}) > {2**n_bits})"
    )
    if not broken["n"]:
        return None
    return f"floats, and {broken['n']} of them are not whole numbers up to 2^{n_bits}, for example {broken['example']}"


def _read_wide_id(engine: Engine, raw: RawTable, name: str) -> Reading:
    column = quoted(name)
    fit = f"count(*) FILTER ({column} IS NOT NULL AND TRY_CAST({column} AS BIGINT) IS NULL) = 0"
    if engine.row(f"SELECT {fit} AS yes FROM {raw.name}")["yes"]:
        return Reading(f"CAST({column} AS BIGINT)")
    return Reading(f"CAST({column} AS VARCHAR)", (f"{name}: integers beyond 64 bits were read as strings.",))


def _read_mixed_id(engine: Engine, raw: RawTable, name: str) -> Reading:
    """Refuse ids of several types, or of one that is none for ids; a column without any id holds no type at all."""
    column, kinds = quoted(name), "strings and numbers"
    if name not in raw.mixed:
        kind = f"CASE json_type({column}) WHEN 'VARCHAR' THEN 'strings' WHEN 'OBJECT' THEN 'objects' "
        kind += "WHEN 'ARRAY' THEN 'lists' WHEN 'BOOLEAN' THEN 'booleans' WHEN 'NULL' THEN NULL ELSE 'numbers' END"
        kinds = engine.row(
            f"SELECT string_agg(kind, ' and ' ORDER BY kind DESC) AS kinds FROM (SELECT DISTINCT {kind} AS kind "
            f"FROM {raw.name})"
        )["kinds"]
    if kinds is None:
        return Reading("CAST(NULL AS VARCHAR)")
    if " and " not in kinds:
        raise SchemaError(f"the column {name!r} of {raw.label} holds {kinds}; ids must be integers or strings.")
    raise SchemaError(
        f"the column {name!r} of {raw.label} mixes types ({kinds}), so 1 and '1' could be the same id or two. "
        "Write all ids as strings or all as integers."
    )


def read_text(raw: RawTable, name: str | None, otherwise: str | None = None) -> Reading:
    """Read a label (action, scene) as a string; `otherwise` stands in where the log says nothing."""
    default = "NULL" if otherwise is None else f"'{otherwise}'"
    if name is None:
        return Reading(f"CAST({default} AS VARCHAR)")
    return Reading(f"coalesce(nullif({_as_text(raw, name)}, ''), {default})")


def _as_text(raw: RawTable, name: str) -> str:
    column = quoted(name)
    # The JSON of a string has quotes around it.
    return f"json_extract_string({column}, '$')" if raw.columns[name] == "JSON" else f"CAST({column} AS VARCHAR)"


def read_category(engine: Engine, table: str, name: str) -> str:
    """Return SQL that reads a column of categories (device, campaign) as integers or strings; empty ones become null.

    Raises:
        SchemaError: the column holds neither.
    """
    kind, column = engine.columns(table)[name], quoted(name)
    if kind in _FLOATS:
        held = _broken_floats(engine, table, name)
        if held is None:
            return _whole(name)
    elif kind in _INTEGERS - _WIDE:
        return f"CAST({column} AS BIGINT)"
    elif kind in {"VARCHAR", "BOOLEAN", "UUID"} | _WIDE or kind.startswith("ENUM"):
        return f"nullif(CAST({column} AS VARCHAR), '')"
    else:
        held = kind
    raise SchemaError(
        f"the column {name!r} of the events holds {held}. Categories are strings or integers; a number belongs in "
        f"numbers=({name!r},)."
    )


def read_number(engine: Engine, raw: RawTable, name: str | None) -> Reading:
    """Read numbers as doubles; a text that is no number becomes NaN, which cleaning counts."""
    if name is None:
        return Reading("CAST(NULL AS DOUBLE)")
    column, kind = quoted(name), raw.columns[name]
    if kind in _INTEGERS | _FLOATS.keys() | {"BOOLEAN"} or kind.startswith("DECIMAL"):
        return Reading(f"CAST({column} AS DOUBLE)")
    if kind not in {"VARCHAR", "JSON"}:
        raise SchemaError(f"the column {name!r} of {raw.label} holds {kind}; numbers are needed.")
    text = _as_text(raw, name)
    broken = _first_unreadable(engine, raw, text, f"TRY_CAST({text} AS DOUBLE)")
    notes = () if broken is None else (f"{name}: {broken}; cleaning drops them as non-finite.",)
    return Reading(f"CASE WHEN {text} <> '' THEN coalesce(TRY_CAST({text} AS DOUBLE), 'NaN'::DOUBLE) END", notes)


def read_time(engine: Engine, raw: RawTable, name: str, unit: TimeUnit | None) -> Reading | None:
    """Read a column as microseconds since 1970 in UTC, or return None where every row is null.

    Texts are ISO 8601, or numbers written out. Numbers are seconds, milliseconds, microseconds or nanoseconds:
    the median decides for the whole column (below 10^11 seconds, 10^14 milliseconds, 10^17 microseconds), except
    in a column called `time_us`. Times finer than a microsecond are cut, times outside the years 1 to 9999 are null.

    Args:
        unit: what numbers count; by default decided by their magnitude.

    Raises:
        SchemaError: the column holds neither, or no time in it can be read.
        ConfigError: `unit` is none of the four.
    """
    if unit is not None and unit not in get_args(TimeUnit):
        raise ConfigError(f"The 'time_unit' parameter must be one of {', '.join(get_args(TimeUnit))}. Got {unit!r}.")
    column, kind = quoted(name), raw.columns[name]
    unused = (f"{name}: times are written out, so the unit of numbers ({unit}) is not used.",) if unit else ()
    unit = unit or ("us" if name == schema.TIME_US else None)
    text = _as_text(raw, name) if kind == "JSON" else column
    if not engine.row(f"SELECT count({text}) AS n FROM {raw.name}")["n"]:
        return None
    zoneless = (f"{name}: times carry no zone; read as UTC.", *unused)
    if kind == "TIMESTAMP WITH TIME ZONE":
        return _checked_time(engine, raw, name, column, f"epoch_us({column})", unused)
    if kind in _CLOCKS:
        return _checked_time(engine, raw, name, column, f"epoch_us(CAST({column} AS TIMESTAMP))", zoneless)
    if kind in {"TIMESTAMP_NS", "TIMESTAMPTZ_NS"}:  # a cast to microseconds would round
        notes = zoneless if kind == "TIMESTAMP_NS" else unused
        return _checked_time(engine, raw, name, column, f"epoch_ns({column}) // 1000", notes)
    if kind in _INTEGERS | _FLOATS.keys() or kind.startswith("DECIMAL"):
        return _read_numeric_time(engine, raw, name, column, unit)
    if kind not in {"VARCHAR", "JSON"}:
        raise SchemaError(f"the column {name!r} of {raw.label} holds {kind}; times or numbers are needed.")
    counts = engine.row(
        f"SELECT count(TRY_CAST({text} AS DOUBLE)) AS numeric, count(TRY_CAST({text} AS TIMESTAMPTZ)) AS iso, "
        f"count(*) FILTER (TRY_CAST({text} AS TIMESTAMPTZ) IS NOT NULL AND NOT regexp_matches({text}, '{_ZONE}')) "
        f"AS zoneless FROM {raw.name}"
    )
    if counts["numeric"] > counts["iso"]:
        return _read_numeric_time(engine, raw, name, text, unit)
    zone = (f"{name}: {counts['zoneless']:,} times carry no zone; read as UTC.",) if counts["zoneless"] else ()
    instant = f"TRY_CAST({text} AS TIMESTAMPTZ)"
    return _checked_time(engine, raw, name, text, f"epoch_us({instant})", (*zone, *unused))


def _read_numeric_time(engine: Engine, raw: RawTable, name: str, column: str, unit: TimeUnit | None) -> Reading:
    number = f"TRY_CAST({column} AS DOUBLE)"
    seen = engine.row(
        f"SELECT median(abs(x)) AS middle, max(x) AS latest FROM (SELECT {number} AS x FROM {raw.name}) "
        "WHERE isfinite(x)"
    )
    middle = seen["middle"]
    by_size = [one for one, (least, _) in _UNIT_SIZES.items() if (middle or 0) >= least]
    decided: TimeUnit = unit or by_size[-1]
    how = "as told" if unit else "decided by their size"
    notes = [f"{name}: numbers read as {_UNIT_NAMES[decided]} since 1970 ({how})."]
    low, high = _UNIT_SIZES[decided]
    of_others = f"isfinite(x) AND x != 0 AND (abs(x) < {low} OR abs(x) >= {high})"
    counted = f"SELECT count(*) FILTER ({of_others}) AS n FROM (SELECT {number} AS x FROM {raw.name})"
    if not unit and (n_others := engine.row(counted)["n"]):
        notes.append(f"{name}: {n_others:,} of them would by their size be in another unit; do some rows differ in it?")
    per_unit = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}[decided]
    if seen["latest"] is not None and seen["latest"] * per_unit < 365 * 86_400 * 1_000_000:
        notes.append(f"{name}: every time falls into 1970 or before; dates written as numbers look like this.")
    # Integer arithmetic where the value is an integer: a double has too few digits for nanoseconds.
    whole = f"TRY_CAST({column} AS HUGEINT)"
    if raw.columns[name] in _INTEGERS or raw.is_text or raw.columns[name] == "VARCHAR":
        exact = f"{whole} // 1000" if decided == "ns" else f"{whole} * {int(per_unit)}"
        if raw.columns[name] in _INTEGERS:
            return _checked_time(engine, raw, name, column, f"TRY_CAST({exact} AS BIGINT)", tuple(notes))
        is_whole = f"regexp_full_match({column}, '[+-]?\\d+')"
        rounded = f"TRY_CAST(round({number} * {per_unit}) AS BIGINT)"
        sql = f"CASE WHEN {is_whole} THEN TRY_CAST({exact} AS BIGINT) ELSE {rounded} END"
        return _checked_time(engine, raw, name, column, sql, tuple(notes))
    return _checked_time(engine, raw, name, column, f"TRY_CAST(round({number} * {per_unit}) AS BIGINT)", tuple(notes))


def _checked_time(engine: Engine, raw: RawTable, name: str, column: str, sql: str, notes: tuple[str, ...]) -> Reading:
    bounded = f"CASE WHEN ({sql}) BETWEEN {FIRST_US} AND {LAST_US} THEN {sql} END"
    broken = _first_unreadable(engine, raw, column, bounded)
    if broken is None:
        return Reading(sql, notes)  # the same, and computed once a row
    if not engine.row(f"SELECT count({bounded}) AS n FROM {raw.name}")["n"]:
        raise SchemaError(
            f"no time in the column {name!r} of {raw.label} can be read: {broken}. Times are ISO 8601 "
            "(2024-03-01T12:00:00Z), dates, or seconds, milliseconds, microseconds or nanoseconds since 1970 (which, "
            "the option 'time_unit' says), in the years 1 to 9999."
        )
    return Reading(bounded, (*notes, f"{name}: {broken}; cleaning drops them."))


def _first_unreadable(engine: Engine, raw: RawTable, column: str, sql: str) -> str | None:
    """Say how many values `sql` could not read, and which came first."""
    found = engine.row(
        f"SELECT count(*) AS n, arg_min(CAST({column} AS VARCHAR), {ROW}) AS example, min({ROW}) AS place "
        f"FROM {raw.name} WHERE {column} IS NOT NULL AND CAST({column} AS VARCHAR) <> '' AND {sql} IS NULL"
    )
    if not found["n"]:
        return None
    return f"{found['n']:,} cannot be read, the first is {found['example']!r} (row {found['place'] + 1})"


def read_flag(raw: RawTable, name: str) -> Reading:
    """Read yes or no as 1 or 0: booleans, the numbers 1 and 0, or such words; anything else but a gap becomes NaN.

    Raises:
        SchemaError: the column holds something else than booleans, numbers and texts.
    """
    column, kind = quoted(name), raw.columns[name]
    if kind in _INTEGERS | _FLOATS.keys() | {"BOOLEAN"} or kind.startswith("DECIMAL"):
        number, is_gap = f"CAST({column} AS DOUBLE)", f"isnan({column})" if kind in _FLOATS else "false"
        return Reading(
            f"CASE WHEN {is_gap} THEN NULL WHEN {number} IN (0, 1) THEN {number} WHEN {column} IS NOT NULL THEN "
            "'NaN'::DOUBLE END"
        )
    if kind not in {"VARCHAR", "JSON"}:
        raise SchemaError(f"the column {name!r} of {raw.label} holds {kind}; booleans, or 0 and 1, are needed.")
    text = _as_text(raw, name)
    return Reading(f"CASE WHEN {text} <> '' THEN coalesce(CAST(TRY_CAST({text} AS BOOLEAN) AS DOUBLE), 'NaN') END")


def read_key(raw: RawTable, name: str) -> Reading:
    """Read what rows are put together by, of whatever type, as text; what is empty or NaN becomes null."""
    text = f"nullif({_as_text(raw, name)}, '')"
    is_nan = f"isnan({quoted(name)})" if raw.columns[name] in _FLOATS else "false"
    return Reading(f"CASE WHEN NOT {is_nan} THEN {text} END")
