"""Arcs with chances to who is reached from where: independent cascades in many worlds at once.

A world is a number. Whether an arc is live in it is drawn by hashing the seed, the world and the person whose arcs are
drawn, so a world holds the same cascade whenever and beside whatever else it is asked for, and it changes only where it
reaches a person whose arcs change.

Shapes: N people, A arcs, P pieces (runs of arcs), F pairs of a world and a person that were reached last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from influent.data.moments import ranges

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FREE = np.uint64(2**64 - 1)
_BLOCK = 200_000  # pairs that are held at a time; their table of 8 MiB stays near the processor


def mixed(state: np.ndarray) -> np.ndarray:
    """Return 64 bits that look random for each 64 bits (SplitMix64: Steele, Lea and Flood 2014)."""
    state = state ^ (state >> np.uint64(30))
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    return state


def keys(seed: int, stream: int, number: np.ndarray) -> np.ndarray:
    """Return the 64 random bits of each number, uint64, other ones for each seed and stream."""
    [start] = mixed(np.array([seed % 2**64], np.uint64) * _GOLDEN + np.uint64(stream))
    return mixed(start + number.astype(np.uint64) * _GOLDEN)


def uniform(bits: np.ndarray) -> np.ndarray:
    """Return a number in (0, 1) for each of 64 bits."""
    return np.asarray(((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


@dataclass(frozen=True, kw_only=True, eq=False)
class Arcs:
    """The arcs that lead on from each person, those of one person together, the likeliest first.

    A piece is a run of arcs of one person whose chances lie within a factor of two and add up to two at most. In it the
    next live arc is drawn at once and not arc by arc, so that what costs is the live arcs and not all of them. Pieces
    of a person depend on that person's arcs alone.
    """

    offsets: np.ndarray
    """int64 (N + 1,): the pieces of person v are `offsets[v]:offsets[v + 1]`"""
    end: np.ndarray
    """int32 (A,): to whom"""
    first: np.ndarray
    """int64 (P + 1,): the arcs of piece q are `first[q]:first[q + 1]`"""
    scale: np.ndarray
    """float64 (P,): 1 / log(1 − p) of the piece's largest chance p"""
    relative: np.ndarray | None
    """float64 (A,): the chance of an arc in its piece's largest; None where all are 1"""
    salt: np.ndarray
    """uint64 (P,): random bits of the person and the piece's place among the person's"""

    @classmethod
    def of(cls, n: int, start: np.ndarray, end: np.ndarray, probability: np.ndarray) -> Arcs:
        """Sort arcs of different ends into pieces; those that are never live are left out."""
        there = np.flatnonzero(probability > 0)
        there = there[np.lexsort((end[there], -probability[there], start[there]))]
        start, chance = start[there].astype(np.int64), probability[there]
        octave = np.floor(-np.log2(chance)).astype(np.int64)
        is_first = (np.diff(start, prepend=-1) != 0) | (np.diff(octave, prepend=-1) != 0)
        run = np.flatnonzero(is_first)
        place = np.arange(len(there)) - np.repeat(run, np.diff(run, append=len(there)))
        is_first |= place % 2.0 ** (octave + 1) == 0
        first = np.flatnonzero(is_first)
        owner = start[first]
        offsets = np.searchsorted(owner, np.arange(n + 1))
        place = np.arange(len(first)) - offsets[owner]
        largest = chance[first]
        with np.errstate(divide="ignore"):
            scale = 1 / np.log1p(-largest)
        relative = chance / np.repeat(largest, np.diff(np.append(first, len(there))))
        return cls(
            offsets=offsets,
            end=end[there].astype(np.int32),
            first=np.append(first, len(there)),
            scale=scale,
            relative=None if (relative == 1).all() else relative,
            salt=mixed(mixed(owner.astype(np.uint64) * _GOLDEN) + place.astype(np.uint64)),
        )

    def live(self, key: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw the arcs of people in worlds with these keys, (F,) each; return the live ones: whose, and which."""
        begin, end = self.offsets[person], self.offsets[person + 1]
        pair, piece = np.repeat(np.arange(len(person)), end - begin), ranges(begin, end - begin)
        state = key[pair] + self.salt[piece]
        place, stop, scale = self.first[piece].astype(np.float64), self.first[piece + 1], self.scale[piece]
        pairs, arcs = [pair[:0]], [piece[:0]]
        while len(pair):
            state += _GOLDEN
            bits = mixed(state)
            # The number of arcs before the next live one is geometric.
            place += np.floor(np.log(uniform(bits)) * scale)
            kept = np.flatnonzero(place < stop)
            pair, state, place, stop, scale = (x[kept] for x in (pair, state, place, stop, scale))
            arc = place.astype(np.int64)
            if self.relative is None:
                pairs.append(pair)
                arcs.append(arc)
            else:
                is_live = uniform(mixed(bits[kept])) < self.relative[arc]
                pairs.append(pair[is_live])
                arcs.append(arc[is_live])
            place += 1
        return np.concatenate(pairs), np.concatenate(arcs)


class _Seen:
    """A set of 64-bit keys, a table with open addresses."""

    def __init__(self, n_bits: int) -> None:
        self._table = np.full(2**n_bits, _FREE)
        self._shift = np.uint64(64 - n_bits)
        self._n = 0

    def add(self, key: np.ndarray) -> np.ndarray:
        """Add different keys; return which were not there, bool."""
        while 2 * (self._n + len(key)) > len(self._table):
            self._grow()
        is_new = np.zeros(len(key), bool)
        left, slot = np.arange(len(key)), ((key * _GOLDEN) >> self._shift).astype(np.int64)
        while len(left):
            asked = key[left]
            there = self._table[slot]
            free = there == _FREE
            self._table[slot[free]] = asked[free]
            is_mine = self._table[slot] == asked
            is_new[left[free & is_mine]] = True
            other = ~is_mine
            left, slot = left[other], (slot[other] + 1) % len(self._table)
        self._n += int(is_new.sum())
        return is_new

    def _grow(self) -> None:
        held = self._table[self._table != _FREE]
        self._table = np.full(2 * len(self._table), _FREE)
        self._shift -= np.uint64(1)
        self._n = 0
        self.add(held)


def cascade(arcs: Arcs, key: np.ndarray, world: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return who is reached, in each world, from those who begin.

    Args:
        key: uint64 (W,), of each world, as from `keys`.
        world: who begins: pairs of a place in `key` and a person, none of them twice.

    Returns:
        pairs of a world and a person, sorted, int64 and int32; those who begin among them
    """
    n_bits = np.uint64(max(len(arcs.offsets) - 2, 1).bit_length())
    low = np.uint64((1 << int(n_bits)) - 1)
    front = (world.astype(np.uint64) << n_bits) | person.astype(np.uint64)
    seen, reached = _Seen(max(10, (4 * len(front)).bit_length())), [front]
    seen.add(front)
    while len(front):
        place = (front >> n_bits).astype(np.int64)
        pair, arc = arcs.live(key[place], (front & low).astype(np.int64))
        front = np.sort((front[pair] & ~low) | arcs.end[arc].astype(np.uint64))
        front = front[np.diff(front, prepend=_FREE) != 0]
        front = front[seen.add(front)]
        reached.append(front)
    pairs = np.sort(np.concatenate(reached))
    return (pairs >> n_bits).astype(np.int64), (pairs & low).astype(np.int32)


def cascades(arcs: Arcs, key: np.ndarray, starts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Run all worlds, some of them at a time, so that memory does not grow with their number.

    Args:
        key: uint64 (W,), of each world.
        starts: int64 (W, B): who begins in each, nobody twice.

    Yields:
        for the next worlds, how many people each reaches, int64, and these people, int32, world by world
    """
    done, n_reached, size = 0, 0, 64
    while done < len(key):
        now = slice(done, done + size)
        begin = starts[now]
        world = np.repeat(np.arange(len(begin)), begin.shape[1])
        world, person = cascade(arcs, key[now], world, begin.reshape(-1))
        yield np.bincount(world, minlength=len(begin)), person
        done, n_reached = done + len(begin), n_reached + len(person)
        size = min(max(_BLOCK * done // max(n_reached, 1), 1), 4 * size)
