"""Who acts next in a cascade, by counting: popularity, and decayed counts of who came after whom.

Every model here scores each user v at a moment as a sum with one term for each user u who is in the cascade by then,
plus a term that is v's own:

    score(v) = own(v) + Σ_u credit(u → v)

so the ledger of who drew whom is exact. All that is read is strictly earlier than the moment, in any cascade.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from influent.data.cascades import NextActs
from influent.models.actor_stream import ActorMoment, ActorStream, PairCounting, walk
from influent.models.credits import Credits
from influent.models.transitions import PairDecay
from influent.settings import check_int, check_real


class ActorModel(Protocol):
    """Scores every user as the one who acts next, and says of which terms a score is the sum."""

    @property
    def name(self) -> str:
        """How reports call it."""
        ...

    def scores(self, acts: NextActs) -> Iterator[tuple[int, np.ndarray]]:
        """Yield for each act, in order of time, its row and a score for every user, float64 (U,)."""
        ...

    def predict(self, acts: NextActs) -> np.ndarray:
        """Return a score for every user at each act, float64 (N, U); those in the cascade are scored too."""
        ...

    def credits(self, acts: NextActs, candidates: np.ndarray) -> Credits:
        """Return the terms of the scores of these users, int (N, X); `place` says whose act a credit is given to."""
        ...


class StreamedModel:
    """What models that read an `ActorStream` share; each says its terms at one moment."""

    max_len: int | None = None

    @property
    def name(self) -> str:
        """Return how reports call the model."""
        raise AssertionError(f"{type(self).__name__} has no name")

    def _stream(self, acts: NextActs) -> ActorStream:
        raise AssertionError(f"{type(self).__name__} does not say what it reads")

    def _own(self, stream: ActorStream, moment: ActorMoment, users: np.ndarray | slice) -> np.ndarray:
        """Return the term that is each user's own, float64 (X,)."""
        raise AssertionError(f"{type(self).__name__} does not say what is a user's own")

    def _drawn(self, stream: ActorStream, moment: ActorMoment, users: np.ndarray) -> np.ndarray:
        """Return what each earlier act adds, float64 (L, X)."""
        return np.zeros((len(moment.place), len(users)))

    def _total(self, stream: ActorStream, moment: ActorMoment) -> np.ndarray:
        """Return all terms of every user added up, float64 (U,)."""
        every = np.arange(stream.cascades.n_users)
        return np.asarray(self._own(stream, moment, every) + self._drawn(stream, moment, every).sum(axis=0))

    def scores(self, acts: NextActs) -> Iterator[tuple[int, np.ndarray]]:
        """Yield for each act, in order of time, its row and a score for every user, float64 (U,)."""
        stream = self._stream(acts)
        for moment in walk(acts, stream, self.max_len):
            yield moment.row, self._total(stream, moment)

    def predict(self, acts: NextActs) -> np.ndarray:
        """Return a score for every user at each act, float64 (N, U); those in the cascade are scored too."""
        found = np.empty((len(acts), acts.cascades.n_users))
        for row, scores in self.scores(acts):
            found[row] = scores
        return found

    def credits(self, acts: NextActs, candidates: np.ndarray) -> Credits:
        """Return the terms of the scores of these users, int (N, X); `place` says whose act a credit is given to."""
        stream = self._stream(acts)
        place, credit = [np.zeros(0, np.int64)] * len(acts), [np.zeros((0, candidates.shape[1]))] * len(acts)
        own = np.zeros(candidates.shape)
        for moment in walk(acts, stream, self.max_len):
            users = candidates[moment.row]
            place[moment.row], credit[moment.row] = moment.place, self._drawn(stream, moment, users)
            own[moment.row] = self._own(stream, moment, users)
        lengths = [len(some) for some in place]
        return Credits(
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            place=np.concatenate(place),
            credit=np.concatenate(credit),
            bias=own,
        )


@dataclass(kw_only=True)
class ActorPopularity(StreamedModel):
    """How often each user acted so far, in any cascade."""

    name = "popularity"

    def _stream(self, acts: NextActs) -> ActorStream:
        return ActorStream(acts.cascades)

    def _own(self, stream: ActorStream, moment: ActorMoment, users: np.ndarray | slice) -> np.ndarray:
        return np.asarray(stream.activity[0, users])


@dataclass(kw_only=True)
class ActorCounts(StreamedModel):
    """Decayed counts of who came after whom in one cascade, summed over the users who are in it by now.

    score(v) = own_weight · n(v) + Σ_u decay^(lag_u − 1) · C[u, v] / (ΣC[u])^row_power / n(v)^popularity_power, where
    n(v) is how often v acted so far (at least 1).

    Args:
        streaming: count every strictly earlier act; without, counting stands still from the moment the first of the
            cascades begins that are to be predicted.
        own_weight: so small that it only decides among those of whom no count speaks.
    """

    streaming: bool = True
    window: int = 20
    """Largest distance of a pair, in acts."""
    pair_decay: float = 0.9
    reverse: float = 0.0
    """How much a pair counts against its order."""
    half_life_days: float = float("inf")
    """After how many days a pair counts half."""
    popularity_power: float = 0.3
    row_power: float = 0.5
    decay: float = 0.7
    """How much less each step back in the cascade counts."""
    gap_half_life_days: float = float("inf")
    """After how long an act of the cascade itself draws half as much."""
    max_len: int | None = 50
    """How many of the cascade's latest acts are read."""
    own_weight: float = 1e-6
    max_users: int = 20_000

    def __post_init__(self) -> None:
        check_int("window", self.window, 1)
        check_real("half_life_days", self.half_life_days, 0.0, is_above=True, or_infinite=True)
        check_real("gap_half_life_days", self.gap_half_life_days, 0.0, is_above=True, or_infinite=True)
        for name in ("pair_decay", "reverse", "decay", "row_power", "popularity_power"):
            check_real(name, getattr(self, name), 0.0, 1.0)

    @property
    def name(self) -> str:
        """Return how reports call the model."""
        return "counts, streaming" if self.streaming else "counts, static"

    def _stream(self, acts: NextActs) -> ActorStream:
        pairs = PairDecay(window=self.window, decay=self.pair_decay, reverse=self.reverse)
        return ActorStream(
            acts.cascades,
            countings=[PairCounting(pairs=pairs, half_life_days=self.half_life_days)],
            until_us=None if self.streaming else acts.begin_us,
            max_users=self.max_users,
        )

    def _own(self, stream: ActorStream, moment: ActorMoment, users: np.ndarray | slice) -> np.ndarray:
        return np.asarray(self.own_weight * stream.activity[0, users])

    def _drawn(self, stream: ActorStream, moment: ActorMoment, users: np.ndarray) -> np.ndarray:
        return np.asarray(self._strength(stream, moment)[:, None] * self._followers(stream, moment, users))

    def _total(self, stream: ActorStream, moment: ActorMoment) -> np.ndarray:
        drawn = self._strength(stream, moment) @ self._followers(stream, moment, slice(None))
        return np.asarray(self._own(stream, moment, slice(None)) + drawn)

    def _strength(self, stream: ActorStream, moment: ActorMoment) -> np.ndarray:
        days = moment.gap_us / 86_400e6
        weight = self.decay ** (moment.lag - 1.0) * 0.5 ** (days / self.gap_half_life_days)
        return np.asarray(weight * np.maximum(stream.row_sums[0][moment.user_idx], 1e-12) ** -self.row_power)

    def _followers(self, stream: ActorStream, moment: ActorMoment, users: np.ndarray | slice) -> np.ndarray:
        table = stream.counts[0]
        rows = table[moment.user_idx] if isinstance(users, slice) else table[moment.user_idx[:, None], users]
        # Of what the scale leaves, the row's sum takes its power.
        scale = stream.scale(0) ** (1 - self.row_power)
        return np.asarray(rows * (scale * np.maximum(stream.activity[0, users], 1.0) ** -self.popularity_power))
