"""Black boxes in which every event looks back at those before it: SASRec and HSTU.

Shapes: B batch, T events (S where they are looked at), H heads, W width of a head, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from influent.errors import ConfigError
from influent.models.batch import Batch
from influent.models.causal import CausalBackbone
from influent.models.config import ModelConfig
from influent.models.gather import gather

_FIRST_GATE = 0.1
_TIME_BUCKETS = 64
_LONGEST_GAP_S = 4 * 365 * 86_400.0


class SasRec(CausalBackbone):
    """Self-attention over the history (Kang and McAuley 2018, https://arxiv.org/abs/1808.09781).

    Blocks are normed on their way in (https://arxiv.org/abs/2002.04745) and gated on their way out: what a branch
    adds is multiplied, entry by entry, by a learned gate that begins small, so that a deep stack begins close to the
    identity (LayerScale, https://arxiv.org/abs/2103.17239; ReZero, https://arxiv.org/abs/2003.04887).
    """

    def __init__(self, config: ModelConfig) -> None:
        dim = config.embedding_dim
        super().__init__(dim)
        # Counted from the first event that is read: counted from the last, a later event would move an earlier state.
        self.position = nn.Embedding(config.max_len, dim)
        nn.init.normal_(self.position.weight, std=0.02)
        n_heads = _n_heads(config)
        self.blocks = nn.Sequential(*(_Block(dim, n_heads, config.dropout) for _ in range(config.n_layers)))
        self.norm = nn.LayerNorm(dim)
        self.scale = math.sqrt(dim)

    def outputs(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return what the last block makes of each event."""
        return self.norm(self.blocks(self._inputs(z_BTD)))  # type: ignore[no-any-return]

    def attention(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return the last block's weights at the latest event, the mean over heads, (B, T); they add up to 1."""
        *before, last = self.blocks
        x_BTD = self._inputs(z_BTD)
        for block in before:
            x_BTD = block(x_BTD)
        return _at_latest(last.weights(x_BTD), batch)  # type: ignore[operator]

    def _inputs(self, z_BTD: Tensor) -> Tensor:
        return (z_BTD + self.position.weight[: z_BTD.shape[1]]) * self.scale


class _Block(nn.Module):
    """Attention and a feed-forward part, each added through its gate."""

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.attention_norm, self.feed_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.attended = nn.Linear(dim, dim)
        # Narrower than the usual four, and nothing dropped inside: faster, and on MovieLens-100K as good.
        self.feed = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.attention_gate = nn.Parameter(torch.full((dim,), _FIRST_GATE))
        self.feed_gate = nn.Parameter(torch.full((dim,), _FIRST_GATE))

    def forward(self, x_BTD: Tensor) -> Tensor:
        query, key, value = _heads(self.query_key_value(self.attention_norm(x_BTD)), self.n_heads, 3)
        seen_BHTW = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x_BTD = x_BTD + self.attention_gate * self._drop(self.attended(seen_BHTW.transpose(1, 2).flatten(2)))
        return x_BTD + self.feed_gate * self._drop(self.feed(self.feed_norm(x_BTD)))

    def weights(self, x_BTD: Tensor) -> Tensor:
        """Return how much each event attends to each before it and to itself, (B, H, T, S)."""
        query, key, _ = _heads(self.query_key_value(self.attention_norm(x_BTD)), self.n_heads, 3)
        match_BHTS = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        is_later_TS = torch.ones(match_BHTS.shape[2:], dtype=torch.bool, device=x_BTD.device).triu(1)
        return match_BHTS.masked_fill(is_later_TS, -torch.inf).softmax(dim=3)

    def _drop(self, branch_BTD: Tensor) -> Tensor:
        return functional.dropout(branch_BTD, self.dropout, self.training)


class Hstu(CausalBackbone):
    """Pointwise attention that keeps how much there was, over places and times (Zhai et al. 2024).

    An event is weighed by SiLU(⟨q, k⟩ + b(events between) + c(time between)), divided by how many events there are.
    No softmax makes weights compete, so strength of interest stays. States and candidates have length 1, and a
    score is their cosine divided by a temperature. https://arxiv.org/abs/2402.17152. Other implementations measure
    time up to the event that comes *next*, which tells when the target happened; here it runs between the events
    that have been read.
    """

    temperature = 0.05

    def __init__(self, config: ModelConfig, *, uses_gaps: bool) -> None:
        dim, depth = config.embedding_dim, config.n_layers
        super().__init__(dim)
        n_heads = _n_heads(config)
        self.units = nn.ModuleList(_Unit(dim, n_heads, config.dropout) for _ in range(depth))
        self.distance_bias = nn.Parameter(torch.zeros(depth, config.max_len))
        self.time_bias = nn.Parameter(torch.zeros(depth, _TIME_BUCKETS)) if uses_gaps else None
        self.scale = math.sqrt(dim)

    def outputs(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return what the last unit makes of each event."""
        x_BTD = z_BTD * self.scale
        for unit, bias, share_TS in self._layers(z_BTD, batch):
            x_BTD = unit(x_BTD, bias, share_TS)
        return x_BTD

    def attention(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return the last unit's weights at the latest event, the mean over heads, (B, T); some may be negative."""
        x_BTD = z_BTD * self.scale
        *before, (last, bias, share_TS) = self._layers(z_BTD, batch)
        for unit, *among in before:
            x_BTD = unit(x_BTD, *among)
        _, _, query, key = last.gate_and_heads(x_BTD)
        return _at_latest(last.weights(query, key, bias, share_TS), batch)

    def _layers(self, z_BTD: Tensor, batch: Batch) -> Iterator[tuple[_Unit, Tensor, Tensor]]:
        """Yield each unit with what it adds to a match of two events, (T, S) or (B, T, S), and 1 / events so far."""
        place_T = torch.arange(z_BTD.shape[1], device=z_BTD.device)
        distance_TS = place_T[:, None] - place_T
        share_TS = (distance_TS >= 0) / (place_T[:, None] + 1)
        between_BTS = None if self.time_bias is None or batch.time_BT is None else _time_bucket(batch.time_BT)
        for layer, unit in enumerate(self.units):
            bias = self.distance_bias[layer][distance_TS.clamp(min=0)]
            if between_BTS is not None:
                assert self.time_bias is not None
                bias = bias + gather(self.time_bias[layer][:, None], between_BTS)[..., 0]
            yield unit, bias, share_TS  # type: ignore[misc]


class _Unit(nn.Module):
    """Pointwise attention, gated entry by entry."""

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.norm, self.seen_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.gate_value_query_key = nn.Linear(dim, 4 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_BTD: Tensor, bias: Tensor, share_TS: Tensor) -> Tensor:
        gate_BTD, value, query, key = self.gate_and_heads(x_BTD)
        seen_BTD = (self.weights(query, key, bias, share_TS) @ value).transpose(1, 2).flatten(2)
        branch_BTD = functional.dropout(gate_BTD * self.seen_norm(seen_BTD), self.dropout, self.training)
        return x_BTD + self.out(branch_BTD)  # type: ignore[no-any-return]

    def gate_and_heads(self, x_BTD: Tensor) -> tuple[Tensor, ...]:
        """Return the gate, (B, T, D), and value, query and key of each head, (B, H, T, W)."""
        gate_BTD, rest = functional.silu(self.gate_value_query_key(self.norm(x_BTD))).tensor_split([x_BTD.shape[2]], 2)
        return gate_BTD, *_heads(rest, self.n_heads, 3)

    def weights(self, query: Tensor, key: Tensor, bias: Tensor, share_TS: Tensor) -> Tensor:
        """Return how much each event attends to each before it and to itself, (B, H, T, S)."""
        return functional.silu(query @ key.transpose(2, 3) + bias.view(-1, 1, *bias.shape[-2:])) * share_TS


def _time_bucket(time_BT: Tensor) -> Tensor:
    """Return in which of the buckets, even in log(1 + seconds), the time between two events lies, (B, T, S)."""
    between = (time_BT[:, :, None] - time_BT[:, None, :]).clamp_(min=0).float()
    scale = (_TIME_BUCKETS - 1) / math.log1p(_LONGEST_GAP_S)
    return (torch.log1p(between) * scale).clamp_(max=_TIME_BUCKETS - 1).int()


def _at_latest(weight_BHTS: Tensor, batch: Batch) -> Tensor:
    """Return the weights at the latest event before the batch's only question, the mean over heads, (B, S)."""
    latest_B = (batch.before_BQ[:, 0] - 1).clamp(min=0)
    return weight_BHTS.mean(dim=1)[torch.arange(len(latest_B), device=latest_B.device), latest_B]


def _heads(x_BTD: Tensor, n_heads: int, n_parts: int) -> tuple[Tensor, ...]:
    """Split vectors into parts and each of these into heads: as many (B, H, T, W)."""
    n_batch, n_events, _ = x_BTD.shape
    return x_BTD.view(n_batch, n_events, n_parts, n_heads, -1).transpose(1, 3).unbind(2)


def _n_heads(config: ModelConfig) -> int:
    if config.embedding_dim % config.n_heads:
        raise ConfigError(
            f"ModelConfig.embedding_dim must be a multiple of n_heads for {config.backbone!r}. Got "
            f"{config.embedding_dim} and {config.n_heads}."
        )
    return config.n_heads
