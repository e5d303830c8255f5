"""What a log and its ties would be by chance."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import influent
from influent.data.nulls import reverse, rewire, shuffle_times
from influent.errors import ConfigError


def ties_of(pairs, since=None):
    """Ties among ten users, each with one event."""
    log = influent.build_sequences(
        influent.clean(influent.read_events(pa.table({"user_id": range(10), "item_id": ["tea"] * 10})))
    )
    source, target = zip(*pairs, strict=True)
    table = {"source_user_id": list(source), "target_user_id": list(target)}
    edges = influent.read_edges(pa.table(table if since is None else {**table, "time_us": since}))
    return influent.build_ties(edges, log)


def test_rewired_ties_keep_how_many_each_has_and_make_none_to_oneself_and_none_twice():
    ties = ties_of([(a, b) for a in range(10) for b in range(10) if a != b and (a + 2 * b) % 3])
    new = rewire(ties, np.random.default_rng(0))
    for end in ("source", "target"):
        assert np.array_equal(np.bincount(getattr(new, end)), np.bincount(getattr(ties, end)))
    assert (new.source != new.target).all()
    assert len(np.unique(new.target * 10 + new.source)) == len(ties)
    assert (ties.find(new.source, new.target) < 0).any()


def test_two_ties_exchange_targets():
    new = rewire(ties_of([(0, 1), (2, 3)]), np.random.default_rng(0), n_rounds=1)
    assert list(zip(new.source.tolist(), new.target.tolist(), strict=True)) == [(2, 1), (0, 3)]


def test_ties_that_cannot_be_rewired_stay():
    new = rewire(ties_of([(0, 1), (1, 0)]), np.random.default_rng(0))
    assert (new.source.tolist(), new.target.tolist()) == ([1, 0], [0, 1])


@settings(deadline=None)
@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda p: p[0] != p[1]), min_size=1))
def test_whatever_the_ties_rewiring_keeps_ends_and_order(pairs):
    ties = ties_of(sorted(pairs))
    new = rewire(ties, np.random.default_rng(1))
    assert sorted(new.source) == sorted(ties.source)
    assert sorted(new.target) == sorted(ties.target)
    key = new.target * 10 + new.source
    assert (np.diff(key) > 0).all()


def test_a_reversed_tie_runs_the_other_way_and_keeps_its_beginning():
    turned = reverse(ties_of([(0, 1), (0, 2), (3, 0)], since=[5, 6, 7]))
    rows = zip(turned.source.tolist(), turned.target.tolist(), turned.since_us.tolist(), strict=True)
    assert list(rows) == [(1, 0, 5), (2, 0, 6), (0, 3, 7)]


def test_shuffled_times_stay_with_their_item_and_users_with_their_events():
    log = {"user_id": [1, 1, 2, 2, 3], "item_id": list("abaab"), "time_us": [1, 2, 3, 4, 5]}
    sequences = influent.build_sequences(influent.clean(influent.read_events(pa.table(log))))
    shuffled, place = shuffle_times(sequences, np.random.default_rng(3))
    assert shuffled.offsets.tolist() == sequences.offsets.tolist()
    assert np.array_equal(shuffled.event_id, sequences.event_id[place])
    for item, times in ((0, [1, 3, 4]), (1, [2, 5])):
        assert sorted(shuffled.time_us[shuffled.item_idx == item]) == times
    together = shuffled.user_idx[1:] == shuffled.user_idx[:-1]
    assert (np.diff(shuffled.time_us)[together] >= 0).all()


def test_an_order_only_log_has_no_times_to_shuffle():
    log = influent.clean(influent.read_events(pa.table({"user_id": [1], "item_id": ["a"]})))
    with pytest.raises(ConfigError, match="no times to shuffle"):
        shuffle_times(influent.build_sequences(log), np.random.default_rng(0))
