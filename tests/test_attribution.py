"""Outcomes are put down to channels by credits and by rules: each adds up to the outcomes, and removal is exact."""

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

import influent
from influent import Journeys, attribute, journeys
from influent.data.questions import LabelConfig
from influent.influence.attribution import RULES
from influent.show import show_attribution

DAY_US = 86_400_000_000


def journeys_of(paths, credit=1.0):
    """Journeys from ("AB", ended in the outcome), a letter a touch, one day apart; each of a user of its own."""
    channels = tuple(sorted(set("".join(path for path, _ in paths))))
    lengths = np.array([len(path) for path, _ in paths])
    channel = np.array([channels.index(letter) for path, _ in paths for letter in path])
    since = [DAY_US * (len(path) - place) for path, _ in paths for place in range(len(path))]
    return Journeys(
        outcome="buy",
        by="action",
        channels=channels,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        channel=channel,
        credit=np.full(len(channel), credit),
        since_us=np.array(since, float),
        is_outcome=np.array([ended for _, ended in paths]),
        score=credit * lengths.astype(float),
        user=np.arange(len(paths)),
        n_users=len(paths),
        is_logit=True,
    )


def outcomes(found, method):
    return {channel: row["outcomes"] for channel, row in found.of(method).items()}


def test_the_rules_do_what_their_names_say():
    found = attribute(journeys_of([("ABBC", True), ("AB", False), ("C", True)]), half_life="1d")
    assert outcomes(found, "first_touch") == {"A": 1, "B": 0, "C": 1}
    assert outcomes(found, "last_touch") == {"A": 0, "B": 0, "C": 2}
    assert outcomes(found, "linear") == {"A": 1 / 4, "B": 2 / 4, "C": 1 / 4 + 1}
    assert outcomes(found, "position") == pytest.approx({"A": 0.4, "B": 0.2, "C": 0.4 + 1})
    # Halved a day back: 1/8, 1/4, 1/2, 1, out of 15/8.
    assert outcomes(found, "time_decay") == pytest.approx({"A": 1 / 15, "B": 6 / 15, "C": 8 / 15 + 1})


def test_position_of_two_touches_is_half_each():
    found = attribute(journeys_of([("AB", True), ("B", True)]))
    assert outcomes(found, "position") == pytest.approx({"A": 0.5, "B": 1.5})


def test_the_markov_removal_effect_is_that_of_the_known_example():
    # Start leads to A twice in three times, to B once; A to B or nowhere; B to C; C to the outcome or nowhere, half
    # each: 1/3 in all. Without A a sixth is left, without B or C nothing: 1/2, 1 and 1 out of 5/2.
    found = attribute(journeys_of([("ABC", True), ("A", False), ("BC", False)]))
    assert outcomes(found, "markov") == pytest.approx({"A": 0.5 / 2.5, "B": 1 / 2.5, "C": 1 / 2.5})


def test_a_repeat_is_a_step_from_a_state_to_itself():
    # From A: to A once in three, to the outcome once, nowhere once; so the outcome comes in half of all cases.
    once = attribute(journeys_of([("AA", True), ("A", False), ("B", False), ("B", True)]))
    assert outcomes(once, "markov") == pytest.approx({"A": 1.0, "B": 1.0})


@pytest.fixture(scope="module")
def planted():
    return influent.simulate_ledger(influent.PlantedCredits(negative=0.2))


def test_every_method_adds_up_to_the_outcomes(planted):
    found = attribute(journeys(*planted, outcome="purchase"))
    assert found.methods == ["ledger", *RULES]
    for method in found.methods:
        rows = found.of(method).values()
        assert sum(row["outcomes"] for row in rows) == pytest.approx(found.about["n_outcomes"], abs=1e-9)
        assert all(row["low"] <= row["outcomes"] <= row["high"] for row in rows)
    # Purchases were planted four times as strong as views and as lasting longer, and are a tenth of all events.
    assert found.of("ledger")["purchase"]["low"] > found.of("linear")["purchase"]["high"]


def test_an_outcome_is_what_came_next(planted):
    ledger, sequences = planted
    found = journeys(ledger, sequences, outcome=["purchase"])
    next_action = sequences.vocab.actions.to_ids(sequences.action_idx).to_pylist()
    is_first = np.zeros(len(sequences), bool)
    is_first[sequences.offsets[:-1]] = True
    expected = sum(action == "purchase" for action, first in zip(next_action, is_first, strict=True) if not first)
    assert found.n_outcomes == expected
    assert len(found) == len(ledger)
    first = found.offsets[:-1]
    assert (found.since_us[first] >= found.since_us[found.offsets[1:] - 1]).all()


def test_negative_credits_are_shown_and_not_cut_off():
    some = journeys_of([("AB", True), ("AAB", True), ("B", False)])
    credit = np.where(some.channel == 0, -1.0, 3.0)
    found = attribute(replace(some, credit=credit))
    # A has -3, B has 6 of a sum of 3, for two outcomes.
    assert outcomes(found, "ledger") == pytest.approx({"A": -2.0, "B": 4.0})
    assert found.of("ledger")["A"]["credit"] == -3.0
    of_b = {"channel": "B", "most": "ledger", "fewest": "first_touch", "difference": pytest.approx(4.0)}
    assert of_b in found.disagreements()


def test_credits_that_add_up_to_nothing_are_not_scaled():
    found = attribute(journeys_of([("AB", True), ("B", True)], credit=-1.0))
    assert outcomes(found, "ledger") == {"A": None, "B": None}
    assert found.of("ledger")["B"]["credit"] == -2.0


def test_paths_keep_order_and_repeats():
    paths = journeys_of([("ABB", True), ("ABB", False), ("CAABB", True), ("B", True)]).paths(length=3).to_pylist()
    by_path = {("".join(row["path"]), row["is_whole"]): row for row in paths}
    assert by_path["ABB", True]["n_journeys"] == 2
    assert by_path["ABB", True]["outcome_rate"] == 0.5
    assert by_path["ABB", False]["n_outcomes"] == 1
    assert by_path["B", True]["n_outcomes"] == 1


def test_lags_are_from_the_first_and_last_touch_to_the_outcome():
    rows = journeys_of([("AB", True), ("B", False), ("B", True)]).lags().to_pylist()
    assert rows == [
        {"touch": "first", "channel": "A", "within": "to 3 days", "n_outcomes": 1},
        {"touch": "first", "channel": "B", "within": "to 1 day", "n_outcomes": 1},
        {"touch": "last", "channel": "B", "within": "to 1 day", "n_outcomes": 2},
    ]


@pytest.fixture(scope="module")
def answered():
    """An additive model that was asked whether a purchase comes within four days, and its ledger."""
    _, sequences = influent.simulate_ledger(influent.PlantedCredits(n_users=60))
    config = LabelConfig(ask="will_do", horizon="4d", actions=("purchase",), n_cutoffs=4)
    labels = config.split(sequences)
    settings = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=50, dropout=0.0)
    train = influent.TrainConfig(epochs=5)
    model = influent.Predictor(task="classification", model=settings, train=train).fit(labels.train, labels.validation)
    return model, labels.test, influent.explain(model, labels.test)


def test_what_if_is_what_the_model_says_with_the_events_masked(answered):
    model, labels, ledger = answered
    sequences = labels.moments.sequences
    found = attribute(journeys(ledger, sequences, outcome=labels))
    for row in found.what_if.to_pylist():
        idx = sequences.vocab.actions.to_idx([row["channel"]])[0]
        masked = sequences.masked(np.flatnonzero(sequences.action_idx == idx))
        without = replace(labels, moments=replace(labels.moments, sequences=masked))
        before, after = model.predict(labels), model.predict(without)
        assert row["outcome_change"] == pytest.approx((after - before).sum(), abs=1e-4)
        change = model.answer_scores(without) - model.answer_scores(labels)
        assert row["score_change"] == pytest.approx(change.sum(), abs=1e-4)
        assert row["expected_outcomes"] == pytest.approx(before.sum(), abs=1e-4)
        assert row["outcome_change_low"] <= row["outcome_change"] <= row["outcome_change_high"]


def test_labels_of_one_are_the_outcomes(answered):
    _, labels, ledger = answered
    found = journeys(ledger, labels.moments.sequences, outcome=labels)
    assert found.n_outcomes == int(labels.label.sum())
    assert sum(outcomes(attribute(found), "linear").values()) == pytest.approx(labels.label.sum())


def test_other_labels_than_those_explained_are_refused(answered):
    _, labels, ledger = answered
    sequences = labels.moments.sequences
    churn = replace(ledger, note=replace(ledger.note, head=f"classification: no {labels.name}"))
    turned_round = labels.take(np.arange(len(labels))[::-1])
    for of_ledger, given in ((churn, labels), (ledger, turned_round)):
        with pytest.raises(influent.DataError, match="or of other moments. Give the labels that were explained"):
            journeys(of_ledger, sequences, outcome=given)


def test_the_time_of_the_next_event_has_no_outcome(planted):
    ledger, sequences = planted
    of_time = replace(ledger, note=replace(ledger.note, head="time"))
    with pytest.raises(influent.ConfigError, match="has no outcome. Explain a ranking or labels"):
        journeys(of_time, sequences, outcome="purchase")


def test_a_seed_below_zero_is_refused():
    with pytest.raises(influent.ConfigError, match=r"'seed' parameter must be an int in the range \[0, inf\). Got -1"):
        attribute(journeys_of([("AB", True), ("B", True)]), seed=-1)


def test_what_was_found_is_written(planted, tmp_path):
    attribute(journeys(*planted, outcome="purchase")).save(tmp_path)
    names = {"attribution.parquet", "what_if.parquet", "paths.parquet", "outcome_lags.parquet", "attribution.json"}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.parametrize("is_logit", [True, False])
def test_what_is_shown_has_names_in_words_and_no_empty_column(is_logit):
    found = attribute(replace(journeys_of([("AB", True), ("AB", True), ("B", False)]), is_logit=is_logit))
    out = Console(record=True, width=120, file=io.StringIO())
    of_ledger = {"exactness": "closes", "statement": [], "shares": {"event": 0.75, "social": 0.25}}
    show_attribution(out, replace(found, about=found.about | of_ledger))
    shown = out.export_text()
    assert "touch puts 2.0 more down to it than" in shown
    assert "_touch" not in shown
    assert "not exactly what its removal takes away" in shown
    assert "Events of other people carry 25% of the size of scores" in shown
    assert ("change of expected outcomes" in shown) is is_logit


def test_an_order_only_log_has_no_time_decay_and_no_lags():
    found = journeys_of([("AB", True), ("B", True)])
    found = attribute(replace(found, since_us=np.full(3, np.nan)))
    assert outcomes(found, "time_decay") == {"A": None, "B": None}
    assert found.lags.num_rows == 0
    assert outcomes(found, "linear") == {"A": 0.5, "B": 1.5}


def test_what_is_asked_wrongly_is_said(planted, answered):
    ledger, sequences = planted
    with pytest.raises(influent.UnknownIdError, match="action 'purchas' is not among the 3 known. Did you mean"):
        journeys(ledger, sequences, outcome="purchas")
    with pytest.raises(influent.ConfigError, match="no factor 'scenes'"):
        journeys(ledger, sequences, outcome="purchase", by="scenes")
    bought = pa.compute.equal(ledger.predictions.column("prediction_id"), 0)
    alone = replace(ledger, predictions=ledger.predictions.filter(bought), table=ledger.of(0))
    others = {"view", "cart", "purchase"} - {sequences.vocab.actions.ids[int(sequences.action_idx[1])].as_py()}
    with pytest.raises(influent.DataError, match=r"never happens: what came next .* is 1 \w+\. Predict it"):
        journeys(alone, sequences, outcome=sorted(others))
    with pytest.raises(influent.DataError, match="no event owns a credit"):
        journeys(replace(ledger, table=ledger.table.slice(0, 0)), sequences, outcome="purchase")
    _, labels, of_labels = answered
    with pytest.raises(influent.ConfigError, match="whose outcome is in its labels and not in what comes next"):
        journeys(of_labels, labels.moments.sequences, outcome="purchase")
    with pytest.raises(influent.DataError, match="Give the labels that were explained"):
        journeys(ledger, sequences, outcome=labels)
    nobody = replace(labels, label=np.zeros(len(labels)))
    with pytest.raises(influent.DataError, match="never happens among the"):
        journeys(of_labels, labels.moments.sequences, outcome=nobody)
    with pytest.raises(influent.ConfigError, match=r"'length' must be an int in the range \[1, 10\]"):
        journeys(ledger, sequences, outcome="purchase").paths(length=0)


def test_why_a_column_is_empty_is_said_and_margins_are_called_so():
    found = journeys_of([("AB", True), ("B", True)])
    found = attribute(replace(found, since_us=np.full(3, np.nan), credit=np.full(3, -1.0)))
    out = Console(record=True, width=200, file=io.StringIO())
    of_ledger = {"exactness": "exact", "statement": [], "shares": {"event": 1.0}, "contrast": 3}
    show_attribution(out, replace(found, about=found.about | of_ledger))
    shown = out.export_text()
    assert "The ledger's is empty: its credits add up to 0 or less" in shown
    assert "That of time decay is empty: the log has no times." in shown
    assert "change of all margins over rivals" in shown
