"""Column blocks of one table in, the native block of a load out, its load_id as the last column."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from schemas.columns import Column, ColumnBlock, Nullable, Ragged, Struct, native_parts
from schemas.tables import Table
from sinks.ddl import LOAD_ID, LOAD_ID_TYPE
from sinks.native import NativeBlock

KEYS_VERSION = 1
"""Version of a LowCardinality column's serialization."""
LOADS_MAX = 256
"""Loads whose rows one insert may carry: the dictionary's indexes are UInt8."""
OWN_KEYS = 1 << 9 | 1 << 10
"""Flags: the block brings its own dictionary; keys are UInt8 (0)."""


def load_block(
    table: Table, blocks: Sequence[ColumnBlock], load_ids: int | Sequence[int]
) -> NativeBlock:
    """The rows of `blocks`, one after the other, as one native block.

    Blocks without rows may have no columns.

    Parameters
    ----------
    load_ids
        The load of all the rows, or of the rows of each block.

    Raises
    ------
    KeyError
        If a block with rows lacks a column of `table`.
    """
    filled = [block for block in blocks if block.rows]
    rows = sum(block.rows for block in filled)
    if isinstance(load_ids, int):
        load_ids = [load_ids] * len(blocks)
    counts = [(i, block.rows) for i, block in zip(load_ids, blocks, strict=True) if block.rows]
    columns = []
    for spec in table.columns:
        kind = spec.kind
        parts = native_parts(kind, [block.columns[spec.name] for block in filled])
        columns.append((spec.name, kind.clickhouse_type, parts))
    columns.append((LOAD_ID, LOAD_ID_TYPE, [_load_id_column(counts)]))
    return NativeBlock(rows, tuple(columns))


def column_bytes(column: Column) -> int:
    """How many bytes a column holds in memory."""
    if isinstance(column, Ragged):
        return column.offsets.nbytes + column_bytes(column.values)
    if isinstance(column, Nullable):
        return column.valid.nbytes + column_bytes(column.values)
    if isinstance(column, Struct):
        return sum(column_bytes(part) for part in column.fields)
    return column.nbytes


def block_bytes(block: ColumnBlock) -> int:
    """How many bytes a block's columns hold in memory."""
    columns: Sequence[Any] = tuple(block.columns.values())
    return sum(column_bytes(column) for column in columns)


def _load_id_column(counts: Sequence[tuple[int, int]]) -> bytes:
    """The load_id's column: a dictionary of the loads, and each row's index into it.

    Source: ClickHouse, SerializationLowCardinality (version, flags, keys, indexes).
    """
    keys = list(dict.fromkeys(load_id for load_id, _ in counts))
    if len(keys) > LOADS_MAX:
        raise ValueError(f"{len(keys)} loads in one insert, at most {LOADS_MAX} fit")
    rows = sum(count for _, count in counts)
    indexes = np.repeat(
        np.array([keys.index(load_id) for load_id, _ in counts], np.uint8),
        [count for _, count in counts],
    )
    head = struct.pack("<QQQ", KEYS_VERSION, OWN_KEYS, len(keys))
    body = b"".join(struct.pack("<Q", key) for key in keys)
    return head + body + struct.pack("<Q", rows) + indexes.tobytes()
