"""A log to the bursts of its items: what everybody but the user did to an item, by how long ago it was.

Shapes: N moments, I items, G bins of the gap.
"""

from __future__ import annotations

import numpy as np

from influent.data.moments import ranges
from influent.data.sequences import Sequences


class Bursts:
    """How many events everybody but the user did to an item before a moment, by bins of the gap.

    Events at the moment itself are not before it.
    """

    def __init__(self, sequences: Sequences, edges_us: np.ndarray) -> None:
        assert sequences.time_us is not None
        self._n_items, self._edges_us = sequences.vocab.n_items, edges_us
        known = np.flatnonzero(sequences.item_idx >= 0)
        order = known[np.argsort(sequences.time_us[known], kind="stable")]
        self._time, self._item = sequences.time_us[order], sequences.item_idx[order].astype(np.int64)
        self._user = sequences.user_idx[order].astype(np.int64)
        # Places in time instead of times, so that an owner and a time fit into one number.
        self._times = np.unique(self._time)
        self._width = len(self._times) + 1
        self._of_item = self._sorted(self._item)
        self._of_both = self._sorted(self._user * self._n_items + self._item)

    def of_items(self, user_idx: np.ndarray, time_us: np.ndarray, item_idx: np.ndarray) -> np.ndarray:
        """Return the counts of one item at each moment, float32 (N, G)."""
        item = item_idx.astype(np.int64)
        both = user_idx.astype(np.int64) * self._n_items + item
        # How many events lie before each edge of the bins, counted back from the moment.
        before = [
            self._before(self._of_item, item, time_us - edge) - self._before(self._of_both, both, time_us - edge)
            for edge in self._edges_us
        ]
        return -np.diff(np.stack(before, axis=1), axis=1).astype(np.float32)

    def counts(self, user_idx: np.ndarray, time_us: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return moment, item and bin of every event before each moment, within the bins, by somebody else."""
        first = np.searchsorted(self._time, time_us - self._edges_us[-1])
        stop = np.searchsorted(self._time, time_us)
        owner, place = np.repeat(np.arange(len(time_us)), stop - first), ranges(first, stop - first)
        of_others = self._user[place] != user_idx[owner]
        owner, place = owner[of_others], place[of_others]
        return owner, self._item[place], bin_of(time_us[owner] - self._time[place], self._edges_us)

    def of_all(self, user_idx: np.ndarray, time_us: np.ndarray, weight_G: np.ndarray) -> np.ndarray:
        """Return the counts of every item at each moment, weighed by bin and added up, float64 (N, I)."""
        found = np.zeros((len(user_idx), self._n_items))
        first = np.searchsorted(self._time, time_us - self._edges_us[-1])
        stop = np.searchsorted(self._time, time_us)
        for row, (user, now, low, high) in enumerate(zip(user_idx, time_us, first, stop, strict=True)):
            weight = weight_G[bin_of(now - self._time[low:high], self._edges_us)]
            weight = weight * (self._user[low:high] != user)
            found[row] = np.bincount(self._item[low:high], weight, self._n_items)
        return found

    def _sorted(self, owner: np.ndarray) -> np.ndarray:
        return np.sort(owner * self._width + np.searchsorted(self._times, self._time))

    def _before(self, keys: np.ndarray, owner: np.ndarray, time_us: np.ndarray) -> np.ndarray:
        """Return how many events of all owners up to this one lie before each time."""
        return np.searchsorted(keys, owner * self._width + np.searchsorted(self._times, time_us))


def bin_of(gap_us: np.ndarray, edges_us: np.ndarray) -> np.ndarray:
    """Return the bin of each gap, which ends with its upper edge; what is outside counts to the nearest bin."""
    return np.asarray(np.clip(np.searchsorted(edges_us, gap_us) - 1, 0, len(edges_us) - 2))
