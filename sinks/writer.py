"""Batches of segments in, complete loads out: rows into `T_open`, then the ledger.

A load is one stream, one lane, one partition, under a random load_id. Its rows count only from the
moment its ledger rows stand, so whatever fails before is invisible: it is done again under a new
load_id, and what the failed attempt left behind is never shown.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from schemas.columns import ColumnBlock
from schemas.errors import HeadraceError, Transient
from schemas.errors_sinks import ColumnsMismatch, WriteAbandoned
from schemas.segments import (
    AggregateSegment,
    BlockSegment,
    EventSegment,
    Lane,
    LogSegment,
    SegmentName,
    Stream,
)
from schemas.tables import Table
from sinks.checksum import block_checksums
from sinks.connection import Connection
from sinks.ddl import OPEN
from sinks.ledger import LedgerRow, append_ledger
from sinks.load_block import load_block

Segment = BlockSegment | LogSegment | EventSegment | AggregateSegment


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """Bounds on trying again."""

    attempts_max: int = 10
    """How often a load is tried before the writer gives up."""
    backoff_seconds: float = 0.2
    """Longest wait before the second attempt; it doubles with each further one."""
    backoff_seconds_max: float = 15.0
    """Longest wait between attempts."""


@dataclass(frozen=True, slots=True)
class Load:
    """A complete load."""

    load_id: int
    """Its id, on every row."""
    stream: Stream
    """Its stream."""
    lane: Lane
    """Its lane."""
    partition: int
    """Its partition."""
    ledger: tuple[LedgerRow, ...]
    """Its ledger rows, one a segment."""
    attempts: int
    """How many attempts it took."""

    @property
    def rows(self) -> int:
        """Rows of all its tables."""
        return sum(sum(row.rows) for row in self.ledger)


class Writer:
    """Writes loads through one connection; one writer a thread.

    Parameters
    ----------
    connection
        A connection of its own.
    database
        The chain's database.
    tables
        Every declared table.
    partition_blocks
        Blocks of one partition.
    generation
        Written into the ledger.
    sleep, jitter, new_load_id
        Injected for tests.
    """

    def __init__(
        self,
        connection: Connection,
        database: str,
        tables: Sequence[Table],
        partition_blocks: int,
        *,
        generation: int = 1,
        settings: WriterSettings | None = None,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        new_load_id: Callable[[], int] | None = None,
    ) -> None:
        self._connection = connection
        self._database = database
        self._tables = {table.name: table for table in tables}
        self._streams: dict[str, list[Table]] = {}
        for table in tables:
            self._streams.setdefault(table.stream, []).append(table)
        self._partition_blocks = partition_blocks
        self.generation = generation
        self._settings = settings or WriterSettings()
        self._sleep = sleep
        self._jitter = jitter
        self._new_load_id = new_load_id or (lambda: secrets.randbits(64))

    def write(self, segments: Sequence[Segment]) -> Load:
        """Store segments of one stream, lane and partition as one load.

        Returns
        -------
        Load
            After its ledger rows are stored.

        Raises
        ------
        WriteAbandoned
            If every attempt failed; its ``last`` names the last failure.
        Permanent
            Another of HR-40xx, at once.
        ValueError
            If the segments differ in stream, lane or partition, or two hold the same block.
        """
        return self._write(segments, apart=False)[0]

    def write_apart(self, segments: Sequence[Segment]) -> list[Load]:
        """Store segments of one stream, lane and partition, each as a load of its own.

        They share their inserts, so that a head that catches up does not pay for each block;
        each can still become visible, or not, without the others.

        Returns
        -------
        list of Load
            One a segment, after all their ledger rows are stored.

        Raises
        ------
        WriteAbandoned
            As `write` does; ValueError also for more than ``LOADS_MAX`` segments.
        """
        return self._write(segments, apart=True)

    def _write(self, segments: Sequence[Segment], *, apart: bool) -> list[Load]:
        name = segments[0].name
        partition = self._check_alike(segments)
        if not apart:
            _check_disjoint(segments)
        by_segment = [table_blocks(segment) for segment in segments]
        manifests = self._manifests(name.stream, by_segment)
        attempt = 0
        while True:
            attempt += 1
            ids = [self._new_load_id() for _ in segments[: None if apart else 1]]
            load_ids = ids if apart else ids * len(segments)
            ledger = [
                self._ledger_row(segment.name, load_id, manifest)
                for segment, load_id, manifest in zip(segments, load_ids, manifests, strict=True)
            ]
            try:
                self._insert(name.stream, by_segment, load_ids)
                append_ledger(self._connection, self._database, ledger)
            except Transient as error:
                if attempt >= self._settings.attempts_max:
                    raise self._abandoned(segments, attempt, error) from error
                self._sleep(self._backoff_seconds(attempt))
                continue
            groups = [(row,) for row in ledger] if apart else [tuple(ledger)]
            return [
                Load(rows[0].load_id, name.stream, name.lane, partition, rows, attempt)
                for rows in groups
            ]

    def _check_alike(self, segments: Sequence[Segment]) -> int:
        """The partition that all the segments share."""
        keys = {
            (segment.name.stream, segment.name.lane, bound // self._partition_blocks)
            for segment in segments
            for bound in (segment.name.from_block, segment.name.to_block)
        }
        if len(keys) != 1:
            raise ValueError(f"a load is of one stream, lane and partition, not {sorted(keys)}")
        return keys.pop()[2]

    def _manifests(
        self, stream: Stream, by_segment: Sequence[Mapping[str, ColumnBlock]]
    ) -> list[dict[str, tuple[int, int]]]:
        """(rows, checksum) of each segment in each table of the stream."""
        tables = self._streams.get(stream, [])
        unknown = {name for blocks in by_segment for name in blocks}
        unknown -= {table.name for table in tables}
        if unknown:
            detail = f"the stream {stream} has no such table"
            raise ColumnsMismatch(table=", ".join(sorted(unknown)), detail=detail)
        manifests: list[dict[str, tuple[int, int]]] = [{} for _ in by_segment]
        for table in tables:
            none = ColumnBlock(table.name, 0, {})
            held = [blocks.get(table.name, none) for blocks in by_segment]
            checksums = block_checksums(table, held)
            for manifest, block, checksum in zip(manifests, held, checksums, strict=True):
                manifest[table.name] = (block.rows, checksum)
        return manifests

    def _ledger_row(
        self, name: SegmentName, load_id: int, manifest: Mapping[str, tuple[int, int]]
    ) -> LedgerRow:
        return LedgerRow(
            name.stream,
            name.lane,
            name.from_block,
            name.to_block,
            name.last_hash,
            name.content_version,
            self.generation,
            load_id,
            tuple(manifest),
            tuple(rows for rows, _ in manifest.values()),
            tuple(checksum for _, checksum in manifest.values()),
        )

    def _insert(
        self,
        stream: Stream,
        by_segment: Sequence[Mapping[str, ColumnBlock]],
        load_ids: Sequence[int],
    ) -> None:
        """Insert the rows of each table of the stream that has any."""
        for table in self._streams[stream]:
            found = [
                (load_id, tables[table.name])
                for load_id, tables in zip(load_ids, by_segment, strict=True)
                if table.name in tables and tables[table.name].rows
            ]
            if not found:
                continue
            place = f"{self._database}.{table.name}{OPEN}"
            try:
                block = load_block(table, [rows for _, rows in found], [i for i, _ in found])
            except KeyError as error:
                detail = f"column {error} is missing"
                raise ColumnsMismatch(table=place, detail=detail) from error
            self._connection.insert_block(place, block)

    def _backoff_seconds(self, attempt: int) -> float:
        longest = self._settings.backoff_seconds * 2.0 ** (attempt - 1)
        return self._jitter() * min(longest, self._settings.backoff_seconds_max)

    def _abandoned(
        self, segments: Sequence[Segment], attempts: int, last: HeadraceError
    ) -> WriteAbandoned:
        return WriteAbandoned(
            stream=segments[0].name.stream,
            from_block=min(segment.name.from_block for segment in segments),
            to_block=max(segment.name.to_block for segment in segments),
            attempts=attempts,
            last=f"{last}",
        )


def _check_disjoint(segments: Sequence[Segment]) -> None:
    """A load is shown whole: whatever it held twice would be visible twice."""
    spans = sorted((segment.name.from_block, segment.name.to_block) for segment in segments)
    for (_, last), (first, _) in pairwise(spans):
        if first <= last:
            raise ValueError(f"a load holds a block once, and two of these hold block {first}")


def table_blocks(segment: Segment) -> dict[str, ColumnBlock]:
    """The segment's rows by table.

    Raises
    ------
    ValueError
        If a table occurs twice.
    """
    if isinstance(segment, BlockSegment):
        blocks: tuple[ColumnBlock, ...] = (
            segment.blocks,
            segment.transactions,
            segment.withdrawals,
        )
    elif isinstance(segment, LogSegment):
        blocks = (segment.logs,)
    else:
        blocks = segment.tables
    named = {block.table: block for block in blocks}
    if len(named) != len(blocks):
        raise ValueError(f"a table occurs twice in {segment.name}")
    return named
