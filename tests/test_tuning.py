"""Tuning: what is tried, that a kill costs one epoch, and that no test event has a say."""

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

import influent
from influent import Choices, Range, choose, steps
from influent.models import tuning
from influent.models.kinds import model_config, read_settings
from influent.models.space import default_space, read_space
from influent.run import Run

BASE = influent.ModelConfig(embedding_dim=4, n_heads=1, max_len=5, dropout=0.1, count_len=3)
SHORT = influent.TrainConfig(epochs=3, batch_size=16, device="cpu", seen="keep")
SPACE = {"learning_rate": Range(1e-3, 1e-1, log=True), "dropout": Range(0.0, 0.5), "embedding_dim": Choices((4, 8))}


def tiny_log(last_items=None):
    """Sixteen users with six events over eight items; the last item of each may be replaced."""
    items = np.random.default_rng(7).integers(0, 8, (16, 6))
    if last_items is not None:
        items[:, -1] = last_items
    return pa.table({"user_id": np.repeat(np.arange(16), 6), "item_id": items.reshape(-1)})


def split_of(log):
    return influent.split_last(influent.build_sequences(influent.read_events(log)))


@pytest.fixture(scope="module")
def split():
    return split_of(tiny_log())


@pytest.fixture
def run(tmp_path):
    steps.clean_log(tiny_log(), tmp_path / "run", rules={"drop_duplicates": False})
    return tmp_path / "run"


def predictor(**settings):
    return influent.Predictor(model=BASE, train=influent.TrainConfig(**{**vars(SHORT), **settings}))


def tune(split, **options):
    return influent.tune(predictor(), split.train, split.validation, **{"space": SPACE, "n_trials": 6, **options})


def told(tuned):
    """All trials, but for how long they took."""
    return tuned.trials.drop_columns(["seconds"]).to_pylist()


def test_the_first_trial_has_the_models_own_settings_and_the_best_is_no_worse(split):
    tuned = tune(split)
    first = tuned.trials.to_pylist()[0]
    assert {name: first[name] for name in SPACE} == {"learning_rate": 0.01, "dropout": 0.1, "embedding_dim": 4}
    complete = [trial["score"] for trial in told(tuned) if trial["state"] == "complete"]
    assert tuned.score == max(complete) >= first["score"]
    assert (tuned.score_name, tuned.trials.num_rows) == ("ndcg@10", 6)


def test_the_settings_returned_are_those_of_the_best_trial_and_fit_to_its_score(split):
    tuned = tune(split)
    again = influent.Predictor(model=tuned.model, train=tuned.train).fit(split.train, split.validation)
    assert again.log.best_score == tuned.score
    assert {
        name: getattr(tuned.model, name, None) or getattr(tuned.train, name, None) for name in SPACE
    } == tuned.values


def test_the_seed_decides_what_is_tried(split):
    one, same, other = tune(split, n_trials=3), tune(split, n_trials=3), tune(split, n_trials=3, seed=1)
    assert told(one) == told(same)
    assert told(one)[0] == told(other)[0]
    assert told(one)[1:] != told(other)[1:]


def test_tuning_that_was_killed_goes_on_to_the_same_trials(split, tmp_path, monkeypatch):
    straight, storage = tune(split, n_trials=7, pruner="none"), tmp_path / "trials.jsonl"
    log, n_epochs = tuning._Watch.log, []

    def log_then_die(self, step, metrics):
        log(self, step, metrics)
        n_epochs.append(step)
        if len(n_epochs) == 8:  # in the third trial's second epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(tuning._Watch, "log", log_then_die)
    with pytest.raises(KeyboardInterrupt):
        tune(split, n_trials=7, pruner="none", storage=storage)
    with storage.open("a") as file:
        file.write('{"op_code": 6, "half a li')
    assert (tmp_path / "trials.checkpoint.safetensors").exists()
    resumed = tune(split, n_trials=7, pruner="none", storage=storage)
    assert told(resumed) == told(straight)
    # The epochs of a checkpoint are told again and not trained again: 7 trials of 3, and 2 told twice.
    assert len(n_epochs) == 7 * 3 + 2
    assert not (tmp_path / "trials.checkpoint.safetensors").exists()


def test_more_trials_go_on_after_those_in_the_storage(split, tmp_path):
    storage = tmp_path / "trials.jsonl"
    few = tune(split, n_trials=2, storage=storage)
    more = tune(split, n_trials=4, storage=storage)
    assert told(more)[:2] == told(few)
    assert told(more) == told(tune(split, n_trials=4))
    assert told(tune(split, n_trials=2, storage=storage, seed=5)) != told(few)  # other tuning, in the same file


def test_trials_that_fall_behind_the_median_are_given_up(split):
    space = {"learning_rate": Choices((0.01, 1e-7))}
    tuned = influent.tune(predictor(epochs=6), split.train, split.validation, space=space, n_trials=14, pruner="median")
    pruned = [trial for trial in told(tuned) if trial["state"] == "pruned"]
    assert pruned
    assert all(trial["learning_rate"] == 1e-7 and trial["score"] <= tuned.score for trial in pruned)
    assert tuned.values == {"learning_rate": 0.01}


def test_what_happened_at_the_test_changes_no_trial():
    one, other = split_of(tiny_log(np.arange(16) % 8)), split_of(tiny_log(7 - np.arange(16) % 8))
    assert not np.array_equal(one.test.target_items()[0], other.test.target_items()[0])
    assert told(tune(one, n_trials=3)) == told(tune(other, n_trials=3))


def test_tuning_needs_no_test_events_at_all():
    whole = split_of(tiny_log())
    before_test, users = whole.train_and_validation, whole.validation.user_idx
    end = before_test.offsets[users + 1]
    validation = influent.Moments(
        sequences=before_test, user_idx=users, start=before_test.offsets[users], stop=end - 1, target_stop=end
    )
    tuned = influent.tune(predictor(), whole.train, validation, space=SPACE, n_trials=2)
    assert told(tuned) == told(tune(whole, n_trials=2))


def test_moments_cut_to_what_came_before_the_test_hold_nothing_after_it(split):
    cut = split.validation.within(split.train_and_validation)
    assert len(cut.sequences) == len(split.test.sequences) - len(split.test)
    assert np.array_equal(cut.target_items()[0], split.validation.target_items()[0])
    with pytest.raises(influent.LeakageError, match="another user's events"):
        split.test.within(split.train_and_validation)


def test_a_trial_that_cannot_be_trained_is_noted_and_the_others_go_on(split, monkeypatch):
    fit = influent.Predictor.fit

    def fit_unless_wide(self, *arguments, **options):
        if self.model.embedding_dim == 8:
            raise influent.DataError("the training loss is not finite.")
        return fit(self, *arguments, **options)

    monkeypatch.setattr(influent.Predictor, "fit", fit_unless_wide)
    tuned = tune(split, n_trials=6)
    failed = [trial for trial in told(tuned) if trial["state"] == "failed"]
    assert failed
    assert {(trial["embedding_dim"], trial["score"], trial["why"]) for trial in failed} == {
        (8, None, "the training loss is not finite.")
    }
    assert tuned.model.embedding_dim == 4
    assert f"{len(failed)} failed" in tuned.caption()


def test_settings_that_do_not_go_together_are_a_failed_trial(split):
    space = {"n_heads": Choices((4, 8)), "embedding_dim": Choices((8, 12))}
    box = influent.ModelConfig(backbone="sasrec", embedding_dim=8, n_heads=4, max_len=5, dropout=0.1)
    tuned = influent.tune(
        influent.Predictor(model=box, train=SHORT), split.train, split.validation, space=space, n_trials=8
    )
    tried = tuned.trials.to_pylist()
    assert len(tried) == 8
    failed = [row for row in tried if row["state"] == "failed"]
    assert failed
    assert all("12 and 8" in row["why"] for row in failed)


def test_the_trials_are_kept_as_lines_of_json(split, tmp_path):
    tune(split, n_trials=1, storage=tmp_path / "trials.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert all(isinstance(line["op_code"], int) for line in lines)


@pytest.mark.parametrize("content", [b"\x80\x04not json\n", b'{"a": 1}\n', b"[]\n"])
def test_a_file_that_holds_no_trials_is_refused(split, tmp_path, content):
    (tmp_path / "trials.jsonl").write_bytes(content)
    with pytest.raises(influent.RunFolderError, match=r"trials.jsonl is damaged, or no file of trials"):
        tune(split, storage=tmp_path / "trials.jsonl")
    assert (tmp_path / "trials.jsonl").read_bytes() == content


def test_two_cannot_tune_into_one_file(split, tmp_path):
    with FileLock(tmp_path / "trials.lock"), pytest.raises(influent.RunFolderError, match="other tuning uses"):
        tune(split, storage=tmp_path / "trials.jsonl")


def test_optuna_stays_as_loud_as_it_was(split):
    import optuna

    before = optuna.logging.get_verbosity()
    tune(split, n_trials=1)
    assert optuna.logging.get_verbosity() == before


def test_without_optuna_it_says_what_to_install(split, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(influent.MissingExtraError, match=r"tuning needs Optuna: pip install 'influent\[tune\]'"):
        tune(split)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "there is nothing to tune"),
        ({"droput": Range(0.1, 0.2)}, "no setting 'droput' to tune. Did you mean 'dropout'"),
        ({"seen": Choices(("keep",))}, "'seen' is not searched: it decides how validation judges"),
        ({"seed": Range(0, 9)}, "a lucky seed is no better setting"),
        ({"dropout": Range(0.5, 0.1)}, "low <= high"),
        ({"dropout": Range(0.5, 1.5)}, r"ModelConfig.dropout must be a number in \[0.0, 1.0\). Got 1.5"),
        ({"dropout": Range(-1, 0.5)}, "dropout = -1 leaves the setting open"),
        ({"learning_rate": Range(0, 0.1)}, "learning_rate = 0 leaves the setting open"),
        ({"learning_rate": Range(0.0, 0.1, log=True)}, "in the logarithm and must begin above 0"),
        ({"embedding_dim": Range(4.0, 8.5)}, "must have two ints"),
        ({"embedding_dim": Choices((4, 4))}, "must be different values"),
        ({"tied": Range(0, 1)}, "tied must be a number"),
        ({"gate": Choices(("event", "both"))}, "ModelConfig.gate must be one of"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_before_anything_is_tried(split, space, message):
    with pytest.raises(influent.ConfigError, match=message):
        tune(split, space=space)


@pytest.mark.parametrize("described", [0.1, [0.1], {"low": 1}, {"choices": 3}, {"low": 1, "high": 2, "step": 1}, "x"])
def test_a_description_in_toml_that_is_none_shows_what_one_is(described):
    with pytest.raises(influent.ConfigError, match=r"the space of 'dropout' must be \[low, high\], \{low = …"):
        read_space({"dropout": described})


def test_toml_says_ranges_in_the_logarithm_where_that_is_usual():
    space = read_space({"learning_rate": [1e-4, 1e-2], "dropout": [0, 0.5], "weight_decay": {"low": 1e-3, "high": 1}})
    assert space == {
        "learning_rate": Range(1e-4, 1e-2, log=True),
        "dropout": Range(0, 0.5),
        "weight_decay": Range(1e-3, 1, log=True),
    }


@pytest.mark.parametrize("backbone", ["additive", "feedback", "gru", "lstm", "sasrec", "hstu"])
def test_the_default_space_of_each_backbone_is_a_space(backbone):
    model = influent.Predictor(model=influent.ModelConfig(backbone=backbone))
    space = default_space(model.model)
    tuning.check_space(space, model.model, model.train)
    assert ("tied" in space, "n_layers" in space) == (model.model.is_sum, not model.model.is_sum)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n_trials": 0}, r"range \[1, inf\). Got 0"), ({"pruner": "hyperband"}, r"one of \('median', 'none'\)")],
)
def test_arguments_out_of_range_are_named(split, options, message):
    with pytest.raises(influent.ConfigError, match=message):
        tune(split, **options)


def test_a_model_of_labels_is_refused(split):
    with pytest.raises(influent.ConfigError, match="tune is for ranking and time. Got a model for classification"):
        influent.tune(influent.Predictor(task="classification"), split.train)


def test_what_is_written_is_a_config_for_fit(split, tmp_path):
    tuned = tune(split, n_trials=3)
    tuned.save(tmp_path)
    settings = read_settings(tmp_path / "tuned.toml")
    again = influent.Predictor(
        model=model_config(None, settings["model"]), train=influent.TrainConfig.from_dict(settings["train"])
    )
    same = influent.Predictor(model=tuned.model, train=tuned.train)
    assert again.settings() | {"train": None} == same.settings() | {"train": None}
    assert vars(again.train) | {"device": ""} == vars(same.train) | {"device": ""}
    assert set(SPACE) <= {*settings["model"], *settings["train"]}
    assert (tmp_path / "tuned.toml").read_text().startswith("# The best of 3 trials: validation ndcg@10 0.")
    assert "no say" in (tmp_path / "trials.md").read_text()


MODEL = {"embedding_dim": 4, "n_heads": 1, "max_len": 5, "dropout": 0.1}
TRAIN = {"epochs": 2, "seen": "keep"}


def test_a_run_keeps_its_trials_and_settings_and_a_fit_takes_them(run):
    tuned = choose.tune_run(run, model=MODEL, train=TRAIN, space={"learning_rate": [1e-3, 1e-1]}, n_trials=2)
    assert pq.read_table(run / "trials.parquet").num_rows == 2
    settings = read_settings(run / "tuned.toml")
    fitted, _ = steps.fit_run(
        run,
        model=model_config(None, settings["model"]),
        train=influent.TrainConfig.from_dict(settings["train"]),
    )
    assert fitted.log.best_score == tuned.score
    assert (run / "tuned.toml").exists()  # a fit stands beside it
    more = choose.tune_run(run, model=MODEL, train=TRAIN, space={"learning_rate": [1e-3, 1e-1]}, n_trials=3)
    assert told(more)[:2] == told(tuned)
    assert set(Run.open(run).steps) == {"clean", "fit", "tune"}
    assert sorted(path.name for path in run.parent.iterdir() if not path.name.endswith(".lock")) == ["run"]
    (run / "trials.jsonl").write_text("[]\n")
    for _ in range(2):  # the advice can be followed: nothing is copied from it to beside the run
        with pytest.raises(influent.RunFolderError, match=r"run/trials.jsonl is damaged.*Remove it to tune anew"):
            choose.tune_run(run, model=MODEL, train=TRAIN, space={"learning_rate": [1e-3, 1e-1]}, n_trials=3)
    assert not (run.parent / ".run.trials.jsonl").exists()


def test_what_is_given_is_not_searched(run):
    given = {"size": "small", "max_len": 5, "dropout": 0.1, "tied": True}
    tuned = choose.tune_run(run, model=given, train={**TRAIN, "epochs": 1}, n_trials=1)
    searched = set(tuned.values)
    assert searched == {"learning_rate", "weight_decay", "count_popularity_power", "count_reverse"}
    assert tuned.model.tied
    with pytest.raises(influent.ConfigError, match=r"dropout: given in \[model\] or \[train\], and in \[space\]"):
        choose.tune_run(run, model=MODEL, space={"dropout": [0.1, 0.2]})


def test_a_run_is_tuned_on_the_split_that_its_model_was_fitted_on(run):
    actions = steps.SplitConfig(actions=("event",))
    steps.fit_run(run, kind="popularity", split=actions)
    choose.tune_run(run, model=MODEL, train={**TRAIN, "epochs": 1}, n_trials=1)
    assert Run.open(run).steps["tune"]["settings"]["split"]["actions"] == ["event"]


def test_a_model_that_counts_has_nothing_to_tune(run):
    with pytest.raises(influent.ConfigError, match="'counts' only counts; there is nothing to tune"):
        choose.tune_run(run, kind="counts")
    with pytest.raises(influent.ConfigError, match="there is no model 'sasrek'.*Did you mean 'sasrec'"):
        choose.tune_run(run, kind="sasrek")
