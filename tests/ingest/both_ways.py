"""Payloads in, one outcome out: proven the quick way and object by object, which must agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ingest.logscan import scan_logs
from ingest.places import group_scanned
from ingest.scanned import scan_bodies
from ingest.verify import ProvenSegment, prove_scanned, prove_segment
from ingest.verify_logs import LogFilter, verify_logs_only
from ingest.wire import Block, BlockFields, Log, Receipt, UnreadBlock
from schemas.columns import to_buffers
from schemas.errors import HeadraceError
from schemas.tables import CORE_TABLES, HEADER_REFS, Verification

TABLES = {table.name: table for table in (*CORE_TABLES, HEADER_REFS)}


def prove_both_ways(
    blocks: Sequence[Block],
    receipts: Sequence[list[Receipt]],
    level: Verification,
    **more: Any,
) -> ProvenSegment:
    """`prove_segment`, of transactions and receipts scanned too where they can be."""
    one_by_one = outcome(lambda: prove_segment(blocks, receipts, level, **more))
    unread = [_unread(block) for block in blocks]
    scanned = scan_bodies(unread, [_written(part) for part in receipts])
    if scanned is not None:
        quick = outcome(lambda: prove_scanned(unread, scanned, level, **more))
        assert shown(quick) == shown(one_by_one)
    return _or_raised(one_by_one)


def verify_both_ways(
    blocks: Sequence[Block], logs: list[Log], level: Verification, wanted: LogFilter
) -> ProvenSegment:
    """`verify_logs_only`, of scanned logs too where they can be."""
    one_by_one = outcome(lambda: verify_logs_only(blocks, logs, level, wanted))
    scanned = scan_logs([msgspec.json.encode(logs)])
    grouped = None if scanned is None else group_scanned(blocks, scanned)
    if grouped is not None:
        quick = outcome(lambda: verify_logs_only(blocks, grouped, level, wanted))
        assert shown(quick) == shown(one_by_one)
    return _or_raised(one_by_one)


def _unread(block: Block) -> UnreadBlock:
    """The same block, its transactions not yet read."""
    fields = {name: getattr(block, name) for name in BlockFields.__struct_fields__}
    transactions = block.transactions
    if transactions is None:
        return UnreadBlock(**fields)
    return UnreadBlock(**fields, transactions=[msgspec.Raw(_written(tx)) for tx in transactions])


def _written(payload: Any) -> bytes:
    """JSON of a payload, without the fields that are absent, as nodes write it."""
    plain = msgspec.to_builtins(payload)
    given = [
        {key: value for key, value in fields.items() if value is not None}
        if isinstance(fields, dict)
        else fields
        for fields in (plain if isinstance(plain, list) else [plain])
    ]
    return msgspec.json.encode(given if isinstance(plain, list) else given[0])


def outcome(work: Callable[[], ProvenSegment]) -> ProvenSegment | HeadraceError:
    """What a proof gives, or the error that it raises."""
    try:
        return work()
    except HeadraceError as error:
        return error


def _or_raised(outcome: ProvenSegment | HeadraceError) -> ProvenSegment:
    if isinstance(outcome, HeadraceError):
        raise outcome
    return outcome


def shown(outcome: ProvenSegment | HeadraceError) -> object:
    """What two outcomes must have in common to be the same."""
    if isinstance(outcome, HeadraceError):
        return type(outcome), outcome.data
    columns, logs = outcome.columns, outcome.logs
    assert logs is not None
    blocks = (columns.blocks, columns.transactions, columns.withdrawals, logs.headers, logs.logs)
    return outcome.verdict, {
        (block.table, name): to_buffers(TABLES[block.table].column(name).kind, column)
        for block in blocks
        for name, column in block.columns.items()
    }
