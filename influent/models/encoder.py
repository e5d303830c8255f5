"""Events to vectors: z, the sum of what an event's item, action, numbers and vectors from elsewhere say.

Shapes: B batch, T events, D embedding, V width of given vectors, I items.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from influent.data.vectors import ItemVectors
from influent.models.batch import Batch


class GivenVectors(nn.Module):
    """Vectors of items that came from elsewhere (a text encoder, say), and a learned map into our space."""

    vectors_IV: Tensor

    def __init__(self, block: ItemVectors, dim: int) -> None:
        super().__init__()
        # One more row, all zero, for an unknown item.
        self.register_buffer("vectors_IV", functional.pad(torch.from_numpy(block.vectors), (0, 0, 0, 1)))
        self.adapter = nn.Linear(block.vectors.shape[1], dim, bias=False)
        nn.init.normal_(self.adapter.weight, std=0.02)

    def forward(self, item: Tensor) -> Tensor:
        """Return the vectors of these items, (…, D)."""
        return self.adapter(self.vectors_IV[item])  # type: ignore[no-any-return]

    def everyone(self) -> Tensor:
        """Return the vectors of all items, (I, D); the row of what is unknown is left out."""
        return self.adapter(self.vectors_IV[:-1])  # type: ignore[no-any-return]


class EventEncoder(nn.Module):
    """An event's vector as a sum of named parts; a part that says nothing is zero."""

    def __init__(
        self, *, dim: int, n_items: int, n_actions: int, n_numbers: int, blocks: Sequence[ItemVectors]
    ) -> None:
        super().__init__()
        # The last row stands for what is unknown; it is zero and stays so.
        self.item_in = embedding_with_unknown(n_items, dim)
        self.action_in = embedding_with_unknown(n_actions, dim)
        self.number_in = nn.Linear(n_numbers, dim, bias=False) if n_numbers else None
        self.given = nn.ModuleDict({block.name: GivenVectors(block, dim) for block in blocks})

    def parts(self, batch: Batch) -> dict[str, Tensor]:
        """Return what each part of an event contributes to its vector, (B, T, D) by name."""
        parts = {"item": self.item_in(batch.item_BT), "action": self.action_in(batch.action_BT)}
        if self.number_in is not None:
            parts["numbers"] = self.number_in(batch.numbers_BTF)
        return parts | {name: given(batch.item_BT) for name, given in self.given.items()}

    def forward(self, batch: Batch) -> Tensor:
        """Return z, (B, T, D)."""
        return torch.stack(list(self.parts(batch).values())).sum(dim=0)


def embedding_with_unknown(n: int, dim: int) -> nn.Embedding:
    """Return an embedding whose last row stands for what is unknown and stays zero.

    Vectors begin small: a score begins at the bias, and what is learned first is popularity.
    """
    embedding = nn.Embedding(n + 1, dim, padding_idx=n)
    nn.init.normal_(embedding.weight, std=0.02)
    with torch.no_grad():
        embedding.weight[n] = 0
    return embedding
