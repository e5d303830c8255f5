"""The ledger: for every prediction, one row per source of credit, and the score to which they add up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from influent import schema
from influent.data.moments import Moments
from influent.errors import UnbalancedLedgerError, UnknownIdError
from influent.influence.noted import read_noted
from influent.models.credits import Credits, Exactness
from influent.models.methods import CreditMethod, MethodName
from influent.models.model import Fitted
from influent.run import made

TOLERANCE = 1e-4
"""How far the credits of a prediction may add up to something else than its score."""


_EXACTNESS: dict[Exactness, str] = {
    "exact": "exact, each what taking its event out takes away",
    "closes": "sums that close, in which events also change each other's weights",
    "estimated": "estimates, which leave a residual",
}

CAUSE = "cause"
"""The head whose credits are shares of an event: what it was an answer to"""


@dataclass(frozen=True, kw_only=True)
class LedgerNote:
    """What a reader of a ledger has to know."""

    model: str
    fitted_on: str
    head: str
    contrast: int | None
    """Scores and credits are those of an item minus the mean of this many rivals; None for the item's own."""
    top: int | None
    """How many events of each prediction have a row of their own; None for all."""
    by_part: bool = False
    """Whether an event has a row for each part of it, named in `source_name`, instead of one."""
    exactness: Exactness = "exact"
    """`exact`: credits add up and each is what leaving its event out takes away; `closes`: they add up, and events
    also change each other's weights; `estimated`: they leave a residual, which has a row of its own."""
    method: MethodName = "exact"
    """How credits are come by, and with the three settings below how it was set: see `CreditMethod`."""
    n_samples: int | None = None
    n_steps: int | None = None
    seed: int | None = None
    n_passes: int = 0
    """How many histories the model read for the credits of all predictions."""
    against: Any = None
    """The id of one other item that the item's score and credits are held against; None where none was named."""
    is_difference: bool = False
    """Whether scores and credits are those of a moment minus those of another: see `explain_difference`."""
    split: str = ""
    """Hash of the split whose test predictions these are; empty for other moments."""
    removal_agreement: float | None = None
    """Correlation, over a sample of predictions, of each event's credit and what masking it takes from the score; None
    where that was not measured."""
    artefacts: tuple[str, ...] = ()
    """What was found in the order of the log that could be mistaken for influence"""
    caution: str = "Credits say how the model came to its score. They are not effects."

    def how(self) -> str:
        """Return in words how credits are come by."""
        settings = {"n_samples": self.n_samples, "n_steps": self.n_steps, "seed": self.seed}
        given = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
        return self.method.replace("_", " ") + (f" ({given})" if given else "")

    def agreement(self, *, has_social: bool) -> str:
        """Return in a sentence how far credits are what masking events takes away."""
        if self.method == "leave_one_out":
            return "Each credit is what masking its event takes away, since that is how it is come by."
        if self.removal_agreement is None:
            return "Whether credits are what masking events takes away was not measured (influent.audit does)."
        of = "margin" if self.contrast is not None or self.against is not None else "score"
        whose = "a user's own event" if has_social else "an event"
        return (
            f"The credit of {whose} and what masking it takes from the {of} correlate with "
            f"{self.removal_agreement:.4f}, over a sample of moments."
        )

    @classmethod
    def of(
        cls,
        model: Fitted,
        *,
        method: CreditMethod,
        contrast: int | None = None,
        against: Any = None,
        top: int | None = None,
        by_part: bool = False,
        head: str = "ranking",
    ) -> LedgerNote:
        """Return the note of what a model says of one head."""
        exactness: Exactness = getattr(model, "exactness", "exact") if method.name == "exact" else "estimated"
        return cls(
            model=model.name,
            fitted_on=model.fitted_on,
            head=head,
            contrast=contrast,
            against=against,
            top=top,
            by_part=by_part,
            exactness=exactness,
            method=method.name,
            n_samples=method.n_samples,
            n_steps=method.n_steps,
            seed=method.seed,
        )


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Credits that add up.

    Attributes:
        table: one row per (prediction, source), columns as in `schema.ledger_schema`.
        predictions: one row per prediction: `prediction_id`, `user_id`, `time_us`, `item_id`, `score`.
        note: model, head, whether it is a contrast.
    """

    table: pa.Table
    predictions: pa.Table
    note: LedgerNote

    def __len__(self) -> int:
        return int(self.predictions.num_rows)

    def gaps(self) -> np.ndarray:
        """Return how far each prediction's credits are from its score, float64 (n_predictions,)."""
        ids = self.predictions.column(schema.PREDICTION_ID).to_numpy()
        place = np.searchsorted(ids, self.table.column(schema.PREDICTION_ID).to_numpy())
        total = np.bincount(place, weights=self.table.column(schema.CREDIT).to_numpy(), minlength=len(ids))
        return np.asarray(np.abs(total - self.predictions.column(schema.SCORE).to_numpy()))

    def largest_gap(self) -> float:
        """Return the largest of `gaps`, 0 for an empty ledger."""
        return float(self.gaps().max(initial=0.0))

    def shares(self) -> dict[str, float]:
        """Return how much of the size of scores each source carries: event, bias, context, …; they add up to 1.

        The size of a source in a prediction is its rows' sum without its sign; sizes are added up over predictions.
        """
        events_and_rest = pc.if_else(
            pc.equal(self.table.column(schema.SOURCE), "rest"), "event", self.table.column(schema.SOURCE)
        )
        rows = pa.table(
            {"source": events_and_rest, "id": self.table.column(schema.PREDICTION_ID), "credit": self.table["credit"]}
        )
        sums = rows.group_by(["source", "id"]).aggregate([("credit", "sum")])
        sizes = sums.append_column("size", pc.abs(sums.column("credit_sum")))
        by_source = sizes.group_by("source").aggregate([("size", "sum")]).sort_by([("size_sum", "descending")])
        total = pc.sum(by_source.column("size_sum")).as_py() or 1.0
        return {row["source"]: row["size_sum"] / total for row in by_source.to_pylist()}

    def about(self) -> dict[str, Any]:
        """Return as plain values what a reader has to know of these credits: what `ledger.json` holds."""
        return {
            **asdict(self.note),
            "n_predictions": len(self),
            "largest_gap": self.largest_gap(),
            "shares": self.shares(),
            "statement": self.statement(),
        }

    def statement(self) -> list[str]:
        """Return the same in sentences."""
        note, shares = self.note, self.shares()
        of = f"split {note.split}" if note.split else "moments of no named split"
        by = "" if note.method == "exact" else f" by {note.how()}"
        return [
            f"{note.model}, {of}: credits{by} are {_EXACTNESS[note.exactness]}; no sum is further than "
            f"{self.largest_gap():.0e} from its score.",
            note.agreement(has_social="social" in shares),
            "Of the size of scores: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()) + ".",
            *note.artefacts,
            note.caution,
        ]

    def check_balance(self) -> None:
        """Refuse a ledger whose credits do not add up to its scores within `TOLERANCE`.

        Raises:
            UnbalancedLedgerError: they do not; the message shows the prediction that is furthest off.
        """
        gaps = self.gaps()
        if len(gaps) == 0 or gaps.max() <= TOLERANCE:
            return
        worst = int(gaps.argmax())
        prediction = self.predictions.slice(worst, 1).to_pylist()[0]
        credits = self.of(prediction[schema.PREDICTION_ID]).column(schema.CREDIT)
        raise UnbalancedLedgerError(
            f"prediction {prediction[schema.PREDICTION_ID]} does not balance: its {len(credits)} credits add up to "
            f"{pc.sum(credits).as_py():.6f}, the model said {prediction[schema.SCORE]:.6f}. Nothing was written."
        )

    def of(self, prediction_id: int) -> pa.Table:
        """Return the rows of one prediction: bias, context, events by size of credit, rest.

        Raises:
            UnknownIdError: there is no such prediction.
        """
        rows = self.table.filter(pc.equal(self.table.column(schema.PREDICTION_ID), prediction_id))
        if rows.num_rows == 0:
            raise UnknownIdError(
                f"no prediction {prediction_id} in a ledger of {len(self):,} (0 to {len(self) - 1:,})."
            )
        return rows

    def save(self, folder: str | Path) -> None:
        """Write `ledger.parquet`, `predictions.parquet` and `ledger.json`, if the ledger balances.

        Raises:
            UnbalancedLedgerError: it does not; nothing is written.
        """
        self.check_balance()
        folder = made(folder)
        pq.write_table(self.table, folder / "ledger.parquet", compression="zstd")
        pq.write_table(self.predictions, folder / "predictions.parquet", compression="zstd")
        (folder / "ledger.json").write_text(json.dumps(self.about(), indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Ledger:
        """Read what `save` wrote.

        Raises:
            SchemaError: a file is missing.
            RunFolderError: a file is damaged.
        """
        (table, predictions), note = read_noted(
            folder, ("ledger.parquet", "predictions.parquet"), "ledger.json", LedgerNote, noun="ledger", verb="explain"
        )
        return cls(table=table, predictions=predictions, note=note)


def ledger_of(
    moments: Moments, candidates: np.ndarray, credits: Credits, scores: np.ndarray, note: LedgerNote, first_id: int = 0
) -> Ledger:
    """Write credits out as rows; the inverse of reading them as a sum.

    Args:
        candidates: items, int (N, C): the prediction of moment n and candidate c has the id first_id + n · C + c.
        scores: what the model said of them, (N, C).
    """
    n_moments, n_candidates = candidates.shape
    n_predictions = n_moments * n_candidates
    prediction = np.repeat(credits.owner * n_candidates, n_candidates) + np.tile(
        np.arange(n_candidates), len(credits.place)
    )
    credit = credits.credit.reshape(-1)
    place = np.repeat(credits.place, n_candidates)
    # Largest first; a stable sort leaves equal ones with the latest event last, so turn the order in time round.
    order = np.lexsort((-place, -np.abs(credit), prediction))
    prediction, credit, place = prediction[order], credit[order], place[order]
    error = None if credits.error is None else credits.error.reshape(-1)[order]
    parts = [_Rows("bias", np.arange(n_predictions), credits.bias.reshape(-1))]
    if credits.baseline is not None:
        parts.append(_Rows("baseline", np.arange(n_predictions), credits.baseline.reshape(-1)))
    parts += [
        _Rows("context", np.arange(n_predictions), term.reshape(-1), name=name)
        for name, term in credits.context.items()
    ]
    if credits.residual is not None:
        parts.append(_Rows("residual", np.arange(n_predictions), credits.residual.reshape(-1)))
    kept = np.ones(len(prediction), bool)
    if note.top is not None:
        kept = np.arange(len(prediction)) - np.searchsorted(prediction, prediction) < note.top
    if note.by_part and credits.parts:
        named = {name: of_part.reshape(-1)[order] for name, of_part in credits.parts.items()}
        # An event's parts stand together, so that one can read how its credit comes about.
        each = np.repeat(np.flatnonzero(kept), len(named))
        of_parts = np.stack(list(named.values()), axis=1)[kept].reshape(-1)
        names = np.array(list(named) * int(kept.sum()))
        # What others did has no part of the user's own events, and these none of others'.
        said = of_parts != 0 if "social" in named else np.ones(len(each), bool)
        each, of_parts, names = each[said], of_parts[said], names[said]
        parts.append(_Rows("event", prediction[each], of_parts, place=place[each], names=names.tolist()))
    else:
        error = None if error is None else error[kept]
        parts.append(_Rows("event", prediction[kept], credit[kept], place=place[kept], error=error))
    if note.top is not None:
        rest = np.bincount(prediction[~kept], weights=credit[~kept], minlength=n_predictions)
        parts.append(_Rows("rest", np.arange(n_predictions), rest))
    n_passes = len(moments) if credits.n_passes is None else credits.n_passes
    return _assemble(moments, candidates, parts, scores, replace(note, n_passes=n_passes), first_id)


@dataclass(frozen=True)
class _Rows:
    """Rows of one kind, before they are put in order."""

    source: str
    prediction: np.ndarray
    credit: np.ndarray
    place: np.ndarray | None = None
    name: str | None = None
    names: Sequence[str] | None = None
    """A name for each row, instead of one for all"""
    error: np.ndarray | None = None

    def all_names(self) -> Sequence[str | None]:
        """Return the name of each row."""
        return self.names if self.names is not None else [self.name] * len(self.prediction)

    def all_errors(self) -> np.ndarray:
        """Return the standard error of each row, NaN where it has none."""
        return self.error if self.error is not None else np.full(len(self.prediction), np.nan)


def _assemble(
    moments: Moments,
    candidates: np.ndarray,
    parts: Sequence[_Rows],
    scores: np.ndarray,
    note: LedgerNote,
    first_id: int,
) -> Ledger:
    sequences, vocab = moments.sequences, moments.sequences.vocab
    n_candidates = max(candidates.shape[1], 1)
    prediction = np.concatenate([rows.prediction for rows in parts])
    place = np.concatenate([np.full(len(r.prediction), -1) if r.place is None else r.place for r in parts])
    kind = np.repeat(np.arange(len(parts)), [len(rows.prediction) for rows in parts])
    order = np.lexsort((kind, prediction))
    prediction, place, kind = prediction[order], place[order], kind[order]
    moment = prediction // n_candidates
    none = place < 0
    at = np.maximum(place, 0)
    times = _moment_times(moments)

    def of_event(values: np.ndarray) -> np.ndarray:
        return np.where(none, -1, values[at]) if len(values) else np.full(len(at), -1)

    users = vocab.users.to_ids(moments.user_idx)
    now = times.take(pa.array(moment))
    is_of_others = ~none & (of_event(sequences.user_idx) != moments.user_idx[moment])
    if moments.time_us is None and sequences.time_us is not None and is_of_others.any():
        # Where the moment is not known, others are read up to the end of the log.
        now = pc.if_else(pa.array(is_of_others), int(sequences.time_us.max()), now)
    source = np.array([rows.source for rows in parts], object)[kind]
    event_times = pa.nulls(len(at), pa.int64())
    if sequences.time_us is not None:
        event_times = pa.array(of_event(sequences.time_us), mask=none)
    columns: dict[str, Any] = {
        schema.PREDICTION_ID: first_id + prediction,
        schema.USER_ID: users.take(pa.array(moment)),
        schema.TIME_US: times.take(pa.array(moment)),
        schema.ITEM_ID: vocab.items.to_ids(candidates.reshape(-1)).take(pa.array(prediction)),
        schema.HEAD: _labels([note.head], np.zeros(len(at), np.int64)),
        schema.SOURCE: pa.array(np.where(is_of_others, "social", source)),
        schema.SOURCE_NAME: pa.chunked_array([pa.array(r.all_names(), pa.string()) for r in parts]).take(order),
        schema.SOURCE_EVENT_ID: pa.array(of_event(sequences.event_id), mask=none),
        schema.SOURCE_USER_ID: vocab.users.to_ids(of_event(sequences.user_idx)),
        schema.SOURCE_ITEM_ID: vocab.items.to_ids(of_event(sequences.item_idx)),
        schema.SOURCE_ACTION: vocab.actions.to_ids(of_event(sequences.action_idx)),
        schema.LAG: pa.array((moments.stop[moment] - place).astype(np.int32), mask=none | is_of_others),
        schema.GAP_US: pc.subtract(now, event_times),
        schema.CREDIT: np.concatenate([rows.credit for rows in parts])[order],
        schema.STANDARD_ERROR: pa.array(np.concatenate([r.all_errors() for r in parts])[order], from_pandas=True),
    }
    table = pa.table(columns).cast(schema.ledger_schema(vocab.users.ids.type, vocab.items.ids.type))
    owner = np.repeat(np.arange(len(moments)), candidates.shape[1])
    predictions = {
        schema.PREDICTION_ID: first_id + np.arange(candidates.size),
        schema.USER_ID: users.take(pa.array(owner)),
        schema.TIME_US: times.take(pa.array(owner)),
        schema.ITEM_ID: vocab.items.to_ids(candidates.reshape(-1)),
        schema.SCORE: scores.reshape(-1).astype(np.float64),
    }
    return Ledger(table=table, predictions=pa.table(predictions), note=note)


def _moment_times(moments: Moments) -> pa.Array:
    """Return the moment, or where it is not known the time of the latest event, or null; int64 (N,)."""
    times = moments.sequences.time_us
    if moments.time_us is not None:
        return pa.array(moments.time_us)
    if times is None or len(times) == 0:
        return pa.nulls(len(moments), pa.int64())
    return pa.array(times[np.maximum(moments.stop - 1, 0)], mask=moments.stop == moments.start)


def _labels(labels: Sequence[str | None], codes: np.ndarray) -> pa.Array:
    return pa.array(labels, pa.string()).take(pa.array(codes))


def join_ledgers(parts: Sequence[Ledger]) -> Ledger:
    """Put ledgers with ascending prediction ids end to end."""
    return Ledger(
        table=pa.concat_tables([part.table for part in parts]),
        predictions=pa.concat_tables([part.predictions for part in parts]),
        note=replace(parts[0].note, n_passes=sum(part.note.n_passes for part in parts)),
    )
