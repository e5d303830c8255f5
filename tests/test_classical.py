import json
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import logit

import influent
from influent.data.history import question_features
from influent.data.label_split import LabelSplit, split_events_at, split_labels_at
from influent.data.labels import Labels, amount_within, of_events, will_do
from influent.models.classical import (
    CLASSICAL,
    GradientBoosting,
    LinearSvm,
    LogisticRegression,
    NeuralNetwork,
    RidgeRegression,
    load_label_model,
)
from influent.models.label_model import FeatureCredits, LabelModel

NEW_YEAR = 1_704_067_200
DAY = 86_400


def build(**columns: list) -> influent.Sequences:
    return influent.build_sequences(influent.clean(influent.read_events(pa.table(columns)), drop_duplicates=False))


def loyal_log() -> influent.Sequences:
    """Loyal users buy for 10 every other day, the others now and then for 1; nobody changes."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        rate = 0.5 if user % 2 else 0.05
        rows += [(user, day, user) for day in range(80) if rng.random() < rate or day in (0, 79)]
    user, day, _ = (list(column) for column in zip(*rows, strict=True))
    return build(
        user_id=user,
        item_id=[f"i{rng.integers(6)}" for _ in rows],
        timestamp=[NEW_YEAR + DAY * one for one in day],
        value=[10.0 if one % 2 else (1.0 if rng.random() < 0.8 else None) for one in user],
    )


def shown_log(is_timed: bool) -> influent.Sequences:
    """Of six items, the even ones are clicked nine times out of ten and the odd ones once."""
    rng = np.random.default_rng(1)
    rows = [(user, place, int(rng.integers(6))) for user in range(40) for place in range(12)]
    columns: dict[str, list] = {
        "user_id": [user for user, _, _ in rows],
        "item_id": [f"i{item}" for _, _, item in rows],
        "action": ["click" if rng.random() < (0.1 if item % 2 else 0.9) else "show" for _, _, item in rows],
    }
    if is_timed:
        columns["timestamp"] = [NEW_YEAR + DAY * place + int(rng.integers(DAY)) for _, place, _ in rows]
    return build(**columns)


def loyal(kind: str) -> LabelSplit:
    ask = (
        partial(will_do, loyal_log(), absent=True) if kind == "classification" else partial(amount_within, loyal_log())
    )
    return split_labels_at(partial(ask, horizon_days=5), "2024-03-10", n_cutoffs=4)


def clicks(is_timed: bool) -> LabelSplit:
    labels = of_events(shown_log(is_timed), positive="click", among=["click", "show"])
    return split_events_at(labels, 0.75, validation=0.75)


SPLITS = {
    "churn": partial(loyal, "classification"),
    "amount": partial(loyal, "regression"),
    "clicks": partial(clicks, True),
    "clicks, order-only": partial(clicks, False),
}


@pytest.fixture(scope="module")
def splits() -> dict[str, LabelSplit]:
    return {name: make() for name, make in SPLITS.items()}


PAIRS = [
    (kind, name)
    for kind, model in CLASSICAL.items()
    for name in SPLITS
    if ("regression" if name == "amount" else "classification") in model.KINDS
]


SMALL = {"neural_network": {"batch_size": 16}, "gradient_boosting": {"min_leaf": 5}}
"""Settings for worlds of a hundred questions."""


@pytest.fixture(scope="module", params=PAIRS, ids=": ".join)
def fitted(request, splits):
    """Every model, on every split of the kind it learns."""
    kind, name = request.param
    split = splits[name]
    return CLASSICAL[kind](**SMALL.get(kind, {})).fit(split.train, split.validation), split


def alone(labels: Labels, row: int) -> Labels:
    return labels.take(slice(row, row + 1))


# What every model does


def test_it_is_a_label_model(fitted):
    model, split = fitted
    assert isinstance(model, LabelModel)
    assert model.fitted_on == split.train.fingerprint
    assert model.label_mean == pytest.approx(split.train.label.mean())
    assert model.vocab is split.train.moments.sequences.vocab


def test_it_learns_what_is_there_to_learn(fitted):
    model, split = fitted
    answer, label = model.predict(split.test), split.test.label
    assert answer.shape == label.shape
    assert ((answer - label) ** 2).mean() < 0.95 * ((split.train.label.mean() - label) ** 2).mean()
    if split.test.kind == "classification":
        assert ((answer > 0) & (answer < 1)).all()


def test_saving_and_loading_changes_nothing(fitted, tmp_path):
    model, split = fitted
    model.save(tmp_path)
    loaded = load_label_model(tmp_path)
    assert loaded.name == model.name
    assert loaded.fitted_on == model.fitted_on
    assert loaded.label_mean == model.label_mean
    assert np.array_equal(loaded.predict(split.test), model.predict(split.test))


def test_an_answer_does_not_depend_on_the_questions_beside_it(fitted):
    model, split = fitted
    together = model.predict(split.test)
    for row in range(3):
        one = alone(split.test, row)
        assert np.allclose(model.predict(one), together[split.test.moment == row], atol=1e-12)


def test_an_answer_does_not_depend_on_the_labels_or_on_later_events(fitted):
    model, split = fitted
    moments, whole = split.validation.moments, split.test.moments.sequences
    shift = (whole.offsets[:-1] - moments.sequences.offsets[:-1])[moments.user_idx]
    places = {name: getattr(moments, name) + shift for name in ("start", "stop", "target_stop")}
    unknown = np.full(len(split.validation), np.nan)
    asked = replace(split.validation, moments=replace(moments, sequences=whole, **places), label=unknown)
    assert np.allclose(model.predict(asked), model.predict(split.validation), atol=1e-12)


def test_fitting_twice_gives_the_same_model(fitted):
    model, split = fitted
    again = replace(model).fit(split.train, split.validation)
    assert np.array_equal(again.predict(split.test), model.predict(split.test))


@pytest.mark.parametrize(("kind", "name"), [pair for pair in PAIRS if hasattr(CLASSICAL[pair[0]], "credits")])
def test_credits_of_a_sum_add_up_to_its_logit_or_number(kind, name, splits):
    split = splits[name]
    model = CLASSICAL[kind]().fit(split.train, split.validation)
    credits, answer = model.credits(split.test), model.predict(split.test)
    said = answer if kind == "ridge_regression" else logit(answer)
    assert np.allclose(credits.total(), said, atol=1e-9)
    assert credits.credit.shape == (len(split.test), len(credits.names))
    assert len(set(credits.names)) == len(credits.names)


def test_a_credit_is_what_its_feature_takes_along_when_it_goes_to_its_mean(splits):
    split = splits["churn"]
    model = LogisticRegression().fit(split.train)
    x = question_features(split.test).values
    place = model.features.index("n_events")
    at_mean = x.copy()
    at_mean[:, place] = np.expm1(model.arrays["center"][place])
    assert np.allclose(model._answer(x) - model._answer(at_mean), model.credits(split.test).credit[:, place])


def test_feature_credits_are_added_up_by_hand():
    credits = FeatureCredits(names=("a", "b"), credit=np.array([[1.0, -2.0], [0.5, 0.0]]), bias=0.25)
    assert credits.total().tolist() == [1 - 2 + 0.25, 0.5 + 0.25]


def test_validation_may_be_left_out(splits):
    for model in (LinearSvm(n_folds=2), NeuralNetwork(epochs=2), GradientBoosting(n_trees=3)):
        answer = model.fit(splits["churn"].train).predict(splits["churn"].test)
        assert np.corrcoef(answer, splits["churn"].test.label)[0, 1] > 0.3


# What single models do


def test_trees_answer_as_those_of_scikit_learn_do(splits):
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    for name, kind in (("churn", HistGradientBoostingClassifier), ("amount", HistGradientBoostingRegressor)):
        train, test = splits[name].train, splits[name].test
        model = GradientBoosting(n_trees=20, min_leaf=5).fit(train)
        theirs = kind(
            max_iter=20,
            learning_rate=0.05,
            min_samples_leaf=5,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=0,
        ).fit(question_features(train).values, train.label)
        x = question_features(test).values
        expected = theirs.predict_proba(x)[:, 1] if name == "churn" else theirs.predict(x)
        assert np.allclose(model.predict(test), expected, atol=1e-12)
        assert np.isnan(x).any()


def test_no_more_trees_are_kept_than_validation_likes(splits):
    split = splits["clicks"]
    stopped = GradientBoosting(n_trees=200, patience=5).fit(split.train, split.validation)
    assert 0 < len(stopped.arrays["depth"]) < 200
    assert len(GradientBoosting(n_trees=7).fit(split.train).arrays["depth"]) == 7


def test_without_a_useful_tree_the_answer_is_the_training_mean(splits):
    split = splits["churn"]
    opposite = replace(split.validation, label=1 - split.validation.label)
    model = GradientBoosting(n_trees=5).fit(split.train, opposite)
    assert len(model.arrays["depth"]) == 0
    assert model.predict(split.test) == pytest.approx(np.full(len(split.test), model.label_mean))


def test_a_network_answers_as_that_of_scikit_learn_does(splits):
    from sklearn.neural_network import MLPClassifier

    train, test = splits["churn"].train, splits["churn"].test
    model = NeuralNetwork(epochs=1, hidden_dim=4).fit(train)
    theirs = MLPClassifier((4,), batch_size=min(256, len(train)), random_state=0)
    theirs.partial_fit(model._scale(question_features(train).values, model.arrays), train.label, classes=[0, 1])
    expected = theirs.predict_proba(model._scale(question_features(test).values, model.arrays))[:, 1]
    assert np.allclose(model.predict(test), expected, atol=1e-12)


def test_a_network_stops_when_validation_gets_worse(splits):
    split = splits["churn"]
    opposite = replace(split.validation, label=1 - split.validation.label)
    stopped = NeuralNetwork(epochs=30, patience=1).fit(split.train, opposite)
    once = NeuralNetwork(epochs=1).fit(split.train)
    assert np.array_equal(stopped.arrays["weights_0"], once.arrays["weights_0"])


def test_margins_of_the_support_vector_machine_become_probabilities_that_are_right_on_average(splits):
    split = splits["clicks"]
    model = LinearSvm().fit(split.train, split.validation)
    assert model.predict(split.validation).mean() == pytest.approx(split.validation.label.mean(), abs=0.02)


def test_margins_that_part_all_answers_become_no_certainty():
    margins, label = np.array([-1.0, -1.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0])
    slope, offset = LinearSvm()._platt(margins, label)
    assert slope + offset == pytest.approx(logit((2 + 1) / (2 + 2)), abs=1e-4)  # Platt's target for two 1s
    assert -slope + offset == pytest.approx(logit(1 / (2 + 2)), abs=1e-4)


def test_folds_without_both_answers_are_refused(splits):
    labels = splits["clicks"].train
    one = replace(labels, label=(labels.user_idx == 0).astype(float))
    with pytest.raises(influent.DataError, match="2 folds of users leave one with a single answer"):
        LinearSvm(n_folds=2).fit(one)


def test_features_that_are_equal_or_missing_everywhere_get_no_credit():
    rows = [(user, day) for user in range(20) for day in range(0, 20, 2 if user % 2 else 9)]
    sequences = build(
        user_id=[user for user, _ in rows],
        item_id=["x"] * len(rows),
        timestamp=[NEW_YEAR + DAY * day for _, day in rows],
    )
    labels = will_do(sequences, ["2024-01-05", "2024-01-07"], horizon_days=3)
    credits = LogisticRegression().fit(labels).credits(labels)
    of = dict(zip(credits.names, credits.credit.T, strict=True))
    assert (of["n_items"] == 0).all()  # always the one item
    assert (of["hour_sin"] == 0).all()  # always midnight
    assert (of["n_events"] != 0).any()


def test_rates_can_keep_up_with_what_is_known_before_each_moment(splits):
    split = splits["clicks"]
    model = LogisticRegression().fit(split.train)
    before = model.predict(split.test)
    whole = of_events(split.test.moments.sequences, positive="click", among=["click", "show"])
    after = model.update_rates(whole).predict(split.test)
    assert not np.array_equal(before, after)
    assert model.rates.mean == split.train.label.mean()
    turned = replace(
        whole, label=np.where(whole.moments.time_us[whole.moment] >= split.test.moments.time_us.max(), 0, whole.label)
    )
    assert np.array_equal(model.update_rates(turned).predict(split.test), after)


def test_rates_cannot_keep_up_where_nothing_is_known_to_be_before(splits):
    split = splits["clicks, order-only"]
    with pytest.raises(influent.LeakageError, match="it is not known what came before a moment"):
        LogisticRegression().fit(split.train).update_rates(split.test)
    churn = splits["churn"]
    with pytest.raises(influent.ConfigError, match="there is no item to have a rate"):
        LogisticRegression().fit(churn.train).update_rates(churn.test)


# What cannot be done


def test_labels_of_the_other_kind_are_refused(splits):
    with pytest.raises(
        influent.ConfigError,
        match=r"LogisticRegression learns classification; 'value of event within 5 days' is a regression. Use one of: "
        r"RidgeRegression, NeuralNetwork, GradientBoosting\.",
    ):
        LogisticRegression().fit(splits["amount"].train)


def test_a_model_that_is_not_fitted_says_so(splits, tmp_path):
    for kind in CLASSICAL.values():
        with pytest.raises(influent.NotFittedError, match=r"model is not fitted. Call fit\(train\) first"):
            kind().predict(splits["churn"].test)
        with pytest.raises(influent.NotFittedError, match="is not fitted"):
            kind().save(tmp_path)
    with pytest.raises(influent.NotFittedError, match="is not fitted"):
        LogisticRegression().credits(splits["churn"].test)


def test_labels_that_teach_nothing_are_refused(splits):
    train = splits["churn"].train
    with pytest.raises(
        influent.DataError, match=r"all \d+ training labels of 'no event within 5 days' are 1: there is"
    ):
        LogisticRegression().fit(replace(train, label=np.ones(len(train))))
    with pytest.raises(influent.DataError, match="there are no labels of 'no event within 5 days'"):
        LogisticRegression().fit(train.take(slice(0, 0)))
    unknown = replace(train, label=np.where(np.arange(len(train)) < 2, np.nan, train.label))
    with pytest.raises(influent.DataError, match=r"2 of \d+ labels of .* are not known. Use labels from the log"):
        LogisticRegression().fit(unknown)
    with pytest.raises(influent.DataError, match=r"2 of \d+ labels"):
        LogisticRegression().fit(train, unknown)


def test_a_model_answers_only_the_question_it_was_fitted_on(splits):
    churn = splits["churn"]
    model = LogisticRegression().fit(churn.train)
    with pytest.raises(
        influent.DataError, match="was fitted on 'no event within 5 days' and cannot answer 'event within 5 days'"
    ):
        model.predict(replace(churn.test, name="event within 5 days"))
    with pytest.raises(influent.DataError, match="cannot answer 'value of event within 5 days'"):
        LogisticRegression().fit(churn.train, splits["amount"].validation)


def test_other_ids_and_other_features_are_refused(splits):
    churn = splits["churn"]
    model = LogisticRegression().fit(churn.train)
    sequences = churn.test.moments.sequences
    fewer = replace(churn.test.moments, sequences=replace(sequences, numbers=sequences.numbers[:, :0], number_names=()))
    with pytest.raises(
        influent.SchemaError, match=r"by other numbers .*: last\[value\], mean\[value\], sum\[value\]. B"
    ):
        model.predict(replace(churn.test, moments=fewer))
    other = will_do(shown_log(True), "2024-01-05", horizon_days=5, absent=True)
    with pytest.raises(influent.SchemaError, match="count action by another vocabulary than the logistic_regression"):
        model.predict(other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(LogisticRegression, l2=0), r"LogisticRegression.l2 must be a number above 0. Got 0"),
        (partial(LogisticRegression, l2="1"), "Got '1'"),
        (partial(LogisticRegression, l2=float("nan")), "a number above 0. Got nan"),
        (partial(LinearSvm, n_folds=2.5), r"LinearSvm.n_folds must be an int from 1. Got 2.5"),
        (partial(NeuralNetwork, seed=-1), r"NeuralNetwork.seed must be an int from 0. Got -1"),
        (partial(NeuralNetwork, epochs=True), "must be an int from 1. Got True"),
        (partial(RidgeRegression, actions=1), r"RidgeRegression.actions must be true or false. Got 1"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(influent.ConfigError, match=message):
        make()


def test_a_folder_without_a_whole_model_is_refused(splits, tmp_path):
    with pytest.raises(influent.RunFolderError, match=r"holds no model \(no config.json\)"):
        load_label_model(tmp_path)
    LogisticRegression().fit(splits["churn"].train).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model": "magic"}))
    with pytest.raises(
        influent.RunFolderError, match="names the model 'magic'. Models of labels are: logistic_regress"
    ):
        load_label_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(influent.RunFolderError, match="is damaged .* Fit it again"):
        load_label_model(tmp_path)


def test_without_scikit_learn_nothing_is_fitted_and_saved_models_still_answer(splits, tmp_path, monkeypatch):
    churn = splits["churn"]
    model = GradientBoosting(n_trees=3).fit(churn.train)
    model.save(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for kind in CLASSICAL.values():
        labels = churn.train if "classification" in kind.KINDS else splits["amount"].train
        with pytest.raises(
            influent.MissingExtraError, match=r"needs scikit-learn: pip install 'influent\[classical\]'"
        ):
            kind().fit(labels)
    assert np.array_equal(load_label_model(tmp_path).predict(churn.test), model.predict(churn.test))


def test_importing_the_models_imports_neither_scikit_learn_nor_torch():
    code = "import sys, influent.models.classical; print('sklearn' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
