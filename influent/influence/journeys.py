"""A ledger to journeys: what each user met before an outcome, or before none came, touch by touch with its credit.

Shapes: J journeys, N touches, C channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from influent import schema
from influent.data.labels import Labels
from influent.data.sequences import Sequences
from influent.errors import ConfigError, DataError
from influent.influence.ledger import Ledger
from influent.influence.levels import GAPS, EventCredits, read_factors
from influent.settings import check_type

_PATH_LENGTH = 4
_N_PATHS = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Journeys:
    """Predictions as journeys. The touches of journey j lie at `offsets[j]:offsets[j + 1]`, oldest first."""

    outcome: str
    """in words"""
    by: str
    """what a channel is: `action`, `scene`, another category, a feature"""
    channels: tuple[str, ...]
    offsets: np.ndarray
    """int64 (J + 1,): every journey has a touch"""
    channel: np.ndarray
    """int64 (N,): place in `channels`"""
    credit: np.ndarray
    """float64 (N,)"""
    since_us: np.ndarray
    """float64 (N,): from the touch to the outcome, of labels to the moment of the question; NaN in an order-only log"""
    is_outcome: np.ndarray
    """bool (J,)"""
    score: np.ndarray
    """float64 (J,): what the credits and the terms that no event owns add up to"""
    user: np.ndarray
    """int64 (J,): 0 … n_users − 1"""
    n_users: int
    is_logit: bool
    """whether scores are logits of the outcome, so that they say how many outcomes to expect"""
    about: dict[str, Any] = field(repr=False, default_factory=dict)

    def __len__(self) -> int:
        return len(self.is_outcome)

    @property
    def owner(self) -> np.ndarray:
        """Return the journey of each touch, int64 (N,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def n_outcomes(self) -> int:
        """Return how many journeys end in the outcome."""
        return int(self.is_outcome.sum())

    def paths(self, *, length: int = _PATH_LENGTH) -> pa.Table:
        """Return the most frequent ways to the outcome: the last touches in order, repeats kept.

        Args:
            length: touches of a path, from 1; longer journeys with the same end are one path.

        Returns:
            Up to 100 rows, by outcomes: `path` (list of channels, oldest first), `is_whole` (no touch came before),
            `n_outcomes`, `n_journeys` (with and without outcome), `outcome_rate`.
        """
        if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= 10:
            raise ConfigError(f"'length' must be an int in the range [1, 10]. Got {length!r}.")
        first, stop = self.offsets[:-1], self.offsets[1:]
        columns = [stop - first <= length]
        for back in range(length, 0, -1):
            place = stop - back
            columns.append(np.where(place >= first, self.channel[np.maximum(place, first)], -1))
        ends, code = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        n_journeys = np.bincount(code.reshape(-1), minlength=len(ends))
        n_outcomes = np.bincount(code.reshape(-1), self.is_outcome, len(ends)).astype(np.int64)
        shown = np.lexsort((-n_journeys, -n_outcomes))[:_N_PATHS]
        return pa.table(
            {
                "path": [[self.channels[place] for place in ends[row, 1:] if place >= 0] for row in shown],
                "is_whole": ends[shown, 0].astype(bool),
                "n_outcomes": n_outcomes[shown],
                "n_journeys": n_journeys[shown],
                "outcome_rate": n_outcomes[shown] / n_journeys[shown],
            }
        )

    def lags(self) -> pa.Table:
        """Return how long before the outcome, or where that is a label before its question, the outer touches were.

        Returns:
            `touch` (`first`, `last`), `channel` of that touch, `within` (a bucket of time), `n_outcomes`; without rows
            in an order-only log.
        """
        first, last = self.offsets[:-1][self.is_outcome], self.offsets[1:][self.is_outcome] - 1
        rows: list[dict[str, Any]] = []
        for name, place in (("first", first), ("last", last)):
            since = self.since_us[place]
            if np.isnan(since).any():
                continue
            bucket = np.searchsorted(list(GAPS.values()), since)
            cells = Counter(zip(self.channel[place].tolist(), bucket.tolist(), strict=True))
            rows += [
                {"touch": name, "channel": self.channels[channel], "within": list(GAPS)[within], "n_outcomes": n}
                for (channel, within), n in sorted(cells.items())
            ]
        kinds = [("touch", pa.string()), ("channel", pa.string()), ("within", pa.string()), ("n_outcomes", pa.int64())]
        return pa.Table.from_pylist(rows, schema=pa.schema(kinds))


def journeys(
    ledger: Ledger, sequences: Sequences, *, outcome: str | Sequence[str] | Labels, by: str = "action"
) -> Journeys:
    """Read a ledger as journeys: every event that the model read is a touch, also repeats and earlier outcomes.

    Args:
        ledger: a full one, without `top`.
        sequences: the events that were explained.
        outcome: actions: a journey ends in the outcome if the event that came next, and whose item was explained, is
            one of these. Or the labels that were explained: the outcome is a label of 1.
        by: what a channel is; see `influent.influence.levels.read_factors`.

    Raises:
        DataError: the outcome never happens among what was explained, the ledger is shortened or holds no credit of an
            event, or the sequences or labels are others.
        UnknownIdError: the log has no such action.
        ConfigError: there is no such factor, or the outcome does not go with what was explained.

    Example:
        >>> found = journeys(ledger, sequences, outcome="purchase", by="scene")  # doctest: +SKIP
        >>> found.n_outcomes, found.paths().slice(0, 1).to_pylist()  # doctest: +SKIP
        (218, [{'path': ['home', 'search', 'shop'], 'is_whole': False, 'n_outcomes': 21, ...}])
    """
    if not isinstance(outcome, Labels | str) and (outcome is None or len(outcome) == 0):
        raise ConfigError("'outcome' must name an action, or several, or be the labels that were explained. Got none.")
    if not isinstance(by, str):
        raise ConfigError(f"a channel is one thing: 'by' must be the name of a factor. Got {by!r}.")
    check_type("sequences", sequences, Sequences, "build_sequences(events)")
    credits = EventCredits.of(ledger)
    [factor] = read_factors(credits, sequences, [by])
    # By prediction, the oldest touch first.
    order = np.lexsort((-credits.lag, credits.prediction))
    prediction = credits.prediction[order]
    there, first = np.unique(prediction, return_index=True)
    place = credits.places_in(sequences)[order]
    since_us = credits.gap_us[order]
    if isinstance(outcome, Labels):
        is_outcome, kept, words = *_by_label(ledger, outcome, there), outcome.name
    else:
        names = [outcome] if isinstance(outcome, str) else list(outcome)
        stop = place[first] + credits.lag[order][first]
        is_outcome, kept, words = *_by_action(ledger, sequences, names, there, stop), " or ".join(names)
        if sequences.time_us is not None:
            ends = sequences.time_us[np.minimum(stop, len(sequences) - 1)]
            since_us = (np.repeat(ends, np.diff(np.append(first, len(order)))) - sequences.time_us[place]).astype(float)
    lengths = np.diff(np.append(first, len(order)))
    of_kept = np.repeat(kept, lengths)
    return Journeys(
        outcome=words,
        by=by,
        channels=factor.levels,
        offsets=np.concatenate([[0], np.cumsum(lengths[kept])]),
        channel=factor.code[order][of_kept],
        credit=credits.credit[order][of_kept],
        since_us=since_us[of_kept],
        is_outcome=is_outcome[kept],
        score=ledger.predictions.column(schema.SCORE).to_numpy()[there[kept]],
        user=credits.user[there[kept]],
        n_users=credits.n_users,
        is_logit=ledger.note.head.startswith("classification"),
        about=ledger.about() | {"n_left_out": len(ledger) - int(kept.sum())},
    )


def _by_label(ledger: Ledger, labels: Labels, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which predictions are outcomes, and which are journeys."""
    if labels.kind != "classification":
        raise ConfigError(f"{labels.name!r} is a {labels.kind}. An outcome is a label of 1, of a classification.")
    is_same = ledger.note.head == f"{labels.kind}: {labels.name}" and len(labels) == len(ledger)
    if not is_same or not _are_asked_of(labels, ledger):
        raise DataError(
            f"the ledger is of {len(ledger):,} predictions ({ledger.note.head}), the labels are {len(labels):,} of "
            f"{labels.name!r}, or of other moments. Give the labels that were explained."
        )
    is_outcome = labels.label[there] == 1
    if not is_outcome.any():
        raise DataError(f"the outcome {labels.name!r} never happens among the {len(there):,} labels with a history.")
    return is_outcome, ~np.isnan(labels.label[there])


def _are_asked_of(labels: Labels, ledger: Ledger) -> bool:
    """Return whether these, one by one, are the questions that a ledger explains: of whom, when and about what."""
    moments = labels.moments.take(labels.moment)
    vocab, predictions = moments.sequences.vocab, ledger.predictions
    asked = {schema.USER_ID: vocab.users.to_ids(moments.user_idx)}
    if labels.item_idx is not None:
        asked[schema.ITEM_ID] = vocab.items.to_ids(labels.item_idx)
    if moments.time_us is not None:
        asked[schema.TIME_US] = pa.array(moments.time_us)
    return all(predictions.column(name).combine_chunks().equals(ids) for name, ids in asked.items())


def _by_action(
    ledger: Ledger, sequences: Sequences, names: Sequence[str], there: np.ndarray, stop: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if not ledger.note.head.startswith("ranking"):
        is_of_time = ledger.note.head == "time"
        raise ConfigError(
            "this ledger explains when the next event comes, which has no outcome. Explain a ranking or labels."
            if is_of_time
            else f"this ledger explains {ledger.note.head!r}, whose outcome is in its labels and not in what comes "
            "next. Give these labels as the outcome."
        )
    wanted = sequences.vocab.actions.require_idx(names)
    ids = ledger.predictions.column(schema.USER_ID).combine_chunks().take(pa.array(there))
    has_next = stop < sequences.offsets[sequences.vocab.users.to_idx(ids) + 1]
    if not has_next.any():
        raise DataError(
            "these sequences end at the explained moments, so what came next is not in them. Give longer ones, such "
            "as split.test.sequences."
        )
    ahead = np.minimum(stop, len(sequences) - 1)
    items = ledger.predictions.column(schema.ITEM_ID).combine_chunks().take(pa.array(there))
    explained = sequences.vocab.items.to_idx(items)
    # Of a prediction of another item than came next nothing is known of how it ended.
    kept = has_next & (sequences.item_idx[ahead] == explained)
    is_outcome = kept & np.isin(sequences.action_idx[ahead], wanted)
    if not is_outcome.any():
        next_actions = sequences.vocab.actions.to_ids(sequences.action_idx[ahead][kept]).to_pylist()
        came = ", ".join(f"{n:,} {name}" for name, n in Counter(next_actions).most_common(5))
        raise DataError(
            f"the outcome {' or '.join(names)} never happens: what came next after the explained moments is "
            f"{came or 'not what was explained'}. Predict it (influent fit RUN --target-action {names[0]}, then "
            "influent explain RUN), or ask for another."
        )
    return is_outcome, kept
