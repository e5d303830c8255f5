"""Ways to credits: each is what its definition says, closes through its residual, and is refused where it cannot be."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

import influent
from influent.models.estimated import ESTIMATORS
from influent.testing import mask

TINY = influent.ModelConfig(embedding_dim=8, n_heads=2, n_layers=2, max_len=6, dropout=0.1)
SHORT = influent.TrainConfig(epochs=1, batch_size=4, device="cpu")
BACKBONES = ("additive", "feedback", "gru", "lstm", "sasrec", "hstu")
ESTIMATES = tuple(ESTIMATORS)


@pytest.fixture(scope="module")
def split():
    """14 users with 3 to 8 events over 7 items, two actions, two scenes, some values missing."""
    rng = np.random.default_rng(5)
    rows = [(user, place) for user in range(14) for place in range(3 + user % 6)]
    log = {
        "user_id": [user for user, _ in rows],
        "item_id": [f"i{rng.integers(7)}" for _ in rows],
        "action": [("view", "buy")[rng.integers(2)] for _ in rows],
        "value": [None if rng.random() < 0.3 else float(rng.normal()) for _ in rows],
        "timestamp": [1_700_000_000 + place * 86_400 + user for user, place in rows],
        "scene": [(None, "home", "shop")[rng.integers(3)] for _ in rows],
    }
    events = influent.clean(influent.read_events(pa.table(log)), drop_duplicates=False)
    return influent.split_last(influent.build_sequences(events))


@pytest.fixture(scope="module")
def fitted(split):
    """One of each backbone, with random weights larger than those that training begins with."""
    return {name: wild(split, replace(TINY, backbone=name)) for name in BACKBONES}


def wild(split, config, **settings):
    model = influent.Predictor(model=config, train=SHORT, **settings).fit(split.train, split.validation)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model._network.named_parameters():
            if "norm" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.4)
        encoder = model._network.encoder
        for table in (encoder.item_in, encoder.action_in, *encoder.category_in):
            table.weight[-1] = 0  # what is unknown stays without a vector
    return model


def credits_by_event(ledger, prediction_id=0):
    rows = ledger.of(prediction_id).to_pylist()
    return {row["source_event_id"]: row["credit"] for row in rows if row["source"] == "event"}


def the_row(ledger, source, prediction_id=0):
    return next(row["credit"] for row in ledger.of(prediction_id).to_pylist() if row["source"] == source)


def with_six_events(split):
    """The test moment of a user with a history of six events."""
    moments = split.test
    return moments.take(np.flatnonzero(moments.stop - moments.start == 6)[:1])


def value_of(model, moments, item_idx, kept):
    """What the model says of an item with only the events at these places of the history kept."""
    places = [place for place in range(moments.start[0], moments.stop[0]) if place - moments.start[0] not in kept]
    without = replace(moments, sequences=moments.sequences.masked(np.array(places, np.int64)))
    return float(model.predict(without)[0, item_idx])


@pytest.mark.parametrize("method", ESTIMATES)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_ledger_closes_whatever_the_method(name, method, fitted, split):
    if name in ("gru", "lstm") and method == "attention":
        return
    ledger = influent.explain(fitted[name], split.test, items=["i1", "i4"], method=method)
    assert ledger.largest_gap() <= 1e-4
    assert ledger.note.method == method
    assert ledger.note.exactness == "estimated"
    assert set(ledger.of(0).column("source").to_pylist()) == {"bias", "baseline", "residual", "event"}


@pytest.mark.parametrize("method", ["leave_one_out", "shapley"])
@pytest.mark.parametrize("n_samples", [4, 20])
def test_of_a_sum_over_events_leaving_out_and_shapley_find_the_exact_terms(method, n_samples, fitted, split):
    exact = influent.explain(fitted["additive"], split.test)
    settings = {"n_samples": n_samples} if method == "shapley" else {}
    estimated = influent.explain(fitted["additive"], split.test, method=method, **settings)
    for prediction_id in range(len(exact)):
        expected = credits_by_event(exact, prediction_id)
        assert credits_by_event(estimated, prediction_id) == pytest.approx(expected, abs=1e-4)
        assert the_row(estimated, "residual", prediction_id) == pytest.approx(0, abs=1e-4)


def test_counted_terms_are_the_same_under_every_method(split):
    # Without a learned part, a score is what the counts say: a sum, so that each method gives the same terms.
    model = wild(split, replace(TINY, backbone="additive"))
    with torch.no_grad():
        model._network.backbone.project.weight.zero_()
    exact = credits_by_event(influent.explain(model, split.test, items=["i2"]))
    assert max(map(abs, exact.values())) > 0.01
    for method in ESTIMATES:
        found = influent.explain(model, split.test, items=["i2"], method=method)
        assert credits_by_event(found) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("name", ["sasrec", "gru"])
def test_a_credit_by_leaving_out_is_what_masking_the_event_takes_away(name, fitted, split):
    model, moments = fitted[name], split.test.take(slice(0, 1))
    ledger = influent.explain(model, moments, items=["i3"])
    assert ledger.note.method == "leave_one_out"  # the default of a black box
    before = model.predict(moments)[0, 3]
    for row in ledger.of(0).to_pylist():
        if row["source"] == "event":
            without = replace(moments, sequences=mask(moments.sequences, int(moments.stop[0]) - row["lag"]))
            assert row["credit"] == pytest.approx(before - model.predict(without)[0, 3], abs=1e-4)


@pytest.mark.parametrize("name", ["sasrec", "gru"])
def test_with_every_order_shapley_is_the_sum_over_subsets(name, fitted, split):
    moments, n = with_six_events(split), 6
    worth = {
        kept: value_of(fitted[name], moments, 2, kept)
        for size in range(n + 1)
        for kept in itertools.combinations(range(n), size)
    }
    expected = {}
    for event in range(n):
        others = [kept for kept in worth if event not in kept]
        # An event joins a set of s others in s! (n − s − 1)! of n! orders.
        expected[int(moments.sequences.event_id[moments.start[0] + event])] = sum(
            math.factorial(len(kept)) * math.factorial(n - len(kept) - 1) / math.factorial(n)
            * (worth[tuple(sorted((*kept, event)))] - worth[kept])
            for kept in others
        )  # fmt: skip
    ledger = influent.explain(fitted[name], moments, items=["i2"], method="shapley", n_samples=math.factorial(n))
    assert credits_by_event(ledger) == pytest.approx(expected, abs=1e-5)
    events = ledger.table.filter(pc.equal(ledger.table.column("source"), "event"))
    assert set(events.column("standard_error").to_pylist()) == {0.0}


def test_drawn_orders_come_near_to_all_of_them_and_say_how_near(fitted, split):
    moments = with_six_events(split)
    every = credits_by_event(influent.explain(fitted["sasrec"], moments, method="shapley", n_samples=720))
    drawn = influent.explain(fitted["sasrec"], moments, method="shapley", n_samples=100)
    for row in drawn.of(0).to_pylist():
        if row["source"] == "event":
            assert row["standard_error"] > 0
            assert abs(row["credit"] - every[row["source_event_id"]]) < 4 * row["standard_error"]
    # The gains along an order telescope, so whatever the orders, credits add up to score − baseline.
    assert the_row(drawn, "residual") == pytest.approx(0, abs=1e-5)


def test_a_seed_draws_the_same_orders_and_another_seed_others(fitted, split):
    moments = with_six_events(split)
    one, again, other = (
        influent.explain(fitted["sasrec"], moments, method="shapley", n_samples=4, seed=seed) for seed in (1, 1, 2)
    )
    assert one.table.equals(again.table)
    assert credits_by_event(one) != credits_by_event(other)


@pytest.mark.parametrize("name", ["additive", "sasrec", "gru"])
def test_integrated_gradients_add_up_the_closer_the_more_steps(name, fitted, split):
    residuals = []
    for n_steps in (2, 16, 256):
        ledger = influent.explain(fitted[name], split.test, method="integrated_gradients", n_steps=n_steps)
        rows = ledger.table.filter(pc.equal(ledger.table.column("source"), "residual"))
        residuals.append(np.abs(rows.column("credit").to_numpy()).mean())
    assert residuals[0] > residuals[1] > residuals[2]
    assert residuals[2] < 1e-3


def test_without_gates_integrated_gradients_and_gradients_are_exact_too(split):
    # With a gate that is always half open, an event's term is linear in its vector: so is the score.
    model = wild(split, replace(TINY, backbone="additive"))
    with torch.no_grad():
        for parameter in model._network.backbone.gate.parameters():
            parameter.zero_()
    exact = credits_by_event(influent.explain(model, split.test))
    for method in ("integrated_gradients", "gradient"):
        assert credits_by_event(influent.explain(model, split.test, method=method)) == pytest.approx(exact, abs=1e-4)


def test_gradient_is_the_slope_as_the_events_are_shrunk_together(fitted, split):
    # Σ_t ⟨∂f/∂z_t, z_t⟩ is the derivative of f(α z) at α = 1; here by a difference.
    model, moments = fitted["sasrec"], split.test.take(slice(0, 1))
    credits = credits_by_event(influent.explain(model, moments, items=["i2"], method="gradient"))
    encoder = model._network.encoder
    tables = [encoder.item_in, encoder.action_in, encoder.number_in, *encoder.category_in]

    def at(scale):
        with torch.no_grad():
            for table in tables:
                table.weight.mul_(scale)
            found = float(model.predict(moments)[0, 2])
            for table in tables:
                table.weight.div_(scale)
        return found

    assert sum(credits.values()) == pytest.approx((at(1.01) - at(0.99)) / 0.02, rel=0.02, abs=0.01)


def test_attention_shares_out_what_the_history_added(fitted, split):
    ledger = influent.explain(fitted["sasrec"], split.test, items=["i1", "i2"], method="attention")
    scores = ledger.predictions.column("score").to_pylist()
    shares = []
    for prediction_id in (0, 1):
        own = the_row(ledger, "bias", prediction_id) + the_row(ledger, "baseline", prediction_id)
        added = scores[prediction_id] - own
        shares.append({event: c / added for event, c in credits_by_event(ledger, prediction_id).items()})
    assert sum(shares[0].values()) == pytest.approx(1, abs=1e-4)
    assert shares[0] == pytest.approx(shares[1], abs=1e-4)  # attention knows no item


def test_the_weights_of_sasrecs_attention_add_up_to_one(fitted, split):
    network = fitted["sasrec"]._network
    batch = fitted["sasrec"]._batcher.moment_batch(split.test, 6)
    with torch.no_grad():
        weight_BT = network.backbone.attention(network.encoder(batch), batch)
    assert torch.allclose(weight_BT.sum(dim=1), torch.ones(len(weight_BT)), atol=1e-5)
    assert (weight_BT >= 0).all()
    assert not weight_BT[~batch.mask_BQT[:, 0]].any()


def test_similarity_is_the_cosine_of_the_event_and_the_item(fitted, split):
    model, moments = fitted["sasrec"], with_six_events(split)
    ledger = influent.explain(model, moments, items=["i2"], method="similarity")
    q = model._network.item_vectors().detach().double().numpy()
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    places = np.arange(moments.start[0], moments.stop[0])
    cosines = q[moments.sequences.item_idx[places]] @ q[2]
    added = ledger.predictions.column("score")[0].as_py() - the_row(ledger, "bias") - the_row(ledger, "baseline")
    expected = cosines / np.abs(cosines).sum() * abs(added)
    ids = moments.sequences.event_id[places].tolist()
    assert credits_by_event(ledger) == pytest.approx(dict(zip(ids, expected, strict=True)), abs=1e-5)


@pytest.mark.parametrize("method", ESTIMATES)
@pytest.mark.parametrize("name", ["additive", "sasrec", "hstu", "gru"])
def test_credits_of_a_moment_do_not_depend_on_the_moments_beside_it(name, method, fitted, split):
    if (name, method) == ("gru", "attention"):
        return
    together = influent.explain(fitted[name], split.test, items=["i3"], method=method)
    for row in (0, 3, 5):  # short and long histories: alone, they have no padding
        alone = influent.explain(fitted[name], split.test.take(slice(row, row + 1)), items=["i3"], method=method)
        assert credits_by_event(alone) == pytest.approx(credits_by_event(together, row), abs=1e-4)


def test_few_copies_at_a_time_give_the_same_credits(fitted, split, monkeypatch):
    at_once = {m: influent.explain(fitted["sasrec"], split.test, method=m).table for m in ESTIMATES}
    monkeypatch.setattr("influent.models.value._MOST_CELLS", 200)
    for method, table in at_once.items():
        few = influent.explain(fitted["sasrec"], split.test, method=method).table
        assert np.allclose(few.column("credit").to_numpy(), table.column("credit").to_numpy(), atol=1e-5)


def test_two_hundred_events_are_left_out_in_one_pass():
    users, rng = ["ann"] * 201 + ["bob"] * 5, np.random.default_rng(0)
    log = {"user_id": users, "item_id": rng.integers(0, 20, len(users))}
    split = influent.split_last(influent.build_sequences(influent.read_events(pa.table(log))))
    config = replace(TINY, backbone="sasrec", max_len=200)
    model = influent.Predictor(model=config, train=SHORT).fit(split.train, split.validation)
    n_passes, states = [], model._network.backbone.states

    def counting(z_BTD, batch):
        n_passes.append(len(z_BTD))
        return states(z_BTD, batch)

    model._network.backbone.states = counting
    credits = model.credits(split.test.take(slice(0, 1)), np.array([[1]]))
    assert sorted(n_passes) == [1, 1, 200]  # all events, none, and each left out
    assert credits.n_passes == 202


@pytest.mark.parametrize("method", ["leave_one_out", "shapley", "integrated_gradients", "gradient", "attention"])
def test_credits_of_a_contrast_are_the_difference_of_credits(method, fitted, split):
    model, moments = fitted["sasrec"], split.test.take(slice(2, 3))
    contrast = influent.explain(model, moments, items=["i1"], contrast=6, method=method)
    own = {n: influent.explain(model, moments, items=[f"i{n}"], method=method) for n in range(7)}
    expected = {
        event: credit - sum(credits_by_event(own[n])[event] for n in range(7) if n != 1) / 6
        for event, credit in credits_by_event(own[1]).items()
    }
    assert credits_by_event(contrast) == pytest.approx(expected, abs=1e-4)
    assert contrast.largest_gap() <= 1e-4


def test_similarity_against_rivals_is_to_the_item_minus_their_mean(fitted, split):
    contrast = influent.explain(fitted["sasrec"], split.test, contrast=3, method="similarity")
    assert contrast.largest_gap() <= 1e-4


def test_methods_that_do_not_fit_are_refused_with_those_that_do(fitted, split):
    counts = influent.DecayedCounts().fit(split.train)
    for model, method, fitting in (
        (fitted["gru"], "attention", "leave_one_out, shapley, integrated_gradients, gradient, similarity"),
        (fitted["sasrec"], "exact", "leave_one_out, shapley, .*attention, similarity"),
        (counts, "gradient", "exact"),
        (counts, "attention", "exact"),
    ):
        with pytest.raises(influent.ConfigError, match=f"method '{method}' does not fit a .* These do: {fitting}"):
            influent.explain(model, split.test, method=method)


def test_settings_that_do_not_fit_are_refused(fitted, split):
    for settings, message in (
        ({"method": "shaply"}, "no method 'shaply'.*Did you mean 'shapley'"),
        ({"n_samples": 5}, r"'n_samples' parameter of shapley must be an even int in the range \[4, inf\). Got 5"),
        ({"n_steps": 5}, "'n_steps' goes with integrated_gradients. Leave it out of shapley"),
        ({"method": "integrated_gradients", "n_steps": 0}, "'n_steps' parameter of integrated_gradients must be"),
        ({"method": "gradient", "seed": 1}, "'seed' goes with shapley. Leave it out of gradient"),
        ({"by_part": True}, "credits by 'shapley' are of events as a whole: leave 'by_part' out"),
    ):
        with pytest.raises(influent.ConfigError, match=message):
            influent.explain(fitted["sasrec"], split.test, **{"method": "shapley", **settings})


@pytest.mark.parametrize("method", ESTIMATES)
def test_an_empty_history_has_nothing_to_credit(method, fitted, split):
    before_all = influent.moments_at(split.test.sequences, [3], [1_600_000_000_000_000])
    ledger = influent.explain(fitted["sasrec"], before_all, items=["i1"], method=method)
    assert credits_by_event(ledger) == {}
    assert the_row(ledger, "residual") == pytest.approx(0, abs=1e-6)
    assert the_row(ledger, "bias") + the_row(ledger, "baseline") == pytest.approx(
        fitted["sasrec"].predict(before_all)[0, 1], abs=1e-5
    )


@pytest.mark.parametrize("method", ESTIMATES)
def test_only_events_of_the_history_that_are_read_have_a_row(method, fitted, split):
    ledger = influent.explain(fitted["hstu"], split.test, method=method)
    sequences = split.test.sequences
    for row, (start, stop) in enumerate(zip(split.test.start, split.test.stop, strict=True)):
        read = sequences.event_id[max(start, stop - 6) : stop].tolist()
        assert sorted(credits_by_event(ledger, row)) == sorted(read)


def test_the_note_says_how_credits_were_come_by_and_survives_saving(fitted, split, tmp_path):
    moments = with_six_events(split)
    ledger = influent.explain(fitted["sasrec"], moments, method="shapley", n_samples=8, seed=3)
    note = ledger.note
    assert (note.method, note.n_samples, note.n_steps, note.seed) == ("shapley", 8, None, 3)
    assert note.n_passes == 2 + 8 * 5  # all, none, and five steps between them in each of eight orders
    ledger.save(tmp_path)
    assert influent.Ledger.load(tmp_path).note == note
    exact = influent.explain(fitted["additive"], split.test).note
    assert (exact.method, exact.exactness, exact.n_passes) == ("exact", "exact", len(split.test))


def test_answers_and_times_have_estimates_too(split):
    labels = influent.number_of_events(split.train)
    config = replace(TINY, backbone="sasrec")
    asked = influent.Predictor(task="regression", model=config, train=SHORT).fit(labels, labels)
    times = influent.Predictor(task="time", model=config, train=SHORT).fit(split.train, split.validation)
    for method in ESTIMATES:
        assert influent.explain(asked, labels, method=method).largest_gap() <= 1e-4
        assert influent.explain_gap(times, split.test, method=method).largest_gap() <= 1e-4
    with pytest.raises(influent.ConfigError, match="method 'exact' does not fit a sasrec model"):
        influent.explain_gap(times, split.test, method="exact")


def test_a_logistic_regression_has_a_ledger_of_its_features(split):
    pytest.importorskip("sklearn")
    labels = influent.will_do(split.train, "2023-11-17", horizon_days=2)
    model = influent.LogisticRegression().fit(labels)
    ledger = influent.explain(model, labels)
    rows = ledger.of(0).to_pylist()
    assert [row["source"] for row in rows] == ["bias"] + ["context"] * (len(rows) - 1)
    assert tuple(row["source_name"] for row in rows[1:]) == model.credits(labels).names
    chance = 1 / (1 + math.exp(-sum(row["credit"] for row in rows)))
    assert chance == pytest.approx(model.predict(labels)[0])
    with pytest.raises(influent.ConfigError, match="'shapley' does not fit a logistic_regression model"):
        influent.explain(model, labels, method="shapley")
    with pytest.raises(influent.ConfigError, match="scores no items. It answers labels"):
        influent.explain(model, split.test)
