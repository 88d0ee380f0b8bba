"""What counts as under way, and what no longer does."""

from __future__ import annotations

import asyncio

import pytest

from ingest.acknowledged import AcknowledgedSink, OnDelivered
from ingest.checkpoint import Checkpoint
from ingest.publish import finality_envelope
from schemas.segments import Envelope, FinalityAdvanced

FINAL = finality_envelope(FinalityAdvanced(1, "finalized", 7, bytes(32), 0))


class Full:
    """A producer without room, whose `put` can only be cancelled."""

    def __init__(self) -> None:
        self.waited_for = asyncio.Event()

    async def put(
        self,
        envelope: Envelope,
        *,
        partition: int | None = None,
        on_delivered: OnDelivered | None = None,
    ) -> None:
        del envelope, partition, on_delivered
        self.waited_for.set()
        await asyncio.Event().wait()

    async def deliver(self, envelope: Envelope, *, partition: int | None = None) -> tuple[int, int]:
        del envelope, partition
        pytest.fail("a sink that counts what is under way puts")


async def test_a_put_that_is_cancelled_while_it_waits_for_room_is_not_under_way() -> None:
    """A drain would wait for it until its deadline."""
    producer = Full()
    sink = AcknowledgedSink(producer, Checkpoint(1, "v", "test"))
    putting = asyncio.create_task(sink.put(FINAL))
    await producer.waited_for.wait()
    assert sink.in_flight == 1

    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting

    assert sink.in_flight == 0
