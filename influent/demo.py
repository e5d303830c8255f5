"""The whole path in one go: on a planted world, whose truth is known, or on a log of the caller's."""

from __future__ import annotations

import csv
import random
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from influent import schema, show
from influent.data.split import SplitConfig
from influent.data.worlds import World, WorldConfig, simulate_world
from influent.evaluation.truth import recover_causes
from influent.influence.ledger import Ledger
from influent.models.config import ModelConfig, TrainConfig
from influent.models.ranks import Seen
from influent.progress import Progress
from influent.steps import clean_log, evaluate_run, explain_run, fit_run, recommend_run

WORLD = WorldConfig(n_users=1_000, n_items=150, horizon_days=60)
"""Small enough for a minute, large enough that what is recovered is no accident."""

_WORLD_MODEL = ModelConfig(embedding_dim=32, max_len=50, dropout=0.3)
_WORLD_TRAIN = TrainConfig(epochs=30, patience=3, seen="keep")
_HEADLINE = ("HR@10", "NDCG@10")


def run_demo(folder: Path, out: Console, progress: Progress) -> None:
    """Simulate a world, put some dirt into its log, and do with it what is done with any log."""
    out.rule("a planted world")
    world = simulate_world(WORLD)
    out.print(
        f"{WORLD.n_users:,} users act on {WORLD.n_items:,} items for {WORLD.horizon_days:.0f} days. Which event causes "
        f"which is known: {_share_caused(world):.0%} of the {world.events.num_rows:,} events were caused by an earlier "
        "one. The log is written with some dirt in it.",
        highlight=False,
    )
    with tempfile.TemporaryDirectory() as place:
        log, items = Path(place) / "log.csv", world.items
        write_dirty_log(world, log)
        ledger, target_event_id = _path(
            log,
            folder,
            out,
            progress,
            columns={"user": "who", "item": "what", "time": "when", "action": "did"},
            items=items,
            model=_WORLD_MODEL,
            train=_WORLD_TRAIN,
        )
    out.rule("the planted truth")
    _show_truth(out, ledger, _causes(world, folder, target_event_id))
    out.rule("your own log")
    out.print(f"The run folder is {folder}. The same on your own log:", markup=False)
    out.print(
        "  influent demo my-log.csv --user USER_COLUMN --item ITEM_COLUMN --time TIME_COLUMN --run runs/mine",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def run_on_log(
    log: str,
    folder: Path,
    out: Console,
    progress: Progress,
    *,
    columns: Mapping[str, Any],
    items: str | None = None,
    seen: Seen = "exclude",
) -> None:
    """Clean, fit, evaluate, explain and recommend from a log of the caller's."""
    train = TrainConfig(seen=seen)
    _path(log, folder, out, progress, columns=columns, items=items, model=ModelConfig(), train=train)
    place = shlex.quote(str(folder))
    out.print(f"The run folder is {folder}. Go on from here:", markup=False)
    out.print(f"  influent recommend {place} --user USER_ID", markup=False, highlight=False, soft_wrap=True)


def _path(
    log: Any,
    folder: Path,
    out: Console,
    progress: Progress,
    *,
    columns: Mapping[str, Any],
    items: Any,
    model: ModelConfig,
    train: TrainConfig,
) -> tuple[Ledger, np.ndarray]:
    """Take a log all the way; return the test part's ledger and the event that came next at each of its moments."""
    out.rule("clean")
    cleaned = clean_log(log, folder, columns=columns, items=items, progress=progress)
    show.show_cleaning(out, cleaned.report, cleaned.artefacts)
    out.rule("fit and evaluate")
    _, split = fit_run(folder, model=model, train=train, split=SplitConfig(), progress=progress)
    [report] = evaluate_run(folder, seen=train.seen, progress=progress)
    show.show_report(out, report, _HEADLINE)
    out.rule("explain")
    ledger = explain_run(folder, progress=progress)
    out.print(
        f"{len(ledger):,} test predictions, {ledger.table.num_rows:,} credits, one pass. The ledger closes: no sum is "
        f"further than {ledger.largest_gap():.1e} from its score.",
        highlight=False,
    )
    out.rule("recommend")
    recommendations = recommend_run(folder, seen=train.seen, k=3, progress=progress)
    vocab = cleaned.sequences.vocab
    lengths = np.diff(cleaned.sequences.offsets)
    someone = vocab.users.ids[int(np.argsort(lengths, kind="stable")[len(lengths) // 2])].as_py()
    out.print(f"For user {someone}, one of middling activity:", markup=False, highlight=False)
    show.show_recommendations(out, recommendations, vocab, someone)
    return ledger, split.test.sequences.event_id[split.test.stop]


def _share_caused(world: World) -> float:
    parents = world.parents.column("parent_event_id")
    return float(1 - parents.null_count / len(parents))


def _causes(world: World, folder: Path, target_event_id: np.ndarray) -> np.ndarray:
    """Return the log's event id of the true cause of each of these of the log's events, −1 where there is none."""
    log = pq.read_table(folder / "events.parquet", columns=[schema.EVENT_ID, "ref"])
    in_log, in_world = log.column(schema.EVENT_ID).to_numpy(), log.column("ref").to_numpy().astype(np.int64)
    world_of_log = np.full(in_log.max() + 1, -1)
    world_of_log[in_log] = in_world
    log_of_world = np.full(world.events.num_rows + 1, -1)
    log_of_world[in_world] = in_log
    parent = world.parents.column("parent_event_id").fill_null(-1).to_numpy()
    return np.asarray(log_of_world[parent[world_of_log[target_event_id]]])


def _show_truth(out: Console, ledger: Ledger, cause_event_id: np.ndarray) -> None:
    found = recover_causes(ledger, cause_event_id)
    out.print(
        f"{found.n_predictions:,} of the predicted events were caused by one of the events read. The largest credit "
        f"goes to the true cause of {found.largest_credit:.1%} of them; always naming the latest event would be right "
        f"for {found.latest_event:.1%}, naming one at random for {found.at_random:.1%}. A true cause has a larger "
        f"credit than an event that is none with probability {found.auc:.3f} (by chance 0.5).",
        highlight=False,
    )


def write_dirty_log(world: World, path: Path) -> None:
    """Write a world's events as CSV, in time order, with rows that cleaning has to find.

    One row in a hundred is written twice; one in two hundred comes with another that lacks its item or time. The
    column `ref` is the event's id in the world.
    """
    rng = random.Random(world.config.seed)
    columns = [world.events.column(name).to_pylist() for name in (schema.USER_ID, schema.ITEM_ID, schema.ACTION)]
    times = world.events.column(schema.TIME_US).cast("timestamp[us]").to_numpy().astype(str)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["who", "what", "did", "when", "ref"])
        for ref, (user, item, action, time) in enumerate(zip(*columns, times.tolist(), strict=True)):
            row, luck = [user, item, action, time + "Z", ref], rng.random()
            if luck < 0.0025:
                writer.writerow([user, "", action, time + "Z", ref])
            elif luck < 0.005:
                writer.writerow([user, item, action, "soon", ref])
            writer.writerow(row)
            if luck > 0.99:
                writer.writerow(row)
