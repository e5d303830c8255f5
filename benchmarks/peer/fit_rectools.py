"""A job's events to ranks by RecTools' SASRec or HSTU, with what every epoch took.

Usage: .venv-peer/bin/python benchmarks/peer/fit_rectools.py JOB_FOLDER

It runs in an environment of its own and shares no code with Influent, only files: README.md names them. Model, data
preparator and training loop are RecTools'; ours are the clock, validation after each epoch, and the ranks.
"""

# mypy: disable-error-code="import-not-found", allow-subclassing-any, allow-untyped-calls

from __future__ import annotations

import json
import logging
import platform
import sys
import time
import warnings
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import HSTUModel, SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet
from rectools.models.nn.transformers.base import TransformerModelBase
from rectools.models.nn.transformers.data_preparator import TransformerDataPreparatorBase
from rectools.models.nn.transformers.hstu import RelativeAttentionBias, STULayers
from rectools.models.nn.transformers.torch_backbone import TransformerBackboneBase
from scipy import sparse

K = 10
BATCH = 256
"""Users scored at a time, as in RecTools' own recommend and in Influent."""
PACKAGES = ("rectools", "torch", "pytorch-lightning", "numpy", "pandas", "pyarrow")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a job may set. Names and defaults are RecTools', those of its published SASRec benchmarks."""

    n_items: int
    """Items are 0 … n − 1; other numbers are unknown."""
    n_factors: int = 256
    n_blocks: int = 2
    n_heads: int = 4
    session_max_len: int = 100
    dropout_rate: float = 0.2
    batch_size: int = 128
    lr: float = 0.001
    loss: str = "softmax"
    n_negatives: int = 1
    """Only read by the losses that sample."""
    logits_t: float | None = None
    """What logits are divided by in the loss. None is 1 for SASRec and 0.05 for HSTU, as in RecTools' HSTU tutorial:
    HSTU's scores are cosines, and a softmax over numbers within ±1 cannot become sharp."""
    epochs: int = 200
    """At most."""
    patience: int = 50
    """Epochs without a better validation NDCG@10 after which training ends."""
    cpu_minutes: float = float("inf")
    """Training ends with the epoch in which it has used this much."""
    seed: int = 0
    deterministic: bool = False
    windows: bool = False
    """RecTools trains on the last session_max_len + 1 events of a user and drops those before. True cuts the whole
    sequence into sessions of that length, so that every event but the first is predicted once an epoch."""
    relative_pos_attention: bool = True
    """HSTU only, as are the next two."""
    relative_time_attention: bool = False
    hide_next_time: bool = True
    """RecTools' HSTU reads the time of the event that it predicts. True measures lags from the last known event
    instead. False leaves the model as it is; at ranking, the last known time then stands in for the unknown one."""


def read_job(folder: Path) -> tuple[str, Settings]:
    """Return the model's name and its settings.

    Raises:
        SystemExit: the model or a setting is not one that there is.
    """
    job = json.loads((folder / "job.json").read_text())
    if job.get("model") not in ("sasrec", "hstu"):
        raise SystemExit(f"'model' in job.json must be 'sasrec' or 'hstu'. Got {job.get('model')!r} instead.")
    known = [field.name for field in fields(Settings)]
    unknown = sorted(set(job["settings"]) - set(known))
    if unknown:
        raise SystemExit(f"job.json has no setting {unknown[0]!r}. There are: {', '.join(known)}.")
    return job["model"], Settings(**job["settings"])


def interactions(events: pd.DataFrame, *, timed: bool) -> pd.DataFrame:
    """Return the events in RecTools' columns and in order.

    Args:
        timed: whether the model reads times. If not, an event's place stands in for its time, which RecTools then
            needs for sorting only.

    Raises:
        SystemExit: the model reads times, and one is missing or runs against the order.
    """
    events = events.sort_values(["user_idx", "order"], kind="stable")
    if timed and (events["time_us"].isna().any() or (events.groupby("user_idx")["time_us"].diff() < 0).any()):
        raise SystemExit("relative_time_attention needs a time_us for every event, rising with its order.")
    when = pd.to_datetime(events["time_us"], unit="us") if timed else pd.to_datetime(events["order"], unit="s")
    return pd.DataFrame(
        {
            Columns.User: events["user_idx"].to_numpy(np.int64),
            Columns.Item: events["item_idx"].to_numpy(np.int64),
            Columns.Weight: 1.0,
            Columns.Datetime: when.to_numpy("datetime64[ns]"),
        }
    )


def windows(sessions: pd.DataFrame, length: int) -> pd.DataFrame:
    """Return each user's events as sessions of `length` targets, counted from the latest, each under a new user.

    The event before a session's first target is its first input, so it stands in two sessions.
    """
    from_end = sessions.groupby(Columns.User).cumcount(ascending=False).to_numpy()
    window = from_end // length
    n_windows = int(window.max(initial=0)) + 1
    own = sessions.assign(**{Columns.User: sessions[Columns.User] * n_windows + window})
    opens = (from_end % length == 0) & (from_end > 0)
    lent = own[opens].assign(**{Columns.User: own[Columns.User][opens] - 1})
    # The lent event comes before all others of its new session, and a stable sort keeps it there among equal times.
    return pd.concat([lent, own], ignore_index=True).sort_values([Columns.User, Columns.Datetime], kind="stable")


class LastTimeBias(RelativeAttentionBias):
    """HSTU's bias with the lag of each event behind the last known one, in place of the one to be predicted."""

    def forward_time_attention(self, all_timestamps: torch.Tensor) -> torch.Tensor:
        """Return the bias (B, T, T) of times (B, T + 1), the last of which is not read."""
        time_BT = all_timestamps[:, :-1]
        lag_BTT = time_BT.unsqueeze(2) - time_BT.unsqueeze(1)
        bucket_BTT = self._quantization_func(lag_BTT).clamp(max=self.num_buckets)
        bias: torch.Tensor = self.time_weights.index_select(0, bucket_BTT.flatten()).view(lag_BTT.shape)
        return bias


class LastTimeLayers(STULayers):
    """HSTU's layers with `LastTimeBias`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        names = ("session_max_len", "relative_time_attention", "relative_pos_attention")
        for block in self.stu_blocks:
            block.rel_attn = LastTimeBias(**{name: settings[name] for name in names})


class Ranker:
    """Moments at which a model is judged: the histories it reads, the items seen, and the items that came next."""

    def __init__(
        self, asked: pd.DataFrame, history: pd.DataFrame, preparator: TransformerDataPreparatorBase, n_items: int
    ) -> None:
        place = np.full(n_items + 1, -1)  # of each item in the model; the last row is for unknown ones
        place[preparator.get_known_item_ids().astype(np.int64)] = preparator.get_known_items_sorted_internal_ids()
        known = history[_places(place, history["item_idx"]) >= 0]
        users = np.unique(known["user_idx"])
        self.row = pd.Index(users).get_indexer(asked["user_idx"])
        self.target = _places(place, asked["item_idx"])
        owner = np.searchsorted(users, known["user_idx"])
        seen = (np.ones(len(known), bool), (owner, _places(place, known["item_idx"])))
        self.seen = sparse.csr_matrix(seen, shape=(len(users), preparator.item_id_map.size))
        self.first_item = preparator.n_item_extra_tokens
        self.loader = _loader(known, users, preparator) if len(users) else []

    def ranks(self, backbone: TransformerBackboneBase) -> np.ndarray:
        """Return the rank of each target, from 1 over all items that the user has not seen.

        Equal scores share the mean of their places. Infinity: the target is unknown to the model or was seen, or
        nothing in the user's history is known to the model, which then says nothing.
        """
        found = np.full(len(self.row), np.inf)
        first = 0
        with torch.no_grad():
            item_embs = backbone.item_model.get_all_embeddings()
            for batch in self.loader:
                states = backbone.encode_sessions(batch, item_embs)[:, -1:]
                scores = backbone.similarity_module(states, item_embs)[:, 0].numpy()
                scores[:, : self.first_item] = -np.inf
                scores[self.seen[first : first + len(scores)].nonzero()] = -np.inf
                asked = (self.row >= first) & (self.row < first + len(scores)) & (self.target >= 0)
                found[asked] = _ranks(scores[self.row[asked] - first], self.target[asked])
                first += len(scores)
        return found


def _places(place: np.ndarray, items: pd.Series) -> np.ndarray:
    unknown = len(place) - 1
    return np.asarray(place[np.where((items >= 0) & (items < unknown), items, unknown)])


def _loader(known: pd.DataFrame, users: np.ndarray, preparator: TransformerDataPreparatorBase) -> Any:
    """Return the histories as RecTools prepares them to recommend, in batches in the order of `users`."""
    frame = interactions(known, timed=preparator.add_unix_ts)
    context = None
    if preparator.add_unix_ts:
        # RecTools asks for the time of the prediction; the last known one is all that may be said.
        context = frame.groupby(Columns.User, as_index=False).last().drop(columns=Columns.Item)
    dataset = preparator.transform_dataset_u2i(Dataset.construct(frame), users, context)
    assert (dataset.user_id_map.external_ids == users).all()
    return preparator.get_dataloader_recommend(dataset, BATCH)


def _ranks(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    of_target = scores[np.arange(len(target)), target]
    ahead, level = (scores > of_target[:, None]).sum(axis=1), (scores == of_target[:, None]).sum(axis=1)
    return np.where(np.isfinite(of_target), ahead + (level + 1) / 2, np.inf)


def accuracy(ranks: np.ndarray) -> dict[str, float]:
    """Return mean NDCG@10 and HR@10 of moments with one target each."""
    hit = ranks <= K
    gain = np.where(hit, 1 / np.log2(1 + ranks), 0.0)
    return {f"ndcg@{K}": float(gain.mean()) if len(ranks) else 0.0, f"hr@{K}": float(hit.mean()) if len(ranks) else 0.0}


class Validation(Callback):
    """Takes the time of each epoch, judges it, keeps the best epoch's weights, and ends training in time.

    The clock of training stands still while an epoch is judged.
    """

    def __init__(self, asked: pd.DataFrame, history: pd.DataFrame, settings: Settings) -> None:
        self.asked, self.history, self.settings = asked, history, settings
        self.epochs: list[dict[str, float]] = []
        self.best: dict[str, float] = {}
        self.best_weights: dict[str, torch.Tensor] = {}
        self.ended_by = "epochs"
        """The setting that ended training"""

    def __deepcopy__(self, memo: dict[int, Any]) -> Validation:
        # RecTools fits with a copy of the trainer; what this one learns is wanted here, and its events need no copy.
        return self

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the moments, then start the clock."""
        self.ranker = Ranker(self.asked, self.history, pl_module.data_preparator, self.settings.n_items)
        self.clock, self.cpu_clock = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the epoch."""
        stopped, stopped_cpu = time.perf_counter(), time.process_time()
        pl_module.eval()
        measures = accuracy(self.ranker.ranks(pl_module.torch_model))
        pl_module.train()
        epoch = {"epoch": len(self.epochs) + 1, "loss": float(trainer.callback_metrics["train_loss"]), **measures}
        if not self.best or measures[f"ndcg@{K}"] > self.best[f"ndcg@{K}"]:
            self.best = epoch
            self.best_weights = {name: weight.clone() for name, weight in pl_module.state_dict().items()}
        epoch["train_seconds"] = stopped - self.clock
        epoch["train_cpu_seconds"] = stopped_cpu - self.cpu_clock
        self.clock, self.cpu_clock = time.perf_counter(), time.process_time()
        epoch["validation_seconds"] = self.clock - stopped
        self.epochs.append(epoch)
        used = sum(past["train_cpu_seconds"] for past in self.epochs) / 60
        is_patient = epoch["epoch"] - self.best["epoch"] < self.settings.patience
        if not is_patient:
            self.ended_by = "patience"
        elif used >= self.settings.cpu_minutes:
            self.ended_by = "cpu_minutes"
        trainer.should_stop = self.ended_by != "epochs"
        print(f"epoch {epoch['epoch']}: NDCG@{K} {epoch[f'ndcg@{K}']:.4f}", file=sys.stderr, flush=True)


def build(name: str, settings: Settings, validation: Validation) -> TransformerModelBase:
    """Return RecTools' model, not fitted."""

    def trainer() -> Trainer:
        return Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=settings.epochs,
            deterministic=settings.deterministic,
            callbacks=[validation],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    logits_t = settings.logits_t or {"sasrec": 1.0, "hstu": 0.05}[name]
    same = ("n_factors", "n_blocks", "n_heads", "session_max_len", "dropout_rate", "batch_size", "lr", "loss")
    given = {key: getattr(settings, key) for key in (*same, "n_negatives")} | {
        "get_trainer_func": trainer,
        "item_net_block_types": (IdEmbeddingsItemNet,),
        "lightning_module_kwargs": {"logits_t": logits_t},
    }
    if name == "sasrec":
        return SASRecModel(**given)
    hidden = settings.relative_time_attention and settings.hide_next_time
    return HSTUModel(
        **given,
        relative_time_attention=settings.relative_time_attention,
        relative_pos_attention=settings.relative_pos_attention,
        transformer_layers_type=LastTimeLayers if hidden else STULayers,
    )


def main(folder: Path) -> None:
    """Fit, rank the test moments, and write ranks.parquet and result.json."""
    name, settings = read_job(folder)
    tables = ("train", "validation", "validation_history", "test", "test_history")
    train, validation, validation_history, test, test_history = (
        pd.read_parquet(folder / f"{table}.parquet") for table in tables
    )
    seed_everything(settings.seed, workers=True, verbose=False)
    judge = Validation(validation, validation_history, settings)
    model = build(name, settings, judge)
    peak_before = _peak_memory_mib()

    started = time.perf_counter()
    sessions = interactions(train, timed=model.data_preparator.add_unix_ts)
    if settings.windows:
        sessions = windows(sessions, settings.session_max_len)
    model.fit(Dataset.construct(sessions))
    fitted = time.perf_counter()
    model.lightning_model.load_state_dict(judge.best_weights)
    model.torch_model.eval()
    ranks = Ranker(test, test_history, model.data_preparator, settings.n_items).ranks(model.torch_model)
    ranked = time.perf_counter()

    pd.DataFrame({"user_idx": test["user_idx"], "rank": ranks}).to_parquet(folder / "ranks.parquet", index=False)
    in_epochs = {part: sum(epoch[f"{part}_seconds"] for epoch in judge.epochs) for part in ("train", "validation")}
    used = model.data_preparator.train_dataset
    result = {
        "model": name,
        "settings": asdict(settings),
        "epochs": judge.epochs,
        "best_epoch": judge.best["epoch"],
        "ended_by": judge.ended_by,
        "validation": {measure: judge.best[measure] for measure in accuracy(ranks)},
        "test": accuracy(ranks),
        "seconds": {
            "prepare": fitted - started - sum(in_epochs.values()),
            **in_epochs,
            "rank_test": ranked - fitted,
        },
        "n_parameters": sum(weight.numel() for weight in model.torch_model.parameters()),
        "n_known_items": model.data_preparator.item_id_map.size - model.data_preparator.n_item_extra_tokens,
        "n_train_events": len(train),
        "n_train_targets": len(used.interactions.df) - used.user_id_map.size,
        "n_threads": torch.get_num_threads(),
        "peak_memory_mib": _peak_memory_mib(),
        "peak_memory_before_fit_mib": peak_before,
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
    }
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(f"{name}: best epoch {result['best_epoch']} of {len(judge.epochs)}, test {result['test']}")


def _peak_memory_mib() -> int:
    """Return the most memory that this process has held so far, by Linux's high-water mark in KiB."""
    # Not `ru_maxrss`, which begins with the peak of the process that started this one.
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return round(int(line.split()[1]) / 1024)


if __name__ == "__main__":
    # RecTools writes into slices of its own tables, and lightning recommends workers and loggers at length.
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    if len(sys.argv) != 2:
        raise SystemExit("usage: fit_rectools.py JOB_FOLDER")
    main(Path(sys.argv[1]))
