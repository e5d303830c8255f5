"""Models of what comes next and when, and moments, to a table of how well both were foreseen, with intervals.

Shapes: N moments, I items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np

from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.data.vocab import Vocab
from influent.errors import ConfigError, DataError
from influent.evaluation.metrics import bootstrap_interval
from influent.evaluation.report import Comparison, Measure, by_name
from influent.models.model import Fitted, check_may_judge
from influent.models.ranks import BATCH
from influent.progress import Progress
from influent.settings import check_type

_BASELINE = "constant"
_LEAST_SHARE = 1e-12
_UNITS = {1.0: "seconds", 60.0: "minutes", 3600.0: "hours", 86_400.0: "days"}


@runtime_checkable
class NextEventModel(Fitted, Protocol):
    """Says which event comes next, and when: a temporal point process.

    Laws: an answer depends on nothing at or after its moment, but for `log_density`, which is about the time of what
    came; over all times the density integrates to one.
    """

    @property
    def popularity(self) -> np.ndarray:
        """The share of training events that are each item's, float64 (I,)."""
        ...

    @property
    def mean_gap_s(self) -> float:
        """The mean time between a user's events in training, in seconds."""
        ...

    def predict(self, moments: Moments) -> np.ndarray:
        """Return a score for every item, (N, I); its softmax is how likely each comes next."""
        ...

    def predict_gap(self, moments: Moments) -> np.ndarray:
        """Return the expected time from the latest event to the next, in seconds, (N,)."""
        ...

    def log_density(self, moments: Moments) -> np.ndarray:
        """Return the logarithm of the density, per second, of the time at which what came next came, (N,)."""
        ...


@dataclass(frozen=True)
class ConstantRate:
    """A model that reads no history: gaps are exponential, items come as often as in training."""

    vocab: Vocab
    fitted_on: str
    popularity: np.ndarray
    mean_gap_s: float
    name: str = _BASELINE

    @classmethod
    def of(cls, train: Sequences) -> Self:
        """Measure both on training sequences.

        Raises:
            ConfigError: the log is order-only.
            DataError: no user has two events.
        """
        _check_timed(train)
        lengths = np.diff(train.offsets)
        n_gaps = int(np.maximum(lengths - 1, 0).sum())
        if n_gaps == 0:
            raise DataError("no user has two events, so nothing is known of the time between them.")
        has_events = lengths > 0
        first, last = train.offsets[:-1][has_events], train.offsets[1:][has_events] - 1
        assert train.time_us is not None
        total_s = float((train.time_us[last] - train.time_us[first]).sum()) / 1e6
        return cls(train.vocab, train.fingerprint, train.popularity(), total_s / n_gaps)

    def predict(self, moments: Moments) -> np.ndarray:
        """Return the logarithm of the shares, the same at every moment."""
        log_I = np.log(np.maximum(self.popularity, _LEAST_SHARE))
        return np.broadcast_to(log_I, (len(moments), len(log_I)))

    def predict_gap(self, moments: Moments) -> np.ndarray:
        """Return the mean gap."""
        return np.full(len(moments), self.mean_gap_s)

    def log_density(self, moments: Moments) -> np.ndarray:
        """Return −log m − gap / m, where m is the mean gap."""
        return -math.log(self.mean_gap_s) - gaps_to_next(moments) / self.mean_gap_s


def gaps_to_next(moments: Moments) -> np.ndarray:
    """Return the seconds from the latest event before each moment to the event that came next, float64 (N,).

    Both must be there. Of events at the same time the gap is zero.
    """
    times = moments.sequences.time_us
    assert times is not None
    return np.asarray((times[moments.stop] - times[moments.stop - 1]) / 1e6)


@dataclass(frozen=True)
class TimeReport(Comparison):
    """What was measured, of whom, and in which unit of time; of models of time alone without what is about items.

    `log-likelihood` is that of the next event, item and time together: the sum of `of time`, the logarithm of the
    density of its time per unit, and `of item`, the logarithm of the probability of its item; each a mean per event
    in nats. Log-likelihoods of different units differ by a constant, log(unit / other unit).
    `type error` is the share of events whose item was not the most probable one. `RMSE` and `MAE` are of the expected
    gap, in units.
    """

    protocol: str
    split: str
    """Hash of the split, empty where moments came from none."""
    unit_s: float
    n_moments: int
    n_users: int
    mean_gap: float
    """Of the moments judged, in units."""
    judges_items: bool
    no_gap: float
    """Share of the moments whose event came at the same time as the one before it."""
    rows: dict[str, dict[str, Measure]]

    def caption(self) -> str:
        """Return in one sentence what the table is of."""
        of_items = "all items, seen items kept" if self.judges_items else "of which only the time is judged"
        if "target first" in self.protocol:
            of_items += ", at the end of the gap that the cutoff lies in, which is longer than others"
        return (
            f"{self.protocol}; {self.n_moments:,} events of {self.n_users:,} users, {of_items}; "
            f"time in {_unit_name(self.unit_s)} (mean gap {self.mean_gap:.4g}, {self.no_gap:.1%} of gaps are zero); "
            f"95 % intervals by bootstrap over users; split {self.split or 'not named'}."
        )


def evaluate_times(
    models: Sequence[NextEventModel] | Mapping[str, NextEventModel],
    moments: Moments,
    *,
    unit_s: float = 1.0,
    items: bool = True,
    protocol: str = "moments as given",
    split: str = "",
    n_resamples: int = 1000,
    progress: Progress | None = None,
) -> TimeReport:
    """Judge models by the likelihood of the next event, its item and its time, and by what they expected.

    A row called `constant` is put first, unless it is among the models: one exponential, and the items' shares in
    training. Moments without a history, or after which nothing is known, are left out; where several events are known
    the first is judged. A density is of a continuous time: where a log has coarse times, or many events at once, a
    model gains without bound by putting all density there, so look at `no_gap` before comparing.

    Args:
        unit_s: the unit of time of densities and errors, in seconds: 3600 for hours.
        items: whether to judge also which item came next; models that were fitted for `time` alone do not say.

    Raises:
        LeakageError: a model was fitted on other events than the training part of this split.
        NotFittedError: a model is not fitted.
        DataError: no moment can be judged, or an item is not in the catalogue.
        ConfigError: there is no model, two have one name, the unit is no length of time, or the log is order-only.

    Example:
        >>> model = Predictor(task=["ranking", "time"]).fit(*split[:2])  # doctest: +SKIP
        >>> print(evaluate_times([model], split.test, unit_s=3600).to_markdown())  # doctest: +SKIP
    """
    named = by_name(models)
    for model in named.values():
        check_type("models", model, NextEventModel, "Predictor(task='time')")
    if isinstance(unit_s, bool) or not isinstance(unit_s, int | float) or not 0 < unit_s < math.inf:
        raise ConfigError(f"The 'unit_s' parameter of evaluate_times must be seconds above 0. Got {unit_s!r}.")
    _check_timed(moments.sequences)
    for model in named.values():
        check_may_judge(model, moments)
    moments = moments.take(np.flatnonzero((moments.target_stop > moments.stop) & (moments.stop > moments.start)))
    if len(moments) == 0:
        raise DataError("no moment has a history and an event after it, so there is no gap to judge by.")
    item = moments.sequences.item_idx[moments.stop] if items else None
    if item is not None and (item < 0).any():
        raise DataError(
            f"{(item < 0).mean():.1%} of the events to judge are of items outside the catalogue, which no model gives "
            "a probability. Leave these moments out with moments.take."
        )
    first = next(iter(named.values()))
    if _BASELINE not in named:
        named = {_BASELINE: ConstantRate(first.vocab, first.fitted_on, first.popularity, first.mean_gap_s), **named}
    rows = {}
    for called, model in named.items():
        values = _values(model, moments, item, unit_s, progress or Progress())
        rows[called] = {name: _measure(name, value, moments.user_idx, n_resamples) for name, value in values.items()}
    gap = gaps_to_next(moments)
    return TimeReport(
        protocol=protocol,
        split=split,
        unit_s=float(unit_s),
        n_moments=len(moments),
        n_users=len(np.unique(moments.user_idx)),
        mean_gap=float(gap.mean()) / unit_s,
        judges_items=items,
        no_gap=float((gap == 0).mean()),
        rows=rows,
    )


def _values(
    model: NextEventModel, moments: Moments, item: np.ndarray | None, unit_s: float, progress: Progress
) -> dict[str, np.ndarray]:
    """Return what each measure is the mean of, one value a moment."""
    of_time = model.log_density(moments) + math.log(unit_s)
    off = (model.predict_gap(moments) - gaps_to_next(moments)) / unit_s
    errors = {"RMSE": off**2, "MAE": np.abs(off)}
    if item is None:
        return {"of time": of_time, **errors}
    of_item, is_wrong = np.empty(len(moments)), np.empty(len(moments))
    with progress.track(f"evaluate {model.name}", len(moments)) as advance:
        for first in range(0, len(moments), BATCH):
            rows = slice(first, first + BATCH)
            of_item[rows], is_wrong[rows] = _of_items(model.predict(moments.take(rows)), item[rows])
            advance(len(item[rows]))
    return {
        "log-likelihood": of_time + of_item,
        "of time": of_time,
        "of item": of_item,
        "type error": is_wrong,
        **errors,
    }


def _of_items(scores_NI: np.ndarray, item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-probability of each item, and whether another, or an earlier one as high, was the best."""
    scores_NI = scores_NI.astype(np.float64)
    scores_NI -= scores_NI.max(axis=1, keepdims=True)
    of_item = scores_NI[np.arange(len(item)), item] - np.log(np.exp(scores_NI).sum(axis=1))
    return of_item, scores_NI.argmax(axis=1) != item


def _measure(name: str, values: np.ndarray, owner: np.ndarray, n_resamples: int) -> Measure:
    found = Measure(float(values.mean()), *bootstrap_interval(values, owner, n_resamples=n_resamples))
    if name != "RMSE":
        return found
    # The root keeps the order, so the quantiles of the root are the roots of the quantiles.
    return Measure(math.sqrt(found.mean), math.sqrt(found.low), math.sqrt(found.high))


def _check_timed(sequences: Sequences) -> None:
    if sequences.time_us is None:
        raise ConfigError("an order-only log has no times, so when something came next is not known.")


def _unit_name(unit_s: float) -> str:
    return _UNITS.get(unit_s, f"units of {unit_s:g} seconds")
