"""A capped backfill takes its share of time, evenly."""

from __future__ import annotations

from ingest.blockpace import BlockPace


async def test_blocks_pass_at_the_rate_and_lost_time_is_not_made_up_for() -> None:
    now, slept = [0.0], list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = BlockPace(20.0, clock=lambda: now[0], sleep=sleep)
    for _ in range(3):
        await pace.wait(10)
    assert (slept, now) == ([0.5, 0.5], [1.0])
    now[0] = 100.0
    await pace.wait(10)
    await pace.wait(10)
    assert slept == [0.5, 0.5, 0.5]


async def test_without_a_rate_everything_passes() -> None:
    await BlockPace(None).wait(10**9)
