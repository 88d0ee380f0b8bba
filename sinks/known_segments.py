"""A ledger and a canon in, which segments need not be loaded again out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from schemas.chains import ChainFacts
from schemas.segments import SegmentName
from sinks.canon_table import read_rewinds
from sinks.connection import Connection
from sinks.ledger import LedgerRow
from sinks.manifests import open_ledger

REFRESH_SECONDS = 1.0
"""How often the canon is read."""
AGAIN_MAX = 100_000
"""Segments that were loaded on request and are remembered as such."""


def durable_names(
    connection: Connection,
    database: str,
    facts: ChainFacts,
    chain_id: int,
    sealed: Sequence[int],
) -> set[SegmentName]:
    """Names of the segments of open partitions whose loads may count.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    rewinds = read_rewinds(connection, database)

    def rewound(row: LedgerRow) -> bool:
        return any(
            row.generation < rewind.generation and row.to_block > rewind.to_block
            for rewind in rewinds
        )

    rows = open_ledger(connection, database, facts, sealed)
    refused = {row.load_id for row in rows if rewound(row)}
    return {row.name(chain_id) for row in rows if row.load_id not in refused}


class KnownSegments:
    """What one sink knows of the segments that have a load which may count.

    It need not know all: a segment that is loaded twice counts once. What it saves is work, when
    messages come again.

    Parameters
    ----------
    connection
        A connection of its own.
    database
        The chain's database.
    facts, chain_id
        The chain.
    clock
        Seconds of a steady clock.
    """

    def __init__(
        self,
        connection: Connection,
        database: str,
        facts: ChainFacts,
        chain_id: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.generation = 0
        """The newest one in the canon: what new loads are written for."""
        self._connection, self._database = connection, database
        self._facts, self._chain_id, self._clock = facts, chain_id, clock
        self._names: set[SegmentName] = set()
        self._sealed: frozenset[int] = frozenset()
        self._again: dict[tuple[str, SegmentName], None] = {}
        self._read_at: float | None = None

    def load(self) -> None:
        """Read every name anew: other sinks may have written some of them.

        Raises
        ------
        HeadraceError
            One of HR-40xx.
        """
        self._read_canon()
        sealed = sorted(self._sealed)
        self._names = durable_names(
            self._connection, self._database, self._facts, self._chain_id, sealed
        )

    def refresh(self) -> None:
        """Follow the canon, at most every `REFRESH_SECONDS`.

        Raises
        ------
        HeadraceError
            One of HR-40xx.
        """
        if self._read_at is not None and self._clock() - self._read_at < REFRESH_SECONDS:
            return
        generation, sealed = self.generation, self._sealed
        self._read_canon()
        if self.generation != generation and self._rewound_since(generation):
            self.load()
        elif self._sealed - sealed:
            partition = self._facts.partition
            self._names = {
                name for name in self._names if partition(name.from_block) not in self._sealed
            }

    def holds(self, name: SegmentName, again: str | None) -> bool:
        """Whether a segment needs no load.

        Parameters
        ----------
        name
            The segment.
        again
            Id of the request that it answers, if any: it is loaded once for that, whatever is
            there.
        """
        if again is not None and (again, name) not in self._again:
            return False
        return name in self._names or self._facts.partition(name.from_block) in self._sealed

    def add(self, loaded: Iterable[tuple[SegmentName, str | None]]) -> None:
        """Segments that have a complete load now, each with the request that it answers."""
        for name, again in loaded:
            self._names.add(name)
            if again is not None:
                self._again[again, name] = None
        while len(self._again) > AGAIN_MAX:
            del self._again[next(iter(self._again))]

    def _read_canon(self) -> None:
        found = self._connection.execute(
            f"SELECT generation, sealed FROM {self._database}.canon "
            "ORDER BY generation DESC, seq DESC LIMIT 1"
        )
        self._read_at = self._clock()
        if found:
            self.generation, self._sealed = found[0][0], frozenset(found[0][1])

    def _rewound_since(self, generation: int) -> bool:
        rewinds = read_rewinds(self._connection, self._database)
        return any(rewind.generation > generation for rewind in rewinds)
