"""A data directory and a truth in, the differences of every table's totals out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.served import Truth
from infra.attached import attached, chain_of
from schemas.events import DECODE_FAILURES, builtin_events
from schemas.tables import CORE_TABLES, Table
from sinks.connection import Connection

MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison found."""

    rows: dict[str, int]
    """Visible rows by table."""
    differences: tuple[str, ...]
    """Every total that is not the truth's, in words."""
    stored_bytes: int
    """Bytes of all active parts on disk."""


def every_table() -> tuple[Table, ...]:
    """The tables of a run without contracts of its own."""
    return (*CORE_TABLES, *(event.table for event in builtin_events()), DECODE_FAILURES)


def compare(data_dir: Path, truth: Truth, tables: Iterable[Table]) -> Compared:
    """Compare the totals of views with the truth: rows, distinct identities, sums of numbers."""
    rows: dict[str, int] = {}
    differences = []
    database = chain_of(data_dir)
    with attached(data_dir) as server, Connection(server.endpoint(database=database)) as connection:
        for table in tables:
            expected = truth.get(table.name, {"rows": 0})
            sums = [name for name in expected if name != "rows"]
            picked = [f"sum(CAST({name} AS Nullable(Int256)))" for name in sums]
            identity = f"uniqExact(tuple({', '.join(table.identity)}))"
            sql = f"SELECT {', '.join(['count()', identity, *picked])} FROM {table.name}"
            found = connection.execute(sql)[0]
            rows[table.name] = found[0]
            told = {"distinct rows": found[1], "rows": found[0]}
            told |= {name: (n or 0) % MODULUS for name, n in zip(sums, found[2:], strict=True)}
            for name, value in told.items():
                due = expected["rows" if name == "distinct rows" else name]
                if value != due:
                    differences.append(f"{table.name}: {name} {value}, not {due}")
        parts = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = "
        stored = connection.value(parts + "%(database)s", {"database": database})
    return Compared(rows, tuple(differences), int(stored))
