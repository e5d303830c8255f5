"""Answers to questions about users and items, by one model on one set, in a process of its own.

Usage: python -m benchmarks.labels SET MODEL [--seed N]

SET is `mind-click` (is a shown article clicked, on the last day), `cdnow-churn` (no purchase in the last 26 weeks) or
`cdnow-value` (log1p of the dollars spent in them). MODEL is `logistic`, `ridge`, `boosting`, `additive`,
`additive-text` or `gru`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import influent
from benchmarks.common import data_set, measured_on, peak_memory_mib, set_and_model, write_result

CUTOFF = "1997-12-30"
HORIZON_DAYS = 182


def mind() -> influent.LabelSplit:
    """Return whether shown articles are clicked: trained before 13 November, judged on the 14th."""
    log = pq.read_table(data_set("mind-sample") / "events.parquet")
    # Clicks from before the log have an order and no time: they are put a second apart before its first day.
    first_day = pc.min(log["timestamp"]).as_py() // 86_400 * 86_400
    before = pc.add(pc.cast(log["pos"], pa.int64()), first_day - 10_000)
    when = pc.if_else(pc.is_null(log["timestamp"]), before, log["timestamp"])
    log = log.set_column(log.column_names.index("timestamp"), "timestamp", when)
    events = influent.clean(influent.read_events(log), drop_duplicates=False)
    items = influent.read_items(data_set("mind-sample") / "items.parquet")
    sequences = influent.build_sequences(events, items=items, numbers=[])
    labels = influent.of_events(sequences, positive="click", among=["click", "shown_not_clicked"])
    return influent.split_events_at(labels, "2019-11-14", validation="2019-11-13")


def cdnow(build: Any, **settings: Any) -> influent.LabelSplit:
    """Return a question about the last 26 weeks; the log is too short for earlier ones, so validation is by users."""
    log = influent.read_events(data_set("cdnow") / "events.parquet")
    events = influent.clean(log, drop_duplicates=False)
    sequences = influent.build_sequences(events, numbers=["value", "quantity"])
    asked = partial(build, sequences, horizon_days=HORIZON_DAYS, **settings)
    return influent.split_labels_at(asked, CUTOFF, validation_users=0.2)


SETS = {
    "mind-click": mind,
    "cdnow-churn": lambda: cdnow(influent.will_do, absent=True),
    "cdnow-value": lambda: cdnow(influent.amount_within, log=True),
}


def run(set_name: str, name: str, seed: int) -> None:
    """Fit and judge, and write the result."""
    build: Callable[[], influent.LabelSplit] = SETS[set_name]
    about, split = measured_on(), build()
    about |= {"set": set_name, "protocol": split.protocol, "split": split.hash, "n_questions": len(split.test)}
    started = time.perf_counter()
    row: dict[str, Any] = {"model": name}
    if name in ("logistic", "ridge", "boosting"):
        kinds = {
            "logistic": influent.LogisticRegression,
            "ridge": influent.RidgeRegression,
            "boosting": influent.GradientBoosting,
        }
        model: Any = kinds[name]().fit(split.train, split.validation)
    else:
        backbone, _, text = name.partition("-")
        width = {"embedding_dim": 32, "max_len": 50}
        settings = influent.ModelConfig.from_dict({"backbone": backbone, **width})
        train = influent.TrainConfig(seed=seed, batch_size=256, learning_rate=0.003, patience=5)
        vectors = []
        if text:
            vocab = split.train.moments.sequences.vocab
            encoded = influent.encode_items(vocab, columns=("title", "category"), max_tokens=32)
            vectors = [influent.reduce_vectors(encoded, dim=64, method="whiten")]
        model = influent.Predictor(task=split.train.kind, model=settings, train=train)
        model.fit(split.train, split.validation, vectors=vectors, progress=influent.progress_for(sys.stderr))
        row |= {"seed": seed, "settings": {"model": asdict(model.model), "train": asdict(model.train)}}
        row |= {"epochs": model.log.epochs, "best_epoch": model.log.best_epoch}
        ledger = influent.explain(model, split.test.take(slice(0, 200)))
        row |= {"exactness": model.exactness, "largest_gap": ledger.largest_gap()}
    row["fit_seconds"] = round(time.perf_counter() - started, 1)
    report = influent.evaluate_labels([model], split.test, protocol=split.protocol, split=split.hash)
    print(report.to_markdown())
    row["test"] = {who: {n: asdict(m) for n, m in measures.items()} for who, measures in report.rows.items()}
    row["peak_memory_mib"] = peak_memory_mib()
    seeded = f"-{seed}" if "seed" in row else ""
    write_result(f"{set_name}/{name}{seeded}", {**about, **row})


if __name__ == "__main__":
    asked = set_and_model(__doc__, SETS).parse_args()
    run(asked.set, asked.model, asked.seed)
