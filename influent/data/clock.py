"""Times as people write them to microseconds since 1970 in UTC, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from influent.errors import ConfigError

DAY_US = 86_400_000_000
FIRST_US, LAST_US = -719_162 * DAY_US, 2_932_897 * DAY_US - 1
"""The first and the last microsecond that has a name: years 1 to 9999."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
