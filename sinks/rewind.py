"""A block in, a canon that ends there out: ``headrace rewind --to N``.

Nothing is deleted. A rewind claims a generation and writes its intent, the row of `rewinds`; from
then on ledger rows of older generations that reach above N do not count. Loads that hold blocks on
both sides of N are copied up to N under new load ids; a sealed partition that holds N is opened
again the same way. The canon row comes last. Whoever claims the chain after a rewind that was cut
short finishes it first (`finish_rewind`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast

from schemas.chains import ChainFacts
from schemas.errors_canon import AboveHead, BelowFloor, CanonDamaged, NothingVisible
from schemas.segments import BlockRef, Stream
from schemas.tables import Table
from sinks.canon_row import CanonRow, Rewound
from sinks.canon_table import (
    append_canon,
    append_rewind,
    newest_generation,
    read_canon,
    read_rewinds,
)
from sinks.connection import Connection
from sinks.ddl import OPEN, SEALED
from sinks.ledger import LedgerRow, append_ledger, read_ledger
from sinks.manifests import (
    copy_rows,
    differing,
    of_loads,
    of_these,
    open_ledger,
    stored,
    summed,
)


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows to keep of one stream under a new load."""

    from_block: int
    """First block."""
    to_block: int
    """Last block."""
    source: str
    """Suffix of the tables that hold the rows."""
    where: str
    """Which rows of them."""
    whole: tuple[LedgerRow, ...] = ()
    """The ledger rows of the segments that are kept whole; none makes one segment of it all."""


class Rewinder:
    """Rewinds one chain. No publisher may run meanwhile: hold the data directory's lock.

    Parameters
    ----------
    connection
        A connection.
    database
        The chain's database.
    facts
        The chain's grid.
    tables
        Every declared table.
    now
        The time, injected for tests.
    """

    def __init__(
        self,
        connection: Connection,
        database: str,
        facts: ChainFacts,
        tables: Sequence[Table],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._connection, self._database, self._facts = connection, database, facts
        self._tables, self._now = tuple(tables), now

    def rewind(self, to_block: int, reason: str) -> CanonRow:
        """Make `to_block` the visible head; the next run goes on from the block after it.

        Parameters
        ----------
        to_block
            The last block to keep.
        reason
            Who asked and why, for the table `rewinds`.

        Raises
        ------
        NothingVisible, BelowFloor, AboveHead
        HeadraceError
            One of HR-40xx.
        """
        self.finish()
        shown = self.check(to_block)
        rewound = Rewound(newest_generation(self._connection, self._database) + 1, to_block)
        head = shown.head.number
        append_rewind(self._connection, self._database, rewound, head, self._now(), reason)
        return self._apply(shown, rewound)

    def check(self, to_block: int) -> CanonRow:
        """What is visible now, if it may be taken back to `to_block`.

        Raises
        ------
        NothingVisible, BelowFloor, AboveHead
        HeadraceError
            One of HR-40xx.
        """
        shown = read_canon(self._connection, self._database)
        if shown is None:
            raise NothingVisible(database=self._database)
        if to_block < shown.floor:
            raise BelowFloor(to_block=to_block, floor=shown.floor, head=shown.head.number)
        if to_block > shown.head.number:
            raise AboveHead(to_block=to_block, floor=shown.floor, head=shown.head.number)
        return shown

    def finish(self) -> CanonRow | None:
        """Finish a rewind that was cut short after its intent; None where there is none.

        Raises
        ------
        HeadraceError
            One of HR-40xx.
        """
        shown = read_canon(self._connection, self._database)
        rewinds = read_rewinds(self._connection, self._database)
        if shown is None or not rewinds or rewinds[-1].generation <= shown.generation:
            return None
        return self._apply(shown, rewinds[-1])

    def _apply(self, shown: CanonRow, rewound: Rewound) -> CanonRow:
        """Copy what has to be copied, then write the canon row."""
        to_block, size = rewound.to_block, self._facts.partition_blocks
        sealed = tuple(p for p in shown.sealed if (p + 1) * size - 1 <= to_block)
        partition = self._facts.partition(to_block)
        reopened = partition in shown.sealed and partition not in sealed
        ledger = open_ledger(self._connection, self._database, self._facts, shown.sealed)
        rows = of_these(ledger, shown.loads)
        above = {row.load_id for row in rows if row.to_block > to_block}
        loads = sorted({row.load_id for row in rows} - above)
        head = self._block(to_block)
        for stream in sorted({table.stream for table in self._tables}):
            own = [row for row in rows if row.stream == stream and row.load_id in above]
            keep = self._sealed_part(shown, to_block) if reopened else self._split(own, to_block)
            loads += [self._copy(stream, kept, rewound) for kept in keep]
        row = CanonRow(
            rewound.generation,
            0,
            shown.floor,
            head,
            _up_to(shown.safe, head),
            _up_to(shown.finalized, head),
            sealed,
            tuple(sorted(loads)),
        )
        append_canon(self._connection, self._database, row, self._now())
        return row

    def _split(self, rows: Sequence[LedgerRow], to_block: int) -> list[Kept]:
        """What to keep of loads that reach above `to_block`.

        Whole segments and the cut one go into loads of their own: the next load of the cut
        segment replaces that one alone, however many rows of the ledger it had.
        """
        loads = of_loads({row.load_id for row in rows})
        start = self._facts.segment_start(to_block + 1)
        whole = tuple(row for row in rows if row.to_block < start)
        kept = []
        if whole:
            first, last = whole[0].from_block, whole[-1].to_block
            where = f"{loads} AND block_number BETWEEN {first} AND {last}"
            kept.append(Kept(first, last, OPEN, where, whole))
        touching = [row for row in rows if row.from_block <= to_block and row.to_block >= start]
        for first, last in _joined(touching):
            for low, high in ((first, start - 1), (max(first, start), min(last, to_block))):
                if low <= high:
                    where = f"{loads} AND block_number BETWEEN {low} AND {high}"
                    kept.append(Kept(low, high, OPEN, where))
        return kept

    def _sealed_part(self, shown: CanonRow, to_block: int) -> list[Kept]:
        """What to keep of the sealed partition that holds `to_block`."""
        partition = self._facts.partition(to_block)
        first = max(partition * self._facts.partition_blocks, shown.floor)
        cut = self._facts.segment_start(to_block + 1)
        ranges = [(first, cut - 1), (cut, to_block)]
        return [
            Kept(
                low,
                high,
                SEALED,
                f"_partition_id = '{partition}' AND block_number BETWEEN {low} AND {high}",
            )
            for low, high in ranges
            if low <= high
        ]

    def _copy(self, stream: str, kept: Kept, rewound: Rewound) -> int:
        """Copy the kept rows of a stream under a new load; its id."""
        load_id = secrets.randbits(64)
        partition = self._facts.partition(kept.from_block)
        tables = [table for table in self._tables if table.stream == stream]
        asked, manifest = summed(kept.whole), []
        for table in tables:
            source = f"{self._database}.{table.name}{kept.source}"
            target = f"{self._database}.{table.name}{OPEN}"
            copy_rows(self._connection, target, source, table, load_id, kept.where)
            where = f"_partition_id = '{partition}' AND load_id = {load_id}"
            manifest.append(stored(self._connection, target, table, where))
            if kept.whole and differing(asked, table.name, manifest[-1]):
                detail = f"{table.name} lost rows of blocks {kept.from_block} to {kept.to_block}"
                raise CanonDamaged(
                    database=self._database, detail=detail, to_block=kept.from_block - 1
                )
        ledger = [
            replace(old, load_id=load_id, generation=rewound.generation) for old in kept.whole
        ]
        if not ledger:
            row = LedgerRow(
                cast("Stream", stream),
                "history",
                kept.from_block,
                kept.to_block,
                self._block(kept.to_block).hash,
                self._version(stream, kept),
                rewound.generation,
                load_id,
                tuple(table.name for table in tables),
                tuple(count for count, _ in manifest),
                tuple(checksum for _, checksum in manifest),
            )
            ledger.append(row)
        append_ledger(self._connection, self._database, ledger)
        return load_id

    def _version(self, stream: str, kept: Kept) -> str:
        """The content version of the rows that are kept."""
        found = read_ledger(
            self._connection,
            self._database,
            stream=cast("Stream", stream),
            from_block=kept.from_block,
            to_block=kept.to_block,
        )
        return found[-1].content_version if found else ""

    def _block(self, number: int) -> BlockRef:
        """The visible block of that height."""
        found = self._connection.execute(
            f"SELECT block_hash FROM {self._database}.blocks WHERE block_number = %(number)s",
            {"number": number},
            as_bytes=True,
        )
        if len(found) != 1:
            detail = f"block {number} is there {len(found)} times"
            raise CanonDamaged(database=self._database, detail=detail, to_block=number)
        return BlockRef(number, found[0][0])


def _joined(rows: Sequence[LedgerRow]) -> list[tuple[int, int]]:
    """The ranges of blocks that rows hold, those that adjoin as one."""
    found: list[tuple[int, int]] = []
    for row in sorted(rows, key=lambda row: row.from_block):
        if found and found[-1][1] + 1 == row.from_block:
            found[-1] = (found[-1][0], row.to_block)
        else:
            found.append((row.from_block, row.to_block))
    return found


def _up_to(ref: BlockRef | None, head: BlockRef) -> BlockRef | None:
    """A finality mark, no higher than the head."""
    return head if ref is not None and ref.number > head.number else ref
