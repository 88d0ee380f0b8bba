"""Partitions that are final and visible as a whole in, partitions closed for ever out.

Per table, ``T_open``'s partition becomes ``T_sealed``'s: by hard links where it holds visible loads
only, through a staging table with the visible rows otherwise. Every table is checked against the
ledger's manifests. Then one canon row moves the partition from the visible loads to the sealed
partitions. A reader sees the same rows before and after; whatever stops a seal before that row is
harmless, because ``T_sealed`` shows nothing that is not listed as sealed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.errors_canon import SealMismatch
from schemas.tables import Table
from sinks.canon import Canon
from sinks.canon_table import forget_before
from sinks.connection import Connection
from sinks.ddl import CREATE_SETTINGS, OPEN, SEALED, EngineFamily, create_table
from sinks.manifests import (
    Manifest,
    copy_rows,
    differing,
    of_loads,
    rows_of_loads,
    stored,
    summed,
)
from sinks.publisher import Publisher

STAGING = "_staging"


@dataclass(frozen=True, slots=True)
class SealerSettings:
    """Pace of the sealer."""

    settle_seconds: float = 1.0
    """Between the last REPLACE PARTITION and the canon row: a query that chose its parts of
    ``T_sealed`` before it reads the canon within this time."""
    partitions_max: int = 4
    """Partitions sealed in one run."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A partition that was sealed."""

    partition: int
    """Its id."""
    copied: tuple[str, ...]
    """Tables that went through a staging table; the others were linked."""
    rows: int
    """Rows of all tables."""


class Sealer:
    """Seals the partitions of one chain.

    Parameters
    ----------
    connection
        A connection that nobody else uses.
    database
        The chain's database.
    tables
        Every declared table.
    publisher
        The chain's publisher, claimed.
    settings
        Pace.
    family
        Engine of the staging tables.
    sleep
        Injected for tests.
    """

    def __init__(
        self,
        connection: Connection,
        database: str,
        tables: Sequence[Table],
        publisher: Publisher,
        *,
        settings: SealerSettings | None = None,
        family: EngineFamily | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._connection, self._database, self._tables = connection, database, tuple(tables)
        self._publisher, self._settings = publisher, settings or SealerSettings()
        self._family, self._sleep = family or EngineFamily(), sleep

    def run_once(self) -> list[Sealed]:
        """Seal what can be sealed now.

        Raises
        ------
        SealMismatch
            If rows of an accepted load are missing or changed; the partition stays open.
        HeadraceError
            Another of HR-40xx.
        """
        ready = self._publisher.change(lambda canon: canon.seal_candidates())
        return [self.seal(partition) for partition in ready[: self._settings.partitions_max]]

    def seal(self, partition: int) -> Sealed:
        """Seal one partition that is final and visible as a whole.

        Raises
        ------
        SealMismatch
            If rows of an accepted load are missing or changed; the partition stays open.
        HeadraceError
            Another of HR-40xx.
        """
        loads = self._publisher.change(lambda canon: _freeze(canon, partition))
        try:
            self._forget_former_seal(partition)
            manifest = self._manifest(partition, loads)
            copied = [
                table.name
                for table in self._tables
                if self._seal_table(table, partition, loads, manifest)
            ]
            self._sleep(self._settings.settle_seconds)
            self._publisher.change(lambda canon: canon.seal(partition))
        finally:
            self._publisher.change(lambda canon: canon.freeze(partition, frozen=False))
        return Sealed(partition, tuple(copied), sum(rows for rows, _ in manifest.values()))

    def _manifest(self, partition: int, loads: frozenset[int]) -> Manifest:
        """What the partition's loads hold together."""
        size = self._publisher.facts.partition_blocks
        first, last = partition * size, (partition + 1) * size - 1
        return summed(rows_of_loads(self._connection, self._database, loads, first, last))

    def _forget_former_seal(self, partition: int) -> None:
        """Canon rows from before a rewind may list the partition, with what it held then."""
        shown = self._publisher.visible()
        former = self._connection.value(
            f"SELECT count() FROM {self._database}.canon WHERE has(sealed, %(partition)s)",
            {"partition": partition},
        )
        if former and shown is not None:
            key = (shown.generation, shown.seq)
            forget_before(self._connection, self._database, key)

    def _seal_table(
        self, table: Table, partition: int, loads: frozenset[int], manifest: Manifest
    ) -> bool:
        """Put a table's visible rows into ``T_sealed``; True where they had to be copied."""
        own, sealed = (f"{self._database}.{table.name}{suffix}" for suffix in (OPEN, SEALED))
        where = f"_partition_id = '{partition}'"
        found = self._connection.execute(
            f"SELECT toUInt64(load_id) AS load, count() FROM {own} WHERE {where} GROUP BY load"
        )
        if all(load_id in loads for load_id, _ in found):
            self._replace(sealed, own, partition, empty=not found)
            if not differing(manifest, table.name, stored(self._connection, sealed, table, where)):
                return False
            # A zombie's rows may have come between the look and the links: copy what counts.
        staging = f"{self._database}.{table.name}{STAGING}"
        size = self._publisher.facts.partition_blocks
        self._connection.execute(f"DROP TABLE IF EXISTS {staging} SYNC")
        self._connection.execute(
            create_table(self._database, table, STAGING, size, self._family),
            settings=CREATE_SETTINGS,
        )
        copy_rows(self._connection, staging, own, table, None, f"{where} AND {of_loads(loads)}")
        got = stored(self._connection, staging, table, where)
        self._replace(sealed, staging, partition, empty=got[0] == 0)
        self._connection.execute(f"DROP TABLE {staging} SYNC")
        got = stored(self._connection, sealed, table, where)
        if differing(manifest, table.name, got):
            rows, checksum = manifest.get(table.name, (0, 0))
            raise SealMismatch(
                partition=partition,
                table=table.name,
                rows=got[0],
                checksum=got[1],
                manifest_rows=rows,
                manifest_checksum=checksum,
                to_block=max(partition * size - 1, 0),
            )
        return True

    def _replace(self, target: str, source: str, partition: int, *, empty: bool) -> None:
        """The target's partition becomes a hard link of the source's."""
        # One that was superseded meanwhile must not undo what its successor has sealed.
        self._publisher.check_claim()
        how = (
            f"DROP PARTITION ID '{partition}'"
            if empty
            else f"REPLACE PARTITION ID '{partition}' FROM {source}"
        )
        self._connection.execute(f"ALTER TABLE {target} {how}")


def _freeze(canon: Canon, partition: int) -> frozenset[int]:
    """Keep a partition's tiles as they are; the loads that they come from."""
    canon.freeze(partition)
    return frozenset(
        tile.load_id for tiling in canon.tilings.values() for tile in tiling.tiles(partition)
    )
