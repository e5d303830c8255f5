"""Why now and not then, and how many events carry a score: what is read off ledgers that are there."""

import numpy as np
import pyarrow as pa
import pytest

import influent

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


def test_evidence_of_a_shortened_ledger_is_refused(counts, sequences):
    moments = influent.latest_moments(sequences)
    with pytest.raises(influent.ConfigError, match="rows for the largest 1 events only. Explain without 'top'"):
        influent.evidence(influent.explain(counts, moments, top=1))
    with pytest.raises(influent.ConfigError, match=r"'share' parameter of evidence must be in the range \(0, 1\]"):
        influent.evidence(influent.explain(counts, moments), share=0)
