"""A network at moments and at labels: what it says there, and the terms of that, batch by batch.

Shapes: N moments, L labels, B batch, C candidates, D embedding, I items, T events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
import torch

from influent.data.labels import Labels
from influent.data.moments import Moments
from influent.models.batch import Batch, Batcher
from influent.models.credits import Credits, sources_of
from influent.models.estimated import leave_one_out
from influent.models.heads import LabelHead, TimeHead
from influent.models.module import AdditiveBackbone
from influent.models.network import Network
from influent.models.ranks import BATCH

Terms: TypeAlias = tuple[dict[str, torch.Tensor], list[torch.Tensor]]
"""Of each event by part, (B, T, C), and of each context column, (B, C)"""


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
        with torch.inference_mode():
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
        with torch.inference_mode():
            for first in range(0, len(labels.moments), BATCH):
                batch = self.batcher.label_batch(labels.take(slice(first, first + BATCH)), self.max_len)
                raw_L = self.network.raw_answers(batch.to(self._device)).double() * factor + shift
                found.append(raw_L.cpu().numpy())
        return np.concatenate(found)

    def score_credits(self, moments: Moments, candidates: np.ndarray) -> Credits:
        """Return the terms of the scores of these items, int (N, C), at each moment."""
        wanted_NC = torch.from_numpy(candidates.astype(np.int64)).to(self._device)

        def terms(batch: Batch, rows: slice) -> Terms:
            return self.network.ranking_terms(batch, wanted_NC[rows])

        def scores(rows: slice, batch: Batch) -> torch.Tensor:
            return self.network.scores(batch).double().gather(1, wanted_NC[rows])

        bias = self.network.bias.detach().double().cpu().numpy()[candidates]
        return self._credits(moments, bias, terms, scores)

    def answer_credits(self, labels: Labels) -> Credits:
        """Return the terms of each answer, one moment a question."""
        head: LabelHead = self.network.label_head(labels.name)
        factor, shift = head.factor_and_shift()
        unknown = np.full(len(labels), self.network.n_items)
        item = unknown if labels.item_idx is None else np.where(labels.item_idx < 0, unknown, labels.item_idx)
        item_L = torch.from_numpy(item.astype(np.int64)).to(self._device)
        with torch.inference_mode():
            v_LD = head.direction(item_L, self.network.item_vectors()) * factor
            bias = (head.offset(item_L).double() * factor + shift).cpu().numpy()[:, None]
        return self._line_credits(labels.moments.take(labels.moment), bias, v_LD, of_labels=True)

    def gap_credits(self, moments: Moments, after_s: float) -> Credits:
        """Return the terms of the log-intensity per second this long after each moment's latest event."""
        head, place = self._time, self._bin(after_s)
        with torch.inference_mode():
            v_ND = head.direction[place].expand(len(moments), -1)
            bias = np.full((len(moments), 1), float(head.bias[place].double() - torch.log(head.unit_s)))
        return self._line_credits(moments, bias, v_ND)

    def faded_credits(self, moments: Moments, candidates: np.ndarray, gaps_s: np.ndarray) -> np.ndarray:
        """Return the credit of each moment's latest event, had it been alone and this long ago, (N, G)."""
        alone = replace(moments, start=moments.stop - 1)
        wanted_NC = torch.from_numpy(candidates.astype(np.int64)[:, None]).to(self._device)
        found = [np.zeros((0, len(gaps_s)))]
        with torch.inference_mode():
            for rows, batch in self._batches(alone):
                assert batch.time_BT is not None
                aged = [replace(batch, asked_BQ=batch.time_BT[:, :1] + gap_s) for gap_s in gaps_s.tolist()]
                terms = [sum(self.network.ranking_terms(one, wanted_NC[rows])[0].values()) for one in aged]
                found.append(torch.stack([term_BTC[:, 0, 0] for term_BTC in terms], dim=1).cpu().numpy())  # type: ignore[index]
        return np.concatenate(found)

    def _line_credits(
        self, moments: Moments, bias: np.ndarray, v_ND: torch.Tensor, *, of_labels: bool = False
    ) -> Credits:
        """Return the terms of ⟨s, v⟩ + bias, one v for each moment."""

        def terms(batch: Batch, rows: slice) -> Terms:
            return self.network.terms(batch, v_ND[rows][:, None])

        def outputs(rows: slice, batch: Batch) -> torch.Tensor:
            value_B = (self.network.states(batch)[:, 0] * v_ND[rows]).sum(dim=1).double()
            return value_B[:, None] + torch.from_numpy(bias[rows]).to(value_B.device)

        return self._credits(moments, bias, terms, outputs, of_labels=of_labels)

    def _credits(
        self,
        moments: Moments,
        bias: np.ndarray,
        terms: Callable[[Batch, slice], Terms],
        outputs: Callable[[slice, Batch], torch.Tensor],
        *,
        of_labels: bool = False,
    ) -> Credits:
        """Collect terms of sums, or estimates by leaving events out, batch by batch."""
        is_sum = isinstance(self.network.backbone, AdditiveBackbone)
        offsets, place, _ = sources_of(moments, self.max_len)
        context = {name: np.zeros(bias.shape) for name in self.context}
        residual = np.zeros(bias.shape)
        found: dict[str, list[np.ndarray]] = {}
        with torch.inference_mode():
            for rows, batch in self._batches(moments, of_labels=of_labels):
                if is_sum:
                    credits, context_BC = terms(batch, rows)
                    for name, term_BC in zip(context, context_BC, strict=True):
                        context[name][rows] = term_BC.cpu().numpy()
                else:
                    whole_BC, credit_BTC = leave_one_out(batch, partial(outputs, rows))
                    credits = {"event": credit_BTC}
                    residual[rows] = whole_BC.cpu().numpy() - bias[rows] - credit_BTC.sum(dim=1).cpu().numpy()
                for name, credit_BTC in credits.items():
                    found.setdefault(name, []).append(credit_BTC[batch.mask_BQT[:, 0]].cpu().numpy())
        none = np.zeros((len(place), bias.shape[1]))
        parts = {name: np.concatenate(credits) for name, credits in found.items()}
        return Credits(
            offsets=offsets,
            place=place,
            credit=sum(parts.values(), none),
            bias=bias,
            context=context,
            parts=parts if len(parts) > 1 else {},
            residual=None if is_sum else residual,
        )

    def _of_states(self, moments: Moments, read: Callable[[torch.Tensor, Batch], torch.Tensor]) -> np.ndarray:
        """Return what is read off the state at each moment, float64 (N,)."""
        found = [np.zeros(0)]
        with torch.inference_mode():
            for _, batch in self._batches(moments):
                found.append(read(self.network.states(batch)[:, 0], batch).double().cpu().numpy())
        return np.concatenate(found)

    def _batches(self, moments: Moments, *, of_labels: bool = False) -> Iterator[tuple[slice, Batch]]:
        for first in range(0, len(moments), BATCH):
            rows = slice(first, first + BATCH)
            batch = self.batcher.moment_batch(moments.take(rows), self.max_len, of_labels=of_labels)
            yield rows, batch.to(self._device)

    def _bin(self, after_s: float) -> int:
        return int(self._time.bin_of(torch.tensor([after_s], dtype=torch.float64))[0])

    @property
    def _time(self) -> TimeHead:
        assert self.network.time is not None
        return self.network.time

    @property
    def _device(self) -> torch.device:
        return self.network.bias.device
