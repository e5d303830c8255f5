"""A model and moments to lists of items, each with the reasons that carried it there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from influent import schema
from influent.data.moments import Moments, ranges
from influent.errors import ConfigError, DataError
from influent.influence.explain import contrast_mixture, credit_method, credits_of
from influent.influence.ledger import Ledger, LedgerNote, join_ledgers, ledger_of
from influent.models.credits import Credits
from influent.models.model import Model, check_fitted
from influent.models.ranks import BATCH, Seen, exclude_seen
from influent.progress import Progress
from influent.run import made
from influent.settings import check_list, check_type

HISTORY = "history"
HANDED_IN = "events handed in"
POPULARITY = "popularity"

Reasons: TypeAlias = Literal["contrast", "score"]
"""Whether reasons say what carries an item past its rivals, or what its score is the sum of."""

N_RIVALS = 10
"""An item's rivals are as many of the best-scored others that may be recommended at the moment."""


@dataclass(frozen=True, kw_only=True)
class Recommendations:
    """Lists of items with reasons.

    Attributes:
        table: one row per (user, rank): `user_id`, `rank`, `item_id`, `title`, `score`, `served_from`,
            `prediction_id`, and `margin`: the score minus the mean score of its rivals, as many as may be recommended
            and 10 at most; the score itself where there are none.
        ledger: the reasons; `ledger.of(prediction_id)` adds up to the row's margin, or with reasons of the score to
            that.
    """

    table: pa.Table
    ledger: Ledger

    def of(self, user_id: Any) -> list[dict[str, Any]]:
        """Return a user's list, each row with its `reasons`: the ledger's rows for it."""
        rows = self.table.filter(pc.equal(self.table.column(schema.USER_ID), user_id)).to_pylist()
        return [{**row, "reasons": self.ledger.of(row[schema.PREDICTION_ID]).to_pylist()} for row in rows]

    def save(self, folder: str | Path) -> None:
        """Write `recommendations.parquet` with the reasons inside, and what to know of them: `recommendations.json`.

        Raises:
            UnbalancedLedgerError: the reasons do not add up; nothing is written.
        """
        self.ledger.check_balance()
        folder = made(folder)
        pq.write_table(self.with_reasons(), folder / "recommendations.parquet", compression="zstd")
        (folder / "recommendations.json").write_text(json.dumps(self.ledger.about(), indent=2) + "\n")

    def with_reasons(self) -> pa.Table:
        """Return the table with one list of reasons per row."""
        rows = self.ledger.table
        reasons = rows.select(_REASON_COLUMNS).to_struct_array().combine_chunks()
        counts = np.bincount(rows.column(schema.PREDICTION_ID).to_numpy(), minlength=self.table.num_rows)
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        chunk = reasons.chunk(0) if isinstance(reasons, pa.ChunkedArray) else reasons
        return self.table.append_column("reasons", pa.ListArray.from_arrays(offsets, chunk))


_REASON_COLUMNS = [
    schema.SOURCE,
    schema.SOURCE_NAME,
    schema.SOURCE_EVENT_ID,
    schema.SOURCE_USER_ID,
    schema.SOURCE_ITEM_ID,
    schema.SOURCE_ACTION,
    schema.LAG,
    schema.GAP_US,
    schema.CREDIT,
]


def recommend(
    model: Model,
    moments: Moments,
    *,
    k: int = 10,
    seen: Seen = "exclude",
    candidates: Sequence[Any] | None = None,
    exclude: Sequence[Any] = (),
    n_reasons: int | None = 3,
    reasons: Reasons = "contrast",
    handed_in: bool = False,
    progress: Progress | None = None,
) -> Recommendations:
    """Return the k best items at each moment, out of the full catalogue, with reasons that add up.

    A user the model was not fitted on is served from the events handed in with the moments. One without any event
    of a known item is served from popularity: the score is then the item's share of all training events.
    `served_from` says which it was.

    Args:
        k: length of each list; shorter where fewer items may be recommended.
        seen: `exclude` leaves out items of the user's history, `keep` lets them come again.
        candidates: ids of the only items that may be recommended.
        exclude: ids of items that may not.
        n_reasons: events with a row of their own for each recommendation; the others are one exact `rest` row.
            None for all.
        reasons: `contrast`: they add up to the margin by which an item is ahead of its rivals, because that is what
            moves it up the list: an event that speaks for every item alike is no reason. `score`: to its score.
        handed_in: whether the moments' events were handed in rather than the log's, so that `served_from` says so.

    Raises:
        ConfigError: `k`, `seen`, `n_reasons` or `reasons` is out of range.
        UnknownIdError: a candidate or an excluded item is not in the catalogue.
        DataError: there is no moment, or no item may be recommended.
    """
    check_fitted(model)
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ConfigError(f"The 'k' parameter of recommend must be an int in the range [1, inf). Got {k!r} instead.")
    if seen not in ("exclude", "keep"):
        raise ConfigError(f"The 'seen' parameter of recommend must be 'exclude' or 'keep'. Got {seen!r} instead.")
    if reasons not in get_args(Reasons):
        raise ConfigError(f"'reasons' of recommend must be 'contrast' or 'score'. Got {reasons!r}.")
    if n_reasons is not None and (not isinstance(n_reasons, int) or n_reasons < 0):
        raise ConfigError(f"'n_reasons' of recommend must be an int in the range [0, inf), or None. Got {n_reasons!r}.")
    check_type("moments", moments, Moments, "latest_moments(sequences)")
    if len(moments) == 0:
        raise DataError("there is nobody to recommend to. Give moments: latest_moments(sequences).")
    for name, ids in (("candidates", candidates), ("exclude", exclude)):
        if ids is not None:
            check_list(name, ids)
    allowed = _allowed(model, candidates, exclude)
    tables: list[pa.Table] = []
    ledgers: list[Ledger] = []
    n_done = 0
    with (progress or Progress()).track("recommend", len(moments)) as advance:
        for first in range(0, len(moments), BATCH):
            batch = moments.take(slice(first, first + BATCH))
            table, ledger = _recommend_batch(model, batch, k, seen, allowed, n_reasons, reasons, n_done, handed_in)
            n_done += table.num_rows
            tables.append(table)
            ledgers.append(ledger)
            advance(len(batch))
    if n_done == 0:
        raise DataError("no item may be recommended to anyone: seen items, candidates and exclude leave none.")
    return Recommendations(table=pa.concat_tables(tables), ledger=join_ledgers(ledgers))


def _allowed(model: Model, candidates: Sequence[Any] | None, exclude: Sequence[Any]) -> np.ndarray:
    """Return which items may be recommended to anyone, bool (n_items,)."""
    allowed = np.full(model.vocab.n_items, candidates is None)
    if candidates is not None:
        allowed[model.vocab.items.require_idx(candidates)] = True
    allowed[model.vocab.items.require_idx(exclude)] = False
    return allowed


def _recommend_batch(
    model: Model,
    moments: Moments,
    k: int,
    seen: Seen,
    allowed: np.ndarray,
    n_reasons: int | None,
    reasons: Reasons,
    first_id: int,
    handed_in: bool,
) -> tuple[pa.Table, Ledger]:
    from_events = _has_known_event(moments)
    scores = np.where(from_events[:, None], model.predict(moments), model.popularity.astype(np.float32))
    ranked = np.where(allowed, scores, -np.inf)
    if seen == "exclude":
        ranked = exclude_seen(ranked, moments)
    # One more than there are rivals, since an item itself may be among them.
    order = np.argsort(-ranked, axis=1, kind="stable")[:, : max(k, N_RIVALS + 1)]
    may = np.isfinite(np.take_along_axis(ranked, order, axis=1))
    items, is_listed = order[:, :k], may[:, :k]
    rivals, is_rival = order[:, : N_RIVALS + 1], may[:, : N_RIVALS + 1]
    everyone, mixture = np.concatenate([items, rivals], axis=1), contrast_mixture(items, rivals, is_rival, N_RIVALS)
    margins = np.einsum("nkx,nx->nk", mixture, np.take_along_axis(scores, everyone, axis=1).astype(np.float64))
    explained = margins if reasons == "contrast" else np.take_along_axis(scores, items, axis=1).astype(np.float64)
    method = credit_method(model)
    credits = credits_of(model, moments, *((everyone, method, mixture) if reasons == "contrast" else (items, method)))
    note = LedgerNote.of(model, method=method, contrast=N_RIVALS if reasons == "contrast" else None, top=n_reasons)
    ledger = _reasons(moments, items, is_listed, credits, explained, from_events, note, first_id)
    row, rank = np.nonzero(is_listed)
    vocab = model.vocab
    chosen = items[row, rank]
    is_new = (moments.user_idx >= len(vocab.users)) | handed_in
    source = np.where(from_events, np.where(is_new, HANDED_IN, HISTORY), POPULARITY)
    table = pa.table(
        {
            schema.USER_ID: moments.sequences.vocab.users.to_ids(moments.user_idx[row]),
            schema.RANK: pa.array((rank + 1).astype(np.int32)),
            schema.ITEM_ID: vocab.items.to_ids(chosen),
            "title": pa.array([vocab.title(item) for item in chosen.tolist()], pa.string()),
            schema.SCORE: scores[row, chosen].astype(np.float64),
            schema.MARGIN: margins[row, rank],
            schema.SERVED_FROM: pa.array(source[row].tolist(), pa.string()),
            schema.PREDICTION_ID: first_id + np.arange(len(row)),
        }
    )
    return table, ledger


def _has_known_event(moments: Moments) -> np.ndarray:
    lengths = moments.stop - moments.start
    owner = np.repeat(np.arange(len(moments)), lengths)
    known = moments.sequences.item_idx[ranges(moments.start, lengths)] >= 0
    return np.bincount(owner[known], minlength=len(moments)) > 0


def _reasons(
    moments: Moments,
    items: np.ndarray,
    is_listed: np.ndarray,
    credits: Credits,
    explained: np.ndarray,
    from_events: np.ndarray,
    note: LedgerNote,
    first_id: int,
) -> Ledger:
    """Return the ledger of all listed items, one moment each, so that lists may differ in length.

    Args:
        items: (N, K), of which `is_listed` are on the lists.
        explained: what the credits add up to, (N, K).
    """
    row, rank = np.nonzero(is_listed)
    # A list from popularity owes nothing to events: its score is all the item's own.
    length = np.where(from_events[row], np.diff(credits.offsets)[row], 0)
    source = ranges(credits.offsets[row], length)
    listed_scores = explained[row, rank]

    def own(term: np.ndarray, otherwise: np.ndarray | float) -> np.ndarray:
        return np.where(from_events[row], term[row, rank], otherwise)[:, None]

    listed = Credits(
        offsets=np.concatenate([[0], np.cumsum(length)]),
        place=credits.place[source],
        credit=credits.credit[source, np.repeat(rank, length)][:, None],
        bias=own(credits.bias, listed_scores),
        context={name: own(term, 0.0) for name, term in credits.context.items()},
        baseline=None if credits.baseline is None else own(credits.baseline, 0.0),
        residual=None if credits.residual is None else own(credits.residual, 0.0),
        n_passes=len(moments) if credits.n_passes is None else credits.n_passes,
    )
    chosen = items[row, rank][:, None]
    ledger = ledger_of(moments.take(row), chosen, listed, listed_scores[:, None], note, first_id)
    ledger.check_balance()
    return ledger
