"""Transition counts to the counted part of a score: what came after the same items in other users' histories.

    counted(i) = Σ_j ω(lag_j, gap_j, action_j) · T[item_j, i]      j: the latest `count_len` events

T holds the largest entries of each row of the scaled counts. While training on a user, that user's own transitions
are taken out of T; otherwise the part would learn to find its targets in counts that they made themselves.

Shapes: B batch, Q questions, T events, N wanted questions, L latest events, C candidates, I items, J entries of a row.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from influent.models.batch import Batch
from influent.models.lookup import Lookup
from influent.models.loss import CountedTerms
from influent.models.transitions import TransitionTable


class CountedPart(nn.Module):
    """T and the weight of an event's action in it; lag and gap weights come from the module around it."""

    item_IJ: Tensor
    value_IJ: Tensor

    def __init__(self, table: TransitionTable, *, n_actions: int, count_len: int) -> None:
        super().__init__()
        self.count_len = count_len
        # One more row, all zero, for an unknown item.
        self.register_buffer("item_IJ", torch.from_numpy(np.pad(table.item_IJ, ((0, 1), (0, 0)))))
        self.register_buffer("value_IJ", torch.from_numpy(np.pad(table.value_IJ, ((0, 1), (0, 0)))))
        self.action_log_weight = nn.Parameter(torch.zeros(n_actions + 1))

    def weights(self, batch: Batch, log_BQT: Tensor) -> Tensor:
        """Return ω_BQT from the logarithm of its lag and gap kernels; zero beyond the latest `count_len` events."""
        log_BQT = log_BQT + self.action_log_weight[batch.action_BT][:, None]
        return torch.exp(log_BQT) * (batch.mask_BQT & (batch.lag_BQT <= self.count_len))

    def credits(self, batch: Batch, log_BQT: Tensor, wanted_BC: Tensor) -> Tensor:
        """Return ω · T[item, candidate] for each event and candidate of the batch's only question, (B, T, C)."""
        omega_BT = self.weights(batch, log_BQT)[:, 0]
        item_BTJ, value_BTJ = self.item_IJ[batch.item_BT], self.value_IJ[batch.item_BT]
        columns = [
            torch.where(item_BTJ == wanted_B[:, None, None], value_BTJ, 0.0).sum(dim=-1)
            for wanted_B in wanted_BC.unbind(1)
        ]
        return omega_BT[..., None] * torch.stack(columns, dim=-1)

    def terms(self, batch: Batch, log_BQT: Tensor, wanted_BQ: Tensor) -> CountedTerms:
        """Return the part at the wanted questions; in training without what the users themselves put into T."""
        omega_BQT = self.weights(batch, log_BQT)
        row_N, question_N = wanted_BQ.nonzero(as_tuple=True)
        lags = torch.arange(1, self.count_len + 1, device=omega_BQT.device)
        place_NL = batch.lag_BQT[row_N, question_N, 0][:, None] - lags
        exists_NL = (place_NL >= 0) & (place_NL < omega_BQT.shape[2])
        place_NL = place_NL.clamp(0, omega_BQT.shape[2] - 1)
        row_N1 = row_N[:, None]
        own = batch.own
        return CountedTerms(
            omega_NL=omega_BQT[row_N1, question_N[:, None], place_NL] * exists_NL,
            added=Lookup(batch.item_BT[row_N1, place_NL], self.item_IJ, self.value_IJ),
            taken_out=None if own is None else Lookup(own.row[row_N1, place_NL], own.item, own.value),
        )
