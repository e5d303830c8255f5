"""Distances to weights: how much less an event counts, the further back and the longer ago it lies.

Shapes: B batch, Q questions, T events, M kernels, R knots.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from influent.models.batch import Batch

_LAG_KNOTS = 12
_GAP_KNOTS = 16
_LONGEST_GAP_S = 4 * 365 * 86_400.0


class Kernel(nn.Module):
    """M kernels over lag and gap; the logarithm of each is piecewise linear in log(1 + lag) plus in log(1 + gap)."""

    def __init__(self, n_kernels: int, *, max_len: int, uses_gaps: bool, half_lives: Tensor) -> None:
        """Begin with weights that halve every `half_lives` events, (M,)."""
        super().__init__()
        self._max_len = max_len
        self._lag_scale = (_LAG_KNOTS - 1) / math.log1p(max_len)
        self._gap_scale = (_GAP_KNOTS - 1) / math.log1p(_LONGEST_GAP_S)
        lags = torch.expm1(torch.arange(_LAG_KNOTS) / self._lag_scale)
        self.lag_log_weight = nn.Parameter(-math.log(2) * lags / half_lives[:, None])
        self.gap_log_weight = nn.Parameter(torch.zeros(n_kernels, _GAP_KNOTS)) if uses_gaps else None

    def log_weights(self, batch: Batch) -> Tensor:
        """Return log κ of each event at each question, (B, Q, T, M); minus infinity where it is not before it."""
        lags = torch.arange(self._max_len + 1, device=batch.before_BQ.device, dtype=torch.float32)
        table = _interpolate(lags, self.lag_log_weight, self._lag_scale)
        log_BQTM = _Gather.apply(table, batch.lag_BQT.clamp(0, self._max_len))  # type: ignore[no-untyped-call]
        if self.gap_log_weight is not None and batch.gap_BQT is not None:
            log_BQTM = log_BQTM + _interpolate(batch.gap_BQT, self.gap_log_weight, self._gap_scale)
        return log_BQTM.masked_fill(~batch.mask_BQT[..., None], -torch.inf)  # type: ignore[no-any-return]


def _interpolate(distance: Tensor, knots_MR: Tensor, scale: float) -> Tensor:
    """Return the piecewise linear functions through the knots, even in log(1 + distance), (…, M)."""
    last = knots_MR.shape[1] - 1
    place = (torch.log1p(distance) * scale).clamp(max=last)
    left = place.long().clamp(max=last - 1)
    return _Gather.apply(knots_MR.T, left, place - left)  # type: ignore[no-any-return, no-untyped-call]


class _Gather(torch.autograd.Function):
    """Rows of a small table at many places, and with a fraction what lies that far towards the next row.

    Indexing has the same value; its gradient scatters into a table far slower than counting does.
    """

    @staticmethod
    def forward(ctx: Any, table_RM: Tensor, row: Tensor, fraction: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(row, fraction)
        ctx.shape = table_RM.shape
        found = nn.functional.embedding(row, table_RM.contiguous())
        if fraction is None:
            return found
        steps = torch.diff(table_RM, dim=0)
        return torch.addcmul(found, fraction[..., None], nn.functional.embedding(row, steps))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        [gradient] = upstream
        row, fraction = ctx.saved_tensors
        n_rows, n_columns = ctx.shape
        flat, row = gradient.reshape(-1, n_columns), row.reshape(-1)
        at_row = gradient.new_zeros(ctx.shape)
        if fraction is None:
            return at_row.index_add_(0, row, flat), None, None
        towards_next = gradient.new_zeros(ctx.shape).index_add_(0, row, flat * fraction.reshape(-1, 1))
        at_row.index_add_(0, row, flat).sub_(towards_next)
        at_row[1:] += towards_next[: n_rows - 1]
        return at_row, None, None
