"""A database with writer and hand-made canon rows: what the views' tests publish into."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from schemas.chains import load_chains
from sinks.connection import Connection
from sinks.migrate import prepare_database
from sinks.writer import Load, Segment, Writer
from tests.sinks.segments_of import TABLES

CHAIN = load_chains()["local"].resized(10, 100)
CANON = (
    "generation",
    "seq",
    "at",
    "floor",
    "head",
    "head_hash",
    "safe",
    "finalized",
    "sealed",
    "loads",
    "straddling",
)
AS_OF = "query_cache_tag"


class Chain:
    """A prepared database with what publishes into it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.name = connection.endpoint.database
        prepare_database(connection, self.name, TABLES, CHAIN, 1337)
        self.writer = Writer(connection, self.name, TABLES, CHAIN.partition_blocks)
        self.seq = 0

    def load(self, *segments: Segment) -> Load:
        return self.writer.write(segments)

    def publish(self, head: int, loads: Sequence[Load], **fields: Any) -> str:
        """Write a canon row; returns its name for as-of queries."""
        self.seq += 1
        row = {
            "generation": 1,
            "seq": self.seq,
            "at": datetime.now(UTC),
            "floor": 0,
            "head": head,
            "head_hash": bytes(32),
            "safe": None,
            "finalized": None,
            "sealed": [],
            "loads": [load.load_id for load in loads],
            "straddling": True,
            **fields,
        }
        values = [row[name] for name in CANON]
        self.connection.insert_rows(f"{self.name}.canon", CANON, [values])
        return f"{row['generation']}:{row['seq']}"

    def seal(self, partition: int) -> None:
        for table in TABLES:
            self.connection.execute(
                f"ALTER TABLE {self.name}.{table.name}_sealed "
                f"REPLACE PARTITION {partition} FROM {self.name}.{table.name}_open",
                settings={"allow_replace_partition_from_empty_source": 1},
            )

    def counts(self, table: str = "logs", suffix: str = "", **options: Any) -> dict[int, int]:
        """Rows of a view by block."""
        rows = self.connection.execute(
            f"SELECT block_number, count() FROM {self.name}{suffix}.{table} "
            "GROUP BY block_number ORDER BY block_number",
            **options,
        )
        return dict(rows)


def expected(*segments: Segment, first: int = 0, last: int = 10**9) -> dict[int, int]:
    """Rows of log segments by block, within bounds."""
    counts: dict[int, int] = {}
    for segment in segments:
        for number in segment.logs.columns["block_number"].tolist():  # type: ignore[union-attr]
            if first <= number <= last:
                counts[number] = counts.get(number, 0) + 1
    return dict(sorted(counts.items()))
