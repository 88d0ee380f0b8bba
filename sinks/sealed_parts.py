"""A sealed partition in, the ledger rows that name what it holds out.

Most of its grid segments have a row of their own. One that was sealed as head blocks, or whose
blocks were proven differently, has several, and the ledger keeps those of left branches, too: the
hashes of what is sealed tell which they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from schemas.chains import ChainFacts
from schemas.segments import Stream
from sinks.connection import Connection
from sinks.ddl import SEALED
from sinks.ledger import LedgerRow, read_ledger


def sealed_parts(
    connection: Connection, database: str, facts: ChainFacts, stream: str, partition: int
) -> dict[int, list[LedgerRow]]:
    """The ledger rows of each grid segment of a sealed partition, by its first block.

    Returns
    -------
    dict of int to list of LedgerRow
        The newest row of the whole segment, or those of its parts in order; no segment of which
        the sealed blocks do not tell them.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    size, first = facts.segment_blocks, partition * facts.partition_blocks
    last = first + facts.partition_blocks - 1
    named = cast("Stream", stream)
    rows = read_ledger(connection, database, stream=named, from_block=first, to_block=last)
    hashes = dict(
        connection.execute(
            f"SELECT block_number, block_hash FROM {database}.blocks{SEALED} "
            "WHERE block_number BETWEEN %(first)s AND %(last)s",
            {"first": first, "last": last},
            as_bytes=True,
        )
    )
    found: dict[int, list[LedgerRow]] = {}
    # The newest row of what is sealed that begins in each block, and ends in its segment.
    known: dict[int, LedgerRow] = {}
    for row in rows:
        # A block that is lost names nobody: a whole segment's row is all there is of it then.
        whole = row.lane == "history" and row.to_block - row.from_block == size - 1
        if hashes.get(row.to_block, row.last_hash if whole else None) != row.last_hash:
            continue
        if whole:
            found[row.from_block] = [row]
        elif facts.segment_start(row.from_block) == facts.segment_start(row.to_block):
            known[row.from_block] = row
    for start in range(first, last + 1, size):
        parts = [] if start in found else _tiled(known, start, start + size - 1)
        if parts:
            found[start] = parts
    return found


def _tiled(known: Mapping[int, LedgerRow], first: int, last: int) -> list[LedgerRow]:
    """Rows that hold the blocks `first` to `last` one after the other; none where some lack."""
    parts: list[LedgerRow] = []
    at = first
    while at <= last:
        row = known.get(at)
        if row is None:
            return []
        parts.append(row)
        at = row.to_block + 1
    return parts
