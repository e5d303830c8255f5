"""Who acts next is predicted from strictly earlier acts only, and every score is a sum over who acted before."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import influent
from influent.data.vocab import Ids
from influent.evaluation.cascades import actor_ranks


def cascades_of(*rows: tuple[str, str, int]) -> influent.Cascades:
    user, item, time = (list(column) for column in zip(*rows, strict=True))
    return influent.build_cascades(influent.read_events(pa.table({"user_id": user, "item_id": item, "time": time})))


def all_acts(cascades: influent.Cascades) -> influent.NextActs:
    """Every act but each cascade's first."""
    place = np.setdiff1d(np.arange(len(cascades.user_idx)), cascades.offsets[:-1])
    return influent.NextActs(cascades=cascades, place=place, begin_us=int(cascades.start_us.min()))


@pytest.fixture
def songs() -> influent.Cascades:
    """Bob follows ann twice, cat follows bob once; then ann acts on a third song, and bob on it at 32."""
    return cascades_of(
        ("ann", "s1", 1), ("bob", "s1", 2), ("cat", "s1", 3),
        ("ann", "s2", 11), ("bob", "s2", 12),
        ("ann", "s3", 31), ("bob", "s3", 32), ("cat", "s3", 33),
    )  # fmt: skip


def random_cascades(seed: int, n_users: int = 8, n_items: int = 12) -> influent.Cascades:
    """Few times for many acts, so that there are ties in cascades and between them."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, n_users, n_items)
    time_us = [(5 * item + np.sort(rng.integers(30, size=n))) * 1_000_000 for item, n in enumerate(lengths)]
    return influent.Cascades(
        users=Ids("user_id", pa.array(range(n_users))),
        items=Ids("item_id", pa.array(range(n_items))),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        event_id=np.arange(lengths.sum()),
        user_idx=np.concatenate([rng.permutation(n_users)[:length] for length in lengths]),
        time_us=np.concatenate(time_us),
    )


def small_models() -> list:
    intensity = influent.ActorIntensity(n_acts=30)
    n_counted = len(intensity.countings) * len(intensity.reaches)
    intensity.alpha, intensity.beta = np.full(8, 1 / 24), np.full(n_counted, 1 / 24)
    intensity.power, intensity.fitted_until_us = np.linspace(-0.2, 0.3, 7), -(10**18)
    counts = influent.ActorCounts(window=3, reverse=0.5, half_life_days=1e-3, gap_half_life_days=1e-3)
    return [influent.ActorPopularity(), counts, influent.ActorCounts(streaming=False), intensity]


def test_a_cascade_is_who_acted_on_an_item_each_once_in_order_of_time():
    cascades = cascades_of(("bob", "s", 7), ("ann", "s", 5), ("ann", "s", 9), ("cat", "t", 1))
    assert cascades.users.to_ids(cascades.user_idx).to_pylist() == ["ann", "bob", "cat"]
    assert cascades.offsets.tolist() == [0, 2, 3]
    assert cascades.event_id.tolist() == [1, 0, 3]
    assert cascades.n_repeats == 1
    assert cascades.summary() == (
        "2 cascades (1 of one act), 3 acts of 3 users; dropped: 1 repeated acts, 0 of unknown items"
    )


def test_acts_at_the_same_time_have_no_order():
    cascades = cascades_of(("a", "s", 1), ("b", "s", 2), ("c", "s", 2), ("d", "s", 3))
    assert cascades.n_before.tolist() == [0, 1, 1, 3]
    assert [cascades.history(place).tolist() for place in range(4)] == [[], [0], [0], [0, 1, 2]]


def test_acts_at_the_same_time_can_have_the_order_of_the_log():
    rows = [("b", "s", 2), ("c", "t", 2), ("a", "s", 1), ("c", "s", 2), ("d", "s", 3)]
    log = pa.table({"user_id": [r[0] for r in rows], "item_id": [r[1] for r in rows], "time": [r[2] for r in rows]})
    cascades = influent.build_cascades(influent.read_events(log, time_unit="s"), ties="log")
    assert cascades.event_id.tolist() == [2, 0, 3, 4, 1]
    assert cascades.time_us.tolist() == [1_000_000, 2_000_000, 2_000_002, 3_000_000, 2_000_001]
    assert cascades.n_before.tolist() == [0, 1, 2, 3, 0]
    with pytest.raises(influent.ConfigError, match="'ties' parameter of build_cascades must be"):
        influent.build_cascades(influent.read_events(log), ties="file")


def test_without_times_there_is_no_direction_to_learn():
    log = pa.table({"user_id": ["a", "b"], "item_id": ["s", "s"]})
    with pytest.raises(influent.DataError, match=r"does not say who acted before whom.*time='ts'"):
        influent.build_cascades(influent.read_events(log))


def test_cascades_of_one_act_alone_are_refused():
    with pytest.raises(influent.DataError, match="none of the 2 items has two users"):
        cascades_of(("a", "s", 1), ("b", "t", 2))


def test_events_of_items_that_the_vocabulary_lacks_are_counted(songs):
    log = pa.table({"user_id": ["ann", "bob", "ann"], "item_id": ["s1", "s1", "new"], "time": [1, 2, 3]})
    known = influent.build_sequences(influent.read_events(log.slice(0, 2))).vocab
    assert influent.build_cascades(influent.build_sequences(influent.read_events(log), vocab=known)).n_unknown == 1


def test_the_last_cascades_by_start_are_for_test_and_training_ends_where_they_begin():
    rows = [(user, f"i{start}", start * 10 + late) for start in range(10) for user, late in (("a", 0), ("b", 1))]
    rows.append(("c", "i0", 85))  # the first cascade is still going on when validation has begun
    rows.append(("d", "i0", 95))  # and when the test has
    split = influent.split_cascades(cascades_of(*rows))
    seconds = [(part.time_us // 1_000_000).tolist() for part in (*split, split.train_and_validation)]
    assert seconds[1:3] == [[81], [91]]
    assert split.overlap.startswith("1 of the 9 earlier cascades go on in the test's time, with 1 acts. These are read")
    assert sorted(seconds[0]) == [1, 11, 21, 31, 41, 51, 61, 71]
    assert sorted(seconds[3]) == [1, 11, 21, 31, 41, 51, 61, 71, 81, 85]
    assert split.test.begin_us == 90_000_000
    assert len(split.hash) == 12
    assert split.hash != influent.split_cascades(cascades_of(*rows[:-1])).hash


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"test": 0}, "The 'test' parameter of split_cascades must be between 0 and 1. Got 0."),
        ({"validation": 1.5}, "The 'validation' parameter of split_cascades must be between 0 and 1. Got 1.5."),
        ({"test": 0.5, "validation": 0.5}, "take 100% of the cascades. Leave some to train on."),
    ],
)
def test_shares_that_leave_nothing_are_refused(songs, shares, message):
    with pytest.raises(influent.ConfigError, match=message):
        influent.split_cascades(songs, **shares)


def test_popularity_is_how_often_each_acted_strictly_before(songs):
    scores = influent.ActorPopularity().predict(all_acts(songs))
    # Acts are bob and cat on s1, bob on s2, bob and cat on s3; columns are ann, bob, cat.
    assert scores.tolist() == [[1, 0, 0], [1, 1, 0], [2, 1, 1], [3, 2, 1], [3, 3, 1]]


def test_counts_are_sums_of_decayed_pairs_seen_before(songs):
    model = influent.ActorCounts(pair_decay=0.5, decay=0.1, popularity_power=0, row_power=0, own_weight=0)
    scores = model.predict(all_acts(songs))
    # Seen before s3: ann to bob on s1 and s2, 1 each; ann to cat on s1 at distance 2, 0.5; bob to cat, 1.
    assert scores[3].tolist() == [0, 2, 0.5]
    # Now ann stands two back, decay 0.1, and has been followed by bob once more; bob is the latest.
    np.testing.assert_allclose(scores[4], [0, 0.1 * 3, 0.1 * 0.5 + 1])
    still = replace(model, streaming=False).predict(replace(all_acts(songs), begin_us=11_000_000))
    np.testing.assert_allclose(still[3], [0, 1, 0.5])  # as of before s2 began


def test_counts_are_scaled_by_rows_and_popularity(songs):
    model = influent.ActorCounts(pair_decay=0.5, popularity_power=1, row_power=0.5, own_weight=0)
    # Ann's row has a sum of 2.5; before s3, bob acted twice and cat once.
    np.testing.assert_allclose(model.predict(all_acts(songs))[3], [0, 2 / 2.5**0.5 / 2, 0.5 / 2.5**0.5 / 1])


def test_a_pair_counts_half_after_its_half_life(songs):
    model = influent.ActorCounts(
        half_life_days=10 / 86_400, pair_decay=1, popularity_power=0, row_power=0, own_weight=0
    )
    # At 32, bob had followed ann 30 and 20 seconds before, and cat 29 seconds before.
    np.testing.assert_allclose(model.predict(all_acts(songs))[3], [0, 0.5**3 + 0.5**2, 0.5**2.9], rtol=1e-6)


def test_a_log_of_many_half_lives_does_not_overflow():
    rows = [(user, f"s{n:03}", 100 * n + late) for n in range(300) for user, late in (("a", 0), ("b", 1))]
    model = influent.ActorCounts(half_life_days=100 / 86_400, popularity_power=0, row_power=0, own_weight=0)
    # One pair every half-life: 1/2 + 1/4 + …, seen at the second act of the last song.
    np.testing.assert_allclose(model.predict(all_acts(cascades_of(*rows)))[-1], [0, 1], rtol=1e-5)


def test_users_in_the_cascade_are_never_ranked_and_ties_share_the_mean_of_their_ranks(songs):
    class AnnFirst:
        name = "ann first"

        def scores(self, acts):
            return ((row, np.array([9.0, 1.0, 1.0])) for row in range(len(acts)))

    # Bob ties with cat behind ann, who is in the cascade: ranks 1 and 2 are shared. Cat at the end is alone.
    assert actor_ranks(AnnFirst(), all_acts(songs)).tolist() == [1.5, 1, 1.5, 1.5, 1]
    report = influent.evaluate_next_actor([AnnFirst()], all_acts(songs), k=(1, 2))
    row = report.rows["ann first"]
    assert row["Hits@1"].mean == pytest.approx(2 / 5)
    assert row["Hits@2"].mean == 1
    assert row["MAP@2"].mean == pytest.approx((2 + 3 / 1.5) / 5)
    assert report.new_actors == pytest.approx(2 / 5)


def test_somebody_who_acted_at_the_same_time_is_neither_known_nor_left_out():
    cascades = cascades_of(("a", "s", 1), ("b", "s", 1), ("a", "t", 5), ("b", "t", 6))
    scores = influent.ActorPopularity().predict(all_acts(cascades))
    assert scores.tolist() == [[0, 0], [2, 1]]
    assert actor_ranks(influent.ActorPopularity(), all_acts(cascades)).tolist() == [1.5, 1]


@pytest.mark.parametrize("place", range(4))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_terms_add_up_to_the_score(place, seed):
    model, acts = small_models()[place], all_acts(random_cascades(seed))
    users = np.tile(np.arange(acts.cascades.n_users), (len(acts), 1))
    credits = model.credits(acts, users)
    np.testing.assert_allclose(credits.total(), model.predict(acts), rtol=1e-4, atol=1e-6)
    # Credit is given to strictly earlier acts of the same cascade only.
    act = acts.place[credits.owner]
    assert (acts.cascades.time_us[credits.place] < acts.cascades.time_us[act]).all()
    assert (acts.cascades.cascade_idx[credits.place] == acts.cascades.cascade_idx[act]).all()


@pytest.mark.parametrize("place", range(4))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), pick=st.floats(0, 0.999))
def test_no_act_at_or_after_the_moment_changes_a_prediction(place, seed, pick):
    model, cascades = small_models()[place], random_cascades(seed)
    acts = all_acts(cascades)
    chosen = acts.take(np.array([int(pick * len(acts))]))
    time_us = int(chosen.time_us[0])
    late = cascades.time_us >= time_us
    rng = np.random.default_rng(seed)
    changed = cascades.user_idx.copy()
    changed[late] = rng.integers(0, cascades.n_users, int(late.sum()))
    moved_us = cascades.time_us.copy()
    others = late & (cascades.cascade_idx != chosen.cascade_idx[0])
    moved_us[others] += 1_000_000  # all of them later by as much, so that order stays
    other_world = replace(cascades, user_idx=changed, time_us=moved_us)
    before = model.predict(chosen)
    np.testing.assert_array_equal(before, model.predict(replace(chosen, cascades=other_world)))


def test_what_was_learned_from_later_acts_may_not_judge_earlier_ones():
    split = influent.split_cascades(random_cascades(0, n_users=12, n_items=20))
    model = influent.ActorIntensity(n_acts=40).fit(split.train_and_validation)
    assert np.isfinite(model.predict(split.test)).all()
    with pytest.raises(influent.LeakageError, match=r"Fit on split\.train to be judged on validation"):
        model.predict(split.train)
    with pytest.raises(influent.NotFittedError, match="not fitted"):
        influent.ActorIntensity().predict(split.test)


def test_the_intensity_learns_who_follows_whom_where_everybody_is_equally_busy():
    # In each song one of four pairs acts, the second after the first; the order of the pairs is drawn.
    rng = np.random.default_rng(0)
    rows = []
    for song in range(200):
        pair = rng.integers(4)
        rows += [(f"lead{pair}", f"s{song:03}", 100 * song), (f"next{pair}", f"s{song:03}", 100 * song + 1)]
    split = influent.split_cascades(cascades_of(*rows))
    model = influent.ActorIntensity(n_acts=100).fit(split.train)
    report = influent.evaluate_next_actor([model, influent.ActorPopularity()], split.validation, k=(1,))
    assert report.rows["intensity"]["Hits@1"].mean == 1
    assert report.rows["popularity"]["Hits@1"].mean < 0.5


def test_the_objective_has_the_gradient_it_says():
    from influent.models.actor_intensity import _Objective

    rng = np.random.default_rng(0)
    terms, log_activity = rng.random((6, 5, 3)).astype(np.float32), rng.normal(size=(6, 5, 2)).astype(np.float32)
    objective, at = _Objective(terms, log_activity, np.zeros((6, 5), np.float32)), rng.normal(size=6) * 0.3
    _, gradient = objective(at)
    steps = np.eye(6) * 1e-2
    slopes = [(objective(at + step)[0] - objective(at - step)[0]) / 2e-2 for step in steps]
    np.testing.assert_allclose(gradient, slopes, atol=2e-3)


def test_more_users_than_a_table_can_hold_are_refused(songs):
    with pytest.raises(influent.ConfigError, match="tables over all 3 users.*limited to 2: raise max_users"):
        influent.ActorCounts(max_users=2).predict(all_acts(songs))


def test_without_acts_nothing_can_be_learned(songs):
    acts = all_acts(songs)
    with pytest.raises(influent.DataError, match="no acts to learn from"):
        influent.ActorIntensity().fit(acts.take(np.zeros(0, np.int64)))
