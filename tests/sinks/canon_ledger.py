"""A height and a branch in, the block and the ledger rows that a simulated loader writes out."""

from __future__ import annotations

from schemas.chains import load_chains
from schemas.segments import BlockRef, Lane, Stream
from sinks.ledger import LedgerRow

FACTS = load_chains()["local"].resized(segment_blocks=5, partition_blocks=20)
STREAMS: tuple[Stream, ...] = ("blocks", "logs", "events")
VERSIONS: dict[str, str | None] = dict.fromkeys(STREAMS, "v")


def ref(number: int, branch: str = "") -> BlockRef:
    return BlockRef(number, f"{number}/{branch}".encode().ljust(32, b"\0"))


def ledger(
    stream: Stream,
    load_id: int,
    first: int,
    last: BlockRef,
    lane: Lane = "head",
    content_version: str = "v",
    generation: int = 1,
) -> LedgerRow:
    return LedgerRow(
        stream=stream,
        lane=lane,
        from_block=first,
        to_block=last.number,
        last_hash=last.hash,
        content_version=content_version,
        generation=generation,
        load_id=load_id,
        tables=(),
        rows=(),
        checksums=(),
    )
