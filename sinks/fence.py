"""The canon of a chain's older publishers in, the canon of a new claim that hides theirs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from schemas.errors_canon import RewindUnfinished
from sinks.canon import Canon
from sinks.canon_row import CanonRow, Rewound
from sinks.canon_table import forget_untold, read_canon, read_rewinds
from sinks.connection import Connection
from sinks.ledger import LedgerRow
from sinks.manifests import open_ledger


class Build(Protocol):
    """Makes a canon from the newest older row, all rewinds, and the last seq of the claim."""

    def __call__(self, *, shown: CanonRow | None, rewinds: list[Rewound], seq: int) -> Canon:
        """Nothing of it is written, and no ledger row is in it yet."""
        ...


def fence_off(
    connection: Connection,
    database: str,
    generation: int,
    last_seq: int,
    build: Build,
    append: Callable[[CanonRow], None],
) -> tuple[Canon, tuple[int, int]]:
    """Repeat the newest row of older publishers under a new claim.

    An older publisher may live on, and write between our read and our fence. So what is left of
    the older ones is read again once the fence stands, and a newer row is repeated in its turn.
    Two rows are enough: a row of theirs that was ever visible stood before the first fence, so
    the second read finds it, or one after it. What they write later sorts below the fence and is
    never visible; its loads are in the ledger, where they count as any other's, and at its next
    check such a publisher finds the fence, and ends. So nothing visible goes back, but for the
    instant between the two rows, and only where an older publisher wrote within the milliseconds
    between the first read and the first fence. Where nothing is visible yet there is nothing to
    repeat, and no fence: older publishers and the new one show the same ledger then.

    Parameters
    ----------
    connection, database
        Where the canon stands.
    generation
        The claim.
    last_seq
        The last seq that was written, or tried, under the claim; -1 for none.
    build
        See `Build`.
    append
        Writes a canon row.

    Returns
    -------
    tuple[Canon, tuple[int, int]]
        The canon, whose ledger rows are still to be taken up, and the (generation, seq) of the
        row that it repeats; (0, 0) for none.

    Raises
    ------
    RewindUnfinished
        If a rewind was cut short.
    HeadraceError
        One of HR-40xx.
    """
    canon, repeated = None, (0, 0)
    for _ in range(2):
        left = read_canon(connection, database, below=generation)
        rewinds = read_rewinds(connection, database)
        if rewinds and (left is None or left.generation < rewinds[-1].generation):
            raise RewindUnfinished(to_block=rewinds[-1].to_block, database=database)
        key = (left.generation, left.seq) if left is not None else (0, 0)
        if canon is not None and key == repeated:
            break
        canon, repeated = build(shown=left, rewinds=rewinds, seq=last_seq), key
        fence = canon.claim()
        if fence is not None:
            append(fence)
            last_seq = fence.seq
    assert canon is not None
    forget_untold(connection, database, repeated, generation)
    return canon, repeated


def take_up(connection: Connection, database: str, canon: Canon) -> list[LedgerRow]:
    """Let a canon take up the ledger rows of its open partitions; these rows.

    Raises
    ------
    CanonDamaged
        If the ledger lacks a load that the canon shows.
    HeadraceError
        One of HR-40xx.
    """
    sealed = canon.shown.sealed if canon.shown is not None else ()
    rows = open_ledger(connection, database, canon.facts, sealed)
    if canon.shown is None:
        canon.add(rows)
    else:
        canon.restore(rows)
    return rows
