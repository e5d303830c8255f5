"""States and targets to the cross-entropy over the full catalogue, without ever holding all of its logits.

Shapes: N states, D embedding, I items, L latest events, J entries of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from influent.models.lookup import Lookup

_CHUNK_BYTES = 16 * 2**20
"""Logits held at a time. Small enough to be allocated from memory that is already mapped."""


@dataclass(frozen=True, kw_only=True)
class CountedTerms:
    """The counted part of N rows of logits: Σ_l omega[n, l] · (added − taken out)[n, l, i], looked up by (N, L)."""

    omega_NL: Tensor
    added: Lookup
    taken_out: Lookup | None = None

    def lags(self, rows: slice) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Return for one lag after the other its place, items (n, J) and signed values (n, J)."""
        for sign, table in ((1, self.added), (-1, self.taken_out)):
            if table is not None:
                for lag, row in enumerate(table.row[rows].unbind(1)):
                    yield lag, table.item[row], sign * table.value[row]


def add_counted(logits: Tensor, terms: CountedTerms, rows: slice) -> None:
    """Add the counted part of these rows to their logits, in place."""
    omega = terms.omega_NL[rows]
    for lag, item, value in terms.lags(rows):
        logits.scatter_add_(1, item, value * omega[:, lag, None])


class _CrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass over the logits, chunk by chunk.

    The gradient of the mean of log Σ exp(logit_i) − logit_y with respect to the logits is (softmax − onehot) / N, so
    it can be used up while the chunk is there, and only the sums over chunks are kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        s_ND: Tensor,
        weight_ID: Tensor,
        bias_I: Tensor,
        omega_NL: Tensor | None,
        target_N: Tensor,
        terms: CountedTerms | None,
    ) -> Tensor:
        n = len(s_ND)
        n_rows = max(_CHUNK_BYTES // (4 * len(weight_ID)), 1)
        ds_ND, dweight_ID, dbias_I = torch.empty_like(s_ND), torch.zeros_like(weight_ID), torch.zeros_like(bias_I)
        domega_NL = None if omega_NL is None else torch.zeros_like(omega_NL)
        total = s_ND.new_zeros(())
        for first in range(0, n, n_rows):
            rows = slice(first, min(first + n_rows, n))
            s, y = s_ND[rows], target_N[rows, None]
            logits = torch.addmm(bias_I, s, weight_ID.T)
            if terms is not None:
                add_counted(logits, terms, rows)
            largest = logits.amax(dim=1, keepdim=True)
            wanted = logits.gather(1, y)
            error = logits.sub_(largest).exp_()
            mass = error.sum(dim=1, keepdim=True)
            total += (mass.log() + largest - wanted).sum()
            error.div_(mass)
            error.scatter_add_(1, y, torch.full_like(mass, -1.0))
            torch.mm(error, weight_ID, out=ds_ND[rows])
            dweight_ID.addmm_(error.T, s)
            dbias_I += error.sum(dim=0)
            if terms is not None and domega_NL is not None:
                for lag, item, value in terms.lags(rows):
                    domega_NL[rows, lag] += (error.gather(1, item) * value).sum(dim=1)
        gradients = (ds_ND, dweight_ID, dbias_I, domega_NL)
        ctx.gradients = tuple(None if gradient is None else gradient / n for gradient in gradients)
        return total / n

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        [factor] = upstream
        return (*(None if gradient is None else factor * gradient for gradient in ctx.gradients), None, None)


def cross_entropy(
    s_ND: Tensor, weight_ID: Tensor, bias_I: Tensor, target_N: Tensor, terms: CountedTerms | None = None
) -> Tensor:
    """Return the mean cross-entropy of the targets under the softmax of ⟨s, q_i⟩ + b_i + counted_i over all items.

    Gradients reach the states, the items' vectors and biases, and the weights `omega` of the counted part.

    Example:
        >>> s, q, b = torch.zeros(2, 3), torch.ones(4, 3), torch.zeros(4)
        >>> round(cross_entropy(s, q, b, torch.tensor([0, 1])).exp().item(), 4)  # all four alike
        4.0
    """
    omega_NL = None if terms is None else terms.omega_NL
    return _CrossEntropy.apply(s_ND, weight_ID, bias_I, omega_NL, target_N, terms)  # type: ignore[no-any-return, no-untyped-call]
