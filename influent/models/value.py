"""The value function: what a network says at a moment, as a function of the vectors of the events before it.

Shapes: B batch, R copies of its rows, T events, D embedding, X outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from influent.models.batch import Batch
from influent.models.network import Network

_MOST_CELLS = 2**23
"""How many entries the largest tensors of one pass may have: 209 histories of 200 events are read at a time."""


@dataclass(frozen=True)
class ValueFunction:
    """⟨s, v⟩ at the only question of each row of a batch, for X directions v a row: what events have a say in.

    An event that is masked (item, action and categories unknown, numbers zero; its place and time stay) has a vector
    of zeros, because an event's vector is a sum of parts and a part that says nothing is zero. So masking is done to
    vectors, and the encoder reads each event once.
    """

    network: Network
    batch: Batch
    v_BXD: Tensor

    @cached_property
    def z_BTD(self) -> Tensor:
        """Return the vectors of all events; padding has none."""
        return self.network.encoder(self.batch) * self.mask_BT[..., None]  # type: ignore[no-any-return]

    @cached_property
    def mask_BT(self) -> Tensor:
        """Return which events lie before the question."""
        return self.batch.mask_BQT[:, 0]

    @cached_property
    def every_row(self) -> Tensor:
        """Return the places of the batch's rows, (B,)."""
        return torch.arange(len(self.mask_BT), device=self.mask_BT.device)

    @cached_property
    def whole_BX(self) -> Tensor:
        """Return the value with every event."""
        return self.of_kept(self.mask_BT, self.every_row)

    @cached_property
    def baseline_BX(self) -> Tensor:
        """Return the value with every event masked: what place, time and context say alone."""
        return self.of_kept(torch.zeros_like(self.mask_BT), self.every_row)

    def of_kept(self, kept_RT: Tensor, row_R: Tensor) -> Tensor:
        """Return the value with only these events kept and all others masked, of copies of rows, float64 (R, X)."""
        value_RX = self.v_BXD.new_empty(len(row_R), self.v_BXD.shape[1], dtype=torch.float64)
        for some in self.lots(row_R):
            rows = row_R[some]
            value_RX[some] = self._of_vectors(self.z_BTD[rows] * kept_RT[some, :, None], rows)
        return value_RX

    def slopes(self, scale_R: Tensor, row_R: Tensor) -> Tensor:
        """Return ⟨∂ value / ∂ z_t, z_t⟩ where all vectors z of a row are shrunk by a scale, float64 (R, T, X)."""
        whole_RTD = self.z_BTD[row_R]
        # The kernels for recurrent layers on GPUs refuse to go backward outside of training.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            z_RTD = (whole_RTD * scale_R[:, None, None]).requires_grad_()
            totals = self._of_vectors(z_RTD, row_R).sum(dim=0).unbind()
            slopes = [torch.autograd.grad(total, z_RTD, retain_graph=True)[0] for total in totals]
        return torch.stack([(slope_RTD.double() * whole_RTD).sum(dim=2) for slope_RTD in slopes], dim=2)

    def lots(self, row_R: Tensor, *, is_backward: bool = False) -> list[Tensor]:
        """Return the places of copies of rows in lots that a pass may read at once, those of like length together.

        A pass that also goes backward holds what every layer computed, so it reads a quarter.
        """
        n_events, (n_outputs, dim) = self.mask_BT.shape[1], self.v_BXD.shape[1:]
        n_cells = n_events * max(n_events, dim) + n_outputs * dim
        n_at_once = max(_MOST_CELLS // (4 * n_cells if is_backward else n_cells), 1)
        by_length = self.batch.before_BQ[row_R, 0].argsort(stable=True)
        return [lot for lot in torch.split(by_length, n_at_once) if len(lot)]

    def _of_vectors(self, z_RTD: Tensor, row_R: Tensor) -> Tensor:
        copies = self.batch.take(row_R)
        s_RD = self.network.states(copies, z_RTD[:, : copies.item_BT.shape[1]])[:, 0]
        return torch.einsum("rd,rxd->rx", s_RD.double(), self.v_BXD[row_R].double())
