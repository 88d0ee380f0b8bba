"""Queues in, queues and ClickHouse out: the threads that run the pure stages, embedded.

Each stage takes envelopes from one queue, calls one function, and forwards: in the cluster the
same functions are called by Faust agents and sink workers. A stage that fails stops the pipeline
loudly: whatever was not yet in the ledger is fetched again by the next run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from infra.queues import ByteQueue, QueueClosed
from infra.turns import Turns
from processors.abi import Layouts
from processors.aggregate import aggregate_events
from processors.decode import decode_logs
from processors.fork import Applied, ForkState, Halt
from processors.reorg import advance
from schemas.codec import (
    decode_finality_advanced,
    decode_head_observed,
    decode_log_segment,
    encode_aggregate_segment,
    encode_event_segment,
)
from schemas.segments import Envelope, ForkUpdate, segment_envelope
from schemas.tables import Table

POLL_SECONDS = 0.25
"""How long a stage waits for an envelope before it looks at its other duties."""


class Failures:
    """The first failure of any stage; setting it stops the pipeline."""

    def __init__(self) -> None:
        self.first: BaseException | None = None
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` once, from the failing stage's thread, when a stage fails."""
        self._listeners.append(listener)

    def report(self, error: BaseException) -> None:
        """Keep the first failure and tell the listeners."""
        with self._lock:
            if self.first is not None:
                return
            self.first = error
        for listener in self._listeners:
            listener()


@dataclass(slots=True)
class Counts:
    """What has left a stage since the start."""

    blocks: int = 0
    """Blocks, or block copies where a stage sees several streams of one."""
    logs: int = 0
    """Logs, or rows."""


@dataclass(slots=True)
class Router:
    """Where ingest puts its envelopes: each topic to the queues that take it."""

    sinks: ByteQueue
    """Data topics for ClickHouse."""
    decode: ByteQueue
    """raw.logs for the decoder."""
    heads: ByteQueue
    """raw.heads for the reorg agent."""

    async def put(self, envelope: Envelope) -> None:
        """Put an envelope where its topic belongs, waiting while there is no room."""
        if envelope.topic == "raw.heads":
            await self.heads.put(envelope)
            return
        await self.sinks.put(envelope)
        if envelope.topic.startswith("raw.logs."):
            await self.decode.put(envelope)


@dataclass(slots=True)
class Stage:
    """A thread that takes envelopes from a queue until the queue is closed and drained."""

    name: str
    """Shown in the display and as the thread's name."""
    queue: ByteQueue
    """Where it takes from."""
    apply: Callable[[Envelope], None]
    """What it does with one envelope."""
    failures: Failures
    """Where it reports."""
    idle: Callable[[], None] = lambda: None
    """What it does after each envelope and at least every `POLL_SECONDS`."""
    counts: Counts = field(default_factory=Counts)
    """What left it."""
    turns: Turns = field(default_factory=Turns)
    """Shared with the threads that it takes turns with."""
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def join(self, timeout_seconds: float) -> bool:
        """Wait for the thread's end; False when the time is up."""
        if self._thread is None:
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while True:
                envelope = self.queue.get(POLL_SECONDS)
                with self.turns.take():
                    if envelope is not None:
                        self.apply(envelope)
                    self.idle()
        except QueueClosed:
            return
        except BaseException as error:  # noqa: BLE001 - a dead stage must stop the pipeline
            self.failures.report(error)


def decode_apply(
    layouts: Layouts,
    segment_blocks: int,
    source: ByteQueue,
    target: ByteQueue,
    counts: Counts,
    turns: Turns,
) -> Callable[[Envelope], None]:
    """The decode stage: raw.logs in, events and what they add up to out."""
    tables: Mapping[str, Table] = {table.name: table for table in layouts.tables}

    def put(envelope: Envelope) -> None:
        if not target.put_at_once(envelope):
            with turns.leave():
                target.put_blocking(envelope)

    def apply(envelope: Envelope) -> None:
        segment = decode_log_segment(envelope.value)
        events = decode_logs(segment, layouts)
        value = encode_event_segment(events, tables)
        message = segment_envelope(events.name, segment_blocks, value)
        put(replace(message, segment=events))
        aggregates = aggregate_events(events)
        value = encode_aggregate_segment(aggregates)
        message = segment_envelope(aggregates.name, segment_blocks, value)
        put(replace(message, segment=aggregates))
        counts.blocks += segment.headers.rows
        counts.logs += segment.logs.rows
        source.done()

    return apply


class ReorgStage:
    """The reorg stage: raw.heads in, fork updates out."""

    def __init__(
        self, state: ForkState, source: ByteQueue, publish: Callable[[ForkUpdate], None]
    ) -> None:
        self.state = state
        self._source = source
        self._publish = publish

    def apply(self, envelope: Envelope) -> None:
        """Advance the fork state by one observation; raise the error of a halt."""
        if envelope.headers["schema"] == "HeadObserved":
            observed = decode_head_observed(envelope.value)
            self.state, events = advance(self.state, observed)
        else:
            self.state, events = advance(self.state, decode_finality_advanced(envelope.value))
        for event in events:
            if isinstance(event, Applied):
                self._publish(event.update)
            elif isinstance(event, Halt):
                raise event.error
        self._source.done()
