"""Flat sequences to padded tensors: windows to train on, histories to predict from.

Shapes: B batch, Q questions (moments to predict at), T events, F numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from influent.data.moments import Moments
from influent.data.scaling import Scaling
from influent.data.sequences import Sequences
from influent.models.lookup import Lookup
from influent.models.transitions import TransitionTable


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The events of B histories, and how far each lies from each of the Q moments asked about."""

    item_BT: Tensor
    """int64; `n_items` where the item is unknown or there is no event"""
    action_BT: Tensor
    """int64; `n_actions` where unknown"""
    numbers_BTF: Tensor
    lag_BQT: Tensor
    """int64: events back from the moment, 1 is the latest; 0 or less where the event is not before it"""
    gap_BQT: Tensor | None
    """float32 seconds, never negative; None without times"""
    mask_BQT: Tensor
    """bool: the event exists and lies before the moment"""
    context_BC: Tensor
    """int64 codes of the context columns; a column's number of values where unknown"""
    target_BQ: Tensor
    """int64: the item that came next; −1 where none is to be learned"""
    own: Lookup | None = None
    """In training a counted part: what each event's user put into the transitions from its item, row (B, T)"""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if value is not None}
        return replace(self, **moved)


@dataclass(frozen=True)
class Windows:
    """Stretches of training sequences: `start:stop` is read, `first_target:stop` is predicted.

    Each event of the log is predicted exactly once an epoch, the first of a user from an empty history.
    """

    start: np.ndarray
    stop: np.ndarray
    first_target: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def n_batches(self, batch_size: int) -> int:
        """Return how many batches an epoch has."""
        return -(-len(self) // batch_size)

    def batches(self, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Return shuffled batches of windows; those of like length lie together, so that little is padding."""
        order = rng.permutation(len(self))
        lengths = self.stop - self.start
        pool = 32 * batch_size
        batches = []
        for first in range(0, len(order), pool):
            some = order[first : first + pool]
            some = some[np.argsort(lengths[some], kind="stable")]
            batches += [some[i : i + batch_size] for i in range(0, len(some), batch_size)]
        for place in rng.permutation(len(batches)):
            yield batches[place]


def training_windows(train: Sequences, max_len: int) -> Windows:
    """Cut each user's sequence into windows of up to `max_len + 1` events, each later one half new.

    Every target but those of a user's first window then has at least half of `max_len` events before it.
    """
    step = max(max_len // 2, 1)
    width = max_len + 1
    begin, end = train.offsets[:-1], train.offsets[1:]
    length = end - begin
    n_windows = np.where(length > 0, 1 + np.maximum(-(-(length - width) // step), 0), 0)
    owner = np.repeat(np.arange(train.n_users), n_windows)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)
    stop = np.minimum(begin[owner] + width + place * step, end[owner])
    start = np.maximum(stop - width, begin[owner])
    previous_stop = np.minimum(begin[owner] + width + (place - 1) * step, end[owner])
    return Windows(start, stop, np.where(place == 0, begin[owner], previous_stop))


class Batcher:
    """Turns places in flat sequences into tensors, with the numbers scaled and the context coded."""

    def __init__(
        self,
        *,
        n_items: int,
        n_actions: int,
        scaling: Scaling,
        context_UC: np.ndarray,
        n_values: tuple[int, ...],
        knows_moment: bool,
        table: TransitionTable | None,
    ) -> None:
        self._n_items, self._n_actions = n_items, n_actions
        self._scaling, self._context_UC, self._n_values = scaling, context_UC, n_values
        self._knows_moment, self._table = knows_moment, table

    def window_batch(self, train: Sequences, windows: Windows, rows: np.ndarray) -> Batch:
        """Return windows with a question at each of their events."""
        start, stop = windows.start[rows], windows.stop[rows]
        n_events = int((stop - start).max())
        steps = np.arange(n_events)
        place_BT = start[:, None] + steps
        exists_BT = place_BT < stop[:, None]
        place_BT = np.where(exists_BT, place_BT, start[:, None])
        target_BQ = np.where(
            exists_BT & (place_BT >= windows.first_target[rows][:, None]), train.item_idx[place_BT], -1
        )
        lag_QT = steps[:, None] - steps[None, :]
        # Windows of like length lie together, so a padded event is never before a target.
        before_BQT = (lag_QT > 0)[None] & exists_BT[:, None, :]
        times_BT = None if train.time_us is None else train.time_us[place_BT]
        asked_BQ = None
        if times_BT is not None:
            asked_BQ = times_BT if self._knows_moment else np.concatenate([times_BT[:, :1], times_BT[:, :-1]], axis=1)
        lag_BQT = np.broadcast_to(lag_QT, before_BQT.shape)
        user_B = train.user_idx[start]
        batch = self._batch(train, user_B, place_BT, exists_BT, lag_BQT, before_BQT, asked_BQ, target_BQ)
        if self._table is None:
            return batch
        own = self._table.own(train, user_B, place_BT)
        return replace(batch, own=Lookup(*map(torch.from_numpy, (own.row_BT, own.item_RJ, own.value_RJ))))

    def moment_batch(self, moments: Moments, max_len: int) -> Batch:
        """Return the last `max_len` events before each moment, one question each."""
        sequences = moments.sequences
        length = np.minimum(moments.stop - moments.start, max_len)
        n_events = max(int(length.max(initial=0)), 1)
        lag_BT = np.broadcast_to(np.arange(n_events, 0, -1), (len(moments), n_events))
        exists_BT = lag_BT <= length[:, None]
        place_BT = np.where(exists_BT, moments.stop[:, None] - lag_BT, 0)
        asked_BQ = None
        if sequences.time_us is not None:
            latest = sequences.time_us[np.maximum(moments.stop - 1, 0)]
            known = self._knows_moment and moments.time_us is not None
            asked_BQ = (moments.time_us if known else latest)[:, None]  # type: ignore[index]
        none_BQ = np.full((len(moments), 1), -1)
        exists_BQT, lag_BQT = exists_BT[:, None, :], lag_BT[:, None, :]
        return self._batch(sequences, moments.user_idx, place_BT, exists_BT, lag_BQT, exists_BQT, asked_BQ, none_BQ)

    def _batch(
        self,
        sequences: Sequences,
        user_B: np.ndarray,
        place_BT: np.ndarray,
        exists_BT: np.ndarray,
        lag_BQT: np.ndarray,
        mask_BQT: np.ndarray,
        asked_BQ: np.ndarray | None,
        target_BQ: np.ndarray,
    ) -> Batch:
        if len(sequences):
            item_BT, action_BT = sequences.item_idx[place_BT], sequences.action_idx[place_BT]
            numbers_BTF = self._scaling.apply(sequences.numbers[place_BT])
        else:
            item_BT, action_BT = np.full(place_BT.shape, -1), np.full(place_BT.shape, -1)
            numbers_BTF = np.zeros((*place_BT.shape, sequences.numbers.shape[1]), np.float32)
        gap_BQT = None
        if asked_BQ is not None and sequences.time_us is not None and len(sequences):
            gap_us = asked_BQ[:, :, None] - sequences.time_us[place_BT][:, None, :]
            gap_BQT = torch.from_numpy((np.maximum(gap_us, 0) / 1e6).astype(np.float32))
        return Batch(
            item_BT=_codes(item_BT, exists_BT, self._n_items),
            action_BT=_codes(action_BT, exists_BT, self._n_actions),
            numbers_BTF=torch.from_numpy(numbers_BTF),
            lag_BQT=torch.tensor(lag_BQT),
            gap_BQT=gap_BQT,
            mask_BQT=torch.tensor(mask_BQT),
            context_BC=torch.from_numpy(self._context_of(user_B)),
            target_BQ=torch.from_numpy(target_BQ.astype(np.int64)),
        )

    def _context_of(self, user_B: np.ndarray) -> np.ndarray:
        unknown = np.broadcast_to(np.asarray(self._n_values, np.int64), (len(user_B), len(self._n_values)))
        is_known = user_B < len(self._context_UC)
        known = self._context_UC[np.where(is_known, user_B, 0)] if len(self._context_UC) else unknown
        return np.where(is_known[:, None], known, unknown).astype(np.int64)


def _codes(idx_BT: np.ndarray, exists_BT: np.ndarray, unknown: int) -> Tensor:
    return torch.from_numpy(np.where(exists_BT & (idx_BT >= 0), idx_BT, unknown).astype(np.int64))
