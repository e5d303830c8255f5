"""The influence graph split, written, read and led: edges are sums of ledger rows, whichever way they are cut."""

from collections import defaultdict
from dataclasses import replace

import networkx as nx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import influent
from influent import schema
from influent.data.clock import DAY_US
from influent.data.vocab import Ids
from influent.errors import ConfigError, DataError, SchemaError, UnknownIdError
from influent.influence.centrality import core_number, page_rank
from influent.influence.graph import check_export
from influent.influence.ledger import LedgerNote

NEW_YEAR_S = 1_704_067_200
"""2024-01-01, a Monday."""


def ledger_of(*rows):
    """A ledger of causes from (prediction, user, day, source user or None, action of the source's event, credit)."""
    prediction, user, day, source, action, credit = (list(column) for column in zip(*rows, strict=True))
    time_us = [NEW_YEAR_S * 1_000_000 + round(one * DAY_US) for one in day]
    none = [one is None for one in source]
    columns = {
        "prediction_id": prediction,
        "user_id": user,
        "time_us": time_us,
        "item_id": ["tea" if one % 2 else "pot" for one in prediction],
        "source": ["bias" if one else "social" for one in none],
        "source_user_id": source,
        "source_event_id": [None if one else place for place, one in enumerate(none)],
        "source_action": [None if one else did for one, did in zip(none, action, strict=True)],
        "gap_us": [None if one else 1 for one in none],
        "credit": credit,
    }
    fields = schema.ledger_schema(pa.string(), pa.string())
    empty = [None] * len(rows)
    table = pa.table({field.name: pa.array(columns.get(field.name, empty), field.type) for field in fields})
    whose = {one: (user[place], time_us[place]) for place, one in enumerate(prediction)}
    users, times = zip(*whose.values(), strict=True)
    scores = {"prediction_id": list(whose), "user_id": users, "time_us": times, "score": [1.0] * len(whose)}
    note = LedgerNote(model="social", fitted_on="", head="cause", contrast=None, top=None)
    return influent.Ledger(table=table, predictions=pa.table(scores), note=note)


def edges_of(graph, *split):
    names = ("source_user_id", "target_user_id", *split)
    return {tuple(row[name] for name in names): row["influence"] for row in graph.edges.to_pylist()}


TWO_WEEKS = (
    (0, "bob", 1, "ann", "view", 0.5),
    (1, "bob", 2, "ann", "buy", 0.25),
    (2, "bob", 8, "ann", "view", 1.0),
    (3, "cat", 9, "bob", "view", 0.5),
    (3, "cat", 9, None, None, 0.5),
)


def test_edges_split_by_what_was_done():
    graph = influent.influence_graph(ledger_of(*TWO_WEEKS), by="action")
    assert edges_of(graph, "action") == {
        ("ann", "bob", "view"): 0.5 + 1.0,
        ("ann", "bob", "buy"): 0.25,
        ("bob", "cat", "view"): 0.5,
    }


def test_edges_split_by_week_of_the_answer():
    graph = influent.influence_graph(ledger_of(*TWO_WEEKS), period="7d")
    first, second = NEW_YEAR_S * 1_000_000, NEW_YEAR_S * 1_000_000 + 7 * DAY_US
    assert edges_of(graph, "period_start_us") == {
        ("ann", "bob", first): 0.5 + 0.25,
        ("ann", "bob", second): 1.0,
        ("bob", "cat", second): 0.5,
    }


def test_edges_can_be_split_both_ways_at_once_and_the_graph_has_several_of_a_pair():
    graph = influent.influence_graph(ledger_of(*TWO_WEEKS), by="action", period="7d")
    assert len(graph) == 2 + 1 + 1
    assert graph.to_networkx().number_of_edges("ann", "bob") == 3
    with pytest.raises(ConfigError, match="split by action and period_start_us"):
        graph.probabilities()


credits = st.lists(
    st.tuples(
        st.integers(0, 8),
        st.sampled_from(["ann", "bob", "cat"]),
        st.sampled_from(["view", "buy"]),
        st.floats(-2, 2, allow_subnormal=False),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=50, deadline=None)
@given(credits, st.sampled_from(["action", "gap", "item_id"]), st.sampled_from([None, "1d", "2d"]))
def test_the_edges_of_a_pair_add_up_to_the_one_that_it_has_unsplit_and_all_are_sums_of_rows(drawn, by, period):
    # Prediction n is one of user n's three targets, on day n.
    rows = [(n, "xyz"[n % 3], n, source, action, credit) for n, source, action, credit in sorted(drawn)]
    ledger, of_rows, joined = ledger_of(*rows), defaultdict(float), defaultdict(float)
    for _, user, _, source, _, credit in rows:
        of_rows[source, user] += credit
    whole = influent.influence_graph(ledger)
    split = influent.influence_graph(ledger, by=by, period=period)
    for graph in (whole, split):
        total = sum(graph.edges.column("influence").to_pylist()) + graph.note.left_out
        assert total == pytest.approx(sum(of_rows.values()), abs=1e-9)
    if split.note.n_left_out == 0:
        for row in split.edges.to_pylist():
            joined[row["source_user_id"], row["target_user_id"]] += row["influence"]
        assert dict(joined) == pytest.approx(dict(of_rows), abs=1e-9)


def shop(n_days=20):
    """Ann looks at a tea in the feed and at a pot in the shop; bob does the same an hour later."""
    rows = []
    for day in range(n_days):
        for user, hour in (("ann", 0), ("bob", 1)):
            rows.append((user, f"tea{day % 4}", "feed", 24 * day + hour))
            rows.append((user, f"pot{day % 3}", "shop", 24 * day + hour + 8))
    user, item, scene, hour = (list(column) for column in zip(*rows, strict=True))
    time = [NEW_YEAR_S + 3600 * one for one in hour]
    log = pa.table({"user_id": user, "item_id": item, "scene": scene, "time": time})
    items = pa.table({"item_id": sorted(set(item)), "category": [one[:3] for one in sorted(set(item))]})
    events = influent.clean(influent.read_events(log))
    return influent.build_sequences(events, items=influent.read_items(items))


@pytest.fixture(scope="module")
def explained():
    log = shop()
    ties = influent.build_ties(
        influent.read_edges(pa.table({"source_user_id": ["ann"], "target_user_id": ["bob"]})), log
    )
    return influent.explain_causes(influent.Social(ties).fit(log), log), log, ties


@pytest.mark.parametrize(("by", "levels"), [("scene", {"feed", "shop"}), ("category", {"tea", "pot"})])
def test_scene_and_category_of_the_items_split_edges_of_a_fitted_log(explained, by, levels):
    ledger, log, _ = explained
    whole, split = influent.influence_graph(ledger), influent.influence_graph(ledger, by=by, sequences=log)
    assert set(split.edges.column(by).to_pylist()) == levels
    assert sum(edges_of(split, by).values()) == pytest.approx(edges_of(whole)["ann", "bob"], abs=1e-9)
    assert split.edges.column("n_predictions").to_pylist() == [20, 20]


def test_what_edges_cannot_be_split_by_is_said(explained):
    ledger, log, _ = explained
    with pytest.raises(ConfigError, match=r"cannot be split by 'scen'. Did you mean 'scene'"):
        influent.influence_graph(ledger, by="scen", sequences=log)
    with pytest.raises(ConfigError, match="Give sequences for more"):
        influent.influence_graph(ledger, by="scene")
    with pytest.raises(ConfigError, match="cannot be split by 'lags'.*There are: item_id, action"):
        influent.influence_graph(ledger, by="lags", sequences=log)
    with pytest.raises(ConfigError, match="cannot be split by 'low'"):
        influent.influence_graph(ledger, by="low")
    with pytest.raises(ConfigError, match="no span of time"):
        influent.influence_graph(ledger, period="month")


@pytest.mark.parametrize(("suffix", "read"), [("graphml", nx.read_graphml), ("gexf", nx.read_gexf)])
@pytest.mark.parametrize("by", [None, "action"])
def test_what_is_written_for_other_tools_is_read_back_whole(suffix, read, by, tmp_path):
    graph = influent.influence_graph(ledger_of(*TWO_WEEKS, (4, "cat", 9, "bob", None, 0.5)), by=by)
    path = tmp_path / f"who.{suffix}"
    graph.export(path)
    again = read(path)
    assert set(again.nodes) == {"ann", "bob", "cat"}
    assert again.number_of_edges() == len(graph)
    assert sum(data["influence"] for _, _, data in again.edges(data=True)) == 0.5 + 0.25 + 1.0 + 0.5 + 0.5


@pytest.mark.parametrize("name", ["key", "id", "type", "weight", "label", "start"])
@pytest.mark.parametrize(("suffix", "read"), [("graphml", nx.read_graphml), ("gexf", nx.read_gexf)])
def test_a_column_whose_name_means_something_to_a_format_costs_no_edge(name, suffix, read, tmp_path):
    graph = influent.influence_graph(ledger_of(*TWO_WEEKS), by="action")
    names = [name if column == "action" else column for column in graph.edges.column_names]
    graph = replace(graph, edges=graph.edges.rename_columns(names), note=replace(graph.note, by=name))
    assert sorted(data[name] for _, _, data in graph.to_networkx().edges(data=True)) == ["buy", "view", "view"]
    graph.export(tmp_path / f"who.{suffix}")
    again = read(tmp_path / f"who.{suffix}")
    found = [(data["influence"], data[f"event_{name}"], data["id"]) for _, _, data in again.edges(data=True)]
    assert sorted(found) == [(0.25, "buy", "1"), (0.5, "view", "2"), (1.5, "view", "0")]


@pytest.mark.parametrize(("suffix", "read"), [("graphml", nx.read_graphml), ("gexf", nx.read_gexf)])
def test_ids_with_characters_that_xml_forbids_are_written_as_escapes(suffix, read, tmp_path):
    graph = influent.influence_graph(ledger_of((0, "bob\x1b", 1, "ann\x01", "view", 0.5)))
    graph.export(tmp_path / f"who.{suffix}")
    assert set(read(tmp_path / f"who.{suffix}").nodes) == {r"bob\x1b", r"ann\x01"}


def test_a_graph_is_written_in_two_formats_and_no_other(tmp_path):
    with pytest.raises(ConfigError, match=r"written as .graphml or .gexf"):
        influent.influence_graph(ledger_of(*TWO_WEEKS)).export(tmp_path / "who.dot")


def test_edges_of_a_directed_networkx_graph_are_ties_as_they_point():
    graph = nx.DiGraph([("ann", "bob"), ("bob", "bob")])
    assert influent.read_edges(graph).select([0, 1]).to_pylist() == [
        {"source_user_id": "ann", "target_user_id": "bob"},
        {"source_user_id": "bob", "target_user_id": "bob"},
    ]


def test_edges_of_an_undirected_networkx_graph_go_both_ways_and_keep_their_time():
    graph = nx.Graph()
    graph.add_edge(1, 2, since="1970-01-02", kind="friend")
    graph.add_edge(2, 3)
    edges = influent.read_edges(graph, time="since")
    assert edges.to_pylist() == [
        {"source_user_id": a, "target_user_id": b, "kind": kind, "time_us": time}
        for a, b, kind, time in [
            (1, 2, "friend", DAY_US),
            (2, 3, None, None),
            (2, 1, "friend", DAY_US),
            (3, 2, None, None),
        ]
    ]


def test_a_networkx_graph_that_ties_nobody_is_refused_in_words():
    with pytest.raises(DataError, match="the graph has no edges"):
        influent.read_edges(nx.Graph())
    with pytest.raises(SchemaError, match="no column 'since'"):
        influent.read_edges(nx.Graph([(1, 2)]), time="since")
    mixed = nx.DiGraph()
    mixed.add_edge(1, 2, since=5)
    mixed.add_edge(2, 1, since="yesterday")
    with pytest.raises(SchemaError, match="since of the graph's edges is of different types"):
        influent.read_edges(mixed, time="since")


def test_the_graph_that_goes_out_comes_in_as_ties():
    log = shop()
    graph = nx.DiGraph([("ann", "bob")])
    assert influent.build_ties(influent.read_edges(graph), log).to_table().num_rows == 1


def ties_of(*pairs):
    """Given ties among all who are named."""
    users = sorted({user for pair in pairs for user in pair})
    places = np.array([[users.index(user) for user in pair] for pair in pairs])
    places = places[np.lexsort((places[:, 0], places[:, 1]))]
    return influent.data.ties.Ties(users=Ids("user_id", pa.array(users)), source=places[:, 0], target=places[:, 1])


def test_a_leader_has_what_others_did_by_follower_and_event_and_how_far_it_is_spread():
    rows = [(n, "bob", n, "ann", "view", 1.0) for n in range(5)] + [(5, "cat", 5, "ann", "view", 1.0)]
    rows += [(6, "ann", 6, "cat", "view", 0.25), (6, "ann", 6, None, None, 0.75)]
    found = influent.leaders(ledger_of(*rows), ties_of(("ann", "bob"), ("ann", "cat"), ("cat", "ann")))
    ann, cat = found.table.to_pylist()
    assert (ann["rank"], ann["user_id"], ann["exerted"], ann["followers"]) == (1, "ann", 6.0, 2)
    assert ann["per_follower"] == 6 / 2
    assert ann["per_event"] == 6 / 1
    assert ann["reach"] == pytest.approx(6**2 / (5**2 + 1**2))
    assert ann["openness"] == 0.25
    assert (cat["rank"], cat["exerted"], cat["openness"]) == (2, 0.25, 1.0)


def test_where_predictions_are_explained_the_sequences_say_how_many_events_there_are(explained):
    causes, log, ties = explained
    ledger = replace(causes, note=replace(causes.note, head="ranking"))
    n_ann = 40
    for sequences, n_events in ((None, None), (log, n_ann)):
        [lead] = influent.leaders(ledger, ties, sequences=sequences).table.to_pylist()
        people = influent.influence_graph(ledger, sequences=sequences).people.to_pylist()
        [ann] = [row for row in people if row["user_id"] == "ann"]
        assert ann["n_events"] == n_events
        expected = None if n_events is None else pytest.approx(ann["exerted"] / n_ann)
        assert lead["per_event"] == expected
        assert ann["per_event"] == expected


def test_levels_with_no_more_people_than_the_top_say_nothing_of_how_sure_it_is():
    # In each of two scenes ann leads bob by a little; on the first day there is nobody but ann.
    rows = [(n, "eve", 1 + n % 2, ("ann", "ann", "bob")[n % 3], "view", 1.0) for n in range(60)]
    rows += [(60, "eve", 0, "ann", "view", 1.0)]
    ties = ties_of(("ann", "eve"), ("bob", "eve"))
    found = influent.leaders(ledger_of(*rows), ties, k=1, period="1d")
    assert (found.about["n_levels"], found.about["of_levels"]) == (2, 3)
    assert found.about["overlap"] < 1
    assert "in the mean of the 2 of 3 levels that have more people" in found.sentences()[0]
    everybody = influent.leaders(ledger_of(*rows), ties, k=2)
    assert everybody.about["overlap"] is None
    assert everybody.sentences()[0].startswith("There are never more than 2 people to rank")


def test_leaders_have_the_numbers_of_the_graph(explained):
    ledger, _, ties = explained
    [ann] = influent.leaders(ledger, ties).table.to_pylist()
    people = {row["user_id"]: row for row in influent.influence_graph(ledger).people.to_pylist()}
    for name in ("exerted", "low", "high", "per_event", "reach", "openness"):
        assert ann[name] == pytest.approx(people["ann"][name], abs=1e-9)


def test_a_rank_that_many_predictions_carry_is_surer_than_one_that_hangs_on_a_single_one():
    # Ann has 100 answers, bob 60; cat has one that counts for 70.
    rows = [(n, "eve", n, "ann", "view", 1.0) for n in range(100)]
    rows += [(100 + n, "eve", n, "bob", "view", 1.0) for n in range(60)] + [(160, "eve", 9, "cat", "view", 70.0)]
    found = influent.leaders(ledger_of(*rows), ties_of(("ann", "eve"), ("bob", "eve"), ("cat", "eve")), k=1)
    ann, cat, bob = found.table.to_pylist()
    assert [row["user_id"] for row in (ann, cat, bob)] == ["ann", "cat", "bob"]
    # Cat counts for 70 n in a resample, n Poisson with the mean 1: ahead of ann with n of 2 and more, 26 %.
    assert cat["in_top"] == pytest.approx(1 - 2 / np.e, abs=0.1)
    assert ann["in_top"] + cat["in_top"] + bob["in_top"] == 1
    assert (cat["rank_low"], cat["rank_high"]) == (1, 3)
    assert found.about["overlap"] == ann["in_top"]


def test_ranks_are_those_of_each_scene(explained):
    ledger, log, ties = explained
    rows = influent.leaders(ledger, ties, by="scene", sequences=log).table.to_pylist()
    assert [(row["scene"], row["rank"], row["user_id"]) for row in rows] == [("feed", 1, "ann"), ("shop", 1, "ann")]
    [whole] = influent.leaders(ledger, ties).table.to_pylist()
    assert sum(row["exerted"] for row in rows) == pytest.approx(whole["exerted"], abs=1e-9)


def test_leaders_are_the_same_with_the_same_seed_and_ties_of_others_are_refused(explained):
    ledger, _, ties = explained
    assert influent.leaders(ledger, ties).table.equals(influent.leaders(ledger, ties).table)
    with pytest.raises(UnknownIdError, match="'ann' is not among"):
        influent.leaders(ledger, ties_of(("eve", "sue")))


def test_a_hub_leads_by_influence_and_by_every_reference():
    pairs = [("hub", f"u{n}") for n in range(200)]
    rows = [(n, f"u{n}", 0, "hub", "view", 1.0) for n in range(200)]
    [hub] = influent.leaders(ledger_of(*rows), ties_of(*pairs)).table.to_pylist()
    assert (hub["exerted"], hub["followers"], hub["per_follower"], hub["core"]) == (200, 200, 1, 1)
    assert hub["reach"] == pytest.approx(200)
    # Whoever is with one of the 200 goes on to the hub, and from the hub anywhere.
    assert hub["page_rank"] > 0.45


arcs = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40, unique=True)


@settings(max_examples=100, deadline=None)
@given(arcs)
def test_page_rank_and_core_are_those_of_networkx(arcs):
    source, target = np.array(arcs, np.int64).reshape(-1, 2).T
    graph = nx.DiGraph()
    graph.add_nodes_from(range(8))
    graph.add_edges_from(zip(target.tolist(), source.tolist(), strict=True))
    want = nx.pagerank(graph, tol=1e-12, max_iter=1000)
    assert dict(enumerate(page_rank(8, source, target))) == pytest.approx(want, abs=1e-8)
    simple = graph.to_undirected()
    simple.remove_edges_from(list(nx.selfloop_edges(simple)))
    assert dict(enumerate(core_number(8, source, target).tolist())) == nx.core_number(simple)


def log_of(*rows):
    """Sequences of (user, item, second)."""
    user, item, second = (list(column) for column in zip(*rows, strict=True))
    table = pa.table({"user_id": user, "item_id": item, "time": [NEW_YEAR_S + one for one in second]})
    return influent.build_sequences(influent.clean(influent.read_events(table)))


def fitted_graph(log, *pairs):
    ties = influent.build_ties(influent.read_edges(nx.DiGraph(pairs)), log)
    return influent.influence_graph(influent.explain_causes(influent.Social(ties).fit(log), log))


def test_people_without_edges_receive_and_exert_nothing_and_are_still_there():
    rows = [(user, f"i{n}", 3600 * n + late) for n in range(10) for late, user in enumerate(["ann", "bob", "eve"])]
    people = {row["user_id"]: row for row in fitted_graph(log_of(*rows), ("ann", "bob")).people.to_pylist()}
    assert people["bob"]["received"] > 0
    assert (people["eve"]["received"], people["eve"]["exerted"], people["eve"]["n_events"]) == (0, 0, 10)


def test_along_given_ties_too_two_acts_in_one_second_have_no_direction():
    rows = [(user, f"i{n}", 3600 * n) for n in range(10) for user in ("ann", "bob")]
    with pytest.raises(DataError, match="there is no graph"):
        fitted_graph(log_of(*rows), ("ann", "bob"), ("bob", "ann"))


def test_a_hub_that_five_hundred_follow_moves_the_ten_who_act_after_it():
    # The hub acts every hour, and ten of its followers take turns to do the same a minute later.
    rows = [("hub", f"i{n}", 3600 * n) for n in range(100)]
    rows += [(f"u{n % 10}", f"i{n}", 3600 * n + 60) for n in range(100)]
    rows += [(f"u{user}", "other", 3600 * user) for user in range(10, 500)]
    graph = fitted_graph(log_of(*rows), *(("hub", f"u{user}") for user in range(500)))
    assert {row["target_user_id"] for row in graph.edges.to_pylist()} == {f"u{user}" for user in range(10)}
    assert graph.people.slice(0, 1).column("user_id").to_pylist() == ["hub"]
    assert graph.people.column("reach")[0].as_py() == pytest.approx(10, rel=0.05)


def test_an_export_into_a_folder_that_is_not_there_is_refused_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        check_export(tmp_path / "nowhere" / "who.gexf")


def test_negative_edges_are_shown_and_scores_are_not_called_events():
    ledger = ledger_of(
        (0, "bob", 1, None, None, 2.0), (0, "bob", 1, "ann", "view", -1.5), (0, "bob", 1, "cat", "view", 0.5)
    )
    scores = replace(ledger, note=replace(ledger.note, head="ranking"))
    graph = influent.influence_graph(scores)
    assert graph.edges.column("influence").to_pylist() == [0.5, -1.5]
    assert "others have -1.0 of the scores of 1 predictions, along 2 edges" in graph.sentences()[0]
    assert len(influent.influence_graph(scores, min_influence=1)) == 1
    with pytest.raises(ConfigError, match="explain_causes"):
        graph.probabilities()
