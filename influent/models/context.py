"""Context columns to codes: what is known of a moment that no past event owns.

Shapes: B batch, Q questions, K categories, C context columns, U users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from influent.data.vocab import Vocab
from influent.errors import ConfigError, SchemaError, nearest

_HOUR_US = 3_600_000_000

_OF_THE_CLOCK: dict[str, tuple[list[Any], Callable[[np.ndarray], np.ndarray]]] = {
    "hour_of_day": (list(range(24)), lambda time_us: time_us // _HOUR_US % 24),
    # 1970 began on a Thursday, the fourth day of the week.
    "day_of_week": (list(range(7)), lambda time_us: (time_us // (24 * _HOUR_US) + 3) % 7),
}
"""Columns that are read off the moment, in UTC: their values, and the code of a time. Monday is 0."""


@dataclass(frozen=True)
class ContextLines:
    """The context columns of a model with the values of each: user features, categories of events, and the clock.

    A name that is several of these is the first of them. The clock (`hour_of_day`, `day_of_week`) is read at the
    moment where its time is known, else at the event before it. A category is that of the next event where it is
    known at the moment, else of the event before it.
    """

    vocab: Vocab
    values: dict[str, list[Any]]

    @classmethod
    def of(cls, vocab: Vocab, names: tuple[str, ...], *, is_timed: bool) -> ContextLines:
        """Look up the columns' values; a value's place is its code.

        Raises:
            SchemaError: a column is no user feature, no category and not of the clock, or holds what JSON cannot.
            ConfigError: the clock is asked for in an order-only log.
        """
        features = vocab.user_features
        of_users = [] if features is None else features.column_names[1:]
        known = [*of_users, *vocab.categories, *_OF_THE_CLOCK]
        values: dict[str, list[Any]] = {}
        for name in names:
            if name in of_users:
                values[name] = _distinct(name, features.column(name).combine_chunks())  # type: ignore[union-attr]
            elif name in vocab.categories:
                values[name] = vocab.categories[name].ids.to_pylist()
            elif name in _OF_THE_CLOCK:
                if not is_timed:
                    raise ConfigError(f"context {name!r} needs times, and this log is order-only. Leave it out.")
                values[name] = _OF_THE_CLOCK[name][0]
            else:
                raise SchemaError(
                    f"context {name!r} is no user feature. There are: {', '.join(of_users) or 'none; give users='}; "
                    f"categories of events: {', '.join(vocab.categories) or 'none; give categories='}; "
                    f"and of the clock: {', '.join(_OF_THE_CLOCK)}.{nearest(name, known)}"
                )
        return cls(vocab, values)

    @property
    def n_values(self) -> tuple[int, ...]:
        """Return the number of values of each column, which is also the code of an unknown one."""
        return tuple(len(values) for values in self.values.values())

    @property
    def reads_events(self) -> bool:
        """Return whether a column is a category, which goes with its event when that is masked."""
        return any(self._is_category(name) for name in self.values)

    @cached_property
    def of_users_UC(self) -> np.ndarray:
        """Return the code of each user's value in each column, int64 (U + 1, C); the last row is for unknown users."""
        codes = np.tile(np.asarray(self.n_values, np.int64), (len(self.vocab.users) + 1, 1))
        features = self.vocab.user_features
        for place, (name, distinct) in enumerate(self.values.items()):
            if features is not None and name in features.column_names:
                code_of = {value: code for code, value in enumerate(distinct)}
                column = features.column(name).to_pylist()
                codes[: len(column), place] = [code_of.get(value, len(distinct)) for value in column]
        return codes

    def codes(
        self, user_B: np.ndarray, time_us_BQ: np.ndarray | None, category_BQK: np.ndarray, is_known_BQ: np.ndarray
    ) -> np.ndarray:
        """Return the codes at questions, int64 (B, Q, C).

        Args:
            category_BQK: the category to read there, by the vocabulary's columns; `UNKNOWN` where none is known.
            is_known_BQ: whether the time is known.
        """
        n_users = len(self.of_users_UC) - 1
        of_user = self.of_users_UC[np.where(user_B < n_users, user_B, n_users)]
        codes = np.repeat(of_user[:, None], is_known_BQ.shape[1], axis=1)
        for place, (name, distinct) in enumerate(self.values.items()):
            if self._is_category(name):
                idx_BQ = category_BQK[..., list(self.vocab.categories).index(name)]
                codes[..., place] = np.where(idx_BQ >= 0, idx_BQ, len(distinct))
            elif not self._is_of_users(name) and time_us_BQ is not None:
                codes[..., place] = np.where(is_known_BQ, _OF_THE_CLOCK[name][1](time_us_BQ), len(distinct))
        return codes

    def _is_category(self, name: str) -> bool:
        return name in self.vocab.categories and not self._is_of_users(name)

    def _is_of_users(self, name: str) -> bool:
        return self.vocab.user_features is not None and name in self.vocab.user_features.column_names


def _distinct(name: str, column: pa.Array) -> list[Any]:
    """Return the values of a column that has a line for each of them.

    Raises:
        SchemaError: they are neither texts nor whole numbers: of a quantity each user would have a line alone.
    """
    types, kind = pa.types, column.type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_boolean(kind)):
        raise SchemaError(
            f"context {name!r} holds {kind}. A line of the context has a term for each value, so it takes texts or "
            "whole numbers: write a quantity as ranges, such as 'to 10', and a list as one column each."
        )
    return sorted(column.drop_null().unique().to_pylist())
