"""A database and a devchain in, every difference between their rows out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from infra.devchain.blocks import Block
from infra.devchain.truth import truth_of
from infra.stored_columns import read_columns
from schemas.columns import to_python
from schemas.tables import Table
from sinks.connection import Connection

Key = tuple[int, ...]


def key_of(table: Table, row: dict[str, Any]) -> Key:
    """The truth's key of a stored row: its identity without the block's hash."""
    return tuple(row[name] for name in table.identity if name != "block_hash")


def stored_rows(
    connection: Connection, table: Table, where: str = "1"
) -> dict[Key, dict[str, Any]]:
    """A view's rows by key; two rows of one key are an error."""
    block = read_columns(connection, table, where)
    names = [spec.name for spec in table.columns]
    columns = [to_python(spec.kind, block.columns[spec.name]) for spec in table.columns]
    rows: dict[Key, dict[str, Any]] = {}
    for values in zip(*columns, strict=True):
        row = dict(zip(names, values, strict=True))
        key = key_of(table, row)
        assert key not in rows, f"{table.name}: two rows of {key}"
        rows[key] = row
    return rows


def assert_stored(
    connection: Connection,
    tables: Sequence[Table],
    blocks: Iterable[Block],
    *,
    chain_id: int = 1337,
    only: Iterable[str] | None = None,
) -> dict[str, int]:
    """Every table holds exactly the rows that `blocks` give, in every column; rows by table."""
    truth = truth_of(blocks, chain_id)
    counts = {}
    for table in tables:
        if only is not None and table.name not in only:
            continue
        expected = truth[table.name]
        found = stored_rows(connection, table)
        counts[table.name] = len(found)
        missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
        assert not missing, f"{table.name}: {len(missing)} rows missing, first {min(missing)}"
        assert not extra, f"{table.name}: {len(extra)} rows too many, first {min(extra)}"
        for key, row in expected.items():
            for name, value in row.items():
                if name == "reason_word":
                    reason = found[key]["reason"].decode()
                    assert value in reason, f"{table.name} {key}: {value!r} is not in {reason!r}"
                else:
                    assert found[key][name] == value, f"{table.name} {key} {name}"
    return counts
