"""A table of arcs to a spread: who may pass something on to whom, and with what chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from influent import schema
from influent.data.vocab import UNKNOWN, Ids, id_array
from influent.errors import DataError, SchemaError, UnknownIdError
from influent.influence.independent_cascade import Arcs
from influent.settings import check_int, check_type


@dataclass(frozen=True, kw_only=True, eq=False)
class Spread:
    """People and the arcs between them: once active, a person activates each other one with the arc's probability.

    Every arc has one chance, and all are independent of each other: the independent cascade (Kempe, Kleinberg and
    Tardos 2003, Maximizing the Spread of Influence through a Social Network). The probabilities are taken as given.
    Only where they come from an experiment is what follows from them an effect.

    Build one with `Spread.of_table` or `Spread.of_arrays`. The arcs, A of them, are sorted by target, then source.
    """

    people: Ids
    source: np.ndarray
    """int64 (A,): place in `people` of who passes on"""
    target: np.ndarray
    """int64 (A,): and to whom"""
    probability: np.ndarray
    """float64 (A,), in [0, 1]"""
    n_self_arcs: int = 0
    """Arcs from a person to the same one, which were dropped"""
    n_repeated_arcs: int = 0
    """Arcs that joined an earlier one of the same two people: the chance that one of them or more works"""

    def __len__(self) -> int:
        return len(self.people)

    @classmethod
    def of_arrays(cls, n_people: int, source: np.ndarray, target: np.ndarray, probability: np.ndarray) -> Spread:
        """Build a spread among people whose ids are 0 … `n_people` − 1.

        Args:
            source: whole numbers (A,); who passes on.
            target: whole numbers (A,); to whom.
            probability: (A,), in [0, 1].

        Raises:
            DataError: there is nobody, the arrays differ in length, or a probability is none.
            UnknownIdError: an arc is of somebody who is not there.

        Example:
            >>> spread = Spread.of_arrays(3, np.array([0, 0, 1, 2]), np.array([1, 1, 2, 2]), np.full(4, 0.5))
            >>> spread.probability.tolist(), spread.n_repeated_arcs, spread.n_self_arcs
            ([0.75, 0.5], 1, 1)
        """
        check_int("n_people", n_people, 0)
        ends = {"source": np.asarray(source), "target": np.asarray(target)}
        chance = np.asarray(probability, np.float64)
        for name, end in ends.items():
            if end.shape != chance.shape or chance.ndim != 1:
                raise DataError(
                    f"{name} has the shape {end.shape}, probability {chance.shape}. Give one of each for every arc."
                )
            if len(end) and end.dtype.kind not in "iu":
                raise SchemaError(f"{name} holds {end.dtype}; the places of people are whole numbers.")
            out = np.flatnonzero((end < 0) | (end >= n_people))
            if len(out):
                raise UnknownIdError(
                    f"{name} {end[out[0]]} of arc {out[0]} is not among the {n_people:,} people 0 … {n_people - 1}."
                )
        return cls._of(Ids(schema.USER_ID, pa.array(np.arange(n_people))), ends["source"], ends["target"], chance)

    @classmethod
    def of_table(cls, arcs: pa.Table, *, people: Sequence[Any] | pa.Array | pa.ChunkedArray | None = None) -> Spread:
        """Build a spread from a table with the columns `source_user_id`, `target_user_id` and `probability`.

        Args:
            arcs: other columns are not looked at.
            people: the ids of all, also of those without an arc; by default those that arcs name.

        Raises:
            ConfigError: `arcs` is no Arrow table.
            SchemaError: a column is missing, or holds what it should not.
            DataError: there is nobody, or a probability is none.
            UnknownIdError: an arc is of somebody who is not among `people`.
        """
        wanted = (schema.SOURCE_USER_ID, schema.TARGET_USER_ID, schema.PROBABILITY)
        check_type("arcs", arcs, pa.Table, "graph.probabilities()")
        for name in wanted:
            if name not in arcs.column_names:
                raise SchemaError(
                    f"the table of arcs has no column {name!r}. It has: {', '.join(map(repr, arcs.column_names))}."
                )
            if arcs.column(name).null_count:
                raise DataError(f"{arcs.column(name).null_count:,} arcs have no {name}. Fill them in, or drop them.")
        source, target, chance = (_plain(arcs.column(name)) for name in wanted)
        if source.type != target.type:
            raise SchemaError(f"source_user_id holds {source.type}, target_user_id {target.type}. Ids are of one type.")
        if not (pa.types.is_floating(chance.type) or pa.types.is_integer(chance.type)):
            raise SchemaError(f"probability holds {chance.type}; numbers in [0, 1] are needed.")
        if people is None:
            named = pa.chunked_array([*source.chunks, *target.chunks], source.type)
        else:
            named = _plain(people if isinstance(people, pa.Array | pa.ChunkedArray) else id_array(people))
        distinct = pc.unique(named)
        ids = Ids(schema.USER_ID, distinct.take(pc.sort_indices(distinct)).drop_null())
        places = [ids.to_idx(end) for end in (source, target)]
        for end, place in zip((source, target), places, strict=True):
            if (place == UNKNOWN).any():
                ids.require_idx([end[int(np.argmax(place == UNKNOWN))].as_py()])  # names it, and the nearest
        return cls._of(ids, places[0], places[1], chance.cast(pa.float64()).to_numpy())

    @classmethod
    def _of(cls, people: Ids, source: np.ndarray, target: np.ndarray, probability: np.ndarray) -> Spread:
        n = len(people)
        if n == 0:
            raise DataError("there is nobody: no people were given, and no arcs name any.")
        bad = np.flatnonzero(~((probability >= 0) & (probability <= 1)))
        if len(bad):
            raise DataError(
                f"{len(bad):,} of {len(probability):,} probabilities are not in [0, 1], the first is "
                f"{probability[bad[0]]} (arc {bad[0]})."
            )
        is_self = source == target
        source, target, probability = (x[~is_self] for x in (source, target, probability))
        order = np.lexsort((source, target))
        source, target, probability = source[order].astype(np.int64), target[order].astype(np.int64), probability[order]
        first = np.flatnonzero(np.diff(target * n + source, prepend=-1))
        one, n_same = probability[first], np.diff(first, append=len(order))
        if (n_same > 1).any():
            with np.errstate(divide="ignore"):
                none_works = np.add.reduceat(np.log1p(-probability), first)
            one = np.where(n_same > 1, -np.expm1(none_works), one)
        return cls(
            people=people,
            source=source[first],
            target=target[first],
            probability=one,
            n_self_arcs=int(is_self.sum()),
            n_repeated_arcs=len(order) - len(first),
        )

    @cached_property
    def outward(self) -> Arcs:
        """Return the arcs by who passes on."""
        return Arcs.of(len(self), self.source, self.target, self.probability)

    @cached_property
    def inward(self) -> Arcs:
        """Return the arcs by to whom, turned round."""
        return Arcs.of(len(self), self.target, self.source, self.probability)

    def changed_targets(self, other: Spread) -> np.ndarray:
        """Return to whom arcs of two spreads among the same people differ, int64, sorted."""
        n = len(self)
        key, other_key = self.target * n + self.source, other.target * n + other.source
        _, here, there = np.intersect1d(key, other_key, assume_unique=True, return_indices=True)
        same = self.probability[here] == other.probability[there]
        changed = np.concatenate([np.delete(key, here[same]), np.delete(other_key, there[same])])
        return np.unique(changed // n)


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return a column of categories as what they stand for."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
