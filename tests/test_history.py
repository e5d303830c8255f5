from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import influent
from influent.data.history import build_item_rates, history_features, question_features
from influent.data.labels import number_of_events, of_events, will_do

DAY_US = 86_400_000_000
NEW_YEAR_US = 1_704_067_200_000_000
NAN = pytest.approx(np.nan, nan_ok=True)


def build(items: dict | None = None, **columns: list) -> influent.Sequences:
    events = influent.clean(influent.read_events(pa.table(columns)), drop_duplicates=False)
    known = None if items is None else influent.read_items(pa.table(items))
    return influent.build_sequences(events, items=known)


@pytest.fixture
def clicks() -> influent.Sequences:
    """Ann and bob are shown apples, beets and corn; apples and beets are food."""
    return build(
        items={"item_id": ["apple", "beet", "corn"], "category": ["food", "food", None]},
        user_id=["ann", "bob", "ann", "ann", "bob", "ann"],
        item_id=["apple", "beet", "apple", "corn", "apple", "beet"],
        action=["show", "click", "click", "show", "show", "show"],
        value=[1.0, None, 3.0, 4.0, None, 6.0],
        time=["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-03", "2024-01-05T06:00:00", "2024-01-20"],
    )


def asked(clicks: influent.Sequences) -> influent.data.labels.Labels:
    return of_events(clicks, positive="click", among=["show", "click"])


# The history of a user


def test_a_history_is_told_in_counts_sums_and_days(clicks):
    features = history_features(influent.moments_at(clicks, ["ann"], [NEW_YEAR_US + 19 * DAY_US]))
    told = dict(zip(features.names, features.values[0].tolist(), strict=True))
    # Ann was shown an apple on day 1, and clicked an apple and was shown corn on day 3; it is day 20, a Saturday.
    assert told == {
        "n_events": 3,
        "n_items": 2,
        "n_events[click]": 1,
        "share[click]": 1 / 3,
        "days_since[click]": 17,
        "n_events[show]": 2,
        "share[show]": 2 / 3,
        "days_since[show]": 17,
        "sum[value]": 1 + 3 + 4,
        "mean[value]": pytest.approx(8 / 3),
        "last[value]": 4,
        "days_since_last": 17,
        "days_since_first": 19,
        "mean_gap_days": (2 + 0) / 2,
        "hour_sin": 0,
        "hour_cos": 1,
        "weekday_sin": pytest.approx(np.sin(2 * np.pi * 5 / 7)),
        "weekday_cos": pytest.approx(np.cos(2 * np.pi * 5 / 7)),
        "n_last_1d": 0,
        "n_last_7d": 0,
        "n_last_30d": 3,
        "n_last_90d": 3,
    }


def test_who_has_no_history_has_counts_of_zero_and_nothing_else(clicks):
    features = history_features(influent.moments_at(clicks, ["ann"], [NEW_YEAR_US]))
    told = dict(zip(features.names, features.values[0].tolist(), strict=True))
    assert {name for name, number in told.items() if number == 0} >= {"n_events", "n_items", "n_events[click]"}
    missing = {name for name, number in told.items() if np.isnan(number)}
    assert {"share[click]", "days_since[click]", "mean[value]", "days_since_last", "mean_gap_days"} <= missing


def test_numbers_that_are_not_known_are_passed_over(clicks):
    features = history_features(influent.moments_at(clicks, ["bob"], [NEW_YEAR_US + 9 * DAY_US]))
    assert [features[f"{what}[value]"][0] for what in ("sum", "mean", "last")] == [NAN, NAN, NAN]


def test_an_event_counts_as_recent_up_to_the_very_end_of_the_window(clicks):
    day = NEW_YEAR_US + 9 * DAY_US  # seven days after day 3
    features = history_features(influent.moments_at(clicks, ["ann", "ann"], [day, day + 1]))
    assert features["n_last_7d"].tolist() == [2, 0]
    assert features["n_last_30d"].tolist() == [3, 3]


def test_where_the_moment_is_not_known_time_counts_from_the_latest_event(clicks):
    features = history_features(influent.latest_moments(clicks))
    assert features["days_since_last"].tolist() == [0, 0]
    assert features["days_since_first"].tolist() == [19, 3.25]
    assert features["n_last_7d"].tolist() == [1, 2]
    assert np.isnan(features["hour_sin"]).all()


def test_an_order_only_log_counts_events_where_others_count_days():
    sequences = build(user_id=[1] * 4, item_id=list("aabc"), action=["show", "click", "show", "show"])
    features = history_features(influent.latest_moments(sequences))
    assert dict(zip(features.names, features.values[0].tolist(), strict=True)) == {
        "n_events": 4,
        "n_items": 3,
        "n_events[click]": 1,
        "share[click]": 0.25,
        "events_since[click]": 3,
        "n_events[show]": 3,
        "share[show]": 0.75,
        "events_since[show]": 1,
    }


def test_actions_are_told_apart_where_there_are_several_and_it_is_wanted(clicks):
    moments = influent.latest_moments(clicks)
    assert not any("[show]" in name for name in history_features(moments, actions=False).names)
    one_action = build(user_id=[1], item_id=["a"])
    assert history_features(influent.latest_moments(one_action)).names == ("n_events", "n_items")


def test_names_that_differ_in_case_or_hold_quotes_are_features_of_their_own():
    sequences = build(user_id=[1, 1, 1], item_id=list("abc"), action=["Buy", "buy", 'it\'s "new"'])
    features = history_features(influent.latest_moments(sequences))
    assert [features[f"n_events[{action}]"][0] for action in ("Buy", "buy", 'it\'s "new"')] == [1, 1, 1]


def test_unknown_items_are_events_and_no_items(clicks):
    masked = replace(clicks, item_idx=np.where(clicks.item_idx == 0, -1, clicks.item_idx))
    assert history_features(influent.latest_moments(masked))["n_items"].tolist() == [2, 1]


def test_a_feature_that_is_not_there_is_named(clicks):
    with pytest.raises(influent.SchemaError, match="there is no feature 'n_event'. Did you mean 'n_events'"):
        history_features(influent.latest_moments(clicks))["n_event"]


def test_no_moments_have_no_rows_and_no_events_no_counts(clicks):
    none = influent.latest_moments(clicks, np.zeros(0, np.int32))
    assert history_features(none).values.shape == (0, 22)
    empty = clicks.until(clicks.offsets[:-1])
    assert history_features(influent.latest_moments(empty))["n_events"].tolist() == [0, 0]


def test_a_history_without_its_beginning_is_refused(clicks):
    moments = influent.latest_moments(clicks)
    with pytest.raises(influent.DataError, match="made of whole histories"):
        history_features(replace(moments, start=moments.start + 1))


LOG = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 3), st.integers(0, 1)), min_size=1)


def sequences_of(log: list[tuple[int, int, int, int]]) -> influent.Sequences:
    """Users' half days, items and actions; each event has the number of its half day, if that is even.

    User 9 does everything once, so that every log has both actions and a number.
    """
    user, at, item, action = (list(column) for column in zip(*log, (9, 0, 0, 0), (9, 0, 0, 1), strict=True))
    return build(
        user_id=user,
        item_id=[str(one) for one in item],
        action=[("show", "click")[one] for one in action],
        time_us=[NEW_YEAR_US + one * DAY_US // 2 for one in at],
        value=[float(one) if one % 2 == 0 else None for one in at],
    )


@given(LOG, st.integers(0, 61))
@settings(max_examples=15, deadline=None)
def test_features_agree_with_looking_at_every_event(log, now):
    sequences = sequences_of(log)
    users = sorted({who for who, *_ in log})
    features = history_features(influent.moments_at(sequences, users, [NEW_YEAR_US + now * DAY_US // 2] * len(users)))
    for row, who in enumerate(users):
        before = [event for event in log if event[0] == who and event[1] < now]
        before.sort(key=lambda event: event[1])
        at = [when for _, when, _, _ in before]
        even = [when for when in at if when % 2 == 0]
        assert features["n_events"][row] == len(before)
        assert features["n_items"][row] == len({item for _, _, item, _ in before})
        assert features["n_last_7d"][row] == sum(when >= now - 14 for when in at)
        assert features["sum[value]"][row] == (sum(even) if even else NAN)
        assert features["last[value]"][row] == (even[-1] if even else NAN)
        assert features["days_since_last"][row] == ((now - at[-1]) / 2 if at else NAN)
        assert features["days_since_first"][row] == ((now - at[0]) / 2 if at else NAN)
        mean_gap = (at[-1] - at[0]) / 2 / (len(at) - 1) if len(at) > 1 else np.nan
        assert features["mean_gap_days"][row] == pytest.approx(mean_gap, nan_ok=True)
        clicked = [when for _, when, _, action in before if action == 1]
        assert features["n_events[click]"][row] == len(clicked)
        assert features["days_since[click]"][row] == ((now - clicked[-1]) / 2 if clicked else NAN)


@given(LOG, st.integers(1, 61))
@settings(max_examples=10, deadline=None)
def test_no_event_at_or_after_the_moment_changes_a_feature(log, now):
    sequences = sequences_of(log)
    cut_us = NEW_YEAR_US + now * DAY_US // 2
    n_past = np.bincount(sequences.user_idx[sequences.time_us < cut_us], minlength=sequences.n_users)
    past = sequences.until(sequences.offsets[:-1] + n_past)
    users = sequences.vocab.users.ids.to_pylist()
    described = []
    for known in (sequences, past):
        labels = asked(known)
        now_asked = labels.ask(influent.moments_at(known, users, [cut_us] * len(users)), ["0"] * len(users))
        # The mean of all training labels is what it is; it stands for the items of which nothing is known.
        described.append(question_features(now_asked, replace(build_item_rates(labels), mean=0.5)).values)
    assert np.allclose(*described, equal_nan=True)


# The item that is asked about


def column(features, name: str) -> list[float]:
    return features[name].tolist()


def test_an_item_is_told_by_what_training_knew_of_it_before_the_moment(clicks):
    labels = asked(clicks)
    features = question_features(labels, build_item_rates(labels, smoothing=2.0))
    # In order: ann's apple (day 1), apple and corn (3), beet (20), bob's beet (2) and apple (5).
    assert column(features, "item_events") == [0, 1, 0, 1, 0, 2]
    assert column(features, "item_asked") == [0, 1, 0, 1, 0, 2]
    # 2 of 6 are clicks. Before day 5 one of two apples, before day 20 bob's only beet was clicked.
    prior = 2 * (2 / 6)
    expected = [prior / 2, prior / 3, prior / 2, (1 + prior) / 3, prior / 2, (1 + prior) / 4]
    assert column(features, "item_label") == pytest.approx(expected)


def test_an_item_is_told_by_how_often_the_user_met_it_and_its_category(clicks):
    labels = asked(clicks)
    features = question_features(labels, build_item_rates(labels))
    assert column(features, "item_met") == [0, 1, 0, 0, 0, 0]
    assert column(features, "item_met[show]") == [0, 1, 0, 0, 0, 0]
    assert column(features, "days_since_item") == [NAN, 2, NAN, NAN, NAN, NAN]
    # Ann's apples are food as the beet on day 20 is; corn is of no category.
    assert column(features, "category_met") == [0, 1, NAN, 2, 0, 1]
    assert column(features, "category_met[click]") == [0, 0, NAN, 1, 0, 1]
    assert column(features, "category_share") == [0, 1, NAN, 2 / 3, 0, 1]
    assert column(features, "days_since_category") == [NAN, 2, NAN, 17, NAN, 3.25]


def test_answers_of_the_same_moment_are_not_known_at_it():
    log = {"user_id": [1, 2], "item_id": ["a", "a"], "action": ["click", "show"], "time": ["2024-01-01"] * 2}
    labels = of_events(build(**log), positive="click", among=["show", "click"])
    features = question_features(labels, build_item_rates(labels))
    assert column(features, "item_asked") == [0, 0]
    assert column(features, "item_label") == [0.5, 0.5]


def test_only_training_says_what_items_are_like(clicks):
    labels = asked(clicks)
    train = labels.take(np.array([0, 3]))  # ann on day 1, bob on day 2
    train = replace(train, moments=influent.Moments(**{**vars(train.moments), "sequences": clicks}))
    features = question_features(labels, build_item_rates(train))
    assert column(features, "item_asked") == [0, 1, 0, 1, 0, 1]


def test_in_an_order_only_log_no_answer_of_a_user_describes_a_question_of_theirs():
    users = [f"u{place}" for place in range(10)]
    sequences = build(user_id=users, item_id=["a"] * 10, action=["click"] * 5 + ["show"] * 5)
    labels = of_events(sequences, positive="click", among=["show", "click"])
    features = question_features(labels, build_item_rates(labels, smoothing=2.0))
    # Users 0 and 5 are of one fifth, 1 and 6 of the next: each fifth has a click, which leaves 4 among 8.
    assert column(features, "item_events") == column(features, "item_asked") == [8] * 10
    assert column(features, "item_label") == [(4 + 2 * 0.5) / (8 + 2)] * 10
    assert column(features, "events_since_item") == [NAN] * 10


@given(st.lists(st.booleans(), min_size=6, max_size=12), st.data())
@settings(max_examples=8, deadline=None)
def test_turning_an_answer_round_changes_no_feature_of_its_own_user(clicked, data):
    users = [place // 2 for place in range(len(clicked))]
    actions = ["click", *("click" if one else "show" for one in clicked), "show"]
    sequences = build(user_id=[*users[:1], *users, *users[-1:]], item_id=["a"] * len(actions), action=actions)
    labels = of_events(sequences, positive="click", among=["show", "click"])
    place = data.draw(st.integers(0, len(labels) - 1))
    turned = replace(labels, label=np.where(np.arange(len(labels)) == place, 1 - labels.label, labels.label))
    own = labels.user_idx == labels.user_idx[place]
    rates, other = build_item_rates(labels), build_item_rates(turned)
    same = question_features(labels, rates), question_features(labels, replace(other, mean=rates.mean))
    assert np.array_equal(same[0].values[own], same[1].values[own], equal_nan=True)


def test_the_rate_of_a_number_is_its_smoothed_mean():
    log = {"user_id": [1, 1, 2], "item_id": ["a", "b", "a"], "value": [4.0, 1.0, 2.0]}
    sequences = build(**log, time=["2024-01-01", "2024-01-02", "2024-01-03"])
    labels = number_of_events(sequences)
    features = question_features(labels, build_item_rates(labels, smoothing=1.0))
    assert column(features, "item_label") == pytest.approx([7 / 3, 7 / 3, (4 + 7 / 3) / 2])


def test_an_item_that_is_not_known_was_never_met(clicks):
    labels = asked(clicks)
    later = influent.moments_at(clicks, ["ann"], [NEW_YEAR_US + 30 * DAY_US])
    features = question_features(labels.ask(later, ["durian"]), build_item_rates(labels))
    assert [features[name][0] for name in ("item_events", "item_asked", "item_met")] == [0, 0, 0]
    assert features["item_label"][0] == pytest.approx(2 / 6)
    assert features["category_met"][0] == NAN


def test_at_a_moment_without_a_time_all_of_training_is_known(clicks):
    labels = asked(clicks)
    features = question_features(
        labels.ask(influent.latest_moments(clicks), ["beet", "beet"]), build_item_rates(labels)
    )
    assert column(features, "item_events") == [2, 2]
    assert column(features, "days_since_item") == [0, 3.125 + 0.125]


def test_questions_about_users_need_no_rates_and_those_about_items_do(clicks):
    churn = will_do(clicks, "2024-01-03", horizon_days=5)
    assert question_features(churn).names == history_features(churn.moments).names
    with pytest.raises(influent.ConfigError, match="there is no item to have a rate"):
        build_item_rates(churn)
    with pytest.raises(influent.ConfigError, match=r"Say what is known of them: build_item_rates\(train\)"):
        question_features(asked(clicks))
    with pytest.raises(influent.ConfigError, match="'smoothing' parameter .* must be above 0. Got 0"):
        build_item_rates(asked(clicks), smoothing=0)


def test_questions_of_one_moment_share_its_history(clicks):
    labels = asked(clicks)
    features = question_features(labels, build_item_rates(labels))
    assert labels.moment.tolist() == [0, 1, 1, 2, 3, 4]
    n_history = len(history_features(labels.moments).names)
    assert np.array_equal(features.values[1, :n_history], features.values[2, :n_history], equal_nan=True)
