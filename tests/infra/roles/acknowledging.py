"""Envelopes in, acknowledgements, a fork state and a canon out: a cluster without its servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ingest.acknowledged import OnDelivered
from ingest.checkpoint import checkpoint_key
from processors.fork import ForkLimits, Halt
from processors.heads import NOTHING, hear
from processors.reorg import snapshot
from schemas.chains import ChainFacts
from schemas.codec import (
    decode_finality_advanced,
    decode_head_observed,
    decode_ingest_checkpoint,
)
from schemas.segments import BlockRef, Envelope, IngestCheckpoint, Lane
from sinks.canon import Canon
from sinks.canon_row import CanonSettings, Change
from sinks.ledger import LedgerRow
from tests.patience import PATIENCE_SECONDS

RAW = {"BlockSegment": "blocks", "LogSegment": "logs"}


class Acknowledging:
    """A producer that acknowledges at once, or only when it is told to."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.held: list[Callable[[], None]] | None = None
        self._changed = asyncio.Condition()

    async def put(
        self,
        envelope: Envelope,
        *,
        partition: int | None = None,
        on_delivered: OnDelivered | None = None,
    ) -> None:
        async with self._changed:
            self.envelopes.append(envelope)
            offset = len(self.envelopes) - 1

            def acknowledge() -> None:
                if on_delivered is not None:
                    on_delivered(envelope, partition or 0, offset)

            if self.held is None:
                acknowledge()
            else:
                self.held.append(acknowledge)
            self._changed.notify_all()

    async def deliver(self, envelope: Envelope, *, partition: int | None = None) -> tuple[int, int]:
        await self.put(envelope, partition=partition)
        return partition or 0, len(self.envelopes) - 1

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds that envelopes make true."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(condition)

    def names(self, schema: str) -> list[tuple[int, int]]:
        """First and last block of each envelope of a schema, in order."""
        return [
            (int(one.headers["from"]), int(one.headers["to"]))
            for one in self.envelopes
            if one.headers["schema"] == schema
        ]

    def checkpoints(self, chain_id: int, version: str) -> list[IngestCheckpoint]:
        """The checkpoints that were written."""
        key = checkpoint_key(chain_id, version)
        return [decode_ingest_checkpoint(one.value) for one in self.envelopes if one.key == key]


class Followers:
    """The reorg agent, the sinks and the publisher: what becomes visible of some envelopes."""

    def __init__(self, facts: ChainFacts, floor: int = 0) -> None:
        self.kept = NOTHING
        self.canon = Canon(
            facts, {"blocks": None, "logs": None}, floor, 1, settings=CanonSettings(0, 5_000)
        )
        self.changes: list[Change] = []
        self._names: set[tuple[str, ...]] = set()
        self._offset = 0
        self._loads = 0

    def follow(self, envelopes: list[Envelope]) -> None:
        """Take envelopes in order; the publisher writes whatever is due after each."""
        for envelope in envelopes:
            schema = envelope.headers["schema"]
            if schema in RAW:
                self._load(envelope, RAW[schema])
            elif schema in ("HeadObserved", "FinalityAdvanced"):
                self._hear(envelope, schema)
            change = self.canon.step(0)
            if change is not None:
                self.changes.append(change)

    @property
    def finalized(self) -> BlockRef | None:
        """The newest block that the reorg agent calls final."""
        return self.kept.state.finalized if self.kept.state is not None else None

    def visible(self) -> list[tuple[int, bytes]]:
        """(last block, hash) of every tile that is shown, of both streams."""
        assert self.canon.shown is not None
        top = self.canon.shown.head.number
        return [
            (tile.to_block, tile.last_hash)
            for tiling in self.canon.tilings.values()
            for partition in tiling.open_partitions()
            for tile in tiling.tiles(partition)
            if tile.to_block <= top
        ]

    def _hear(self, envelope: Envelope, schema: str) -> None:
        decode = decode_head_observed if schema == "HeadObserved" else decode_finality_advanced
        self._offset += 1
        heard = hear(self.kept, self._offset, decode(envelope.value), ForkLimits())
        self.kept = heard.kept
        if heard.begun and self.kept.state is not None:
            self.canon.apply_fork(snapshot(self.kept.state, 0), 0)
        for update in heard.updates:
            assert self.canon.apply_fork(update, 0)
        for event in heard.events:
            assert not isinstance(event, Halt), event

    def _load(self, envelope: Envelope, stream: str) -> None:
        headers = envelope.headers
        name = tuple(headers[key] for key in ("schema", "lane", "from", "to", "last_hash"))
        if name in self._names and "again" not in headers:
            return
        self._names.add(name)
        self._loads += 1
        lane: Lane = "history" if headers["lane"] == "history" else "head"
        row = LedgerRow(
            stream="blocks" if stream == "blocks" else "logs",
            lane=lane,
            from_block=int(headers["from"]),
            to_block=int(headers["to"]),
            last_hash=bytes.fromhex(headers["last_hash"]),
            content_version="v",
            generation=1,
            load_id=self._loads,
            tables=(),
            rows=(),
            checksums=(),
        )
        self.canon.add([row])
