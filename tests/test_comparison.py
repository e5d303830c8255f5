"""Models side by side: what is measured is true, a kill costs one model, and the test is read last."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import influent
from influent import choose, steps
from influent.evaluation import comparison
from influent.evaluation.measure import Costs, CreditCheck, How, Measured, check_credits, measure, sample
from influent.evaluation.report import Measure, Report
from influent.influence.ledger import TOLERANCE
from influent.models.kinds import from_plain, new_models, read_settings, to_plain
from influent.run import Run

TINY = {"embedding_dim": 4, "n_heads": 1, "n_layers": 1, "max_len": 5, "dropout": 0.1}
SHORT = influent.TrainConfig(epochs=1, batch_size=16, device="cpu")


def tiny_log():
    """Twenty users with six events over eight items."""
    rng = np.random.default_rng(11)
    return pa.table({"user_id": np.repeat(np.arange(20), 6), "item_id": rng.integers(0, 8, 120)})


def learner(**settings):
    return influent.Predictor(model=influent.ModelConfig(**{**TINY, **settings}), train=SHORT)


class Own(influent.DecayedCounts):
    """A model that only its author knows; it notes what it learned from."""

    KIND = "own"

    def fit(self, train, validation=None, *, progress=None):
        self.heard = (train, validation)
        return super().fit(train, validation, progress=progress)


class OwnEase(influent.Ease):
    """Another one; only models of our own kinds have a process of their own."""


@pytest.fixture(scope="module")
def split():
    return influent.split_last(influent.build_sequences(influent.read_events(tiny_log())))


def how(split, **changes):
    settings = {"k": (10,), "seen": "keep", "refit": False, "n_explained": 50, "protocol": "", "split": split.hash}
    return How(**{**settings, **changes})


def measured_here(model, split, **changes):
    validation = split.validation.within(split.train_and_validation)
    return measure(model, split.train, validation, lambda: split.test, how(split, **changes))


@pytest.fixture(scope="module")
def report(split):
    """The one comparison here that starts processes."""
    models = {"counts": influent.DecayedCounts(), "box": learner(backbone="sasrec"), "own": Own()}
    models["too large"] = OwnEase(max_items=7)
    return influent.compare(models, split, k=(3, 5), seen="keep", n_explained=10)


def test_each_model_has_its_row_and_its_accuracy_is_that_of_evaluate(report, split):
    model = influent.DecayedCounts().fit(split.train)
    alone = influent.evaluate([model], split.test, k=(3, 5), seen="keep").rows["counts"]
    assert list(report.accuracy.rows) == list(report.costs) == list(report.credits) == ["counts", "box", "own"]
    assert report.accuracy.rows["counts"] == report.accuracy.rows["own"] == alone
    assert [row[0] for row in report.cells()] == ["model", "counts", "box", "own"]
    assert report.cells()[0][1:5] == ["HR@3", "NDCG@3", "HR@5", "NDCG@5"]


def test_a_model_that_cannot_be_fitted_is_named_with_the_reason(report):
    assert list(report.failed) == ["too large"]
    assert "EASE inverts a matrix over all 8 items" in report.failed["too large"]
    assert "Not in the table: too large: EASE" in report.to_markdown()


def test_memory_is_that_of_a_process_of_its_own(report):
    counts, box = report.costs["counts"], report.costs["box"]
    assert 0 < counts.memory_before_bytes <= counts.peak_memory_bytes < box.peak_memory_bytes  # one without torch
    assert report.costs["own"].peak_memory_bytes is None
    assert report.cells()[3][6] == "–"


def test_memory_is_not_what_the_process_before_held():
    hoard = bytearray(os.urandom(1 << 20)) * 400
    code = "from influent.evaluation.measure import peak_memory_bytes; print(peak_memory_bytes())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(said) < len(hoard)


def test_exact_credits_come_out_exact_and_those_of_a_black_box_leave_something_over(report):
    counts, box = report.credits["counts"], report.credits["box"]
    assert counts.exactness == "exact"
    assert max(counts.largest_gap, counts.latest_removal_gap, counts.any_removal_gap) <= TOLERANCE
    assert (counts.mean_residual, box.exactness) == (0.0, "estimated")
    assert box.mean_residual > 0
    # What leaving an event out takes away is what its credit was estimated by.
    assert max(box.largest_gap, box.latest_removal_gap, box.any_removal_gap) <= TOLERANCE


def test_credits_that_close_and_are_no_removals_show_it(split):
    model = learner(gate="query", count_len=0)
    model.train = replace(model.train, epochs=30)
    model.fit(split.train, split.validation)
    some = sample(split.test, 20)
    check = check_credits(model, some, influent.explain(model, some))
    assert check.exactness == "closes"
    assert (check.mean_residual, check.largest_gap <= TOLERANCE) == (0.0, True)
    assert check.latest_removal_gap > TOLERANCE


def test_a_credit_that_is_no_removal_is_measured_as_large_as_it_is(split):
    model = influent.Markov().fit(split.train)
    some = sample(split.test, 20)
    ledger = influent.explain(model, some)
    credit = ledger.table.column("credit").to_numpy() * np.where(ledger.table.column("lag").is_valid(), 3, 1)
    wrong = replace(ledger, table=ledger.table.set_column(13, "credit", pa.array(credit)))
    check = check_credits(model, some, wrong)
    # Markov reads one event: three times its credit is off by twice the credit.
    assert check.latest_removal_gap == pytest.approx(2 / 3 * check.mean_credit)


def test_a_sample_has_one_moment_a_user_spread_evenly(split):
    assert sample(split.test, 3).user_idx.tolist() == [0, 10, 19]  # 9.5 rounds to the even
    assert len(sample(split.test, 1000)) == 20
    twice = split.test.take(np.array([4, 4, 7]))
    assert sample(twice, 10).user_idx.tolist() == [4, 7]
    with pytest.raises(influent.DataError, match="no test moment has a history"):
        sample(influent.moments_of(split.train, [99]), 5)


def test_no_model_sees_the_test_before_it_has_learned(split):
    model, order = Own(), []

    def test():
        order.append(model.fitted_on)
        return split.test

    validation = split.validation.within(split.train_and_validation)
    measure(model, split.train, validation, test, how(split))
    train, heard = model.heard
    assert order == [split.train.fingerprint]
    assert (len(train), len(heard.sequences)) == (4 * 20, 5 * 20)


def test_a_process_reads_the_test_after_the_fit(split, tmp_path):
    for part in ("train", "validation"):
        (tmp_path / part).mkdir()
    split.train.save(tmp_path / "train")
    split.validation.within(split.train_and_validation).save(tmp_path / "validation")
    job = {"model": to_plain(influent.Popularity()), "how": vars(how(split)), "split": str(tmp_path)}
    (tmp_path / "job.json").write_text(json.dumps(job))
    lines = []

    class Listener(influent.Progress):
        def say(self, line):
            lines.append(line)

    result = comparison._run("popularity", tmp_path, Listener())
    assert "test/moments.parquet is missing" in result["error"]
    assert lines[0].startswith("popularity: fit popularity: 1 of 1")


def test_measuring_twice_finds_the_same_but_for_the_time(split):
    one, other = (measured_here(learner(), split) for _ in range(2))
    assert (one.accuracy, one.credits) == (other.accuracy, other.credits)


def test_refit_judges_models_that_also_learned_from_validation(split):
    measured = measured_here(influent.Popularity(), split, refit=True)
    refitted = influent.Popularity().fit(split.train).refit(split.train_and_validation)
    assert measured.accuracy.rows == influent.evaluate([refitted], split.test, seen="keep").rows
    first = influent.Popularity().fit(split.train)
    assert measured.before_refit == influent.evaluate([first], split.test, seen="keep").rows["popularity"]
    assert Measured.from_dict(json.loads(json.dumps(measured.to_dict()))) == measured
    report = influent.compare([influent.Popularity()], split, seen="keep", refit=True, n_explained=5)
    assert [row[0] for row in report.cells()] == ["model", "popularity", "popularity, before"]
    assert report.cells()[2][1] == str(measured.before_refit["HR@10"])

    class Stubborn(Own):
        refit = None

    with pytest.raises(influent.ConfigError, match="has no method refit. Compare without refit"):
        measured_here(Stubborn(), split, refit=True)


def test_what_was_measured_reads_back_the_same(split):
    measured = measured_here(influent.Popularity(), split)
    assert Measured.from_dict(json.loads(json.dumps(measured.to_dict()))) == measured


def test_a_comparison_that_was_killed_goes_on_with_the_next_model(split, tmp_path, monkeypatch):
    result = {"measured": measured_here(influent.Popularity(), split).to_dict()}
    runs, models = [], {"one": influent.Popularity(), "two": influent.DecayedCounts(), "three": influent.Markov()}

    def run(name, job, progress):
        runs.append(name)
        if runs == ["one", "two"]:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(comparison, "_run", run)
    with pytest.raises(KeyboardInterrupt):
        influent.compare(models, split, keep=tmp_path / "kept")
    report = influent.compare(models, split, keep=tmp_path / "kept")
    assert runs == ["one", "two", "two", "three"]
    assert list(report.costs) == ["one", "two", "three"]
    influent.compare(models, split, seen="keep", keep=tmp_path / "kept")  # another question: all are asked
    assert runs[4:] == ["one", "two", "three"]
    for kept in (tmp_path / "kept").iterdir():
        kept.write_text("half a f")
    influent.compare({"one": models["one"]}, split, keep=tmp_path / "kept")
    assert runs[7:] == ["one"]


def test_a_process_that_dies_is_named_with_how_it_ended(split, monkeypatch):
    monkeypatch.setattr(comparison.sys, "executable", "/bin/false")
    with pytest.raises(influent.DataError, match="no model could be measured. popularity: .* ended with code 1"):
        influent.compare([influent.Popularity()], split)


def priced(**models):
    """Return a comparison of models with these exactnesses and NDCG@10s."""
    costs = Costs(fit_seconds=1, peak_memory_bytes=1, memory_before_bytes=1, score_ms=1, explain_ms=1)
    check = CreditCheck(
        exactness="exact", largest_gap=0, mean_residual=0, latest_removal_gap=0, any_removal_gap=0, mean_credit=0
    )
    rows = {name: {"NDCG@10": Measure(mean, mean - 0.01, mean + 0.01)} for name, (_, mean) in models.items()}
    return influent.ComparisonReport(
        accuracy=Report("by hand", "", "keep", 1, 0.0, 0.0, rows),
        costs=dict.fromkeys(models, costs),
        credits={name: replace(check, exactness=exactness) for name, (exactness, _) in models.items()},
        failed={},
        is_refitted=False,
        before_refit={},
        n_explained=1,
        machine={"processor": "", "cores": 1, "OMP_NUM_THREADS": "1"},
    )


def test_the_price_of_exactness_is_what_the_best_exact_model_lacks_to_the_best_black_box():
    table = priced(sum=("exact", 0.20), poor=("exact", 0.1), gated=("closes", 0.24), box=("estimated", 0.25))
    assert table.price() == (
        "The price of exactness: best exact model (sum, 0.2000) against best black box (box, 0.2500): −20.0 % NDCG@10."
    )
    close = priced(sum=("exact", 0.101), box=("estimated", 0.1))
    assert close.price().endswith("(box, 0.1000): +1.0 % NDCG@10; the 95 % intervals overlap.")
    assert priced(sum=("exact", 0.1)).price().endswith("cannot be told: no black box is among these.")
    assert priced(box=("estimated", 0.1)).price().endswith("cannot be told: no exact model is among these.")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": []}, "at least one model"),
        ({"models": [influent.Popularity(), influent.Popularity()]}, r"no two of one name. Got .*Name them yourself"),
        ({"k": ()}, "'k' parameter"),
        ({"seen": "maybe"}, "'seen' parameter of compare must be 'exclude' or 'keep'"),
        ({"n_explained": 0}, "'n_explained' parameter of compare must be an int in the range"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_fitted(split, options, message):
    models = options.pop("models", [influent.Popularity()])
    with pytest.raises(influent.ConfigError, match=message):
        influent.compare(models, split, **options)


def test_a_model_is_told_to_its_process_in_plain_words():
    for model in (learner(backbone="hstu"), influent.Ease(l2=3.0), influent.Predictor(task=("ranking", "time"))):
        again = from_plain(json.loads(json.dumps(to_plain(model))))
        assert (type(again), again.settings()) == (type(model), model.settings())
    ensemble = influent.Ensemble(learner(), n_members=2)
    again = from_plain(json.loads(json.dumps(to_plain(ensemble))))
    assert (len(again.members), again.base.settings()) == (2, ensemble.base.settings())
    assert to_plain(Own()) is None


def test_models_are_asked_for_by_name_each_with_a_file_of_its_own(tmp_path):
    (tmp_path / "wide.toml").write_text('[model]\nbackbone = "additive"\nembedding_dim = 32\n[train]\nepochs = 7\n')
    shared = {"model": {"max_len": 9}, "train": {"epochs": 5}}
    wins = {"model": {}, "train": {"seed": 3}}
    asked = ["additive", f"additive={tmp_path / 'wide.toml'}", "counts"]
    models = new_models(asked, shared=shared, wins=wins)
    assert list(models) == ["additive", "additive (wide)", "counts"]
    plain, wide = models["additive"], models["additive (wide)"]
    assert (plain.model.embedding_dim, wide.model.embedding_dim) == (64, 32)
    assert (plain.train.epochs, wide.train.epochs, wide.model.max_len, wide.train.seed) == (5, 7, 9, 3)
    for wrong, message in {
        f"sasrec={tmp_path / 'wide.toml'}": "settings are of the model 'additive', and 'sasrec' is asked for",
        f"counts={tmp_path / 'wide.toml'}": "settings are of the model 'additive', and 'counts' is asked for",
        "sasrek": r"there is no model 'sasrek'.*Did you mean 'sasrec'\?",
        "additive=nothing.toml": "nothing.toml cannot be read as TOML",
    }.items():
        with pytest.raises(influent.ConfigError, match=message):
            new_models([wrong], shared={}, wins={})
    with pytest.raises(influent.ConfigError, match="'counts' is asked for twice"):
        new_models(["counts", "counts"], shared={}, wins={})


def test_a_file_of_settings_may_only_have_the_sections_that_are_read(tmp_path):
    (tmp_path / "tune.toml").write_text("[space]\ndropout = [0.1, 0.2]\n")
    assert read_settings(tmp_path / "tune.toml", ("model", "space")) == {"space": {"dropout": [0.1, 0.2]}}
    with pytest.raises(influent.ConfigError, match=r"has 'space'. It may have the sections \[model\] and \[train\]"):
        read_settings(tmp_path / "tune.toml")


@pytest.fixture
def run(tmp_path):
    steps.clean_log(tiny_log(), tmp_path / "run", rules={"drop_duplicates": False})
    return tmp_path / "run"


def test_a_comparison_stands_beside_the_model_of_a_run(run):
    steps.fit_run(run, kind="counts", split=steps.SplitConfig(actions=("event",)))
    steps.evaluate_run(run)
    report = choose.compare_run(run, {"mine": Own()}, seen="keep")
    assert {"evaluate", "fit", "compare"} <= set(Run.open(run).steps)
    assert Run.open(run).steps["compare"]["settings"]["split"]["actions"] == ["event"]  # as the model was split
    assert json.loads((run / "comparison.json").read_text())["credits"]["mine"]["exactness"] == "exact"
    assert (run / "comparison.md").read_text() == report.to_markdown()
    steps.fit_run(run, kind="markov")
    assert set(Run.open(run).steps) == {"clean", "fit", "compare"}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes where Linux lists them")
def test_a_comparison_whose_process_is_killed_leaves_no_process_and_goes_on(run):
    command = [sys.executable, "-c", "from influent.cli import main; main()", "compare", str(run), "--seen", "keep"]
    command += ["--model", "counts", "--model", "markov"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept, children = run.parent / ".run.comparison", Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and not (kept.is_dir() and any(kept.glob("*.json"))):
        time.sleep(0.01)
    child = wait_for(lambda: children.read_text().split())
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not is_running(child[0]))
    assert "comparison.md" not in os.listdir(run)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "counts: measured before, and kept in" in again.stderr
    assert "markov: fit" in again.stderr
    assert "The price of exactness cannot be told: no black box is among these." in again.stdout
    assert not kept.exists()


def is_running(pid):
    """Tell whether a process is there and has not ended, whoever is to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(found, seconds=20):
    """Return what `found` finds, as soon as it finds something."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if something := found():
            return something
        time.sleep(0.01)
    raise AssertionError("nothing came")


def test_of_users_whose_every_event_is_a_moment_the_latest_is_looked_at():
    log = {"user_id": np.repeat(np.arange(6), 5), "item_id": np.tile(np.arange(5), 6)}
    sequences = influent.build_sequences(influent.read_events(pa.table(log)))
    split = influent.split_users(sequences, test=[0, 1, 2], validation=[3])
    found = sample(split.test, 2)
    # Of the first and the last of three users: four events, and then the fifth.
    assert (found.stop - found.start).tolist() == [4, 4]
    assert found.user_idx.tolist() == [0, 2]
