"""A ledger to how influence changes: its size window by window, where it breaks, how long it lasts, and by cohort."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influent.data.clock import UNITS_US, iso, span_us, window_starts
from influent.data.sequences import Sequences
from influent.errors import ConfigError, DataError, UnknownIdError, nearest
from influent.influence.changes import MIN_USERS, Change, Series, find_changes
from influent.influence.half_life import half_lives
from influent.influence.ledger import Ledger
from influent.influence.levels import EventCredits, Factor, read_factors
from influent.influence.resampling import N_RESAMPLES, Resampling, interval, null_if_nan, ratio
from influent.models.model import Model
from influent.settings import check_type

_MAX_WINDOWS = 120

EVERYTHING = "all"
"""The factor, and its only level, of all credits together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drift:
    """How influence changed.

    Attributes:
        windows: one row per level of a factor and window of time.
        cohorts: one row per window of users' first events and window of time; None without sequences.
        half_lives: per action, from the ledger and from the model's kernels.
        changes: where a level changes; see `influent.influence.changes.Change`. Windows count from `starts_us[0]`.
        untested: factor and level of what could not be looked at for changes, for want of users on both sides of one.
        starts_us: when each window begins.
        about: ledger, window, the alarm's rate.
    """

    windows: pa.Table
    cohorts: pa.Table | None
    half_lives: pa.Table
    changes: tuple[Change, ...]
    untested: tuple[tuple[str, str], ...]
    starts_us: np.ndarray
    about: dict[str, Any]

    @property
    def is_alarm(self) -> bool:
        """Return whether anything changed: the alarm, which a log without change raises at its rate at most."""
        return len(self.changes) > 0

    def verdict(self) -> str:
        """Return in a sentence what was found where there is no alarm, and what could not be looked at."""
        n_levels = self.windows.group_by(["factor", "level"]).aggregate([]).num_rows
        need = f"it takes {MIN_USERS} users with credits before a change and as many after it"
        if len(self.untested) == n_levels:
            return f"Whether anything changes could not be tested: {need}."
        found = "" if self.is_alarm else "The size of credits changes by no more than chance explains. "
        if not self.untested:
            return found.strip()
        left_out = ", ".join("all events" if f == EVERYTHING else f"{f} {level}" for f, level in self.untested)
        return f"{found}Not tested: {left_out}; {need}."

    def of(self, factor: str, level: str) -> list[dict[str, Any]]:
        """Return the windows of one level, in order.

        Raises:
            UnknownIdError: it was not looked at.
        """
        rows = [row for row in self.windows.to_pylist() if (row["factor"], row["level"]) == (factor, level)]
        if not rows:
            known = [f"{row['factor']} {row['level']}" for row in self._levels()]
            asked = f"{factor} {level}"
            raise UnknownIdError(f"{asked!r} was not looked at.{nearest(asked, known)} There are: {', '.join(known)}.")
        return rows

    def _levels(self) -> list[dict[str, Any]]:
        return list(self.windows.group_by(["factor", "level"], use_threads=False).aggregate([]).to_pylist())

    def change_rows(self) -> list[dict[str, Any]]:
        """Return the changes with times instead of windows."""
        rows = []
        for change in self.changes:
            factor, level = json.loads(change.series)
            row = {"factor": factor, "level": level, **asdict(change)}
            del row["series"]
            for name, window in (("at", "window"), ("from", "low"), ("to", "high")):
                row[name] = iso(int(self.starts_us[row.pop(window)]))
            rows.append(row)
        return rows

    def to_json(self) -> str:
        """Return what `drift.json` holds."""
        content = {
            "about": self.about,
            "alarm": self.is_alarm,
            "changes": self.change_rows(),
            "untested": self.untested,
        }
        return json.dumps(content, indent=2) + "\n"

    def save(self, folder: Path) -> None:
        """Write `drift.parquet`, `half_lives.parquet`, `cohorts.parquet`, `drift.json` and the page `drift.html`."""
        from influent.influence.drift_page import drift_page

        pq.write_table(self.windows, folder / "drift.parquet", compression="zstd")
        pq.write_table(self.half_lives, folder / "half_lives.parquet", compression="zstd")
        if self.cohorts is not None:
            pq.write_table(self.cohorts, folder / "cohorts.parquet", compression="zstd")
        (folder / "drift.json").write_text(self.to_json())
        (folder / "drift.html").write_text(drift_page(self))


def drift(
    ledger: Ledger,
    *,
    sequences: Sequences | None = None,
    model: Model | None = None,
    by: Sequence[str] = ("action",),
    window: str = "7d",
    false_alarms: float = 0.02,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Drift:
    """Say whether credits become larger or smaller as time goes by, where, and how fast an event's influence fades.

    Windows are of the calendar, in UTC: of a week they begin on Monday. A credit belongs to the window of its
    prediction's moment. `index` is the sum of |credit| over the sum that one would expect if each credit were the mean
    of its level at its lag and gap in the whole ledger (indirect standardisation), so that histories that grow longer
    are no change; it is 1 throughout where nothing changes. Changes are looked for in it, for all levels together: see
    `influent.influence.changes.find_changes`. The alarm is raised by any change.

    Args:
        ledger: a full one, without `top`, of predictions over some time; `split_at` and `each_moment` give such.
        sequences: the events that were explained; needed for cohorts and for factors that are not in the ledger.
        model: the model that was explained; if scores of its ranking are sums with kernels over gaps, half-lives come
            from these too.
        by: factors, as for `factors`; their levels are looked at beside all credits together.
        window: a number and s, m (minutes), h, d or w.
        false_alarms: how often a log in which nothing changes may raise the alarm. With a few hundred users it is
            raised a little more often than this; `benchmarks/results/drift.json` has what was measured.

    Raises:
        ConfigError: the log is order-only, there is no such factor, the model is not the one that was explained, or the
            window is longer than half of the time or cuts it into more than 120.
        DataError: the ledger is shortened, holds no credit of an event other than 0, or is of one user.
    """
    check_type("ledger", ledger, Ledger, "explain(model, moments)")
    if isinstance(false_alarms, bool) or not isinstance(false_alarms, float) or not 0.001 <= false_alarms <= 0.5:
        raise ConfigError(f"'false_alarms' must be a number in [0.001, 0.5]. Got {false_alarms!r}.")
    window_us, note = span_us(window), ledger.note
    if model is not None and (model.name, model.fitted_on) != (note.model, note.fitted_on):
        raise ConfigError(
            f"the ledger is of another model ({note.model}) than this ({model.name}), or of other training events. "
            f"Give the one that was explained, or none."
        )
    if note.head != "ranking" or getattr(model, "exactness", "exact") == "estimated":
        model = None  # it has no kernels of what was explained
    credits = EventCredits.of(ledger)
    if not credits.credit.any():
        raise DataError("all credits are 0: there is nothing that could change.")
    place, starts_us = _windows(credits.moment_us, window, window_us)
    draws = Resampling.of(credits.n_users, n_resamples=n_resamples, seed=seed)
    everything = np.zeros(len(credits), np.int64)
    chosen = [Factor(name=EVERYTHING, levels=(EVERYTHING,), code=everything, is_ordered=True)]
    chosen += read_factors(credits, sequences, by) if by else []
    window_of = place[credits.prediction]
    tables, series = [], {}
    for factor in chosen:
        expected = _expected(credits, factor.code)
        sums = _sums(credits, draws, factor.code, len(factor), window_of, len(starts_us), expected)
        labels = {"factor": [factor.name] * len(factor), "level": list(factor.levels)}
        tables.append(_table(labels, sums, draws, starts_us))
        for nth, level in enumerate(factor.levels):
            series[json.dumps([factor.name, level])] = Series(sums["expected"][:, nth], sums["size"][:, nth])
    [action] = read_factors(credits, None, ["action"])
    changes, untested = find_changes(series, draws, rate=false_alarms, seed=seed)
    about = ledger.about()
    about |= {"window": window, "false_alarms": false_alarms, "n_resamples": n_resamples, "resampling_seed": seed}
    return Drift(
        windows=pa.concat_tables(tables),
        cohorts=None if sequences is None else _cohorts(credits, sequences, draws, window_of, starts_us),
        half_lives=half_lives(credits, action, draws, sequences=sequences, model=model, seed=seed),
        changes=tuple(changes),
        untested=tuple((factor, level) for factor, level in map(json.loads, untested)),
        starts_us=starts_us,
        about=about,
    )


def _windows(moment_us: np.ndarray, window: str, window_us: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the window of each moment, from 0, and when each window begins."""
    start_us = window_starts(moment_us, window_us)
    n_windows = int(np.ptp(start_us)) // window_us + 1
    length_us = int(np.ptp(moment_us))
    if length_us == 0:
        raise ConfigError(
            f"all predictions of this ledger are at one moment, {iso(moment_us.min())}, and drift is over time. "
            "Explain several: labels of several cutoffs, or a split by time (split_at) with its test events."
        )
    if 2 * window_us > length_us:
        raise ConfigError(
            f"the window {window!r} is longer than half of the time that the ledger is about, from "
            f"{iso(moment_us.min())} to {iso(moment_us.max())}. Take a shorter one, or explain more moments."
        )
    if n_windows > _MAX_WINDOWS:
        shortest = -(-length_us // _MAX_WINDOWS) // UNITS_US["h"] + 1
        raise ConfigError(
            f"the window {window!r} cuts the ledger's time into {n_windows:,}, and {_MAX_WINDOWS} are enough to read. "
            f"Take a longer one: '{shortest}h'."
        )
    starts_us = start_us.min() + np.arange(n_windows) * window_us
    return (start_us - starts_us[0]) // window_us, starts_us


def _expected(credits: EventCredits, code: np.ndarray) -> np.ndarray:
    """Return the mean |credit| of each credit's level, lag bucket and doubling of the gap, float64 (N,)."""
    [lag] = read_factors(credits, None, ["lag"])
    gap = np.log2(1 + np.maximum(credits.gap_us, 0) / 1e6).astype(np.int64)
    cell = (code * len(lag) + lag.code) * (gap.max() + 1) + gap
    return np.asarray(ratio(np.bincount(cell, np.abs(credits.credit)), np.bincount(cell))[cell])


def _sums(
    credits: EventCredits,
    draws: Resampling,
    code: np.ndarray,
    n_levels: int,
    window: np.ndarray,
    n_windows: int,
    expected: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return sums of the groups of users by level and window, float64 (G, L, W) each."""
    cell, user = code * n_windows + window, credits.user_of_credit
    values = {"count": None, "size": np.abs(credits.credit), "signed": credits.credit, "expected": expected}
    shape = draws.n_groups, n_levels, n_windows
    return {name: draws.sums(user, cell, n_levels * n_windows, one).reshape(shape) for name, one in values.items()}


def _table(
    labels: dict[str, list[Any]], sums: dict[str, np.ndarray], draws: Resampling, starts_us: np.ndarray
) -> pa.Table:
    """Return a row for each level and window that has credits."""
    count = sums["count"].sum(axis=0)
    level, window = np.nonzero(count)
    columns: dict[str, Any] = {name: [values[place] for place in level] for name, values in labels.items()}
    columns["window_start_us"] = starts_us[window]
    columns["n_credits"] = count[level, window].astype(np.int64)
    measures = {"mean_abs_credit": ("size", "count"), "mean_credit": ("signed", "count"), "index": ("size", "expected")}
    there = {name: (one[:, level, window], draws.draw(one[:, level, window])) for name, one in sums.items()}
    for name, (of, per) in measures.items():
        low, high = interval(ratio(there[of][1], there[per][1]), (there["count"][0] > 0).sum(axis=0))
        value = ratio(there[of][0].sum(axis=0), there[per][0].sum(axis=0))
        columns |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return pa.table({name: null_if_nan(values) for name, values in columns.items()})


def _cohorts(
    credits: EventCredits,
    sequences: Sequences,
    draws: Resampling,
    window: np.ndarray,
    starts_us: np.ndarray,
) -> pa.Table:
    """Return a row for each cohort and window: users whose first event lies in one window, over time."""
    assert sequences.time_us is not None
    idx = sequences.vocab.users.to_idx(credits.users)
    # Who has no event has no credit either, and is in no cohort that is shown.
    has_events = sequences.n_events_of(idx) > 0
    first_us = np.where(has_events, sequences.time_us[np.where(has_events, sequences.offsets[idx], 0)], starts_us[0])
    length_us = int(starts_us[1] - starts_us[0])
    of_user = (first_us - starts_us[0]) // length_us
    # Users who came long before the ledger begins are one cohort.
    of_user = np.maximum(of_user, len(starts_us) - _MAX_WINDOWS)
    cohort, code = np.unique(of_user, return_inverse=True)
    expected = _expected(credits, np.zeros(len(credits), np.int64))
    sums = _sums(credits, draws, code[credits.user_of_credit], len(cohort), window, len(starts_us), expected)
    return _table({"cohort_start_us": (cohort * length_us + starts_us[0]).tolist()}, sums, draws, starts_us)
