"""What makes a behaviour influential comes out as it was planted, with intervals, and page and tables say so."""

import io
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

import influent
from influent.influence.ledger import Ledger, LedgerNote
from influent.influence.resampling import Resampling, interval
from influent.show import show_factors

HOUR_US = 3_600_000_000
NOTE = LedgerNote(model="planted", fitted_on="0", head="ranking", contrast=None, top=None)


def planted_log(n_users=80, n_events=12, seed=0):
    """Every user has one event every seven hours: of a random action, in a random scene, at a random of ten items."""
    rng = np.random.default_rng(seed)
    n = n_users * n_events
    log = {
        "user_id": np.repeat([f"u{user}" for user in range(n_users)], n_events),
        "item_id": rng.choice([f"i{item}" for item in range(10)], n),
        "action": rng.choice(["view", "purchase"], n, p=[0.7, 0.3]),
        "scene": rng.choice(["home", "shop"], n),
        "timestamp": 1_704_067_200 + np.tile(np.arange(n_events), n_users) * 7 * 3_600,
    }
    items = influent.read_items(
        pa.table({"item_id": [f"i{item}" for item in range(10)], "category": ["tea", "cup"] * 5, "price": range(10)})
    )
    return influent.build_sequences(influent.read_events(pa.table(log)), items=items)


def ledger_of(sequences, credit_of, seed=0):
    """One prediction a user, of their last event; an earlier event has the credit that `credit_of` gives its place."""
    stop = sequences.offsets[1:] - 1
    lengths = stop - sequences.offsets[:-1]
    prediction = np.repeat(np.arange(len(stop)), lengths)
    place = np.concatenate([np.arange(first, end) for first, end in zip(sequences.offsets[:-1], stop, strict=True)])
    noise = np.random.default_rng(seed).lognormal(sigma=0.3, size=len(place))
    credit = credit_of(place) * noise
    vocab, times = sequences.vocab, sequences.time_us
    ids = vocab.users.ids
    table = pa.table(
        {
            "prediction_id": prediction,
            "user_id": ids.take(pa.array(prediction)),
            "time_us": times[stop][prediction],
            "item_id": vocab.items.to_ids(sequences.item_idx[stop][prediction]),
            "head": ["ranking"] * len(place),
            "source": ["event"] * len(place),
            "source_name": pa.nulls(len(place), pa.string()),
            "source_event_id": sequences.event_id[place],
            "source_user_id": ids.take(pa.array(prediction)),
            "source_item_id": vocab.items.to_ids(sequences.item_idx[place]),
            "source_action": vocab.actions.to_ids(sequences.action_idx[place]),
            "lag": (stop[prediction] - place).astype(np.int32),
            "gap_us": times[stop][prediction] - times[place],
            "credit": credit,
        }
    )
    predictions = pa.table(
        {
            "prediction_id": np.arange(len(stop)),
            "user_id": ids,
            "time_us": times[stop],
            "item_id": vocab.items.to_ids(sequences.item_idx[stop]),
            "score": np.bincount(prediction, credit, len(stop)),
        }
    )
    return Ledger(table=table, predictions=predictions, note=NOTE)


@pytest.fixture(scope="module")
def sequences():
    return planted_log()


@pytest.fixture(scope="module")
def ledger(sequences):
    """A purchase has three times the credit of a view, and what is older has less; nothing else matters."""
    is_purchase = sequences.action_idx == sequences.vocab.actions.to_idx(["purchase"])[0]
    lag = np.repeat(sequences.offsets[1:], np.diff(sequences.offsets)) - np.arange(len(sequences))
    return ledger_of(sequences, lambda place: (0.1 + 0.2 * is_purchase[place]) * 0.8 ** lag[place])


@pytest.fixture(scope="module")
def found(ledger, sequences):
    return influent.factors(ledger, sequences=sequences)


def by_level(found, *names):
    return {row["level"]: row for row in found.of(*names)}


def test_a_stronger_action_comes_out_stronger(found):
    action = by_level(found, "action")
    assert action["purchase"]["mean_abs_credit"] == pytest.approx(3 * action["view"]["mean_abs_credit"], rel=0.15)
    assert action["purchase"]["mean_abs_credit_low"] > action["view"]["mean_abs_credit_high"]
    assert action["purchase"]["difference_low"] > 0 > action["view"]["difference_high"]
    assert action["purchase"]["adjusted"] / action["view"]["adjusted"] == pytest.approx(3, rel=0.1)


def test_a_factor_that_does_nothing_covers_no_difference(found):
    for name in ("scene", "category"):
        for row in found.of(name):
            assert row["difference_low"] < 0 < row["difference_high"]
            assert row["adjusted"] == pytest.approx(1, abs=0.1)


def test_the_factors_that_were_planted_explain_the_most(ledger, sequences):
    found = influent.factors(ledger, sequences=sequences, by=["scene", "lag", "category", "action"], pairs=False)
    assert {one.factor for one in found.ranking.factors[:2]} == {"action", "lag"}
    shares = {one.factor: one for one in found.ranking.factors}
    assert found.ranking.explained > 0.7
    assert shares["action"].low > 0.1
    assert abs(shares["scene"].importance) < 0.01


def test_a_table_counts_every_credit_once(found, ledger):
    credit = ledger.table.column("credit").to_numpy()
    for name in found.names:
        rows = found.of(name)
        assert sum(row["n_credits"] for row in rows) == len(credit)
        assert sum(row["total_abs_credit"] for row in rows) == pytest.approx(credit.sum())
        assert sum(row["share_of_abs_credit"] for row in rows) == pytest.approx(1)
    crossed = found.of("scene", "action")
    assert crossed == found.of("action", "scene")
    assert sum(row["n_credits"] for row in crossed) == len(credit)


def test_levels_are_what_their_events_are(sequences, ledger):
    small = influent.factors(ledger, sequences=sequences, by=["lag", "gap", "hour_of_day", "price"], rank=False)
    lag = by_level(small, "lag")
    assert list(lag) == ["1", "2", "3", "4 to 5", "6 to 10", "11 to 20"]
    assert lag["4 to 5"]["n_credits"] == 2 * sequences.n_users
    # Gaps are 7, 14, … 77 hours.
    assert {level: row["n_credits"] // 80 for level, row in by_level(small, "gap").items()} == {
        "to 1 day": 3,
        "to 3 days": 7,
        "to 10 days": 1,
    }
    # The nth event is 7 n hours after midnight.
    assert set(by_level(small, "hour_of_day")) == {f"{7 * n % 24:02}" for n in range(11)}
    assert list(by_level(small, "price")) == [str(price) for price in range(10)]
    assert small.ranking is None


def test_a_session_ends_where_nothing_follows_for_long(sequences, ledger):
    apart = influent.factors(ledger, sequences=sequences, by=["session_position"], rank=False)
    assert list(by_level(apart, "session_position")) == ["1"]
    together = influent.factors(ledger, sequences=sequences, by=["session_position"], rank=False, session_gap="8h")
    assert by_level(together, "session_position")["2"]["n_credits"] == sequences.n_users


def test_parts_of_an_event_are_added_up(sequences, ledger):
    halves = ledger.table.set_column(13, "credit", pa.array(ledger.table.column("credit").to_numpy() / 2))
    rows = np.repeat(np.arange(len(halves)), 2)
    whole = influent.factors(ledger, by=["action"], rank=False)
    parts = influent.factors(replace(ledger, table=halves.take(rows)), by=["action"], rank=False)
    for row, of_parts in zip(whole.of("action"), parts.of("action"), strict=True):
        assert of_parts["n_credits"] == row["n_credits"]
        assert of_parts["mean_abs_credit"] == pytest.approx(row["mean_abs_credit"])


def test_the_bootstrap_over_groups_is_as_wide_as_the_theory_says():
    values = np.random.default_rng(1).normal(size=5_000)
    draws = Resampling.of(len(values), n_resamples=2_000)
    sums = draws.sums(np.arange(len(values)), np.zeros(len(values), int), 1, values)
    low, high = interval(draws.draw(sums)[:, 0] / len(values))
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(len(values)), rel=0.1)


def test_the_page_needs_no_network_and_names_every_factor(found, tmp_path):
    found.save(tmp_path)
    page = (tmp_path / "factors.html").read_text()
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    assert all(f"By {name.replace('_', ' ')}" in page for name in found.names)
    assert "They are not effects" in page
    assert {"factors.parquet", "factors.json"} <= {path.name for path in tmp_path.iterdir()}


def test_ids_in_a_page_are_text(sequences, ledger):
    action = pa.array(["<b>view</b>"] * len(ledger.table))
    bold = replace(ledger, table=ledger.table.set_column(10, "source_action", action))
    from influent.influence.factor_page import factor_page

    page = factor_page(influent.factors(bold, by=["action", "lag"], rank=False))
    assert "<b>" not in page
    assert "&lt;b&gt;view" in page


def test_the_name_of_a_column_is_text_on_a_terminal_too(found):
    names = pa.array([name.replace("lag", "[/b]lag") for name in found.table.column("factor").to_pylist()])
    out = Console(record=True, width=120, file=io.StringIO())
    show_factors(out, replace(found, table=found.table.set_column(0, "factor", names), ranking=None))
    assert "[/b]lag" in out.export_text()


def test_a_long_name_is_folded_and_not_cut(found):
    address = "https://example.org/" + "".join(f"/{number}" for number in range(100, 130))
    levels = pa.array([f"{address}?{level}" for level in found.table.column("level").to_pylist()])
    place = found.table.column_names.index("level")
    out = Console(record=True, width=80, file=io.StringIO())
    show_factors(out, replace(found, table=found.table.set_column(place, "level", levels), ranking=None))
    first_column = [line.split(" ")[0] for line in out.export_text().splitlines()]
    assert address in "".join(first_column)
    assert "…" not in out.export_text()


def test_what_is_asked_wrongly_is_said(sequences, ledger):
    with pytest.raises(influent.ConfigError, match=r"no factor 'categori'\. Did you mean 'category'\?.*There are: act"):
        influent.factors(ledger, sequences=sequences, by=["categori"])
    with pytest.raises(influent.ConfigError, match=r"no factor 'scene'.*Give sequences for more"):
        influent.factors(ledger, by=["scene"])
    with pytest.raises(influent.ConfigError, match="a list of different factors"):
        influent.factors(ledger, by=["lag", "lag"])
    with pytest.raises(influent.ConfigError, match="the pair lag and scen has no factor 'scen'"):
        influent.factors(ledger, by=["lag", "action"], pairs=[("lag", "scen")])
    with pytest.raises(influent.DataError, match="no event owns a credit in this ledger"):
        influent.factors(replace(ledger, table=ledger.table.slice(0, 0)))
    with pytest.raises(influent.DataError, match="names the 3 largest credits .* Explain without top"):
        influent.factors(replace(ledger, note=replace(NOTE, top=3)))
    with pytest.raises(influent.DataError, match="two users or more"):
        influent.factors(replace(ledger, table=ledger.table.slice(0, 11), predictions=ledger.predictions.slice(0, 1)))
    with pytest.raises(influent.DataError, match="do not hold event"):
        influent.factors(ledger, sequences=sequences.until(sequences.offsets[:-1] + 1), by=["scene"])


def test_an_order_only_log_has_no_gaps_or_hours(sequences, ledger):
    nothing = pa.nulls(len(ledger.table), pa.int64())
    table = ledger.table.set_column(12, "gap_us", nothing).set_column(2, "time_us", nothing)
    ordered = replace(ledger, table=table)
    assert set(influent.factors(ordered, rank=False).names) == {"action", "lag"}
    with pytest.raises(influent.ConfigError, match="'gap' needs times, and the ledger is of an order-only log"):
        influent.factors(ordered, by=["gap"])


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([1_700_000_000 + 37 * user for user in range(80)], 5),
        ([1_234_567.1, 1_234_567.3] * 40, 2),
        (["(unknown)", "(other)", "a", None] * 20, 4),
    ],
)
def test_levels_that_differ_are_called_differently(ledger, sequences, values, levels):
    traits = pa.table({"user_id": sequences.vocab.users.ids, "trait": values})
    known = replace(sequences, vocab=replace(sequences.vocab, user_features=traits))
    rows = influent.factors(ledger, sequences=known, by=["trait"], rank=False).of("trait")
    assert len(rows) == len({row["level"] for row in rows}) == levels
