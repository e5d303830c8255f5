"""Events to vectors: z, the sum of what an event's item, action, numbers, categories and given vectors say.

Shapes: B batch, T events, D embedding, V width of given vectors, I items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from influent import schema
from influent.data.vectors import ItemVectors
from influent.errors import SchemaError
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
    """An event's vector as a sum of named parts; a part that says nothing is zero.

    Args:
        n_categories: the number of values of each category column, by its name.

    Raises:
        SchemaError: two parts have one name.
    """

    def __init__(
        self,
        *,
        dim: int,
        n_items: int,
        n_actions: int,
        n_numbers: int,
        n_categories: Mapping[str, int],
        blocks: Sequence[ItemVectors],
    ) -> None:
        super().__init__()
        _check_names([*schema.EVENT_PARTS, *n_categories, *(block.name for block in blocks)])
        # The last row stands for what is unknown; it is zero and stays so.
        self.item_in = embedding_with_unknown(n_items, dim)
        self.action_in = embedding_with_unknown(n_actions, dim)
        self.number_in = nn.Linear(n_numbers, dim, bias=False) if n_numbers else None
        self.categories = tuple(n_categories)
        self.category_in = nn.ModuleList(embedding_with_unknown(n, dim) for n in n_categories.values())
        self.given = nn.ModuleDict({block.name: GivenVectors(block, dim) for block in blocks})

    def parts(self, batch: Batch) -> dict[str, Tensor]:
        """Return what each part of an event contributes to its vector, (B, T, D) by name."""
        parts = {"item": self.item_in(batch.item_BT), "action": self.action_in(batch.action_BT)}
        if self.number_in is not None:
            parts["numbers"] = self.number_in(batch.numbers_BTF)
        for place, (name, table) in enumerate(zip(self.categories, self.category_in, strict=True)):
            parts[name] = table(batch.category_BTK[..., place])
        return parts | {name: given(batch.item_BT) for name, given in self.given.items()}

    def forward(self, batch: Batch) -> Tensor:
        """Return z, (B, T, D)."""
        return torch.stack(list(self.parts(batch).values())).sum(dim=0)


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise SchemaError(
                f"two parts of an event are called {name!r}. There are: {', '.join(names)}. Give the category's column "
                "or the block of vectors another name."
            )


def embedding_with_unknown(n: int, dim: int) -> nn.Embedding:
    """Return an embedding whose last row stands for what is unknown and stays zero.

    Vectors begin small: a score begins at the bias, and what is learned first is popularity.
    """
    embedding = nn.Embedding(n + 1, dim, padding_idx=n)
    nn.init.normal_(embedding.weight, std=0.02)
    with torch.no_grad():
        embedding.weight[n] = 0
    return embedding
