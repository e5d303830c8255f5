"""States and targets to the cross-entropy over the full catalogue, without ever holding all of its logits.

Shapes: N states, D embedding, I items.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CHUNK_BYTES = 16 * 2**20
"""Logits held at a time. Small enough to be allocated from memory that is already mapped."""


class _CrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass over the logits, chunk by chunk.

    The gradient of the mean of log Σ exp(⟨s, q_i⟩ + b_i) − (⟨s, q_y⟩ + b_y) with respect to the logits is
    (softmax − onehot) / N, so it can be used up while the chunk is there, and only the sums over chunks are kept.
    """

    @staticmethod
    def forward(ctx: Any, s_ND: Tensor, weight_ID: Tensor, bias_I: Tensor, target_N: Tensor) -> Tensor:
        n = len(s_ND)
        rows = max(_CHUNK_BYTES // (4 * len(weight_ID)), 1)
        ds_ND, dweight_ID, dbias_I = torch.empty_like(s_ND), torch.zeros_like(weight_ID), torch.zeros_like(bias_I)
        total = s_ND.new_zeros(())
        for first in range(0, n, rows):
            s, y = s_ND[first : first + rows], target_N[first : first + rows, None]
            logits = torch.addmm(bias_I, s, weight_ID.T)
            largest = logits.amax(dim=1, keepdim=True)
            wanted = logits.gather(1, y)
            p = logits.sub_(largest).exp_()
            mass = p.sum(dim=1, keepdim=True)
            total += (mass.log() + largest - wanted).sum()
            p.div_(mass)
            p.scatter_add_(1, y, torch.full_like(mass, -1.0))
            torch.mm(p, weight_ID, out=ds_ND[first : first + rows])
            dweight_ID.addmm_(p.T, s)
            dbias_I += p.sum(dim=0)
        ctx.save_for_backward(ds_ND / n, dweight_ID / n, dbias_I / n)
        return total / n

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        ds_ND, dweight_ID, dbias_I = ctx.saved_tensors
        [gradient] = gradients
        return gradient * ds_ND, gradient * dweight_ID, gradient * dbias_I, None


def cross_entropy(s_ND: Tensor, weight_ID: Tensor, bias_I: Tensor, target_N: Tensor) -> Tensor:
    """Return the mean cross-entropy of the targets under softmax(⟨s, q_i⟩ + b_i) over all items.

    Example:
        >>> s, q, b = torch.zeros(2, 3), torch.ones(4, 3), torch.zeros(4)
        >>> round(cross_entropy(s, q, b, torch.tensor([0, 1])).exp().item(), 4)  # all four alike
        4.0
    """
    return _CrossEntropy.apply(s_ND, weight_ID, bias_I, target_N)  # type: ignore[no-any-return, no-untyped-call]
