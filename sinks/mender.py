"""Visible rows and the same segments fetched once more in, a canon without damaged loads out.

Nothing is deleted and nothing is changed in place. A load that holds other rows than came again is
copied from those under a new load id, piece by piece as it is shown now; a sealed partition is
opened again, its damaged segments taken from what came again and the rest from itself. Then one
canon row swaps the loads, under a generation of its own: whoever publishes must claim again.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import cast

from schemas.chains import ChainFacts
from schemas.errors_replay import CanonMoved, MendMismatch, ReplayOtherChain, SealedUnnamed
from schemas.segments import Stream
from schemas.tables import Table
from sinks.canon_row import CanonRow
from sinks.canon_table import append_canon, id_list, read_canon
from sinks.connection import Connection
from sinks.contents import Sums, different, read_contents, read_sums, summed_between
from sinks.ddl import OPEN, SEALED
from sinks.fresh import Fresh, fresh_segments, rows_within
from sinks.ledger import LedgerRow, append_ledger, read_ledger
from sinks.manifests import copy_rows, of_these, open_ledger
from sinks.sealed_parts import sealed_parts


@dataclass(frozen=True, slots=True)
class Damage:
    """A visible load, or a sealed partition, that holds other rows than came again."""

    stream: str
    """The stream."""
    partition: int
    """The partition."""
    load_id: int | None
    """The load; None where the partition is sealed."""
    blocks: tuple[int, ...]
    """The blocks that differ, in order."""
    tables: tuple[str, ...]
    """The tables that do."""


@dataclass(frozen=True, slots=True)
class Mended:
    """Loads that are ready to be shown in place of others."""

    removed: frozenset[int]
    """Loads that go."""
    added: frozenset[int]
    """Loads that come."""
    opened: frozenset[int]
    """Sealed partitions that are open again."""


class Mender:
    """Compares and mends one chain's visible rows.

    Parameters
    ----------
    connection
        A connection that nobody else uses.
    database
        The chain's database.
    facts
        The chain's grid.
    tables
        Every declared table.
    """

    def __init__(
        self,
        connection: Connection,
        database: str,
        facts: ChainFacts,
        tables: Sequence[Table],
    ) -> None:
        self._connection, self._database, self._facts = connection, database, facts
        self._streams: dict[str, list[Table]] = {}
        for table in tables:
            self._streams.setdefault(table.stream, []).append(table)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that a segment needs to be whole."""
        return tuple(self._streams)

    def fresh(self, since: datetime, starts: Collection[int]) -> dict[tuple[str, int], LedgerRow]:
        """The segments among `starts` of which a load was written since a moment."""
        return fresh_segments(self._connection, self._database, self._facts, since, starts)

    def compare(self, shown: CanonRow, starts: Sequence[int], fresh: Fresh) -> list[Damage]:
        """What of some grid segments is not as it came again.

        Raises
        ------
        ReplayOtherChain
            If a segment ends in another block than came again.
        HeadraceError
            One of HR-40xx.
        """
        tiles = self._tiles(shown)
        by_partition: dict[int, list[int]] = {}
        for start in starts:
            by_partition.setdefault(self._facts.partition(start), []).append(start)
        found: list[Damage] = []
        for partition, members in by_partition.items():
            for stream in self._streams:
                own = [fresh[stream, start] for start in members]
                if partition in shown.sealed:
                    found += self._compare_sealed(stream, partition, own)
                else:
                    found += self._compare_open(stream, partition, own, tiles[stream])
        return found

    def needed(self, shown: CanonRow, damages: Iterable[Damage]) -> list[int]:
        """First blocks of the grid segments that have to come again to mend some damages."""
        tiles, starts = self._tiles(shown), set[int]()
        for damage in damages:
            if damage.load_id is None:
                starts |= {self._facts.segment_start(number) for number in damage.blocks}
                continue
            for tile in tiles[damage.stream]:
                if tile.load_id == damage.load_id:
                    starts |= set(self._segments(tile.from_block, tile.to_block))
        return sorted(starts)

    def mend(self, shown: CanonRow, damages: Sequence[Damage], fresh: Fresh) -> Mended:
        """Make the loads that take the place of the damaged ones; nothing is shown of them yet.

        Raises
        ------
        MendMismatch, SealedUnnamed
            If a new load does not hold what came again, or a sealed partition more damage.
        HeadraceError
            One of HR-40xx.
        """
        tiles = self._tiles(shown)
        removed, added = set[int](), set[int]()
        for damage in damages:
            if damage.load_id is not None:
                own = [t for t in tiles[damage.stream] if t.load_id == damage.load_id]
                removed.add(damage.load_id)
                added.add(self._remake(own, fresh, shown.generation))
        opened = {damage.partition for damage in damages if damage.load_id is None}
        for partition in opened:
            blocks = {n for d in damages if d.partition == partition for n in d.blocks}
            starts = sorted({self._facts.segment_start(number) for number in blocks})
            added |= {
                self._open(
                    stream, partition, [fresh[stream, start] for start in starts], shown.generation
                )
                for stream in self._streams
            }
        return Mended(frozenset(removed), frozenset(added), frozenset(opened))

    def show(self, shown: CanonRow, mended: Mended, generation: int) -> CanonRow:
        """Write the canon row that swaps the loads.

        Parameters
        ----------
        shown
            The newest canon row, read after the claim.
        mended
            What `mend` made.
        generation
            The claim.

        Raises
        ------
        CanonMoved
            If it no longer shows what was mended, or a newer claim has written.
        HeadraceError
            One of HR-40xx.
        """
        same = mended.removed <= set(shown.loads) and mended.opened <= set(shown.sealed)
        if shown.generation >= generation or not same:
            raise CanonMoved(database=self._database)
        row = replace(
            shown,
            generation=generation,
            seq=0,
            sealed=tuple(one for one in shown.sealed if one not in mended.opened),
            loads=tuple(sorted((set(shown.loads) - mended.removed) | mended.added)),
        )
        append_canon(self._connection, self._database, row, datetime.now(UTC))
        newest = read_canon(self._connection, self._database)
        assert newest is not None, "one was just written"
        if mended.removed & set(newest.loads) or mended.opened & set(newest.sealed):
            # Whoever claimed after us had read the canon before, and has written first.
            raise CanonMoved(database=self._database)
        return row

    # --- comparing ------------------------------------------------------------------------------

    def _tiles(self, shown: CanonRow) -> dict[str, list[LedgerRow]]:
        """The pieces of the visible loads of each stream, in order of blocks."""
        ledger = open_ledger(self._connection, self._database, self._facts, shown.sealed)
        rows = of_these(ledger, shown.loads)
        return {stream: [r for r in rows if r.stream == stream] for stream in self._streams}

    def _compare_open(
        self, stream: str, partition: int, own: Sequence[LedgerRow], tiles: Sequence[LedgerRow]
    ) -> list[Damage]:
        ends = {tile.to_block: tile for tile in tiles}
        firsts = [tile.from_block for tile in tiles]
        differing: dict[int, tuple[set[int], set[str]]] = {}

        def differ(number: int, table: str) -> None:
            load = tiles[bisect_right(firsts, number) - 1].load_id
            blocks, names = differing.setdefault(load, (set(), set()))
            blocks.add(number)
            names.add(table)

        for row in own:
            tile = ends.get(row.to_block)
            if tile is not None and tile.last_hash != row.last_hash:
                raise ReplayOtherChain(from_block=row.from_block, to_block=row.to_block)
            if tile is not None and tile.from_block == row.from_block:
                said = tile.manifest()
                for name, manifest in row.manifest().items():
                    if said.get(name, manifest) != manifest:
                        differ(row.from_block, name)
        loads = id_list(sorted({tile.load_id for tile in tiles}))
        where = f"_partition_id = '{partition}' AND load_id IN {loads}"
        for table in self._streams[stream]:
            for number in self._differing(table, OPEN, where, own):
                differ(number, table.name)
        return [
            Damage(stream, partition, load, tuple(sorted(blocks)), tuple(sorted(names)))
            for load, (blocks, names) in differing.items()
        ]

    def _compare_sealed(
        self, stream: str, partition: int, own: Sequence[LedgerRow]
    ) -> list[Damage]:
        first, last = own[0].from_block, own[-1].to_block
        known = read_ledger(
            self._connection,
            self._database,
            stream=cast("Stream", stream),
            from_block=first,
            to_block=last,
        )
        hashes = {(row.to_block, row.last_hash) for row in known if row not in own}
        ends = {number for number, _ in hashes}
        for row in own:
            if row.to_block in ends and (row.to_block, row.last_hash) not in hashes:
                raise ReplayOtherChain(from_block=row.from_block, to_block=row.to_block)
        blocks, names = set[int](), set[str]()
        for table in self._streams[stream]:
            found = self._differing(table, SEALED, f"_partition_id = '{partition}'", own)
            if found:
                blocks |= set(found)
                names.add(table.name)
        if not blocks:
            return []
        return [Damage(stream, partition, None, tuple(sorted(blocks)), tuple(sorted(names)))]

    def _differing(
        self, table: Table, suffix: str, where: str, own: Sequence[LedgerRow]
    ) -> list[int]:
        """Blocks of some segments that a table shows otherwise than they came again."""
        place = f"{self._database}.{table.name}"
        between = f"block_number BETWEEN {own[0].from_block} AND {own[-1].to_block}"
        visible = read_contents(self._connection, place + suffix, table, f"{where} AND {between}")
        again = read_contents(
            self._connection, place + OPEN, table, rows_within([(r, r) for r in own])
        )
        within = [n for row in own for n in range(row.from_block, row.to_block + 1)]
        return different(visible, again, within)

    # --- mending --------------------------------------------------------------------------------

    def _segments(self, first: int, last: int) -> range:
        """First blocks of the grid segments that blocks `first` to `last` lie in."""
        return range(self._facts.segment_start(first), last + 1, self._facts.segment_blocks)

    def _remake(self, pieces: Sequence[LedgerRow], fresh: Fresh, generation: int) -> int:
        """A load of the same pieces, with the rows that came again; its id."""
        stream, load_id = pieces[0].stream, secrets.randbits(64)
        sources = [
            (fresh[stream, start], piece)
            for piece in pieces
            for start in self._segments(piece.from_block, piece.to_block)
        ]
        sums = {}
        for table in self._streams[stream]:
            place = f"{self._database}.{table.name}{OPEN}"
            copy_rows(self._connection, place, place, table, load_id, rows_within(sources))
            sums[table.name] = self._sums(table, pieces[0].from_block, load_id)
        made = [
            _measured(
                replace(piece, content_version=source.content_version, generation=generation),
                load_id,
                sums,
            )
            for source, piece in {piece.from_block: (s, piece) for s, piece in sources}.values()
        ]
        self._check(made, [source for source, _ in sources])
        append_ledger(self._connection, self._database, made)
        return load_id

    def _open(self, stream: str, partition: int, anew: Sequence[LedgerRow], generation: int) -> int:
        """A load of all of a sealed partition's stream, some of its segments anew; its id."""
        load_id, size = secrets.randbits(64), self._facts.partition_blocks
        first, last = partition * size, (partition + 1) * size - 1
        kept = " AND ".join(
            f"block_number NOT BETWEEN {row.from_block} AND {row.to_block}" for row in anew
        )
        sums = {}
        for table in self._streams[stream]:
            place = f"{self._database}.{table.name}"
            where = f"_partition_id = '{partition}' AND {kept}"
            copy_rows(self._connection, place + OPEN, place + SEALED, table, load_id, where)
            where = rows_within([(row, row) for row in anew])
            copy_rows(self._connection, place + OPEN, place + OPEN, table, load_id, where)
            sums[table.name] = self._sums(table, first, load_id)
        named = sealed_parts(self._connection, self._database, self._facts, stream, partition)
        named |= {row.from_block: [row] for row in anew}
        for start in self._segments(first, last):
            if start not in named:
                end = start + self._facts.segment_blocks - 1
                raise SealedUnnamed(from_block=start, to_block=end, partition=partition)
        made = [
            _measured(replace(row, lane="history", generation=generation), load_id, sums)
            for start in self._segments(first, last)
            for row in named[start]
        ]
        self._check(made, anew)
        append_ledger(self._connection, self._database, made)
        return load_id

    def _sums(self, table: Table, first: int, load_id: int) -> Sums:
        place = f"{self._database}.{table.name}{OPEN}"
        where = f"_partition_id = '{self._facts.partition(first)}' AND load_id = {load_id}"
        return read_sums(self._connection, place, table, where)

    @staticmethod
    def _check(made: Iterable[LedgerRow], sources: Iterable[LedgerRow]) -> None:
        """Whole segments must hold what the manifest of what came again says."""
        asked = {(row.from_block, row.to_block): row.manifest() for row in sources}
        for row in made:
            said = asked.get((row.from_block, row.to_block), {})
            for table, got in row.manifest().items():
                if said.get(table, got) != got:
                    raise MendMismatch(
                        table=table,
                        from_block=row.from_block,
                        to_block=row.to_block,
                        rows=got[0],
                        manifest_rows=said[table][0],
                    )


def _measured(row: LedgerRow, load_id: int, sums: Mapping[str, Sums]) -> LedgerRow:
    """A ledger row of the same segment under another load, with what that load holds of it."""
    measured = [summed_between(sums[t], row.from_block, row.to_block) for t in sums]
    return replace(
        row,
        load_id=load_id,
        tables=tuple(sums),
        rows=tuple(rows for rows, _ in measured),
        checksums=tuple(checksum for _, checksum in measured),
        inserted_at=None,
    )
