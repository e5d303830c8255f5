"""What comes next and when: splits by users, each event a moment, and how well both were foreseen."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import influent
from influent.data.moments import each_moment
from influent.evaluation.times import ConstantRate, gaps_to_next

HOUR = 3600


def build(**columns: list) -> influent.Sequences:
    return influent.build_sequences(influent.clean(influent.read_events(pa.table(columns)), drop_duplicates=False))


@pytest.fixture
def tiny(tiny_log) -> influent.Sequences:
    """Who does what at which minute: ann 0 2 3 8 10, bob 1 5 7 11, cat 4 6 9."""
    return influent.build_sequences(influent.clean(influent.read_events(tiny_log)))


# Splitting by users


def test_users_of_validation_and_test_are_never_trained_on(tiny):
    split = influent.split_users(tiny, validation=["bob"], test=["cat"])
    assert split.train.event_id.tolist() == [0, 2, 3, 8, 10]
    assert split.train_and_validation.event_id.tolist() == [0, 2, 3, 8, 10, 1, 5, 7, 11]
    assert split.train.vocab is tiny.vocab
    assert set(split.validation.user_idx.tolist()) == {1}
    assert set(split.test.user_idx.tolist()) == {2}
    assert split.test.fingerprints == {split.train.fingerprint, split.train_and_validation.fingerprint}
    assert split.validation.fingerprints == {split.train.fingerprint}


def test_each_event_from_the_second_on_is_a_moment_with_all_before_it(tiny):
    test = influent.split_users(tiny, validation=["bob"], test=["cat"]).test
    row = test.sequences.event_id
    told = [
        (row[a:b].tolist(), row[b:c].tolist()) for a, b, c in zip(test.start, test.stop, test.target_stop, strict=True)
    ]
    assert told == [([4], [6]), ([4, 6], [9])]
    assert gaps_to_next(test).tolist() == [120, 180]


def test_shares_are_of_all_users_and_drawn_by_the_seed():
    sequences = build(user_id=[n // 2 for n in range(40)], item_id=["a"] * 40)
    split = influent.split_users(sequences, validation=0.25, test=0.5, seed=3)
    parts = [set(moments.user_idx.tolist()) for moments in (split.validation, split.test)]
    learned_from = set(split.train.user_idx.tolist())
    assert [len(part) for part in (*parts, learned_from)] == [5, 10, 5]
    assert set.union(*parts, learned_from) == set(range(20))
    assert influent.split_users(sequences, validation=0.25, test=0.5, seed=3).hash == split.hash
    assert influent.split_users(sequences, validation=0.25, test=0.5, seed=4).hash != split.hash


def test_users_with_one_event_have_no_moment_and_those_without_are_not_drawn(tiny):
    sequences = build(user_id=[1, 2, 2, 2], item_id=list("abca")).with_users([3, 4])
    assert each_moment(sequences).user_idx.tolist() == [1, 1]
    assert len(each_moment(sequences, np.array([0, 2]))) == 0
    with pytest.raises(influent.DataError, match="none of the 1 users in test has two events"):
        influent.split_users(tiny.until(np.array([5, 9, 10])), validation=["bob"], test=["cat"])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"test": 1.0}, "'test' .* must be a share between 0 and 1, or a list of user ids. Got 1.0"),
        ({"validation": 1}, "'validation' .* Got 1."),
        ({"test": "ann"}, "or a list of user ids. Got 'ann'"),
        ({"test": ["ann", "bob"], "validation": ["bob"]}, "user 'bob' and 0 others are in both validation and test"),
        ({"test": ["ann", "bob"], "validation": ["cat"]}, "nobody is left to learn from"),
    ],
)
def test_parts_that_cannot_be_made_are_refused(tiny, parts, message):
    with pytest.raises(influent.ConfigError, match=message):
        influent.split_users(tiny, **parts)


def test_an_unknown_user_is_named(tiny):
    with pytest.raises(influent.UnknownIdError, match="Did you mean 'ann'"):
        influent.split_users(tiny, test=["anna"])


def test_events_at_the_same_time_keep_their_order_and_have_no_gap():
    sequences = build(user_id=[1] * 4, item_id=list("bacd"), time_us=[0, 5_000_000, 5_000_000, 9_000_000])
    moments = each_moment(sequences)
    items = sequences.vocab.items.to_ids(sequences.item_idx[moments.stop]).to_pylist()
    assert items == ["a", "c", "d"]
    assert gaps_to_next(moments).tolist() == [5, 0, 4]
    assert influent.evaluate_times([ConstantRate.of(sequences)], moments).no_gap == pytest.approx(1 / 3)


# Judging


def test_a_constant_rate_has_the_likelihood_of_the_exponential():
    # Gaps of 1 h and 3 h: a mean of 2 h. Items a a b: shares 2/3 and 1/3.
    sequences = build(user_id=[1, 1, 1], item_id=list("aba"), time_us=[0, HOUR * 10**6, 4 * HOUR * 10**6])
    moments = each_moment(sequences)
    report = influent.evaluate_times([ConstantRate.of(sequences)], moments, unit_s=HOUR)
    row = {name: measure.mean for name, measure in report.rows["constant"].items()}
    assert row["of time"] == pytest.approx(math.log(0.5) - 0.5 * (1 + 3) / 2)
    assert row["of item"] == pytest.approx((math.log(1 / 3) + math.log(2 / 3)) / 2)
    assert row["log-likelihood"] == pytest.approx(row["of time"] + row["of item"])
    assert row["type error"] == 0.5
    assert row["RMSE"] == pytest.approx(1.0)
    assert row["MAE"] == pytest.approx(1.0)
    assert report.mean_gap == pytest.approx(2.0)
    assert "time in hours (mean gap 2, 0.0% of gaps are zero)" in report.caption()


def test_another_unit_moves_the_likelihood_by_its_logarithm_and_scales_errors(tiny):
    model, moments = ConstantRate.of(tiny), each_moment(tiny)
    hours, minutes = (influent.evaluate_times([model], moments, unit_s=unit).rows["constant"] for unit in (HOUR, 60.0))
    assert hours["of time"].mean - minutes["of time"].mean == pytest.approx(math.log(60))
    assert minutes["RMSE"].mean == pytest.approx(60 * hours["RMSE"].mean)
    assert hours["of item"] == minutes["of item"]


@pytest.fixture(scope="module")
def alternating() -> influent.Split:
    """Everybody goes out and home in turn: an hour out, ten minutes at home."""
    rows, start = [], 1_700_000_000
    for user in range(40):
        at = start + user
        for turn in range(12):
            rows.append((user, ["out", "home"][turn % 2], at))
            at += [HOUR, HOUR // 6][turn % 2]
    users, items, times = zip(*rows, strict=True)
    return influent.split_users(build(user_id=users, item_id=items, timestamp=times), test=0.25, validation=0.25)


@pytest.fixture(scope="module")
def fitted(alternating) -> influent.Predictor:
    settings = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=6, dropout=0.0)
    train = influent.TrainConfig(epochs=20, patience=20, batch_size=8, seen="keep", device="cpu")
    model = influent.Predictor(task=["time", "ranking"], model=settings, train=train)
    return model.fit(alternating.train, alternating.validation)


def test_what_alternates_is_foreseen_without_error(alternating, fitted):
    report = influent.evaluate_times([fitted], alternating.test, unit_s=HOUR, split=alternating.hash)
    model, constant = report.rows["additive"], report.rows["constant"]
    assert model["type error"].mean == 0
    assert constant["type error"].mean == pytest.approx(0.5, abs=0.05)
    assert constant["of item"].mean == pytest.approx(math.log(0.5), abs=0.02)
    assert model["of item"].mean > -0.1
    assert model["of time"].mean > constant["of time"].mean + 0.2
    # The gaps are 1 and 1/6: always saying the mean is off by half of their distance.
    assert constant["RMSE"].mean == pytest.approx((1 - 1 / 6) / 2, abs=0.02)
    assert model["RMSE"].mean < constant["RMSE"].mean / 2
    assert (report.n_users, report.n_moments) == (10, 110)
    assert report.to_markdown().splitlines()[0] == (
        "| model | log-likelihood | of time | of item | type error | RMSE | MAE |"
    )


def test_the_probabilities_of_items_are_those_of_the_scores(alternating, fitted):
    some = alternating.test.take(slice(0, 3))
    scores = fitted.predict(some).astype(np.float64)
    chance = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    of_item = np.log(chance[np.arange(3), some.sequences.item_idx[some.stop]]).mean()
    report = influent.evaluate_times([fitted], some)
    assert report.rows["additive"]["of item"].mean == pytest.approx(of_item)
    assert report.rows["additive"]["of time"].mean == pytest.approx(fitted.log_density(some).mean())


def test_moments_without_a_gap_are_left_out(tiny):
    # Validation is at bob's 5, with 1 before it, and at cat's 4, the first of hers.
    split = influent.split_at(tiny, "2024-01-01T00:06:00Z", validation="2024-01-01T00:04:00Z")
    model = ConstantRate.of(split.train)
    assert influent.evaluate_times([model], split.validation).n_moments == 1
    with pytest.raises(influent.DataError, match="no moment has a history and an event after it"):
        influent.evaluate_times([model], influent.latest_moments(tiny))


def test_what_cannot_be_judged_is_refused(tiny, alternating, fitted):
    moments = each_moment(tiny)
    with pytest.raises(influent.ConfigError, match="at least one model, no two of one name"):
        influent.evaluate_times([], moments)
    with pytest.raises(influent.ConfigError, match="'unit_s' .* must be seconds above 0. Got 0"):
        influent.evaluate_times([ConstantRate.of(tiny)], moments, unit_s=0)
    with pytest.raises(influent.LeakageError, match="may have learned from what it is asked"):
        influent.evaluate_times([ConstantRate.of(alternating.test.sequences), fitted], alternating.test)
    timeless = build(user_id=[1, 1], item_id=["a", "b"])
    with pytest.raises(influent.ConfigError, match="an order-only log has no times"):
        influent.evaluate_times([fitted], each_moment(timeless))
    log = influent.clean(influent.read_events(pa.table({"user_id": [1, 1], "item_id": ["out", "sea"], "time": [1, 2]})))
    elsewhere = influent.build_sequences(log, vocab=alternating.train.vocab)
    with pytest.raises(influent.DataError, match="100.0% of the events to judge are of items outside the catalogue"):
        influent.evaluate_times([fitted], each_moment(elsewhere))


# What a log of gaps can and cannot teach


def gaps_only(n_short, n_long, n_events):
    """Users with one event each, and users with an event every hour."""
    rows = [(f"short{user}", "x", 1_600_000_000 + user) for user in range(n_short)]
    rows += [
        (f"long{user}", f"i{place % 3}", 1_600_000_000 + HOUR * place)
        for user in range(n_long)
        for place in range(n_events)
    ]
    users, items, times = zip(*rows, strict=True)
    return build(user_id=users, item_id=items, timestamp=times)


@pytest.mark.parametrize("tasks", ["time", ["time", "ranking"]])
def test_users_with_one_event_say_nothing_of_gaps_and_stop_no_training(tasks):
    split = influent.split_last(gaps_only(200, 20, 6))
    train = influent.TrainConfig(epochs=2, device="cpu")
    model = influent.Predictor(task=tasks, train=train).fit(split.train, split.validation)
    # Of 20 users with four training events each, three gaps an epoch, all of an hour.
    assert model.mean_gap_s == HOUR
    assert all(math.isfinite(epoch["loss"]) for epoch in model.log.epochs)


def test_validation_that_says_nothing_of_gaps_ends_the_fit():
    split = influent.split_last(gaps_only(0, 20, 6))
    newcomers = replace(split.validation, start=split.validation.stop)
    model = influent.Predictor(task="time", train=influent.TrainConfig(epochs=1, device="cpu"))
    with pytest.raises(influent.DataError, match="the validation log_density is no number"):
        model.fit(split.train, newcomers)
    with pytest.raises(influent.NotFittedError):
        model.predict_gap(split.test)


def test_the_next_event_of_one_kind_is_no_question_of_time():
    with pytest.raises(influent.ConfigError, match="target_actions would leave out all gaps"):
        influent.Predictor(task="time", model=influent.ModelConfig(target_actions=("purchase",)))


def test_models_that_are_called_alike_can_be_named():
    split = influent.split_last(gaps_only(0, 20, 6))
    train = influent.TrainConfig(epochs=1, device="cpu")
    models = [influent.Predictor(task="time", train=train).fit(split.train, split.validation) for _ in range(2)]
    with pytest.raises(influent.ConfigError, match="Name them yourself"):
        influent.evaluate_times(models, split.test)
    report = influent.evaluate_times(dict(zip(["one", "two"], models, strict=True)), split.test, items=False)
    assert list(report.rows) == ["constant", "one", "two"]
