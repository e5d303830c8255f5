"""Lists hold the best that may be recommended, each with reasons that add up, and say what they were served from."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import influent


@pytest.fixture
def sequences():
    """Three users over items a to e; a is followed by b, b by c."""
    log = {"user_id": [1, 1, 1, 2, 2, 2, 3, 3], "item_id": list("abc") + list("abd") + list("ae")}
    return influent.build_sequences(influent.read_events(pa.table(log)))


@pytest.fixture
def model(sequences):
    return influent.DecayedCounts(window=1, popularity_power=0.0, reverse=0.0).fit(sequences)


def items_of(recommendations, user):
    return [row["item_id"] for row in recommendations.of(user)]


def test_the_best_items_come_first_and_seen_ones_are_left_out(model, sequences):
    found = influent.recommend(model, influent.latest_moments(sequences), k=2)
    # User 3 had a and e: b follows a most. User 1 had a b c: d follows b.
    assert items_of(found, 3)[0] == "b"
    assert items_of(found, 1)[0] == "d"
    assert not set(items_of(found, 1)) & set("abc")


def test_seen_items_may_be_kept(model, sequences):
    found = influent.recommend(model, influent.latest_moments(sequences), k=5, seen="keep")
    assert sorted(items_of(found, 1)) == list("abcde")


def test_only_candidates_and_nothing_excluded_is_recommended(model, sequences):
    moments = influent.latest_moments(sequences)
    assert set(items_of(influent.recommend(model, moments, candidates=["d", "c"]), 3)) == {"c", "d"}
    assert "b" not in items_of(influent.recommend(model, moments, exclude=["b"]), 3)


def test_a_list_is_shorter_where_fewer_items_may_be_recommended(model, sequences):
    found = influent.recommend(model, influent.latest_moments(sequences), k=10)
    assert [len(items_of(found, user)) for user in (1, 2, 3)] == [2, 2, 3]


@pytest.mark.parametrize(("reasons", "explained"), [("contrast", "margin"), ("score", "score")])
def test_every_rows_reasons_add_up_to_its_margin_or_as_asked_to_its_score(reasons, explained, model, sequences):
    found = influent.recommend(model, influent.latest_moments(sequences), k=3, n_reasons=1, reasons=reasons)
    for user in (1, 2, 3):
        for row in found.of(user):
            assert sum(reason["credit"] for reason in row["reasons"]) == pytest.approx(row[explained], abs=1e-5)
            assert [reason["source"] for reason in row["reasons"]] == ["bias", "event", "rest"]


def test_a_margin_is_the_score_minus_the_mean_of_the_other_items_that_may_be_recommended(model, sequences):
    # To user 3, who had a and e, only b, c and d may be recommended.
    rows = influent.recommend(model, influent.latest_moments(sequences), k=3).of(3)
    score = {row["item_id"]: row["score"] for row in rows}
    margin = {row["item_id"]: row["margin"] for row in rows}
    assert margin["b"] == pytest.approx(score["b"] - (score["c"] + score["d"]) / 2)
    assert margin["d"] == pytest.approx(score["d"] - (score["b"] + score["c"]) / 2)
    [alone] = influent.recommend(model, influent.latest_moments(sequences), k=1, candidates=["b"]).of(3)
    assert alone["margin"] == alone["score"]


def test_an_event_that_speaks_for_every_item_alike_is_no_reason(sequences):
    class Same(influent.DecayedCounts):
        def _learn(self, train):
            return np.arange(5.0), np.ones((5, 5))

    found = influent.recommend(Same().fit(sequences), influent.latest_moments(sequences), k=1, n_reasons=None).of(3)
    assert {reason["credit"] for reason in found[0]["reasons"] if reason["source"] == "event"} == {0.0}


def test_a_black_box_has_reasons_too(sequences):
    settings = influent.ModelConfig(backbone="gru", embedding_dim=4, n_layers=1)
    train = influent.TrainConfig(epochs=1, device="cpu")
    model = influent.Predictor(model=settings, train=train).fit(sequences)
    found = influent.recommend(model, influent.moments_of(sequences, [1, 404]), k=2)
    for row in found.of(1) + found.of(404):
        assert sum(reason["credit"] for reason in row["reasons"]) == pytest.approx(row["margin"], abs=1e-5)
    assert found.ledger.note.method == "leave_one_out"


def test_a_user_unknown_to_the_model_is_served_from_the_events_handed_in(model):
    log = pa.table({"user_id": [77], "item_id": ["a"]})
    handed_in = influent.build_sequences(influent.read_events(log), vocab=model.vocab)
    found = influent.recommend(model, influent.moments_of(handed_in, [77]), k=1)
    assert found.table.column("served_from").to_pylist() == ["events handed in"]
    assert items_of(found, 77) == ["b"]


def test_an_empty_history_is_served_from_popularity(model, sequences):
    found = influent.recommend(model, influent.moments_of(sequences, [404, 1]), k=2)
    stranger = found.of(404)
    # Three of eight events are a's, two b's.
    assert [(row["item_id"], row["score"]) for row in stranger] == [("a", 0.375), ("b", 0.25)]
    assert {row["served_from"] for row in stranger} == {"popularity"}
    assert stranger[0]["reasons"][0]["source"] == "bias"
    assert found.of(1)[0]["served_from"] == "history"


def test_a_history_of_unknown_items_only_is_served_from_popularity(model):
    log = pa.table({"user_id": [77], "item_id": ["never seen"]})
    handed_in = influent.build_sequences(influent.read_events(log), vocab=model.vocab)
    found = influent.recommend(model, influent.latest_moments(handed_in, np.array([3])), k=1)
    assert found.table.column("served_from").to_pylist() == ["popularity"]


def test_the_table_on_disk_holds_the_reasons(model, sequences, tmp_path):
    found = influent.recommend(model, influent.latest_moments(sequences), k=2)
    found.save(tmp_path)
    rows = pq.read_table(tmp_path / "recommendations.parquet").to_pylist()
    assert len(rows) == 6
    for row in rows:
        assert sum(reason["credit"] for reason in row["reasons"]) == pytest.approx(row["margin"], abs=1e-5)


def test_titles_stand_beside_ids(sequences):
    items = influent.read_items(pa.table({"item_id": ["b"], "title": ["The Birds"]}))
    log = pa.table({"user_id": [1, 1, 2], "item_id": ["a", "b", "a"]})
    known = influent.build_sequences(influent.read_events(log), items=items)
    model = influent.Markov().fit(known)
    found = influent.recommend(model, influent.latest_moments(known, np.array([1])), k=1)
    assert found.table.column("title").to_pylist() == ["The Birds"]


def test_what_is_asked_wrongly_is_said(model, sequences):
    moments = influent.latest_moments(sequences)
    with pytest.raises(
        influent.ConfigError, match=r"'k' parameter of recommend must be an int in the range \[1, inf\)"
    ):
        influent.recommend(model, moments, k=0)
    with pytest.raises(influent.ConfigError, match="'seen' parameter"):
        influent.recommend(model, moments, seen="maybe")
    with pytest.raises(influent.ConfigError, match="'reasons' of recommend must be 'contrast' or 'score'"):
        influent.recommend(model, moments, reasons="rivals")
    with pytest.raises(influent.UnknownIdError, match="item_id 'x' is not among the 5 known"):
        influent.recommend(model, moments, candidates=["x"])
    with pytest.raises(influent.DataError, match="no item may be recommended"):
        influent.recommend(model, moments, candidates=["a"], exclude=["a"])
    with pytest.raises(influent.ConfigError, match="'n_reasons' of recommend must be an int"):
        influent.recommend(model, moments, n_reasons=-1)
    with pytest.raises(influent.DataError, match="nobody to recommend to"):
        influent.recommend(model, moments.take(slice(0, 0)))


def test_a_stranger_has_no_time(model, sequences):
    log = pa.table({"user_id": [1, 1], "item_id": ["a", "b"], "timestamp": [1_700_000_000, 1_700_000_060]})
    timed = influent.build_sequences(influent.read_events(log))
    found = influent.recommend(influent.Popularity().fit(timed), influent.moments_of(timed, [404, 1]), k=1, seen="keep")
    assert found.ledger.predictions.column("time_us").to_pylist() == [None, 1_700_000_060_000_000]


def test_a_known_user_may_be_served_from_events_handed_in(model):
    log = pa.table({"user_id": [1], "item_id": ["a"]})
    handed_in = influent.build_sequences(influent.read_events(log), vocab=model.vocab)
    found = influent.recommend(model, influent.moments_of(handed_in, [1]), k=1, handed_in=True)
    assert found.table.column("served_from").to_pylist() == ["events handed in"]
