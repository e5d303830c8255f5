"""A ledger to the same ledger with a note of how far to trust it: its split, what masking events does, the log's order.

Shapes: N moments, X items whose scores are added up, S source events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias, cast

import numpy as np

from influent.data.artefacts import find_artefacts
from influent.data.label_split import LabelSplit
from influent.data.labels import Labels
from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.data.split import Split
from influent.evaluation.measure import removal_of_each, sample_rows
from influent.influence.explain import AnsweringModel, TimeModel, asked_sums, credits_of, next_items
from influent.influence.ledger import Ledger, LedgerNote
from influent.models.credits import Credits, sources_of
from influent.models.methods import CreditMethod
from influent.models.model import Fitted, Model
from influent.models.social_ranker import own_part
from influent.settings import check_int, check_type

_ScoreOf: TypeAlias = Callable[[Sequences], np.ndarray]
"""What is explained at each moment, (N,), where the moments' sequences are these"""


def audit(ledger: Ledger, model: Fitted, split: Split | LabelSplit, *, n_moments: int = 50) -> Ledger:
    """Return the ledger with a fuller note: its split, how far credits are what masking takes, what the log holds.

    At test moments, one a user at most, every event is masked alone, and what that takes from what the ledger explains
    (a score, its margin over the same rivals, an answer, the log-intensity of the next event) is correlated with its
    credit by the ledger's method. Of a model with social terms it is that of users' own events. Nothing is measured of
    credits that no event owns, nor of leaving out, which is right by construction.

    Args:
        model: the model that was explained.
        split: the split, or the split of labels, whose test part was explained.
        n_moments: how many moments at most.

    Raises:
        DataError: no test moment has a history.
        ConfigError: a number or an argument is not what it should be.
    """
    check_type("ledger", ledger, Ledger, "explain(model, split.test)")
    check_type("split", split, (Split, LabelSplit), "split_last(sequences)")
    check_int("n_moments", n_moments, 1)
    log = split.train if isinstance(split, Split) else split.train.moments.sequences
    note = replace(
        ledger.note,
        split=split.hash,
        removal_agreement=_removal_agreement(model, split.test, ledger.note, n_moments),
        artefacts=tuple(find_artefacts(log).sentences()),
    )
    return replace(ledger, note=note)


def _removal_agreement(model: Fitted, asked: Moments | Labels, note: LedgerNote, n_moments: int) -> float | None:
    if note.method == "leave_one_out":
        return None
    method = CreditMethod(name=note.method, n_samples=note.n_samples, n_steps=note.n_steps, seed=note.seed)
    if isinstance(asked, Labels):
        some = asked.take(sample_rows(asked.moments, n_moments))
        moments = some.moments.take(some.moment)
        credits, score_of = _of_answers(cast(AnsweringModel, model), some, method)
    else:
        moments = asked.take(sample_rows(asked, n_moments))
        if note.head == "time":
            credits, score_of = _of_times(cast(TimeModel, model), moments, method)
        else:
            credits, score_of = _of_scores(own_part(cast(Model, model)), moments, note, method)
    offsets, place, lag = sources_of(moments, getattr(model, "max_len", None))
    if len(credits.place) != len(place):
        return None  # credits of features belong to no event
    owner = np.repeat(np.arange(len(moments)), np.diff(offsets))
    taken = removal_of_each(
        score_of(moments.sequences), lambda gone: score_of(moments.sequences.masked(place[gone])), owner, lag
    )
    credit = credits.credit[:, 0]
    if len(credit) < 2 or np.ptp(credit) == 0 or np.ptp(taken) == 0:
        return None
    return float(np.corrcoef(credit, taken)[0, 1])


def _of_scores(model: Model, moments: Moments, note: LedgerNote, method: CreditMethod) -> tuple[Credits, _ScoreOf]:
    scores = model.predict(moments)
    against = None if note.against is None else int(model.vocab.items.require_idx([note.against])[0])
    items, weights_NCX = asked_sums(scores, next_items(moments, scores), note.contrast, against)

    def score_of(sequences: Sequences) -> np.ndarray:
        found = model.predict(replace(moments, sequences=sequences)).astype(np.float64)
        picked_NX = np.take_along_axis(found, items, axis=1)
        return picked_NX[:, 0] if weights_NCX is None else np.einsum("nx,nx->n", weights_NCX[:, 0], picked_NX)

    return credits_of(model, moments, items, method, weights_NCX), score_of


def _of_times(model: TimeModel, moments: Moments, method: CreditMethod) -> tuple[Credits, _ScoreOf]:
    def score_of(sequences: Sequences) -> np.ndarray:
        return model.log_intensity(replace(moments, sequences=sequences), 0.0)

    return model.gap_credits(moments, 0.0, method=method), score_of


def _of_answers(model: AnsweringModel, labels: Labels, method: CreditMethod) -> tuple[Credits, _ScoreOf]:
    def score_of(sequences: Sequences) -> np.ndarray:
        return model.answer_scores(replace(labels, moments=replace(labels.moments, sequences=sequences)))

    return model.answer_credits(labels, method=method), score_of
