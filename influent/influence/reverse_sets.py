"""A spread to sets of people from whom somebody drawn at random would be reached: what every choice of seeds counts.

The share of the sets that hold one of the seeds, times the number of people, estimates without bias how many the seeds
reach (Borgs, Brautbar, Chayes and Lucier 2014, Maximizing Social Influence in Nearly Optimal Time).

Shapes: N people, R sets, M members of all sets together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from influent.data.moments import ranges
from influent.errors import ConfigError
from influent.influence.independent_cascade import cascades, keys, uniform
from influent.influence.spread import Spread


@dataclass(frozen=True, kw_only=True, eq=False)
class Cover:
    """People chosen one by one, each for the most sets that hold none of the earlier ones."""

    chosen: np.ndarray
    """int64 (k,): places of people"""
    n_covered: np.ndarray
    """int64 (k,): how many sets hold one of the first 1, 2, … of them"""
    most: int
    """No k people are in more sets than this"""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReverseSets:
    """R reverse-reachable sets. Set number i of a seed, a stream and a spread is always the same one."""

    spread: Spread
    seed: int
    stream: int
    """Sets of different streams are independent of each other"""
    offsets: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    """int64 (R + 1,)"""
    member: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    """int32 (M,): places of people, ascending in each set"""
    n_drawn: int = 0
    """How many sets were drawn to come from what was known to this"""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def up_to(self, n_sets: int, *, max_members: int) -> ReverseSets:
        """Return the first `n_sets` sets at least; those that are missing are drawn.

        Raises:
            ConfigError: they will have more than `max_members` members.
        """
        if n_sets <= len(self):
            return self
        lengths, members, n_members = [np.diff(self.offsets)], [self.member], len(self.member)
        n_there = len(self)
        for length, member in self._draw(np.arange(len(self), n_sets)):
            lengths.append(length)
            members.append(member)
            n_members, n_there = n_members + len(member), n_there + len(length)
            expected = n_members / n_there * n_sets
            if expected > max_members and n_members > min(max_members, 1_000_000):
                raise ConfigError(
                    f"{n_sets:,} sets of {n_members / n_there:,.0f} people each are needed, {expected:,.0f} places in "
                    f"memory where 'max_members' allows {max_members:,}. Take an 'epsilon' that is "
                    f"{np.sqrt(expected / max_members):.1f} times as large, or allow more."
                )
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        n_drawn = self.n_drawn + n_sets - len(self)
        return replace(self, offsets=offsets, member=np.concatenate(members), n_drawn=n_drawn)

    def first(self, n_sets: int) -> ReverseSets:
        """Return the first `n_sets` of the sets."""
        return replace(self, offsets=self.offsets[: n_sets + 1], member=self.member[: self.offsets[n_sets]])

    def on(self, spread: Spread) -> ReverseSets:
        """Return the sets of the same numbers in another spread among the same people.

        To find a set, the arcs into its members are drawn and no others. So a set without any member whose incoming
        arcs changed would come out as it is, and stays. The others are found again from the same person, in the same
        world: members whose arcs did not change draw what they drew before, and only a changed one draws new arcs. What
        comes out is to the last member what drawing all sets in the new spread gives, and so has its distribution. (To
        draw these sets anew from other random numbers would be wrong: they are not typical, as they reach a changed
        person, and many of those in their place would not.)
        """
        is_changed = np.zeros(len(spread), bool)
        is_changed[self.spread.changed_targets(spread)] = True
        moved = replace(self, spread=spread, n_drawn=0)
        again = np.logical_or.reduceat(is_changed[self.member], self.offsets[:-1]) if len(self) else np.zeros(0, bool)
        if not again.any():
            return moved
        drawn = list(moved._draw(np.flatnonzero(again)))
        before = np.diff(self.offsets)
        length = before.copy()
        length[again] = np.concatenate([length for length, _ in drawn])
        is_new = np.repeat(again, length)
        member = np.empty(len(is_new), np.int32)
        member[is_new] = np.concatenate([member for _, member in drawn])
        member[~is_new] = self.member[~np.repeat(again, before)]
        return replace(moved, offsets=np.concatenate([[0], np.cumsum(length)]), member=member, n_drawn=int(again.sum()))

    def _draw(self, number: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        n = len(self.spread)
        root = (uniform(keys(self.seed, 2 * self.stream, number)) * n).astype(np.int64)
        return cascades(self.spread.inward, keys(self.seed, 2 * self.stream + 1, number), root[:, None])

    def cover(self, k: int) -> Cover:
        """Choose k people by greedy maximum coverage; of equals the first."""
        n = len(self.spread)
        ones = np.ones(len(self.member), np.int8)
        of_person = sparse.csr_array((ones, self.member, self.offsets), shape=(len(self), n)).tocsc()
        count = np.bincount(self.member, minlength=n)
        lengths, is_open = np.diff(self.offsets), np.ones(len(self), bool)
        chosen, n_covered, covered, most = np.zeros(k, np.int64), np.zeros(k, np.int64), 0, len(self)
        for rank in range(k):
            most = min(most, covered + _largest(count, k))
            best = int(np.argmax(count))
            sets = of_person.indices[of_person.indptr[best] : of_person.indptr[best + 1]]
            sets = sets[is_open[sets]]
            is_open[sets] = False
            # Each set is taken out of the counts once, so all k choices together read every member once.
            count -= np.bincount(self.member[ranges(self.offsets[sets], lengths[sets])], minlength=n)
            count[best] = -1
            covered += len(sets)
            chosen[rank], n_covered[rank] = best, covered
        return Cover(chosen=chosen, n_covered=n_covered, most=min(most, covered + _largest(count, k)))

    def covered_by(self, people: np.ndarray) -> np.ndarray:
        """Return how many sets hold one of the first 1, 2, … of the people, int64."""
        rank = np.full(len(self.spread), len(people))
        rank[people] = np.arange(len(people))
        first = np.minimum.reduceat(rank[self.member], self.offsets[:-1])
        return np.asarray(np.cumsum(np.bincount(first, minlength=len(people) + 1)[:-1]))


def _largest(count: np.ndarray, k: int) -> int:
    """Return the sum of the k largest."""
    return int(np.maximum(np.partition(count, len(count) - k)[len(count) - k :], 0).sum())
