"""What a ledger says of how true it is holds for what that ledger explains: scores, margins, answers, gaps."""

import json
from functools import partial

import numpy as np
import pyarrow as pa
import pytest

import influent
from influent import ModelConfig, Predictor, TrainConfig, WorldConfig

SMALL = {"model": ModelConfig(embedding_dim=8, n_heads=2, max_len=20), "train": TrainConfig(epochs=2, device="cpu")}


@pytest.fixture(scope="module")
def log():
    world = influent.simulate_world(WorldConfig(n_users=80, n_items=30))
    return influent.build_sequences(influent.clean(influent.read_events(world.events)))


@pytest.fixture(scope="module")
def split(log):
    return influent.split_last(log)


@pytest.fixture(scope="module")
def model(split):
    return Predictor(**SMALL).fit(split.train, split.validation)


@pytest.mark.parametrize("asked", [{}, {"contrast": 5}, {"items": ["i003"], "against": "i001"}])
def test_exact_credits_are_what_masking_takes_from_scores_and_from_margins(model, split, asked):
    note = influent.audit(influent.explain(model, split.test, **asked), model, split).note
    assert note.removal_agreement >= 1 - 1e-6
    assert note.split == split.hash


def test_margins_have_an_agreement_of_their_own(model, split):
    found = [
        influent.audit(influent.explain(model, split.test, method="gradient", contrast=contrast), model, split)
        for contrast in (None, 5)
    ]
    assert found[0].note.removal_agreement != found[1].note.removal_agreement
    assert "takes from the score correlate" in found[0].statement()[1]
    assert "takes from the margin correlate" in found[1].statement()[1]


def test_of_leaving_out_it_is_said_that_it_is_so_by_construction(model, split):
    ledger = influent.audit(influent.explain(model, split.test, method="leave_one_out"), model, split)
    assert ledger.note.removal_agreement is None
    assert ledger.statement()[1] == "Each credit is what masking its event takes away, since that is how it is come by."


def test_what_has_no_credit_has_no_agreement_and_the_file_is_json(split, tmp_path):
    popularity = influent.Popularity().fit(split.train)
    ledger = influent.audit(influent.explain(popularity, split.test), popularity, split)
    ledger.save(tmp_path)
    about = json.loads((tmp_path / "ledger.json").read_text(), parse_constant=pytest.fail)
    assert about["removal_agreement"] is None
    assert about["shares"] == {"bias": 1.0, "event": 0.0}
    assert "was not measured" in about["statement"][1]


def test_gaps_have_one(split):
    timed = Predictor(task="time", **SMALL).fit(split.train, split.validation)
    assert influent.audit(influent.explain_gap(timed, split.test), timed, split).note.removal_agreement >= 1 - 1e-6


def test_answers_have_one_and_credits_of_features_none(log):
    asked = partial(influent.will_do, log, horizon_days=7, actions="purchase")
    labels = influent.split_labels_at(asked, "2024-02-10", n_cutoffs=2)
    model = Predictor(task="classification", **SMALL).fit(labels.train, labels.validation)
    found = influent.audit(influent.explain(model, labels.test), model, labels)
    assert found.note.removal_agreement >= 1 - 1e-6
    assert found.note.split == labels.hash
    logistic = influent.LogisticRegression().fit(labels.train)
    assert influent.audit(influent.explain(logistic, labels.test), logistic, labels).note.removal_agreement is None


def test_what_was_made_of_a_ledger_carries_its_statement(model, split):
    ledger = influent.audit(influent.explain(model, split.test), model, split)
    found = influent.factors(ledger, rank=False)
    assert found.about["statement"] == ledger.statement()
    assert f"split {split.hash}" in found.about["statement"][0]


def test_parts_of_what_is_read_whole_are_refused(split):
    counts = influent.DecayedCounts().fit(split.train)
    with pytest.raises(influent.ConfigError, match="a counts model reads events as wholes"):
        influent.explain(counts, split.test, by_part=True)


def test_an_ensemble_fades_as_its_members_do_on_average(split):
    ensemble = influent.Ensemble(Predictor(**SMALL), n_members=2).fit(split.train, split.validation)
    moments, items, gaps = split.test.take(slice(0, 5)), np.zeros(5, int), np.array([60.0, 86_400.0])
    faded = [member.faded_credits(moments, items, gaps) for member in ensemble.members]
    assert np.allclose(ensemble.faded_credits(moments, items, gaps), (faded[0] + faded[1]) / 2)
    ledger = influent.explain(ensemble, influent.split_at(split.train, 0.6).test)
    found = influent.drift(ledger, sequences=split.train, model=ensemble, n_resamples=100)
    assert set(found.half_lives.column("from").to_pylist()) == {"ledger", "kernels"}


@pytest.mark.parametrize("wrong", [None, "ledger", pa.table({"a": [1]})])
def test_what_is_no_ledger_is_refused(model, split, wrong):
    for function in (influent.evidence, influent.factors, influent.drift):
        with pytest.raises(influent.ConfigError, match="'ledger' parameter must be of the type Ledger"):
            function(wrong)
    with pytest.raises(influent.ConfigError, match="'ledger' parameter must be of the type Ledger"):
        influent.audit(wrong, model, split)
