"""The laws of the additive model hold for random weights, random histories and random settings."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import influent
from influent import testing
from influent.models.batch import training_windows


@st.composite
def untrained_models(draw):
    """An additive model with random, large weights, and the test moments of a random log."""
    seed = draw(st.integers(0, 10_000))
    is_timed, has_values, knows = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    n_scenes, has_line = draw(st.integers(0, 3)), draw(st.booleans())
    rng = np.random.default_rng(seed)
    n = draw(st.integers(6, 40))
    log = {
        "user_id": np.sort(np.concatenate([rng.integers(0, 3, n), [9, 9, 9]])),
        "item_id": rng.integers(0, 5, n + 3),
        "action": np.array(["view", "buy"])[rng.integers(0, 2, n + 3)],
    }
    if is_timed:
        log["timestamp"] = np.cumsum(rng.integers(0, 10 ** rng.integers(1, 7), n + 3)) + 1_500_000_000
    if has_values:
        log["value"] = rng.normal(size=n + 3)
    if n_scenes:
        log["scene"] = pa.array(rng.integers(0, n_scenes, n + 3), mask=rng.random(n + 3) < 0.3)
    events = influent.clean(influent.read_events(pa.table(log)), drop_duplicates=False)
    split = influent.split_last(influent.build_sequences(events))
    model = influent.ModelConfig(
        embedding_dim=draw(st.integers(1, 9)),
        n_heads=draw(st.integers(1, 4)),
        max_len=draw(st.integers(1, 12)),
        uses_gaps=draw(st.booleans()),
        knows_moment=knows,
        # A line that has no target to read reads the latest event, and masking that then takes more than its credit.
        context=("scene",) if has_line and knows and split.train.category_names else (),
    )
    predictor = influent.Predictor(model=model, train=influent.TrainConfig(epochs=1, seed=seed, device="cpu"))
    predictor.fit(split.train, split.validation)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in predictor._network.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.6)
        # What is unknown stays without a vector.
        encoder = predictor._network.encoder
        for table in (encoder.item_in, encoder.action_in, *encoder.category_in):
            table.weight[-1] = 0
    return predictor, split


@settings(max_examples=25, deadline=None)
@given(untrained_models())
def test_credits_add_up_and_each_is_its_removal(world):
    predictor, split = world
    testing.check_credits_add_up(predictor, split.test)
    testing.check_credit_is_removal(predictor, split.test)


@settings(max_examples=15, deadline=None)
@given(untrained_models())
def test_a_ledger_closes_shortened_or_contrasted(world):
    predictor, split = world
    for arguments in ({}, {"top": 2}, {"contrast": 1}, {"contrast": 2, "top": 1}):
        if arguments.get("contrast", 1) < predictor.vocab.n_items:
            assert influent.explain(predictor, split.test, **arguments).largest_gap() <= 1e-4


@settings(max_examples=15, deadline=None)
@given(untrained_models())
def test_a_credit_is_the_shapley_value(world):
    """Of three events and the game v(S) = score with the others masked, by its definition over all orders."""
    predictor, split = world
    moment = split.test.take(slice(0, 1))
    credits = predictor.credits(moment, np.array([[0]]))
    places = credits.place[-3:].tolist()

    def value(kept):
        sequences = moment.sequences
        for place in set(places) - set(kept):
            sequences = testing.mask(sequences, place)
        return float(predictor.predict(replace(moment, sequences=sequences))[0, 0])

    import itertools

    orders = list(itertools.permutations(places))
    for place, credit in zip(places, credits.credit[-3:, 0], strict=True):
        gains = [value(order[: order.index(place) + 1]) - value(order[: order.index(place)]) for order in orders]
        assert abs(np.mean(gains) - credit) <= 1e-4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 9))
def test_every_event_is_a_target_exactly_once(lengths, max_len):
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    n = int(offsets[-1])
    log = pa.table({"user_id": np.repeat(np.arange(len(lengths)), lengths), "item_id": np.zeros(n, np.int64)})
    if n == 0:
        return
    train = influent.build_sequences(influent.read_events(log))
    windows = training_windows(train, max_len)
    targets = [t for a, b in zip(windows.first_target, windows.stop, strict=True) for t in range(a, b)]
    assert sorted(targets) == list(range(n))
    assert (windows.stop - windows.start <= max_len + 1).all()
    batches = list(windows.batches(2, np.random.default_rng(0)))
    assert len(batches) == windows.n_batches(2)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(windows)))
