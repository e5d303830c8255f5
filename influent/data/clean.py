"""A log as it came becomes a log that can be learned from, by named rules that say what each dropped and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from influent.data.clock import DAY_US, FIRST_US, microseconds
from influent.data.engine import Engine
from influent.data.events import Events
from influent.errors import ConfigError, DataError
from influent.progress import Progress


@dataclass(frozen=True)
class Rule:
    """One reason to drop events.

    `sql` selects the `event_id` of every event to drop from `{events}`, the events that earlier rules kept.
    """

    name: str
    why: str
    sql: str


@dataclass(frozen=True)
class RuleCount:
    """What one rule dropped."""

    name: str
    why: str
    n_dropped: int


@dataclass(frozen=True)
class CleaningReport:
    """How many events came in, what each rule dropped and why, how many are left."""

    n_read: int
    n_kept: int
    n_users: int
    n_items: int
    rules: tuple[RuleCount, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain lists and numbers, for JSON."""
        return asdict(self)


def clean(
    events: Events,
    *,
    drop_duplicates: bool = True,
    time_range: tuple[str, str] | None = None,
    value_mads: float | None = None,
    max_events_per_day: int | None = None,
    min_user_events: int = 1,
    min_item_events: int = 1,
    progress: Progress | None = None,
) -> Events:
    """Drop the events that no rule keeps, and say so in the `cleaning` of the returned events.

    The rules run in a fixed order: missing user, missing item, unreadable time, time outside `time_range`,
    non-finite value, exact duplicates, value outliers, users faster than people, then users and items with too
    few events, repeated until both hold (the k-core). Each event is counted under the first rule that drops it.

    Args:
        drop_duplicates: drop all but the first of events that agree in every column of ours. In an order-only log
            two equal rows are two behaviours, so there the rule does not apply.
        time_range: first moment kept and first moment no longer kept, ISO 8601, UTC unless it says otherwise.
        value_mads: drop values further from the median than this many median absolute deviations.
        max_events_per_day: drop users who on some day (UTC) have more events than this.
        min_user_events: fewest events of a user.
        min_item_events: fewest events of an item.

    Raises:
        ConfigError: a setting is outside its range, or needs times and the log is order-only.
        DataError: no event is left.
    """
    _check_at_least("min_user_events", min_user_events, 1)
    _check_at_least("min_item_events", min_item_events, 1)
    if max_events_per_day is not None:
        _check_at_least("max_events_per_day", max_events_per_day, 1)
    if value_mads is not None and not (isinstance(value_mads, int | float) and 0 < value_mads < float("inf")):
        raise ConfigError(
            f"The 'value_mads' parameter of clean must be above 0 and finite. Got {value_mads!r} instead."
        )
    for name, value in (("time_range", time_range), ("max_events_per_day", max_events_per_day)):
        if value is not None and not events.is_timed:
            raise ConfigError(f"an order-only log has no times, so {name} cannot be kept to. Leave it out.")
    rules = _row_rules(events.is_timed, time_range)
    if drop_duplicates and events.is_timed:
        rules.append(_DUPLICATES)
    if value_mads is not None:
        rules.append(_value_outliers(value_mads))
    if max_events_per_day is not None:
        rules.append(_too_fast(max_events_per_day))
    progress = progress or Progress()
    sieve = _Sieve(events.engine, events.name)
    with progress.track("clean", len(rules) + 1) as advance:
        counts = []
        for rule in rules:
            counts.append(RuleCount(rule.name, rule.why, sieve.apply(rule)))
            advance(note=rule.name)
        counts += sieve.apply_until_stable(_k_core(min_user_events, min_item_events))
        advance(note="done")
    return _cleaned(events, sieve, counts)


def _cleaned(events: Events, sieve: _Sieve, counts: Sequence[RuleCount]) -> Events:
    kept = sieve.kept()
    totals = events.engine.row(
        f"SELECT count(*) AS n, count(DISTINCT user_id) AS users, count(DISTINCT item_id) AS items FROM {kept}"
    )
    report = CleaningReport(
        n_read=totals["n"] + sum(count.n_dropped for count in counts),
        n_kept=totals["n"],
        n_users=totals["users"],
        n_items=totals["items"],
        rules=tuple(counts),
        notes=events.notes,
    )
    if not report.n_kept:
        by_most = sorted(counts, key=lambda count: -count.n_dropped)
        dropped = ", ".join(f"{count.name} {count.n_dropped:,}" for count in by_most if count.n_dropped)
        raise DataError(
            f"cleaning left none of {report.n_read:,} events ({dropped}). Most fell to {by_most[0].name} "
            f"({by_most[0].why}): loosen that rule, or mend the log."
        )
    return replace(events, name=kept, cleaning=report)


class _Sieve:
    """The events that are left, as rule after rule adds to those that are dropped."""

    def __init__(self, engine: Engine, events: str) -> None:
        self._engine = engine
        self._events = events
        self._dropped = engine.create_table("SELECT 0::BIGINT AS event_id WHERE false", "dropped")
        self._n_dropped = 0

    def kept(self) -> str:
        """Return the name of a view of the events that are left."""
        if not self._n_dropped:
            return self._events
        return self._engine.create_view(
            f"SELECT * FROM {self._events} AS e WHERE NOT EXISTS "
            f"(SELECT 1 FROM {self._dropped} AS d WHERE d.event_id = e.event_id)",
            "kept",
        )

    def apply(self, rule: Rule) -> int:
        """Drop what the rule selects and return how many events that was."""
        self._engine.execute(f"INSERT INTO {self._dropped} {rule.sql.format(events=self.kept())}")
        before, self._n_dropped = self._n_dropped, self._engine.count(self._dropped)
        return self._n_dropped - before

    def apply_until_stable(self, rules: Sequence[Rule]) -> list[RuleCount]:
        """Apply the rules in turn until none of them drops anything more."""
        totals = [0] * len(rules)
        while sum(drops := [self.apply(rule) for rule in rules]):
            totals = [total + drop for total, drop in zip(totals, drops, strict=True)]
        return [RuleCount(rule.name, rule.why, total) for rule, total in zip(rules, totals, strict=True)]


def _row_rules(is_timed: bool, time_range: tuple[str, str] | None) -> list[Rule]:
    rules = [
        _drop_where("missing_user", "nobody did it", "user_id IS NULL"),
        _drop_where("missing_item", "it was done to nothing", "item_id IS NULL"),
    ]
    if is_timed:
        rules.append(_drop_where("unreadable_time", "its place in the order is unknown", "time_us IS NULL"))
    if time_range is not None:
        first, last = (microseconds(text) for text in time_range)
        if first >= last:
            raise ConfigError(f"time_range must begin before it ends. Got {time_range[0]} to {time_range[1]}.")
        outside = f"time_us < {first} OR time_us >= {last}"
        rules.append(_drop_where("time_out_of_range", f"not within {time_range[0]} to {time_range[1]}", outside))
    rules.append(_drop_where("non_finite_value", "its value is no number", "NOT isfinite(value)"))
    return rules


def _drop_where(name: str, why: str, condition: str) -> Rule:
    return Rule(name, why, f"SELECT event_id FROM {{events}} WHERE {condition}")


_OURS = "user_id, item_id, action, time_us, value, scene, source_user_id"
# Rows are compared in full only where their hashes meet, so that a log without duplicates costs one pass.
_DUPLICATES = Rule(
    "duplicate",
    "an earlier row says the same in every column of ours",
    f"""
    SELECT event_id FROM (
        SELECT event_id, row_number() OVER (PARTITION BY {_OURS} ORDER BY event_id) AS place
        FROM {{events}}
        WHERE hash({_OURS}) IN (SELECT hash({_OURS}) FROM {{events}} GROUP BY 1 HAVING count(*) > 1)
    ) WHERE place > 1
    """,
)


def _value_outliers(n_mads: float) -> Rule:
    return Rule(
        "value_outlier",
        f"further than {n_mads:g} median absolute deviations from the median",
        f"""
        SELECT e.event_id
        FROM {{events}} AS e, (SELECT median(value) AS middle, mad(value) AS spread FROM {{events}}) AS v
        WHERE abs(e.value - v.middle) > {n_mads} * v.spread AND v.spread > 0
        """,
    )


def _too_fast(max_per_day: int) -> Rule:
    day = f"(time_us - {FIRST_US}) // {DAY_US}"  # counted from the first of days: // cuts towards zero
    return Rule(
        "inhuman_rate",
        f"its user has more than {max_per_day:,} events on one day",
        f"""
        SELECT event_id FROM {{events}} WHERE user_id IN (
            SELECT user_id FROM {{events}} GROUP BY user_id, {day} HAVING count(*) > {max_per_day}
        )
        """,
    )


def _k_core(min_user_events: int, min_item_events: int) -> list[Rule]:
    return [
        Rule(
            f"few_events_per_{noun}",
            f"its {noun} has fewer than {fewest} events",
            f"""
            SELECT event_id FROM {{events}} WHERE {noun}_id IN (
                SELECT {noun}_id FROM {{events}} GROUP BY {noun}_id HAVING count(*) < {fewest}
            )
            """,
        )
        for noun, fewest in (("user", min_user_events), ("item", min_item_events))
        if fewest > 1
    ]


def _check_at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"The {name!r} parameter of clean must be an int in the range [{least}, inf). Got {value!r}.")
