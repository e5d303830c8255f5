from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import influent
from influent.data.label_split import LabelSplit, split_events_at, split_labels_at
from influent.data.labels import Labels, amount_within, number_of_events, of_events, will_do

DAY_US = 86_400_000_000
NEW_YEAR_US = 1_704_067_200_000_000

DAYS = [
    # On which day of January 2024 who does what.
    (1, "ann", "tea", "view", None),
    (2, "bob", "cup", "view", None),
    (4, "ann", "pot", "buy", 20.0),
    (6, "bob", "tea", "view", None),
    (6, "bob", "cup", "buy", 5.0),
    (7, "cat", "tea", "buy", 3.0),
    (7, "ann", "tea", "buy", None),
    (11, "ann", "oat", "view", None),
]


def build(**columns: list) -> influent.Sequences:
    events = influent.clean(influent.read_events(pa.table(columns)), drop_duplicates=False)
    return influent.build_sequences(events)


@pytest.fixture
def days() -> influent.Sequences:
    """Ann acts on days 1 4 7 11, bob on 2 6 6, cat on 7."""
    day, user, item, action, value = (list(column) for column in zip(*DAYS, strict=True))
    times = [f"2024-01-{one:02}" for one in day]
    return build(user_id=user, item_id=item, action=action, time=times, value=value)


@pytest.fixture
def order_only() -> influent.Sequences:
    """Ann is shown a b c d e f g h i j and clicks every other; bob is shown a and b, cat a."""
    return build(
        user_id=["ann"] * 10 + ["bob", "bob", "cat"],
        item_id=list("abcdefghij") + list("aba"),
        action=["show", "click"] * 5 + ["show", "click", "show"],
    )


def told(labels: Labels) -> list[tuple]:
    """Return user, day and label of each question."""
    rows = labels.table.to_pylist()
    return [(row["user_id"], 1 + (row["time_us"] - NEW_YEAR_US) // DAY_US, row["label"]) for row in rows]


def histories(labels: Labels) -> list[list[int]]:
    """Return the rows of the log in the history of each moment."""
    row, moments = labels.moments.sequences.event_id, labels.moments
    return [row[start:stop].tolist() for start, stop in zip(moments.start, moments.stop, strict=True)]


# Questions with a horizon


def test_whoever_has_a_history_is_asked_whether_anything_comes_within_the_horizon(days):
    labels = will_do(days, "2024-01-05", horizon_days=2)  # days 5 and 6
    assert told(labels) == [("ann", 5, 0.0), ("bob", 5, 1.0)]
    assert histories(labels) == [[0, 2], [1]]
    assert (labels.name, labels.unit, labels.kind) == ("event within 2 days", "probability", "classification")


def test_an_event_at_the_cutoff_is_an_answer_and_one_at_the_end_of_the_horizon_is_not(days):
    labels = will_do(days, "2024-01-04", horizon_days=2)  # ann on day 4; bob on day 6 is too late
    assert told(labels) == [("ann", 4, 1.0), ("bob", 4, 0.0)]
    assert histories(labels) == [[0], [1]]


def test_only_the_actions_that_are_asked_for_count(days):
    labels = will_do(days, "2024-01-07", horizon_days=4, actions="buy")
    assert told(labels) == [("ann", 7, 1.0), ("bob", 7, 0.0)]
    assert will_do(days, "2024-01-02", horizon_days=1, actions=["view", "buy"]).name == "view or buy within 1 days"


def test_staying_away_is_the_other_way_round(days):
    stays, comes = (will_do(days, "2024-01-05", horizon_days=2, absent=absent) for absent in (True, False))
    assert (stays.label + comes.label).tolist() == [1, 1]
    assert stays.name == "no event within 2 days"


def test_several_cutoffs_are_asked_in_order_of_time_and_each_user_at_each(days):
    labels = will_do(days, ["2024-01-08", "2024-01-05", NEW_YEAR_US + 4 * DAY_US], horizon_days=2)
    assert told(labels) == [("ann", 5, 0.0), ("bob", 5, 1.0), ("ann", 8, 0.0), ("bob", 8, 0.0), ("cat", 8, 0.0)]
    assert labels.moment.tolist() == [0, 1, 2, 3, 4]


def test_an_answer_that_is_not_in_the_log_yet_is_refused(days):
    assert len(will_do(days, "2024-01-08", horizon_days=3)) == 3
    with pytest.raises(
        influent.DataError,
        match=r"within 3 days from 2024-01-08T00:00:00.000001Z is not all in the log, whose last event is at "
        r"2024-01-11T00:00:00Z. The latest cutoff with an answer is 2024-01-08T00:00:00Z",
    ):
        will_do(days, NEW_YEAR_US + 7 * DAY_US + 1, horizon_days=3)
    with pytest.raises(influent.DataError, match=r"the log spans 10.0 days, no more than a horizon of 10 days"):
        will_do(days, "2024-01-02", horizon_days=10)


def test_an_amount_is_the_sum_within_the_horizon_and_nothing_is_zero(days):
    labels = amount_within(days, "2024-01-03", horizon_days=5)  # ann 20 on day 4 and a purchase without a value on 7
    assert told(labels) == [("ann", 3, 20.0), ("bob", 3, 5.0)]
    assert told(amount_within(days, "2024-01-05", horizon_days=5, actions="view")) == [("ann", 5, 0.0), ("bob", 5, 0.0)]
    assert (labels.name, labels.unit, labels.kind) == ("value of event within 5 days", "value", "regression")


def test_a_log_scale_can_be_undone(days):
    labels = amount_within(days, "2024-01-03", horizon_days=5, log=True)
    assert labels.unit == "log1p(value)"
    assert labels.label.tolist() == pytest.approx([np.log(21), np.log(6)])
    assert labels.to_natural(labels.label).tolist() == pytest.approx([20, 5])
    plain = amount_within(days, "2024-01-03", horizon_days=5)
    assert plain.to_natural(plain.label).tolist() == [20, 5]


def test_negative_amounts_have_no_logarithm():
    log = {"user_id": [1, 1, 1], "item_id": list("abc"), "time": ["2024-01-01", "2024-01-02", "2024-01-09"]}
    sequences = build(**log, value=[1.0, -5.0, 0.0])
    with pytest.raises(influent.DataError, match=r"1 labels of value are negative \(the least is -5\)"):
        amount_within(sequences, "2024-01-02", horizon_days=2, log=True)
    with pytest.raises(influent.DataError, match="1 labels of value are negative"):
        number_of_events(sequences, log=True)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 1)), min_size=2, max_size=15),
    st.integers(0, 30),
    st.integers(1, 10),
)
@settings(max_examples=25, deadline=None)
def test_labels_with_a_horizon_agree_with_looking_at_every_event(log, day, horizon):
    user, at, action = (list(column) for column in zip(*log, strict=True))
    times = [NEW_YEAR_US + one * DAY_US for one in at]
    actions = [("view", "buy")[one] for one in action]
    sequences = build(user_id=user, item_id=user, time_us=times, action=actions, value=[float(one) for one in at])
    cutoff = NEW_YEAR_US + day * DAY_US
    try:
        did = will_do(sequences, cutoff, horizon_days=horizon, actions="buy" if "buy" in actions else None)
        spent = amount_within(sequences, cutoff, horizon_days=horizon)
    except influent.DataError:
        return
    asked = sorted({who for who, when, _ in log if when < day})
    within = [(who, when, what) for who, when, what in log if day <= when < day + horizon]
    bought = {who for who, _, what in within if what == 1 or "buy" not in actions}
    assert told(did) == [(who, day + 1, float(who in bought)) for who in asked]
    assert spent.label.tolist() == [sum(when for one, when, _ in within if one == who) for who in asked]


# Questions about events


def test_events_of_one_user_at_one_time_are_one_moment_and_never_in_its_history():
    sequences = build(
        user_id=[1, 1, 1, 1, 2],
        item_id=list("abcab"),
        action=["show", "show", "click", "click", "show"],
        time=["2024-01-01", "2024-01-02", "2024-01-02", "2024-01-03", "2024-01-02"],
    )
    labels = of_events(sequences, positive="click", among=["show", "click"])
    assert labels.moment.tolist() == [0, 1, 1, 2, 3]
    assert labels.table.column("item_id").to_pylist() == list("abcab")
    assert labels.label.tolist() == [0, 0, 1, 1, 0]
    assert histories(labels) == [[], [0], [0, 1, 2], []]
    assert labels.name == "click among show or click"


def test_what_is_not_asked_about_is_still_not_in_the_history_of_its_time():
    sequences = build(user_id=[1, 1, 1], item_id=list("abc"), action=["open", "show", "click"], time=["2024-01-01"] * 3)
    labels = of_events(sequences, positive="click", among=["show", "click"])
    assert histories(labels) == [[]]
    assert labels.label.tolist() == [0, 1]


def test_in_an_order_only_log_each_event_is_a_moment_of_its_own(order_only):
    labels = of_events(order_only, positive="click", among=["show", "click"])
    assert labels.moment.tolist() == list(range(13))
    assert [len(history) for history in histories(labels)] == [*range(10), 0, 1, 0]


def test_events_can_be_asked_about_within_a_time(days):
    labels = of_events(days, positive="buy", among=["buy", "view"], since="2024-01-04", until="2024-01-07")
    assert told(labels) == [("ann", 4, 1.0), ("bob", 6, 0.0), ("bob", 6, 1.0)]
    assert histories(labels) == [[0], [1]]


def test_the_number_of_an_event_is_asked_where_it_is_known(days):
    labels = number_of_events(days)
    assert told(labels) == [("ann", 4, 20.0), ("bob", 6, 5.0), ("cat", 7, 3.0)]
    assert labels.table.column("item_id").to_pylist() == ["pot", "cup", "tea"]
    assert histories(labels) == [[0], [1], []]
    assert number_of_events(days, actions="buy", log=True, until="2024-01-05").label.tolist() == [np.log1p(20)]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.booleans()), min_size=1, max_size=15))
@settings(max_examples=25, deadline=None)
def test_nothing_in_a_history_is_at_or_after_its_moment(log):
    user, at, clicked = (list(column) for column in zip(*log, strict=True))
    sequences = build(
        user_id=[*user, 9, 9],
        item_id=[*user, 9, 9],
        action=[*(("show", "click")[one] for one in clicked), "show", "click"],
        time_us=[*(NEW_YEAR_US + one for one in at), NEW_YEAR_US, NEW_YEAR_US],
    )
    labels = of_events(sequences, positive="click", among=["show", "click"])
    assert len(labels) == len(log) + 2
    times = dict(zip(sequences.event_id.tolist(), sequences.time_us.tolist(), strict=True))
    for history, moment, who in zip(histories(labels), labels.moments.time_us, labels.moments.user_idx, strict=True):
        whose = sequences.vocab.users.ids[int(who)].as_py()
        before = [row for row, (one, when, _) in enumerate(log) if one == whose and NEW_YEAR_US + when < moment]
        assert sorted(history) == before
        assert all(times[row] < moment for row in history)


# What cannot be asked


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (partial(will_do, cutoffs=[], horizon_days=1), influent.ConfigError, "need at least one cutoff"),
        (partial(will_do, cutoffs="2024-01-05", horizon_days=0), influent.ConfigError, "'horizon_days'.* Got 0"),
        (partial(will_do, cutoffs="2024-01-01", horizon_days=1), influent.DataError, "no user has an event before the"),
        (partial(will_do, cutoffs="soon", horizon_days=1), influent.ConfigError, "'soon' is no ISO 8601 time"),
        (
            partial(will_do, cutoffs="2024-01-05", horizon_days=1, actions="bye"),
            influent.UnknownIdError,
            "action 'bye' is not among the 2 known. Did you mean 'buy'",
        ),
        (
            partial(amount_within, cutoffs="2024-01-05", horizon_days=1, number="valu"),
            influent.SchemaError,
            r"have no number 'valu'. They have: value. Did you mean 'value'\? Keep it with build_sequences",
        ),
        (partial(number_of_events, number="x"), influent.SchemaError, "no number 'x'"),
        (
            partial(number_of_events, actions="view"),
            influent.DataError,
            "there is no view with such a number to ask about",
        ),
        (partial(of_events, positive="buy", among="buy"), influent.ConfigError, "at least one that is not positive"),
        (
            partial(of_events, positive="buy", among="view"),
            influent.ConfigError,
            r"positive actions \(buy\).* Got view",
        ),
        (partial(of_events, positive=[], among="view"), influent.ConfigError, r"\(none given\)"),
        (
            partial(of_events, positive="buy", among=["buy", "view"], since="2025-01-01"),
            influent.DataError,
            "there is no buy or view between 'since' and 'until' to ask about",
        ),
    ],
)
def test_what_cannot_be_asked_is_said(days, ask, error, message):
    with pytest.raises(error, match=message):
        ask(days)


def test_an_order_only_log_has_no_days_to_look_ahead(order_only):
    with pytest.raises(influent.ConfigError, match="an order-only log has no days to look ahead"):
        will_do(order_only, "2024-01-01", horizon_days=1)
    with pytest.raises(influent.ConfigError, match="leave 'since' and 'until' out"):
        of_events(order_only, positive="click", among=["click", "show"], since="2024-01-01")


def test_a_log_without_events_has_no_labels(days):
    empty = days.until(days.offsets[:-1])
    with pytest.raises(influent.DataError, match="there are no events to label"):
        will_do(empty, "2024-01-01", horizon_days=1)
    with pytest.raises(influent.DataError, match="there is no buy or view to ask about"):
        of_events(empty, positive="buy", among=["buy", "view"])


# Labels


def test_labels_that_do_not_fit_are_refused(days):
    labels = of_events(days, positive="buy", among=["buy", "view"])
    with pytest.raises(influent.DataError, match="Got 8 moments, 2 labels and 8 items"):
        replace(labels, label=np.zeros(2))
    with pytest.raises(influent.DataError, match="must be places among the 7, in their order"):
        replace(labels, moment=labels.moment[::-1])
    with pytest.raises(influent.DataError, match=r"of the classification .* must be 0 or 1. Got 0.5"):
        replace(labels, label=np.full(8, 0.5))
    with pytest.raises(influent.DataError, match="is infinite"):
        replace(labels, label=np.full(8, np.inf), kind="regression")
    with pytest.raises(influent.ConfigError, match=r"'classification' or 'regression'. Got 'ranking'"):
        replace(labels, kind="ranking")


def test_a_history_that_holds_the_very_time_of_its_moment_is_leakage(days):
    labels = of_events(days, positive="buy", among=["buy", "view"])
    with pytest.raises(influent.LeakageError, match=r"moment 1 is at 2024-01-04T00:00:00Z and its history holds an"):
        replace(labels, moments=replace(labels.moments, stop=labels.moments.stop + (np.arange(7) == 1)))


def test_a_moment_is_taken_with_all_of_its_questions(days):
    labels = of_events(days, positive="buy", among=["buy", "view"])
    assert told(labels)[5:7] == [("bob", 6, 0.0), ("bob", 6, 1.0)]
    taken = labels.take(np.array([5, 0]))
    assert told(taken) == [("bob", 6, 0.0), ("bob", 6, 1.0), ("ann", 1, 0.0)]
    assert taken.table.column("item_id").to_pylist() == ["tea", "cup", "tea"]
    assert taken.moment.tolist() == [0, 0, 1]
    assert told(labels.take(slice(0, 1))) == [("ann", 1, 0.0)]
    assert len(labels.take(slice(0, 0))) == 0


def test_the_same_question_can_be_asked_where_the_answer_is_not_known(days):
    churn = will_do(days, "2024-01-05", horizon_days=2, absent=True)
    now = churn.ask(influent.moments_at(days, ["cat", "ann"], [NEW_YEAR_US + 20 * DAY_US] * 2))
    assert (now.name, np.isnan(now.label).all()) == ("no event within 2 days", True)
    assert [row["user_id"] for row in now.table.to_pylist()] == ["cat", "ann"]
    clicks = of_events(days, positive="buy", among=["buy", "view"])
    latest = influent.latest_moments(days)
    assert clicks.ask(latest, ["tea", "cup", "new"]).item_idx.tolist() == [3, 0, -1]
    with pytest.raises(influent.ConfigError, match="asked about items: name one for each moment"):
        clicks.ask(latest)
    with pytest.raises(influent.ConfigError, match="asked about the user: leave item_ids out"):
        churn.ask(latest, ["tea"])
    with pytest.raises(influent.ConfigError, match="one item for each moment. Got 1 for 3"):
        clicks.ask(latest, ["tea"])
    with pytest.raises(influent.ConfigError, match=r"is asked at a time. Use moments_at\("):
        churn.ask(latest)


def test_the_fingerprint_is_stable_and_changes_with_every_part(days):
    labels = of_events(days, positive="buy", among=["buy", "view"])
    assert labels.fingerprint == of_events(days, positive="buy", among=["buy", "view"]).fingerprint
    others = [
        replace(labels, label=1 - labels.label),
        replace(labels, name="other"),
        replace(labels, item_idx=None),
        labels.take(slice(0, 6)),
        of_events(days, positive="buy", among=["buy", "view"], since="2024-01-02"),
    ]
    assert len({labels.fingerprint, *(other.fingerprint for other in others)}) == 6


# Splits with a horizon


def log_of_days(n_days: int) -> influent.Sequences:
    """Ann acts every day, bob every third."""
    day = [*range(n_days), *range(0, n_days, 3)]
    users = ["ann"] * n_days + ["bob"] * (len(day) - n_days)
    return build(user_id=users, item_id=["x"] * len(day), time_us=[NEW_YEAR_US + one * DAY_US for one in day])


def days_of(labels: Labels) -> list[int]:
    return sorted({int((time - NEW_YEAR_US) // DAY_US) + 1 for time in labels.moments.time_us})


def test_each_part_is_asked_when_all_answers_of_the_part_before_are_known():
    sequences = log_of_days(30)
    split = split_labels_at(partial(will_do, sequences, horizon_days=5), "2024-01-24", n_cutoffs=3, step_days=2)
    assert [days_of(part) for part in split] == [[10, 12, 14], [19], [24]]  # 14 + 5 = 19, 19 + 5 = 24
    assert split.protocol == (
        "by time: trained at 3 from 2024-01-10T00:00:00Z, validated at 2024-01-19T00:00:00Z, "
        "tested at 2024-01-24T00:00:00Z"
    )


def test_each_part_stands_on_sequences_that_end_before_the_next_begins():
    split = split_labels_at(partial(amount_within, log_of_days_with_value(), horizon_days=5), "2024-01-24")
    train, validation, test = split
    assert train.moments.sequences.time_us.max() == NEW_YEAR_US + 17 * DAY_US  # day 18
    assert validation.moments.sequences.time_us.max() == NEW_YEAR_US + 22 * DAY_US
    assert len(test.moments.sequences) == 30
    assert [len(history) for history in histories(train) + histories(validation) + histories(test)] == [13, 18, 23]


def log_of_days_with_value() -> influent.Sequences:
    times = [NEW_YEAR_US + one * DAY_US for one in range(30)]
    return build(user_id=["ann"] * 30, item_id=["x"] * 30, time_us=times, value=[1.0] * 30)


def test_a_split_has_the_labels_that_its_builder_gives():
    sequences = log_of_days(30)
    build_labels = partial(will_do, sequences, horizon_days=2, absent=True)
    split = split_labels_at(build_labels, "2024-01-24", n_cutoffs=2)
    assert told(split.test) == told(build_labels("2024-01-24"))
    assert told(split.validation) == told(build_labels("2024-01-22"))
    assert told(split.train) == told(build_labels(["2024-01-18", "2024-01-20"]))


def test_a_log_too_short_for_three_horizons_can_hold_out_users_instead():
    n = 40
    sequences = build(
        user_id=[*range(n), *range(n)], item_id=["x"] * 2 * n, time=["2024-01-01"] * n + ["2024-01-30"] * n
    )
    whole = partial(will_do, sequences, horizon_days=10)
    with pytest.raises(
        influent.ConfigError,
        match=r"training would begin at 2023-12-31T00:00:00Z, where the log has no event yet: it begins at "
        r"2024-01-01T00:00:00Z. Use a later cutoff, a shorter horizon or fewer n_cutoffs, or hold out users",
    ):
        split_labels_at(whole, "2024-01-20")
    train, validation, test = split_labels_at(whole, "2024-01-20", validation_users=0.25)
    assert [days_of(part) for part in (train, validation, test)] == [[10], [10], [20]]
    assert sorted([*train.user_idx, *validation.user_idx]) == list(range(n))
    assert 4 <= len(validation) <= 16  # about 10
    assert set(train.moments.sequences.user_idx) == set(train.user_idx)
    assert set(split_labels_at(whole, "2024-01-20", validation_users=0.25, seed=1).train.user_idx) != set(
        train.user_idx
    )
    with pytest.raises(influent.ConfigError, match=r"fewer n_cutoffs\.$"):
        split_labels_at(whole, "2024-01-20", validation_users=0.25, n_cutoffs=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_cutoffs": 0}, "'n_cutoffs' .* must be an int from 1. Got 0"),
        ({"step_days": -1}, "'step_days' .* above 0. Got -1"),
        ({"validation_users": 1.0}, "must be a share between 0 and 1, or None. Got 1.0"),
    ],
)
def test_a_split_with_settings_out_of_range_is_refused(settings, message):
    with pytest.raises(influent.ConfigError, match=message):
        split_labels_at(partial(will_do, log_of_days(30), horizon_days=5), "2024-01-24", **settings)


def test_each_kind_of_split_names_the_other_for_the_other_kind_of_labels(days):
    bought = partial(of_events, days, positive="buy", among=["buy", "view"])
    with pytest.raises(influent.ConfigError, match=r"has no horizon: the event is the answer. Use split_events_at"):
        split_labels_at(lambda cutoffs: bought(), "2024-01-05")
    with pytest.raises(influent.ConfigError, match=r"has a horizon. Use split_labels_at"):
        split_events_at(will_do(days, "2024-01-05", horizon_days=1), "2024-01-05")


# Splits of events


def test_events_are_split_by_the_time_of_their_moments(days):
    labels = of_events(days, positive="buy", among=["buy", "view"])
    split = split_events_at(labels, "2024-01-07", validation="2024-01-06")
    assert told(split.train) == [("ann", 1, 0.0), ("ann", 4, 1.0), ("bob", 2, 0.0)]
    assert told(split.validation) == [("bob", 6, 0.0), ("bob", 6, 1.0)]
    assert told(split.test) == [("ann", 7, 1.0), ("ann", 11, 0.0), ("cat", 7, 1.0)]
    assert sorted(split.train.moments.sequences.event_id.tolist()) == [0, 1, 2]
    assert sorted(split.validation.moments.sequences.event_id.tolist()) == [0, 1, 2, 3, 4]
    assert histories(split.test) == [[0, 2], [0, 2, 6], []]
    assert split.protocol == "by time: validation from 2024-01-06T00:00:00Z, test from 2024-01-07T00:00:00Z"


def test_a_share_is_of_the_moments_that_come_before(days):
    labels = of_events(days, positive="buy", among=["buy", "view"])
    shares = split_events_at(labels, 0.5, validation=0.5)  # the middle of days 1 2 4 6 7 7 11 is 6, that of 1 2 4 is 2
    assert [days_of(part) for part in shares] == [[1], [2, 4], [6, 7, 11]]


def test_an_order_only_log_is_split_by_each_users_order(order_only):
    labels = of_events(order_only, positive="click", among=["click", "show"])
    split = split_events_at(labels, 0.8, validation=0.75)
    # Of ann's 10, 8 come before test and 6 of these before validation; bob's 2 and cat's 1 are all rounded up.
    assert [np.bincount(part.user_idx, minlength=3).tolist() for part in split] == [[6, 2, 1], [2, 0, 0], [2, 0, 0]]
    assert split.train.table.column("item_id").to_pylist() == [*"abcdef", *"ab", "a"]
    assert np.diff(split.train.moments.sequences.offsets).tolist() == [6, 2, 1]
    assert np.diff(split.validation.moments.sequences.offsets).tolist() == [8, 2, 1]
    assert [len(history) for history in histories(split.test)] == [8, 9]


def test_cuts_of_events_that_cannot_be_made_are_refused(days, order_only):
    labels = of_events(days, positive="buy", among=["buy", "view"])
    with pytest.raises(influent.ConfigError, match="is left for test"):
        split_events_at(labels, "2024-02-01", validation="2024-01-05")
    with pytest.raises(influent.ConfigError, match="is left for training"):
        split_events_at(labels, "2023-02-01")
    with pytest.raises(influent.ConfigError, match="is left for validation"):
        split_events_at(labels, "2024-01-07", validation="2024-01-08")
    by_order = of_events(order_only, positive="click", among=["click", "show"])
    with pytest.raises(influent.ConfigError, match=r"is cut by shares between 0 and 1. Got '2024-01-01'"):
        split_events_at(by_order, "2024-01-01")


# Both


def test_a_split_names_the_training_labels_and_sequences_that_may_be_judged():
    split = split_labels_at(partial(will_do, log_of_days(30), horizon_days=5), "2024-01-24")
    may_judge = {split.train.fingerprint, split.train.moments.sequences.fingerprint}
    assert split.validation.moments.fingerprints == split.test.moments.fingerprints == may_judge
    assert split.train.moments.fingerprints == frozenset()


def test_the_hash_of_a_split_is_stable_and_changes_with_every_cut():
    churn = partial(will_do, log_of_days(30), horizon_days=5)
    again = split_labels_at(churn, "2024-01-24")
    splits = [
        split_labels_at(churn, "2024-01-24"),
        split_labels_at(churn, "2024-01-25"),
        split_labels_at(churn, "2024-01-24", n_cutoffs=2),
        split_labels_at(churn, "2024-01-24", validation_users=0.5),
    ]
    assert again.hash == splits[0].hash
    assert len({split.hash for split in splits}) == 4


def test_an_answer_that_reaches_past_the_beginning_of_the_next_part_is_leakage(order_only):
    churn = partial(will_do, log_of_days(30), horizon_days=5)
    with pytest.raises(influent.LeakageError, match="an answer in training is known only after validation has begun"):
        LabelSplit(protocol="", train=churn("2024-01-15"), validation=churn("2024-01-19"), test=churn("2024-01-25"))
    with pytest.raises(influent.LeakageError, match="an answer in validation is known only after test has begun"):
        LabelSplit(protocol="", train=churn("2024-01-05"), validation=churn("2024-01-20"), test=churn("2024-01-24"))
    same = churn("2024-01-05")
    with pytest.raises(influent.LeakageError, match="a user is in training and in validation"):
        LabelSplit(protocol="", train=same, validation=same, test=churn("2024-01-24"), by_user=True)
    clicks = of_events(order_only, positive="click", among=["click", "show"])
    first, second = clicks.take(slice(0, 2)), clicks.take(slice(1, 3))
    with pytest.raises(influent.LeakageError, match="an answer in training is known only after validation has begun"):
        LabelSplit(protocol="", train=first, validation=second, test=clicks.take(slice(3, 4)))


def test_a_part_without_a_question_is_refused():
    churn = partial(will_do, log_of_days(30), horizon_days=5)
    nothing = churn("2024-01-05").take(slice(0, 0))
    with pytest.raises(influent.DataError, match="training or validation has no question"):
        LabelSplit(protocol="", train=nothing, validation=churn("2024-01-15"), test=churn("2024-01-24"))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=5, max_size=30),
    st.integers(10, 35),
    st.integers(1, 8),
)
@settings(max_examples=25, deadline=None)
def test_no_training_history_or_answer_comes_from_after_validation_begins(log, day, horizon):
    user, at = (list(column) for column in zip(*log, strict=True))
    sequences = build(user_id=user, item_id=user, time_us=[NEW_YEAR_US + one * DAY_US for one in at])
    try:
        split = split_labels_at(partial(will_do, sequences, horizon_days=horizon), NEW_YEAR_US + day * DAY_US)
    except (influent.DataError, influent.ConfigError):
        return
    train, validation, test = split
    assert train.moments.sequences.time_us.max() < validation.moments.time_us.min()
    assert validation.moments.sequences.time_us.max(initial=0) < test.moments.time_us.min()
    assert train.moments.time_us.max() + train.horizon_us <= validation.moments.time_us.min()
    assert validation.moments.time_us.max() + validation.horizon_us <= test.moments.time_us.min()
