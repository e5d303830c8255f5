"""Flat sequences to padded tensors: windows to train on, histories to predict from.

Shapes: B batch, Q questions (moments to predict at), T events, F numbers, K categories, C context columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from influent.data.labels import Labels
from influent.data.moments import Moments
from influent.data.scaling import Scaling
from influent.data.sequences import Sequences
from influent.data.vocab import UNKNOWN
from influent.models.context import ContextLines
from influent.models.lookup import Lookup
from influent.models.transitions import OwnTransitions


@dataclass(frozen=True)
class Answers:
    """What is asked of labels at a batch's moments, L questions of one name, with their answers."""

    name: str
    row_L: Tensor
    """int64: the row of the batch"""
    item_L: Tensor
    """int64: the item asked about; `n_items` where it is unknown or the question is about the user"""
    label_L: Tensor
    """float32; NaN where it is not known"""

    def to(self, device: torch.device) -> Answers:
        """Return the same on another device."""
        return Answers(self.name, self.row_L.to(device), self.item_L.to(device), self.label_L.to(device))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The events of B histories, oldest first with padding behind, and Q moments asked about in each."""

    item_BT: Tensor
    """int64; `n_items` where the item is unknown or there is no event"""
    action_BT: Tensor
    """int64; `n_actions` where unknown"""
    numbers_BTF: Tensor
    category_BTK: Tensor
    """int64 codes of the event's categories; a column's number of values where unknown or there is no event"""
    no_item: int
    """what stands for an unknown item"""
    no_action: int
    no_category_K: tuple[int, ...]
    before_BQ: Tensor
    """int64: how many of the row's events lie before the moment; they come first"""
    time_BT: Tensor | None
    """float64 seconds since the row's first event, never falling; None without times"""
    asked_BQ: Tensor | None
    """float64: the moment on the same clock; where it is not known, the time of the event before it"""
    context_BQC: Tensor
    """int64 codes of the context columns; a column's number of values where unknown"""
    target_BQ: Tensor
    """int64: the item that came next; −1 where none is to be learned"""
    next_gap_BQ: Tensor | None = None
    """float64 seconds from the event before the moment to the next; NaN where there is none of either"""
    answers: Answers | None = None
    """What is asked of labels at each row's only moment; the batch is then for nothing else"""
    own: Lookup | None = None
    """In training a counted part: what each event's user put into the transitions from its item, row (B, T)"""

    @cached_property
    def lag_BQT(self) -> Tensor:
        """Return how many events back from the moment each lies: 1 is the latest, 0 or less is not before it."""
        return self.before_BQ[..., None] - torch.arange(self.item_BT.shape[1], device=self.item_BT.device)

    @cached_property
    def mask_BQT(self) -> Tensor:
        """Return whether the event lies before the moment; padding never does."""
        return self.lag_BQT > 0

    @cached_property
    def gap_BQT(self) -> Tensor | None:
        """Return float32 seconds from the event to the moment, never negative; None without times."""
        if self.asked_BQ is None or self.time_BT is None:
            return None
        return (self.asked_BQ[..., None] - self.time_BT[:, None, :]).clamp_(min=0).float()

    def known_gaps(self) -> Tensor:
        """Return of which questions the time to the next event is known and to be learned, bool (B, Q)."""
        is_target = self.target_BQ >= 0
        return is_target & ~self.next_gap_BQ.isnan() if self.next_gap_BQ is not None else torch.zeros_like(is_target)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        if self.item_BT.device == device:
            return self
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if hasattr(value, "to")}
        return replace(self, **moved)

    def take(self, rows: Tensor) -> Batch:
        """Return the histories of these rows, as often as they come, without padding that none of them needs.

        Answers and the transitions of training users are of a batch as a whole, and not taken along.
        """
        width = max(int(self.before_BQ[rows].max()), 1)
        taken: dict[str, Any] = {"answers": None, "own": None}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                taken[field.name] = value[rows, :width] if field.name in _OF_EVENTS else value[rows]
        return replace(self, **taken)


_OF_EVENTS = ("item_BT", "action_BT", "numbers_BTF", "category_BTK", "time_BT")


@dataclass(frozen=True)
class Windows:
    """Stretches of training sequences: `start:stop` is read, `first_target:stop` is predicted.

    Each event of the log is predicted at most once an epoch, the first of a user from an empty history.
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
        """Return shuffled batches of windows; those of like length lie together, so that little is padding.

        First and later windows of long sequences stay mixed: a batch of later ones only is one of the busiest users
        only, and steps in their direction make training unsteady. Within a batch windows come by number of targets.
        """
        order = rng.permutation(len(self))
        n_targets, length = self.stop - self.first_target, self.stop - self.start
        pool = 32 * batch_size
        batches = []
        for first in range(0, len(order), pool):
            some = order[first : first + pool]
            some = some[np.argsort(length[some], kind="stable")]
            batches += [some[i : i + batch_size] for i in range(0, len(some), batch_size)]
        for place in rng.permutation(len(batches)):
            yield batches[place][np.argsort(n_targets[batches[place]], kind="stable")]


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
        n_categories: Sequence[int],
        scaling: Scaling,
        context: ContextLines,
        knows_moment: bool,
        target_actions: np.ndarray | None,
    ) -> None:
        self._n_items, self._n_actions, self._n_categories = n_items, n_actions, tuple(n_categories)
        self._scaling, self._context = scaling, context
        self._knows_moment, self._target_actions = knows_moment, target_actions

    def window_batch(
        self, train: Sequences, windows: Windows, rows: np.ndarray, own: OwnTransitions | None = None
    ) -> Batch:
        """Return windows with a question at each of their targets."""
        start, stop, first = windows.start[rows], windows.stop[rows], windows.first_target[rows]
        asked_BQ, is_asked_BQ = _stretch(first, stop)
        target_BQ = np.where(is_asked_BQ, train.item_idx[asked_BQ], -1)
        if self._target_actions is not None:
            target_BQ[~np.isin(train.action_idx[asked_BQ], self._target_actions)] = -1
        # The last event of a window is only ever a target.
        batch = self._batch(
            train,
            start,
            np.maximum(stop - 1, start),
            asked_BQ,
            target_BQ,
            knows_time=self._knows_moment,
            knows_next_BQ=np.full(asked_BQ.shape, self._knows_moment),
        )
        if own is None:
            return batch
        place_BT, _ = _stretch(start, np.maximum(stop - 1, start))
        return replace(batch, own=Lookup(*map(torch.from_numpy, own.rows(place_BT))))

    def label_batch(self, labels: Labels, max_len: int) -> Batch:
        """Return the last `max_len` events before each moment, and the questions asked there."""
        batch = self.moment_batch(labels.moments, max_len, of_labels=True)
        unknown = np.full(len(labels), self._n_items)
        item_L = unknown if labels.item_idx is None else np.where(labels.item_idx < 0, unknown, labels.item_idx)
        asked = labels.moment.astype(np.int64), item_L.astype(np.int64), labels.label.astype(np.float32)
        return replace(batch, answers=Answers(labels.name, *map(torch.from_numpy, asked)))

    def moment_batch(self, moments: Moments, max_len: int, *, of_labels: bool = False) -> Batch:
        """Return the last `max_len` events before each moment, one question each.

        Args:
            of_labels: whether a label is asked for. The moment's time is then known: it is we who ask, and nothing of
                the answer is in it. Of the event that comes next it may hold the answer, so nothing is read.
        """
        start = np.maximum(moments.start, moments.stop - max_len)
        knows_time = (of_labels or self._knows_moment) and moments.time_us is not None
        knows_next = (moments.target_stop > moments.stop) & (self._knows_moment and not of_labels)
        none_BQ = np.full((len(moments), 1), -1)
        return self._batch(
            moments.sequences,
            start,
            moments.stop,
            moments.stop[:, None],
            none_BQ,
            knows_time=knows_time,
            knows_next_BQ=knows_next[:, None],
            user_B=moments.user_idx,
            moment_us_BQ=moments.time_us[:, None] if knows_time else None,  # type: ignore[index]
        )

    def _batch(
        self,
        sequences: Sequences,
        start: np.ndarray,
        stop: np.ndarray,
        asked_BQ: np.ndarray,
        target_BQ: np.ndarray,
        *,
        knows_time: bool,
        knows_next_BQ: np.ndarray,
        user_B: np.ndarray | None = None,
        moment_us_BQ: np.ndarray | None = None,
    ) -> Batch:
        """Return the events at `start:stop` and questions right before the places `asked_BQ`.

        Args:
            knows_time: whether the questions' times are known.
            knows_next_BQ: whether the categories of the event at `asked_BQ` itself are.
        """
        place_BT, exists_BT = _stretch(start, stop)
        user_B = sequences.user_idx[start] if user_B is None else user_B
        if len(sequences):
            place_BT = np.minimum(place_BT, len(sequences) - 1)
            item_BT, action_BT = sequences.item_idx[place_BT], sequences.action_idx[place_BT]
            numbers_BTF = self._scaling.apply(sequences.numbers[place_BT])
            category_BTK = sequences.categories[place_BT]
        else:
            item_BT, action_BT = np.full(place_BT.shape, -1), np.full(place_BT.shape, -1)
            numbers_BTF = np.zeros((*place_BT.shape, sequences.numbers.shape[1]), np.float32)
            category_BTK = np.full((*place_BT.shape, sequences.categories.shape[1]), UNKNOWN)
        before_BQ = np.clip(asked_BQ - start[:, None], 0, (stop - start)[:, None])
        time_BT = asked_us_BQ = next_gap_BQ = None
        if sequences.time_us is not None and len(sequences):
            last_BQ = np.maximum(asked_BQ - 1, start[:, None])
            asked_us_BQ = sequences.time_us[np.minimum(last_BQ, len(sequences) - 1)]
            next_us_BQ = sequences.time_us[np.minimum(asked_BQ, len(sequences) - 1)]
            has_next_BQ = (before_BQ > 0) & (asked_BQ < sequences.offsets[user_B + 1][:, None])
            next_gap_BQ = np.where(has_next_BQ, (next_us_BQ - asked_us_BQ) / 1e6, np.nan)
            if knows_time:
                asked_us_BQ = sequences.time_us[asked_BQ] if moment_us_BQ is None else moment_us_BQ
            time_BT = sequences.time_us[place_BT]
        context_BQC = self._context.codes(
            user_B,
            asked_us_BQ,
            _categories_at(sequences, asked_BQ, knows_next_BQ, has_latest_BQ=before_BQ > 0),
            is_known_BQ=knows_time | (before_BQ > 0),
        )
        origin = 0 if time_BT is None else time_BT[:, :1]
        return Batch(
            item_BT=_codes(item_BT, exists_BT, self._n_items),
            action_BT=_codes(action_BT, exists_BT, self._n_actions),
            numbers_BTF=torch.from_numpy(numbers_BTF),
            category_BTK=_codes(category_BTK, exists_BT[..., None], self._n_categories),
            no_item=self._n_items,
            no_action=self._n_actions,
            no_category_K=self._n_categories,
            before_BQ=torch.from_numpy(before_BQ.astype(np.int64)),
            time_BT=None if time_BT is None else torch.from_numpy((time_BT - origin) / 1e6),
            asked_BQ=None if asked_us_BQ is None else torch.from_numpy((asked_us_BQ - origin) / 1e6),
            context_BQC=torch.from_numpy(context_BQC),
            target_BQ=torch.from_numpy(target_BQ.astype(np.int64)),
            next_gap_BQ=None if next_gap_BQ is None else torch.from_numpy(next_gap_BQ),
        )


def _stretch(start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places `start:stop` as padded rows (B, T ≥ 1), and which of them are not padding."""
    width = max(int((stop - start).max(initial=0)), 1)
    place = start[:, None] + np.arange(width)
    exists = place < stop[:, None]
    return np.where(exists, place, start[:, None]), exists


def _categories_at(
    sequences: Sequences, asked_BQ: np.ndarray, knows_next_BQ: np.ndarray, *, has_latest_BQ: np.ndarray
) -> np.ndarray:
    """Return the categories at questions, int (B, Q, K): of the next event where it is known, else of the latest."""
    if len(sequences) == 0:
        return np.full((*asked_BQ.shape, sequences.categories.shape[1]), UNKNOWN)
    is_known_BQ = knows_next_BQ | has_latest_BQ
    place_BQ = np.where(is_known_BQ, np.where(knows_next_BQ, asked_BQ, asked_BQ - 1), 0)
    return np.where(is_known_BQ[..., None], sequences.categories[place_BQ], UNKNOWN)


def _codes(idx_BT: np.ndarray, exists_BT: np.ndarray, unknown: int | tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.where(exists_BT & (idx_BT >= 0), idx_BT, unknown).astype(np.int64))
