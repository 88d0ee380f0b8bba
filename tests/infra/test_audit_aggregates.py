"""What ClickHouse adds up is what the aggregator does: overflows, equal prices, lone swaps."""

from __future__ import annotations

from hypothesis import given, settings

from infra.audit_aggregates import aggregate_invariants
from processors.aggregate import aggregate_events
from schemas.tables import AGGREGATE_TABLES
from sinks.connection import Connection
from sinks.ddl import CREATE_SETTINGS, EngineFamily, create_table
from sinks.load_block import load_block
from sinks.views import create_functions
from tests.processors.event_rows import EVENTS, event_segment
from tests.processors.test_aggregate import FIELDS, Rows, logs

TABLES = {name: EVENTS[name] for name in FIELDS} | {table.name: table for table in AGGREGATE_TABLES}
PARTITION_BLOCKS = 100_000


def broken(database: Connection) -> list[tuple[int, str]]:
    return [
        row
        for check in aggregate_invariants()
        for row in database.execute(check.sql.format(from_block=0, to_block=PARTITION_BLOCKS))
    ]


def test_clickhouse_adds_up_as_the_aggregator_does(database: Connection) -> None:
    create_functions(database)
    for table in TABLES.values():
        sql = create_table(
            database.endpoint.database, table, "", PARTITION_BLOCKS, EngineFamily(durable=False)
        )
        database.execute(sql, settings=CREATE_SETTINGS)

    @settings(max_examples=25)
    @given(logs())
    def compare(rows: Rows) -> None:
        for name in TABLES:
            database.execute(f"TRUNCATE TABLE {name}")
        events = event_segment(rows)
        for block in (*events.tables, *aggregate_events(events).tables):
            if block.rows:
                native = load_block(TABLES[block.table], [block], 1)
                database.insert_block(block.table, native)
        assert broken(database) == []

    compare()
