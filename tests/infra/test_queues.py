"""The queues between the stages: bounds, lanes, backpressure, closing, many threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from infra.queues import ByteQueue, QueueClosed
from schemas.columns import Column, ColumnBlock
from schemas.segments import Envelope, EventSegment, SegmentName
from tests.patience import PATIENCE_SECONDS

SOON = PATIENCE_SECONDS


def envelope(value: bytes, lane: str = "history") -> Envelope:
    return Envelope(f"raw.logs.{lane}", b"", value, {"lane": lane})


def taken(queue: ByteQueue) -> bytes:
    got = queue.get(SOON)
    assert got is not None
    return got.value


def test_a_lane_is_first_in_first_out_and_the_head_goes_first() -> None:
    queue = ByteQueue("q", 1000)
    for value, lane in ((b"1", "history"), (b"2", "history"), (b"3", "head"), (b"4", "head")):
        queue.put_blocking(envelope(value, lane))
    assert (queue.bytes_waiting, queue.heads_waiting) == (4, 2)
    assert [taken(queue) for _ in range(4)] == [b"3", b"4", b"1", b"2"]
    assert (queue.bytes_waiting, queue.heads_waiting) == (0, 0)


def test_an_empty_queue_gives_none_when_the_time_is_up() -> None:
    queue = ByteQueue("q", 1000)
    began = time.monotonic()
    assert queue.get(0.05) is None
    assert time.monotonic() - began < SOON


def test_envelopes_are_undone_until_they_are_said_to_be_done() -> None:
    queue = ByteQueue("q", 1000)
    for _ in range(3):
        queue.put_blocking(envelope(b"x"))
    assert queue.undone == 3
    taken(queue)
    taken(queue)
    assert queue.undone == 3
    queue.done()
    assert queue.undone == 2
    queue.done(2)
    assert queue.undone == 0


def test_columns_that_an_envelope_carries_count() -> None:
    columns: dict[str, Column] = {"block_number": np.arange(10, dtype=np.uint64)}
    name = SegmentName(1, "events", "history", 0, 9, b"\0" * 32, "0" * 16)
    segment = EventSegment(name, 0, (ColumnBlock("erc20_transfers", 10, columns),))
    queue = ByteQueue("q", 100)
    queue.put_blocking(replace(envelope(b"12345678"), segment=segment))
    assert queue.bytes_waiting == 8 + 80
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.put_blocking, envelope(b"x" * 13))
        time.sleep(0.05)
        assert not waiting.done()
        assert taken(queue) == b"12345678"
        waiting.result(SOON)
    assert queue.bytes_waiting == 13


def test_what_finds_no_room_is_not_put() -> None:
    queue = ByteQueue("q", 2)
    assert queue.put_at_once(envelope(b"12"))
    assert not queue.put_at_once(envelope(b"3"))
    assert (taken(queue), queue.undone, queue.get(0.0)) == (b"12", 1, None)
    assert queue.put_at_once(envelope(b"3"))
    queue.close()
    with pytest.raises(QueueClosed):
        queue.put_at_once(envelope(b"4"))


def test_a_thread_waits_while_its_lane_is_full() -> None:
    queue = ByteQueue("q", 10)
    queue.put_blocking(envelope(b"12345678"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.put_blocking, envelope(b"abc"))
        time.sleep(0.05)
        assert not waiting.done()
        assert queue.undone == 1
        # The other lane has room of its own.
        queue.put_blocking(envelope(b"head", "head"))
        assert taken(queue) == b"head"
        time.sleep(0.05)
        assert not waiting.done()
        assert taken(queue) == b"12345678"
        waiting.result(SOON)
    assert taken(queue) == b"abc"


async def test_a_coroutine_waits_while_its_lane_is_full_and_the_loop_goes_on() -> None:
    queue = ByteQueue("q", 10)
    await queue.put(envelope(b"12345678"))
    second = asyncio.create_task(queue.put(envelope(b"second")))
    third = asyncio.create_task(queue.put(envelope(b"third")))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not second.done()
    assert not third.done()
    assert await asyncio.to_thread(taken, queue) == b"12345678"
    await asyncio.wait_for(second, SOON)
    # 6 + 5 bytes are more than 10.
    assert not third.done()
    assert await asyncio.to_thread(taken, queue) == b"second"
    await asyncio.wait_for(third, SOON)
    assert await asyncio.to_thread(taken, queue) == b"third"


async def test_a_coroutine_that_gives_up_puts_nothing() -> None:
    queue = ByteQueue("q", 10)
    await queue.put(envelope(b"12345678"))
    waiting = asyncio.create_task(queue.put(envelope(b"never")))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await asyncio.to_thread(taken, queue) == b"12345678"
    await queue.put(envelope(b"later"))
    assert await asyncio.to_thread(taken, queue) == b"later"
    assert queue.undone == 2


def test_what_is_larger_than_the_bound_passes_alone() -> None:
    queue = ByteQueue("q", 10)
    queue.put_blocking(envelope(b"x" * 50))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.put_blocking, envelope(b"y" * 50))
        time.sleep(0.05)
        assert not waiting.done()
        assert len(taken(queue)) == 50
        waiting.result(SOON)
    assert taken(queue) == b"y" * 50


def test_a_closed_queue_is_drained_and_takes_nothing() -> None:
    queue = ByteQueue("q", 10)
    queue.put_blocking(envelope(b"last"))
    queue.close()
    with pytest.raises(QueueClosed):
        queue.put_blocking(envelope(b"late"))
    assert taken(queue) == b"last"
    with pytest.raises(QueueClosed):
        queue.get(SOON)


def test_closing_wakes_whoever_waits() -> None:
    full, empty = ByteQueue("full", 10), ByteQueue("empty", 10)
    full.put_blocking(envelope(b"12345678"))
    with ThreadPoolExecutor(3) as pool:
        putting = pool.submit(full.put_blocking, envelope(b"12345678"))
        coroutine = pool.submit(lambda: asyncio.run(full.put(envelope(b"12345678"))))
        getting = pool.submit(empty.get, None)
        time.sleep(0.05)
        full.close()
        empty.close()
        for waiting in (putting, coroutine, getting):
            with pytest.raises(QueueClosed):
                waiting.result(SOON)


def test_many_threads_and_loops_lose_and_double_nothing() -> None:
    queue = ByteQueue("q", 64)
    writers, each = 6, 300
    peak, got, lock = 0, Counter[bytes](), threading.Lock()

    def values(writer: int) -> list[Envelope]:
        lanes = ("history", "head")
        return [envelope(f"{writer}:{i}".encode(), lanes[i % 2]) for i in range(each)]

    def put(writer: int) -> None:
        for one in values(writer):
            queue.put_blocking(one)

    async def put_async(writer: int) -> None:
        for one in values(writer):
            await queue.put(one)

    def take() -> None:
        nonlocal peak
        while True:
            try:
                one = queue.get(0.01)
            except QueueClosed:
                return
            if one is None:
                continue
            with lock:
                got[one.value] += 1
                peak = max(peak, queue.bytes_waiting)
            queue.done()

    with ThreadPoolExecutor(writers + 3) as pool:
        takers = [pool.submit(take) for _ in range(3)]
        threads = [pool.submit(put, writer) for writer in range(0, writers, 2)]
        loops = [
            pool.submit(lambda w: asyncio.run(put_async(w)), writer)
            for writer in range(1, writers, 2)
        ]
        try:
            for one in (*threads, *loops):
                one.result(SOON)
        finally:
            queue.close()
        for one in takers:
            one.result(SOON)
    assert set(got) == {f"{w}:{i}".encode() for w in range(writers) for i in range(each)}
    assert set(got.values()) == {1}
    assert queue.undone == 0
    assert peak <= 2 * queue.bytes_max
