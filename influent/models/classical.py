"""Classical models of labels, on features of the history: scikit-learn learns, arrays are kept, NumPy answers.

A fitted model is a handful of arrays, so saving it needs no pickle, and a saved one answers where scikit-learn is not
installed. Shapes: L questions, F features.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.special import expit

from influent.data.history import ItemRates, build_item_rates, question_features
from influent.data.labels import Kind, Labels
from influent.data.vocab import Vocab
from influent.errors import ConfigError, DataError, LeakageError, MissingExtraError, RunFolderError, SchemaError
from influent.models.credits import Credits
from influent.models.label_model import FeatureCredits, check_answered, check_same_question, check_tells_apart
from influent.models.methods import CreditMethod, MethodName, check_fits
from influent.models.model import check_fitted
from influent.progress import Progress
from influent.run import made
from influent.settings import check_type

_BOUND = 10.0
_RATE_COLUMNS = ("item_idx", "known_at", "n_events", "n_asked", "label_sum")


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Questions as a learner sees them."""

    x: np.ndarray
    """float64 (L, F)"""
    label: np.ndarray
    user_idx: np.ndarray


class Classical:
    """What the models of this file share; each says how to `_learn` its arrays, and how to `_answer` by them."""

    KIND: ClassVar[str]
    KINDS: ClassVar[tuple[Kind, ...]]
    """What kinds of labels it can learn."""
    actions: bool

    fitted_on: str = ""
    vocab: Vocab
    label_mean: float
    kind: Kind
    """The kind of the labels it was fitted on."""
    asked: str
    """The name of the labels it was fitted on."""
    question: str
    """What these ask, whatever their name."""
    features: tuple[str, ...]
    rates: ItemRates | None
    arrays: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        for setting in fields(self):  # type: ignore[arg-type]
            value, is_int = getattr(self, setting.name), setting.type == "int"
            least = 0 if setting.name == "seed" else 1
            wanted = f"an int from {least}" if is_int else "a number above 0"
            is_fine = (
                isinstance(value, int if is_int else int | float) and (least if is_int else 1e-12) <= value < 2**31
            )
            if setting.type == "bool":
                wanted, is_fine = "true or false", isinstance(value, bool)
            elif isinstance(value, bool) or not is_fine:
                is_fine = False
            if not is_fine:
                raise ConfigError(f"{type(self).__name__}.{setting.name} must be {wanted}. Got {value!r}.")

    @property
    def name(self) -> str:
        """Return how reports call the model."""
        return self.KIND

    def _learn(self, train: _Table, validation: _Table | None) -> dict[str, np.ndarray]:
        """Return what `_answer` needs."""
        raise AssertionError(f"{type(self).__name__} does not say how to learn")

    def _answer(self, x: np.ndarray) -> np.ndarray:
        """Return the logit, or the number, for each row of features."""
        raise AssertionError(f"{type(self).__name__} does not say how to answer")

    def fit(self, train: Labels, validation: Labels | None = None, *, progress: Progress | None = None) -> Self:
        """Learn from training labels; what validation is for, each model says.

        Raises:
            DataError: there are no labels, some are not known, a classification has one answer only, or validation
                asks another question.
            ConfigError: the model does not learn this kind of labels.
            MissingExtraError: scikit-learn is not installed.
        """
        check_type("train", train, Labels, "split_labels_at(...).train")
        check_answered(train)
        if train.kind not in self.KINDS:
            raise ConfigError(
                f"{type(self).__name__} learns {' and '.join(self.KINDS)}; {train.name!r} is a {train.kind}. "
                f"Use one of: {', '.join(kind.__name__ for kind in CLASSICAL.values() if train.kind in kind.KINDS)}."
            )
        check_tells_apart(train)
        _sklearn("", self.name)
        self.fitted_on = ""
        with (progress or Progress()).track(f"fit {self.name}", 2) as advance:
            self.kind, self.asked, self.question = train.kind, train.name, train.question
            self.vocab = train.moments.sequences.vocab
            self.label_mean = float(train.label.mean())
            self.rates = None if train.item_idx is None else build_item_rates(train)
            described = question_features(train, self.rates, actions=self.actions)
            self.features = described.names
            held_out = None
            if validation is not None:
                check_answered(validation)
                held_out = _Table(x=self._describe(validation), label=validation.label, user_idx=validation.user_idx)
            advance()
            self.arrays = self._learn(_Table(x=described.values, label=train.label, user_idx=train.user_idx), held_out)
            advance()
        self.fitted_on = train.fingerprint
        return self

    def predict(self, labels: Labels) -> np.ndarray:
        """Answer each question, float64 (L,): a probability, or a number in the label's unit."""
        check_fitted(self)
        answer = self._answer(self._describe(labels))
        return np.asarray(expit(answer) if self.kind == "classification" else answer)

    def update_rates(self, labels: Labels) -> Self:
        """Take what is known of items from these labels, and no longer from training; all else stays as it was fitted.

        This is what a service does that counts as it goes. Only what is known before its moment describes a question,
        so that `labels` may be those that are to be answered, with their past.

        Raises:
            LeakageError: the log is order-only, so that what comes before a moment is not known.
            ConfigError: the model's questions are not about items.
        """
        check_fitted(self)
        check_same_question(self.name, self.asked, self.question, self.vocab, labels)
        if self.rates is None:
            raise ConfigError(f"{self.asked!r} is asked about the user: there is no item to have a rate.")
        if not self.rates.is_timed or labels.moments.time_us is None:
            raise LeakageError("in an order-only log it is not known what came before a moment. Keep training's rates.")
        self.rates = replace(build_item_rates(labels, smoothing=self.rates.smoothing), mean=self.rates.mean)
        return self

    def _describe(self, labels: Labels) -> np.ndarray:
        check_same_question(self.name, self.asked, self.question, self.vocab, labels)
        described = question_features(labels, self.rates, actions=self.actions)
        if described.names != self.features:
            odd = sorted(set(described.names) ^ set(self.features))
            raise SchemaError(
                f"these questions are described by other numbers than the {self.name} model was fitted on: "
                f"{', '.join(odd)}. Build their sequences with the same numbers, times and items."
            )
        return described.values

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors`, `config.json` and the vocabulary."""
        check_fitted(self)
        folder = made(folder)
        arrays = {name: np.array(array, order="C") for name, array in self.arrays.items()}
        rates = None
        if self.rates is not None:
            arrays |= {f"rates.{name}": self.rates.table.column(name).to_numpy() for name in _RATE_COLUMNS}
            rates = {name: getattr(self.rates, name) for name in ("is_timed", "mean", "smoothing")}
        save_file(arrays, folder / "model.safetensors")
        config = {"model": self.KIND, "settings": asdict(self)}  # type: ignore[call-overload]
        config |= {
            name: getattr(self, name) for name in ("fitted_on", "asked", "question", "kind", "label_mean", "features")
        }
        (folder / "config.json").write_text(json.dumps(config | {"rates": rates}, indent=2) + "\n")
        self.vocab.save(folder)

    def restore(self, config: dict[str, Any], arrays: dict[str, np.ndarray], vocab: Vocab) -> Self:
        """Take over what `save` wrote."""
        self.fitted_on, self.kind = config["fitted_on"], config["kind"]
        self.asked, self.question = config["asked"], config["question"]
        self.label_mean, self.features, self.vocab = config["label_mean"], tuple(config["features"]), vocab
        self.rates = None
        if config["rates"] is not None:
            table = pa.table({name: arrays[f"rates.{name}"] for name in _RATE_COLUMNS})
            self.rates = ItemRates(table=table, **config["rates"])
        self.arrays = {name: array for name, array in arrays.items() if not name.startswith("rates.")}
        return self


class _Scaled(Classical):
    """Models that need numbers of like size.

    Each feature is taken as its logarithm, sign(x) · log(1 + |x|), since counts and days have long tails, then
    centred, divided by its spread and kept between −10 and 10. A missing one becomes 0, the centre, and where
    training has missing ones too, a column of its own says so.
    """

    def _fit_scaling(self, x: np.ndarray) -> dict[str, np.ndarray]:
        x = _signed_log(x)
        is_known = ~np.isnan(x)
        n = np.maximum(is_known.sum(axis=0), 1)
        center = np.where(is_known, x, 0.0).sum(axis=0) / n
        spread = np.sqrt(np.where(is_known, (x - center) ** 2, 0.0).sum(axis=0) / n)
        # The deviation of equal numbers is a rounding error, seldom 0.
        spread = np.where(spread > 1e-9 * np.maximum(np.abs(center), 1.0), spread, np.inf)
        some_missing = ~is_known.all(axis=0) & is_known.any(axis=0)
        return {"center": center, "spread": spread, "missing": np.flatnonzero(some_missing)}

    def _scale(self, x: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
        scaled = np.clip((_signed_log(x) - arrays["center"]) / arrays["spread"], -_BOUND, _BOUND)
        return np.asarray(np.hstack([np.nan_to_num(scaled, nan=0.0), np.isnan(x[:, arrays["missing"]])]))


class _Linear(_Scaled):
    """Models whose logit, or number, is a sum of one term per feature."""

    methods: ClassVar[tuple[MethodName, ...]] = ("exact",)

    def _answer(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._terms(x).sum(axis=1) + self.arrays["bias"])

    def _terms(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._scale(x, self.arrays) * self.arrays["weights"])

    def credits(self, labels: Labels) -> FeatureCredits:
        """Return the terms of each answer's logit, or of the number itself; they add up to it."""
        check_fitted(self)
        terms = self._terms(self._describe(labels))
        missing = tuple(f"{self.features[place]} is missing" for place in self.arrays["missing"])
        return FeatureCredits(names=self.features + missing, credit=terms, bias=float(self.arrays["bias"]))

    def answer_scores(self, labels: Labels) -> np.ndarray:
        """Return the logit of each answer of a classification, else the answer, float64 (L,); a ledger's scores."""
        check_fitted(self)
        return self._answer(self._describe(labels))

    def answer_credits(self, labels: Labels, *, method: CreditMethod | None = None) -> Credits:
        """Return the terms of each answer for a ledger: one for each feature, none of single events.

        Raises:
            ConfigError: the method does not fit.
        """
        if method is not None:
            check_fits(method, self.methods, self.name)
        found = self.credits(labels)
        n_labels = len(found.credit)
        return Credits(
            offsets=np.zeros(n_labels + 1, np.int64),
            place=np.zeros(0, np.int64),
            credit=np.zeros((0, 1)),
            bias=np.full((n_labels, 1), found.bias),
            context={name: found.credit[:, [place]] for place, name in enumerate(found.names)},
        )


@dataclass(kw_only=True)
class LogisticRegression(_Linear):
    """Logistic regression. Its logit is a sum of terms of features; validation is not needed."""

    KIND = "logistic_regression"
    KINDS = ("classification",)
    l2: float = 1.0
    """Strength of the penalty on squared weights, beside a sum over questions."""
    actions: bool = True
    """Whether there are features of single actions."""

    def _learn(self, train: _Table, validation: _Table | None) -> dict[str, np.ndarray]:
        arrays = self._fit_scaling(train.x)
        kind = _sklearn("linear_model", self.name).LogisticRegression
        learner = kind(C=1 / self.l2, solver="newton-cholesky", max_iter=1000)
        learner.fit(self._scale(train.x, arrays), train.label)
        return arrays | {"weights": learner.coef_[0], "bias": learner.intercept_[0]}


@dataclass(kw_only=True)
class LinearSvm(_Linear):
    """A linear support vector machine whose margins become probabilities by Platt's sigmoid.

    The sigmoid is fitted on validation, or else on margins of users that a fold was not trained on. The logit is
    linear in the margin, so it is a sum of terms of features too. Platt, Probabilistic outputs for support vector
    machines, 1999.
    """

    KIND = "linear_svm"
    KINDS = ("classification",)
    l2: float = 1.0
    """Strength of the penalty on squared weights, beside a sum over questions."""
    n_folds: int = 5
    """Folds of users, where there is no validation."""
    actions: bool = True
    """Whether there are features of single actions."""

    def _learn(self, train: _Table, validation: _Table | None) -> dict[str, np.ndarray]:
        arrays = self._fit_scaling(train.x)
        x = self._scale(train.x, arrays)
        weights, bias = self._separate(x, train.label)
        if validation is not None:
            margins, label = self._scale(validation.x, arrays) @ weights + bias, validation.label
        else:
            margins, label = self._left_out_margins(x, train), train.label
        slope, offset = self._platt(margins, label)
        return arrays | {"weights": slope * weights, "bias": np.asarray(slope * bias + offset)}

    def _separate(self, x: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, float]:
        learner = _sklearn("svm", self.name).LinearSVC(C=1 / self.l2, dual=False, max_iter=10_000)
        learner.fit(x, label)
        return learner.coef_[0], float(learner.intercept_[0])

    def _left_out_margins(self, x: np.ndarray, train: _Table) -> np.ndarray:
        _, user = np.unique(train.user_idx, return_inverse=True)
        fold, margins = user % self.n_folds, np.empty(len(x))
        for left_out in np.unique(fold):
            others = train.label[fold != left_out]
            if len(others) == 0 or np.ptp(others) == 0:
                raise DataError(
                    f"{self.n_folds} folds of users leave one with a single answer. Use fewer n_folds, more data, or "
                    "name validation labels."
                )
            weights, bias = self._separate(x[fold != left_out], others)
            margins[fold == left_out] = x[fold == left_out] @ weights + bias
        return margins

    def _platt(self, margins: np.ndarray, label: np.ndarray) -> tuple[float, float]:
        # Platt's targets are not quite 0 and 1, as if each class had been seen once more; so each margin comes twice,
        # weighted by its target.
        n_positive = label.sum()
        target = np.where(label == 1, (n_positive + 1) / (n_positive + 2), 1 / (len(label) - n_positive + 2))
        learner = _sklearn("linear_model", self.name).LogisticRegression(
            C=np.inf, solver="newton-cholesky", max_iter=1000
        )
        answers, twice = np.repeat([1.0, 0.0], len(label)), np.tile(margins, 2)[:, None]
        learner.fit(twice, answers, sample_weight=np.concatenate([target, 1 - target]))
        return float(learner.coef_[0, 0]), float(learner.intercept_[0])


@dataclass(kw_only=True)
class RidgeRegression(_Linear):
    """Linear regression with a penalty. Its answer is a sum of terms of features; validation is not needed."""

    KIND = "ridge_regression"
    KINDS = ("regression",)
    l2: float = 1.0
    """Strength of the penalty on squared weights, beside a sum over questions."""
    actions: bool = True
    """Whether there are features of single actions."""

    def _learn(self, train: _Table, validation: _Table | None) -> dict[str, np.ndarray]:
        arrays = self._fit_scaling(train.x)
        learner = _sklearn("linear_model", self.name).Ridge(alpha=self.l2)
        learner.fit(self._scale(train.x, arrays), train.label)
        return arrays | {"weights": learner.coef_, "bias": np.asarray(learner.intercept_)}


@dataclass(kw_only=True)
class NeuralNetwork(_Scaled):
    """A network with one hidden layer of rectified units; validation says when to stop."""

    KIND = "neural_network"
    KINDS = ("classification", "regression")
    hidden_dim: int = 32
    """Units of the hidden layer."""
    epochs: int = 30
    """Most passes over the training labels; as many as there are without validation."""
    patience: int = 5
    """Stop after this many epochs without a smaller validation loss."""
    batch_size: int = 256
    """Questions per step."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    weight_decay: float = 1e-4
    """Strength of the penalty on squared weights."""
    seed: int = 0
    """Where all randomness comes from."""
    actions: bool = True
    """Whether there are features of single actions."""

    def _learn(self, train: _Table, validation: _Table | None) -> dict[str, np.ndarray]:
        arrays = self._fit_scaling(train.x)
        is_class = self.kind == "classification"
        middle, width = (0.0, 1.0) if is_class else (train.label.mean(), max(float(train.label.std()), 1e-9))
        arrays |= {"middle": np.asarray(middle), "width": np.asarray(width)}
        network = _sklearn("neural_network", self.name)
        learner = (network.MLPClassifier if is_class else network.MLPRegressor)(
            hidden_layer_sizes=(self.hidden_dim,),
            alpha=self.weight_decay,
            batch_size=min(self.batch_size, len(train.x)),
            learning_rate_init=self.learning_rate,
            random_state=self.seed,
        )
        x, target = self._scale(train.x, arrays), (train.label - middle) / width
        found, least, waited = arrays, np.inf, 0
        for _ in range(self.epochs):
            learner.partial_fit(x, target, **({"classes": [0.0, 1.0]} if is_class else {}))
            layers = {
                f"{what}_{place}": array.copy()
                for what, parts in (("weights", learner.coefs_), ("bias", learner.intercepts_))
                for place, array in enumerate(parts)
            }
            if validation is None:
                found = arrays | layers
                continue
            self.arrays = arrays | layers
            loss = self._loss(self._answer(validation.x), validation.label)
            found, least, waited = (self.arrays, loss, 0) if loss < least else (found, least, waited + 1)
            if waited >= self.patience:
                break
        return found

    def _loss(self, answer: np.ndarray, label: np.ndarray) -> float:
        if self.kind == "classification":
            return float(np.logaddexp(0, np.where(label == 1, -answer, answer)).mean())
        return float(((answer - label) ** 2).mean())

    def _answer(self, x: np.ndarray) -> np.ndarray:
        a = self.arrays
        hidden = np.maximum(self._scale(x, a) @ a["weights_0"] + a["bias_0"], 0.0)
        return np.asarray((hidden @ a["weights_1"] + a["bias_1"])[:, 0] * a["width"] + a["middle"])


@dataclass(kw_only=True)
class GradientBoosting(Classical):
    """Gradient-boosted trees; validation says how many. Features are taken as they are, missing ones included.

    The nodes of scikit-learn's trees are kept as arrays, which is what makes them safe to save.
    """

    KIND = "gradient_boosting"
    KINDS = ("classification", "regression")
    n_trees: int = 200
    """Most trees; as many as there are without validation."""
    learning_rate: float = 0.05
    """How much of each tree counts."""
    max_leaves: int = 31
    """Leaves of a tree."""
    min_leaf: int = 20
    """Least training questions in a leaf."""
    l2: float = 1.0
    """Strength of the penalty on squared leaf values."""
    patience: int = 20
    """Stop after this many trees without a smaller validation loss."""
    seed: int = 0
    """Where all randomness comes from."""
    actions: bool = True
    """Whether there are features of single actions."""

    def _learn(self, train: _Table, validation: _Table | None) -> dict[str, np.ndarray]:
        ensemble = _sklearn("ensemble", self.name)
        is_class = self.kind == "classification"
        learner = (ensemble.HistGradientBoostingClassifier if is_class else ensemble.HistGradientBoostingRegressor)(
            max_iter=self.n_trees,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.max_leaves,
            min_samples_leaf=self.min_leaf,
            l2_regularization=self.l2,
            early_stopping=validation is not None,
            n_iter_no_change=self.patience,
            random_state=self.seed,
        )
        held_out = {} if validation is None else {"X_val": validation.x, "y_val": validation.label}
        # scikit-learn cannot bin a column in which all is missing; equal numbers it does not split by either.
        learner.fit(np.where(np.isnan(train.x).all(axis=0), 0.0, train.x), train.label, **held_out)
        # The first score is that of no tree.
        n_kept = self.n_trees if validation is None else int(np.argmax(learner.validation_score_))
        # scikit-learn has no public view of the nodes; a test compares our answers with its own.
        trees = [predictor.nodes for [predictor] in learner._predictors[:n_kept]]
        offsets = np.concatenate([[0], np.cumsum([len(nodes) for nodes in trees])]).astype(np.int64)
        nodes = np.concatenate(trees) if trees else np.zeros(0, learner._predictors[0][0].nodes.dtype)
        own = np.arange(len(nodes))
        first = np.repeat(offsets[:-1], np.diff(offsets))
        is_leaf = nodes["is_leaf"].astype(bool)
        return {
            "baseline": np.asarray(learner._baseline_prediction, np.float64).reshape(()),
            "offsets": offsets,
            "feature": np.where(is_leaf, 0, nodes["feature_idx"]).astype(np.int64),
            "threshold": np.where(is_leaf, 0.0, nodes["num_threshold"]),
            "missing_goes_left": nodes["missing_go_to_left"].astype(bool),
            # A leaf leads to itself.
            "left": np.where(is_leaf, own, first + nodes["left"]),
            "right": np.where(is_leaf, own, first + nodes["right"]),
            "value": nodes["value"].astype(np.float64),
            "depth": np.maximum.reduceat(nodes["depth"], offsets[:-1]).astype(np.int64) if trees else np.zeros(0, int),
        }

    def _answer(self, x: np.ndarray) -> np.ndarray:
        a = self.arrays
        answer = np.full(len(x), float(a["baseline"]))
        # Few rows at a time, so that they stay in the cache while every tree is walked.
        for begin in range(0, len(x), 4096):
            some = x[begin : begin + 4096]
            row = np.arange(len(some))
            for root, depth in zip(a["offsets"][:-1], a["depth"], strict=True):
                node = np.full(len(some), root)
                for _ in range(depth):
                    number = some[row, a["feature"][node]]
                    goes_left = np.where(np.isnan(number), a["missing_goes_left"][node], number <= a["threshold"][node])
                    node = np.where(goes_left, a["left"][node], a["right"][node])
                answer[begin : begin + 4096] += a["value"][node]
        return answer


CLASSICAL: dict[str, type[Classical]] = {
    kind.KIND: kind for kind in (LogisticRegression, LinearSvm, RidgeRegression, NeuralNetwork, GradientBoosting)
}
"""The models of this file, by the name in `config.json`."""


def load_label_model(folder: str | Path) -> Classical:
    """Read a model that `save` wrote. Reading never runs code from the folder, and does not need scikit-learn.

    Raises:
        RunFolderError: the folder holds no such model, or a damaged one.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.exists():
        raise RunFolderError(f"{folder} holds no model (no config.json). Make one first: model.fit(…).save(folder).")
    try:
        config = json.loads(path.read_text())
        kind = config["model"]
        if kind in CLASSICAL:
            model = CLASSICAL[kind](**config["settings"])
            return model.restore(config, load_file(folder / "model.safetensors"), Vocab.load(folder))
    except (SafetensorError, KeyError, FileNotFoundError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"the model in {folder} is damaged ({type(error).__name__}: {error}). Fit it again."
        ) from error
    raise RunFolderError(f"{path} names the model {kind!r}. Models of labels are: {', '.join(CLASSICAL)}.")


def _sklearn(module: str, name: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{module}" if module else "sklearn")
    except ImportError as error:
        raise MissingExtraError(
            f"fitting the {name} model needs scikit-learn: pip install 'influent[classical]'."
        ) from error


def _signed_log(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.sign(x) * np.log1p(np.abs(x)))
