"""Faithfulness: credits held against what a model does when events are taken out."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import influent
from influent.evaluation.faithfulness import _Asked, _places_in_order, check_faithfulness, credits_by

TINY = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=6, dropout=0.1)


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    log = {"user_id": np.repeat(np.arange(40), 9), "item_id": rng.integers(0, 30, 360)}
    return influent.split_last(influent.build_sequences(influent.read_events(pa.table(log))))


@pytest.fixture(scope="module")
def additive(split):
    return influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=6)).fit(split.train, split.validation)


@pytest.fixture(scope="module")
def report(split, additive):
    def upside_down(model, moments, items):
        credits = model.credits(moments, items)
        return replace(credits, credit=-credits.credit, parts={})

    def latest_first(model, moments, items):
        credits = model.credits(moments, items)
        return replace(credits, credit=np.arange(len(credits.place), dtype=float)[:, None], parts={})

    return check_faithfulness(
        additive,
        split.test,
        train=split.train,
        methods={"exact": influent.Predictor.credits, "upside down": upside_down, "latest first": latest_first},
        lists=(3,),
        n_shapley=4,
        cut=4,
    )


def test_exact_credits_are_removals_and_shapley_values(report):
    exact = report.checks["exact"]
    assert exact.largest_gap <= 1e-4
    assert exact.mean_residual == 0
    assert exact.infidelity <= 1e-6
    assert min(exact.pearson, exact.shapley_pearson) >= 1 - 1e-6
    assert all(of_set["pearson"] >= 1 - 1e-6 for of_set in exact.of_sets.values())
    assert exact.shapley_gap <= 1e-4


def test_credits_upside_down_are_found_out(report):
    wrong, exact = report.checks["upside down"], report.checks["exact"]
    assert wrong.pearson == pytest.approx(-1, abs=1e-6)
    # A credit of −c beside a change of c is off by 2c, whose square is four times that of c.
    assert wrong.infidelity == pytest.approx(4, rel=1e-3)
    assert wrong.largest_gap > exact.largest_gap + 0.1
    masked = report.orders["masked"]
    # Taking out first what speaks for an item makes it leave the list sooner than keeping that to the end.
    assert masked["exact"]["POS@3"].mean < masked["upside down"]["POS@3"].mean
    assert masked["exact"]["POS@3"].mean == masked["upside down"]["NEG@3"].mean


def test_the_measured_removal_is_the_same_order_as_exact_credits(report):
    for removal in report.orders.values():
        assert removal["exact"]["DEL"].mean == pytest.approx(removal["leave_one_out"]["DEL"].mean, abs=1e-3)


def test_reference_orders_stand_beside_every_method(report):
    assert set(report.orders) == {
        "masked",
        "dropped",
        "swapped at random",
        "swapped by popularity",
        "swapped for the most popular",
    }
    for orders in report.orders.values():
        assert {"random", "recency", "popularity", "similarity in the log", "leave_one_out"} <= set(orders)
    # The first point of a curve is the whole history, at which the explained item is the first of the list.
    assert all(m["POS@3"].mean >= 1 / 11 for orders in report.orders.values() for m in orders.values())


def test_credits_of_shuffled_weights_are_others(report):
    assert abs(report.checks["exact"].shuffled) < 0.5


def test_each_method_is_held_against_itself_on_shuffled_weights(report):
    # Both sides are turned round, so what is upside down is as much like itself as exact credits are.
    assert report.checks["upside down"].shuffled == pytest.approx(report.checks["exact"].shuffled)
    # A method that reads no weights says the same of any.
    assert report.checks["latest first"].shuffled == pytest.approx(1)


def test_a_model_that_cannot_be_shuffled_says_nothing_of_it(split):
    model = influent.DecayedCounts().fit(split.train)
    report = check_faithfulness(
        model, split.test, train=split.train, removals=["masked"], lists=(3,), n_moments=5, n_shapley=1, cut=2
    )
    assert report.checks["exact"].shuffled is None


def test_a_shuffled_model_has_the_same_numbers_in_other_places(additive):
    own, other = (
        {name: parameter.detach().cpu().numpy() for name, parameter in model._network.named_parameters()}
        for model in (additive, additive.shuffled())
    )
    assert all(np.array_equal(np.sort(own[n].ravel()), np.sort(other[n].ravel())) for n in own)
    assert not np.array_equal(own["encoder.item_in.weight"], other["encoder.item_in.weight"])


def table_of(model):
    """Return the items and the values of a model's counts; copies."""
    counted = model._network.counted
    return [tensor.cpu().numpy().copy() for tensor in (counted.item_IJ, counted.value_IJ)]


def test_a_shuffled_table_counts_other_items_and_stays_a_table(additive):
    own_item, own_value = table_of(additive)
    item, value = table_of(additive.shuffled())
    held = own_value > 0
    assert np.array_equal(value > 0, held)
    assert np.array_equal(np.sort(value[held]), np.sort(own_value[held]))
    assert not np.array_equal(value, own_value)
    assert not np.array_equal(item, own_item)
    assert all(len(set(row[has])) == has.sum() for row, has in zip(item, held, strict=True))
    # The model itself is left as it was.
    assert all(map(np.array_equal, table_of(additive), (own_item, own_value)))


def test_the_report_reads_as_tables(report):
    markdown = report.to_markdown()
    assert "| exact |" in markdown
    assert "Events dropped:" in markdown
    assert "they are not effects" in markdown
    assert report.to_json().startswith("{")


def test_places_in_order_count_within_each_moment():
    key, offsets = np.array([3.0, 1.0, 2.0, 5.0, 4.0]), np.array([0, 3, 3, 5])
    assert _places_in_order(key, offsets).tolist() == [2, 0, 1, 1, 0]


def test_shapley_values_of_a_game_that_is_no_sum(split, additive):
    """The value of a set is the square of its size: by symmetry each of n events gets n² / n = n."""
    asked = _Asked.of(additive, split.test.take(slice(0, 2)), seed=0)

    class Squares:
        def score_without(self, gone):
            return np.bincount(asked.owner[~gone], minlength=2).astype(float) ** 2

    game = Squares()
    game.offsets, game.place, game.owner, game.lag, game.moments = (
        asked.offsets,
        asked.place,
        asked.owner,
        asked.lag,
        asked.moments,
    )
    values = _Asked.shapley_values(game, influent.Progress())
    assert np.allclose(values, np.diff(asked.offsets)[asked.owner])


def test_a_history_without_an_event_closes_over_it(split):
    moments = split.test.take(slice(0, 3))
    first = int(moments.start[1])
    without = moments.without(np.array([first, first + 2]))
    assert (without.stop - without.start).tolist() == [
        int(moments.stop[0] - moments.start[0]),
        int(moments.stop[1] - moments.start[1]) - 2,
        int(moments.stop[2] - moments.start[2]),
    ]
    left = without.sequences.item_idx[without.start[1] : without.stop[1]].tolist()
    before = moments.sequences.item_idx[moments.start[1] : moments.stop[1]].tolist()
    assert left == [before[1], *before[3:]]
    # What came next is still what came next.
    assert np.array_equal(without.target_items()[0], moments.target_items()[0])


def test_what_cannot_be_asked_is_refused(split, additive):
    methods = {"exact": influent.Predictor.credits}
    with pytest.raises(influent.ConfigError, match="no removal 'burnt'"):
        check_faithfulness(additive, split.test, train=split.train, methods=methods, removals=["burnt"])
    with pytest.raises(influent.ConfigError, match="within 1 and 16"):
        check_faithfulness(additive, split.test, train=split.train, methods=methods, cut=17)
    with pytest.raises(influent.ConfigError, match=r"'n_moments' parameter must be an int in the range \[1, inf"):
        check_faithfulness(additive, split.test, train=split.train, methods=methods, n_moments=0)
    with pytest.raises(influent.ConfigError, match="at least one way to give credit"):
        check_faithfulness(additive, split.test, train=split.train, methods={})
    empty = replace(split.test, start=split.test.stop)
    with pytest.raises(influent.DataError, match="no test moment has a history"):
        check_faithfulness(additive, empty, train=split.train, methods=methods)


def test_every_method_that_fits_a_black_box_is_judged(split):
    settings = replace(TINY, backbone="sasrec", n_layers=1)
    model = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=2)).fit(split.train, split.validation)
    report = check_faithfulness(
        model, split.test, train=split.train, removals=["masked"], lists=(3,), n_moments=10, n_shapley=2, cut=3
    )
    assert set(report.checks) == set(model.methods)
    assert {"attention", "similarity", "recency"} <= set(report.orders["masked"])
    # What leaving events out takes away is what masking takes away; a black box leaves the rest as a residual.
    assert report.checks["leave_one_out"].pearson == pytest.approx(1)
    assert report.checks["leave_one_out"].mean_residual > 0
    # With all 3! orders of 3 events, Shapley's values are found and not only estimated.
    assert report.checks["shapley"].shapley_gap <= 1e-4


def test_a_method_that_does_not_fit_is_refused(split):
    settings = replace(TINY, backbone="gru", n_layers=1)
    model = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    with pytest.raises(influent.ConfigError, match="'attention' does not fit"):
        credits_by(model, ["attention"])
    with pytest.raises(influent.ConfigError, match="'shapley' does not fit"):
        credits_by(influent.Popularity().fit(split.train), ["shapley"])
