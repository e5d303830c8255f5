"""A ledger to how many events carry each of its scores."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from influent import schema
from influent.errors import ConfigError
from influent.influence.ledger import Ledger
from influent.settings import check_real, check_type


def evidence(ledger: Ledger, *, share: float = 0.5) -> np.ndarray:
    """Return how many events carry this share of each prediction, int64 (n_predictions,).

    That is the smallest number of events whose credits, without their signs, make up at least `share` of those of all
    events, of others' too where the model has them. It is 0 where no event has a credit.

    Raises:
        ConfigError: `share` is out of range, or the ledger is shortened and does not say what every event has.

    Example:
        Of credits +0.6, −0.3 and +0.2, which are 1.1 together, the first alone has more than half.
    """
    check_type("ledger", ledger, Ledger, "explain(model, moments)")
    check_real("share", share, 0, 1, is_above=True)
    if ledger.note.top is not None:
        raise ConfigError(
            f"this ledger has rows for the largest {ledger.note.top} events only. Explain without 'top' to count all."
        )
    events = ledger.table.filter(pc.is_in(ledger.table.column(schema.SOURCE), pa.array(["event", "social"])))
    # With a row for each part of an event, the event's credit is their sum.
    credits = events.group_by([schema.PREDICTION_ID, schema.SOURCE_EVENT_ID]).aggregate([(schema.CREDIT, "sum")])
    ids = ledger.predictions.column(schema.PREDICTION_ID).to_numpy()
    place = np.searchsorted(ids, credits.column(schema.PREDICTION_ID).to_numpy())
    size = np.abs(credits.column(f"{schema.CREDIT}_sum").to_numpy())
    order = np.lexsort((-size, place))
    place, size = place[order], size[order]
    total = np.bincount(place, weights=size, minlength=len(ids))
    so_far = np.cumsum(size) - np.concatenate([[0.0], np.cumsum(total)])[place]
    # An event is needed where those before it are not enough; a hair's breadth is left to rounding.
    is_needed = so_far - size < share * total[place] * (1 - 1e-12)
    return np.bincount(place[is_needed], minlength=len(ids))
