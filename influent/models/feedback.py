"""The feedback recurrence: a prediction carried from behaviour to behaviour through gates, and added to by each.

    s_t = σ(g_t) · s_{t−1} + W z_t,    g_t = w0 · z_t + w1 · z_{t−1} + c,    s_0 = 0

An event opens or closes the gate through which what was predicted before it passes on, and the gate also reads the
event before. There are M heads, each with a gate and a projection W_m of its own; the state is the sum over heads.
Unrolled, it is a sum over past events:

    s_t = Σ_j Σ_m (Π_{j<k≤t} σ(g_k,m)) · W_m z_j

So the terms add up to the score. But an event's weight depends on the events after it, so leaving an event out takes
away its term and also moves the gates that it fed.

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
from influent.models.module import AdditiveBackbone


class Feedback(AdditiveBackbone):
    """Heads with a gate that reads two events in a row, and a projection each."""

    exactness: ClassVar[Exactness] = "closes"

    def __init__(self, config: ModelConfig) -> None:
        dim, heads = config.embedding_dim, config.n_heads
        super().__init__(dim=dim, n_heads=heads, is_tied=config.tied)
        self.gate_now = nn.Linear(dim, heads)
        self.gate_before = nn.Linear(dim, heads, bias=False)
        # Heads begin as decays of different length: half is left after 2, 4, 8 … events.
        kept = 0.5 ** (0.5 ** torch.arange(1, heads + 1))
        with torch.no_grad():
            self.gate_now.bias.copy_(torch.logit(kept, eps=1e-6))

    def weights(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return Π σ(g), what is left of each event at each question, (B, Q, T, M); zero outside the mask."""
        before_BTD = functional.pad(z_BTD[:, :-1], (0, 0, 1, 0))
        gate_BTM = self.gate_now(z_BTD) + self.gate_before(before_BTD)
        # A product of gates is a difference of sums of their logarithms. These sums grow with the history and the
        # difference may be small, so they are kept in double precision.
        passed_BTM = functional.logsigmoid(gate_BTM.double()).cumsum(dim=1)
        latest_BQ = (batch.before_BQ - 1).clamp(min=0)
        at_question_BQM = passed_BTM.gather(1, latest_BQ[..., None].expand(-1, -1, self.n_heads))
        log_BQTM = (at_question_BQM[:, :, None] - passed_BTM[:, None]).to(z_BTD.dtype)
        return log_BQTM.masked_fill(~batch.mask_BQT[..., None], -torch.inf).exp()
