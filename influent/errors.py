"""Every error that Influent raises on purpose, in one tree.

InfluentError
├── DataError (ValueError)
│   ├── SchemaError
│   ├── LeakageError
│   └── UnknownIdError (LookupError)
├── ConfigError (ValueError)
├── RunFolderError (OSError)
├── NotFittedError (RuntimeError)
├── UnbalancedLedgerError (ArithmeticError)
└── MissingExtraError (ImportError)

A message says what is wrong, what would be right, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InfluentError(Exception):
    """Anything a caller of Influent can mend."""


class DataError(InfluentError, ValueError):
    """The data cannot be used as it is."""


class SchemaError(DataError):
    """A table lacks a column, or a column holds what it should not."""


class LeakageError(DataError):
    """Something from after the moment of prediction would have been read."""


class UnknownIdError(DataError, LookupError):
    """An id that the data at hand does not contain."""


class ConfigError(InfluentError, ValueError):
    """A setting is outside its range, or unknown."""


class RunFolderError(InfluentError, OSError):
    """A folder is no run folder, is damaged, or comes from a newer version."""


class NotFittedError(InfluentError, RuntimeError):
    """A model was asked for an answer before `fit`."""


class UnbalancedLedgerError(InfluentError, ArithmeticError):
    """Credits do not add up to the score they explain."""


class MissingExtraError(InfluentError, ImportError):
    """An optional dependency is not installed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known name closest to `name`, or an empty string."""
    by_lower = {one.lower(): one for one in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f" Did you mean {by_lower[matches[0]]!r}?" if matches else ""
