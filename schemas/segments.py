"""Values that travel between the stages: segments, heads, forks, dead letters."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal

from schemas.columns import ColumnBlock
from schemas.tables import Verification

Lane = Literal["history", "head"]
"""``history``: whole grid segments of final blocks; ``head``: one block a segment."""

Stream = Literal["blocks", "logs", "events", "aggregates"]
"""What a segment carries; each core stream is loaded, and accepted, on its own."""


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block by height and hash."""

    number: int
    """Height."""
    hash: bytes
    """32 bytes."""


@dataclass(frozen=True, slots=True)
class SegmentName:
    """What a segment holds; a replay rebuilds the same name."""

    chain_id: int
    """The chain."""
    stream: Stream
    """The stream."""
    lane: Lane
    """The lane."""
    from_block: int
    """First block."""
    to_block: int
    """Last block, included."""
    last_hash: bytes
    """Hash of the last block, 32 bytes: it fixes every block before it, too."""
    content_version: str
    """16 hex digits: source and verification level, for events also the ABIs and the decoder,
    and for aggregates the aggregator, too."""


@dataclass(frozen=True, slots=True)
class BlockSegment:
    """Headers, transactions with their receipts, and withdrawals of a range of blocks."""

    name: SegmentName
    """What it holds; its stream is ``blocks``."""
    observed_at_ms: int
    """Unix milliseconds at which the node had shown its last block."""
    blocks: ColumnBlock
    """Columns of the table ``blocks``."""
    transactions: ColumnBlock
    """Columns of the table ``transactions``."""
    withdrawals: ColumnBlock
    """Columns of the table ``withdrawals``."""


@dataclass(frozen=True, slots=True)
class LogSegment:
    """The logs of a range of blocks, and what was proven of them."""

    name: SegmentName
    """What it holds; its stream is ``logs``."""
    observed_at_ms: int
    """Unix milliseconds at which the node had shown its last block."""
    level: Verification
    """The level that every block of it reached."""
    proven: tuple[str, ...]
    """What was proven, in words: ``header hash``, ``receiptsRoot``, …"""
    unproven: tuple[str, ...]
    """What could not be proven, in words."""
    headers: ColumnBlock
    """Columns of ``schemas.tables.HEADER_REFS``, one row a block."""
    logs: ColumnBlock
    """Columns of the table ``logs``."""


@dataclass(frozen=True, slots=True)
class EventSegment:
    """The decoded events of a range of blocks."""

    name: SegmentName
    """What it holds; its stream is ``events``."""
    observed_at_ms: int
    """As its LogSegment's."""
    tables: tuple[ColumnBlock, ...]
    """One block a declared event table, and ``decode_failures``; columns are {} where rows is 0."""


@dataclass(frozen=True, slots=True)
class AggregateSegment:
    """What the events of each block of a range add up to."""

    name: SegmentName
    """What it holds; its stream is ``aggregates``."""
    observed_at_ms: int
    """As its EventSegment's."""
    tables: tuple[ColumnBlock, ...]
    """One block of each of AGGREGATE_TABLES; columns are {} where rows is 0."""


@dataclass(frozen=True, slots=True)
class HeadObserved:
    """A header that a node showed, ancestors first; `is_head` where it is the node's head."""

    chain_id: int
    """The chain."""
    number: int
    """Height."""
    hash: bytes
    """32 bytes."""
    parent_hash: bytes
    """32 bytes."""
    time: int
    """The header's timestamp, unix seconds."""
    observed_at_ms: int
    """Unix milliseconds."""
    provider: str
    """The provider's display name, without secrets."""
    is_head: bool = True
    """False for an ancestor that was fetched to connect a head."""


@dataclass(frozen=True, slots=True)
class FinalityAdvanced:
    """A block that a node calls safe or finalized."""

    chain_id: int
    """The chain."""
    kind: Literal["safe", "finalized"]
    """Which of the two."""
    number: int
    """Height."""
    hash: bytes
    """32 bytes; it counts only where our own tree has it canonical."""
    observed_at_ms: int
    """Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class ForkUpdate:
    """The reorg agent's word on the canonical chain after one step."""

    chain_id: int
    """The chain."""
    head: BlockRef
    """The head."""
    safe: BlockRef | None
    """The newest safe block that is canonical, if any is known."""
    finalized: BlockRef | None
    """The newest finalized block that is canonical, if any is known."""
    removed: tuple[BlockRef, ...]
    """Blocks that left the chain, newest first."""
    added: tuple[BlockRef, ...]
    """Blocks that joined the chain, oldest first."""
    observed_at_ms: int
    """When the head that caused it was observed, unix milliseconds."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that cannot be taken, with the reason; it can be driven again."""

    stage: str
    """The stage that refused it."""
    reason_code: str
    """The error's code, ``HR-…``."""
    reason: str
    """The error in words."""
    topic: str
    """Where the message came from."""
    partition: int
    """The source partition; -1 in process."""
    offset: int
    """The source offset; -1 in process."""
    key: bytes
    """The original key."""
    value: bytes
    """The original bytes."""
    observed_at_ms: int
    """Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class SegmentWanted:
    """A range to ingest once more, by name: what the topic ``requests`` holds."""

    chain_id: int
    """The chain."""
    from_block: int
    """First block."""
    to_block: int
    """Last block, included; whole grid segments are of the history lane, any other of the head."""
    last_hash: bytes | None
    """Hash of the last block, 32 bytes, where one certain branch is wanted."""
    streams: tuple[Stream, ...]
    """The streams whose loads do not count; all of a block's raw streams are sent anyway."""
    request_id: str
    """Who asked and which time: travels as the header ``again``, and no sink drops it."""
    reason: str
    """Why, for people."""
    requested_at_ms: int
    """Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class BlockSpan:
    """Blocks from one height to another."""

    from_block: int
    """First block."""
    to_block: int
    """Last block, included."""


@dataclass(frozen=True, slots=True)
class IngestCheckpoint:
    """What the broker has acknowledged of a chain: where an ingester goes on."""

    chain_id: int
    """The chain."""
    content_version: str
    """16 hex digits: the source and its filter, whatever the level of verification."""
    covered: tuple[BlockSpan, ...]
    """Final blocks of which every message is acknowledged, in order, apart from each other."""
    finalized: BlockRef | None
    """The newest final block that the head lane has told, if any."""
    head: int | None
    """The highest block that the head lane has told, if any."""
    requests_offset: int
    """The next offset of the topic ``requests`` to take."""
    instance: str
    """Who wrote it."""
    observed_at_ms: int
    """Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class PublisherClaim:
    """A publisher's word on the chain whose canon it writes: what the topic ``claims`` holds."""

    chain_id: int
    """The chain."""
    kind: Literal["claim", "beat", "release"]
    """``claim``: it is the publisher from now on, of the generation offset + 1; ``beat``: it still
    is; ``release``: it has ended, and another need not wait."""
    generation: int
    """Of a beat and a release; 0 of a claim, whose generation is known when it stands."""
    publisher: str
    """A random id of the process's publisher."""
    host: str
    """Name of the machine or container."""
    pid: int
    """Process id on it."""
    observed_at_ms: int
    """Unix milliseconds."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as a topic holds it."""

    topic: str
    """For example ``raw.logs.history``."""
    key: bytes
    """Decides the partition."""
    value: bytes
    """The Avro message."""
    headers: dict[str, str] = field(default_factory=dict)
    """chain_id, lane, from, to, last_hash, schema; again where it was asked for once more."""
    segment: EventSegment | AggregateSegment | None = field(default=None, compare=False, repr=False)
    """What `value` was made from, where it has not left the process: it need not be read again."""


DATA_TOPICS: dict[Stream, str] = {
    "blocks": "raw.blocks",
    "logs": "raw.logs",
    "events": "events",
    "aggregates": "aggregates",
}
"""Topic of each stream, without the lane's suffix."""

SEGMENT_MESSAGES: dict[Stream, str] = {
    "blocks": "BlockSegment",
    "logs": "LogSegment",
    "events": "EventSegment",
    "aggregates": "AggregateSegment",
}
"""The message that carries each stream."""

RAW_HEADS, FORKS, DEAD_LETTERS = "raw.heads", "forks", "dead_letters"
REQUESTS, CHECKPOINTS = "requests", "checkpoints"
AGAIN = "again"
"""Header of a message that was ingested once more: the id of the request."""
LETTER_SOURCE = "source."
"""What the headers of a refused message begin with in those of its dead letter."""


def data_topic(stream: Stream, lane: Lane) -> str:
    """The topic of a stream's lane, for example ``raw.logs.history``."""
    return f"{DATA_TOPICS[stream]}.{lane}"


def segment_envelope(name: SegmentName, segment_blocks: int, value: bytes) -> Envelope:
    """A segment's message, keyed so that all streams of a grid segment share a partition number."""
    headers = {
        "chain_id": str(name.chain_id),
        "lane": name.lane,
        "from": str(name.from_block),
        "to": str(name.to_block),
        "last_hash": name.last_hash.hex(),
        "schema": SEGMENT_MESSAGES[name.stream],
    }
    key = f"{name.chain_id}:{name.from_block // segment_blocks}".encode()
    return Envelope(data_topic(name.stream, name.lane), key, value, headers)


def content_version(**parts: object) -> str:
    """16 hex digits that change when any of `parts` does."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
