"""States and targets to the cross-entropy over the catalogue, without ever holding all of its logits.

Shapes: B batch, Q questions, T events, D embedding, C columns (the items that compete, by default all I).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from influent.models.lookup import Lookup

_CHUNK_BYTES = {"cpu": 4 * 2**20, "cuda": 256 * 2**20}
"""Logits held at a time: few enough to stay in a processor's cache from one pass over them to the next, and enough to
keep a GPU busy."""


@dataclass(frozen=True, kw_only=True)
class CountedTerms:
    """The counted part of logits: Σ_t omega[b, q, t] · (added − taken out)[b, t, item], looked up by (B, T).

    `omega` is zero but for the `reach` events before a question.
    """

    omega_BQT: Tensor
    added: Lookup
    taken_out: Lookup | None
    before_BQ: Tensor
    reach: int

    def events(self, windows: slice, questions: slice) -> slice:
        """Return the events that any of these questions reads."""
        before = self.before_BQ[windows, questions]
        first = max(int(before.min()) - self.reach, 0)
        return slice(first, max(int(before.max()), first + 1))

    def part(self, windows: slice, questions: slice, competitors: Competitors) -> Rows | Entries:
        """Return what the events of these windows add to the logits of these questions, in the cheaper of two forms."""
        events = self.events(windows, questions)
        omega = self.omega_BQT[windows, questions, events]
        tables = [(sign, table) for sign, table in ((1, self.added), (-1, self.taken_out)) if table is not None]
        looked_up = []
        for sign, table in tables:
            row = table.row[windows, events]
            looked_up.append((competitors.columns(table.item[row]), sign * table.value[row]))
        n_entries = sum(table.item.shape[1] for _, table in tables)
        if _few_entries(omega, n_entries, competitors.n_columns):
            return Entries(events, omega, looked_up)
        # One more column takes what belongs to no competitor.
        rows = omega.new_zeros(omega.shape[0], omega.shape[2], competitors.n_columns + 1)
        for column, value in looked_up:
            rows.scatter_add_(2, column, value)
        return Rows(events, omega, rows[..., : competitors.n_columns])


@dataclass(frozen=True)
class Rows:
    """Each event's row of the table written out once, for all questions that read it."""

    events: slice
    omega_BQT: Tensor
    row_BTC: Tensor

    def add_to(self, logits_BQC: Tensor) -> None:
        """Add the part to logits, in place."""
        logits_BQC.baddbmm_(self.omega_BQT, self.row_BTC)

    def gradient(self, error_BQC: Tensor) -> Tensor:
        """Return the gradient of the loss by omega, (B, Q, T)."""
        return error_BQC @ self.row_BTC.transpose(1, 2)


@dataclass(frozen=True)
class Entries:
    """The entries of each event's row, added one by one: less work where few questions read a row of a long table."""

    events: slice
    omega_BQT: Tensor
    tables: list[tuple[Tensor, Tensor]]
    """column and value of each entry, (B, T, J)"""

    def _spread(self, column_BTJ: Tensor) -> Tensor:
        return column_BTJ.flatten(1)[:, None].expand(-1, self.omega_BQT.shape[1], -1)

    def add_to(self, logits_BQC: Tensor) -> None:
        """Add the part to logits, in place; the column behind the last takes what belongs to no competitor."""
        for column, value in self.tables:
            added = self.omega_BQT[..., None] * value[:, None]
            outside = column >= logits_BQC.shape[2]
            if outside.any():
                column, added = column.masked_fill(outside, 0), added.masked_fill(outside[:, None], 0.0)
            logits_BQC.scatter_add_(2, self._spread(column), added.flatten(2))

    def gradient(self, error_BQC: Tensor) -> Tensor:
        """Return the gradient of the loss by omega, (B, Q, T)."""
        total = torch.zeros_like(self.omega_BQT)
        for column, value in self.tables:
            outside = column >= error_BQC.shape[2]
            found = error_BQC.gather(2, self._spread(column.masked_fill(outside, 0)))
            total += (found.view(*found.shape[:2], *value.shape[1:]) * value.masked_fill(outside, 0.0)[:, None]).sum(
                dim=-1
            )
        return total


@dataclass(frozen=True, kw_only=True)
class Competitors:
    """The items whose logits a target's is compared with: all of them, or a sample.

    The sum over the catalogue is estimated from a sample by weighing each drawn item with the inverse of how often
    it was expected to be drawn; the target itself always takes part with weight 1. Bengio and Senécal, Adaptive
    importance sampling to accelerate training of a neural probabilistic language model, 2008.
    """

    n_columns: int
    item_C: Tensor | None = None
    """int64: the item of each column, ascending; None means that column i is item i"""
    log_weight_C: Tensor | None = None
    """float: minus infinity for a column that is there only as somebody's target"""
    column_I: Tensor | None = None
    """int64: the column of each item, `n_columns` where it has none"""

    @classmethod
    def sampled(cls, target_N: Tensor, expected_I: Tensor, n_draws: int) -> Competitors:
        """Draw items, with replacement, in proportion to `expected_I`, and let the targets join them."""
        drawn = torch.multinomial(expected_I, n_draws, replacement=True)
        times = torch.bincount(drawn, minlength=len(expected_I))
        item = torch.unique(torch.cat([drawn, target_N]))
        column = torch.full((len(expected_I),), len(item), device=item.device)
        column[item] = torch.arange(len(item), device=item.device)
        expected = n_draws * expected_I[item] / expected_I.sum()
        log_weight = torch.where(times[item] > 0, (times[item] / expected).log(), -torch.inf)
        return cls(n_columns=len(item), item_C=item, log_weight_C=log_weight.float(), column_I=column)

    def columns(self, items: Tensor) -> Tensor:
        """Return the column of each item."""
        return items if self.column_I is None else self.column_I[items]


class _CrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass over the logits, chunk by chunk.

    The gradient of the mean of log Σ exp(logit_c) − logit_y with respect to the logits is (softmax − onehot) / N, so
    it can be used up while the chunk is there, and only the sums over chunks are kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        s_BQD: Tensor,
        weight_CD: Tensor,
        bias_C: Tensor,
        omega_BQT: Tensor | None,
        target_BQ: Tensor,
        terms: CountedTerms | None,
        competitors: Competitors,
    ) -> Tensor:
        n_targets = int((target_BQ >= 0).sum())
        ds_BQD, dweight_CD, dbias_C = torch.zeros_like(s_BQD), torch.zeros_like(weight_CD), torch.zeros_like(bias_C)
        domega_BQT = None if omega_BQT is None else torch.zeros_like(omega_BQT)
        total = s_BQD.new_zeros(())
        for windows, questions in _chunks(target_BQ, len(weight_CD)):
            s = s_BQD[windows, questions]
            target = target_BQ[windows, questions].reshape(-1, 1)
            logits = torch.addmm(bias_C, s.reshape(-1, s.shape[-1]), weight_CD.T)
            by_window = logits.view(*s.shape[:2], -1)
            if terms is not None:
                part = terms.part(windows, questions, competitors)
                part.add_to(by_window)
            # Where nothing is asked, any column will do: its row of the gradient is set to zero below.
            column = competitors.columns(target.clamp(min=0)).clamp(max=competitors.n_columns - 1)
            wanted = logits.gather(1, column)
            if competitors.log_weight_C is not None:
                logits += competitors.log_weight_C
                logits.scatter_(1, column, wanted)
            largest = logits.amax(dim=1, keepdim=True)
            error = torch.softmax(logits, dim=1, out=logits)
            is_asked = target >= 0
            # log Σ exp(logit) is the largest logit − the logarithm of the largest probability.
            total += ((largest - error.amax(dim=1, keepdim=True).log() - wanted) * is_asked).sum()
            error.scatter_add_(1, column, torch.full_like(wanted, -1.0))
            if not is_asked.all():
                error *= is_asked
            ds_BQD[windows, questions] = (error @ weight_CD).view_as(s)
            dweight_CD.addmm_(error.T, s.reshape(-1, s.shape[-1]))
            dbias_C += error.sum(dim=0)
            if terms is not None and domega_BQT is not None:
                domega_BQT[windows, questions, part.events] = part.gradient(by_window)
        gradients = (ds_BQD, dweight_CD, dbias_C, domega_BQT)
        ctx.gradients = tuple(None if gradient is None else gradient.div_(n_targets) for gradient in gradients)
        return total / n_targets

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        [factor] = upstream
        return (*(None if gradient is None else factor * gradient for gradient in ctx.gradients), None, None, None)


def cross_entropy(
    s_BQD: Tensor,
    weight_ID: Tensor,
    bias_I: Tensor,
    target_BQ: Tensor,
    *,
    terms: CountedTerms | None = None,
    competitors: Competitors | None = None,
) -> Tensor:
    """Return the mean cross-entropy of the targets under the softmax of ⟨s, q_i⟩ + b_i + counted_i over all items.

    Gradients reach the states, the items' vectors and biases, and the weights `omega` of the counted part.

    Args:
        target_BQ: the item that came next; −1 where there is none. At least one is to be there.
        competitors: a sample of the items to estimate the softmax from; by default it runs over all of them.

    Example:
        >>> s, q, b = torch.zeros(1, 2, 3), torch.ones(4, 3), torch.zeros(4)
        >>> round(cross_entropy(s, q, b, torch.tensor([[0, 1]])).exp().item(), 4)  # all four alike
        4.0
    """
    omega_BQT = None if terms is None else terms.omega_BQT
    competitors = competitors or Competitors(n_columns=len(bias_I))
    if competitors.item_C is not None:
        weight_ID, bias_I = weight_ID[competitors.item_C], bias_I[competitors.item_C]
    # Where states come in bfloat16, the logits and their sums are still float32: a softmax needs the digits.
    with torch.autocast(s_BQD.device.type, enabled=False):
        return _CrossEntropy.apply(  # type: ignore[no-any-return, no-untyped-call]
            s_BQD.float(), weight_ID.float(), bias_I, omega_BQT, target_BQ, terms, competitors
        )


def _few_entries(omega_BQT: Tensor, n_entries: int, n_columns: int) -> bool:
    """Return whether entries are the cheaper form.

    A processor pays for each sum. A GPU pays for sums that meet in one place, and rows cost it little but memory: as
    much as the logits where there are as many events as questions.
    """
    _, n_questions, n_events = omega_BQT.shape
    if omega_BQT.is_cuda:
        return n_events > 4 * n_questions
    return n_questions * n_entries < n_columns


def _chunks(target_BQ: Tensor, n_columns: int) -> Iterator[tuple[slice, slice]]:
    """Return windows and questions that together have few enough logits; those without a target are passed over."""
    n_windows, n_questions = target_BQ.shape
    n_rows = max(_CHUNK_BYTES[target_BQ.device.type] // (4 * n_columns), 1)
    step_q = min(n_questions, n_rows)
    step_b = max(n_rows // n_questions, 1)
    asked_BQ = (target_BQ >= 0).cpu()
    for b in range(0, n_windows, step_b):
        windows = slice(b, min(b + step_b, n_windows))
        asked = asked_BQ[windows].any(dim=0).nonzero()
        # Padding behind the last question of all these windows costs nothing.
        n_asked = int(asked.max()) + 1 if len(asked) else 0
        for q in range(0, n_asked, step_q):
            yield windows, slice(q, min(q + step_q, n_asked))
