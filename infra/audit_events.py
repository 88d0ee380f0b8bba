"""Stored logs in, where the stored events differ from what those logs decode to out.

The decoder runs again on what the database holds, so that an event that was lost, doubled or
altered on its way is found although every log is proven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from processors.abi import Layouts
from processors.decode import decode_logs, event_version
from schemas.columns import ColumnBlock, to_buffers, to_python
from schemas.segments import LogSegment, SegmentName
from schemas.tables import HEADER_REFS, LOGS, Table, Verification, empty_block
from sinks.connection import Connection

Read = Callable[[Table], ColumnBlock]
"""Reads the rows of a view in one part of the range, in the order of its identity."""
Key = tuple[Any, ...]
ROWS_MAX = 20
"""Rows of one table and part that are named."""


def same_layouts(connection: Connection, layouts: Layouts) -> bool:
    """Whether every stored event was decoded with these layouts, by this decoder.

    Raises
    ------
    HeadraceError
        One of HR-40xx.
    """
    stored: dict[str, set[str]] = {"logs": set(), "events": set()}
    rows = connection.execute(
        "SELECT DISTINCT stream, content_version FROM ledger WHERE stream IN ('logs', 'events')"
    )
    for stream, version in rows:
        stored[stream].add(version)
    ours = {event_version(version, layouts.content_version) for version in stored["logs"]}
    return stored["events"] <= ours


def check_events(read: Read, layouts: Layouts) -> Iterator[tuple[int, str]]:
    """Decode the stored logs of a part of the range again and compare.

    Parameters
    ----------
    read
        Reads a view's rows of that part.
    layouts
        With which the events were decoded.

    Yields
    ------
    tuple of int and str
        Height, and the row that is missing, should not be there, or differs.
    """
    logs = read(LOGS)
    # The name is the decoder's to carry on; what it decodes does not depend on it.
    name = SegmentName(0, "logs", "history", 0, 0, bytes(32), "")
    headers = empty_block(HEADER_REFS)
    segment = LogSegment(name, 0, Verification.off, (), (), headers, logs)
    decoded = decode_logs(segment, layouts)
    for table, said in zip(layouts.tables, decoded.tables, strict=True):
        yield from islice(_differing(table, read(table), said), ROWS_MAX)


def _differing(table: Table, stored: ColumnBlock, said: ColumnBlock) -> Iterator[tuple[int, str]]:
    if _same(table, stored, said):
        return
    found, expected = _rows(table, stored), _rows(table, said)
    for key in sorted(found.keys() | expected.keys()):
        have, want = found.get(key, []), expected.get(key, [])
        if have == want:
            continue
        row = f"{table.name}: {_named(table, key)}"
        if not want:
            yield key[0], f"{row} is there, but no such log decodes to it"
        elif not have:
            yield key[0], f"{row} is missing, its log decodes to it"
        elif len(have) != len(want):
            yield key[0], f"{row} is there {len(have)} times"
        else:
            names = [spec.name for spec in table.columns]
            differ = [n for n, a, b in zip(names, have[0], want[0], strict=True) if a != b]
            yield key[0], f"{row} differs from its log in {', '.join(differ)}"


def _same(table: Table, stored: ColumnBlock, said: ColumnBlock) -> bool:
    """Whether all columns are equal, byte by byte: the quick answer to the usual case."""
    if stored.rows != said.rows:
        return False
    return not said.rows or all(
        to_buffers(spec.kind, stored.columns[spec.name])
        == to_buffers(spec.kind, said.columns[spec.name])
        for spec in table.columns
    )


def _rows(table: Table, block: ColumnBlock) -> dict[Key, list[tuple[Any, ...]]]:
    """Rows by identity; several where a row is doubled."""
    if not block.rows:
        return {}
    columns = [to_python(spec.kind, block.columns[spec.name]) for spec in table.columns]
    at = [index for index, spec in enumerate(table.columns) if spec.name in table.identity]
    rows: dict[Key, list[tuple[Any, ...]]] = {}
    for values in zip(*columns, strict=True):
        rows.setdefault(tuple(values[index] for index in at), []).append(values)
    return rows


def _named(table: Table, key: Key) -> str:
    names = [spec.name for spec in table.columns if spec.name in table.identity]
    named = dict(zip(names, key, strict=True))
    batch = f", sub_index {named['sub_index']}" if named["sub_index"] else ""
    return f"the row of log_index {named['log_index']}{batch}"
