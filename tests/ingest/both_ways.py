"""Payloads in, one outcome out: proven the quick way and log by log, which must agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import msgspec

from ingest.logscan import scan_logs
from ingest.places import group_scanned
from ingest.scanned import scan_receipts
from ingest.verify import ProvenSegment, prove_segment
from ingest.verify_logs import LogFilter, verify_logs_only
from ingest.wire import Block, Log, Receipt
from schemas.chains import ChainFacts
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
    """`prove_segment`, of receipts with their logs scanned too where they can be."""
    # What cannot be stored is set to None in what was given: each way gets its own.
    own = deepcopy((blocks, receipts))
    one_by_one = _outcome(lambda: prove_segment(*own, level, **more))
    scanned = scan_receipts(blocks, [msgspec.json.encode(part) for part in receipts])
    if scanned is not None:
        quick = _outcome(lambda: prove_segment(blocks, scanned, level, **more))
        assert _shown(quick) == _shown(one_by_one)
    return _or_raised(one_by_one)


def verify_both_ways(
    blocks: Sequence[Block],
    logs: list[Log],
    level: Verification,
    wanted: LogFilter,
    facts: ChainFacts | None = None,
) -> ProvenSegment:
    """`verify_logs_only`, of scanned logs too where they can be."""
    one_by_one = _outcome(lambda: verify_logs_only(blocks, logs, level, wanted, facts))
    scanned = scan_logs([msgspec.json.encode(logs)])
    grouped = None if scanned is None else group_scanned(blocks, scanned)
    if grouped is not None:
        quick = _outcome(lambda: verify_logs_only(blocks, grouped, level, wanted, facts))
        assert _shown(quick) == _shown(one_by_one)
    return _or_raised(one_by_one)


def _outcome(work: Callable[[], ProvenSegment]) -> ProvenSegment | HeadraceError:
    try:
        return work()
    except HeadraceError as error:
        return error


def _or_raised(outcome: ProvenSegment | HeadraceError) -> ProvenSegment:
    if isinstance(outcome, HeadraceError):
        raise outcome
    return outcome


def _shown(outcome: ProvenSegment | HeadraceError) -> object:
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
