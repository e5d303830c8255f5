"""Training sequences to decayed transition counts: how often one item came soon after another.

C[a, b] is the sum of `decay^(w − 1)` over all pairs of events of one user in which a stands w ≤ `window` places
before b, plus `reverse` times the same with a and b exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
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
