"""Visible loads in, fewer and larger ones out: the same rows under a new load_id.

A fold copies the rows of whole loads inside ``T_open``, checks the copy against the manifests of
its sources, writes its ledger rows, and only then asks the publisher for one canon row that swaps
the loads. Until that row nothing has changed for a reader; whatever stops the fold before leaves
rows that are never shown and go when the partition is sealed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.errors_canon import FoldMismatch
from schemas.tables import Table
from sinks.connection import Connection
from sinks.ddl import OPEN
from sinks.fold_plan import Fold, FoldSettings, plan_folds, runs
from sinks.ledger import LedgerRow, append_ledger
from sinks.manifests import (
    copy_rows,
    differing,
    of_loads,
    rows_of_loads,
    stored,
    summed,
)
from sinks.publisher import Publisher


@dataclass(frozen=True, slots=True)
class Folded:
    """A fold that was made."""

    fold: Fold
    """What was folded."""
    load_id: int
    """The new load."""
    swapped: bool
    """Whether the canon shows it; False where the loads changed meanwhile."""


class Compactor:
    """Folds loads of one chain.

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
        When to fold.
    new_load_id
        Injected for tests.
    """

    def __init__(
        self,
        connection: Connection,
        database: str,
        tables: Sequence[Table],
        publisher: Publisher,
        *,
        settings: FoldSettings | None = None,
        new_load_id: Callable[[], int] = lambda: secrets.randbits(64),
    ) -> None:
        self._connection, self._database, self._publisher = connection, database, publisher
        self._settings, self._new_load_id = settings or FoldSettings(), new_load_id
        self._streams: dict[str, list[Table]] = {}
        for table in tables:
            self._streams.setdefault(table.stream, []).append(table)

    def run_once(self) -> list[Folded]:
        """Fold what is worth folding now.

        Raises
        ------
        FoldMismatch
            If a copy does not hold what its sources' manifests say; nothing was swapped.
        HeadraceError
            Another of HR-40xx.
        """
        folds = self._publisher.change(lambda canon: plan_folds(canon, self._settings))
        return [self.apply(fold) for fold in folds]

    def apply(self, fold: Fold) -> Folded:
        """Make a fold.

        Raises
        ------
        FoldMismatch
            If the copy does not hold what the manifests say.
        HeadraceError
            Another of HR-40xx.
        """
        first, last = fold.segments[0][0], fold.segments[-1][1]
        source_rows = [
            row
            for row in rows_of_loads(self._connection, self._database, fold.sources, first, last)
            if row.stream == fold.stream
        ]
        load_id = self._new_load_id()
        self._copy(fold, load_id, source_rows)
        ledger = [self._ledger_row(run, load_id) for run in runs(fold, source_rows)]
        self._publisher.expect_own(load_id)
        append_ledger(self._connection, self._database, ledger)
        swapped = self._publisher.change(lambda canon: canon.fold(ledger))
        return Folded(fold, load_id, swapped)

    def _copy(self, fold: Fold, load_id: int, source_rows: Sequence[LedgerRow]) -> None:
        """Copy the rows table by table, each checked against the manifests."""
        first, last = fold.segments[0][0], fold.segments[-1][1]
        asked = summed(source_rows)
        for table in self._streams[fold.stream]:
            rows, checksum = asked.get(table.name, (0, 0))
            if rows == 0:
                continue
            source = f"{self._database}.{table.name}{OPEN}"
            partition = f"_partition_id = '{fold.partition}'"
            where = (
                f"{partition} AND {of_loads(fold.sources)} "
                f"AND block_number BETWEEN {first} AND {last}"
            )
            copy_rows(self._connection, source, source, table, load_id, where)
            got = stored(self._connection, source, table, f"{partition} AND load_id = {load_id}")
            if differing(asked, table.name, got):
                raise FoldMismatch(
                    from_block=first,
                    to_block=last,
                    table=table.name,
                    rows=got[0],
                    checksum=got[1],
                    manifest_rows=rows,
                    manifest_checksum=checksum,
                )

    def _ledger_row(self, run: Sequence[LedgerRow], load_id: int) -> LedgerRow:
        """What the ledger says of one run of blocks of the new load."""
        manifest = summed(run)
        tables = [table.name for table in self._streams[run[0].stream]]
        return LedgerRow(
            run[0].stream,
            "history",
            run[0].from_block,
            run[-1].to_block,
            run[-1].last_hash,
            run[0].content_version,
            self._publisher.generation,
            load_id,
            tuple(tables),
            tuple(manifest.get(table, (0, 0))[0] for table in tables),
            tuple(manifest.get(table, (0, 0))[1] for table in tables),
        )
