"""A ledger to the credits that events own, and to what kind of event each of them is: factors and their levels.

Shapes: N credits, E events, U users.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from influent import schema
from influent.data.clock import DAY_US, UNITS_US
from influent.data.sequences import Sequences
from influent.data.vocab import UNKNOWN
from influent.errors import ConfigError, DataError, nearest
from influent.influence.ledger import Ledger
from influent.settings import check_type

MAX_LEVELS = 30
"""How many levels a factor has at most; the rarer values of a text are one level, numbers fall into five buckets."""

UNKNOWN_LEVEL = "(unknown)"
OTHER_LEVEL = "(other)"

_N_BUCKETS = 5
_MINUTE_US, _HOUR_US = UNITS_US["m"], UNITS_US["h"]

GAPS = {
    "to 1 minute": _MINUTE_US,
    "to 10 minutes": 10 * _MINUTE_US,
    "to 1 hour": _HOUR_US,
    "to 6 hours": 6 * _HOUR_US,
    "to 1 day": DAY_US,
    "to 3 days": 3 * DAY_US,
    "to 10 days": 10 * DAY_US,
    "to 30 days": 30 * DAY_US,
    "to 100 days": 100 * DAY_US,
    "over 100 days": np.inf,
}
"""Buckets of gaps, about three to a power of ten, and the longest gap of each in microseconds."""

_COUNTS = {"1": 1, "2": 2, "3": 3, "4 to 5": 5, "6 to 10": 10, "11 to 20": 20, "21 to 50": 50, "over 50": np.inf}
"""Buckets of lags and of places in a session, and the largest count of each."""

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True, kw_only=True, eq=False)
class EventCredits:
    """The credits of a ledger that events own, one for each (prediction, event); the parts of an event are added up.

    Raises:
        DataError: by `of`, where no event owns a credit, or the ledger was shortened.
    """

    ledger: Ledger
    prediction: np.ndarray
    """int64 (N,): place in the ledger's predictions"""
    credit: np.ndarray
    """float64 (N,)"""
    event_id: np.ndarray
    """int64 (N,)"""
    lag: np.ndarray
    """int64 (N,): 1 is the latest event; 0 of others' events, which have none"""
    gap_us: np.ndarray
    """float64 (N,): NaN in an order-only log"""
    action: pa.DictionaryArray = field(repr=False)
    """what was done, (N,)"""
    user: np.ndarray
    """int64 (P,): place of each prediction's user in `users`"""
    users: pa.Array = field(repr=False)
    """the distinct users of the predictions"""

    @classmethod
    def of(cls, ledger: Ledger, *, source: str = "event") -> EventCredits:
        """Read them off a ledger: of users' own events, or with the source `social` of others'."""
        check_type("ledger", ledger, Ledger, "explain(model, moments)")
        if ledger.note.top is not None:
            raise DataError(
                f"this ledger names the {ledger.note.top} largest credits of each prediction only, which says little "
                "of the others. Explain without top."
            )
        if ledger.note.is_difference:
            raise DataError(
                "this ledger holds credits at two moments, and lags and times at one of them. Explain either moment."
            )
        rows = ledger.table.filter(pc.equal(ledger.table.column(schema.SOURCE), source))
        if rows.num_rows == 0:
            raise DataError(
                "no event owns a credit in this ledger. Explain predictions that have a history, by a model of events: "
                "credits of features belong to none."
            )
        asked = rows.column(schema.PREDICTION_ID).to_numpy()
        event_id = rows.column(schema.SOURCE_EVENT_ID).to_numpy()
        # The parts of an event stand together.
        is_first = np.append(True, (np.diff(asked) != 0) | (np.diff(event_id) != 0))
        first = np.flatnonzero(is_first)
        gap = pc.cast(rows.column(schema.GAP_US), pa.float64()).to_numpy(zero_copy_only=False)
        action = rows.column(schema.SOURCE_ACTION).combine_chunks().dictionary_encode()
        users = ledger.predictions.column(schema.USER_ID).combine_chunks().dictionary_encode()
        return cls(
            ledger=ledger,
            prediction=np.searchsorted(ledger.predictions.column(schema.PREDICTION_ID).to_numpy(), asked[first]),
            credit=np.add.reduceat(rows.column(schema.CREDIT).to_numpy(), first),
            event_id=event_id[first],
            lag=pc.fill_null(rows.column(schema.LAG), 0).to_numpy()[first].astype(np.int64),
            gap_us=gap[first],
            action=action.take(pa.array(first)),
            user=users.indices.to_numpy().astype(np.int64),
            users=users.dictionary,
        )

    def __len__(self) -> int:
        return len(self.credit)

    @property
    def n_users(self) -> int:
        """Return the number of users with a prediction."""
        return len(self.users)

    @property
    def user_of_credit(self) -> np.ndarray:
        """Return the user of each credit, int64 (N,)."""
        return np.asarray(self.user[self.prediction])

    @cached_property
    def moment_us(self) -> np.ndarray:
        """Return the moment of each prediction, int64 (P,).

        Raises:
            ConfigError: the log is order-only.
        """
        times = self.ledger.predictions.column(schema.TIME_US)
        # Who has no history may have no moment either, and no credit for which it would be asked.
        is_timed = times.is_valid().to_numpy()
        if not is_timed[self.prediction].all():
            raise ConfigError("this needs times, and the ledger is of an order-only log.")
        return np.asarray(pc.fill_null(times, int(pc.min(times).as_py())).to_numpy())

    def places_in(self, sequences: Sequences) -> np.ndarray:
        """Return where in the sequences each credit's event lies, int64 (N,).

        Raises:
            DataError: the sequences do not hold one of the events.
        """
        order = np.argsort(sequences.event_id, kind="stable")
        place = np.searchsorted(sequences.event_id, self.event_id, sorter=order)
        found = order[np.minimum(place, len(order) - 1)] if len(order) else np.zeros(len(self), np.int64)
        missing = np.ones(len(self), bool) if len(order) == 0 else sequences.event_id[found] != self.event_id
        if missing.any():
            raise DataError(
                f"the sequences do not hold event {self.event_id[np.argmax(missing)]} of the ledger. Give those that "
                "were explained."
            )
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Factor:
    """One thing that may make a behaviour influential, and which of its levels each credit's event has."""

    name: str
    levels: tuple[str, ...]
    """in order; each has a credit"""
    code: np.ndarray
    """int64 (N,): place in `levels`"""
    is_ordered: bool

    def __len__(self) -> int:
        return len(self.levels)


def read_factors(
    credits: EventCredits,
    sequences: Sequences | None,
    by: Sequence[str] | None,
    *,
    session_gap_us: int = 30 * _MINUTE_US,
) -> list[Factor]:
    """Look up factors of every credit's event; by default all that the ledger and the sequences have.

    A name that is several of these is the first of them: `action`, `lag`, `gap`, `hour_of_day`, `day_of_week` and
    `session_position` (how many events into its session an event is); a category of the events, such as `scene`; an
    item feature; a user feature. Times are in UTC. By default texts with more than `MAX_LEVELS` values, such as
    titles, and factors of one level only are left out.

    Raises:
        ConfigError: there is no factor of this name (the message has the nearest), it is named twice, or it needs
            times that the log does not have.
        DataError: the sequences are of other events.
    """
    if sequences is not None:
        check_type("sequences", sequences, Sequences, "build_sequences(events)")
    reader = _Reader(credits, sequences, session_gap_us)
    known = reader.names
    if by is None:
        factors = [reader.read(name) for name in known if reader.is_default(name)]
        return [factor for factor in factors if len(factor) > 1]
    if isinstance(by, str) or not by or len(set(by)) < len(by):
        raise ConfigError(f"by must be a list of different factors. Got {by!r}. There are: {', '.join(known)}.")
    for name in by:
        if name not in known:
            raise ConfigError(_no_such_factor(name, known, credits, sequences))
    return [reader.read(name) for name in by]


def factor_names(sequences: Sequences | None, *, has_lags: bool, is_timed: bool) -> list[str]:
    """Return the factors that there are of credits to events like these; those of others' events have no lags."""
    names = ["action", "lag"] if has_lags else ["action"]
    if is_timed:
        names += ["gap", "hour_of_day", "day_of_week"]
    if sequences is not None:
        names += ["session_position"] if is_timed else []
        names += sequences.category_names
        for features in (sequences.vocab.item_features, sequences.vocab.user_features):
            names += [] if features is None else features.column_names[1:]
    return list(dict.fromkeys(names))


def _no_such_factor(name: str, known: Sequence[str], credits: EventCredits, sequences: Sequences | None) -> str:
    if name in ("gap", "hour_of_day", "day_of_week", "session_position") and np.isnan(credits.gap_us).any():
        return f"the factor {name!r} needs times, and the ledger is of an order-only log. Leave it out."
    more = " Give sequences for more." if sequences is None else ""
    return f"there is no factor {name!r}.{nearest(name, known)} There are: {', '.join(known)}.{more}"


class _Reader:
    """The factors that a ledger and its sequences have."""

    def __init__(self, credits: EventCredits, sequences: Sequences | None, session_gap_us: int) -> None:
        self._credits, self._sequences, self._session_gap_us = credits, sequences, session_gap_us
        self._is_timed = not np.isnan(credits.gap_us).any()
        self._categories = () if sequences is None else sequences.category_names
        vocab = None if sequences is None else sequences.vocab
        self._items = None if vocab is None else vocab.item_features
        self._users = None if vocab is None else vocab.user_features

    @property
    def names(self) -> list[str]:
        return factor_names(self._sequences, has_lags=(self._credits.lag != 0).any(), is_timed=self._is_timed)

    def is_default(self, name: str) -> bool:
        """Return whether a factor is one of those that are looked at when none is named."""
        if name in ("action", "lag", "gap", "hour_of_day", "day_of_week", "session_position", *self._categories):
            return True
        values = self._feature(name)
        is_text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
        return _is_readable(values.type) and (not is_text or pc.count_distinct(values).as_py() <= MAX_LEVELS)

    def read(self, name: str) -> Factor:
        credits = self._credits
        match name:
            case "action":
                code = pc.fill_null(credits.action.indices, UNKNOWN).to_numpy(zero_copy_only=False)
                return _factor(name, credits.action.dictionary, code)
            case "lag":
                return _bucketed(name, credits.lag, _COUNTS)
            case "gap":
                return _bucketed(name, credits.gap_us, GAPS)
            case "hour_of_day":
                return _ordered(name, [f"{hour:02}" for hour in range(24)], self._event_us // _HOUR_US % 24)
            case "day_of_week":
                # 1970 began on a Thursday.
                return _ordered(name, _DAYS, (self._event_us // DAY_US + 3) % 7)
            case "session_position":
                return _bucketed(name, self._session_position, _COUNTS)
        assert self._sequences is not None
        if name in self._categories:
            ids = self._sequences.vocab.categories[name].ids
            return _factor(name, ids, self._sequences.categories[self._place, self._categories.index(name)])
        of_items = self._items is not None and name in self._items.column_names[1:]
        owner = self._sequences.item_idx if of_items else self._sequences.user_idx
        return _factor(name, self._feature(name), owner[self._place])

    @cached_property
    def _place(self) -> np.ndarray:
        assert self._sequences is not None
        return self._credits.places_in(self._sequences)

    @property
    def _session_position(self) -> np.ndarray:
        assert self._sequences is not None
        return np.asarray(_session_positions(self._sequences, self._session_gap_us)[self._place])

    @cached_property
    def _event_us(self) -> np.ndarray:
        credits = self._credits
        return np.asarray(credits.moment_us[credits.prediction] - credits.gap_us.astype(np.int64))

    def _feature(self, name: str) -> pa.Array:
        for features in (self._items, self._users):
            if features is not None and name in features.column_names[1:]:
                return features.column(name).combine_chunks()
        raise AssertionError(name)


def _is_readable(kind: pa.DataType) -> bool:
    types = pa.types
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind)
    return bool(is_text or types.is_integer(kind) or types.is_floating(kind))


def _factor(name: str, values: pa.Array, idx: np.ndarray) -> Factor:
    """Return the factor of `values[idx]`; unknown where the index is negative or the value is null.

    Raises:
        ConfigError: the values are neither texts nor numbers.
    """
    if not _is_readable(values.type):
        raise ConfigError(f"the factor {name!r} holds {values.type}. A factor has texts or numbers; leave it out.")
    encoded = values.dictionary_encode()
    code_of = np.append(pc.fill_null(encoded.indices, UNKNOWN).to_numpy(zero_copy_only=False), UNKNOWN).astype(np.int64)
    code = code_of[idx]
    distinct = encoded.dictionary.to_pylist()
    is_number = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    order = sorted(range(len(distinct)), key=lambda place: distinct[place])
    if len(distinct) > MAX_LEVELS:
        if is_number:
            return _in_equal_parts(name, np.append(np.asarray(distinct, np.float64), np.nan)[code])
        count = np.bincount(code[code >= 0], minlength=len(distinct))
        order = sorted(np.argsort(-count, kind="stable")[:MAX_LEVELS].tolist(), key=lambda place: distinct[place])
    rank = np.full(len(distinct) + 1, len(order))
    rank[order] = np.arange(len(order))
    rank[-1] = len(order) + 1
    levels = _in_words([distinct[place] for place in order])
    return _used(name, [*levels, OTHER_LEVEL, UNKNOWN_LEVEL], rank[code], is_ordered=is_number)


def _in_words(values: Sequence[Any], n_digits: int = 6) -> list[str]:
    """Return different values as different texts: numbers with as many digits as tell them apart, from `n_digits`."""
    if not values or not isinstance(values[0], float):
        # A text that is called as one of our own levels stands in quotation marks.
        return [f'"{value}"' if value in (OTHER_LEVEL, UNKNOWN_LEVEL) else str(value) for value in values]
    # 17 digits tell any two numbers apart.
    for digits in range(n_digits, 18):
        words = [f"{value:.{digits}g}" for value in values]
        if len(set(words)) == len(set(values)):
            break
    return words


def _in_equal_parts(name: str, values: np.ndarray) -> Factor:
    """Cut numbers into buckets of about equally many credits."""
    known = values[~np.isnan(values)]
    edges = np.unique(np.quantile(known, np.arange(1, _N_BUCKETS) / _N_BUCKETS))
    bounds = _in_words([float(known.min()), *edges.tolist(), float(known.max())], n_digits=4)
    levels = [f"{low} to {high}" for low, high in itertools.pairwise(bounds)]
    code = np.where(np.isnan(values), len(levels), np.searchsorted(edges, np.nan_to_num(values), side="left"))
    return _used(name, [*levels, UNKNOWN_LEVEL], code, is_ordered=True)


def _bucketed(name: str, values: np.ndarray, buckets: dict[str, float]) -> Factor:
    return _ordered(name, list(buckets), np.searchsorted(list(buckets.values()), values))


def _ordered(name: str, levels: Sequence[str], code: np.ndarray) -> Factor:
    return _used(name, levels, code, is_ordered=True)


def _used(name: str, levels: Sequence[str], code: np.ndarray, *, is_ordered: bool) -> Factor:
    """Return a factor without the levels that no credit has."""
    there = np.flatnonzero(np.bincount(code, minlength=len(levels))).tolist()
    return Factor(
        name=name,
        levels=tuple(levels[place] for place in there),
        code=np.searchsorted(there, code),
        is_ordered=is_ordered,
    )


def _session_positions(sequences: Sequences, session_gap_us: int) -> np.ndarray:
    """Return how many events into its session each event is, from 1, int64 (E,).

    A session ends where nothing follows for longer than the gap.
    """
    assert sequences.time_us is not None
    place = np.arange(len(sequences))
    begins = np.append(True, np.diff(sequences.time_us) > session_gap_us)[: len(sequences)]
    first_of_users = sequences.offsets[:-1]
    begins[first_of_users[first_of_users < len(sequences)]] = True
    return np.asarray(place - np.maximum.accumulate(np.where(begins, place, 0)) + 1)
