"""Transition counts to the counted part of a score: what came after the same items in other users' histories.

    counted(i) = Σ_j ω(lag_j, gap_j, action_j) · T[item_j, i]      j: the latest `count_len` events

T holds the largest entries of each row of the scaled counts. While training on a user, that user's own transitions
are taken out of T; otherwise the part would learn to find its targets in counts that they made themselves.

Shapes: B batch, Q questions, T events, C candidates, I items, J entries of a row.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from influent.models.batch import Batch
from influent.models.gather import gather
from influent.models.kernel import Kernel
from influent.models.lookup import Lookup
from influent.models.loss import CountedTerms
from influent.models.transitions import TransitionTable

_HALF_LIFE = 2.0


class CountedPart(nn.Module):
    """T, and the weight of an event in it by lag, gap and action."""

    item_IJ: Tensor
    value_IJ: Tensor

    def __init__(self, table: TransitionTable, *, n_actions: int, count_len: int, uses_gaps: bool) -> None:
        super().__init__()
        self.count_len = count_len
        # One more row, all zero, for an unknown item.
        self.register_buffer("item_IJ", torch.from_numpy(np.pad(table.item_IJ, ((0, 1), (0, 0)))))
        self.register_buffer("value_IJ", torch.from_numpy(np.pad(table.value_IJ, ((0, 1), (0, 0)))))
        self.kernel = Kernel(1, max_len=count_len, uses_gaps=uses_gaps, half_lives=torch.tensor([_HALF_LIFE]))
        self.action_log_weight = nn.Parameter(torch.zeros(n_actions + 1))

    def weights(self, batch: Batch) -> Tensor:
        """Return ω_BQT; zero beyond the latest `count_len` events."""
        log_BQT = (
            self.kernel.log_weights(batch)[..., 0]
            + gather(self.action_log_weight[:, None], batch.action_BT)[:, None, :, 0]
        )
        return torch.exp(log_BQT.masked_fill(batch.lag_BQT > self.count_len, -torch.inf))

    def terms(self, batch: Batch) -> CountedTerms:
        """Return the part at the batch's questions; in training without what the users themselves put into T."""
        return CountedTerms(
            omega_BQT=self.weights(batch),
            added=Lookup(batch.item_BT, self.item_IJ, self.value_IJ),
            taken_out=batch.own,
            before_BQ=batch.before_BQ,
            reach=self.count_len,
        )

    def scores(self, batch: Batch) -> Tensor:
        """Return the part at the batch's only question for every item, (B, I)."""
        _, omega_BL, item_BL = self._latest(batch)
        value_BLJ = omega_BL[..., None] * self.value_IJ[item_BL]
        found_BI = value_BLJ.new_zeros(len(item_BL), len(self.item_IJ) - 1)
        return found_BI.scatter_add_(1, self.item_IJ[item_BL].flatten(1), value_BLJ.flatten(1))

    def credits(self, batch: Batch, wanted_BC: Tensor) -> Tensor:
        """Return ω · T[item, candidate] for each event and candidate of the batch's only question, (B, T, C)."""
        place_BL, omega_BL, item_BL = self._latest(batch)
        item_BLJ, value_BLJ = self.item_IJ[item_BL], self.value_IJ[item_BL]
        columns = [
            torch.where(item_BLJ == wanted_B[:, None, None], value_BLJ, 0.0).sum(dim=-1)
            for wanted_B in wanted_BC.unbind(1)
        ]
        credit_BLC = omega_BL[..., None] * torch.stack(columns, dim=-1)
        found_BTC = credit_BLC.new_zeros(*batch.item_BT.shape, wanted_BC.shape[1])
        # Where a history is shorter, places repeat, with nothing to add.
        return found_BTC.scatter_add_(1, place_BL[..., None].expand_as(credit_BLC), credit_BLC)

    def shuffle(self, generator: torch.Generator) -> None:
        """Exchange T's values at random and rename the items they are of; rows keep how many entries they have."""
        held = self.value_IJ != 0
        value, item = self.value_IJ[held], self.item_IJ[held]
        order = torch.randperm(len(value), generator=generator).to(value.device)
        # Items are renamed and not drawn, so that a row has no item twice.
        name = torch.randperm(len(self.item_IJ) - 1, generator=generator).to(item.device)
        self.value_IJ[held], self.item_IJ[held] = value[order], name[item]

    def _latest(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return place, weight and item of the latest `count_len` events before the batch's only question, (B, L)."""
        latest_BL = batch.before_BQ - torch.arange(1, self.count_len + 1, device=batch.before_BQ.device)
        place_BL = latest_BL.clamp(0, batch.item_BT.shape[1] - 1)
        omega_BL = self.weights(batch)[:, 0].gather(1, place_BL) * (latest_BL >= 0)
        return place_BL, omega_BL, batch.item_BT.gather(1, place_BL)
