"""What comes next and when: one model on one set of event streams, in a process of its own.

Usage: python -m benchmarks.times SET MODEL [--seed N]

SET is one of `SETS`; MODEL is `additive`, a black box (`gru`), the peer (`hawkes`), or `constant`.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import influent
from benchmarks.common import data_set, measured_on, write_result
from benchmarks.hawkes import choose_decays
from influent.evaluation.times import ConstantRate, NextEventModel

N_STOP = 4000
"""Validation moments that decide when to stop, evenly spaced among all: an epoch is judged in seconds."""


@dataclass(frozen=True, kw_only=True)
class Streams:
    """A set, how its users are split, and what the models are told about it."""

    split: Callable[[], influent.Split]
    unit_s: float
    """The unit of time that figures are given in, which is the source's"""
    model: dict[str, Any] = field(default_factory=dict)
    """Settings of the additive model that are not the defaults"""
    train: dict[str, Any] = field(default_factory=dict)
    box: dict[str, Any] = field(default_factory=dict)
    """Settings of the black boxes that are not the defaults"""
    box_train: dict[str, Any] = field(default_factory=dict)


def _build(user: np.ndarray, item: pa.Array, seconds: np.ndarray) -> influent.Sequences:
    """Return sequences of types, with nothing dropped: two equal rows are two events."""
    log = pa.table({"user_id": user, "item_id": item, "time_us": np.round(seconds * 1e6).astype(np.int64)})
    return influent.build_sequences(influent.clean(influent.read_events(log), drop_duplicates=False))


def _badges() -> influent.Split:
    """Test is the first of the published test folds; validation a tenth of the other users."""
    log = pq.read_table(data_set("stackoverflow-badges") / "events.parquet")
    user, folds = log.column("user_id").to_numpy(), log.column("folds").to_pylist()
    in_first = np.unique(user[["1" in fold.split(",") for fold in folds]])
    sequences = _build(user, log.column("item_id"), log.column("t_exact").to_numpy())
    return influent.split_users(sequences, test=in_first.tolist(), validation=0.07)


def _easytpp(name: str, time_s: Callable[[pa.Table], np.ndarray]) -> influent.Split:
    """Return the split that the benchmark published."""
    log = pq.read_table(data_set(name) / "events.parquet")
    user, part = log.column("user_id").to_numpy(), np.array(log.column("split").to_pylist())
    of = {name: np.unique(user[part == name]).tolist() for name in ("dev", "test")}
    sequences = _build(user, log.column("item_id"), time_s(log))
    return influent.split_users(sequences, validation=of["dev"], test=of["test"])


def _summed_gaps(log: pa.Table) -> np.ndarray:
    """Return the times whose differences are the benchmark's `dt`, in seconds.

    In train and dev, but not in test, 8 % of the differences of `t_rel` are longer than `dt`, which stays below
    20,000 seconds: the benchmark took long breaks out of one of the two. `dt` is what its models are judged by.
    """
    user, dt = log.column("user_id").to_numpy(), log.column("dt").to_numpy().copy()
    is_first = np.concatenate([[True], np.diff(user) != 0])
    start = log.column("t_rel").to_numpy()[is_first]
    total = np.cumsum(dt)
    n_events = np.diff(np.append(np.flatnonzero(is_first), len(user)))
    return np.asarray((total - np.repeat(total[is_first] - start, n_events)) * 10_000)


SETS = {
    "stackoverflow-badges": Streams(split=_badges, unit_s=86_400.0),
    "tpp-taobao": Streams(split=lambda: _easytpp("tpp-taobao", _summed_gaps), unit_s=10_000.0),
    "tpp-taxi": Streams(
        split=lambda: _easytpp("tpp-taxi", lambda log: log.column("t_rel").to_numpy() * 3600), unit_s=3600.0
    ),
}
