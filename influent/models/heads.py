"""States to answers: heads that read one state for different questions, each linear in it.

An answer is ⟨s, v⟩ + b, where v and b depend on what is asked and not on the history. So a sum of events stays a sum
whichever head reads it, and its credits come about in the same way.

Shapes: L questions, Q questions of a row, B batch, D embedding, I items, K bins of time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from influent.data.labels import Kind, Labels


@dataclass(frozen=True)
class LabelShape:
    """What of the training labels decides how a head begins; plain numbers, kept with the model."""

    name: str
    question: str
    """What is asked, whatever its name."""
    kind: Kind
    is_about_items: bool
    mean: float
    scale: float
    """Standard deviation of a regression's labels; 1 for a classification"""
    positive_weight: float = 1.0
    """How much more a positive label counts in training; what that does to the logit is taken back in answers"""


def label_shape(train: Labels, class_weight: str) -> LabelShape:
    """Read off training labels how a head begins."""
    mean, is_class = float(train.label.mean()), train.kind == "classification"
    weight = (1 - mean) / mean if is_class and class_weight == "balanced" and 0 < mean < 1 else 1.0
    return LabelShape(
        name=train.name,
        question=train.question,
        kind=train.kind,
        is_about_items=train.item_idx is not None,
        mean=mean,
        scale=1.0 if is_class else max(float(train.label.std()), 1e-6),
        positive_weight=weight,
    )


class LabelHead(nn.Module):
    """A logit, or a number in the label's unit, about a user or about an item for a user."""

    def __init__(self, shape: LabelShape, *, dim: int, n_items: int) -> None:
        super().__init__()
        self.shape = shape
        self.of_user = nn.Parameter(torch.zeros(dim))
        self.of_item = nn.Linear(dim, dim, bias=False) if shape.is_about_items else None
        self.item_bias = nn.Embedding(n_items + 1, 1, padding_idx=n_items) if shape.is_about_items else None
        if self.item_bias is not None:
            nn.init.zeros_(self.item_bias.weight)
        is_class = shape.kind == "classification"
        odds = shape.positive_weight * shape.mean / max(1 - shape.mean, 1e-6)
        # An answer begins at the base rate; a regression's is counted from its mean, in deviations.
        self.bias = nn.Parameter(torch.tensor(math.log(max(odds, 1e-6)) if is_class else 0.0))

    def direction(self, item_L: Tensor, q_ID: Tensor) -> Tensor:
        """Return v of each question, (L, D), from its item and the vectors of all items."""
        if self.of_item is None:
            return self.of_user.expand(len(item_L), -1)
        known = functional.pad(q_ID, (0, 0, 0, 1))
        return self.of_user + self.of_item(known[item_L])  # type: ignore[no-any-return]

    def offset(self, item_L: Tensor) -> Tensor:
        """Return b of each question, (L,)."""
        if self.item_bias is None:
            return self.bias.expand(len(item_L))
        return self.bias + self.item_bias(item_L)[:, 0]  # type: ignore[no-any-return]

    def loss(self, raw_L: Tensor, label_L: Tensor) -> Tensor:
        """Return the mean log loss, or the mean squared error in squared deviations."""
        if self.shape.kind == "regression":
            return functional.mse_loss(raw_L, (label_L - self.shape.mean) / self.shape.scale)
        weight = label_L.new_tensor(self.shape.positive_weight)
        return functional.binary_cross_entropy_with_logits(raw_L, label_L, pos_weight=weight)

    def factor_and_shift(self) -> tuple[float, float]:
        """Return the factor and the shift that turn ⟨s, v⟩ + b into a logit, or a number in the label's unit.

        With positive examples weighed w times, the learned odds are w times the true ones.
        """
        if self.shape.kind == "regression":
            return self.shape.scale, self.shape.mean
        return 1.0, -math.log(self.shape.positive_weight)


_LARGEST_LOG = 30.0
"""Beyond this an intensity means at once, or never; it keeps sums finite."""


class TimeHead(nn.Module):
    """When the next event comes: an intensity that is constant within each of K bins of time since the latest event.

    log λ_k = ⟨s, v_k⟩ + b_k, so each event multiplies the intensity. A piecewise exponential model: Friedman, 1982.
    A gap on the edge of two bins belongs to the earlier, so that equal gaps cannot make an intensity grow without
    bound; a gap of nothing counts as half of the shortest that is not nothing.
    """

    edges_K: Tensor
    unit_s: Tensor
    shortest_s: Tensor

    def __init__(self, edges_K: Tensor, unit_s: float, shortest_s: float, *, dim: int) -> None:
        """Begin bins at `edges_K`, the first at 0; the last is open. Time is counted in units of `unit_s` seconds."""
        super().__init__()
        self.register_buffer("edges_K", edges_K)
        self.register_buffer("unit_s", torch.tensor(unit_s, dtype=torch.float64))
        self.register_buffer("shortest_s", torch.tensor(shortest_s, dtype=torch.float64))
        self.direction = nn.Parameter(torch.zeros(len(edges_K), dim))
        self.bias = nn.Parameter(torch.zeros(len(edges_K)))

    def log_intensity(self, s: Tensor) -> Tensor:
        """Return log λ of each bin, per unit of time, (…, K)."""
        return s @ self.direction.T + self.bias

    def log_likelihood(self, s: Tensor, gap_s: Tensor) -> Tensor:
        """Return log λ(gap) − ∫ λ up to the gap, as a density per second, (…)."""
        log_NK = self.log_intensity(s)
        gap = self._in_units(gap_s)
        place = self.bin_of(gap_s)
        widths = torch.diff(self.edges_K, append=self.edges_K.new_full((1,), torch.inf))
        spent_NK = (gap[..., None] - self.edges_K).clamp(min=0).minimum(widths)
        survived = (log_NK.clamp(max=_LARGEST_LOG).exp() * spent_NK).sum(dim=-1)
        return log_NK.gather(-1, place[..., None])[..., 0] - survived - torch.log(self.unit_s).float()

    def bin_of(self, gap_s: Tensor) -> Tensor:
        """Return the bin in which a gap lies, int64."""
        return (torch.searchsorted(self.edges_K, self._in_units(gap_s).contiguous()) - 1).clamp(min=0)

    def _in_units(self, gap_s: Tensor) -> Tensor:
        return (gap_s.double().maximum(self.shortest_s / 2) / self.unit_s).float()

    def expected_gap(self, s: Tensor) -> Tensor:
        """Return the mean time to the next event in seconds, ∫ exp(−∫ λ), (…)."""
        rate_NK = self.log_intensity(s).double().clamp(-_LARGEST_LOG, _LARGEST_LOG).exp()
        widths = torch.diff(self.edges_K).double()
        hazard = rate_NK[..., :-1] * widths
        alive = torch.exp(-functional.pad(hazard.cumsum(dim=-1), (1, 0)))
        within = -torch.expm1(-hazard) / rate_NK[..., :-1].clamp(min=1e-12)
        total = (alive[..., :-1] * within).sum(dim=-1) + alive[..., -1] / rate_NK[..., -1].clamp(min=1e-12)
        return total * self.unit_s


_FEWEST = 50
"""A bin at the long end holds at least this many training gaps."""


def time_bins(gap_s: Tensor, n_bins: int = 32) -> tuple[Tensor, float, float]:
    """Return edges at quantiles of the gaps in units of their mean, that unit, and the shortest gap, in seconds.

    Gaps have long tails, and the last bin would take an intensity to be constant all along one. So it is halved, up
    to four times, while there are gaps enough.
    Bins narrower than a thousandth of the unit are joined: a log with coarse times has many equal gaps, and an
    intensity on an interval of no length has no bound.
    """
    unit = max(float(gap_s.double().mean()), 1e-6)
    shares = [place / n_bins for place in range(1, n_bins)]
    left = 1 / n_bins
    for _ in range(4):
        left /= 2
        if left * len(gap_s) >= _FEWEST:
            shares.append(1 - left)
    edges = [0.0]
    for edge in torch.quantile(_some(gap_s.double()) / unit, torch.tensor(shares, dtype=torch.float64)).tolist():
        if edge - edges[-1] > 1e-3:
            edges.append(edge)
    positive = gap_s[gap_s > 0]
    shortest = float(positive.min()) if len(positive) else unit
    return torch.tensor(edges, dtype=torch.float32), unit, shortest


def _some(values: Tensor, n: int = 1_000_000) -> Tensor:
    """Return evenly spaced values of a long tensor: quantiles of more are refused, and no better."""
    return values if len(values) <= n else values[:: len(values) // n + 1]
