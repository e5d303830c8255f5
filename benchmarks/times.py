"""What comes next and when: one model on one set of event streams, in a process of its own.

Usage: python -m benchmarks.times SET MODEL [--seed N]

SET is one of `SETS`; MODEL is `additive`, a black box (`gru`), the peer (`hawkes`), or `constant`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import influent
from benchmarks.common import data_set, measured_on, peak_memory_mib, set_and_model, write_result
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
    """Return sequences of types, with nothing dropped: two equal rows are two events.

    Every event carries the time since its user's event before it, as numbers of the log: black boxes read nothing
    else of time.
    """
    log = pa.table({"user_id": user, "item_id": item, "time_us": np.round(seconds * 1e6).astype(np.int64)})
    gap_s = np.where(np.diff(user, prepend=-1) == 0, np.diff(seconds, prepend=0), np.nan)
    for name, column in _hats(gap_s).items():
        log = log.append_column(name, pa.array(column, from_pandas=True))
    events = influent.clean(influent.read_events(log), drop_duplicates=False)
    return influent.build_sequences(events, numbers=[name for name in log.column_names if name.startswith("gap")])


def _hats(gap_s: np.ndarray) -> dict[str, np.ndarray]:
    """Return how close each gap is to e^0, e^2, … e^18 seconds: 1 at the knot, 0 at the next, linear in log(1 + gap).

    A sum that is linear in these is piecewise linear in the logarithm of the gap.
    """
    place = np.log1p(gap_s) / 2
    return {f"gap_{knot}": np.maximum(1 - np.abs(place - knot), 0) for knot in range(10)}


def _badges() -> influent.Split:
    """Test is the first of the published test folds; validation a tenth of the other users."""
    log = pq.read_table(data_set("stackoverflow-badges") / "events.parquet")
    user, folds = log.column("user_id").to_numpy(), log.column("folds").to_pylist()
    is_test = np.array(["1" in fold.split(",") for fold in folds])
    sequences = _build(user, log.column("item_id"), log.column("t_exact").to_numpy())
    others = np.unique(user[~is_test])
    return influent.split_users(sequences, test=np.unique(user[is_test]).tolist(), validation=others[::10].tolist())


def _easytpp(name: str, time_s: Callable[[pa.Table], np.ndarray]) -> influent.Split:
    """Return the split that the benchmark published."""
    log = pq.read_table(data_set(name) / "events.parquet")
    user, part = log.column("user_id").to_numpy(), np.array(log.column("split").to_pylist())
    sequences = _build(user, log.column("item_id"), time_s(log))
    dev, test = (np.unique(user[part == one]).tolist() for one in ("dev", "test"))
    return influent.split_users(sequences, validation=dev, test=test)


def _summed_gaps(log: pa.Table) -> np.ndarray:
    """Return the times whose differences are the benchmark's `dt`, in seconds.

    In train and dev, but not in test, 8 % of the differences of `t_rel` are longer than `dt`, which stays below
    20,000 seconds: somebody took long breaks out of one of the two. `dt` is what models are judged by.
    """
    user, dt = log.column("user_id").to_numpy(), log.column("dt").to_numpy()
    is_first = np.diff(user, prepend=-1) != 0
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(user)), 0))
    total = np.cumsum(dt)
    return np.asarray((log.column("t_rel").to_numpy()[first] + total - total[first]) * 10_000)


_QUICK = {"seen": "keep", "batch_size": 16, "schedule": "cosine", "epochs": 40, "patience": 40}

SETS = {
    "stackoverflow-badges": Streams(split=_badges, unit_s=86_400.0),
    "tpp-taobao": Streams(split=lambda: _easytpp("tpp-taobao", _summed_gaps), unit_s=10_000.0),
    "tpp-taxi": Streams(
        split=lambda: _easytpp("tpp-taxi", lambda log: log.column("t_rel").to_numpy() * 3600), unit_s=3600.0
    ),
}


def predictor(name: str, streams: Streams, seed: int) -> influent.Predictor:
    """Return a model that learns by gradient, with the set's settings."""
    own, train = (streams.model, streams.train) if name == "additive" else (streams.box, streams.box_train)
    return influent.Predictor(
        task=["time", "ranking"],
        model=influent.ModelConfig.from_dict({"backbone": name, **own}),
        train=influent.TrainConfig(seed=seed, **{**_QUICK, **train}),
    )


def run(set_name: str, name: str, seed: int) -> None:
    """Fit and judge, and write the result."""
    streams, about = SETS[set_name], measured_on()
    split = streams.split()
    about |= {
        "set": set_name,
        "protocol": split.protocol,
        "split": split.hash,
        "unit_s": streams.unit_s,
        "n_events": len(split.test.sequences),
        "n_types": split.train.vocab.n_items,
    }
    started = time.perf_counter()
    models: Sequence[NextEventModel]
    row: dict[str, Any] = {"model": name}
    if name == "constant":
        models = [ConstantRate.of(split.train)]
    elif name == "hawkes":
        hawkes, tried = choose_decays(split.train, split.validation)
        models = [hawkes, hawkes.at_known_time()]
        row |= {"decays_per_s": hawkes.decay_D.tolist(), "validation_log_likelihood_per_s": tried}
    else:
        model = predictor(name, streams, seed)
        some = np.unique(np.linspace(0, len(split.validation) - 1, N_STOP).astype(np.int64))
        model.fit(split.train, split.validation.take(some), progress=influent.progress_for(sys.stderr))
        models = [model]
        row |= {"seed": seed, "settings": model.settings(), "exactness": model.exactness}
        row |= {"epochs": model.log.epochs, "best_epoch": model.log.best_epoch}
    row["fit_seconds"] = round(time.perf_counter() - started, 1)
    row["validation"] = judged(models, split.validation, split, streams.unit_s)
    row["test"] = judged(models, split.test, split, streams.unit_s)
    row["peak_memory_mib"] = peak_memory_mib()
    write_result(f"{set_name}/{name}" + (f"-{seed}" if "seed" in row else ""), {**about, **row})


def judged(
    models: Sequence[NextEventModel], moments: influent.Moments, split: influent.Split, unit_s: float
) -> dict[str, Any]:
    """Return the figures with intervals; those of the peer when it sees the time are named so."""
    report = influent.evaluate_times(models, moments, unit_s=unit_s, protocol=split.protocol, split=split.hash)
    print(report.to_markdown(), flush=True)
    found = {name: asdict(measure) for name, measure in report.rows[models[0].name].items()}
    for other in models[1:]:
        found |= {f"{name}, {other.name}": asdict(measure) for name, measure in report.rows[other.name].items()}
    return found


if __name__ == "__main__":
    asked = set_and_model(__doc__, SETS).parse_args()
    run(asked.set, asked.model, asked.seed)
