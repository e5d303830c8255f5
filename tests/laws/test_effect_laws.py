"""The laws of an effect hold for random tables, of people, clusters, strata and chances that differ."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import influent


@st.composite
def tables(draw):
    """A table of 8 to 40 clusters of one to four people, and how exposure was drawn in it."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_clusters = draw(st.integers(8, 40))
    cluster = np.repeat(np.arange(n_clusters), rng.integers(1, 5, n_clusters))
    site = np.arange(n_clusters) % draw(st.integers(1, 2))
    exposed = np.arange(n_clusters) // 2 % 2  # both kinds in both sites
    chance = rng.uniform(0.3, 0.7, n_clusters) if draw(st.booleans()) else np.full(n_clusters, 0.5)
    columns = {
        "user_id": np.arange(len(cluster)),
        "cluster": cluster,
        "site": site[cluster],
        "exposed": exposed[cluster],
        "chance": chance[cluster],
        "age": rng.normal(size=len(cluster)),
        "outcome": rng.normal(size=len(cluster)) + rng.normal(size=n_clusters)[cluster],
    }
    arguments = {"probability": "chance", "cluster": "cluster", "n_permutations": 50}
    arguments |= {"stratum": "site"} if draw(st.booleans()) else {}
    return columns, arguments | ({"covariates": ["age"]} if draw(st.booleans()) else {})


def estimate(columns, arguments):
    return influent.estimate_effect(pa.table(columns), **arguments)


def numbers(report):
    rows = [(measure.mean, measure.low, measure.high) for measure in report.rows.values()]
    return np.array([*rows, (report.standard_error, report.standard_error, report.standard_error)])


@settings(max_examples=25, deadline=None)
@given(tables(), st.floats(-1000, 1000))
def test_a_constant_added_to_all_outcomes_changes_no_effect(table, constant):
    columns, arguments = table
    before, after = (estimate(columns | {"outcome": columns["outcome"] + add}, arguments) for add in (0, constant))
    assert numbers(after) == pytest.approx(numbers(before), abs=1e-8)
    assert after.without_exposure == pytest.approx(before.without_exposure + constant)
    assert after.p_value == before.p_value


@settings(max_examples=25, deadline=None)
@given(tables(), st.floats(0.01, 100))
def test_an_effect_scales_with_the_outcome(table, scale):
    columns, arguments = table
    before, after = (estimate(columns | {"outcome": columns["outcome"] * by}, arguments) for by in (1, scale))
    assert numbers(after) == pytest.approx(scale * numbers(before), rel=1e-7, abs=1e-9 * scale)
    assert after.p_value == before.p_value


@settings(max_examples=25, deadline=None)
@given(tables())
def test_exchanging_the_arms_turns_the_sign(table):
    columns, arguments = table
    swapped = columns | {"exposed": 1 - columns["exposed"], "chance": 1 - columns["chance"]}
    before, after = estimate(columns, arguments), estimate(swapped, arguments)
    for name, measure in before.rows.items():
        other = after.rows[name]
        assert (other.mean, other.low, other.high) == pytest.approx((-measure.mean, -measure.high, -measure.low))


@settings(max_examples=25, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_rows_tells_nothing_and_a_p_value_lies_above_zero(table, random):
    columns, arguments = table
    order = list(range(len(columns["user_id"])))
    random.shuffle(order)
    before, after = estimate(columns, arguments), estimate({n: c[order] for n, c in columns.items()}, arguments)
    assert numbers(after) == pytest.approx(numbers(before))
    assert 0 < before.p_value <= 1


@settings(max_examples=25, deadline=None)
@given(tables())
def test_an_outcome_that_is_the_same_for_all_has_no_effect_and_no_small_p_value(table):
    columns, arguments = table
    report = estimate(columns | {"outcome": np.full(len(columns["outcome"]), 7.3)}, arguments)
    assert numbers(report) == pytest.approx(0, abs=1e-9)
    assert report.p_value == 1
