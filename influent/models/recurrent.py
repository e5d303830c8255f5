"""Recurrent black boxes: a state carried from event to event by gates that read the event and the state.

Shapes: B batch, T events, D embedding.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from influent.models.batch import Batch
from influent.models.causal import CausalBackbone
from influent.models.config import ModelConfig


class _Recurrent(CausalBackbone):
    """Layers of a cell, and a norm behind them."""

    cell: ClassVar[type[nn.RNNBase]]

    def __init__(self, config: ModelConfig) -> None:
        dim, depth = config.embedding_dim, config.n_layers
        super().__init__(dim)
        # torch drops between layers, and warns where there is no between.
        between = config.dropout if depth > 1 else 0.0
        self.layers = self.cell(dim, dim, depth, batch_first=True, dropout=between)  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(dim)

    def outputs(self, z_BTD: Tensor, batch: Batch) -> Tensor:
        """Return the last layer's state after each event."""
        h_BTD, _ = self.layers(z_BTD)
        return self.norm(h_BTD)  # type: ignore[no-any-return]


class Gru(_Recurrent):
    """Gated recurrent units, as in GRU4Rec (Hidasi et al. 2016, https://arxiv.org/abs/1511.06939)."""

    cell = nn.GRU


class Lstm(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735)."""

    cell = nn.LSTM
