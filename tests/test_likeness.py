"""Influence, or are people alike? The table of tests and the verdict."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import influent
from influent.data.tie_artefacts import find_tie_artefacts
from influent.errors import ConfigError, UnknownIdError

HOUR_US = 3_600_000_000
START_US = 1_704_067_200_000_000


def world_with(strength, homophily, seed):
    """Events of a planted world and the ties of its people."""
    config = influent.WorldConfig(
        n_users=80, n_items=60, n_ties=3, social_strength=strength, homophily=homophily, horizon_days=60, seed=seed
    )
    world = influent.simulate_world(config)
    log = influent.build_sequences(influent.clean(influent.read_events(world.events), drop_duplicates=False))
    return log, influent.build_ties(influent.read_edges(world.edges), log)


def report_of(log, ties, **settings):
    return influent.check_likeness(influent.Social(ties).fit(log), log, **settings)


def rows_of(report):
    return {row.name: row for row in report.tests}


def followed(n_pairs=40, n_days=20, seed=0):
    """In each of forty pairs the leader picks an item each day, and the follower does the same within some hours."""
    rng = np.random.default_rng(seed)
    columns = {"user_id": [], "item_id": [], "time_us": []}
    for pair in range(n_pairs):
        for day in range(n_days):
            item, time_us = f"i{rng.integers(30)}", START_US + int((24 * day + 12 * rng.random()) * HOUR_US)
            for user, delay in ((f"leader{pair:02}", 0), (f"other{pair:02}", 1 + int(5 * HOUR_US * rng.random()))):
                for name, value in zip(columns, (user, item, time_us + delay), strict=True):
                    columns[name].append(value)
    log = influent.build_sequences(influent.clean(influent.read_events(pa.table(columns)), drop_duplicates=False))
    return log, [(f"leader{pair:02}", f"other{pair:02}") for pair in range(n_pairs)]


def ties_of(log, pairs, since=None):
    source, target = zip(*pairs, strict=True)
    table = {"source_user_id": list(source), "target_user_id": list(target)}
    return influent.build_ties(
        influent.read_edges(pa.table(table if since is None else {**table, "time_us": since})), log
    )


@pytest.fixture(scope="module")
def moved():
    return report_of(*world_with(0.3, 0.3, seed=1))


@pytest.fixture(scope="module")
def led():
    log, pairs = followed()
    return log, ties_of(log, pairs)


def test_people_who_move_each_other_do_more_forwards_than_backwards(moved):
    assert moved.verdict == "directed beyond likeness"
    # By the same parameters, so this is less than what others did cause: 0.3 of about 60 events of each.
    assert moved.forward > 2 * moved.backward
    assert moved.beyond.low > 5
    assert moved.reasons == ()


def test_people_who_are_merely_alike_do_not():
    report = report_of(*world_with(0.0, 0.9, seed=1))
    assert report.verdict == "likeness cannot be ruled out"
    assert report.beyond.low <= 0
    # They share more with those they are tied to than with others, and that says nothing of influence.
    assert rows_of(report)["ties rewired"].beyond.low > 0
    assert all(row.speaks != "for" for row in report.tests if row.name != "future acts")


def test_each_test_speaks_for_influence_where_there_is_some(moved):
    rows = rows_of(moved)
    for name in ("time reversed", "edges reversed", "times shuffled", "future acts"):
        assert rows[name].speaks == "for", name
        assert rows[name].observed > 1.5 * rows[name].placebo
    assert rows["ties rewired"].speaks == "neither way"
    assert rows["ties rewired"].p_value == 1 / 21
    assert rows["not adjusted"].observed > rows["edges reversed"].observed


def test_what_cannot_be_computed_says_why(moved):
    rows = rows_of(moved)
    assert rows["not yet tied"].why_not == "the ties have no beginnings"
    assert rows["control items"].why_not == "no control items are given"
    assert "| control items |" in moved.to_markdown()


def test_ties_that_run_both_ways_cannot_be_reversed(led):
    log, ties = led
    both = [(row["source_user_id"], row["target_user_id"]) for row in ties.to_table().to_pylist()]
    report = report_of(log, ties_of(log, both + [(b, a) for a, b in both]))
    assert rows_of(report)["edges reversed"].why_not == "every tie runs both ways"
    assert report.verdict == "likeness cannot be ruled out"


def test_who_follows_somebody_answers_nothing_that_comes_after(led):
    rows = rows_of(report_of(*led))
    # Each of 40 followers answers 20 times, and a leader's next act on an item comes days later.
    assert rows["not adjusted"].observed == pytest.approx(40 * 20, rel=0.1)
    assert rows["future acts"].observed > 5 * rows["future acts"].placebo


def test_ties_that_mean_nothing_get_as_much_as_rewired_ones(led):
    log, ties = led
    rng = np.random.default_rng(5)
    strangers = [(f"leader{a:02}", f"other{b:02}") for a, b in enumerate(rng.permutation(40)) if a != b]
    report = report_of(log, ties_of(log, strangers))
    assert rows_of(report)["ties rewired"].beyond.low <= 0
    assert report.verdict != "directed beyond likeness"


def sealed_on(log, items):
    """The same log, where acts on these items come at random times: nobody saw anybody do them."""
    is_sealed = np.isin(log.item_idx, log.vocab.items.require_idx(items))
    time_us = START_US + np.random.default_rng(0).integers(0, int(np.ptp(log.time_us)), len(log))
    return with_times(log, np.where(is_sealed, time_us, log.time_us))


def with_times(log, time_us):
    order = np.lexsort((time_us, log.user_idx))
    names = ("event_id", "item_idx", "action_idx", "numbers", "categories")
    return replace(log, time_us=time_us[order], **{name: getattr(log, name)[order] for name in names})


def test_who_follows_only_where_it_can_be_seen_is_moved(led):
    log, ties = led
    items = log.vocab.items.ids.to_pylist()[:10]
    report = report_of(sealed_on(log, items), ties, control_items=items)
    assert rows_of(report)["control items"].speaks == "for"
    assert report.verdict == "directed beyond likeness"


def test_who_follows_only_where_nothing_can_be_seen_is_not(led):
    """A placebo that gets more than what it is a placebo of takes the verdict back."""
    log, ties = led
    items = log.vocab.items.ids.to_pylist()
    report = report_of(sealed_on(log, items[:10]), ties, control_items=items[10:])
    assert report.beyond.low > 0
    assert rows_of(report)["control items"].speaks == "against"
    assert report.verdict == "likeness cannot be ruled out"
    assert "The placebo of 'control items' gets as much as what it is a placebo of." in report.reasons


def test_a_control_item_that_is_not_in_the_log_is_refused(led):
    with pytest.raises(UnknownIdError, match="sofa"):
        report_of(*led, control_items=["sofa"])


def test_acts_before_a_tie_began_are_a_placebo(led):
    log, _ = led
    pairs = followed()[1]
    middle = START_US + 10 * 24 * HOUR_US
    row = rows_of(report_of(log, ties_of(log, pairs, since=[middle] * len(pairs))))["not yet tied"]
    # They follow all the time, so that a tie changes nothing.
    assert row.observed == pytest.approx(row.placebo, rel=0.2)
    assert row.speaks != "for"


def test_of_few_people_nothing_is_said(led):
    log, _ = led
    report = report_of(log, ties_of(log, followed()[1][:20]))
    assert report.verdict == "not enough data"
    assert all(row.speaks in ("unclear", "neither way") for row in report.tests)


def test_times_without_direction_allow_no_verdict(led):
    log, ties = led
    hours = 1 + (log.time_us - START_US) // HOUR_US % 167
    folded = with_times(log, hours * HOUR_US)
    report = report_of(folded, ties)
    assert report.verdict == "not enough data"
    assert any(reason.startswith("Times are hours of a week") for reason in report.reasons)


def test_what_is_known_of_the_data_is_among_the_reasons(led):
    log, ties = led
    assert set(find_tie_artefacts(ties, log).sentences()) <= set(report_of(log, ties).reasons)


def test_the_same_seed_gives_the_same_table(led):
    assert report_of(*led, seed=3) == report_of(*led, seed=3)


def test_ties_that_were_read_off_the_log_cannot_be_tested_by_reversing_time(led):
    log, _ = led
    with pytest.raises(ConfigError, match="run both ways"):
        report_of(log, influent.co_acting(log, window="1h"))


def test_the_table_goes_to_disk(moved, tmp_path):
    moved.save(tmp_path)
    plain = json.loads((tmp_path / "likeness.json").read_text())
    assert [row["name"] for row in plain["tests"]] == [row.name for row in moved.tests]
    assert moved.sentence() in (tmp_path / "likeness.md").read_text()


def test_where_everybody_is_tied_to_everybody_rewired_ties_say_nothing():
    log, pairs = followed(n_pairs=12)
    leaders, others = ([pair[end] for pair in pairs] for end in (0, 1))
    everybody = ties_of(log, [(leader, other) for leader in leaders for other in others])
    row = rows_of(report_of(log, everybody))["ties rewired"]
    assert row.beyond is None
    assert "all that they could be tied to" in row.why_not
    found = find_tie_artefacts(everybody, log)
    assert (found.mutual, found.lift) == (0, None)
