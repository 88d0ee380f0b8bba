"""A filter in, the headers and matching logs of a range out: the source `logs`.

One request carries the headers of a segment and one eth_getLogs over it, so that both are of one
endpoint. Ranges that are refused are split as the endpoint's dialect says, else halved. What such
logs cannot prove is said in the segment's verdict (see ingest/verify_logs.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from ingest.build import block_segment
from ingest.build_logs import log_segment
from ingest.endpoint import Endpoint, ReceiptsBy
from ingest.fetch import NULL, BlockId, BlockPayload, block_call, block_or_raise, block_text
from ingest.headwindow import HeadHeader
from ingest.logscan import ScannedLogs, scan_logs
from ingest.places import group_scanned
from ingest.prove import prove_header, segment_name, source_version, wanted_block
from ingest.publish import Built
from ingest.rpc import Outcome, RpcCall
from ingest.verify_logs import LogFilter, verify_logs_only
from ingest.wire import Block, Log, decode_logs
from schemas.chains import ChainFacts
from schemas.errors import HeadraceError
from schemas.errors_ingest import (
    AnswerTooLarge,
    AnswerTruncated,
    CallFailed,
    CallInvalid,
    EndpointTimeout,
    LogsUnservable,
    RangeTooWide,
    ReceiptsNotServed,
)
from schemas.segments import Lane
from schemas.tables import Verification

RANGE_GROWTH = 2
"""Growth of a range bound that has held for a while; a refusal narrows it again."""
RANGE_STREAK = 10
"""Answers at the bound before it is widened: at most every so many calls are refused in vain."""
EMPTY = msgspec.Raw(b"[]")
_SPLIT = (RangeTooWide, AnswerTooLarge, AnswerTruncated, EndpointTimeout, CallFailed, CallInvalid)
"""Failures that fewer blocks may mend: those that say so, and those that nobody understands."""


@dataclass(frozen=True, slots=True)
class LogsSource:
    """Fetches headers and filtered logs; a `FetchPayloads` for `ProvenFetcher`.

    The logs of a range of heights come as one JSON array on the payload of its first block.
    """

    wanted: LogFilter
    """Which logs."""

    async def __call__(self, endpoint: Endpoint, blocks: Sequence[BlockId]) -> list[BlockPayload]:
        """Headers of `blocks`, with their logs.

        Parameters
        ----------
        endpoint : Endpoint
            Who is asked.
        blocks : Sequence[int | bytes]
            A contiguous range of heights, ascending; or hashes.

        Raises
        ------
        BlockNotServed, HistoryPruned
            A header is not there: then an empty answer for logs means nothing.
        LogsUnservable
            The logs of a single block were refused.
        """
        if any(isinstance(block, bytes) for block in blocks):
            queries = [self._query(blockHash=block_text(block)) for block in blocks]
        else:
            queries = [self._query(fromBlock=hex(int(blocks[0])), toBlock=hex(int(blocks[-1])))]
        calls = [block_call(block, False) for block in blocks]
        by_hash = len(queries) > 1 or "blockHash" in queries[0]
        ask_logs = by_hash or len(blocks) <= endpoint.can.logs_range_blocks_max
        if ask_logs:
            calls += [RpcCall("eth_getLogs", (query,)) for query in queries]
        outcomes = await endpoint.ask(calls)
        headers = [
            block_or_raise(endpoint, *pair)
            for pair in zip(blocks, outcomes[: len(blocks)], strict=True)
        ]
        if by_hash:
            logs = [
                _array(endpoint, *pair)
                for pair in zip(blocks, outcomes[len(blocks) :], strict=True)
            ]
        else:
            first = outcomes[-1] if ask_logs else None
            whole = await self._whole(endpoint, range(int(blocks[0]), int(blocks[-1]) + 1), first)
            logs = [whole] + [EMPTY] * (len(blocks) - 1)
        return [
            BlockPayload(block, header, found, ReceiptsBy.logs)
            for block, header, found in zip(blocks, headers, logs, strict=True)
        ]

    def _query(self, **place: str) -> dict[str, Any]:
        """The parameter of eth_getLogs."""
        query: dict[str, Any] = dict(place)
        if self.wanted.addresses:
            query["address"] = sorted("0x" + address.hex() for address in self.wanted.addresses)
        if self.wanted.topics:
            query["topics"] = [
                sorted("0x" + topic.hex() for topic in options) or None
                for options in self.wanted.topics
            ]
        return query

    async def _whole(self, endpoint: Endpoint, blocks: range, first: Outcome | None) -> msgspec.Raw:
        """The logs of a range as one array, in as many parts as the endpoint wants.

        Parameters
        ----------
        endpoint : Endpoint
            Who is asked.
        blocks : range
            Heights.
        first : Outcome, optional
            What it answered for the whole range, where that was asked already.
        """
        if first is not None and not isinstance(first, HeadraceError):
            _grow(endpoint, len(blocks))
            return _array(endpoint, blocks[0], first)
        parts: list[msgspec.Raw] = []
        at = blocks[0]
        size = _narrower(endpoint, len(blocks), first, blocks[0])
        while at <= blocks[-1]:
            last = min(at + size - 1, blocks[-1])
            query = self._query(fromBlock=hex(at), toBlock=hex(last))
            outcome = (await endpoint.ask([RpcCall("eth_getLogs", (query,))]))[0]
            if isinstance(outcome, HeadraceError):
                size = _narrower(endpoint, last - at + 1, outcome, at)
                continue
            parts.append(_array(endpoint, at, outcome))
            _grow(endpoint, last - at + 1)
            at = last + 1
        return _joined(parts)


def _narrower(endpoint: Endpoint, blocks: int, failure: Outcome | None, at: int) -> int:
    """The next width of a range; remembered, so that the next segment is not refused again."""
    if failure is None:
        return min(endpoint.can.logs_range_blocks_max, blocks)
    if not isinstance(failure, _SPLIT):
        assert isinstance(failure, HeadraceError)
        raise failure
    if blocks == 1:
        if isinstance(failure, RangeTooWide | AnswerTooLarge):
            raise LogsUnservable(endpoint=endpoint.name, block=at, last_error=str(failure))
        raise failure
    told = failure.data.get("blocks_max")
    size = told if isinstance(told, int) and 0 < told < blocks else blocks // 2
    endpoint.can.logs_range_streak = 0
    endpoint.can.logs_range_blocks_max = max(1, size)
    return max(1, size)


def _grow(endpoint: Endpoint, blocks: int) -> None:
    """After enough answers at the bound, try a wider range next time."""
    can = endpoint.can
    if blocks < can.logs_range_blocks_max:
        return
    can.logs_range_streak += 1
    if can.logs_range_streak >= RANGE_STREAK:
        can.logs_range_streak = 0
        can.logs_range_blocks_max = min(
            can.logs_range_blocks_max * RANGE_GROWTH,
            can.logs_range_ceiling or endpoint.limits.logs_range_blocks_max,
        )


def _array(endpoint: Endpoint, block: BlockId, outcome: Outcome) -> msgspec.Raw:
    if isinstance(outcome, HeadraceError):
        raise outcome
    if outcome == NULL:
        raise ReceiptsNotServed(endpoint=endpoint.name, block=block_text(block))
    return outcome


def _joined(arrays: Sequence[msgspec.Raw]) -> msgspec.Raw:
    """JSON arrays as one."""
    bodies = [bytes(array).strip()[1:-1].strip() for array in arrays]
    return msgspec.Raw(b"[" + b",".join(body for body in bodies if body) + b"]")


@dataclass(frozen=True, slots=True)
class ProveLogs:
    """Proves what headers can prove of filtered logs; a `Build` for the source `logs`."""

    chain_id: int
    """The chain."""
    level: Verification
    """`off`, or above it `header`: more cannot be reached."""
    wanted: LogFilter
    """The filter that was asked for."""
    facts: ChainFacts
    """The chain: which of its logs the headers do not cover."""

    def __call__(self, payloads: Sequence[BlockPayload], lane: Lane, observed_at_ms: int) -> Built:
        """Prove and build a contiguous range; raises an HR-22xx error where a proof fails."""
        blocks = [wanted_block(payload) for payload in payloads]
        logs = _read_logs(blocks, [payload.receipts for payload in payloads])
        proven = verify_logs_only(blocks, logs, self.level, self.wanted, self.facts)
        assert proven.logs is not None
        ends = int(blocks[0].number, 16), int(blocks[-1].number, 16)
        last_hash = bytes.fromhex(blocks[-1].hash[2:])
        version = self.content_version()
        block_name, log_name = (
            segment_name(self.chain_id, stream, lane, ends, last_hash, version)
            for stream in ("blocks", "logs")
        )
        return Built(
            block_segment(block_name, observed_at_ms, proven.columns),
            log_segment(log_name, observed_at_ms, proven.logs, proven.verdict),
        )

    def read_header(self, header: bytes | msgspec.Raw) -> HeadHeader:
        """Read and prove one header; see `ingest.prove.prove_header`."""
        return prove_header(header, self.level)

    def content_version(self) -> str:
        """The content version of its segments: the filter is part of it."""
        return source_version(
            "logs",
            self.level,
            addresses=sorted(address.hex() for address in self.wanted.addresses),
            topics=[sorted(topic.hex() for topic in options) for options in self.wanted.topics],
        )


def _read_logs(
    blocks: Sequence[Block], arrays: Sequence[bytes | msgspec.Raw]
) -> list[Log] | ScannedLogs:
    """The logs of a range, as columns where the node writes them regularly and in order."""
    scanned = scan_logs(arrays)
    grouped = None if scanned is None else group_scanned(blocks, scanned)
    if grouped is not None:
        return grouped
    return [log for array in arrays for log in decode_logs(array) or []]
