"""From settings of a known influence, to the log that it leads to and the truth behind it: a planted world.

The world is a multivariate Hawkes process (Hawkes 1971). User u does action a to item i at the rate

    λ_{u,i,a}(t) = share_a · [ μ_u · base_u(i)
                             + Σ_j     strength_{a_j} · E[item_j, i] · κ_{a_j}(t − t_j)     j: own earlier events
                             + Σ_v S(v→u) Σ_j 1[item_j = i] · κ_social(t − t_j) ]           j: events of v, tied to u

    base_u(i) = (1 − taste) · popularity_i + taste · popularity_i · 1[i in u's topic] / popularity of that topic

E has a few unequal followers per item; each κ is a mixture of exponentials whose integral is 1, so a strength is
an expected number of children. A friend's event excites the *same* item, one's own event the followers of its item.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from influent.errors import ConfigError
from influent.schema import (
    ACTION,
    EVENT_COLUMNS,
    EVENT_ID,
    ITEM_ID,
    KIND,
    SCENE,
    SOURCE_ITEM_ID,
    SOURCE_USER_ID,
    TARGET_USER_ID,
    TIME_US,
    USER_ID,
    VALUE,
)

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
_MAX_DAYS = 36_500  # a century: its microseconds are still exact in float64

Ints: TypeAlias = npt.NDArray[np.integer[Any]]
Floats: TypeAlias = npt.NDArray[np.float64]
Kernel: TypeAlias = tuple[tuple[float, int], ...]
"""`(weight, scale_us)` of each exponential of a mixture; the weights add up to 1."""


def _check_range(owner: str, name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    kind = "an int" if whole else "a number"
    right_kind = isinstance(value, numbers.Integral if whole else numbers.Real)
    if not (right_kind and low <= value <= high):  # type: ignore[operator]  # nan is in no range
        raise ConfigError(
            f"The {name!r} parameter of {owner} must be {kind} in the range [{low}, {high}]. Got {value!r} instead."
        )


def _check_shares(owner: str, name: str, shares: Sequence[float]) -> None:
    """Refuse an empty list, a share outside [0, 1], and shares that are not a whole."""
    for share in shares:
        _check_range(owner, name, share, 0, 1)
    if not math.isclose(sum(shares), 1, abs_tol=1e-9):
        raise ConfigError(
            f"The {name!r} parameter of {owner} must add up to 1. Got {list(shares)}, which add up to "
            f"{sum(shares):.6g}. Divide each by their sum."
        )


def _check_kernel(owner: str, name: str, kernel: Kernel) -> None:
    _check_shares(owner, f"{name} (its weights)", [weight for weight, _ in kernel])
    for _, scale_us in kernel:
        _check_range(owner, f"{name} (its scale_us)", scale_us, 1, _MAX_DAYS * DAY_US, whole=True)


@dataclass(frozen=True, kw_only=True)
class WorldAction:
    """One kind of behaviour in a planted world, and what an event of that kind sets off."""

    name: str
    """What the `action` column says."""
    share: float
    """Part of all events that are of this kind; the shares of a world add up to 1."""
    strength: float
    """Expected number of events that one event of this kind causes directly in the same user."""
    kernel: Kernel
    """How long its children take: `(weight, scale_us)` of each exponential."""

    def __post_init__(self) -> None:
        """Refuse what is out of range, each on its own."""
        _check_range("WorldAction", "share", self.share, 0, 1)
        _check_range("WorldAction", "strength", self.strength, 0, 1_000_000)
        _check_kernel("WorldAction", "kernel", self.kernel)


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Settings of a planted world; the defaults make about 35 events for each of 800 users."""

    n_users: int = 800
    """Users, also those who happen to do nothing."""
    n_items: int = 200
    """Items, also those that nobody touches."""
    n_topics: int = 8
    """Groups of taste; every user and every item is in one."""
    horizon_days: float = 60.0
    """Length of the log."""
    start_us: int = 1_704_067_200_000_000
    """Beginning of the log; 2024-01-01 UTC unless told."""
    base_rate_per_day: float = 0.33
    """Mean over users of μ: events that nothing in the log caused."""
    rate_spread: float = 0.5
    """Standard deviation of μ over users, relative to its mean; 0 makes all users alike."""
    popularity_slope: float = 0.8
    """Zipf exponent: popularity is proportional to rank ** −slope; 0 makes all items alike."""
    taste: float = 0.6
    """Part of the base events that stay in the user's own topic; the rest ignore topics."""
    actions: tuple[WorldAction, ...] = (
        WorldAction(name="view", share=0.75, strength=0.35, kernel=((0.7, 10 * MINUTE_US), (0.3, 4 * HOUR_US))),
        WorldAction(name="cart", share=0.15, strength=0.6, kernel=((0.5, HOUR_US), (0.5, DAY_US))),
        WorldAction(name="purchase", share=0.1, strength=0.9, kernel=((0.3, DAY_US), (0.7, 7 * DAY_US))),
    )
    """Kinds of behaviour: how frequent, how strong, how slow."""
    follower_weights: tuple[float, ...] = (0.6, 0.3, 0.1)
    """Every item excites this many other items, with these weights, which add up to 1."""
    n_ties: int = 0
    """People whose events excite each user; one drawn twice counts once; 0 leaves users independent."""
    social_strength: float = 0.2
    """Sum of the strengths of the ties into a user; the split among them is random."""
    social_kernel: Kernel = ((0.5, 3 * HOUR_US), (0.5, 2 * DAY_US))
    """How long a tied user takes: `(weight, scale_us)` of each exponential."""
    homophily: float = 0.0
    """Part of the ties that are sought within the user's own topic."""
    strength_scale: float = 1.0
    """Multiplies every strength, of actions and ties; 0 keeps users, items, ties and tastes and leaves no influence."""
    seed: int = 0
    """Same settings and seed, same world. Users, items and ties do not change with the strengths."""

    @property
    def horizon_us(self) -> int:
        """Length of the log, in microseconds; it ends before `start_us + horizon_us`."""
        return round(self.horizon_days * DAY_US)

    @property
    def _own_ratio(self) -> float:
        return self.strength_scale * sum(action.share * action.strength for action in self.actions)

    @property
    def branching_ratio(self) -> float:
        """Mean number of children of an event, own and social; the log ends if it is below 1.

        Each column of the matrix of user-to-user means sums to no more than this, so its spectral radius is no larger.
        """
        return self._own_ratio + (self.strength_scale * self.social_strength if self.n_ties else 0.0)

    def __post_init__(self) -> None:
        """Refuse what is out of range, or would grow for ever."""
        bounds: tuple[tuple[str, float, float, bool], ...] = (
            ("n_users", 1, 2**31 - 1, True),
            ("n_items", len(self.follower_weights) + 1, 2**31 - 1, True),
            ("horizon_days", 0.001, _MAX_DAYS, False),
            ("start_us", 0, 2**62, True),
            ("base_rate_per_day", 0, 1_000_000, False),
            ("rate_spread", 0, 10, False),
            ("popularity_slope", 0, 10, False),
            ("taste", 0, 1, False),
            ("social_strength", 0, 1_000_000, False),
            ("homophily", 0, 1, False),
            ("strength_scale", 0, 1_000_000, False),
            ("seed", 0, 2**63 - 1, True),
        )
        for name, low, high, whole in bounds:
            _check_range("WorldConfig", name, getattr(self, name), low, high, whole=whole)
        _check_range("WorldConfig", "n_topics", self.n_topics, 1, self.n_items, whole=True)
        _check_range("WorldConfig", "n_ties", self.n_ties, 0, self.n_users - 1, whole=True)
        self._check_parts()
        self._check_it_ends()

    def _check_parts(self) -> None:
        names = [action.name for action in self.actions]
        if len(set(names)) < len(names):
            raise ConfigError(f"actions of WorldConfig must differ in name. Got {names}. Rename or join the doubles.")
        _check_shares("WorldConfig", "actions (their shares)", [action.share for action in self.actions])
        _check_shares("WorldConfig", "follower_weights", self.follower_weights)
        _check_kernel("WorldConfig", "social_kernel", self.social_kernel)

    def _check_it_ends(self) -> None:
        if self.branching_ratio >= 1:
            raise ConfigError(
                f"the branching ratio is {self.branching_ratio:.3g}: each event would cause {self._own_ratio:.3g} of "
                f"the same user and {self.branching_ratio - self._own_ratio:.3g} of tied users, so the log would grow "
                "for ever. It must be below 1. Lower 'strength_scale' below "
                f"{self.strength_scale / self.branching_ratio:.3g}, the strengths of 'actions', or 'social_strength'."
            )


@dataclass(frozen=True, kw_only=True)
class World:
    """A log and the truth behind it, as tables. Nothing of the truth is in the log."""

    config: WorldConfig
    """The settings it came from."""
    events: pa.Table
    """The log, in time order; `event_id` is the row."""
    parents: pa.Table
    """`event_id, parent_event_id`: the event that caused it, null where the base rate did."""
    excitation: pa.Table
    """`source_item_id, item_id, weight`: E, by rows that add up to 1."""
    actions: pa.Table
    """`action, share, strength`."""
    kernels: pa.Table
    """`action, weight, scale_us`: one row per exponential; a null action is the social kernel."""
    edges: pa.Table
    """`source_user_id, target_user_id, kind, strength`: children in the target per event of the source."""
    users: pa.Table
    """`user_id, topic, base_rate_per_day`."""
    items: pa.Table
    """`item_id, title, category, popularity`: a category is a topic; popularity adds up to 1."""


def simulate_world(config: WorldConfig = WorldConfig()) -> World:
    """Draw users, items and ties, then every event with the event that caused it.

    The draw is exact and from an empty past: base events are a Poisson process, and each event has a Poisson number
    of children (Hawkes & Oakes 1974, https://doi.org/10.2307/3212693), generation by generation until none is left.
    Children after the horizon are dropped, as a log would. Time is whole microseconds; a child is at least one
    later than its parent.

    Example:
        >>> world = simulate_world(WorldConfig(n_users=3, n_items=5, n_topics=2))
        >>> world.items.slice(0, 1).select(["item_id", "title"]).to_pylist()
        [{'item_id': 'i000', 'title': 'Item 000 (topic 0)'}]
        >>> world.events.num_rows == world.parents.num_rows
        True
    """
    # One stream each, so that a world keeps its users and items when only its ties or strengths change.
    for_truth, for_ties, for_events = np.random.default_rng(config.seed).spawn(3)
    truth = _draw_truth(config, for_truth, for_ties)
    grown = _grow(_Process(config, truth, for_events))
    events, parents = _build_log(config, truth, grown)
    return World(config=config, events=events, parents=parents, **truth._asdict())


class _Truth(NamedTuple):
    """What is drawn before the first event, as the tables of a `World`. The events are drawn from these tables."""

    users: pa.Table
    items: pa.Table
    excitation: pa.Table
    actions: pa.Table
    kernels: pa.Table
    edges: pa.Table


class _Cohort(NamedTuple):
    """Events of one generation, or of all; times since the start; parent −1 where there is none."""

    time_us: Ints
    user_idx: Ints
    item_idx: Ints
    action_idx: Ints
    parent: Ints


class _Urns:
    """Weighted balls in a row and urns that are stretches of it: one draw, vectorised, for all that a world chooses."""

    def __init__(self, weights: npt.ArrayLike, first: npt.ArrayLike, stop: npt.ArrayLike) -> None:
        self._below = np.concatenate([[0.0], np.cumsum(weights)])
        self._first, self._stop = np.asarray(first), np.asarray(stop)

    def draw(self, rng: np.random.Generator, urn: Ints) -> Ints:
        """Return one ball of each urn named, by its place in the row, and leave it there."""
        first, stop = self._first[urn], self._stop[urn]
        key = self._below[first] + rng.random(urn.size) * (self._below[stop] - self._below[first])
        place: Ints = np.searchsorted(self._below, key, side="right") - 1
        inside: Ints = np.minimum(place, stop - 1)  # a key may round up to its urn's end
        return inside


def _urns_by(group: pa.ChunkedArray, groups: pa.ChunkedArray, weights: pa.ChunkedArray) -> _Urns:
    """Return one urn for each of `groups`, and one for what is in none; the rows stand in that order already."""
    return _Urns(weights.to_numpy(), *_stretches(index_in(group, groups), len(groups) + 1))


def _base_urns(config: WorldConfig, items: pa.Table) -> tuple[Ints, _Urns]:
    """Return the items by topic, and in that order one urn per topic and a last one with them all."""
    topic = index_in(items["category"], _topics(config))
    order = np.argsort(topic, kind="stable")
    first, stop = _stretches(topic[order], config.n_topics)
    return order, _Urns(items["popularity"].to_numpy()[order], np.append(first, 0), np.append(stop, order.size))


class _Process:
    """The branching rules of one world."""

    def __init__(self, config: WorldConfig, truth: _Truth, rng: np.random.Generator) -> None:
        users, items, excitation, actions, kernels, edges = truth
        self._rng, self._horizon_us, self._taste = rng, config.horizon_us, config.taste
        self._base_counts = users["base_rate_per_day"].to_numpy() * config.horizon_days
        self._user_topic = index_in(users["topic"], _topics(config))
        self._item_order, self._base_items = _base_urns(config, items)
        self._actions = _Urns(actions["share"].to_numpy(), [0], [len(actions)])
        self._strength = actions["strength"].to_numpy()
        self._kernels = _urns_by(kernels[ACTION], actions[ACTION], kernels["weight"])  # the last urn: social
        self._scale_us = kernels["scale_us"].to_numpy()
        self._followers = _urns_by(excitation[SOURCE_ITEM_ID], items[ITEM_ID], excitation["weight"])
        self._follower = index_in(excitation[ITEM_ID], items[ITEM_ID])
        self._listeners = _urns_by(edges[SOURCE_USER_ID], users[USER_ID], edges["strength"])
        self._listener = index_in(edges[TARGET_USER_ID], users[USER_ID])
        source = index_in(edges[SOURCE_USER_ID], users[USER_ID])
        self._told: Floats = np.bincount(source, edges["strength"].to_numpy(), len(users)).astype(np.float64)

    def immigrants(self) -> _Cohort:
        """Return the events that nothing caused."""
        counts = self._rng.poisson(self._base_counts)
        user = np.repeat(np.arange(counts.size, dtype=np.int32), counts)
        time_us = self._rng.integers(0, self._horizon_us, user.size)
        at_home = self._rng.random(user.size) < self._taste
        urn = np.where(at_home, self._user_topic[user], -1)
        item = self._item_order[self._base_items.draw(self._rng, urn)]
        return self._cohort(time_us, user, item, np.full(user.size, -1))

    def children(self, old: _Cohort, first: int) -> _Cohort:
        """Return what the events of a generation caused; `first` is the place of the first of them among all."""
        cohorts = [self._own_children(old, first)]
        if self._listener.size:
            cohorts.append(self._social_children(old, first))
        return _joined(cohorts)

    def _own_children(self, old: _Cohort, first: int) -> _Cohort:
        at, time_us = self._births(old, self._strength[old.action_idx], old.action_idx)
        item = self._follower[self._followers.draw(self._rng, old.item_idx[at])]
        return self._cohort(time_us, old.user_idx[at], item, first + at)

    def _social_children(self, old: _Cohort, first: int) -> _Cohort:
        social = np.full_like(old.action_idx, self._strength.size)
        at, time_us = self._births(old, self._told[old.user_idx], social)
        user = self._listener[self._listeners.draw(self._rng, old.user_idx[at])]
        return self._cohort(time_us, user.astype(np.int32), old.item_idx[at], first + at)

    def _births(self, old: _Cohort, expected: Floats, kernel: Ints) -> tuple[Ints, Ints]:
        """Return which event of `old` each child before the horizon comes from, and when it comes."""
        at = np.repeat(np.arange(expected.size), self._rng.poisson(expected))
        scale_us = self._scale_us[self._kernels.draw(self._rng, kernel[at])]
        delay_us = np.maximum(np.ceil(self._rng.exponential(scale_us)), 1)
        time_us = old.time_us[at] + delay_us
        kept = time_us < self._horizon_us
        return at[kept], time_us[kept].astype(np.int64)

    def _cohort(self, time_us: Ints, user: Ints, item: Ints, parent: Ints) -> _Cohort:
        action = self._actions.draw(self._rng, np.zeros(user.size, dtype=np.int8)).astype(np.int16)
        return _Cohort(time_us, user, item.astype(np.int32), action, parent)


def _grow(process: _Process) -> _Cohort:
    """Return all generations in one, in time order, with parents as places in it."""
    cohorts, first = [process.immigrants()], 0
    while cohorts[-1].parent.size:
        cohorts.append(process.children(cohorts[-1], first))
        first += cohorts[-2].parent.size
    grown = _joined(cohorts)
    order = np.argsort(grown.time_us, kind="stable")  # ties keep the order of birth, on every machine
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    time_us, user, item, action, parent = (column[order] for column in grown)
    return _Cohort(time_us, user, item, action, np.where(parent < 0, -1, place[parent]))


def _joined(cohorts: list[_Cohort]) -> _Cohort:
    return _Cohort(*(np.concatenate(columns) for columns in zip(*cohorts, strict=True)))


def _draw_truth(config: WorldConfig, rng: np.random.Generator, tie_rng: np.random.Generator) -> _Truth:
    users, items, scale = _draw_users(config, rng), _draw_items(config, rng), float(config.strength_scale)
    actions = [
        {ACTION: act.name, "share": float(act.share), "strength": scale * act.strength} for act in config.actions
    ]
    kernels = [*((act.name, act.kernel) for act in config.actions), (None, config.social_kernel)]
    parts = [{ACTION: name, "weight": float(part), "scale_us": us} for name, kernel in kernels for part, us in kernel]
    excitation, edges = _draw_excitation(config, items[ITEM_ID], rng), _draw_edges(config, users, tie_rng)
    return _Truth(users, items, excitation, pa.Table.from_pylist(actions), pa.Table.from_pylist(parts), edges)


def _draw_users(config: WorldConfig, rng: np.random.Generator) -> pa.Table:
    variance = config.rate_spread**2
    activity = rng.gamma(1 / variance, variance, config.n_users) if variance else np.ones(config.n_users)
    topic = _topics(config).take(pa.array(rng.integers(0, config.n_topics, config.n_users)))
    rate = config.base_rate_per_day * activity
    return pa.table({USER_ID: _names("u", config.n_users, 4), "topic": topic, "base_rate_per_day": rate})


def _draw_items(config: WorldConfig, rng: np.random.Generator) -> pa.Table:
    item_id = _names("i", config.n_items, 3)
    category = _topics(config).take(pa.array(np.arange(config.n_items) % config.n_topics))  # no topic without items
    pairs = zip(item_id.to_pylist(), category.to_pylist(), strict=True)
    title = [f"Item {name[1:]} ({topic})" for name, topic in pairs]
    weight = (1.0 + rng.permutation(config.n_items)) ** -config.popularity_slope
    return pa.table({ITEM_ID: item_id, "title": title, "category": category, "popularity": weight / weight.sum()})


def _draw_excitation(config: WorldConfig, item_id: pa.ChunkedArray, rng: np.random.Generator) -> pa.Table:
    n_items, weights = config.n_items, config.follower_weights
    steps = np.empty((n_items, 0), dtype=np.int64)  # from an item to its followers, round the circle of all items
    for n_taken in range(len(weights)):
        step = rng.integers(0, n_items - 1 - n_taken, n_items)
        for taken in np.sort(steps, axis=1).T:
            step += step >= taken  # skip what is taken: the rest stays equally likely
        steps = np.column_stack([steps, step])
    follower = (np.arange(n_items)[:, None] + 1 + steps).ravel() % n_items
    source = np.repeat(np.arange(n_items), len(weights))
    columns = [item_id.take(pa.array(source)), item_id.take(pa.array(follower)), pa.array(np.tile(weights, n_items))]
    return pa.table(columns, names=[SOURCE_ITEM_ID, ITEM_ID, "weight"])


def _draw_edges(config: WorldConfig, users: pa.Table, rng: np.random.Generator) -> pa.Table:
    names, pairs = users[USER_ID], _draw_ties(config, index_in(users["topic"], _topics(config)), rng)
    source, target = np.divmod(pairs, config.n_users)
    part = rng.exponential(size=target.size)
    part /= np.bincount(target, part, config.n_users)[target]  # all into one user are a whole
    strength = config.strength_scale * config.social_strength * part
    kind = pa.repeat("tie", target.size)
    columns = [names.take(pa.array(source)), names.take(pa.array(target)), kind, pa.array(strength)]
    return pa.table(columns, names=[SOURCE_USER_ID, TARGET_USER_ID, KIND, "strength"])


def _draw_ties(config: WorldConfig, topic: Ints, rng: np.random.Generator) -> Ints:
    """Return source · n_users + target of every tie, each once, none to oneself."""
    n_users, target = config.n_users, np.repeat(np.arange(config.n_users), config.n_ties)
    anyone = (target + 1 + rng.integers(0, max(n_users - 1, 1), target.size)) % n_users
    by_topic = np.argsort(topic, kind="stable")
    peers = _Urns(np.ones(n_users), *_stretches(topic[by_topic], config.n_topics))
    peer = by_topic[peers.draw(rng, topic[target])]
    source = np.where(rng.random(target.size) < config.homophily, peer, anyone)
    return np.unique((source * n_users + target)[source != target])


def _build_log(config: WorldConfig, truth: _Truth, grown: _Cohort) -> tuple[pa.Table, pa.Table]:
    n_events = grown.parent.size
    event_id = pa.array(np.arange(n_events))
    columns = {
        EVENT_ID: event_id,
        USER_ID: truth.users[USER_ID].take(pa.array(grown.user_idx)),
        ITEM_ID: truth.items[ITEM_ID].take(pa.array(grown.item_idx)),
        ACTION: truth.actions[ACTION].take(pa.array(grown.action_idx)),
        TIME_US: config.start_us + grown.time_us,
        VALUE: pa.nulls(n_events, pa.float64()),
        SCENE: pa.nulls(n_events, pa.string()),
        SOURCE_USER_ID: pa.nulls(n_events, pa.string()),
    }
    parents = {EVENT_ID: event_id, "parent_event_id": pa.array(grown.parent, mask=grown.parent < 0)}
    return pa.table({name: columns[name] for name in EVENT_COLUMNS}), pa.table(parents)


def _topics(config: WorldConfig) -> pa.Array:
    return pa.array([f"topic {topic}" for topic in range(config.n_topics)])


def _names(letter: str, n_names: int, n_digits: int) -> pa.Array:
    width = max(n_digits, len(str(n_names - 1)))
    return pa.array([f"{letter}{number:0{width}d}" for number in range(n_names)])


def index_in(values: pa.ChunkedArray, among: pa.ChunkedArray | pa.Array) -> Ints:
    """Return where each value stands in `among`; one that is null or not there counts as one past the end."""
    among = among.combine_chunks() if isinstance(among, pa.ChunkedArray) else among
    index: Ints = pc.index_in(values, value_set=among).fill_null(len(among)).to_numpy()
    return index


def _stretches(group: Ints, n_groups: int) -> tuple[Ints, Ints]:
    """Return where each group of a sorted column begins and stops."""
    bounds = np.searchsorted(group, np.arange(n_groups + 1))
    return bounds[:-1], bounds[1:]
