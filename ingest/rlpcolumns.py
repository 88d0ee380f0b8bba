"""Columns in, the RLP of each row out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from ingest.rlp import frame_bytes
from schemas.columns import Column, Nullable

WORD = b"\xa0"
"""RLP prefix of 32 bytes."""
ADDRESS = b"\x94"
"""RLP prefix of 20 bytes."""


def rows_of(column: Any) -> list[bytes]:
    """Each row of a fixed column as bytes."""
    count, width = column.shape
    if not count:
        return []
    # numpy hands out rows of a void type as bytes, faster than slicing does.
    rows: list[bytes] = np.ascontiguousarray(column).view(f"V{width}").reshape(count).tolist()
    return rows


def fixed_parts(values: Any, prefix: bytes) -> list[bytes]:
    """Each row of a fixed column behind its RLP prefix."""
    count, width = values.shape
    size = width + len(prefix)
    framed = np.empty((count, size), np.uint8)
    framed[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
    framed[:, len(prefix) :] = values
    return rows_of(framed)


def byte_parts(column: Any) -> list[bytes]:
    """Each row of a ragged column as RLP."""
    raw, ends = column.values.tobytes(), column.offsets.tolist()
    return frame_bytes([raw[a:b] for a, b in pairwise(ends)])


def uint_parts(column: Any) -> list[bytes]:
    """Each row of a number or u256 column as RLP."""
    if column.ndim == 1:
        column = column.astype("<u8").view(np.uint8).reshape(len(column), 8)
    return frame_bytes([row.lstrip(b"\0") for row in rows_of(column[:, ::-1])])


def optional_parts(column: Column, encode: Callable[[Any], list[bytes]]) -> list[bytes | None]:
    """Each row of a nullable column, None where it is absent."""
    assert isinstance(column, Nullable)
    if not column.valid.any():
        return [None] * len(column.valid)
    parts = encode(column.values)
    return [part if ok else None for part, ok in zip(parts, column.valid.tolist(), strict=True)]


def word_parts(values: Any) -> list[bytes]:
    """Each row of a bytes32 column as RLP."""
    return fixed_parts(values, WORD)
