"""A log in which exposure was drawn by chance becomes a table of units: who was exposed, and what they did then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from influent import schema
from influent.data.clock import DAY_US, span_us
from influent.data.columns import find_column, read_flag, read_number
from influent.data.engine import literal, quoted
from influent.data.events import Events
from influent.data.source import RawTable
from influent.errors import ConfigError, DataError, SchemaError, UnknownIdError, nearest
from influent.settings import check_type

_OURS = (schema.EVENT_ID, schema.USER_ID, schema.TIME_US, "exposed", schema.PROBABILITY, "outcome", "outcome_before")
_WORKING = ("nth", "first_us", "next_us")


@dataclass(frozen=True, kw_only=True)
class ExposureUnits:
    """Users for whom exposure was drawn, and what they did within a horizon after that, and before."""

    table: pa.Table
    """`event_id` (of the decision), `user_id`, `time_us`, `exposed`, `probability` (where the log has it), `outcome`,
    `outcome_before`, and the columns that were kept"""
    outcome: tuple[str, ...]
    horizon_us: int
    n_too_late: int
    """Left out: their horizon ends after the log's last event"""
    n_later: int
    """Left out: decisions about a user, or a user in a period, who had one before"""
    n_overlapping: int
    """Units with another decision about the same user within the horizon"""
    n_short_before: int
    """Units whose horizon before begins before the log does"""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def sentences(self) -> list[str]:
        """Return what the table is of, and what was left out of it."""
        days = f"{self.horizon_us / DAY_US:g} days"
        said = [f"{len(self):,} units; the outcome is {' or '.join(self.outcome)} within {days} of the decision."]
        counted = (
            (self.n_too_late, f"left out, since the log ends within {days} of them"),
            (self.n_later, "left out, since there was an earlier one about the same user"),
            (self.n_overlapping, f"kept, though another one about the same user falls within their {days}"),
            (self.n_short_before, f"kept, though the log begins less than {days} before them"),
        )
        return said + [f"{n:,} decisions were {what}." for n, what in counted if n]


def exposure_units(
    events: Events,
    *,
    exposed: str,
    outcome: str | Sequence[str],
    horizon: str,
    probability: str | None = None,
    period: str | None = None,
    keep: Sequence[str] = (),
    whether: bool = False,
) -> ExposureUnits:
    """Make a table of units from a log in which some events say whether exposure was drawn, for `estimate_effect`.

    An event whose `exposed` is not null is a decision, and also those who were not exposed need one. A unit is a user
    at their first decision, or with `period` a user at the first of each period. The outcome counts the user's
    events in [decision, decision + horizon), without the decision itself; the outcome before those in the horizon
    before the user's first decision of all, which no exposure can have moved.

    Args:
        exposed: the context column that says whether: booleans, or 0 and 1.
        outcome: the action or actions that count.
        horizon: how long: `7d`, `12h`; units s, m (minutes), h, d, w.
        probability: the context column with the chance of exposure.
        period: the context column that tells waves apart.
        keep: further columns of the decision, such as its cluster, stratum and covariates.
        whether: make the outcome 1 where there is any such event, and else 0.

    Raises:
        ConfigError: the log is order-only, or the horizon is none.
        SchemaError: the log has no such column, or it holds what it should not.
        UnknownIdError: the log has no such action.
        DataError: a decision lacks its user or time; or there is none with a horizon that ends within the log.
    """
    check_type("events", events, Events, "read_events(...)")
    if not events.is_timed:
        raise ConfigError("an order-only log has no horizon to look ahead. Read one with times.")
    actions = (outcome,) if isinstance(outcome, str) else tuple(outcome)
    horizon_us = span_us(horizon)
    _check_actions(events, actions)
    engine = events.engine
    for name, given in (("exposed", exposed), ("probability", probability), ("period", period)):
        if given is not None and not isinstance(given, str):
            raise ConfigError(f"The {name!r} parameter of exposure_units names a column. Got {given!r} instead.")
    if isinstance(keep, str):
        raise ConfigError(f"keep is a list of columns: keep=[{keep!r}].")
    decisions = _decisions(events, exposed, probability, period, keep)
    log = engine.row(f"SELECT min(time_us) AS first_us, max(time_us) AS last_us FROM {events.name}")
    units = engine.create_view(
        f"SELECT * FROM {decisions} WHERE nth = 1 AND time_us + {horizon_us} <= {log['last_us']}", "units"
    )
    table = _with_outcomes(events, units, actions, horizon_us, whether=whether)
    left = engine.row(
        f"SELECT count(*) FILTER (nth > 1) AS n_later, count(*) FILTER (nth = 1) AS n_first FROM {decisions}"
    )
    if not left["n_first"]:
        raise DataError(f"{exposed!r} is empty in every row, so nobody was drawn. Name the column that says who was.")
    if not table.num_rows:
        raise DataError(
            f"no decision (a row with {exposed!r}) has {horizon!r} of the log after it: {left['n_first']:,} come too "
            "late for that. Use a shorter horizon, or a longer log."
        )
    kept = engine.row(
        f"SELECT count(*) FILTER (next_us < time_us + {horizon_us}) AS n_overlapping, "
        f"count(*) FILTER (first_us - {horizon_us} < {log['first_us']}) AS n_short_before FROM {units}"
    )
    return ExposureUnits(
        table=table,
        outcome=actions,
        horizon_us=horizon_us,
        n_too_late=left["n_first"] - table.num_rows,
        n_later=left["n_later"],
        **kept,
    )


def _with_outcomes(events: Events, units: str, actions: Sequence[str], horizon_us: int, *, whether: bool) -> pa.Table:
    """Return the units with what their users did from the decision on, and before their first of all."""
    counted = ", ".join(map(literal, actions))
    outcomes = f"(SELECT event_id, user_id, time_us FROM {events.name} WHERE action IN ({counted}))"
    after = (
        f"SELECT d.event_id, count(*) AS n FROM {units} AS d JOIN {outcomes} AS o ON o.user_id = d.user_id AND "
        f"o.event_id <> d.event_id AND o.time_us >= d.time_us AND o.time_us < d.time_us + {horizon_us} GROUP BY ALL"
    )
    before = (
        f"SELECT d.user_id, count(*) AS n FROM (SELECT DISTINCT user_id, first_us FROM {units}) AS d JOIN {outcomes} "
        f"AS o ON o.user_id = d.user_id AND o.time_us >= d.first_us - {horizon_us} AND o.time_us < d.first_us "
        "GROUP BY ALL"
    )
    number = "CAST(coalesce({0}.n, 0) > 0 AS DOUBLE)" if whether else "CAST(coalesce({0}.n, 0) AS DOUBLE)"
    return events.engine.arrow(
        f"SELECT d.* EXCLUDE (nth, first_us, next_us), {number.format('a')} AS outcome, {number.format('b')} AS "
        f"outcome_before FROM {units} AS d LEFT JOIN ({after}) AS a ON a.event_id = d.event_id LEFT JOIN ({before}) "
        "AS b ON b.user_id = d.user_id ORDER BY d.time_us, d.event_id"
    )


def _decisions(events: Events, exposed: str, probability: str | None, period: str | None, keep: Sequence[str]) -> str:
    """Return a view of the decisions, each with its number among those about its user, or in its period."""
    engine = events.engine
    log = RawTable(name=events.name, columns=engine.columns(events.name), is_text=False, label="events")
    kept = list(dict.fromkeys([*([period] if period else []), *keep]))
    named = ((exposed, "exposed"), (probability, "probability"), (period, "period"))
    for name, argument in (*named, *((name, "keep") for name in keep)):
        find_column(log, name, (), argument)
    taken = [name for name in kept if name.lower() in _OURS + _WORKING]
    if taken:
        raise SchemaError(f"{taken[0]!r} is a column of every table of units. Keep yours under another name.")
    flag = read_flag(log, exposed).sql
    columns = ["event_id", "user_id", "time_us", f"{flag} AS exposed"]
    if probability is not None:
        columns.append(f"{read_number(engine, log, probability).sql} AS probability")
    columns += [quoted(name) for name in kept]
    found = engine.create_view(
        f"SELECT {', '.join(columns)} FROM {events.name} WHERE ({flag}) IS NOT NULL", "decisions"
    )
    missing = [*(["user_id", "time_us"]), *([quoted(period)] if period else [])]
    lacking = " OR ".join(f"{name} IS NULL" for name in missing)
    n = engine.row(
        f"SELECT count(*) FILTER ({lacking}) AS lacking, count(*) FILTER (isnan(exposed)) AS unclear FROM {found}"
    )
    if n["unclear"]:
        raise DataError(f"{n['unclear']:,} decisions say neither yes nor no in {exposed!r}. Write 1 or 0, or nothing.")
    if n["lacking"]:
        what = f"user, time or {period!r}" if period else "user or time"
        raise DataError(f"{n['lacking']:,} decisions have no {what}. Drop them first: influent.clean(events).")
    of_one = ", ".join(["user_id", *([quoted(period)] if period else [])])
    order = "ORDER BY time_us, event_id"
    return engine.create_view(
        f"SELECT * REPLACE (exposed = 1 AS exposed), row_number() OVER (PARTITION BY {of_one} {order}) AS nth, "
        f"min(time_us) OVER (PARTITION BY user_id) AS first_us, lead(time_us) OVER (PARTITION BY user_id {order}) "
        f"AS next_us FROM {found}",
        "decisions",
    )


def _check_actions(events: Events, actions: Sequence[str]) -> None:
    if not actions:
        raise ConfigError("The 'outcome' parameter of exposure_units must hold at least one action. Got none.")
    known = events.engine.arrow(f"SELECT DISTINCT action FROM {events.name} ORDER BY 1").column(0).to_pylist()
    for action in actions:
        if action not in known:
            near = nearest(action, map(str, known)) or f" They are: {', '.join(map(str, known[:10]))}."
            raise UnknownIdError(f"action {action!r} is not among the {len(known):,} known.{near}")
