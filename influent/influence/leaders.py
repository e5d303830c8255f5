"""A ledger of what events were answers to, and ties, to opinion leaders: who moves most, and how sure that order is.

Shapes: U users, P predictions, C cells, each a level of what the graph is split by and a user, R resamples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse, stats

from influent import schema
from influent.data.sequences import Sequences
from influent.data.ties import Ties
from influent.influence.centrality import core_number, page_rank
from influent.influence.graph import events_of, interval_of_sums, per_event, social_rows
from influent.influence.ledger import Ledger
from influent.run import made
from influent.settings import check_int, check_type

REFERENCES = ("followers", "page_rank", "core")
_AT_ONCE = 10
"""How many resamples are added up together"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Leaders:
    """People by how much they move others.

    Attributes:
        table: one row per person who has a credit in somebody else's predictions, and per level where it is split:
            `rank`, `user_id`, what it is split by, `exerted` with its 95 % interval `low` and `high`, `per_follower`,
            `per_event`, `reach` and `openness` as in `InfluenceGraph.people`; beside them `followers` (ties whose
            source the person is), `page_rank` and `core` of the ties; `rank_low` and `rank_high` (95 %, over resamples)
            and `in_top`, the share of resamples in which they are in the top k.
        about: `k`, `n_resamples`, `seed`; `overlap`, the share of the top k that a resample's top k holds too, in the
            mean over resamples and the `n_levels` of `of_levels` levels with more than k people (null without one);
            `correlation`, the rank correlation of influence with each reference, over everybody who has followers
            (null where it has none); whether ties were given.
    """

    table: pa.Table
    about: dict[str, Any]

    def sentences(self) -> list[str]:
        """Return how sure the order is, and how much of it one could have read off the ties alone."""
        about = self.about
        kept = f"There are never more than {about['k']} people to rank, so nobody can fall out of the top {about['k']}."
        if about["overlap"] is not None:
            those = f", in the mean of the {about['n_levels']:,} of {about['of_levels']:,} levels that have more people"
            levels = those if about["of_levels"] > 1 else ""
            kept = f"{about['overlap']:.0%} of the top {about['k']} stay there when predictions are drawn anew{levels}."
        found = [f"{name} {value:.2f}" for name, value in about["correlation"].items() if value is not None]
        return [kept, f"Rank correlation of influence with {', '.join(found)}."] if found else [kept]

    def save(self, folder: str | Path) -> None:
        """Write `leaders.parquet` and `leaders.json`."""
        folder = made(folder)
        pq.write_table(self.table, folder / "leaders.parquet", compression="zstd")
        (folder / "leaders.json").write_text(json.dumps(self.about, indent=2) + "\n")


def leaders(
    ledger: Ledger,
    ties: Ties,
    *,
    by: str | None = None,
    period: str | None = None,
    sequences: Sequences | None = None,
    k: int = 10,
    n_resamples: int = 200,
    seed: int = 0,
) -> Leaders:
    """Rank people by how much they move others, and say how much of that ranking is chance.

    Ranks are those of resamples in which each prediction counts a Poisson number of times with the mean 1: the
    bootstrap whose variance the intervals of `influence_graph` have.

    Args:
        ties: those that the model was fitted along; what degree, PageRank and k-core are of.
        by: rank at each level of this, for leaders by scene or topic; as for `influence_graph`.
        period: rank in each calendar window; as for `influence_graph`.
        sequences: as for `influence_graph`.
        k: how many are the top.
        n_resamples: from 100.

    Raises:
        ConfigError: an argument is out of its range, or as for `influence_graph`.
        DataError: nobody has a credit in anybody else's predictions.
        UnknownIdError: the ties are among other people.

    Example:
        Ann has 5 of bob's events and 1 of cleo's: exerted 6, per follower 3, and a reach of 36 / (25 + 1) = 1.4.
    """
    check_type("ties", ties, Ties, "build_ties(read_edges(...), sequences)")
    check_int("k", k, 1)
    check_int("n_resamples", n_resamples, 100)
    check_int("seed", seed, 0)
    social, split = social_rows(ledger, by=by, period=period, sequences=sequences)
    cells = _Cells.of(social, split, ties)
    in_top, rank_low, rank_high = _resampled(cells, k, n_resamples, seed)
    references = _references(ties)
    user, exerted = cells.user, cells.exerted
    low, high = interval_of_sums(exerted, cells.of_predictions.power(2).sum(axis=1))
    squares = cells.of_targets.power(2).sum(axis=1)
    openness = _openness(ledger, social, ties)
    overlap, n_levels = _overlap(cells, cells.rank(exerted) <= k, in_top, k)
    table = pa.table(
        {
            schema.RANK: cells.rank(exerted),
            schema.USER_ID: ties.users.to_ids(user),
            **{name: social.column(name).take(pa.array(cells.row)) for name in split},
            "exerted": exerted,
            "low": low,
            "high": high,
            "per_follower": exerted / np.maximum(references["followers"][user], 1),
            "per_event": per_event(exerted, events_of(ledger, ties.users.ids, sequences)[user]),
            "reach": exerted**2 / np.where(squares > 0, squares, 1.0),
            "openness": openness[user],
            **{name: values[user] for name, values in references.items()},
            "rank_low": rank_low,
            "rank_high": rank_high,
            "in_top": in_top,
        }
    )
    about = {
        "k": k,
        "n_resamples": n_resamples,
        "seed": seed,
        "overlap": overlap,
        "n_levels": n_levels,
        "of_levels": int(cells.level.max()) + 1,
        "correlation": _correlations(np.bincount(user, exerted, len(ties.users)), references),
        "ties_are_given": ties.are_given,
    }
    order = [(name, "ascending") for name in (*split, schema.RANK)]
    return Leaders(table=table.sort_by(order).combine_chunks(), about=about)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cells:
    """What each person exerts at each level, by level, the largest first, equal ones by id."""

    level: np.ndarray
    """int64 (C,), ascending"""
    user: np.ndarray
    """int64 (C,)"""
    row: np.ndarray
    """int64 (C,): a row of the cell"""
    of_predictions: sparse.csr_array
    """float64 (C, P): credits in each prediction"""
    of_targets: sparse.csr_array
    """float64 (C, U): and in all of each user"""
    exerted: np.ndarray
    """float64 (C,)"""

    @classmethod
    def of(cls, social: pa.Table, split: list[str], ties: Ties) -> _Cells:
        user, target = (_places(ties, social, name) for name in (schema.SOURCE_USER_ID, schema.USER_ID))
        level = np.zeros(len(user), np.int64)
        for name in split:
            encoded = social.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
            level = level * len(encoded.dictionary) + encoded.indices.to_numpy()
        key, row, cell = np.unique(level * len(ties.users) + user, return_index=True, return_inverse=True)
        credit = social.column(schema.CREDIT).to_numpy()
        exerted = np.bincount(cell, credit)
        order = np.lexsort((-exerted, key // len(ties.users)))
        place = np.argsort(order)[cell]
        prediction = np.unique(social.column(schema.PREDICTION_ID).to_numpy(), return_inverse=True)[1]
        return cls(
            level=np.unique(level[row][order], return_inverse=True)[1],
            user=user[row][order],
            row=row[order],
            of_predictions=sparse.csr_array((credit, (place, prediction))),
            of_targets=sparse.csr_array((credit, (place, target)), shape=(len(key), len(ties.users))),
            exerted=exerted[order],
        )

    def rank(self, exerted: np.ndarray) -> np.ndarray:
        """Return the rank of each cell at its level, from 1, if this is what each exerts; of equals the first here."""
        order = np.lexsort((-exerted, self.level))
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order)) - np.searchsorted(self.level, self.level) + 1
        return rank

    def drawn(self, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
        """Return what each cell exerts in each resample, float64 (C,)."""
        rng = np.random.default_rng(seed)
        for first in range(0, n_resamples, _AT_ONCE):
            n = min(_AT_ONCE, n_resamples - first)
            weight = rng.poisson(1.0, (self.of_predictions.shape[1], n)).astype(np.float64)
            yield from (self.of_predictions @ weight).T


def _places(ties: Ties, social: pa.Table, name: str) -> np.ndarray:
    """Return the place of each row's user among those of the ties; the few that there are are looked up."""
    encoded = social.column(name).combine_chunks().dictionary_encode()
    places = ties.users.require_idx(encoded.dictionary.to_pylist())
    return np.asarray(places[encoded.indices.to_numpy()])


def _resampled(cells: _Cells, k: int, n_resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the share of resamples in which each cell is in the top k, and the interval of its rank."""
    ranks = np.stack([cells.rank(exerted) for exerted in cells.drawn(n_resamples, seed)])
    low, high = np.quantile(ranks, [0.025, 0.975], axis=0, method="inverted_cdf")
    return (ranks <= k).mean(axis=0), low, high


def _references(ties: Ties) -> dict[str, np.ndarray]:
    n, source, target = len(ties.users), ties.source, ties.target
    return dict(
        zip(
            REFERENCES,
            (np.bincount(source, minlength=n), page_rank(n, source, target), core_number(n, source, target)),
            strict=True,
        )
    )


def _overlap(cells: _Cells, is_top: np.ndarray, in_top: np.ndarray, k: int) -> tuple[float | None, int]:
    """Return the mean share of the top k that a resample's top k holds too, and over how many levels.

    At a level with k people or fewer all of them are on top, whatever is drawn; it says nothing.
    """
    share = np.bincount(cells.level[is_top], in_top[is_top]) / np.bincount(cells.level[is_top])
    says = np.bincount(cells.level) > k
    return (float(share[says].mean()) if says.any() else None), int(says.sum())


def _openness(ledger: Ledger, social: pa.Table, ties: Ties) -> np.ndarray:
    """Return which share of each user's scores is put down to others."""
    n = len(ties.users)
    user = ties.users.to_idx(ledger.predictions.column(schema.USER_ID))
    is_known = user >= 0
    score = ledger.predictions.column(schema.SCORE).to_numpy()
    total = np.bincount(user[is_known], score[is_known], n)
    received = np.bincount(_places(ties, social, schema.USER_ID), social.column(schema.CREDIT).to_numpy(), n)
    return np.where(total > 0, received / np.where(total > 0, total, 1.0), 0.0)


def _correlations(exerted: np.ndarray, references: dict[str, np.ndarray]) -> dict[str, float | None]:
    """Return Spearman's correlation with each reference, over those who have followers."""
    may = references["followers"] > 0
    found: dict[str, float | None] = {}
    for name, values in references.items():
        varies = np.ptp(values[may]) > 0 and np.ptp(exerted[may]) > 0
        found[name] = float(stats.spearmanr(exerted[may], values[may]).statistic) if varies else None
    return found
