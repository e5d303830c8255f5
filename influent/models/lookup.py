"""Rows of a padded sparse table, looked up by place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lookup:
    """Rows of a table with at most J entries each: `row` says which, of any shape; `item` and `value` are (rows, J)."""

    row: Tensor
    item: Tensor
    value: Tensor

    def to(self, device: torch.device) -> Lookup:
        """Return the same on another device."""
        return Lookup(self.row.to(device), self.item.to(device), self.value.to(device))
