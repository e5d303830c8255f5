"""What is put down to others, beside what would be if nobody moved anybody: one row for each way to tell.

All rows but the first use one strength for all ties, the mean of those that were found: what single pairs were found to
have, they were found to have in this order of time and along these ties, and every placebo would fall short of it.

Shapes: E events, U users, P co-actions, K lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from influent.data.moments import first_not_before
from influent.data.nulls import reverse, rewirings, shuffle_times
from influent.data.sequences import Sequences
from influent.data.ties import CoActions, Ties, find_co_actions
from influent.evaluation.metrics import bootstrap_interval
from influent.evaluation.report import Measure
from influent.models.social import Social

Speaks = Literal["for", "against", "unclear", "neither way"]

FEWEST = 30
"""People to whom something is put down, below which nothing is said."""


@dataclass(frozen=True, kw_only=True)
class LikenessTest:
    """What is put down to others, beside the same where nobody can have been moved. In events, but for `beyond`."""

    name: str
    measured: str
    if_alike: str
    """What the placebo would be if people were merely alike"""
    observed: float | None = None
    placebo: float | None = None
    beyond: Measure | None = None
    """Observed minus placebo for each user, with its 95 % interval; None where it cannot be computed"""
    p_value: float | None = None
    """Of tests by draws: the share of all orders, the one that was among them, that come out as high as it did"""
    speaks: Speaks = "unclear"
    """For influence, where `beyond` is surely above 0; against it, where `beyond` is not above 0 at all"""
    why_not: str = ""
    """Why it cannot be computed"""

    def cells(self) -> list[str]:
        """Return the row as texts."""
        if self.beyond is None:
            return [self.name, self.measured, "–", "–", "–", self.if_alike, self.why_not]
        numbers = f"{self.observed:,.1f}", f"{self.placebo:,.1f}", str(self.beyond)
        return [self.name, self.measured, *numbers, self.if_alike, self.speaks]


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A model with one strength for all ties, the log it is held against, and how sure intervals have to be."""

    model: Social
    train: Sequences
    f_EK: np.ndarray
    """What each line expects of each event"""
    line_EK: np.ndarray
    """The terms of the lines in the rate of each event"""
    ties: Ties
    """As they were given, with their beginnings"""
    n_draws: int
    n_resamples: int
    seed: int

    def received(self, ties: Ties | None = None) -> np.ndarray:
        """Return how many of each user's events are put down to others, (U,), along other ties where there are any."""
        model = self.model if ties is None else self.model.along(ties)
        return model.received(self.train, self.line_EK)

    def shares(self) -> tuple[CoActions, np.ndarray]:
        """Return the co-actions, and the share that each has of the rate of its later event, (P,)."""
        pairs, term_P = self.model.social_terms(self.train)
        rate_E = self.line_EK.sum(axis=1) + np.bincount(pairs.event, term_P, len(self.train))
        return pairs, term_P / rate_E[pairs.event]

    def split(self, pairs: CoActions, share_P: np.ndarray, is_real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums of shares by user, (U,), of the co-actions that are no placebo, and of those that are."""
        user = self.train.user_idx[pairs.event]
        real_U = np.bincount(user, share_P * is_real, self.train.n_users)
        return real_U, np.bincount(user, share_P * ~is_real, self.train.n_users)


def by_users(observed_U: np.ndarray, placebo_U: np.ndarray, *, n_resamples: int, seed: int) -> dict[str, Any]:
    """Return the numbers of a row by users, each held against their own placebo; with `speaks` last."""
    # A part of an event spread over many pairs is nobody's; half an event is.
    someone = np.flatnonzero((observed_U >= 0.5) | (placebo_U >= 0.5))
    more = (observed_U - placebo_U)[someone]
    beyond = Measure(0.0, 0.0, 0.0)
    if len(someone):
        beyond = Measure(float(more.mean()), *bootstrap_interval(more, someone, n_resamples=n_resamples, seed=seed))
    return {
        "observed": float(observed_U.sum()),
        "placebo": float(placebo_U.sum()),
        "beyond": beyond,
        "speaks": _speaks(beyond, len(someone)),
    }


def _speaks(beyond: Measure, n_users: int) -> Speaks:
    if n_users < FEWEST:
        return "unclear"
    return "for" if beyond.low > 0 else "unclear" if beyond.mean > 0 else "against"


def _by_draws(observed_U: np.ndarray, by_chance: list[float]) -> dict[str, Any]:
    """Return the numbers of a row against draws, whose spread gives the interval."""
    observed, n_users = float(observed_U.sum()), max(int((observed_U >= 0.5).sum()), 1)
    drawn, n = np.array(by_chance), len(by_chance)
    spread = 1.96 * float(drawn.std(ddof=1)) * np.sqrt(1 + 1 / n)
    more = observed - float(drawn.mean())
    beyond = Measure(*((more + side * spread) / n_users for side in (0, -1, 1)))
    return {
        "observed": observed,
        "placebo": float(drawn.mean()),
        "beyond": beyond,
        "p_value": float((1 + (drawn >= observed).sum()) / (1 + n)),
        "speaks": _speaks(beyond, n_users),
    }


def time_reversed(forward_U: np.ndarray, backward_U: np.ndarray, *, n_resamples: int, seed: int) -> LikenessTest:
    """Hold what is found forwards against what is found when time runs backwards, with the strength of each tie."""
    return LikenessTest(
        name="time reversed",
        measured="along the ties, forwards; placebo: when time runs backwards",
        if_alike="as much",
        **by_users(forward_U, backward_U, n_resamples=n_resamples, seed=seed),
    )


def edges_reversed(probe: Probe) -> LikenessTest:
    """Hold ties as they are against the same with source and target exchanged.

    Anagnostopoulos, Kumar and Mahdian, Influence and correlation in social networks, 2008.
    """
    about: dict[str, Any] = {
        "name": "edges reversed",
        "measured": "along the ties; placebo: along the same from target to source",
        "if_alike": "as much, where both ends act as often",
    }
    turned = reverse(probe.ties)
    if (probe.ties.find(turned.source, turned.target) >= 0).all():
        return LikenessTest(**about, why_not="every tie runs both ways")
    numbers = by_users(probe.received(), probe.received(turned), n_resamples=probe.n_resamples, seed=probe.seed)
    # Whose events are put down to whom differs, and so does how many there are: a hint, and no placebo.
    return LikenessTest(**{**about, **numbers, "speaks": _no_veto(numbers["speaks"])})


def times_shuffled(probe: Probe) -> LikenessTest:
    """Hold the log against the same with times exchanged among the events on an item."""
    rng = np.random.default_rng(probe.seed)
    by_chance = []
    for _ in range(probe.n_draws):
        shuffled, place = shuffle_times(probe.train, rng)
        line_EK = probe.model.line_terms(shuffled, probe.f_EK[place])
        by_chance.append(float(probe.model.received(shuffled, line_EK).sum()))
    return LikenessTest(
        name="times shuffled",
        measured="in the order that was; placebo: times exchanged among events on an item",
        if_alike="as much, where friends are not active at the same times",
        **_by_draws(probe.received(), by_chance),
    )


def ties_rewired(probe: Probe) -> LikenessTest:
    """Hold ties against ties to other people who have as many."""
    about: dict[str, Any] = {
        "name": "ties rewired",
        "measured": "along the ties; placebo: along ties to others who have as many",
        "if_alike": "less too: people are alike along their ties",
    }
    draws = rewirings(probe.ties, probe.n_draws, np.random.default_rng(probe.seed))
    if not draws:
        return LikenessTest(**about, why_not="most people are tied to all that they could be tied to")
    numbers = _by_draws(probe.received(), [float(probe.received(drawn).sum()) for drawn in draws])
    if numbers["speaks"] == "for":
        numbers["speaks"] = "neither way"
    return LikenessTest(**about, **numbers)


def future_acts(probe: Probe) -> LikenessTest:
    """Let what sources did after an event compete with what they did before it, and hold their shares against it.

    Bursts and gaps of both sides count alike.
    """
    train, model = probe.train, probe.model
    back, place = train.backwards()
    (past, past_P), (future, future_P) = model.social_terms(train), model.social_terms(back)
    event = place[future.event]
    line_EK = probe.line_EK.copy()
    line_EK[place] += model.line_terms(back, probe.f_EK[place])
    rate_E = line_EK.sum(axis=1) / 2
    rate_E += np.bincount(past.event, past_P, len(train)) + np.bincount(event, future_P, len(train))
    users = train.user_idx
    observed_U = np.bincount(users[past.event], past_P / rate_E[past.event], train.n_users)
    placebo_U = np.bincount(users[event], future_P / rate_E[event], train.n_users)
    return LikenessTest(
        name="future acts",
        measured="to what sources did before; placebo: to what they did after, side by side",
        if_alike="as much",
        **by_users(observed_U, placebo_U, n_resamples=probe.n_resamples, seed=probe.seed),
    )


def not_yet_tied(probe: Probe) -> LikenessTest:
    """Hold what sources did since the tie began against what they did before it, between the target's own acts."""
    about: dict[str, Any] = {
        "name": "not yet tied",
        "measured": "to what sources did since the tie began; placebo: before it, at as many acts",
        "if_alike": "as much",
    }
    ties, train = probe.ties, probe.train
    if ties.since_us is None:
        return LikenessTest(**about, why_not="the ties have no beginnings")
    since, after = _acts_around(ties, train)
    if since == 0 or after == 0:
        return LikenessTest(**about, why_not="no source acted both before and after a tie began")
    assert train.time_us is not None
    pairs, share_P = probe.shares()
    is_since = train.time_us[pairs.source] >= ties.since_us[pairs.tie]
    observed_U, placebo_U = probe.split(pairs, share_P, is_since)
    numbers = by_users(observed_U, placebo_U * since / after, n_resamples=probe.n_resamples, seed=probe.seed)
    return LikenessTest(**about, **numbers)


def control_items(probe: Probe, items: Sequence[Any]) -> LikenessTest:
    """Hold all other items against those on which nobody can have been moved, at as many events."""
    about: dict[str, Any] = {
        "name": "control items",
        "measured": "on other items; placebo: on items that no target could see, at as many events",
        "if_alike": "as much",
    }
    if len(items) == 0:
        return LikenessTest(**about, why_not="no control items are given")
    train = probe.train
    is_control = np.isin(train.item_idx, train.vocab.items.require_idx(items))
    if is_control.all() or not is_control.any():
        return LikenessTest(**about, why_not="no events on control items, or on others")
    pairs, share_P = probe.shares()
    observed_U, placebo_U = probe.split(pairs, share_P, ~is_control[pairs.event])
    as_many = (~is_control).sum() / is_control.sum()
    numbers = by_users(observed_U, placebo_U * as_many, n_resamples=probe.n_resamples, seed=probe.seed)
    return LikenessTest(**about, **numbers)


def unadjusted(probe: Probe) -> LikenessTest:
    """Count a user's events that follow a friend's on the same item, whatever else explains them."""
    observed_U, placebo_U = (_followed(probe, log) for log in (probe.train, probe.train.backwards()[0]))
    numbers = by_users(observed_U, placebo_U, n_resamples=probe.n_resamples, seed=probe.seed)
    adjusted = f"{float(probe.received().sum()):,.1f} of them"
    return LikenessTest(
        **{
            **numbers,
            "name": "not adjusted",
            "measured": f"events that follow a friend's; popularity, bursts and own pasts leave {adjusted}; placebo: "
            "when time runs backwards",
            "if_alike": "as many",
            "speaks": "neither way",
        }
    )


def placebos(probe: Probe, items: Sequence[Any]) -> list[LikenessTest]:
    """Return all rows but that of time reversed.

    Args:
        items: control items; may be none.
    """
    plain = (edges_reversed, times_shuffled, ties_rewired, future_acts, not_yet_tied)
    return [*(test(probe) for test in plain), control_items(probe, items), unadjusted(probe)]


def _followed(probe: Probe, log: Sequences) -> np.ndarray:
    """Return how many events of each user have a co-action, (U,)."""
    config = probe.model.config
    pairs = find_co_actions(log, probe.model.ties, window=config.window, reach=config.reach)
    return np.bincount(log.user_idx[np.unique(pairs.event)], minlength=log.n_users).astype(np.float64)


def _acts_around(ties: Ties, train: Sequences) -> tuple[int, int]:
    """Return how many acts of sources lie since their ties began, and before, from a target's first act to its last."""
    assert train.time_us is not None
    assert ties.since_us is not None
    start, stop = train.offsets[ties.source], train.offsets[ties.source + 1]
    has_any = train.offsets[ties.target + 1] > train.offsets[ties.target]
    first = train.time_us[np.where(has_any, train.offsets[ties.target], 0)]
    last = train.time_us[np.where(has_any, train.offsets[ties.target + 1] - 1, 0)]
    begin, middle, end = (
        first_not_before(train.time_us, start, stop, moment)
        for moment in (first, np.clip(ties.since_us, first, last), last)
    )
    return int((end - middle)[has_any].sum()), int((middle - begin)[has_any].sum())


def _no_veto(speaks: Speaks) -> Speaks:
    return "unclear" if speaks == "against" else speaks
