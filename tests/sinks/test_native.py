"""Raw columns: the same bytes as the driver's own writer, and the same values in ClickHouse."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from clickhouse_driver import Client
from clickhouse_driver.bufferedwriter import BufferedSocketWriter
from clickhouse_driver.columns.service import write_column
from clickhouse_driver.context import Context

from schemas.columns import ColumnBlock, concat, native_parts, row_count, take, to_python
from schemas.errors_sinks import ColumnsMismatch
from schemas.events import DECODE_FAILURES
from schemas.kinds import Kind, parse_kind
from schemas.tables import CORE_TABLES, Table
from sinks.connection import Connection, Endpoint
from sinks.ddl import CREATE_SETTINGS, LOAD_ID, OPEN, EngineFamily, create_table
from sinks.load_block import load_block
from sinks.native import NativeBlock, compressed_frames, varint
from tests.sinks.random_columns import random_block, random_column

KINDS = [
    *("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "bool", "time", "enum8(off=0,full=3)"),
    *("bytes1", "bytes20", "bytes32", "u256", "i256", "bytes", "string"),
    *("?u8", "?u64", "?bytes32", "?u256", "?bytes", "?bool", "?time"),
    *("[u256]", "[bytes20]", "[bytes]", "[?u64]", "[[u32]]", "(u256,bytes)", "(u8,(bytes4,bool))"),
    *("[(bytes20,[bytes32])]", "[(u256,bytes20,u64,u8,u256,u256)]"),
]
TABLES = [*CORE_TABLES, DECODE_FAILURES]
ENUM_NUMBERS = {
    name: int(number)
    for table in TABLES
    for spec in table.columns
    if spec.kind_text.startswith("enum8")
    for name, number in re.findall(r"(\w+)=(\d+)", spec.kind_text)
}


class Memory:
    """A socket that keeps what is sent."""

    def __init__(self) -> None:
        self.sent = bytearray()

    def sendall(self, part: bytes) -> None:
        self.sent += part


def python_values(kind: Kind, column: Any) -> list[Any]:
    """Values as clickhouse-driver wants them."""
    return [_for_driver(kind, value) for value in to_python(kind, column)]


def _for_driver(kind: Kind, value: Any) -> Any:
    if value is None:
        return None
    if kind.text == "time":
        return datetime.fromtimestamp(value, UTC)
    if kind.shape == "nullable":
        return _for_driver(kind.children[0], value)
    if kind.shape == "list":
        return [_for_driver(kind.children[0], each) for each in value]
    if kind.shape == "tuple":
        pairs = zip(kind.children, value, strict=True)
        return tuple(_for_driver(child, each) for child, each in pairs)
    return value


def driver_bytes(kind: Kind, values: list[Any]) -> bytes:
    """What clickhouse-driver itself writes for a column."""
    context = Context()
    context.settings = {}
    context.client_settings = {
        "strings_as_bytes": True,
        "use_numpy": False,
        "strings_encoding": "utf-8",
        "input_format_null_as_default": False,
        "namedtuple_as_json": True,
    }
    memory = Memory()
    writer = BufferedSocketWriter(memory, 1 << 20)
    write_column(context, "c", kind.clickhouse_type, values, writer)
    writer.flush()
    return bytes(memory.sent)


@pytest.mark.parametrize("text", KINDS)
@pytest.mark.parametrize("rows", [1, 40])
def test_bytes_are_those_that_the_driver_writes(text: str, rows: int) -> None:
    kind = parse_kind(text)
    column = random_column(kind, rows, np.random.default_rng(rows))
    values = python_values(kind, column)
    assert b"".join(native_parts(kind, [column])) == driver_bytes(kind, values)


@pytest.mark.parametrize("text", KINDS)
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_values_come_back(text: str, compression: str | None, endpoint: Endpoint) -> None:
    kind = parse_kind(text)
    column = random_column(kind, 257, np.random.default_rng(7))
    block = NativeBlock(257, (("c", kind.clickhouse_type, native_parts(kind, [column])),))
    with Connection(endpoint, compression=compression) as connection:
        connection.execute(
            f"CREATE TABLE t (c {kind.clickhouse_type}) ENGINE = MergeTree ORDER BY tuple()"
        )
        connection.insert_block("t", block)
        # Through text: the driver misreads tuples whose fields ClickHouse stores sparsely.
        got = connection.execute("SELECT lower(hex(toString(c))) FROM t")
        values = python_values(kind, column)
        connection.execute("TRUNCATE TABLE t")
        connection.insert_rows("t", ["c"], [(value,) for value in values])
        wanted = connection.execute("SELECT lower(hex(toString(c))) FROM t")
    assert got == wanted
    assert len(got) == 257


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_load_of_every_table_is_one_part_and_reads_back(
    table: Table, database: Connection
) -> None:
    name = database.endpoint.database
    database.execute(
        create_table(name, table, OPEN, 1000, EngineFamily()), settings=CREATE_SETTINGS
    )
    blocks = [random_block(table, 50, seed) for seed in range(3)]
    load_id = 2**64 - 3
    database.insert_block(f"{table.name}{OPEN}", load_block(table, blocks, load_id))
    assert database.execute(
        f"SELECT count(), uniqExact({LOAD_ID}), any({LOAD_ID}) FROM {table.name}{OPEN}"
    ) == [(150, 1, load_id)]
    parts = database.execute(
        "SELECT rows FROM system.parts WHERE active AND database = %(d)s AND table = %(t)s",
        {"d": name, "t": f"{table.name}{OPEN}"},
    )
    assert parts == [(150,)]
    for spec in table.columns:
        if spec.kind.shape not in ("number", "fixed", "ragged"):
            continue
        got = database.execute(f"SELECT {spec.name} FROM {table.name}{OPEN}", as_bytes=True)
        column = concat(spec.kind, [block.columns[spec.name] for block in blocks])
        wanted = python_values(spec.kind, column)
        assert sorted(_as_number(v[0]) for v in got) == sorted(_as_number(v) for v in wanted)


def _as_number(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, bytes):
        return ENUM_NUMBERS.get(value.decode("latin-1"), value)
    return ENUM_NUMBERS.get(value, value) if isinstance(value, str) else value


def test_a_large_block_is_still_one_part(database: Connection) -> None:
    database.execute("CREATE TABLE t (n UInt64, s FixedString(40)) ENGINE = MergeTree ORDER BY n")
    rows = 1_300_000
    numbers = np.arange(rows, dtype="<u8").tobytes()
    block = NativeBlock(
        rows, (("n", "UInt64", [numbers]), ("s", "FixedString(40)", [bytes(40 * rows)]))
    )
    database.insert_block("t", block)
    assert database.execute("SELECT count(), sum(n) FROM t") == [(rows, rows * (rows - 1) // 2)]
    parts = database.value(
        "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 't'"
    )
    assert parts == 1


def test_the_same_rows_twice_are_stored_twice(database: Connection) -> None:
    database.execute(
        "CREATE TABLE t (n UInt8) ENGINE = MergeTree ORDER BY n "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    block = NativeBlock(2, (("n", "UInt8", [b"\x01\x02"]),))
    for _ in range(3):
        database.insert_block("t", block)
    assert database.value("SELECT count() FROM t") == 6


def test_a_block_without_rows_writes_nothing(database: Connection) -> None:
    database.execute("CREATE TABLE t (n UInt8) ENGINE = MergeTree ORDER BY n")
    database.insert_block("t", NativeBlock(0, (("n", "UInt8", [b""]),)))
    assert database.value("SELECT count() FROM t") == 0


def test_two_partitions_in_one_block_are_refused(database: Connection) -> None:
    database.execute("CREATE TABLE t (n UInt8) ENGINE = MergeTree ORDER BY n PARTITION BY n")
    with pytest.raises(Exception, match="HR-40") as caught:
        database.insert_block("t", NativeBlock(2, (("n", "UInt8", [b"\x01\x02"]),)))
    assert caught.value.data["clickhouse_code"] == 252  # type: ignore[attr-defined]
    assert database.value("SELECT count() FROM t") == 0


@pytest.mark.parametrize(
    "columns",
    [
        (("n", "UInt16", [b"\x01\x00"]),),
        (("m", "UInt8", [b"\x01"]),),
        (("n", "UInt8", [b"\x01"]), ("s", "FixedString(3)", [b"abc"])),
    ],
)
def test_columns_that_do_not_fit_are_refused_and_nothing_is_written(
    columns: tuple[tuple[str, str, list[bytes]], ...], database: Connection
) -> None:
    database.execute("CREATE TABLE t (n UInt8, s FixedString(2)) ENGINE = MergeTree ORDER BY n")
    with pytest.raises(Exception, match=r"HR-40(16|09|08)"):
        database.insert_block("t", NativeBlock(1, columns))
    assert database.value("SELECT count() FROM t") == 0


def test_mismatch_names_the_column(database: Connection) -> None:
    database.execute("CREATE TABLE t (n UInt8) ENGINE = MergeTree ORDER BY n")
    with pytest.raises(ColumnsMismatch) as caught:
        database.insert_block("t", NativeBlock(1, (("n", "UInt16", [b"\x01\x00"]),)))
    assert "n UInt16 is written where the table has n UInt8" in caught.value.what_text


def test_the_drivers_own_client_is_untouched(endpoint: Endpoint) -> None:
    plain = Client(
        endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        password=endpoint.password,
        database=endpoint.database,
        compression="lz4",
    )
    plain.execute("CREATE TABLE t (n UInt8, s String) ENGINE = MergeTree ORDER BY n")
    plain.execute("INSERT INTO t VALUES", [(1, "a"), (2, "b")])
    with Connection(endpoint, compression="lz4") as ours:
        ours.insert_block(
            "t", NativeBlock(1, (("n", "UInt8", [b"\x03"]), ("s", "String", [b"\x01c"])))
        )
    assert plain.execute("SELECT * FROM t ORDER BY n") == [(1, "a"), (2, "b"), (3, "c")]
    plain.disconnect()


def test_frames_hold_the_buffers_in_order() -> None:
    frames = list(compressed_frames(iter([b"a" * (1 << 20), b"", b"b" * 5, b"c" * (3 << 20)])))
    sizes = [int.from_bytes(frame[21:25], "little") for frame in frames]
    assert sizes == [1 << 20, 1 << 20, 1 << 20, 1 << 20, 5]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (0, b"\0"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (2**21, b"\x80\x80\x80\x01"),
    ],
)
def test_varint(value: int, wanted: bytes) -> None:
    assert varint(value) == wanted


def test_load_block_skips_blocks_without_columns() -> None:
    table = CORE_TABLES[-1]
    full = random_block(table, 4, 1)
    block = load_block(table, [ColumnBlock(table.name, 0, {}), full], 5)
    assert block.rows == 4
    assert [name for name, _, _ in block.columns] == [c.name for c in table.columns] + [LOAD_ID]
    order = np.arange(4)
    assert row_count(take(parse_kind("u64"), full.columns["block_number"], order)) == 4
