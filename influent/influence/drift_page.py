"""Drift to a page: the alarm, each level over time with its changes, and how long influence lasts."""

from __future__ import annotations

from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from influent.data.clock import UNITS_US, iso
from influent.influence.factor_page import lead
from influent.influence.page import Bar, Window, bars, curve, page

if TYPE_CHECKING:
    from influent.influence.drift import Drift


def drift_page(found: Drift) -> str:
    """Return the page."""
    sections = [_alarm(found), _half_lives(found)]
    series = dict.fromkeys(
        (row["factor"], row["level"]) for row in found.windows.to_pylist() if row["index"] is not None
    )
    sections += [_series(found, factor, level) for factor, level in series]
    return page("How influence changes", lead(found.about), sections)


def _alarm(found: Drift) -> str:
    rate = f"A log in which nothing changes shows any change with a chance of about {found.about['false_alarms']:.1%}."
    if not found.is_alarm:
        return f"<h2>No alarm</h2><p>{escape(found.verdict())} {rate}</p>"
    items = "".join(f"<li>{_sentence(row)}</li>" for row in found.change_rows())
    return f"<h2>Influence changed</h2><ul>{items}</ul><p class='soft'>{escape(found.verdict())} {rate}</p>"


def _sentence(row: dict[str, Any]) -> str:
    what = f"{row['factor']} {row['level']}" if row["factor"] != row["level"] else "all events"
    return (
        f"<b>{escape(what)}</b>, {row['at'][:10]} (between {row['from'][:10]} and {row['to'][:10]}): |credit| over "
        f"what is expected from {row['before']:.3g} to {row['after']:.3g}, a difference of "
        f"{row['difference_low']:+.2g} to {row['difference_high']:+.2g}"
    )


def _half_lives(found: Drift) -> str:
    rows, day = [], UNITS_US["d"]
    for row in found.half_lives.to_pylist():
        if row["half_life_us"] is None:
            rows.append(Bar(f"{row['action']}, {row['from']}", 0, None, None, "not within the gaps seen"))
            continue
        days = row["half_life_us"] / day
        high = None if row["high_us"] is None else row["high_us"] / day
        low = None if high is None else row["low_us"] / day
        rows.append(Bar(f"{row['action']}, {row['from']}", days, low, high, f"{days:.3g} days"))
    return (
        "<h2>How long influence lasts</h2><p>The time in which |credit| falls to half, in days: of events as the "
        "ledger has them, and of single events in the model's kernels.</p>" + bars(rows)
    )


def _series(found: Drift, factor: str, level: str) -> str:
    # A window in which no event has a credit has no index, and one of a single user has no interval.
    rows = [row for row in found.of(factor, level) if row["index"] is not None]
    starts = [row["window_start_us"] for row in rows]
    before = {iso(start): (start + earlier) / 2 for earlier, start in pairwise(starts)}
    changes = [
        before[row["at"]]
        for row in found.change_rows()
        if (row["factor"], row["level"]) == (factor, level) and row["at"] in before
    ]
    windows = [
        Window(
            label=iso(row["window_start_us"])[:10],
            at=row["window_start_us"],
            value=row["index"],
            interval=None if row["index_low"] is None else (row["index_low"], row["index_high"]),
        )
        for row in rows
    ]
    name = "All events" if factor == level else f"{factor.replace('_', ' ')}: {level}"
    return (
        f"<h2>{escape(name)}</h2><p class='soft'>|credit| per {escape(found.about['window'])} over what it would "
        f"be at the mean of the whole ledger for the same lags and gaps, with its interval, which a "
        f"window of one user has not.</p>{curve(windows, changes)}"
    )
