"""The learned part of the additive model: a state that is a sum with one term per past event.

    s(u, t) = Σ_j Σ_m κ_m(lag_j, gap_j) · g_m(j) · W_m z_j      m: heads

An event's weight depends on the event and its distance, never on the other events. So the terms add up to the score,
and leaving an event out takes exactly its term away. With the query gate a weight also depends on the latest event
before the moment: g_m(j) is multiplied by softplus⟨Q_m z_last, K_m z_j⟩. The sum still closes, and a term is still
what leaving the event out takes away, but for the latest event itself.

Shapes: B batch, Q questions, T events, M heads, D embedding.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from influent.models.batch import Batch
from influent.models.config import ModelConfig
from influent.models.credits import Exactness
from influent.models.kernel import Kernel
from influent.models.module import AdditiveBackbone


class Additive(AdditiveBackbone):
    """Heads with a kernel over lag and gap, a gate and a projection each."""

    exactness: ClassVar[Exactness] = "exact"

    def __init__(self, config: ModelConfig, *, uses_gaps: bool) -> None:
        dim, heads = config.embedding_dim, config.n_heads
        super().__init__(dim=dim, n_heads=heads, is_tied=config.tied)
        # Heads begin as decays of different length: half the weight at lag 2, 4, 8 ….
        half_lives = 2.0 ** torch.arange(1, heads + 1)
        self.kernel = Kernel(heads, max_len=config.max_len, uses_gaps=uses_gaps, half_lives=half_lives)
        self.gate = nn.Linear(dim, heads)
        self.query = QueryGate(dim, heads) if config.gate == "query" else None
        if self.query is not None:
            self.exactness = "closes"  # type: ignore[misc]

    def weights(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return κ · g, the weight of each event at each question in each head, (B, Q, T, M); zero outside the mask."""
        log_BTM = functional.logsigmoid(self.gate(z_BTD))
        weight_BQTM = torch.exp(self.kernel.log_weights(batch) + log_BTM[:, None])
        if self.query is not None:
            weight_BQTM = weight_BQTM * self.query(z_BTD, batch)
        return weight_BQTM


class QueryGate(nn.Module):
    """How much the latest event opens the weights of those before it."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.width = max(dim // n_heads, 1)
        self.query = nn.Linear(dim, n_heads * self.width, bias=False)
        self.key = nn.Linear(dim, n_heads * self.width, bias=False)

    def forward(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return the factor of each weight, (B, Q, T, M); where there is no latest event nothing is weighed."""
        latest_BQ = (batch.before_BQ - 1).clamp(min=0)
        z_last_BQD = z_BTD.gather(1, latest_BQ[..., None].expand(-1, -1, z_BTD.shape[2]))
        query_BQMK = self.query(z_last_BQD).unflatten(2, (self.n_heads, self.width))
        key_BTMK = self.key(z_BTD).unflatten(2, (self.n_heads, self.width))
        return functional.softplus(torch.einsum("bqmk,btmk->bqtm", query_BQMK, key_BTMK) * self.width**-0.5)
