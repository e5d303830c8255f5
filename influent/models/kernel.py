"""Distances to weights: how much less an event counts, the further back and the longer ago it lies.

Shapes: B batch, Q questions, T events, M kernels, R knots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from influent.models.batch import Batch
from influent.models.gather import gather

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
        log_BQTM = gather(table, batch.lag_BQT.clamp(0, self._max_len))
        if self.gap_log_weight is not None and batch.gap_BQT is not None:
            log_BQTM = log_BQTM + _interpolate(batch.gap_BQT, self.gap_log_weight, self._gap_scale)
        return log_BQTM.masked_fill(~batch.mask_BQT[..., None], -torch.inf)


def _interpolate(distance: Tensor, knots_MR: Tensor, scale: float) -> Tensor:
    """Return the piecewise linear functions through the knots, even in log(1 + distance), (…, M)."""
    last = knots_MR.shape[1] - 1
    place = (torch.log1p(distance) * scale).clamp(max=last)
    left = place.long().clamp(max=last - 1)
    return gather(knots_MR.T, left, place - left)
