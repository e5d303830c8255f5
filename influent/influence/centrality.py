"""Arcs between people to how central each is by their shape alone: PageRank and k-core, as references.

Shapes: N people, A arcs.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from influent.data.moments import ranges


def page_rank(
    n_people: int,
    source: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    damping: float = 0.85,
    tolerance: float = 1e-10,
) -> np.ndarray:
    """Return the share of a walk's time that it is with each person, float64 (N,), which adds up to 1.

    The walk goes from a person to one who may move them, since who is followed by many who are followed counts most
    (Brin and Page 1998, The Anatomy of a Large-Scale Hypertextual Web Search Engine). From somebody whom nobody may
    move, and else with the chance 1 − `damping`, it goes to anybody.

    Args:
        source: int (A,): who may move.
        target: int (A,): whom.
        weight: float (A,), above 0: how likely the walk takes the arc among those of its target; by default all alike.
        tolerance: the walk is followed until shares change by less than this, all together.
    """
    weight = np.ones(len(source)) if weight is None else weight
    into = np.bincount(target, weight, n_people)
    walk = sparse.csr_array((weight / into[target], (source, target)), shape=(n_people, n_people))
    share, change = np.full(n_people, 1 / n_people), np.inf
    while change > tolerance:
        before = share
        share = damping * (walk @ before + before[into == 0].sum() / n_people) + (1 - damping) / n_people
        change = np.abs(share - before).sum()
    return np.asarray(share)


def core_number(n_people: int, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the largest k for which each person has k ties, of either direction, to others of whom that is true too.

    int64 (N,). People with the fewest ties left are taken out until nobody is there (Seidman 1983, Network Structure
    and Minimum Degree).
    """
    is_other = source != target
    both = np.concatenate([source[is_other], target[is_other]]), np.concatenate([target[is_other], source[is_other]])
    key = np.unique(both[0] * n_people + both[1])
    neighbour, first = key % n_people, np.searchsorted(key, np.arange(n_people + 1) * n_people)
    n_left, core = np.diff(first), np.zeros(n_people, np.int64)
    is_left, k = np.ones(n_people, bool), 0
    while is_left.any():
        k = max(k, int(n_left[is_left].min()))
        leaving = np.flatnonzero(is_left & (n_left <= k))
        core[leaving], is_left[leaving] = k, False
        lost = neighbour[ranges(first[leaving], np.diff(first)[leaving])]
        n_left = n_left - np.bincount(lost, minlength=n_people)
    return core
