"""Settings in, a chain indexed and followed out: the composition root of the embedded pipeline.

    endpoints ─► ingest ─► sinks queue ────────────────► sink stage ─► loads, ledger ─┐
                   ├─────► decode queue ─► decode stage ─► sinks queue                ├► publisher
                   └─────► heads queue ──► reorg stage ──► fork updates ──────────────┘

Ingest runs in the event loop of the main thread; each stage in a thread of its own; ClickHouse in
a child process. The queues carry the same Avro messages as the topics of the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import structlog
import uvloop

from infra.allocation import settle_allocation
from infra.chain_of_endpoints import endpoint_specs, meet_chain
from infra.clickhouse.confinement import open_holes
from infra.clickhouse.server import EmbeddedServer
from infra.contracts import declare_contracts
from infra.display import Display
from infra.exit_codes import ExitCode
from infra.ingest_run import IngestRun, Target
from infra.run_progress import RunProgress
from infra.settings import Settings
from infra.source import ChainSource
from infra.stage_set import StageSet
from infra.stop_signal import StopSignal
from infra.storage import Storage
from ingest.endpoint import Endpoint
from ingest.preflight import Preflight
from ingest.providers import ProviderPool
from processors.abi import Layouts, build_layouts
from schemas.chains import ChainFacts
from schemas.errors_canon import ReorgBelowFinalized
from schemas.errors_infra import DrainTimedOut

log = structlog.get_logger(__name__)

START_BLOCKS = 1_000
"""Where no first block is given, a run on a public chain begins so far below finality."""
POLL_SECONDS = 0.05
"""How often the main thread looks whether what it waits for has come."""


def run_pipeline(settings: Settings, display: Display) -> int:
    """Index a chain until its target is visible, Ctrl-C, or a failure.

    Parameters
    ----------
    settings
        What to index, from where, into which data directory.
    display
        Where progress is shown.

    Returns
    -------
    int
        The exit code: 0 when the target is visible, 130 after Ctrl-C.

    Raises
    ------
    HeadraceError
        Whatever stopped it. Nothing is lost: the next run goes on where the ledger ends.
    """
    contracts = declare_contracts(settings)
    for contract in contracts:
        for event in contract.skipped:
            display.note(f"{contract.name}: {event} gets no table", "yellow")
    layouts = build_layouts(contracts)
    settle_allocation()
    try:
        return uvloop.run(_run(settings, display, layouts))
    except asyncio.CancelledError:
        display.note("stopped at once; what the ledger holds is kept, and the next run goes on")
        return int(ExitCode.interrupted)


async def _run(settings: Settings, display: Display, layouts: Layouts) -> int:
    task = asyncio.current_task()
    assert task is not None
    stop = StopSignal(task)
    async with ProviderPool(endpoint_specs(settings), settings.limits.ingest) as pool:
        settings, facts, said = await meet_chain(
            settings, pool, lambda text: display.note(text, "yellow")
        )
        source = ChainSource(settings, facts, said.chain_id)
        with _server(settings, facts, said, display) as server:
            storage = await asyncio.to_thread(Storage, settings, server.endpoint(), source, layouts)
            run = Run(settings, display, source, pool, server, storage)
            try:
                return await run.until_done(said, stop)
            finally:
                await asyncio.to_thread(storage.close)


@contextlib.contextmanager
def _server(
    settings: Settings, facts: ChainFacts, said: Preflight, display: Display
) -> Iterator[EmbeddedServer]:
    def on_event(event: str, code: int) -> None:
        log.warning("clickhouse_" + event, exit_code=code)
        display.note(f"ClickHouse ended with code {code} and was {event}", "yellow")

    for hole in open_holes():
        log.warning("clickhouse_not_confined", detail=hole)
        display.note(f"not confined: {hole}", "yellow")
    with EmbeddedServer(
        settings.data_dir,
        settings.clickhouse.tcp_port,
        settings.clickhouse.http_port,
        chain=facts.name,
        chain_id=said.chain_id,
        limits=settings.limits.server,
        on_event=on_event,
    ) as server:
        yield server


class Run:
    """One run of the embedded pipeline on a prepared database."""

    def __init__(
        self,
        settings: Settings,
        display: Display,
        source: ChainSource,
        pool: ProviderPool,
        server: EmbeddedServer,
        storage: Storage,
    ) -> None:
        self.settings, self.display, self.source = settings, display, source
        self.pool, self.server, self.storage = pool, server, storage

    async def until_done(self, said: Preflight, stop: StopSignal) -> int:
        """Run until the target is visible, a stop is asked for, or something fails."""
        target = self._target(said)
        stages = await asyncio.to_thread(
            StageSet,
            self.settings,
            self.storage,
            target.from_block,
            self.display.metrics,
            self.source.turns,
        )
        ingest = IngestRun(
            self.source,
            self.pool,
            self.storage,
            stages.router,
            target,
            begin_head=stages.begin_head,
            tell_fork=stages.publisher.apply_fork,
            visible=stages.publisher.visible,
        )
        failed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def fail() -> None:
            loop.call_soon_threadsafe(failed.set)

        stages.failures.listen(fail)
        progress = RunProgress(
            self.source.facts.name,
            target,
            stages,
            ingest,
            self.pool,
            said,
            lambda: self.server.pid,
        )
        progress.synthetic = await _is_synthetic(self.pool)
        progress.note = f"query: {self._query}"
        shown = asyncio.create_task(self.display.watch(progress.snapshot))
        stages.start()
        stop.patient = True
        try:
            code = await self._drive(ingest, stages, target, said, stop.asked, failed, progress)
            progress.phase = "done" if code == ExitCode.ok else "draining"
        except BaseException as error:
            progress.phase = "halted"
            await asyncio.to_thread(stages.halt)
            if isinstance(error, ReorgBelowFinalized):
                raise await ingest.stored.located(error) from error
            raise
        finally:
            shown.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await shown
        row = stages.publisher.visible()
        self._farewell(code, row.head.number if row else None)
        return int(code)

    async def _drive(
        self,
        ingest: IngestRun,
        stages: StageSet,
        target: Target,
        said: Preflight,
        stop: asyncio.Event,
        failed: asyncio.Event,
        progress: RunProgress,
    ) -> ExitCode:
        """Ingest beside the stages; then drain them."""
        work = asyncio.create_task(self._ingest(ingest, stages, target, said, progress))
        refetch = asyncio.create_task(self._refetch(ingest, stages))
        waits = [asyncio.create_task(event.wait()) for event in (stop, failed)]
        try:
            await asyncio.wait([work, refetch, *waits], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            if refetch.done():
                refetch.result()
            self._raise_failure(stages)
            interrupted = not work.done()
        finally:
            work.cancel()
            refetch.cancel()
            for wait in waits:
                wait.cancel()
            await asyncio.gather(work, refetch, *waits, return_exceptions=True)
        progress.phase = "draining"
        seconds = self.settings.limits.pipeline.drain_seconds_max
        if not await asyncio.to_thread(stages.drain, seconds):
            self._raise_failure(stages)
            raise DrainTimedOut(seconds=seconds)
        self._raise_failure(stages)
        return ExitCode.interrupted if interrupted else ExitCode.ok

    async def _ingest(
        self,
        ingest: IngestRun,
        stages: StageSet,
        target: Target,
        said: Preflight,
        progress: RunProgress,
    ) -> None:
        """History, then the head, until the target is visible."""
        progress.phase = "backfill"
        said = await ingest.run_history(said)
        finalized = said.finalized.number if said.finalized is not None else -1
        await stages.settle(ingest.history_end(finalized), POLL_SECONDS)
        if target.to_block is not None and stages.visible_to(target.to_block):
            return
        progress.phase = "head"
        head = asyncio.create_task(ingest.follow_head(said))
        try:
            while target.to_block is None or not stages.visible_to(target.to_block):
                await asyncio.wait([head], timeout=POLL_SECONDS)
                if head.done():
                    head.result()
        finally:
            head.cancel()
            await asyncio.gather(head, return_exceptions=True)

    async def _refetch(self, ingest: IngestRun, stages: StageSet) -> None:
        """Fetch again what the publisher misses."""
        while True:
            for missing in stages.take_missing():
                await ingest.refetch(missing)
            stages.check_publisher()
            await asyncio.sleep(POLL_SECONDS * 4)

    @staticmethod
    def _raise_failure(stages: StageSet) -> None:
        if stages.failures.first is not None:
            raise stages.failures.first

    def _target(self, said: Preflight) -> Target:
        """The first and last block that are wanted."""
        facts, given = self.source.facts, self.settings.to_block
        to_block = None if given == "latest" else given
        if self.settings.from_block is not None:
            return Target(self.settings.from_block, to_block)
        floor = self.storage.visible_floor()
        if floor is not None:
            return Target(floor, to_block)
        if facts.chain_id is None:
            return Target(0, to_block)
        final = said.finalized.number if said.finalized is not None else 0
        upper = final if to_block is None else min(final, to_block)
        first = facts.segment_start(max(0, upper - START_BLOCKS))
        self.display.note(
            f"beginning at block {first:,}, the last {START_BLOCKS:,} final blocks; "
            "choose another first block with --from"
        )
        return Target(first, to_block)

    @property
    def _query(self) -> str:
        """A command that queries what this run makes."""
        return f'headrace sql --data {self.settings.data_dir} "SELECT count() FROM logs"'

    def _farewell(self, code: ExitCode, head: int | None) -> None:
        """Say where the run ended, how to query and how to go on."""
        if head is None:
            self.display.note("nothing can be queried yet")
        else:
            self.display.note(f"blocks to {head:,} can be queried: {self._query}")
        if code is ExitCode.interrupted:
            self.display.note("run the same command again to go on from there")


async def _is_synthetic(pool: ProviderPool) -> bool:
    """Whether any endpoint says that its chain is synthetic."""

    async def ask(endpoint: Endpoint) -> bytes:
        return bytes(await endpoint.client.call("web3_clientVersion"))

    answers = await asyncio.gather(*(ask(e) for e in pool.usable()), return_exceptions=True)
    return any(isinstance(answer, bytes) and b"synthetic" in answer for answer in answers)
