"""What is trained and asked: a backbone that turns histories into states, and a module around it.

Shapes: B batch, Q questions, T events, M heads, D embedding, I items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, runtime_checkable

import torch
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


@runtime_checkable
class Attentive(Protocol):
    """A backbone that weighs events by numbers of its own."""

    def attention(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return how much the latest state attends to each event at the batch's only question, (B, T)."""
        ...


class AdditiveBackbone(Backbone):
    """A backbone whose state is a sum with one term for each past event: Σ_j Σ_m weight_m(j) · W_m z_j."""

    exactness: ClassVar[Exactness] = "exact"

    def __init__(self, *, dim: int, n_heads: int, is_tied: bool) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(dim, n_heads * dim, bias=False)
        nn.init.normal_(self.project.weight, std=dim**-0.5)
        if is_tied:
            # Events then begin by speaking for items like their own, which is nearly right where vectors are shared.
            with torch.no_grad():
                self.project.weight.copy_(torch.eye(dim).repeat(n_heads, 1))

    @abstractmethod
    def weights(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return the weight of each event at each question in each head, (B, Q, T, M); zero outside the mask."""

    def states(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return the sum of all terms at each question, (B, Q, D)."""
        n_batch, n_events, dim = z_BTD.shape
        value_BTMD = self.project(z_BTD).view(n_batch, n_events * self.n_heads, dim)
        return torch.bmm(self.weights(z_BTD, batch).flatten(2), value_BTMD)

    def attention(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return the weight of each event at the batch's only question, the mean over heads, (B, T)."""
        return self.weights(z_BTD, batch)[:, 0].mean(dim=2)

    def contributions(self, parts: dict[str, Tensor], batch: Batch, v_BCD: Tensor) -> dict[str, Tensor]:
        """Return each event's term of ⟨s, v⟩ at the batch's only question, by part: float64 (B, T, C) by name.

        The parts of an event share its weight. ⟨W z, v⟩ is ⟨z, Wᵀ v⟩: candidates are fewer than events to project.
        """
        weight_BTM = self.weights(torch.stack(list(parts.values())).sum(dim=0), batch)[:, 0].double()
        map_MED = self.project.weight.double().view(self.n_heads, -1, v_BCD.shape[2])
        v_MBDC = torch.einsum("bce,med->mbdc", v_BCD.double(), map_MED)
        terms = {}
        for name, part_BTD in parts.items():
            z_BTD = part_BTD.double()
            terms[name] = sum(
                (weight_BTM[..., m, None] * (z_BTD @ v_MBDC[m]) for m in range(1, self.n_heads)),
                weight_BTM[..., 0, None] * (z_BTD @ v_MBDC[0]),
            )
        return terms


class SequenceModule(nn.Module, ABC):
    """A module over sequences that can be trained."""

    @abstractmethod
    def n_learned(self, batch: Batch) -> int:
        """Return of how many of the batch's answers the loss is the mean; a batch with none teaches nothing."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss over the batch's answers, of which there is at least one."""

    @abstractmethod
    def scores(self, batch: Batch) -> Tensor:
        """Return the score of every item at the batch's only question, (B, I)."""
