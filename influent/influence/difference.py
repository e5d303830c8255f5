"""Two ledgers to the ledger of their difference: why now, and not then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from influent import schema
from influent.data.moments import Moments
from influent.errors import ConfigError
from influent.influence.explain import explain
from influent.influence.ledger import Ledger
from influent.models.methods import MethodName
from influent.models.model import Model
from influent.progress import Progress
from influent.settings import check_type

_KEY = (schema.PREDICTION_ID, schema.SOURCE, schema.SOURCE_NAME, schema.SOURCE_EVENT_ID)


def explain_difference(
    model: Model,
    moments: Moments,
    others: Moments,
    *,
    items: Sequence[Any] | None = None,
    against: Any = None,
    by_part: bool = False,
    method: MethodName | None = None,
    n_samples: int | None = None,
    n_steps: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Ledger:
    """Say of which terms the difference of an item's scores at two moments of one user is the sum.

    Each event has one row, with its credit at the first moment minus that at the other; one that only one of them reads
    has that credit alone. `lag` and `gap_us` are those at the first moment, null where it does not read the event. The
    bias is the same at both and cancels. A standard error takes the two draws to be independent.

    Args:
        moments: the first moments, such as now.
        others: as many other moments of the same users, such as a week before, one for each.
        items: as for `explain`; by default what came next at the first moment.
        against: as for `explain`: then the difference is that of how far the items are ahead of this one.

    Raises:
        ConfigError: the moments are not of the same users one by one, or as for `explain`.

    Example:
        >>> now = moments_at(sequences, ["ann"], [1_709_000_000_000_000])  # doctest: +SKIP
        >>> week_ago = moments_at(sequences, ["ann"], [1_708_395_200_000_000])  # doctest: +SKIP
        >>> explain_difference(model, now, week_ago, items=["tea"]).of(0).to_pandas()  # doctest: +SKIP
    """
    for name, each in (("moments", moments), ("others", others)):
        check_type(name, each, Moments, "moments_at(sequences, users, times)")
    users, other_users = (each.sequences.vocab.users.to_ids(each.user_idx) for each in (moments, others))
    if not users.equals(other_users):
        raise ConfigError(
            f"explain_difference compares moments of the same users one by one. Got {len(users):,} and "
            f"{len(other_users):,} moments, or of other users. Build both with moments_at(sequences, users, times)."
        )
    how: dict[str, Any] = {"method": method, "n_samples": n_samples, "n_steps": n_steps, "seed": seed}
    how |= {"against": against, "by_part": by_part, "progress": progress}
    first = explain(model, moments, items=items, **how)
    asked = np.array(first.predictions.column(schema.ITEM_ID).to_pylist()).reshape(len(moments), -1).tolist()
    other = explain(model, others, items=asked, **how)
    return _subtract(first, other)


def _subtract(first: Ledger, other: Ledger) -> Ledger:
    """Return the first minus the other, row by row; predictions stand in the same order in both."""
    of_other = other.table.set_column(
        other.table.schema.get_field_index(schema.CREDIT),
        schema.CREDIT,
        pc.negate(other.table.column(schema.CREDIT)),
    )
    # Distances are those at the first moment, which the other does not know.
    for name in (schema.TIME_US, schema.LAG, schema.GAP_US):
        place = of_other.schema.get_field_index(name)
        of_other = of_other.set_column(place, name, pa.nulls(len(of_other), of_other.schema.field(name).type))
    both = pa.concat_tables([first.table, of_other])
    both = both.append_column("variance", pc.power(both.column(schema.STANDARD_ERROR), 2))
    plain = [name for name in first.table.column_names if name not in (*_KEY, schema.CREDIT, schema.STANDARD_ERROR)]
    rows = both.group_by(list(_KEY), use_threads=False).aggregate(
        [*((name, "first") for name in plain), (schema.CREDIT, "sum"), ("variance", "sum")]
    )
    rows = rows.rename_columns([name.removesuffix("_first").removesuffix("_sum") for name in rows.column_names])
    rows = rows.append_column(schema.STANDARD_ERROR, pc.sqrt(rows.column("variance")))
    score = pc.subtract(first.predictions.column(schema.SCORE), other.predictions.column(schema.SCORE))
    times = first.predictions.select([schema.PREDICTION_ID, schema.TIME_US])
    place = first.predictions.schema.get_field_index(schema.SCORE)
    ledger = Ledger(
        table=_in_order(_with_times(rows, times)).select(first.table.column_names).cast(first.table.schema),
        predictions=first.predictions.set_column(place, schema.SCORE, score),
        note=replace(first.note, is_difference=True, n_passes=first.note.n_passes + other.note.n_passes),
    )
    ledger.check_balance()
    return ledger


def _with_times(rows: pa.Table, times: pa.Table) -> pa.Table:
    """Return rows with the time of their prediction, those too that only the other moment has."""
    prediction = rows.column(schema.PREDICTION_ID)
    found = times.column(schema.TIME_US).take(pc.index_in(prediction, times.column(schema.PREDICTION_ID)))
    return rows.set_column(rows.schema.get_field_index(schema.TIME_US), schema.TIME_US, found)


def _in_order(rows: pa.Table) -> pa.Table:
    """Return rows by prediction: those of no event first, then events by the size of their credit, parts together."""
    prediction, event = (rows.column(name) for name in (schema.PREDICTION_ID, schema.SOURCE_EVENT_ID))
    is_event = pc.is_valid(event).to_numpy()
    event_id = pc.fill_null(event, -1).to_numpy()
    _, whole = np.unique(np.stack([prediction.to_numpy(), event_id]), axis=1, return_inverse=True)
    size = np.abs(np.bincount(whole, weights=rows.column(schema.CREDIT).to_numpy()))[whole]
    return rows.take(np.lexsort((-event_id, np.where(is_event, -size, 0), is_event, prediction.to_numpy())))
