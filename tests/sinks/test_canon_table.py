"""Canon rows in, what they cost a server's disk out."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from sinks.canon_row import CanonRow
from sinks.canon_table import append_canon, read_canon
from sinks.connection import Connection, Endpoint
from tests.sinks.canon_ledger import ref
from tests.sinks.rig import prepare

LOADS, ROWS = 12_000, 60
"""What 3,000 blocks that are not final come to, and how many rows are kept of them."""


def test_rows_that_name_nearly_the_same_loads_are_stored_in_little_more_than_one(
    endpoint: Endpoint,
) -> None:
    prepare(endpoint)
    draw, at = random.Random(1), datetime.now(UTC)
    loads = [draw.getrandbits(64) for _ in range(LOADS + 4 * ROWS)]
    with Connection(endpoint) as connection:
        for seq in range(ROWS):
            named = tuple(sorted(loads[4 * seq : 4 * seq + LOADS]))
            row = CanonRow(1, seq, 0, ref(seq), None, None, (), named)
            append_canon(connection, endpoint.database, row, at)
        connection.execute("OPTIMIZE TABLE canon FINAL")
        newest = read_canon(connection, endpoint.database)
        assert newest is not None
        assert newest.loads == row.loads
        held = connection.value(
            "SELECT sum(column_data_compressed_bytes) FROM system.parts_columns WHERE active "
            "AND database = currentDatabase() AND table = 'canon' AND column = 'loads'"
        )
        assert held < ROWS * LOADS * 8 / 4
