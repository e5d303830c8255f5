"""Who may be moved by whom: directed ties, given as edges or read off a log, and the co-actions along them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from influent import schema
from influent.data.clock import span_us
from influent.data.sequences import Sequences
from influent.data.vocab import UNKNOWN, Ids
from influent.errors import ConfigError, DataError
from influent.settings import check_int, check_type

_ALWAYS = np.iinfo(np.int64).min
"""Since when a tie is that has always been, among ties with times"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ties:
    """Directed ties, in order of target, then source: each pair once, none to oneself.

    Shapes: L ties.
    """

    users: Ids
    source: np.ndarray
    """int64 (L,): the user whose events may move the target"""
    target: np.ndarray
    """int64 (L,)"""
    since_us: np.ndarray | None = None
    """int64 (L,): events of the source before this time do not count; None where ties have always been"""
    are_given: bool = True
    """Whether somebody said so; False where they were read off what people did, so that most of them mean nothing"""
    dropped: dict[str, int] = field(default_factory=dict)
    """How many edges were left out, by reason"""

    def __len__(self) -> int:
        return len(self.source)

    def sentences(self) -> list[str]:
        """Return what was left out of the edges that were given, if anything was."""
        return [f"Edges that were left out: {_in_words(self.dropped)}."] if self.dropped else []

    def find(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Return the place of each of these pairs among the ties, −1 where there is none; int64."""
        n = len(self.users)
        keys = self.target * n + self.source
        asked = target.astype(np.int64) * n + source
        if len(keys) == 0:
            return np.full(len(asked), -1)
        place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
        # Who came after the ties has none; their index would stand for another pair.
        return np.where((keys[place] == asked) & (source < n) & (target < n), place, -1)

    def of_targets(self) -> np.ndarray:
        """Return where the ties into each user begin, int64 (n_users + 1,)."""
        return np.searchsorted(self.target, np.arange(len(self.users) + 1))

    def to_table(self) -> pa.Table:
        """Return `source_user_id`, `target_user_id`, `time_us` (null where a tie has always been)."""
        since = pa.nulls(len(self), pa.int64())
        if self.since_us is not None:
            since = pa.array(self.since_us, mask=self.since_us == _ALWAYS)
        return pa.table(
            {
                schema.SOURCE_USER_ID: self.users.to_ids(self.source),
                schema.TARGET_USER_ID: self.users.to_ids(self.target),
                schema.TIME_US: since,
            }
        )


def build_ties(edges: pa.Table, sequences: Sequences) -> Ties:
    """Return the edges that `read_edges` read as ties among the users of a log.

    A tie of a person to themself, an edge of somebody without events, and all but the earliest of equal edges are left
    out and counted. An edge without a time has always been.

    Raises:
        ConfigError: an argument is something else than these functions return.
        DataError: no edge is left.

    Example:
        Of the edges a→b, a→b, b→b and a→nobody, the tie a→b is left, and three are counted in `dropped`.
    """
    check_type("edges", edges, pa.Table, "read_edges(...)")
    check_type("sequences", sequences, Sequences, "build_sequences(events)")
    users = sequences.vocab.users
    source, target = (users.to_idx(edges.column(name)) for name in (schema.SOURCE_USER_ID, schema.TARGET_USER_ID))
    times = edges.column(schema.TIME_US)
    since = None if times.null_count == len(times) else times.fill_null(_ALWAYS).to_numpy()
    has_events = np.diff(sequences.offsets) > 0
    known = (source != UNKNOWN) & (target != UNKNOWN)
    known[known] &= has_events[source[known]] & has_events[target[known]]
    to_self = known & (source == target)
    kept = np.flatnonzero(known & ~to_self)
    key = target[kept] * len(users) + source[kept]
    # The earliest of equal pairs stands first, and `unique` keeps the first.
    order = np.lexsort((kept if since is None else since[kept], key))
    key, first = np.unique(key[order], return_index=True)
    kept = kept[order][first]
    dropped = {
        "of somebody without events": int((~known).sum()),
        "to oneself": int(to_self.sum()),
        "given more than once": int(known.sum() - to_self.sum() - len(kept)),
    }
    if len(kept) == 0:
        raise DataError(
            f"none of {edges.num_rows:,} edges ties two users of this log: {_in_words(dropped)}. "
            "Are the ids of both written alike?"
        )
    return Ties(
        users=users,
        source=source[kept],
        target=target[kept],
        since_us=None if since is None else since[kept],
        dropped={reason: n for reason, n in dropped.items() if n},
    )


def co_acting(sequences: Sequences, *, window: str = "7d", reach: int = 50) -> Ties:
    """Return a tie for each two users of whom the target acted on an item after the source, within the window.

    No other pair is looked at, so the work grows with co-actions and never with users times users.

    Args:
        reach: how many earlier events on an item are looked at, the latest ones.

    Raises:
        ConfigError: the log is order-only, where nobody can be said to have come first, or an argument is out of range.
        DataError: nobody acted on an item after somebody else within the window.
    """
    event, source = _pairs_on_an_item(sequences, span_us(window), reach)
    user = sequences.user_idx.astype(np.int64)
    n_users = len(sequences.vocab.users)
    key = np.unique(user[event] * n_users + user[source])
    if len(key) == 0:
        raise DataError(f"nobody acted on an item after somebody else within {window}. Widen the window.")
    return Ties(users=sequences.vocab.users, source=key % n_users, target=key // n_users, are_given=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class CoActions:
    """An event and an earlier one on the same item by somebody whom its user is tied to.

    Shapes: P pairs, in order of `event`.
    """

    event: np.ndarray
    """int64 (P,): the place of the later event in the sequences"""
    source: np.ndarray
    """int64 (P,): the place of the earlier one"""
    tie: np.ndarray
    """int64 (P,)"""
    gap_us: np.ndarray
    """int64 (P,), above 0: two events at one time have no direction"""

    def __len__(self) -> int:
        return len(self.event)


def find_co_actions(sequences: Sequences, ties: Ties, *, window: str = "7d", reach: int = 50) -> CoActions:
    """Return the co-actions along ties within the window.

    Args:
        reach: how many earlier events on an item are looked at, the latest ones.

    Raises:
        ConfigError: the log is order-only, or an argument is out of range.
    """
    event, source = _pairs_on_an_item(sequences, span_us(window), reach)
    assert sequences.time_us is not None
    user = sequences.user_idx
    tie = ties.find(user[source], user[event])
    kept = tie >= 0
    if ties.since_us is not None:
        kept[kept] &= sequences.time_us[source[kept]] >= ties.since_us[tie[kept]]
    order = np.flatnonzero(kept)[np.argsort(event[kept], kind="stable")]
    event, source = event[order], source[order]
    gap_us = sequences.time_us[event] - sequences.time_us[source]
    return CoActions(event=event, source=source, tie=tie[order], gap_us=gap_us)


def _pairs_on_an_item(sequences: Sequences, window_us: int, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of events and of earlier ones on the same item by others, within window and reach."""
    check_int("reach", reach, 1)
    times = sequences.time_us
    if times is None:
        raise ConfigError("this log is order-only: it does not say who acted first, so nobody can be said to have led.")
    known = np.flatnonzero(sequences.item_idx >= 0)
    order = known[np.lexsort((times[known], sequences.item_idx[known]))]
    item, time, user = sequences.item_idx[order], times[order], sequences.user_idx[order]
    events, sources = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for distance in range(1, min(reach, len(order) - 1) + 1):
        gap = time[distance:] - time[:-distance]
        near = (item[distance:] == item[:-distance]) & (gap <= window_us)
        if not near.any():
            break
        found = np.flatnonzero(near & (gap > 0) & (user[distance:] != user[:-distance]))
        events.append(order[found + distance])
        sources.append(order[found])
    return np.concatenate(events), np.concatenate(sources)


def _in_words(dropped: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {reason}" for reason, n in dropped.items() if n) or "there are none"
