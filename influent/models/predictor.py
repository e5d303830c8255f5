"""Settings and sequences to a fitted additive model that scores, explains itself, and goes to disk and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from influent.data.moments import Moments
from influent.data.scaling import Scaling, fit_scaling
from influent.data.sequences import Sequences
from influent.data.split import hold_out_last
from influent.data.vocab import Vocab
from influent.errors import ConfigError, DataError, SchemaError, nearest
from influent.models.additive import AdditiveModule
from influent.models.batch import Batch, Batcher, Windows, training_windows
from influent.models.config import ModelConfig, TrainConfig
from influent.models.credits import Credits, sources_of
from influent.models.model import check_fitted, check_same_ids
from influent.models.ranks import BATCH, ndcg, target_ranks
from influent.models.train import TrainingLog, train_module
from influent.models.transitions import PairDecay, TransitionTable
from influent.progress import Progress

Task = Literal["ranking"]


class Predictor:
    """The additive model: learns what each user does next, and of which past events every score is the sum.

    Args:
        task: what is predicted; `ranking` orders all items by how likely they come next. Scores are logits in nats.
        model: what the model is made of.
        train: how it is trained.

    Raises:
        ConfigError: the task is not known.

    Example:
        >>> Predictor(task="rating")
        Traceback (most recent call last):
        influent.errors.ConfigError: task must be 'ranking'. Got 'rating'.
    """

    name = "additive"
    vocab: Vocab
    popularity: np.ndarray
    scaling: Scaling
    fitted_on: str = ""
    log: TrainingLog

    def __init__(
        self, *, task: Task = "ranking", model: ModelConfig | None = None, train: TrainConfig | None = None
    ) -> None:
        if task != "ranking":
            raise ConfigError(f"task must be 'ranking'. Got {task!r}.")
        self.task, self.model, self.train = task, model or ModelConfig(), train or TrainConfig()

    @property
    def max_len(self) -> int:
        """Return how many of the latest events are read."""
        return self.model.max_len

    def fit(
        self,
        train: Sequences,
        validation: Moments | None = None,
        *,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Learn from the training sequences and keep the epoch with the best validation NDCG@10.

        Args:
            validation: moments that decide when to stop; by default each training user's last event, which then is
                not trained on.
            checkpoint: a file written after every epoch. If it is there, fitting goes on from it, and ends with
                the same weights as if it had never stopped.

        Raises:
            SchemaError: a context column of the settings is no user feature.
            DataError: there is nothing to learn from, no validation moment has a target, or the loss is not finite.
        """
        if validation is not None and not (validation.target_stop > validation.stop).any():
            raise DataError("no validation moment has a target, so nothing says when to stop. Leave validation out.")
        self.fitted_on = ""
        self.vocab, self.popularity = train.vocab, train.popularity()
        learned, validation = (train, validation) if validation is not None else hold_out_last(train)
        self.scaling = fit_scaling(learned, self.model.scaling)
        self._context_values = _context_values(self.vocab, self.model.context)
        self._is_timed = train.time_us is not None
        self._assemble(_device(self.train.device), self._table(learned))
        windows = training_windows(learned, self.max_len)
        log = train_module(
            self._module,
            lambda rng: self._training_batches(learned, windows, rng),
            lambda: self._validation_score(validation, train.fingerprint),
            self.train,
            n_batches=windows.n_batches(self.train.batch_size),
            checkpoint=checkpoint,
            identity=self._identity(train, validation),
            progress=progress,
        )
        self.log, self.fitted_on = log, train.fingerprint
        return self

    def predict(self, moments: Moments) -> np.ndarray:
        """Return a score for every item at each moment, float32 (N, n_items)."""
        check_fitted(self)
        parts = [np.zeros((0, self.vocab.n_items), np.float32)]
        with torch.inference_mode():
            for _, batch in self._moment_batches(moments):
                parts.append(self._module.scores(batch).cpu().numpy())
        return np.concatenate(parts)

    def credits(self, moments: Moments, candidates: np.ndarray) -> Credits:
        """Return the terms of the scores of these items, int (N, C), at each moment; one forward pass for all."""
        check_fitted(self)
        offsets, place, _ = sources_of(moments, self.max_len)
        n_candidates = candidates.shape[1]
        credit = [np.zeros((0, n_candidates))]
        bias = self._module.bias.detach().double().cpu().numpy()[candidates]
        context = {name: np.zeros(candidates.shape) for name in self.model.context}
        with torch.inference_mode():
            for rows, batch in self._moment_batches(moments):
                wanted = torch.from_numpy(candidates[rows].astype(np.int64)).to(batch.item_BT.device)
                credit_BTC, context_BC = self._module.credits(batch, wanted)
                credit.append(credit_BTC[batch.mask_BQT[:, 0]].cpu().numpy())
                for name, term_BC in zip(context, context_BC, strict=True):
                    context[name][rows] = term_BC.cpu().numpy()
        return Credits(offsets=offsets, place=place, credit=np.concatenate(credit), bias=bias, context=context)

    def save(self, folder: Path) -> None:
        """Write `model.safetensors`, `config.json`, `metrics.json` and the vocabulary; none of them can run code."""
        check_fitted(self)
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self._module.state_dict().items()}
        save_file({**tensors, "popularity": torch.from_numpy(self.popularity)}, folder / "model.safetensors")
        config = {
            "model": self.name,
            "settings": {"task": self.task, "model": asdict(self.model), "train": asdict(self.train)},
            "fitted_on": self.fitted_on,
            "scaling": self.scaling.to_dict(),
            "context_values": self._context_values,
            "is_timed": self._is_timed,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (folder / "metrics.json").write_text(json.dumps(self.log.to_dict(), indent=2) + "\n")
        self.vocab.save(folder)

    @classmethod
    def restore(cls, config: dict[str, Any], folder: Path) -> Self:
        """Return what `save` wrote; use `load_model`, which checks the folder first."""
        settings = config["settings"]
        model = ModelConfig.from_dict(settings["model"])
        predictor = cls(task=settings["task"], model=model, train=TrainConfig.from_dict(settings["train"]))
        predictor.vocab, predictor.fitted_on = Vocab.load(folder), config["fitted_on"]
        predictor.scaling, predictor._is_timed = Scaling.from_dict(config["scaling"]), config["is_timed"]
        predictor._context_values = config["context_values"]
        tensors = load_file(folder / "model.safetensors")
        predictor.popularity = tensors.pop("popularity").numpy()
        predictor.log = TrainingLog(**json.loads((folder / "metrics.json").read_text()))
        # Only the width of the table is needed: its entries are among the tensors.
        entries = tensors.get("counted.item_IJ")
        table = None if entries is None else TransitionTable.empty(predictor.vocab.n_items, entries.shape[1])
        predictor._assemble(_device("auto"), table)
        predictor._module.load_state_dict(tensors)
        predictor._module.eval()
        return predictor

    def _table(self, train: Sequences) -> TransitionTable | None:
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

    def _assemble(self, device: torch.device, table: TransitionTable | None) -> None:
        """Make the module and the batcher that the data and the settings call for."""
        n_values = tuple(len(values) for values in self._context_values.values())
        n_items, n_actions = self.vocab.n_items, len(self.vocab.actions)
        # The first weights come from the seed, and the caller's random numbers go on as if nothing had happened.
        with torch.random.fork_rng():
            torch.manual_seed(self.train.seed)
            module = AdditiveModule(
                self.model,
                n_items=n_items,
                n_actions=n_actions,
                n_numbers=len(self.scaling.names),
                n_values=n_values,
                is_timed=self._is_timed,
                table=table,
            )
        self._module = module.to(device)
        self._batcher = Batcher(
            n_items=n_items,
            n_actions=n_actions,
            scaling=self.scaling,
            context_UC=_context_codes(self.vocab, self._context_values),
            n_values=n_values,
            knows_moment=self.model.knows_moment,
            table=table,
        )

    def _training_batches(self, train: Sequences, windows: Windows, rng: np.random.Generator) -> Iterator[Batch]:
        for rows in windows.batches(self.train.batch_size, rng):
            yield self._batcher.window_batch(train, windows, rows)

    def _moment_batches(self, moments: Moments) -> Iterator[tuple[slice, Batch]]:
        """Return the moments a batch at a time; sequences by another log's ids or columns are refused."""
        check_same_ids(self, moments)
        if moments.sequences.number_names != self.scaling.names:
            raise SchemaError(
                f"this model was fitted on the numbers {self.scaling.names}, these sequences have "
                f"{moments.sequences.number_names}. Build them with numbers={self.scaling.names}."
            )
        device = self._module.bias.device
        for first in range(0, len(moments), BATCH):
            rows = slice(first, first + BATCH)
            yield rows, self._batcher.moment_batch(moments.take(rows), self.max_len).to(device)

    def _validation_score(self, validation: Moments, fitted_on: str) -> float:
        # Half fitted is fitted enough to be judged, and no longer if training fails.
        self.fitted_on = fitted_on
        ranks, offsets = target_ranks(self, validation, seen=self.train.seen)
        self.fitted_on = ""
        return float(ndcg(ranks, offsets, k=10).mean())

    def _identity(self, train: Sequences, validation: Moments) -> str:
        """Return a hash of all that the weights at the end of an epoch depend on."""
        digest = hashlib.sha256(_context_codes(self.vocab, self._context_values).tobytes())
        digest.update(validation.stop.tobytes() + validation.target_stop.tobytes())
        settings = (train.fingerprint, validation.sequences.fingerprint, self.model, self.train, self._context_values)
        digest.update(repr((*settings, torch.__version__)).encode())
        return digest.hexdigest()[:12]


def _context_values(vocab: Vocab, names: tuple[str, ...]) -> dict[str, list[Any]]:
    """Return the distinct values of each context column, sorted; a value's place is its code."""
    features = vocab.user_features
    known = [] if features is None else features.column_names[1:]
    for name in names:
        if name not in known:
            raise SchemaError(
                f"context {name!r} is no user feature. There are: {', '.join(known) or 'none; give users='}."
                f"{nearest(name, known)}"
            )
    values = {} if features is None else {n: features.column(n).drop_null().unique().to_pylist() for n in names}
    for name, distinct in values.items():
        strange = [value for value in distinct if not isinstance(value, str | int | float)]
        if strange:
            raise SchemaError(
                f"context {name!r} holds {type(strange[0]).__name__}s such as {strange[0]!r}. Write texts or numbers."
            )
    return {name: sorted(distinct) for name, distinct in values.items()}


def _context_codes(vocab: Vocab, values: dict[str, list[Any]]) -> np.ndarray:
    """Return the code of each user's value in each context column, int64 (U, C)."""
    codes = np.zeros((len(vocab.users), len(values)), np.int64)
    for place, (name, distinct) in enumerate(values.items()):
        code_of = {value: code for code, value in enumerate(distinct)}
        column = [] if vocab.user_features is None else vocab.user_features.column(name).to_pylist()
        codes[: len(column), place] = [code_of.get(value, len(distinct)) for value in column]
        codes[len(column) :, place] = len(distinct)
    return codes


def _device(device: str) -> torch.device:
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for and torch sees no GPU. Use device='auto' or 'cpu'.")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
