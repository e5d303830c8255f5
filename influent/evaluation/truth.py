"""A ledger and the true causes of what it predicts to how well credits find them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from scipy import stats

from influent import schema
from influent.errors import DataError
from influent.influence.ledger import Ledger


@dataclass(frozen=True)
class CauseRecovery:
    """How often the true cause of an event gets the largest credit, beside what needs no model."""

    n_predictions: int
    """Predictions whose true cause is among the events that the model read."""
    largest_credit: float
    """Share of them where the largest credit goes to the cause."""
    latest_event: float
    """Share where the cause is the latest event."""
    at_random: float
    """Share that naming one of the events read at random would get right, on average."""
    auc: float
    """Over all pairs of one of these predictions and an event read for it: the probability that a cause has a larger
    credit than an event that is none (area under the ROC curve)."""
    average_precision: float
    """Over the same pairs, sorted by credit: the area under the curve of precision over recall."""
    precision_at_random: float
    """What credits at random would have as average precision: the share of these events that are causes."""


def recover_causes(ledger: Ledger, cause_event_id: np.ndarray) -> CauseRecovery:
    """Compare each prediction's credits with the event that truly caused what came next.

    Args:
        ledger: a full ledger, without `top`.
        cause_event_id: the `event_id` of each prediction's true cause, int64 (n_predictions,); −1 where there is none.

    Raises:
        DataError: the ledger is shortened, or no prediction has its cause among the events read.

    Example:
        The first prediction's cause, event 7, has the larger credit of two; the second has none.

        >>> recover_causes(ledger, np.array([7, -1]))  # doctest: +SKIP
        CauseRecovery(n_predictions=1, largest_credit=1.0, latest_event=0.0, at_random=0.5, auc=1.0, ...)
    """
    if ledger.note.top is not None:
        raise DataError("causes are looked for among all events. Explain without top.")
    rows = ledger.table.filter(pc.equal(ledger.table.column(schema.SOURCE), "event"))
    prediction = rows.column(schema.PREDICTION_ID).to_numpy()
    is_cause = rows.column(schema.SOURCE_EVENT_ID).to_numpy() == cause_event_id[prediction]
    known = np.bincount(prediction[is_cause], minlength=len(ledger)) > 0
    if not known.any():
        raise DataError("no prediction has its cause among the events that the model read.")
    among = known[prediction]
    prediction, is_cause = prediction[among], is_cause[among]
    credit = rows.column(schema.CREDIT).to_numpy()[among]
    lag = rows.column(schema.LAG).to_numpy()[among]
    # Stable, so that the last of a prediction's rows is the one with its largest credit.
    order = np.lexsort((credit, prediction))
    is_largest = np.append(np.diff(prediction[order]) > 0, True)
    n = int(known.sum())
    return CauseRecovery(
        n_predictions=n,
        largest_credit=float(is_cause[order][is_largest].sum() / n),
        latest_event=float((is_cause & (lag == 1)).sum() / n),
        at_random=float((1 / np.bincount(prediction, minlength=len(ledger))[known]).mean()),
        auc=float(stats.mannwhitneyu(credit[is_cause], credit[~is_cause]).statistic / (n * (~is_cause).sum())),
        average_precision=average_precision(credit, is_cause),
        precision_at_random=float(is_cause.mean()),
    )


def average_precision(score: np.ndarray, is_true: np.ndarray) -> float:
    """Return the area under the steps of precision over recall, from the largest score to the smallest.

    Equal scores are one step.

    Example:
        >>> round(average_precision(np.array([3.0, 2.0, 1.0]), np.array([True, False, True])), 4)  # (1 + 2/3) / 2
        0.8333
    """
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    found = np.cumsum(is_true[order])[ends]
    return float((np.diff(found, prepend=0) * found / (ends + 1)).sum() / found[-1])
