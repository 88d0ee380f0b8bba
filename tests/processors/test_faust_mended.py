"""The Faust that is installed, mended."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from functools import partial
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.subscription_state import SubscriptionState
from faust.tables.recovery import Recovery
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types import TP
from intervaltree import IntervalTree

from processors.agent_plan import Fetching
from processors.faust_mended import (
    VERSIONS,
    EagerTables,
    FetchingThread,
    FolderlessApp,
    MendedConsumer,
    RebalanceIsActivity,
    check_version,
    mend_consumer,
)
from schemas.errors_process import FaustUntested
from tests.patience import PATIENCE_SECONDS

PLACE = TP("raw.logs.history", 0)


async def commits(kind: type[Consumer]) -> list[int | None]:
    """What a consumer commits, interval by interval, after reading 10, 13, 16 and 19 and 20."""
    reader: Any = kind.__new__(kind)
    reader._committed_offset = {PLACE: 10}
    reader._gap, reader._acked = defaultdict(IntervalTree), defaultdict(list)
    reader._acked_index = defaultdict(set)
    before = 9
    found = []
    for offset in (10, 13, 16, 19, 20):
        if offset - before > 1:
            await reader._add_gap(PLACE, before + 1, offset)
        reader._acked[PLACE].append(offset)
        before = offset
    for _ in range(5):
        committed = reader._new_offset(PLACE)
        found.append(committed)
        if committed is not None:
            reader._committed_offset[PLACE] = committed
    return found


async def test_commits_pass_all_gaps_at_once() -> None:
    assert (await commits(MendedConsumer))[0] == 21


async def test_faust_itself_still_crawls() -> None:
    """If this fails, an upgraded Faust has mended it, and ours can go."""
    assert (await commits(Consumer))[0] != 21


async def test_brokers_answer_a_fetch_as_the_plan_says(monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1")
    assert client._fetch_min_bytes == 1, "the client of this version keeps it elsewhere"
    assert client._fetch_max_wait_ms == 500
    monkeypatch.setattr(AIOKafkaConsumerThread, "_create_worker_consumer", lambda *_: client)
    app: Any = SimpleNamespace(transport=SimpleNamespace())
    mend_consumer(app, Fetching(4096, 0.25))
    thread: Any = FetchingThread.__new__(FetchingThread)
    thread.consumer = app.transport.Consumer.__new__(app.transport.Consumer)

    assert thread._create_worker_consumer(app.transport) is client
    assert (client._fetch_min_bytes, client._fetch_max_wait_ms) == (4096, 250)
    await client.stop()


CHANGELOG, NEW = TP("x-changelog", 0), TP("raw.logs.history", 1)


class Client:
    """A client to which a group has committed one partition, and its fetches."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.answer: asyncio.Future[dict[TP, list[object]]] = asyncio.Future()

    async def seek_to_committed(self) -> dict[TP, int | None]:
        self.asked.append("committed")
        return {PLACE: 7, NEW: None, CHANGELOG: None}

    def assignment(self) -> set[TP]:
        return {PLACE, NEW, CHANGELOG}

    async def seek_to_beginning(self, *places: TP) -> None:
        self.asked.append(places)


def thread_of(client: Client, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The thread of a client whose fetches end when its answer comes."""

    async def fetch(_thread: object, _client: object, _active: set[TP]) -> object:
        return await client.answer

    async def called(function: Any, *args: Any) -> object:
        return await function(*args)

    monkeypatch.setattr(AIOKafkaConsumerThread, "_fetch_records", fetch)
    thread: Any = FetchingThread.__new__(FetchingThread)
    thread._fetches, thread.call_thread = {}, called
    thread.app = SimpleNamespace(tables=SimpleNamespace(changelog_topics={CHANGELOG.topic}))
    thread._ensure_consumer = lambda: client
    return thread


async def test_it_seeks_once_no_fetch_is_under_way_and_where_nothing_was_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Client()
    thread = thread_of(client, monkeypatch)
    fetching = asyncio.ensure_future(thread._fetch_records(client, {PLACE, CHANGELOG}))
    seeking = asyncio.ensure_future(thread.seek_to_committed())
    for _ in range(10):
        await asyncio.sleep(0)
    assert client.asked == []
    client.answer.set_result({})

    assert await fetching == {}
    assert (await seeking)[PLACE] == 7
    assert client.asked == ["committed", (NEW,)]


async def test_it_seeks_beside_a_fetch_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may wait for the next assignment, which waits for the seek."""
    monkeypatch.setattr("processors.faust_mended.FETCH_SECONDS_MAX", 0.0)
    client = Client()
    thread = thread_of(client, monkeypatch)
    fetching = asyncio.ensure_future(thread._fetch_records(client, {PLACE}))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_SECONDS):
        committed = await thread.seek_to_committed()

    assert committed[PLACE] == 7
    assert client.asked == ["committed", (NEW,)]
    assert not fetching.done(), "the seek leaves it alone"
    client.answer.set_result({})
    assert await fetching == {}


async def test_it_seeks_nowhere_where_a_rebalance_left_it_nothing_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client: Any = Client()
    client.assignment = set
    # The client itself calls that a fault.
    client.seek_to_committed = partial(AIOKafkaConsumer.seek_to_committed, client)
    client._subscription = SimpleNamespace(assigned_partitions=client.assignment)
    with pytest.raises(AssertionError, match="No partitions are currently assigned"):
        await client.seek_to_committed()
    assert await thread_of(client, monkeypatch).seek_to_committed() == {}
    assert client.asked == []


async def test_it_seeks_beside_a_fetch_of_a_changelog(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    thread = thread_of(client, monkeypatch)
    fetching = asyncio.ensure_future(thread._fetch_records(client, {CHANGELOG}))
    await asyncio.sleep(0)
    await thread.seek_to_committed()
    assert not fetching.done()
    client.answer.set_result({})
    await fetching


@pytest.mark.parametrize(("fetched", "waits"), [(CHANGELOG, True), (PLACE, False)])
async def test_it_seeks_in_a_changelog_once_no_fetch_of_it_is_under_way(
    monkeypatch: pytest.MonkeyPatch, fetched: TP, waits: bool
) -> None:
    """Or what the fetch brings from behind the seek is thrown away, and nobody reads it again."""
    client = Client()
    thread = thread_of(client, monkeypatch)

    async def sought(asked: Client, places: dict[TP, int]) -> None:
        asked.asked.append(places)

    monkeypatch.setattr(thread, "_seek_wait", sought, raising=False)
    fetching = asyncio.ensure_future(thread._fetch_records(client, {fetched}))
    seeking = asyncio.ensure_future(thread.seek_wait({CHANGELOG: 0}))
    for _ in range(10):
        await asyncio.sleep(0)
    assert (client.asked == []) == waits
    client.answer.set_result({})
    await asyncio.gather(fetching, seeking)
    assert client.asked == [{CHANGELOG: 0}]


async def test_a_fetch_of_no_partition_is_not_one_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    assert await thread_of(client, monkeypatch)._fetch_records(client, set()) == {}


async def test_a_fetch_brings_nothing_of_what_became_active_after_it_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    active, given = {PLACE}, []

    async def getmany(_thread: object, partitions: set[TP], timeout: float) -> object:
        given.append(partitions)
        return {}

    monkeypatch.setattr(AIOKafkaConsumerThread, "getmany", getmany)
    await thread_of(Client(), monkeypatch).getmany(active, 1.0)
    active.add(NEW)
    assert given == [{PLACE}]


class Thread:
    """What the listener sees of Faust's consumer thread."""

    def __init__(self, interval: float) -> None:
        self.state = SubscriptionState()
        self.state._last_fetch_ended -= 1000
        self.told: list[str] = []
        self.app = SimpleNamespace(
            on_rebalance_start=lambda: self.told.append("begins"),
            conf=SimpleNamespace(broker_max_poll_interval=interval),
        )

    def _ensure_consumer(self) -> Any:
        coordinator = SimpleNamespace(generation=7)
        return SimpleNamespace(_subscription=self.state, _coordinator=coordinator)

    async def on_partitions_revoked(self, _revoked: object) -> None:
        self.told.append("revoked")

    async def on_partitions_assigned(self, _assigned: object, generation: int) -> None:
        self.told.append(f"assigned {generation}")
        assert self.state.fetcher_idle_time == 0


async def test_a_consumer_is_not_idle_while_its_group_rebalances() -> None:
    thread: Any = Thread(300.0)
    listener = RebalanceIsActivity(thread)
    for _ in range(2):
        assert thread.state.fetcher_idle_time > 0
        await listener.on_partitions_revoked(())
        assert thread.state.fetcher_idle_time == 0
        await listener.on_partitions_assigned(())
    assert thread.told == ["begins", "revoked", "assigned 7"] * 2
    assert 0 < thread.state.fetcher_idle_time < 1000


async def test_a_rebalance_that_does_not_end_is_no_activity_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where an agent hangs: the group is to lose it, and it is started again."""
    monkeypatch.setattr("processors.faust_mended.REBALANCE_SECONDS_MAX", 0.0)
    thread: Any = Thread(0.0)
    listener = RebalanceIsActivity(thread)
    await listener.on_partitions_revoked(())
    assert thread.state.fetcher_idle_time == 0
    await asyncio.sleep(0.001)
    assert 0 < thread.state.fetcher_idle_time < 1000


class Beginning:
    """An app whose flow is on, as it is from the first, and its consumer; asked to begin."""

    def __init__(self) -> None:
        self.consumer = self.flow_control = self.conf = self.assignor = self._fetcher = self
        self.on_rebalance_complete = self
        self.stream_recovery_delay, self.broker_request_timeout = 0.0, PATIENCE_SECONDS
        self.consumer_generation_id, self.store = 3, "memory://"
        self.flow_active = self.queues_open = True
        self.seen: list[tuple[str, bool]] = []

    def _saw(self, what: str) -> None:
        self.seen.append((what, self.flow_active or self.queues_open))

    def stop_flow(self) -> None:
        self.flow_active = False

    def suspend(self) -> None:
        self.queues_open = False

    def resume_flow(self) -> None:
        self.flow_active = True

    def resume(self) -> None:
        self.queues_open = True

    def assignment(self) -> set[TP]:
        return {PLACE, NEW}

    def resume_partitions(self, places: set[TP]) -> None:
        assert places == {PLACE, NEW}
        self._saw("partitions flow")

    async def perform_seek(self) -> None:
        self._saw("seek begins")
        await asyncio.sleep(0)
        self._saw("seek ends")

    async def maybe_start(self) -> None:
        self._saw("fetcher starts")

    async def send(self) -> None: ...

    def assigned_standbys(self) -> set[TP]:
        return set()

    def on_rebalance_end(self) -> None: ...


@pytest.mark.parametrize("begin", ["on_recovery_completed", "_resume_streams"])
async def test_no_message_flows_before_it_is_known_where_to_begin(begin: str) -> None:
    """With tables, after a changelog was read, and without any: Faust's own code, mended."""
    app: Any = Beginning()
    app.tables = EagerTables(app)
    await getattr(app.tables.recovery, begin)(3)

    assert app.seen == [
        ("partitions flow", False),
        ("seek begins", False),
        ("seek ends", False),
        ("fetcher starts", True),
    ]


@pytest.mark.parametrize("begin", ["on_recovery_completed", "_resume_streams"])
async def test_faust_itself_still_lets_messages_flow_first(begin: str) -> None:
    """If this fails, an upgraded Faust has mended it, and our recovery can go."""
    app: Any = Beginning()
    app.tables = EagerTables(app)
    await getattr(Recovery(app, app.tables), begin)(3)

    assert app.seen[:2] == [("partitions flow", True), ("seek begins", True)]


def test_an_app_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asyncio.run(FolderlessApp("x.process.head", store="memory://").on_first_start())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", VERSIONS)
def test_another_faust_is_refused(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    found = VERSIONS | {package: "99.0"}
    monkeypatch.setattr("processors.faust_mended.metadata.version", found.__getitem__)
    with pytest.raises(FaustUntested, match=rf"HR-6207: {package} 99\.0"):
        check_version()


def test_the_installed_faust_is_the_one_that_is_mended() -> None:
    assert {package: metadata.version(package) for package in VERSIONS} == VERSIONS
