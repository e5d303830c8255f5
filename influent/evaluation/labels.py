"""Labels and answers to measures of accuracy, and models to a table of them with intervals.

Every measure takes `weight`, how often each question counts (by default once), which is what the bootstrap varies.
Where a measure is not defined, such as an AUC without a positive, it is NaN. Shape: L questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from influent.data.labels import Kind, Labels
from influent.errors import ConfigError, DataError
from influent.evaluation.least_squares import without_rounding
from influent.evaluation.report import Comparison, Measure, by_name
from influent.models.label_model import LabelModel, check_answered, check_may_answer
from influent.progress import Progress
from influent.settings import check_int, check_type

_CLIP = 1e-15
_BASELINE = "constant"


def accuracy(
    label: np.ndarray, probability: np.ndarray, *, threshold: float = 0.5, weight: np.ndarray | None = None
) -> float:
    """Return the share of questions whose answer, 1 where the probability reaches the threshold, is the label.

    Example:
        >>> accuracy(np.array([1, 0, 0]), np.array([0.5, 0.5, 0.1]))  # the second is wrong
        0.6666666666666666
    """
    return _mean((probability >= threshold) == label, weight)


def precision(
    label: np.ndarray, probability: np.ndarray, *, threshold: float = 0.5, weight: np.ndarray | None = None
) -> float:
    """Return the share of 1s among the questions whose probability reaches the threshold; 0 where none does.

    Example:
        >>> precision(np.array([1, 0, 1]), np.array([0.9, 0.5, 0.1]))  # one of two
        0.5
    """
    chosen = probability >= threshold
    return _ratio(_sum(chosen & (label == 1), weight), _sum(chosen, weight), otherwise=0.0)


def recall(
    label: np.ndarray, probability: np.ndarray, *, threshold: float = 0.5, weight: np.ndarray | None = None
) -> float:
    """Return the share of the 1s whose probability reaches the threshold; NaN where there is no 1.

    Example:
        >>> recall(np.array([1, 0, 1, 1]), np.array([0.9, 0.5, 0.5, 0.1]))  # two of three
        0.6666666666666666
    """
    chosen = probability >= threshold
    return _ratio(_sum(chosen & (label == 1), weight), _sum(label == 1, weight), otherwise=np.nan)


def f1(
    label: np.ndarray, probability: np.ndarray, *, threshold: float = 0.5, weight: np.ndarray | None = None
) -> float:
    """Return the harmonic mean of precision and recall: 2 · hits / (chosen + ones); NaN where there is no 1.

    Example:
        >>> f1(np.array([1, 0, 1]), np.array([0.9, 0.5, 0.1]))  # one hit, two chosen, two ones
        0.5
    """
    chosen, ones = probability >= threshold, label == 1
    n_ones = _sum(ones, weight)
    return _ratio(2 * _sum(chosen & ones, weight), _sum(chosen, weight) + n_ones if n_ones else 0.0, otherwise=np.nan)


def auc(label: np.ndarray, score: np.ndarray, *, weight: np.ndarray | None = None) -> float:
    """Return the probability that a 1 has a larger score than a 0; a tie counts half. NaN without both.

    The area under the ROC curve, over all pairs of a 1 and a 0, whosever they are: it rewards telling users apart as
    well as telling the questions of one user apart.

    Example:
        >>> auc(np.array([1, 0, 0]), np.array([0.5, 0.5, 0.1]))  # one pair level, one right
        0.75
    """
    order = np.argsort(score, kind="stable")
    score, label = score[order], label[order]
    weight = np.ones(len(label)) if weight is None else weight[order]
    starts = np.flatnonzero(np.diff(score, prepend=-np.inf) > 0) if len(score) else np.zeros(0, int)
    ones, zeros = (np.add.reduceat(weight * (label == side), starts) if len(starts) else np.zeros(0) for side in (1, 0))
    below = np.cumsum(zeros) - zeros
    return _ratio(float(ones @ (below + zeros / 2)), float(ones.sum() * zeros.sum()), otherwise=np.nan)


def log_loss(label: np.ndarray, probability: np.ndarray, *, weight: np.ndarray | None = None) -> float:
    """Return the mean of −log of the probability given to what happened, in nats.

    Probabilities are kept between 1e-15 and 1 − 1e-15, so that one certain and wrong answer costs 34.5 nats.

    Example:
        >>> log_loss(np.array([1, 0]), np.array([0.5, 0.5]))  # log 2
        0.6931471805599453
    """
    clipped = np.clip(probability, _CLIP, 1 - _CLIP)
    return _mean(-np.where(label == 1, np.log(clipped), np.log1p(-clipped)), weight)


def brier(label: np.ndarray, probability: np.ndarray, *, weight: np.ndarray | None = None) -> float:
    """Return the mean squared distance of probability and label. Brier, 1950, for one event.

    Example:
        >>> brier(np.array([1, 0]), np.array([0.5, 0.0]))  # (0.25 + 0) / 2
        0.125
    """
    return _mean((probability - label) ** 2, weight)


@dataclass(frozen=True)
class CalibrationBin:
    """Questions of like probability: what was said, and what came true."""

    low: float
    """The smallest probability among them."""
    high: float
    """The largest."""
    n: int
    probability: float
    """The mean probability."""
    positive: float
    """The share of 1s."""


def calibration_bins(label: np.ndarray, probability: np.ndarray, *, n_bins: int = 10) -> list[CalibrationBin]:
    """Put the questions in order of their probability, cut them into bins of like size, and describe each.

    Bins of like size, not of like width: where 1s are rare, nearly all probabilities lie in the first tenth. Equal
    probabilities are never parted, so bins may differ in size, and some may be missing.

    Example:
        >>> for bin in calibration_bins(np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.6, 0.8]), n_bins=2):
        ...     print(bin.n, round(bin.probability, 3), bin.positive)
        2 0.2 0.0
        2 0.7 1.0
    """
    place = _bins(probability, n_bins)
    return [
        CalibrationBin(
            low=float(probability[place == one].min()),
            high=float(probability[place == one].max()),
            n=int((place == one).sum()),
            probability=float(probability[place == one].mean()),
            positive=float(label[place == one].mean()),
        )
        for one in np.unique(place)
    ]


def calibration_error(
    label: np.ndarray, probability: np.ndarray, *, n_bins: int = 10, weight: np.ndarray | None = None
) -> float:
    """Return the expected calibration error: the mean over questions of |said − came true| in its bin.

    The bins are those of `calibration_bins`, of like size; weights do not move them. Bins of like width, as in Guo et
    al. 2017, give another number.

    Example:
        >>> calibration_error(np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.6, 0.8]), n_bins=2)  # (0.2 + 0.3) / 2
        0.25
    """
    if len(label) == 0:
        return float("nan")
    weight = np.ones(len(label)) if weight is None else weight
    off = np.bincount(_bins(probability, n_bins), weights=weight * (probability - label))
    return float(np.abs(off).sum() / weight.sum())


def mean_absolute_error(label: np.ndarray, answer: np.ndarray, *, weight: np.ndarray | None = None) -> float:
    """Return the mean distance of answer and label.

    Example:
        >>> mean_absolute_error(np.array([1.0, 5.0]), np.array([2.0, 2.0]))  # (1 + 3) / 2
        2.0
    """
    return _mean(np.abs(answer - label), weight)


def root_mean_squared_error(label: np.ndarray, answer: np.ndarray, *, weight: np.ndarray | None = None) -> float:
    """Return the square root of the mean squared distance of answer and label.

    Example:
        >>> root_mean_squared_error(np.array([1.0, 9.0]), np.array([2.0, 2.0]))  # √((1 + 49) / 2)
        5.0
    """
    return float(np.sqrt(_mean((answer - label) ** 2, weight)))


def r_squared(label: np.ndarray, answer: np.ndarray, *, weight: np.ndarray | None = None) -> float:
    """Return 1 − the squared error over that of the mean of these very labels; NaN where all labels are equal.

    It is 0 for an answer that is that mean, and has no lower end.

    Example:
        >>> r_squared(np.array([1.0, 3.0]), np.array([1.0, 2.0]))  # 1 − (0 + 1) / (1 + 1)
        0.5
    """
    around = without_rounding(label - _mean(label, weight), label)
    left = _ratio(_sum((answer - label) ** 2, weight), _sum(around**2, weight), otherwise=np.nan)
    return 1 - left


@dataclass(frozen=True)
class LabelReport(Comparison):
    """What was measured, of which questions, and how."""

    protocol: str
    split: str
    """Hash of the split, empty where labels came from none."""
    name: str
    """The question."""
    kind: Kind
    unit: str
    """What labels, and errors, are counted in."""
    n_questions: int
    n_users: int
    label_mean: float
    """The mean of the labels that were judged by."""
    threshold: float | None
    """The least probability that counts as a 1; None in a regression."""
    rows: dict[str, dict[str, Measure]]
    calibration: dict[str, list[CalibrationBin]]
    """Model name to bins; empty in a regression."""

    def caption(self) -> str:
        """Return in one sentence what the table is of."""
        how = f"mean {self.label_mean:.4g} {self.unit}"
        if self.kind == "classification":
            how = f"{self.label_mean:.1%} of them 1, threshold {self.threshold:g}"
        return (
            f"{self.name}: {self.protocol}; {self.n_questions:,} questions of {self.n_users:,} users, {how}; "
            f"95 % intervals by bootstrap over users; split {self.split or 'not named'}."
        )


def evaluate_labels(
    models: Sequence[LabelModel] | Mapping[str, LabelModel],
    labels: Labels,
    *,
    threshold: float = 0.5,
    protocol: str = "labels as given",
    split: str = "",
    n_resamples: int = 1000,
    progress: Progress | None = None,
) -> LabelReport:
    """Judge models by how their answers meet the labels, beside a constant: the mean of the training labels.

    Args:
        threshold: the probability from which on an answer counts as a 1 in accuracy, precision, recall and F1.
        n_resamples: how many times users are drawn anew for the intervals.

    Raises:
        LeakageError: a model was fitted on other labels than the training part of this split.
        NotFittedError: a model is not fitted.
        DataError: there are no labels, some are not known, or all are equal.
        ConfigError: there is no model, two have one name, or the threshold is no probability.
    """
    named = by_name(models, taken=_BASELINE)
    check_type("labels", labels, Labels, "split_labels_at(...).test")
    check_int("n_resamples", n_resamples, 1)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ConfigError(f"The 'threshold' parameter of evaluate_labels must lie in [0, 1]. Got {threshold!r}.")
    check_answered(labels)
    if np.ptp(labels.label) == 0:
        raise DataError(
            f"all {len(labels):,} labels of {labels.name!r} are {labels.label[0]:g}: nothing to tell apart."
        )
    for model in named.values():
        check_may_answer(model, labels)
    is_class = labels.kind == "classification"
    measures = _of_probabilities(threshold) if is_class else _OF_NUMBERS
    answers = {_BASELINE: np.full(len(labels), next(iter(named.values())).label_mean)}
    rows = {}
    with (progress or Progress()).track("evaluate", len(named)) as advance:
        for called, model in named.items():
            answers[called] = model.predict(labels)
            advance(1, called)
        for name, answer in answers.items():
            rows[name] = _measured(measures, labels, answer, n_resamples)
    return LabelReport(
        protocol=protocol,
        split=split,
        name=labels.name,
        kind=labels.kind,
        unit=labels.unit,
        n_questions=len(labels),
        n_users=len(np.unique(labels.user_idx)),
        label_mean=float(labels.label.mean()),
        threshold=threshold if is_class else None,
        rows=rows,
        calibration={n: calibration_bins(labels.label, answer) for n, answer in answers.items()} if is_class else {},
    )


_OF_NUMBERS: dict[str, Callable[..., float]] = {
    "MAE": mean_absolute_error,
    "RMSE": root_mean_squared_error,
    "R²": r_squared,
}


def _of_probabilities(threshold: float) -> dict[str, Callable[..., float]]:
    at_threshold = {"accuracy": accuracy, "precision": precision, "recall": recall, "F1": f1}
    return {
        "AUC": auc,
        "log loss": log_loss,
        "Brier": brier,
        "ECE": calibration_error,
        **{name: partial(measure, threshold=threshold) for name, measure in at_threshold.items()},
    }


def _measured(
    measures: dict[str, Callable[..., float]], labels: Labels, answer: np.ndarray, n_resamples: int, seed: int = 0
) -> dict[str, Measure]:
    """Return each measure and its 95 % interval when users are drawn anew, with replacement (Efron 1979).

    All questions of a user are drawn together, since they are not independent. Draws in which a measure is not
    defined are left out.
    """
    # In order of the answers once, which then costs the AUC of each draw little.
    order = np.argsort(answer, kind="stable")
    label, answer = labels.label[order], answer[order]
    users, user = np.unique(labels.user_idx[order], return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = np.empty((n_resamples, len(measures)))
    for place in range(n_resamples):
        times = np.bincount(rng.integers(0, len(users), len(users)), minlength=len(users)).astype(np.float64)
        drawn[place] = [measure(label, answer, weight=times[user]) for measure in measures.values()]
    found = {}
    for name, values in zip(measures, drawn.T, strict=True):
        values = values[~np.isnan(values)]
        low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
        found[name] = Measure(measures[name](label, answer), float(low), float(high))
    return found


def _bins(probability: np.ndarray, n_bins: int) -> np.ndarray:
    """Return the bin of each question, by the mean place of all questions of its probability."""
    _, level, count = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2
    return np.minimum((middle * n_bins / max(len(probability), 1)).astype(np.int64), n_bins - 1)[level]


def _sum(values: np.ndarray, weight: np.ndarray | None) -> float:
    return float(values.sum() if weight is None else values @ weight)


def _mean(values: np.ndarray, weight: np.ndarray | None) -> float:
    return _ratio(_sum(values, weight), len(values) if weight is None else float(weight.sum()), otherwise=np.nan)


def _ratio(above: float, below: float, otherwise: float) -> float:
    return above / below if below > 0 else float(otherwise)
