"""A social model and a log to a ledger of what each event was an answer to."""

from __future__ import annotations

import numpy as np

from influent.data.sequences import Sequences
from influent.influence.ledger import CAUSE, Ledger, LedgerNote, ledger_of
from influent.models.credits import Credits
from influent.models.methods import CreditMethod
from influent.models.social import Social
from influent.settings import check_type


def explain_causes(model: Social, sequences: Sequences) -> Ledger:
    """Say of every event what it was an answer to: shares of its rate, which add up to 1.

    Events on items that came after the fit are left out.

    A row with the source `social` is an event of somebody else; what no such event owns are the item's popularity (the
    row `bias`), its burst, and what the user's own past expected. A share is the chance that this was the cause, by the
    model; over many events shares add up to how many there would be of it. They are not effects.

    The work grows with co-actions along ties, not with users times users.

    Raises:
        SchemaError: the sequences count items or actions by another vocabulary than the model's.
        ConfigError: the log is order-only, or an argument is of another type.
        UnbalancedLedgerError: shares do not add up to 1.
    """
    check_type("model", model, Social, "Social(ties).fit(sequences)")
    check_type("sequences", sequences, Sequences, "build_sequences(events)")
    causes = model.causes(sequences)
    pairs, lines = causes.co_actions, {name: share[:, None] for name, share in causes.of_lines.items()}
    credits = Credits(
        offsets=np.concatenate([[0], np.cumsum(np.bincount(causes.owner, minlength=len(causes.moments)))]),
        place=pairs.source,
        credit=causes.of_events[:, None],
        bias=lines.pop("popularity"),
        context=lines,
    )
    note = LedgerNote.of(model, method=CreditMethod(name="exact"), head=CAUSE)
    items = sequences.item_idx[causes.moments.stop][:, None].astype(np.int64)
    ledger = ledger_of(causes.moments, items, credits, np.ones(items.shape), note)
    ledger.check_balance()
    return ledger
