"""A moment and segments in, the loads of them that were written since out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from schemas.chains import ChainFacts
from sinks.connection import Connection
from sinks.ledger import LedgerRow, read_ledger

Fresh = Mapping[tuple[str, int], LedgerRow]
"""The segment that came again, by stream and first block."""


def fresh_segments(
    connection: Connection,
    database: str,
    facts: ChainFacts,
    since: datetime,
    starts: Collection[int],
) -> dict[tuple[str, int], LedgerRow]:
    """The whole history segments among `starts` of which a load was written since a moment.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    wanted, size = frozenset(starts), facts.segment_blocks
    found: dict[tuple[str, int], LedgerRow] = {}
    for row in read_ledger(connection, database, since=since):
        whole = row.to_block - row.from_block + 1 == size
        if row.lane == "history" and whole and row.from_block in wanted:
            found[row.stream, row.from_block] = row
    return found


def loaded_segments(
    connection: Connection,
    database: str,
    facts: ChainFacts,
    since: datetime,
    starts: Sequence[int],
    told: int | None = None,
) -> dict[tuple[str, int], LedgerRow]:
    """The same, with segments whose blocks came one by one, because they are not final yet.

    Parameters
    ----------
    connection, database, facts, since, starts
        As above.
    told
        The last block of the chain that is waited for, amid a segment maybe; None for no last.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    found = fresh_segments(connection, database, facts, since, starts)
    rows = read_ledger(connection, database, since=since)
    blocks: dict[tuple[str, int], LedgerRow] = {
        (row.stream, row.from_block): row for row in rows if row.from_block == row.to_block
    }
    for stream in {row.stream for row in rows}:
        for start in starts:
            end = start + facts.segment_blocks - 1
            last = end if told is None else min(end, told)
            single = [(stream, number) for number in range(start, last + 1)]
            if single and all(key in blocks for key in single):
                found.setdefault((stream, start), blocks[single[-1]])
    return found


def rows_within(sources: Sequence[tuple[LedgerRow, LedgerRow]]) -> str:
    """SQL for the rows of what came again (first of each pair) that lie within a piece (second)."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for source, piece in sources:
        low = max(source.from_block, piece.from_block)
        high = min(source.to_block, piece.to_block)
        found = spans.setdefault(source.load_id, [])
        if found and found[-1][1] + 1 == low:
            found[-1] = (found[-1][0], high)
        else:
            found.append((low, high))
    parts = []
    for load_id, ranges in spans.items():
        within = " OR ".join(f"block_number BETWEEN {low} AND {high}" for low, high in ranges)
        parts.append(f"(load_id = {load_id} AND ({within}))")
    return f"({' OR '.join(parts)})"
