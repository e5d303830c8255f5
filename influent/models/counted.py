"""Transition counts to the counted part of a score: what came after the same items in other users' histories.

    counted(i) = Σ_j ω(lag_j, gap_j, action_j) · T[item_j, i]      j: the latest `count_len` events

T holds the largest entries of each row of the scaled counts. While training on a user, that user's own transitions
are taken out of T; otherwise the part would learn to find its targets in counts that they made themselves.

Shapes: B batch, Q questions, T events, N wanted questions, L latest events, K events of a user's whole sequence,
I items, J entries of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from influent.data.sequences import Sequences
from influent.models.batch import Batch
from influent.models.transitions import PairDecay, count_transitions, top_of_rows


@dataclass(frozen=True, kw_only=True)
class TransitionTable:
    """T: the largest entries of each row, and how counts were scaled: T[a, b] = C[a, b] · row[a] · column[b]."""

    item_IJ: np.ndarray
    """int64: which item an entry is of; 0 where the row has fewer"""
    value_IJ: np.ndarray
    """float32; 0 where the row has fewer"""
    row_I: np.ndarray
    column_I: np.ndarray

    @classmethod
    def build(cls, train: Sequences, pairs: PairDecay, *, popularity_power: float, n_entries: int) -> TransitionTable:
        """Count the training sequences; columns are divided by popularity, rows by the root of their sum."""
        counts = count_transitions(train, pairs)
        column = np.maximum(train.item_counts(), 1.0) ** -popularity_power
        # The order of events does not change which scaling a row gets: its sum is taken after the columns'.
        row = 1 / np.sqrt(np.maximum(counts @ column, 1e-12))
        item, value = top_of_rows(counts * column[None, :], n_entries)
        value = value * row[:, None]
        return cls(item_IJ=item, value_IJ=value.astype(np.float32), row_I=row, column_I=column)

    @classmethod
    def empty(cls, n_items: int, n_entries: int) -> TransitionTable:
        """Return a table of the right shape, to load weights into."""
        entries = (n_items, n_entries)
        return cls(
            item_IJ=np.zeros(entries, np.int64),
            value_IJ=np.zeros(entries, np.float32),
            row_I=np.zeros(n_items),
            column_I=np.zeros(n_items),
        )


class CountedPart(nn.Module):
    """T and the weight of an event's action in it; lag and gap weights come from the module around it."""

    item_IJ: Tensor
    value_IJ: Tensor
    row_I: Tensor
    column_I: Tensor
    _keys: Tensor

    def __init__(self, table: TransitionTable, *, n_actions: int, count_len: int, pairs: PairDecay) -> None:
        super().__init__()
        self.count_len, self._pairs = count_len, pairs
        # One more row and column, all zero, for an unknown item.
        self.register_buffer("item_IJ", torch.from_numpy(np.pad(table.item_IJ, ((0, 1), (0, 0)))))
        self.register_buffer("value_IJ", torch.from_numpy(np.pad(table.value_IJ, ((0, 1), (0, 0)))))
        self.register_buffer("row_I", torch.from_numpy(np.pad(table.row_I, (0, 1)).astype(np.float32)))
        self.register_buffer("column_I", torch.from_numpy(np.pad(table.column_I, (0, 1)).astype(np.float32)))
        # Which pairs have an entry, as sorted numbers, to be searched; needed to train only, so not saved.
        keys = np.arange(len(table.item_IJ))[:, None] * (len(table.item_IJ) + 1) + table.item_IJ
        self.register_buffer("_keys", torch.from_numpy(np.sort(keys[table.value_IJ > 0])), persistent=False)
        self.action_log_weight = nn.Parameter(torch.zeros(n_actions + 1))

    def weights(self, batch: Batch, log_BQT: Tensor) -> Tensor:
        """Return ω_BQT from the logarithm of its lag and gap kernels; zero beyond the latest `count_len` events."""
        log_BQT = log_BQT + self.action_log_weight[batch.action_BT][:, None]
        return torch.exp(log_BQT) * (batch.mask_BQT & (batch.lag_BQT <= self.count_len))

    def credits(self, batch: Batch, omega_BT: Tensor, wanted_BC: Tensor) -> Tensor:
        """Return ω · T[item, candidate] for each event and candidate of the batch's only question, (B, T, C)."""
        item_BTJ, value_BTJ = self.item_IJ[batch.item_BT], self.value_IJ[batch.item_BT]
        columns = [
            torch.where(item_BTJ == wanted_B[:, None, None], value_BTJ, 0.0).sum(dim=-1)
            for wanted_B in wanted_BC.unbind(1)
        ]
        return omega_BT[..., None] * torch.stack(columns, dim=-1)

    def latest(self, batch: Batch, omega_BQT: Tensor, wanted_BQ: Tensor) -> tuple[Tensor, Tensor]:
        """Return item and weight of the latest events at each wanted question, (N, L)."""
        row_N, question_N = wanted_BQ.nonzero(as_tuple=True)
        lags = torch.arange(1, self.count_len + 1, device=omega_BQT.device)
        place_NL = batch.lag_BQT[row_N, question_N, 0][:, None] - lags
        exists_NL = (place_NL >= 0) & (place_NL < omega_BQT.shape[2])
        place_NL = place_NL.clamp(0, omega_BQT.shape[2] - 1)
        omega_NL = omega_BQT[row_N[:, None], question_N[:, None], place_NL] * exists_NL
        return batch.item_BT[row_N[:, None], place_NL], omega_NL

    def own_terms(self, batch: Batch, omega_BQT: Tensor, wanted_BQ: Tensor) -> tuple[Tensor, Tensor]:
        """Return the items of each user's whole training sequence and what they put into T's score, both (N, K)."""
        own_BK, window = batch.own_item_BK, self._pairs.window
        assert own_BK is not None, "only training batches know the whole sequence"
        assert batch.own_place_B is not None
        n_own = own_BK.shape[1]
        distance = np.arange(-window - 1, window + 2)
        pair_weight = torch.from_numpy(self._pairs.weight(distance).astype(np.float32)).to(omega_BQT.device)
        places = torch.arange(n_own, device=own_BK.device)
        if batch.has_repeats:
            # An item that comes twice made the transitions of both its places.
            same_BTK = (batch.item_BT[:, :, None] == own_BK[:, None, :]).float()
            apart_KK = (places[None, :] - places[:, None]).clamp(-window - 1, window + 1) + window + 1
            made_BTK = same_BTK @ pair_weight[apart_KK]
        else:
            place_BT = batch.own_place_B[:, None] + torch.arange(batch.item_BT.shape[1], device=own_BK.device)
            apart_BTK = (places - place_BT[..., None]).clamp(-window - 1, window + 1) + window + 1
            made_BTK = pair_weight[apart_BTK]
        made_BTK = made_BTK * self.row_I[batch.item_BT][..., None] * self.column_I[own_BK][:, None]
        made_BTK = made_BTK * self._is_entry(batch.item_BT[..., None], own_BK[:, None])
        own_BQK = omega_BQT @ made_BTK
        row_N, question_N = wanted_BQ.nonzero(as_tuple=True)
        return own_BK[row_N].clamp(max=len(self.row_I) - 2), own_BQK[row_N, question_N]

    def _is_entry(self, before: Tensor, after: Tensor) -> Tensor:
        """Return whether T has an entry for these pairs; what was cut off as too small needs no taking out."""
        asked = (before * len(self.row_I) + after).contiguous()
        if len(self._keys) == 0:
            return torch.zeros_like(asked, dtype=torch.bool)
        return self._keys[torch.searchsorted(self._keys, asked).clamp(max=len(self._keys) - 1)] == asked
