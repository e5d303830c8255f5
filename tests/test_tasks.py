"""What a run folder is asked beside a ranking: when the next event comes, and questions with an answer in the log."""

import json
import os
import sys
from functools import partial

import pyarrow as pa
import pytest
from typer.testing import CliRunner

import influent
from influent import answers, choose, steps
from influent.cli import app
from influent.data.questions import LabelConfig
from influent.models import train as train_module

DAY_S = 86_400
NEW_YEAR = 1_704_067_200
SETTINGS = """
[model]
embedding_dim = 8
n_heads = 2
max_len = 20
dropout = 0.0

[train]
epochs = 4
batch_size = 8
"""
MODEL = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=20, dropout=0.0)
TRAIN = influent.TrainConfig(epochs=4, batch_size=8)
BUYS = ("--ask", "will_do", "--action", "buy", "--horizon", "7d")


def planted(is_timed=True):
    """In 60 days even users buy every fifth day for 10 or 20, and all look every third; an odd one buys once, early."""
    rows = []
    for user in range(24):
        for day in range(60):
            when = NEW_YEAR + day * DAY_S + user
            if day % 3 == user % 3:
                rows.append((user, f"i{day % 4}", "view", when, None))
            if day % 5 == 4 and user % 2 == 0 or day == 4:
                rows.append((user, f"i{(day + user) % 4}", "buy", when + 60, 10.0 + 10.0 * (user % 4 == 0)))
    columns = zip(*sorted(rows, key=lambda row: row[3]), strict=True)
    names = ("user_id", "item_id", "action", "timestamp", "value")
    log = pa.table(dict(zip(names, map(list, columns), strict=True)))
    return log if is_timed else log.drop_columns("timestamp")


@pytest.fixture
def run(tmp_path):
    steps.clean_log(planted(), tmp_path / "here" / "run")
    (tmp_path / "settings.toml").write_text(SETTINGS)
    return tmp_path / "here" / "run"


def told(*arguments):
    """Return what a command prints; what it raises is raised here."""
    done = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def fit(run, *arguments):
    return told("fit", run, *arguments, "--config", run.parent.parent / "settings.toml")


def everything_beside(run):
    """Return every file in and beside the run folder, but for locks, with what is in it."""
    files = [path for path in run.parent.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(run.parent): path.read_bytes() for path in files}


def report_in(run, name="evaluation"):
    return json.loads((run / f"{name}.json").read_text())


def as_json(report):
    return json.loads(report.to_json())


# When


def test_time_alone_is_judged_and_explained_as_the_library_does(run):
    fit(run, "--task", "time")
    shown = told("evaluate", run, "--unit", "d")
    split = influent.split_last(influent.Sequences.load(run))
    model = influent.Predictor(task="time", model=MODEL, train=TRAIN).fit(split.train, split.validation)
    report = influent.evaluate_times(
        [model], split.test, unit_s=DAY_S, items=False, protocol=split.protocol, split=split.hash
    )
    assert report_in(run) == as_json(report)
    assert list(report.rows["additive"]) == ["of time", "RMSE", "MAE"]
    assert "of which only the time is judged; time in days" in " ".join(shown.split())
    assert not (run / "evaluation_times.json").exists()
    assert "how soon the next event comes" in told("explain", run, "--top", "2")
    ledger = influent.explain_gap(model, split.test, top=2)
    assert influent.Ledger.load(run).table.equals(ledger.table)
    assert "user 3, how soon the next event comes" in told("explain", run, "--user", "3")


def test_ranking_and_time_over_one_state_have_a_report_each(run):
    fit(run, "--task", "ranking", "--task", "time")
    told("evaluate", run, "--k", "2", "--seen", "keep")
    split, model = influent.split_last(influent.Sequences.load(run)), influent.load_model(run)
    about = {"protocol": split.protocol, "split": split.hash}
    assert list(report_in(run)["rows"]) == ["additive", "popularity", "counts"]
    assert "HR@2" in report_in(run)["rows"]["additive"]
    times = influent.evaluate_times([model], split.test, unit_s=3600, **about)
    assert report_in(run, "evaluation_times") == as_json(times)
    assert "type error" in (run / "evaluation_times.md").read_text()
    told("explain", run)
    assert influent.Ledger.load(run).note.head == "ranking"
    assert "for user 3:" in told("recommend", run, "--user", "3", "--seen", "keep")


def test_a_refitted_model_of_time_stands_beside_the_one_before(run):
    fit(run, "--task", "time", "--refit")
    told("evaluate", run)
    assert list(report_in(run)["rows"]) == ["constant", "additive, refitted", "additive"]


# Questions


def test_whether_somebody_buys_is_answered_as_the_library_does(run):
    shown = fit(run, *BUYS, "--n-cutoffs", "2")
    assert "fitted: additive on 48 questions of 'buy within 7 days', split " in shown
    told("evaluate", run, "--threshold", "0.4")
    sequences = influent.Sequences.load(run)
    build = partial(influent.will_do, sequences, horizon_days=7, actions="buy")
    split = influent.split_labels_at(build, int(sequences.time_us.max()) - 7 * DAY_S * 10**6, n_cutoffs=2)
    model = influent.Predictor(task="classification", model=MODEL, train=TRAIN).fit(split.train, split.validation)
    rivals = [influent.LogisticRegression(), influent.GradientBoosting()]
    report = influent.evaluate_labels(
        [model, *(rival.fit(split.train, split.validation) for rival in rivals)],
        split.test,
        threshold=0.4,
        protocol=split.protocol,
        split=split.hash,
    )
    assert report_in(run) == as_json(report)
    assert report.rows["logistic_regression"]["AUC"].mean == 1.0  # what was planted
    assert "24 questions of 24 users, 50.0% of them 1, threshold 0.4" in (run / "evaluation.md").read_text()
    told("explain", run, "--by-part")
    assert influent.Ledger.load(run).table.equals(influent.explain(model, split.test, by_part=True).table)


def test_churn_and_the_table_of_a_file_ask_the_same_as_options(run):
    shown = fit(run, *BUYS, "--absent", "--cutoff", "2024-02-20")
    (run.parent.parent / "label.toml").write_text(
        SETTINGS + '\n[label]\nask = "will_do"\nactions = ["buy"]\nhorizon = "1w"\nabsent = true\ncutoff = "2024-02-20"'
    )
    assert told("fit", run, "--config", run.parent.parent / "label.toml") == shown
    assert "'no buy within 7 days'" in shown


def test_what_somebody_will_do_from_the_end_of_the_log_is_explained(run):
    fit(run, *BUYS)
    before = everything_beside(run)
    shown = told("explain", run, "--user", "2", "--user", "3", "--top", "1")
    assert "user 2, classification: buy within 7 days" in shown
    assert "user 3, classification: buy within 7 days" in shown
    assert "without any event" in shown
    assert everything_beside(run) == before
    parts = LabelConfig(ask="will_do", actions=("buy",), horizon="7d").split(influent.Sequences.load(run))
    now = answers.ask_now(parts, [2, 3])
    assert (now.moments.stop == now.moments.sequences.offsets[[3, 4]]).all()  # all their events are read


def test_what_somebody_spends_is_answered_by_a_classical_model(run):
    told("fit", run, "--ask", "amount_within", "--horizon", "7d", "--model", "ridge")
    told("evaluate", run)
    report = report_in(run)
    assert list(report["rows"]) == ["constant", "ridge_regression", "gradient_boosting"]
    assert list(report["rows"]["constant"]) == ["MAE", "RMSE", "R²"]
    split = LabelConfig(ask="amount_within", horizon="7d").split(influent.Sequences.load(run))
    model = influent.RidgeRegression().fit(split.train, split.validation)
    expected = as_json(influent.evaluate_labels([model], split.test))["rows"]
    assert report["rows"]["ridge_regression"] == expected["ridge_regression"]
    assert "the days since last" in told("explain", run)  # a sum over features
    assert influent.Ledger.load(run).note.exactness == "exact"


@pytest.mark.parametrize("model", ["logistic", "svm", "mlp", "boosting", "gru"])
def test_every_model_of_answers_may_be_named(run, model):
    arguments = ("--epochs", "1") if model == "gru" else ()
    told("fit", run, *BUYS, "--model", model, *arguments)
    names = {"logistic": "logistic_regression", "svm": "linear_svm", "mlp": "neural_network"}
    told("evaluate", run)
    assert names.get(model, model if model == "gru" else "gradient_boosting") in report_in(run)["rows"]
    if model in ("mlp", "boosting"):
        with pytest.raises(
            influent.ConfigError, match="answers by no sum that could be a ledger. The answers of an additive"
        ):
            told("explain", run)


def test_an_order_only_log_is_asked_about_its_events(tmp_path):
    run = tmp_path / "here" / "run"
    steps.clean_log(planted(is_timed=False), run, rules={"drop_duplicates": False})
    (tmp_path / "settings.toml").write_text(SETTINGS)
    fit(run, "--ask", "of_events", "--positive", "buy", "--among", "buy", "--among", "view")
    told("evaluate", run)
    assert report_in(run)["name"] == "buy among buy or view"
    assert "i1, classification: buy among buy or view" in told("explain", run, "--user", "2", "--item", "i1")
    with pytest.raises(influent.ConfigError, match="is asked about items: name one for each moment"):
        told("explain", run, "--user", "2")
    fit(run, "--ask", "number_of_events", "--action", "buy")
    told("evaluate", run)
    assert report_in(run)["unit"] == "value"


def test_an_answering_fit_that_is_killed_goes_on_to_the_same_answers(run, monkeypatch):
    label = LabelConfig(ask="will_do", actions=("buy",), horizon="7d")

    class Kill(BaseException):
        """What a test puts in the place of a signal."""

    saved, save = [], train_module._save_checkpoint

    def save_then_die(*arguments):
        save(*arguments)
        saved.append(1)
        if len(saved) == 2:
            raise Kill

    monkeypatch.setattr(train_module, "_save_checkpoint", save_then_die)
    before = sorted(os.listdir(run))
    with pytest.raises(Kill):
        answers.fit_labels_run(run, label, model=MODEL, train=TRAIN)
    assert sorted(os.listdir(run)) == before
    resumed, split = answers.fit_labels_run(run, label, model=MODEL, train=TRAIN)
    assert len(saved) == 4  # two epochs before, two after
    straight = influent.Predictor(task="classification", model=MODEL, train=TRAIN).fit(split.train, split.validation)
    assert (resumed.predict(split.test) == straight.predict(split.test)).all()


def test_without_scikit_learn_answers_are_judged_without_the_classical_bar(run, monkeypatch):
    fit(run, *BUYS)
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    told("evaluate", run)
    assert list(report_in(run)["rows"]) == ["constant", "additive"]


# What is refused


def test_a_run_that_ranks_nothing_recommends_nothing(run):
    for asked in (("--task", "time"), BUYS):
        fit(run, *asked)
        with pytest.raises(influent.ConfigError, match="ranks no items, so there is nothing to recommend. Fit one"):
            told("recommend", run)
    choose.compare_run(run, {"popularity": influent.Popularity()})  # what needs no model is compared as before


def test_labels_of_other_events_than_those_fitted_on_are_refused(run):
    fit(run, *BUYS)
    sequences = influent.Sequences.load(run)
    sequences.until(sequences.offsets[1:] - 1).save(run)
    with pytest.raises(influent.RunFolderError, match="are not those the model was fitted on .* Run again: influent f"):
        told("evaluate", run)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--ask", "will_do", "--action", "by", "--horizon", "7d"), influent.UnknownIdError, "Did you mean 'buy'"),
        (("--ask", "will_do", "--horizon", "7"), influent.ConfigError, "'7' has no unit. Write a number above 0 and"),
        (("--ask", "will_do", "--horizon", "70d"), influent.DataError, "the log spans 59.0 days, no more than a hori"),
        (("--ask", "will-do", "--horizon", "7d"), influent.ConfigError, "Did you mean 'will_do'"),
        (("--horizon", "7d"), influent.ConfigError, r"none is asked. Set ask \(--ask\) to will_do"),
        ((*BUYS, "--task", "time"), influent.ConfigError, "--task, --split, .* go with ranking and time. A question"),
        ((*BUYS, "--split", "0.8"), influent.ConfigError, "A question has --action and --cutoff"),
        ((*BUYS, "--model", "ridge"), influent.ConfigError, "no model 'ridge' for classification. There .* logistic"),
        ((*BUYS, "--model", "counts"), influent.ConfigError, "no model 'counts' for classification"),
        ((*BUYS, "--model", "svm", "--epochs", "2"), influent.ConfigError, "is a classical one; it takes no settings"),
        ((*BUYS, "--model", "svm", "--size", "small"), influent.ConfigError, "is a classical one; it takes no sett"),
        (("--ask", "number_of_events", "--number", "valu"), influent.SchemaError, "Did you mean 'value'"),
        (("--task", "regression"), influent.ConfigError, "asked of labels: influent fit RUN --ask will_do"),
        (("--task", "time", "--model", "ease"), influent.ConfigError, "there is no model 'ease' for time"),
        (("--model", "logistic"), influent.ConfigError, "there is no model 'logistic' for ranking"),
    ],
)
def test_what_cannot_be_fitted_is_told_what_would_be_right_and_leaves_all_as_it_was(run, arguments, error, message):
    before = everything_beside(run)
    with pytest.raises(error, match=message):
        told("fit", run, *arguments)
    assert everything_beside(run) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "time"), "the task 'time' needs a log with times, and this one is order-only"),
        (BUYS, "an order-only log has no days to look ahead. Label its events instead"),
    ],
)
def test_an_order_only_log_has_no_time_to_ask_about(tmp_path, arguments, message):
    run = tmp_path / "here" / "run"
    steps.clean_log(planted(is_timed=False), run)
    before = everything_beside(run)
    with pytest.raises(influent.ConfigError, match=message):
        told("fit", run, *arguments)
    assert everything_beside(run) == before


@pytest.mark.parametrize(
    ("asked", "arguments", "message"),
    [
        (("--task", "time"), ("--k", "5"), "'k' goes with ranking, and this model was fitted for time"),
        (("--task", "time"), ("--unit", "days"), "'days' is no unit of time. Units are s, m"),
        (BUYS, ("--unit", "d"), "'unit' goes with time, and this model was fitted for classification"),
        (BUYS, ("--threshold", "2"), r"'threshold' parameter .* must lie in \[0, 1\]"),
        (("--task", "ranking"), ("--threshold", "0.3"), "'threshold' goes with classification"),
    ],
)
def test_settings_of_another_task_are_refused_by_evaluate(run, asked, arguments, message):
    fit(run, *asked, "--epochs", "1")
    before = everything_beside(run)
    with pytest.raises(influent.ConfigError, match=message):
        told("evaluate", run, *arguments)
    assert everything_beside(run) == before
