"""Why now and not then, and how many events carry a score: what is read off ledgers that are there."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import influent
from influent.data.moments import now_and_before

HOUR = 3_600


@pytest.fixture
def sequences():
    """Ann does a b c, bob does a b, an hour between events."""
    log = {
        "user_id": ["ann"] * 3 + ["bob"] * 2,
        "item_id": ["a", "b", "c", "a", "b"],
        "timestamp": [1_700_000_000 + place * HOUR for place in (0, 1, 2, 0, 1)],
    }
    return influent.build_sequences(influent.read_events(pa.table(log)))


@pytest.fixture
def counts(sequences):
    """T[a, b] = √2, as a is followed by b twice: each row is divided by the square root of its sum; T[b, c] = 1."""
    model = influent.DecayedCounts(window=1, popularity_power=0.0, reverse=0.0, decay=0.5)
    return model.fit(sequences)


def at(sequences, user, hours):
    return influent.moments_at(sequences, [user], [(1_700_000_000 + round(hours * HOUR)) * 1_000_000])


def rows_of(ledger):
    return {row["source_item_id"]: row for row in ledger.of(0).to_pylist() if row["source"] == "event"}


def test_a_difference_matches_events_and_the_bias_cancels(counts, sequences):
    now, then = at(sequences, "ann", 2.5), at(sequences, "ann", 0.5)
    ledger = influent.explain_difference(counts, now, then, items=["b"])
    rows = rows_of(ledger)
    # Then, a was the latest event: √2. Now it is three events back: √2 / 4. The others lead to b at no time.
    assert rows["a"]["credit"] == pytest.approx(2**0.5 / 4 - 2**0.5)
    assert (rows["a"]["lag"], rows["a"]["gap_us"]) == (3, 9_000_000_000)
    assert {item: row["credit"] for item, row in rows.items() if item != "a"} == {"b": 0.0, "c": 0.0}
    assert [row["credit"] for row in ledger.of(0).to_pylist() if row["source"] == "bias"] == [0.0]
    assert ledger.predictions.column("score").to_pylist() == pytest.approx([2**0.5 / 4 - 2**0.5])
    assert ledger.note.is_difference
    assert ledger.largest_gap() <= 1e-6


def test_an_event_of_the_other_moment_alone_has_no_distance_to_the_first(counts, sequences):
    ledger = influent.explain_difference(counts, at(sequences, "ann", 0.5), at(sequences, "ann", 2.5), items=["c"])
    b = rows_of(ledger)["b"]
    assert b["credit"] == pytest.approx(-0.5)  # b was two events before the later moment: 1 / 2, taken away
    assert (b["lag"], b["gap_us"]) == (None, None)
    assert {row["time_us"] for row in ledger.of(0).to_pylist()} == {1_700_001_800_000_000}


def test_a_difference_of_estimates_closes_too(sequences):
    config = influent.ModelConfig(backbone="sasrec", embedding_dim=4, n_heads=1)
    model = influent.Predictor(model=config, train=influent.TrainConfig(epochs=1, device="cpu")).fit(sequences)
    for method in model.methods:
        settings = {"n_samples": 4} if method == "shapley" else {}
        ledger = influent.explain_difference(
            model, at(sequences, "ann", 2.5), at(sequences, "ann", 1.5), method=method, **settings
        )
        assert ledger.largest_gap() <= 1e-5
        errors = [row["standard_error"] for row in ledger.of(0).to_pylist() if row["source"] == "event"]
        # Three events have six orders: four are drawn. Two have two orders, which are all taken.
        assert all(error is not None and error >= 0 for error in errors) == (method == "shapley")


def test_a_difference_is_of_one_users_moments(counts, sequences):
    with pytest.raises(influent.ConfigError, match="compares moments of the same users one by one"):
        influent.explain_difference(counts, at(sequences, "ann", 2.5), at(sequences, "bob", 0.5))


def test_an_item_against_another_is_the_difference_of_their_ledgers(counts, sequences):
    now = at(sequences, "ann", 2.5)
    rows = {item: rows_of(influent.explain(counts, now, items=[item])) for item in "bc"}
    ledger = influent.explain(counts, now, items=["b"], against="c")
    # a leads to b alone and b to c alone: √2 / 4 for a, −1 / 2 for b.
    assert {item: row["credit"] for item, row in rows_of(ledger).items()} == pytest.approx(
        {item: rows["b"][item]["credit"] - rows["c"][item]["credit"] for item in "abc"}
    )
    assert rows_of(ledger)["a"]["credit"] == pytest.approx(2**0.5 / 4)
    assert rows_of(ledger)["b"]["credit"] == pytest.approx(-0.5)
    assert ledger.predictions.column("score").to_pylist() == pytest.approx([2**0.5 / 4 - 0.5])
    assert (ledger.note.against, ledger.note.contrast) == ("c", None)


def test_several_items_stand_against_the_same_one_and_a_shortened_ledger_still_closes(counts, sequences):
    moments = influent.latest_moments(sequences)
    ledger = influent.explain(counts, moments, items=["a", "c"], against="b", top=1)
    scores = counts.predict(moments)
    expected = [scores[user, item] - scores[user, 1] for user in (0, 1) for item in (0, 2)]
    assert ledger.predictions.column("score").to_pylist() == pytest.approx(expected)
    assert ledger.largest_gap() <= 1e-6


def test_a_difference_of_differences_says_why_one_item_overtook_another(counts, sequences):
    now, then = at(sequences, "ann", 2.5), at(sequences, "ann", 0.5)
    ledger = influent.explain_difference(counts, now, then, items=["b"], against="c")
    # b was √2 ahead of c after a alone, and is √2 / 4 − 1 / 2 ahead after a b c.
    assert ledger.predictions.column("score").to_pylist() == pytest.approx([2**0.5 / 4 - 0.5 - 2**0.5])
    assert rows_of(ledger)["b"]["credit"] == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"against": "b"}, "'against' says what not, 'b', but not what instead"),
        ({"items": ["a", "b"], "against": "b"}, "item 'b' is asked for against itself"),
        ({"items": ["a"], "against": "b", "contrast": 1}, "Leave one out"),
    ],
)
def test_an_item_stands_against_one_other(asked, message, counts, sequences):
    with pytest.raises(influent.ConfigError, match=message):
        influent.explain(counts, influent.latest_moments(sequences), **asked)


def test_an_unknown_item_to_stand_against_is_named(counts, sequences):
    with pytest.raises(influent.UnknownIdError, match="item_id 'z' is not among the 3 known"):
        influent.explain(counts, influent.latest_moments(sequences), items=["a"], against="z")


def test_a_while_before_counts_from_each_users_latest_event(sequences):
    first = 1_700_000_000_000_000
    now, then = now_and_before(sequences, np.array([0, 1]), HOUR * 1_000_000 // 2)
    assert (now.time_us - first).tolist() == [2 * HOUR * 1_000_000, HOUR * 1_000_000]
    assert (then.time_us - first).tolist() == [1.5 * HOUR * 1_000_000, 0.5 * HOUR * 1_000_000]
    assert (now.stop - now.start).tolist() == [3, 2]
    assert (then.stop - then.start).tolist() == [2, 1]


def test_a_moment_before_the_first_event_is_refused(sequences):
    # Bob did b an hour after a. At the very moment of a he had done nothing.
    with pytest.raises(
        influent.ConfigError, match="user 'bob' has events from 2023-11-14T22:13:20Z to 2023-11-14T23:1"
    ):
        now_and_before(sequences, np.array([0, 1]), HOUR * 1_000_000)


def ledger_with(counts, sequences, credits):
    """A ledger of one prediction whose events have these credits."""
    ledger = influent.explain(counts, at(sequences, "ann", 2.5), items=["b"])
    table = ledger.table.set_column(ledger.table.schema.get_field_index("credit"), "credit", pa.array([0.0, *credits]))
    return influent.Ledger(table=table, predictions=ledger.predictions, note=ledger.note)


@pytest.mark.parametrize(
    ("credits", "share", "n_events"),
    [
        ([0.6, -0.3, 0.2], 0.5, 1),  # 0.6 of 1.1
        ([0.4, -0.4, 0.2], 0.5, 2),  # 0.4 of 1.0 is not half, and signs do not cancel
        ([0.2, 0.1, 0.1], 0.5, 1),  # 0.2 is half of 0.4
        ([0.2, 0.1, 0.1], 1.0, 3),
        ([0.0, 0.0, 0.0], 0.5, 0),
    ],
)
def test_the_fewest_events_that_carry_half_of_the_credit(credits, share, n_events, counts, sequences):
    assert influent.evidence(ledger_with(counts, sequences, credits), share=share).tolist() == [n_events]


def test_evidence_counts_events_and_not_their_parts_in_each_prediction(sequences):
    config = influent.ModelConfig(embedding_dim=4, n_heads=1)
    model = influent.Predictor(model=config, train=influent.TrainConfig(epochs=2, device="cpu")).fit(sequences)
    moments = influent.latest_moments(sequences)
    whole, parts = (influent.explain(model, moments, items=["a", "b"], by_part=by_part) for by_part in (False, True))
    assert np.array_equal(influent.evidence(whole), influent.evidence(parts))
    assert len(influent.evidence(whole)) == 4


def test_evidence_counts_the_events_of_others_too(counts, sequences):
    ledger = ledger_with(counts, sequences, [0.6, 0.3, 0.2])
    of_others = pa.array(["bias", "social", "event", "event"])
    table = ledger.table.set_column(ledger.table.schema.get_field_index("source"), "source", of_others)
    assert influent.evidence(replace(ledger, table=table)).tolist() == [1]  # 0.6 of 1.1, of which own events have 0.5


def test_evidence_of_a_shortened_ledger_is_refused(counts, sequences):
    moments = influent.latest_moments(sequences)
    with pytest.raises(influent.ConfigError, match="rows for the largest 1 events only. Explain without 'top'"):
        influent.evidence(influent.explain(counts, moments, top=1))
    with pytest.raises(influent.ConfigError, match=r"'share' parameter must be a number in \(0, 1\]"):
        influent.evidence(influent.explain(counts, moments), share=0)
