"""An ensemble is the mean of its members, in its scores and in its credits."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import influent
from influent.cli import app
from tests.contracts.test_models import SHORT, SMALL, small_split
from tests.test_tracking import Heard


@pytest.fixture(scope="module")
def split():
    return small_split(True)


@pytest.fixture(scope="module")
def fitted(split):
    return influent.Ensemble(influent.Predictor(model=SMALL, train=SHORT)).fit(split.train, split.validation)


def test_members_differ_in_their_seed_alone(fitted):
    assert [member.train.seed for member in fitted.members] == [0, 1, 2]
    assert len({member.model for member in fitted.members}) == 1
    assert fitted.name == "3 × additive"


def test_a_score_is_the_mean_of_the_members_scores(fitted, split):
    scores = [member.predict(split.test) for member in fitted.members]
    assert np.allclose(fitted.predict(split.test), np.mean(scores, axis=0), atol=1e-6)
    assert not np.allclose(scores[0], scores[1])


def test_a_credit_is_the_mean_of_the_members_credits(fitted, split):
    candidates = np.zeros((len(split.test), 1), np.int64)
    credits = [member.credits(split.test, candidates) for member in fitted.members]
    whole = fitted.credits(split.test, candidates)
    assert np.allclose(whole.credit, np.mean([one.credit for one in credits], axis=0), atol=1e-12)
    assert np.allclose(sum(whole.parts.values()), whole.credit, atol=1e-9)
    assert whole.n_passes == 3 * len(split.test)


def test_a_ledger_of_an_ensemble_closes_against_rivals_too(fitted, split):
    assert fitted.exactness == "exact"
    assert influent.explain(fitted, split.test).largest_gap() < 1e-5
    assert influent.explain(fitted, split.test, contrast=2).largest_gap() < 1e-5


def test_errors_of_drawn_credits_shrink_with_the_members(split):
    box = influent.Predictor(model=influent.ModelConfig(backbone="gru", embedding_dim=4, max_len=4), train=SHORT)
    fitted = influent.Ensemble(box, n_members=2).fit(split.train, split.validation)
    how = influent.CreditMethod(name="shapley", n_samples=4, seed=0)
    candidates = np.zeros((len(split.test), 1), np.int64)
    errors = [member.credits(split.test, candidates, method=how).error for member in fitted.members]
    whole = fitted.credits(split.test, candidates, method=how)
    assert np.allclose(whole.error, np.sqrt(errors[0] ** 2 + errors[1] ** 2) / 2)


def test_a_fit_that_was_stopped_goes_on_from_its_members_checkpoints(split, tmp_path):
    base = influent.Predictor(model=SMALL, train=SHORT)
    whole = influent.Ensemble(base, n_members=2).fit(split.train, split.validation)
    # The first member was done, and its checkpoint is there.
    base_again = influent.Predictor(model=SMALL, train=SHORT)
    base_again.fit(split.train, split.validation, checkpoint=tmp_path / "member_0.safetensors")
    resumed = influent.Ensemble(base, n_members=2).fit(split.train, split.validation, checkpoint=tmp_path)
    assert np.array_equal(resumed.predict(split.test), whole.predict(split.test))


def test_a_tracker_hears_of_every_member_under_its_name(split):
    heard = Heard()
    base = influent.Predictor(model=SMALL, train=SHORT)
    fitted = influent.Ensemble(base, n_members=2).fit(split.train, split.validation, trackers=[heard])
    expected = [
        (epoch["epoch"], {f"member_{place}_{name}": value for name, value in epoch.items() if name != "epoch"})
        for place, member in enumerate(fitted.members)
        for epoch in member.log.epochs
    ]
    assert heard.epochs == expected
    assert not heard.is_closed


def test_a_refitted_ensemble_has_the_same_number_of_members(fitted, split):
    refitted = fitted.refit(split.train_and_validation)
    assert refitted.name == "3 × additive, refitted"
    assert refitted.fitted_on == split.train_and_validation.fingerprint


def test_an_ensemble_of_nobody_and_of_another_task_is_refused():
    with pytest.raises(influent.ConfigError, match="'n_members'"):
        influent.Ensemble(influent.Predictor(), n_members=0)
    with pytest.raises(influent.ConfigError, match="this predictor is for time"):
        influent.Ensemble(influent.Predictor(task="time"))


def test_what_is_not_fitted_scores_nothing(split):
    with pytest.raises(influent.NotFittedError):
        influent.Ensemble(influent.Predictor(model=SMALL, train=SHORT)).predict(split.test)


def test_the_command_line_fits_judges_and_explains_the_mean_of_several_trainings(tmp_path):
    runner, run = CliRunner(), str(tmp_path / "run")

    def call(*arguments):
        done = runner.invoke(app, list(arguments), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    pq.write_table(influent.simulate_world(influent.WorldConfig(n_users=40, seed=1)).events, tmp_path / "log.parquet")
    (tmp_path / "small.toml").write_text("[model]\nembedding_dim = 4\nn_heads = 1\nmax_len = 4\n")
    call("clean", str(tmp_path / "log.parquet"), "--run", run)
    small = ("--config", str(tmp_path / "small.toml"), "--epochs", "1")
    assert "2 × additive, refitted" in call("fit", run, "--members", "2", "--refit", *small)
    # A later step keeps the members, and nothing that a fit goes on from is left beside the folder.
    call("evaluate", run)
    assert influent.load_model(run).name == "2 × additive, refitted"
    assert not [path.name for path in tmp_path.iterdir() if "checkpoint" in path.name and "lock" not in path.name]
    call("fit", run, *small)
    assert not (tmp_path / "run" / "members").exists()


def test_models_that_count_have_no_members(tmp_path):
    pq.write_table(influent.simulate_world(influent.WorldConfig(n_users=20, seed=1)).events, tmp_path / "log.parquet")
    runner = CliRunner()
    runner.invoke(app, ["clean", str(tmp_path / "log.parquet"), "--run", str(tmp_path / "run")], catch_exceptions=False)
    done = runner.invoke(app, ["fit", str(tmp_path / "run"), "--model", "counts", "--members", "3"])
    assert done.exit_code != 0
    assert "has one member" in done.output + str(done.exception)


def test_new_items_come_to_each_member(split):
    kind = np.eye(2, dtype=np.float32)[np.arange(split.train.vocab.n_items) % 2]
    block = influent.ItemVectors(name="kind", vectors=kind, is_known=np.ones(len(kind), bool), source="a test")
    base = influent.Predictor(model=SMALL, train=SHORT)
    fitted = influent.Ensemble(base, n_members=2).fit(split.train, split.validation, vectors=[block])
    vocab = fitted.vocab.with_items(influent.read_items(pa.table({"item_id": ["new"]})))
    more = replace(block, vectors=np.vstack([kind, kind[:1]]), is_known=np.ones(len(kind) + 1, bool))
    grown = fitted.with_items(vocab, [more])
    moments = replace(split.test, sequences=replace(split.test.sequences, vocab=vocab))
    assert grown.vocab.n_items == len(kind) + 1
    assert np.allclose(grown.predict(moments)[:, :-1], fitted.predict(split.test), atol=1e-6)
