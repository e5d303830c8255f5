"""Questions in plain settings: what may be asked how, and that the labels are those of the library's functions."""

from functools import partial

import pyarrow as pa
import pytest

import influent
from influent.data.clock import DAY_US, span_us
from influent.data.questions import LabelConfig

DAY_S = 86_400
NEW_YEAR = 1_704_067_200


def rows_of(user, action, days, value=None):
    return [(user, f"i{day % 4}", action, NEW_YEAR + day * DAY_S, value) for day in days]


@pytest.fixture(scope="module")
def sequences():
    """In 60 days even users buy every fifth day for 10, and all look every third; an odd one buys once, early."""
    rows = []
    for user in range(12):
        rows += rows_of(user, "view", range(user % 3, 60, 3))
        rows += rows_of(user, "buy", range(4, 60, 5) if user % 2 == 0 else [4], 10.0)
    columns = zip(*sorted(rows, key=lambda row: row[3]), strict=True)
    names = ("user_id", "item_id", "action", "timestamp", "value")
    log = pa.table(dict(zip(names, map(list, columns), strict=True)))
    return influent.build_sequences(influent.clean(influent.read_events(log)))


def test_a_span_of_time_is_a_number_and_its_unit():
    assert [span_us(text) / DAY_US for text in ("28d", "12h", "2w", "1.5 d", "36h", "90m")] == [
        *(28, 0.5, 14, 1.5, 1.5),
        90 / 1440,
    ]
    assert span_us("1s") == 1_000_000


@pytest.mark.parametrize("text", ["28", "d", "28 days", "-3d", "0d", "3mo", ""])
def test_a_span_without_a_unit_is_told_how_to_be_one(text):
    with pytest.raises(influent.ConfigError, match=r"Write a number above 0 and its unit, s, m, h, d or w"):
        span_us(text)


def test_a_question_with_a_horizon_is_split_as_the_library_does_at_the_latest_cutoff_with_an_answer(sequences):
    asked = LabelConfig(ask="will_do", horizon="1w", actions=("buy",), n_cutoffs=3, step="3d").split(sequences)
    build = partial(influent.will_do, sequences, horizon_days=7, actions="buy")
    last_us = int(sequences.time_us.max())
    split = influent.split_labels_at(build, last_us - 7 * DAY_US, n_cutoffs=3, step_days=3)
    assert asked.hash == split.hash
    assert asked.test.label.tolist() == [1, 0] * 6  # even users buy every five days


def test_churn_is_whoever_does_nothing_within_the_horizon(sequences):
    plain = {"ask": "will_do", "horizon": "7d", "actions": ("buy",)}
    there, gone = LabelConfig(**plain).split(sequences), LabelConfig(**plain, absent=True).split(sequences)
    assert (there.test.label + gone.test.label).tolist() == [1] * 12


def test_an_amount_is_added_up_within_the_horizon(sequences):
    asked = LabelConfig(ask="amount_within", horizon="7d", log=True, cutoff="2024-02-10").split(sequences)
    build = partial(influent.amount_within, sequences, horizon_days=7, log=True)
    assert asked.hash == influent.split_labels_at(build, "2024-02-10").hash
    assert asked.test.unit == "log1p(value)"
    # From day 40 to 46 an even user buys on the 44th.
    assert asked.test.to_natural(asked.test.label).round(6).tolist() == [10, 0] * 6


def test_questions_about_events_are_split_at_a_share_of_their_moments(sequences):
    asked = LabelConfig(ask="of_events", positive=("buy",), among=("buy", "view")).split(sequences)
    labels = influent.of_events(sequences, positive="buy", among=["buy", "view"])
    assert asked.hash == influent.split_events_at(labels, 0.8).hash
    asked = LabelConfig(ask="of_events", positive=("buy",), among=("buy", "view"), since="2024-01-11", cutoff=0.5)
    labels = influent.of_events(sequences, positive="buy", among=["buy", "view"], since="2024-01-11")
    assert asked.split(sequences).hash == influent.split_events_at(labels, 0.5).hash


def test_a_short_log_is_validated_by_users(sequences):
    asked = LabelConfig(ask="will_do", horizon="25d", actions=("buy",), validation_users=0.3)
    with pytest.raises(influent.ConfigError, match="or hold out users for validation: validation_users=0.2"):
        LabelConfig(ask="will_do", horizon="25d", actions=("buy",)).split(sequences)
    assert asked.split(sequences).by_user


def test_settings_survive_a_file_of_plain_values():
    config = LabelConfig(ask="of_events", positive=("buy",), among=("buy", "view"), cutoff=0.5)
    plain = {"ask": "of_events", "positive": ["buy"], "among": ["buy", "view"], "cutoff": 0.5}
    assert LabelConfig.from_dict(plain) == config


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({}, r"none is asked. Set ask \(--ask\) to will_do or amount_within or of_events or number_of_events"),
        ({"horizon": "7d"}, "these settings are of a question, and none is asked"),
        ({"ask": "will-do"}, "Did you mean 'will_do'"),
        ({"ask": "will_do"}, "will_do needs a horizon: how far ahead to look, such as '28d'"),
        ({"ask": "will_do", "horizon": "7"}, r"'7' has no unit\. Write"),
        ({"ask": "will_do", "horizon": 7}, "LabelConfig.horizon must be a text, in quotes. Got 7"),
        ({"ask": "will_do", "horizn": "7d"}, "has no setting 'horizn'. Did you mean 'horizon'"),
        (
            {"ask": "will_do", "horizon": "7d", "positive": ["buy"]},
            "will_do takes no 'positive', which is for of_events. It takes: horizon, actions, absent, cutoff",
        ),
        ({"ask": "of_events", "horizon": "7d"}, "takes no 'horizon', which is for will_do and amount_within"),
        ({"ask": "will_do", "horizon": "7d", "actions": "buy"}, "LabelConfig.actions must be a list of different"),
        ({"ask": "will_do", "horizon": "7d", "absent": 1}, "LabelConfig.absent must be true or false"),
        ({"ask": "will_do", "horizon": "7d", "step": "3"}, r"'3' has no unit\."),
        ({"ask": "will_do", "horizon": "7d", "n_cutoffs": 0}, r"n_cutoffs must be an int in the range \[1"),
        (
            {"ask": "will_do", "horizon": "7d", "cutoff": None},
            "LabelConfig.cutoff must be a time in quotes, or a share",
        ),
    ],
)
def test_settings_that_say_nothing_are_refused(plain, message):
    with pytest.raises(influent.ConfigError, match=message):
        LabelConfig.from_dict(plain)


@pytest.mark.parametrize(
    ("plain", "error", "message"),
    [
        ({"horizon": "7d", "actions": ("by",)}, influent.UnknownIdError, "action 'by' is not .* Did you mean 'buy'"),
        ({"horizon": "7d", "actions": ("x",)}, influent.UnknownIdError, "among the 2 known. They are: buy, view"),
        ({"horizon": "60d"}, influent.DataError, "the log spans 59.0 days, no more than a horizon of 60 days"),
        ({"horizon": "7d", "cutoff": "soon"}, influent.ConfigError, "'soon' is no ISO 8601 time"),
        ({"horizon": "7d"}, influent.DataError, "all 12 training labels of 'event within 7 days' are 1: there is no"),
    ],
)
def test_a_log_that_cannot_be_asked_this_says_why(sequences, plain, error, message):
    with pytest.raises(error, match=message):
        LabelConfig(ask="will_do", **plain).split(sequences)
