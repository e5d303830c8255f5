"""Factors to a page that a reader understands at once: what matters, level by level, and how two things go together."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from influent.influence.page import Bar, bars, heat, page

if TYPE_CHECKING:
    from influent.influence.factors import Factors

_N_PAIRS = 3


def factor_page(found: Factors) -> str:
    """Return the page."""
    sections = [_ranking(found)] if found.ranking is not None else []
    sections += [_factor(found, name) for name in found.names]
    sections += [_pair(found, *pair) for pair in _shown_pairs(found)]
    return page("What makes a behaviour influential", lead(found.about), sections)


def lead(about: dict[str, Any]) -> str:
    """Return what a reader has to know of the ledger before reading on."""
    contrast = "" if about["contrast"] is None else f", against the {about['contrast']} best rivals"
    contrast += "" if about["against"] is None else f", against item {about['against']}"
    facts = [*about["statement"], "Intervals are 95 %, by bootstrap over users. Times are in UTC."]
    items = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return (
        f"<p>{about['n_predictions']:,} predictions ({escape(about['head'] + contrast)}) of the model "
        f"{escape(about['model'])}, fitted on events {escape(about['fitted_on'])}.</p>"
        f'<ul class="soft">{items}</ul>'
    )


def _ranking(found: Factors) -> str:
    assert found.ranking is not None
    rows = [
        Bar(one.factor, one.importance, one.low, one.high, f"{one.importance:.1%} of the variance")
        for one in found.ranking.factors
    ]
    return (
        f"<h2>Which factors matter</h2><p>Together they explain {found.ranking.explained:.0%} of the variance of "
        "log&nbsp;|credit| among users that were not learned from. Each bar is one factor's share of that variance; "
        "factors that say the same share theirs.</p>" + bars(rows)
    )


def _factor(found: Factors, name: str) -> str:
    rows = found.of(name)
    mean = sum(row["total_abs_credit"] for row in rows) / sum(row["n_credits"] for row in rows)
    shown = [
        Bar(
            row["level"],
            row["mean_abs_credit"],
            row["mean_abs_credit_low"],
            row["mean_abs_credit_high"],
            f"{row['share_of_abs_credit']:.0%} of |credit|, {row['share_of_credits']:.0%} of events, "
            f"signed mean {row['mean_credit']:+.2g}",
            None if row["adjusted"] is None else row["adjusted"] * mean,
        )
        for row in rows
    ]
    dot = '<i style="background: var(--dot); border-radius: 50%"></i>adjusted for the other factors'
    key = f'<i style="background: var(--bar)"></i>mean |credit| of an event{dot if found.ranking else ""}'
    return f'<h2>By {_words(name)}</h2><p class="soft key">{key}</p>{bars(shown)}'


def _shown_pairs(found: Factors) -> list[tuple[str, str]]:
    """Return the pairs of the factors that matter most."""
    names, columns = found.names, ["factor", "other_factor"]
    there = {frozenset(pair.values()) for pair in found.table.group_by(columns).aggregate([]).to_pylist()}
    every = [(first, second) for second in names for first in names[: names.index(second)]]
    return [pair for pair in every if frozenset(pair) in there][:_N_PAIRS]


def _pair(found: Factors, name: str, other: str) -> str:
    cells = {}
    for row in found.of(name, other):
        levels = {row["factor"]: row["level"], row["other_factor"]: row["other_level"]}
        cells[levels[name], levels[other]] = row["mean_abs_credit"]
    first = [row["level"] for row in found.of(name)]
    second = [row["level"] for row in found.of(other)]
    if len(second) > len(first):
        first, second, name, other = second, first, other, name
        cells = {(right, left): value for (left, right), value in cells.items()}
    table = heat(first, second, [[cells.get((row, column)) for column in second] for row in first])
    return f"<h2>By {_words(name)} and {_words(other)}</h2><p class='soft'>Mean |credit| of an event.</p>{table}"


def _words(name: str) -> str:
    return escape(name.replace("_", " "))
