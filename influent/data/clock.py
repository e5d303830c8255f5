"""Times as people write them to microseconds since 1970 in UTC, and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import numpy as np

from influent.errors import ConfigError

DAY_US = 86_400_000_000
FIRST_US, LAST_US = -719_162 * DAY_US, 2_932_897 * DAY_US - 1
"""The first and the last microsecond that has a name: years 1 to 9999."""

UNITS_US = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": DAY_US, "w": 7 * DAY_US}
"""Seconds, minutes, hours, days and weeks, as a span of time is written: `28d`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONDAY_US = 4 * DAY_US  # 1970-01-05


def window_starts(time_us: np.ndarray, window_us: int) -> np.ndarray:
    """Return when the calendar window that holds each time begins, int64; in UTC, and those of a week on Monday.

    Example:
        >>> window_starts(np.array([0, 4 * DAY_US]), 7 * DAY_US) // DAY_US
        array([-3,  4])
    """
    return np.asarray((time_us - _MONDAY_US) // window_us * window_us + _MONDAY_US)


def microseconds(text: str) -> int:
    """Return the microseconds since 1970 of an ISO 8601 time, which is in UTC unless it says otherwise.

    Raises:
        ConfigError: the text is no such time.

    Example:
        >>> microseconds("1970-01-02T00:00:00.000001")
        86400000001
    """
    try:
        moment = datetime.fromisoformat(text)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{text!r} is no ISO 8601 time. Write 2024-03-01 or 2024-03-01T12:00:00Z.") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


def iso(time_us: int) -> str:
    """Return a time as ISO 8601 in UTC.

    Example:
        >>> iso(86400000001)
        '1970-01-02T00:00:00.000001Z'
    """
    return (_EPOCH + timedelta(microseconds=int(time_us))).isoformat().replace("+00:00", "Z")


def unit_us(unit: str) -> int:
    """Return the microseconds of one of `UNITS_US`.

    Raises:
        ConfigError: it is none of them.
    """
    if unit not in UNITS_US:
        raise ConfigError(f"{unit!r} is no unit of time. Units are s, m (minutes), h, d and w.")
    return UNITS_US[unit]


def span_us(text: str) -> int:
    """Return the microseconds of a span of time: a number with its unit, which is s, m (minutes), h, d or w.

    Raises:
        ConfigError: the text is no such span, or one of nothing.

    Example:
        >>> span_us("1.5d") / DAY_US
        1.5
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]*)", text.strip()) if isinstance(text, str) else None
    if found is None or found[2] not in UNITS_US or float(found[1]) == 0:
        wrong = "has no unit" if found is not None and not found[2] else "is no span of time"
        raise ConfigError(
            f"{text!r} {wrong}. Write a number above 0 and its unit, s, m, h, d or w: '28d' is 28 days, '12h' half a "
            "day."
        )
    return round(float(found[1]) * UNITS_US[found[2]])
