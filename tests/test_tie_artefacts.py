"""What in ties and times would fool an analysis of who moved whom."""

import numpy as np
import pyarrow as pa
import pytest

import influent

HOUR_US = 3_600_000_000
START_US = 1_704_067_200_000_000


def log_of(times_us, users=None, items=None):
    n = len(times_us)
    columns = {"user_id": users or list(range(n)), "item_id": items or ["tea"] * n, "time_us": list(times_us)}
    return influent.build_sequences(influent.clean(influent.read_events(pa.table(columns)), drop_duplicates=False))


def ties_among(log, pairs):
    source, target = zip(*pairs, strict=True)
    edges = pa.table({"source_user_id": list(source), "target_user_id": list(target)})
    return influent.build_ties(influent.read_edges(edges), log)


def in_two_halves(joined=True):
    """Forty people: the even act on a, the odd on b. Each is tied to the next two of the same half, or of the other."""
    log = log_of(START_US + 977_777_777 * np.arange(40), items=["a", "b"] * 20)
    step = 2 if joined else 3
    return log, ties_among(log, [(u, (u + step * k) % 40) for u in range(40) for k in ((1, 2) if joined else (1, 3))])


def test_times_that_are_as_they_should_be_have_nothing_to_say():
    rng = np.random.default_rng(0)
    found = influent.find_time_artefacts(log_of(START_US + rng.integers(0, 10**12, 500)))
    assert found.has_direction
    assert found.sentences() == []


def test_zeros_that_were_lost_at_the_end_of_times_are_noticed():
    seconds = [int(str(second).rstrip("0")) for second in range(1_704_067_200, 1_704_067_700)]
    found = influent.find_time_artefacts(log_of([second * 1_000_000 for second in seconds]))
    assert found.ending_in_zero == 0
    assert not found.has_direction
    assert "zeros at their end were lost, so that 1230 reads as 123" in " ".join(found.sentences())


def test_milliseconds_that_lost_zeros_are_noticed_too():
    fractions = [int(str(n).rstrip("0")) for n in range(1, 999)]
    found = influent.find_time_artefacts(log_of([START_US + fraction * 1_000 for fraction in fractions]))
    assert found.is_clipped


def test_a_clock_of_five_seconds_has_lost_nothing():
    found = influent.find_time_artefacts(log_of([START_US + 1_000_000 * (5 * n + 3) for n in range(500)]))
    assert not found.is_clipped


def test_of_few_times_no_digits_are_missed():
    found = influent.find_time_artefacts(log_of([START_US + 1_000_000 * n for n in (1, 2, 3, 64)]))
    assert found.ending_in_zero is None


@pytest.mark.parametrize(("unit_us", "clock"), [(HOUR_US, "hour"), (24 * HOUR_US, "day"), (HOUR_US // 60, "minute")])
def test_a_coarse_clock_is_noticed(unit_us, clock):
    times = [START_US + 7 + unit_us * int(n) for n in np.random.default_rng(0).integers(0, 1000, 50)]
    found = influent.find_time_artefacts(log_of(times))
    assert (found.clock, found.on_the_clock) == (clock, 1.0)
    assert f"who came first within a {clock} is not known" in found.sentences()[0]
    assert found.has_direction


def test_hours_of_a_week_have_no_direction():
    found = influent.find_time_artefacts(log_of([HOUR_US * hour for hour in (1, 5, 168, 30, 2)]))
    assert found.is_folded
    assert not found.has_direction
    assert found.sentences() == [
        "Times are hours of a week, and which week it was is not said: across weeks nobody can be said to have come "
        "first, and direction cannot be learned."
    ]


def test_a_log_without_times_has_no_direction():
    log = influent.clean(influent.read_events(pa.table({"user_id": [1, 2], "item_id": ["a", "a"]})))
    found = influent.find_time_artefacts(influent.build_sequences(log))
    assert not found.has_direction
    assert "nobody can be said to have come first" in found.sentences()[0]


def test_training_events_after_the_first_moment_of_the_test_are_counted():
    # User 1 is tested at 3, and user 2 trained on until 5: of four training events two are later.
    log = log_of([1, 2, 3, 3, 4, 5, 6, 7], users=[1, 1, 1, 2, 2, 2, 2, 2])
    split = influent.split_last(log)
    found = influent.find_time_artefacts(split.train, test=split.test)
    assert found.after_test == 2 / 4
    assert "50% of training events are later than the first moment of the test" in found.sentences()[-1]


def test_people_who_are_tied_share_more_items_than_rewired_ties_would_give():
    log, ties = in_two_halves()
    found = influent.find_tie_artefacts(ties, log)
    # By chance about half of the ties would be between people of the same half.
    assert found.lift == pytest.approx(2, rel=0.2)
    assert not found.is_unrelated
    assert found.sentences() == []


def test_edges_that_are_numbered_otherwise_than_events_are_noticed():
    log, ties = in_two_halves(joined=False)
    found = influent.find_tie_artefacts(ties, log)
    assert found.is_unrelated
    assert "are edges and events numbered alike?" in " ".join(found.sentences())


def test_ties_that_all_run_both_ways_give_no_direction_of_their_own():
    log, ties = in_two_halves()
    both = ties_among(log, [*zip(ties.source, ties.target, strict=True), *zip(ties.target, ties.source, strict=True)])
    found = influent.find_tie_artefacts(both, log)
    assert found.mutual == 1
    assert "Every tie runs both ways" in " ".join(found.sentences())


def test_a_list_of_pairs_is_no_list_of_directions():
    log, ties = in_two_halves()
    pairs = {(min(a, b), max(a, b)) for a, b in zip(ties.source, ties.target, strict=True)}
    found = influent.find_tie_artefacts(ties_among(log, sorted(pairs)), log)
    assert (found.mutual, found.lower_first) == (0, 1)
    assert "Give each both ways" in " ".join(found.sentences())


def test_of_ties_that_were_read_off_the_log_only_times_are_looked_at():
    log = log_of([START_US, START_US + 1], items=["a", "a"])
    found = influent.find_tie_artefacts(influent.co_acting(log), log)
    assert (found.mutual, found.lift) == (None, None)
