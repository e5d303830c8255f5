"""Journeys to which channel the outcomes are put down to: by the ledger and by six rules, side by side, and what if.

Shapes: J journeys, N touches, C channels, G groups of users, R resamples.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influent.data.clock import span_us
from influent.errors import UnknownIdError
from influent.influence.journeys import Journeys
from influent.influence.resampling import N_RESAMPLES, Resampling, interval, null_if_nan, ratio
from influent.settings import check_type

RULES = ("first_touch", "last_touch", "linear", "time_decay", "position", "markov")
"""What stands beside the ledger."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """Outcomes by channel.

    Attributes:
        table: one row per channel and method: `outcomes`, which add up to the number of outcomes for each method.
        what_if: one row per channel: what the model says if no event of it had been there.
        paths: see `Journeys.paths`.
        lags: see `Journeys.lags`.
        about: ledger, outcome, how many, the largest differences.
    """

    table: pa.Table
    what_if: pa.Table
    paths: pa.Table
    lags: pa.Table
    about: dict[str, Any]

    @property
    def methods(self) -> list[str]:
        """Return `ledger` and the rules."""
        return list(self.table.column("method").unique().to_pylist())

    def of(self, method: str) -> dict[str, dict[str, Any]]:
        """Return one method's rows, by channel.

        Raises:
            UnknownIdError: there is no such method.
        """
        if method not in self.methods:
            raise UnknownIdError(f"there is no method {method!r}. There are: {', '.join(self.methods)}.")
        return {row["channel"]: row for row in self.table.to_pylist() if row["method"] == method}

    def disagreements(self) -> list[dict[str, Any]]:
        """Return for each channel which methods put the most and the fewest outcomes down to it, the widest first."""
        rows = []
        for channel in self.table.column("channel").unique().to_pylist():
            known = {m: self.of(m)[channel]["outcomes"] for m in self.methods}
            known = {method: value for method, value in known.items() if value is not None}
            most, fewest = max(known, key=lambda m: known[m]), min(known, key=lambda m: known[m])
            rows.append({"channel": channel, "most": most, "fewest": fewest, "difference": known[most] - known[fewest]})
        return sorted(rows, key=lambda row: -row["difference"])

    def to_json(self) -> str:
        """Return what `attribution.json` holds."""
        return json.dumps({"about": self.about, "disagreements": self.disagreements()}, indent=2) + "\n"

    def save(self, folder: Path) -> None:
        """Write `attribution.json` and `attribution`, `what_if`, `paths` and `outcome_lags` as Parquet."""
        tables = {"attribution": self.table, "what_if": self.what_if, "paths": self.paths, "outcome_lags": self.lags}
        for name, table in tables.items():
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        (folder / "attribution.json").write_text(self.to_json())


def attribute(found: Journeys, *, half_life: str = "7d", n_resamples: int = N_RESAMPLES, seed: int = 0) -> Attribution:
    """Put outcomes down to channels, by the model's credits and by what needs no model.

    Every touch of a journey counts, also repeats, in the order in which they came. Each method's outcomes add up to the
    number of outcomes:

    - `ledger`: the credits of a channel in the journeys that end in the outcome, with their signs: a negative one is
      shown and not cut off. They are scaled by one number for all channels; where credits add up to nothing or less,
      this cannot be done and outcomes are null.
    - `first_touch`, `last_touch`, `linear`: all to one touch, or the same to each.
    - `time_decay`: by half for every `half_life` between touch and outcome; null in an order-only log.
    - `position`: 40 % to the first, 40 % to the last, 20 % among those between; of two touches half each.
    - `markov`: a first-order chain with a state for each channel, in which a repeat is a step from a state to itself,
      and journeys without outcome end in another state. By how much the chance of the outcome falls if a channel leads
      nowhere (removal effect: Anderl et al. 2016, https://doi.org/10.1016/j.ijresmar.2016.03.001), scaled.

    What if: the credits of a channel's events are taken from the scores of all journeys. Of a model with exact credits
    this is what it would say with these events masked. Where scores are logits of the outcome, `expected_outcomes` is
    the sum of their probabilities. None of this is an effect.

    Args:
        half_life: of `time_decay`: a number and s, m (minutes), h, d or w.

    Raises:
        DataError: the journeys are of one user, so that there is no interval.
        ConfigError: `half_life` is no span of time.
    """
    check_type("found", found, Journeys, "journeys(ledger, sequences, outcome=...)")
    half_life_us = span_us(half_life)
    draws = Resampling.of(found.n_users, n_resamples=n_resamples, seed=seed)
    tables = []
    for method in ("ledger", *RULES):
        outcomes, drawn, credit = _outcomes(found, draws, method, half_life_us)
        low, high = interval(drawn)
        tables.append(
            pa.table(
                {
                    "channel": list(found.channels),
                    "method": [method] * len(found.channels),
                    "outcomes": null_if_nan(outcomes),
                    "low": null_if_nan(low),
                    "high": null_if_nan(high),
                    "share": null_if_nan(outcomes / found.n_outcomes),
                    "credit": null_if_nan(credit),
                }
            )
        )
    touches = np.diff(found.offsets)[found.is_outcome]
    about = found.about | {
        "outcome": found.outcome,
        "by": found.by,
        "n_outcomes": found.n_outcomes,
        "n_journeys": len(found),
        "median_touches": float(np.median(touches)),
        "half_life": half_life,
        "n_resamples": n_resamples,
        "seed": seed,
    }
    return Attribution(
        table=pa.concat_tables(tables),
        what_if=_what_if(found, draws),
        paths=found.paths(),
        lags=found.lags(),
        about=about,
    )


def _outcomes(
    found: Journeys, draws: Resampling, method: str, half_life_us: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a method's outcomes by channel, (C,), in each resample, (R, C), and the sum of credits, (C,)."""
    n_channels, credit = len(found.channels), np.full(len(found.channels), np.nan)
    if method == "markov":
        sums = _steps(found, draws)
        share, drawn = _removal_shares(sums.sum(axis=0)[None])[0], _removal_shares(draws.draw(sums))
        return share * found.n_outcomes, drawn * found.n_outcomes, credit
    weight = found.credit if method == "ledger" else _rule(found, method, half_life_us)
    counts = found.is_outcome[found.owner]
    sums = draws.sums(found.user[found.owner][counts], found.channel[counts], n_channels, weight[counts])
    total, drawn = sums.sum(axis=0), draws.draw(sums)
    if method == "ledger":
        credit = total
    return _scaled(total) * found.n_outcomes, _scaled(drawn) * found.n_outcomes, credit


def _scaled(total: np.ndarray) -> np.ndarray:
    """Return shares of their sum, (…, C); NaN where that is not above zero."""
    whole = total.sum(axis=-1, keepdims=True)
    return ratio(total, np.where(whole > 0, whole, 0.0))


def _rule(found: Journeys, method: str, half_life_us: int) -> np.ndarray:
    """Return what part of its journey's outcome each touch gets, (N,); of each journey it adds up to 1."""
    owner, lengths = found.owner, np.diff(found.offsets)
    place = np.arange(len(owner)) - found.offsets[owner]
    is_first, is_last = place == 0, place == lengths[owner] - 1
    match method:
        case "first_touch":
            weight = is_first.astype(float)
        case "last_touch":
            weight = is_last.astype(float)
        case "linear":
            weight = np.ones(len(owner))
        case "time_decay":
            # From the latest touch on, so that long journeys do not vanish.
            since_last = found.since_us - found.since_us[found.offsets[1:] - 1][owner]
            weight = 2.0 ** (-since_last / half_life_us)
        case _:
            between = 0.2 / np.maximum(lengths[owner] - 2, 1)
            weight = np.where(is_first | is_last, 0.4, between)
    return np.asarray(weight / np.bincount(owner, weight)[owner])


def _steps(found: Journeys, draws: Resampling) -> np.ndarray:
    """Return how often users of each group go from state to state, (G, C + 1, C + 2).

    From: the channels, and the start. To: the channels, the outcome, and the end without it.
    """
    n = len(found.channels)
    before = np.append(n, found.channel[:-1])
    before[found.offsets[:-1]] = n
    last = found.channel[found.offsets[1:] - 1]
    ends = last * (n + 2) + np.where(found.is_outcome, n, n + 1)
    code = np.concatenate([before * (n + 2) + found.channel, ends])
    user = np.concatenate([found.user[found.owner], found.user])
    return draws.sums(user, code, (n + 1) * (n + 2)).reshape(draws.n_groups, n + 1, n + 2)


def _removal_shares(steps: np.ndarray) -> np.ndarray:
    """Return each channel's removal effect over the sum of all, (R, C), from steps (R, C + 1, C + 2)."""
    n = steps.shape[1] - 1
    chance = np.nan_to_num(ratio(steps, steps.sum(axis=2, keepdims=True)))
    # The start is never gone back to, so what follows from it is one step.
    inner, start, ends = chance[:, :n, :n], chance[:, n, :n], chance[:, :n, n]
    whole = _chance_of_outcome(inner, start, ends)
    without = np.empty((len(steps), n))
    for channel in range(n):
        cut_inner, cut_ends = inner.copy(), ends.copy()
        cut_inner[:, channel], cut_ends[:, channel] = 0.0, 0.0
        without[:, channel] = _chance_of_outcome(cut_inner, start, cut_ends)
    return _scaled(1 - ratio(without, whole[:, None]))


def _chance_of_outcome(inner: np.ndarray, start: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the chance that the chain ends in the outcome, (R,)."""
    reached = np.linalg.solve(np.eye(inner.shape[1]) - inner, ends[..., None])[..., 0]
    return np.asarray(np.einsum("rc,rc->r", start, reached))


def _what_if(found: Journeys, draws: Resampling) -> pa.Table:
    """Return what the model says without each channel's events."""
    n = len(found.channels)
    taken = np.bincount(found.owner * n + found.channel, found.credit, len(found) * n).reshape(len(found), n)
    everyone = np.zeros(len(found), np.int64)

    def change(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sums = np.concatenate([draws.sums(found.user, everyone, 1, one) for one in values.T], axis=1)
        return (sums.sum(axis=0), *interval(draws.draw(sums)))

    columns: dict[str, Any] = {"channel": list(found.channels)}
    columns["n_events"] = np.bincount(found.channel, minlength=n)
    for name, values in (("score_change", -taken), ("outcome_change", _probability_change(found, taken))):
        total, low, high = change(values)
        columns |= {name: null_if_nan(total), f"{name}_low": null_if_nan(low), f"{name}_high": null_if_nan(high)}
    expected = float(_probability(found.score).sum()) if found.is_logit else None
    columns["expected_outcomes"] = pa.array([expected] * n, pa.float64())
    return pa.table(columns)


def _probability_change(found: Journeys, taken: np.ndarray) -> np.ndarray:
    if not found.is_logit:
        return np.full(taken.shape, np.nan)
    return np.asarray(_probability(found.score[:, None] - taken) - _probability(found.score)[:, None])


def _probability(logit: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + np.tanh(logit / 2)))
