"""Ranks, metrics and reports, by arithmetic that can be checked by eye."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import influent
from influent.evaluation import metrics
from influent.evaluation.truth import recover_causes
from influent.models.ranks import target_ranks

ONE_EACH = np.arange(4)


class Fixed(influent.Popularity):
    """Scores that a test sets."""

    def predict(self, moments):
        return np.tile(np.array(self.scores, np.float32), (len(moments), 1))


@pytest.fixture
def split():
    """Ann does a b c d, bob c d a b."""
    log = pa.table({"user_id": ["ann"] * 4 + ["bob"] * 4, "item_id": list("abcd") + list("cdab")})
    return influent.split_last(influent.build_sequences(influent.read_events(log)))


def fixed(split, scores):
    model = Fixed().fit(split.train)
    model.scores = scores
    return model


def test_tied_scores_share_the_mean_of_their_ranks(split):
    ranks, _ = target_ranks(fixed(split, [1, 1, 1, 1]), split.test, seen="keep")
    assert ranks.tolist() == [2.5, 2.5]  # of places 1 to 4


def test_seen_items_do_not_stand_in_the_way(split):
    ranks, _ = target_ranks(fixed(split, [4, 3, 2, 1]), split.test, seen="exclude")
    assert ranks.tolist() == [1, 1]  # ann had a b c, bob c d a: only their targets are left
    ranks, _ = target_ranks(fixed(split, [4, 3, 2, 1]), split.test, seen="keep")
    assert ranks.tolist() == [4, 2]


def test_a_target_that_was_seen_and_is_left_out_is_a_miss():
    log = pa.table({"user_id": [1, 1, 1, 2, 2, 2], "item_id": list("aba") + list("abc")})
    split = influent.split_last(influent.build_sequences(influent.read_events(log)))
    model = influent.Popularity().fit(split.train)
    ranks, _ = target_ranks(model, split.test, seen="exclude")
    assert ranks.tolist() == [math.inf, 1.0]
    assert influent.evaluate([model], split.test).seen_targets == 0.5


@given(st.lists(st.integers(0, 3), min_size=5, max_size=5), st.integers(0, 4))
def test_a_rank_is_one_plus_those_ahead_plus_half_of_those_level(scores, target):
    log = pa.table({"user_id": [1] * 5, "item_id": [(target + 1 + place) % 5 for place in range(5)]})
    split = influent.split_last(influent.build_sequences(influent.read_events(log)))
    [rank], _ = target_ranks(fixed(split, scores), split.test, seen="keep")
    ahead = sum(score > scores[target] for score in scores)
    level = sum(score == scores[target] for score in scores) - 1
    assert rank == 1 + ahead + level / 2


def test_metrics_of_one_target_each():
    ranks, offsets = np.array([1.0, 3.0, 10.0, 11.0]), np.arange(5)
    assert metrics.hit_rate(ranks, offsets, 10).tolist() == [1, 1, 1, 0]
    assert metrics.ndcg(ranks, offsets, 10).tolist() == pytest.approx([1, 1 / 2, 1 / math.log2(11), 0])
    assert metrics.reciprocal_rank(ranks, offsets, 10).tolist() == pytest.approx([1, 1 / 3, 1 / 10, 0])
    assert metrics.recall(ranks, offsets, 10).tolist() == [1, 1, 1, 0]
    assert metrics.precision(ranks, offsets, 10).tolist() == [0.1, 0.1, 0.1, 0]


def test_metrics_of_several_targets():
    ranks, offsets = np.array([1.0, 2.0, 7.0, math.inf]), np.array([0, 3, 4])
    assert metrics.recall(ranks, offsets, 5).tolist() == pytest.approx([2 / 3, 0])
    assert metrics.precision(ranks, offsets, 5).tolist() == pytest.approx([2 / 5, 0])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert metrics.ndcg(ranks, offsets, 5).tolist() == pytest.approx([(1 + 1 / math.log2(3)) / ideal, 0])


def test_the_best_order_has_ndcg_one_however_many_targets():
    ranks = np.arange(1.0, 13.0)
    assert metrics.ndcg(ranks, np.array([0, 12]), 10).tolist() == pytest.approx([1.0])


def test_the_bootstrap_draws_users_not_moments():
    values, owner = np.array([0.0] * 50 + [1.0] * 50), np.array([0] * 50 + [1] * 50)
    assert metrics.bootstrap_interval(values, owner) == (0.0, 1.0)  # two users: all zeros, half, or all ones
    low, high = metrics.bootstrap_interval(values, np.arange(100))
    assert 0.35 < low < 0.45 < 0.55 < high < 0.65  # 0.5 ± 1.96 · 0.05


def test_a_report_reads_the_same_in_every_form(split):
    model = influent.Popularity().fit(split.train)
    report = influent.evaluate([model], split.test, k=[1, 10], protocol="last", split=split.hash)
    assert report.metrics()[:2] == ["HR@1", "NDCG@1"]
    assert json.loads(report.to_json())["rows"]["popularity"]["HR@10"]["mean"] == 1.0
    assert f"split {split.hash}" in report.to_markdown()
    assert report.to_markdown().splitlines()[2].startswith("| popularity | ")


def test_a_model_that_may_have_seen_the_answers_is_not_judged(split):
    everything = split.test.sequences
    model = influent.Popularity().fit(everything)
    with pytest.raises(influent.LeakageError, match="it may have learned from what it is asked to predict"):
        influent.evaluate([model], split.test)


def test_what_cannot_be_judged_is_said(split):
    model = influent.Popularity().fit(split.train)
    with pytest.raises(influent.DataError, match="no moment has a target"):
        influent.evaluate([model], influent.latest_moments(split.train))
    with pytest.raises(influent.ConfigError, match="'k' parameter of evaluate"):
        influent.evaluate([model], split.test, k=[0])


def test_causes_with_the_largest_credit_are_recovered(split):
    model = influent.DecayedCounts(window=1, popularity_power=0, reverse=0).fit(split.train)
    ledger = influent.explain(model, split.test, items=["b"])
    # Ann's b came from her a (event 0), which alone has credit; bob's cause is none of his events.
    found = recover_causes(ledger, np.array([0, -1]))
    assert (found.n_predictions, found.largest_credit, found.latest_event) == (1, 1.0, 0.0)
    assert found.at_random == pytest.approx(1 / 3)
    assert found.auc == 1.0
    wrong = recover_causes(ledger, np.array([2, -1]))
    assert (wrong.largest_credit, wrong.latest_event, wrong.auc) == (0.0, 1.0, 0.25)  # level with one, behind one


def test_causes_are_not_looked_for_in_a_short_ledger(split):
    model = influent.Popularity().fit(split.train)
    with pytest.raises(influent.DataError, match="Explain without top"):
        recover_causes(influent.explain(model, split.test, top=1), np.array([0, 0]))
    with pytest.raises(influent.DataError, match="no prediction has its cause"):
        recover_causes(influent.explain(model, split.test), np.array([-1, -1]))


def test_models_of_one_name_and_no_models_are_refused(split):
    model = influent.Popularity().fit(split.train)
    for models in ([], [model, model]):
        with pytest.raises(influent.ConfigError, match="at least one model, no two of one name"):
            influent.evaluate(models, split.test)
    with pytest.raises(influent.ConfigError, match="'seen' parameter of evaluate"):
        influent.evaluate([model], split.test, seen="banana")
