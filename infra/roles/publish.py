"""Ledger and forks in, the canon of a chain out: the role `publish`.

One process at a time is a chain's publisher, by the newest claim in the topic `claims`; any other
stands by (`sinks.claims`). Beside the publisher's own thread run: one that follows `forks`, the
chores (compaction, seals, sweeps), one that says that it lives (`infra.roles.claim_beat`), and the
main loop, which listens to `claims` and asks for segments that are lost.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from typing import Literal

import structlog

from infra.kafka.admin import check_topics
from infra.kafka.producer import EnvelopeProducer
from infra.patience import patiently
from infra.roles.chain_database import await_storage, check_named
from infra.roles.claim_beat import ClaimBeat
from infra.roles.doubt_watch import DoubtWatch
from infra.roles.fork_tail import ForkTail
from infra.roles.in_flight import Brokers, InFlight
from infra.roles.publish_metrics import PublishMetrics
from infra.roles.role_run import RoleRun, run_role
from infra.roles.segment_requests import SegmentRequests
from infra.roles.topic_reader import Read, TopicReader
from infra.roles.whereabouts import is_gone, whereabouts
from infra.settings import Settings
from infra.storage import Storage
from schemas.codec import UnknownMessage, decode_publisher_claim, encode_publisher_claim
from schemas.errors_roles import ClaimTooOld, FloorUnknown
from schemas.segments import Envelope, ForkUpdate, PublisherClaim
from schemas.topics import CLAIMS
from sinks.canon_table import newest_generation
from sinks.claims import Claims, Owner
from sinks.compaction import Compactor
from sinks.dead_letters import dead_letter
from sinks.publisher import Publisher
from sinks.rewind import Rewinder
from sinks.sealer import Sealer
from sinks.sweeper import Sweeper
from sinks.upkeep import Upkeep

log = structlog.get_logger(__name__)

STAGE = "publish"
POLL_SECONDS = 0.1
"""How often the ledger is asked for new loads."""
TAIL_SECONDS = 0.25
"""How long the main loop listens to `claims` before it looks at its other duties."""
LOOK_BACK = 2_000
"""How many words of the topic `claims` are read at the start."""
CLAIMS_MAX = 1_000_000
"""Claims made at once, at most, to come above the newest generation."""


def run_publish(settings: Settings) -> int:
    """Publish until told to stop, or until another publisher claims the chain.

    Raises
    ------
    StalePublisher
        If another one has claimed it.
    HeadraceError
        Whatever else ends the role.
    """
    return run_role("publish", settings, lambda run: PublishRole(run, settings).work())


class PublishRole:
    """One process's part in publishing a chain."""

    def __init__(self, run: RoleRun, settings: Settings) -> None:
        self._run, self._settings, self._kafka = run, settings, settings.kafka
        self._id = secrets.token_hex(8)
        self._place = whereabouts()
        self._host = f"{settings.kafka.instance or ''}@{self._place}"
        self._metrics = PublishMetrics(run)
        self._doubts = DoubtWatch()
        self._failure: BaseException | None = None
        self._ended = threading.Event()

    def work(self) -> None:
        """Stand by, claim, publish.

        Raises
        ------
        HeadraceError
            What ended it.
        """
        check_named(self._settings, "publish")
        self._run.health.expect("kafka", "clickhouse")
        partitions = check_topics(self._kafka)
        self._run.health.ready("kafka")
        storage = await_storage(self._settings, "publish", self._run.stopping)
        if storage is None:
            return
        self._run.health.ready("clickhouse")
        with (
            EnvelopeProducer(self._kafka, partitions, client_id="headrace-publish") as producer,
            TopicReader(self._kafka, CLAIMS, stopping=self._run.stopping) as tail,
        ):
            try:
                claims = self._hear(tail, storage.chain_id)
                if self._stand_by(tail, claims):
                    self._publish(storage, producer, tail, claims)
            finally:
                storage.close()

    # --- claims ---------------------------------------------------------------------------------

    def _hear(self, tail: TopicReader, chain_id: int) -> Claims:
        """What was said before; then the tail goes on with what comes."""
        claims = Claims(chain_id, time.monotonic())
        low, high = tail.bounds()
        for read in tail.read(0, max(low, high - LOOK_BACK), high):
            self._take_word(claims, read)
        tail.seek(high)
        return claims

    def _take_word(self, claims: Claims, read: Read) -> None:
        try:
            word = decode_publisher_claim(read.envelope.value)
        except UnknownMessage as error:
            log.warning("claim_unread", offset=read.offset, what=error.what_text)
            return
        claims.hear(read.offset, word, time.monotonic())

    def _stand_by(self, tail: TopicReader, claims: Claims) -> bool:
        """Wait until the chain may be claimed; False where the role is stopped before."""
        told: Owner | None = None
        while not self._run.stopping.is_set():
            if claims.may_claim(time.monotonic(), self._is_dead):
                return True
            if claims.owner != told:
                told = claims.owner
                log.info("publisher_stands_by", owner=str(told))
            self._run.health.beat("publish")
            for read in tail.poll(TAIL_SECONDS):
                self._take_word(claims, read)
        return False

    def _is_dead(self, owner: Owner) -> bool:
        """Whether an owner ran here and is gone; of any other machine nothing is known."""
        return is_gone(owner.host.rpartition("@")[2], owner.pid, self._place)

    def _claim(self, producer: EnvelopeProducer, storage: Storage) -> int:
        """Claim the chain; the generation is above whatever stands in the database."""
        newest = patiently(
            lambda: newest_generation(storage.reader, storage.database), self._run.stopping
        )
        word = self._word(storage, "claim", 0)
        _, offset = producer.deliver_blocking(word)
        behind = newest - offset
        if behind > CLAIMS_MAX:
            raise ClaimTooOld(database=storage.database, newest=newest, offset=offset)
        for _ in range(behind - 1):
            producer.put_blocking(word)
        if behind > 0:
            _, offset = producer.deliver_blocking(word)
        return offset + 1

    def _word(
        self, storage: Storage, kind: Literal["claim", "beat", "release"], generation: int
    ) -> Envelope:
        claim = PublisherClaim(
            chain_id=storage.chain_id,
            kind=kind,
            generation=generation,
            publisher=self._id,
            host=self._host,
            pid=os.getpid(),
            observed_at_ms=int(time.time() * 1000),
        )
        key = str(storage.chain_id).encode()
        headers = {"chain_id": key.decode(), "schema": "PublisherClaim"}
        return Envelope(CLAIMS, key, encode_publisher_claim(claim), headers)

    # --- publishing -----------------------------------------------------------------------------

    def _publish(
        self, storage: Storage, producer: EnvelopeProducer, tail: TopicReader, claims: Claims
    ) -> None:
        """Be the chain's publisher until the role ends."""
        rewinder = Rewinder(storage.connect(), storage.database, storage.facts, storage.tables)
        patiently(rewinder.finish, self._run.stopping)
        generation = self._claim(producer, storage)
        log.info("publisher_claimed", generation=generation)

        def say() -> None:
            producer.put_blocking(self._word(storage, "beat", generation))

        with ClaimBeat(say) as beat:
            self._serve(storage, producer, tail, claims, generation, beat)
        producer.deliver_blocking(self._word(storage, "release", generation))

    def _serve(
        self,
        storage: Storage,
        producer: EnvelopeProducer,
        tail: TopicReader,
        claims: Claims,
        generation: int,
        beat: ClaimBeat,
    ) -> None:
        """Take up what is there, then publish until the role ends."""
        brokers = Brokers(self._kafka)
        in_flight = InFlight(
            storage.facts,
            storage.chain_id,
            self._kafka.topic_prefix,
            check_topics(self._kafka),
            brokers.end_of,
            brokers.committed,
        )
        requests = SegmentRequests(storage.chain_id, f"{generation}.{self._id}", in_flight)
        publisher = storage.publisher(
            self._floor(storage),
            requests.want,
            self._metrics.on_row,
            poll_seconds=POLL_SECONDS,
            retry_seconds=self._settings.clickhouse.unreachable_seconds_max,
        )
        patiently(lambda: publisher.claim(generation), self._run.stopping)
        upkeep = self._upkeep(storage, publisher)
        forks = threading.Thread(
            target=self._follow, args=(storage, producer, publisher), name="forks"
        )
        publisher.start()
        upkeep.start()
        forks.start()
        try:
            while not self._run.stopping.is_set():
                beat.step()
                self._failure = self._failure or beat.failure
                self._turn(producer, tail, claims, publisher, upkeep, requests)
        finally:
            self._ended.set()
            forks.join()
            publisher.stop()
            upkeep.stop()

    def _turn(
        self,
        producer: EnvelopeProducer,
        tail: TopicReader,
        claims: Claims,
        publisher: Publisher,
        upkeep: Upkeep,
        requests: SegmentRequests,
    ) -> None:
        failure = self._failure or publisher.failure or upkeep.failure
        if failure is not None:
            raise failure
        self._run.health.beat("publish")
        for read in tail.poll(TAIL_SECONDS):
            self._take_word(claims, read)
        newer = claims.superseded_by(publisher.generation)
        if newer is not None:
            raise publisher.supersede(newer.generation)
        self._doubts.look(publisher.doubt, time.monotonic())
        row = publisher.visible()
        for wanted in requests.take(row.head.number if row is not None else -1):
            log.warning("segment_wanted", reason=wanted.headers.get("reason", ""))
            producer.deliver_blocking(wanted)

    def _follow(self, storage: Storage, producer: EnvelopeProducer, publisher: Publisher) -> None:
        """Follow the topic `forks`, in a thread of its own."""

        def apply(update: ForkUpdate) -> None:
            self._metrics.on_fork(update)
            publisher.apply_fork(update)

        def refuse(read: Read, error: UnknownMessage) -> None:
            now_ms = int(time.time() * 1000)
            letter = dead_letter(read.envelope, 0, read.offset, error, STAGE, now_ms)
            producer.deliver_blocking(letter, partition=0)
            self._metrics.on_dead_letter()

        try:
            tail = ForkTail(self._kafka, storage.chain_id, apply, refuse, self._ended)
            try:
                tail.begin()
                while not self._ended.is_set():
                    self._run.health.beat("forks")
                    tail.poll(TAIL_SECONDS)
            finally:
                tail.close()
        except BaseException as error:  # noqa: BLE001 - a dead thread must end the role
            self._failure = error
        finally:
            self._run.health.end_beat("forks")

    def _upkeep(self, storage: Storage, publisher: Publisher) -> Upkeep:
        named = (storage.database, storage.tables, publisher)
        return Upkeep(
            Compactor(storage.connect(), *named),
            Sealer(storage.connect(), *named),
            Sweeper(storage.connect(), *named),
            on_done=lambda done: log.info("chore_done", done=type(done).__name__),
            on_trouble=lambda error: log.info("chore_put_off", code=error.code),
        )

    def _floor(self, storage: Storage) -> int:
        """The first block to show."""
        if self._settings.from_block is not None:
            return self._settings.from_block
        shown = patiently(storage.visible_floor, self._run.stopping)
        if shown is not None:
            return shown
        if storage.facts.chain_id is None:
            return 0
        raise FloorUnknown(database=storage.database)
