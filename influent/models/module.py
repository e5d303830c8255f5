"""What a module has to offer to be trained: states from a batch, a loss and scores from states."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from influent.models.batch import Batch


class SequenceModule(nn.Module, ABC):
    """A module over sequences. Shapes: B batch, Q questions, N states, D embedding, I items."""

    @abstractmethod
    def states(self, batch: Batch) -> Tensor:
        """Return s_BQD, what is known at each moment asked about."""

    @abstractmethod
    def scores(self, s_ND: Tensor) -> Tensor:
        """Return the score of every item, (N, I)."""

    @abstractmethod
    def loss(self, s_ND: Tensor, target_N: Tensor) -> Tensor:
        """Return the mean loss of these targets."""
