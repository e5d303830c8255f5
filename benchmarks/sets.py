"""Data sets to splits, and the settings that validation chose for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

import influent
from benchmarks.common import data_set

DAMPED = {"popularity_power": 0.3, "reverse": 0.5, "decay": 0.7}
PLAIN = {"popularity_power": 0.0, "reverse": 0.0, "decay": 0.5}
"""Settings of decayed counts: dense logs want the popular damped, sparse ones do not."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A log, how it is split, and what the models are told about it."""

    split: Callable[[], influent.Split]
    model: dict[str, Any] = field(default_factory=dict)
    """Settings of the additive model that are not the defaults"""
    train: dict[str, Any] = field(default_factory=dict)
    box: dict[str, Any] = field(default_factory=dict)
    """Settings of the black boxes that are not the defaults"""
    counts: dict[str, Any] = field(default_factory=lambda: DAMPED)
    peer: dict[str, Any] = field(default_factory=dict)


def _last(name: str) -> influent.Split:
    return influent.split_last(_build(data_set(name) / "events.parquet"))


def _build(log: Any, **rules: Any) -> influent.Sequences:
    return influent.build_sequences(influent.clean(influent.read_events(log), **rules))


def _movielens_1m() -> influent.Sequences:
    """Ratings of four or five stars by users with at least five of them, in the order of time."""
    events = pq.read_table(data_set("movielens-1m") / "events.parquet")
    return _build(events.filter(pc.greater_equal(events.column("value"), 4)), min_user_events=5)


_SPARSE = {"max_len": 50, "count_popularity_power": 0.0, "count_reverse": 0.0}

BENCHMARKS = {
    "movielens-100k": Benchmark(split=lambda: _last("movielens-100k"), peer={"session_max_len": 100}),
    "movielens-1m": Benchmark(
        split=lambda: influent.split_last(_movielens_1m()), box={"max_len": 100}, peer={"session_max_len": 100}
    ),
    "movielens-1m-by-time": Benchmark(split=lambda: influent.split_at(_movielens_1m(), 0.9, target="last")),
    "amazon-beauty": Benchmark(split=lambda: _last("amazon-beauty"), model=_SPARSE, counts=PLAIN),
    "amazon-sports": Benchmark(split=lambda: _last("amazon-sports"), model=_SPARSE, counts=PLAIN),
    "amazon-toys": Benchmark(split=lambda: _last("amazon-toys"), model=_SPARSE, counts=PLAIN),
}
