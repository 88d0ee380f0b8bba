"""A chain's database in, a snapshot of what it holds and shows out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors_sinks import UnknownTable
from sinks.connection import Connection

REORGS_SHOWN_MAX = 5
PROGRESS_FILE = "progress.json"
"""In the data directory's run/: the last snapshot of the process that runs on it."""
PROGRESS_AGE_SECONDS_MAX = 15.0

_CANON = """
SELECT generation, seq, toUnixTimestamp64Milli(at) AS at_ms, floor, head,
       concat('0x', lower(hex(head_hash))) AS head_hash, safe, finalized,
       length(loads) AS visible_loads, sealed
FROM canon ORDER BY generation DESC, seq DESC LIMIT 1"""

_TABLES = """
SELECT replaceRegexpOne(table, '_(open|sealed)$', '') AS name,
       sumIf(rows, endsWith(table, '_open')) AS rows_open,
       sumIf(rows, endsWith(table, '_sealed')) AS rows_sealed,
       sum(bytes_on_disk) AS bytes
FROM system.parts
WHERE active AND database = currentDatabase() AND match(table, '_(open|sealed)$')
GROUP BY name ORDER BY name"""

_REORGS = f"""
SELECT toUnixTimestamp64Milli(at) AS at_ms, depth_blocks, ancestor_number,
       old_head_number, new_head_number
FROM reorgs ORDER BY at DESC LIMIT {REORGS_SHOWN_MAX}"""

_COVERAGE = """
SELECT stream, content_version, min(from_block) AS from_block, max(to_block) AS to_block,
       sum(segments) AS segments, count() - 1 AS gaps
FROM coverage GROUP BY stream, content_version ORDER BY stream, from_block"""
"""A line a stream: while workers fill a range side by side the view has hundreds."""

_FACTS = "SELECT chain, chain_id, partition_blocks FROM chain_facts LIMIT 1"
_HEAD_TIME = "SELECT max(toUnixTimestamp(block_time)) AS seconds FROM blocks WHERE block_number = "


@dataclass(frozen=True, slots=True)
class Status:
    """What a chain's database holds and shows."""

    chain: str
    """Name of the chain."""
    chain_id: int | None
    """Its id; None before the first start of a run was complete."""
    canon: dict[str, Any] | None
    """The newest canon row; None while nothing is visible."""
    head_time: int | None
    """Time of the visible head, Unix seconds."""
    tables: list[dict[str, Any]]
    """Rows and bytes as stored, per table."""
    partitions_sealed: list[int]
    """Sealed partitions."""
    partitions_open: list[int]
    """Partitions of the visible range that are not sealed."""
    coverage: list[dict[str, Any]]
    """What is stored of each stream, and how many gaps are in it."""
    reorgs: list[dict[str, Any]]
    """The last reorgs, newest first."""
    progress: dict[str, Any] | None
    """Last snapshot of the running process; None where none runs."""

    @property
    def lag_seconds(self) -> int | None:
        """Age of the visible head."""
        return None if self.head_time is None else max(0, int(time.time()) - self.head_time)


def read_status(connection: Connection, chain: str, progress: dict[str, Any] | None) -> Status:
    """Ask a server for the status of one chain's database.

    Parameters
    ----------
    connection
        Its default database is the chain's.
    chain
        Name of the chain.
    progress
        The running process's last snapshot.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    facts = next(iter(_rows(connection, _FACTS)), None)
    canon = next(iter(_rows(connection, _CANON)), None)
    sealed = sorted(canon.pop("sealed")) if canon else []
    open_partitions: list[int] = []
    head_time = None
    if canon and facts:
        size = facts["partition_blocks"]
        visible = range(canon["floor"] // size, canon["head"] // size + 1)
        open_partitions = [number for number in visible if number not in set(sealed)]
        times = _rows(connection, f"{_HEAD_TIME}{canon['head']}")
        head_time = times[0]["seconds"] or None if times else None
    return Status(
        chain=chain,
        chain_id=facts["chain_id"] if facts else None,
        canon=canon,
        head_time=head_time,
        tables=_rows(connection, _TABLES),
        partitions_sealed=sealed,
        partitions_open=open_partitions,
        coverage=_rows(connection, _COVERAGE),
        reorgs=_rows(connection, _REORGS),
        progress=progress,
    )


def write_progress(data_dir: Path, fields: dict[str, object]) -> None:
    """Leave a snapshot for `status`; a reader sees the old or the new, never a part."""
    draft = data_dir / "run" / f".{PROGRESS_FILE}"
    draft.write_text(json.dumps({"written_at": time.time(), **fields}, default=str))
    draft.replace(data_dir / "run" / PROGRESS_FILE)


def read_progress(data_dir: Path) -> dict[str, Any] | None:
    """The last snapshot, where it is fresh: an old one is of a process that has ended."""
    try:
        fields: dict[str, Any] = json.loads((data_dir / "run" / PROGRESS_FILE).read_text())
        age = time.time() - float(fields["written_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return fields if age < PROGRESS_AGE_SECONDS_MAX else None


def _rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    """Rows of a query; none where the table is not there yet."""
    try:
        rows, columns = connection.execute_with_types(query)
    except UnknownTable:
        return []
    return [dict(zip((name for name, _ in columns), row, strict=True)) for row in rows]
