"""Check logs that came without receipts against the blooms of their headers.

A header's bloom, proven by the header's hash, can prove that a block holds no log of a filter; it
cannot prove that all logs of a filter are there. Where all logs were asked for they must give the
header's bloom, so an answer that was cut is refused. The verdict says what remains unproven.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.bloom import bloom_positions
from ingest.build import build_block_columns, build_header_columns
from ingest.build_logs import LogColumns, build_filtered_log_columns, build_scanned_log_columns
from ingest.hexcolumns import clip
from ingest.logscan import ScannedLogs
from ingest.places import block_place, check_log_blocks
from ingest.rlpcolumns import rows_of
from ingest.tablecolumns import as_array
from ingest.verdict import Verdict
from ingest.verify import ProvenSegment, check_headers
from ingest.verify_blooms import BloomCheck, Mask, check_blooms
from ingest.wire import Block, Log
from schemas.chains import ChainFacts, load_chains
from schemas.columns import ColumnBlock
from schemas.errors_verify import (
    LogIndexGap,
    LogOfUnknownBlock,
    LogOutsideFilter,
)
from schemas.tables import Verification


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which logs are asked for, as eth_getLogs means it."""

    addresses: frozenset[bytes] = frozenset()
    """Emitting contracts, 20 bytes each; empty for any."""
    topics: tuple[frozenset[bytes], ...] = ()
    """Per position the topics that match, 32 bytes each; an empty set matches any topic."""


def group_logs(blocks: Sequence[Block], logs: Sequence[Log]) -> list[list[Log]]:
    """Sort the logs of a range under their blocks, by block hash.

    Parameters
    ----------
    blocks : sequence of Block
        The range's headers.
    logs : sequence of Log
        What eth_getLogs gave for the range.

    Returns
    -------
    list of lists of Log
        One list a block, its logs in the order in which they came.

    Raises
    ------
    LogOfUnknownBlock
        If a log names a block that is not among `blocks`.
    """
    groups: dict[str, list[Log]] = {block.hash: [] for block in blocks}
    for log in logs:
        group = groups.get(log.block_hash)
        if group is None:
            group = groups.get(log.block_hash.lower())
        if group is None:
            raise LogOfUnknownBlock(number=clip(log.block_number), hash=clip(log.block_hash))
        group.append(log)
    return list(groups.values())


def verify_logs_only(
    blocks: Sequence[Block],
    logs: Sequence[Log] | ScannedLogs,
    level: Verification,
    wanted: LogFilter,
    facts: ChainFacts | None = None,
) -> ProvenSegment:
    """Build the columns of filtered logs and prove what headers alone can prove of them.

    Parameters
    ----------
    blocks : sequence of Block
        Consecutive blocks, with or without their transactions.
    logs : sequence of Log, or ScannedLogs
        What eth_getLogs gave for these blocks and `wanted`; scanned logs are one array a block
        (see `ingest.places.group_scanned`).
    level : Verification
        ``off``, or anything above for ``header``, which is the most that can be reached.
    wanted : LogFilter
        The filter that was asked for.
    facts : ChainFacts, optional
        The chain; left out, one without exceptions.

    Returns
    -------
    ProvenSegment
        ``log_count`` in its columns is that of the filter. Its verdict says in how many blocks
        the absence of further logs is proven, and in how many it is not.

    Raises
    ------
    BlockHashMismatch, UnknownHeaderFields, ParentMismatch, BlockNumberGap
        The headers are not a chain.
    LogOfUnknownBlock, LogMisplaced, LogIndexGap, LogRemoved
        A log is not of these blocks, or out of order.
    LogOutsideFilter
        A log was not asked for.
    BloomMismatch
        The header's bloom excludes a log, so the log is not of this block.
    LogsMissing
        Every log was asked for, and the header's bloom names others.
    """
    facts = load_chains()["local"] if facts is None else facts
    header = build_header_columns(blocks)
    header["extra"] = check_headers(blocks, header, level)
    columns = build_block_columns(blocks, None, header)
    if isinstance(logs, ScannedLogs):
        built = build_scanned_log_columns(blocks, logs, columns, in_receipts=False)
    else:
        groups = group_logs(blocks, logs)
        for block, group in zip(blocks, groups, strict=True):
            check_log_blocks(block, group)
        built = build_filtered_log_columns(blocks, groups, columns)
    owners = np.repeat(np.arange(len(blocks)), as_array(built.headers.columns["log_count"]))
    _check_rising(blocks, built.logs, owners)
    _check_filter(blocks, built, owners, wanted)
    reached = min(level, Verification.header)
    columns.blocks.columns["verification"] = np.full(len(blocks), int(reached), np.int8)
    if reached == Verification.off:
        unproven = ("headers", "logs", "absence of further logs", "transactions", "withdrawals")
        return ProvenSegment(columns, built, Verdict(reached, (), unproven))
    whole = wanted == LogFilter()
    check = check_blooms(blocks, columns.blocks, built.logs, owners, facts, all_logs=whole)
    verdict = _verdict(check, wanted, reached)
    return ProvenSegment(columns, built, verdict)


def _verdict(check: BloomCheck, wanted: LogFilter, reached: Verification) -> Verdict:
    """What the headers' blooms prove of logs, and what they leave to the node's word."""
    count = len(check.own)
    without = int((~_may_hold(check.bits, wanted) & check.own).sum())
    proven = ["header hash", "parent links", "logsBloom holds each log"]
    unproven = ["contents and transactions of logs", "transactions", "withdrawals"]
    if wanted == LogFilter():
        proven.append("logsBloom names no address or topic that the logs do not")
        unproven.append("absence of further logs with the same addresses and topics")
    elif without:
        proven.append(f"no log of the filter in {without} of {count} blocks (logsBloom)")
    if wanted != LogFilter() and without < count:
        unproven.append(f"absence of further logs in {count - without} of {count} blocks")
    return Verdict(reached, tuple(proven), (*unproven, *check.unproven()))


def _check_rising(
    blocks: Sequence[Block], logs: ColumnBlock, owners: npt.NDArray[np.int64]
) -> None:
    """Check that log indexes rise in each block, so that no log is there twice."""
    indexes: Any = logs.columns["log_index"]
    falls = (indexes[1:] <= indexes[:-1]) & (owners[1:] == owners[:-1])
    for row in np.flatnonzero(falls)[:1].tolist():
        raise LogIndexGap(
            position=row + 1 - int(np.searchsorted(owners, owners[row + 1])),
            found=int(indexes[row + 1]),
            expected=f"above {indexes[row]}",
            **block_place(blocks[int(owners[row + 1])]),
        )


def _may_hold(bits: Mask, wanted: LogFilter) -> Mask:
    """Whether each block's bloom may hold a log of the filter; False is certain."""
    possible = np.ones(len(bits), np.bool_)
    for options in (wanted.addresses, *wanted.topics):
        if options:
            positions = bloom_positions(sorted(options))
            possible &= np.any(np.all(bits[:, positions], axis=2), axis=1)
    return possible


def _check_filter(
    blocks: Sequence[Block], built: LogColumns, owners: npt.NDArray[np.int64], wanted: LogFilter
) -> None:
    columns: dict[str, Any] = built.logs.columns
    inside = np.ones(built.logs.rows, np.bool_)
    if wanted.addresses:
        inside &= _among(rows_of(columns["address"]), wanted.addresses)
    for place, options in enumerate(wanted.topics):
        topic = columns[f"topic{place}"]
        # A filter with a position asks for that topic's presence, also where any value will do.
        inside &= topic.valid
        if options:
            inside &= _among(rows_of(topic.values), options)
    for row in np.flatnonzero(~inside)[:1].tolist():
        found = int(columns["log_index"][row])
        raise LogOutsideFilter(found=found, **block_place(blocks[int(owners[row])]))


def _among(values: list[bytes], options: frozenset[bytes]) -> Mask:
    if options.issuperset(values):
        return np.ones(len(values), np.bool_)
    return np.fromiter((value in options for value in values), np.bool_, len(values))
