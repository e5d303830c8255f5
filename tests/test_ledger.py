"""A ledger's rows add up, in full, shortened, and against rivals; one that does not is refused."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import influent
from influent.influence.ledger import Ledger


@pytest.fixture
def split():
    """Two users: ann does a b c b, bob does b c a c; one event an hour."""
    hour = 3_600
    log = {
        "user_id": ["ann"] * 4 + ["bob"] * 4,
        "item_id": ["a", "b", "c", "b", "b", "c", "a", "c"],
        "action": ["view", "view", "buy", "view"] * 2,
        "timestamp": [1_700_000_000 + place * hour for place in range(4)] * 2,
    }
    return influent.split_last(influent.build_sequences(influent.clean(influent.read_events(pa.table(log)))))


@pytest.fixture
def counts(split):
    """Trained on a b and b c: T[a, b] = T[b, c] = 1, half a point a step."""
    model = influent.DecayedCounts(window=1, popularity_power=0.0, reverse=0.0, decay=0.5)
    return model.fit(split.train)


def test_an_events_credit_is_its_count_decayed_by_its_lag(counts, split):
    rows = influent.explain(counts, split.test.take(slice(0, 1)), items=["b"]).of(0).to_pylist()
    # Ann's history is a b c; only a leads to b, three events back: 0.5 ** 2.
    credits = {row["source_item_id"]: row["credit"] for row in rows if row["source"] == "event"}
    assert credits == {"a": 0.25, "b": 0.0, "c": 0.0}
    of_a = next(row for row in rows if row["source_item_id"] == "a")
    assert (of_a["lag"], of_a["gap_us"], of_a["source_action"]) == (3, 3 * 3_600_000_000, "view")
    assert (of_a["user_id"], of_a["source_user_id"], of_a["source_event_id"]) == ("ann", "ann", 0)


def test_what_came_next_is_explained_unless_told_otherwise(counts, split):
    ledger = influent.explain(counts, split.test)
    assert ledger.predictions.column("item_id").to_pylist() == ["b", "c"]
    assert ledger.predictions.column("user_id").to_pylist() == ["ann", "bob"]


def test_each_moment_may_have_its_own_items(counts, split):
    ledger = influent.explain(counts, split.test, items=[["a", "b"], ["c", "a"]])
    assert ledger.predictions.column("item_id").to_pylist() == ["a", "b", "c", "a"]
    assert ledger.predictions.column("user_id").to_pylist() == ["ann", "ann", "bob", "bob"]
    with pytest.raises(
        influent.ConfigError, match=r"one list for each of the 2 moments.*Got 2 lists of lengths \[1, 2\]"
    ):
        influent.explain(counts, split.test, items=[["a", "b"], ["c"]])


def test_a_prediction_lists_bias_then_events_by_size_of_credit(counts, split):
    rows = influent.explain(counts, split.test, items=["b", "c"]).of(1).to_pylist()
    assert [row["source"] for row in rows] == ["bias", "event", "event", "event"]
    sizes = [abs(row["credit"]) for row in rows[1:]]
    assert sizes == sorted(sizes, reverse=True)


def test_the_rest_row_is_exactly_what_a_short_ledger_leaves_out(counts, split):
    full = influent.explain(counts, split.test, items=["c"])
    short = influent.explain(counts, split.test, items=["c"], top=1)
    for prediction_id in (0, 1):
        credits = [r["credit"] for r in full.of(prediction_id).to_pylist() if r["source"] == "event"]
        rest = [r["credit"] for r in short.of(prediction_id).to_pylist() if r["source"] == "rest"]
        assert rest == [pytest.approx(sum(credits[1:]), abs=1e-12)]
    assert short.largest_gap() <= 1e-6


def test_top_zero_leaves_bias_and_rest(counts, split):
    short = influent.explain(counts, split.test, top=0)
    assert set(short.table.column("source").to_pylist()) == {"bias", "rest"}


def test_a_contrast_is_the_difference_of_the_ledgers(counts, split):
    own = {item: influent.explain(counts, split.test.take(slice(0, 1)), items=[item]) for item in "abc"}
    contrast = influent.explain(counts, split.test.take(slice(0, 1)), items=["b"], contrast=2)

    def by_event(ledger):
        return {r["source_event_id"]: r["credit"] for r in ledger.of(0).to_pylist() if r["source"] == "event"}

    expected = {e: by_event(own["b"])[e] - (by_event(own["a"])[e] + by_event(own["c"])[e]) / 2 for e in (0, 1, 2)}
    assert by_event(contrast) == pytest.approx(expected)
    assert contrast.largest_gap() <= 1e-6


def test_the_rivals_are_the_best_scored_others(counts, split):
    # After a b c, b scores 0.25 (through a) and c 0.5 (through b); a has nothing.
    contrast = influent.explain(counts, split.test.take(slice(0, 1)), items=["c", "a"], contrast=1)
    assert contrast.predictions.column("score").to_pylist() == pytest.approx([0.5 - 0.25, 0.0 - 0.5])


def test_a_ledger_that_does_not_balance_is_neither_returned_nor_written(counts, split, tmp_path, monkeypatch):
    ledger = influent.explain(counts, split.test)
    bent = replace(ledger, predictions=ledger.predictions.set_column(4, "score", pa.array([9.0, 0.5])))
    with pytest.raises(influent.UnbalancedLedgerError, match=r"prediction 0 does not balance: its 4 credits add up to"):
        bent.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(type(counts), "predict", lambda self, moments: np.full((len(moments), 3), 7.0, np.float32))
    with pytest.raises(influent.UnbalancedLedgerError, match=r"the model said 7\.0"):
        influent.explain(counts, split.test)


def test_a_saved_ledger_comes_back_the_same(counts, split, tmp_path):
    ledger = influent.explain(counts, split.test, top=1, contrast=1)
    ledger.save(tmp_path)
    again = Ledger.load(tmp_path)
    assert again.table.equals(ledger.table)
    assert again.predictions.equals(ledger.predictions)
    assert again.note == ledger.note


def test_context_lines_have_rows_with_their_names(split):
    users = influent.read_users(pa.table({"user_id": ["ann", "bob"], "city": ["Rome", "Oslo"], "age": [3, 4]}))
    log = split.test.sequences
    events = pa.table(
        {
            "user_id": log.vocab.users.to_ids(log.user_idx),
            "item_id": log.vocab.items.to_ids(log.item_idx),
        }
    )
    parts = influent.split_last(influent.build_sequences(influent.read_events(events), users=users))
    settings = influent.ModelConfig(embedding_dim=4, n_heads=1, max_len=4, context=("city", "age"))
    model = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=2)).fit(parts.train, parts.validation)
    ledger = influent.explain(model, parts.test)
    context = ledger.table.filter(pc.equal(ledger.table.column("source"), "context"))
    assert context.column("source_name").to_pylist() == ["city", "age"] * 2
    assert max(map(abs, context.column("credit").to_pylist())) > 0
    assert ledger.largest_gap() <= 1e-4


def test_what_is_asked_wrongly_is_said(counts, split):
    with pytest.raises(influent.UnknownIdError, match="item_id 'z' is not among the 3 known"):
        influent.explain(counts, split.test, items=["z"])
    with pytest.raises(
        influent.ConfigError, match=r"'contrast' parameter of explain must be an int in the range \[1, 2\]"
    ):
        influent.explain(counts, split.test, contrast=3)
    with pytest.raises(influent.ConfigError, match="'top' parameter"):
        influent.explain(counts, split.test, top=-1)
    with pytest.raises(influent.DataError, match="no moment to explain"):
        influent.explain(counts, split.test.take(slice(0, 0)))
    with pytest.raises(influent.UnknownIdError, match="no prediction 5 in a ledger of 2"):
        influent.explain(counts, split.test).of(5)


def test_shares_say_what_carries_the_scores(counts, split):
    ledger = influent.explain(counts, split.test.take(slice(0, 1)), items=["b"])
    place = ledger.table.column_names.index("credit")
    # A bias of 1 and events that add up to −3: 1 part in 4, and 3.
    credits = {"bias": [1.0], "event": [-2.0, -2.0, 1.0]}
    column = [credits[source].pop() for source in ledger.table.column("source").to_pylist()]
    changed = replace(ledger, table=ledger.table.set_column(place, "credit", pa.array(column)))
    assert changed.shares() == {"event": 0.75, "bias": 0.25}


def test_a_ledger_says_what_a_reader_has_to_know(counts, split, tmp_path):
    ledger = influent.explain(counts, split.test)
    note = replace(ledger.note, split="abc", removal_agreement=0.5, artefacts=("No ties.",))
    told = replace(ledger, note=note)
    said = told.statement()
    assert said[0].startswith("counts, split abc: credits are exact, each what taking its event out takes away; no sum")
    assert "correlate with 0.5000" in said[1]
    assert said[-2:] == ["No ties.", "Credits say how the model came to its score. They are not effects."]
    told.save(tmp_path)
    assert Ledger.load(tmp_path).note == note
