"""Sequences are searched for what could fool an analysis of influence: ties, file order, one-session users."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from influent.data.sequences import Sequences

_SESSION_GAP_US = 30 * 60 * 1_000_000


@dataclass(frozen=True)
class Artefacts:
    """What the order of a log can and cannot carry. Shares lie in [0, 1]; None where it cannot be known."""

    equal_times: float | None
    """Share of a user's consecutive events with equal times: between them, order is only the order of rows."""
    n_pairs: int
    """Unordered pairs of different items that stand next to each other often enough."""
    one_way: float | None
    """Over these pairs, the mean share that goes the commoner way."""
    one_way_by_chance: float | None
    """The same if every order were a coin flip. An observed share far above it, together with many equal times,
    is the mark of rows sorted by item; far above it without ties, of a true sequence."""
    one_session_users: float | None
    """Share of users all of whose events follow each other within 30 minutes."""
    min_pair_count: int = 5
    """How often a pair must stand together to count."""

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, for JSON."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Return what a reader should know, in words."""
        lines = []
        if self.equal_times is None:
            lines.append("The log has no times: order is row order, and gaps in time cannot be used.")
        else:
            share = f"{self.equal_times:.1%}"
            lines.append(f"{share} of consecutive events have equal times; between them, order is only row order.")
        if self.one_session_users is not None:
            lines.append(f"{self.one_session_users:.1%} of users have all their events in one session.")
        if self.one_way is not None:
            lines.append(
                f"Adjacent item pairs seen {self.min_pair_count} times or more ({self.n_pairs:,}) go the commoner way "
                f"{self.one_way:.1%} of the time; coin flips would give {self.one_way_by_chance:.1%}."
            )
        return lines


def find_artefacts(sequences: Sequences, *, min_pair_count: int = 5) -> Artefacts:
    """Measure what in the order of these events could be mistaken for influence."""
    together = sequences.user_idx[1:] == sequences.user_idx[:-1]
    n_pairs, one_way, by_chance = _direction(sequences, together, min_pair_count)
    if sequences.time_us is None:
        return Artefacts(None, n_pairs, one_way, by_chance, None, min_pair_count)
    gaps = np.diff(sequences.time_us)[together]
    new_session = np.zeros(max(len(sequences) - 1, 0), bool)
    new_session[together] = gaps > _SESSION_GAP_US
    breaks = np.bincount(sequences.user_idx[1:][new_session], minlength=sequences.n_users)
    has_events = np.diff(sequences.offsets) > 0
    return Artefacts(
        equal_times=float((gaps == 0).mean()) if len(gaps) else 0.0,
        n_pairs=n_pairs,
        one_way=one_way,
        one_way_by_chance=by_chance,
        one_session_users=float((breaks[has_events] == 0).mean()) if has_events.any() else None,
        min_pair_count=min_pair_count,
    )


def _direction(sequences: Sequences, together: np.ndarray, least: int) -> tuple[int, float | None, float | None]:
    before, after = (
        sequences.item_idx[:-1][together].astype(np.int64),
        sequences.item_idx[1:][together].astype(np.int64),
    )
    differ = (before != after) & (before >= 0) & (after >= 0)
    low, high = np.minimum(before, after)[differ], np.maximum(before, after)[differ]
    pairs, place = np.unique(low * sequences.vocab.n_items + high, return_inverse=True)
    counts = np.bincount(place, minlength=len(pairs))
    forward = np.bincount(place, weights=(before < after)[differ], minlength=len(pairs))
    often = counts >= least
    if not often.any():
        return 0, None, None
    n, ahead = counts[often], forward[often]
    return len(n), float((np.maximum(ahead, n - ahead) / n).mean()), float(_commoner_by_chance(n).mean())


def _commoner_by_chance(n: np.ndarray) -> np.ndarray:
    """Return E[max(X, n − X)] / n for X ~ Binomial(n, 1/2).

    By de Moivre's mean absolute deviation, E|X − n/2| = m · P(X = m) with m = ⌈n/2⌉ (up to parity: n even or odd).

    Example:
        >>> _commoner_by_chance(np.array([1, 2])).round(3).tolist()  # 2: (2 + 1 + 1 + 2) / 4 / 2
        [1.0, 0.75]
    """
    middle = np.ceil(n / 2)
    return np.asarray(0.5 + middle * stats.binom.pmf(middle, n, 0.5) / n)
