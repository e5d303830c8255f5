"""What is given by mistake is refused with what would be right, in the words of the argument."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import influent
from influent import ConfigError, DataError
from influent.data.questions import LabelConfig

SMALL = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=10)


@pytest.fixture(scope="module")
def log():
    world = influent.simulate_world(influent.WorldConfig(n_users=30, n_items=12, n_topics=2, horizon_days=30))
    return influent.build_sequences(influent.clean(influent.read_events(world.events), drop_duplicates=False))


@pytest.fixture(scope="module")
def split(log):
    return influent.split_last(log)


@pytest.fixture(scope="module")
def counts(split):
    return influent.DecayedCounts().fit(split.train)


def test_a_split_or_a_log_is_not_a_list_of_moments(log, split, counts):
    for wrong in (log, split):
        for ask in (
            lambda wrong=wrong: influent.explain(counts, wrong),
            lambda wrong=wrong: influent.recommend(counts, wrong),
            lambda wrong=wrong: influent.evaluate([counts], wrong),
            lambda wrong=wrong: influent.explain_difference(counts, wrong, split.test),
        ):
            with pytest.raises(ConfigError, match=r"must be of the type Moments.* Got (Sequences|Split)"):
                ask()
    with pytest.raises(ConfigError, match="'train' parameter must be of the type Sequences or Labels.* Got Split"):
        influent.Predictor(model=SMALL).fit(split)


def test_one_text_is_not_a_list_of_letters(log, split, counts):
    for ask, name in (
        (lambda: influent.moments_of(log, "u0001"), "user_ids"),
        (lambda: influent.moments_at(log, "u0001", [1]), "user_ids"),
        (lambda: influent.split_last(log, actions="purchase"), "actions"),
        (lambda: influent.recommend(counts, split.test, candidates="i001"), "candidates"),
        (lambda: influent.explain(counts, split.test, items="i001"), "items"),
        (lambda: influent.explain(counts, split.test, items={"i001"}), "items"),
        (lambda: influent.explain(counts, split.test, items=3), "items"),
        (lambda: influent.evaluate([counts], split.test, k=10), "k"),
        (lambda: influent.split_users(log, test=None), "test"),
        (lambda: influent.evaluate_labels(counts, split.test), "models"),
    ):
        with pytest.raises(ConfigError, match=f"The '{name}' parameter must be a list"):
            ask()


def test_users_are_named_by_their_places_where_places_are_asked_for(log):
    for wrong in (np.array(["u0001"]), [log.n_users], [-1]):
        with pytest.raises(ConfigError, match=r"places of users, 0 to 29. Of ids: moments_of"):
            influent.latest_moments(log, wrong)
    assert len(influent.latest_moments(log, [])) == 0


def test_moments_in_another_unit_are_told_from_moments_before_the_log(log):
    user, middle_us = log.vocab.users.ids[0].as_py(), int(np.median(log.time_us))
    for size, unit in ((1_000_000, "seconds"), (1_000, "milliseconds")):
        with pytest.raises(ConfigError, match=f"within it if it counts {unit}"):
            influent.moments_at(log, [user], [middle_us // size])
    with pytest.raises(ConfigError, match="in microseconds since 1970, as whole numbers. Got"):
        influent.moments_at(log, [user], ["2024-01-10"])
    before_all = influent.moments_at(log, [user], [int(log.time_us.min()) - 86_400_000_000])
    assert before_all.stop.tolist() == before_all.start.tolist()


def test_numbers_out_of_range_are_refused(split, counts):
    for ask, message in (
        (lambda: influent.evaluate([counts], split.test, n_resamples=0), r"'n_resamples' .* \[1, inf\)"),
        (lambda: influent.explain(counts, split.test, top=True), r"'top' parameter must be an int"),
        (lambda: influent.explain(counts, split.test, contrast=True), "'contrast' parameter of explain must be an int"),
        (lambda: influent.split_users(split.train, seed=-1), r"'seed' parameter must be an int in the range \[0"),
        (lambda: influent.DecayedCounts(window=-1), r"'window' parameter must be an int in the range \[1"),
        (lambda: influent.DecayedCounts(max_len=0), r"'max_len' parameter must be an int in the range \[1"),
        (lambda: influent.DecayedCounts(decay=20), r"'decay' parameter must be a number in \[0.0, 1.0\]. Got 20"),
        (lambda: influent.ItemKNN(n_neighbours=-3), r"'n_neighbours' parameter must be an int in the range \[1"),
        (lambda: influent.Ease(l2=-5.0), r"'l2' parameter must be a number in \(0.0, inf\]. Got -5.0"),
        (lambda: influent.RecentPopularity(last_days=float("nan")), "'last_days' parameter must be a number"),
    ):
        with pytest.raises(ConfigError, match=message):
            ask()


def test_settings_and_blocks_of_another_type_are_refused(split):
    with pytest.raises(ConfigError, match=r"'model' parameter must be of the type ModelConfig.* Got str"):
        influent.Predictor(model="sasrec")
    with pytest.raises(ConfigError, match=r"'train' parameter must be of the type TrainConfig.* Got dict"):
        influent.Predictor(train={"epochs": 3})
    block = influent.ItemVectors(
        name="image", vectors=np.ones((12, 2), np.float32), is_known=np.ones(12, bool), source=""
    )
    with pytest.raises(ConfigError, match="'vectors' parameter must be a list|must be of the type ItemVectors"):
        influent.Predictor(model=SMALL).fit(split.train, split.validation, vectors=block)
    with pytest.raises(ConfigError, match=r"'vectors' parameter must be of the type ItemVectors.* Got ndarray"):
        influent.Predictor(model=SMALL).fit(split.train, split.validation, vectors=[block.vectors])


def test_what_a_model_is_not_for_is_said(log, split, counts):
    with pytest.raises(ConfigError, match="compare measures models that score items. Got LogisticRegression"):
        influent.compare([influent.LogisticRegression()], split)
    with pytest.raises(ConfigError, match="'models' parameter must be of the type NextEventModel"):
        influent.evaluate_times([counts], split.test, unit_s=3600)
    with pytest.raises(ConfigError, match="'labels' parameter must be of the type Labels"):
        influent.evaluate_labels([influent.LogisticRegression()], split.test)
    with pytest.raises(ConfigError, match="'train' parameter must be of the type Labels"):
        influent.LogisticRegression().fit(log)
    with pytest.raises(ConfigError, match="'found' parameter must be of the type Journeys"):
        influent.attribute(influent.explain(counts, split.test))


def test_an_outcome_is_named_and_a_channel_is_one_thing(log, split, counts):
    ledger = influent.explain(counts, split.test)
    for nothing in ([], None):
        with pytest.raises(ConfigError, match="'outcome' must name an action"):
            influent.journeys(ledger, log, outcome=nothing)
    with pytest.raises(ConfigError, match="'by' must be the name of a factor"):
        influent.journeys(ledger, log, outcome="purchase", by=["action"])
    with pytest.raises(DataError, match="end at the explained moments, so what came next is not in them"):
        influent.journeys(ledger, split.train_and_validation, outcome="purchase")
    with pytest.raises(ConfigError, match="names no action"):
        influent.will_do(log, "2024-01-10", horizon_days=3, actions=[])


def test_questions_that_nothing_can_be_learned_of_are_refused(log):
    everybody = influent.will_do(log, "2024-01-02", horizon_days=25)
    same = everybody.take(np.flatnonzero(everybody.label == 1))
    other = influent.will_do(log, "2024-01-10", horizon_days=3)
    model = influent.Predictor(task="classification", model=SMALL)
    with pytest.raises(
        DataError, match=r"training labels of 'event within 25 days' are 1: there is nothing to tell apart"
    ):
        model.fit(same)
    with pytest.raises(DataError, match="learns 'event within 3 days .*', and validation asks 'event within 25 days"):
        model.fit(other, everybody)


def test_questions_of_one_name_are_told_apart(log):
    asked = influent.will_do(log, "2024-01-10", horizon_days=3, name="churn")
    others = (
        influent.will_do(log, "2024-01-10", horizon_days=9, absent=True, name="churn"),
        replace(asked, kind="regression", unit="value"),
    )
    models = (
        influent.LogisticRegression().fit(asked),
        influent.Predictor(task="classification", model=SMALL, train=influent.TrainConfig(epochs=1)).fit(asked),
    )
    for model in models:
        assert len(model.predict(asked)) == len(asked)
        for other in others:
            with pytest.raises(DataError, match=r"fitted on 'churn' as: event within 3 days .* called the same, ask: "):
                model.predict(other)


def test_a_cutoff_of_nothing_is_not_the_default(log):
    with pytest.raises(ConfigError, match="a cut must be a time"):
        LabelConfig(ask="will_do", horizon="3d", cutoff=0).split(log)


def test_what_the_social_part_is_given_in_place_of_its_own_types_is_named(log, counts):
    graph = influent.read_edges(pa.table({"source_user_id": ["u0001"], "target_user_id": ["u0002"]}))
    for ask, wanted in (
        (lambda: influent.choose_seeds(graph, 1), "Spread"),
        (lambda: influent.expected_reach(graph, ["u0001"]), "Spread"),
        (lambda: influent.choose_seeds_by_credit(graph, graph, 2), "Events"),
        (lambda: influent.build_cascades(graph), "Sequences or Events"),
        (lambda: influent.split_cascades(log), "Cascades"),
        (lambda: influent.evaluate_next_actor([influent.ActorCounts()], log), "NextActs"),
        (lambda: influent.ActorIntensity().fit(log), "NextActs"),
        (lambda: influent.explain_causes(counts, log), "Social"),
        (lambda: influent.find_tie_artefacts(graph, log), "Ties"),
    ):
        with pytest.raises(ConfigError, match=f"must be of the type {wanted}, as from"):
            ask()
    with pytest.raises(ConfigError, match="The 'models' parameter must be a list"):
        influent.evaluate_next_actor(influent.ActorCounts(), log)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: influent.ActorCounts(half_life_days=0), "half_life_days"),
        (lambda: influent.ActorCounts(window=0), "window"),
        (lambda: influent.ActorCounts(decay=5.0), "decay"),
        (lambda: influent.ExperimentConfig(probabilities=0.5), "must be a tuple of chances"),
        (lambda: influent.PlantedCredits(noise=-1), "noise"),
        (lambda: influent.PlantedCredits(shares={"view": 0.5, "cart": 0.2, "purchase": 0.1}), "add up to 1"),
        (lambda: influent.PlantedCredits(changed_actions=("vew",), change_day=3.0), "Did you mean 'view'"),
    ],
)
def test_settings_that_mean_nothing_are_refused_when_they_are_made(make, said):
    with pytest.raises(ConfigError, match=said):
        make()
