"""Parts to a whole: an event encoder, a backbone, context lines, a counted part, and a score for every item.

    score(u, t, i) = bias(i) + Σ_c ⟨context_c(u, t), q_i⟩ + ⟨s(u, t), q_i⟩ + counted(u, t, i)

Shapes: B batch, Q questions, T events, D embedding, C candidates, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from influent.data.vectors import ItemVectors
from influent.models.additive import Additive
from influent.models.batch import Batch
from influent.models.config import ModelConfig
from influent.models.counted import CountedPart
from influent.models.encoder import EventEncoder, GivenVectors, embedding_with_unknown
from influent.models.feedback import Feedback
from influent.models.heads import LabelHead, LabelShape, TimeHead
from influent.models.loss import Competitors, cross_entropy
from influent.models.module import AdditiveBackbone, Backbone, SequenceModule
from influent.models.recurrent import Gru, Lstm
from influent.models.transformer import Hstu, SasRec
from influent.models.transitions import TransitionTable


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What of the data decides how large a network is."""

    n_items: int
    n_actions: int
    n_numbers: int
    n_categories: dict[str, int]
    """The number of values of each category column of the events, by its name"""
    n_values: tuple[int, ...]
    """The number of values of each context column"""
    is_timed: bool


class Network(SequenceModule):
    """The weights of a model that learns by gradient, and its two ways of being read: scores and their terms."""

    expected_I: Tensor

    def __init__(
        self,
        config: ModelConfig,
        shape: Shape,
        *,
        table: TransitionTable | None,
        blocks: Sequence[ItemVectors] = (),
        item_counts: Tensor | None = None,
        labels: Sequence[LabelShape] = (),
        time: tuple[Tensor, float, float] | None = None,
        ranks: bool = True,
    ) -> None:
        super().__init__()
        dim = config.embedding_dim
        uses_gaps = config.uses_gaps and shape.is_timed
        self.encoder = EventEncoder(
            dim=dim,
            n_items=shape.n_items,
            n_actions=shape.n_actions,
            n_numbers=shape.n_numbers,
            n_categories=shape.n_categories,
            blocks=blocks,
        )
        self.backbone = _backbone(config, uses_gaps=uses_gaps)
        self.context_in = nn.ModuleList(embedding_with_unknown(n, dim) for n in shape.n_values)
        self.counted = (
            None
            if table is None
            else CountedPart(
                table,
                n_actions=shape.n_actions,
                count_len=min(config.count_len, config.max_len),
                uses_gaps=uses_gaps,
            )
        )
        self.tied = config.tied
        self.item_out = None if config.tied else nn.Embedding(shape.n_items, dim)
        if self.item_out is not None:
            nn.init.normal_(self.item_out.weight, std=0.02)
        self.given_out = nn.ModuleDict({block.name: GivenVectors(block, dim) for block in blocks})
        self.bias = nn.Parameter(torch.zeros(shape.n_items))
        self.ranks = ranks
        self.labels = nn.ModuleList(LabelHead(asked, dim=dim, n_items=shape.n_items) for asked in labels)
        self.time = None if time is None else TimeHead(*time, dim=dim)
        self.dropout, self.event_dropout = config.dropout, config.event_dropout
        self.n_negatives = config.n_negatives if shape.n_items > config.sampled_above else None
        counts = torch.ones(shape.n_items) if item_counts is None else item_counts
        # Word2vec's power: rare items are drawn more often than they occur, and log-Q takes that back.
        self.register_buffer("expected_I", torch.pow(counts.float() + 1.0, 0.75), persistent=False)

    @property
    def n_items(self) -> int:
        """Return the size of the catalogue."""
        return len(self.bias)

    def item_vectors(self) -> Tensor:
        """Return q, the vector of every item as a candidate, (I, D)."""
        q_ID = self.encoder.item_in.weight[:-1] if self.item_out is None else self.item_out.weight
        for given in self.given_out.values():
            q_ID = q_ID + given.everyone()  # type: ignore[operator]
        return q_ID if self.backbone.temperature is None else _of_length_one(q_ID)

    def states(self, batch: Batch, z_BTD: Tensor | None = None) -> Tensor:
        """Return s_BQD, so that a score is ⟨s, q_i⟩ + bias(i) + counted(i); with other event vectors where given."""
        z_BTD = self.encoder(batch) if z_BTD is None else z_BTD
        if self.training and self.event_dropout:
            # Left as large as they are, since that is what masking an event does to the others: nothing.
            z_BTD = z_BTD * (torch.rand(z_BTD.shape[:2], device=z_BTD.device) >= self.event_dropout)[..., None]
        z_BTD = functional.dropout(z_BTD, self.dropout, self.training)
        s_BQD = self.backbone.states(z_BTD, batch)
        for vector_BQD in self._context_vectors(batch):
            s_BQD = s_BQD + vector_BQD
        s_BQD = functional.dropout(s_BQD, self.dropout, self.training)
        temperature = self.backbone.temperature
        return s_BQD if temperature is None else _of_length_one(s_BQD) / temperature

    def n_learned(self, batch: Batch) -> int:
        """Return how many labels the batch has, or how many next items; of a model of times alone how many gaps."""
        if batch.answers is not None:
            return len(batch.answers.label_L)
        return int((batch.target_BQ >= 0).sum() if self.ranks else batch.known_gaps().sum())

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum of the mean losses of what is asked: labels, or what comes next and when."""
        if batch.answers is not None:
            head = self.label_head(batch.answers.name)
            return head.loss(self.raw_answers(batch), batch.answers.label_L)
        s_BQD = self.states(batch)
        total = s_BQD.new_zeros(())
        if self.ranks:
            total = total + self._ranking_loss(s_BQD, batch)
        if self.time is not None and batch.next_gap_BQ is not None and (known := batch.known_gaps()).any():
            total = total - self.time.log_likelihood(s_BQD[known], batch.next_gap_BQ[known]).mean()
        return total

    def _ranking_loss(self, s_BQD: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of the batch's targets over the catalogue, or a sample of a large one."""
        competitors = None
        if self.n_negatives is not None:
            targets = batch.target_BQ[batch.target_BQ >= 0]
            competitors = Competitors.sampled(targets, self.expected_I, self.n_negatives)
        terms = None if self.counted is None else self.counted.terms(batch)
        return cross_entropy(
            s_BQD, self.item_vectors(), self.bias, batch.target_BQ, terms=terms, competitors=competitors
        )

    def label_head(self, name: str) -> LabelHead:
        """Return the head that answers the question of this name."""
        return next(head for head in self.labels if head.shape.name == name)  # type: ignore[return-value, union-attr]

    def raw_answers(self, batch: Batch) -> Tensor:
        """Return ⟨s, v⟩ + b of each of the batch's questions of labels, (L,)."""
        answers = batch.answers
        assert answers is not None
        head = self.label_head(answers.name)
        v_LD = head.direction(answers.item_L, self.item_vectors())
        return (self.states(batch)[answers.row_L, 0] * v_LD).sum(dim=1) + head.offset(answers.item_L)

    def scores(self, batch: Batch) -> Tensor:
        """Return the score of every item at the batch's only question, (B, I)."""
        scores_BI = torch.addmm(self.bias, self.states(batch)[:, 0], self.item_vectors().T)
        return scores_BI if self.counted is None else scores_BI + self.counted.scores(batch)

    def terms(self, batch: Batch, v_BCD: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return each event's term of ⟨s, v⟩ by part of its vector, (B, T, C), and each context column's, (B, C).

        All are float64, at the batch's only question.
        """
        assert isinstance(self.backbone, AdditiveBackbone), "only a sum has terms"
        credits = self.backbone.contributions(self.encoder.parts(batch), batch, v_BCD)
        v_BDC = v_BCD.double().transpose(1, 2)
        context = [(c_BQD.double() @ v_BDC)[:, 0] for c_BQD in self._context_vectors(batch)]
        return credits, context

    def ranking_terms(self, batch: Batch, wanted_BC: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the terms of the scores of the wanted items; what the counts say is the part `counted`."""
        credits, context = self.terms(batch, self.item_vectors()[wanted_BC])
        if self.counted is not None:
            credits["counted"] = self.counted.credits(batch, wanted_BC).double()
        return credits, context

    def _context_vectors(self, batch: Batch) -> list[Tensor]:
        """Return one (B, Q, D) per context column."""
        return [table(batch.context_BQC[..., place]) for place, table in enumerate(self.context_in)]


def _backbone(config: ModelConfig, *, uses_gaps: bool) -> Backbone:
    match config.backbone:
        case "additive":
            return Additive(config, uses_gaps=uses_gaps)
        case "feedback":
            return Feedback(config)
        case "gru":
            return Gru(config)
        case "lstm":
            return Lstm(config)
        case "sasrec":
            return SasRec(config)
        case "hstu":
            return Hstu(config, uses_gaps=uses_gaps)


def _of_length_one(vectors: Tensor) -> Tensor:
    # A vector close to zero stays short: its gradient would be as long as it is short.
    return functional.normalize(vectors, dim=-1, eps=1e-3)
