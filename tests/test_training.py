"""Training: the loss, the checkerboard, early stopping, and going on after a kill."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

import influent
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
    monkeypatch.setattr(loss_module, "_CHUNK_BYTES", chunk_bytes)
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


def test_training_that_was_killed_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    split, settings = checkerboard(), influent.TrainConfig(epochs=6, patience=6)
    straight = influent.Predictor(model=TINY, train=settings).fit(split.train, split.validation)

    class Kill(BaseException):
        """What a test puts in the place of a signal."""

    saved, save = [], train_module._save_checkpoint

    def save_then_die(*arguments):
        save(*arguments)
        saved.append(1)
        if len(saved) == 3:
            raise Kill

    monkeypatch.setattr(train_module, "_save_checkpoint", save_then_die)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Kill):
        influent.Predictor(model=TINY, train=settings).fit(split.train, split.validation, checkpoint=checkpoint)
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
    with pytest.raises(influent.ConfigError, match=r"ModelConfig.embedding_dim must be an int in the range \[1, inf\)"):
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
        influent.ConfigError, match="task must be of ranking, classification, regression, time. Got 'rating'"
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
    with pytest.raises(influent.SchemaError, match="context 'since' holds dates such as"):
        influent.Predictor(model=influent.ModelConfig(context=("since",))).fit(sequences)


def test_a_wild_number_does_not_unbalance_a_ledger():
    rng = np.random.default_rng(0)
    log = {"user_id": np.repeat(np.arange(10), 8), "item_id": rng.integers(0, 5, 80), "value": rng.normal(100, 10, 80)}
    log["value"][7::8] = 1e9
    log["value"][6::8] = 1e9
    split = influent.split_last(influent.build_sequences(influent.read_events(pa.table(log))))
    model = influent.Predictor(model=TINY, train=influent.TrainConfig(epochs=3)).fit(split.train, split.validation)
    assert influent.explain(model, split.test).largest_gap() <= 1e-4
