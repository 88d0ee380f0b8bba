"""A broker and a ClickHouse in; a chain's messages, sinks as threads and what they stored out."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from infra.clickhouse.server import EmbeddedServer
from infra.devchain.chain import Chain
from infra.kafka.clients import client_config, consumer_config
from infra.kafka.producer import EnvelopeProducer
from infra.roles.role_run import RoleRun
from infra.roles.sink import SinkRole, sink_group
from infra.roles.topic_reader import TopicReader
from infra.settings import Settings
from infra.settings_cluster import KafkaSettings
from infra.source import ChainSource
from infra.storage import Storage
from ingest.publish import segment_envelopes
from processors.abi import build_layouts
from processors.steps import build_steps
from schemas.segments import DATA_TOPICS, Envelope, Lane, data_topic, segment_envelope
from schemas.tables import Verification
from schemas.topics import topic_name
from sinks.canon_row import Missing
from sinks.connection import Connection
from tests.e2e.running import CHAIN, PARTITION_BLOCKS, SEGMENT_BLOCKS, small_chain, tables
from tests.ingest.devchain_node import pool_of, served
from tests.patience import PATIENCE_SECONDS
from tests.stored_truth import assert_stored

CHAIN_ID = 1337
BLOCKS = 100
LANES: tuple[Lane, ...] = ("history",)


def settings_of(kafka: KafkaSettings, server: EmbeddedServer, **limits: object) -> Settings:
    """What every role of the test is told."""
    endpoint = server.endpoint()
    url = f"clickhouse://{endpoint.user}:{endpoint.password}@{endpoint.host}:{endpoint.port}"
    return Settings(
        chain=CHAIN,
        from_block=0,
        segment_blocks=SEGMENT_BLOCKS,
        partition_blocks=PARTITION_BLOCKS,
        kafka=kafka,
        clickhouse={"url": url},
        # A drain that takes longer than its limit would end this process.
        roles={"lanes": LANES, "drain_seconds_max": 3600},
        limits={"batch_seconds_max": 0.2, **limits},
    )


def made_chain() -> Chain:
    """A chain of `BLOCKS` blocks."""
    chain = small_chain(5)
    chain.mine(BLOCKS)
    return chain


async def messages_of(chain: Chain, settings: Settings) -> list[Envelope]:
    """Every message of the chain's history, of all streams, in order of blocks."""
    source = ChainSource(settings, settings.facts, CHAIN_ID)
    steps = build_steps(build_layouts())
    found: list[Envelope] = []
    async with served(chain) as node, pool_of(node) as pool:
        fetcher = source.fetcher(pool, Verification.receipts)
        for first in range(0, BLOCKS, SEGMENT_BLOCKS):
            fetched = await fetcher.fetch(range(first, first + SEGMENT_BLOCKS), "history")
            raw = segment_envelopes(fetched.built, SEGMENT_BLOCKS)
            found += raw
            value = raw[-1].value
            for step in steps:
                derived = step.derive(value)
                value = derived.value
                found.append(segment_envelope(derived.name, SEGMENT_BLOCKS, value))
    return found


def send(kafka: KafkaSettings, envelopes: Sequence[Envelope]) -> None:
    """Put messages where they belong."""
    with EnvelopeProducer(kafka) as producer:
        for envelope in envelopes:
            producer.put_blocking(envelope)
        assert producer.flush(PATIENCE_SECONDS) == 0


def until(met: Callable[[], object], otherwise: str = "") -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not met():
        assert time.monotonic() < end, otherwise or "it never came"
        time.sleep(0.05)


@dataclass
class Running:
    """A role in a thread of this process."""

    run: RoleRun
    thread: threading.Thread
    failure: list[BaseException]

    def end(self) -> None:
        """Drain it; raise what it failed of."""
        self.run.stop()
        self.join()

    def join(self) -> None:
        """Wait for its end; raise what it failed of."""
        self.thread.join(PATIENCE_SECONDS)
        self.run.ended()
        assert not self.thread.is_alive()
        if self.failure:
            raise self.failure[0]


def start(role: str, settings: Settings, work: Callable[[RoleRun], None]) -> Running:
    """Run a role's work in a thread."""
    run, failure = RoleRun(role, settings), list[BaseException]()

    def target() -> None:
        try:
            work(run)
        except BaseException as error:  # noqa: BLE001 - the test asks for it
            failure.append(error)

    # Of a test that fails while it runs nobody waits for it.
    thread = threading.Thread(target=target, name=role, daemon=True)
    thread.start()
    return Running(run, thread, failure)


def start_sink(settings: Settings, *, accept_lost: bool = False) -> Running:
    """A sink in a thread."""
    return start(
        "sink", settings, lambda run: SinkRole(run, settings, accept_lost=accept_lost).work()
    )


@contextlib.contextmanager
def prepared(kafka: KafkaSettings, server: EmbeddedServer) -> Iterator[Stored]:
    """The chain's database, made, and removed at the end."""
    stored = Stored(settings_of(kafka, server), server)
    stored.migrate()
    yield stored
    with Connection(server.endpoint()) as admin:
        for name in (CHAIN, f"{CHAIN}_safe", f"{CHAIN}_finalized"):
            admin.execute(f"DROP DATABASE IF EXISTS {name} SYNC")


class Stored:
    """What the sinks have stored, and what a publisher would show of it."""

    def __init__(self, settings: Settings, server: EmbeddedServer) -> None:
        self.settings, self.server = settings, server
        self.kafka = settings.kafka
        self.admin: Any = AdminClient(client_config(self.kafka))

    def storage(self, *, prepare: bool = False) -> Storage:
        source = ChainSource(self.settings, self.settings.facts, CHAIN_ID)
        endpoint = self.server.endpoint()
        return Storage(self.settings, endpoint, source, build_layouts(), prepare=prepare)

    def migrate(self) -> None:
        self.storage(prepare=True).close()

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        with Connection(self.server.endpoint(database=CHAIN)) as connection:
            yield connection

    def ledger(self) -> list[tuple[str, int, int]]:
        """(stream, first block, load) of every ledger row."""
        with self.connection() as connection:
            return [
                (stream, first, load)
                for stream, first, load in connection.execute(
                    "SELECT stream, from_block, load_id FROM ledger ORDER BY ALL"
                )
            ]

    def segments(self) -> int:
        """How many different segments have a load."""
        return len({row[:2] for row in self.ledger()})

    def ends(self, lane: Lane = "history") -> dict[tuple[str, int], int]:
        """End of every partition of the lane's topics."""
        found = {}
        for stream in DATA_TOPICS:
            topic = data_topic(stream, lane)
            with TopicReader(self.kafka, topic) as reader:
                for partition in reader.partitions():
                    found[topic_name(self.kafka.topic_prefix, topic), partition] = reader.bounds(
                        partition
                    )[1]
        return found

    def committed(self, lane: Lane = "history") -> dict[tuple[str, int], int]:
        """What the group has committed."""
        config = consumer_config(self.kafka, sink_group(self.kafka.topic_prefix, lane))
        config.pop("group.instance.id", None)
        consumer: Any = Consumer(config)
        try:
            parts = [TopicPartition(*key) for key in self.ends(lane)]
            found = consumer.committed(parts, timeout=PATIENCE_SECONDS)
        finally:
            consumer.close()
        return {(part.topic, part.partition): max(0, part.offset) for part in found}

    def all_committed(self) -> bool:
        """Whether the group has read everything."""
        return self.committed() == self.ends()

    def commit(self, offset: int, lane: Lane = "history") -> None:
        """Set the group's offsets; it must have no member."""
        group = sink_group(self.kafka.topic_prefix, lane)
        parts = [TopicPartition(*key, offset) for key in self.ends(lane)]
        asked = [ConsumerGroupTopicPartitions(group, parts)]
        (answer,) = self.admin.alter_consumer_group_offsets(asked).values()
        answer.result()

    def check_truth(
        self, chain: Chain, bring: Callable[[Sequence[Missing]], None] | None = None
    ) -> None:
        """A publisher makes exactly the chain's rows visible.

        Parameters
        ----------
        chain
            The chain.
        bring
            Loads once more what the publisher asks for: loads of two sinks that had a segment at
            once may leave a gap between those that can be shown together.
        """
        head, missing = self._shown()
        while bring is not None and head < BLOCKS - 1:
            assert missing, "it shows less, and asks for nothing"
            bring(missing)
            head, missing = self._shown()
        assert head == BLOCKS - 1, missing
        with self.connection() as connection:
            assert_stored(connection, tables(), chain.blocks()[:BLOCKS])

    def _shown(self) -> tuple[int, list[Missing]]:
        """The head that a publisher shows, and what it asks for."""
        storage = self.storage()
        missing: list[Missing] = []
        try:
            publisher = storage.publisher(0, missing.append, lambda _row: None)
            publisher.claim()
            publisher.run_once()
            row = publisher.visible()
            assert row is not None
            return row.head.number, missing
        finally:
            storage.close()


def config_file(settings: Settings, folder: Path) -> Path:
    """The settings as a file, for a command."""
    path = folder / "headrace.toml"
    kafka, url = settings.kafka, settings.clickhouse.url
    assert url is not None
    path.write_text(
        f"chain = '{CHAIN}'\nfrom = 0\nsegment_blocks = {SEGMENT_BLOCKS}\n"
        f"partition_blocks = {PARTITION_BLOCKS}\n[kafka]\nbootstrap = ['{kafka.bootstrap[0]}']\n"
        f"topic_prefix = '{kafka.topic_prefix}'\npartitions = {kafka.partitions}\n"
        f"[clickhouse]\nurl = '{url.get_secret_value()}'\n[roles]\nlanes = ['history']\n"
    )
    return path
