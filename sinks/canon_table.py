"""Canon rows in, the table `canon` out, and back; its expired rows swept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from schemas.segments import BlockRef
from sinks.canon_row import CanonRow, Reorg, Rewound
from sinks.connection import Connection

COLUMNS = (
    "generation", "seq", "at", "floor", "head", "head_hash", "safe", "safe_hash",
    "finalized", "finalized_hash", "straddling", "sealed", "loads",
)  # fmt: skip
REORG_COLUMNS = (
    "generation", "seq", "at", "depth_blocks", "ancestor_number", "ancestor_hash",
    "old_head_number", "old_head_hash", "new_head_number", "new_head_hash", "removed", "added",
)  # fmt: skip
REWIND_COLUMNS = ("generation", "seq", "at", "from_head", "to_block", "reason")


def read_canon(
    connection: Connection, database: str, *, below: int | None = None
) -> CanonRow | None:
    """The newest canon row; None where nothing is visible yet.

    Parameters
    ----------
    connection, database
        Where it stands.
    below
        Takes rows of lower generations alone.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    found = connection.execute(
        f"SELECT {', '.join(COLUMNS)} FROM {database}.canon "
        f"{'' if below is None else f'WHERE generation < {below} '}"
        "ORDER BY generation DESC, seq DESC LIMIT 1",
        as_bytes=True,
    )
    if not found:
        return None
    given: dict[str, Any] = dict(zip(COLUMNS, found[0], strict=True))
    return CanonRow(
        given["generation"],
        given["seq"],
        given["floor"],
        BlockRef(given["head"], given["head_hash"]),
        _ref(given["safe"], given["safe_hash"]),
        _ref(given["finalized"], given["finalized_hash"]),
        tuple(given["sealed"]),
        tuple(given["loads"]),
        bool(given["straddling"]),
    )


def append_canon(connection: Connection, database: str, row: CanonRow, at: datetime) -> None:
    """Write a canon row. Writing it again is harmless.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    values = (
        row.generation,
        row.seq,
        at,
        row.floor,
        row.head.number,
        row.head.hash,
        *_pair(row.safe),
        *_pair(row.finalized),
        row.straddling,
        list(row.sealed),
        list(row.loads),
    )
    connection.insert_rows(f"{database}.canon", COLUMNS, [values])


def append_reorg(
    connection: Connection, database: str, row: CanonRow, reorg: Reorg, at: datetime
) -> None:
    """Write the reorg that a canon row applies.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    values = (
        row.generation,
        row.seq,
        at,
        len(reorg.removed),
        *_pair(reorg.ancestor),
        reorg.old_head.number,
        reorg.old_head.hash,
        reorg.new_head.number,
        reorg.new_head.hash,
        [(ref.number, ref.hash) for ref in reorg.removed],
        [(ref.number, ref.hash) for ref in reorg.added],
    )
    connection.insert_rows(f"{database}.reorgs", REORG_COLUMNS, [values])


def has_reorg(connection: Connection, database: str, row: CanonRow) -> bool:
    """Whether the reorg that a canon row applies is written.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    found = connection.execute(
        f"SELECT count() FROM {database}.reorgs "
        "WHERE generation = %(generation)s AND seq = %(seq)s",
        {"generation": row.generation, "seq": row.seq},
    )
    return bool(found[0][0])


def forget_untold(
    connection: Connection, database: str, shown: tuple[int, int], generation: int
) -> None:
    """Delete reorgs of older publishers whose canon row was never visible.

    Their publisher was cut short before the canon row, or wrote both behind the fence.

    Parameters
    ----------
    connection, database
        Where they stand.
    shown
        (generation, seq) of the newest row of older publishers that counts.
    generation
        Ours.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    key = {"old": shown[0], "seq": shown[1], "generation": generation}
    where = (
        "generation >= %(old)s AND generation < %(generation)s "
        "AND (generation, seq) > (%(old)s, %(seq)s)"
    )
    if connection.execute(f"SELECT count() FROM {database}.reorgs WHERE {where}", key) != [(0,)]:
        connection.execute(f"DELETE FROM {database}.reorgs WHERE {where}", key)


def append_rewind(
    connection: Connection, database: str, rewound: Rewound, from_head: int, at: datetime, why: str
) -> None:
    """Write a rewind's intent; see ``sinks.rewind``.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    values = (rewound.generation, 0, at, from_head, rewound.to_block, why)
    connection.insert_rows(f"{database}.rewinds", REWIND_COLUMNS, [values])


def read_rewinds(connection: Connection, database: str) -> list[Rewound]:
    """All rewinds, oldest first.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    found = connection.execute(
        f"SELECT DISTINCT generation, to_block FROM {database}.rewinds ORDER BY generation"
    )
    return [Rewound(generation, to_block) for generation, to_block in found]


def newest_generation(connection: Connection, database: str) -> int:
    """The highest generation that anything was written for; 0 where nothing was.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    return max(
        int(connection.value(f"SELECT max(generation) FROM {database}.{table}"))
        for table in ("canon", "rewinds", "ledger")
    )


def sweep_canon(connection: Connection, database: str, now: datetime, keep: timedelta) -> int:
    """Drop the hours of canon rows that ended more than `keep` ago, never the newest row.

    Returns
    -------
    int
        How many hours were dropped.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    hours = connection.execute(
        "SELECT _partition_id, max(at), max((generation, seq)) "
        f"FROM {database}.canon GROUP BY _partition_id"
    )
    newest = max((key for _, _, key in hours), default=None)
    expired = [hour for hour, at, key in hours if at < now - keep and key != newest]
    for hour in expired:
        connection.execute(f"ALTER TABLE {database}.canon DROP PARTITION ID '{hour}'")
    return len(expired)


def forget_before(connection: Connection, database: str, key: tuple[int, int]) -> None:
    """Delete the canon rows older than (generation, seq) `key`: what they list is dropped soon.

    A query as of one of them fails from now on instead of missing rows.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    connection.execute(
        f"DELETE FROM {database}.canon WHERE (generation, seq) < (%(generation)s, %(seq)s)",
        {"generation": key[0], "seq": key[1]},
        settings={"lightweight_deletes_sync": 2},
    )


def id_list(ids: Sequence[int]) -> str:
    """Load ids as a SQL list; never empty."""
    return "(" + (", ".join(map(str, ids)) or "NULL") + ")"


def _ref(number: int | None, block_hash: bytes | None) -> BlockRef | None:
    return BlockRef(number, block_hash) if number is not None and block_hash else None


def _pair(ref: BlockRef | None) -> tuple[int | None, bytes | None]:
    return (ref.number, ref.hash) if ref is not None else (None, None)
