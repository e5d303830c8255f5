"""A model and moments to a ledger: which earlier events led to each score, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from influent.data.labels import Labels
from influent.data.moments import Moments
from influent.data.vocab import UNKNOWN
from influent.errors import ConfigError, DataError
from influent.influence.ledger import Ledger, LedgerNote, join_ledgers, ledger_of
from influent.models.credits import Credits
from influent.models.methods import CreditMethod, MethodName, check_fits
from influent.models.model import EstimatedModel, Fitted, Model, check_fitted
from influent.models.ranks import BATCH
from influent.progress import Progress
from influent.settings import check_int, check_list, check_type


def explain(
    model: Model | AnsweringModel,
    asked: Moments | Labels,
    *,
    items: Sequence[Any] | None = None,
    top: int | None = None,
    contrast: int | None = None,
    against: Any = None,
    by_part: bool = False,
    method: MethodName | None = None,
    n_samples: int | None = None,
    n_steps: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Ledger:
    """Say of which terms scores are the sum: of items at these moments, or of the answers to these questions.

    Where a score is a sum, the terms come from the model's own parts in one forward pass. Those of a black box are
    estimated, and what they leave over has a row of its own, `residual`. Scores come from `predict`; the ledger is
    refused if they and the terms differ by more than 1e-4. The score of an answer is its logit in a classification,
    and the answer in the label's own unit in a regression.

    Args:
        asked: moments, or labels that the model was fitted to answer (then `items`, `contrast` and `against` say
            nothing).
        items: ids of the items to explain, the same at every moment, or one list of equal length for each moment; by
            default what came next, and where that is not known or not in the catalogue, the best-scored item.
        top: give only this many events, those with the largest credits, a row of their own, and their sum with the
            rest stays exact through one `rest` row; by default every event the model read has a row.
        contrast: explain an item's score minus the mean score of its rivals, the `contrast` best-scored other
            items at the moment. That difference is what moves an item up a list.
        against: explain the score of `items` minus that of this one item: why they, and not it.
        by_part: split each event's row into one for each part of the event that has a say of its own: its item, its
            action, its numbers, its text, and what the counts say. `source_name` names the part. Not of estimates,
            which are of events as a whole.
        method: how credits are come by: see `docs/methods.md`. By default `exact` where a score is a sum over events,
            and else `leave_one_out`. The baseline of all others is the history with every event masked.
        n_samples: of `shapley`, how many orders of the events are drawn; an even number, by default 20.
        n_steps: of `integrated_gradients`, at how many points gradients are taken, by default 50.
        seed: of `shapley`, where the draw comes from, by default 0.

    Raises:
        UnknownIdError: an item is not in the catalogue.
        UnbalancedLedgerError: the terms do not add up to a score.
        ConfigError: `top` or `contrast` is out of range, `against` stands beside `contrast`, without `items` or against
            itself, the lists of items do not fit the moments, the method does not fit the model, a setting or `by_part`
            does not fit the method, or the model was not fitted for what is asked.
        DataError: there is no moment to explain.

    Example:
        >>> ledger = explain(model, test, top=3)  # doctest: +SKIP
        >>> ledger.of(0).select(["source", "source_item_id", "credit"]).to_pandas()  # doctest: +SKIP
    """
    check_fitted(model)
    check_type("asked", asked, (Moments, Labels), "split.test")
    how = credit_method(model, method, n_samples=n_samples, n_steps=n_steps, seed=seed)
    _check_parts(by_part, how)
    if isinstance(asked, Labels):
        return _explain_answers(model, asked, items, top, contrast, against, by_part, how, progress)
    if not isinstance(model, Model):
        raise ConfigError(f"a {model.name} model scores no items. It answers labels: explain(model, labels).")
    candidates = None if items is None else _candidates(model, len(asked), items)
    other = None if against is None else _one_rival(model, candidates, against, contrast)
    return explain_idx(
        model,
        asked,
        candidates,
        top=top,
        contrast=contrast,
        against=other,
        by_part=by_part,
        method=how,
        progress=progress,
    )


def explain_gap(
    model: TimeModel,
    moments: Moments,
    *,
    after_s: float = 0.0,
    top: int | None = None,
    by_part: bool = False,
    method: MethodName | None = None,
    n_samples: int | None = None,
    n_steps: int | None = None,
    seed: int | None = None,
) -> Ledger:
    """Say of which terms the log-intensity of the next event is the sum, this long after each moment's latest event.

    A credit is the logarithm of the factor by which an event makes the next one come sooner (above 0) or later.

    Raises:
        ConfigError: the model was not fitted for the task `time`, `after_s` is negative, or as for `explain`.
        UnbalancedLedgerError: the terms do not add up.
    """
    if not after_s >= 0:
        raise ConfigError(f"The 'after_s' parameter of explain_gap must be seconds from 0. Got {after_s!r} instead.")
    check_fitted(model)
    _check(model, moments, top, None)
    how = credit_method(model, method, n_samples=n_samples, n_steps=n_steps, seed=seed)
    _check_parts(by_part, how)
    note = LedgerNote.of(model, method=how, head="time", top=top, by_part=by_part)
    credits = model.gap_credits(moments, after_s, method=how)
    nothing = np.full((len(moments), 1), UNKNOWN)
    ledger = ledger_of(moments, nothing, credits, model.log_intensity(moments, after_s)[:, None], note)
    ledger.check_balance()
    return ledger


@runtime_checkable
class AnsweringModel(Fitted, Protocol):
    """A model that says of which terms its answers to labels are sums."""

    @property
    def methods(self) -> tuple[MethodName, ...]:
        """The ways to credits that fit it, the default one first."""
        ...

    def answer_scores(self, labels: Labels) -> np.ndarray:
        """Return the scores of the answers, (L,)."""
        ...

    def answer_credits(self, labels: Labels, *, method: CreditMethod | None = None) -> Credits:
        """Return the terms of the scores, one moment a question."""
        ...


class TimeModel(Fitted, Protocol):
    """A model that says of which terms its log-intensity of the next event is a sum."""

    @property
    def methods(self) -> tuple[MethodName, ...]:
        """The ways to credits that fit it, the default one first."""
        ...

    def log_intensity(self, moments: Moments, after_s: float) -> np.ndarray:
        """Return log λ, per second, (N,)."""
        ...

    def gap_credits(self, moments: Moments, after_s: float, *, method: CreditMethod | None = None) -> Credits:
        """Return its terms, (N, 1)."""
        ...


def credit_method(
    model: Fitted,
    name: MethodName | None = None,
    *,
    n_samples: int | None = None,
    n_steps: int | None = None,
    seed: int | None = None,
) -> CreditMethod:
    """Return a way to credits, by default the model's first; refuse one that does not fit it.

    A model that does not say which fit has credits of its own, which are called `exact`.

    Raises:
        ConfigError: the method does not fit the model, or a setting does not fit the method.
    """
    fitting: tuple[MethodName, ...] = getattr(model, "methods", ("exact",))
    method = CreditMethod(name=name or fitting[0], n_samples=n_samples, n_steps=n_steps, seed=seed)
    check_fits(method, fitting, model.name)
    return method


def credits_of(
    model: Model, moments: Moments, candidates: np.ndarray, method: CreditMethod, mixture: np.ndarray | None = None
) -> Credits:
    """Return the terms of the scores of these items, or of sums of them with weights (N, X, C), by a fitting method."""
    if isinstance(model, EstimatedModel):
        return model.credits(moments, candidates, method=method, mixture=mixture)
    found = model.credits(moments, candidates)
    return found if mixture is None else found.mixed(mixture)


def _explain_answers(
    model: Fitted,
    labels: Labels,
    items: Sequence[Any] | None,
    top: int | None,
    contrast: int | None,
    against: Any,
    by_part: bool,
    method: CreditMethod,
    progress: Progress | None,
) -> Ledger:
    if not all(one is None for one in (items, contrast, against)):
        raise ConfigError(
            "labels say which items they are about, and have no rivals. Leave 'items', 'contrast' and 'against' out."
        )
    if not isinstance(model, AnsweringModel):
        raise ConfigError(
            f"{model.name} answers by no sum that could be a ledger. The answers of an additive "
            f"Predictor(task={labels.kind!r}) are sums; of a joint model explain the Predictor itself, not a readout."
        )
    _check(model, labels.moments, top, None)
    note = LedgerNote.of(model, method=method, head=f"{labels.kind}: {labels.name}", top=top, by_part=by_part)
    parts: list[Ledger] = []
    n_asked = 0
    with (progress or Progress()).track("explain", len(labels.moments)) as advance:
        for first in range(0, len(labels.moments), BATCH):
            some = labels.take(slice(first, first + BATCH))
            item = np.full(len(some), UNKNOWN) if some.item_idx is None else some.item_idx
            scores = model.answer_scores(some)
            moments = some.moments.take(some.moment)
            credits = model.answer_credits(some, method=method)
            _check_has_parts(credits, note)
            parts.append(ledger_of(moments, item[:, None], credits, scores[:, None], note, n_asked))
            n_asked += len(some)
            advance(len(some.moments))
    ledger = join_ledgers(parts)
    ledger.check_balance()
    return ledger


def _candidates(model: Model, n_moments: int, items: Sequence[Any]) -> np.ndarray:
    """Return the index of each item to explain at each moment, (N, C)."""
    check_list("items", items)
    items = list(items)
    if not items:
        raise ConfigError("items must be a list of item ids with at least one. Got none.")
    if not any(isinstance(some, list | tuple | np.ndarray) for some in items):
        wanted = model.vocab.items.require_idx(items)
        return np.broadcast_to(wanted, (n_moments, len(wanted)))
    lengths = {len(some) for some in items}
    if len(items) != n_moments or len(lengths) != 1:
        raise ConfigError(
            f"items must be one list for each of the {n_moments:,} moments, all equally long. Got {len(items):,} lists "
            f"of lengths {sorted(lengths)}."
        )
    flat = model.vocab.items.require_idx([item for some in items for item in some])
    return flat.reshape(n_moments, -1)


def _one_rival(model: Model, candidates: np.ndarray | None, against: Any, contrast: int | None) -> int:
    """Return the index of the item that all candidates, (N, C), are held against."""
    if contrast is not None:
        raise ConfigError(
            f"'against' holds an item against {against!r} alone, and 'contrast' against its best rivals. Leave one out."
        )
    if candidates is None:
        raise ConfigError(f"'against' says what not, {against!r}, but not what instead. Name it: items=[…], or --item.")
    other = int(model.vocab.items.require_idx([against])[0])
    if (candidates == other).any():
        raise ConfigError(f"item {against!r} is asked for against itself. Name another as 'against'.")
    return other


def explain_idx(
    model: Model,
    moments: Moments,
    candidates: np.ndarray | None,
    *,
    top: int | None = None,
    contrast: int | None = None,
    against: int | None = None,
    by_part: bool = False,
    method: CreditMethod | None = None,
    progress: Progress | None = None,
) -> Ledger:
    """Do what `explain` does, for items given by index, the candidates as int (N, C) or None for what came next."""
    check_fitted(model)
    _check(model, moments, top, contrast)
    method = method or credit_method(model)
    other = None if against is None else model.vocab.items.to_ids(np.array([against]))[0].as_py()
    note = LedgerNote.of(model, method=method, contrast=contrast, against=other, top=top, by_part=by_part)
    parts: list[Ledger] = []
    with (progress or Progress()).track("explain", len(moments)) as advance:
        for first in range(0, len(moments), BATCH):
            batch = moments.take(slice(first, first + BATCH))
            scores = model.predict(batch)
            asked = next_items(batch, scores) if candidates is None else candidates[first : first + BATCH]
            parts.append(_explain_batch(model, batch, asked, scores, against, method, note, first * asked.shape[1]))
            advance(len(batch))
    ledger = join_ledgers(parts)
    ledger.check_balance()
    return ledger


def _check_parts(by_part: bool, method: CreditMethod) -> None:
    if by_part and method.name != "exact":
        raise ConfigError(
            f"credits by {method.name!r} are of events as a whole: leave 'by_part' out, or explain a model whose "
            f"scores are a sum."
        )


def _check(model: Fitted, moments: Moments, top: int | None, contrast: int | None) -> None:
    if len(moments) == 0:
        raise DataError("there is no moment to explain. Build some: split(...).test or latest_moments(sequences).")
    if top is not None:
        check_int("top", top, 0)
    is_no_int = isinstance(contrast, bool) or not isinstance(contrast, int)
    if contrast is not None and (is_no_int or not 1 <= contrast < model.vocab.n_items):
        raise ConfigError(
            f"The 'contrast' parameter of explain must be an int in the range [1, {model.vocab.n_items - 1}] "
            f"(the number of other items). Got {contrast!r} instead."
        )


def next_items(moments: Moments, scores: np.ndarray) -> np.ndarray:
    """Return the first item that came next, (N, 1), or the best-scored where that is unknown."""
    known = moments.target_stop > moments.stop
    items = np.full(len(moments), -1)
    items[known] = moments.sequences.item_idx[moments.stop[known]]
    return np.where(items >= 0, items, scores.argmax(axis=1))[:, None]


def _explain_batch(
    model: Model,
    moments: Moments,
    candidates: np.ndarray,
    scores: np.ndarray,
    against: int | None,
    method: CreditMethod,
    note: LedgerNote,
    first_id: int,
) -> Ledger:
    items, mixture = asked_sums(scores, candidates, note.contrast, against)
    credits = credits_of(model, moments, items, method, mixture)
    _check_has_parts(credits, note)
    asked = np.take_along_axis(scores, items, axis=1).astype(np.float64)
    if mixture is not None:
        asked = np.einsum("ncx,nx->nc", mixture, asked)
    return ledger_of(moments, candidates, credits, asked, note, first_id)


def asked_sums(
    scores: np.ndarray, candidates: np.ndarray, contrast: int | None, against: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the items whose scores are explained, and the weights by which they are added up to C sums a moment.

    Args:
        scores: of every item at each moment, (N, I).
        candidates: items, int (N, C).
        contrast: how many of the best-scored others each stands against; None for none.
        against: the one item that each stands against instead; None for none.

    Returns:
        Items (N, C + R) and weights (N, C, C + R); the candidates and None where they stand against nothing.
    """
    n_rivals = contrast if against is None else 1
    if n_rivals is None:
        return candidates, None
    if against is None:
        # Rivals come from one list a moment, one longer than needed, since the candidate itself may be on it.
        rivals = np.argsort(-scores, axis=1, kind="stable")[:, : n_rivals + 1]
    else:
        rivals = np.full((len(candidates), 1), against)
    mixture = contrast_mixture(candidates, rivals, np.ones(rivals.shape, bool), n_rivals)
    return np.concatenate([candidates, rivals], axis=1), mixture


def _check_has_parts(credits: Credits, note: LedgerNote) -> None:
    """Refuse to split events of a model that reads them as wholes.

    Raises:
        ConfigError: so it is.
    """
    if note.by_part and not credits.parts and len(credits.place):
        raise ConfigError(f"a {note.model} model reads events as wholes, which have no parts. Leave 'by_part' out.")


def contrast_mixture(candidates: np.ndarray, rivals: np.ndarray, may: np.ndarray, k: int) -> np.ndarray:
    """Return the weights (N, C, C + R) that turn scores of candidates and rivals into contrasts.

    Args:
        candidates: (N, C)
        rivals: (N, R), the best first; a candidate may be among them.
        may: which of them are rivals at all, bool (N, R).
        k: how many of them a candidate stands against; fewer where there are not as many.
    """
    n, c = candidates.shape
    is_other = (rivals[:, None, :] != candidates[:, :, None]) & may[:, None, :]
    chosen = is_other & (np.cumsum(is_other, axis=2) <= k)
    own = np.broadcast_to(np.eye(c), (n, c, c))
    return np.concatenate([own, -(chosen / np.maximum(chosen.sum(axis=2, keepdims=True), 1))], axis=2)
