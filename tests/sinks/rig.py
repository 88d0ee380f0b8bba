"""A database and a SmallChain in, publisher, compactor, sealer and sweeper over them out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import pytest

from schemas.errors_canon import HeightNotReached
from schemas.segments import BlockRef, ForkUpdate, Lane, Stream
from sinks.canon_row import CanonRow, CanonSettings, Change, Missing, PublisherSettings
from sinks.compaction import Compactor
from sinks.connection import Connection, Endpoint
from sinks.fold_plan import FoldSettings
from sinks.migrate import prepare_database
from sinks.publisher import Publisher
from sinks.sealer import Sealer, SealerSettings
from sinks.sweeper import Sweeper, SweeperSettings
from tests.patience import PATIENCE_SECONDS
from tests.sinks.small_chain import FACTS, STREAMS, TABLES, VERSIONS, SmallChain, write_load

QUERY_SECONDS_MAX = 3.0
"""No query beside the sweeper may take longer."""


@dataclass(slots=True)
class Clock:
    """A clock that a test moves."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def prepare(endpoint: Endpoint) -> None:
    with Connection(endpoint) as connection:
        prepare_database(connection, endpoint.database, TABLES, FACTS, 1337)


def show_any_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever publishes from here on shows segments however they were proven."""
    monkeypatch.setattr("tests.sinks.rig.VERSIONS", dict.fromkeys(STREAMS))


def prove_as(monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    """What is loaded from here on was proven in another way: a stream's name and a mark."""
    versions = {stream: f"{stream}{mark}" for stream in STREAMS}
    monkeypatch.setattr("tests.sinks.small_chain.VERSIONS", versions)


class Rig:
    """One process's share of the work: claim first, close at the end."""

    def __init__(
        self,
        endpoint: Endpoint,
        chain: SmallChain,
        seed: int = 0,
        *,
        floor: int = 0,
        settings: PublisherSettings | None = None,
        clock: Clock | None = None,
        steady: Clock | None = None,
        connect: Callable[[Endpoint], Connection] = Connection,
    ) -> None:
        self.endpoint, self.database, self.chain = endpoint, endpoint.database, chain
        self.rng = random.Random(seed)
        self.changes: list[Change] = []
        self.missing: list[Missing] = []
        self.connections = [connect(endpoint) for _ in range(5)]
        own, fold, seal, sweep, self.writes = self.connections
        timing = {"clock": clock} if clock else {}
        self.publisher = Publisher(
            own,
            self.database,
            FACTS,
            VERSIONS,
            floor,
            settings=settings
            or PublisherSettings(
                coalesce_seconds=0.0,
                # No server here is started again under a publisher that waits for it.
                retry_seconds=1.0,
                # Whoever heals late, as a slow machine does, is asked again and again.
                missing_attempts_max=None,
                canon=CanonSettings(stale_fork_ms=300, missing_after_ms=500),
            ),
            on_missing=self.missing.append,
            on_row=self.changes.append,
            **timing,
        )
        self.compactor = Compactor(
            fold,
            self.database,
            TABLES,
            self.publisher,
            settings=FoldSettings(head_segments_min=1, loads_max=40, fold_loads_max=16),
        )
        self.sealer = Sealer(
            seal, self.database, TABLES, self.publisher, settings=SealerSettings(0.0)
        )
        self.sweeper = Sweeper(
            sweep,
            self.database,
            TABLES,
            self.publisher,
            settings=SweeperSettings(execution_seconds_max=QUERY_SECONDS_MAX),
            **timing,
            **({} if steady is None else {"steady": steady}),
        )

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.publisher.stop()
        for connection in self.connections:
            connection.close()

    def claim(self) -> CanonRow | None:
        self.publisher.claim()
        return self.publisher.visible()

    def begin(self, batch: int = 3) -> None:
        """Claim, follow the chain as it stands, and load its history."""
        self.claim()
        self.follow(self.chain.snapshot_from(None))
        self.write_history(batch=batch)

    def write(
        self,
        stream: Stream,
        segments: Sequence[Sequence[BlockRef]],
        lane: Lane,
        *,
        notify: bool = True,
        with_ledger: bool = True,
    ) -> int:
        load_id = self.rng.getrandbits(64)
        rows = write_load(
            self.writes,
            self.database,
            stream,
            lane,
            [self.chain.with_parents(blocks) for blocks in segments],
            load_id,
            self.publisher.generation,
            with_ledger=with_ledger,
        )
        if notify and with_ledger:
            self.publisher.notify(rows)
        return load_id

    def write_history(self, first: int = 0, last: int | None = None, batch: int = 3) -> None:
        """Load the whole grid segments of the history in every stream."""
        history = self.chain.history if last is None else self.chain.path(self.chain.head, 0)
        size, refs = FACTS.segment_blocks, history[: last + 1 if last is not None else None]
        segments = [refs[at : at + size] for at in range(first, len(refs) - size + 1, size)]
        for stream in STREAMS:
            at = 0
            while at < len(segments):
                group = segments[at : at + batch]
                part = group[0][0].number // FACTS.partition_blocks
                group = [s for s in group if s[0].number // FACTS.partition_blocks == part]
                self.write(stream, group, "history")
                at += len(group)

    def write_head(self, refs: Iterable[BlockRef]) -> None:
        """Load head blocks, one load a stream and block."""
        for ref in refs:
            for stream in STREAMS:
                self.write(stream, [[ref]], "head")

    def follow(self, updates: Iterable[ForkUpdate]) -> None:
        for update in updates:
            self.publisher.apply_fork(update)

    def grow(self, blocks: int = 1, back: int = 0) -> list[BlockRef]:
        """Grow the chain, with its loads and fork updates."""
        made, updates = self.chain.extend(blocks, back)
        self.write_head(made)
        self.follow(updates)
        return made

    def finalize(self, depth: int) -> None:
        self.follow(self.chain.finalize(depth))

    def heal(self) -> None:
        """Load again what the publisher asked for, as the ingest does."""
        missing, self.missing[:] = list(self.missing), []
        for lost in missing:
            last = lost.last_hash
            if last is None:
                last = self.chain.path(self.chain.head, lost.to_block)[0].hash
            blocks = self.chain.path(BlockRef(lost.to_block, last), lost.from_block)
            lane: Lane = "history" if lost.to_block < len(self.chain.history) else "head"
            self.write(cast("Stream", lost.stream), [blocks], lane)

    def catch_up(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the chain's head is visible, and load again what is asked for."""
        until = time.monotonic() + seconds
        while True:
            self.heal()
            try:
                self.publisher.wait_for_height(self.chain.head.number, 0.2)
            except HeightNotReached:
                if time.monotonic() > until:
                    raise
            else:
                return

    def shown(self) -> CanonRow:
        row = self.publisher.visible()
        assert row is not None
        return row
