"""Models that need no gradient: a popularity term plus item-to-item weights, summed over the history.

Every one of them scores item b at a moment as

    score(b) = bias[b] + Σ_j decay^(lag_j − 1) · weights[item_j, b]      j: the last `max_len` events

so each event's credit is its own term, exactly. They differ in how `bias` and `weights` come from the log.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from safetensors.numpy import save_file
from scipy import sparse

from influent.data.moments import Moments
from influent.data.sequences import Sequences
from influent.data.vocab import Vocab
from influent.errors import ConfigError, DataError
from influent.models.credits import Credits, sources_of
from influent.models.model import check_fitted, check_same_ids
from influent.models.transitions import PairDecay, count_transitions, scaling_of, top_of_rows
from influent.progress import Progress
from influent.run import made
from influent.settings import check_int, check_real

Weights: TypeAlias = Any
"""A `scipy.sparse.csr_array`, or a dense array (I, I) where most pairs have a weight; SciPy ships no types."""

_DAY_US = 86_400_000_000


class ItemToItem:
    """What the models of this file share; each says how to `_learn` its bias and weights."""

    KIND: ClassVar[str]
    decay: float = 1.0
    max_len: int | None = None

    fitted_on: str = ""
    is_refitted: bool = False
    vocab: Vocab
    popularity: np.ndarray
    bias: np.ndarray
    weights: Weights

    def __post_init__(self) -> None:
        check_real("decay", self.decay, 0.0, 1.0)
        if self.max_len is not None:
            check_int("max_len", self.max_len, 1)

    @property
    def name(self) -> str:
        """Return how reports call the model."""
        return self.KIND + (", refitted" if self.is_refitted else "")

    def _learn(self, train: Sequences) -> tuple[np.ndarray, Weights]:
        """Return bias (I,) and weights (I, I)."""
        raise AssertionError(f"{type(self).__name__} does not say how to learn")

    def fit(self, train: Sequences, validation: Moments | None = None, *, progress: Progress | None = None) -> Self:
        """Count; validation moments are not needed."""
        with (progress or Progress()).track(f"fit {self.name}", 1) as advance:
            self.bias, self.weights = self._learn(train)
            advance()
        self.popularity = train.popularity()
        self.vocab, self.fitted_on = train.vocab, train.fingerprint
        return self

    def refit(self, train: Sequences, *, progress: Progress | None = None) -> Self:
        """Return a model of the same settings, counted on more events: `model.refit(split.train_and_validation)`."""
        check_fitted(self)
        refitted = type(self)(**self.settings()).fit(train, progress=progress)
        refitted.is_refitted = True
        return refitted

    def predict(self, moments: Moments) -> np.ndarray:
        """Return a score for every item at each moment, float32 (N, n_items)."""
        check_same_ids(self, moments)
        offsets, _, item, strength = self._sources(moments)
        shape = (len(moments), self.vocab.n_items)
        history = sparse.csr_array((strength, item, offsets), shape=shape)
        scores = history @ self.weights
        scores = scores.toarray() if sparse.issparse(scores) else scores
        return np.asarray(scores + self.bias, dtype=np.float32)

    def credits(self, moments: Moments, candidates: np.ndarray) -> Credits:
        """Return the terms of the scores of these items, int (N, C), at each moment."""
        check_same_ids(self, moments)
        offsets, place, item, strength = self._sources(moments)
        asked = np.repeat(candidates, np.diff(offsets), axis=0)
        found = self.weights[np.repeat(item[:, None], asked.shape[1], axis=1), asked]
        found = found.toarray() if sparse.issparse(found) else found
        credit = strength[:, None] * np.asarray(found, dtype=np.float64)
        return Credits(offsets=offsets, place=place, credit=credit, bias=self.bias[candidates].astype(np.float64))

    def _sources(self, moments: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return offsets, place, item and decayed strength of the events read; an unknown item has strength 0."""
        offsets, place, lag = sources_of(moments, self.max_len)
        item = moments.sequences.item_idx[place]
        strength = np.where(item >= 0, self.decay ** (lag - 1.0), 0.0)
        return offsets, place, np.maximum(item, 0), strength

    def settings(self) -> dict[str, Any]:
        """Return the settings that the constructor takes."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def save(self, folder: str | Path) -> None:
        """Write `model.safetensors`, `config.json` and the vocabulary."""
        check_fitted(self)
        folder = made(folder)
        arrays = {"bias": self.bias, "popularity": self.popularity}
        if sparse.issparse(self.weights):
            w = sparse.csr_array(self.weights)
            arrays |= {"data": w.data, "indices": w.indices.astype(np.int64), "indptr": w.indptr.astype(np.int64)}
        else:
            arrays["weights"] = np.asarray(self.weights)
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "model.safetensors")
        about = {"fitted_on": self.fitted_on, "is_refitted": self.is_refitted}
        config = {"model": self.KIND, "settings": self.settings(), **about}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        self.vocab.save(folder)

    def restore(self, arrays: dict[str, np.ndarray], vocab: Vocab, config: dict[str, Any]) -> Self:
        """Take over what `save` wrote."""
        self.bias, self.popularity = arrays["bias"], arrays["popularity"]
        self.vocab, self.fitted_on, self.is_refitted = vocab, config["fitted_on"], config["is_refitted"]
        shape = (len(self.bias), len(self.bias))
        if "weights" in arrays:
            self.weights = arrays["weights"]
        else:
            self.weights = sparse.csr_array((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
        return self


@dataclass(kw_only=True)
class Popularity(ItemToItem):
    """The share of training events that are the item's."""

    KIND: ClassVar[str] = "popularity"

    def _learn(self, train: Sequences) -> tuple[np.ndarray, Weights]:
        return train.popularity(), _empty(train.vocab.n_items)


@dataclass(kw_only=True)
class RecentPopularity(ItemToItem):
    """The share of the log's last days' events that are the item's."""

    KIND: ClassVar[str] = "recent_popularity"
    last_days: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("last_days", self.last_days, 0.0, is_above=True)

    def _learn(self, train: Sequences) -> tuple[np.ndarray, Weights]:
        if train.time_us is None:
            raise ConfigError("an order-only log has no last days. Use Popularity().")
        if len(train) == 0:
            raise DataError("there are no events, so there are no last days of them.")
        recent = train.time_us > train.time_us.max() - self.last_days * _DAY_US
        counts = np.bincount(train.item_idx[recent & (train.item_idx >= 0)], minlength=train.vocab.n_items)
        return counts / max(counts.sum(), 1), _empty(train.vocab.n_items)


@dataclass(kw_only=True)
class Markov(ItemToItem):
    """First order: the share of times that item b followed directly on the latest item."""

    KIND: ClassVar[str] = "markov"
    max_len = 1

    def _learn(self, train: Sequences) -> tuple[np.ndarray, Weights]:
        weights = count_transitions(train, PairDecay(window=1, decay=1.0, reverse=0.0))
        return np.zeros(train.vocab.n_items), _scale_rows(weights, 1 / np.maximum(weights.sum(axis=1), 1e-12))


@dataclass(kw_only=True)
class DecayedCounts(ItemToItem):
    """Decayed transition counts: how often b came soon after a, near pairs counting more.

    Each pair (a before b, distance w) adds `pair_decay^(w − 1)` to T[a, b]; `reverse` of T's transpose is added;
    column b is divided by pop(b)^`popularity_power`, then each row by the square root of its sum.
    """

    KIND: ClassVar[str] = "counts"
    window: int = 20
    """Largest distance of a pair, in events."""
    pair_decay: float = 0.9
    popularity_power: float = 0.3
    reverse: float = 0.5
    decay: float = 0.7
    """How much less each step back in the history counts."""
    max_len: int | None = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("window", self.window, 1)
        check_real("pair_decay", self.pair_decay, 0.0, 1.0)
        check_real("popularity_power", self.popularity_power, 0.0)
        check_real("reverse", self.reverse, 0.0)

    def _learn(self, train: Sequences) -> tuple[np.ndarray, Weights]:
        pairs = PairDecay(window=self.window, decay=self.pair_decay, reverse=self.reverse)
        counts = count_transitions(train, pairs)
        row, column = scaling_of(counts, train, self.popularity_power)
        return np.zeros(train.vocab.n_items), _scale_rows(sparse.csr_array(counts @ sparse.diags_array(column)), row)


@dataclass(kw_only=True)
class ItemKNN(ItemToItem):
    """Cosine of the sets of users of two items, the `n_neighbours` nearest kept, recent history counting more.

    Deshpande and Karypis, Item-based top-N recommendation algorithms, 2004.
    """

    KIND: ClassVar[str] = "itemknn"
    n_neighbours: int = 100
    decay: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int("n_neighbours", self.n_neighbours, 1)

    def _learn(self, train: Sequences) -> tuple[np.ndarray, Weights]:
        users = _user_items(train)
        norms = np.sqrt(np.maximum(users.sum(axis=0), 1e-12))
        together = sparse.csr_array(users.T @ users)
        together.setdiag(0)
        together.eliminate_zeros()
        cosine = _scale_rows(sparse.csr_array(together @ sparse.diags_array(1 / norms)), 1 / norms)
        item, value = top_of_rows(cosine, self.n_neighbours)
        row = np.broadcast_to(np.arange(len(item))[:, None], item.shape)
        kept = sparse.csr_array((value.ravel(), (row.ravel(), item.ravel())), shape=cosine.shape)
        kept.eliminate_zeros()
        return np.zeros(train.vocab.n_items), kept


@dataclass(kw_only=True)
class Ease(ItemToItem):
    """The linear autoencoder with zero diagonal that has a closed form.

    Steck, Embarrassingly shallow autoencoders for sparse data, 2019 (equation 8): B = I − P · diag(1 / diag P),
    P = (XᵀX + λI)⁻¹. A history is the sum of its events, so an item that comes twice counts twice.
    """

    KIND: ClassVar[str] = "ease"
    l2: float = 500.0
    max_items: int = 20_000
    """Refuse a larger catalogue: the inverse needs 16 bytes times its square."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_real("l2", self.l2, 0.0, is_above=True)
        check_int("max_items", self.max_items, 1)

    def _learn(self, train: Sequences) -> tuple[np.ndarray, Weights]:
        n_items = train.vocab.n_items
        if n_items > self.max_items:
            raise ConfigError(
                f"EASE inverts a matrix over all {n_items:,} items ({8 * n_items**2 / 2**30:.0f} GiB). It is limited "
                f"to {self.max_items:,}: raise max_items, drop rare items when cleaning, or use itemknn."
            )
        users = _user_items(train)
        gram = (users.T @ users).toarray()
        gram[np.diag_indices(n_items)] += self.l2
        inverse = np.linalg.inv(gram)
        weights = -inverse / np.diag(inverse)
        weights[np.diag_indices(n_items)] = 0
        return np.zeros(n_items), weights.astype(np.float32)


def _user_items(train: Sequences) -> sparse.csr_array:
    """Return 1 where a user has an item, (U, I)."""
    known = train.item_idx >= 0
    shape = (train.n_users, train.vocab.n_items)
    ones = np.ones(int(known.sum()))
    matrix = sparse.csr_array((ones, (train.user_idx[known], train.item_idx[known])), shape=shape)
    matrix.data[:] = 1
    return matrix


def _scale_rows(matrix: sparse.csr_array, factors: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array(sparse.diags_array(factors) @ matrix)


def _empty(n_items: int) -> sparse.csr_array:
    return sparse.csr_array((n_items, n_items), dtype=np.float64)
