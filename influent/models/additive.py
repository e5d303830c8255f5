"""The additive model: a score is a bias, context lines, and one term per past event.

    score(u, t, i) = bias(i) + Σ_c ⟨context_c(u), q_i⟩
                   + Σ_j Σ_m κ_m(lag_j, gap_j) · g_m(j) · ⟨W_m z_j, q_i⟩        learned part, m: heads
                   + Σ_j ω(lag_j, gap_j, action_j) · T[item_j, i]               counted part

An event's weight depends on the event, its distance and the candidate, never on the other events. So the terms add
up to the score, and leaving an event out takes exactly its term away.

Shapes: B batch, Q questions, T events, M heads, D embedding, R knots, F numbers, C context columns, I items.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from influent.models.batch import Batch
from influent.models.config import ModelConfig
from influent.models.counted import CountedPart
from influent.models.loss import add_counted, cross_entropy
from influent.models.module import SequenceModule
from influent.models.transitions import TransitionTable

_LAG_KNOTS = 12
_GAP_KNOTS = 16
_LONGEST_GAP_S = 4 * 365 * 86_400.0


class AdditiveModule(SequenceModule):
    """The weights of the additive model, and its two ways of being read: as scores and as the terms of scores."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        n_items: int,
        n_actions: int,
        n_numbers: int,
        n_values: tuple[int, ...],
        is_timed: bool,
        table: TransitionTable | None,
    ) -> None:
        super().__init__()
        dim, heads = config.embedding_dim, config.n_heads
        self.n_heads = heads
        # The last row stands for what is unknown; it is zero and stays so.
        self.item_in = nn.Embedding(n_items + 1, dim, padding_idx=n_items)
        self.action_in = nn.Embedding(n_actions + 1, dim, padding_idx=n_actions)
        self.number_in = nn.Linear(n_numbers, dim, bias=False) if n_numbers else None
        self.context_in = nn.ModuleList(nn.Embedding(n + 1, dim, padding_idx=n) for n in n_values)
        self.project = nn.Linear(dim, heads * dim, bias=False)
        self.gate = nn.Linear(dim, heads)
        count_len = min(config.count_len, config.max_len)
        self.counted = None if table is None else CountedPart(table, n_actions=n_actions, count_len=count_len)
        # The last kernel is the counted part's, where there is one.
        n_kernels = heads + (self.counted is not None)
        self.lag_log_weight = nn.Parameter(torch.zeros(n_kernels, _LAG_KNOTS))
        uses_gaps = config.uses_gaps and is_timed
        self.gap_log_weight = nn.Parameter(torch.zeros(n_kernels, _GAP_KNOTS)) if uses_gaps else None
        self.item_out = nn.Embedding(n_items, dim)
        self.bias = nn.Parameter(torch.zeros(n_items))
        self.dropout = config.dropout
        self._lag_scale = (_LAG_KNOTS - 1) / math.log1p(config.max_len)
        self._gap_scale = (_GAP_KNOTS - 1) / math.log1p(_LONGEST_GAP_S)
        self._initialise()

    def _initialise(self) -> None:
        dim = self.item_out.embedding_dim
        # Small vectors: a score begins at the bias, and what is learned first is popularity.
        for embedding in (self.item_in, self.action_in, *self.context_in):
            nn.init.normal_(embedding.weight, std=0.02)
            with torch.no_grad():
                embedding.weight[embedding.padding_idx] = 0
        nn.init.normal_(self.item_out.weight, std=0.02)
        nn.init.normal_(self.project.weight, std=dim**-0.5)
        with torch.no_grad():
            # Heads begin as decays of different length: half the weight at lag 2, 4, 8 ….
            knots = torch.arange(_LAG_KNOTS) / self._lag_scale
            for head in range(self.n_heads):
                self.lag_log_weight[head] = -torch.expm1(knots) * math.log(2) * 2.0 ** -(head + 1)
            if self.counted is not None:
                self.lag_log_weight[-1] = -torch.expm1(knots) * math.log(2) / 2

    def event_vectors(self, batch: Batch) -> Tensor:
        """Return z_BTD, an event's vector: its item, action and numbers."""
        z_BTD = self.item_in(batch.item_BT) + self.action_in(batch.action_BT)
        if self.number_in is not None:
            z_BTD = z_BTD + self.number_in(batch.numbers_BTF)
        return functional.dropout(z_BTD, self.dropout, self.training)

    def log_kernels(self, batch: Batch) -> Tensor:
        """Return log κ of each event at each question in each head, and then of the counted part, (B, Q, T, M + 1)."""
        log_BQTM = _interpolate(batch.lag_BQT.clamp(min=0).float(), self.lag_log_weight, self._lag_scale)
        if self.gap_log_weight is not None and batch.gap_BQT is not None:
            log_BQTM = log_BQTM + _interpolate(batch.gap_BQT, self.gap_log_weight, self._gap_scale)
        return log_BQTM

    def weights(self, batch: Batch, z_BTD: Tensor, log_BQTM: Tensor) -> Tensor:
        """Return κ · g, the weight of each event at each question in each head, (B, Q, T, M); zero outside the mask."""
        gate_BTM = torch.sigmoid(self.gate(z_BTD))
        return torch.exp(log_BQTM[..., : self.n_heads]) * gate_BTM[:, None] * batch.mask_BQT[..., None]

    def context_vectors(self, batch: Batch) -> list[Tensor]:
        """Return one (B, D) per context column."""
        return [table(batch.context_BC[:, place]) for place, table in enumerate(self.context_in)]

    def states(self, batch: Batch, log_BQTM: Tensor) -> Tensor:
        """Return s_BQD, so that a score's learned part is ⟨s, q_i⟩ + bias(i)."""
        z_BTD = self.event_vectors(batch)
        n_batch, n_events, dim = z_BTD.shape
        weight_BQTM = self.weights(batch, z_BTD, log_BQTM)
        value_BTMD = self.project(z_BTD).view(n_batch, n_events, self.n_heads, dim)
        s_BQD = torch.bmm(weight_BQTM.flatten(2), value_BTMD.reshape(n_batch, -1, dim))
        for vector_BD in self.context_vectors(batch):
            s_BQD = s_BQD + vector_BD[:, None]
        return functional.dropout(s_BQD, self.dropout, self.training)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the batch's targets over the full catalogue."""
        wanted_BQ = batch.target_BQ >= 0
        log_BQTM = self.log_kernels(batch)
        terms = None if self.counted is None else self.counted.terms(batch, log_BQTM[..., -1], wanted_BQ)
        s_ND = self.states(batch, log_BQTM)[wanted_BQ]
        return cross_entropy(s_ND, self.item_out.weight, self.bias, batch.target_BQ[wanted_BQ], terms)

    def scores(self, batch: Batch) -> Tensor:
        """Return the score of every item at the batch's only question, (B, I)."""
        log_BQTM = self.log_kernels(batch)
        scores_BI = torch.addmm(self.bias, self.states(batch, log_BQTM)[:, 0], self.item_out.weight.T)
        if self.counted is not None:
            everyone_BQ = torch.ones_like(batch.target_BQ, dtype=torch.bool)
            add_counted(scores_BI, self.counted.terms(batch, log_BQTM[..., -1], everyone_BQ), slice(None))
        return scores_BI

    def credits(self, batch: Batch, wanted_BC: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return each event's credit for each wanted item, (B, T, C), and each context column's, (B, C); float64."""
        q_BCD = self.item_out(wanted_BC).double()
        z_BTD = self.event_vectors(batch)
        log_BQTM = self.log_kernels(batch)
        weight_BTM = self.weights(batch, z_BTD, log_BQTM)[:, 0]
        value_BTMD = self.project(z_BTD).view(*z_BTD.shape[:2], self.n_heads, -1)
        vector_BTD = torch.einsum("btm,btmd->btd", weight_BTM, value_BTMD)
        credit_BTC = vector_BTD.double() @ q_BCD.transpose(1, 2)
        if self.counted is not None:
            credit_BTC = credit_BTC + self.counted.credits(batch, log_BQTM[..., -1], wanted_BC)
        context = [torch.einsum("bd,bcd->bc", c_BD.double(), q_BCD) for c_BD in self.context_vectors(batch)]
        return credit_BTC, context


def _interpolate(distance: Tensor, knots_MR: Tensor, scale: float) -> Tensor:
    """Return the piecewise linear function through the knots, even in log(1 + distance), for each head."""
    n_knots = knots_MR.shape[1]
    place = (torch.log1p(distance) * scale).clamp(max=n_knots - 1.0)
    hats = (1 - (place[..., None] - torch.arange(n_knots, device=place.device)).abs()).clamp(min=0)
    return hats @ knots_MR.T
