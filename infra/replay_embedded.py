"""A range of a data directory in, the same blocks fetched once more out: `headrace replay --data`.

No run may own the directory meanwhile: the lock makes this process the chain's only publisher.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import uvloop

from infra.attached import chain_of
from infra.chain_of_endpoints import endpoint_specs, meet_chain
from infra.clickhouse.server import EmbeddedServer
from infra.contracts import declare_contracts
from infra.display import Display
from infra.replay import Replay, Replayed, next_generation
from infra.settings import Settings
from infra.source import ChainSource
from infra.storage import Storage
from ingest.providers import ProviderPool
from ingest.publish import Built
from processors.abi import Layouts, build_layouts
from processors.aggregate import aggregate_events
from processors.decode import decode_logs
from sinks.canon_table import newest_generation
from sinks.fresh import Fresh
from sinks.rewind import Rewinder
from sinks.writer import Segment

AT_ONCE_MAX = 8
"""Segments that are fetched at once."""

T = TypeVar("T")


def replay_embedded(
    settings: Settings, from_block: int, to_block: int, display: Display
) -> Replayed:
    """Replay a range of a data directory that no run owns.

    Raises
    ------
    DataDirectoryInUse
        A run owns the directory: stop it first.
    HeadraceError
        One of HR-64xx; whatever the endpoints or ClickHouse raise.
    """
    settings = settings.model_copy(update={"chain": chain_of(settings.data_dir)})
    layouts = build_layouts(declare_contracts(settings))
    return uvloop.run(_replay(settings, layouts, from_block, to_block, display))


async def _replay(
    settings: Settings, layouts: Layouts, from_block: int, to_block: int, display: Display
) -> Replayed:
    async with ProviderPool(endpoint_specs(settings), settings.limits.ingest) as pool:
        settings, facts, said = await meet_chain(
            settings, pool, lambda text: display.note(text, "yellow")
        )
        source = ChainSource(settings, facts, said.chain_id)
        loop = asyncio.get_running_loop()

        def work() -> Replayed:
            with EmbeddedServer(
                settings.data_dir,
                chain=facts.name,
                chain_id=said.chain_id,
                limits=settings.limits.server,
                supervise=False,
            ) as server:
                storage = Storage(settings, server.endpoint(), source, layouts)
                try:
                    tables = storage.tables
                    Rewinder(storage.reader, storage.database, facts, tables).finish()
                    fetched = Fetched(storage, source, pool, layouts, loop)

                    def newest() -> int:
                        return newest_generation(storage.reader, storage.database)

                    claim = lambda: next_generation(newest)  # noqa: E731
                    return Replay(storage, fetched, claim, display).run(from_block, to_block)
                finally:
                    storage.close()

        return await asyncio.to_thread(work)


class Fetched:
    """Has segments come again by fetching, decoding and loading them here.

    Parameters
    ----------
    storage
        Where they are loaded.
    source, pool
        Where they come from.
    layouts
        How their logs are decoded.
    loop
        Runs the fetches; `load` is called from another thread.
    """

    def __init__(
        self,
        storage: Storage,
        source: ChainSource,
        pool: ProviderPool,
        layouts: Layouts,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._storage, self._layouts, self._loop = storage, layouts, loop
        self._fetcher = source.fetcher(pool, source.settings.verify_history)
        self._writer = storage.writer(newest_generation(storage.reader, storage.database))

    def load(self, starts: Sequence[int], loaded: Callable[[], Fresh]) -> None:
        """Fetch grid segments and load them, a load for each stream and partition.

        Raises
        ------
        HeadraceError
            A segment could not be had, or not be stored.
        """
        del loaded
        by_load: dict[tuple[str, int], list[Segment]] = {}
        for built in self._wait(self._fetch(starts)):
            for segment in self._segments(built):
                partition = self._storage.facts.partition(segment.name.from_block)
                by_load.setdefault((segment.name.stream, partition), []).append(segment)
        for segments in by_load.values():
            self._writer.write(segments)

    async def _fetch(self, starts: Sequence[int]) -> list[Built]:
        places = asyncio.Semaphore(AT_ONCE_MAX)
        size = self._storage.facts.segment_blocks

        async def fetch(start: int) -> Built:
            async with places:
                return (await self._fetcher.fetch(range(start, start + size), "history")).built

        return list(await asyncio.gather(*(fetch(start) for start in starts)))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _segments(self, built: Built) -> list[Segment]:
        events = decode_logs(built.logs, self._layouts)
        found: list[Segment] = [built.logs, events, aggregate_events(events)]
        return found if built.blocks is None else [built.blocks, *found]
