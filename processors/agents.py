"""A plan and a producer in, the Faust app of one lane out: messages in, derived messages out.

Not pure, and as thin as it can be: read, call one pure function, forward, acknowledge. Faust
loses messages in most of the ways in which it can be used; this one was found to lose none:

- Events are acknowledged by us (`noack`), in the order of their offsets, once the brokers have
  what follows from them; any failure ends the process, and the message is read again.
- One coroutine an agent: with more, Faust commits past what is not acknowledged. No `take`, no
  transactions. To scale, start more workers.
- Outputs go through librdkafka, to the partition of their source.
- What cannot be read goes to ``dead_letters``, and is acknowledged after that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import faust
import structlog
from faust.types import TP, EventT

from processors.agent_messages import (
    dead_letter_envelope,
    derived_envelope,
    fork_envelope,
    halted,
    header_texts,
    read_observed,
    snapshot_envelope,
)
from processors.agent_plan import SHAPE, Outputs, Plan, Tally, TopicReading
from processors.faust_mended import EagerTables, FolderlessApp, check_version, mend_consumer
from processors.faust_offsets import Acks, Offsets, Waiting, read_all
from processors.fork import Halt, NeedBlock
from processors.fork_codec import decode_fork, encode_fork
from processors.heads import NOTHING, Chain, first_unheard, hear
from processors.steps import Derived, Step
from schemas.codec import UnknownMessage
from schemas.errors import Permanent
from schemas.errors_kafka import MessageTooLarge
from schemas.errors_process import ForkStateLost
from schemas.segments import (
    AGAIN,
    RAW_HEADS,
    DeadLetter,
    Envelope,
    FinalityAdvanced,
    HeadObserved,
    data_topic,
)
from schemas.topics import FORK_STATE, topic_name

log = structlog.get_logger(__name__)

BURST_SECONDS = 0.002
"""How long the reorg agent waits for a further head before it writes its state."""
BURST_MESSAGES_MAX = 256
"""Heads that share one write of the state."""
CATCH_UP_MESSAGES = 4096
"""Heads that are read at once at the beginning of an assignment."""
LIFT_SECONDS = 60.0
"""How long a stored state may be behind the heads of other chains."""
SNAPSHOT_UPDATES = 64
"""A whole snapshot goes to ``forks`` after so many updates of a chain."""


def build_app(plan: Plan, conf: Mapping[str, Any], outputs: Outputs, tally: Tally) -> faust.App:
    """The Faust app of one worker.

    Parameters
    ----------
    plan
        What it does.
    conf
        Where the brokers are and how to be let in, timeouts and bounds: options of `faust.App`.
    outputs
        Where it puts what it makes.
    tally
        Who counts.

    Raises
    ------
    FaustUntested
        If the installed Faust is not the one that is mended.
    """
    check_version()
    app = FolderlessApp(plan.app_id, TableManager=EagerTables, **SHAPE, **conf)
    mend_consumer(app, plan.fetching)
    offsets = Offsets(
        app,
        lambda topic: plan.reader(topic.removeprefix(plan.prefix)),
        accept_lost=plan.accept_lost,
    )
    for step in plan.steps:
        agent = SegmentAgent(plan, step, app, outputs, offsets, tally)
        _declare(app, plan, data_topic(step.takes, plan.lane), step.agent, agent.run)
    if plan.reorg:
        reorg = ReorgAgent(plan, app, outputs, offsets, tally)
        _declare(app, plan, RAW_HEADS, "reorg", reorg.run)
    return app


def _declare(
    app: faust.App, plan: Plan, source: str, name: str, run: Callable[[Any], Awaitable[None]]
) -> None:
    topic = app.topic(topic_name(plan.prefix, source), key_type=bytes, value_type=bytes)
    app.agent(topic, name=name, concurrency=1)(run)


class SegmentAgent:
    """Derives one stream from another, message by message.

    Several messages are under way at once: the next is derived while the brokers write the last.
    """

    def __init__(
        self,
        plan: Plan,
        step: Step,
        app: faust.App,
        outputs: Outputs,
        offsets: Offsets,
        tally: Tally,
    ) -> None:
        self._plan, self._step, self._outputs = plan, step, outputs
        self._offsets, self._tally = offsets, tally
        self._acks = Acks(app)

    async def run(self, stream: Any) -> None:
        """The agent."""
        async for event in stream.noack().events():
            if not await self._offsets.check(event):
                continue
            waiting = self._acks.begin(event)
            try:
                derived = self._step.derive(event.message.value or b"")
                await self._forward(waiting, derived)
            except (UnknownMessage, MessageTooLarge) as error:
                self._tally.refused(self._step.agent, error)
                await refuse(
                    self._step.agent, self._plan, self._outputs, self._acks, waiting, error
                )

    async def _forward(self, waiting: Waiting, derived: Derived) -> None:
        message, name = waiting.event.message, derived.name
        texts = header_texts(message.headers)
        again = next((text for header, text in texts if header == AGAIN), None)

        def delivered(*_: object) -> None:
            blocks = name.to_block - name.from_block + 1
            self._tally.derived(self._step.agent, blocks, derived.rows_in)
            self._acks.end(waiting)

        await self._outputs.put(
            derived_envelope(derived, message.key or b"", again),
            partition=message.partition,
            on_delivered=delivered,
        )


async def refuse(
    agent: str, plan: Plan, outputs: Outputs, acks: Acks, waiting: Waiting, error: Permanent
) -> None:
    """Send a message that cannot be taken to ``dead_letters``."""
    message = waiting.event.message
    letter = DeadLetter(
        stage=agent,
        reason_code=error.code,
        reason=error.what_text,
        topic=message.topic.removeprefix(plan.prefix),
        partition=message.partition,
        offset=message.offset,
        key=message.key or b"",
        value=message.value or b"",
        observed_at_ms=int(time.time() * 1000),
    )
    texts, partition = header_texts(message.headers), message.partition
    try:
        await outputs.deliver(dead_letter_envelope(letter, texts), partition=partition)
    except MessageTooLarge:
        # With the reason around it, it is larger than it was: the reason alone must do.
        empty = dead_letter_envelope(replace(letter, value=b""), texts)
        await outputs.deliver(empty, partition=partition)
    acks.end(waiting)


class ReorgAgent:
    """Follows the heads of every chain, and tells its word on them to ``forks``.

    The state is written to the table's changelog first, then the updates are told, then the heads
    are acknowledged. Heads that come together share one write.

    Why no head is lost, and no state is of the past: a stored state knows every message of its
    chain up to its own offset. That is true of all states that were ever written, also of one that
    a worker wrote which had lost the partition without knowing; so it does not matter which of
    them is read. At the first head of an assignment, before a word is told, every state hears
    ``raw.heads`` from above the oldest of them to the end of the topic, by a reader that is in no
    group: what was told to anyone before lies below that end. From there on heads come without a
    gap, or the agent ends (`Offsets`). What is committed is not relied on, but for where a chain
    begins that has no state.
    """

    def __init__(
        self, plan: Plan, app: faust.App, outputs: Outputs, offsets: Offsets, tally: Tally
    ) -> None:
        self._plan, self._app, self._outputs = plan, app, outputs
        self._offsets, self._tally = offsets, tally
        self._table: Any = app.Table("fork_state", key_type=bytes, value_type=bytes, partitions=1)
        self._source = TP(topic_name(plan.prefix, RAW_HEADS), 0)
        self._chains: dict[bytes, Chain] = {}
        self._changed: set[bytes] = set()
        self._rebuild = plan.rebuild_forks
        self._acks = Acks(app)
        self._burst: list[Waiting] = []
        self._generation: int | None = -1
        self._heard, self._lifted_at = -1, 0.0

    async def run(self, stream: Any) -> None:
        """The agent."""
        events = aiter(stream.noack().events())
        coming: asyncio.Future[EventT[Any]] = asyncio.ensure_future(anext(events))
        try:
            while True:
                # A timeout, and not a look into the queue: Faust empties that when it rebalances,
                # and then waits for what we hold.
                seconds = BURST_SECONDS if self._burst else LIFT_SECONDS
                await asyncio.wait({coming}, timeout=seconds)
                if coming.done():
                    try:
                        event = coming.result()
                    except StopAsyncIteration:
                        break
                    await self._take(event)
                    coming = asyncio.ensure_future(anext(events))
                    if len(self._burst) < BURST_MESSAGES_MAX:
                        continue
                await self._settle()
            await self._settle()
        finally:
            coming.cancel()

    async def _take(self, event: EventT[Any]) -> None:
        """Take one head, without a word yet."""
        if not await self._offsets.check(event):
            return
        message = event.message
        if message.generation_id != self._generation:
            await self._begin(message.generation_id)
        waiting = self._acks.begin(event)
        try:
            observed = await self._apply(message.offset, message.value or b"")
        except UnknownMessage as error:
            self._heard = max(self._heard, message.offset)
            self._tally.refused("reorg", error)
            await refuse("reorg", self._plan, self._outputs, self._acks, waiting, error)
            return
        # Not before: a head that halts its chain is to be heard again.
        self._heard = max(self._heard, message.offset)
        self._burst.append(waiting)
        self._tally.derived("reorg", int(isinstance(observed, HeadObserved)), 0)

    async def _apply(self, offset: int, value: bytes) -> HeadObserved | FinalityAdvanced:
        """Let the chain of one message hear it."""
        observed = read_observed(value)
        key = str(observed.chain_id).encode()
        chain = self._chains.setdefault(key, Chain())
        heard = hear(chain.kept, offset, observed, self._plan.limits)
        for followed in heard.events:
            if isinstance(followed, Halt):
                await self._settle()
                raise halted(observed.chain_id, followed)
            if isinstance(followed, NeedBlock):
                log.info("header_awaited", chain_id=observed.chain_id, number=followed.number)
        if heard.kept is not chain.kept:
            chain.kept, chain.observed_at_ms = heard.kept, observed.observed_at_ms
            chain.snapshot_due |= heard.begun
            if not chain.snapshot_due:
                chain.untold += [fork_envelope(one, offset) for one in heard.updates]
            self._changed.add(key)
        return observed

    async def _begin(self, generation: int | None) -> None:
        """Take up the stored states, and let them hear what they have not, before the live heads.

        Raises
        ------
        ForkStateLost
            If there is none, though heads were acknowledged.
        HeadsLost
            If one of them lacks heads that are gone.
        """
        committed, stored = self._offsets.committed(self._source), dict(self._table.data.items())
        if committed and not stored and not self._plan.rebuild_forks:
            changelog = topic_name(self._plan.prefix, FORK_STATE)
            raise ForkStateLost(changelog=changelog, heads=self._source.topic, offset=committed - 1)
        self._generation, self._heard = generation, -1
        self._forget()
        self._chains = {
            key: Chain(NOTHING if self._rebuild else decode_fork(value, self._plan.limits))
            for key, value in stored.items()
        }
        with self._plan.reader(RAW_HEADS) as reader:
            await self._catch_up(reader, committed)
        log.info("fork_states_read", chains=len(self._chains), rebuilding=self._rebuild)
        self._rebuild = False

    async def _catch_up(self, reader: TopicReading, committed: int | None) -> None:
        """Hear everything from above the oldest state to the end of the topic; tell of it."""
        low, end = await asyncio.to_thread(reader.bounds)
        now_ms = int(time.time() * 1000)
        for key, chain in self._chains.items():
            chain.snapshot_due, chain.observed_at_ms = True, now_ms
            if chain.kept.offset >= end:
                log.warning("heads_made_anew", chain_id=key.decode(), end=end)
                chain.kept = replace(chain.kept, offset=-1)
        self._changed.update(self._chains)
        kept = [chain.kept for chain in self._chains.values()]
        at = first_unheard(kept, committed if committed and committed <= end else None, low)
        while at < end:
            upto = min(at + CATCH_UP_MESSAGES, end)
            for one in await asyncio.to_thread(read_all, reader, at, upto):
                # What cannot be read is refused when it comes to its turn.
                with suppress(UnknownMessage):
                    await self._apply(one.offset, one.envelope.value)
            at = upto
        self._heard = end - 1
        await self._settle()

    async def _settle(self) -> None:
        """Write the states of a burst, tell its updates, acknowledge its heads."""
        if self._generation != self._app.consumer_generation_id:
            self._forget()  # It is another's by now, or will be read again.
            return
        self._lift()
        changed = [self._chains[key] for key in sorted(self._changed)]
        for key in sorted(self._changed):
            await self._store(key, self._chains[key])
        for chain in changed:
            await self._tell(chain)
        self._changed.clear()
        burst, self._burst = self._burst, []
        for waiting in burst:
            self._acks.end(waiting)

    def _forget(self) -> None:
        self._burst.clear()
        self._changed.clear()

    def _lift(self) -> None:
        """Chains that are silent have heard all that there was.

        Who begins need not read it, nor take it for lost when retention has dropped it.
        """
        now = time.monotonic()
        due = not self._burst or now - self._lifted_at >= LIFT_SECONDS
        self._lifted_at = now if due else self._lifted_at
        for key, chain in self._chains.items():
            if self._heard - chain.kept.offset >= (1 if due else CATCH_UP_MESSAGES):
                chain.kept = replace(chain.kept, offset=self._heard)
                self._changed.add(key)

    async def _store(self, key: bytes, chain: Chain) -> None:
        value = encode_fork(chain.kept)
        await self._outputs.deliver(Envelope(FORK_STATE, key, value), partition=0)
        self._table.data[key] = value

    async def _tell(self, chain: Chain) -> None:
        """What followers of ``forks`` do not know yet, in order; the last is waited for."""
        told = [] if chain.snapshot_due else list(chain.untold)
        chain.since_snapshot += len(told)
        kept = chain.kept
        if kept.state is not None and (
            chain.snapshot_due or chain.since_snapshot >= SNAPSHOT_UPDATES
        ):
            told.append(snapshot_envelope(kept.state, kept.offset, chain.observed_at_ms))
            chain.since_snapshot = 0
        chain.snapshot_due = False
        chain.untold.clear()
        for envelope in told[:-1]:
            await self._outputs.put(envelope, partition=0)
        for envelope in told[-1:]:
            await self._outputs.deliver(envelope, partition=0)
