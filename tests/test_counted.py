"""The counted part: its table, its terms in the loss, and that a user's own transitions are taken out exactly."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

import influent
from influent.models import loss as loss_module
from influent.models import transitions as transitions_module
from influent.models.batch import training_windows
from influent.models.lookup import Lookup
from influent.models.loss import Competitors, CountedTerms, cross_entropy
from influent.models.transitions import PairDecay, TransitionTable, count_transitions, top_of_rows


def sequences_of(*histories):
    users = [user for user, history in enumerate(histories) for _ in history]
    log = pa.table({"user_id": users, "item_id": [item for history in histories for item in history]})
    return influent.build_sequences(influent.read_events(log))


def test_pairs_count_less_the_further_apart_and_against_their_order():
    counts = count_transitions(sequences_of("abc"), PairDecay(window=2, decay=0.5, reverse=0.1)).toarray()
    # a b and b c are neighbours, a c is one further; c a is that against the order.
    assert counts.tolist() == [[0, 1, 0.5], [0.1, 0, 1], [0.05, 0.1, 0]]


def test_pairs_do_not_reach_from_one_user_to_the_next():
    counts = count_transitions(sequences_of("ab", "cd"), PairDecay(reverse=0.0)).toarray()
    assert counts.sum() == 2
    assert (counts[0, 1], counts[2, 3]) == (1, 1)


def test_the_weight_of_a_pair_is_what_counting_adds():
    pairs = PairDecay(window=3, decay=0.5, reverse=0.2)
    assert pairs.weight(np.array([-4, -3, -1, 0, 1, 2, 4])).tolist() == pytest.approx([0, 0.05, 0.2, 0, 1, 0.5, 0])


def test_the_largest_entries_of_a_row_are_kept():
    column, value = top_of_rows(np.array([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]]), 2)
    assert column.tolist() == [[1, 2], [2, 0]]
    assert value.tolist() == [[3, 2], [5, 0]]


def dense(table: Lookup, n_items: int) -> torch.Tensor:
    """Return the looked-up rows written out, (B, T, I)."""
    rows = torch.arange(len(table.item))[:, None]
    whole = torch.zeros(len(table.item), n_items).index_put((rows, table.item), table.value, accumulate=True)
    return whole[table.row]


@pytest.mark.parametrize("n_items", [9, 200], ids=["rows written out", "entries one by one"])
@pytest.mark.parametrize("chunk_bytes", [1, 300, 2**20])
def test_the_loss_with_counted_terms_has_the_value_and_gradients_of_the_plain_one(chunk_bytes, n_items, monkeypatch):
    monkeypatch.setitem(loss_module._CHUNK_BYTES, "cpu", chunk_bytes)
    torch.manual_seed(1)
    n_windows, n_events = 3, 4
    before = torch.tensor([[1, 2, 3], [0, 1, 4], [2, 3, 4]])
    lag = before[..., None] - torch.arange(n_events)
    omega = torch.rand(n_windows, 3, n_events) * ((lag > 0) & (lag <= 2))
    tensors = [torch.randn(n_windows, 3, 5), torch.randn(n_items, 5), torch.randn(n_items), omega]
    target = torch.randint(n_items, (n_windows, 3))
    target[1, 1] = -1
    shape = (n_windows, n_events)
    added = Lookup(torch.randint(5, shape), torch.randint(n_items, (5, 3)), torch.rand(5, 3))
    taken_out = Lookup(torch.randint(7, shape), torch.randint(n_items, (7, 4)), torch.rand(7, 4))
    ours, plain = ([tensor.clone().requires_grad_() for tensor in tensors] for _ in range(2))
    terms = CountedTerms(omega_BQT=ours[3], added=added, taken_out=taken_out, before_BQ=before, reach=2)
    cross_entropy(ours[0], ours[1], ours[2], target, terms=terms).backward()
    counted = plain[3] @ (dense(added, n_items) - dense(taken_out, n_items))
    logits = plain[0] @ plain[1].T + plain[2] + counted
    functional.cross_entropy(logits.reshape(-1, n_items), target.reshape(-1), ignore_index=-1).backward()
    for a, b in zip(ours[:3], plain[:3], strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)
    # Beyond the reach a weight is zero by its mask, and its gradient is of no interest.
    is_read = (lag > 0) & (lag <= 2) & (target >= 0)[..., None]
    assert torch.allclose(ours[3].grad[is_read], plain[3].grad[is_read], atol=1e-6)


@pytest.mark.parametrize(
    "histories",
    [("abcde", "badce", "cabed"), ("abab", "bcacb", "aabbcc"), ("abcabcabcabc", "cba")],
    ids=["no repeats", "repeats", "long"],
)
@pytest.mark.parametrize("n_entries", [2, 50])
def test_training_sees_the_counts_of_the_other_users_only(histories, n_entries):
    """What the loss adds to a logit is Σ ω · (C − C_user)[item, i] · row · column, over the entries that were kept."""
    train = sequences_of(*histories)
    settings = influent.ModelConfig(embedding_dim=2, n_heads=1, max_len=6, count_entries=n_entries, count_window=3)
    model = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=1, device="cpu"))
    model.fit(train, influent.split_last(train).validation)
    network, pairs = model._network, PairDecay(window=3)
    table = TransitionTable.build(train, pairs, popularity_power=0.3, n_entries=n_entries)
    kept = np.zeros((train.vocab.n_items, train.vocab.n_items))
    np.put_along_axis(kept, table.item_IJ, table.value_IJ > 0, axis=1)
    windows, own_of_users = training_windows(train, 6), table.own(train)
    for row in range(len(windows)):
        batch = model._batcher.window_batch(train, windows, np.array([row]), own_of_users)
        user = train.user_idx[windows.start[row]]
        own = count_transitions(
            train.until(np.where(np.arange(train.n_users) == user, train.offsets[1:], train.offsets[:-1])), pairs
        )
        others = (count_transitions(train, pairs) - own).toarray() * table.row_I[:, None] * table.column_I * kept
        terms, everyone = network.counted.terms(batch), Competitors(n_columns=train.vocab.n_items)
        found = torch.zeros(1, batch.target_BQ.shape[1], train.vocab.n_items)
        terms.part(slice(None), slice(None), everyone).add_to(found)
        omega = network.counted.weights(batch)[0].detach().numpy()
        expected = omega @ np.vstack([others, np.zeros(train.vocab.n_items)])[batch.item_BT[0].numpy()]
        assert np.allclose(found[0].detach().numpy(), expected, atol=1e-5)


def test_the_tables_of_many_users_are_those_of_each(monkeypatch):
    """Users are counted some at a time; how many at a time changes nothing."""
    train = sequences_of("abcab", "badce", "a", "cabed", "ee")
    table = TransitionTable.build(train, PairDecay(window=3), popularity_power=0.3, n_entries=50)
    at_once = table.own(train)
    monkeypatch.setattr(transitions_module, "_EVENTS_AT_A_TIME", 3)
    piece_by_piece = table.own(train)
    assert np.array_equal(at_once.row_E, piece_by_piece.row_E)
    assert np.array_equal(at_once.offsets, piece_by_piece.offsets)
    assert np.array_equal(at_once.item, piece_by_piece.item)
    assert np.allclose(at_once.value, piece_by_piece.value)


def test_a_sampled_softmax_comes_to_the_full_one_as_the_sample_grows():
    torch.manual_seed(0)
    n_items = 30
    s, q, b = torch.randn(2, 20, 4), torch.randn(n_items, 4), torch.randn(n_items)
    target = torch.randint(n_items, (2, 20))
    full = cross_entropy(s, q, b, target)
    drawn_by = torch.rand(n_items) + 0.2
    sampled = Competitors.sampled(target.reshape(-1), drawn_by, 200_000)
    assert torch.allclose(cross_entropy(s, q, b, target, competitors=sampled), full, rtol=0.02)
    # Where nothing is asked nothing counts, though item 0 may not be among the competitors.
    target[0, 3:] = target[1, 1:] = -1
    few = Competitors.sampled(target[target >= 0], torch.eye(n_items)[7], 5)
    assert cross_entropy(s, q, b, target, competitors=few).isfinite()
    # Its own target takes part with weight 1 even where it was never drawn.
    nothing_else = Competitors.sampled(target[:1, :1].reshape(-1), torch.eye(n_items)[(target[0, 0] + 1) % n_items], 5)
    alone = cross_entropy(s[:1, :1], q, b, target[:1, :1], competitors=nothing_else)
    logits = (q @ s[0, 0] + b)[torch.stack([target[0, 0], (target[0, 0] + 1) % n_items])]
    # All five draws were of one item that was expected five times: its weight is 5 / 5.
    assert torch.allclose(alone, logits.logsumexp(0) - logits[0], atol=1e-5)


def test_a_model_of_a_large_catalogue_learns_from_a_sample(tmp_path):
    split = influent.split_last(sequences_of(*["abcdefgh", "badcfehg", "cdabghef"] * 4))
    settings = influent.ModelConfig(embedding_dim=4, n_heads=1, max_len=4, sampled_above=3, n_negatives=200)
    model = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=8)).fit(split.train, split.validation)
    assert model.log.epochs[-1]["loss"] < model.log.epochs[0]["loss"]
    model.save(tmp_path)
    assert np.array_equal(influent.load_model(tmp_path).predict(split.test), model.predict(split.test))


def test_without_the_counted_part_there_is_no_table(tmp_path):
    split = influent.split_last(sequences_of("abcde", "badce", "cabed"))
    settings = influent.ModelConfig(embedding_dim=2, n_heads=1, max_len=4, count_len=0)
    model = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    assert not any(name.startswith("counted") for name in model._network.state_dict())
    model.save(tmp_path)
    assert np.array_equal(influent.load_model(tmp_path).predict(split.test), model.predict(split.test))
