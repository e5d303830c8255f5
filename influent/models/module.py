"""What a module has to offer to be trained and asked: a loss and scores from a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from influent.models.batch import Batch


class SequenceModule(nn.Module, ABC):
    """A module over sequences. Shapes: B batch, I items."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss over the batch's targets, of which there is at least one."""

    @abstractmethod
    def scores(self, batch: Batch) -> Tensor:
        """Return the score of every item at the batch's only question, (B, I)."""
