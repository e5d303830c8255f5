"""What scene or device an event was of: a part of its vector and credit, and a line of the score."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import influent
from influent import testing
from influent.models.batch import training_windows

TINY = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=6, dropout=0.0)
QUICK = influent.TrainConfig(epochs=4, batch_size=8, device="cpu")
HOME, SEARCH, SHOP, UNKNOWN = range(4)
"""Codes of the scenes: their places in sorted order, and that of an unknown one."""


def shop_log() -> dict[str, list]:
    """16 users with 6 events each, an hour apart, over 5 items, 3 scenes (a fifth of them missing) and 2 devices."""
    rng = np.random.default_rng(3)
    n = 16 * 6
    return {
        "user_id": np.repeat(np.arange(16), 6).tolist(),
        "item_id": [f"i{item}" for item in rng.integers(0, 5, n)],
        "action": [("view", "buy")[one] for one in rng.integers(0, 2, n)],
        "timestamp": (1_700_000_000 + 3_600 * np.arange(n)).tolist(),
        "scene": [(None, "home", "search", "shop", "home")[one] for one in rng.integers(0, 5, n)],
        "device": rng.integers(7, 9, n).tolist(),
    }


def build(log: dict[str, list], **arguments: object) -> influent.Sequences:
    return influent.build_sequences(influent.read_events(pa.table(log)), **arguments)


@pytest.fixture(scope="module")
def split() -> influent.Split:
    return influent.split_last(build(shop_log(), categories=("scene", "device")))


@pytest.fixture(scope="module")
def model(split) -> influent.Predictor:
    return influent.Predictor(model=TINY, train=QUICK).fit(split.train, split.validation)


# A part of an event


def test_every_category_is_a_part_and_the_parts_of_an_event_add_up_to_its_credit(model, split):
    assert model.exactness == "exact"
    testing.check_model(model, split.test.take(slice(0, 3)))
    whole, by_part = (influent.explain(model, split.test, by_part=each) for each in (False, True))
    rows = by_part.table.to_pylist()
    assert {row["source_name"] for row in rows} == {None, "item", "action", "scene", "device", "counted"}
    for row in whole.of(0).to_pylist():
        if row["source"] == "event":
            parts = [one for one in by_part.of(0).to_pylist() if one["source_event_id"] == row["source_event_id"]]
            assert sum(one["credit"] for one in parts) == pytest.approx(row["credit"], abs=1e-9)


def scene_credits(model: influent.Predictor, moments: influent.Moments) -> np.ndarray:
    """Return what the scene of each event contributes to the first item's score."""
    return model.credits(moments, np.zeros((len(moments), 1), np.int64)).parts["scene"][:, 0]


def test_a_scene_says_something_and_an_unknown_or_masked_one_exactly_nothing(model, split):
    credits = model.credits(split.test, np.zeros((16, 1), np.int64))
    is_known = split.test.sequences.categories[credits.place, 0] >= 0
    assert (credits.parts["scene"][is_known] != 0).all()
    assert (credits.parts["scene"][~is_known] == 0).all()
    masked = replace(split.test, sequences=split.test.sequences.masked(credits.place))
    assert (scene_credits(model, masked) == 0).all()


def test_a_scene_that_the_vocabulary_does_not_hold_contributes_exactly_nothing(model):
    known, unknown, silent = (
        influent.moments_of(
            build(
                {"user_id": [99], "item_id": ["i1"], "device": [7], "scene": pa.array([scene], pa.string())},
                numbers=(),
                vocab=model.vocab,
            ),
            [99],
        )
        for scene in ("shop", "moon", None)
    )
    assert scene_credits(model, known)[0] != 0
    assert scene_credits(model, unknown).tolist() == [0.0]
    assert np.array_equal(model.predict(unknown), model.predict(silent))


def test_what_follows_can_be_learned_from_the_scene_alone():
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 3, 60 * 8)
    # Of each pair of items the first is random, and the second is the one that the scene of the first leads to.
    item = rng.integers(3, 9, 60 * 8)
    item[1::2] = scene[::2]
    log = {"user_id": np.repeat(np.arange(60), 8), "item_id": item, "scene": np.array(["a", "b", "c"])[scene]}
    split = influent.split_last(build(log))
    settings = influent.TrainConfig(epochs=40, patience=40, seen="keep", device="cpu")
    model = influent.Predictor(model=replace(TINY, count_len=0), train=settings).fit(split.train, split.validation)
    report = influent.evaluate([model], split.test, k=(1,), seen="keep")
    assert report.rows["additive"]["HR@1"].mean > 0.7  # one of three, to whom the scene is not known
    # The latest item says that one of the three comes next, and its scene says which.
    credits = model.credits(split.test, np.tile(np.arange(3), (60, 1)))
    latest, came = credits.offsets[1:] - 1, split.test.sequences.item_idx[split.test.stop]
    above_others = {
        name: (part[latest, came] - part[latest].mean(axis=1)).mean() for name, part in credits.parts.items()
    }
    assert above_others["scene"] > 10 * abs(above_others["item"])


def test_a_black_box_reads_scenes_and_leaving_an_event_out_leaves_its_scene_out(split):
    settings = replace(TINY, backbone="gru", n_layers=1)
    model = influent.Predictor(model=settings, train=QUICK).fit(split.train, split.validation)
    testing.check_credit_is_removal(model, split.test.take(slice(0, 3)))
    other = replace(split.test.sequences, categories=np.zeros_like(split.test.sequences.categories))
    assert not np.allclose(model.predict(split.test), model.predict(replace(split.test, sequences=other)))


def test_a_block_of_vectors_cannot_be_called_as_a_category_or_another_part(split):
    for name in ("scene", "item", "counted"):
        block = influent.ItemVectors(
            name=name, vectors=np.ones((5, 2), np.float32), is_known=np.ones(5, bool), source="made for a test"
        )
        with pytest.raises(influent.SchemaError, match=f"two parts of an event are called '{name}'. There are: item,"):
            influent.Predictor(model=TINY).fit(split.train, split.validation, vectors=[block])


@pytest.mark.parametrize("name", ["type", "a.b", "keys", "größe"])
def test_a_category_may_have_any_other_name(name, tmp_path):
    log = shop_log()
    log[name] = log.pop("device")
    split = influent.split_last(build(log, categories=(name,)))
    model = influent.Predictor(model=TINY, train=QUICK).fit(split.train, split.validation)
    model.save(tmp_path)
    assert np.array_equal(influent.load_model(tmp_path).predict(split.test), model.predict(split.test))


def test_a_model_refuses_sequences_with_other_categories_or_other_values_of_them(model, split):
    fewer = influent.latest_moments(build(shop_log(), categories=("scene",)))
    with pytest.raises(
        influent.SchemaError,
        match=r"fitted on the categories \('scene', 'device'\), these sequences have \('scene',\).*vocab=model.vocab",
    ):
        model.predict(fewer)
    log = shop_log() | {"device": [1] * 96}
    others = influent.latest_moments(build(log, categories=("scene", "device")))
    with pytest.raises(influent.SchemaError, match="count device by another vocabulary than the additive model"):
        model.predict(others)
    counts = influent.Popularity().fit(split.train)
    assert counts.predict(fewer).shape == (16, 5)  # what reads no category does not mind


# A line of the score

VISITS = {
    "user_id": ["ann"] * 4 + ["bob"],
    "item_id": ["tea", "cup", "tea", "jam", "tea"],
    "action": ["view", "buy", "view", "view", "buy"],
    "timestamp": [10, 20, 30, 40, 50],
    "scene": ["home", "shop", None, "search", "home"],
}


def with_line(log: dict[str, list], *, knows_moment: bool) -> influent.Predictor:
    sequences = build(log)
    settings = replace(TINY, context=("scene",), knows_moment=knows_moment)
    train = influent.TrainConfig(epochs=1, device="cpu")
    return influent.Predictor(model=settings, train=train).fit(sequences, influent.each_moment(sequences))


def read_at(model: influent.Predictor, moments: influent.Moments) -> list[int]:
    return model._batcher.moment_batch(moments, 6).context_BQC[:, 0, 0].tolist()


@pytest.mark.parametrize("is_timed", [True, False])
def test_the_line_reads_the_event_before_the_moment(is_timed):
    log = {name: column for name, column in VISITS.items() if is_timed or name != "timestamp"}
    model = with_line(log, knows_moment=False)
    sequences = build(log)
    assert read_at(model, influent.each_moment(sequences)) == [HOME, SHOP, UNKNOWN]
    assert read_at(model, influent.latest_moments(sequences)) == [SEARCH, HOME]
    assert read_at(model, influent.moments_of(sequences, ["new"])) == [UNKNOWN]
    assert windows_read(model, sequences) == [[UNKNOWN, HOME, SHOP, UNKNOWN], [UNKNOWN]]


@pytest.mark.parametrize("is_timed", [True, False])
def test_where_the_moment_is_known_the_line_reads_the_target_and_without_one_the_event_before(is_timed):
    log = {name: column for name, column in VISITS.items() if is_timed or name != "timestamp"}
    model = with_line(log, knows_moment=True)
    sequences = build(log)
    assert read_at(model, influent.each_moment(sequences)) == [SHOP, UNKNOWN, SEARCH]
    assert read_at(model, influent.latest_moments(sequences)) == [SEARCH, HOME]
    assert read_at(model, influent.moments_of(sequences, ["new"])) == [UNKNOWN]
    assert windows_read(model, sequences) == [[HOME, SHOP, UNKNOWN, SEARCH], [HOME]]


def windows_read(model: influent.Predictor, train: influent.Sequences) -> list[list[int]]:
    """Return what the line reads at each target of each user's only window."""
    windows = training_windows(train, 6)
    batch = model._batcher.window_batch(train, windows, np.arange(len(windows)))
    n_targets = windows.stop - windows.first_target
    return [row[:n].tolist() for row, n in zip(batch.context_BQC[..., 0], n_targets, strict=True)]


@pytest.mark.parametrize("knows_moment", [False, True])
def test_labels_never_read_the_scene_of_the_event_that_is_asked_about(knows_moment):
    sequences = build(shop_log())
    buys = influent.split_events_at(influent.of_events(sequences, positive="buy", among=["buy", "view"]), 0.6)
    settings = replace(TINY, context=("scene",), knows_moment=knows_moment)
    model = influent.Predictor(task=["ranking", "classification"], model=settings, train=QUICK)
    split = influent.split_at(sequences, int(buys.validation.moments.time_us.min()))
    model.fit(split.train, split.validation, labels=[buys])

    asked, sequences = buys.test, buys.test.moments.sequences
    moments = asked.moments
    assert (moments.target_stop > moments.stop).all()  # so there is something to read
    code = model._batcher.label_batch(asked, 6).context_BQC[:, 0, 0].numpy()
    before = np.where(moments.stop > moments.start, sequences.categories[moments.stop - 1, 0], -1)
    assert np.array_equal(code, np.where(before < 0, UNKNOWN, before))

    # One moment, and another log in which all that comes from it on happens elsewhere.
    row = 3
    stop = int(moments.stop[row])
    elsewhere = sequences.categories.copy()
    elsewhere[stop:] = (elsewhere[stop:] + 1) % 3
    one = asked.take(slice(row, row + 1))
    other = replace(one, moments=replace(one.moments, sequences=replace(sequences, categories=elsewhere)))
    assert np.array_equal(model.predict(one), model.predict(other))
    terms, other_terms = model.answer_credits(one), model.answer_credits(other)
    assert np.array_equal(terms.context["scene"], other_terms.context["scene"])
    # The ranking at that moment, with the privilege, reads it.
    assert np.array_equal(model.predict(one.moments), model.predict(other.moments)) != knows_moment


def test_credits_close_and_masking_the_latest_event_takes_the_line_away_too():
    log = shop_log()
    log["scene"] = [scene or "shop" for scene in log["scene"]]
    split = influent.split_last(build(log))
    model = influent.Predictor(model=replace(TINY, context=("scene",)), train=QUICK).fit(split.train, split.validation)
    assert model.exactness == "closes"
    testing.check_credits_add_up(model, split.test)
    moment, first = split.test.take(slice(0, 1)), np.array([[0]])
    credits, before = model.credits(moment, first), model.predict(moment)[0, 0]
    taken = []
    for place in credits.place:
        without = replace(moment, sequences=testing.mask(moment.sequences, int(place)))
        taken.append(before - model.predict(without)[0, 0])
    line = float(credits.context["scene"][0, 0])
    assert abs(line) > 1e-3
    assert np.allclose(taken, credits.credit[:, 0] + np.array([0.0] * (len(taken) - 1) + [line]), atol=1e-5)


def test_the_scene_of_a_target_that_is_known_decides_what_is_taken_there():
    rng = np.random.default_rng(1)
    scene = rng.integers(0, 2, 40 * 8)
    log = {"user_id": np.repeat(np.arange(40), 8), "item_id": np.array(["ad", "book"])[scene]}
    log["scene"] = np.array(["feed", "library"])[scene]
    split = influent.split_last(build(log))
    hits = {}
    for knows in (False, True):
        settings = replace(TINY, context=("scene",), knows_moment=knows, count_len=0)
        train = influent.TrainConfig(epochs=20, patience=20, seen="keep", device="cpu")
        model = influent.Predictor(model=settings, train=train).fit(split.train, split.validation)
        hits[knows] = influent.evaluate([model], split.test, k=(1,), seen="keep").rows[model.name]["HR@1"].mean
    assert hits[True] > 0.95
    assert hits[False] < 0.8  # nothing before the moment says which it will be


def test_a_user_feature_comes_before_a_category_of_the_same_name():
    users = influent.read_users(pa.table({"user_id": ["ann", "bob"], "scene": ["old", "new"]}))
    sequences = build(VISITS, users=users)
    settings = replace(TINY, context=("scene",), knows_moment=True)
    model = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=1, device="cpu"))
    model.fit(sequences, influent.each_moment(sequences))
    assert model.exactness == "exact"
    assert read_at(model, influent.latest_moments(sequences)) == [1, 0]  # ann is old, bob is new


def test_a_context_that_is_neither_is_refused_with_the_nearest_category(split):
    settings = influent.ModelConfig(context=("devise",))
    with pytest.raises(influent.SchemaError, match="categories of events: scene, device; .* Did you mean 'device'?"):
        influent.Predictor(model=settings).fit(split.train, split.validation)
