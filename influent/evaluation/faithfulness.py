"""A model and ways to give credit become numbers that say whether the credit is true of the model.

Two kinds of question. *Checks* hold credits against what the model does when events are masked: every event alone,
random sets of events, and all sets of a short history, whose weighted mean is Shapley's value. *Orders* ask only which
events come first: they are taken out of the history in that order, and the recommended item should leave the list
soon; orders that look at no model (recency, popularity, chance) stand beside them.

Shapes: N moments, S source events of all moments, C candidates.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from scipy import stats

from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.errors import ConfigError
from influent.evaluation.measure import removal_of_each, sample
from influent.evaluation.metrics import bootstrap_interval
from influent.evaluation.report import Measure
from influent.models.credits import Credits, sources_of
from influent.models.item_to_item import ItemKNN
from influent.models.methods import CreditMethod, MethodName, check_fits
from influent.models.model import EstimatedModel, Model
from influent.models.ranks import exclude_seen
from influent.models.social_ranker import own_part
from influent.progress import Progress
from influent.settings import check_int

Removal = Literal["masked", "dropped", "swapped at random", "swapped by popularity", "swapped for the most popular"]
"""What becomes of an event that is taken out: it says nothing at its place, the history closes over it, or another
item stands there, drawn from all alike, drawn by popularity, or the most popular that the history has not."""

CreditsOf: TypeAlias = Callable[[Model, Moments, np.ndarray], Credits]
"""Credits of a model's scores of candidates, int (N, C), at moments"""

_REFERENCES: tuple[MethodName, ...] = ("attention", "similarity")
"""What articles recommend instead of credits: always an order beside the others, of models that have it"""

N_POINTS = 11
"""Shares of the history taken out: none, a tenth, … all."""


@dataclass(frozen=True, kw_only=True)
class CreditChecks:
    """How true the credits of one method are of a model; differences are in the score's unit."""

    largest_gap: float
    """Between a score and its terms, the residual of estimates included"""
    mean_residual: float
    """Mean of what estimates leave over, without its sign"""
    pearson: float
    """Correlation of an event's credit and what masking it takes from the score, over all events"""
    spearman: float
    infidelity: float
    """Mean squared difference of the two, divided by the mean square of what masking takes"""
    of_sets: dict[str, dict[str, float]]
    """The same for the credits of random sets of 2, 5 and 10 events, by size; sets that no history holds are missing"""
    shapley_pearson: float
    """Correlation with Shapley's values, of histories cut to their latest events"""
    shapley_gap: float
    """Largest difference from them"""
    shuffled: float | None
    """Mean rank correlation with what the same method says of the model with shuffled weights: 1 of a method that reads
    no weights; None where the model cannot be shuffled"""


@dataclass(frozen=True, kw_only=True)
class FaithfulnessReport:
    """What was found, for one model."""

    model: str
    n_predictions: int
    n_shapley: int
    protocol: str
    split: str
    batch_gap: float
    """Largest difference between a moment's scores alone and beside others"""
    checks: dict[str, CreditChecks]
    """By method"""
    orders: dict[str, dict[str, dict[str, Measure]]]
    """By removal, by order, by metric"""

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers."""
        return asdict(self)

    def to_json(self) -> str:
        """Return the report as JSON; what has no value, such as a correlation of what does not vary, is null."""
        return json.dumps(_without_nan(self.to_dict()), indent=2, allow_nan=False) + "\n"

    def check_cells(self) -> list[list[str]]:
        """Return the checks as texts: a header, then a row for each method."""
        sizes = list(next(iter(self.checks.values())).of_sets)
        header = ["method", "gap", "residual", "Pearson", "Spearman", "infidelity"]
        header += [f"sets of {size}" for size in sizes] + ["Shapley", "shuffled"]
        rows = []
        for name, found in self.checks.items():
            row = [f"{found.largest_gap:.0e}", f"{found.mean_residual:.3f}", _number(found.pearson)]
            row += [_number(found.spearman), f"{found.infidelity:.1e}"]
            row += [_number(found.of_sets[size]["pearson"]) for size in sizes]
            shuffled = "" if found.shuffled is None else f"{found.shuffled:.2f}"
            rows.append([name, *row, _number(found.shapley_pearson), shuffled])
        return [header, *rows]

    def order_cells(self, removal: str) -> list[list[str]]:
        """Return what orders do under one removal as texts: a header, then a row for each order."""
        rows = self.orders[removal]
        metrics = list(next(iter(rows.values())))
        return [["order", *metrics], *([name, *(str(row[metric]) for metric in metrics)] for name, row in rows.items())]

    def to_markdown(self) -> str:
        """Return all tables in Markdown."""
        blocks = [_table(self.check_cells())]
        blocks += [f"Events {removal}:\n\n{_table(self.order_cells(removal))}" for removal in self.orders]
        return "\n\n".join([*blocks, self.caption()]) + "\n"

    def caption(self) -> str:
        """Return in words what the tables are of."""
        return (
            f"{self.model}: the best unseen item at {self.n_predictions:,} moments, explained; {self.protocol}; split "
            f"{self.split or 'not named'}. Gap: the most that terms are off a score; residual: what estimates leave "
            "over. Pearson, Spearman, infidelity: credit against what masking the event takes from the score; Pearson "
            "also for random sets of events, and against Shapley's values. Shuffled: rank correlation with the credits "
            "by the same method on shuffled weights; near 0 is good. POS@L: share of points (0, 10, … 100 % of the "
            "events taken out, largest credit first) at which the item is still among the first L; low is good. NEG@L: "
            "smallest credit first; high is good. After k: whether it is still there once k events are gone. DEL and "
            "INS: mean probability of the item while events go, or come, largest credit first; low, and high, is good. "
            "The history's items stay out of the ranking. 95 % intervals by bootstrap over users. Credits describe the "
            "model; they are not effects. Alone and in a batch, scores "
            f"differ by at most {self.batch_gap:.0e}."
        )


def credits_by(model: Model, methods: Sequence[MethodName | CreditMethod] | None = None) -> dict[str, CreditsOf]:
    """Return ways to give credit by name; by default all that fit the model.

    Raises:
        ConfigError: a method does not fit the model, or there is none of its name.
    """
    if not isinstance(model, EstimatedModel):
        for name in methods or ():
            check_fits(name if isinstance(name, CreditMethod) else CreditMethod(name=name), ["exact"], model.name)
        return {"exact": lambda model, moments, candidates: model.credits(moments, candidates)}
    ways: dict[str, CreditsOf] = {}
    for given in model.methods if methods is None else methods:
        method = given if isinstance(given, CreditMethod) else CreditMethod(name=given)
        check_fits(method, model.methods, model.name)
        ways[method.name] = partial(_credits_by, method)
    return ways


def _credits_by(method: CreditMethod, model: Model, moments: Moments, candidates: np.ndarray) -> Credits:
    assert isinstance(model, EstimatedModel)
    return model.credits(moments, candidates, method=method)


def check_faithfulness(
    model: Model,
    moments: Moments,
    *,
    train: Sequences,
    methods: Mapping[str, CreditsOf] | None = None,
    removals: Sequence[Removal] = get_args(Removal),
    lists: Sequence[int] = (5, 10, 20),
    n_moments: int = 200,
    n_shapley: int = 20,
    cut: int = 12,
    protocol: str = "moments as given",
    split: str = "",
    seed: int = 0,
    progress: Progress | None = None,
) -> FaithfulnessReport:
    """Hold ways to give credit against what a model does without the events.

    What is explained is the item that would be recommended: the best that the history has not. Of a model with social
    terms, the part that reads the user's own events is looked at: the terms of others do not depend on these.

    Args:
        train: the sequences that the model learned from; popularity and similarity come from them.
        methods: ways to give credit, by name; by default all that fit the model (`credits_by`). Each is asked of the
            model and of the model with shuffled weights, is checked, and is an order as well. What masking each event
            takes from the score is always an order, `leave_one_out`, and so are attention and similarity where the
            model has them.
        n_moments: how many moments, one a user at most.
        n_shapley: how many of them have their history cut to `cut` events for all 2^cut sets of them.

    Raises:
        DataError: no moment has a history.
        ConfigError: a removal is not known, `cut` is not within 1 and 16, or a number of moments is below 1.
    """
    unknown = [removal for removal in removals if removal not in get_args(Removal)]
    if unknown:
        raise ConfigError(f"there is no removal {unknown[0]!r}. There are: {', '.join(get_args(Removal))}.")
    check_int("n_moments", n_moments, 1)
    check_int("n_shapley", n_shapley, 1)
    if not 1 <= cut <= 16:
        raise ConfigError(f"cut must be within 1 and 16, since all 2^cut sets of events are tried. Got {cut}.")
    model = own_part(model)
    progress, methods = progress or Progress(), credits_by(model) if methods is None else methods
    if not methods:
        raise ConfigError(
            "check_faithfulness needs at least one way to give credit; without methods it takes all that fit."
        )
    asked = _Asked.of(model, sample(moments, n_moments), seed)
    shuffle = getattr(model, "shuffled", None)
    other: Model | None = None if shuffle is None else shuffle(seed)
    found: dict[str, Credits] = {}
    shuffled: dict[str, float | None] = {}
    with progress.track("credits", len(methods)) as advance:
        for name, credits_of in methods.items():
            found[name] = credits_of(model, asked.moments, asked.item[:, None])
            shuffled[name] = None if other is None else asked.likeness(found[name], credits_of, other)
            advance()
    removed = removal_of_each(asked.score, asked.score_without, asked.owner, asked.lag, progress)
    sizes = [size for size in (2, 5, 10) if size <= np.diff(asked.offsets).max()]
    short = asked.cut_to(cut, n_shapley)
    values = short.shapley_values(progress)
    checks = {
        name: CreditChecks(
            largest_gap=float(np.abs(credits.total()[:, 0] - asked.score).max()),
            mean_residual=0.0 if credits.residual is None else float(np.abs(credits.residual).mean()),
            **_agreement(credits.credit[:, 0], removed),
            of_sets={str(size): _agreement(*asked.sets(credits.credit[:, 0], size)) for size in sizes},
            **_against_shapley(methods[name](model, short.moments, short.item[:, None]).credit[:, 0], values),
            shuffled=shuffled[name],
        )
        for name, credits in found.items()
    }
    orders = {name: credits.credit[:, 0] for name, credits in found.items()}
    others = [name for name in _REFERENCES if name in getattr(model, "methods", ()) and name not in orders]
    orders |= {
        name: credits_of(model, asked.moments, asked.item[:, None]).credit[:, 0]
        for name, credits_of in (credits_by(model, others) if others else {}).items()
    }
    orders = {**orders, "leave_one_out": orders.get("leave_one_out", removed), **asked.references(train)}
    tables: dict[str, dict[str, dict[str, Measure]]] = {}
    with progress.track("orders", len(removals) * len(orders)) as advance:
        for removal in removals:
            tables[removal] = {}
            for name, importance in orders.items():
                tables[removal][name] = asked.judge_order(importance, removal, lists)
                advance()
    return FaithfulnessReport(
        model=model.name,
        n_predictions=len(asked.moments),
        n_shapley=len(short.moments),
        protocol=protocol,
        split=split,
        batch_gap=asked.batch_gap(),
        checks=checks,
        orders=tables,
    )


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Moments, the item explained at each, its score there, and the events that the model reads."""

    model: Model
    moments: Moments
    item: np.ndarray
    """int64 (N,)"""
    score: np.ndarray
    """float64 (N,)"""
    offsets: np.ndarray
    place: np.ndarray
    owner: np.ndarray
    """int64 (S,)"""
    lag: np.ndarray
    seed: int

    @classmethod
    def of(cls, model: Model, moments: Moments, seed: int, item: np.ndarray | None = None) -> _Asked:
        scores = model.predict(moments)
        if item is None:
            item = exclude_seen(scores, moments).argmax(axis=1)
        offsets, place, lag = sources_of(moments, model.max_len)
        return cls(
            model=model,
            moments=moments,
            item=item,
            score=scores[np.arange(len(moments)), item].astype(np.float64),
            offsets=offsets,
            place=place,
            owner=np.repeat(np.arange(len(moments)), np.diff(offsets)),
            lag=lag,
            seed=seed,
        )

    def score_without(self, gone: np.ndarray) -> np.ndarray:
        """Return the item's score, (N,), where events, bool (S,), are masked."""
        without = replace(self.moments, sequences=self.moments.sequences.masked(self.place[gone]))
        scores = self.model.predict(without)
        return np.asarray(scores[np.arange(len(scores)), self.item], np.float64)

    def likeness(self, credits: Credits, credits_of: CreditsOf, other: Model) -> float:
        """Return how alike credits and those of another model by the same method rank events (Adebayo et al., 2018)."""
        own = credits.credit[:, 0]
        others = credits_of(other, self.moments, self.item[:, None]).credit[:, 0]
        found = [
            _correlation(stats.spearmanr, own[first:last], others[first:last])
            for first, last in itertools.pairwise(self.offsets)
            if last - first >= 3
        ]
        # Where a history's credits are all alike they have no order to compare.
        return float(np.mean(ranked)) if (ranked := [each for each in found if not math.isnan(each)]) else math.nan

    def sets(self, credit: np.ndarray, size: int, n_draws: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """Return the credits of random sets of events and what masking them takes, one set a moment and draw."""
        rng = np.random.default_rng([self.seed, size])
        credits, taken = [], []
        long_enough = np.diff(self.offsets) >= size
        for _ in range(n_draws):
            gone = _places_in_order(rng.random(len(self.place)), self.offsets) < size
            credits.append(np.bincount(self.owner[gone], credit[gone], len(self.moments))[long_enough])
            taken.append((self.score - self.score_without(gone))[long_enough])
        return np.concatenate(credits), np.concatenate(taken)

    def cut_to(self, n_events: int, n_moments: int) -> _Asked:
        """Return some of the moments with their latest events only."""
        some = self.moments.take(slice(0, n_moments))
        moments = replace(some, start=np.maximum(some.start, some.stop - n_events))
        return _Asked.of(self.model, moments, self.seed, self.item[: len(moments)])

    def shapley_values(self, progress: Progress) -> np.ndarray:
        """Return the mean of what an event adds to all sets of the others, by Shapley's weights, (S,)."""
        n = np.diff(self.offsets)
        # A set is a number whose bit j stands for the event j back from the moment; where a history is shorter, sets
        # that differ in events which are not there are the same set, and the first of them will do.
        total = np.zeros(len(self.place))
        n_most = int(n.max(initial=0))
        values = np.empty((1 << n_most, len(self.moments)))
        with progress.track("all sets of events", len(values)) as advance:
            for held in range(len(values)):
                values[held] = self.score_without((held >> (self.lag - 1)) & 1 == 0)
                advance()
        sets = np.arange(len(values))
        sizes = np.array([int(held).bit_count() for held in sets])
        for place, (owner, lag) in enumerate(zip(self.owner, self.lag, strict=True)):
            without = sets[(sets < 1 << n[owner]) & ((sets >> (lag - 1)) & 1 == 0)]
            size = sizes[without]
            weight = np.array([1 / (n[owner] * math.comb(int(n[owner]) - 1, int(one))) for one in size])
            total[place] = (weight * (values[without | 1 << (lag - 1), owner] - values[without, owner])).sum()
        return total

    def references(self, train: Sequences) -> dict[str, np.ndarray]:
        """Return orders that do not look at the model: importances, (S,)."""
        item = self.moments.sequences.item_idx[self.place]
        popularity = np.append(train.popularity(), 0.0)
        similar = ItemKNN().fit(train).credits(self.moments, self.item[:, None])
        of_event = dict(zip(zip(similar.owner, similar.place, strict=True), similar.credit[:, 0], strict=True))
        return {
            "similarity in the log": np.array(
                [of_event.get(key, 0.0) for key in zip(self.owner, self.place, strict=True)]
            ),
            "recency": -self.lag.astype(np.float64),
            "popularity": popularity[item],
            "random": np.random.default_rng(self.seed).random(len(self.place)),
        }

    def judge_order(self, importance: np.ndarray, removal: Removal, lists: Sequence[int]) -> dict[str, Measure]:
        """Return what the item's place in the list says of an order of the events."""
        first, last = (_places_in_order(sign * importance, self.offsets) for sign in (-1, 1))
        n = np.diff(self.offsets)[self.owner]
        shares = np.linspace(0, 1, N_POINTS)
        away = [self._standing(first < np.round(share * n), removal) for share in shares]
        back = [self._standing(last < np.round(share * n), removal) for share in shares]
        kept = [self._standing(first >= np.round(share * n), removal) for share in shares]
        values = {f"POS@{length}": np.mean([rank <= length for rank, _ in away], axis=0) for length in lists}
        values |= {f"NEG@{length}": np.mean([rank <= length for rank, _ in back], axis=0) for length in lists}
        values |= {"DEL": np.mean([p for _, p in away], axis=0), "INS": np.mean([p for _, p in kept], axis=0)}
        for k in range(1, 6):
            stays = self._standing(first < k, removal)[0], self._standing(last < k, removal)[0]
            for name, rank in zip(("POS", "NEG"), stays, strict=True):
                values |= {f"{name}@{length} after {k}": (rank <= length).astype(float) for length in lists}
        return {
            name: Measure(float(value.mean()), *bootstrap_interval(value, self.moments.user_idx, n_resamples=500))
            for name, value in values.items()
        }

    def _standing(self, gone: np.ndarray, removal: Removal) -> tuple[np.ndarray, np.ndarray]:
        """Return the item's rank and its probability among the items that the whole history has not, both (N,)."""
        scores = exclude_seen(self.model.predict(self._without(gone, removal)), self.moments).astype(np.float64)
        own = scores[np.arange(len(scores)), self.item][:, None]
        ahead, level = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
        return ahead + (level + 1) / 2, np.exp(-np.logaddexp.reduce(scores - own, axis=1))

    def _without(self, gone: np.ndarray, removal: Removal) -> Moments:
        sequences, places = self.moments.sequences, self.place[gone]
        if removal == "dropped":
            return self.moments.without(places)
        if removal == "masked":
            return replace(self.moments, sequences=sequences.masked(places))
        return replace(self.moments, sequences=sequences.swapped(places, self._fillers(removal)[gone]))

    def _fillers(self, removal: Removal) -> np.ndarray:
        """Return an item to stand in for each event, (S,); the same whichever events are taken out."""
        rng = np.random.default_rng([self.seed, get_args(Removal).index(removal)])
        popularity = self.model.popularity
        match removal:
            case "swapped at random":
                return rng.integers(0, len(popularity), len(self.place))
            case "swapped by popularity":
                return rng.choice(len(popularity), len(self.place), p=popularity / popularity.sum())
            case _:
                held = exclude_seen(np.tile(popularity, (len(self.moments), 1)), self.moments)
                held[np.arange(len(held)), self.item] = -np.inf
                return np.asarray(held.argmax(axis=1)[self.owner])

    def batch_gap(self, n_moments: int = 20) -> float:
        """Return how far scores of moments alone lie from those in a batch, where short histories are padded."""
        some = self.moments.take(slice(0, n_moments))
        together = self.model.predict(some)
        alone = [self.model.predict(some.take(slice(row, row + 1)))[0] for row in range(len(some))]
        return float(np.abs(together - np.stack(alone)).max())


def _places_in_order(key: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return each event's place, from 0, in its moment's events from the smallest key to the largest, int64 (S,).

    Example:
        >>> _places_in_order(np.array([3.0, 1.0, 2.0, 5.0, 4.0]), np.array([0, 3, 5])).tolist()
        [2, 0, 1, 1, 0]
    """
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((key, owner))
    place = np.empty(len(key), np.int64)
    place[order] = np.arange(len(key)) - np.repeat(offsets[:-1], np.diff(offsets))
    return place


def _agreement(credit: np.ndarray, taken: np.ndarray) -> dict[str, float]:
    """Return correlations and the normalised infidelity (Yeh et al., 2019) of credits and what removal takes."""
    square = float((taken**2).mean()) if len(taken) else 0.0
    return {
        "pearson": _correlation(stats.pearsonr, credit, taken),
        "spearman": _correlation(stats.spearmanr, credit, taken),
        "infidelity": float(((credit - taken) ** 2).mean() / square) if square > 0 else math.nan,
    }


def _correlation(of: Callable[..., Any], a: np.ndarray, b: np.ndarray) -> float:
    """Return a correlation; NaN where one side does not vary, which has none."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(of(a, b).statistic)


def _against_shapley(credit: np.ndarray, values: np.ndarray) -> dict[str, float]:
    return {
        "shapley_pearson": _correlation(stats.pearsonr, credit, values),
        "shapley_gap": float(np.abs(credit - values).max(initial=0.0)),
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _number(value: float) -> str:
    """Return a correlation with as many digits as tell it from 1."""
    return f"1−{1 - value:.0e}" if 0.9995 < value < 1 else f"{value:.4f}"


def _table(cells: list[list[str]]) -> str:
    header, *rows = cells
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
