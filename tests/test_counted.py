"""The counted part: its table, its terms in the loss, and that a user's own transitions are taken out exactly."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional

import influent
from influent.models import loss as loss_module
from influent.models.batch import training_windows
from influent.models.lookup import Lookup
from influent.models.loss import CountedTerms, cross_entropy
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


@pytest.mark.parametrize("chunk_bytes", [1, 300, 2**20])
def test_the_loss_with_counted_terms_has_the_value_and_gradients_of_the_plain_one(chunk_bytes, monkeypatch):
    monkeypatch.setattr(loss_module, "_CHUNK_BYTES", chunk_bytes)
    torch.manual_seed(1)
    n, n_items = 6, 9
    tensors = [torch.randn(n, 3), torch.randn(n_items, 3), torch.randn(n_items), torch.rand(n, 2)]
    target = torch.randint(n_items, (n,))
    added = Lookup(torch.randint(5, (n, 2)), torch.randint(n_items, (5, 3)), torch.rand(5, 3))
    taken_out = Lookup(torch.randint(7, (n, 2)), torch.randint(n_items, (7, 4)), torch.rand(7, 4))
    ours, plain = ([tensor.clone().requires_grad_() for tensor in tensors] for _ in range(2))
    terms = CountedTerms(omega_NL=ours[3], added=added, taken_out=taken_out)
    cross_entropy(ours[0], ours[1], ours[2], target, terms).backward()

    def dense(table):
        rows = torch.arange(len(table.item))[:, None]
        whole = torch.zeros(len(table.item), n_items).index_put((rows, table.item), table.value, accumulate=True)
        return whole[table.row]

    counted = (plain[3][..., None] * (dense(added) - dense(taken_out))).sum(1)
    functional.cross_entropy(plain[0] @ plain[1].T + plain[2] + counted, target).backward()
    for a, b in zip(ours, plain, strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6)


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
    model = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=1))
    model.fit(train, influent.split_last(train).validation)
    module, pairs = model._module, PairDecay(window=3)
    table = TransitionTable.build(train, pairs, popularity_power=0.3, n_entries=n_entries)
    kept = np.zeros((train.vocab.n_items, train.vocab.n_items))
    np.put_along_axis(kept, table.item_IJ, table.value_IJ > 0, axis=1)
    windows = training_windows(train, 6)
    for row in range(len(windows)):
        batch = model._batcher.window_batch(train, windows, np.array([row]))
        user = train.user_idx[windows.start[row]]
        own = count_transitions(
            train.until(np.where(np.arange(train.n_users) == user, train.offsets[1:], train.offsets[:-1])), pairs
        )
        others = (count_transitions(train, pairs) - own).toarray() * table.row_I[:, None] * table.column_I * kept
        wanted = batch.target_BQ >= 0
        log_BQTM = module.log_kernels(batch)
        terms = module.counted.terms(batch, log_BQTM[..., -1], wanted)
        found = torch.zeros(int(wanted.sum()), train.vocab.n_items)
        loss_module.add_counted(found, terms, slice(None))
        omega = module.counted.weights(batch, log_BQTM[..., -1])[wanted].detach().numpy()
        expected = omega @ np.vstack([others, np.zeros(train.vocab.n_items)])[batch.item_BT[0].numpy()]
        assert np.allclose(found.detach().numpy(), expected, atol=1e-5)


def test_without_the_counted_part_there_is_no_table(tmp_path):
    split = influent.split_last(sequences_of("abcde", "badce", "cabed"))
    settings = influent.ModelConfig(embedding_dim=2, n_heads=1, max_len=4, count_len=0)
    model = influent.Predictor(model=settings, train=influent.TrainConfig(epochs=1)).fit(split.train, split.validation)
    assert not any(name.startswith("counted") for name in model._module.state_dict())
    model.save(tmp_path)
    assert np.array_equal(influent.load_model(tmp_path).predict(split.test), model.predict(split.test))
