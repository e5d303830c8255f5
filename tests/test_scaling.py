import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import influent
from influent.data.scaling import Scaling, fit_scaling

NAN = np.nan


def sequences_of(values: list, *, user_id: list | None = None) -> influent.Sequences:
    log = {"user_id": user_id or [1] * len(values), "item_id": list("abcdefghij"[: len(values)]), "value": values}
    return influent.build_sequences(influent.clean(influent.read_events(pa.table(log))))


@pytest.mark.parametrize(
    ("method", "center", "spread"),
    [
        ("standard", 3.0, np.sqrt((4 + 1 + 0 + 1 + 4) / 5)),
        ("minmax", 1.0, 5.0 - 1.0),
        ("robust", 3.0, 4.0 - 2.0),
    ],
)
def test_each_method_measures_its_centre_and_spread(method, center, spread):
    scaling = fit_scaling(sequences_of([1.0, 2.0, 3.0, 4.0, 5.0, None]), method)
    assert scaling.center == (center,)
    assert scaling.spread == pytest.approx((spread,))
    assert scaling.names == ("value",)


def test_applying_subtracts_the_centre_divides_by_the_spread_and_puts_what_is_missing_at_the_centre():
    scaling = Scaling("minmax", ("value", "price"), (1.0, 10.0), (4.0, 2.0))
    scaled = scaling.apply(np.array([[1.0, 10.0], [5.0, 6.0], [NAN, NAN]], np.float32))
    assert scaled.tolist() == [[0.0, 0.0], [1.0, -2.0], [0.0, 0.0]]
    assert scaled.dtype == np.float32


@pytest.mark.parametrize("method", ["standard", "minmax", "robust"])
@pytest.mark.parametrize("value", [0.0, 0.1, 7.3, -1e6])
def test_a_column_that_does_not_vary_has_spread_one(method, value):
    scaling = fit_scaling(sequences_of([value] * 7), method)
    assert scaling.spread == (1.0,)
    assert scaling.center == pytest.approx((value,))


@pytest.mark.parametrize("method", ["standard", "minmax", "robust"])
def test_a_log_without_numbers_has_nothing_to_scale(method):
    scaling = fit_scaling(sequences_of([None, None]), method)
    assert (scaling.center, scaling.spread) == ((), ())
    assert scaling.apply(np.zeros((2, 0), np.float32)).shape == (2, 0)


@pytest.mark.parametrize("method", ["standard", "minmax", "robust"])
def test_a_column_without_a_number_in_training_is_left_as_it_is(method):
    sequences = sequences_of([None, None, 5.0])
    scaling = fit_scaling(sequences.until(np.array([2])), method)
    assert (scaling.center, scaling.spread) == ((0.0,), (1.0,))


def test_scaling_is_measured_on_training_events_only():
    split = influent.split_last(sequences_of([1.0, 3.0, 100.0, 1000.0]))
    assert fit_scaling(split.train, "minmax").center == (1.0,)
    assert fit_scaling(split.train, "minmax").spread == (2.0,)


def test_a_scaling_goes_to_json_and_back():
    scaling = fit_scaling(sequences_of([1.0, 2.0, 4.0]))
    assert Scaling.from_dict(json.loads(json.dumps(scaling.to_dict()))) == scaling


def test_an_unknown_method_is_refused():
    with pytest.raises(influent.ConfigError, match="must be 'standard', 'minmax' or 'robust'. Got 'log'"):
        fit_scaling(sequences_of([1.0]), "log")


@given(st.lists(st.floats(-1e6, 1e6, width=32) | st.just(NAN), min_size=1, max_size=10))
@settings(max_examples=10, deadline=None)
def test_scaled_training_numbers_are_of_like_size(column):
    sequences = sequences_of([None if np.isnan(value) else value for value in column])
    standard, minmax = (fit_scaling(sequences, method).apply(sequences.numbers) for method in ("standard", "minmax"))
    # One number that makes all the spread lies the root of n off.
    assert np.abs(standard).max(initial=0) <= np.sqrt(len(column)) + 1e-3
    assert minmax.min(initial=0) >= 0
    assert minmax.max(initial=0) <= 1 + 1e-6
