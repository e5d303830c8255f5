"""Placebos: credits of events that cannot have led to what came next."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import influent
from influent.evaluation.placebo import check_placebos


@pytest.fixture(scope="module")
def pairs():
    """Every event but the first of a pair follows from the one before: item 2k leads to item 2k + 1."""
    rng = np.random.default_rng(0)
    first = 2 * rng.integers(0, 10, (80, 3))
    items = np.stack([first, first + 1], axis=2).reshape(80, 6)
    log = {"user_id": np.repeat(np.arange(80), 6), "item_id": items.ravel()}
    split = influent.split_last(influent.build_sequences(influent.read_events(pa.table(log))))
    return influent.Markov().fit(split.train), split


def test_what_led_there_has_credit_and_placebos_have_none(pairs):
    model, split = pairs
    report = check_placebos(model, split.test)
    assert report.history.low > 0
    for name, measure in report.placebos().items():
        assert measure.low <= 0 <= measure.high, name


def test_more_draws_of_a_random_event_are_nearer_to_nothing(pairs):
    model, split = pairs
    one, many = (check_placebos(model, split.test, n_draws=n).random_event for n in (1, 40))
    assert many.high - many.low < one.high - one.low
    assert many.low <= 0 <= many.high


def test_an_event_behind_the_outcome_has_no_credit_at_all(pairs):
    model, split = pairs
    assert check_placebos(model, split.test).moved_behind == influent.evaluation.report.Measure(0.0, 0.0, 0.0)


def test_a_model_that_looks_ahead_is_found_out(pairs):
    """Credits that are larger for the true outcome whatever the history says."""
    model, split = pairs
    outcome = split.test.target_items()[0]

    class Cheat:
        popularity, name = model.popularity, "cheat"

        def credits(self, moments, candidates):
            credits = model.credits(moments, candidates)
            knows = candidates[credits.owner] == outcome[credits.owner][:, None]
            return replace(credits, credit=knows.astype(float))

    assert check_placebos(Cheat(), split.test).random_event.low > 0


def test_moments_without_an_outcome_say_nothing(pairs):
    model, split = pairs
    empty = replace(split.test, target_stop=split.test.stop)
    with pytest.raises(influent.DataError, match="placebos need three"):
        check_placebos(model, empty)


def test_the_table_says_what_holds_zero(pairs):
    model, split = pairs
    markdown = check_placebos(model, split.test).to_markdown()
    assert "| as they were |" in markdown
    assert markdown.count("| yes |") == 3


@pytest.mark.parametrize("wrong", [{"n_rivals": 0}, {"n_draws": 0}, {"n_resamples": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(pairs, wrong):
    model, split = pairs
    with pytest.raises(influent.ConfigError, match=f"'{next(iter(wrong))}' parameter must be an int in the range"):
        check_placebos(model, split.test, **wrong)


def test_a_user_is_asked_once(pairs):
    model, split = pairs
    twice = split.test.take(np.repeat(np.arange(len(split.test)), 2))
    assert check_placebos(model, twice).n_moments == len(split.test)
