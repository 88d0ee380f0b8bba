"""Faust in, Faust without the faults that were found in it out.

Impure, as `processors.agents` is: classes of Faust with what is wrong in them done otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack
from importlib import metadata
from typing import Any

import faust
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers.aiokafka import (
    AIOKafkaConsumerThread,
    Consumer,
    ConsumerRebalanceListener,
)
from faust.types import TP

from processors.agent_plan import Fetching
from schemas.errors_process import FaustUntested

VERSIONS = {"faust-streaming": "0.15.3", "aiokafka": "0.14.0"}
"""The versions whose behaviour was measured, and is mended below."""
REBALANCE_SECONDS_MAX, REBALANCE_INTERVALS_MAX = 300.0, 2
"""For how long a rebalance counts as activity, and for how many poll intervals if that is more:
longer than brokers are away."""
FETCH_SECONDS_MAX = 3.0
"""Longer than Faust lets a fetch wait for messages, unless the partitions are given anew."""


def check_version() -> None:
    """See that the Faust that is installed, and its client, are the ones that are mended.

    Raises
    ------
    FaustUntested
        If one of them is another.
    """
    for package, expected in VERSIONS.items():
        found = metadata.version(package)
        if found != expected:
            raise FaustUntested(package=package, found=found, expected=expected)


class FolderlessApp(faust.App):
    """An app whose tables are in memory: Faust would make folders for those that are on disk.

    A worker that is killed would leave them behind, one more each time.
    """

    def _create_directories(self) -> None:
        """None is needed."""


def mend_consumer(app: faust.App, fetching: Fetching) -> None:
    """Let an app that has not started read by a `MendedConsumer`."""
    transport: Any = app.transport
    transport.Consumer = type("Consumer", (MendedConsumer,), {"fetching": fetching})


class QuietRecovery(Recovery):
    """Recovers tables, and lets no message to the agents before it is known where they begin.

    Faust turns the flow on to read a changelog. With the flow on it then lets the agents'
    partitions flow, seeks to what is committed, and turns the flow on once more: which empties
    the agents' queues of what they were given meanwhile, and nobody reads it again.
    """

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        """As Faust's own, with the flow turned off until its end."""
        self._stop_flow()
        await super().on_recovery_completed(generation_id)

    async def _resume_streams(self, generation_id: int = 0) -> None:
        self._stop_flow()
        await super()._resume_streams(generation_id)

    def _stop_flow(self) -> None:
        self.app.consumer.stop_flow()
        self.app.flow_control.suspend()


class EagerTables(TableManager):
    """Every agent and table is declared before the app starts: nothing is waited for."""

    @property
    def recovery(self) -> Recovery:
        """The service that recovers tables."""
        if self._recovery is None:
            self._recovery = QuietRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    async def on_start(self) -> None:
        """As Faust's own, without its first second of sleep."""
        await self._update_channels()
        await self.recovery.start()


class RebalanceIsActivity(ConsumerRebalanceListener):
    """A consumer is not idle while its group rebalances.

    The client leaves a group when nobody has fetched for the poll interval, and joins none before
    somebody fetches. Faust fetches nothing from the first word of a rebalance to its end. So a
    worker that was silent for the poll interval, or whose last commit before the rebalance took
    that long (brokers that were away), would wait for ever, without an error. The rebalance is
    activity for a bounded time: who never gives an event back is to lose its place in the group.
    """

    def __init__(self, thread: Any) -> None:
        super().__init__(thread)
        self._client = thread
        self._rebalance = ExitStack()

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> Awaitable[None]:
        """A rebalance begins."""
        self._rebalance.close()
        subscription = self._client._ensure_consumer()._subscription
        self._rebalance.enter_context(subscription.fetch_context())
        interval = self._client.app.conf.broker_max_poll_interval
        seconds = max(REBALANCE_SECONDS_MAX, REBALANCE_INTERVALS_MAX * interval)
        ending = asyncio.get_running_loop().call_later(seconds, self._rebalance.close)
        self._rebalance.callback(ending.cancel)
        return super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """A rebalance has ended."""
        try:
            await super().on_partitions_assigned(assigned)
        finally:
            self._rebalance.close()


class MendedConsumer(Consumer):
    """Faust's consumer: its rebalances end, its gaps end where they do, and it fetches as told."""

    RebalanceListener = RebalanceIsActivity
    fetching = Fetching()
    """How it fetches."""

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return FetchingThread(self, loop=self.loop, beacon=self.beacon)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        # Faust takes the message behind a gap (compaction, markers, retention) for a part of it.
        # Its offset is then listed twice once it is acknowledged, and commits crawl: one gap an
        # interval.
        await super()._add_gap(tp, offset_from, offset_to - 1)


class FetchingThread(AIOKafkaConsumerThread):
    """Its thread: it fetches as told, and begins where the group has ended, whatever came before.

    Faust has no setting for how much is worth an answer of the brokers. And it throws away what a
    fetch brings while the flow is off, though the client goes on behind it: a fetch that is under
    way when partitions begin took the first messages of them, unless a seek came later. Faust seeks
    while such a fetch is under way, and not at all where nothing was committed. Of a changelog the
    first messages were gone for good so, and its recovery waited for them for ever: where a fetch
    of before, of a recovery that a rebalance cut short, ended between the seek and the flow.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fetches: dict[asyncio.Future[None], frozenset[TP]] = {}

    def _create_worker_consumer(self, transport: Any) -> Any:
        client: Any = super()._create_worker_consumer(transport)
        fetching: Fetching = self.consumer.fetching  # type: ignore[attr-defined]
        client._fetch_min_bytes = fetching.bytes_min
        client._fetch_max_wait_ms = int(1000 * fetching.seconds_max)
        return client

    async def getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        """As Faust's own, of the partitions that are active now, not of those that come to be."""
        return await super().getmany(set(active_partitions or ()), timeout)

    async def _fetch_records(
        self, consumer: Any, active_partitions: set[TP], *args: Any, **kwargs: Any
    ) -> Any:
        if not active_partitions:
            # The client would take none for all.
            return {}
        ended = asyncio.get_running_loop().create_future()
        self._fetches[ended] = frozenset(active_partitions)
        try:
            return await super()._fetch_records(consumer, active_partitions, *args, **kwargs)
        finally:
            del self._fetches[ended]
            ended.set_result(None)

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """As Faust's own, once no fetch of these partitions is under way."""
        await self.call_thread(self._seek_wait_at_rest, partitions)

    async def _seek_wait_at_rest(self, partitions: Mapping[TP, int]) -> None:
        # They are paused: no further one begins.
        await self._rest(lambda place: place in partitions)
        await self._seek_wait(self._ensure_consumer(), partitions)

    async def seek_to_committed(self) -> Any:
        """As Faust's own, once no fetch is under way; to the beginning where that is nowhere."""
        return await self.call_thread(self._seek_at_rest)

    async def _rest(self, matters: Callable[[TP], bool]) -> None:
        """Wait for the fetches under way of partitions that matter."""
        under_way = [ended for ended, places in self._fetches.items() if any(map(matters, places))]
        if under_way:
            # A fetch may wait for the next assignment, which waits for a commit; of what is asked
            # of this thread two are done at a time.
            await asyncio.wait(under_way, timeout=FETCH_SECONDS_MAX)

    async def _seek_at_rest(self) -> Any:
        changelogs = self.app.tables.changelog_topics
        # The flow is off: no further one begins.
        await self._rest(lambda place: place.topic not in changelogs)
        client = self._ensure_consumer()
        if not client.assignment():
            # A rebalance left this worker nothing meanwhile; the client would take it for a fault.
            return {}
        committed = await client.seek_to_committed()
        there = client.assignment()
        begun = [
            place
            for place, offset in committed.items()
            if not offset and place.topic not in changelogs and place in there
        ]
        if begun:
            await client.seek_to_beginning(*begun)
        return committed
