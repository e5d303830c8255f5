"""Training sequences to decayed transition counts: how often one item came soon after another.

C[a, b] is the sum of `decay^(w − 1)` over all pairs of events of one user in which a stands w ≤ `window` places
before b, plus `reverse` times the same with a and b exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

from influent.data.sequences import Sequences

SparseMatrix: TypeAlias = Any
"""A `scipy.sparse.csr_array`; SciPy ships no types."""


@dataclass(frozen=True, kw_only=True)
class PairDecay:
    """How much a pair of events counts, by its distance."""

    window: int = 20
    """Largest distance of a pair, in events."""
    decay: float = 0.9
    """How much less each further step counts."""
    reverse: float = 0.5
    """How much a pair counts against its order."""

    def weight(self, distance: np.ndarray) -> np.ndarray:
        """Return the weight of a pair whose second event stands `distance` places after the first."""
        steps = np.abs(distance)
        counted = np.where((steps >= 1) & (steps <= self.window), self.decay ** (steps - 1.0), 0.0)
        return np.where(distance > 0, counted, self.reverse * counted)


def count_transitions(train: Sequences, pairs: PairDecay) -> SparseMatrix:
    """Return C, sparse (n_items, n_items)."""
    n_items = train.vocab.n_items
    total = sparse.csr_array((n_items, n_items), dtype=np.float64)
    item, user = train.item_idx, train.user_idx
    for distance in range(1, min(pairs.window, len(train) - 1) + 1):
        before, after = item[:-distance], item[distance:]
        together = (user[:-distance] == user[distance:]) & (before >= 0) & (after >= 0)
        weight = np.full(int(together.sum()), pairs.decay ** (distance - 1))
        total = total + sparse.csr_array((weight, (before[together], after[together])), shape=total.shape)
    return sparse.csr_array(total + pairs.reverse * total.T if pairs.reverse else total)


def scaling_of(counts: SparseMatrix, train: Sequences, popularity_power: float) -> tuple[np.ndarray, np.ndarray]:
    """Return factors of rows and columns: columns by popularity^−power, then rows by the root of their sum."""
    column = np.maximum(train.item_counts(), 1.0) ** -popularity_power
    return 1 / np.sqrt(np.maximum(counts @ column, 1e-12)), column


@dataclass(frozen=True, kw_only=True, eq=False)
class TransitionTable:
    """T: the largest entries of each row, and how counts were scaled: T[a, b] = C[a, b] · row[a] · column[b]."""

    pairs: PairDecay
    item_IJ: np.ndarray
    """int64: which item an entry is of; 0 where the row has fewer"""
    value_IJ: np.ndarray
    """float32; 0 where the row has fewer"""
    row_I: np.ndarray
    column_I: np.ndarray

    @classmethod
    def build(cls, train: Sequences, pairs: PairDecay, *, popularity_power: float, n_entries: int) -> TransitionTable:
        """Count the training sequences; divide columns by popularity, then rows by the root of their sum."""
        counts = count_transitions(train, pairs)
        row, column = scaling_of(counts, train, popularity_power)
        item, value = top_of_rows(counts * column[None, :], n_entries)
        value = (value * row[:, None]).astype(np.float32)
        return cls(pairs=pairs, item_IJ=item, value_IJ=value, row_I=row, column_I=column)

    @classmethod
    def empty(cls, n_items: int, n_entries: int) -> TransitionTable:
        """Return a table of the right shape, to load weights into."""
        item, value = np.zeros((n_items, n_entries), np.int64), np.zeros((n_items, n_entries), np.float32)
        return cls(pairs=PairDecay(), item_IJ=item, value_IJ=value, row_I=np.zeros(n_items), column_I=np.zeros(n_items))

    @cached_property
    def _keys(self) -> np.ndarray:
        """Return the pairs that have an entry, as sorted numbers `before · (I + 1) + after`."""
        keys = np.arange(len(self.item_IJ))[:, None] * (len(self.item_IJ) + 1) + self.item_IJ
        return np.sort(keys[self.value_IJ > 0])

    def own(self, train: Sequences) -> OwnTransitions:
        """Return what each user put into the table, over the user's whole sequence."""
        users_at = np.searchsorted(train.offsets, np.arange(0, len(train), _EVENTS_AT_A_TIME))
        cuts = np.unique(np.concatenate([users_at, [train.n_users]]))
        blocks = [self._own_of(train, first, last) for first, last in zip(cuts[:-1], cuts[1:], strict=True)]
        n_rows = np.cumsum([0, *(len(block.offsets) - 1 for block in blocks)])
        lengths = [np.diff(block.offsets) for block in blocks]
        return OwnTransitions(
            row_E=np.concatenate([block.row_E + n for block, n in zip(blocks, n_rows, strict=False)]),
            offsets=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
            item=np.concatenate([block.item for block in blocks]),
            value=np.concatenate([block.value for block in blocks]),
        )

    def _own_of(self, train: Sequences, first_user: int, last_user: int) -> OwnTransitions:
        n_items = len(self.item_IJ)
        place = slice(train.offsets[first_user], train.offsets[last_user])
        owner = train.user_idx[place].astype(np.int64) - first_user
        item = np.where(train.item_idx[place] >= 0, train.item_idx[place], n_items).astype(np.int64)
        row_key, row = np.unique(owner * (n_items + 1) + item, return_inverse=True)
        of_row, after, weight = self._pairs_within(owner, item, row)
        before = row_key[of_row] % (n_items + 1)
        # What the table does not hold, because it was too small or is of an unknown item, needs no taking out.
        asked = before * (n_items + 1) + after
        keys = self._keys if len(self._keys) else np.array([-1])
        held = keys[np.minimum(np.searchsorted(keys, asked), len(keys) - 1)] == asked
        entry, where = np.unique(of_row[held] * (n_items + 1) + after[held], return_inverse=True)
        count = np.bincount(where, weights=weight[held], minlength=len(entry))
        entry_row, entry_item = np.divmod(entry, n_items + 1)
        value = count * self.row_I[row_key[entry_row] % (n_items + 1)] * self.column_I[entry_item]
        return OwnTransitions(
            row_E=row,
            offsets=np.concatenate([[0], np.cumsum(np.bincount(entry_row, minlength=len(row_key)))]),
            item=entry_item.astype(np.int32),
            value=value.astype(np.float32),
        )

    def _pairs_within(
        self, owner: np.ndarray, item: np.ndarray, row: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return row, item that came after, and weight of all pairs within the window, both ways round."""
        rows, items, weights = [], [], []
        for distance in range(1, min(self.pairs.window, len(item) - 1) + 1):
            together = owner[:-distance] == owner[distance:]
            ahead, back = self.pairs.weight(np.array([distance, -distance])).tolist()
            rows += [row[:-distance][together], row[distance:][together]]
            items += [item[distance:][together], item[:-distance][together]]
            n = int(together.sum())
            weights += [np.full(n, ahead), np.full(n, back)]
        none = np.zeros(0, np.int64)
        return np.concatenate([none, *rows]), np.concatenate([none, *items]), np.concatenate([np.zeros(0), *weights])


_EVENTS_AT_A_TIME = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnTransitions:
    """What users put into a table themselves, to be taken out while training on them: a row per user and item."""

    row_E: np.ndarray
    """int64 (E,): the row of each training event"""
    offsets: np.ndarray
    """int64 (R + 1,): where the entries of each row lie"""
    item: np.ndarray
    """int32: which item an entry is of"""
    value: np.ndarray
    """float32"""

    def rows(self, place_BT: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the rows of these events as a small padded table: row (B, T), item (R, J) and value (R, J)."""
        rows, row_BT = np.unique(self.row_E[place_BT], return_inverse=True)
        start, length = self.offsets[rows], np.diff(self.offsets)[rows]
        steps = np.arange(max(int(length.max(initial=0)), 1))
        exists = steps < length[:, None]
        place = np.where(exists, start[:, None] + steps, 0)
        if len(self.item) == 0:
            return row_BT, np.zeros(place.shape, np.int64), np.zeros(place.shape, np.float32)
        item, value = np.where(exists, self.item[place], 0), np.where(exists, self.value[place], 0.0)
        return row_BT, item.astype(np.int64), value.astype(np.float32)


def top_of_rows(matrix: SparseMatrix, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return column and value of the n largest entries of each row, (rows, J), 0 where a row has fewer.

    J is the most that any row has, at most n and at least 1. Ties keep the smaller column.
    """
    matrix = sparse.csr_array(matrix)
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    place = np.arange(len(order)) - matrix.indptr[row[order]]
    order, place = order[place < n], place[place < n]
    width = int(place.max(initial=0)) + 1
    columns = np.zeros((matrix.shape[0], width), np.int64)
    values = np.zeros((matrix.shape[0], width))
    columns[row[order], place], values[row[order], place] = matrix.indices[order], matrix.data[order]
    return columns, values
