"""The names of columns and the shapes of tables, written once."""

from __future__ import annotations

import pyarrow as pa

# Event table: one row per behaviour. Context columns follow as the log wrote them.
EVENT_ID = "event_id"
USER_ID = "user_id"
ITEM_ID = "item_id"
ACTION = "action"
TIME_US = "time_us"
VALUE = "value"
SCENE = "scene"
SOURCE_USER_ID = "source_user_id"

EVENT_COLUMNS = (EVENT_ID, USER_ID, ITEM_ID, ACTION, TIME_US, VALUE, SCENE, SOURCE_USER_ID)
"""Every event table has these, in this order; what a log does not say is null."""

EVENT_PARTS = ("item", "action", "numbers", "counted")
"""Parts of an event's credit that every log may have; category columns and blocks of vectors are called otherwise."""

DEFAULT_ACTION = "event"
"""The action of every event in a log that names none."""

# Edge table: who is tied to whom.
TARGET_USER_ID = "target_user_id"
KIND = "kind"
PROBABILITY = "probability"

# Ledger: one row per (prediction, source of credit).
PREDICTION_ID = "prediction_id"
HEAD = "head"
SOURCE = "source"
SOURCE_NAME = "source_name"
SOURCE_EVENT_ID = "source_event_id"
SOURCE_ITEM_ID = "source_item_id"
SOURCE_ACTION = "source_action"
LAG = "lag"
GAP_US = "gap_us"
CREDIT = "credit"
STANDARD_ERROR = "standard_error"
SCORE = "score"

# Recommendations.
RANK = "rank"
MARGIN = "margin"
SERVED_FROM = "served_from"


def ledger_schema(user_type: pa.DataType, item_type: pa.DataType) -> pa.Schema:
    """Columns of a ledger over a log with these id types.

    `head` is the readout that is explained. `source` is one of `event`, `social` (an event of somebody else, whom
    `source_user_id` names), `bias`, `context` and `rest` (the exact sum of what a shortened ledger leaves out), and
    where credits are estimated `baseline` (what a history that says nothing adds) and `residual`; `source_name` says
    which context column. The columns about an event are null in the rows that no event owns. `lag` counts the user's
    own events back from the moment (1 is the latest). `gap_us` is the
    time from the event to the moment, or to the latest event where the moment is not known; null in an order-only
    log. `credit` is in the unit of the score; `standard_error` too, of credits that are drawn, and null of others.
    """
    return pa.schema(
        [
            (PREDICTION_ID, pa.int64()),
            (USER_ID, user_type),
            (TIME_US, pa.int64()),
            (ITEM_ID, item_type),
            (HEAD, pa.string()),
            (SOURCE, pa.string()),
            (SOURCE_NAME, pa.string()),
            (SOURCE_EVENT_ID, pa.int64()),
            (SOURCE_USER_ID, user_type),
            (SOURCE_ITEM_ID, item_type),
            (SOURCE_ACTION, pa.string()),
            (LAG, pa.int32()),
            (GAP_US, pa.int64()),
            (CREDIT, pa.float64()),
            (STANDARD_ERROR, pa.float64()),
        ]
    )
