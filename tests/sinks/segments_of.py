"""A range of blocks and a seed in, segments of every stream with random rows out."""

from __future__ import annotations

import hashlib

from schemas.columns import ColumnBlock
from schemas.events import DECODE_FAILURES
from schemas.segments import BlockSegment, EventSegment, Lane, LogSegment, SegmentName, Stream
from schemas.tables import (
    BLOCKS,
    CORE_TABLES,
    HEADER_REFS,
    LOGS,
    TRANSACTION_TABLE,
    WITHDRAWALS,
    ColumnSpec,
    Table,
    Verification,
    empty_block,
    event_table,
)
from tests.sinks.random_columns import random_block

PLUMS = event_table("plums", "A plum that fell.", (ColumnSpec("weight", "u256", "Grams."),))
TABLES: list[Table] = [*CORE_TABLES, PLUMS, DECODE_FAILURES]


def name_of(stream: Stream, from_block: int, to_block: int, seed: int = 0) -> SegmentName:
    """The name of a segment; its lane is ``head`` where it is one block."""
    lane: Lane = "head" if from_block == to_block else "history"
    last_hash = hashlib.sha256(f"{to_block}:{seed}".encode()).digest()
    return SegmentName(1337, stream, lane, from_block, to_block, last_hash, "v1")


def logs_of(from_block: int, to_block: int, rows: int = 20, seed: int = 0) -> LogSegment:
    """A log segment."""
    count = to_block - from_block + 1
    logs = random_block(LOGS, rows, seed + from_block, from_block, count)
    name = name_of("logs", from_block, to_block, seed)
    return LogSegment(name, 0, Verification.receipts, (), (), empty_block(HEADER_REFS), logs)


def blocks_of(from_block: int, to_block: int, rows: int = 20, seed: int = 0) -> BlockSegment:
    """A block segment; it has no withdrawals."""
    count = to_block - from_block + 1
    name = name_of("blocks", from_block, to_block, seed)
    blocks = random_block(BLOCKS, count, seed + from_block, from_block, count)
    transactions = random_block(TRANSACTION_TABLE, rows, seed + from_block, from_block, count)
    return BlockSegment(name, 0, blocks, transactions, ColumnBlock(WITHDRAWALS.name, 0, {}))


def events_of(from_block: int, to_block: int, rows: int = 20, seed: int = 0) -> EventSegment:
    """An event segment of one table; `decode_failures` is empty."""
    count = to_block - from_block + 1
    plums = random_block(PLUMS, rows, seed + from_block, from_block, count)
    failures = ColumnBlock(DECODE_FAILURES.name, 0, {})
    return EventSegment(name_of("events", from_block, to_block, seed), 0, (plums, failures))
