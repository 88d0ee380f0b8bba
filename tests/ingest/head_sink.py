"""Envelopes of the head lane in, what a test asks of them out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from schemas.codec import (
    decode_finality_advanced,
    decode_head_observed,
    decode_log_segment,
    message_name,
)
from schemas.segments import Envelope, FinalityAdvanced, HeadObserved
from schemas.tables import Verification
from tests.ingest.fake_node import FakeBlock
from tests.patience import PATIENCE_SECONDS


class HeadSink:
    """A sink that can be waited upon."""

    def __init__(self) -> None:
        self.heads: list[HeadObserved] = []
        self.finality: list[FinalityAdvanced] = []
        self.blocks: list[tuple[int, str]] = []
        self.levels: list[Verification] = []
        self._changed = asyncio.Condition()

    async def put(self, envelope: Envelope) -> None:
        """Keep what the envelope holds."""
        async with self._changed:
            match message_name(envelope.value):
                case "HeadObserved":
                    self.heads.append(decode_head_observed(envelope.value))
                case "FinalityAdvanced":
                    self.finality.append(decode_finality_advanced(envelope.value))
                case "LogSegment":
                    segment = decode_log_segment(envelope.value)
                    name = segment.name
                    self.levels.append(segment.level)
                    self.blocks.append((name.to_block, "0x" + name.last_hash.hex()))
            self._changed.notify_all()

    async def until(self, condition: Callable[[HeadSink], bool]) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(lambda: condition(self))

    def holds(self, blocks: Sequence[FakeBlock]) -> bool:
        """Whether all of these blocks have been published."""
        return {(b.number, b.hash) for b in blocks} <= set(self.blocks)

    def head_hashes(self) -> list[str]:
        """Hashes of the headers told, in order."""
        return ["0x" + head.hash.hex() for head in self.heads]

    def last_head(self) -> str:
        """Hash of the last header told as a head."""
        named = [head for head in self.heads if head.is_head]
        return "0x" + named[-1].hash.hex() if named else ""
