"""The moments at which a prediction is asked for, each with the history before it and nothing after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influent import schema
from influent.data.clock import iso
from influent.data.sequences import Sequences
from influent.data.vocab import UNKNOWN, read_saved
from influent.errors import ConfigError, LeakageError
from influent.run import made
from influent.settings import check_list


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """N moments: at each, one user's history is `start:stop` and what came next is `stop:target_stop`.

    All three are places in the flat columns of `sequences`, int64 (N,). A history never reaches into another
    user's events, never past the moment, and targets come after it.

    Raises:
        LeakageError: a history would hold events of another user, or from after the moment.
    """

    sequences: Sequences
    user_idx: np.ndarray
    """int32 (N,)"""
    start: np.ndarray
    stop: np.ndarray
    target_stop: np.ndarray
    """equal to `stop` where nothing is known of what came next"""
    time_us: np.ndarray | None = None
    """int64 (N,): the moment itself; None where it is not known (an order-only log)"""
    fingerprints: frozenset[str] = frozenset()
    """The training sequences that a model judged at these moments may have been fitted on; empty means any."""

    def __post_init__(self) -> None:
        first, end = self.sequences.offsets[self.user_idx], self.sequences.offsets[self.user_idx + 1]
        if (self.start < first).any() or (self.target_stop > end).any():
            raise LeakageError("a moment's history or target reaches into another user's events.")
        if (self.start > self.stop).any() or (self.stop > self.target_stop).any():
            raise LeakageError("a moment's history must end before its targets begin: start <= stop <= target_stop.")
        times = self.sequences.time_us
        if self.time_us is None or times is None:
            return
        has_history = self.stop > self.start
        late = times[self.stop[has_history] - 1] > self.time_us[has_history]
        if late.any():
            place = int(np.flatnonzero(has_history)[np.argmax(late)])
            raise LeakageError(
                f"moment {place} is at {self.time_us[place]} µs but its history reaches to "
                f"{times[self.stop[place] - 1]} µs. Build moments with moments_at(sequences, users, time_us)."
            )

    def __len__(self) -> int:
        return len(self.user_idx)

    def take(self, rows: np.ndarray | slice) -> Moments:
        """Return the moments at these places."""
        return replace(
            self,
            user_idx=self.user_idx[rows],
            start=self.start[rows],
            stop=self.stop[rows],
            target_stop=self.target_stop[rows],
            time_us=None if self.time_us is None else self.time_us[rows],
        )

    def without(self, places: np.ndarray) -> Moments:
        """Return the same moments after histories from which the events at these places, int (N,), are gone."""
        gone = np.zeros(len(self.sequences) + 1, np.int64)
        gone[places + 1] = 1
        n_before = np.cumsum(gone)
        moved = {
            name: place - n_before[place]
            for name, place in (("start", self.start), ("stop", self.stop), ("target_stop", self.target_stop))
        }
        return replace(self, sequences=self.sequences.without(places), **moved)

    def within(self, sequences: Sequences) -> Moments:
        """Return the same moments over the same sequences cut earlier, such as a split's `train_and_validation`.

        Raises:
            LeakageError: a history or target would lie behind the cut.
        """
        shift = sequences.offsets[self.user_idx] - self.sequences.offsets[self.user_idx]
        places = {"start": self.start + shift, "stop": self.stop + shift, "target_stop": self.target_stop + shift}
        return replace(self, sequences=sequences, **places)

    def target_items(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the items that came next, flat int64, and the offsets of each moment, (N + 1,).

        An item that comes twice after one moment counts once.
        """
        lengths = self.target_stop - self.stop
        owner = np.repeat(np.arange(len(self)), lengths)
        items = self.sequences.item_idx[ranges(self.stop, lengths)].astype(np.int64)
        if (lengths > 1).any():
            width = self.sequences.vocab.n_items + 1
            owner, items = np.divmod(np.unique(owner * width + items + 1), width)
            items = items - 1
        return items, np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(self)))])

    def save(self, folder: str | Path) -> None:
        """Write the sequences and `moments.parquet`."""
        folder = made(folder)
        self.sequences.save(folder)
        time_us = pa.nulls(len(self), pa.int64()) if self.time_us is None else self.time_us
        columns = {"user_idx": self.user_idx, "start": self.start, "stop": self.stop, "target_stop": self.target_stop}
        about = {"is_timed": self.time_us is not None, "fingerprints": sorted(self.fingerprints)}
        table = pa.table({**columns, schema.TIME_US: time_us}).replace_schema_metadata({"about": json.dumps(about)})
        pq.write_table(table, folder / "moments.parquet", compression="zstd")

    @classmethod
    def load(cls, folder: Path) -> Moments:
        """Read what `save` wrote.

        Raises:
            RunFolderError: a file is missing or damaged.
        """
        table = read_saved(folder / "moments.parquet")
        about = json.loads(table.schema.metadata[b"about"])
        columns = {name: table.column(name).to_numpy() for name in ("user_idx", "start", "stop", "target_stop")}
        return cls(
            sequences=Sequences.load(folder),
            **columns,
            time_us=table.column(schema.TIME_US).to_numpy() if about["is_timed"] else None,
            fingerprints=frozenset(about["fingerprints"]),
        )


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return `[s, s + 1, … s + n − 1]` for each start and length, end to end.

    Example:
        >>> ranges(np.array([5, 20]), np.array([2, 3])).tolist()
        [5, 6, 20, 21, 22]
    """
    ends = np.cumsum(lengths)
    n_places = int(ends[-1]) if len(ends) else 0
    return np.asarray(np.arange(n_places) + np.repeat(starts - (ends - lengths), lengths))


def latest_moments(sequences: Sequences, user_idx: np.ndarray | None = None) -> Moments:
    """Return the moment right after each user's last event: the one that is recommended for.

    Args:
        user_idx: which users, int (N,); by default all of them, those without events included.

    Raises:
        ConfigError: the users are not named by their places in the vocabulary.
    """
    users = np.arange(sequences.n_users) if user_idx is None else np.asarray(user_idx)
    if len(users) and (users.dtype.kind not in "iu" or users.min() < 0 or users.max() >= sequences.n_users):
        raise ConfigError(
            f"'user_idx' holds places of users, 0 to {sequences.n_users - 1}. Of ids: moments_of(sequences, user_ids)."
        )
    users = users.astype(np.int32)
    end = sequences.offsets[users + 1]
    return Moments(
        sequences=sequences, user_idx=users, start=sequences.offsets[users], stop=end, target_stop=end, time_us=None
    )


def each_moment(sequences: Sequences, user_idx: np.ndarray | None = None) -> Moments:
    """Return the moment before every event but the first of each user: all that came before says what comes next.

    Of events at the same time the order is kept: each has those listed before it in its history, and the gap between
    them is zero.

    Args:
        user_idx: which users, int (N,), each once; by default all of them.
    """
    users = np.arange(sequences.n_users) if user_idx is None else np.asarray(user_idx)
    n_moments = np.maximum(sequences.offsets[users + 1] - sequences.offsets[users] - 1, 0)
    stop = ranges(sequences.offsets[users] + 1, n_moments)
    owner = np.repeat(users, n_moments)
    return Moments(
        sequences=sequences,
        user_idx=owner.astype(np.int32),
        start=sequences.offsets[owner],
        stop=stop,
        target_stop=stop + 1,
        time_us=None if sequences.time_us is None else sequences.time_us[stop],
    )


def moments_at(sequences: Sequences, user_ids: Sequence[Any], time_us: Sequence[int] | np.ndarray) -> Moments:
    """Return the moments of these users at these times: events at or after the time are not in the history.

    Args:
        time_us: microseconds since 1970.

    Raises:
        ConfigError: the log is order-only, there is not one time for each user, or times are no microseconds.
        UnknownIdError: a user is not in the log.
    """
    if sequences.time_us is None:
        raise ConfigError("an order-only log has no moments in time. Use latest_moments(sequences).")
    check_list("user_ids", user_ids)
    moments = _microseconds(time_us, sequences.time_us)
    users = sequences.vocab.users.require_idx(user_ids).astype(np.int32)
    if users.shape != moments.shape:
        raise ConfigError(f"moments_at needs one time for each user. Got {users.size} users and {moments.size} times.")
    start, end = sequences.offsets[users], sequences.offsets[users + 1]
    stop = first_not_before(sequences.time_us, start, end, moments)
    return Moments(sequences=sequences, user_idx=users, start=start, stop=stop, target_stop=stop, time_us=moments)


def _microseconds(asked: Sequence[int] | np.ndarray, of_log: np.ndarray) -> np.ndarray:
    found = np.asarray(asked)
    if len(found) and found.dtype.kind not in "iu":
        raise ConfigError(
            f"moments_at needs times in microseconds since 1970, as whole numbers. Got {found[:1].tolist()}."
        )
    if len(found) and len(of_log) and 0 < found.max() < of_log.min():
        for size, unit in ((1_000_000, "seconds"), (1_000, "milliseconds")):
            if of_log.min() <= int(found.max()) * size <= of_log.max():
                raise ConfigError(
                    f"moments_at needs times in microseconds since 1970. {found.max()} is before all of the log, and "
                    f"within it if it counts {unit}."
                )
    return found.astype(np.int64)


def now_and_before(sequences: Sequences, user_idx: np.ndarray, span_us: int) -> tuple[Moments, Moments]:
    """Return the moments of these users' latest events, which they have read, and those this long before them.

    Raises:
        ConfigError: the log is order-only, or a user has no event before the earlier moment.
    """
    latest, times = latest_moments(sequences, user_idx), sequences.time_us
    if times is None:
        raise ConfigError("an order-only log does not say what was known a while before: it has no times.")
    user_ids = sequences.vocab.users.to_ids(latest.user_idx).to_pylist()
    for user_id, start, stop in zip(user_ids, latest.start, latest.stop, strict=True):
        if start == stop or times[start] >= times[stop - 1] - span_us:
            known = f"events from {iso(times[start])} to {iso(times[stop - 1])}" if start < stop else "no events at all"
            raise ConfigError(
                f"user {user_id!r} has {known}: nothing to read at a moment that long before the latest. Go back less."
            )
    now = replace(latest, time_us=times[latest.stop - 1])
    return now, moments_at(sequences, user_ids, times[latest.stop - 1] - span_us)


def first_not_before(times: np.ndarray, start: np.ndarray, end: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Return the first place in each `start:end` whose time is not before the moment; one bisection for all."""
    low, high = start.copy(), end.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        before = open_ & (times[np.minimum(middle, len(times) - 1)] < moments)
        low = np.where(before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    return low


def moments_of(sequences: Sequences, user_ids: Sequence[Any]) -> Moments:
    """Return the latest moment of each of these users; one who is not in the log has an empty history."""
    check_list("user_ids", user_ids)
    found = sequences.vocab.users.to_idx(user_ids)
    new = [user for user, idx in zip(user_ids, found, strict=True) if idx == UNKNOWN]
    if new:
        sequences = sequences.with_users(new)
        found = sequences.vocab.users.to_idx(user_ids)
    return latest_moments(sequences, found)
