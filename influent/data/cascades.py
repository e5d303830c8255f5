"""Events become cascades: an item and the users who acted on it, each once, in order of time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa

from influent.data.clock import iso
from influent.data.events import Events
from influent.data.sequences import Sequences, build_sequences
from influent.data.vocab import Ids
from influent.errors import ConfigError, DataError
from influent.settings import check_type


@dataclass(frozen=True, kw_only=True, eq=False)
class Cascades:
    """Who acted on each item, the first act of each user only, in order of time.

    Shapes: E acts, C cascades, U users. The acts of cascade `c` lie at `offsets[c]:offsets[c + 1]`. Acts of a cascade
    at the very same time have no order: neither is earlier than the other, wherever they stand.
    """

    users: Ids
    items: Ids
    offsets: np.ndarray
    """int64 (C + 1,)"""
    event_id: np.ndarray
    """int64 (E,): the row of the log"""
    user_idx: np.ndarray
    """int32 (E,)"""
    time_us: np.ndarray
    """int64 (E,): microseconds since 1970, UTC, or since any moment that is the same for all"""
    n_repeats: int = 0
    """How many events were dropped because their user had acted on the item before"""
    n_unknown: int = 0
    """How many events were dropped because the vocabulary does not hold their item"""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_users(self) -> int:
        """Return the number of users, those who never act included."""
        return len(self.users)

    @cached_property
    def cascade_idx(self) -> np.ndarray:
        """Return the cascade of each act, int64 (E,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def n_before(self) -> np.ndarray:
        """Return how many acts of the same cascade are strictly earlier than each, int64 (E,)."""
        is_first = np.ones(len(self.time_us), bool)
        same_cascade = self.cascade_idx[1:] == self.cascade_idx[:-1]
        is_first[1:] = ~(same_cascade & (self.time_us[1:] == self.time_us[:-1]))
        first = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
        return np.asarray(first - self.offsets[self.cascade_idx])

    @cached_property
    def start_us(self) -> np.ndarray:
        """Return the time of each cascade's first act, int64 (C,)."""
        return np.asarray(self.time_us[self.offsets[:-1]])

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of the ids, the acts and their times; ties and rows of the log are in it as they stand."""
        digest = hashlib.sha256()
        for ids in (self.users, self.items):
            digest.update(repr(ids.ids.cast(pa.string()).to_pylist()).encode())
        for column in (self.offsets, self.user_idx, self.time_us):
            digest.update(np.ascontiguousarray(column, np.int64).tobytes())
        return digest.hexdigest()[:12]

    def history(self, place: int) -> np.ndarray:
        """Return the places of the acts of the same cascade that are strictly earlier than the act at `place`."""
        start = self.offsets[self.cascade_idx[place]]
        return np.arange(start, start + self.n_before[place])

    def summary(self) -> str:
        """Return in one sentence what is here and what was dropped."""
        single = int((np.diff(self.offsets) == 1).sum())
        return (
            f"{len(self):,} cascades ({single:,} of one act), {len(self.user_idx):,} acts of {self.n_users:,} users; "
            f"dropped: {self.n_repeats:,} repeated acts, {self.n_unknown:,} of unknown items"
        )


def build_cascades(source: Sequences | Events, *, ties: Literal["unordered", "log"] = "unordered") -> Cascades:
    """Put the users of each item in order of time; only the first act of each user on an item counts.

    Items without events are left out. A cascade of one act is kept: it says who is active, and asks for no prediction.

    Args:
        ties: what acts at the very same time are to each other: by default neither is earlier. With `log` the one
            that stands first in the log is, by a microsecond: a clock of whole seconds hides much order that a log
            kept, but a log that was sorted afterwards has an order that says nothing, or tells who came next.

    Raises:
        ConfigError: `ties` is neither.
        DataError: the log has no times, or no item has two users.

    Example:
        >>> from influent.data.events import read_events
        >>> log = {"user_id": ["ann", "bob", "ann"], "item_id": ["song"] * 3, "time": [5, 7, 9]}
        >>> cascades = build_cascades(read_events(pa.table(log)))
        >>> cascades.users.to_ids(cascades.user_idx).to_pylist()
        ['ann', 'bob']
        >>> cascades.n_repeats
        1
    """
    check_type("source", source, (Sequences, Events), "read_events(...)")
    if ties not in ("unordered", "log"):
        raise ConfigError(f"The 'ties' parameter of build_cascades must be 'unordered' or 'log'. Got {ties!r}.")
    sequences = build_sequences(source) if isinstance(source, Events) else source
    if sequences.time_us is None:
        raise DataError(
            "an order-only log does not say who acted before whom, so no direction can be learned from it. "
            "Name the column of times: read_events(..., time='ts')."
        )
    is_known = sequences.item_idx >= 0
    item, user = sequences.item_idx[is_known], sequences.user_idx[is_known]
    time_us, event_id = sequences.time_us[is_known], sequences.event_id[is_known]
    if ties == "log":
        time_us = _told_apart(time_us, event_id)
    order = np.lexsort((event_id, time_us, item))
    _, first = np.unique(item[order].astype(np.int64) * sequences.n_users + user[order], return_index=True)
    kept = order[np.sort(first)]
    items, counts = np.unique(item[kept], return_counts=True)
    if counts.max(initial=0) < 2:
        raise DataError(
            f"none of the {len(counts):,} items has two users, so nobody acts after anybody. "
            "Use more data, or another column as the item."
        )
    return Cascades(
        users=sequences.vocab.users,
        items=Ids(sequences.vocab.items.kind, sequences.vocab.items.to_ids(items)),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        event_id=event_id[kept],
        user_idx=user[kept],
        time_us=time_us[kept],
        n_repeats=len(order) - len(kept),
        n_unknown=int((~is_known).sum()),
    )


def _told_apart(time_us: np.ndarray, event_id: np.ndarray) -> np.ndarray:
    """Return times of which no two are equal: each a microsecond behind the one before it at the least, int64 (E,)."""
    order, place = np.lexsort((event_id, time_us)), np.arange(len(time_us))
    found = np.empty_like(time_us)
    found[order] = np.maximum.accumulate(time_us[order] - place) + place
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class NextActs:
    """Acts whose user is to be predicted, each from what was strictly earlier, in its own cascade and all others."""

    cascades: Cascades
    place: np.ndarray
    """int64 (N,), ascending: where the acts stand"""
    begin_us: int
    """When the first of the cascades begins that these acts are of"""

    def __len__(self) -> int:
        return len(self.place)

    @property
    def time_us(self) -> np.ndarray:
        """Return the moment of each prediction, int64 (N,): that of the act itself, which is not known yet."""
        return np.asarray(self.cascades.time_us[self.place])

    @property
    def user_idx(self) -> np.ndarray:
        """Return who acted, int32 (N,)."""
        return np.asarray(self.cascades.user_idx[self.place])

    @property
    def cascade_idx(self) -> np.ndarray:
        """Return the cascade of each, int64 (N,)."""
        return np.asarray(self.cascades.cascade_idx[self.place])

    def take(self, rows: np.ndarray) -> NextActs:
        """Return these of the acts, int (M,), in ascending order."""
        return NextActs(cascades=self.cascades, place=self.place[np.sort(rows)], begin_us=self.begin_us)


@dataclass(frozen=True, kw_only=True, eq=False)
class CascadeSplit:
    """Acts to learn from, to choose settings by, and to be judged by; unpacks to these three.

    Cascades go on while later ones begin. So training acts end where validation begins, and validation acts where the
    test begins, whatever cascade they are of; what a model reads before a moment is not cut.
    """

    protocol: str
    """In words, for reports."""
    train: NextActs
    validation: NextActs
    test: NextActs
    train_and_validation: NextActs
    """All that had happened before the test begins; to refit on, once the settings are chosen"""
    overlap: str
    """In words: how much of the earlier cascades lies in the test's time, and what taking them whole would do"""

    def __iter__(self) -> Iterator[NextActs]:
        yield from (self.train, self.validation, self.test)

    @cached_property
    def hash(self) -> str:
        """Return a hash of every act and of which are in which part."""
        digest = hashlib.sha256(self.test.cascades.fingerprint.encode())
        for part in self:
            digest.update(np.ascontiguousarray(part.place, np.int64).tobytes())
            digest.update(b"|")
        return digest.hexdigest()[:12]


def split_cascades(cascades: Cascades, *, test: float = 0.1, validation: float = 0.1) -> CascadeSplit:
    """Split by when cascades begin: the last share of them is for test, the share before it for validation.

    Every act of a cascade but its first is to be predicted; an act at the same time as the first is too, from an
    empty cascade.

    Raises:
        ConfigError: a share is not between 0 and 1, or both leave nothing to learn from.
        DataError: a part has nothing to predict.
    """
    for name, share in (("test", test), ("validation", validation)):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ConfigError(f"The {name!r} parameter of split_cascades must be between 0 and 1. Got {share!r}.")
    if test + validation >= 1:
        raise ConfigError(f"test and validation take {test + validation:.0%} of the cascades. Leave some to train on.")
    check_type("cascades", cascades, Cascades, "build_cascades(events)")
    order = np.argsort(cascades.start_us, kind="stable")
    n_test, n_validation = max(round(test * len(order)), 1), max(round(validation * len(order)), 1)
    if n_test + n_validation >= len(order):
        raise DataError(f"{len(order):,} cascades cannot be split in three. Use more data.")
    of_test, of_validation = order[-n_test:], order[-n_test - n_validation : -n_test]
    of_train = order[: -n_test - n_validation]
    test_us, validation_us = int(cascades.start_us[of_test[0]]), int(cascades.start_us[of_validation[0]])
    return CascadeSplit(
        protocol=(
            f"by start of cascades: {len(of_train):,} to learn from, {n_validation:,} for validation from "
            f"{iso(validation_us)}, {n_test:,} for test from {iso(test_us)}; every act but a cascade's first is "
            "predicted from strictly earlier ones"
        ),
        train=_acts_of("train", cascades, of_train, validation_us),
        validation=_acts_of("validation", cascades, of_validation, test_us),
        test=_acts_of("test", cascades, of_test, None),
        train_and_validation=_acts_of("train", cascades, np.concatenate([of_train, of_validation]), test_us),
        overlap=_overlap(cascades, np.concatenate([of_train, of_validation]), test_us),
    )


def _overlap(cascades: Cascades, earlier: np.ndarray, test_us: int) -> str:
    is_late = np.zeros(len(cascades), bool)
    is_late[earlier] = True
    late = cascades.cascade_idx[is_late[cascades.cascade_idx] & (cascades.time_us >= test_us)]
    if len(late) == 0:
        return f"None of the {len(earlier):,} earlier cascades goes on in the test's time."
    n_cascades = len(np.unique(late))
    return (
        f"{n_cascades:,} of the {len(earlier):,} earlier cascades go on in the test's time, with {len(late):,} acts. "
        "These are read once they are past, and never learned from: a model that is given earlier cascades whole knows "
        "who acts in the test's time, and looks better than it is."
    )


def _acts_of(part: str, cascades: Cascades, wanted: np.ndarray, end_us: int | None) -> NextActs:
    is_wanted = np.zeros(len(cascades), bool)
    is_wanted[wanted] = True
    is_target = is_wanted[cascades.cascade_idx]
    is_target[cascades.offsets[:-1]] = False
    if end_us is not None:
        is_target &= cascades.time_us < end_us
    if not is_target.any():
        raise DataError(
            f"no cascade of {part} has a second act in its time, so nothing can be predicted there. "
            "Use more data, or larger shares."
        )
    begin_us = int(cascades.start_us[wanted].min())
    return NextActs(cascades=cascades, place=np.flatnonzero(is_target), begin_us=begin_us)
