"""What others just did is one more sum in the score: it closes, has names, and is nothing where it says nothing."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import influent
from influent import testing
from influent.cli import app
from influent.data.moments import latest_moments
from influent.errors import ConfigError
from influent.run import Run
from tests.test_social import edges_of, sequences_of


def planted(strength, seed=2):
    """A planted world's split, its ties, and its log and edges as tables."""
    config = influent.WorldConfig(
        n_users=120, n_items=60, n_ties=3, social_strength=strength, homophily=0.3, horizon_days=60, seed=seed
    )
    world = influent.simulate_world(config)
    log = influent.build_sequences(influent.clean(influent.read_events(world.events), drop_duplicates=False))
    split = influent.split_last(log)
    return split, influent.build_ties(influent.read_edges(world.edges), split.train), world


def ranker_of(split, ties, own=None):
    own = own or influent.DecayedCounts().fit(split.train)
    return influent.SocialRanker(ties, own=own).fit(split.train, split.validation)


@pytest.fixture(scope="module")
def moved():
    split, ties, _ = planted(0.4)
    return split, ranker_of(split, ties)


def test_where_friends_are_followed_lists_are_better_than_those_of_own_pasts(moved):
    split, model = moved
    report = influent.evaluate([model.own, model], split.test, seen="keep")
    own, whole = (report.rows[name]["NDCG@10"].mean for name in (model.own.name, model.name))
    assert whole > 1.2 * own


def test_what_is_learned_of_others_is_the_same_whatever_the_test_events_are(moved):
    split, model = moved
    log = split.test.sequences
    last = log.offsets[1:][np.diff(log.offsets) > 0] - 1
    exchanged = log.swapped(last, np.random.default_rng(0).permutation(log.item_idx[last]))
    other = influent.split_last(exchanged)
    assert (other.test.sequences.item_idx != log.item_idx).sum() > 50
    assert ranker_of(other, model.social.ties).weight.tolist() == model.weight.tolist()


def test_a_model_can_be_saved_over_an_older_one(moved, tmp_path):
    split, model = moved
    for _ in range(2):
        model.save(tmp_path)
    assert influent.load_model(tmp_path).predict(split.test).tolist() == model.predict(split.test).tolist()


def test_where_nobody_is_followed_they_are_hardly_worse():
    split, ties, _ = planted(0.0)
    model = ranker_of(split, ties)
    friends = model.weight[len(model.weight) // 2 :]
    assert np.abs(friends).max() < 1
    report = influent.evaluate([model.own, model], split.test, seen="keep")
    own, whole = (report.rows[name]["NDCG@10"] for name in (model.own.name, model.name))
    assert whole.mean > own.low


def test_without_ties_or_others_a_score_is_that_of_the_own_past():
    log = sequences_of([(user, f"{user}{n % 3}", n) for n in range(8) for user in ("ann", "bob")])
    split = influent.split_last(log)
    own = influent.DecayedCounts().fit(split.train)
    model = ranker_of(split, influent.build_ties(edges_of(("ann", "bob")), split.train), own)
    # Nobody else ever acts on bob's items, so what came next says only that ann's are not his.
    bob = split.test.take(split.test.user_idx == int(log.vocab.users.require_idx(["bob"])[0]))
    items = log.vocab.items.to_idx(pa.array(["bob0", "bob1", "bob2"]))
    assert np.array_equal(model.predict(bob)[:, items], own.predict(bob)[:, items])


def test_the_score_is_the_own_score_the_burst_and_one_term_for_each_event_of_a_friend(moved):
    split, model = moved
    some = split.test.take(slice(0, 30))
    ledger = influent.explain(model, some)
    assert ledger.largest_gap() < 1e-4
    own = influent.explain(model.own, some)
    of_source = {
        (row["prediction_id"], row["source"]): row["credit_sum"]
        for row in ledger.table.group_by(["prediction_id", "source"]).aggregate([("credit", "sum")]).to_pylist()
    }
    for prediction in range(30):
        more = sum(of_source.get((prediction, source), 0.0) for source in ("social", "context"))
        difference = ledger.predictions["score"][prediction].as_py() - own.predictions["score"][prediction].as_py()
        assert more == pytest.approx(difference, abs=1e-5)
    assert {"social", "event"} <= {source for _, source in of_source}


def test_a_friend_s_event_has_the_credit_that_its_strength_and_bin_weigh(moved):
    split, model = moved
    owner, place, strength, gap_us = model.social.may_answer(split.test)
    ledger = influent.explain(model, split.test)
    rows = ledger.table.filter(pc.equal(ledger.table["source"], "social")).to_pylist()
    credit = {(row["prediction_id"], row["source_event_id"]): row["credit"] for row in rows}
    n_bins = len(model.social.edges_us) - 1
    of_bin = np.searchsorted(model.social.edges_us, gap_us) - 1
    expected = strength / model.mean_strength * model.weight[n_bins + of_bin]
    sequences = split.test.sequences
    target = sequences.item_idx[split.test.stop]
    asked = np.flatnonzero((sequences.item_idx[place] == target[owner]) & (expected != 0))
    assert len(asked) > 10
    found = [credit[owner[n], sequences.event_id[place[n]]] for n in asked]
    assert found == pytest.approx(expected[asked].tolist())


def test_what_others_did_after_the_moment_changes_nothing(moved):
    split, model = moved
    some = split.test.take(slice(0, 20))
    late = np.flatnonzero(some.sequences.time_us >= some.time_us.min())
    of_others = late[~np.isin(some.sequences.user_idx[late], some.user_idx)]
    earliest = some.take(np.array([int(np.argmin(some.time_us))]))
    without = replace(earliest, sequences=earliest.sequences.masked(of_others))
    assert len(of_others)
    assert np.array_equal(model.predict(earliest), model.predict(without))


def test_it_keeps_the_laws_of_a_model_whose_credits_close(moved):
    split, model = moved
    some = split.test.take(slice(0, 12))
    testing.check_credits_add_up(model, some)
    testing.check_batch_equals_single(model, some)
    testing.check_saved_is_same(model, some)
    assert model.exactness == "closes"
    assert influent.explain(model, some, contrast=3).largest_gap() < 1e-4


def test_over_a_black_box_the_terms_of_others_are_sums_and_those_of_the_own_past_estimates():
    split, ties, _ = planted(0.4)
    settings = influent.ModelConfig(backbone="gru", embedding_dim=4, max_len=4)
    box = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    model = ranker_of(split, ties, box)
    ledger = influent.explain(model, split.test.take(slice(0, 5)), method="leave_one_out")
    assert (model.exactness, ledger.note.exactness) == ("estimated", "estimated")
    assert ledger.largest_gap() < 1e-4
    assert {"social", "residual"} <= set(ledger.table["source"].to_pylist())


def test_the_parts_of_own_events_stand_beside_the_terms_of_others():
    split, ties, _ = planted(0.4)
    settings = influent.ModelConfig(embedding_dim=4, n_heads=2, max_len=4)
    own = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    ledger = influent.explain(ranker_of(split, ties, own), split.test.take(slice(0, 5)), by_part=True)
    assert ledger.largest_gap() < 1e-4
    social = ledger.table.filter(pc.equal(ledger.table["source"], "social"))
    by_name = social.group_by("source_name").aggregate([("credit", "sum")]).to_pylist()
    assert {row["source_name"] for row in by_name if row["credit_sum"] != 0} == {"social"}


def test_validation_moments_are_needed_with_the_reason():
    split, ties, _ = planted(0.0)
    own = influent.Popularity().fit(split.train)
    with pytest.raises(ConfigError, match="learns what others weigh from validation moments"):
        influent.SocialRanker(ties, own=own).fit(split.train)


def test_more_events_refit_strengths_and_the_own_model_and_keep_what_they_weigh(moved):
    split, model = moved
    again = model.refit(split.train_and_validation)
    assert np.array_equal(again.weight, model.weight)
    assert again.fitted_on == split.train_and_validation.fingerprint != model.fitted_on


def test_the_command_line_fits_with_edges_explains_and_recommends_with_names(tmp_path):
    _, _, world = planted(0.4)
    pq.write_table(world.events, tmp_path / "log.parquet")
    pq.write_table(world.edges, tmp_path / "edges.parquet")
    run, runner = str(tmp_path / "run"), CliRunner()

    def call(*arguments):
        done = runner.invoke(app, list(arguments), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    call("clean", str(tmp_path / "log.parquet"), "--run", run)
    strange = pa.table({name: ["nobody"] for name in ("source_user_id", "target_user_id")})
    edges = world.edges.select(strange.column_names)
    pq.write_table(pa.concat_tables([edges, strange.cast(edges.schema)]), tmp_path / "edges.parquet")
    fitted = call("fit", run, "--model", "counts", "--edges", str(tmp_path / "edges.parquet"), "--refit")
    assert "counts, refitted + social" in fitted
    assert "Edges that were left out: 1 of somebody without events." in fitted
    call("explain", run)
    action = pq.read_table(tmp_path / "log.parquet")["action"][0].as_py()
    assert "Events of other people carry" in call("attribute", run, "--outcome", action)
    call("recommend", run)
    lists = pq.read_table(tmp_path / "run" / "recommendations.parquet")
    reasons = [reason for row in lists["reasons"].to_pylist() for reason in row]
    social = [reason for reason in reasons if reason["source"] == "social"]
    assert social
    assert all(reason["source_user_id"] is not None for reason in social)
    # The moment of asking is not known, and others are read up to the end of the log.
    assert min(reason["gap_us"] for reason in social) >= 0
    note = json.loads((tmp_path / "run" / "ledger.json").read_text())
    assert note["removal_agreement"] == pytest.approx(1, abs=1e-4)
    assert "| exact |" in (call("evaluate", run, "--faithfulness") and (tmp_path / "run/faithfulness.md").read_text())
    # The graph is along the ties of the fit, which may also be given again.
    assert "put down to others" in call("graph", run)
    assert Run.open(tmp_path / "run").steps["graph"]["settings"]["edges"] == "those of the fit"
    found = influent.InfluenceGraph.load(tmp_path / "run").edges
    call("graph", run, "--edges", str(tmp_path / "edges.parquet"))
    assert found.equals(influent.InfluenceGraph.load(tmp_path / "run").edges)
    # Where own events say nothing, those of others stand on top, and some were read a week before and are no longer.
    call("fit", run, "--model", "popularity", "--edges", str(tmp_path / "edges.parquet"))
    assert "not read at this moment" in call("explain", run, "--user", "u0000", "--before", "7d")


def test_edges_go_with_ranking_alone(tmp_path):
    _, _, world = planted(0.0)
    pq.write_table(world.events, tmp_path / "log.parquet")
    runner = CliRunner()
    run = str(tmp_path / "run")
    runner.invoke(app, ["clean", str(tmp_path / "log.parquet"), "--run", run], catch_exceptions=False)
    done = runner.invoke(app, ["fit", run, "--task", "time", "--edges", "edges.parquet"])
    assert done.exit_code != 0
    assert "edges go with ranking alone" in str(done.output) + str(done.exception)


@pytest.mark.parametrize("edges", ["missing", "nobody"])
def test_edges_that_cannot_be_used_are_refused_before_anything_is_trained(tmp_path, edges):
    _, _, world = planted(0.0)
    pq.write_table(world.events, tmp_path / "log.parquet")
    pq.write_table(pa.table({"source_user_id": ["x"], "target_user_id": ["y"]}), tmp_path / "nobody.parquet")
    runner, run = CliRunner(), str(tmp_path / "run")
    runner.invoke(app, ["clean", str(tmp_path / "log.parquet"), "--run", run], catch_exceptions=False)
    done = runner.invoke(app, ["fit", run, "--epochs", "1", "--edges", str(tmp_path / f"{edges}.parquet")])
    assert done.exit_code != 0
    assert "epoch" not in done.output
    assert {"missing": "no file at", "nobody": "ties two users of this log"}[edges] in done.output + str(done.exception)


def test_edges_in_place_of_ties_are_refused_with_the_way_to_make_them():
    with pytest.raises(ConfigError, match="ties are made by build_ties"):
        influent.SocialRanker(edges_of(("ann", "bob")), own=influent.Popularity())


def test_parts_of_own_events_and_terms_of_others_have_no_empty_rows():
    split, ties, _ = planted(0.4)
    settings = influent.ModelConfig(embedding_dim=4, n_heads=2, max_len=4)
    own = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    table = influent.explain(ranker_of(split, ties, own), split.test.take(slice(0, 5)), by_part=True).table
    of_events = table.filter(pc.is_valid(table["source_event_id"])).to_pylist()
    assert {row["source"] == "social" for row in of_events if row["source_name"] == "social"} == {True}
    assert {row["source_name"] for row in of_events if row["source"] == "social"} == {"social"}


def test_what_says_nothing_of_moments_that_it_was_not_learned_from_weighs_nothing():
    split, ties, _ = planted(0.0)
    own = influent.Predictor(train=influent.TrainConfig(epochs=3)).fit(split.train, split.validation)
    model = ranker_of(split, ties, own)
    assert not model.weight.any()
    assert np.array_equal(model.predict(split.test), own.predict(split.test))


def test_a_log_without_times_and_one_of_other_people_are_refused_with_the_reason(moved):
    split, model = moved
    order_only = replace(split.test, sequences=replace(split.test.sequences, time_us=None), time_us=None)
    other = influent.split_last(sequences_of([(user, f"{user}{n}", n) for user in ("yan", "zoe") for n in range(4)]))
    for ask in (model.predict, lambda moments: model.credits(moments, np.zeros((len(moments), 1), np.int64))):
        with pytest.raises(ConfigError, match="order-only"):
            ask(order_only)
        with pytest.raises(influent.SchemaError, match="another vocabulary"):
            ask(other.test)


def test_moments_of_which_nothing_is_known_next_teach_nothing(moved):
    split, model = moved
    own, ties = model.own, model.social.ties
    nothing = latest_moments(split.train, np.arange(5))
    with pytest.raises(ConfigError, match="what came next"):
        influent.SocialRanker(ties, own=own).fit(split.train, nothing)


def test_no_moments_have_no_credits(moved):
    split, model = moved
    none = split.test.take(np.zeros(0, np.int64))
    credits = model.credits(none, np.zeros((0, 2), np.int64))
    assert credits.credit.shape == (0, 2)
    assert model.predict(none).shape == (0, model.vocab.n_items)
