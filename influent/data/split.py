"""Sequences are split into what a model may learn from and the moments it is judged at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from influent.data.clock import LAST_US, iso, microseconds
from influent.data.moments import Moments, each_moment
from influent.data.sequences import Sequences
from influent.errors import ConfigError, DataError
from influent.settings import check_int, check_list

Target = Literal["first", "last", "all"]

SomeUsers: TypeAlias = float | Sequence[Any]
"""A share of the users, drawn by chance, or their ids"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Training sequences, validation moments and test moments; unpacks to these three.

    The training sequences hold no validation or test event, and those of the validation moments no test event of
    anybody. A test history does hold the validation event, since it has happened by then.
    """

    protocol: str
    """In words, for reports."""
    train: Sequences
    validation: Moments
    test: Moments
    train_and_validation: Sequences
    """All that had happened before the test; to refit on, once the settings are chosen"""

    def __iter__(self) -> Iterator[Sequences | Moments]:
        yield from (self.train, self.validation, self.test)

    @cached_property
    def hash(self) -> str:
        """Return a hash of every event and every place, in the whole log, where the split cuts."""
        digest = hashlib.sha256(self.train.fingerprint.encode())
        for moments in (self.validation.within(self.test.sequences), self.test):
            digest.update(moments.sequences.fingerprint.encode())
            for places in (moments.start, moments.stop, moments.target_stop):
                digest.update(np.ascontiguousarray(places, np.int64).tobytes())
        return digest.hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How a run's sequences are split; `at` is `last`, or where `split_at` cuts."""

    at: str = "last"
    target: Target = "first"
    actions: tuple[str, ...] = ()
    """With `last`, leave out the last event of these actions; by default of any."""

    def __post_init__(self) -> None:
        if self.target not in get_args(Target):
            raise ConfigError(f"target must be one of {', '.join(get_args(Target))}. Got {self.target!r}.")
        if self.target != "first" and self.at == "last":
            raise ConfigError(f"target={self.target!r} goes with a split by time; leaving the last event out has one.")
        if self.actions and self.at != "last":
            raise ConfigError("target actions go with split='last'; a split by time takes what comes first.")

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> SplitConfig:
        """Return what a manifest says."""
        return cls(**{**plain, "actions": tuple(plain.get("actions", ()))})

    def split(self, sequences: Sequences) -> Split:
        """Return training sequences, validation and test moments."""
        if self.at == "last":
            return split_last(sequences, actions=self.actions)
        return split_at(sequences, read_cut(self.at), target=self.target)


def split_last(sequences: Sequences, *, actions: Sequence[str] = ()) -> Split:
    """Leave the last event of every user for test and the one before for validation.

    Users with fewer than three events are trained on and not judged.

    Args:
        actions: leave out the last event of these actions, and all that comes after it; by default of any action.

    Raises:
        DataError: no user has three events.
        UnknownIdError: an action is not in the log.
    """
    is_wanted = np.ones(len(sequences), bool)
    check_list("actions", actions)
    if actions:
        is_wanted = np.isin(sequences.action_idx, sequences.vocab.actions.require_idx(actions))
    wanted = np.flatnonzero(is_wanted)
    end_of_wanted = np.searchsorted(wanted, sequences.offsets[1:])
    lengths = np.diff(sequences.offsets)
    n_wanted = np.diff(np.searchsorted(wanted, sequences.offsets))
    is_judged = (lengths >= 3) & (n_wanted >= 2)
    users = np.flatnonzero(is_judged).astype(np.int32)
    if len(users) == 0:
        raise DataError(
            f"leave-last-out needs users with at least 3 events; the longest of {sequences.n_users:,} users has "
            f"{lengths.max(initial=0)}. Use more data, or split by time."
        )
    last, before_last = wanted[end_of_wanted[users] - 1], wanted[end_of_wanted[users] - 2]
    to_validation, to_test = sequences.offsets[1:].copy(), sequences.offsets[1:].copy()
    to_validation[users], to_test[users] = before_last, last
    train, rest = sequences.until(to_validation), sequences.until(to_test)
    of = f" of {', '.join(actions)}" if actions else ""
    return Split(
        protocol=f"leave last out: test is each user's last event{of}, validation the one before",
        train=train,
        # Cut off, since others' events may be read too: those before a validation moment can be somebody's test.
        validation=_moments(sequences, users, before_last, before_last + 1, train).within(rest),
        test=_moments(sequences, users, last, last + 1, train, rest),
        train_and_validation=rest,
    )


def hold_out_last(train: Sequences) -> tuple[Sequences, Moments]:
    """Leave the last event of every user with two or more for validation; return the rest and these moments.

    Raises:
        DataError: no user has two events.
    """
    lengths = np.diff(train.offsets)
    users = np.flatnonzero(lengths >= 2).astype(np.int32)
    if len(users) == 0:
        raise DataError("no user has two events, so nothing can be learned about what follows what. Use more data.")
    end = train.offsets[1:]
    rest = train.until(np.where(lengths >= 2, end - 1, end))
    return rest, _moments(train, users, end[users] - 1, end[users], rest)


def split_at(
    sequences: Sequences,
    cutoff: str | int | float,
    *,
    validation: str | int | float = 0.9,
    target: Target = "first",
) -> Split:
    """Split by time: models learn from what came before `cutoff` and are judged on what came after.

    Args:
        cutoff: a time (ISO 8601, or microseconds), or a share of events between 0 and 1 that come before it.
        validation: where, within the time before the cutoff, validation begins; likewise a time or a share.
        target: what is to be predicted of a user's events after the cutoff: the first, the last (with those
            between in the history), or all of them from the history at the cutoff. The gap before the first is the one
            that the cutoff lies in, which is longer than others are; judge times by the last.

    Raises:
        ConfigError: the log is order-only, or a cut lies outside its time.
        DataError: there are no events.
    """
    if sequences.time_us is None:
        raise ConfigError("an order-only log cannot be split by time. Leave the last event out instead: split 'last'.")
    if target not in ("first", "last", "all"):
        raise ConfigError(f"The 'target' parameter of split must be 'first', 'last' or 'all'. Got {target!r} instead.")
    if len(sequences) == 0:
        raise DataError("there are no events to split.")
    end_us = moment_us(cutoff, sequences.time_us)
    before = sequences.time_us[sequences.time_us < end_us]
    if len(before) == 0:
        raise ConfigError(f"no event lies before the cutoff at {iso(end_us)}. Choose a later one.")
    begin_us = moment_us(validation, before)
    if begin_us >= end_us:
        raise ConfigError(f"validation begins at {iso(begin_us)}, not before the test cutoff at {iso(end_us)}.")
    train = sequences.until(first_at(sequences, begin_us))
    before_test = sequences.until(first_at(sequences, end_us))
    if len(train) == 0:
        raise ConfigError(f"no event lies before validation begins at {iso(begin_us)}. Choose later cuts.")
    return Split(
        protocol=f"by time: validation from {iso(begin_us)}, test from {iso(end_us)}, target {target}",
        train=train,
        validation=_moments_after(before_test, begin_us, target, train),
        test=_moments_after(sequences, end_us, target, train, before_test),
        train_and_validation=before_test,
    )


def split_users(sequences: Sequences, *, test: SomeUsers = 0.2, validation: SomeUsers = 0.1, seed: int = 0) -> Split:
    """Split by users: models learn from all events of some users and are judged at every event of others.

    Of a user who is held out, each event from the second on is a moment whose history is all before it. None of
    their events is trained on, so this asks what is known of somebody new; events of a test user may lie before
    those of a training user.

    Args:
        test: who is held out for test: a share of the users with events, or their ids.
        validation: likewise, for validation. A share is of all users, and is drawn from those who are not in test.
        seed: where the draw comes from.

    Raises:
        ConfigError: a share is not between 0 and 1, a user is in both, or nobody is left to learn from.
        DataError: no user of a part has two events.
        UnknownIdError: a user is not in the log.

    Example:
        >>> split = split_users(sequences, validation=["bob"], test=["cat"])  # doctest: +SKIP
    """
    check_int("seed", seed, 0)
    rng = np.random.default_rng(seed)
    with_events = np.flatnonzero(np.diff(sequences.offsets))
    of_test = _users(sequences, "test", test, with_events, len(with_events), rng)
    others = np.setdiff1d(with_events, of_test)
    of_validation = _users(sequences, "validation", validation, others, len(with_events), rng)
    both = np.intersect1d(of_validation, of_test)
    if len(both):
        named = sequences.vocab.users.to_ids(both[:1]).to_pylist()[0]
        others_too = f"user {named!r} and {len(both) - 1:,} others"
        raise ConfigError(f"{others_too} are in both validation and test. Name each once.")
    learned_from = np.setdiff1d(others, of_validation)
    if len(learned_from) == 0:
        raise ConfigError("validation and test take all users, so nobody is left to learn from. Make them smaller.")
    train = _of_users(sequences, learned_from)
    rest = _of_users(sequences, others)
    return Split(
        protocol=(
            f"by users: every event from the second on of {len(of_test):,} users for test and of "
            f"{len(of_validation):,} for validation; {len(learned_from):,} others to learn from"
        ),
        train=train,
        validation=_each_moment("validation", rest, of_validation, train),
        test=_each_moment("test", sequences, of_test, train, rest),
        train_and_validation=rest,
    )


def _users(
    sequences: Sequences,
    part: str,
    asked: SomeUsers,
    drawn_from: np.ndarray,
    n_users: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the users that are asked for, ascending."""
    if isinstance(asked, int | float | str):
        if not isinstance(asked, float) or not 0 < asked < 1:
            raise ConfigError(
                f"The {part!r} parameter of split_users must be a share between 0 and 1, or a list of user ids. "
                f"Got {asked!r}."
            )
        n_drawn = min(max(round(asked * n_users), 1), len(drawn_from))
        return np.sort(rng.permutation(drawn_from)[:n_drawn])
    check_list(part, asked)
    return np.unique(sequences.vocab.users.require_idx(asked))


def _of_users(sequences: Sequences, users: np.ndarray) -> Sequences:
    """Return the events of these users; the ids of all stay."""
    is_kept = np.zeros(sequences.n_users, bool)
    is_kept[users] = True
    return sequences.until(np.where(is_kept, sequences.offsets[1:], sequences.offsets[:-1]))


def _each_moment(part: str, sequences: Sequences, users: np.ndarray, *learned_from: Sequences) -> Moments:
    moments = each_moment(sequences, users)
    if len(moments) == 0:
        raise DataError(f"none of the {len(users):,} users in {part} has two events, so nothing can be judged there.")
    return replace(moments, fingerprints=frozenset(events.fingerprint for events in learned_from))


def first_at(sequences: Sequences, time_us: int) -> np.ndarray:
    """Return for each user the place of the first event at or after the time."""
    assert sequences.time_us is not None
    before = np.concatenate([[0], np.cumsum(sequences.time_us < time_us)])
    start, end = sequences.offsets[:-1], sequences.offsets[1:]
    return np.asarray(start + before[end] - before[start])


def _moments_after(sequences: Sequences, time_us: int, target: Target, *learned_from: Sequences) -> Moments:
    first, end = first_at(sequences, time_us), sequences.offsets[1:]
    users = np.flatnonzero(first < end).astype(np.int32)
    if len(users) == 0:
        raise ConfigError(f"no event lies at or after {iso(time_us)}. Choose an earlier cut.")
    stop, target_stop = first[users], end[users]
    if target == "first":
        target_stop = stop + 1
    elif target == "last":
        stop = target_stop - 1
    return _moments(sequences, users, stop, target_stop, *learned_from)


def _moments(
    sequences: Sequences, users: np.ndarray, stop: np.ndarray, target_stop: np.ndarray, *learned_from: Sequences
) -> Moments:
    return Moments(
        sequences=sequences,
        user_idx=users,
        start=sequences.offsets[users],
        stop=stop,
        target_stop=target_stop,
        time_us=None if sequences.time_us is None else sequences.time_us[stop],
        fingerprints=frozenset(events.fingerprint for events in learned_from),
    )


def read_cut(cut: str | float) -> str | float:
    """Return a cut as a command line or a file has it: a number where it reads as one, else the text."""
    try:
        return float(cut)
    except ValueError:
        return cut


_FIRST_CUT_US = 10**12
"""Twelve days into 1970: a number below it, such as 2024, is no moment in microseconds."""


def moment_us(cut: str | int | float, times: np.ndarray) -> int:
    """Return where to cut: a time, or the time that this share of `times` comes before.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(cut, str):
        return microseconds(cut)
    if not isinstance(cut, int | float | np.number):
        raise ConfigError(f"a cut must be an ISO 8601 text or a number. Got {cut!r}.")
    if 0 < cut < 1:
        return int(np.quantile(times, cut, method="higher"))
    if _FIRST_CUT_US < cut <= LAST_US:
        return int(cut)
    raise ConfigError(f"a cut must be a time (ISO 8601, or microseconds), or a share between 0 and 1. Got {cut!r}.")
