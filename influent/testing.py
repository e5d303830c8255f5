"""The laws that every model keeps, to be checked for models of your own as they are for ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.influence.ledger import TOLERANCE
from influent.models.model import Model
from influent.models.store import load_model


def check_credits_add_up(model: Model, moments: Moments) -> None:
    """The terms of every item's score add up to it.

    Raises:
        AssertionError: they do not.
    """
    everything = _every_item(model, moments)
    gap = np.abs(model.credits(moments, everything).total() - model.predict(moments)).max(initial=0.0)
    assert gap <= TOLERANCE, f"{model.name}: credits are off by {gap:.2e}"


def check_credit_is_removal(model: Model, moments: Moments) -> None:
    """Masking an event takes exactly its credit from every score, and nothing where it has none.

    Every event of a history is masked, and every other that has a credit: its item becomes unknown and its action,
    numbers and categories say nothing; its place and time stay.

    Raises:
        AssertionError: a score changes by something else.
    """
    everything = _every_item(model, moments)
    credits, before = model.credits(moments, everything), model.predict(moments)
    of_moment: list[dict[int, np.ndarray]] = [
        {int(place): np.zeros(model.vocab.n_items) for place in range(start, stop)}
        for start, stop in zip(moments.start, moments.stop, strict=True)
    ]
    for place, owner, credit in zip(credits.place, credits.owner, credits.credit, strict=True):
        of_moment[owner][int(place)] = credit
    for owner, expected in enumerate(of_moment):
        for place, credit in expected.items():
            without = replace(moments.take(slice(owner, owner + 1)), sequences=mask(moments.sequences, place))
            gap = np.abs(before[owner] - model.predict(without)[0] - credit).max()
            assert gap <= TOLERANCE, (
                f"{model.name}: masking event {place} changes a score by {gap:.2e} beside its credit"
            )


def mask(sequences: Sequences, place: int) -> Sequences:
    """Return the sequences with an event that says nothing at this place."""
    return sequences.masked(np.array([place]))


def check_batch_equals_single(model: Model, moments: Moments) -> None:
    """A moment's scores do not depend on the moments beside it.

    Raises:
        AssertionError: they do.
    """
    together = model.predict(moments)
    for row in range(len(moments)):
        alone = model.predict(moments.take(slice(row, row + 1)))[0]
        gap = np.abs(together[row] - alone).max()
        assert gap <= TOLERANCE, f"{model.name}: moment {row} scores differ by {gap:.2e} in a batch"


def check_saved_is_same(model: Model, moments: Moments, *, load: Callable[[Path], Model] = load_model) -> None:
    """Save, then load, changes no score.

    Args:
        load: reads what the model's `save` wrote; by default what reads the models of this package.

    Raises:
        AssertionError: it does.
    """
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        loaded = load(Path(folder))
    assert loaded.name == model.name
    assert loaded.fitted_on == model.fitted_on
    assert np.array_equal(loaded.predict(moments), model.predict(moments)), f"{model.name}: loading changed a score"


def check_model(model: Model, moments: Moments, *, load: Callable[[Path], Model] = load_model) -> None:
    """Check the laws of this module on a fitted model: those that its `exactness` promises of credits, and the others.

    A model without `exactness` is taken for exact.

    Args:
        load: as for `check_saved_is_same`.

    Raises:
        AssertionError: it breaks one.
    """
    exactness = getattr(model, "exactness", "exact")
    if exactness != "estimated":
        check_credits_add_up(model, moments)
    if exactness == "exact":
        check_credit_is_removal(model, moments)
    check_batch_equals_single(model, moments)
    check_saved_is_same(model, moments, load=load)


def _every_item(model: Model, moments: Moments) -> np.ndarray:
    return np.broadcast_to(np.arange(model.vocab.n_items), (len(moments), model.vocab.n_items))
