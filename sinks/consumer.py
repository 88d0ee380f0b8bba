"""One lane's topics in, loads in ClickHouse and committed offsets out: the loop of a sink.

The order is fixed: rows, ledger, then the offset. Whatever cuts the loop short, also between these,
makes messages come again, and a segment that comes again is known or counts once. While ClickHouse
does not answer the partitions are paused and the loop goes on polling, so that the group keeps its
members; a loop that was held up for so long that the group gave its partitions away starts over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from schemas.errors import HeadraceError, Transient
from schemas.errors_roles import ConsumerFailed, InstanceTaken
from schemas.errors_sinks import WriteAbandoned
from schemas.segments import AGAIN, Envelope
from sinks.consumer_terms import ConsumerSettings, Watch
from sinks.group_member import envelope_of, leave_group
from sinks.known_segments import KnownSegments
from sinks.offsets import Offsets, Place
from sinks.pace import Pace
from sinks.segment_loader import SegmentLoader
from sinks.segment_message import SegmentReader

log = structlog.get_logger(__name__)

OFFSETS_TIMEOUT_SECONDS = 10.0
"""How long the brokers may take to say where a partition begins and ends."""
COMMIT_AGAIN_SECONDS = 30.0
"""How often all offsets are committed, moved or not: nobody hears of a commit that failed."""
REPORT_SECONDS = 2.0
"""How often the lag is reported."""


class LaneConsumer:
    """The loop of one lane; everything runs in the thread that calls `run`.

    Parameters
    ----------
    consumer
        A consumer that is not subscribed; the loop closes it.
    group
        Its group, for messages.
    topics
        The lane's topics: name on the brokers → name in an `Envelope`.
    reader, known
        Of this loop.
    make_loader
        Makes the loader from what takes durable and refused places.
    dead_letter
        Takes a refused message with its place and the reason, and returns when it is kept.
    fetch
        Reads one message anew, for one that is refused after it was taken.
    lost
        The error for messages that Kafka dropped: (topic, partition, offset, reason).
    check_contact
        Raises when the brokers have not answered for too long.
    watch
        Told how the loop does.
    """

    def __init__(
        self,
        consumer: Any,
        group: str,
        topics: Mapping[str, str],
        reader: SegmentReader,
        known: KnownSegments,
        make_loader: Callable[
            [Callable[[Place], None], Callable[[Place, HeadraceError], None]], SegmentLoader
        ],
        *,
        dead_letter: Callable[[Envelope, Place, HeadraceError], None],
        fetch: Callable[[str, int, int], Envelope],
        lost: Callable[[str, int, int, str], HeadraceError],
        check_contact: Callable[[Any], None],
        watch: Watch,
        settings: ConsumerSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.offsets = Offsets()
        self.refused = 0
        """Messages that went to dead_letters."""
        self.loader = make_loader(self.offsets.done, self._refuse_late)
        self._consumer, self._group, self._topics = consumer, group, dict(topics)
        self._reader, self._known = reader, known
        self._dead_letter, self._fetch, self._lost = dead_letter, fetch, lost
        self._check_contact, self._watch, self._clock = check_contact, watch, clock
        self._settings = settings or ConsumerSettings()
        self._inbox: list[Any] = []
        self._stale = True
        self._writing = False
        self._failure: HeadraceError | None = None
        self._blocked_since: float | None = None
        self._blocked_until = 0.0
        self._pause = 0.0
        self._reported_at = self._committed_at = self._all_committed_at = clock()
        quiet = self._settings.quiet_seconds_min, self._settings.quiet_seconds_max
        self._pace = Pace(*quiet, self._reported_at)

    def run(self, stopping: Callable[[], bool]) -> None:
        """Load what comes until told to stop; then write and commit what was taken.

        Raises
        ------
        InstanceTaken
            If the group has put this member out, before it was told to stop.
        OffsetsLost
            If messages that were needed are gone.
        HeadraceError
            Whatever ends the contact with the brokers or with ClickHouse.
        """
        self._consumer.subscribe(
            list(self._topics),
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        try:
            while not stopping():
                self.turn()
            self._inbox.clear()
            self._write(hurry=True)
        except InstanceTaken as error:
            # It was to leave anyway: what is not committed is read by who has its partitions now.
            if not stopping():
                raise
            log.info("ended_as_no_member", group=self._group, reason=error.what_text)
        finally:
            self._leave()

    def _leave(self) -> None:
        """Commit what is durable and leave the group."""
        self._commit(wait=True)
        leave_group(self._consumer, self._clock)

    def turn(self) -> None:
        """Take what has come, write what is due, commit what is durable."""
        self._check_contact(self._consumer)
        self._poll()
        if self._failure is not None:
            raise self._failure
        # After the poll: it tells whether the partitions are still ours.
        self._commit()
        more = len(self._inbox) >= self._settings.messages_max
        if self._stale:
            self._try(self._read_names)
        if not self._stale:
            inbox, self._inbox = self._inbox, []
            for message in inbox:
                self._take(message)
            self._write(more=more, hurry=self._pace.ended(self._clock()))
        self._report()
        self._watch.turn()

    # --- messages -------------------------------------------------------------------------------

    def _poll(self) -> None:
        """Take what has come into the inbox.

        One message a call: only so is it certain that a message that is handed over after the
        callbacks of the group belongs to the assignment of now.
        """
        message = self._consumer.poll(self._settings.poll_seconds)
        while message is not None and self._failure is None:
            self._receive(message)
            if len(self._inbox) >= self._settings.messages_max:
                return
            message = self._consumer.poll(0)

    def _receive(self, message: Any) -> None:
        if message.error() is not None:
            self._on_error(message)
        else:
            self._inbox.append(message)

    def _take(self, message: Any) -> None:
        place = self.offsets.take(message.topic(), message.partition(), message.offset())
        if place is None:
            return
        self._pace.took(self._clock())
        envelope = envelope_of(message, self._topics[message.topic()])
        try:
            segment = self._reader.read(envelope)
        except HeadraceError as error:
            self._refuse(envelope, place, error)
            return
        self.loader.take(segment, place, envelope.headers.get(AGAIN))

    def _refuse_late(self, place: Place, error: HeadraceError) -> None:
        topic = self._topics[place.topic]
        self._refuse(self._fetch(topic, place.partition, place.offset), place, error)

    def _refuse(self, envelope: Envelope, place: Place, error: HeadraceError) -> None:
        log.warning(
            "message_refused",
            topic=place.topic,
            partition=place.partition,
            offset=place.offset,
            code=error.code,
            what=error.what_text,
        )
        self._dead_letter(envelope, place, error)
        self.refused += 1
        self.offsets.done(place)

    def _on_error(self, message: Any) -> None:
        error: KafkaError = message.error()
        code = error.code()
        if code == KafkaError._AUTO_OFFSET_RESET:
            key = (message.topic(), message.partition())
            offset = self.offsets.positions().get(key, 0)
            raise self._lost(*key, offset, error.str())
        if code in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL):
            raise InstanceTaken(group=self._group, reason=error.str())
        if code == KafkaError._MAX_POLL_EXCEEDED:
            # The group is told at the next poll; what we would commit until then is refused.
            log.warning("partitions_lost_while_busy", group=self._group, reason=error.str())
            self._give_up(self.offsets.assigned)
        elif code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            raise ConsumerFailed(group=self._group, reason=error.str())
        else:
            log.info("consumer_error", group=self._group, reason=error.str())

    # --- ClickHouse -----------------------------------------------------------------------------

    def _write(self, *, more: bool = False, hurry: bool = False) -> None:
        def write() -> None:
            self._writing = True
            try:
                self.loader.write(more=more, hurry=hurry, between=self._stay)
            finally:
                self._writing = False

        self._try(write)

    def _stay(self) -> None:
        """Poll between two writes, so that the group sees that we live."""
        self._pace.was_busy(self._clock())
        message = self._consumer.poll(0)
        if message is not None:
            self._receive(message)

    def _read_names(self) -> None:
        self._known.load()
        self._stale = False

    def _try(self, act: Callable[[], None]) -> None:
        """Do something with ClickHouse; pause the partitions while that fails."""
        now = self._clock()
        if now < self._blocked_until:
            return
        try:
            act()
        except (Transient, WriteAbandoned) as error:
            self._block(error)
            return
        if self._blocked_since is not None:
            log.info("clickhouse_again", after_seconds=round(now - self._blocked_since, 1))
            self._blocked_since, self._pause = None, 0.0
            self._consumer.resume(self._owned())
        self._watch.ready("clickhouse", met=True)

    def _block(self, error: HeadraceError) -> None:
        now = self._clock()
        if self._blocked_since is None:
            self._blocked_since = now
            self._consumer.pause(self._owned())
        if now - self._blocked_since >= self._settings.patience_seconds:
            raise error
        self._pause = min(max(0.2, 2 * self._pause), self._settings.pause_seconds_max)
        self._blocked_until = now + self._pause
        self._watch.ready("clickhouse", met=False, note=error.what_text)
        log.warning(
            "clickhouse_waited_for",
            group=self._group,
            code=error.code,
            what=error.what_text,
            gives_up_after_seconds=self._settings.patience_seconds,
        )

    # --- offsets --------------------------------------------------------------------------------

    def _commit(self, *, wait: bool = False, only: Sequence[tuple[str, int]] | None = None) -> None:
        now = self._clock()
        if not wait and now - self._committed_at < self._settings.commit_seconds:
            return
        self._committed_at = now
        again = wait or now - self._all_committed_at >= COMMIT_AGAIN_SECONDS
        if again and not wait:
            self._all_committed_at = now
        offsets = self.offsets.to_commit(again=again)
        if only is not None:
            offsets = {key: offset for key, offset in offsets.items() if key in only}
        if not offsets:
            return
        parts = [TopicPartition(*key, offset) for key, offset in offsets.items()]
        try:
            self._consumer.commit(offsets=parts, asynchronous=not wait)
        except KafkaException as error:
            # Whoever has the partitions next reads some messages again.
            log.info("commit_failed", group=self._group, reason=str(error))
        else:
            self.offsets.committed(offsets)

    def _report(self) -> None:
        now = self._clock()
        if now - self._reported_at < REPORT_SECONDS:
            return
        self._reported_at = now
        lags = {}
        for (topic, partition), position in self.offsets.positions().items():
            part = TopicPartition(topic, partition)
            _, high = self._consumer.get_watermark_offsets(part, cached=True)
            if high >= 0:
                lags[self._topics[topic], partition] = max(0, high - position)
        self._watch.lag(lags)

    # --- the group ------------------------------------------------------------------------------

    def _owned(self) -> list[Any]:
        return [TopicPartition(*key) for key in self.offsets.assigned]

    def _on_assign(self, consumer: Any, parts: list[Any]) -> None:
        log.info("partitions_assigned", group=self._group, partitions=_listed(parts))
        try:
            starts = [self._start(consumer, part) for part in parts]
        except HeadraceError as error:
            self._failure = error
            return
        except KafkaException as error:
            self._failure = ConsumerFailed(group=self._group, reason=str(error))
            return
        for part in starts:
            self.offsets.assign(part.topic, part.partition, part.offset)
        self._stale = True
        consumer.incremental_assign(starts)
        if self._blocked_since is not None:
            consumer.pause(starts)
        self._watch.ready("kafka", met=True)

    def _start(self, consumer: Any, part: Any) -> Any:
        """Where a partition is to be read from: what is committed, if it is still there."""
        found, low, high = self._ask(consumer, part)
        committed = max(0, found)
        if low <= committed <= high:
            return TopicPartition(part.topic, part.partition, committed)
        reason = f"the oldest kept is {low}, the next new one {high}"
        if not self._settings.accept_lost:
            raise self._lost(part.topic, part.partition, committed, reason)
        log.warning("offsets_skipped", topic=part.topic, partition=part.partition, reason=reason)
        return TopicPartition(part.topic, part.partition, low)

    def _ask(self, consumer: Any, part: Any) -> tuple[int, int, int]:
        """What is committed of a partition, its first offset and its end."""
        until = self._clock() + OFFSETS_TIMEOUT_SECONDS
        while True:
            try:
                (found,) = consumer.committed([part], timeout=OFFSETS_TIMEOUT_SECONDS)
                low, high = consumer.get_watermark_offsets(part, timeout=OFFSETS_TIMEOUT_SECONDS)
            except KafkaException as error:
                log.info("offsets_asked_again", group=self._group, reason=str(error))
                if self._clock() >= until:
                    raise
            else:
                return found.offset, low, high

    def _on_revoke(self, consumer: Any, parts: list[Any]) -> None:
        log.info("partitions_revoked", group=self._group, partitions=_listed(parts))
        settled = not (self._stale or self._writing)
        if settled and self._blocked_since is None and self._failure is None:
            try:
                self.loader.write(hurry=True)
            except HeadraceError as error:
                log.info("not_written_before_revoked", code=error.code)
        keys = [(part.topic, part.partition) for part in parts]
        self._commit(wait=True, only=keys)
        self._give_up(keys)
        consumer.incremental_unassign(parts)

    def _on_lost(self, consumer: Any, parts: list[Any]) -> None:
        log.warning("partitions_lost", group=self._group, partitions=_listed(parts))
        self._give_up([(part.topic, part.partition) for part in parts])
        consumer.incremental_unassign(parts)

    def _give_up(self, keys: Sequence[tuple[str, int]]) -> None:
        """Partitions are not ours any more: what was received of them comes again, here or not."""
        for key in keys:
            self.offsets.revoke(*key)
        self._inbox = [one for one in self._inbox if (one.topic(), one.partition()) not in keys]


def _listed(parts: Sequence[Any]) -> str:
    return " ".join(sorted(f"{part.topic}/{part.partition}" for part in parts))
