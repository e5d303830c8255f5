"""Who moved whom: ties, what each event was an answer to, and the graph that adds it up."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

import influent
from influent.cli import app
from influent.data.moments import moments_at
from influent.data.ties import find_co_actions
from influent.errors import ConfigError, DataError, SchemaError
from influent.models.hawkes import SocialConfig

HOUR_S = 3600


def sequences_of(rows):
    """Sequences of (user, item, hour)."""
    user, item, hour = (list(column) for column in zip(*rows, strict=True))
    log = pa.table({"user_id": user, "item_id": item, "timestamp": [1_704_067_200 + int(h * HOUR_S) for h in hour]})
    return influent.build_sequences(influent.clean(influent.read_events(log)))


def edges_of(*pairs):
    source, target = zip(*pairs, strict=True)
    return influent.read_edges(pa.table({"source_user_id": list(source), "target_user_id": list(target)}))


def pairs_of(ties):
    rows = ties.to_table().to_pylist()
    return [(row["source_user_id"], row["target_user_id"]) for row in rows]


def followed(n_days=30):
    """Ann and cat each act on an item of the day; bob does what ann did, an hour later."""
    rows = []
    for day in range(n_days):
        rows += [("ann", f"a{day % 7}", 24 * day), ("cat", f"c{day % 5}", 24 * day + 0.5)]
        rows.append(("bob", f"a{day % 7}", 24 * day + 1))
    return sequences_of(rows)


@pytest.fixture(scope="module")
def fitted():
    log = followed()
    return influent.Social(influent.build_ties(edges_of(("ann", "bob"), ("cat", "bob")), log)).fit(log), log


def test_edges_to_oneself_to_nobody_and_given_twice_are_left_out_and_counted():
    log = sequences_of([("ann", "tea", 0), ("bob", "tea", 1)])
    ties = influent.build_ties(edges_of(("ann", "bob"), ("ann", "bob"), ("bob", "bob"), ("ann", "eve")), log)
    assert pairs_of(ties) == [("ann", "bob")]
    assert ties.dropped == {"of somebody without events": 1, "to oneself": 1, "given more than once": 1}
    said = "Edges that were left out: 1 of somebody without events, 1 to oneself, 1 given more than once."
    assert ties.sentences() == [said]
    assert influent.build_ties(edges_of(("ann", "bob")), log).sentences() == []


def test_of_equal_edges_the_earliest_counts():
    log = sequences_of([("ann", "tea", 0), ("bob", "tea", 1)])
    table = pa.table({"source_user_id": ["ann"] * 2, "target_user_id": ["bob"] * 2, "time_us": [7, 5]})
    assert influent.build_ties(influent.read_edges(table, time="time_us", time_unit="us"), log).since_us.tolist() == [5]


def test_edges_of_other_people_are_refused_with_the_reason():
    log = sequences_of([("ann", "tea", 0), ("bob", "tea", 1)])
    with pytest.raises(DataError, match="none of 1 edges ties two users of this log: 1 of somebody without events"):
        influent.build_ties(edges_of(("eve", "sue")), log)


def test_whoever_acts_on_an_item_after_another_is_tied_to_them_and_not_the_other_way_round():
    log = sequences_of([("ann", "tea", 0), ("bob", "tea", 1), ("cat", "pot", 2)])
    assert pairs_of(influent.co_acting(log)) == [("ann", "bob")]


def test_two_events_at_one_time_have_no_direction():
    log = sequences_of([("ann", "tea", 0), ("bob", "tea", 0), ("cat", "tea", 1)])
    assert pairs_of(influent.co_acting(log)) == [("ann", "cat"), ("bob", "cat")]


def test_nobody_leads_beyond_the_window():
    log = sequences_of([("ann", "tea", 0), ("bob", "tea", 25)])
    with pytest.raises(DataError, match="nobody acted on an item after somebody else within 1d"):
        influent.co_acting(log, window="1d")


def test_an_order_only_log_does_not_say_who_came_first():
    log = pa.table({"user_id": ["ann", "bob"], "item_id": ["tea", "tea"]})
    order_only = influent.build_sequences(influent.clean(influent.read_events(log)))
    with pytest.raises(ConfigError, match="does not say who acted first"):
        influent.co_acting(order_only)


def test_a_co_action_has_its_gap_and_its_tie():
    log = sequences_of([("ann", "tea", 0), ("bob", "tea", 2), ("cat", "tea", 3)])
    pairs = find_co_actions(log, influent.build_ties(edges_of(("ann", "bob"), ("bob", "cat")), log))
    assert (pairs.gap_us / 3.6e9).tolist() == [2, 1]
    assert pairs.tie.tolist() == [0, 1]


def test_events_before_a_tie_do_not_count():
    log = sequences_of([("ann", "tea", 0), ("bob", "tea", 1), ("ann", "pot", 2), ("bob", "pot", 3)])
    since = [int(log.time_us[0]) + 1]
    table = pa.table({"source_user_id": ["ann"], "target_user_id": ["bob"], "time_us": since})
    ties = influent.build_ties(influent.read_edges(table, time="time_us", time_unit="us"), log)
    pairs = find_co_actions(log, ties)
    assert log.vocab.items.to_ids(log.item_idx[pairs.event]).to_pylist() == ["pot"]


def test_a_tie_that_begins_after_a_moment_has_nothing_to_pass_on_yet():
    log = sequences_of([("ann", "tea", 0), ("bob", "tea", 1), ("ann", "pot", 2), ("bob", "pot", 3)])
    since = [int(log.time_us.max()) - 1]
    table = pa.table({"source_user_id": ["ann"], "target_user_id": ["bob"], "time_us": since})
    ties = influent.build_ties(influent.read_edges(table, time="time_us", time_unit="us"), log)
    model, moments = influent.Social(ties).fit(log), influent.each_moment(log)
    assert np.isfinite(model.predict(moments)).all()
    # Ann did nothing between the beginning of the tie and bob's last event.
    assert len(model.credits(moments, np.zeros((len(moments), 1), np.int64)).place) == 0


def test_who_is_followed_moves_and_who_is_not_does_not(fitted):
    model, log = fitted
    graph = influent.influence_graph(influent.explain_causes(model, log))
    edges = {(row["source_user_id"], row["target_user_id"]): row for row in graph.edges.to_pylist()}
    # Bob's 30 events are all answers to ann's, and cat's items are never his.
    assert edges["ann", "bob"]["influence"] == pytest.approx(30, rel=0.1)
    assert ("cat", "bob") not in edges
    assert edges["ann", "bob"]["low"] < edges["ann", "bob"]["influence"] < edges["ann", "bob"]["high"]


def test_the_shares_of_every_event_add_up_to_one(fitted):
    ledger = influent.explain_causes(*fitted)
    assert ledger.largest_gap() < 1e-12
    assert set(ledger.predictions.column("score").to_pylist()) == {1.0}


def test_rates_are_the_sums_of_their_terms_and_shares_are_terms_over_rates(fitted):
    model, log = fitted
    bob = int(log.vocab.users.require_idx(["bob"])[0])
    at = log.offsets[bob] + 4
    moments = moments_at(log, ["bob"], [int(log.time_us[at])])
    item = log.vocab.items.to_ids(log.item_idx[[at]]).to_pylist()[0]
    rates = influent.explain(model, moments, items=[item])
    assert rates.largest_gap() < 1e-4
    # The same event in the ledger of causes: the share of ann's event is its term over the rate.
    causes = influent.explain_causes(model, log)
    of_event = causes.table.filter(pc.equal(causes.table.column("prediction_id"), int(at)))
    shares = {row["source_event_id"]: row["credit"] for row in of_event.to_pylist() if row["source"] == "social"}
    score = rates.predictions.column("score")[0].as_py()
    terms = {r["source_event_id"]: r["credit"] / score for r in rates.table.to_pylist() if r["source"] == "social"}
    assert terms == pytest.approx(shares, rel=1e-5)
    assert len(terms) == 1


def test_a_social_row_says_whose_event_it_is_and_has_no_lag(fitted):
    table = influent.explain_causes(*fitted).table
    social = table.filter(pc.equal(table.column("source"), "social"))
    assert set(social.column("source_user_id").to_pylist()) == {"ann"}
    assert social.column("lag").null_count == social.num_rows
    assert pc.min(social.column("gap_us")).as_py() == HOUR_S * 1_000_000


def test_a_pair_seen_once_says_little():
    """Bob answers ann's only event, and none of dan's forty."""
    rows = [("ann", "tea", 5), ("bob", "tea", 6)] + [("dan", f"i{n}", n) for n in range(40)]
    log = sequences_of(rows)
    ties = influent.build_ties(edges_of(("ann", "bob"), ("dan", "bob")), log)

    def strength(prior):
        model = influent.Social(ties, config=influent.SocialConfig(prior_events=prior)).fit(log)
        return float(model.parameters.strength_LS[0, 0])

    assert strength(1e-3) > 0.3
    # As if 20 more of her events had been seen, answered about as seldom as others are.
    assert strength(20) < strength(1e-3) / 2


def test_a_burst_is_nobody_s_doing():
    """On each day everybody comes to the item of the day, in another order each day, within minutes."""
    rng = np.random.default_rng(0)
    rows = []
    for day in range(40):
        rows += [(f"u{user}", f"i{day % 9}", 24 * day + place / 60) for place, user in enumerate(rng.permutation(12))]
    log = sequences_of(rows)
    model = influent.Social(influent.co_acting(log)).fit(log)
    ledger = influent.explain_causes(model, log)
    shares = ledger.shares()
    names = ledger.table.group_by("source_name").aggregate([("credit", "sum")]).to_pylist()
    burst = next(row["credit_sum"] for row in names if row["source_name"] == "burst")
    assert burst / len(log) > 0.5 > shares.get("social", 0.0)


def test_ties_are_found_in_a_world_where_counting_co_actions_does_not_find_them():
    world = influent.simulate_world(
        influent.WorldConfig(n_users=80, n_items=60, n_ties=2, social_strength=0.35, horizon_days=60, seed=3)
    )
    log = influent.build_sequences(influent.clean(influent.read_events(world.events), drop_duplicates=False))
    ties = influent.co_acting(log)
    true = set(pairs_of(influent.build_ties(influent.read_edges(world.edges), log)))
    is_true = np.array([pair in true for pair in pairs_of(ties)])
    model = influent.Social(ties).fit(log)
    counted = np.bincount(find_co_actions(log, ties).tie, minlength=len(ties))
    found = average_precision_score(is_true, model.parameters.evidence_LS[:, 0])
    assert found > 0.6 > average_precision_score(is_true, counted)


def test_a_log_that_runs_backwards_twice_is_the_log():
    log = followed(5)
    back, place = log.backwards()
    assert log.item_idx[place].tolist() == back.item_idx.tolist()
    again, _ = back.backwards()
    assert again.fingerprint == log.fingerprint


def test_shares_close_and_are_not_said_to_be_removals(fitted):
    """An event of another is also a part of the burst, so masking it takes more than its share."""
    model, log = fitted
    ledger = influent.explain_causes(model, log)
    assert (model.exactness, ledger.note.exactness) == ("closes", "closes")


def test_ties_of_another_log_are_refused(fitted):
    model, log = fitted
    other = sequences_of([("zoe", "a0", 0), ("yan", "a0", 1)])
    with pytest.raises(SchemaError, match="another vocabulary"):
        influent.Social(model.ties).fit(other)
    with pytest.raises(SchemaError, match="another vocabulary"):
        influent.explain_causes(model, other)


def test_an_order_only_log_has_no_causes():
    log = pa.table({"user_id": ["ann", "bob"], "item_id": ["tea", "tea"]})
    order_only = influent.build_sequences(influent.clean(influent.read_events(log)))
    with pytest.raises(ConfigError, match="order-only"):
        influent.Social(influent.build_ties(edges_of(("ann", "bob")), order_only)).fit(order_only)


def test_saving_and_loading_changes_nothing(fitted, tmp_path):
    model, log = fitted
    model.save(tmp_path)
    again = influent.load_model(tmp_path)
    assert influent.explain_causes(again, log).table.equals(influent.explain_causes(model, log).table)


def test_saving_keeps_the_model_of_users_own_pasts(tmp_path):
    log = followed(4)
    split = influent.split_last(log)
    small = influent.Predictor(
        model=influent.ModelConfig(embedding_dim=4, n_heads=1), train=influent.TrainConfig(epochs=1)
    ).fit(split.train, split.validation)
    model = influent.Social(influent.co_acting(split.train), own=small).fit(split.train)
    assert "own past" in model.lines
    model.save(tmp_path)
    again = influent.load_model(tmp_path)
    assert np.array_equal(again.predict(split.test), model.predict(split.test))


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ann", "cat"]), st.integers(0, 6), st.integers(0, 48)), max_size=6))
def test_what_happens_at_or_after_a_moment_changes_no_rate(later):
    model, log = MODEL
    rows = [("ann", "a0", 0), ("bob", "a1", 1)] + [(user, f"a{item}", 24 + hour) for user, item, hour in later]
    seen = influent.build_sequences(influent.clean(influent.read_events(_log(rows))), vocab=log.vocab)
    before = influent.build_sequences(influent.clean(influent.read_events(_log(rows[:2]))), vocab=log.vocab)
    moment = [(1_704_067_200 + 24 * HOUR_S) * 1_000_000]
    rates = [model.predict(moments_at(sequences, ["bob"], moment)) for sequences in (seen, before)]
    assert np.array_equal(*rates)


def _log(rows):
    user, item, hour = (list(column) for column in zip(*rows, strict=True))
    return pa.table({"user_id": user, "item_id": item, "timestamp": [1_704_067_200 + int(h * HOUR_S) for h in hour]})


def _model_and_log():
    log = followed()
    return influent.Social(influent.build_ties(edges_of(("ann", "bob"), ("cat", "bob")), log)).fit(log), log


MODEL = _model_and_log()


def ledger_of_causes(*rows):
    """A ledger of predictions with a score of 1, from (prediction, user, source user or None, event, credit)."""
    prediction, user, source, event, credit = (list(column) for column in zip(*rows, strict=True))
    ledger = influent.explain_causes(*MODEL)
    n = len(rows)
    columns = {
        "prediction_id": prediction,
        "user_id": user,
        "item_id": ["tea"] * n,
        "head": ["cause"] * n,
        "source": ["bias" if one is None else "social" for one in source],
        "source_user_id": source,
        "source_event_id": event,
        "credit": credit,
    }
    schema_ = ledger.table.schema
    table = pa.table({field.name: pa.array(columns.get(field.name, [None] * n), field.type) for field in schema_})
    whose = dict(zip(prediction, user, strict=True))
    predictions = pa.table({"prediction_id": list(whose), "user_id": list(whose.values()), "score": [1.0] * len(whose)})
    return influent.Ledger(table=table, predictions=predictions, note=ledger.note)


TWICE = (
    (0, "bob", "ann", 7, 0.5),
    (0, "bob", None, None, 0.5),
    (1, "bob", "ann", 7, 0.25),
    (1, "bob", "cat", 9, 0.25),
    (1, "bob", None, None, 0.5),
    (2, "ann", None, None, 1.0),
)


def test_an_edge_is_the_sum_of_its_entries():
    graph = influent.influence_graph(ledger_of_causes(*TWICE))
    edges = [(r["source_user_id"], r["target_user_id"], r["influence"]) for r in graph.edges.to_pylist()]
    assert edges == [("ann", "bob", 0.75), ("cat", "bob", 0.25)]
    first = graph.edges.to_pylist()[0]
    assert (first["n_predictions"], first["n_events"]) == (2, 1)


def test_what_people_received_is_what_the_ledger_puts_down_to_others():
    graph = influent.influence_graph(ledger_of_causes(*TWICE))
    people = {row["user_id"]: row for row in graph.people.to_pylist()}
    assert people["bob"]["received"] == 0.75 + 0.25
    assert people["bob"]["openness"] == 1.0 / 2
    assert people["ann"]["exerted"] == 0.75
    assert people["ann"]["per_event"] == 0.75 / 1
    assert people["ann"]["reach"] == pytest.approx(1)


def test_influence_that_is_spread_evenly_over_two_reaches_two():
    rows = ((0, "bob", "ann", 7, 0.5), (1, "cat", "ann", 7, 0.5))
    people = influent.influence_graph(ledger_of_causes(*rows)).people.to_pylist()
    assert people[0]["reach"] == pytest.approx(2)


def test_edges_that_are_left_out_are_counted():
    graph = influent.influence_graph(ledger_of_causes(*TWICE), min_influence=0.5)
    assert (len(graph), graph.note.n_left_out, graph.note.left_out) == (1, 1, 0.25)
    assert "1 edges, 0.2 together" in " ".join(graph.sentences())


def test_a_chance_of_moving_somebody_comes_from_answers_by_event(fitted):
    graph = influent.influence_graph(influent.explain_causes(*fitted))
    [row] = graph.probabilities().to_pylist()
    # About 30 answers to ann's 30 events: one each, which is at least one with a chance of 1 − 1/e.
    assert (row["source_user_id"], row["target_user_id"]) == ("ann", "bob")
    assert row["probability"] == pytest.approx(1 - np.exp(-graph.edges.column("influence")[0].as_py() / 30))
    seeds = influent.choose_seeds(influent.Spread.of_table(graph.probabilities()), 1)
    assert seeds.table.column("user_id").to_pylist() == ["ann"]


def test_edges_split_by_item_add_up_to_the_whole(fitted):
    ledger = influent.explain_causes(*fitted)
    whole, split = influent.influence_graph(ledger), influent.influence_graph(ledger, by="item_id")
    assert len(split) == 7
    total = [pc.sum(graph.edges.column("influence")).as_py() for graph in (whole, split)]
    assert total[0] == pytest.approx(total[1], rel=1e-12)
    with pytest.raises(ConfigError, match="split by item_id"):
        split.probabilities()


def test_a_graph_goes_to_disk_and_to_networkx(fitted, tmp_path):
    graph = influent.influence_graph(influent.explain_causes(*fitted))
    graph.save(str(tmp_path / "new" / "folder"))
    graph.save(tmp_path)
    again = influent.InfluenceGraph.load(tmp_path)
    assert again.edges.equals(graph.edges)
    assert again.note == graph.note
    assert again.to_networkx().edges["ann", "bob"]["influence"] == graph.edges.column("influence")[0].as_py()
    (tmp_path / "edges.parquet").write_bytes(b"PAR1")
    with pytest.raises(influent.RunFolderError, match="is damaged .* Run influent graph again"):
        influent.InfluenceGraph.load(tmp_path)


def test_a_graph_of_nothing_and_of_unknown_columns_is_refused(fitted):
    ledger = influent.explain_causes(*fitted)
    with pytest.raises(ConfigError, match="cannot be split by 'mood'"):
        influent.influence_graph(ledger, by="mood")
    with pytest.raises(ConfigError, match="must be a number in"):
        influent.influence_graph(ledger, min_influence=-1)
    with pytest.raises(DataError, match="there is no graph"):
        influent.influence_graph(ledger_of_causes((0, "bob", None, None, 1.0)))


def test_a_run_has_a_graph(tmp_path):
    world = influent.simulate_world(influent.WorldConfig(n_users=40, n_items=30, n_ties=2, social_strength=0.4, seed=1))
    log, edges, run = tmp_path / "log.parquet", tmp_path / "edges.csv", tmp_path / "run"
    pa.parquet.write_table(world.events, log)
    pa.csv.write_csv(world.edges, edges)
    invoke = CliRunner().invoke
    assert invoke(app, ["clean", str(log), "--run", str(run), "--keep-duplicates"]).exit_code == 0
    assert invoke(app, ["fit", str(run), "--epochs", "1"]).exit_code == 0
    done = invoke(app, ["graph", str(run), "--edges", str(edges), "--export", str(tmp_path / "g.graphml")])
    assert done.exit_code == 0, done.output
    assert "are put down to others" in done.output
    assert "of the top 10 stay there" in done.output
    leading = pyarrow.parquet.read_table(run / "leaders.parquet")
    assert leading.column("rank").to_pylist() == list(range(1, leading.num_rows + 1))
    again = ["graph", str(run), "--edges", str(edges), "--by", "action", "--period", "30d"]
    refused = invoke(app, ["graph", str(run), "--by", "acton"])
    assert "Did you mean 'action'? There are: item_id, action" in str(refused.exception)
    refused = invoke(app, [*again, "--export", str(tmp_path / "g.dot")])
    assert "written as .graphml or .gexf" in str(refused.exception)
    assert "Verdict: " in done.output
    assert "future acts" in done.output
    assert "later than the first moment of the test" in " ".join(done.output.split())
    rows = json.loads((run / "likeness.json").read_text())["tests"]
    assert len(rows) == 8
    assert (run / "likeness.md").read_text().count("\n| ") == len(rows)
    graph = influent.InfluenceGraph.load(run)
    assert len(graph) <= world.edges.num_rows
    assert len(graph.note.artefacts) == 1
    assert (tmp_path / "g.graphml").read_text().startswith("<?xml")
    # Of ties that are read off the log nothing is tested, and no table of an earlier graph stays.
    assert invoke(app, ["graph", str(run)]).exit_code == 0
    assert not (run / "likeness.json").exists()
    assert invoke(app, again).exit_code == 0
    assert influent.InfluenceGraph.load(run).note.split == ["action", "period_start_us"]
    assert pyarrow.parquet.read_table(run / "leaders.parquet").column_names[:4] == [
        "rank",
        "user_id",
        "action",
        "period_start_us",
    ]


def test_who_did_nothing_before_the_fit_is_put_down_to_others_no_more_than_chance_says():
    whole = sequences_of(
        [("ann", f"a{day % 7}", 24 * day) for day in range(30)]
        + [("bob", f"a{day % 7}", 24 * day + 1 + 11 * (day % 2)) for day in range(30)]
        + [("zoe", "a0", 24 * 35), ("ann", "a1", 24 * 40), ("zoe", "a1", 24 * 40 + 1)]
    )
    split = influent.split_at(whole, int(1_704_067_200e6 + 30 * 24 * HOUR_S * 1e6))
    ties = influent.build_ties(edges_of(("ann", "bob"), ("ann", "zoe")), whole)
    model = influent.Social(ties).fit(split.train)
    assert model.parameters.rate_U[whole.vocab.users.to_idx(["zoe"])[0]] == 0
    ledger = influent.explain_causes(model, whole)
    by_own = [row["credit"] for row in ledger.table.to_pylist() if row["user_id"] == "zoe" and row["source"] == "bias"]
    # Nobody acted on a0 in the week before: it is popularity or its burst. After ann, her own rate still has a part.
    assert by_own[0] > 0.5
    assert by_own[1] > 0.01


def test_users_and_items_that_came_after_the_fit_have_no_ties_and_are_left_out(fitted):
    model, log = fitted
    rows = {"user_id": ["zoe", "ann", "bob", "bob"], "item_id": ["a0", "a0", "a0", "new"]}
    rows["timestamp"] = [1_704_067_200 + HOUR_S * hour for hour in (0, 1, 2, 3)]
    later = influent.build_sequences(influent.clean(influent.read_events(pa.table(rows))), vocab=log.vocab)
    # With three users known, zoe as a source of ann's would be counted like ann as one of bob's.
    assert (model.ties.find(np.array([3, 0, 0]), np.array([0, 1, 3])) == [-1, 0, -1]).all()
    ledger = influent.explain_causes(model, later)
    assert len(ledger) == 3
    social = [(row["source_user_id"], row["user_id"]) for row in ledger.table.to_pylist() if row["source"] == "social"]
    assert social == [("ann", "bob")]


def test_scenes_of_another_log_are_refused_and_an_event_without_one_is_in_none():
    log = pa.table(
        {
            "user_id": [who for _ in range(20) for who in ("ann", "bob")],
            "item_id": [f"a{day % 7}" for day in range(20) for _ in range(2)],
            "timestamp": [1_704_067_200 + HOUR_S * (24 * day + late) for day in range(20) for late in range(2)],
            "scene": [None if day < 5 else "feed" if day % 2 else "mail" for day in range(20) for _ in range(2)],
        }
    )

    def read(table, **more):
        return influent.build_sequences(influent.clean(influent.read_events(table)), **more)

    train = read(log)
    model = influent.Social(influent.build_ties(edges_of(("ann", "bob")), train)).fit(train)
    assert model.n_scenes == 3
    feed, mail, neither = model.parameters.exposure_LS[0]
    # Ann acted 8, 7 and 5 times. Her latest act is an hour before the log's end, so not all of it has been felt.
    assert 7 < feed < 8
    assert (mail, neither) == pytest.approx((7, 5), abs=0.01)
    renamed = log.set_column(
        3, "scene", pa.array([None if one is None else f"z{one}" for one in log["scene"].to_pylist()])
    )
    with pytest.raises(SchemaError, match="scene"):
        influent.explain_causes(model, read(renamed))
    with pytest.raises(SchemaError, match="'scene'"):
        influent.explain_causes(model, read(log.drop_columns(["scene"])))


def test_one_bin_of_gaps_is_refused_since_it_would_end_after_a_second():
    with pytest.raises(ConfigError, match="n_bins"):
        SocialConfig(n_bins=1)


def test_a_tie_that_has_always_been_has_no_time_beside_ties_with_one():
    log = sequences_of([("ann", "tea", 0), ("bob", "tea", 1), ("cat", "tea", 2)])
    table = pa.table({"source_user_id": ["ann", "bob"], "target_user_id": ["bob", "cat"], "time_us": [5, None]})
    ties = influent.build_ties(influent.read_edges(table, time="time_us", time_unit="us"), log)
    assert ties.to_table().column("time_us").to_pylist() == [5, None]
