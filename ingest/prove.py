"""JSON of a range of blocks in, its proven segments out: decoded, proven, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from ingest.build import block_segment, build_header_columns
from ingest.build_logs import log_segment
from ingest.endpoint import ReceiptsBy
from ingest.fetch import BlockPayload, block_text
from ingest.headwindow import HeadHeader, read_header
from ingest.places import check_logs
from ingest.publish import Built
from ingest.scanned import ScannedReceipts, scan_receipts
from ingest.together import cut_built
from ingest.verify import ProvenSegment, check_headers, prove_segment
from ingest.verify_logs import LogFilter, group_logs, verify_logs_only
from ingest.wire import Block, Receipt, decode_block, decode_logs, decode_receipts
from schemas.chains import ChainFacts
from schemas.errors_verify import BlockHashMismatch, BlockNumberGap, PayloadInvalid
from schemas.segments import Lane, SegmentName, Stream, content_version
from schemas.tables import Verification

Source = Literal["receipts", "logs"]
"""How a run fetches: whole blocks with receipts, or filtered logs alone."""


@dataclass(frozen=True, slots=True)
class ProveAndBuild:
    """Proves payloads and builds their segments; can be sent to another process.

    A `Build` (see ingest/publish.py) for the source `receipts`.
    """

    chain_id: int
    """The chain."""
    level: Verification
    """How far to prove; capped at what the chain reaches."""
    facts: ChainFacts
    """The chain: which of its values the headers do not cover."""

    def __call__(self, payloads: Sequence[BlockPayload], lane: Lane, observed_at_ms: int) -> Built:
        """Prove and build a contiguous range.

        Parameters
        ----------
        payloads : Sequence[BlockPayload]
            The blocks of the range, in order, from one endpoint.
        lane : Lane
            The lane of the segments.
        observed_at_ms : int
            When the node had shown the last block, unix milliseconds.

        Raises
        ------
        HR-22xx
            A payload is malformed, or a proof failed.
        """
        blocks = [wanted_block(payload) for payload in payloads]
        proven = self._prove(blocks, payloads)
        assert proven.logs is not None
        last_hash = bytes.fromhex(blocks[-1].hash[2:])
        ends = int(blocks[0].number, 16), int(blocks[-1].number, 16)
        version = self.content_version()
        block_name, log_name = (
            segment_name(self.chain_id, stream, lane, ends, last_hash, version)
            for stream in ("blocks", "logs")
        )
        return Built(
            block_segment(block_name, observed_at_ms, proven.columns),
            log_segment(log_name, observed_at_ms, proven.logs, proven.verdict),
        )

    def together(
        self, parts: Sequence[Sequence[BlockPayload]], lane: Lane, observed_at_ms: int
    ) -> list[Built]:
        """Prove and build adjacent ranges, in one pass where that says the same of each.

        Parameters
        ----------
        parts : Sequence[Sequence[BlockPayload]]
            The blocks of each range, in order, all from one endpoint.
        lane : Lane
            The lane of the segments.
        observed_at_ms : int
            When the node had shown the last block, unix milliseconds.

        Raises
        ------
        HR-22xx
            A payload is malformed, or a proof failed; not always of the first part at fault.
        """
        payloads = [payload for part in parts for payload in part]
        if not any(payload.receipts_by is ReceiptsBy.logs for payload in payloads):
            whole = self(payloads, lane, observed_at_ms)
            # A verdict below its level speaks of blocks that may be in one part only.
            if whole.logs.level == self.level:
                return cut_built(whole, [len(part) for part in parts])
        return [self(part, lane, observed_at_ms) for part in parts]

    def read_header(self, header: bytes | msgspec.Raw) -> HeadHeader:
        """Read and prove one header; see `prove_header`."""
        return prove_header(header, self.level)

    def content_version(self) -> str:
        """The content version of its segments."""
        return source_version("receipts", self.level)

    def _prove(self, blocks: list[Block], payloads: Sequence[BlockPayload]) -> ProvenSegment:
        if any(payload.receipts_by is ReceiptsBy.logs for payload in payloads):
            logs = [log for payload in payloads for log in decode_logs(payload.receipts) or ()]
            for block, group in zip(blocks, group_logs(blocks, logs), strict=True):
                check_logs(block, group, strict=True)
            return verify_logs_only(blocks, logs, self.level, LogFilter(), self.facts)
        receipts: list[list[Receipt]] | ScannedReceipts | None
        receipts = scan_receipts(blocks, [payload.receipts for payload in payloads])
        if receipts is None:
            receipts = [_receipts(payload) for payload in payloads]
        return prove_segment(blocks, receipts, self.level, self.facts)


def prover(chain: ChainFacts, chain_id: int, level: Verification) -> ProveAndBuild:
    """The `Build` of a chain.

    Parameters
    ----------
    chain : ChainFacts
        Its facts.
    chain_id : int
        What its endpoints answered.
    level : Verification
        The level asked for; capped at the one the chain reaches.
    """
    reached = min(level, chain.verification_reached)
    return ProveAndBuild(chain_id, reached, chain)


def prove_header(header: bytes | msgspec.Raw, level: Verification) -> HeadHeader:
    """Read a header from JSON and prove its hash.

    Parameters
    ----------
    header : bytes or msgspec.Raw
        From newHeads or eth_getBlockBy….
    level : Verification
        Below `header` nothing is refused.

    Raises
    ------
    PayloadInvalid, HexMalformed, BlockHashMismatch, UnknownHeaderFields
        It is no header, or not one with this hash.
    """
    found = read_header(header)
    block = decode_block(header) if level >= Verification.header else None
    if block is not None:
        check_headers([block], build_header_columns([block]), level)
    return found


def source_version(source: Source, level: Verification, **more: object) -> str:
    """The content version of the raw streams: source, level asked for, and filters."""
    return content_version(source=source, level=level.name, **more)


def segment_name(
    chain_id: int,
    stream: Stream,
    lane: Lane,
    ends: tuple[int, int],
    last_hash: bytes,
    version: str,
) -> SegmentName:
    """The name of a segment from its first and last height."""
    return SegmentName(chain_id, stream, lane, ends[0], ends[1], last_hash, version)


def wanted_block(payload: BlockPayload) -> Block:
    """The decoded block of a payload.

    Raises
    ------
    PayloadInvalid, BlockNumberGap, BlockHashMismatch
        It is not a block, or not the one that was asked for.
    """
    block = decode_block(payload.block, f"block {block_text(payload.wanted)}")
    if block is None:
        raise PayloadInvalid(method="eth_getBlockByNumber", reason="null")
    number = _int_or_none(block.number)
    if isinstance(payload.wanted, int):
        if number != payload.wanted:
            raise BlockNumberGap(number=block.number, hash=block.hash, expected=payload.wanted)
    elif block.hash.lower() != "0x" + payload.wanted.hex():
        wanted = "0x" + payload.wanted.hex()
        raise BlockHashMismatch(number=block.number, hash=wanted, computed=block.hash)
    return block


def _int_or_none(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None


def _receipts(payload: BlockPayload) -> list[Receipt]:
    receipts = decode_receipts(payload.receipts, f"block {block_text(payload.wanted)}")
    if receipts is None:
        raise PayloadInvalid(method="eth_getBlockReceipts", reason="null")
    return receipts
