"""Backbones: what a state may depend on, what each of them computes, and that each learns."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn import functional

import influent
from influent import testing
from influent.models.batch import Batch
from influent.models.feedback import Feedback
from influent.models.network import _backbone
from influent.models.recurrent import Gru
from influent.models.transformer import Hstu, SasRec

BACKBONES = ("additive", "feedback", "gru", "lstm", "sasrec", "hstu")
BLACK_BOXES = ("gru", "lstm", "sasrec", "hstu")
TINY = influent.ModelConfig(embedding_dim=8, n_heads=2, n_layers=2, max_len=6, dropout=0.1, count_len=0)


def histories(before_BQ, n_events, *, time_BT=None):
    """A batch of which a backbone reads how many events lie before each question, and their times."""
    before_BQ = torch.tensor(before_BQ)
    n_batch, n_questions = before_BQ.shape
    nothing_BT = torch.zeros(n_batch, n_events, dtype=torch.int64)
    time_BT = None if time_BT is None else torch.tensor(time_BT, dtype=torch.float64)
    return Batch(
        item_BT=nothing_BT,
        action_BT=nothing_BT,
        numbers_BTF=torch.zeros(n_batch, n_events, 0),
        category_BTK=torch.zeros(n_batch, n_events, 0, dtype=torch.int64),
        no_item=1,
        no_action=1,
        no_category_K=(),
        before_BQ=before_BQ,
        time_BT=time_BT,
        asked_BQ=None if time_BT is None else time_BT.gather(1, (before_BQ - 1).clamp(min=0)),
        context_BQC=torch.zeros(n_batch, n_questions, 0, dtype=torch.int64),
        target_BQ=torch.full((n_batch, n_questions), -1),
    )


def a_backbone(name, *, seed=0):
    """A backbone with random weights, larger than those that training begins with."""
    torch.manual_seed(seed)
    backbone = _backbone(replace(TINY, backbone=name), uses_gaps=True).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return backbone


@pytest.fixture(scope="module")
def checkerboard():
    """Two kinds of users, two kinds of items, and histories of 2 to 5 events before the last two."""
    rng = np.random.default_rng(0)
    users, items = [], []
    for user in range(100):
        n_events = 4 + user % 7 // 2
        users += [user] * n_events
        items += (rng.permutation(5).repeat(2)[:n_events] + 5 * (user % 2)).tolist()
    log = pa.table({"user_id": users, "item_id": items, "timestamp": 1_700_000_000 + 60 * np.arange(len(users)) ** 2})
    return influent.split_last(influent.build_sequences(influent.read_events(log)))


@pytest.fixture(scope="module")
def fitted(checkerboard):
    settings = influent.TrainConfig(epochs=20, patience=20, learning_rate=0.01, device="cpu")
    return {
        name: influent.Predictor(model=replace(TINY, backbone=name), train=settings).fit(
            checkerboard.train, checkerboard.validation
        )
        for name in BACKBONES
    }


@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_neither_later_events_nor_padding_move_a_state(name):
    backbone = a_backbone(name)
    time_BT = [[0.0, 5.0, 5.0, 90.0, 4000.0, 9e5], [0.0, 1.0, 60.0, 0.0, 0.0, 0.0]]
    batch = histories([[0, 1, 4, 6], [0, 1, 2, 3]], 6, time_BT=time_BT)
    z_BTD = torch.randn(2, 6, 8)
    states = backbone.states(z_BTD, batch)
    for question in range(4):
        is_later_BT = ~batch.mask_BQT[:, question]
        other_z_BTD = torch.where(is_later_BT[..., None], torch.randn(2, 6, 8) * 10, z_BTD)
        other_time_BT = torch.where(is_later_BT, 7e6 + torch.arange(6), batch.time_BT)
        other = backbone.states(other_z_BTD, replace(batch, time_BT=other_time_BT))
        assert torch.allclose(other[:, question], states[:, question], atol=1e-6)


@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_every_earlier_event_moves_a_state(name):
    backbone, batch = a_backbone(name), histories([[5]], 6)
    z_BTD = torch.randn(1, 6, 8)
    states = backbone.states(z_BTD, batch)
    for event in range(5):
        other_z_BTD = z_BTD.clone()
        other_z_BTD[:, event] = torch.randn(8)
        assert (backbone.states(other_z_BTD, batch) - states).abs().max() > 1e-4


@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_questions_may_skip_events_and_repeat(name):
    backbone, z_BTD = a_backbone(name), torch.randn(1, 6, 8)
    every = backbone.states(z_BTD, histories([[0, 1, 2, 3, 4, 5, 6]], 6))
    some = backbone.states(z_BTD, histories([[6, 2, 2, 0]], 6))
    assert torch.allclose(some, every[:, [6, 2, 2, 0]], atol=1e-6)


@pytest.mark.parametrize("name", BACKBONES)
@torch.inference_mode()
def test_an_empty_history_has_a_finite_state_whatever_the_padding(name):
    backbone = a_backbone(name)
    states = backbone.states(torch.randn(3, 1, 8), histories([[0]] * 3, 1))
    assert torch.isfinite(states).all()
    assert torch.equal(states[0], states[1])


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_learns_a_checkerboard(name, fitted, checkerboard):
    scores = fitted[name].predict(checkerboard.test)
    is_own = np.arange(10) // 5 == checkerboard.test.user_idx[:, None] % 2
    five_best = np.argsort(-scores, axis=1)[:, :5]
    assert np.take_along_axis(is_own, five_best, axis=1).mean() > 0.95


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_scores_a_moment_alone_as_in_a_batch_and_after_loading_as_before(name, fitted, checkerboard):
    testing.check_batch_equals_single(fitted[name], checkerboard.test)
    testing.check_saved_is_same(fitted[name], checkerboard.test)


@pytest.mark.parametrize("name", BACKBONES)
def test_terms_and_what_they_leave_add_up_to_the_score(name, fitted, checkerboard):
    model, moments = fitted[name], checkerboard.test.take(slice(0, 4))
    assert model.exactness == {"additive": "exact", "feedback": "closes"}.get(name, "estimated")
    credits = model.credits(moments, np.broadcast_to(np.arange(10), (4, 10)))
    assert (credits.residual is not None) == (name in BLACK_BOXES)
    testing.check_credits_add_up(model, moments)


def test_a_sasrec_of_eight_layers_trains_steadily(checkerboard):
    settings = influent.TrainConfig(epochs=8, patience=8, learning_rate=0.01, device="cpu")
    deep = influent.Predictor(model=replace(TINY, backbone="sasrec", n_layers=8), train=settings)
    losses = [epoch["loss"] for epoch in deep.fit(checkerboard.train, checkerboard.validation).log.epochs]
    assert losses[0] == pytest.approx(math.log(10), abs=0.1)  # it begins by knowing nothing of ten items
    assert losses[-1] < 2.0
    assert max(np.diff(losses)) < 0.05


@torch.inference_mode()
def test_a_gru_is_torchs_own_and_a_norm():
    gru, z_BTD = a_backbone("gru"), torch.randn(1, 4, 8)
    plain = nn.GRU(8, 8, 2, batch_first=True)
    plain.load_state_dict(gru.layers.state_dict())
    expected = gru.norm(plain(z_BTD)[0])
    assert torch.allclose(gru.states(z_BTD, histories([[1, 2, 3, 4]], 4)), expected, atol=1e-6)
    assert torch.equal(gru.states(z_BTD, histories([[0]], 4))[0, 0], gru.start)


@torch.inference_mode()
def test_feedback_follows_its_recurrence_by_hand():
    feedback = Feedback(replace(TINY, embedding_dim=1, n_heads=1))
    for parameter, value in {"gate_now.weight": 1.0, "gate_before.weight": -2.0, "gate_now.bias": 0.5}.items():
        feedback.get_parameter(parameter).fill_(value)
    feedback.project.weight.fill_(3.0)

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    # Events 1, 2, −1. The gate at the second is 2 − 2·1 + 0.5 = 0.5, at the third −1 − 2·2 + 0.5 = −4.5.
    first = 3.0
    second = sigmoid(0.5) * first + 6.0
    third = sigmoid(-4.5) * second - 3.0
    z_BTD = torch.tensor([[[1.0], [2.0], [-1.0]]])
    states = feedback.states(z_BTD, histories([[0, 1, 2, 3]], 3))
    assert states.flatten().tolist() == pytest.approx([0.0, first, second, third], abs=1e-5)
    one_B1D = torch.ones(1, 1, 1)
    terms = feedback.contributions({"item": z_BTD}, histories([[3]], 3), one_B1D)["item"].flatten().tolist()
    assert terms == pytest.approx([sigmoid(0.5) * sigmoid(-4.5) * 3.0, sigmoid(-4.5) * 6.0, -3.0], abs=1e-5)


@torch.inference_mode()
def test_what_events_contribute_to_feedback_adds_up_to_its_state():
    feedback, batch = a_backbone("feedback"), histories([[6], [2], [0]], 6)
    parts = {"item": torch.randn(3, 6, 8), "action": torch.randn(3, 6, 8)}
    v_BCD = torch.randn(3, 4, 8)
    terms = feedback.contributions(parts, batch, v_BCD)
    states = feedback.states(parts["item"] + parts["action"], batch)[:, 0]
    expected_BC = torch.einsum("bd,bcd->bc", states, v_BCD).double()
    assert torch.allclose(sum(term.sum(dim=1) for term in terms.values()), expected_BC, atol=1e-4)
    assert not terms["item"][1, 2:].any()


@torch.inference_mode()
def test_feedback_that_lets_nothing_or_everything_pass_stays_exact_over_a_long_history():
    feedback = Feedback(replace(TINY, embedding_dim=1, n_heads=1, max_len=400))
    feedback.project.weight.fill_(1.0)
    batch, z_BTD = histories([[400]], 400), torch.ones(1, 400, 1)
    for parameter in (feedback.gate_now.weight, feedback.gate_before.weight):
        parameter.zero_()
    for gate, expected in ((-60.0, 1.0), (60.0, 400.0), (math.log(99.0), (1 - 0.99**400) / (1 - 0.99))):
        feedback.gate_now.bias.fill_(gate)
        assert feedback.states(z_BTD, batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_feedback_with_wild_weights_still_closes(seed, checkerboard):
    settings = influent.TrainConfig(epochs=1, seed=seed, device="cpu")
    model = influent.Predictor(model=replace(TINY, backbone="feedback", count_len=4), train=settings)
    model.fit(checkerboard.train, checkerboard.validation)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model._network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.6)
    testing.check_credits_add_up(model, checkerboard.test)
    testing.check_batch_equals_single(model, checkerboard.test)


@torch.inference_mode()
def test_hstu_reads_when_its_events_happened_and_not_when_it_is_asked():
    hstu, z_BTD = a_backbone("hstu"), torch.randn(1, 3, 8)
    batch = histories([[3]], 3, time_BT=[[0.0, 60.0, 3600.0]])
    states = hstu.states(z_BTD, batch)
    later = replace(batch, time_BT=batch.time_BT + torch.tensor([0.0, 0.0, 1e6]))
    assert (hstu.states(z_BTD, later) - states).abs().max() > 1e-3
    assert torch.equal(hstu.states(z_BTD, replace(batch, asked_BQ=batch.asked_BQ + 1e6)), states)
    assert torch.equal(hstu.states(z_BTD, replace(batch, time_BT=batch.time_BT + 1e6)), states)


@torch.inference_mode()
def test_hstu_without_times_counts_events_only():
    torch.manual_seed(0)
    blind, z_BTD = Hstu(TINY, uses_gaps=False).eval(), torch.randn(1, 3, 8)
    timed = blind.states(z_BTD, histories([[3]], 3, time_BT=[[0.0, 60.0, 3600.0]]))
    assert torch.equal(timed, blind.states(z_BTD, histories([[3]], 3)))


@torch.inference_mode()
def test_an_hstu_unit_weighs_events_by_hand():
    torch.manual_seed(0)
    hstu = Hstu(replace(TINY, embedding_dim=2, n_heads=1, n_layers=1), uses_gaps=False).eval()
    [unit] = hstu.units
    hstu.distance_bias.copy_(torch.arange(6.0)[None])
    z_TD = torch.randn(2, 2)
    x_TD = z_TD * math.sqrt(2)
    gate, value, query, key = functional.silu(unit.gate_value_query_key(unit.norm(x_TD))).split(2, dim=1)
    # The second event looks at itself, at distance 0, and at the first, at distance 1; each counts by half.
    itself, first = functional.silu(query[1] @ key[1]), functional.silu(query[1] @ key[0] + 1)
    seen = (itself * value[1] + first * value[0]) / 2
    expected = x_TD[1] + unit.out(gate[1] * unit.seen_norm(seen))
    assert torch.allclose(hstu.states(z_TD[None], histories([[2]], 2))[0, 0], expected, atol=1e-6)


def test_scores_of_hstu_are_cosines_over_a_temperature(fitted, checkerboard):
    network = fitted["hstu"]._network
    assert torch.allclose(network.item_vectors().norm(dim=1), torch.ones(10), atol=1e-5)
    cosines = 0.05 * (fitted["hstu"].predict(checkerboard.test) - network.bias.detach().numpy())
    assert np.abs(cosines).max() <= 1 + 1e-5


def test_a_width_that_heads_cannot_share_is_refused():
    for backbone in (SasRec, Hstu):
        config = influent.ModelConfig(backbone="sasrec", embedding_dim=10, n_heads=4)
        with pytest.raises(influent.ConfigError, match="embedding_dim must be a multiple of n_heads for 'sasrec'"):
            backbone(config) if backbone is SasRec else backbone(config, uses_gaps=True)


def test_one_recurrent_layer_has_nothing_to_drop_between():
    assert Gru(replace(TINY, n_layers=1, dropout=0.5)).layers.dropout == 0
