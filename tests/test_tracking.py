"""Who follows a fit hears of every epoch, once, and costs it nothing."""

import importlib.util
import json
import sys

import numpy as np
import pyarrow as pa
import pytest

import influent
from influent import steps
from influent.models import tracking
from influent.models import train as train_module
from influent.run import metrics_of

TINY = influent.ModelConfig(embedding_dim=4, n_heads=1, max_len=5, dropout=0.1)
SHORT = influent.TrainConfig(epochs=3, batch_size=8, device="cpu")


def needs(tool):
    return pytest.mark.skipif(importlib.util.find_spec(tool) is None, reason=f"{tool} is not installed")


def tiny_log():
    rng = np.random.default_rng(3)
    return pa.table({"user_id": np.repeat(np.arange(10), 6), "item_id": rng.integers(0, 6, 60)})


@pytest.fixture(scope="module")
def split():
    return influent.split_last(influent.build_sequences(influent.read_events(tiny_log())))


@pytest.fixture
def run(tmp_path):
    steps.clean_log(tiny_log(), tmp_path / "run", rules={"drop_duplicates": False})
    return tmp_path / "run"


class Heard:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.epochs, self.is_closed = [], False

    def log(self, step, metrics):
        self.epochs.append((step, dict(metrics)))

    def close(self):
        self.is_closed = True


def predictor():
    return influent.Predictor(model=TINY, train=SHORT)


def test_a_tracker_hears_what_the_log_of_the_training_says(split):
    heard = Heard()
    model = predictor().fit(split.train, split.validation, trackers=[heard])
    assert [{"epoch": step, **metrics} for step, metrics in heard.epochs] == model.log.epochs
    assert [step for step, _ in heard.epochs] == [0, 1, 2]
    assert set(heard.epochs[0][1]) == {"loss", "seconds", "validation_ndcg@10"}
    assert not heard.is_closed  # whoever made it closes it


def test_being_followed_changes_no_weight(split):
    followed = predictor().fit(split.train, split.validation, trackers=[Heard(), Heard()])
    alone = predictor().fit(split.train, split.validation)
    assert np.array_equal(followed.predict(split.test), alone.predict(split.test))


def test_lines_of_json_are_there_after_each_epoch_and_are_those_that_save_writes(split, tmp_path):
    lines = influent.JsonLines(tmp_path / "metrics.jsonl")
    n_lines = []

    class Reader(Heard):
        def log(self, step, metrics):
            n_lines.append(len((tmp_path / "metrics.jsonl").read_text().splitlines()))

    model = predictor().fit(split.train, split.validation, trackers=[lines, Reader()])
    (tmp_path / "model").mkdir()
    model.save(tmp_path / "model")
    assert n_lines == [1, 2, 3]
    assert (tmp_path / "metrics.jsonl").read_text() == (tmp_path / "model" / "metrics.jsonl").read_text()


def test_a_fit_that_goes_on_tells_of_the_epochs_before_first(split, tmp_path, monkeypatch):
    save = train_module._save_checkpoint

    def save_then_die(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "_save_checkpoint", save_then_die)
    checkpoint, heard = tmp_path / "checkpoint.safetensors", Heard()
    with pytest.raises(KeyboardInterrupt):
        predictor().fit(split.train, split.validation, checkpoint=checkpoint)
    monkeypatch.undo()
    predictor().fit(split.train, split.validation, checkpoint=checkpoint, trackers=[heard])
    assert [step for step, _ in heard.epochs] == [0, 1, 2]


def test_what_a_tracker_raises_ends_the_fit_and_nothing_half_fitted_is_left(split):
    class Enough(Heard):
        def log(self, step, metrics):
            raise StopIteration

    model = predictor()
    with pytest.raises(StopIteration):
        model.fit(split.train, split.validation, trackers=[Enough()])
    with pytest.raises(influent.NotFittedError):
        model.predict(split.test)


def test_a_run_can_be_followed_while_it_is_fitted_and_the_lines_go_when_it_is_written(run, monkeypatch):
    seen = []

    class Reader(Heard):
        def log(self, step, metrics):
            super().log(step, metrics)
            seen.append(metrics_of(run).exists())

    reader = Reader()
    monkeypatch.setattr(tracking, "open_tracker", lambda *_, **__: reader)
    steps.fit_run(run, model=TINY, train=SHORT, track=["tensorboard"])
    assert seen == [True, True, True]
    assert reader.is_closed
    assert metrics_of(run).name == ".run.metrics.jsonl"
    assert not metrics_of(run).exists()
    kept = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(epoch.pop("epoch"), epoch) for epoch in kept] == reader.epochs


def test_a_tracker_is_closed_when_the_fit_fails_and_the_lines_stay(run, monkeypatch):
    class Full(Heard):
        def log(self, step, metrics):
            if step == 1:
                raise OSError("no space left on device")

    full = Full()
    monkeypatch.setattr(tracking, "open_tracker", lambda *_, **__: full)
    with pytest.raises(OSError, match="no space left"):
        steps.fit_run(run, model=TINY, train=SHORT, track=["mlflow"])
    assert full.is_closed
    assert len(metrics_of(run).read_text().splitlines()) == 2


def test_a_tracker_nobody_knows_is_named_with_those_there_are(tmp_path):
    message = r"there is no tracker 'tensorbord'. There are: tensorboard, mlflow. Did you mean 'tensorboard'\?"
    with pytest.raises(influent.ConfigError, match=message):
        tracking.open_tracker("tensorbord", tmp_path / "run", name="additive")


def test_a_model_that_counts_has_no_epochs_to_track(run):
    with pytest.raises(influent.ConfigError, match="'counts' only counts; .* and has no epochs to track"):
        steps.fit_run(run, kind="counts", track=["tensorboard"])


@pytest.mark.parametrize(("tracker", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow")])
def test_a_tracker_that_is_not_installed_says_what_to_install(tracker, module, run, monkeypatch):
    for name in [name for name in sys.modules if name == module or name.startswith(module + ".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(influent.MissingExtraError, match=rf"needs {tracker}: pip install 'influent\[{tracker}\]'"):
        steps.fit_run(run, model=TINY, train=SHORT, track=[tracker])


def test_ours_have_the_methods_of_a_tracker(tmp_path):
    assert isinstance(influent.JsonLines(tmp_path / "lines.jsonl"), influent.Tracker)
    assert isinstance(Heard(), influent.Tracker)


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its protocol buffers'
def test_tensorboard_can_read_what_was_told(split, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = influent.TensorBoard(tmp_path / "board")
    model = predictor().fit(split.train, split.validation, trackers=[board])
    found = EventAccumulator(str(tmp_path / "board"))  # before it is closed: a kill loses nothing
    found.Reload()
    scores = [(event.step, event.value) for event in found.Scalars("validation_ndcg@10")]
    assert scores == [(e["epoch"], pytest.approx(e["validation_ndcg@10"], abs=1e-6)) for e in model.log.epochs]
    board.close()


@needs("mlflow")
@pytest.mark.filterwarnings("ignore")  # of what it imports
def test_mlflow_can_read_what_was_told(split, tmp_path):
    from mlflow.tracking import MlflowClient

    flow = influent.Mlflow(tmp_path / "flow", name="additive", settings={"dropout": 0.1})
    model = predictor().fit(split.train, split.validation, trackers=[flow])
    flow.close()
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'flow' / 'mlflow.db'}")
    [found] = client.search_runs([client.get_experiment_by_name("influent").experiment_id])
    scores = [metric.value for metric in client.get_metric_history(found.info.run_id, "validation_ndcg_10")]
    assert scores == [epoch["validation_ndcg@10"] for epoch in model.log.epochs]
    assert (found.info.status, found.data.params) == ("FINISHED", {"dropout": "0.1"})
