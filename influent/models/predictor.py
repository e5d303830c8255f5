"""Settings and sequences to a fitted model that scores, explains itself, and goes to disk and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from influent.data.moments import Moments
from influent.data.scaling import Scaling, fit_scaling
from influent.data.sequences import Sequences
from influent.data.split import hold_out_last
from influent.data.vectors import ItemVectors
from influent.data.vocab import Vocab
from influent.errors import ConfigError, DataError, SchemaError
from influent.models.batch import Batch, Batcher, training_windows
from influent.models.config import ModelConfig, TrainConfig
from influent.models.context import ContextLines
from influent.models.credits import Credits, Exactness, sources_of
from influent.models.estimated import leave_one_out
from influent.models.model import check_fitted, check_same_ids
from influent.models.module import AdditiveBackbone
from influent.models.network import Network, Shape
from influent.models.ranks import BATCH, ndcg, target_ranks
from influent.models.train import TrainingLog, train_module
from influent.models.transitions import PairDecay, TransitionTable
from influent.progress import Progress

Task = Literal["ranking"]

_LEARNING_RATE = {"sum": 1e-2, "other": 1e-3}
"""Where the settings leave it open: sums of events are convex enough for large steps."""


class Predictor:
    """A model that learns by gradient what each user does next; the additive one says of which events it is the sum.

    Args:
        task: what is predicted; `ranking` orders all items by how likely they come next. Scores are logits in nats.
        model: what the model is made of; `ModelConfig(backbone="sasrec")` and its like are black boxes.
        train: how it is trained.

    Raises:
        ConfigError: the task is not known.

    Example:
        >>> Predictor(task="rating")
        Traceback (most recent call last):
        influent.errors.ConfigError: task must be 'ranking'. Got 'rating'.
    """

    vocab: Vocab
    popularity: np.ndarray
    scaling: Scaling
    fitted_on: str = ""
    log: TrainingLog
    is_refitted: bool = False

    def __init__(
        self, *, task: Task = "ranking", model: ModelConfig | None = None, train: TrainConfig | None = None
    ) -> None:
        if task != "ranking":
            raise ConfigError(f"task must be 'ranking'. Got {task!r}.")
        self.task, self.model, self.train = task, model or ModelConfig(), train or TrainConfig()
        if self.train.learning_rate == 0:
            rate = _LEARNING_RATE["sum" if self.model.is_sum else "other"]
            self.train = replace(self.train, learning_rate=rate)

    @property
    def name(self) -> str:
        """Return how reports call the model."""
        return self.model.backbone + (", refitted" if self.is_refitted else "")

    @property
    def max_len(self) -> int:
        """Return how many of the latest events are read."""
        return self.model.max_len

    @property
    def exactness(self) -> Exactness:
        """Return how good the credits are."""
        check_fitted(self)
        return self._network.backbone.exactness

    def fit(
        self,
        train: Sequences,
        validation: Moments | None = None,
        *,
        vectors: Sequence[ItemVectors] = (),
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Learn from the training sequences and keep the epoch with the best validation NDCG@10.

        Args:
            validation: moments that decide when to stop; by default each training user's last event, which then is
                not trained on.
            vectors: blocks of item vectors from elsewhere, such as `encode_items` makes of titles; each is a part of
                an event's vector and of a candidate's.
            checkpoint: a file written after every epoch. If it is there, fitting goes on from it, and ends with
                the same weights as if it had never stopped.

        Raises:
            SchemaError: a context column of the settings is no user feature, or vectors are of other items.
            ConfigError: a target action is not in the log, or the clock is asked for in a log without times.
            DataError: there is nothing to learn from, no validation moment has a target, or the loss is not finite.
        """
        if validation is not None and not (validation.target_stop > validation.stop).any():
            raise DataError("no validation moment has a target, so nothing says when to stop. Leave validation out.")
        learned, validation = (train, validation) if validation is not None else hold_out_last(train)
        judge = validation
        self._prepare(train.vocab, learned, vectors)
        self.popularity = train.popularity()
        identity = self._identity(train, validation)
        log = self._learn(learned, lambda: self._score(judge, train.fingerprint), checkpoint, identity, progress)
        self.log, self.fitted_on = log, train.fingerprint
        return self

    def refit(self, train: Sequences, *, checkpoint: Path | None = None, progress: Progress | None = None) -> Predictor:
        """Return a model of the same settings, trained anew on more events for as many epochs as were best here.

        That is what is deployed once the settings are chosen: `model.refit(split.train_and_validation)`.
        """
        check_fitted(self)
        refitted = Predictor(task=self.task, model=self.model, train=self.train)
        refitted._prepare(train.vocab, train, self._vectors)
        refitted.popularity = train.popularity()
        n_epochs = self.log.best_epoch + 1
        identity = refitted._identity(train, n_epochs)
        refitted.log = refitted._learn(train, None, checkpoint, identity, progress, n_epochs=n_epochs)
        refitted.is_refitted, refitted.fitted_on = True, train.fingerprint
        return refitted

    def predict(self, moments: Moments) -> np.ndarray:
        """Return a score for every item at each moment, float32 (N, n_items)."""
        check_fitted(self)
        parts = [np.zeros((0, self.vocab.n_items), np.float32)]
        with torch.inference_mode():
            for _, batch in self._moment_batches(moments):
                parts.append(self._network.scores(batch).float().cpu().numpy())
        return np.concatenate(parts)

    def credits(self, moments: Moments, candidates: np.ndarray) -> Credits:
        """Return the terms of the scores of these items, int (N, C), at each moment.

        For a sum they come from one forward pass, split by part of the event. For a black box they are estimated:
        what leaving each event out takes away, and the residual that these do not add up to.
        """
        check_fitted(self)
        offsets, place, _ = sources_of(moments, self.max_len)
        bias = self._network.bias.detach().double().cpu().numpy()[candidates]
        context = {name: np.zeros(candidates.shape) for name in self.model.context}
        residual = np.zeros(candidates.shape)
        found: dict[str, list[np.ndarray]] = {}
        with torch.inference_mode():
            for rows, batch in self._moment_batches(moments):
                wanted = torch.from_numpy(candidates[rows].astype(np.int64)).to(batch.item_BT.device)
                if isinstance(self._network.backbone, AdditiveBackbone):
                    credits, context_BC = self._network.credits(batch, wanted)
                    for name, term_BC in zip(context, context_BC, strict=True):
                        context[name][rows] = term_BC.cpu().numpy()
                else:
                    credit_BTC, residual_BC = leave_one_out(self._network, batch, wanted)
                    credits = {"event": credit_BTC}
                    residual[rows] = residual_BC.cpu().numpy()
                for name, credit_BTC in credits.items():
                    found.setdefault(name, []).append(credit_BTC[batch.mask_BQT[:, 0]].cpu().numpy())
        none = np.zeros((len(place), candidates.shape[1]))
        parts = {name: np.concatenate(credits) for name, credits in found.items()}
        return Credits(
            offsets=offsets,
            place=place,
            credit=sum(parts.values(), none),
            bias=bias,
            context=context,
            parts=parts if len(parts) > 1 else {},
            residual=None if self.model.is_sum else residual,
        )

    def save(self, folder: Path) -> None:
        """Write `model.safetensors`, `config.json`, `metrics.jsonl` and the vocabulary; none of them can run code."""
        check_fitted(self)
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self._network.state_dict().items()}
        save_file({**tensors, "popularity": torch.from_numpy(self.popularity)}, folder / "model.safetensors")
        config = {
            "model": "predictor",
            "settings": {"task": self.task, "model": asdict(self.model), "train": asdict(self.train)},
            "fitted_on": self.fitted_on,
            "is_refitted": self.is_refitted,
            "scaling": self.scaling.to_dict(),
            "context_values": self._context.values,
            "is_timed": self._is_timed,
            "vectors": {block.name: block.source for block in self._vectors},
            "best_epoch": self.log.best_epoch,
            "best_score": self.log.best_score,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (folder / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in self.log.epochs))
        self.vocab.save(folder)

    @classmethod
    def restore(cls, config: dict[str, Any], folder: Path) -> Self:
        """Return what `save` wrote; use `load_model`, which checks the folder first."""
        settings = config["settings"]
        model = ModelConfig.from_dict(settings["model"])
        predictor = cls(task=settings["task"], model=model, train=TrainConfig.from_dict(settings["train"]))
        predictor.vocab, predictor.fitted_on = Vocab.load(folder), config["fitted_on"]
        predictor.is_refitted = config["is_refitted"]
        predictor.scaling, predictor._is_timed = Scaling.from_dict(config["scaling"]), config["is_timed"]
        predictor._context = ContextLines(predictor.vocab, config["context_values"])
        tensors = load_file(folder / "model.safetensors")
        predictor.popularity = tensors.pop("popularity").numpy()
        epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        predictor.log = TrainingLog(epochs, config["best_epoch"], config["best_score"])
        # Only the shapes of table and vectors are needed here: their numbers are among the tensors.
        entries = tensors.get("counted.item_IJ")
        table = None if entries is None else TransitionTable.empty(predictor.vocab.n_items, entries.shape[1])
        predictor._vectors = tuple(
            _restored_vectors(name, tensors[f"encoder.given.{name}.vectors_IV"], source)
            for name, source in config["vectors"].items()
        )
        predictor._assemble(_device("auto"), table, None)
        predictor._network.load_state_dict(tensors)
        predictor._network.eval()
        return predictor

    def _prepare(self, vocab: Vocab, learned: Sequences, vectors: Sequence[ItemVectors]) -> None:
        """Take from the data what the network is made by."""
        self.fitted_on = ""
        self.vocab, self._vectors = vocab, tuple(vectors)
        for block in vectors:
            if len(block.vectors) != vocab.n_items:
                raise SchemaError(
                    f"the vectors {block.name!r} are of {len(block.vectors):,} items, the log has {vocab.n_items:,}. "
                    "Make them with the vocabulary of these sequences."
                )
        self.scaling = fit_scaling(learned, self.model.scaling)
        self._is_timed = learned.time_us is not None
        self._context = ContextLines.of(vocab, self.model.context, is_timed=self._is_timed)
        self._table = self._count(learned)
        self._assemble(_device(self.train.device), self._table, torch.from_numpy(learned.item_counts()))

    def _learn(
        self,
        train: Sequences,
        judge: Any,
        checkpoint: Path | None,
        identity: str,
        progress: Progress | None,
        n_epochs: int | None = None,
    ) -> TrainingLog:
        windows = training_windows(train, self.max_len)
        own = None if self._table is None else self._table.own(train)
        return train_module(
            self._network,
            lambda rng: (
                self._batcher.window_batch(train, windows, rows, own)
                for rows in windows.batches(self.train.batch_size, rng)
            ),
            judge,
            self.train if n_epochs is None else replace(self.train, epochs=n_epochs),
            n_batches=windows.n_batches(self.train.batch_size),
            checkpoint=checkpoint,
            identity=identity,
            progress=progress,
        )

    def _count(self, train: Sequences) -> TransitionTable | None:
        """Count the transitions of the very events that are trained on, so that a user's own can be taken out."""
        if self.model.count_len == 0:
            return None
        pairs = PairDecay(
            window=self.model.count_window, decay=self.model.count_decay, reverse=self.model.count_reverse
        )
        return TransitionTable.build(
            train,
            pairs,
            popularity_power=self.model.count_popularity_power,
            n_entries=self.model.count_entries,
        )

    def _assemble(self, device: torch.device, table: TransitionTable | None, item_counts: torch.Tensor | None) -> None:
        """Make the network and the batcher that the data and the settings call for."""
        shape = Shape(
            n_items=self.vocab.n_items,
            n_actions=len(self.vocab.actions),
            n_numbers=len(self.scaling.names),
            n_values=self._context.n_values,
            is_timed=self._is_timed,
        )
        # The first weights come from the seed, and the caller's random numbers go on as if nothing had happened.
        with torch.random.fork_rng():
            torch.manual_seed(self.train.seed)
            network = Network(self.model, shape, table=table, blocks=self._vectors, item_counts=item_counts)
        self._network = network.to(device)
        self._batcher = Batcher(
            n_items=shape.n_items,
            n_actions=shape.n_actions,
            scaling=self.scaling,
            context=self._context,
            knows_moment=self.model.knows_moment,
            target_actions=self._target_actions(),
        )

    def _target_actions(self) -> np.ndarray | None:
        if not self.model.target_actions:
            return None
        return self.vocab.actions.require_idx(self.model.target_actions)

    def _moment_batches(self, moments: Moments) -> Iterator[tuple[slice, Batch]]:
        """Return the moments a batch at a time; sequences by another log's ids or columns are refused."""
        check_same_ids(self, moments)
        if moments.sequences.number_names != self.scaling.names:
            raise SchemaError(
                f"this model was fitted on the numbers {self.scaling.names}, these sequences have "
                f"{moments.sequences.number_names}. Build them with numbers={self.scaling.names}."
            )
        device = self._network.bias.device
        for first in range(0, len(moments), BATCH):
            rows = slice(first, first + BATCH)
            yield rows, self._batcher.moment_batch(moments.take(rows), self.max_len).to(device)

    def _score(self, validation: Moments, fitted_on: str) -> float:
        # Half fitted is fitted enough to be judged, and no longer if training fails.
        self.fitted_on = fitted_on
        ranks, offsets = target_ranks(self, validation, seen=self.train.seen)
        self.fitted_on = ""
        return float(ndcg(ranks, offsets, k=10).mean())

    def _identity(self, train: Sequences, until: Moments | int) -> str:
        """Return a hash of all that the weights at the end of an epoch depend on."""
        digest = hashlib.sha256(self._context.of_users_UC.tobytes())
        if isinstance(until, Moments):
            digest.update(until.stop.tobytes() + until.target_stop.tobytes())
            until = until.sequences.fingerprint  # type: ignore[assignment]
        for block in self._vectors:
            digest.update(np.ascontiguousarray(block.vectors).tobytes())
        settings = (train.fingerprint, until, self.model, self.train, self._context.values)
        digest.update(repr((*settings, torch.__version__)).encode())
        return digest.hexdigest()[:12]


def _restored_vectors(name: str, vectors_IV: torch.Tensor, source: str) -> ItemVectors:
    vectors = vectors_IV[:-1].numpy()
    return ItemVectors(name=name, vectors=vectors, is_known=vectors.any(axis=1), source=source)


def _device(device: str) -> torch.device:
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for and torch sees no GPU. Use device='auto' or 'cpu'.")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
