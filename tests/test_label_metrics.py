"""Measures of answers to labels, by arithmetic that can be checked by eye and by what scikit-learn says."""

import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import influent
from influent.data.labels import Labels, amount_within, will_do
from influent.evaluation import labels as metrics
from influent.evaluation.labels import evaluate_labels

LABEL = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
SAID = np.array([0.9, 0.4, 0.6, 0.4, 0.1])


# Measures


def test_measures_at_a_threshold_count_what_reaches_it():
    assert metrics.accuracy(LABEL, SAID) == 3 / 5  # wrong: the 1 at 0.4, the 0 at 0.6
    assert metrics.precision(LABEL, SAID) == 1 / 2
    assert metrics.recall(LABEL, SAID) == 1 / 2
    assert metrics.f1(LABEL, SAID) == 2 * 1 / (2 + 2)
    assert metrics.recall(LABEL, SAID, threshold=0.4) == 1
    assert metrics.precision(LABEL, SAID, threshold=0.4) == 2 / 4
    assert metrics.accuracy(LABEL, SAID, threshold=0.95) == 3 / 5


def test_measures_of_probabilities():
    assert metrics.auc(LABEL, SAID) == (3 + (0 + 1 / 2 + 1)) / 6  # 0.9 beats all three; 0.4 loses, ties and wins
    assert metrics.brier(LABEL, SAID) == pytest.approx((0.01 + 0.36 + 0.36 + 0.16 + 0.01) / 5)
    likelihood = 0.9 * 0.4 * 0.4 * 0.6 * 0.9
    assert metrics.log_loss(LABEL, SAID) == pytest.approx(-math.log(likelihood) / 5)


def test_measures_of_numbers():
    label, answer = np.array([0.0, 2.0, 4.0]), np.array([1.0, 2.0, 2.0])
    assert metrics.mean_absolute_error(label, answer) == 1
    assert metrics.root_mean_squared_error(label, answer) == pytest.approx(math.sqrt(5 / 3))
    assert metrics.r_squared(label, answer) == 1 - 5 / 8
    assert metrics.r_squared(label, np.full(3, 2.0)) == 0


def test_what_is_not_defined_is_not_a_number():
    ones, half = np.ones(3), np.full(3, 0.5)
    assert math.isnan(metrics.auc(ones, half))
    assert math.isnan(metrics.recall(1 - ones, half))
    assert math.isnan(metrics.f1(1 - ones, half))
    assert math.isnan(metrics.r_squared(ones, half))
    nothing = np.zeros(0)
    for measure in (metrics.accuracy, metrics.auc, metrics.log_loss, metrics.brier, metrics.calibration_error):
        assert math.isnan(measure(nothing, nothing))


def test_without_a_chosen_question_precision_and_f1_are_zero():
    assert metrics.precision(LABEL, np.zeros(5)) == 0
    assert metrics.f1(LABEL, np.zeros(5)) == 0


def test_one_certain_and_wrong_answer_costs_no_more_than_the_clip():
    assert metrics.log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(-math.log(1e-15))
    assert metrics.log_loss(np.array([0.0]), np.array([1.0])) == pytest.approx(-math.log(1e-15), abs=0.2)
    assert metrics.log_loss(np.array([1.0]), np.array([1.0])) == pytest.approx(0)


def test_bins_hold_like_numbers_of_questions_and_never_part_equal_probabilities():
    said = np.array([0.1, 0.1, 0.1, 0.2, 0.3, 0.4])
    bins = metrics.calibration_bins(np.array([0, 0, 1, 0, 1, 1]), said, n_bins=3)
    assert [(one.low, one.high, one.n) for one in bins] == [(0.1, 0.1, 3), (0.2, 0.2, 1), (0.3, 0.4, 2)]
    assert [one.positive for one in bins] == [1 / 3, 0, 1]
    assert bins[2].probability == pytest.approx(0.35)
    assert [one.n for one in metrics.calibration_bins(np.array([0, 1]), np.array([0.5, 0.5]))] == [2]


def test_the_calibration_error_is_the_mean_distance_in_the_bins():
    said, label = np.array([0.1, 0.3, 0.6, 0.8]), np.array([0.0, 1.0, 1.0, 1.0])
    assert metrics.calibration_error(label, said, n_bins=2) == pytest.approx((abs(0.2 - 0.5) + abs(0.7 - 1.0)) / 2)
    assert metrics.calibration_error(label, said, n_bins=1) == pytest.approx(abs(0.45 - 0.75))
    twice_the_first = metrics.calibration_error(label, said, n_bins=2, weight=np.array([2.0, 1.0, 1.0, 1.0]))
    assert twice_the_first == pytest.approx((abs(0.1 + 0.1 + 0.3 - 1.0) + abs(0.6 + 0.8 - 2.0)) / 5)


QUESTIONS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 8), st.integers(0, 3)), min_size=2, max_size=30
).filter(lambda rows: len({label for label, _, weight in rows if weight}) == 2)


@given(QUESTIONS)
@settings(deadline=None)
def test_measures_of_probabilities_are_those_of_scikit_learn(rows):
    from sklearn import metrics as theirs

    label, said, weight = (np.array(column, float) for column in zip(*rows, strict=True))
    said = said / 8
    chosen = said >= 0.5
    assert metrics.auc(label, said, weight=weight) == pytest.approx(
        theirs.roc_auc_score(label, said, sample_weight=weight)
    )
    assert metrics.log_loss(label, said * 0.9 + 0.05, weight=weight) == pytest.approx(
        theirs.log_loss(label, said * 0.9 + 0.05, sample_weight=weight)
    )
    assert metrics.brier(label, said, weight=weight) == pytest.approx(
        theirs.brier_score_loss(label, said, sample_weight=weight)
    )
    for ours, other in (
        (metrics.precision, theirs.precision_score),
        (metrics.recall, theirs.recall_score),
        (metrics.f1, theirs.f1_score),
    ):
        expected = other(label, chosen, sample_weight=weight, zero_division=0.0)
        assert ours(label, said, weight=weight) == pytest.approx(expected)
    assert metrics.accuracy(label, said, weight=weight) == pytest.approx(
        theirs.accuracy_score(label, chosen, sample_weight=weight)
    )


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5), st.integers(1, 3)), min_size=2, max_size=30))
@settings(deadline=None)
def test_measures_of_numbers_are_those_of_scikit_learn(rows):
    from sklearn import metrics as theirs

    label, said, weight = (np.array(column, float) for column in zip(*rows, strict=True))
    assert metrics.mean_absolute_error(label, said, weight=weight) == pytest.approx(
        theirs.mean_absolute_error(label, said, sample_weight=weight)
    )
    assert metrics.root_mean_squared_error(label, said, weight=weight) == pytest.approx(
        theirs.root_mean_squared_error(label, said, sample_weight=weight)
    )
    if np.ptp(label) > 0:
        assert metrics.r_squared(label, said, weight=weight) == pytest.approx(
            theirs.r2_score(label, said, sample_weight=weight)
        )


@given(QUESTIONS)
@settings(deadline=None)
def test_a_weight_is_how_often_a_question_counts(rows):
    label, said, weight = (np.array(column, float) for column in zip(*rows, strict=True))
    said, times = said / 8, weight.astype(int)
    for measure in (
        metrics.auc,
        metrics.log_loss,
        metrics.brier,
        metrics.accuracy,
        metrics.precision,
        metrics.recall,
        metrics.f1,
        metrics.mean_absolute_error,
        metrics.root_mean_squared_error,
        metrics.r_squared,
    ):
        assert measure(label, said, weight=weight) == pytest.approx(
            measure(np.repeat(label, times), np.repeat(said, times))
        )


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=30), st.integers(1, 12))
@settings(deadline=None)
def test_bins_hold_every_question_once_and_bound_the_error(rows, n_bins):
    label, said = (np.array(column, float) for column in zip(*rows, strict=True))
    bins = metrics.calibration_bins(label, said, n_bins=n_bins)
    assert sum(one.n for one in bins) == len(rows)
    assert 1 <= len(bins) <= n_bins
    assert all(low.high < high.low for low, high in zip(bins[:-1], bins[1:], strict=True))
    error = sum(one.n * abs(one.probability - one.positive) for one in bins) / len(rows)
    assert metrics.calibration_error(label, said, n_bins=n_bins) == pytest.approx(error)
    assert abs(said.mean() - label.mean()) <= error + 1e-12


# Reports


class Fixed:
    """Answers that a test sets."""

    def __init__(self, answer: list[float], *, name: str = "fixed", fitted_on: str = "x", label_mean: float = 0.5):
        self.name, self.fitted_on, self.label_mean = name, fitted_on, label_mean
        self.answer = np.array(answer)

    def predict(self, labels: Labels) -> np.ndarray:
        return self.answer


def build(**columns: list) -> influent.Sequences:
    events = influent.clean(influent.read_events(pa.table(columns)), drop_duplicates=False)
    return influent.build_sequences(events)


@pytest.fixture
def sequences() -> influent.Sequences:
    """Users 0 to 3 act on day 1, users 0 and 1 on day 2 for 4 and 8, user 3 on day 9."""
    return build(
        user_id=[0, 1, 2, 3, 0, 1, 3],
        item_id=["x"] * 7,
        time=["2024-01-01"] * 4 + ["2024-01-02"] * 2 + ["2024-01-09"],
        value=[1.0] * 4 + [4.0, 8.0, 1.0],
    )


@pytest.fixture
def comes(sequences) -> Labels:
    """Users 0 and 1 come back, 2 and 3 do not."""
    return will_do(sequences, "2024-01-02", horizon_days=5)


def test_a_report_has_every_model_beside_a_constant(comes):
    report = evaluate_labels([Fixed([0.9, 0.4, 0.6, 0.2], label_mean=0.25)], comes, n_resamples=50)
    assert list(report.rows) == ["constant", "fixed"]
    assert report.metrics() == ["AUC", "log loss", "Brier", "ECE", "accuracy", "precision", "recall", "F1"]
    row = {name: measure.mean for name, measure in report.rows["fixed"].items()}
    assert (row["AUC"], row["accuracy"], row["precision"], row["recall"]) == (3 / 4, 0.5, 0.5, 0.5)
    constant = {name: measure.mean for name, measure in report.rows["constant"].items()}
    assert (constant["AUC"], constant["accuracy"], constant["recall"]) == (0.5, 0.5, 0)
    assert constant["Brier"] == pytest.approx((2 * 0.75**2 + 2 * 0.25**2) / 4)
    assert constant["ECE"] == 0.25


def test_nothing_is_explained_where_all_labels_are_equal():
    for equal in (np.full(3, 0.1), np.full(7, 1e9 + 0.1), np.zeros(4)):
        assert np.isnan(metrics.r_squared(equal, equal + 1))
    # 1 − (0 + 1) / (1 + 1), however far from 0 the labels lie and however near to each other
    assert metrics.r_squared(1e6 + np.array([0.0, 2e-3]), 1e6 + np.array([0.0, 1e-3])) == pytest.approx(0.5)


def test_a_report_of_numbers_has_errors_in_the_unit_of_the_label(sequences):
    labels = amount_within(sequences, "2024-01-02", horizon_days=5)
    report = evaluate_labels([Fixed([4.0, 7.0, 0.0, 1.0], label_mean=3.0)], labels, n_resamples=50)
    assert report.metrics() == ["MAE", "RMSE", "R²"]
    assert [measure.mean for measure in report.rows["fixed"].values()] == [0.5, math.sqrt(0.5), 1 - 2 / (4 * 11)]
    assert report.rows["constant"]["R²"].mean == 0  # 3 is the mean of 4, 8, 0 and 0
    assert report.calibration == {}
    assert report.threshold is None
    assert "mean 3 value; " in report.caption()


def test_a_report_reads_the_same_in_every_form(comes):
    report = evaluate_labels([Fixed([0.9, 0.4, 0.6, 0.2])], comes, protocol="by hand", split="abc", n_resamples=20)
    assert json.loads(report.to_json())["rows"]["fixed"]["AUC"]["mean"] == 0.75
    assert json.loads(report.to_json())["calibration"]["fixed"][0]["n"] == 1
    assert report.to_markdown().splitlines()[2].startswith("| constant | 0.5000 [0.5000, 0.5000] |")
    assert report.caption() == (
        "event within 5 days: by hand; 4 questions of 4 users, 50.0% of them 1, threshold 0.5; "
        "95 % intervals by bootstrap over users; split abc."
    )


def test_the_bootstrap_draws_users_not_questions(comes):
    many = comes.take(np.repeat([0, 2], 50))
    interval = evaluate_labels([Fixed([1.0] * 100)], many).rows["fixed"]["accuracy"]
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.0, 1.0)  # two users: all wrong, half, or all right


def test_draws_in_which_a_measure_is_not_defined_are_left_out(comes):
    interval = evaluate_labels([Fixed([0.9, 0.9, 0.1, 0.1])], comes, n_resamples=100).rows["fixed"]["AUC"]
    assert (interval.low, interval.high) == (1.0, 1.0)


def test_intervals_are_the_same_every_time_and_hold_the_measure(comes):
    reports = [evaluate_labels([Fixed([0.9, 0.4, 0.6, 0.2])], comes, n_resamples=100) for _ in range(2)]
    assert reports[0] == reports[1]
    assert all(one.low <= one.mean <= one.high for one in reports[0].rows["fixed"].values())


def test_a_model_that_may_have_seen_the_answers_is_not_judged(comes):
    judged = replace(comes, moments=replace(comes.moments, fingerprints=frozenset({"train"})))
    assert len(evaluate_labels([Fixed([0.5] * 4, fitted_on="train")], judged, n_resamples=5).rows) == 2
    with pytest.raises(influent.LeakageError, match="it may have learned from what it is asked to predict"):
        evaluate_labels([Fixed([0.5] * 4, fitted_on="other")], judged)
    with pytest.raises(influent.NotFittedError, match="this fixed model is not fitted"):
        evaluate_labels([Fixed([0.5] * 4, fitted_on="")], comes)


@pytest.mark.parametrize(
    ("models", "settings", "message"),
    [
        ([], {}, "at least one model, no two of one name and none called 'constant'. Got \\[\\]"),
        ([Fixed([0.5] * 4)] * 2, {}, "no two of one name"),
        ([Fixed([0.5] * 4, name="constant")], {}, "none called 'constant'"),
        ([Fixed([0.5] * 4)], {"threshold": 1.5}, r"'threshold' .* must lie in \[0, 1\]. Got 1.5"),
        ([Fixed([0.5] * 4)], {"threshold": True}, "Got True"),
    ],
)
def test_models_and_thresholds_that_cannot_be_compared_are_refused(comes, models, settings, message):
    with pytest.raises(influent.ConfigError, match=message):
        evaluate_labels(models, comes, **settings)


def test_labels_that_cannot_be_judged_by_are_refused(comes):
    with pytest.raises(influent.DataError, match="all 4 labels of 'event within 5 days' are 1: nothing to tell apart"):
        evaluate_labels([Fixed([0.5] * 4)], replace(comes, label=np.ones(4)))
    with pytest.raises(influent.DataError, match="4 of 4 labels .* are not known"):
        evaluate_labels([Fixed([0.5] * 4)], replace(comes, label=np.full(4, np.nan)))
    with pytest.raises(influent.DataError, match="there are no labels"):
        evaluate_labels([Fixed([])], comes.take(slice(0, 0)))
