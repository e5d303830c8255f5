from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import stats

from influent.data.rescaling import rescaled_times
from influent.data.worlds import DAY_US, HOUR_US, World, WorldAction, WorldConfig, simulate_world
from influent.errors import ConfigError
from influent.schema import EVENT_COLUMNS

TINY = WorldConfig(n_users=3, n_items=5, n_topics=2)
CLICK = WorldAction(name="click", share=1.0, strength=0.5, kernel=((1.0, HOUR_US),))


@pytest.fixture(scope="module")
def alone() -> World:
    return simulate_world(WorldConfig(n_users=400))


@pytest.fixture(scope="module")
def tied() -> World:
    return simulate_world(WorldConfig(n_users=400, n_ties=4))


def pairs(world: World, *columns: str) -> tuple[pa.Table, pa.Table]:
    """Return the children that have a parent, and their parents, row by row."""
    parent = world.parents["parent_event_id"]
    children = world.events.filter(parent.is_valid()).select(columns)
    return children, world.events.take(parent.drop_null()).select(columns)


def n_children(world: World) -> np.ndarray:
    return np.bincount(world.parents["parent_event_id"].drop_null().to_numpy(), minlength=world.events.num_rows)


def scaled(table: pa.Table, column: str, factor: float) -> pa.Table:
    values = pc.multiply(table[column], factor).cast(table.schema.field(column).type)
    return table.set_column(table.column_names.index(column), column, values)


def p_value(world: World) -> float:
    return stats.kstest(rescaled_times(world), "expon").pvalue


def test_the_same_seed_gives_the_same_world():
    assert simulate_world(TINY) == simulate_world(TINY)


def test_another_seed_gives_another_world():
    one, other = simulate_world(TINY), simulate_world(replace(TINY, seed=1))
    assert one.events != other.events
    assert one.excitation != other.excitation


def test_users_items_and_ties_stay_when_only_the_strengths_change(tied):
    placebo = simulate_world(replace(tied.config, strength_scale=0.0))
    assert placebo.users == tied.users
    assert placebo.items == tied.items
    assert placebo.excitation == tied.excitation
    assert placebo.edges.drop("strength") == tied.edges.drop("strength")


def test_the_log_has_the_columns_of_every_event_table_and_none_of_the_truth(alone):
    assert tuple(alone.events.column_names) == EVENT_COLUMNS
    assert [alone.events[name].null_count for name in ("value", "scene", "source_user_id")] == [len(alone.events)] * 3
    assert alone.events.schema.types[:5] == [pa.int64(), pa.string(), pa.string(), pa.string(), pa.int64()]


def test_events_lie_in_time_order_between_the_start_and_the_horizon(tied):
    time_us = tied.events["time_us"].to_numpy()
    assert tied.events["event_id"].to_pylist() == list(range(len(time_us)))
    assert (np.diff(time_us) >= 0).all()
    assert time_us[0] >= tied.config.start_us
    assert time_us[-1] < tied.config.start_us + 60 * DAY_US


def test_the_default_world_has_30_to_40_events_per_user():
    assert 30 < simulate_world().events.num_rows / 800 < 40


def test_children_come_after_their_parents(tied):
    children, parents = pairs(tied, "event_id", "time_us")
    assert pc.all(pc.greater(children["time_us"], parents["time_us"])).as_py()
    assert pc.all(pc.greater(children["event_id"], parents["event_id"])).as_py()


def test_without_ties_a_child_has_the_user_of_its_parent(alone):
    children, parents = pairs(alone, "user_id")
    assert alone.edges.num_rows == 0
    assert children == parents


def test_an_own_child_is_about_a_follower_of_the_item_of_its_parent(alone):
    children, parents = pairs(alone, "item_id")
    known = {(row["source_item_id"], row["item_id"]): row["weight"] for row in alone.excitation.to_pylist()}
    weights = [
        known[pair] for pair in zip(parents["item_id"].to_pylist(), children["item_id"].to_pylist(), strict=True)
    ]
    seen = [weights.count(weight) for weight in (0.6, 0.3, 0.1)]
    assert stats.chisquare(seen, np.array([0.6, 0.3, 0.1]) * len(weights)).pvalue > 0.01


def test_a_social_child_is_about_the_same_item_and_follows_a_tie(tied):
    children, parents = pairs(tied, "user_id", "item_id")
    social = pc.not_equal(children["user_id"], parents["user_id"])
    children, parents = children.filter(social), parents.filter(social)
    ties = set(zip(tied.edges["source_user_id"].to_pylist(), tied.edges["target_user_id"].to_pylist(), strict=True))
    assert children["item_id"] == parents["item_id"]
    assert set(zip(parents["user_id"].to_pylist(), children["user_id"].to_pylist(), strict=True)) <= ties


def test_an_item_has_as_many_different_followers_as_there_are_weights_and_is_none_of_them():
    rows = simulate_world(replace(TINY, n_items=4)).excitation.to_pylist()  # 3 followers: all the others
    everyone = {"i000", "i001", "i002", "i003"}
    for item in everyone:
        assert {row["item_id"] for row in rows if row["source_item_id"] == item} == everyone - {item}


@pytest.mark.parametrize("action", ["view", "cart", "purchase"])
def test_an_action_has_as_many_children_as_its_strength_says(alone, action):
    # Later than day 25, the horizon would cut off more than 1 in 200 of the slowest children (scale: 7 days).
    early = alone.events["time_us"].to_numpy() < alone.config.start_us + 25 * DAY_US
    counts = n_children(alone)[early & (alone.events["action"].to_numpy(zero_copy_only=False) == action)]
    strength = alone.actions.filter(pc.equal(alone.actions["action"], action))["strength"][0].as_py()
    assert abs(counts.mean() - strength) < 3 * np.sqrt(strength / counts.size)


def test_a_tie_has_as_many_children_per_event_as_its_strength_says():
    world = simulate_world(WorldConfig(n_users=4, n_ties=2, horizon_days=1500, actions=(CLICK,), social_strength=0.3))
    children, parents = pairs(world, "user_id")
    for tie in world.edges.to_pylist():
        source, target = tie["source_user_id"], tie["target_user_id"]
        n_events = pc.sum(pc.equal(world.events["user_id"], source)).as_py()
        told = pc.and_(pc.equal(parents["user_id"], source), pc.equal(children["user_id"], target))
        assert abs(pc.sum(told).as_py() - tie["strength"] * n_events) < 3 * np.sqrt(tie["strength"] * n_events)


def test_strengths_of_ties_into_a_user_add_up_to_the_social_strength(tied):
    into = tied.edges.group_by("target_user_id").aggregate([("strength", "sum")])
    assert into.num_rows == 400
    assert into["strength_sum"].to_numpy() == pytest.approx(0.2)


def test_homophily_keeps_ties_within_a_topic():
    world = simulate_world(WorldConfig(n_users=100, n_ties=3, homophily=1.0))
    topic = dict(zip(world.users["user_id"].to_pylist(), world.users["topic"].to_pylist(), strict=True))
    assert all(topic[row["source_user_id"]] == topic[row["target_user_id"]] for row in world.edges.to_pylist())
    assert all(row["source_user_id"] != row["target_user_id"] for row in world.edges.to_pylist())


def test_without_strength_nothing_has_a_parent_and_counts_are_poisson():
    config = WorldConfig(n_users=2000, horizon_days=30, base_rate_per_day=0.2, rate_spread=0, strength_scale=0)
    world = simulate_world(config)
    assert world.parents["parent_event_id"].null_count == world.events.num_rows
    users = world.users["user_id"].combine_chunks()
    counts = np.bincount(pc.index_in(world.events["user_id"], users).to_numpy(), minlength=2000)
    assert counts.mean() == pytest.approx(6, abs=3 * np.sqrt(6 / 2000))
    assert counts.var() == pytest.approx(6, rel=0.1)


def test_base_events_follow_popularity_and_taste():
    world = simulate_world(WorldConfig(n_users=3000, n_items=6, n_topics=2, taste=0.5, strength_scale=0))
    events = world.events.join(world.users, "user_id").filter(pc.field("topic") == "topic 0")
    popularity = world.items["popularity"].to_numpy()
    at_home = np.array([1, 0, 1, 0, 1, 0])
    expected = 0.5 * popularity + 0.5 * popularity * at_home / popularity[::2].sum()
    seen = np.bincount(pc.index_in(events["item_id"], world.items["item_id"].combine_chunks()).to_numpy(), minlength=6)
    assert stats.chisquare(seen, expected * seen.sum()).pvalue > 0.01


def test_actions_come_in_their_shares(alone):
    seen = [pc.sum(pc.equal(alone.events["action"], name)).as_py() for name in ("view", "cart", "purchase")]
    assert stats.chisquare(seen, np.array([0.75, 0.15, 0.1]) * sum(seen)).pvalue > 0.01


def test_a_world_without_events_is_a_world():
    world = simulate_world(replace(TINY, base_rate_per_day=0.0, n_ties=1))
    assert world.events.num_rows == world.parents.num_rows == 0
    assert rescaled_times(world).size == 0


def test_a_rescaled_time_is_what_the_truth_expected_in_the_gap():
    world = simulate_world(replace(TINY, n_users=1, base_rate_per_day=1.0, rate_spread=0, actions=(CLICK,)))
    first, second = world.events["time_us"].to_numpy()[:2] - world.config.start_us
    excited = 0.5 * (1 - np.exp(-(second - first) / HOUR_US))
    expected = [first / DAY_US, (second - first) / DAY_US + excited]
    assert rescaled_times(world)[:2] == pytest.approx(expected)


def test_rescaled_times_add_up_to_the_compensator_of_every_user(tied):
    # Pair by pair, the slow way: what each event sends to each of those it excites, from then until the last event.
    config = replace(tied.config, n_users=3, n_ties=2, horizon_days=20, actions=(CLICK,))
    world = simulate_world(config)
    last = world.events.filter(pc.equal(world.events["user_id"], "u0002"))["time_us"].to_pylist()[-1]
    ends = {"u0000": config.start_us + 20 * DAY_US, "u0001": config.start_us + 20 * DAY_US, "u0002": last}
    rates = zip(world.users["user_id"].to_pylist(), world.users["base_rate_per_day"].to_pylist(), strict=True)
    total = sum(rate * (ends[user] - config.start_us) / DAY_US for user, rate in rates)
    for event in world.events.to_pylist():
        waits = {user: max(end - event["time_us"], 0) for user, end in ends.items()}
        total += 0.5 * (1 - np.exp(-waits[event["user_id"]] / HOUR_US))
        for tie in world.edges.filter(pc.equal(world.edges["source_user_id"], event["user_id"])).to_pylist():
            wait = waits[tie["target_user_id"]]
            total += tie["strength"] * sum(w * (1 - np.exp(-wait / scale)) for w, scale in config.social_kernel)
    assert rescaled_times(world).sum() == pytest.approx(total)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_ties", [0, 4])
def test_under_the_truth_rescaled_times_are_exponential(seed, n_ties):
    world = simulate_world(WorldConfig(n_users=300, n_ties=n_ties, seed=seed))
    assert p_value(world) > 0.01
    assert rescaled_times(world).mean() == pytest.approx(1, abs=3 / np.sqrt(world.events.num_rows))


def test_short_histories_do_not_bend_the_rescaled_times():
    world = simulate_world(WorldConfig(n_users=3000, horizon_days=3))
    assert world.events.num_rows < 2 * 3000
    assert p_value(world) > 0.01


@pytest.mark.parametrize(
    ("table", "column", "factor"),
    [("actions", "strength", 1.5), ("kernels", "scale_us", 5), ("edges", "strength", 2.0), ("edges", "strength", 0.0)],
)
def test_under_a_wrong_truth_rescaled_times_are_not_exponential(tied, table, column, factor):
    assert p_value(tied) > 0.01
    assert p_value(replace(tied, **{table: scaled(getattr(tied, table), column, factor)})) < 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"n_users": 0},
            r"The 'n_users' parameter of WorldConfig must be an int in the range \[1, .*\]\. Got 0 instead",
        ),
        ({"n_users": 2.5}, r"'n_users' .* must be an int .* Got 2\.5 instead"),
        ({"n_items": 3}, r"'n_items' .* in the range \[4, .*\]\. Got 3 instead"),
        ({"n_topics": 201}, r"'n_topics' .* in the range \[1, 200\]\. Got 201 instead"),
        ({"n_ties": 800}, r"'n_ties' .* in the range \[0, 799\]\. Got 800 instead"),
        ({"taste": 1.5}, r"'taste' .* must be a number in the range \[0, 1\]\. Got 1\.5 instead"),
        ({"horizon_days": float("nan")}, r"'horizon_days' .* Got nan instead"),
        (
            {"follower_weights": (0.6, 0.3)},
            r"'follower_weights' .* must add up to 1\. Got \[0\.6, 0\.3\], .* to 0\.9\.",
        ),
        ({"actions": (CLICK, replace(CLICK, share=0.0))}, r"must differ in name\. Got \['click', 'click'\]"),
        ({"actions": (replace(CLICK, share=0.4),)}, r"'actions \(their shares\)' .* must add up to 1\. Got \[0\.4\]"),
        ({"social_kernel": ((1.0, 0),)}, r"'social_kernel \(its scale_us\)' .* in the range \[1, .* Got 0 instead"),
        (
            {"actions": (CLICK,), "strength_scale": 2.0},
            r"the branching ratio is 1: .* 1 of the same user and 0 of .* below 1\. Lower 'strength_scale' below 2,",
        ),
        (
            {"actions": (CLICK,), "n_ties": 2, "social_strength": 0.75},
            r"the branching ratio is 1\.25: .* 0\.5 of the same user and 0\.75 of tied users, .* below 0\.8,",
        ),
    ],
)
def test_settings_out_of_range_are_refused_with_what_would_be_right(settings, message):
    with pytest.raises(ConfigError, match=message):
        WorldConfig(**settings)


def test_an_action_out_of_range_is_refused():
    with pytest.raises(
        ConfigError, match=r"The 'strength' parameter of WorldAction must be a number .* Got -1 instead"
    ):
        replace(CLICK, strength=-1)
    with pytest.raises(ConfigError, match=r"'kernel \(its weights\)' parameter of WorldAction must add up to 1"):
        replace(CLICK, kernel=((0.5, HOUR_US),))
