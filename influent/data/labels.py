"""Sequences become labels: questions asked at moments, each with the answer that the log gave later.

Shapes: U users, E events, N moments, L questions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa

from influent import schema
from influent.data.clock import DAY_US, iso
from influent.data.moments import Moments, ranges
from influent.data.sequences import Sequences
from influent.data.split import first_at, moment_us
from influent.errors import ConfigError, DataError, LeakageError, SchemaError, nearest

Kind = Literal["classification", "regression"]

Cut: TypeAlias = str | int | float
"""A time: ISO 8601, microseconds since 1970, or a share of the events (between 0 and 1) that come before it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """L questions of one kind, each asked at one of N moments, with their answers.

    What may be read to answer a question is the history of its moment, in which nothing is at or after the moment's
    time. The targets of the moment are the events that the answer comes from.

    Raises:
        LeakageError: a history holds an event at or after its moment.
        DataError: the columns do not fit each other, or a label is no answer.
    """

    name: str
    """The question in words."""
    kind: Kind
    unit: str
    """What a label is counted in: `probability`, `value`, `log1p(value)` …"""
    moments: Moments
    moment: np.ndarray
    """int64 (L,): the moment at which each question is asked, never decreasing"""
    label: np.ndarray
    """float64 (L,): 0 or 1 in a classification; NaN where the answer is not known yet"""
    item_idx: np.ndarray | None = None
    """int64 (L,): the item that each question is about; None where it is about the user"""
    horizon_us: int = 0
    """How long after the moment the answer is known; 0 where the event itself is the answer."""
    is_log: bool = False
    """Whether the label is log1p of what was counted."""
    asks: str = ""
    """What the function that built the labels was asked, in words, whatever they are called; empty for any others"""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"Labels.kind must be 'classification' or 'regression'. Got {self.kind!r}.")
        n = len(self.moment)
        if len(self.label) != n or (self.item_idx is not None and len(self.item_idx) != n):
            items = "no" if self.item_idx is None else len(self.item_idx)
            raise DataError(
                f"each question has a moment and a label. Got {n} moments, {len(self.label)} labels and {items} items."
            )
        if n and ((np.diff(self.moment) < 0).any() or self.moment[0] < 0 or self.moment[-1] >= len(self.moments)):
            raise DataError(f"the moments of questions must be places among the {len(self.moments)}, in their order.")
        known = self.label[~np.isnan(self.label)]
        if self.kind == "classification" and not np.isin(known, (0.0, 1.0)).all():
            wrong = known[~np.isin(known, (0.0, 1.0))][0]
            raise DataError(f"a label of the classification {self.name!r} must be 0 or 1. Got {wrong:g}.")
        if not np.isfinite(known).all():
            raise DataError(f"a label of {self.name!r} is infinite. Drop such events first.")
        self._check_strictly_before()

    def _check_strictly_before(self) -> None:
        times, at = self.moments.sequences.time_us, self.moments.time_us
        if times is None or at is None:
            return
        has_history = np.flatnonzero(self.moments.stop > self.moments.start)
        late = times[self.moments.stop[has_history] - 1] >= at[has_history]
        if late.any():
            place = int(has_history[np.argmax(late)])
            raise LeakageError(
                f"moment {place} is at {iso(at[place])} and its history holds an event of that very time, which may "
                "be the answer. End the history before it, as moments_at does."
            )

    def __len__(self) -> int:
        return len(self.moment)

    @property
    def question(self) -> str:
        """Return what tells these questions from others: what is asked, and what an answer is."""
        return f"{self.asks or self.name} ({self.kind}, {self.unit})"

    @property
    def user_idx(self) -> np.ndarray:
        """Return the user of each question, int32 (L,)."""
        return np.asarray(self.moments.user_idx[self.moment])

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of the question, the events, the moments and the labels."""
        about = (self.name, self.kind, self.unit, self.horizon_us, self.moments.sequences.fingerprint)
        digest = hashlib.sha256(repr(about).encode())
        places = self.moments.user_idx, self.moments.start, self.moments.stop, self.moments.time_us
        for column in (*places, self.moment, self.item_idx, self.label):
            digest.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:12]

    @cached_property
    def table(self) -> pa.Table:
        """Return a row for each question: `user_id`, `time_us`, `item_id` (where it is about one) and `label`."""
        vocab, times = self.moments.sequences.vocab, self.moments.time_us
        columns: dict[str, Any] = {schema.USER_ID: vocab.users.to_ids(self.user_idx)}
        columns[schema.TIME_US] = pa.nulls(len(self), pa.int64()) if times is None else pa.array(times[self.moment])
        if self.item_idx is not None:
            columns[schema.ITEM_ID] = vocab.items.to_ids(self.item_idx)
        return pa.table(columns | {"label": self.label})

    def take(self, rows: np.ndarray | slice) -> Labels:
        """Return the moments at these places, each with all of its questions."""
        chosen = np.arange(len(self.moments))[rows]
        # Questions come by moment, so those of one lie together.
        first, stop = np.searchsorted(self.moment, chosen), np.searchsorted(self.moment, chosen, side="right")
        questions = ranges(first, stop - first)
        return replace(
            self,
            moments=self.moments.take(rows),
            moment=np.repeat(np.arange(len(chosen)), stop - first),
            label=self.label[questions],
            item_idx=None if self.item_idx is None else self.item_idx[questions],
        )

    def ask(self, moments: Moments, item_ids: Sequence[Any] | None = None) -> Labels:
        """Return the same question at other moments, one at each, with answers that are not known (NaN).

        Args:
            item_ids: the item of each question, where questions are about items.

        Raises:
            ConfigError: there is not one item for each moment, or the question is about none; or it has a horizon and
                a moment has no time that this could begin at.
        """
        if (item_ids is None) != (self.item_idx is None):
            about = "the user: leave item_ids out" if self.item_idx is None else "items: name one for each moment"
            raise ConfigError(f"{self.name!r} is asked about {about}.")
        if item_ids is not None and len(item_ids) != len(moments):
            raise ConfigError(f"ask needs one item for each moment. Got {len(item_ids)} for {len(moments)}.")
        if self.horizon_us and moments.time_us is None:
            raise ConfigError(f"{self.name!r} is asked at a time. Use moments_at(sequences, user_ids, time_us).")
        return replace(
            self,
            moments=moments,
            moment=np.arange(len(moments)),
            label=np.full(len(moments), np.nan),
            item_idx=None if item_ids is None else moments.sequences.vocab.items.to_idx(item_ids),
        )

    def to_natural(self, values: np.ndarray) -> np.ndarray:
        """Undo the log scale of labels or predictions, where there is one.

        What comes back from a prediction of log1p(x) is nearer to the median of x than to its mean.
        """
        return np.expm1(values) if self.is_log else np.asarray(values)


def will_do(
    sequences: Sequences,
    cutoffs: Cut | Sequence[Cut],
    *,
    horizon_days: float,
    actions: str | Sequence[str] | None = None,
    absent: bool = False,
    name: str | None = None,
) -> Labels:
    """Ask of every user at every cutoff: is there an event of theirs in [cutoff, cutoff + horizon)?

    Users are asked about once they have an event before the cutoff. An event exactly at the cutoff is part of the
    answer, not of the history.

    Args:
        cutoffs: one time or several.
        actions: what counts; by default any action.
        absent: turn the answer round: 1 where the user stays away (churn).

    Raises:
        DataError: a horizon ends after the log's last event, so its answer is not in the log yet; or no user has an
            event before a cutoff.
        ConfigError: the log is order-only, or a setting is out of range.
        UnknownIdError: the log has no such action.

    Example:
        >>> log = pa.table({"user_id": ["ann", "bob", "ann"], "item_id": list("abc"), "time": [0, 86_400, 172_800]})
        >>> from influent import build_sequences, read_events
        >>> labels = will_do(build_sequences(read_events(log)), "1970-01-02T12:00:00", horizon_days=0.5)
        >>> labels.table.select(["user_id", "label"]).to_pylist()  # ann comes back when the half day is over
        [{'user_id': 'ann', 'label': 0.0}, {'user_id': 'bob', 'label': 0.0}]
    """
    horizon_us = days_us(horizon_days, "horizon_days")
    moments = _moments_with_horizon(sequences, cutoffs, horizon_us)
    _, owner = _answering(moments, actions)
    did = np.bincount(owner, minlength=len(moments)) > 0
    what = f"{'no ' if absent else ''}{_in_words(actions)} within {horizon_days:g} days"
    return Labels(
        name=name or what,
        asks=what,
        kind="classification",
        unit="probability",
        moments=moments,
        moment=np.arange(len(moments)),
        label=(~did if absent else did).astype(np.float64),
        horizon_us=horizon_us,
    )


def amount_within(
    sequences: Sequences,
    cutoffs: Cut | Sequence[Cut],
    *,
    horizon_days: float,
    number: str = schema.VALUE,
    actions: str | Sequence[str] | None = None,
    log: bool = False,
    name: str | None = None,
) -> Labels:
    """Ask of every user at every cutoff: what do the numbers of their events in [cutoff, cutoff + horizon) add up to?

    It is 0 without an event; an event whose number is not known adds nothing. Otherwise as `will_do`.

    Args:
        number: which of the sequences' numbers.
        log: ask for log1p of the sum, which keeps few large sums from being all that matters.

    Raises:
        DataError: as `will_do`; or `log` is asked for and a sum is negative.
        SchemaError: the sequences have no such number.
    """
    horizon_us = days_us(horizon_days, "horizon_days")
    numbers = _numbers(sequences, number)
    moments = _moments_with_horizon(sequences, cutoffs, horizon_us)
    place, owner = _answering(moments, actions)
    amounts = np.bincount(owner, weights=np.nan_to_num(numbers[place], nan=0.0), minlength=len(moments))
    what = f"{number} of {_in_words(actions)} within {horizon_days:g} days"
    return Labels(
        name=name or what,
        asks=what,
        kind="regression",
        unit=f"log1p({number})" if log else number,
        moments=moments,
        moment=np.arange(len(moments)),
        label=_log1p(amounts, number) if log else amounts,
        horizon_us=horizon_us,
        is_log=log,
    )


def of_events(
    sequences: Sequences,
    *,
    positive: str | Sequence[str],
    among: str | Sequence[str],
    since: Cut | None = None,
    until: Cut | None = None,
    name: str | None = None,
) -> Labels:
    """Ask of every event with one of some actions: is it one of the `positive` ones? Such as: is what is shown clicked?

    All events of a user at one time form one moment, and its history ends before that time: what else was shown or
    clicked at that very time tells nothing. In an order-only log each event is a moment of its own.

    Args:
        positive: the actions that make a 1.
        among: the actions that are asked about, the positive ones among them.
        since: ask only about events at or after this time.
        until: ask only about events before this time.

    Raises:
        DataError: there is no such event.
        ConfigError: `among` lacks a positive action or has no other; or an order-only log is cut by time.
        UnknownIdError: the log has no such action.
    """
    yes, asked = set(_as_names(positive)), set(_as_names(among))
    if not yes or not yes < asked:
        raise ConfigError(
            f"'among' must hold the positive actions ({', '.join(sorted(yes)) or 'none given'}) and at least one that "
            f"is not positive. Got {', '.join(sorted(asked)) or 'none'}."
        )
    place = _events_asked(sequences, among, since, until)
    what = f"{_in_words(positive)} among {_in_words(among)}"
    return Labels(
        name=name or what,
        asks=what,
        kind="classification",
        unit="probability",
        label=np.isin(sequences.action_idx[place], _action_idx(sequences, positive)).astype(np.float64),
        item_idx=sequences.item_idx[place].astype(np.int64),
        **_moments_of_events(sequences, place),
    )


def number_of_events(
    sequences: Sequences,
    *,
    number: str = schema.VALUE,
    actions: str | Sequence[str] | None = None,
    log: bool = False,
    since: Cut | None = None,
    until: Cut | None = None,
    name: str | None = None,
) -> Labels:
    """Ask of every event that has it: what is its number? A rating, an amount, seconds of dwell; the item is known.

    Moments are as in `of_events`: the history ends before the time of the event.

    Args:
        number: which of the sequences' numbers.
        actions: which events; by default all of them.
        log: ask for log1p of the number.
        since: ask only about events at or after this time.
        until: ask only about events before this time.

    Raises:
        DataError: there is no such event; or `log` is asked for and a number is negative.
        SchemaError: the sequences have no such number.
        ConfigError: an order-only log is cut by time.
        UnknownIdError: the log has no such action.
    """
    numbers = _numbers(sequences, number)
    place = _events_asked(sequences, actions, since, until, has_number=np.isfinite(numbers))
    what = f"{number} of {_in_words(actions)}"
    return Labels(
        name=name or what,
        asks=what,
        kind="regression",
        unit=f"log1p({number})" if log else number,
        label=_log1p(numbers[place], number) if log else numbers[place],
        item_idx=sequences.item_idx[place].astype(np.int64),
        is_log=log,
        **_moments_of_events(sequences, place),
    )


def days_us(days: float, parameter: str) -> int:
    """Return days in microseconds.

    Raises:
        ConfigError: they are no number above 0.
    """
    if isinstance(days, bool) or not isinstance(days, int | float) or not 0 < days < 1e6:
        raise ConfigError(f"The {parameter!r} parameter must be a number of days above 0. Got {days!r}.")
    return max(round(days * DAY_US), 1)


def latest_cutoff_us(sequences: Sequences, horizon_us: int) -> int:
    """Return the latest moment from which a horizon ends within the log.

    Raises:
        ConfigError: the log is order-only.
        DataError: it is empty, or no longer than the horizon.
    """
    if sequences.time_us is None:
        raise ConfigError("an order-only log has no days to look ahead. Label its events instead.")
    if len(sequences) == 0:
        raise DataError("there are no events to label.")
    first_us, last_us = int(sequences.time_us.min()), int(sequences.time_us.max())
    if last_us - first_us <= horizon_us:
        raise DataError(
            f"the log spans {(last_us - first_us) / DAY_US:.1f} days, no more than a horizon of "
            f"{horizon_us / DAY_US:g} days: no cutoff has its answer in it. Use a shorter horizon."
        )
    return last_us - horizon_us


def _moments_with_horizon(sequences: Sequences, cutoffs: Cut | Sequence[Cut], horizon_us: int) -> Moments:
    """Return the moments of all users with a history at the cutoffs; their targets are the events of the horizon."""
    latest_us = latest_cutoff_us(sequences, horizon_us)
    assert sequences.time_us is not None
    asked: Sequence[Cut] = [cutoffs] if isinstance(cutoffs, str | int | float | np.number) else cutoffs
    times = sorted({moment_us(cut, sequences.time_us) for cut in asked})
    if not times:
        raise ConfigError("labels need at least one cutoff. Got none.")
    if times[-1] > latest_us:
        raise DataError(
            f"what users do within {horizon_us / DAY_US:g} days from {iso(times[-1])} is not all in the log, whose "
            f"last event is at {iso(latest_us + horizon_us)}. The latest cutoff with an answer is {iso(latest_us)}."
        )
    parts = [_with_history(sequences, time_us, horizon_us) for time_us in times]
    users, stop, target_stop = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Moments(
        sequences=sequences,
        user_idx=users,
        start=sequences.offsets[users],
        stop=stop,
        target_stop=target_stop,
        time_us=np.repeat(np.array(times, np.int64), [len(part[0]) for part in parts]),
    )


def _with_history(sequences: Sequences, time_us: int, horizon_us: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    stop = first_at(sequences, time_us)
    users = np.flatnonzero(stop > sequences.offsets[:-1]).astype(np.int32)
    if len(users) == 0:
        raise DataError(f"no user has an event before the cutoff at {iso(time_us)}. Choose a later one.")
    return users, stop[users], first_at(sequences, time_us + horizon_us)[users]


def _answering(moments: Moments, actions: str | Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the target events with these actions, and the moment of each."""
    lengths = moments.target_stop - moments.stop
    place, owner = ranges(moments.stop, lengths), np.repeat(np.arange(len(moments)), lengths)
    if actions is None:
        return place, owner
    counts = np.isin(moments.sequences.action_idx[place], _action_idx(moments.sequences, actions))
    return place[counts], owner[counts]


def _events_asked(
    sequences: Sequences,
    actions: str | Sequence[str] | None,
    since: Cut | None,
    until: Cut | None,
    *,
    has_number: np.ndarray | None = None,
) -> np.ndarray:
    asked = np.ones(len(sequences), bool) if has_number is None else has_number
    if actions is not None:
        asked &= np.isin(sequences.action_idx, _action_idx(sequences, actions))
    if (since is not None or until is not None) and sequences.time_us is None:
        raise ConfigError("an order-only log has no times: leave 'since' and 'until' out.")
    if len(sequences) and sequences.time_us is not None:
        if since is not None:
            asked &= sequences.time_us >= moment_us(since, sequences.time_us)
        if until is not None:
            asked &= sequences.time_us < moment_us(until, sequences.time_us)
    if not asked.any():
        numbered = "" if has_number is None else " with such a number"
        within = "" if since is None and until is None else " between 'since' and 'until'"
        raise DataError(f"there is no {_in_words(actions)}{numbered}{within} to ask about.")
    return np.flatnonzero(asked)


def _moments_of_events(sequences: Sequences, place: np.ndarray) -> dict[str, Any]:
    """Return one moment for each user and time of these events, whose targets are all events of that time."""
    begins = np.ones(len(sequences), bool)
    if sequences.time_us is not None:
        begins[1:] = (np.diff(sequences.user_idx) != 0) | (np.diff(sequences.time_us) != 0)
    first = np.flatnonzero(begins)
    end = np.append(first[1:], len(sequences))
    group, moment = np.unique((np.cumsum(begins) - 1)[place], return_inverse=True)
    stop = first[group]
    users = sequences.user_idx[stop]
    moments = Moments(
        sequences=sequences,
        user_idx=users,
        start=sequences.offsets[users],
        stop=stop,
        target_stop=end[group],
        time_us=None if sequences.time_us is None else sequences.time_us[stop],
    )
    return {"moments": moments, "moment": moment.astype(np.int64)}


def _as_names(actions: str | Sequence[str]) -> list[str]:
    return [actions] if isinstance(actions, str) else list(actions)


def _in_words(actions: str | Sequence[str] | None) -> str:
    return "event" if actions is None else " or ".join(_as_names(actions))


def _action_idx(sequences: Sequences, actions: str | Sequence[str]) -> np.ndarray:
    names = _as_names(actions)
    if not names:
        raise ConfigError("'actions' names no action, so nothing could answer. Name one, or leave it out for any.")
    return sequences.vocab.actions.require_idx(names)


def _numbers(sequences: Sequences, number: str) -> np.ndarray:
    names = sequences.number_names
    if number not in names:
        raise SchemaError(
            f"these sequences have no number {number!r}. They have: {', '.join(names) or 'none'}."
            f"{nearest(number, names)} Keep it with build_sequences(events, numbers=[{number!r}])."
        )
    return sequences.numbers[:, names.index(number)].astype(np.float64)


def _log1p(amounts: np.ndarray, number: str) -> np.ndarray:
    if (amounts < 0).any():
        raise DataError(
            f"{(amounts < 0).sum():,} labels of {number} are negative (the least is {amounts.min():g}), and have no "
            "log1p. Leave log=False, or clean them out."
        )
    return np.asarray(np.log1p(amounts))
