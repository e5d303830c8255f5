"""Training: the loss, the checkerboard, early stopping, and going on after a kill."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

import influent
from influent import testing
from influent.models import loss as loss_module
from influent.models import train as train_module
from influent.models.loss import cross_entropy

TINY = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=6, dropout=0.1)


def told(epoch):
    """What an epoch's metrics say, whatever its seconds were."""
    return {name: value for name, value in epoch.items() if name != "seconds"}


def checkerboard(n_users=40, seed=0):
    """Two kinds of users, two kinds of items: even users only ever touch items 0 to 4, odd users 5 to 9."""
    rng = np.random.default_rng(seed)
    log = {
        "user_id": np.repeat(np.arange(n_users), 8),
        "item_id": np.concatenate([rng.permutation(5).repeat(2)[:8] + 5 * (user % 2) for user in range(n_users)]),
    }
    return influent.split_last(influent.build_sequences(influent.read_events(pa.table(log))))


@pytest.mark.parametrize("chunk_bytes", [1, 200, 2**20])
def test_the_chunked_loss_and_its_gradients_are_those_of_the_plain_one(chunk_bytes, monkeypatch):
    monkeypatch.setitem(loss_module._CHUNK_BYTES, "cpu", chunk_bytes)
    torch.manual_seed(0)
    tensors = [torch.randn(7, 3), torch.randn(11, 3) * 3, torch.randn(11)]
    target = torch.randint(11, (7,))
    ours, plain = ([tensor.clone().requires_grad_() for tensor in tensors] for _ in range(2))
    value = cross_entropy(ours[0][None], ours[1], ours[2], target[None])
    expected = functional.cross_entropy(plain[0] @ plain[1].T + plain[2], target)
    (2 * value).backward()
    (2 * expected).backward()
    assert torch.allclose(value, expected, atol=1e-6)
    for a, b in zip(ours, plain, strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


def test_a_checkerboard_is_learned():
    split = checkerboard()
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=20)).fit(split.train, split.validation)
    scores = model.predict(split.test)
    own = np.arange(10) // 5 == split.test.user_idx[:, None] % 2
    assert (np.where(own, scores, np.inf).min(axis=1) > np.where(own, -np.inf, scores).max(axis=1)).all()


def test_the_weights_of_the_best_epoch_are_kept():
    split = checkerboard()
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=12, patience=12))
    model.fit(split.train, split.validation)
    scores = [epoch["validation_ndcg@10"] for epoch in model.log.epochs]
    assert model.log.best_epoch == int(np.argmax(scores))
    judged = influent.evaluate([model], split.validation).rows["additive"]["NDCG@10"].mean
    assert judged == pytest.approx(max(scores), abs=1e-9)


def test_training_stops_when_patience_is_at_an_end():
    split = checkerboard(n_users=6)
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=50, patience=2))
    model.fit(split.train, split.validation)
    assert len(model.log.epochs) <= model.log.best_epoch + 1 + 2


def fit_and_kill(split, settings, checkpoint, monkeypatch, *, after):
    """Fit, die once this many checkpoints are written, and return a list that grows with each, later ones too."""

    class Kill(BaseException):
        """What a test puts in the place of a signal."""

    saved, save = [], train_module._save_checkpoint

    def save_then_die(*arguments):
        save(*arguments)
        saved.append(1)
        if len(saved) == after:
            raise Kill

    monkeypatch.setattr(train_module, "_save_checkpoint", save_then_die)
    with pytest.raises(Kill):
        influent.Predictor(model=TINY, train=settings).fit(split.train, split.validation, checkpoint=checkpoint)
    return saved


def test_training_that_was_killed_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    split, settings = checkerboard(), influent.TrainConfig(epochs=6, patience=6)
    straight = influent.Predictor(model=TINY, train=settings).fit(split.train, split.validation)

    checkpoint = tmp_path / "checkpoint.safetensors"
    saved = fit_and_kill(split, settings, checkpoint, monkeypatch, after=3)
    resumed = influent.Predictor(model=TINY, train=settings).fit(split.train, split.validation, checkpoint=checkpoint)
    assert len(saved) == 6  # three epochs before, three after: none was trained twice
    assert np.array_equal(resumed.predict(split.test), straight.predict(split.test))
    assert [told(epoch) for epoch in resumed.log.epochs] == [told(epoch) for epoch in straight.log.epochs]


def test_a_checkpoint_of_other_settings_is_not_taken_up(tmp_path):
    split, checkpoint = checkerboard(), tmp_path / "checkpoint.safetensors"
    influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=2)).fit(
        split.train, split.validation, checkpoint=checkpoint
    )
    lines = []

    class Listener(influent.Progress):
        def say(self, line):
            lines.append(line)

    other = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=2, seed=1))
    other.fit(split.train, split.validation, checkpoint=checkpoint, progress=Listener())
    assert lines == [f"{checkpoint} belongs to other data or settings; training starts over."]


def test_a_damaged_checkpoint_costs_the_epochs_and_nothing_else(tmp_path):
    split, checkpoint = checkerboard(), tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(b"not a checkpoint")
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=2))
    model.fit(split.train, split.validation, checkpoint=checkpoint)
    assert len(model.log.epochs) == 2


def test_fitting_leaves_the_callers_random_numbers_alone():
    split = checkerboard(n_users=6)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    assert torch.equal(torch.rand(3), expected)


def test_without_validation_moments_the_last_event_of_each_user_is_held_out():
    split = checkerboard()
    alone = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=3)).fit(split.train)
    assert alone.fitted_on == split.train.fingerprint
    assert len(alone.log.epochs) == 3


def test_values_are_scaled_by_the_training_part_only():
    log = pa.table({"user_id": [1] * 6, "item_id": list("ababab"), "value": [1.0, 2.0, 3.0, 4.0, 500.0, 900.0]})
    split = influent.split_last(influent.build_sequences(influent.read_events(log)))
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    assert model.scaling.center == (2.5,)  # of 1 2 3 4


def test_settings_out_of_range_are_refused():
    with pytest.raises(influent.ConfigError, match=r"ModelConfig.embedding_dim must be an int in the range \[0, inf\)"):
        influent.ModelConfig(embedding_dim=-1)
    with pytest.raises(influent.ConfigError, match=r"ModelConfig.dropout must be a number in \[0.0, 1.0\). Got 1"):
        influent.ModelConfig(dropout=1)
    with pytest.raises(influent.ConfigError, match="no setting 'learing_rate'. Did you mean 'learning_rate'"):
        influent.TrainConfig.from_dict({"learing_rate": 0.1})
    with pytest.raises(influent.ConfigError, match="knows_moment must be true or false. Got 'false'"):
        influent.ModelConfig(knows_moment="false")
    with pytest.raises(influent.ConfigError, match="context must be a list of different names"):
        influent.ModelConfig(context=("plan", "plan"))
    with pytest.raises(influent.ConfigError, match="device must be one of"):
        influent.TrainConfig(device="tpu")
    users = influent.read_users(pa.table({"user_id": [1], "city": ["Oslo"]}))
    log = pa.table({"user_id": [1] * 4, "item_id": list("abab")})
    sequences = influent.build_sequences(influent.read_events(log), users=users)
    misspelt = influent.Predictor(model=influent.ModelConfig(context=("cty",)))
    with pytest.raises(
        influent.SchemaError, match="context 'cty' is no user feature. There are: city; .* Did you mean"
    ):
        misspelt.fit(sequences)
    with pytest.raises(
        influent.ConfigError, match="task must be of ranking, classification, regression, time, each once. Got 'rating'"
    ):
        influent.Predictor(task="rating")


def test_a_model_refuses_sequences_with_other_numbers():
    split = checkerboard(n_users=6)
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    log = pa.table({"user_id": [1], "item_id": [1], "value": [2.0]})
    other = influent.build_sequences(influent.read_events(log), vocab=model.vocab)
    with pytest.raises(influent.SchemaError, match=r"these sequences have \('value',\)"):
        model.predict(influent.latest_moments(other))


def test_validation_without_targets_is_refused():
    split = checkerboard(n_users=6)
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=1))
    with pytest.raises(influent.DataError, match="no validation moment has a target"):
        model.fit(split.train, influent.latest_moments(split.train))


def test_a_fit_that_fails_leaves_no_model_behind():
    split = checkerboard(n_users=6)
    model = influent.Predictor(model=influent.ModelConfig(context=("city",)), train=influent.TrainConfig(epochs=1))
    with pytest.raises(influent.SchemaError, match="no user feature"):
        model.fit(split.train, split.validation)
    with pytest.raises(influent.NotFittedError):
        model.predict(split.test)


def test_validation_can_let_seen_items_come_again():
    log = pa.table({"user_id": np.repeat(np.arange(20), 10), "item_id": np.tile(np.arange(5), 40)})
    split = influent.split_last(influent.build_sequences(influent.read_events(log)))
    best = {}
    for seen in ("exclude", "keep"):
        settings = influent.TrainConfig(epochs=10, seen=seen)
        best[seen] = influent.Predictor(model=TINY, train=settings).fit(split.train, split.validation).log.best_score
    assert best["exclude"] == 0.0
    assert best["keep"] > 0.2


def test_indices_of_another_vocabulary_are_refused():
    split = checkerboard(n_users=6)
    other = influent.build_sequences(influent.read_events(pa.table({"user_id": [1], "item_id": ["z"]})))
    models = [influent.Popularity(), influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=1))]
    for model in models:
        model.fit(split.train, split.validation)
        with pytest.raises(influent.SchemaError, match="count item_id by another vocabulary"):
            model.predict(influent.latest_moments(other))


def test_a_context_that_json_cannot_hold_is_refused_before_training():
    users = influent.read_users(pa.table({"user_id": [0], "since": pa.array([0], pa.date32())}))
    log = pa.table({"user_id": [0] * 4, "item_id": list("abab")})
    sequences = influent.build_sequences(influent.read_events(log), users=users)
    with pytest.raises(influent.SchemaError, match="context 'since' holds date32"):
        influent.Predictor(model=influent.ModelConfig(context=("since",))).fit(sequences)


def test_a_wild_number_does_not_unbalance_a_ledger():
    rng = np.random.default_rng(0)
    log = {"user_id": np.repeat(np.arange(10), 8), "item_id": rng.integers(0, 5, 80), "value": rng.normal(100, 10, 80)}
    log["value"][7::8] = 1e9
    log["value"][6::8] = 1e9
    split = influent.split_last(influent.build_sequences(influent.read_events(pa.table(log))))
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=3)).fit(split.train, split.validation)
    assert influent.explain(model, split.test).largest_gap() <= 1e-4


def test_one_dial_fills_in_what_was_left_open_and_nothing_else():
    base = influent.ModelConfig(size="base", n_heads=2).resolved()
    assert (base.embedding_dim, base.n_layers, base.n_heads) == (128, 4, 2)
    assert (base.dropout, base.count_len) == (0.5, 20)
    box = influent.ModelConfig(backbone="gru").resolved()
    assert (box.dropout, box.count_len) == (0.2, 0)
    assert influent.Predictor(model=influent.ModelConfig(backbone="gru")).train.learning_rate == 0.003


@pytest.mark.parametrize("backbone", ["additive", "sasrec"])
def test_products_in_bfloat16_learn_too(backbone):
    split = checkerboard(n_users=10)
    settings = influent.ModelConfig(backbone=backbone, embedding_dim=8, n_heads=2, n_layers=1, max_len=6)
    train = influent.TrainConfig(epochs=6, patience=6, precision="bfloat16", device="cpu", learning_rate=0.01)
    model = influent.Predictor(model=settings, train=train).fit(split.train, split.validation)
    losses = [epoch["loss"] for epoch in model.log.epochs]
    assert losses[-1] < losses[0]


def test_a_model_refitted_has_learned_the_validation_events_too():
    split = checkerboard()
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=4)).fit(split.train, split.validation)
    refitted = model.refit(split.train_and_validation)
    assert refitted.name == "additive, refitted"
    assert refitted.fitted_on == split.train_and_validation.fingerprint
    assert len(refitted.log.epochs) == model.log.best_epoch + 1
    report = influent.evaluate([model, refitted], split.test)
    assert list(report.rows) == ["additive", "additive, refitted"]
    with pytest.raises(influent.LeakageError, match="may have learned from what it is asked to predict"):
        influent.evaluate([refitted], split.validation)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_refit_on_the_same_events_takes_the_same_steps(schedule):
    split = checkerboard()
    train = influent.TrainConfig(epochs=6, patience=1, warmup_epochs=1.0, schedule=schedule, device="cpu")
    model = influent.Predictor(model=TINY, train=train).fit(split.train, split.validation)
    assert np.array_equal(model.refit(split.train).predict(split.test), model.predict(split.test))


def test_a_privilege_is_in_the_name_of_a_model():
    known = influent.ModelConfig(gate="query", knows_moment=True)
    assert influent.Predictor(model=known).name == "additive, query gate, moment known"
    assert influent.Predictor().name == "additive"


def test_models_that_are_called_alike_can_be_named():
    split = checkerboard()
    models = {
        name: influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=1, seed=seed)).fit(split.train)
        for seed, name in enumerate(["first", "second"])
    }
    assert list(influent.evaluate(models, split.test).rows) == ["first", "second"]
    with pytest.raises(influent.ConfigError, match="Name them yourself"):
        influent.evaluate(list(models.values()), split.test)


def test_vectors_in_another_order_or_from_an_encoder_that_saw_the_test_are_refused():
    split = checkerboard()
    kind = np.eye(2, dtype=np.float32)[np.arange(10) // 5]
    table = pa.table({"item_id": split.train.vocab.items.ids, "vector": kind.tolist()})
    block = influent.read_vectors(table, name="kind", vocab=split.train.vocab)
    assert block.items == split.train.vocab.items.fingerprint
    others = split.train.vocab.items.ids.take(pa.array(range(9, -1, -1)))
    upside_down = replace(block, items=influent.data.vocab.Ids("item_id", others).fingerprint)
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=1, device="cpu"))
    with pytest.raises(influent.SchemaError, match="are of other items than the vocabulary's, or in another order"):
        model.fit(split.train, split.validation, vectors=[upside_down])
    tuned = model.fit(split.train, split.validation, vectors=[replace(block, fitted_on=split.train.fingerprint)])
    assert list(influent.evaluate([tuned], split.test).rows) == ["additive"]
    peeked = model.fit(split.train, split.validation, vectors=[replace(block, fitted_on="everything")])
    with pytest.raises(influent.LeakageError, match="fine-tuned on events everything"):
        influent.evaluate([peeked], split.test)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    settings = influent.TrainConfig(learning_rate=0.1, warmup_epochs=1.0, schedule="cosine", epochs=3)
    rate = [train_module._learning_rate(settings, epoch, step, n_batches=2) for epoch in range(3) for step in range(2)]
    # Two steps of warm-up, then half a cosine over the two epochs left: cos at 0, π/4, π/2 and 3π/4.
    expected = [0.1 / 3, 0.2 / 3, 0.1, 0.05 * (1 + 0.5**0.5), 0.05, 0.05 * (1 - 0.5**0.5)]
    assert rate == pytest.approx(expected)


def test_only_vectors_and_maps_decay():
    split = checkerboard(n_users=6)
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    names = {id(parameter): name for name, parameter in model._network.named_parameters()}
    decaying, others = (
        {names[id(p)] for p in group["params"]} for group in train_module._parameter_groups(model._network, 0.1)
    )
    assert {"encoder.item_in.weight", "item_out.weight", "backbone.project.weight"} <= decaying
    assert {"bias", "backbone.kernel.lag_log_weight", "counted.kernel.lag_log_weight", "backbone.gate.bias"} <= others


def test_only_what_comes_next_of_the_target_actions_is_learned():
    rng = np.random.default_rng(0)
    rows = [(user, f"v{rng.integers(3)}", "view") for user in range(30) for _ in range(6)]
    rows = [row for user in range(30) for row in [*rows[6 * user : 6 * user + 6], *[(user, "tea", "buy")] * 3]]
    columns = dict(zip(("user_id", "item_id", "action"), map(list, zip(*rows, strict=True)), strict=True))
    sequences = influent.build_sequences(influent.clean(influent.read_events(pa.table(columns)), drop_duplicates=False))
    split = influent.split_last(sequences, actions=["buy"])
    assert (
        split.test.sequences.action_idx[split.test.stop].tolist()
        == [sequences.vocab.actions.require_idx(["buy"])[0]] * 30
    )
    settings = influent.ModelConfig(
        embedding_dim=4, n_heads=1, max_len=6, target_actions=("buy",), count_len=0, dropout=0.0
    )
    model = influent.Predictor(
        model=settings, train=influent.TrainConfig(epochs=10, batch_size=4, learning_rate=0.05, seen="keep")
    )
    scores = model.fit(split.train, split.validation).predict(split.test)
    assert (scores.argmax(axis=1) == sequences.vocab.items.require_idx(["tea"])[0]).all()
    with pytest.raises(influent.UnknownIdError, match="'bye'"):
        influent.Predictor(model=influent.ModelConfig(target_actions=("bye",))).fit(split.train, split.validation)


def test_the_hour_and_the_weekday_have_lines_of_their_own():
    rng = np.random.default_rng(1)
    # On even hours people take tea, on odd hours jam; 1970-01-05 was a Monday.
    hours = np.arange(8 * 40).reshape(40, 8) * 5 + rng.integers(0, 2, (40, 8))
    log = {
        "user_id": np.repeat(np.arange(40), 8),
        "item_id": np.where(hours.ravel() % 2, "jam", "tea"),
        "timestamp": hours.ravel() * 3600 + 4 * 86_400,
    }
    sequences = influent.build_sequences(influent.clean(influent.read_events(pa.table(log)), drop_duplicates=False))
    split = influent.split_last(sequences)
    settings = influent.ModelConfig(
        embedding_dim=8, n_heads=1, max_len=4, knows_moment=True, context=("hour_of_day", "day_of_week"), dropout=0.0
    )
    train = influent.TrainConfig(epochs=40, patience=40, seen="keep")
    model = influent.Predictor(model=settings, train=train).fit(split.train, split.validation)
    assert influent.evaluate([model], split.test, k=(1,), seen="keep").rows[model.name]["HR@1"].mean > 0.95
    ledger = influent.explain(model, split.test)
    lines = {name for name in ledger.table.column("source_name").to_pylist() if name}
    assert lines == {"hour_of_day", "day_of_week"}
    untimed = influent.build_sequences(influent.read_events(pa.table({"user_id": [1] * 4, "item_id": list("abab")})))
    with pytest.raises(influent.ConfigError, match="'hour_of_day' needs times"):
        influent.Predictor(model=influent.ModelConfig(context=("hour_of_day",))).fit(untimed)


def test_with_the_query_gate_sums_close_and_only_the_latest_event_is_not_its_removal():
    split = checkerboard(n_users=12)
    settings = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=6, gate="query")
    model = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=8)).fit(split.train, split.validation)
    assert model.exactness == "closes"
    testing.check_credits_add_up(model, split.test)
    moment = split.test.take(slice(0, 1))
    credits, before = model.credits(moment, np.array([[0]])), model.predict(moment)[0, 0]
    gaps = []
    for place, credit in zip(credits.place, credits.credit[:, 0], strict=True):
        without = replace(moment, sequences=testing.mask(moment.sequences, int(place)))
        gaps.append(abs(before - model.predict(without)[0, 0] - credit))
    assert max(gaps[:-1]) <= 1e-4
    assert gaps[-1] > 10 * max(gaps[:-1])


def test_an_item_with_given_vectors_is_scored_by_them(tmp_path):
    split = checkerboard()
    # The vector says which kind of item it is, and so does nothing else of an item that nobody touched.
    kind = np.eye(2, dtype=np.float32)[np.arange(10) // 5]
    block = influent.ItemVectors(name="kind", vectors=kind, is_known=np.ones(10, bool), source="made for a test")
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=10))
    model.fit(split.train, split.validation, vectors=[block])
    ledger = influent.explain(model, split.test, by_part=True)
    assert "kind" in ledger.table.column("source_name").to_pylist()
    model.save(tmp_path)
    assert np.array_equal(influent.load_model(tmp_path).predict(split.test), model.predict(split.test))
    short = influent.ItemVectors(name="kind", vectors=kind[:4], is_known=np.ones(4, bool), source="made for a test")
    with pytest.raises(influent.SchemaError, match="are of 4 items, the log has 10"):
        influent.Predictor(model=TINY).fit(split.train, split.validation, vectors=[short])


@pytest.fixture(scope="module")
def fitted_on_kinds():
    """A model of ten items of two kinds, whose kind is also their vector."""
    split = checkerboard()
    kind = np.eye(2, dtype=np.float32)[np.arange(10) // 5]
    block = influent.ItemVectors(name="kind", vectors=kind, is_known=np.ones(10, bool), source="made for a test")
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=10))
    return model.fit(split.train, split.validation, vectors=[block]), split


def new_items(model, kinds):
    """The vocabulary with new items, and the block of all: a new item's kind, or −1 where nothing is known."""
    ids = [1000 + place for place in range(len(kinds))]
    vocab = model.vocab.with_items(influent.read_items(pa.table({"item_id": ids})))
    known = np.eye(2, dtype=np.float32)[[*(np.arange(10) // 5), *kinds]] * (np.array([0] * 10 + kinds) >= 0)[:, None]
    block = influent.ItemVectors(name="kind", vectors=known, is_known=known.any(axis=1), source="made for a test")
    return vocab, block


def test_new_items_are_scored_by_their_vectors_and_the_others_as_before(fitted_on_kinds, tmp_path):
    model, split = fitted_on_kinds
    vocab, block = new_items(model, [0, 0, 1, -1])
    grown = model.with_items(vocab, [block])
    moments = replace(split.test, sequences=replace(split.test.sequences, vocab=vocab))
    before, after = model.predict(split.test), grown.predict(moments)
    assert np.allclose(after[:, :10], before, atol=1e-5)
    # Two items of which the same is known score the same; one of which nothing is known scores its bias at all moments.
    assert np.array_equal(after[:, 10], after[:, 11])
    assert np.ptp(after[:, 13]) == 0
    # A user of the first kind prefers a new item of that kind, one of the second the other.
    is_first = before[:, :5].mean(axis=1) > before[:, 5:].mean(axis=1)
    assert ((after[:, 10] > after[:, 12]) == is_first).mean() > 0.9
    testing.check_credits_add_up(grown, moments)
    grown.save(tmp_path)
    assert np.array_equal(influent.load_model(tmp_path).predict(moments), after)


def test_events_of_new_items_count_by_their_vectors(fitted_on_kinds):
    model, split = fitted_on_kinds
    vocab, block = new_items(model, [0])
    grown = model.with_items(vocab, [block])
    log = pa.table({"user_id": ["new"], "item_id": pa.array([1000], vocab.items.ids.type)})
    events = influent.clean(influent.read_events(log))
    moment = influent.latest_moments(influent.build_sequences(events, vocab=vocab, numbers=()))
    last = moment.take(slice(len(moment) - 1, len(moment)))
    by_part = influent.explain(grown, last, items=[0], by_part=True).table
    parts = dict(zip(by_part.column("source_name").to_pylist(), by_part.column("credit").to_pylist(), strict=True))
    assert parts["kind"] != 0
    assert parts["item"] == 0


def test_new_items_need_the_vectors_of_old_ones_as_they_were(fitted_on_kinds):
    model, split = fitted_on_kinds
    vocab, block = new_items(model, [0])
    with pytest.raises(influent.SchemaError, match="other vectors than before"):
        model.with_items(vocab, [replace(block, vectors=block.vectors * 2)])
    with pytest.raises(influent.ConfigError, match="must be the blocks kind"):
        model.with_items(vocab, [])
    with pytest.raises(influent.SchemaError, match="do not begin with the model's own"):
        model.with_items(replace(vocab, items=replace(vocab.items, ids=vocab.items.ids[1:])), [block])
    plain = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    with pytest.raises(influent.ConfigError, match="reads no vectors"):
        plain.with_items(vocab, [block])


def one_parameter(value=0.0):
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.tensor([value]))
    return module


def test_an_average_is_plain_until_it_has_its_steps_and_then_forgets():
    module = one_parameter(100.0)
    average = train_module.Average(module, n_steps=2)
    for value in (1.0, 3.0, 10.0):
        module.weight.data.fill_(value)
        average.update()
    # Where it began is forgotten at the first step; then (1 + 3) / 2 = 2, and half of the way from 2 to 10 is 6.
    with average.in_place():
        assert module.weight.item() == 6
    assert module.weight.item() == 10


def test_without_averaging_the_latest_weights_are_judged():
    module = one_parameter()
    average = train_module.Average(module, n_steps=0)
    module.weight.data.fill_(5.0)
    average.update()
    with average.in_place():
        assert module.weight.item() == 5


def test_averages_survive_a_kill(tmp_path, monkeypatch):
    split, settings = checkerboard(), influent.TrainConfig(epochs=5, batch_size=8, average_epochs=1.5)
    straight = influent.Predictor(model=TINY, train=settings).fit(split.train, split.validation)
    latest = influent.Predictor(model=TINY, train=replace(settings, average_epochs=0)).fit(
        split.train, split.validation
    )
    assert not np.allclose(straight.predict(split.test), latest.predict(split.test))
    checkpoint = tmp_path / "checkpoint.safetensors"
    fit_and_kill(split, settings, checkpoint, monkeypatch, after=2)
    resumed = influent.Predictor(model=TINY, train=settings).fit(split.train, split.validation, checkpoint=checkpoint)
    assert np.array_equal(resumed.predict(split.test), straight.predict(split.test))


def test_events_that_are_dropped_say_nothing_while_training_and_all_while_scoring():
    split = checkerboard()
    settings = replace(TINY, dropout=0.0, count_len=0, event_dropout=0.5)
    train = influent.TrainConfig(epochs=1, device="cpu")
    model = influent.Predictor(model=settings, train=train).fit(split.train, split.validation)
    network, batch = model._network, model._batcher.moment_batch(split.test, 6)
    whole = network.states(batch)
    with torch.no_grad():
        z_BTD = network.encoder(batch)
        network.train()
        torch.manual_seed(0)
        dropped = network.states(batch)
        torch.manual_seed(0)
        keep = torch.rand(z_BTD.shape[:2]) >= 0.5
        network.eval()
        masked = network.states(batch, z_BTD * keep[..., None])
    assert torch.allclose(dropped, masked, atol=1e-6)
    assert not torch.allclose(dropped, whole, atol=1e-3)
    assert 0.3 < keep.float().mean() < 0.7
