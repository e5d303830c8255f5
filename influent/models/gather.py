"""Rows of a small table at a great many places.

Shapes: R rows, C columns, … places.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def gather(table_RC: Tensor, row: Tensor, fraction: Tensor | None = None) -> Tensor:
    """Return these rows of a table, (…, C); with a fraction what lies that far from each towards the next.

    Indexing has the same value. Its gradient scatters into the table, where a great many places meet in few rows: a
    processor counts faster than it scatters, and a GPU told to add up in the same order each time adds what meets one
    by one.
    """
    return _Gather.apply(table_RC, row, fraction)  # type: ignore[no-any-return, no-untyped-call]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table_RC: Tensor, row: Tensor, fraction: Tensor | None) -> Tensor:
        ctx.save_for_backward(row, fraction)
        ctx.n_rows = len(table_RC)
        if fraction is None and table_RC.shape[1] == 1:
            return table_RC[:, 0].index_select(0, row.flatten()).view(*row.shape, 1)
        found = functional.embedding(row, table_RC.contiguous())
        if fraction is None:
            return found
        steps = torch.diff(table_RC, dim=0)
        return torch.addcmul(found, fraction[..., None], functional.embedding(row, steps))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        [gradient] = upstream
        row, fraction = ctx.saved_tensors
        flat, row = gradient.reshape(-1, gradient.shape[-1]), row.reshape(-1)
        at_row = _sums(flat, row, ctx.n_rows)
        if fraction is None:
            return at_row, None, None
        towards_next = _sums(flat * fraction.reshape(-1, 1), row, ctx.n_rows)
        at_row.sub_(towards_next)
        at_row[1:] += towards_next[: ctx.n_rows - 1]
        return at_row, None, None


def _sums(value_NC: Tensor, row_N: Tensor, n_rows: int) -> Tensor:
    """Return the sum of the values of each row, (R, C)."""
    if value_NC.is_cuda:
        # The gradient of an embedding: sorted first, and then added up in pieces.
        return torch.ops.aten.embedding_dense_backward(value_NC, row_N, n_rows, -1, False)  # type: ignore[no-any-return]
    if value_NC.shape[1] == 1:
        # Ten times as fast along one dimension as along the first of two.
        return value_NC.new_zeros(n_rows).index_add_(0, row_N, value_NC[:, 0])[:, None]
    return value_NC.new_zeros(n_rows, value_NC.shape[1]).index_add_(0, row_N, value_NC)
