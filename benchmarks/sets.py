"""Data sets to splits, and the settings that validation chose for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import influent
from benchmarks.common import data_set, some_of

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
    box_train: dict[str, Any] = field(default_factory=dict)
    attention: dict[str, Any] = field(default_factory=dict)
    """Further ones of those with attention"""
    attention_train: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=lambda: DAMPED)
    peer: dict[str, Any] = field(default_factory=dict)
    text: Callable[[influent.Split], influent.ItemVectors] | None = None
    """Vectors of the items' text, for `additive-text`"""


def _last(name: str) -> influent.Split:
    return influent.split_last(_build(data_set(name) / "events.parquet"))


def _by_users(name: str) -> influent.Split:
    """Leave a sixth of the users out for test, another for validation, and judge a sample of their moments."""
    whole = influent.split_users(_build(data_set(name) / "events.parquet"), test=0.16, validation=0.16)
    return replace(whole, validation=some_of(whole.validation, 2000), test=some_of(whole.test, 4000))


def _build(log: Any, items: influent.Features | None = None, **rules: Any) -> influent.Sequences:
    return influent.build_sequences(influent.clean(influent.read_events(log), **rules), items=items)


def _movielens_1m() -> influent.Sequences:
    """Ratings of four or five stars by users with at least five of them, in the order of time."""
    events = pq.read_table(data_set("movielens-1m") / "events.parquet")
    liked = events.filter(pc.greater_equal(events.column("value"), 4))
    items = influent.read_items(data_set("movielens-1m") / "items.parquet")
    return _build(liked, items=items, min_user_events=5)


def _titles(split: influent.Split) -> influent.ItemVectors:
    return _reduced(influent.encode_items(split.train.vocab, columns=("title", "category"), max_tokens=32))


def _instruments() -> influent.Split:
    return _last("amazon-musical-instruments")


def _reviews(split: influent.Split) -> influent.ItemVectors:
    """Encode what training reviews say of an item: the summaries of its first three; later ones would tell."""
    log = pq.read_table(data_set("amazon-musical-instruments") / "events.parquet").column("summary").to_pylist()
    texts: dict[int, list[str]] = {}
    for event_id, item in sorted(zip(split.train.event_id.tolist(), split.train.item_idx.tolist(), strict=True)):
        texts.setdefault(item, []).append(log[event_id])
    ids = split.train.vocab.items.ids
    rows = {"item_id": ids, "text": [". ".join(texts.get(item, [])[:3]) or None for item in range(len(ids))]}
    features = influent.read_items(pa.table(rows))
    return _reduced(influent.encode_items(features, columns=("text",), max_tokens=64))


def _reduced(block: influent.ItemVectors) -> influent.ItemVectors:
    return influent.reduce_vectors(block, dim=64, method="whiten")


_SPARSE = {
    "max_len": 50,
    "count_popularity_power": 0.0,
    "count_reverse": 0.0,
    "tied": True,
    "event_dropout": 0.3,
    "sampled_above": 5000,
    "n_negatives": 8000,
}
_SPARSE_TRAIN = {
    "learning_rate": 0.005,
    "batch_size": 128,
    "weight_decay": 0.1,
    "average_epochs": 2.0,
    "patience": 4,
}
_SPARSE_BOX = {
    "max_len": 50,
    "tied": True,
    "embedding_dim": 128,
    "dropout": 0.5,
    "sampled_above": 5000,
    "n_negatives": 2048,
}
_SPARSE_BOX_TRAIN = {
    "learning_rate": 0.001,
    "batch_size": 256,
    "weight_decay": 0.1,
    "average_epochs": 2.0,
    "patience": 10,
}
"""Chosen on the validation events of Amazon Beauty, and used for the three Amazon sets alike."""

_AMAZON: dict[str, Any] = {
    "model": _SPARSE,
    "train": _SPARSE_TRAIN,
    "box": _SPARSE_BOX,
    "box_train": _SPARSE_BOX_TRAIN,
    "counts": PLAIN,
}

_ATTENTION: dict[str, Any] = {
    "attention": {"max_len": 100, "tied": True},
    "attention_train": {"learning_rate": 0.001, "patience": 25},
}
"""Chosen on the validation events of MovieLens-100K, where the peer's settings are the better ones for ours too, and
where validation goes on rising after ten epochs without a better one."""

_MOVIELENS_1M: dict[str, Any] = {
    "model": {"embedding_dim": 128, "n_heads": 8},
    "train": {"average_epochs": 2.0, "patience": 6},
    "box": {"max_len": 100},
    **_ATTENTION,
}
"""Of the additive model chosen on the validation events of the split that leaves the last event out."""

BENCHMARKS = {
    "movielens-100k": Benchmark(split=lambda: _last("movielens-100k"), **_ATTENTION, peer={"session_max_len": 100}),
    "movielens-100k-users": Benchmark(split=lambda: _by_users("movielens-100k"), **_ATTENTION),
    "movielens-1m": Benchmark(
        split=lambda: influent.split_last(_movielens_1m()),
        **_MOVIELENS_1M,
        # Nearly three times what the additive model takes in all.
        peer={"session_max_len": 100, "cpu_minutes": 85},
        text=_titles,
    ),
    "movielens-1m-by-time": Benchmark(
        split=lambda: influent.split_at(_movielens_1m(), 0.9, target="last"), **_MOVIELENS_1M
    ),
    "amazon-musical-instruments": Benchmark(split=_instruments, model={"max_len": 50}, text=_reviews),
    "amazon-beauty": Benchmark(split=lambda: _last("amazon-beauty"), **_AMAZON),
    "amazon-sports": Benchmark(split=lambda: _last("amazon-sports"), **_AMAZON),
    "amazon-toys": Benchmark(split=lambda: _last("amazon-toys"), **_AMAZON),
}
