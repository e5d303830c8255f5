"""Backbones that read events in order: an output at every event, of which the latest before a question is its state.

Shapes: B batch, Q questions, T events, D embedding.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from influent.models.batch import Batch
from influent.models.module import Backbone


class CausalBackbone(Backbone):
    """A black box whose output at an event depends on that event and on those before it.

    The state at a question is the output at the latest event before it; a learned start where there is none.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.empty(dim))
        # Not zero: a vector that is to be divided by its length must have one.
        nn.init.normal_(self.start, std=0.02)

    @abstractmethod
    def outputs(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return the output at each event, (B, T, D); it depends on no later event."""

    def states(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return the output at the latest event before each question."""
        h_BTD = self.outputs(z_BTD, batch)
        # With the start in front, the place of an output is how many events it has read.
        read_BTD = torch.cat([self.start.to(h_BTD).expand(len(h_BTD), 1, -1), h_BTD], dim=1)
        return read_BTD.gather(1, batch.before_BQ[..., None].expand(-1, -1, h_BTD.shape[2]))
