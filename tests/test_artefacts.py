import numpy as np
import pyarrow as pa
import pytest

import influent
from influent.data.artefacts import Artefacts, find_artefacts

MINUTE_US = 60_000_000


def find(log: dict[str, list], **settings: int) -> Artefacts:
    events = influent.clean(influent.read_events(pa.table(log)), drop_duplicates=False)
    return find_artefacts(influent.build_sequences(events), **settings)


def test_equal_times_are_counted_among_consecutive_events_of_one_user():
    # Gaps: 0 and 4 of user 1, 0 of user 2; from user 1 to user 2 there is none.
    found = find({"user_id": [1, 1, 1, 2, 2], "item_id": list("abcab"), "time_us": [5, 5, 9, 9, 9]})
    assert found.equal_times == 2 / 3


def test_a_session_ends_after_half_an_hour_without_an_event():
    half_hour = 30 * MINUTE_US
    log = {"user_id": [1, 1, 2, 2, 3], "item_id": list("ababa"), "time_us": [0, half_hour, 0, half_hour + 1, 7]}
    assert find(log).one_session_users == 2 / 3


def test_a_pair_that_always_goes_one_way_is_found():
    found = find({"user_id": [1, 1, 2, 2, 3, 3], "item_id": list("ababab")}, min_pair_count=3)
    assert (found.n_pairs, found.one_way) == (1, 1.0)
    # Three coins: 3 of 3 agree in 2 cases of 8, 2 of 3 in the other 6.
    assert found.one_way_by_chance == pytest.approx((2 * 1 + 6 * 2 / 3) / 8)


def test_the_commoner_way_is_averaged_over_pairs():
    # a–b goes 3 to 1, c–d 2 to 2.
    users = [user for user in range(8) for _ in range(2)]
    found = find({"user_id": users, "item_id": list("abababba" + "cdcddcdc")}, min_pair_count=4)
    assert found.n_pairs == 2
    assert found.one_way == (3 / 4 + 2 / 4) / 2
    # Four coins: 4 agree in 2 cases of 16, 3 in 8, 2 in 6.
    assert found.one_way_by_chance == pytest.approx((2 * 1 + 8 * 3 / 4 + 6 * 2 / 4) / 16)


def test_pairs_do_not_reach_from_one_user_to_the_next_and_an_item_is_no_pair_with_itself():
    found = find({"user_id": [1, 1, 2, 2], "item_id": list("aabb")}, min_pair_count=1)
    assert (found.n_pairs, found.one_way, found.one_way_by_chance) == (0, None, None)


def test_events_with_unknown_items_make_no_pairs():
    events = influent.clean(influent.read_events(pa.table({"user_id": [1] * 4, "item_id": list("axax")})))
    known = influent.clean(influent.read_events(pa.table({"user_id": [1], "item_id": ["a"]})))
    vocab = influent.build_sequences(known).vocab
    assert find_artefacts(influent.build_sequences(events, vocab=vocab), min_pair_count=1).n_pairs == 0


def test_rare_pairs_do_not_count():
    log = {"user_id": [1, 1, 2, 2], "item_id": list("abab")}
    assert find(log, min_pair_count=2).n_pairs == 1
    assert find(log, min_pair_count=3).n_pairs == 0


def test_an_order_only_log_has_no_numbers_about_time():
    found = find({"user_id": [1, 1], "item_id": ["a", "b"]})
    assert (found.equal_times, found.one_session_users) == (None, None)
    assert found.sentences() == ["The log has no times: order is row order, and gaps in time cannot be used."]


def test_one_event_has_nothing_to_find():
    found = find({"user_id": [1], "item_id": ["a"], "time_us": [5]})
    assert (found.equal_times, found.one_session_users, found.n_pairs) == (0.0, 1.0, 0)


def test_no_events_at_all_have_nothing_to_find():
    log = influent.read_events(pa.table({"user_id": [1], "item_id": ["a"], "time_us": [5]}))
    sequences = influent.build_sequences(influent.clean(log))
    assert find_artefacts(sequences.until(np.array([0]))).one_session_users is None


def test_what_was_found_is_said_in_words():
    log = {"user_id": [1, 1, 2, 2], "item_id": list("abab"), "time_us": [5, 5, 5, 6]}
    assert find(log, min_pair_count=2).sentences() == [
        "50.0% of consecutive events have equal times; between them, order is only row order.",
        "100.0% of users have all their events in one session.",
        "Adjacent item pairs seen 2 times or more (1) go the commoner way 100.0% of the time; "
        "coin flips would give 75.0%.",
    ]


def test_the_numbers_go_to_json_as_they_are():
    assert find({"user_id": [1], "item_id": ["a"], "time_us": [5]}).to_dict() == {
        "equal_times": 0.0,
        "n_pairs": 0,
        "one_way": None,
        "one_way_by_chance": None,
        "one_session_users": 1.0,
        "min_pair_count": 5,
    }
