import pyarrow as pa
import pytest

NEW_YEAR = 1_704_067_200
"""Midnight at the beginning of 2024 in UTC, in seconds since 1970."""

TINY_ROWS = [
    # Row n happens n minutes after midnight: 2024-01-01T00:0n:00Z.
    ("ann", "tea", "view", None),
    ("bob", "cup", "view", None),
    ("ann", "pot", "view", None),
    ("ann", "pot", "purchase", 20.0),
    ("cat", "tea", "view", None),
    ("bob", "tea", "view", None),
    ("cat", "cup", "view", None),
    ("bob", "cup", "purchase", 5.0),
    ("ann", "jam", "view", None),
    ("cat", "tea", "purchase", 3.0),
    ("ann", "oat", "view", None),
    ("bob", "pot", "view", None),
]


@pytest.fixture
def tiny_log() -> pa.Table:
    """Three users, five items, twelve events; a minute between one row and the next."""
    user, item, action, value = (list(column) for column in zip(*TINY_ROWS, strict=True))
    timestamp = [NEW_YEAR + 60 * minute for minute in range(len(TINY_ROWS))]
    return pa.table({"user_id": user, "item_id": item, "action": action, "timestamp": timestamp, "value": value})
