"""Labels are split into what a model may learn from and what it is judged by, so that no answer is known too early."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from influent.data.clock import FIRST_US, iso
from influent.data.labels import Cut, Labels, days_us
from influent.data.moments import Moments
from influent.data.split import first_at, moment_us
from influent.errors import ConfigError, DataError, LeakageError


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelSplit:
    """Labels to learn from, to validate with and to be judged by; unpacks to these three.

    The training labels stand on sequences that end before validation begins, and the validation labels on sequences
    that end before test begins, so whatever is learned from `train` and its sequences has seen neither.

    Raises:
        LeakageError: an answer in one part is known only after the next part has begun.
    """

    protocol: str
    """In words, for reports."""
    train: Labels
    validation: Labels
    test: Labels
    by_user: bool = field(default=False, repr=False)
    """Whether validation is of other users than training, at the same cutoffs."""

    def __post_init__(self) -> None:
        if not self.by_user:
            _check_before(self.train, self.validation, "training", "validation")
        elif np.isin(self.train.user_idx, self.validation.user_idx).any():
            raise LeakageError("a user is in training and in validation, which are to be of different users.")
        _check_before(self.train, self.test, "training", "test")
        _check_before(self.validation, self.test, "validation", "test")

    def __iter__(self) -> Iterator[Labels]:
        yield from (self.train, self.validation, self.test)

    @cached_property
    def hash(self) -> str:
        """Return a hash of every event, question and answer, and of where the split cuts."""
        digest = hashlib.sha256("".join(part.fingerprint for part in self).encode())
        return digest.hexdigest()[:12]


def split_labels_at(
    build: Callable[[Sequence[Cut]], Labels],
    cutoff: Cut,
    *,
    n_cutoffs: int = 1,
    step_days: float | None = None,
    validation_users: float | None = None,
    seed: int = 0,
) -> LabelSplit:
    """Split questions with a horizon by time: test at the cutoff, validation and training before it.

    Validation is asked one horizon before the cutoff, training two horizons before it and at earlier cutoffs, so that
    every answer is known when the next part begins.

    Args:
        build: returns the labels of some cutoffs, with a horizon of its own.
        n_cutoffs: how many cutoffs are trained on.
        step_days: how far they lie apart; by default a horizon.
        validation_users: for a log too short for three horizons: hold out this share of the users for validation, at
            the training cutoffs, which then begin one horizon before the test. The share is drawn by `seed`.

    Raises:
        ConfigError: the labels have no horizon, the log is too short, or a setting is out of range.
        DataError: see the builder.

    Example:
        >>> from functools import partial
        >>> churn = partial(will_do, sequences, horizon_days=28, absent=True)  # doctest: +SKIP
        >>> split = split_labels_at(churn, "2024-06-01", n_cutoffs=6)  # doctest: +SKIP
    """
    if isinstance(n_cutoffs, bool) or not isinstance(n_cutoffs, int) or n_cutoffs < 1:
        raise ConfigError(f"The 'n_cutoffs' parameter of split_labels_at must be an int from 1. Got {n_cutoffs!r}.")
    if validation_users is not None and not 0 < validation_users < 1:
        raise ConfigError(f"'validation_users' must be a share between 0 and 1, or None. Got {validation_users!r}.")
    test = build([cutoff])
    if test.horizon_us == 0:
        raise ConfigError(f"{test.name!r} has no horizon: the event is the answer. Use split_events_at(labels, …).")
    sequences, times = test.moments.sequences, test.moments.time_us
    assert sequences.time_us is not None
    assert times is not None
    test_us = int(times[0])
    validation_us = test_us - test.horizon_us
    step_us = test.horizon_us if step_days is None else days_us(step_days, "step_days")
    latest_us = validation_us - (test.horizon_us if validation_users is None else 0)
    cutoffs = [latest_us - place * step_us for place in reversed(range(n_cutoffs))]
    if cutoffs[0] <= sequences.time_us.min():
        instead = "" if validation_users is not None else ", or hold out users for validation: validation_users=0.2"
        raise ConfigError(
            f"training would begin at {iso(max(cutoffs[0], FIRST_US))}, where the log has no event yet: it begins at "
            f"{iso(sequences.time_us.min())}. Use a later cutoff, a shorter horizon or fewer n_cutoffs{instead}."
        )
    # As texts, which are times in every year.
    train, before_test = build([iso(one) for one in cutoffs]), first_at(sequences, test_us)
    trained = f"trained at {n_cutoffs} from {iso(cutoffs[0])}" if n_cutoffs > 1 else f"trained at {iso(cutoffs[0])}"
    if validation_users is None:
        before_validation = first_at(sequences, validation_us)
        validation, validated = build([iso(validation_us)]), f"validated at {iso(validation_us)}"
    else:
        held_out = np.random.default_rng(seed).random(sequences.n_users) < validation_users
        before_validation = np.where(held_out, sequences.offsets[:-1], before_test)
        of_held_out = held_out[train.moments.user_idx]
        validation = train.take(np.flatnonzero(of_held_out))
        train = train.take(np.flatnonzero(~of_held_out))
        validated = f"validated there by {validation_users:.0%} of the users"
    return _label_split(
        f"by time: {trained}, {validated}, tested at {iso(test_us)}",
        _until(train, before_validation),
        _until(validation, before_test),
        test,
        by_user=validation_users is not None,
    )


def split_events_at(labels: Labels, cutoff: Cut, *, validation: Cut = 0.9) -> LabelSplit:
    """Split questions about events by the time of their moments; in an order-only log, by each user's order.

    Args:
        cutoff: where test begins: a time, or the share of the moments that come before it. In an order-only log the
            share of each user's moments, rounded up, so that whoever has one is trained on.
        validation: where, within what comes before the cutoff, validation begins; likewise.

    Raises:
        ConfigError: the labels have a horizon, a cut is no time or share, or leaves a part empty.
    """
    if labels.horizon_us:
        raise ConfigError(f"{labels.name!r} has a horizon. Use split_labels_at(build, cutoff).")
    moments = labels.moments
    sequences, times = moments.sequences, moments.time_us
    if times is None:
        test_from = _ranked_from(moments.user_idx, np.ones(len(moments), bool), cutoff)
        validation_from = _ranked_from(moments.user_idx, ~test_from, validation) | test_from
        stops = [_first_stop(moments, later) for later in (validation_from, test_from)]
        protocol = f"by each user's order: test after {cutoff:.0%}, validation after {validation:.0%} of what is before"
    else:
        test_us = moment_us(cutoff, times)
        test_from = times >= test_us
        validation_us = test_us if test_from.all() else moment_us(validation, times[~test_from])
        validation_from = times >= min(validation_us, test_us)
        stops = [first_at(sequences, min(validation_us, test_us)), first_at(sequences, test_us)]
        protocol = f"by time: validation from {iso(validation_us)}, test from {iso(test_us)}"
    parts = {"training": ~validation_from, "validation": validation_from & ~test_from, "test": test_from}
    for part, rows in parts.items():
        if not rows.any():
            raise ConfigError(f"no moment of {labels.name!r} is left for {part}. Choose other cuts.")
    train, validated, test = (labels.take(np.flatnonzero(rows)) for rows in parts.values())
    return _label_split(protocol, _until(train, stops[0]), _until(validated, stops[1]), test)


def _ranked_from(user_idx: np.ndarray, among: np.ndarray, share: Cut) -> np.ndarray:
    """Return which of these moments come after the first `share` of their user's, rounded up."""
    if isinstance(share, str) or not 0 < share < 1:
        raise ConfigError(f"an order-only log is cut by shares between 0 and 1. Got {share!r}.")
    users, first, counts = np.unique(user_idx[among], return_index=True, return_counts=True)
    place = np.searchsorted(users, user_idx[among])
    rank = np.arange(len(place)) - first[place]
    later = np.zeros(len(user_idx), bool)
    later[among] = rank >= np.ceil(counts * share - 1e-9)[place]
    return later


def _first_stop(moments: Moments, later: np.ndarray) -> np.ndarray:
    """Return for each user where the history of the first of these moments ends; without one, where all events end."""
    stops = moments.sequences.offsets[1:].copy()
    np.minimum.at(stops, moments.user_idx[later], moments.stop[later])
    return stops


def _until(labels: Labels, stops: np.ndarray) -> Labels:
    """Return the labels on sequences that end before `stops[u]`; no answer may come from there."""
    moments = labels.moments
    sequences = moments.sequences.until(stops)
    shift = (sequences.offsets[:-1] - moments.sequences.offsets[:-1])[moments.user_idx]
    places = {name: getattr(moments, name) + shift for name in ("start", "stop", "target_stop")}
    return replace(labels, moments=replace(moments, sequences=sequences, **places))


def _label_split(
    protocol: str, train: Labels, validation: Labels, test: Labels, *, by_user: bool = False
) -> LabelSplit:
    # What was fitted on the labels, or on the sequences they stand on, may be judged.
    may_judge = frozenset({train.fingerprint, train.moments.sequences.fingerprint})
    judged = (replace(part, moments=replace(part.moments, fingerprints=may_judge)) for part in (validation, test))
    validation, test = judged
    return LabelSplit(protocol=protocol, train=train, validation=validation, test=test, by_user=by_user)


def _check_before(earlier: Labels, later: Labels, name: str, name_of_later: str) -> None:
    if len(earlier.moments) == 0 or len(later.moments) == 0:
        raise DataError(f"{name} or {name_of_later} has no question. Use more data, or cut elsewhere.")
    if earlier.moments.time_us is None or later.moments.time_us is None:
        first = np.full(later.moments.sequences.n_users, np.iinfo(np.int64).max)
        np.minimum.at(first, later.moments.user_idx, _place_of_user(later.moments))
        leaks = (_place_of_user(earlier.moments) >= first[earlier.moments.user_idx]).any()
    else:
        known_us = earlier.moments.time_us.max() + max(earlier.horizon_us, 1)
        leaks = known_us > later.moments.time_us.min()
    if leaks:
        raise LeakageError(f"an answer in {name} is known only after {name_of_later} has begun. Cut earlier.")


def _place_of_user(moments: Moments) -> np.ndarray:
    return np.asarray(moments.stop - moments.sequences.offsets[moments.user_idx])
