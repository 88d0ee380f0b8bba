"""Identities of rows in, one 64-bit sum out, the same from numpy and from SQL.

The checksum of a set of rows is the sum, modulo 2^64, of a mix of each row's identity. It does
not depend on order, and the checksums of disjoint sets add up: a partition's is the sum of its
segments', however they were loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.columns import ColumnBlock
from schemas.kinds import Kind
from schemas.tables import Table
from sinks.connection import Connection

FACTORS = (
    0x9E3779B97F4A7C15,
    0xBF58476D1CE4E5B9,
    0x94D049BB133111EB,
    0xD6E8FEB86659FD93,
    0xA0761D6478BD642F,
    0xE7037ED1A0B428DB,
)
"""Odd 64-bit numbers, one for each word of the identity."""
INT_HASH_XOR = 0x4CF2D2BAAE6DA887
_MASK = (1 << 64) - 1


def block_checksums(table: Table, blocks: Sequence[ColumnBlock]) -> list[int]:
    """The checksum of each block's rows; 0 where it has none.

    Raises
    ------
    KeyError
        If a block with rows lacks a column of the identity.
    ValueError
        If a column of the identity is of no kind that a word can be taken from.
    """
    filled = [block for block in blocks if block.rows]
    if not filled:
        return [0] * len(blocks)
    ends = np.cumsum([block.rows for block in filled])
    total = np.zeros(ends[-1], np.uint64)
    for factor, name in zip(FACTORS, table.identity, strict=False):
        word = _words(table.column(name).kind, [block.columns[name] for block in filled])
        total += word * np.uint64(factor)
    starts = np.concatenate([[0], ends[:-1]])
    sums = iter(np.add.reduceat(_int_hash(total), starts).tolist())
    return [next(sums) if block.rows else 0 for block in blocks]


def checksum_sql(table: Table) -> str:
    """The SQL aggregate of the same value: ``sum(…)`` over the table's columns."""
    words = [
        f"{_word_sql(table.column(name).kind, name)} * {factor}"
        for factor, name in zip(FACTORS, table.identity, strict=False)
    ]
    return f"sum(intHash64({' + '.join(words)}))"


def stored_manifest(
    connection: Connection, source: str, table: Table, where: str = "1"
) -> tuple[int, int]:
    """(rows, checksum) of the rows of `source` that meet `where`.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    rows = connection.execute(f"SELECT count(), {checksum_sql(table)} FROM {source} WHERE {where}")
    count, checksum = rows[0]
    return int(count), int(checksum)


def added(checksums: list[int]) -> int:
    """The checksum of the union of disjoint sets of rows."""
    return sum(checksums) & _MASK


def _words(kind: Kind, columns: Sequence[Any]) -> npt.NDArray[np.uint64]:
    """A word of each value of the columns, one column after the other."""
    if kind.shape == "number":
        return np.concatenate(columns).astype(np.uint64)
    if kind.shape == "fixed" and kind.width >= 8:
        heads = np.concatenate([column[:, :8] for column in columns])
        return np.ascontiguousarray(heads).view("<u8").ravel()
    if kind.shape == "nullable":
        # What is absent is zero: a null and a zero in its place give one word.
        return _words(kind.children[0], [column.values for column in columns])
    raise ValueError(f"no word of {kind.text}")


def _word_sql(kind: Kind, name: str) -> str:
    if kind.shape == "number":
        return f"toUInt64({name})"
    return f"reinterpretAsUInt64(substring({name}, 1, 8))"


def _int_hash(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """ClickHouse's intHash64: MurmurHash3's finalizer after an xor."""
    shift = np.uint64(33)
    words = words ^ np.uint64(INT_HASH_XOR)
    words ^= words >> shift
    words *= np.uint64(0xFF51AFD7ED558CCD)
    words ^= words >> shift
    words *= np.uint64(0xC4CEB9FE1A85EC53)
    words ^= words >> shift
    return words
