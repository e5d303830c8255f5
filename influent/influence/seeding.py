"""A spread to seeds: the k people who together reach most, and how many they reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import special

from influent import schema
from influent.errors import ConfigError, DataError
from influent.influence.independent_cascade import cascades, keys
from influent.influence.reverse_sets import ReverseSets
from influent.influence.spread import Spread
from influent.settings import check_int, check_list, check_type

_SEARCH, _CHOICE, _CHECK, _FORWARD = range(4)  # streams of random numbers


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How many people are active in the end, the seeds among them: a mean and its 95 % interval."""

    mean: float
    low: float
    high: float
    n_simulations: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Seeds:
    """Whom to seed, and what that reaches."""

    table: pa.Table
    """one row per seed, in the order of choice: `rank`, `user_id`, and `reach`, `low` and `high` of it and all before
    it: people reached, with a 95 % interval, from sets that had no part in the choice"""
    epsilon: float
    guaranteed_share: float
    """1 − 1/e − ε: the seeds reach at least this share of the most that k people can, with a probability of 1 − n^−ℓ"""
    certified_share: float
    """what is known after the choice, with 95 % confidence: the seeds reach at least this share"""
    n_sets: int
    """sets that the seeds were chosen from"""
    n_drawn: int
    """sets that were drawn for it, of all three kinds: fewer where earlier ones were known"""
    sets: tuple[ReverseSets, ...] = field(repr=False)
    """those of the search for how many are needed, of the choice, and of the check"""

    @property
    def user_ids(self) -> list[Any]:
        """Return the ids of the seeds, in order."""
        return list(self.table.column(schema.USER_ID).to_pylist())


def choose_seeds(
    spread: Spread,
    k: int,
    *,
    epsilon: float = 0.5,
    ell: float = 1.0,
    n_checks: int = 50_000,
    max_members: int = 500_000_000,
    seed: int = 0,
    known: Seeds | None = None,
) -> Seeds:
    """Choose the k people who together reach most, as far as that can be known in near-linear time.

    IMM (Tang, Shi and Xiao 2015, Influence Maximization in Near-Linear Time: A Martingale Approach, algorithms 1 to 3):
    draws reverse-reachable sets until a lower bound of the optimum says how many are enough, and chooses by greedy
    maximum coverage. The sets of the choice are drawn anew once their number is known (Chen 2018, An Issue in the
    Martingale Analysis of the Influence Maximization Algorithm IMM), and those that estimate the reach once more, so
    that it is not too high for having been chosen.

    `certified_share` is the lower end of the reach over an upper bound of the optimum, from what the best k people
    could add at most at each step of the choice (the idea is that of Tang, Tang, Xiao and Yuan 2018, Online Processing
    Algorithms for Influence Maximization). It is mostly far above the guarantee.

    Args:
        k: how many seeds, from 1 to the number of people.
        epsilon: in (0, 1 − 1/e): how far below 1 − 1/e the guarantee may be; sets grow with its inverse square.
        ell: above 0: the guarantee holds with a probability of 1 − n^−ell.
        n_checks: sets that estimate the reach, from 100.
        max_members: the most people that all sets of one kind may hold together, four to eight bytes each.
        seed: the same one gives the same seeds.
        known: an earlier answer among the same people with the same `seed`. Only sets that hold somebody whose incoming
            arcs have changed are drawn again, which leads to the same answer as all anew; see
            `influent.influence.reverse_sets.ReverseSets.on`. The guarantee is for arcs that did not change because of
            that answer.

    Raises:
        ConfigError: an argument is out of its range, or the sets will not fit `max_members`.
        DataError: `known` is of other people.

    Example:
        >>> arcs = {"source_user_id": ["ann", "ann", "bob"], "target_user_id": ["bob", "cleo", "dan"]}
        >>> spread = Spread.of_table(pa.table({**arcs, "probability": [1.0, 1.0, 1.0]}))
        >>> choose_seeds(spread, 1).table.select(["user_id", "reach"]).to_pylist()
        [{'user_id': 'ann', 'reach': 4.0}]
    """
    check_type("spread", spread, Spread, "Spread.of_table(arcs)")
    if known is not None:
        check_type("known", known, Seeds, "choose_seeds(...)")
    n = len(spread)
    check_int("k", k, 1)
    check_int("n_checks", n_checks, 100)
    check_int("max_members", max_members, 1)
    check_int("seed", seed, 0)
    if k > n:
        raise ConfigError(f"k is {k:,}, and there are {n:,} people to choose from.")
    if not _is_between(epsilon, 0, 1 - 1 / math.e):
        raise ConfigError(f"'epsilon' must be a number between 0 and 1 − 1/e = 0.632. Got {epsilon!r}.")
    if not _is_between(ell, 0, math.inf):
        raise ConfigError(f"'ell' must be a number above 0. Got {ell!r}.")
    search, choice, check = _known_sets(spread, seed, known)
    search, n_sets = _enough(search, k, epsilon, ell, max_members)
    choice = choice.up_to(n_sets, max_members=max_members)
    cover = choice.first(n_sets).cover(k)
    check = check.up_to(n_checks, max_members=max_members)
    hits = check.first(n_checks).covered_by(cover.chosen)
    low, high = _share_interval(hits, n_checks)
    # The best k people were in `most` sets or fewer, and how many sets they are in is binomial.
    _, optimum = _share_interval(np.array(cover.most), n_sets)
    # The seeds themselves are reached, and nobody beyond all people.
    at_least = np.arange(1, k + 1)
    table = pa.table(
        {
            schema.RANK: at_least,
            schema.USER_ID: spread.people.to_ids(cover.chosen),
            "reach": np.maximum(hits / n_checks * n, at_least),
            "low": np.maximum(low * n, at_least),
            "high": np.maximum(high * n, at_least),
        }
    )
    return Seeds(
        table=table,
        epsilon=epsilon,
        guaranteed_share=1 - 1 / math.e - epsilon,
        certified_share=min(1.0, max(float(low[-1]) * n, k) / (float(optimum) * n)),
        n_sets=n_sets,
        n_drawn=search.n_drawn + choice.n_drawn + check.n_drawn,
        sets=(search, choice, check),
    )


def _is_between(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low < value < high


def _known_sets(spread: Spread, seed: int, known: Seeds | None) -> list[ReverseSets]:
    if known is None:
        return [ReverseSets(spread=spread, seed=seed, stream=stream) for stream in (_SEARCH, _CHOICE, _CHECK)]
    if not known.sets[0].spread.people.ids.equals(spread.people.ids):
        raise DataError("'known' is an answer among other people. Choose without it: all sets must be drawn anew.")
    if known.sets[0].seed != seed:
        raise ConfigError(f"'known' was chosen with seed {known.sets[0].seed}, and this is seed {seed}. Give the same.")
    return [sets.on(spread) for sets in known.sets]


def _enough(sets: ReverseSets, k: int, epsilon: float, ell: float, max_members: int) -> tuple[ReverseSets, int]:
    """Return the sets drawn to find a lower bound of the optimum, and how many sets are enough for the choice.

    Algorithm 2 and eq. 6 and 9 of Tang, Shi and Xiao; the optimum is at least k.
    """
    n = len(sets.spread)
    log_n = math.log(max(n, 2))
    ell *= 1 + math.log(2) / log_n
    log_choices = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    wider = math.sqrt(2) * epsilon
    rounds = max(int(math.log2(n)) - 1, 0)
    for nth in range(1, rounds + 1):
        guess = n / 2**nth
        log_failure = log_choices + ell * log_n + math.log(math.log2(n))
        n_sets = math.ceil((2 + 2 / 3 * wider) * log_failure * n / wider**2 / guess)
        sets = sets.up_to(n_sets, max_members=max_members)
        found = n * int(sets.first(n_sets).cover(k).n_covered[-1]) / n_sets
        if found >= (1 + wider) * guess:
            lower = max(found / (1 + wider), k)
            break
    else:
        lower = k
    alpha = math.sqrt(ell * log_n + math.log(2))
    beta = math.sqrt((1 - 1 / math.e) * (log_choices + ell * log_n + math.log(2)))
    return sets, math.ceil(2 * n * ((1 - 1 / math.e) * alpha + beta) ** 2 / epsilon**2 / lower)


def _share_interval(hits: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact 95 % interval of a share (Clopper and Pearson 1934)."""
    low = special.betaincinv(np.maximum(hits, 1), n - hits + 1, 0.025)
    high = special.betaincinv(hits + 1, np.maximum(n - hits, 1), 0.975)
    return np.where(hits == 0, 0.0, low), np.where(hits == n, 1.0, high)


def expected_reach(spread: Spread, seeds: Sequence[Any], *, n_simulations: int = 10_000, seed: int = 0) -> Reach:
    """Simulate cascades forward from the seeds, and count who is active in the end.

    Args:
        seeds: ids; one that is named twice is one seed. Nobody reaches nobody.
        n_simulations: independent cascades, from 2.

    Raises:
        UnknownIdError: a seed is not among the people.
        ConfigError: `n_simulations` or `seed` is out of its range.

    Example:
        >>> path = Spread.of_arrays(3, np.array([0, 1]), np.array([1, 2]), np.full(2, 0.5))
        >>> reach = expected_reach(path, [0])
        >>> reach.low < 1 + 1 / 2 + 1 / 4 < reach.high
        True
    """
    check_type("spread", spread, Spread, "Spread.of_table(arcs)")
    check_list("seeds", seeds)
    check_int("n_simulations", n_simulations, 2)
    check_int("seed", seed, 0)
    places = np.unique(spread.people.require_idx(list(seeds))) if len(seeds) else np.zeros(0, np.int64)
    key = keys(seed, 2 * _FORWARD, np.arange(n_simulations))
    starts = np.broadcast_to(places, (n_simulations, len(places)))
    n_reached = np.concatenate([lengths for lengths, _ in cascades(spread.outward, key, starts)])
    mean = float(n_reached.mean())
    off = float(special.stdtrit(n_simulations - 1, 0.975) * n_reached.std(ddof=1) / math.sqrt(n_simulations))
    low, high = max(mean - off, float(len(places))), min(mean + off, float(len(spread)))
    return Reach(mean=mean, low=low, high=high, n_simulations=n_simulations)
