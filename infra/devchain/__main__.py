"""Options in, a synthetic chain that is served until Ctrl-C out."""

import asyncio
import random
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from infra.devchain.archive import Archive, open_archive
from infra.devchain.chain import Chain
from infra.devchain.planning import Budget
from infra.devchain.rpc import Limits
from infra.devchain.sealing import Spec
from infra.devchain.server import DevchainServer


@dataclass(frozen=True, slots=True)
class Pace:
    """What happens after the start."""

    interval_seconds: float
    """Between two blocks; 0 mines none."""
    reorg_every_blocks: int
    """0 never reorganises."""
    reorg_depth_max: int


async def _live(chain: Chain, pace: Pace) -> None:
    """Mine at the chain's pace, with reorgs of seeded depths."""
    dice = random.Random(chain.spec.seed)
    mined = 0
    due = time.monotonic()
    while pace.interval_seconds > 0 and chain.room > pace.reorg_depth_max:
        due += pace.interval_seconds
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        mined += 1
        if pace.reorg_every_blocks and mined % pace.reorg_every_blocks == 0:
            chain.reorg(min(chain.view.head, dice.randint(1, pace.reorg_depth_max)))
        else:
            chain.mine()


async def _serve(server: DevchainServer, port: int, pace: Pace) -> None:
    await server.start((port,))
    for url in server.http_urls:
        sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signal_number, stopped.set)
    living = asyncio.create_task(_live(server.chain, pace)) if server.chain else None
    await stopped.wait()
    if living is not None:
        living.cancel()
    await server.stop()


def _spec(
    *, seed: int, chain_id: int, budget: Budget, finality_depth: int, block_time: float
) -> Spec:
    return Spec(
        seed=seed,
        chain_id=chain_id,
        budget=budget,
        finality_depth=finality_depth,
        safe_depth=finality_depth // 2,
        block_time_seconds=block_time,
    )


def _of_now(spec: Spec, blocks: int) -> Spec:
    """The same chain, stamped so that its head is of now after some blocks."""
    start = int(time.time() - blocks * spec.block_time_seconds)
    # Blocks of the past are stamped as if they had come in time; then the clock goes on.
    clock = _Clock(start, spec.block_time_seconds, blocks)
    return replace(spec, start_time=start, clock=clock)


class _Clock:
    """Stamps some past blocks at an interval, and every later one with the time."""

    def __init__(self, start: int, seconds: float, past: int) -> None:
        self._start, self._seconds, self._past = start, seconds, past
        self._stamped = 0

    def __call__(self) -> float:
        self._stamped += 1
        if self._stamped <= self._past:
            return self._start + self._stamped * self._seconds
        return time.time()


def main(
    *,
    seed: Annotated[int, typer.Option(help="What the whole chain follows from.")] = 7,
    blocks: Annotated[int, typer.Option(help="Blocks mined before serving.")] = 1000,
    interval: Annotated[float, typer.Option(help="Seconds between blocks; 0 mines none.")] = 1.0,
    transactions: Annotated[int, typer.Option(help="Transactions in a block.")] = 30,
    logs: Annotated[int, typer.Option(help="Logs in a block.")] = 100,
    exact: Annotated[bool, typer.Option(help="Every block holds exactly that many.")] = False,
    chain_id: Annotated[int, typer.Option(help="Chain id.")] = 1337,
    finality_depth: Annotated[int, typer.Option(help="Depth of finality, in blocks.")] = 64,
    block_time: Annotated[float, typer.Option(help="Seconds between two timestamps.")] = 12.0,
    now: Annotated[bool, typer.Option(help="Stamp blocks so that the head is of now.")] = False,
    reorg_every: Annotated[int, typer.Option(help="Blocks between two reorgs; 0: none.")] = 0,
    reorg_depth_max: Annotated[int, typer.Option(help="Depth of the deepest reorg.")] = 3,
    endpoints: Annotated[int, typer.Option(help="Ports that serve the chain.")] = 1,
    port: Annotated[int, typer.Option(help="Port of the first; 0 takes a free one.")] = 0,
    logs_range_max: Annotated[
        int | None, typer.Option(help="Blocks that one eth_getLogs may span; none: no limit.")
    ] = None,
    logs_results_max: Annotated[
        int | None, typer.Option(help="Logs that one eth_getLogs may answer; none: no limit.")
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(help="Serve a chain that does not change from this folder; made if missing."),
    ] = None,
) -> None:
    """Serve a deterministic synthetic chain on loopback; prints one URL a line."""
    budget = Budget(transactions, logs, exact)
    spec = _spec(
        seed=seed,
        chain_id=chain_id,
        budget=budget,
        finality_depth=finality_depth,
        block_time=block_time,
    )
    served: Chain | Archive
    if archive is not None:
        served = open_archive(spec, blocks, archive)
    else:
        served = Chain(_of_now(spec, blocks) if now else spec)
        served.mine(blocks)
    pace = Pace(interval, reorg_every, reorg_depth_max)
    limits = Limits(logs_range_max, logs_results_max)
    uvloop.run(_serve(DevchainServer(served, endpoints, limits=limits), port, pace))


if __name__ == "__main__":
    typer.run(main)
