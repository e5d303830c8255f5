"""Credits where there can be no influence: a placebo must come out as nothing.

An event that had nothing to do with what came next still gets some credit for it, if only because popular items follow
everything. So the credit for what came next is held against the credit for what came next elsewhere: the mean over
other moments' outcomes. Where event and outcome are independent, both have the same mean, whatever the model is.

Shapes: N moments, R rivals, S source events.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from influent.data.moments import Moments
from influent.errors import DataError
from influent.evaluation.metrics import bootstrap_interval
from influent.evaluation.report import Measure
from influent.models.model import Model
from influent.settings import check_int


@dataclass(frozen=True, kw_only=True)
class PlaceboReport:
    """The mean credit for what came next, above that for what came next elsewhere, in nats."""

    history: Measure
    """Of whole histories as they were: no placebo, and to be above 0"""
    users_permuted: Measure
    """Of the histories of others"""
    random_event: Measure
    """Of an event in each history whose item is exchanged for one drawn by popularity, the mean of several draws"""
    moved_behind: Measure
    """Of the latest event of each history, moved behind the outcome"""
    n_moments: int

    def placebos(self) -> dict[str, Measure]:
        """Return the three that must hold 0."""
        return {
            "users permuted": self.users_permuted,
            "a random event": self.random_event,
            "moved behind the outcome": self.moved_behind,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_markdown(self) -> str:
        """Return the table in Markdown, with its caption."""
        lines = ["| events | credit above other outcomes | holds 0 |", "|---|---:|---|"]
        for name, measure in {"as they were": self.history, **self.placebos()}.items():
            lines.append(f"| {name} | {measure} | {'yes' if measure.low <= 0 <= measure.high else 'no'} |")
        caption = f"{self.n_moments:,} moments; in nats; 95 % intervals by bootstrap over users."
        return "\n".join([*lines, "", caption]) + "\n"


def check_placebos(
    model: Model, moments: Moments, *, n_rivals: int = 20, n_draws: int = 20, n_resamples: int = 1000, seed: int = 0
) -> PlaceboReport:
    """Measure the credit of events that cannot have led to what came next.

    Args:
        moments: with a history and an outcome that the model knows; others are passed over, and so are all but the
            first of a user, whose own other outcomes would be no placebo.
        n_rivals: how many other moments' outcomes each outcome is held against.
        n_draws: how many times a random event is put into each history. Most have next to no credit and a few have
            much: of one draw the interval is too narrow, and lies below 0 too often.

    Raises:
        DataError: fewer than three moments have a history and an outcome that the model knows.
        ConfigError: a number is out of range.
    """
    for name, value in (("n_rivals", n_rivals), ("n_draws", n_draws), ("n_resamples", n_resamples)):
        check_int(name, value, 1)
    check_int("seed", seed, 0)
    items, offsets = moments.target_items()
    has_both = (np.diff(offsets) > 0) & (moments.stop > moments.start)
    has_both[has_both] &= items[offsets[:-1][has_both]] >= 0
    _, first = np.unique(moments.user_idx[has_both], return_index=True)
    rows = np.flatnonzero(has_both)[first]
    outcome, moments = items[offsets[:-1][rows]], moments.take(rows)
    if len(moments) < 3:
        raise DataError(f"{len(moments)} moments have a history and a known outcome; placebos need three at least.")
    rng = np.random.default_rng(seed)
    n = len(moments)
    # Any shift but none gives each history the outcome of another.
    other = outcome[(np.arange(n) + rng.integers(1, n)) % n]
    rivals = outcome[(np.arange(n)[:, None] + rng.integers(1, n, (n, n_rivals))) % n]
    candidates = np.column_stack([outcome, other, rivals])
    credits = model.credits(moments, candidates)
    total = np.zeros((n, candidates.shape[1]))
    np.add.at(total, credits.owner, credits.credit)
    of_random = np.mean([_credit_of_random(model, moments, candidates, rng) for _ in range(n_draws)], axis=0)
    # The latest event now comes after the outcome: the history ends before it.
    earlier = replace(moments, stop=moments.stop - 1)
    of_later = _credit_at(model, earlier, moments.stop - 1, candidates)

    def measure(credit_NC: np.ndarray, column: int) -> Measure:
        above = credit_NC[:, column] - credit_NC[:, 2:].mean(axis=1)
        return Measure(float(above.mean()), *bootstrap_interval(above, moments.user_idx, n_resamples=n_resamples))

    return PlaceboReport(
        history=measure(total, 0),
        users_permuted=measure(total, 1),
        random_event=measure(of_random, 0),
        moved_behind=measure(of_later, 0),
        n_moments=n,
    )


def _credit_of_random(model: Model, moments: Moments, candidates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the credits of an event of each history when its item is exchanged for one drawn by popularity, (N, C)."""
    place = moments.start + rng.integers(0, moments.stop - moments.start)
    items = rng.choice(len(model.popularity), len(moments), p=model.popularity / model.popularity.sum())
    swapped = replace(moments, sequences=moments.sequences.swapped(place, items))
    return _credit_at(model, swapped, place, candidates)


def _credit_at(model: Model, moments: Moments, place: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return the credits of each moment's event at this place, (N, C); zero where the model does not read it."""
    credits = model.credits(moments, candidates)
    is_it = credits.place == place[credits.owner]
    found = np.zeros(candidates.shape)
    found[credits.owner[is_it]] = credits.credit[is_it]
    return found
