"""Exposure drawn anew as it was drawn, to how often chance alone shows a difference as clear as the one that was seen.

Shapes: D draws, B times that they are drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from influent.data.units import Units

_CELLS = 4_000_000
"""Draws that are held in memory at once"""


def permutation_p_value(units: Units, outcome: np.ndarray, *, n_permutations: int, seed: int) -> float:
    """Return how often a difference comes out as clear as the one that was seen, if exposure moves nobody.

    Within a block whose draws all had the same chance, who was exposed is permuted, which is right whether a fixed
    number was exposed or each by a toss of its own; where chances differ, each is tossed anew (Fisher, 1935). The
    difference is divided by its standard error, so that it also is right, with many draws, where exposure moves
    people in both directions and none on average (Wu and Ding, 2021, https://doi.org/10.1080/01621459.2020.1750415).

    Args:
        outcome: float64 (N,), less what is known of it from before exposure.

    Returns:
        The share of such draws, in (0, 1]: the one that was seen counts among them (Phipson and Smyth, 2010).
    """
    first = units.first
    total = np.bincount(units.draw, weights=outcome)
    size = np.bincount(units.draw).astype(np.float64)
    chance = units.probability[first]
    tables = [_sums(total, size, chance), _sums(total, size, 1 - chance)]
    seen = _clearness(units.exposed[first][None, :], tables)[0] * (1 - 1e-9)
    n_as_clear, n_drawn = 0, 0
    for exposed_BD in _drawn_anew(units, n_permutations, np.random.default_rng(seed)):
        # Conditional on there being two arms to compare.
        has_both = exposed_BD.any(axis=1) & ~exposed_BD.all(axis=1)
        n_as_clear += int((_clearness(exposed_BD[has_both], tables) >= seen).sum())
        n_drawn += int(has_both.sum())
    return (n_as_clear + 1) / (n_drawn + 1)


def _drawn_anew(units: Units, n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    exposed, chance, block = (column[units.first] for column in (units.exposed, units.probability, units.block))
    blocks = [np.flatnonzero(block == one) for one in range(block.max() + 1)]
    while n > 0:
        n_now = min(n, max(_CELLS // len(exposed), 1))
        drawn = np.empty((n_now, len(exposed)), bool)
        for rows in blocks:
            if np.ptp(chance[rows]) < 1e-12:
                drawn[:, rows] = rng.permuted(np.tile(exposed[rows], (n_now, 1)), axis=1)
            else:
                drawn[:, rows] = rng.random((n_now, len(rows))) < chance[rows]
        yield drawn
        n -= n_now


def _sums(total: np.ndarray, size: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Return what an arm adds up, (D, 5): of each draw total and size, and squares and product, by 1 / chance."""
    total, size = total / chance, size / chance
    return np.stack([total, size, total**2, total * size, size**2], axis=1)


def _clearness(exposed_BD: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    """Return the difference of the weighted means without its sign, divided by its standard error, (B,)."""
    difference, variance = np.zeros(len(exposed_BD)), np.zeros(len(exposed_BD))
    for sign, arm_BD, table in ((1, exposed_BD, tables[0]), (-1, ~exposed_BD, tables[1])):
        total, size, square, product, size_square = (arm_BD.astype(np.float64) @ table).T
        mean = total / size
        difference += sign * mean
        variance += (square - 2 * mean * product + mean**2 * size_square) / size**2
    difference = np.abs(difference)
    # Where nothing varies within the arms, any difference is as clear as can be.
    is_flat = variance <= 1e-12 * np.maximum(difference**2, 1e-300)
    clear = difference / np.sqrt(np.where(is_flat, 1.0, variance))
    return np.asarray(np.where(is_flat, np.where(difference > 0, np.inf, 0.0), clear))
