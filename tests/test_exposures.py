"""From a log in which exposure was drawn to a table of units: what counts, what is left out; a planted experiment."""

import numpy as np
import pyarrow as pa
import pytest

import influent

DAY = 86_400
ROWS = [
    # user, day, action, shown, chance, wave, store
    ("ann", 0.0, "visit", None, None, None, None),
    ("ann", 4.0, "buy", None, None, None, None),  # before: in [4, 5)
    ("ann", 5.0, "offer", 1, 0.5, 1, "north"),
    ("ann", 5.0, "buy", None, None, None, None),  # at the very moment: part of the answer
    ("ann", 5.5, "buy", None, None, None, None),
    ("ann", 6.0, "buy", None, None, None, None),  # when the day is over
    ("bob", 5.0, "offer", 0, 0.25, 1, "south"),
    ("bob", 5.5, "offer", 1, 0.25, 1, "south"),
    ("bob", 5.9, "visit", None, None, None, None),
    ("ann", 7.0, "offer", 0, 0.5, 2, "north"),
    ("ann", 7.1, "buy", None, None, None, None),
    ("cat", 9.5, "offer", 1, 0.5, 2, "south"),
    ("cat", 9.6, "buy", None, None, None, None),
    ("bob", 10.0, "visit", None, None, None, None),
]


def log_of(rows=ROWS, **types):
    names = ("user_id", "time", "action", "shown", "chance", "wave", "store")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    columns["time"] = [1_700_000_000 + round(day * DAY) for day in columns["time"]]
    return influent.read_events(pa.table(columns | {"item_id": ["x"] * len(rows)} | types))


def units_of(events, **arguments):
    return influent.exposure_units(events, **{"exposed": "shown", "outcome": "buy", "horizon": "1d"} | arguments)


def test_outcomes_are_counted_from_the_decision_on_and_before_it():
    units = units_of(log_of(), probability="chance", keep=["store"])
    assert units.table.drop(["event_id", "time_us"]).to_pylist() == [
        {
            "user_id": "ann",
            "exposed": True,
            "probability": 0.5,
            "store": "north",
            "outcome": 2.0,
            "outcome_before": 1.0,
        },
        {
            "user_id": "bob",
            "exposed": False,
            "probability": 0.25,
            "store": "south",
            "outcome": 0.0,
            "outcome_before": 0,
        },
    ]


def test_what_is_left_out_is_counted_and_said():
    units = units_of(log_of())
    assert (units.n_too_late, units.n_later, units.n_overlapping, units.n_short_before) == (1, 2, 1, 0)
    assert units.sentences() == [
        "2 units; the outcome is buy within 1 days of the decision.",
        "1 decisions were left out, since the log ends within 1 days of them.",
        "2 decisions were left out, since there was an earlier one about the same user.",
        "1 decisions were kept, though another one about the same user falls within their 1 days.",
    ]
    # A horizon may end with the log, and the one before begin with it.
    longest = units_of(log_of(), horizon="120h", outcome=["buy", "visit"])
    assert (len(longest), longest.n_short_before) == (2, 0)


def test_a_horizon_before_that_begins_before_the_log_is_said():
    rows = [("ann", 0.5, "offer", 1, 0.5, 1, "n"), ("bob", 0.0, "visit", None, None, None, None), *ROWS[-1:]]
    assert units_of(log_of(rows), outcome="visit").n_short_before == 1


def test_a_period_makes_a_unit_of_each_user_and_period():
    units = units_of(log_of(), period="wave", whether=True).table
    rows = units.select(["user_id", "wave", "exposed", "outcome", "outcome_before"]).to_pylist()
    # What ann did before her second decision she did after her first: that is no outcome before.
    assert [tuple(row.values()) for row in rows] == [
        ("ann", 1, True, 1.0, 1.0),
        ("bob", 1, False, 0.0, 0.0),
        ("ann", 2, False, 1.0, 1.0),
    ]


def test_the_decision_is_not_its_own_outcome():
    rows = [("ann", 0.0, "buy", 1, 0.5, 1, "n"), ("ann", 0.5, "buy", None, None, None, None), *ROWS[-1:]]
    assert units_of(log_of(rows)).table.column("outcome").to_pylist() == [1.0]


def test_nothing_after_the_horizon_changes_a_unit():
    early = [row for row in ROWS if row[1] <= 7] + ROWS[-1:]
    first = units_of(log_of()).table.drop(["event_id"])
    assert units_of(log_of(early)).table.drop(["event_id"]) == first


def test_flags_may_be_booleans_words_or_floats_with_gaps():
    flags = [row[3] for row in ROWS]
    expected = units_of(log_of()).table
    for values in (
        [None if flag is None else bool(flag) for flag in flags],
        [None if flag is None else ("no", "yes")[flag] for flag in flags],
        pa.array([float("nan") if flag is None else float(flag) for flag in flags]),
    ):
        assert units_of(log_of(shown=values)).table == expected


def test_the_table_of_a_planted_log_is_that_of_the_plan():
    for settings in ({}, {"drawn": "cluster", "each_wave": True, "probabilities": (0.3, 0.6)}):
        config = influent.ExperimentConfig(n_users=60, n_clusters=8, n_waves=3, **settings)
        experiment = influent.simulate_experiment(config)
        events = influent.clean(influent.read_events(experiment.events), drop_duplicates=False)
        units = influent.exposure_units(
            events,
            exposed="exposed",
            probability="probability",
            outcome="purchase",
            horizon="7d",
            period="wave",
            keep=["cluster"],
        )
        table = units.table.select(experiment.units.column_names)
        table = table.sort_by([("user_id", "ascending"), ("wave", "ascending")])
        assert table.to_pydict() == experiment.units.to_pydict()
        assert units.n_later == units.n_too_late == 0


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"exposed": "showed"}, influent.SchemaError, r"events has no column 'showed'.*Did you mean 'shown'"),
        ({"probability": "chanc"}, influent.SchemaError, "Did you mean 'chance'"),
        ({"period": "wav"}, influent.SchemaError, "Did you mean 'wave'. Name yours with the option 'period'"),
        ({"exposed": "value"}, influent.DataError, "'value' is empty in every row, so nobody was drawn"),
        ({"keep": ["stor"]}, influent.SchemaError, "Did you mean 'store'"),
        ({"keep": ["time_us"]}, influent.SchemaError, "'time_us' is a column of every table of units"),
        ({"outcome": "by"}, influent.UnknownIdError, "action 'by' is not among the 3 known. Did you mean 'buy'"),
        ({"outcome": []}, influent.ConfigError, "must hold at least one action"),
        ({"horizon": "7"}, influent.ConfigError, "'7' has no unit"),
        ({"horizon": "30d"}, influent.DataError, "has '30d' of the log after it: 3 come too late"),
        ({"exposed": "action"}, influent.DataError, "14 decisions say neither yes nor no in 'action'"),
    ],
)
def test_what_cannot_be_counted_is_refused(arguments, error, says):
    with pytest.raises(error, match=says):
        units_of(log_of(), **arguments)


def test_a_log_without_times_or_a_decision_without_a_user_is_refused():
    with pytest.raises(influent.ConfigError, match="order-only log has no horizon"):
        units_of(influent.read_events(pa.table({"user_id": ["a"], "item_id": ["x"], "shown": [1]})))
    rows = [(None, *ROWS[2][1:]), *ROWS]
    with pytest.raises(influent.DataError, match=r"1 decisions have no user or time. Drop them first: influent\.clean"):
        units_of(log_of(rows))
    with pytest.raises(influent.DataError, match="1 decisions have no user, time or 'wave'"):
        units_of(log_of([*ROWS, ("dan", 8.0, "offer", 1, 0.5, None, "n")]), period="wave")


def test_a_planted_experiment_is_as_it_was_planned():
    experiment = influent.simulate_experiment(influent.ExperimentConfig(n_users=4000, effect=0.5, seed=3))
    effects = experiment.users.column("effect").to_numpy()
    assert effects.mean() == pytest.approx(0.5, abs=0.03)
    assert effects.std() == pytest.approx(0.5, abs=0.05)
    assert experiment.exposed.mean() == 0.5
    assert (experiment.exposed == experiment.exposed[:, :1]).all()
    assert experiment.counts[:, 0].mean() == pytest.approx(2, abs=0.2)
    growth = experiment.counts[~experiment.exposed[:, 0]].mean(axis=0)
    assert growth[9] / growth[0] == pytest.approx(1.45, abs=0.05)


def test_whole_clusters_are_exposed_and_the_busy_more_often_where_that_is_planned():
    by_cluster = influent.simulate_experiment(influent.ExperimentConfig(drawn="cluster"))
    assert by_cluster.exposed.any(axis=1).sum() not in (0, 1000)
    exposed, cluster = by_cluster.exposed[:, 0], by_cluster.users.column("cluster").to_numpy()
    assert sum(exposed[cluster == one][0] for one in np.unique(cluster)) == 20
    assert all(np.ptp(exposed[cluster == one].astype(int)) == 0 for one in np.unique(cluster))
    uneven = influent.simulate_experiment(influent.ExperimentConfig(probabilities=(0.2, 0.8), each_wave=True))
    assert np.corrcoef(uneven.probability[:, 0], uneven.users.column("level").to_numpy())[0, 1] > 0.5
    assert uneven.exposed[uneven.probability == 0.8].mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n_clusters": 0}, "n_clusters must be an int in the range"),
        ({"n_users": 10}, r"n_users must be an int in the range \[40, inf\)"),
        ({"effect": -1.0}, r"effect must be a number in \[0, inf\)"),
        ({"drawn": "item"}, "drawn must be one of"),
        ({"probabilities": (0.0,)}, "probabilities must be a tuple of chances above 0 and below 1"),
        ({"probabilities": ()}, "probabilities must be a tuple of chances above 0 and below 1"),
    ],
)
def test_a_plan_out_of_range_is_refused(settings, says):
    with pytest.raises(influent.ConfigError, match=says):
        influent.ExperimentConfig(**settings)
