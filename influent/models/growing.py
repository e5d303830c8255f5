"""The weights of a fitted network to those of one with more items, of which nothing but their vectors is known.

Shapes: I items, before and after.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from influent.data.vectors import ItemVectors
from influent.data.vocab import Ids
from influent.errors import ConfigError, SchemaError


def grown_weights(fitted: dict[str, Tensor], larger: dict[str, Tensor], n_items: int, new_bias: float) -> None:
    """Write fitted weights into those of a network with more items, behind the `n_items` that were there.

    What is learned of a single item is zero for a new one: its own vectors and its transitions. Its bias is given.
    Vectors from elsewhere stay as the larger network has them.
    """
    for name, weights in larger.items():
        known = fitted[name]
        if name.endswith(".vectors_IV"):
            continue
        if weights.shape == known.shape:
            weights.copy_(known)
            continue
        # A last row that stands for an unknown item is zero, as a new item's is.
        weights.fill_(new_bias if name == "bias" else 0)
        weights[:n_items] = known[:n_items]


def check_same_blocks(fitted: tuple[ItemVectors, ...], given: tuple[ItemVectors, ...], items: Ids) -> None:
    """Refuse blocks that are not those a model was fitted with, longer by the new items; `items` are all of them.

    Raises:
        ConfigError: there are none, or others.
        SchemaError: they are not of all items, or hold other vectors of the items that were there.
    """
    names, n_items = [block.name for block in fitted], len(items)
    if not names:
        raise ConfigError("this model reads no vectors, so nothing is known of new items. Fit with vectors=[...].")
    if [block.name for block in given] != names:
        raise ConfigError(f"vectors must be the blocks {', '.join(names)}, in this order.")
    for before, after in zip(fitted, given, strict=True):
        after.check_items(items)
        if len(after) != n_items or after.dim != before.dim:
            raise SchemaError(
                f"the block {after.name!r} is of {len(after):,} items and {after.dim} numbers each. The vocabulary has "
                f"{n_items:,} items, and the model was fitted on {before.dim} numbers."
            )
        if not np.allclose(after.vectors[: len(before)], before.vectors, rtol=1e-3, atol=1e-3):
            raise SchemaError(
                f"the block {after.name!r} has other vectors than before of the items that the model knows. Reduce it "
                "as then: reduce_vectors(..., fit_on=) with True for the items that were there."
            )
