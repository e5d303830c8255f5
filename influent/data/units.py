"""A table of who was exposed, and with what chance, becomes arrays that say how exposure was drawn.

Shapes: N rows, D draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from influent import schema
from influent.data.columns import find_column, read_flag, read_key, read_number
from influent.data.engine import Engine
from influent.data.source import ROW, RawTable, open_source
from influent.errors import ConfigError, DataError, SchemaError

_IMPOSSIBLE = math.log(1e-6)
"""Less likely than this by the chances that were declared, and these are not what exposure was drawn by."""
_FAR = 5.0
"""As many standard deviations are no accident: 6e-7 by the normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """How exposure was drawn, by the names of columns."""

    probability: float | str
    """The chance of exposure, or the column that has it"""
    unit: str = schema.USER_ID
    cluster: str | None = None
    """What was exposed or not as a whole"""
    stratum: str | None = None
    """What it was drawn within"""
    period: str | None = None
    """What tells rows of one unit apart"""
    each_period: bool = False
    """Whether it was drawn anew in each period, or once"""

    @property
    def owner(self) -> str:
        """Return the column of what was drawn."""
        return self.cluster or self.unit

    @property
    def blocks(self) -> list[str]:
        """Return the columns within which it was drawn."""
        return [name for name in (self.stratum, self.period if self.each_period else None) if name]


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """N rows, one for each unit or for each unit and period; D draws, each of rows exposed together or not."""

    design: Design
    outcome: np.ndarray
    """float64 (N,)"""
    exposed: np.ndarray
    """bool (N,)"""
    probability: np.ndarray
    """float64 (N,): the chance of exposure, above 0 and below 1"""
    draw: np.ndarray
    """int64 (N,): which rows were drawn together, 0 … D − 1"""
    block: np.ndarray
    """int64 (N,): which rows were drawn side by side, within strata and periods, 0 …"""
    owner: np.ndarray
    """int64 (N,): the cluster, or else the unit: whose rows are not independent, 0 …"""
    numbers: dict[str, np.ndarray]
    """float64 (N,) each: covariates, and the outcome before"""

    def __len__(self) -> int:
        return len(self.outcome)

    @cached_property
    def first(self) -> np.ndarray:
        """Return the first row of each draw, int64 (D,)."""
        return np.asarray(np.unique(self.draw, return_index=True)[1])


def read_units(
    source: Any, design: Design, *, outcome: str = "outcome", exposed: str = "exposed", numbers: Sequence[str] = ()
) -> Units:
    """Read a table of units, and hold it against how exposure is said to have been drawn.

    Args:
        source: as `read_events` takes it.
        numbers: further columns that are needed.

    Raises:
        SchemaError: a column is missing, or holds what it should not.
        ConfigError: the design is none.
        DataError: something is not known of a row, or exposure cannot have been drawn so.
    """
    _check_design(design)
    engine = Engine()
    raw = open_source(engine, source)
    keys = {"unit": design.unit, "cluster": design.cluster, "stratum": design.stratum, "period": design.period}
    key_sql = {role: read_key(raw, _found(raw, name, role)).sql for role, name in keys.items() if name is not None}
    number_sql = {outcome: _number_sql(engine, raw, outcome, "outcome")}
    number_sql |= {name: _number_sql(engine, raw, name, "covariates") for name in numbers}
    flag = read_flag(raw, _found(raw, exposed, "exposed")).sql
    if isinstance(design.probability, str):
        chance = _number_sql(engine, raw, design.probability, "probability")
    else:  # as a text, since SQL would read it as a decimal
        chance = f"CAST('{float(design.probability)!r}' AS DOUBLE)"
    selected = [f"{sql} AS key_{role}" for role, sql in key_sql.items()]
    selected += [f"{sql} AS number_{place}" for place, sql in enumerate(number_sql.values())]
    table = engine.arrow(
        f"SELECT {', '.join(selected)}, {flag} AS exposed, {chance} AS chance FROM {raw.name} ORDER BY {ROW}"
    )
    flags = _column(table, "exposed")
    if np.isnan(flags).any():
        raise DataError(
            f"{np.isnan(flags).sum():,} of {len(flags):,} rows say neither yes nor no in {exposed!r}. Write true or "
            "false, or 1 or 0; leave out those for whom exposure was not drawn."
        )
    columns = {name: _column(table, f"number_{place}") for place, name in enumerate(number_sql)}
    for name, values in columns.items():
        _check_known(values, flags == 1, name, is_outcome=name == outcome)
    codes = {role: _codes(table.column(f"key_{role}"), str(keys[role])) for role in key_sql}
    return _drawn(design, codes, columns.pop(outcome), flags == 1, _column(table, "chance"), columns)


def _drawn(
    design: Design,
    codes: dict[str, tuple[np.ndarray, pa.Array]],
    outcome: np.ndarray,
    exposed: np.ndarray,
    probability: np.ndarray,
    numbers: dict[str, np.ndarray],
) -> Units:
    """Say which rows were drawn together and which side by side, and check that they can have been."""
    _check_one_row_each(design, codes)
    nothing = np.zeros(len(outcome), np.int64)
    owner, names = codes.get("cluster", codes["unit"])
    stratum = codes["stratum"][0] if "stratum" in codes else nothing
    when = codes["period"][0] if design.each_period else nothing
    units = Units(
        design=design,
        outcome=outcome,
        exposed=exposed,
        probability=probability,
        draw=_pairs(owner, when),
        block=_pairs(stratum, when),
        owner=owner,
        numbers=numbers,
    )
    _check_chances(units)
    _check_drawn_together(units, names, stratum)
    _check_drawn_anew(units)
    _check_arms(units)
    _check_share(units)
    return units


def _check_design(design: Design) -> None:
    chance = design.probability
    if not isinstance(chance, str):
        is_number = isinstance(chance, int | float) and not isinstance(chance, bool)
        if not is_number or not 0 < chance < 1:
            raise ConfigError(
                f"The 'probability' parameter must be a chance above 0 and below 1, or the column that has it. Got "
                f"{chance!r}."
            )
    if design.each_period and design.period is None:
        raise ConfigError("exposure was drawn anew in each period, so the periods need a column: name it with period=.")
    keys = [name for name in (design.unit, design.cluster, design.stratum, design.period) if name]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"unit, cluster, stratum and period are different columns. Got {', '.join(map(repr, keys))}.")


def _found(raw: RawTable, name: str, argument: str) -> str:
    found = find_column(raw, name, (), argument)
    assert found is not None
    return found


def _number_sql(engine: Engine, raw: RawTable, name: str, argument: str) -> str:
    reading = read_number(engine, raw, _found(raw, name, argument))
    if reading.notes:  # a text that is no number
        raise SchemaError(f"the column {name!r} of {raw.label} holds texts; numbers are needed. {reading.notes[0]}")
    return reading.sql


def _column(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table.column(name).to_numpy(), np.float64)


def _codes(column: pa.ChunkedArray, name: str) -> tuple[np.ndarray, pa.Array]:
    """Return the place of each row's value among the different values, and these."""
    if column.null_count:
        raise DataError(
            f"{column.null_count:,} of {len(column):,} rows have no {name!r}. Fill it in, or leave such rows out if "
            "that has nothing to do with exposure."
        )
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the place of each pair among the different pairs."""
    return np.asarray(np.unique(first * (second.max() + 1) + second, return_inverse=True)[1], np.int64)


def _check_known(values: np.ndarray, exposed: np.ndarray, name: str, *, is_outcome: bool) -> None:
    unknown = ~np.isfinite(values)
    if not unknown.any():
        return
    how_many = (
        f"{unknown.sum():,} of {len(values):,} rows have no finite {name!r}: {(unknown & exposed).sum():,} of "
        f"{exposed.sum():,} exposed, {(unknown & ~exposed).sum():,} of {(~exposed).sum():,} not"
    )
    if is_outcome:
        raise DataError(
            f"{how_many}. Write 0 where nothing happened. Whether an outcome is known may be an effect of exposure "
            "itself: leave such rows out only if it cannot be."
        )
    raise DataError(f"{how_many}. Fill it with the mean of the others, and give whether it was known as a covariate.")


def _check_one_row_each(design: Design, codes: dict[str, tuple[np.ndarray, pa.Array]]) -> None:
    unit, names = codes["unit"]
    key = unit if "period" not in codes else _pairs(unit, codes["period"][0])
    counts = np.bincount(key)
    if counts.max() == 1:
        return
    twice = np.argmax(counts)
    row = int(np.argmax(key == twice))
    within, mend = "", "Name the column that tells them apart, such as the wave, with period=."
    if "period" in codes:
        period, values = codes["period"]
        within, mend = f" with {design.period!r} {values[period[row]].as_py()!r}", "One row each is needed."
    raise DataError(f"{design.unit} {names[unit[row]].as_py()!r} has {counts[twice]:,} rows{within}. {mend}")


def _check_chances(units: Units) -> None:
    chance = units.probability
    wrong = ~((chance > 0) & (chance < 1))
    if wrong.any():
        raise DataError(
            f"{wrong.sum():,} of {len(units):,} rows have no chance of exposure above 0 and below 1 (the first has "
            f"{chance[np.argmax(wrong)]:g}). For whom exposure or its absence was certain, nothing was drawn: leave "
            "them out."
        )


def _check_drawn_together(units: Units, names: pa.Array, stratum: np.ndarray) -> None:
    design, owner = units.design, units.design.owner
    anew = ""
    if design.period and not design.each_period:
        anew = " If it was drawn anew in each period, say each_period=True."
    if design.cluster:
        anew += " If each unit was drawn for itself, leave cluster= out."
    for column, what, mend in (
        (units.exposed, "has rows that were exposed and rows that were not, so it was not drawn as a whole.", anew),
        (units.probability, "has different chances of exposure, so it was not drawn as a whole.", anew),
        (stratum, f"lies in more than one {design.stratum!r}. What is drawn as a whole lies in one.", ""),
    ):
        differs = column != column[units.first][units.draw]
        if differs.any():
            row = int(np.argmax(differs))
            raise DataError(f"{owner} {names[units.owner[row]].as_py()!r} {what}{mend}")


def _check_drawn_anew(units: Units) -> None:
    """Refuse exposure that was drawn in each period, and yet stays the same by what would be a miracle."""
    if not units.design.each_period:
        return
    owner, exposed, chance = units.owner[units.first], units.exposed[units.first], units.probability[units.first]
    n_exposed, n_drawn = np.bincount(owner, weights=exposed), np.bincount(owner)
    always, never = (np.bincount(owner, weights=np.log(one)) for one in (chance, 1 - chance))
    stays = ((n_exposed == 0) | (n_exposed == n_drawn)).all()
    if stays and np.logaddexp(always, never)[n_drawn > 1].sum() < _IMPOSSIBLE:
        raise DataError(
            f"no {units.design.owner} is exposed in one {units.design.period!r} and not in another, so exposure was "
            "drawn once and not anew in each. Leave each_period=True out."
        )


def _check_arms(units: Units) -> None:
    design, exposed = units.design, units.exposed[units.first]
    if exposed.all() or not exposed.any():
        who = "is exposed: there is nobody to compare with" if exposed.all() else "was exposed"
        every = "every" if exposed.all() else "no"
        raise DataError(f"{every} {design.owner} {who}. The table needs all for whom exposure was drawn, either way.")
    n_exposed = np.bincount(units.block[units.first], weights=exposed)
    fewest = np.minimum(n_exposed, np.bincount(units.block[units.first]) - n_exposed)
    if fewest.min() < 2:
        block = int(np.argmin(fewest))
        n_drawn = int((units.block[units.first] == block).sum())
        within = f" within one of the {len(fewest):,} blocks by {' and '.join(design.blocks)}" if design.blocks else ""
        mend = "Name a coarser stratum, or none." if design.blocks else "More have to be drawn."
        raise DataError(
            f"of {n_drawn:,} {design.owner} that were drawn{within}, {n_exposed[block]:.0f} were exposed. At least two "
            f"exposed and two not are needed to say how much chance makes of it. {mend}"
        )


def _check_share(units: Units) -> None:
    """Refuse a number of exposed that the declared chances do not lead to."""
    exposed, chance = units.exposed[units.first], units.probability[units.first]
    variance = (chance * (1 - chance)).sum()
    if variance >= 9 and abs(exposed.sum() - chance.sum()) > _FAR * math.sqrt(variance):
        raise DataError(
            f"of {len(exposed):,} draws {exposed.sum():,} were exposed, and by the chances given it would be "
            f"{chance.sum():,.0f} ± {math.sqrt(variance):,.0f}. Exposure was not drawn by these chances, or part of "
            "those for whom it was is missing: find out which."
        )
