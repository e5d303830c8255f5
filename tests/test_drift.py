"""Changes of influence are found where they were planted and hardly ever elsewhere; half-lives come back."""

import io
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from rich.console import Console
from scipy import stats

import influent
from influent import PlantedCredits, drift, simulate_ledger
from influent.influence.page import Window, curve
from influent.show import show_drift

DAY_US = 86_400_000_000
WEEK_7 = "2024-02-12T00:00:00Z"


@pytest.fixture(scope="module")
def planted():
    """Credits of carts are half as large again from the seventh week on; nothing else changes."""
    return simulate_ledger(PlantedCredits(change_day=42, change_factor=1.5, changed_actions=("cart",)))


@pytest.fixture(scope="module")
def found(planted):
    ledger, sequences = planted
    return drift(ledger, sequences=sequences)


def test_a_change_is_found_where_it_was_planted(found):
    assert found.is_alarm
    [row] = [row for row in found.change_rows() if row["level"] == "cart"]
    assert row["from"] <= WEEK_7 <= row["to"]
    assert row["at"] == WEEK_7
    assert row["after"] / row["before"] == pytest.approx(1.5, rel=0.15)
    assert row["difference_low"] > 0
    assert row["p_value"] < 0.02
    assert not [row for row in found.change_rows() if row["level"] in ("view", "purchase")]


def test_what_too_few_users_have_is_said_to_be_untested():
    ledger, sequences = simulate_ledger(PlantedCredits(n_users=45, change_day=60, change_factor=10.0))
    few = drift(ledger, sequences=sequences, n_resamples=100)
    assert not few.is_alarm
    assert ("all", "all") in few.untested
    out = Console(record=True, width=120, file=io.StringIO())
    show_drift(out, few)
    assert "No alarm. Whether anything changes could not be tested: it takes 50 users" in out.export_text()


def test_a_change_of_sign_is_no_change_of_size_and_the_verdict_speaks_of_size(found):
    ledger, sequences = simulate_ledger(PlantedCredits(seed=1))
    late = pc.greater(ledger.table.column("time_us"), int(np.median(ledger.table.column("time_us"))))
    credit = ledger.table.column("credit")
    turned = pc.if_else(late, pc.negate(credit), credit)
    table = ledger.table.set_column(ledger.table.schema.get_field_index("credit"), "credit", turned)
    quiet = drift(replace(ledger, table=table), sequences=sequences, n_resamples=100)
    assert not quiet.is_alarm
    assert quiet.untested == ()
    assert quiet.verdict() == "The size of credits changes by no more than chance explains."
    assert found.verdict() == ""


def test_a_log_without_change_hardly_ever_raises_the_alarm():
    alarms = [drift(simulate_ledger(PlantedCredits(seed=seed))[0], n_resamples=100).is_alarm for seed in range(40)]
    # At a rate of 5 % more than this many of 40 come with a chance below 1 %.
    assert sum(alarms) <= stats.binom(40, 0.05).ppf(0.99)


def test_the_half_lives_that_were_planted_come_back_within_a_fifth(found):
    rows = {row["action"]: row for row in found.half_lives.to_pylist()}
    for action, days in PlantedCredits().half_life_days.items():
        assert rows[action]["half_life_us"] / DAY_US == pytest.approx(days, rel=0.2)
        assert rows[action]["low_us"] < rows[action]["half_life_us"] < rows[action]["high_us"]
        assert rows[action]["from"] == "ledger"


def test_a_half_life_that_was_not_seen_is_not_made_up():
    long = {"view": 5_000.0, "cart": 5_000.0, "purchase": 5_000.0}
    ledger, _ = simulate_ledger(PlantedCredits(half_life_days=long, noise=0.1, user_spread=0.1))
    found = drift(ledger)
    assert found.half_lives.column("half_life_us").to_pylist() == [None] * 3
    out = Console(record=True, width=120, file=io.StringIO())
    show_drift(out, found)
    assert "longer than seen to longer than seen" not in out.export_text()


def test_the_kernels_of_a_model_have_the_half_life_that_they_were_given(planted):
    import torch

    sequences = planted[1]
    split = influent.split_at(sequences, 0.8, target="last")
    settings = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=20, count_len=0)
    model = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    kernel = model._network.backbone.kernel
    with torch.no_grad():
        knots_s = torch.expm1(torch.arange(kernel.gap_log_weight.shape[1]) / kernel._gap_scale)
        kernel.gap_log_weight.copy_((-np.log(2) * knots_s / (4 * 86_400)).expand_as(kernel.gap_log_weight))
    found = drift(influent.explain(model, split.test), sequences=sequences, model=model, window="2d")
    of_kernels = [row for row in found.half_lives.to_pylist() if row["from"] == "kernels"]
    assert {row["action"] for row in of_kernels} == {"view", "cart", "purchase"}
    # Between its knots, which lie apart by a factor of 3.5, a kernel is no exponential.
    for row in of_kernels:
        assert row["half_life_us"] / DAY_US == pytest.approx(4, rel=0.4)


def test_a_model_of_times_alone_has_half_lives_from_its_ledger(planted):
    sequences = planted[1]
    split = influent.split_at(sequences, 0.8, target="last")
    settings = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=20)
    model = influent.Predictor(task="time", model=settings, train=influent.TrainConfig(epochs=1)).fit(split.train)
    found = drift(influent.explain_gap(model, split.test), sequences=sequences, model=model, window="2d")
    assert set(found.half_lives.column("from").to_pylist()) == {"ledger"}


def test_windows_are_of_the_calendar_and_hold_every_credit_once(found, planted):
    rows = found.of("all", "all")
    assert (
        sum(row["n_credits"] for row in rows)
        == planted[0].table.filter(pa.compute.equal(planted[0].table.column("source"), "event")).num_rows
    )
    # The log begins on a Monday.
    assert [row["window_start_us"] for row in rows] == [1_704_067_200_000_000 + n * 7 * DAY_US for n in range(12)]
    by_action = [found.of("action", level)[5]["n_credits"] for level in ("view", "cart", "purchase")]
    assert sum(by_action) == rows[5]["n_credits"]
    assert all(row["index_low"] <= row["index"] <= row["index_high"] for row in rows)


def test_a_window_with_one_user_has_no_interval():
    ledger, _ = simulate_ledger(PlantedCredits(n_users=3, n_days=28, events_per_day=0.1))
    rows = [row for row in drift(ledger, window="1d").of("all", "all") if row["n_credits"] == 1]
    assert rows
    assert all(row["index_low"] is None for row in rows)


def test_on_the_page_time_is_to_scale_and_every_interval_is_seen():
    windows = [Window("day 0", 0.0, 1.0, None), Window("day 2", 2.0, 1.0, (0.5, 2.0)), Window("day 8", 8.0, 1.0, None)]
    drawn = curve(windows, [5.0])
    first, second, third = (float(x) for x in re.findall(r'<circle class="bar" cx="([\d.]+)"', drawn))
    (whisker,) = re.findall(r'<line class="whisker" x1="([\d.]+)"', drawn)
    (change,) = re.findall(r'<line class="change" x1="([\d.]+)"', drawn)
    assert (third - first) == pytest.approx(4 * (second - first), abs=0.3)
    assert float(whisker) == second
    assert float(change) == pytest.approx((second + third) / 2, abs=0.2)


def test_cohorts_are_users_by_the_window_of_their_first_event(found, planted):
    _, sequences = planted
    first = sequences.time_us[sequences.offsets[:-1]]
    rows = found.cohorts.to_pylist()
    monday = 1_704_067_200_000_000
    assert {row["cohort_start_us"] for row in rows} == set((first - monday) // (7 * DAY_US) * 7 * DAY_US + monday)
    assert all(row["cohort_start_us"] <= row["window_start_us"] for row in rows)
    assert sum(row["n_credits"] for row in rows) == sum(row["n_credits"] for row in found.of("all", "all"))


def test_what_was_found_is_written_and_the_page_shows_it(found, tmp_path):
    found.save(tmp_path)
    names = {"drift.parquet", "half_lives.parquet", "cohorts.parquet", "drift.json", "drift.html"}
    assert {path.name for path in tmp_path.iterdir()} == names
    page = (tmp_path / "drift.html").read_text()
    assert "Influence changed" in page
    assert "action: cart" in page
    assert "http" not in page


def test_what_is_asked_wrongly_is_said(planted):
    ledger, sequences = planted
    with pytest.raises(influent.ConfigError, match=r"window '60d' is longer than half of the time .* from 2024-01"):
        drift(ledger, window="60d")
    with pytest.raises(influent.ConfigError, match=r"'1h' cuts the ledger's time into [\d,]+, .* longer one: '\d+h'"):
        drift(ledger, window="1h")
    with pytest.raises(influent.ConfigError, match="'7' has no unit"):
        drift(ledger, window="7")
    with pytest.raises(influent.ConfigError, match=r"no factor 'acton'\. Did you mean 'action'"):
        drift(ledger, by=["acton"])
    with pytest.raises(influent.ConfigError, match=r"'false_alarms' must be a number in \[0.001, 0.5\]. Got 2"):
        drift(ledger, false_alarms=2)
    with pytest.raises(influent.DataError, match="no event owns a credit"):
        drift(replace(ledger, table=ledger.table.slice(0, 0)))
    nothing = pa.nulls(len(ledger), pa.int64())
    with pytest.raises(influent.ConfigError, match="needs times, and the ledger is of an order-only log"):
        drift(replace(ledger, predictions=ledger.predictions.set_column(2, "time_us", nothing)))
    with pytest.raises(influent.UnknownIdError, match="'action vew' was not looked at. Did you mean 'action view'"):
        drift(ledger).of("action", "vew")
    with pytest.raises(influent.ConfigError, match="of the actions view, cart, purchase"):
        PlantedCredits(strengths={"view": 1.0})


@pytest.fixture(scope="module")
def simulated():
    world = influent.simulate_world(influent.WorldConfig(n_users=40, n_items=12, n_topics=2, horizon_days=30))
    log = influent.build_sequences(influent.clean(influent.read_events(world.events), drop_duplicates=False))
    return log, influent.split_last(log)


def test_kernels_are_those_of_the_model_that_was_explained_or_none(simulated):
    log, split = simulated
    small = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=10)
    brief = influent.TrainConfig(epochs=1)
    sums, box = (
        influent.Predictor(model=replace(small, backbone=backbone), train=brief).fit(split.train, split.validation)
        for backbone in ("additive", "gru")
    )
    counts = influent.DecayedCounts().fit(split.train)
    with pytest.raises(influent.ConfigError, match=r"of another model \(counts\) than this \(additive\)"):
        drift(influent.explain(counts, split.test), sequences=log, model=sums, window="3d")
    for model, shown in ((sums, {"ledger", "kernels"}), (box, {"ledger"})):
        rows = drift(influent.explain(model, split.test), sequences=log, model=model, window="3d").half_lives
        assert set(rows.column("from").to_pylist()) == shown


def test_users_without_events_stand_beside_the_others(simulated):
    log, _ = simulated
    users = log.vocab.users.ids.to_pylist()
    split = influent.split_users(log, test=users[-1:], validation=0.2)
    model = influent.DecayedCounts().fit(split.train)
    whole = influent.explain(model, influent.moments_of(split.train, users[:-1]))
    more = influent.explain(model, influent.moments_of(split.train, [*users, "newcomer"]))
    for factors in ([influent.factors(one, sequences=split.train, rank=False).table for one in (whole, more)],):
        assert (
            factors[0]
            .select(["factor", "level", "n_credits"])
            .equals(factors[1].select(["factor", "level", "n_credits"]))
        )
    found = [drift(one, sequences=split.train, window="3d") for one in (whole, more)]
    assert found[0].cohorts.column("n_credits").equals(found[1].cohorts.column("n_credits"))


def test_a_difference_of_two_moments_is_refused(simulated):
    log, split = simulated
    model = influent.DecayedCounts().fit(split.train)
    change = influent.explain_difference(model, split.test, split.validation)
    for read in (
        lambda: drift(change, window="3d"),
        lambda: influent.factors(change),
        lambda: influent.journeys(change, log, outcome="purchase"),
    ):
        with pytest.raises(influent.DataError, match="credits at two moments"):
            read()
