"""A ledger to what makes a behaviour influential: the size of its credits by action, distance, scene, item and user."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from influent.data.clock import span_us
from influent.data.sequences import Sequences
from influent.errors import ConfigError, UnknownIdError, nearest
from influent.influence.importance import Ranking, rank_factors
from influent.influence.ledger import Ledger
from influent.influence.levels import EventCredits, Factor, read_factors
from influent.influence.resampling import N_RESAMPLES, Resampling, interval, null_if_nan, ratio
from influent.progress import Progress
from influent.settings import check_list


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """What was found of each factor and of each pair of them.

    Attributes:
        table: one row per level of a factor, and per pair of levels of two factors; columns as in `docs/tables.md`.
        ranking: the factors by importance; None where it was not asked for.
        about: model, fingerprint and exactness of the ledger, how far it is from closing, and which part of all
            scores lies in terms that no event owns.
    """

    table: pa.Table
    ranking: Ranking | None
    about: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Return the factors, the most important first where they are ranked."""
        if self.ranking is not None:
            return [one.factor for one in self.ranking.factors]
        return list(self.table.column("factor").unique().to_pylist())

    def of(self, name: str, other: str | None = None) -> list[dict[str, Any]]:
        """Return the rows of one factor, or of a pair, in the order of their levels.

        Raises:
            UnknownIdError: there is no such factor or pair.
        """
        found = self._rows(name, other)
        if not found and other is not None:
            found = self._rows(other, name)
        if not found:
            known = self.table.column("factor").unique().to_pylist()
            raise UnknownIdError(
                f"no factor {name!r}{f' crossed with {other!r}' if other else ''} was looked at.{nearest(name, known)} "
                f"There are: {', '.join(known)}."
            )
        return found

    def _rows(self, name: str, other: str | None) -> list[dict[str, Any]]:
        of_name = self.table.filter(pc.equal(self.table.column("factor"), name)).to_pylist()
        return [row for row in of_name if row["other_factor"] == other]

    def to_json(self) -> str:
        """Return what `factors.json` holds."""
        ranking = None
        if self.ranking is not None:
            ranking = {"explained": self.ranking.explained, "factors": [asdict(one) for one in self.ranking.factors]}
        return json.dumps({"about": self.about, "ranking": ranking}, indent=2) + "\n"

    def save(self, folder: Path) -> None:
        """Write `factors.parquet`, `factors.json` and the page `factors.html`."""
        from influent.influence.factor_page import factor_page

        pq.write_table(self.table, folder / "factors.parquet", compression="zstd")
        (folder / "factors.json").write_text(self.to_json())
        (folder / "factors.html").write_text(factor_page(self))


def factors(
    ledger: Ledger,
    *,
    sequences: Sequences | None = None,
    by: Sequence[str] | None = None,
    pairs: bool | Sequence[tuple[str, str]] = True,
    rank: bool = True,
    session_gap: str = "30m",
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Factors:
    """Say what kinds of behaviour have large credits.

    Each credit of an event counts once. Intervals are 95 %, by bootstrap over users. `difference` sets a level
    against all other credits; a factor that does nothing has differences whose intervals cover zero.

    Args:
        ledger: a full one, without `top`.
        sequences: the events that were explained; without them factors that are not in the ledger (scene, session,
            features of items and users) cannot be read.
        by: the factors; by default all there are, see `influent.influence.levels.read_factors`.
        pairs: which pairs of them to cross; by default all.
        rank: rank the factors by importance and adjust them for each other (extra `classical`): see
            `influent.influence.importance.rank_factors`.
        session_gap: a session ends where nothing follows for longer: a number and s, m (minutes), h, d or w.
        n_resamples: resamples of the bootstrap, from 100.

    Raises:
        DataError: the ledger is shortened, holds no credit of an event, or is of one user; or the sequences are of
            other events.
        ConfigError: there is no such factor (the message has the nearest), or it needs times that are not there.
        MissingExtraError: factors are to be ranked and scikit-learn is not installed.

    Example:
        >>> found = factors(ledger, sequences=sequences, by=["action", "scene"])  # doctest: +SKIP
        >>> [(row["level"], row["mean_abs_credit"]) for row in found.of("action")]  # doctest: +SKIP
        [('purchase', 0.41), ('view', 0.12)]
    """
    session_gap_us = span_us(session_gap)
    credits = EventCredits.of(ledger)
    draws = Resampling.of(credits.n_users, n_resamples=n_resamples, seed=seed)
    chosen = read_factors(credits, sequences, by, session_gap_us=session_gap_us)
    ranking = rank_factors(credits, chosen, draws, seed=seed) if rank and chosen else None
    crossed = _pairs(chosen, pairs)
    tables = []
    with (progress or Progress()).track("factors", len(chosen) + len(crossed)) as advance:
        for factor in chosen:
            adjusted = None if ranking is None else ranking.adjusted[factor.name]
            tables.append(_describe(credits, draws, factor, None, adjusted))
            advance(1)
        for first, second in crossed:
            tables.append(_describe(credits, draws, first, second, None))
            advance(1)
    about = ledger.about() | {"session_gap": session_gap, "n_resamples": n_resamples, "resampling_seed": seed}
    return Factors(table=pa.concat_tables(tables), ranking=ranking, about=about)


def _pairs(chosen: Sequence[Factor], pairs: bool | Sequence[tuple[str, str]]) -> list[tuple[Factor, Factor]]:
    if isinstance(pairs, bool):
        return list(combinations(chosen, 2)) if pairs else []
    by_name = {factor.name: factor for factor in chosen}
    for pair in pairs:
        check_list("pairs", pair)
        for name in pair:
            if name not in by_name:
                raise ConfigError(
                    f"the pair {' and '.join(pair)} has no factor {name!r}.{nearest(name, by_name)} "
                    f"There are: {', '.join(by_name)}."
                )
        if len(set(pair)) != 2:
            raise ConfigError(f"a pair is of two different factors. Got {pair!r}.")
    return [(by_name[first], by_name[second]) for first, second in pairs]


def _describe(
    credits: EventCredits, draws: Resampling, factor: Factor, other: Factor | None, adjusted: np.ndarray | None
) -> pa.Table:
    """Return the rows of one factor, or of two crossed; cells without a credit are left out."""
    code, n_levels = factor.code, len(factor)
    if other is not None:
        code, n_levels = code * len(other) + other.code, n_levels * len(other)
    user, credit = credits.user_of_credit, credits.credit
    count, signed = draws.sums(user, code, n_levels), draws.sums(user, code, n_levels, credit)
    size = draws.sums(user, code, n_levels, np.abs(credit))
    there = np.flatnonzero(count.sum(axis=0))
    count, signed, size = count[:, there], signed[:, there], size[:, there]
    measures = _measures(count.sum(axis=0), signed.sum(axis=0), size.sum(axis=0))
    drawn = _measures(draws.draw(count), draws.draw(signed), draws.draw(size))
    n_users: Any = pa.nulls(len(there), pa.int64())
    if other is None:
        n_users = np.bincount(np.unique(user * n_levels + code) % n_levels, minlength=n_levels)[there]
    first = there if other is None else there // len(other)
    nothing = pa.nulls(len(there), pa.string())
    columns: dict[str, Any] = {
        "factor": [factor.name] * len(there),
        "level": [factor.levels[place] for place in first],
        "other_factor": nothing if other is None else [other.name] * len(there),
        "other_level": nothing if other is None else [other.levels[place] for place in there % len(other)],
        "n_credits": count.sum(axis=0).astype(np.int64),
        "n_users": n_users,
        "share_of_credits": count.sum(axis=0) / count.sum(),
    }
    for name, value in measures.items():
        low, high = interval(drawn[name], (count > 0).sum(axis=0))
        columns |= {name: value, f"{name}_low": low, f"{name}_high": high}
    columns["adjusted"] = pa.nulls(len(there), pa.float64()) if adjusted is None else adjusted
    return pa.table({name: null_if_nan(values) for name, values in columns.items()})


def _measures(count: np.ndarray, signed: np.ndarray, size: np.ndarray) -> dict[str, np.ndarray]:
    """Return what is said of levels, (…, L) each, from their sums."""
    all_count, all_size = count.sum(axis=-1, keepdims=True), size.sum(axis=-1, keepdims=True)
    mean = ratio(size, count)
    return {
        "mean_abs_credit": mean,
        "total_abs_credit": size,
        "share_of_abs_credit": ratio(size, all_size),
        "mean_credit": ratio(signed, count),
        "total_credit": signed,
        "difference": mean - ratio(all_size - size, all_count - count),
    }
