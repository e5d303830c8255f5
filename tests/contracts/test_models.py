"""Every model keeps the laws of `influent.testing`, on a log with times and on one without."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import influent
from influent import testing
from influent.models.store import COUNTED

SMALL = influent.ModelConfig(embedding_dim=8, n_heads=2, max_len=6, dropout=0.1)
SHORT = influent.TrainConfig(epochs=2, batch_size=4, device="cpu")


def small_split(is_timed: bool) -> influent.Split:
    """12 users with 4 to 9 events over 7 items, two actions, two scenes, some values and scenes missing."""
    rng = np.random.default_rng(5)
    rows = [(user, place) for user in range(12) for place in range(int(rng.integers(4, 10)))]
    log = {
        "user_id": [user for user, _ in rows],
        "item_id": [f"i{rng.integers(7)}" for _ in rows],
        "action": [("view", "buy")[rng.integers(2)] for _ in rows],
        "value": [None if rng.random() < 0.3 else float(rng.normal()) for _ in rows],
    }
    if is_timed:
        log["timestamp"] = [1_700_000_000 + int(place * 3_600 * rng.integers(1, 30)) for _, place in rows]
    log["scene"] = [(None, "home", "search")[rng.integers(3)] for _ in rows]
    events = influent.clean(influent.read_events(pa.table(log)), drop_duplicates=False)
    return influent.split_last(influent.build_sequences(events))


@pytest.fixture(scope="module", params=[True, False], ids=["timed", "order-only"])
def split(request):
    return small_split(request.param)


def models():
    yield from ([kind.KIND, kind] for kind in COUNTED.values())
    yield "additive", lambda: influent.Predictor(model=SMALL, train=SHORT)
    moment = influent.ModelConfig(embedding_dim=8, n_heads=1, max_len=3, knows_moment=True)
    yield "additive, moment known", lambda: influent.Predictor(model=moment, train=SHORT)
    yield "ensemble", lambda: influent.Ensemble(influent.Predictor(model=SMALL, train=SHORT), n_members=2)


NAMED = dict(models())


@pytest.fixture(params=NAMED)
def fitted(request, split):
    if request.param == "recent_popularity" and split.train.time_us is None:
        with pytest.raises(influent.ConfigError, match="order-only log has no last days"):
            NAMED[request.param]().fit(split.train)
        pytest.skip("recent popularity needs times, and says so")
    return NAMED[request.param]().fit(split.train, split.validation)


def test_credits_add_up_to_the_score_of_every_item(fitted, split):
    testing.check_credits_add_up(fitted, split.test)


def test_masking_an_event_takes_exactly_its_credit_away(fitted, split):
    testing.check_credit_is_removal(fitted, split.test.take(slice(0, 5)))


def test_a_batch_scores_as_its_moments_do_alone(fitted, split):
    testing.check_batch_equals_single(fitted, split.test)


def test_saving_and_loading_changes_nothing(fitted, split):
    testing.check_saved_is_same(fitted, split.test)


def test_the_whole_check_passes(fitted, split):
    testing.check_model(fitted, split.test.take(slice(0, 2)))


def test_an_empty_history_has_only_the_bias(fitted, split):
    moments = influent.moments_of(split.train, [10_000])
    credits = fitted.credits(moments, np.array([[0, 1]]))
    assert len(credits.place) == 0
    assert np.allclose(credits.bias[0], fitted.predict(moments)[0, :2], atol=1e-6)


def test_events_after_the_moment_change_nothing(fitted, split):
    at_test = split.test.take(slice(0, 4))
    cut = at_test.sequences.until(
        np.where(np.diff(at_test.sequences.offsets) > 0, at_test.sequences.offsets[1:] - 1, 0)
    )
    same = influent.latest_moments(cut, at_test.user_idx)
    if getattr(getattr(fitted, "model", None), "knows_moment", False):
        same = influent.Moments(**{**vars(same), "time_us": at_test.time_us})
    assert np.allclose(fitted.predict(at_test), fitted.predict(same), atol=1e-6)


def test_fitting_twice_gives_the_same_model(fitted, split, request):
    again = NAMED[request.node.callspec.params["fitted"]]().fit(split.train, split.validation)
    assert np.array_equal(again.predict(split.test), fitted.predict(split.test))


def test_a_model_that_is_not_fitted_says_so(split):
    for make in NAMED.values():
        with pytest.raises(influent.NotFittedError, match=r"is not fitted. Call fit\(train\) first"):
            make().predict(split.test)


def test_a_model_that_breaks_a_law_is_found_out(split):
    class Wrong(influent.DecayedCounts):
        def credits(self, moments, candidates):
            found = super().credits(moments, candidates)
            found.credit[:] *= 1.01
            return found

    class Silent(influent.DecayedCounts):
        """Gives the latest event's credit a name, and all others' to the bias."""

        def credits(self, moments, candidates):
            found = super().credits(moments, candidates)
            latest = found.offsets[1:] - 1
            rest = np.add.reduceat(found.credit, found.offsets[:-1]) - found.credit[latest]
            offsets = np.arange(len(latest) + 1)
            bias = found.bias + rest
            return replace(found, offsets=offsets, place=found.place[latest], credit=found.credit[latest], bias=bias)

    wrong = Wrong().fit(split.train)
    testing.check_credits_add_up(Silent().fit(split.train), split.test)
    with pytest.raises(AssertionError, match="beside its credit"):
        testing.check_model(Silent().fit(split.train), split.test)
    with pytest.raises(AssertionError, match="credits are off by"):
        testing.check_credits_add_up(wrong, split.test)
    with pytest.raises(AssertionError, match="beside its credit"):
        testing.check_credit_is_removal(wrong, split.test)


def test_a_model_that_saves_in_a_way_of_its_own_is_checked_with_its_own_load(split):
    class Own(influent.DecayedCounts):
        """Writes nothing but a mark; what reads it back fits anew."""

        def save(self, folder):
            (folder / "mark").write_text("own")

    def load(folder):
        assert (folder / "mark").read_text() == "own"
        return Own().fit(split.train)

    own, some = Own().fit(split.train), split.test.take(slice(0, 2))
    with pytest.raises(influent.RunFolderError, match="holds no model"):
        testing.check_model(own, some)
    testing.check_model(own, some, load=load)
