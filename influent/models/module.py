"""What is trained and asked: a backbone that turns histories into states, and a module around it.

Shapes: B batch, Q questions, T events, D embedding, I items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from influent.models.batch import Batch
from influent.models.credits import Exactness


class Backbone(nn.Module, ABC):
    """Histories to states: one vector for each question, from the vectors of the events before it."""

    exactness: ClassVar[Exactness] = "estimated"
    temperature: ClassVar[float | None] = None
    """Where it is given, a score is the cosine of state and candidate divided by it, and the bias."""

    @abstractmethod
    def states(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return the state at each question, (B, Q, D); it depends on no event outside `batch.mask_BQT`."""


class AdditiveBackbone(Backbone):
    """A backbone whose state is a sum with one term for each past event."""

    exactness: ClassVar[Exactness] = "exact"

    @abstractmethod
    def contributions(self, parts: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return each event's term of the state at the batch's only question, split by part: (B, T, D) by name."""


class SequenceModule(nn.Module, ABC):
    """A module over sequences that can be trained."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss over the batch's targets, of which there is at least one."""

    @abstractmethod
    def scores(self, batch: Batch) -> Tensor:
        """Return the score of every item at the batch's only question, (B, I)."""
