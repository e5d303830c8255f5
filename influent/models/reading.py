"""A network at moments and at labels: what it says there, and the terms of that, batch by batch.

Shapes: N moments, L labels, B batch, C candidates, X sums of their scores, D embedding, I items, T events, S sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch

from influent.data.labels import Labels
from influent.data.moments import Moments
from influent.models.batch import Batch, Batcher
from influent.models.credits import Credits, sources_of
from influent.models.device import repeatable
from influent.models.estimated import ESTIMATORS
from influent.models.heads import LabelHead, TimeHead
from influent.models.methods import CreditMethod, MethodName
from influent.models.module import AdditiveBackbone, Attentive
from influent.models.network import Network
from influent.models.ranks import BATCH
from influent.models.value import ValueFunction

Terms: TypeAlias = tuple[dict[str, torch.Tensor], list[torch.Tensor]]
"""Of each event by part, (B, T, C), and of each context column, (B, C)"""
Asked: TypeAlias = tuple[torch.Tensor, torch.Tensor | None]
"""Directions v, (B, X, D), and what the counts say of each event, (B, T, X), where there are counts"""


@dataclass(frozen=True)
class Reading:
    """A network, and the batcher that makes its input."""

    network: Network
    batcher: Batcher
    max_len: int
    context: tuple[str, ...]
    """The names of the context columns"""

    def scores(self, moments: Moments) -> np.ndarray:
        """Return the score of every item at each moment, float32 (N, I)."""
        parts = [np.zeros((0, self.network.n_items), np.float32)]
        with torch.inference_mode(), repeatable(self._device):
            for _, batch in self._batches(moments):
                parts.append(self.network.scores(batch).float().cpu().numpy())
        return np.concatenate(parts)

    def expected_gap(self, moments: Moments) -> np.ndarray:
        """Return the expected seconds to the next event, float64 (N,); NaN where there is no event yet."""
        return self._of_states(
            moments,
            lambda s_BD, batch: torch.where(batch.before_BQ[:, 0] > 0, self._time.expected_gap(s_BD), torch.nan),
        )

    def log_density(self, moments: Moments) -> np.ndarray:
        """Return log λ(t) − ∫ λ of the next event's time, float64 (N,); NaN where it has none or none before it."""

        def density(s_BD: torch.Tensor, batch: Batch) -> torch.Tensor:
            assert batch.next_gap_BQ is not None
            gap_B = batch.next_gap_BQ[:, 0]
            return torch.where(gap_B.isnan(), torch.nan, self._time.log_likelihood(s_BD, gap_B.nan_to_num()))

        return self._of_states(moments, density)

    def log_intensity(self, moments: Moments, after_s: float) -> np.ndarray:
        """Return log λ per second this long after each moment's latest event, float64 (N,)."""
        head, place = self._time, self._bin(after_s)
        return self._of_states(
            moments, lambda s_BD, _: head.log_intensity(s_BD)[:, place].double() - torch.log(head.unit_s)
        )

    def answers(self, labels: Labels) -> np.ndarray:
        """Return the logit of each answer of a classification, else the answer in the label's unit, float64 (L,)."""
        factor, shift = self.network.label_head(labels.name).factor_and_shift()
        found = [np.zeros(0)]
        with torch.inference_mode(), repeatable(self._device):
            for first in range(0, len(labels.moments), BATCH):
                batch = self.batcher.label_batch(labels.take(slice(first, first + BATCH)), self.max_len)
                raw_L = self.network.raw_answers(batch.to(self._device)).double() * factor + shift
                found.append(raw_L.cpu().numpy())
        return np.concatenate(found)

    @property
    def methods(self) -> tuple[MethodName, ...]:
        """Return the ways to credits that fit the network, the default one first."""
        exact: tuple[MethodName, ...] = ("exact",) if isinstance(self.network.backbone, AdditiveBackbone) else ()
        attends = isinstance(self.network.backbone, Attentive)
        return exact + tuple(name for name in ESTIMATORS if attends or name != "attention")

    def score_credits(
        self, moments: Moments, candidates: np.ndarray, method: CreditMethod, mixture: np.ndarray | None = None
    ) -> Credits:
        """Return the terms of the scores of these items, int (N, C), or of weighted sums of them, (N, X, C)."""
        wanted_NC = torch.from_numpy(candidates.astype(np.int64)).to(self._device)
        bias = self.network.bias.detach().double().cpu().numpy()[candidates]
        if method.name == "exact":
            found = self._exact(moments, bias, lambda batch, rows: self.network.ranking_terms(batch, wanted_NC[rows]))
            return found if mixture is None else found.mixed(mixture)
        weight_NXC = None if mixture is None else torch.from_numpy(mixture).to(self._device)
        with torch.no_grad():
            q_ID = self.network.item_vectors()

        def asked(batch: Batch, rows: slice) -> Asked:
            v_BXD, counted_BTX = q_ID[wanted_NC[rows]], None
            if self.network.counted is not None:
                counted_BTX = self.network.counted.credits(batch, wanted_NC[rows]).double()
            if weight_NXC is not None:
                v_BXD = weight_NXC[rows].to(v_BXD.dtype) @ v_BXD
                counted_BTX = None if counted_BTX is None else counted_BTX @ weight_NXC[rows].transpose(1, 2)
            return v_BXD, counted_BTX

        if mixture is not None:
            bias = np.einsum("nxc,nc->nx", mixture, bias)
        return self._estimated(moments, bias, asked, method)

    def answer_credits(self, labels: Labels, method: CreditMethod) -> Credits:
        """Return the terms of each answer, one moment a question."""
        head: LabelHead = self.network.label_head(labels.name)
        factor, shift = head.factor_and_shift()
        unknown = np.full(len(labels), self.network.n_items)
        item = unknown if labels.item_idx is None else np.where(labels.item_idx < 0, unknown, labels.item_idx)
        item_L = torch.from_numpy(item.astype(np.int64)).to(self._device)
        with torch.no_grad():
            v_LD = head.direction(item_L, self.network.item_vectors()) * factor
            bias = (head.offset(item_L).double() * factor + shift).cpu().numpy()[:, None]
        return self._line_credits(labels.moments.take(labels.moment), bias, v_LD, method, of_labels=True)

    def gap_credits(self, moments: Moments, after_s: float, method: CreditMethod) -> Credits:
        """Return the terms of the log-intensity per second this long after each moment's latest event."""
        head, place = self._time, self._bin(after_s)
        with torch.no_grad():
            v_ND = head.direction[place].expand(len(moments), -1)
            bias = np.full((len(moments), 1), float(head.bias[place].double() - torch.log(head.unit_s)))
        return self._line_credits(moments, bias, v_ND, method)

    def faded_credits(self, moments: Moments, candidates: np.ndarray, gaps_s: np.ndarray) -> np.ndarray:
        """Return the credit of each moment's latest event, had it been alone and this long ago, (N, G)."""
        alone = replace(moments, start=moments.stop - 1)
        wanted_NC = torch.from_numpy(candidates.astype(np.int64)[:, None]).to(self._device)
        found = [np.zeros((0, len(gaps_s)))]
        with torch.inference_mode(), repeatable(self._device):
            for rows, batch in self._batches(alone):
                assert batch.time_BT is not None
                aged = [replace(batch, asked_BQ=batch.time_BT[:, :1] + gap_s) for gap_s in gaps_s.tolist()]
                terms = [sum(self.network.ranking_terms(one, wanted_NC[rows])[0].values()) for one in aged]
                found.append(torch.stack([term_BTC[:, 0, 0] for term_BTC in terms], dim=1).cpu().numpy())  # type: ignore[index]
        return np.concatenate(found)

    def _line_credits(
        self, moments: Moments, bias: np.ndarray, v_ND: torch.Tensor, method: CreditMethod, *, of_labels: bool = False
    ) -> Credits:
        """Return the terms of ⟨s, v⟩ + bias, one v for each moment."""
        v_N1D = v_ND[:, None]
        if method.name == "exact":
            return self._exact(
                moments, bias, lambda batch, rows: self.network.terms(batch, v_N1D[rows]), of_labels=of_labels
            )
        return self._estimated(moments, bias, lambda _, rows: (v_N1D[rows], None), method, of_labels=of_labels)

    def _exact(
        self, moments: Moments, bias: np.ndarray, terms: Callable[[Batch, slice], Terms], *, of_labels: bool = False
    ) -> Credits:
        """Collect the terms of sums, batch by batch."""
        offsets, place, _ = sources_of(moments, self.max_len)
        context = {name: np.zeros(bias.shape) for name in self.context}
        found: dict[str, list[np.ndarray]] = {}
        with torch.inference_mode(), repeatable(self._device):
            for rows, batch in self._batches(moments, of_labels=of_labels):
                credits, context_BC = terms(batch, rows)
                for name, term_BC in zip(context, context_BC, strict=True):
                    context[name][rows] = term_BC.cpu().numpy()
                for name, credit_BTC in credits.items():
                    found.setdefault(name, []).append(_of_sources(credit_BTC, batch))
        none = np.zeros((len(place), bias.shape[1]))
        parts = {name: np.concatenate(credits) for name, credits in found.items()}
        return Credits(
            offsets=offsets, place=place, credit=sum(parts.values(), none), bias=bias, context=context, parts=parts
        )

    def _estimated(
        self,
        moments: Moments,
        bias: np.ndarray,
        asked: Callable[[Batch, slice], Asked],
        method: CreditMethod,
        *,
        of_labels: bool = False,
    ) -> Credits:
        """Estimate credits of what a state says, batch by batch; what the counts say is a sum and added as it is."""
        offsets, place, _ = sources_of(moments, self.max_len)
        baseline, residual = np.zeros(bias.shape), np.zeros(bias.shape)
        credits, errors = [np.zeros((0, bias.shape[1]))], [np.zeros((0, bias.shape[1]))]
        n_passes = 0
        # Not in inference mode: gradients are taken with respect to vectors that are made here.
        with torch.no_grad(), repeatable(self._device):
            for rows, batch in self._batches(moments, of_labels=of_labels):
                v_BXD, counted_BTX = asked(batch, rows)
                value = ValueFunction(self.network, batch, v_BXD)
                estimate = ESTIMATORS[method.name](value, method)
                credit_BTX = torch.where(value.mask_BT[..., None], estimate.credit_BTX, 0.0)
                baseline[rows] = value.baseline_BX.cpu().numpy()
                residual[rows] = (value.whole_BX - value.baseline_BX - credit_BTX.sum(dim=1)).cpu().numpy()
                credits.append(_of_sources(credit_BTX if counted_BTX is None else credit_BTX + counted_BTX, batch))
                if estimate.error_BTX is not None:
                    errors.append(_of_sources(estimate.error_BTX, batch))
                n_passes += estimate.n_passes
        return Credits(
            offsets=offsets,
            place=place,
            credit=np.concatenate(credits),
            bias=bias,
            baseline=baseline,
            residual=residual,
            error=np.concatenate(errors) if len(errors) > 1 else None,
            n_passes=n_passes,
        )

    def _of_states(self, moments: Moments, read: Callable[[torch.Tensor, Batch], torch.Tensor]) -> np.ndarray:
        """Return what is read off the state at each moment, float64 (N,)."""
        found = [np.zeros(0)]
        with torch.inference_mode(), repeatable(self._device):
            for _, batch in self._batches(moments):
                found.append(read(self.network.states(batch)[:, 0], batch).double().cpu().numpy())
        return np.concatenate(found)

    def _batches(self, moments: Moments, *, of_labels: bool = False) -> Iterator[tuple[slice, Batch]]:
        for first in range(0, len(moments), BATCH):
            rows = slice(first, first + BATCH)
            batch = self.batcher.moment_batch(moments.take(rows), self.max_len, of_labels=of_labels)
            yield rows, batch.to(self._device)

    def _bin(self, after_s: float) -> int:
        return int(self._time.bin_of(torch.tensor([after_s], dtype=torch.float64, device=self._device))[0])

    @property
    def _time(self) -> TimeHead:
        assert self.network.time is not None
        return self.network.time

    @property
    def _device(self) -> torch.device:
        return self.network.bias.device


def _of_sources(terms_BTX: torch.Tensor, batch: Batch) -> np.ndarray:
    """Return the terms of the events before the batch's questions, (S, X), without those of padding."""
    return terms_BTX[batch.mask_BQT[:, 0]].cpu().numpy()
