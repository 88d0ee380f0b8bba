"""Sealed partitions and expired canon rows in, free disk space out.

``T_open``'s part of a sealed partition is dropped only when no query can still read it: after
twice the longest execution time since the seal, and since anything was written to it: a replay
loads segments of sealed partitions once more, to compare them. Canon rows from before the seal go
first, so that a query as of one of them fails instead of missing rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.tables import Table
from sinks.canon_table import forget_before, sweep_canon
from sinks.connection import Connection
from sinks.ddl import OPEN
from sinks.publisher import Publisher


@dataclass(frozen=True, slots=True)
class SweeperSettings:
    """How long things are kept."""

    execution_seconds_max: float = 60.0
    """The longest execution time of a query; twice this passes before anything is dropped."""
    canon_keep_seconds: float = 6 * 3600.0
    """How long canon rows can be asked for."""


class Sweeper:
    """Drops what nobody can read any more.

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
        How long things are kept.
    clock
        Unix time in seconds, for what ClickHouse stamped.
    steady
        Seconds of a clock that nobody sets, for how long a partition has been sealed.
    """

    def __init__(
        self,
        connection: Connection,
        database: str,
        tables: Sequence[Table],
        publisher: Publisher,
        *,
        settings: SweeperSettings | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection, self._database, self._tables = connection, database, tuple(tables)
        self._publisher, self._settings = publisher, settings or SweeperSettings()
        self._clock, self._steady = clock, steady
        self._sealed_at: dict[int, tuple[float, tuple[int, int]]] = {}
        self._still_since: dict[tuple[str, int], tuple[int, float]] = {}

    def run_once(self) -> list[tuple[str, int]]:
        """Drop what has become unreadable.

        Returns
        -------
        list of (str, int)
            Tables of whose partitions the open part was dropped.

        Raises
        ------
        HeadraceError
            One of HR-40xx.
        """
        at = datetime.fromtimestamp(self._clock(), UTC)
        keep = timedelta(seconds=self._settings.canon_keep_seconds)
        sweep_canon(self._connection, self._database, at, keep)
        now = self._steady()
        shown = self._publisher.visible()
        if shown is None:
            return []
        for partition in shown.sealed:
            # Seen sealed now, in this row or an earlier one: a restart waits once more.
            self._sealed_at.setdefault(partition, (now, (shown.generation, shown.seq)))
        quiet = 2 * self._settings.execution_seconds_max
        due = {
            partition: key
            for partition, (at, key) in self._sealed_at.items()
            if partition in shown.sealed and now - at >= quiet
        }
        still = self._still(shown.sealed, now)
        left = [key for key, at in still.items() if key[1] in due and now - at >= quiet]
        if left:
            forget_before(
                self._connection, self._database, max(due[partition] for _, partition in left)
            )
        for table, partition in left:
            self._publisher.check_claim()
            self._connection.execute(
                f"ALTER TABLE {self._database}.{table}{OPEN} DROP PARTITION ID '{partition}'"
            )
        return left

    def _still(self, partitions: Sequence[int], now: float) -> dict[tuple[str, int], float]:
        """Since when nothing has changed in each open part of these partitions."""
        if not partitions:
            return {}
        names = {f"{table.name}{OPEN}": table.name for table in self._tables}
        found = self._connection.execute(
            "SELECT table, partition_id, groupBitXor(cityHash64(name)) FROM system.parts "
            "WHERE active AND database = %(database)s AND partition_id IN %(ids)s "
            "AND table IN %(tables)s GROUP BY table, partition_id ORDER BY table, partition_id",
            {
                "database": self._database,
                "ids": tuple(str(partition) for partition in partitions),
                "tables": tuple(names),
            },
        )
        former, self._still_since = self._still_since, {}
        for table, partition, parts in found:
            key = (names[table], int(partition))
            same = former.get(key, (None, now))
            self._still_since[key] = (parts, same[1] if same[0] == parts else now)
        return {key: at for key, (_, at) in self._still_since.items()}
