"""A log and its ties to what they would be by chance: shuffled times, rewired ties, ties that run the other way.

What an analysis finds in these as well, it does not find because somebody moved somebody.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from influent.data.sequences import Sequences
from influent.data.ties import Ties
from influent.errors import ConfigError
from influent.settings import check_int


def shuffle_times(sequences: Sequences, rng: np.random.Generator) -> tuple[Sequences, np.ndarray]:
    """Return the same events with times exchanged among those on the same item, and the place here of each there.

    Who did what, how often, and when an item was acted on stay as they are; who was first is by chance.
    Anagnostopoulos, Kumar and Mahdian, Influence and correlation in social networks, 2008.

    Raises:
        ConfigError: the log is order-only.
    """
    if sequences.time_us is None:
        raise ConfigError("an order-only log has no times to shuffle.")
    item = sequences.item_idx
    time_us = np.empty(len(sequences), np.int64)
    time_us[np.lexsort((rng.random(len(sequences)), item))] = sequences.time_us[np.argsort(item, kind="stable")]
    place = np.lexsort((time_us, sequences.user_idx))
    columns = ("event_id", "item_idx", "action_idx", "numbers", "categories")
    return replace(
        sequences, time_us=time_us[place], **{name: getattr(sequences, name)[place] for name in columns}
    ), place


def reverse(ties: Ties) -> Ties:
    """Return the same ties with source and target exchanged; each keeps its beginning."""
    return _sorted(ties, ties.target, ties.source, ties.since_us)


def rewire(ties: Ties, rng: np.random.Generator, *, n_rounds: int = 20) -> Ties:
    """Return ties between other people, of whom each has as many in and out as before; none to oneself, none twice.

    In each round ties are paired at random, and the two of a pair exchange targets unless that would make one to
    oneself or one that is there. Where they began is left behind. Maslov and Sneppen, Specificity and stability in
    topology of protein networks, 2002.

    Raises:
        ConfigError: `n_rounds` is not a whole number above 0.

    Example:
        Of a→b and c→d become a→d and c→b.
    """
    check_int("n_rounds", n_rounds, 1)
    n, source, target = len(ties.users), ties.source, ties.target.copy()
    for _ in range(n_rounds):
        order = rng.permutation(len(ties))
        one, two = order[: len(order) // 2], order[len(order) // 2 : len(order) // 2 * 2]
        new = np.stack([target[two] * n + source[one], target[one] * n + source[two]])
        taken, count = np.unique(np.concatenate([target * n + source, new.ravel()]), return_counts=True)
        is_new = (count[np.searchsorted(taken, new)] == 1).all(axis=0)
        kept = is_new & (source[one] != target[two]) & (source[two] != target[one])
        one, two = one[kept], two[kept]
        target[one], target[two] = target[two], target[one]
    return _sorted(ties, source, target, None)


def rewirings(ties: Ties, n: int, rng: np.random.Generator) -> list[Ties]:
    """Return n ways of rewiring ties, or none where half of the ties stay as they are and more.

    Most people are then tied to all that they could be tied to, and rewired ties are hardly others.
    """
    draws = [rewire(ties, rng) for _ in range(n)]
    moved = [ties.find(drawn.source, drawn.target) < 0 for drawn in draws]
    return draws if np.mean(moved) > 0.5 else []


def _sorted(ties: Ties, source: np.ndarray, target: np.ndarray, since_us: np.ndarray | None) -> Ties:
    order = np.lexsort((source, target))
    since_us = None if since_us is None else since_us[order]
    return replace(ties, source=source[order], target=target[order], since_us=since_us, dropped={})
