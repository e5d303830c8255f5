import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import influent

DAY = "2024-01-01"
INF, NAN = math.inf, math.nan


def read(**columns: list) -> influent.Events:
    """Read a log of these columns; where it does not say, user 1 does `a`, `b`, … a day apart."""
    n = len(next(iter(columns.values())))
    some = {
        "user_id": [1] * n,
        "item_id": list("abcdefghij"[:n]),
        "time": [f"2024-01-{row + 1:02}" for row in range(n)],
    }
    return influent.read_events(pa.table(some | columns))


def read_order_only(**columns: list) -> influent.Events:
    return influent.read_events(pa.table(columns))


def kept(events: influent.Events) -> list[int]:
    return events.to_arrow().column("event_id").to_pylist()


def dropped(events: influent.Events) -> dict[str, int]:
    return {rule.name: rule.n_dropped for rule in events.cleaning.rules if rule.n_dropped}


@pytest.mark.parametrize(
    ("rule", "columns", "rules", "left"),
    [
        ("missing_user", {"user_id": [1, None, 2]}, {}, [0, 2]),
        ("missing_user", {"user_id": ["u", "", "v"]}, {}, [0, 2]),
        ("missing_item", {"item_id": ["a", "b", None]}, {}, [0, 1]),
        ("unreadable_time", {"time": [DAY, "soon", None]}, {}, [0]),
        ("non_finite_value", {"value": [1.0, INF, -INF, NAN, None]}, {}, [0, 4]),
        ("non_finite_value", {"value": ["1", "many", ""]}, {}, [0, 2]),
        ("duplicate", {"item_id": ["a", "a", "b", "a"], "time": [DAY] * 4}, {}, [0, 2]),
        ("few_events_per_user", {"user_id": [1, 2, 2]}, {"min_user_events": 2}, [1, 2]),
        ("few_events_per_item", {"item_id": ["a", "b", "b"]}, {"min_item_events": 2}, [1, 2]),
    ],
)
def test_each_rule_drops_what_it_names_and_counts_it(rule, columns, rules, left):
    events = influent.clean(read(**columns), **rules)
    n_read = len(next(iter(columns.values())))
    assert kept(events) == left
    assert dropped(events) == {rule: n_read - len(left)}


def test_a_time_range_keeps_its_first_moment_and_not_its_last():
    times = ["2023-12-31T23:59:59.999999Z", "2024-01-01", "2024-01-01T23:59:59.999999Z", "2024-01-02"]
    events = influent.clean(read(time=times), time_range=("2024-01-01", "2024-01-02"))
    assert kept(events) == [1, 2]
    assert dropped(events) == {"time_out_of_range": 2}


def test_a_time_range_may_name_its_zone():
    times = ["2024-01-01T00:00:00Z", "2023-12-31T23:00:00Z", "2023-12-31T22:59:59Z"]
    assert kept(influent.clean(read(time=times), time_range=("2024-01-01T00:00:00+01:00", "2025-01-01"))) == [0, 1]


def test_a_value_is_an_outlier_by_its_distance_in_median_absolute_deviations():
    # The median is 3; the distances are 2, 1, 0, 1, 97; their median is 1.
    values = [1.0, 2.0, 3.0, 4.0, 100.0, None]
    assert kept(influent.clean(read(value=values), value_mads=2)) == [0, 1, 2, 3, 5]
    assert kept(influent.clean(read(value=values), value_mads=1.5)) == [1, 2, 3, 5]
    assert kept(influent.clean(read(value=values), value_mads=97)) == [0, 1, 2, 3, 4, 5]


def test_without_a_spread_there_are_no_outliers():
    events = influent.clean(read(value=[5.0, 5.0, 5.0, 100.0]), value_mads=1)
    assert dropped(events) == {}


def test_a_value_that_is_not_finite_does_not_move_the_median():
    events = influent.clean(read(value=[1.0, 2.0, 3.0, INF, INF, INF]), value_mads=1)
    assert dropped(events) == {"non_finite_value": 3}


def test_a_user_who_is_faster_than_people_on_one_day_goes_with_all_events():
    times = ["2024-01-01T08:00", "2024-01-01T12:00", "2024-01-01T16:00", "2024-01-05"]
    events = read(user_id=[1] * 4 + [2] * 4, time=times + ["2024-01-01", "2024-01-02"] * 2, item_id=list("abcdefgh"))
    fast = influent.clean(events, max_events_per_day=2)
    assert kept(fast) == [4, 5, 6, 7]
    assert dropped(fast) == {"inhuman_rate": 4}
    assert kept(influent.clean(events, max_events_per_day=3)) == list(range(8))


def test_a_day_begins_at_midnight_also_before_1970():
    events = read(time=["1969-12-31T23:00", "1970-01-01T01:00"])
    assert len(influent.clean(events, max_events_per_day=1)) == 2


def test_rows_that_differ_in_one_column_of_ours_are_no_duplicates():
    columns = {"action": ["view", "buy", "view", "view"], "value": [1.0, 1.0, 2.0, None], "item_id": ["a"] * 4}
    assert dropped(influent.clean(read(**columns, time=[DAY] * 4))) == {}


def test_rows_that_differ_only_in_context_are_duplicates_and_the_first_stays():
    events = influent.clean(read(item_id=["a"] * 2, time=[DAY] * 2, colour=["red", "blue"]))
    assert events.to_arrow().column("colour").to_pylist() == ["red"]


def test_duplicates_are_kept_on_request():
    assert len(influent.clean(read(item_id=["a"] * 3, time=[DAY] * 3), drop_duplicates=False)) == 3


def test_equal_rows_of_an_order_only_log_are_two_behaviours():
    events = influent.clean(read_order_only(user_id=[1, 1, 1], item_id=["a", "a", None]))
    assert kept(events) == [0, 1]
    assert [rule.name for rule in events.cleaning.rules] == ["missing_user", "missing_item", "non_finite_value"]


def test_each_event_is_counted_under_the_first_rule_that_drops_it():
    # Row n breaks the n-th rule and those after it.
    events = read(
        user_id=[None, 1, 1, 1, 1, 1],
        item_id=[None, None, "a", "a", "a", "a"],
        time=["soon", "soon", "soon", "2020-01-01", DAY, DAY],
        value=[INF, INF, INF, INF, INF, 1.0],
    )
    cleaned = influent.clean(events, time_range=("2024-01-01", "2025-01-01"))
    assert kept(cleaned) == [5]
    first_five = ("missing_user", "missing_item", "unreadable_time", "time_out_of_range", "non_finite_value")
    assert dropped(cleaned) == dict.fromkeys(first_five, 1)


def test_the_rules_run_in_a_fixed_order():
    columns = {"user_id": [1, 1], "item_id": ["a", "b"], "value": [1.0, 2.0]}
    cleaned = influent.clean(
        read(**columns),
        time_range=("2024-01-01", "2025-01-01"),
        value_mads=9,
        max_events_per_day=9,
        min_user_events=2,
        min_item_events=1,
    )
    assert [rule.name for rule in cleaned.cleaning.rules] == [
        *("missing_user", "missing_item", "unreadable_time", "time_out_of_range", "non_finite_value"),
        *("duplicate", "value_outlier", "inhuman_rate", "few_events_per_user"),
    ]


def test_few_events_are_dropped_until_no_user_and_no_item_has_too_few():
    # 1–a is alone, so 1 falls, so b is alone, so 2 falls …: the chain from both ends; x and y hold each other.
    chain = [(1, "a"), (1, "b"), (2, "b"), (2, "c"), (3, "c"), (3, "d")]
    core = [(4, "x"), (4, "y"), (5, "x"), (5, "y")]
    users, items = zip(*chain, *core, strict=True)
    events = influent.clean(read(user_id=list(users), item_id=list(items)), min_user_events=2, min_item_events=2)
    assert kept(events) == [6, 7, 8, 9]
    # First a and d go, then what is left of 1 and 3, then b and c.
    assert dropped(events) == {"few_events_per_item": 2 + 2, "few_events_per_user": 2}


def test_the_report_counts_what_is_left_and_is_plain():
    report = influent.clean(read(user_id=[1, 2, None, 1], item_id=list("abca"))).cleaning
    assert (report.n_read, report.n_kept, report.n_users, report.n_items) == (4, 3, 2, 2)
    assert report.to_dict()["rules"][0] == {"name": "missing_user", "why": "nobody did it", "n_dropped": 1}
    assert report.notes == ("time: 4 times carry no zone; read as UTC.",)


def test_the_events_that_were_read_stay_as_they_were():
    events = read(user_id=[1, None])
    assert len(influent.clean(events)) == 1
    assert len(events) == 2
    assert events.cleaning is None


def test_context_columns_may_be_called_as_the_rules_call_things():
    names = dict.fromkeys(("e", "d", "v", "middle", "spread", "place", "n", "events", "user_idx"), [1, 2, 3])
    events = influent.clean(read(value=[1.0, 2.0, 9.0], **names), value_mads=2, max_events_per_day=5, min_user_events=2)
    assert kept(events) == [0, 1]
    assert set(names) <= set(events.context)


USERS, ITEMS = st.sampled_from([None, 1, 2, 3]), st.sampled_from([None, "a", "b"])
TIMES = st.sampled_from([None, "soon", "2024-01-01", "2024-01-01T12:00", "2024-01-02"])
VALUES = st.sampled_from([None, 1.0, 2.0, 50.0, INF, NAN])
LOGS = st.lists(st.tuples(USERS, ITEMS, TIMES, VALUES), min_size=1, max_size=12)
RULES = st.fixed_dictionaries(
    {
        "drop_duplicates": st.booleans(),
        "time_range": st.sampled_from([None, ("2024-01-01", "2024-01-02")]),
        "value_mads": st.sampled_from([None, 1.0]),
        "max_events_per_day": st.sampled_from([None, 1, 3]),
        "min_user_events": st.integers(1, 3),
        "min_item_events": st.integers(1, 3),
    }
)


def read_rows(rows: list[tuple]) -> influent.Events:
    user, item, time, value = (list(column) for column in zip(*[(1, "a", "2024-01-01", None), *rows], strict=True))
    return influent.read_events(pa.table({"user_id": user, "item_id": item, "time": time, "value": value}))


@given(LOGS, RULES)
@settings(max_examples=15, deadline=None)
def test_what_was_read_is_what_is_left_and_what_was_dropped(rows, rules):
    try:
        events = influent.clean(read_rows(rows), **rules)
    except influent.DataError as error:
        assert f"none of {len(rows) + 1} events" in str(error)  # noqa: PT017  (some logs leave nothing)
        return
    assert len(rows) + 1 == events.cleaning.n_read == len(events) + sum(dropped(events).values())
    assert events.cleaning.n_kept == len(events)


@given(LOGS, RULES)
@settings(max_examples=15, deadline=None)
def test_cleaning_a_clean_log_changes_nothing(rows, rules):
    rules |= {"value_mads": None}  # without its outliers a log has another median
    try:
        once = influent.clean(read_rows(rows), **rules)
    except influent.DataError:
        return
    twice = influent.clean(once, **rules)
    assert dropped(twice) == {}
    assert kept(twice) == kept(once)


def test_when_nothing_is_left_the_error_names_the_rule_that_dropped_most():
    message = r"none of 3 events \(missing_user 2, missing_item 1\). Most fell to missing_user \(nobody did it\)"
    with pytest.raises(influent.DataError, match=message):
        influent.clean(read(user_id=[None, 1, None], item_id=["a", None, "a"]))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"min_user_events": 0}, r"'min_user_events' parameter of clean must be an int in the range \[1, inf\). Got 0"),
        ({"min_item_events": 1.5}, r"'min_item_events' parameter .* Got 1.5"),
        ({"max_events_per_day": True}, r"'max_events_per_day' parameter .* Got True"),
        ({"value_mads": 0}, "'value_mads' parameter of clean must be above 0 and finite. Got 0"),
        ({"value_mads": NAN}, "'value_mads' .* Got nan"),
        ({"value_mads": "3"}, "'value_mads' .* Got '3'"),
        ({"value_mads": INF}, "'value_mads' .* Got inf"),
        ({"time_range": ("2024", "2025-01-01")}, "'2024' is no ISO 8601 time. Write 2024-03-01 or"),
        ({"time_range": (20240101, "2025-01-01")}, "20240101 is no ISO 8601 time"),
        ({"time_range": ("2024-01-02", "2024-01-02")}, "time_range must begin before it ends. Got 2024-01-02 to"),
    ],
)
def test_a_setting_outside_its_range_is_refused(rules, message):
    with pytest.raises(influent.ConfigError, match=message):
        influent.clean(read(user_id=[1]), **rules)


@pytest.mark.parametrize("rules", [{"time_range": ("2024-01-01", "2025-01-01")}, {"max_events_per_day": 3}])
def test_a_rule_about_times_is_refused_for_a_log_that_has_none(rules):
    with pytest.raises(influent.ConfigError, match=f"an order-only log has no times, so {next(iter(rules))} cannot"):
        influent.clean(read_order_only(user_id=[1], item_id=["a"]), **rules)
