"""Readouts over one state: labels, numbers and times, alone and together, each with a ledger."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch

import influent
from influent.data.label_split import split_events_at
from influent.data.labels import number_of_events, of_events
from influent.models.heads import LabelHead, LabelShape, TimeHead, time_bins

TINY = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=6, dropout=0.0)
QUICK = influent.TrainConfig(epochs=6, patience=6, batch_size=16, device="cpu")
DAY = 86_400


def test_the_likelihood_of_a_constant_intensity_is_that_of_the_exponential():
    head = TimeHead(torch.tensor([0.0, 1.0, 2.0]), unit_s=10.0, shortest_s=0.0, dim=2)
    with torch.no_grad():
        head.bias.fill_(math.log(0.5))
    gap = torch.tensor([0.0, 15.0, 40.0], dtype=torch.float64)
    # Half an event per 10 seconds: the density at t seconds is 0.05 · exp(−0.05 t).
    expected = [math.log(0.05) - 0.05 * t for t in (0, 15, 40)]
    assert head.log_likelihood(torch.zeros(3, 2), gap).tolist() == pytest.approx(expected, abs=1e-5)
    assert head.expected_gap(torch.zeros(1, 2)).item() == pytest.approx(20.0, rel=1e-5)


def test_a_density_over_time_integrates_to_one_and_has_the_mean_that_is_expected():
    torch.manual_seed(0)
    head = TimeHead(torch.tensor([0.0, 0.5, 1.5]), unit_s=2.0, shortest_s=0.0, dim=3)
    with torch.no_grad():
        head.direction.normal_()
        head.bias.normal_()
    t = torch.arange(0.0, 400.0, 0.001, dtype=torch.float64) + 0.0005
    s = torch.randn(3)
    density = head.log_likelihood(s.expand(len(t), 3), t).double().exp()
    assert (density.sum() * 0.001).item() == pytest.approx(1.0, abs=2e-3)
    assert (density * t).sum().item() * 0.001 == pytest.approx(head.expected_gap(s[None]).item(), rel=5e-3)


def test_bins_of_time_are_quantiles_and_never_too_narrow():
    edges, unit, shortest = time_bins(torch.tensor([0.0] * 50 + [1.0] * 25 + [3.0] * 25, dtype=torch.float64), n_bins=4)
    # The mean is 1 s; the quartiles are 0, 0.5 or 1, and 1.
    assert (unit, shortest) == (1.0, 1.0)
    assert edges[0] == 0
    assert (torch.diff(edges) > 1e-3).all()


def test_the_last_bin_of_a_long_tail_is_halved_while_there_are_gaps_enough():
    gaps = torch.arange(1.0, 1001.0, dtype=torch.float64)
    edges, unit, _ = time_bins(gaps, n_bins=4)
    # Quartiles, then 1/8 and 1/16 of 1000 gaps, which are 125 and 62; 1/32 would be 31 and is too few.
    assert (edges * unit).round().tolist() == [0, 251, 500, 750, 875, 938]


def test_equal_gaps_do_not_make_an_intensity_grow_without_bound():
    head = TimeHead(torch.tensor([0.0, 1.0]), unit_s=1.0, shortest_s=1.0, dim=1)
    assert head.bin_of(torch.tensor([0.0, 1.0, 1.5], dtype=torch.float64)).tolist() == [0, 0, 1]
    # A gap of nothing is one of half a second: the density there is exp(−0.5) at intensity 1.
    at_once = head.log_likelihood(torch.zeros(1, 1), torch.tensor([0.0], dtype=torch.float64))
    assert at_once.item() == pytest.approx(-0.5)


def test_what_weighing_rare_labels_does_to_the_odds_is_taken_back():
    shape = LabelShape(
        "rare",
        "is it rare? (classification, probability)",
        "classification",
        False,
        mean=0.1,
        scale=1.0,
        positive_weight=9.0,
    )
    head = LabelHead(shape, dim=2, n_items=3)
    factor, shift = head.factor_and_shift()
    # Learned odds begin at 9 · 1/9 = 1; the answer at the base rate.
    assert head.bias.item() == pytest.approx(0.0)
    assert torch.sigmoid(head.bias * factor + shift).item() == pytest.approx(0.1)


@pytest.fixture(scope="module")
def clicks() -> influent.Sequences:
    """Fans of `a` click on a-items and nobody clicks on b-items, one shown item a day; ratings are 5 or 1."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        for day in range(14):
            item = f"{'ab'[rng.integers(2)]}{rng.integers(4)}"
            liked = item[0] == "ab"[user % 2]
            hour = 9 if liked else 15
            rows.append((user, item, "click" if liked else "skip", 1_700_000_000 + day * DAY + hour * 3600, liked))
    users, items, actions, times, liked = zip(*rows, strict=True)
    value = [5.0 if one else 1.0 for one in liked]
    log = {"user_id": users, "item_id": items, "action": actions, "timestamp": times, "value": value}
    return influent.build_sequences(influent.clean(influent.read_events(pa.table(log))))


@pytest.fixture(scope="module")
def asked(clicks):
    labels = of_events(clicks, positive="click", among=["click", "skip"])
    return split_events_at(labels, 0.8)


def test_whether_an_item_is_clicked_is_learned_from_what_was_clicked(asked):
    train = influent.TrainConfig(epochs=25, patience=25, batch_size=32)
    model = influent.Predictor(task="classification", model=TINY, train=train).fit(asked.train, asked.validation)
    answer = model.predict(asked.test)
    clicked = asked.test.label == 1
    # The chance that a clicked one is answered higher, over all pairs.
    auc = (answer[clicked][:, None] > answer[~clicked][None]).mean()
    assert auc > 0.95
    assert ((answer >= 0) & (answer <= 1)).all()


def test_the_terms_of_an_answer_add_up_to_its_logit(asked):
    model = influent.Predictor(task="classification", model=TINY, train=QUICK).fit(asked.train, asked.validation)
    some = asked.test.take(slice(0, 20))
    answer = model.predict(some)
    assert np.allclose(1 / (1 + np.exp(-model.answer_credits(some).total()[:, 0])), answer, atol=1e-5)


@pytest.mark.parametrize("backbone", ["additive", "gru"])
def test_numbers_are_answered_in_their_own_unit_and_so_are_their_terms(clicks, backbone):
    ratings = split_events_at(number_of_events(clicks), 0.8)
    settings = influent.ModelConfig(backbone=backbone, embedding_dim=8, n_heads=2, n_layers=1, max_len=6, dropout=0.0)
    model = influent.Predictor(task="regression", model=settings, train=QUICK).fit(ratings.train, ratings.validation)
    some = ratings.test.take(slice(0, 12))
    credits = model.answer_credits(some)
    assert np.allclose(credits.total()[:, 0], model.predict(some), atol=1e-4)
    assert (credits.residual is None) == (backbone == "additive")
    assert model.label_mean == pytest.approx(ratings.train.label.mean())


def test_one_state_answers_everything_at_once(clicks, asked, tmp_path):
    at = np.sort(asked.validation.moments.time_us)[0]
    split = influent.split_at(clicks, int(at), validation=0.9)
    model = influent.Predictor(task=["ranking", "time", "classification"], model=TINY, train=QUICK)
    model.fit(split.train, split.validation, labels=[asked])
    moments = split.test.take(slice(0, 5))
    assert model.predict(moments).shape == (5, clicks.vocab.n_items)
    assert (model.predict_gap(moments) > 0).all()
    assert np.isfinite(model.log_density(moments)).all()
    readout = model.readout(asked.train.name)
    assert np.array_equal(readout.predict(asked.test), model.predict(asked.test))
    credits = model.gap_credits(moments, after_s=3600.0)
    assert influent.explain_gap(model, moments, after_s=3600.0, top=2).largest_gap() <= 1e-4
    ledger = influent.explain(model, asked.test.take(slice(0, 9)), by_part=True)
    assert ledger.largest_gap() <= 1e-4
    assert set(ledger.table.column("head").to_pylist()) == {f"classification: {asked.test.name}"}
    assert {"item", "action", "numbers"} <= set(ledger.table.column("source_name").to_pylist())
    names = {name.removeprefix("validation_") for name in model.log.epochs[0]}
    assert {"ndcg@10", "log_density", f"score of {asked.train.name}"} <= names
    model.save(tmp_path)
    loaded = influent.load_model(tmp_path)
    assert np.array_equal(loaded.predict(moments), model.predict(moments))
    assert np.array_equal(loaded.predict_gap(moments), model.predict_gap(moments))
    assert np.array_equal(loaded.predict(asked.test), model.predict(asked.test))
    assert np.allclose(loaded.gap_credits(moments, after_s=3600.0).total(), credits.total())


def test_the_time_of_the_next_event_is_learned(clicks):
    split = influent.split_at(clicks, 0.8)
    model = influent.Predictor(task="time", model=TINY, train=influent.TrainConfig(epochs=12, patience=12))
    model.fit(split.train, split.validation)
    # An event a day: the mean gap is a day, and a model of it knows so.
    assert np.abs(model.predict_gap(split.test) / DAY - 1).mean() < 0.3
    with pytest.raises(influent.ConfigError, match="fitted for time and not for ranking"):
        model.predict(split.test)


def test_a_model_of_time_may_not_know_the_moment():
    with pytest.raises(influent.ConfigError, match="knows_moment would give it away"):
        influent.Predictor(task=["ranking", "time"], model=influent.ModelConfig(knows_moment=True))


def test_with_time_first_the_likelihood_of_item_and_time_together_decides_when_to_stop(clicks):
    split = influent.split_at(clicks, 0.8)
    model = influent.Predictor(task=["time", "ranking"], model=TINY, train=influent.TrainConfig(epochs=2))
    model.fit(split.train, split.validation)
    report = influent.evaluate_times([model], split.validation)
    assert model.log.best_score == pytest.approx(report.rows["additive"]["log-likelihood"].mean)


def test_sequences_that_reach_beyond_a_question_are_refused(clicks, asked):
    split = influent.split_last(clicks)
    model = influent.Predictor(task=["ranking", "classification"], model=TINY, train=QUICK)
    with pytest.raises(influent.LeakageError, match="training sequences reach beyond moments"):
        model.fit(split.train, split.validation, labels=[asked])


def test_tasks_and_what_is_given_for_them_must_fit(clicks, asked):
    split = influent.split_last(clicks)
    with pytest.raises(influent.ConfigError, match="learns from labels: fit"):
        influent.Predictor(task="classification", model=TINY).fit(split.train, split.validation)
    with pytest.raises(influent.ConfigError, match="ranking and time learn from sequences"):
        influent.Predictor(task="ranking", model=TINY).fit(asked.train, asked.validation)
    with pytest.raises(influent.ConfigError, match="need labels of regression. Got labels of classification"):
        influent.Predictor(task="regression", model=TINY).fit(asked.train, asked.validation)
    with pytest.raises(influent.ConfigError, match="not labels"):
        influent.Predictor(model=TINY).fit(split.train, asked.validation)


def test_another_question_is_not_answered(clicks, asked):
    model = influent.Predictor(task="classification", model=TINY, train=QUICK).fit(asked.train, asked.validation)
    ratings = number_of_events(clicks)
    with pytest.raises(influent.ConfigError, match="was not fitted to answer"):
        model.predict(ratings)


def test_answers_are_explained_about_the_items_they_are_of(asked):
    model = influent.Predictor(task="classification", model=TINY, train=QUICK).fit(asked.train, asked.validation)
    some = asked.test.take(slice(0, 4))
    ledger = influent.explain(model, some, top=1)
    items = some.moments.sequences.vocab.items.to_ids(some.item_idx).to_pylist()
    assert ledger.predictions.column("item_id").to_pylist() == items
    with pytest.raises(influent.ConfigError, match="have no rivals"):
        influent.explain(model, some, contrast=2)
    with pytest.raises(influent.ConfigError, match="fitted for classification and not for time"):
        influent.explain_gap(model, some.moments)
