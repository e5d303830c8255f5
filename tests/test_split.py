from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import influent
from influent.data.moments import ranges
from influent.data.split import hold_out_last

MINUTE_US = 60_000_000
NEW_YEAR_US = 1_704_067_200_000_000


@pytest.fixture
def tiny(tiny_log) -> influent.Sequences:
    """Who does what at which minute: ann 0 2 3 8 10, bob 1 5 7 11, cat 4 6 9."""
    return influent.build_sequences(influent.clean(influent.read_events(tiny_log)))


def build(**columns: list) -> influent.Sequences:
    return influent.build_sequences(influent.clean(influent.read_events(pa.table(columns)), drop_duplicates=False))


def rows(sequences: influent.Sequences) -> list[int]:
    """Return the rows of the log, which for the tiny one are minutes, in order."""
    return sorted(sequences.event_id.tolist())


def told(moments: influent.Moments) -> dict[str, tuple[list[int], list[int]]]:
    """Return, for each user, the rows of the history and those of the target."""
    row, users = moments.sequences.event_id, moments.sequences.vocab.users.ids.to_pylist()
    places = zip(moments.user_idx, moments.start, moments.stop, moments.target_stop, strict=True)
    return {users[user]: (row[start:stop].tolist(), row[stop:end].tolist()) for user, start, stop, end in places}


# Leave last out


def test_leaving_the_last_out_gives_the_last_to_test_and_the_one_before_to_validation(tiny):
    split = influent.split_last(tiny)
    assert rows(split.train) == [0, 1, 2, 3, 4, 5]
    assert told(split.validation) == {"ann": ([0, 2, 3], [8]), "bob": ([1, 5], [7]), "cat": ([4], [6])}
    assert told(split.test) == {"ann": ([0, 2, 3, 8], [10]), "bob": ([1, 5, 7], [11]), "cat": ([4, 6], [9])}


def test_validation_can_read_no_test_event_of_anybody(tiny):
    for split in (influent.split_last(tiny), influent.split_at(tiny, 0.7)):
        assert split.validation.sequences.fingerprint == split.train_and_validation.fingerprint
        assert len(split.validation.sequences) < len(tiny)


def test_users_with_fewer_than_three_events_are_trained_on_and_not_judged():
    sequences = build(user_id=[1, 1, 1, 2, 2, 3], item_id=list("abcabc"))
    split = influent.split_last(sequences)
    assert np.diff(split.train.offsets).tolist() == [1, 2, 1]
    assert told(split.test) == {1: ([0, 1], [2])}


def test_without_any_user_of_three_events_nothing_can_be_left_out():
    with pytest.raises(influent.DataError, match="needs users with at least 3 events; the longest of 2 users has 2"):
        influent.split_last(build(user_id=[1, 1, 2], item_id=list("abc")))


def test_holding_out_the_last_leaves_one_event_of_every_user_with_two(tiny):
    rest, validation = hold_out_last(build(user_id=[1, 1, 1, 2, 2, 3], item_id=list("abcabc")))
    assert rows(rest) == [0, 1, 3, 5]
    assert told(validation) == {1: ([0, 1], [2]), 2: ([3], [4])}
    assert validation.fingerprints == {rest.fingerprint}
    with pytest.raises(influent.DataError, match="no user has two events"):
        hold_out_last(build(user_id=[1, 2], item_id=["a", "a"]))


# By time


@pytest.mark.parametrize(
    ("target", "test"),
    [
        ("first", {"ann": ([0, 2, 3], [8]), "bob": ([1, 5], [7]), "cat": ([4], [6])}),
        ("last", {"ann": ([0, 2, 3, 8], [10]), "bob": ([1, 5, 7], [11]), "cat": ([4, 6], [9])}),
        ("all", {"ann": ([0, 2, 3], [8, 10]), "bob": ([1, 5], [7, 11]), "cat": ([4], [6, 9])}),
    ],
)
def test_a_split_by_time_predicts_the_first_the_last_or_all_events_from_the_cutoff(tiny, target, test):
    split = influent.split_at(tiny, "2024-01-01T00:06:00Z", validation="2024-01-01T00:04:00Z", target=target)
    assert rows(split.train) == [0, 1, 2, 3]
    assert told(split.validation) == {"bob": ([1], [5]), "cat": ([], [4])}
    assert told(split.test) == test


def test_an_event_exactly_at_a_cut_comes_after_it(tiny):
    split = influent.split_at(tiny, NEW_YEAR_US + 6 * MINUTE_US, validation=NEW_YEAR_US + 4 * MINUTE_US)
    later = influent.split_at(tiny, NEW_YEAR_US + 6 * MINUTE_US + 1, validation=NEW_YEAR_US + 4 * MINUTE_US + 1)
    assert (rows(split.train), split.test.stop.tolist()) == ([0, 1, 2, 3], [3, 7, 10])
    assert (rows(later.train), later.test.stop.tolist()) == ([0, 1, 2, 3, 4], [3, 7, 11])


def test_a_share_is_the_share_of_events_that_come_before_the_cut(tiny):
    split = influent.split_at(tiny, 0.5, validation=0.5)  # 6 of 12 before test, 3 of these 6 before validation
    assert rows(split.train) == [0, 1, 2]
    assert told(split.validation) == {"ann": ([0, 2], [3]), "bob": ([1], [5]), "cat": ([], [4])}
    assert told(split.test)["cat"] == ([4], [6])
    assert split.protocol == (
        "by time: validation from 2024-01-01T00:03:00Z, test from 2024-01-01T00:06:00Z, target first"
    )


@pytest.mark.parametrize("cutoff", ["2024-01-01T00:06:00", "2024-01-01T01:06:00+01:00", NEW_YEAR_US + 6 * MINUTE_US])
def test_a_cutoff_is_in_utc_unless_it_says_otherwise(tiny, cutoff):
    assert influent.split_at(tiny, cutoff).hash == influent.split_at(tiny, "2024-01-01T00:06:00Z").hash


def test_a_cutoff_is_exact_to_the_microsecond():
    moments = [NEW_YEAR_US + micros for micros in range(10)]
    sequences = build(user_id=[1] * 10, item_id=list("abcdefghij"), time_us=moments)
    split = influent.split_at(sequences, "2024-01-01T00:00:00.000007Z", validation="2024-01-01T00:00:00.000003Z")
    assert (len(split.train), split.test.stop.tolist()) == (3, [7])


def test_users_without_an_event_after_the_cut_are_not_judged():
    sequences = build(user_id=[1, 1, 2, 2], item_id=list("abcd"), time=[1, 8, 2, 3])
    split = influent.split_at(sequences, "1970-01-01T00:00:05Z", validation="1970-01-01T00:00:02Z")
    assert told(split.test) == {1: ([0], [1])}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), min_size=4, max_size=20), st.integers(1, 20))
@settings(max_examples=10, deadline=None)
def test_no_training_event_and_no_history_lies_at_or_after_its_cut(log, cut):
    user, time_us = (list(column) for column in zip(*log, strict=True))
    sequences = build(user_id=user, item_id=user, time_us=time_us)
    try:
        split = influent.split_at(sequences, cut + 1, validation=0.5, target="all")
    except influent.ConfigError:
        return  # a side without events
    begin = split.validation.time_us.min()
    assert (split.train.time_us < begin).all()
    assert (split.validation.sequences.time_us < cut + 1).all()
    for moments, since in ((split.validation, begin), (split.test, cut + 1)):
        for start, stop, end in zip(moments.start, moments.stop, moments.target_stop, strict=True):
            assert (moments.sequences.time_us[start:stop] < since).all()
            assert (moments.sequences.time_us[stop:end] >= since).all()


@pytest.mark.parametrize(
    ("cutoff", "settings", "message"),
    [
        ("june", {}, "'june' is no ISO 8601 time. Write 2024-03-01"),
        (0, {}, "a cut must be a time .*, or a share between 0 and 1. Got 0"),
        (1, {}, "Got 1."),
        (float("nan"), {}, "Got nan"),
        (float("inf"), {}, "Got inf"),
        (date(2024, 1, 1), {}, r"a cut must be an ISO 8601 text or a number. Got datetime.date\(2024, 1, 1\)"),
        (0.5, {"target": "next"}, "'target' .* must be 'first', 'last' or 'all'. Got 'next'"),
        ("2020-01-01", {}, "no event lies before the cutoff at 2020-01-01T00:00:00Z"),
        ("2030-01-01", {}, "no event lies at or after 2030-01-01T00:00:00Z"),
        (0.5, {"validation": "2024-01-01T00:06:00Z"}, "validation begins at 2024-01-01T00:06:00Z, not before the test"),
        (0.5, {"validation": "2024-01-01"}, "no event lies before validation begins at 2024-01-01T00:00:00Z"),
    ],
)
def test_a_cut_that_cannot_be_made_is_refused(tiny, cutoff, settings, message):
    with pytest.raises(influent.ConfigError, match=message):
        influent.split_at(tiny, cutoff, **settings)


def test_an_order_only_log_cannot_be_split_by_time():
    with pytest.raises(influent.ConfigError, match="an order-only log cannot be split by time"):
        influent.split_at(build(user_id=[1, 1], item_id=["a", "b"]), 0.5)


# Both


def test_a_split_unpacks_to_its_three_parts(tiny):
    split = influent.split_last(tiny)
    train, validation, test = split
    assert (train, validation, test) == (split.train, split.validation, split.test)


def test_the_hash_is_stable_and_changes_with_every_cut(tiny, tiny_log):
    again = influent.build_sequences(influent.clean(influent.read_events(tiny_log)))
    assert influent.split_last(again).hash == influent.split_last(tiny).hash
    splits = [
        influent.split_last(tiny),
        influent.split_at(tiny, 0.5),
        influent.split_at(tiny, 0.6),
        influent.split_at(tiny, 0.5, validation=0.5),
        influent.split_at(tiny, 0.5, target="last"),
        influent.split_at(tiny, 0.5, target="all"),
    ]
    assert len({split.hash for split in splits}) == len(splits)


def test_a_split_names_the_training_events_its_moments_may_judge(tiny):
    split = influent.split_last(tiny)
    assert split.validation.fingerprints == {split.train.fingerprint}
    assert split.test.fingerprints == {split.train.fingerprint, split.train_and_validation.fingerprint}


# Moments


def at(sequences: influent.Sequences, **places: object) -> influent.Moments:
    arrays = {name: np.array([place]) for name, place in places.items()}
    return influent.Moments(sequences=sequences, **arrays)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"user_idx": 1, "start": 4, "stop": 6, "target_stop": 6}, "reaches into another user's events"),
        ({"user_idx": 0, "start": 0, "stop": 5, "target_stop": 6}, "reaches into another user's events"),
        ({"user_idx": 0, "start": 3, "stop": 2, "target_stop": 4}, "must end before its targets begin: start <= stop"),
        ({"user_idx": 0, "start": 0, "stop": 4, "target_stop": 3}, "must end before its targets begin"),
    ],
)
def test_a_history_of_somebody_else_or_from_the_future_is_leakage(tiny, places, message):
    with pytest.raises(influent.LeakageError, match=message):
        at(tiny, **places)


def test_a_history_that_reaches_past_its_moment_is_leakage(tiny):
    places = {"user_idx": 0, "start": 0, "stop": 3, "target_stop": 3}  # ann's minutes 0, 2 and 3
    assert len(at(tiny, **places, time_us=NEW_YEAR_US + 3 * MINUTE_US)) == 1
    with pytest.raises(
        influent.LeakageError, match=r"moment 0 is at 1704067379999999 µs but its history reaches to 170"
    ):
        at(tiny, **places, time_us=NEW_YEAR_US + 3 * MINUTE_US - 1)


def test_the_first_of_several_leaks_is_named(tiny):
    moments = influent.latest_moments(tiny)
    late = np.array([NEW_YEAR_US + 60 * MINUTE_US, NEW_YEAR_US, NEW_YEAR_US])
    with pytest.raises(influent.LeakageError, match="moment 1 is at"):
        replace(moments, time_us=late)


@pytest.mark.parametrize(("minute", "history"), [(0, []), (2, [0]), (2.5, [0, 2]), (3, [0, 2]), (99, [0, 2, 3, 8, 10])])
def test_a_moment_has_the_events_before_it_and_not_those_at_it(tiny, minute, history):
    moments = influent.moments_at(tiny, ["ann"], [NEW_YEAR_US + int(minute * MINUTE_US)])
    assert told(moments) == {"ann": (history, [])}


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 11)), max_size=6),
)
@settings(max_examples=10, deadline=None)
def test_moments_at_agrees_with_looking_at_every_event(log, asked):
    user, time_us = (list(column) for column in zip(*log, strict=True))
    sequences = build(user_id=user, item_id=user, time_us=time_us)
    asked = [(who, when) for who, when in asked if who in user]
    moments = influent.moments_at(sequences, [who for who, _ in asked], [when for _, when in asked])
    for (who, when), start, stop in zip(asked, moments.start, moments.stop, strict=True):
        before = [row for row, (one, time) in enumerate(log) if one == who and time < when]
        assert sorted(sequences.event_id[start:stop].tolist()) == before


def test_moments_at_needs_times_known_users_and_one_time_each(tiny):
    with pytest.raises(influent.ConfigError, match=r"an order-only log has no moments in time. Use latest_moments"):
        influent.moments_at(replace(tiny, time_us=None), ["ann"], [0])
    with pytest.raises(influent.UnknownIdError, match="user_id 'anna' is not among the 3 known. Did you mean 'ann'?"):
        influent.moments_at(tiny, ["anna"], [0])
    with pytest.raises(influent.ConfigError, match="one time for each user. Got 1 users and 2 times"):
        influent.moments_at(tiny, ["ann"], [0, 1])


def test_the_latest_moment_comes_right_after_the_last_event(tiny):
    assert told(influent.latest_moments(tiny)) == {
        "ann": ([0, 2, 3, 8, 10], []),
        "bob": ([1, 5, 7, 11], []),
        "cat": ([4, 6, 9], []),
    }
    assert told(influent.latest_moments(tiny.with_users(["dan"]), np.array([3, 2]))) == {
        "dan": ([], []),
        "cat": ([4, 6, 9], []),
    }


def test_the_moment_of_an_unknown_user_has_an_empty_history(tiny):
    moments = influent.moments_of(tiny, ["zoe", "cat", "abe", "zoe"])
    assert moments.user_idx.tolist() == [3, 2, 4, 3]
    assert (moments.stop - moments.start).tolist() == [0, 3, 0, 0]
    assert told(moments)["cat"] == ([4, 6, 9], [])


def test_moments_of_integers_can_be_asked_for_as_text_and_mixed():
    sequences = build(user_id=[1, 2, 2], item_id=list("abc"))
    assert (influent.moments_of(sequences, ["2"]).stop - influent.moments_of(sequences, ["2"]).start).tolist() == [2]
    mixed = influent.moments_of(sequences, ["bob", 2])
    assert (mixed.stop - mixed.start).tolist() == [0, 2]


def test_moments_can_be_taken_by_place(tiny):
    split = influent.split_last(tiny)
    assert told(split.test.take(np.array([2, 0]))) == {"cat": ([4, 6], [9]), "ann": ([0, 2, 3, 8], [10])}
    assert split.test.take(slice(0, 1)).time_us.tolist() == [NEW_YEAR_US + 10 * MINUTE_US]


def test_target_items_count_once_after_each_moment():
    # After the cut user 1 does b a b, user 2 does a; items are a 0, b 1, c 2.
    sequences = build(user_id=[1, 2, 1, 1, 1, 2], item_id=list("ccbaba"), time_us=[1, 1, 5, 6, 7, 8])
    moments = replace(influent.moments_at(sequences, [1, 2], [5, 5]), target_stop=sequences.offsets[1:])
    items, offsets = moments.target_items()
    assert items.tolist() == [0, 1, 0]
    assert offsets.tolist() == [0, 2, 3]


def test_target_items_are_in_order_of_moments_where_each_has_one(tiny):
    items, offsets = influent.split_last(tiny).test.target_items()
    assert [tiny.vocab.items.ids[int(item)].as_py() for item in items] == ["oat", "pot", "tea"]
    assert offsets.tolist() == [0, 1, 2, 3]


def test_a_moment_without_targets_has_no_target_items(tiny):
    items, offsets = influent.latest_moments(tiny).target_items()
    assert items.tolist() == []
    assert offsets.tolist() == [0, 0, 0, 0]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 4)), max_size=8))
@settings(deadline=None)
def test_ranges_are_the_naive_ones(pairs):
    starts, lengths = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    assert ranges(starts, lengths).tolist() == [place for start, n in pairs for place in range(start, start + n)]
