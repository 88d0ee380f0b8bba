"""Complete loads in, and out again: the rows of the table `ledger`.

A ledger row is written after every row of its segment is stored. It is never changed; which of
several loads of a segment counts is the publisher's decision, and stands in `canon`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, cast

from schemas.segments import Lane, SegmentName, Stream
from sinks.connection import Connection


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One segment of one complete load."""

    stream: Stream
    """The stream."""
    lane: Lane
    """The lane."""
    from_block: int
    """First block."""
    to_block: int
    """Last block, included."""
    last_hash: bytes
    """Hash of the last block, 32 bytes."""
    content_version: str
    """Content version of the segment."""
    generation: int
    """Generation that the load was written for."""
    load_id: int
    """The load that holds the rows."""
    tables: tuple[str, ...]
    """The stream's tables."""
    rows: tuple[int, ...]
    """Rows of the segment in each of them."""
    checksums: tuple[int, ...]
    """Checksum of those rows in each of them (see sinks/checksum.py)."""
    inserted_at: datetime | None = None
    """When it was written, by ClickHouse's clock; None before."""

    def name(self, chain_id: int) -> SegmentName:
        """The segment's name."""
        return SegmentName(
            chain_id,
            self.stream,
            self.lane,
            self.from_block,
            self.to_block,
            self.last_hash,
            self.content_version,
        )

    def manifest(self) -> dict[str, tuple[int, int]]:
        """(rows, checksum) by table."""
        pairs = zip(self.rows, self.checksums, strict=True)
        return dict(zip(self.tables, pairs, strict=True))


COLUMNS = tuple(field.name for field in fields(LedgerRow))


def append_ledger(connection: Connection, database: str, rows: Sequence[LedgerRow]) -> None:
    """Write ledger rows, all of them or none.

    Raises
    ------
    HeadraceError
        One of HR-40xx. After ``ClickHouseUnreachable`` they may be there or not; writing them
        again is harmless, a row is a fact.
    """
    columns = COLUMNS[:-1]
    values = [tuple(_plain(getattr(row, name)) for name in columns) for row in rows]
    connection.insert_rows(f"{database}.ledger", columns, values)


def read_ledger(
    connection: Connection,
    database: str,
    *,
    since: datetime | None = None,
    stream: Stream | None = None,
    from_block: int | None = None,
    to_block: int | None = None,
    loads: Sequence[int] | None = None,
) -> list[LedgerRow]:
    """Ledger rows in the order in which they were written.

    Parameters
    ----------
    since
        Rows written at or after that moment. Several sinks write at once, so pass the newest
        `inserted_at` seen less a minute, and drop what is known already.
    stream
        Rows of one stream.
    from_block, to_block
        Rows whose segment touches that range.
    loads
        Rows of these loads; at least one.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    conditions: dict[str, object] = {
        "inserted_at >= fromUnixTimestamp64Micro(%(since)s, 'UTC')": since,
        "stream = %(stream)s": stream,
        "to_block >= %(from_block)s": from_block,
        "from_block <= %(to_block)s": to_block,
        "load_id IN %(loads)s": loads,
    }
    given = [condition for condition, value in conditions.items() if value is not None]
    where = " AND ".join(given) or "1"
    parameters: dict[str, object] = {
        "since": int(since.timestamp() * 1_000_000) if since else 0,
        "stream": stream,
        "from_block": from_block,
        "to_block": to_block,
        "loads": tuple(loads or ()),
    }
    found = connection.execute(
        f"SELECT {', '.join(COLUMNS)} FROM {database}.ledger WHERE {where} "
        "ORDER BY inserted_at, load_id, from_block",
        parameters,
        as_bytes=True,
    )
    return [_row(values) for values in found]


def recent_loads(
    connection: Connection, database: str, since: datetime | None
) -> dict[int, datetime]:
    """When each load was completed that was so at or after `since`; all of them for None.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    found = connection.execute(
        f"SELECT load_id, max(inserted_at) FROM {database}.ledger "
        "WHERE inserted_at >= fromUnixTimestamp64Micro(%(since)s, 'UTC') GROUP BY load_id",
        {"since": int(since.timestamp() * 1_000_000) if since else 0},
    )
    return dict(found)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _row(values: tuple[Any, ...]) -> LedgerRow:
    given = dict(zip(COLUMNS, values, strict=True))
    return LedgerRow(
        stream=cast("Stream", _text(given["stream"])),
        lane=cast("Lane", _text(given["lane"])),
        from_block=given["from_block"],
        to_block=given["to_block"],
        last_hash=given["last_hash"],
        content_version=_text(given["content_version"]),
        generation=given["generation"],
        load_id=given["load_id"],
        tables=tuple(_text(name) for name in given["tables"]),
        rows=tuple(given["rows"]),
        checksums=tuple(given["checksums"]),
        inserted_at=given["inserted_at"],
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
