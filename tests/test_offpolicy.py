"""Off-policy estimates: arithmetic by hand, and a world in which the truth is known."""

import numpy as np
import pytest

import influent
from influent.evaluation.offpolicy import off_policy_value

REWARD, PROPENSITY, TARGET = np.array([1.0, 0.0, 2.0]), np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])


def means(report):
    return {name: measure.mean for name, measure in report.rows.items()}


def test_estimates_are_those_by_hand():
    # Weights 1/2, 1, 2; weighted rewards 1/2, 0, 4.
    predicted, expected = np.array([0.5, 0.5, 1.0]), np.array([1.0, 1.0, 1.0])
    report = off_policy_value(REWARD, PROPENSITY, TARGET, predicted=predicted, expected=expected)
    assert means(report) == pytest.approx(
        {
            "direct method": 1.0,
            "inverse propensity": 4.5 / 3,
            "self-normalised": 4.5 / 3.5,
            # 1 + the mean of 1/2 · 1/2, 1 · −1/2 and 2 · 1
            "doubly robust": 1 + (0.25 - 0.5 + 2.0) / 3,
        }
    )
    assert report.n_effective == pytest.approx(3.5**2 / (0.25 + 1 + 4))
    assert report.largest_weight == 2


def test_the_logs_own_policy_has_the_logs_value():
    report = off_policy_value(REWARD, PROPENSITY, PROPENSITY)
    assert means(report) == {"inverse propensity": 1.0, "self-normalised": 1.0}
    assert report.logged.mean == 1.0
    assert report.n_effective == 3


def test_the_truth_lies_within_the_intervals_as_often_as_they_say():
    """Two things to show, which earn 1 with chance .2 and .6; the policy in question shows the second with .8: .52."""
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        shown = rng.integers(0, 2, 600)
        reward = (rng.random(600) < np.array([0.2, 0.6])[shown]).astype(float)
        target = np.array([0.2, 0.8])[shown]
        wrong = np.full(600, 0.5)
        report = off_policy_value(
            reward, np.full(600, 0.5), target, predicted=wrong, expected=wrong, n_resamples=300, seed=seed
        )
        covered.append([report.rows[name].low <= 0.52 <= report.rows[name].high for name in list(report.rows)[1:]])
    # Of 40 intervals at 95 % at least 34 hold the truth with probability .99; the model of rewards may be wrong.
    assert (np.sum(covered, axis=0) >= 34).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"propensity": np.array([0.5, 0.0, 0.25])}, "1 impressions have a propensity that is not in"),
        ({"propensity": np.array([0.5, np.nan, 0.25])}, "1 impressions have a propensity that is not in"),
        ({"target": np.array([0.5, 1.5, 0.25])}, "chances must lie in"),
        ({"target": np.zeros(3)}, "shows nothing of what was shown"),
        ({"reward": np.array([1.0, np.nan, 0.0])}, "missing or not finite"),
    ],
)
def test_what_is_no_experiment_is_refused(change, says):
    arguments = {"reward": REWARD, "propensity": PROPENSITY, "target": TARGET} | change
    with pytest.raises(influent.DataError, match=says):
        off_policy_value(**arguments)


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(influent.ConfigError, match="one number for each impression"):
        off_policy_value(REWARD, PROPENSITY[:2], TARGET)
    with pytest.raises(influent.ConfigError, match=r"Got shapes \[\(3,\), \(3, 1\)\]"):
        off_policy_value(REWARD[:, None], PROPENSITY, TARGET)
    with pytest.raises(influent.ConfigError, match=r"'n_resamples' parameter must be an int in the range \[1, inf"):
        off_policy_value(REWARD, PROPENSITY, TARGET, n_resamples=0)
    with pytest.raises(influent.ConfigError, match="go together"):
        off_policy_value(REWARD, PROPENSITY, TARGET, predicted=REWARD)
    with pytest.raises(influent.DataError, match="no impressions"):
        off_policy_value(REWARD[:0], PROPENSITY[:0], TARGET[:0])
