"""Settings and sequences to a fitted model that scores, explains itself, and goes to disk and back."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from influent.data.label_split import LabelSplit
from influent.data.labels import Labels
from influent.data.moments import Moments
from influent.data.scaling import Scaling, fit_scaling
from influent.data.sequences import Sequences
from influent.data.vectors import ItemVectors
from influent.data.vocab import Vocab
from influent.errors import ConfigError, SchemaError
from influent.models.batch import Batcher
from influent.models.config import ModelConfig, TrainConfig
from influent.models.context import ContextLines
from influent.models.credits import Credits, Exactness
from influent.models.device import device_of
from influent.models.examples import Examples, TrainingBatches, build_examples, gaps_of
from influent.models.growing import check_same_blocks, grown_weights
from influent.models.heads import LabelShape, label_shape, time_bins
from influent.models.label_model import check_question
from influent.models.methods import CreditMethod, MethodName, check_fits
from influent.models.model import check_fitted, check_same_categories, check_same_ids
from influent.models.network import Network, Shape
from influent.models.reading import Reading
from influent.models.readout import Readout
from influent.models.tracking import Tracker
from influent.models.train import TrainingLog, train_module
from influent.models.transitions import PairDecay, TransitionTable
from influent.models.validation import validation_scores
from influent.progress import Progress
from influent.run import made
from influent.settings import check_list, check_type

Task = Literal["ranking", "classification", "regression", "time"]

_LEARNING_RATE = {"sum": 1e-2, "other": 3e-3}
"""Where the settings leave it open: sums of events are convex enough for large steps."""


class Predictor:
    """A model that learns by gradient what each user does next; the additive one says of which events it is the sum.

    Args:
        task: what is predicted, one or several over one state. `ranking` orders all items by how likely they come
            next; scores are logits in nats. `time` says when. `classification` and `regression` answer questions
            that are built as `Labels`. Of several, the first decides when training stops.
        model: what the model is made of; `ModelConfig(backbone="sasrec")` and its like are black boxes.
        train: how it is trained.

    Raises:
        ConfigError: a task is not known, or named twice, or `time` is asked of a model that knows the moment.

    Example:
        >>> Predictor(task="rating")
        Traceback (most recent call last):
        influent.errors.ConfigError: task must be of ranking, classification, regression, time, each once. Got 'rating'.
    """

    vocab: Vocab
    popularity: np.ndarray
    scaling: Scaling
    fitted_on: str = ""
    log: TrainingLog
    is_refitted: bool = False
    label_shapes: tuple[LabelShape, ...] = ()

    def __init__(
        self,
        *,
        task: Task | Sequence[Task] = "ranking",
        model: ModelConfig | None = None,
        train: TrainConfig | None = None,
    ) -> None:
        self.tasks: tuple[Task, ...] = (task,) if isinstance(task, str) else tuple(task)
        known = get_args(Task)
        if not self.tasks or any(one not in known for one in self.tasks) or len(set(self.tasks)) < len(self.tasks):
            raise ConfigError(f"task must be of {', '.join(known)}, each once. Got {task!r}.")
        if model is not None:
            check_type("model", model, ModelConfig, "ModelConfig(backbone='sasrec')")
        if train is not None:
            check_type("train", train, TrainConfig, "TrainConfig(epochs=10)")
        self.model, self.train = (model or ModelConfig()).resolved(), train or TrainConfig()
        if "time" in self.tasks and self.model.knows_moment:
            raise ConfigError("the task 'time' asks when the next event comes, so knows_moment would give it away.")
        if "time" in self.tasks and self.model.target_actions:
            raise ConfigError(
                "the task 'time' asks when the next event of any kind comes, and target_actions would leave out all "
                "gaps that end in another action. Leave target_actions out, or ask will_do(..., actions=) for one kind."
            )
        if self.train.learning_rate == 0:
            rate = _LEARNING_RATE["sum" if self.model.is_sum else "other"]
            self.train = replace(self.train, learning_rate=rate)

    @property
    def name(self) -> str:
        """Return how reports call the model."""
        said = {
            "query gate": self.model.gate == "query",
            "moment known": self.model.knows_moment,
            "refitted": self.is_refitted,
        }
        return ", ".join([self.model.backbone, *(name for name, holds in said.items() if holds)])

    @property
    def max_len(self) -> int:
        """Return how many of the latest events are read."""
        return self.model.max_len

    @property
    def exactness(self) -> Exactness:
        """Return how good the credits are."""
        check_fitted(self)
        of_events = self._network.backbone.exactness
        # A context line that reads an event's category changes when that event is masked.
        return "closes" if of_events == "exact" and self._context.reads_events else of_events

    @property
    def vectors_fitted_on(self) -> tuple[str, ...]:
        """Return the fingerprints of the events that its vectors were fitted on, where an encoder was fine-tuned."""
        check_fitted(self)
        return tuple(block.fitted_on for block in self._vectors if block.fitted_on)

    @property
    def methods(self) -> tuple[MethodName, ...]:
        """Return the ways to credits that fit the model, the default one first."""
        check_fitted(self)
        return self._reading.methods

    def fit(
        self,
        train: Sequences | Labels,
        validation: Moments | Labels | None = None,
        *,
        labels: Sequence[LabelSplit] = (),
        vectors: Sequence[ItemVectors] = (),
        checkpoint: Path | None = None,
        trackers: Sequence[Tracker] = (),
        progress: Progress | None = None,
    ) -> Self:
        """Learn from training sequences, or from labels, and keep the epoch with the best validation score.

        The score is NDCG@10 for ranking, the log-likelihood for time, and minus the loss for labels. Where time comes
        first and ranking is there too, it is the log-likelihood of the next event, its time and its item together.

        Args:
            train: sequences for ranking and time; labels where these are the only task.
            validation: moments, or labels, that decide when to stop; by default each training user's last event, or
                the labels of one user in ten, which then are not trained on.
            labels: for joint tasks, the questions beside ranking and time, one split for each; trained on its
                training part.
            vectors: blocks of item vectors from elsewhere, such as `encode_items` makes of titles; each is a part of
                an event's vector and of a candidate's.
            checkpoint: a file written after every epoch. If it is there, fitting goes on from it, and ends with
                the same weights as if it had never stopped.
            trackers: hear of every epoch at its end, such as `TensorBoard`; those of a checkpoint come first.

        Raises:
            SchemaError: a context column of the settings is not known, two parts of an event have one name, or vectors
                are of other items.
            ConfigError: a target action is not in the log, the clock is asked for in a log without times, or what is
                given does not fit the tasks.
            LeakageError: the training sequences hold events from after a question that will be judged.
            DataError: there is nothing to learn from, no validation moment has a target, or the loss is not finite.
        """
        examples = build_examples(self.tasks, train, validation, labels)
        self._prepare(examples, vectors)
        identity = self._identity(examples, None)
        self.log = self._learn(
            examples, lambda: self._judge(examples), checkpoint, identity, progress, trackers=trackers
        )
        self.fitted_on = train.fingerprint
        self._fitted_on_labels = {asked.name: asked.fingerprint for asked, _ in examples.labels}
        return self

    def refit(self, train: Sequences, *, checkpoint: Path | None = None, progress: Progress | None = None) -> Predictor:
        """Return a model of the same settings, trained anew on more events for as many epochs as were best here.

        That is what is deployed once the settings are chosen: `model.refit(split.train_and_validation)`.

        Raises:
            ConfigError: the model answers labels; build later ones and fit it on them instead.
        """
        check_fitted(self)
        if self.label_shapes:
            raise ConfigError(
                "refit is for ranking and time. For labels, build those of a later cutoff and fit on them."
            )
        refitted = Predictor(task=self.tasks, model=self.model, train=self.train)
        examples = Examples(sequences=train, learned=train, validation=None, labels=())
        refitted._prepare(examples, self._vectors)
        n_epochs = self.log.best_epoch + 1
        identity = refitted._identity(examples, n_epochs)
        refitted.log = refitted._learn(examples, None, checkpoint, identity, progress, n_epochs=n_epochs)
        refitted.is_refitted, refitted.fitted_on, refitted._fitted_on_labels = True, train.fingerprint, {}
        return refitted

    def with_items(self, vocab: Vocab, vectors: Sequence[ItemVectors]) -> Predictor:
        """Return the same model over more items, which it knows by their vectors alone; nothing is learned anew.

        A new item's own vectors and transitions are zero, so a credit in its score comes from its text or image. Its
        bias is the mean of the training items with the fewest events.

        Args:
            vocab: the model's, with more items behind its own: `model.vocab.with_items(items)`.
            vectors: the blocks that the model was fitted with, made in the same way of all items of `vocab`.

        Raises:
            ConfigError: the model reads no vectors, or others are given.
            SchemaError: the vocabulary does not begin with the model's items, or vectors of those have changed.
        """
        check_fitted(self)
        n_items, n_new = self.vocab.n_items, vocab.n_items - self.vocab.n_items
        if n_new < 0 or not vocab.items.ids[:n_items].equals(self.vocab.items.ids):
            raise SchemaError("these items do not begin with the model's own. Use model.vocab.with_items(items).")
        check_same_blocks(self._vectors, tuple(vectors), vocab.items)
        grown = copy.copy(self)
        grown.vocab, grown._vectors = vocab, tuple(vectors)
        grown.popularity = np.pad(self.popularity, (0, n_new))
        grown._context = ContextLines(vocab, self._context.values)
        fitted = self._network.state_dict()
        grown._assemble(self._network.bias.device, _table_like(fitted, vocab), time=_time_like(fitted))
        bias = fitted["bias"].cpu().numpy()
        rare = self.popularity == self.popularity[self.popularity > 0].min()
        with torch.no_grad():
            grown_weights(fitted, grown._network.state_dict(), n_items, new_bias=float(bias[rare].mean()))
        grown._network.eval()
        return grown

    @property
    def label_mean(self) -> float:
        """Return the mean of the training labels, of a model of one question."""
        check_fitted(self)
        return self._only_question().mean

    @property
    def mean_gap_s(self) -> float:
        """Return the mean time between events of a user that follow each other in training, in seconds."""
        check_fitted(self)
        self._require("time")
        assert self._network.time is not None
        return float(self._network.time.unit_s)

    def predict(self, asked: Moments | Labels) -> np.ndarray:
        """Score every item at each moment, float32 (N, n_items), or answer each question, float64 (L,).

        An answer is a probability, or a number in the label's unit.

        Raises:
            ConfigError: the model was not fitted for what is asked.
        """
        check_fitted(self)
        if isinstance(asked, Labels):
            return self._answer(asked)
        check_type("asked", asked, Moments, "split.test")
        self._require("ranking")
        self._check_readable(asked)
        return self._reading.scores(asked)

    def predict_gap(self, moments: Moments) -> np.ndarray:
        """Return the expected time from each moment's latest event to the next, in seconds, float64 (N,).

        NaN where there is no event yet.
        """
        self._check_timed(moments)
        return self._reading.expected_gap(moments)

    def log_density(self, moments: Moments) -> np.ndarray:
        """Return the log-likelihood of the time of what came next, per second, float64 (N,): log λ(t) − ∫ λ.

        NaN where there was no event before or none came.
        """
        self._check_timed(moments)
        return self._reading.log_density(moments)

    def readout(self, name: str) -> Readout:
        """Return what answers the question of this name, as a model of its own for `evaluate_labels`."""
        check_fitted(self)
        return Readout(self, self._label_shape(name).mean, self._fitted_on_labels.get(name, ""))

    def credits(
        self,
        moments: Moments,
        candidates: np.ndarray,
        *,
        method: CreditMethod | None = None,
        mixture: np.ndarray | None = None,
    ) -> Credits:
        """Return the terms of the scores of these items, int (N, C), at each moment.

        For a sum they come by default from one forward pass, split by part of the event. For a black box they are
        estimated: what leaving each event out takes away, and the residual that these do not add up to.

        Args:
            method: another way to come to them.
            mixture: weights (N, X, C) of X sums of the candidates' scores a moment, whose terms are wanted instead.

        Raises:
            ConfigError: the method does not fit the model, or this was not fitted for ranking.
        """
        check_fitted(self)
        self._require("ranking")
        self._check_readable(moments)
        return self._reading.score_credits(moments, candidates, self._fitting(method), mixture)

    def faded_credits(self, moments: Moments, candidates: np.ndarray, gaps_s: np.ndarray) -> np.ndarray:
        """Return the credit of each moment's latest event for an item, had it been alone and this long ago, (N, G).

        This is how the fitted kernels let an event fade, whatever came after it.

        Args:
            moments: N moments, each with a history.
            candidates: an item for each, int (N,).
            gaps_s: G gaps in seconds.

        Raises:
            ConfigError: the model is no sum over events, was not fitted for ranking, or the log is order-only.
        """
        check_fitted(self)
        self._require("ranking")
        self._check_readable(moments)
        if not self.model.is_sum or not self._is_timed:
            raise ConfigError(f"the events of a {self.name} model have no kernel over gaps.")
        return self._reading.faded_credits(moments, candidates, gaps_s)

    def answer_credits(self, labels: Labels, *, method: CreditMethod | None = None) -> Credits:
        """Return the terms of each answer, one moment a question: of a logit, or of a number in the label's unit."""
        check_fitted(self)
        self._shape_of(labels)
        self._check_readable(labels.moments)
        return self._reading.answer_credits(labels, self._fitting(method))

    def gap_credits(self, moments: Moments, after_s: float = 0.0, *, method: CreditMethod | None = None) -> Credits:
        """Return the terms of log λ, the log-intensity per second this long after each moment's latest event."""
        self._check_timed(moments)
        return self._reading.gap_credits(moments, after_s, self._fitting(method))

    def log_intensity(self, moments: Moments, after_s: float = 0.0) -> np.ndarray:
        """Return log λ per second this long after each moment's latest event, float64 (N,)."""
        self._check_timed(moments)
        return self._reading.log_intensity(moments, after_s)

    def shuffled(self, seed: int = 0) -> Predictor:
        """Return the same model with the entries of each weight exchanged at random; it has learned nothing.

        The counted part's table is no weight but learned all the same: its values are exchanged too, and the items
        that came after others renamed; rows keep how many entries they have. Vectors from elsewhere stay as they are,
        since they were not learned.

        Credits that stay as they are then do not come from what was learned. Adebayo et al., Sanity checks for
        saliency maps, 2018.
        """
        check_fitted(self)
        other = copy.copy(self)
        weights = self._network.state_dict()
        other._assemble(self._network.bias.device, _table_like(weights, self.vocab), time=_time_like(weights))
        other._network.load_state_dict(weights)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in other._network.parameters():
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
            if other._network.counted is not None:
                other._network.counted.shuffle(generator)
        other._network.eval()
        return other

    def settings(self) -> dict[str, Any]:
        """Return the settings that the constructor takes, as plain values."""
        return {"task": list(self.tasks), "model": asdict(self.model), "train": asdict(self.train)}

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors`, `config.json`, `metrics.jsonl` and the vocabulary; none of them can run code."""
        check_fitted(self)
        folder = made(folder)
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self._network.state_dict().items()}
        save_file({**tensors, "popularity": torch.from_numpy(self.popularity)}, folder / "model.safetensors")
        config = {
            "model": "predictor",
            "settings": self.settings(),
            "fitted_on": self.fitted_on,
            "is_refitted": self.is_refitted,
            "scaling": self.scaling.to_dict(),
            "context_values": self._context.values,
            "is_timed": self._is_timed,
            "vectors": {block.name: {"source": block.source, "fitted_on": block.fitted_on} for block in self._vectors},
            "labels": [asdict(shape) for shape in self.label_shapes],
            "fitted_on_labels": self._fitted_on_labels,
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
        predictor._vectors = tuple(
            _restored_vectors(name, tensors[f"encoder.given.{name}.vectors_IV"], **about)
            for name, about in config["vectors"].items()
        )
        predictor.label_shapes = tuple(LabelShape(**shape) for shape in config["labels"])
        predictor._fitted_on_labels = config["fitted_on_labels"]
        # Only the shapes of table, vectors and bins are needed here: their numbers are among the tensors.
        table = _table_like(tensors, predictor.vocab)
        # A model fitted on a GPU is also read where there is none; one told to keep off it keeps off it.
        device = "cpu" if predictor.train.device == "cpu" else "auto"
        predictor._assemble(device_of(device), table, time=_time_like(tensors))
        predictor._network.load_state_dict(tensors)
        predictor._network.eval()
        return predictor

    def _prepare(self, examples: Examples, vectors: Sequence[ItemVectors]) -> None:
        """Take from the data what the network is made by."""
        self.fitted_on = ""
        vocab, learned = examples.sequences.vocab, examples.learned
        check_list("vectors", vectors)
        for block in vectors:
            check_type("vectors", block, ItemVectors, "encode_items(...) or read_vectors(...)")
        self.vocab, self._vectors, self.popularity = vocab, tuple(vectors), examples.sequences.popularity()
        for block in vectors:
            if len(block.vectors) != vocab.n_items:
                raise SchemaError(
                    f"the vectors {block.name!r} are of {len(block.vectors):,} items, the log has {vocab.n_items:,}. "
                    "Make them with the vocabulary of these sequences."
                )
            block.check_items(vocab.items)
        self.scaling = fit_scaling(learned, self.model.scaling)
        self._is_timed = learned.time_us is not None
        self._context = ContextLines.of(vocab, self.model.context, is_timed=self._is_timed)
        self.label_shapes = tuple(label_shape(asked, self.train.class_weight) for asked, _ in examples.labels)
        self._table = self._count(learned)
        time = None
        if "time" in self.tasks:
            if learned.time_us is None:
                raise ConfigError("the task 'time' needs a log with times, and this one is order-only.")
            time = time_bins(torch.from_numpy(gaps_of(learned)))
        item_counts = torch.from_numpy(learned.item_counts())
        self._assemble(device_of(self.train.device), self._table, item_counts, time)

    def _learn(
        self,
        examples: Examples,
        judge: Callable[[], dict[str, float]] | None,
        checkpoint: Path | None,
        identity: str,
        progress: Progress | None,
        n_epochs: int | None = None,
        trackers: Sequence[Tracker] = (),
    ) -> TrainingLog:
        batches = TrainingBatches(
            self._batcher,
            examples,
            has_windows=bool({"ranking", "time"} & set(self.tasks)),
            own=None if self._table is None else self._table.own(examples.learned),
            max_len=self.max_len,
            batch_size=self.train.batch_size,
        )
        return train_module(
            self._network,
            batches.epoch,
            judge,
            self.train,
            n_batches=len(batches),
            n_epochs=n_epochs,
            checkpoint=checkpoint,
            identity=identity,
            trackers=trackers,
            progress=progress,
        )

    def _count(self, train: Sequences) -> TransitionTable | None:
        """Count the transitions of the very events that are trained on, so that a user's own can be taken out."""
        if self.model.count_len == 0 or "ranking" not in self.tasks:
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

    def _assemble(
        self,
        device: torch.device,
        table: TransitionTable | None,
        item_counts: torch.Tensor | None = None,
        time: tuple[torch.Tensor, float, float] | None = None,
    ) -> None:
        """Make the network and the batcher that the data and the settings call for."""
        shape = Shape(
            n_items=self.vocab.n_items,
            n_actions=len(self.vocab.actions),
            n_numbers=len(self.scaling.names),
            n_categories={name: len(ids) for name, ids in self.vocab.categories.items()},
            n_values=self._context.n_values,
            is_timed=self._is_timed,
        )
        # The first weights come from the seed, and the caller's random numbers go on as if nothing had happened.
        with torch.random.fork_rng():
            torch.manual_seed(self.train.seed)
            network = Network(
                self.model,
                shape,
                table=table,
                blocks=self._vectors,
                item_counts=item_counts,
                labels=self.label_shapes,
                time=time,
                ranks="ranking" in self.tasks,
            )
        self._network = network.to(device)
        self._batcher = Batcher(
            n_items=shape.n_items,
            n_actions=shape.n_actions,
            n_categories=tuple(shape.n_categories.values()),
            scaling=self.scaling,
            context=self._context,
            knows_moment=self.model.knows_moment,
            target_actions=self._target_actions(),
        )
        self._reading = Reading(self._network, self._batcher, self.max_len, self.model.context)

    def _target_actions(self) -> np.ndarray | None:
        if not self.model.target_actions:
            return None
        return self.vocab.actions.require_idx(self.model.target_actions)

    def _check_readable(self, moments: Moments) -> None:
        check_same_ids(self, moments)
        check_same_categories(self, moments)
        if moments.sequences.number_names != self.scaling.names:
            raise SchemaError(
                f"this model was fitted on the numbers {self.scaling.names}, these sequences have "
                f"{moments.sequences.number_names}. Build them with numbers={self.scaling.names}."
            )

    def _answer(self, labels: Labels) -> np.ndarray:
        scores = self.answer_scores(labels)
        if self._shape_of(labels).kind == "regression":
            return scores
        # A logit of a thousand is a probability of 1; NumPy would warn that exp(1000) is infinite.
        return np.asarray(1 / (1 + np.exp(-np.clip(scores, -500, 500))))

    def answer_scores(self, labels: Labels) -> np.ndarray:
        """Return the logit of each answer of a classification, else the answer, float64 (L,); a ledger's scores."""
        self._shape_of(labels)
        self._check_readable(labels.moments)
        return self._reading.answers(labels)

    def _label_shape(self, name: str) -> LabelShape:
        for shape in self.label_shapes:
            if shape.name == name:
                return shape
        known = ", ".join(repr(shape.name) for shape in self.label_shapes) or "no question"
        raise ConfigError(f"this {self.name} model was not fitted to answer {name!r}. It answers {known}.")

    def _shape_of(self, labels: Labels) -> LabelShape:
        shape = self._label_shape(labels.name)
        check_question(self.name, shape.question, labels)
        return shape

    def _only_question(self) -> LabelShape:
        if len(self.label_shapes) != 1:
            raise ConfigError(f"this {self.name} model answers {len(self.label_shapes)} questions. Use readout(name).")
        return self.label_shapes[0]

    def _check_timed(self, moments: Moments) -> None:
        check_fitted(self)
        self._require("time")
        self._check_readable(moments)

    def _fitting(self, method: CreditMethod | None) -> CreditMethod:
        """Return the method, or the default one; refuse one that does not fit."""
        method = method or CreditMethod(name=self.methods[0])
        check_fits(method, self.methods, self.name)
        return method

    def _require(self, task: Task) -> None:
        if task not in self.tasks:
            raise ConfigError(
                f"this {self.name} model was fitted for {', '.join(self.tasks)} and not for {task}. "
                f"Fit Predictor(task={task!r}), or several tasks at once."
            )

    def _judge(self, examples: Examples) -> dict[str, float]:
        # Half fitted is fitted enough to be judged, and no longer if training fails.
        self.fitted_on = examples.sequences.fingerprint
        found = validation_scores(self, examples)
        self.fitted_on = ""
        return found

    def _identity(self, examples: Examples, n_epochs: int | None) -> str:
        """Return a hash of all that the weights at the end of an epoch depend on."""
        digest = hashlib.sha256(self._context.of_users_UC.tobytes())
        if examples.validation is not None:
            digest.update(examples.validation.stop.tobytes() + examples.validation.target_stop.tobytes())
            digest.update(examples.validation.sequences.fingerprint.encode())
        for block in self._vectors:
            digest.update(np.ascontiguousarray(block.vectors).tobytes())
        asked = [(train.fingerprint, validation.fingerprint) for train, validation in examples.labels]
        settings = (examples.sequences.fingerprint, asked, self.tasks, n_epochs, self.model, self.train)
        digest.update(repr((*settings, self._context.values, torch.__version__)).encode())
        return digest.hexdigest()[:12]


def _restored_vectors(name: str, vectors_IV: torch.Tensor, source: str, fitted_on: str) -> ItemVectors:
    vectors = vectors_IV[:-1].numpy()
    known = np.asarray(vectors.any(axis=1))
    return ItemVectors(name=name, vectors=vectors, is_known=known, source=source, fitted_on=fitted_on)


def _table_like(tensors: dict[str, torch.Tensor], vocab: Vocab) -> TransitionTable | None:
    entries = tensors.get("counted.item_IJ")
    return None if entries is None else TransitionTable.empty(vocab.n_items, entries.shape[1])


def _time_like(tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, float, float] | None:
    edges = tensors.get("time.edges_K")
    return None if edges is None else (edges, 1.0, 1.0)
