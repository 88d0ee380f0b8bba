"""Segments, heads and finality in, envelopes out: what ingest hands to its sink."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ingest.fetch import BlockPayload
from schemas.codec import (
    encode_block_segment,
    encode_finality_advanced,
    encode_head_observed,
    encode_log_segment,
)
from schemas.columns import Bytes
from schemas.segments import (
    RAW_HEADS,
    BlockSegment,
    Envelope,
    FinalityAdvanced,
    HeadObserved,
    Lane,
    LogSegment,
    segment_envelope,
)


class Sink(Protocol):
    """Where ingest puts its envelopes; waiting in `put` is the backpressure."""

    async def put(self, envelope: Envelope) -> None:
        """Take one envelope, waiting while there is no room."""
        ...


@dataclass(frozen=True, slots=True)
class Built:
    """The segments of one range, proven as far as its level says."""

    blocks: BlockSegment | None
    """Headers, transactions, withdrawals; None where the source does not fetch them."""
    logs: LogSegment
    """Header references and logs."""

    @property
    def from_block(self) -> int:
        """First block."""
        return self.logs.name.from_block

    @property
    def to_block(self) -> int:
        """Last block."""
        return self.logs.name.to_block

    @property
    def parent_hash(self) -> bytes:
        """Parent of the first block."""
        parents: Bytes = np.asarray(self.logs.headers.columns["parent_hash"])
        return bytes(parents[0])

    @property
    def last_hash(self) -> bytes:
        """Hash of the last block."""
        return self.logs.name.last_hash


class Build(Protocol):
    """Proves payloads of a contiguous range and builds its segments (see ingest/build.py)."""

    def __call__(self, payloads: Sequence[BlockPayload], lane: Lane, observed_at_ms: int) -> Built:
        """Prove and build; raises an HR-22xx error where a proof fails."""
        ...


class BuildTogether(Protocol):
    """Proves payloads of adjacent ranges, all of one endpoint, and builds each one's segments."""

    def __call__(
        self, parts: Sequence[Sequence[BlockPayload]], lane: Lane, observed_at_ms: int
    ) -> list[Built]:
        """As a `Build` of each part; raises an HR-22xx error where any proof fails."""
        ...


def segment_envelopes(built: Built, segment_blocks: int) -> list[Envelope]:
    """The messages of a range: one a stream, logs last.

    Parameters
    ----------
    built : Built
        The range.
    segment_blocks : int
        The chain's grid, for the key.
    """
    envelopes = []
    if built.blocks is not None:
        value = encode_block_segment(built.blocks)
        envelopes.append(segment_envelope(built.blocks.name, segment_blocks, value))
    value = encode_log_segment(built.logs)
    envelopes.append(segment_envelope(built.logs.name, segment_blocks, value))
    return envelopes


def head_envelope(head: HeadObserved) -> Envelope:
    """The message of an observed head."""
    headers = {
        "chain_id": str(head.chain_id),
        "lane": "head",
        "from": str(head.number),
        "to": str(head.number),
        "last_hash": head.hash.hex(),
        "schema": "HeadObserved",
    }
    key = str(head.chain_id).encode()
    return Envelope(RAW_HEADS, key, encode_head_observed(head), headers)


def finality_envelope(finality: FinalityAdvanced) -> Envelope:
    """The message of a safe or finalized block."""
    headers = {
        "chain_id": str(finality.chain_id),
        "lane": "head",
        "from": str(finality.number),
        "to": str(finality.number),
        "last_hash": finality.hash.hex(),
        "schema": "FinalityAdvanced",
    }
    key = str(finality.chain_id).encode()
    return Envelope(RAW_HEADS, key, encode_finality_advanced(finality), headers)
