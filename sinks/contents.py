"""Rows of loads in, what each block holds of them out: to compare two loads of one segment.

A ledger's checksum covers the rows' identities, which is all that a load needs to be complete. Here
every column counts that must be the same whoever fetched the block: proven ones of blocks and logs,
all of what is derived from them. What is a node's word alone may differ from node to node.
"""

from __future__ import annotations

from collections.abc import Iterable

from schemas.tables import DERIVED, NOTHING, Table
from sinks.checksum import checksum_sql
from sinks.connection import Connection

RAW_STREAMS = frozenset({"blocks", "logs"})
"""Streams whose columns come from a node."""
_TOLD = (NOTHING, DERIVED)
"""Columns that nodes may give or leave out as they like, below the level `full` at least."""
_MASK = (1 << 64) - 1

Contents = dict[int, tuple[int, int]]
"""(rows, hash of their columns) by block number."""
Sums = dict[int, tuple[int, int]]
"""(rows, ledger's checksum) by block number."""


def compared_columns(table: Table) -> tuple[str, ...]:
    """The columns that must be the same in every load of a block."""
    if table.stream not in RAW_STREAMS:
        return tuple(spec.name for spec in table.columns)
    proven = {spec.name for spec in table.columns if spec.proven_by not in _TOLD}
    return tuple(s.name for s in table.columns if s.name in proven or s.name in table.identity)


def read_contents(connection: Connection, source: str, table: Table, where: str) -> Contents:
    """What the rows of `source` that meet `where` hold, by block.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    columns = ", ".join(compared_columns(table))
    found = connection.execute(
        f"SELECT block_number, count(), sum(sipHash64(formatRow('RowBinary', {columns}))) "
        f"FROM {source} WHERE {where} GROUP BY block_number"
    )
    return {int(number): (int(rows), int(content) & _MASK) for number, rows, content in found}


def read_sums(connection: Connection, source: str, table: Table, where: str) -> Sums:
    """Rows and checksum as a ledger has them, by block.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    found = connection.execute(
        f"SELECT block_number, count(), {checksum_sql(table)} "
        f"FROM {source} WHERE {where} GROUP BY block_number"
    )
    return {int(number): (int(rows), int(checksum) & _MASK) for number, rows, checksum in found}


def summed_between(sums: Sums, first: int, last: int) -> tuple[int, int]:
    """Rows and checksum of the blocks `first` to `last` together."""
    parts = [sums[number] for number in range(first, last + 1) if number in sums]
    return sum(rows for rows, _ in parts), sum(checksum for _, checksum in parts) & _MASK


def different(one: Contents, other: Contents, within: Iterable[int]) -> list[int]:
    """The blocks of `within` that two loads hold differently, in order."""
    return sorted(number for number in within if one.get(number) != other.get(number))
