from __future__ import annotations

import re
from dataclasses import replace

import pytest

from schemas.chains import load_chains
from schemas.errors_sinks import DatabaseNewer, GridChanged, LayoutChanged, MigrationChanged
from schemas.events import DECODE_FAILURES
from schemas.tables import CORE_TABLES, LOGS, TRANSACTION_TABLE, ColumnSpec, event_table
from sinks import ddl, migrate
from sinks.connection import Connection
from sinks.ddl import OPEN, SEALED, EngineFamily

CHAIN = load_chains()["local"].resized(10, 100)
TABLES = [*CORE_TABLES, DECODE_FAILURES]
CLUSTER = EngineFamily("replicated", "main")


def prepare(connection: Connection, tables: list[ddl.Table] | None = None) -> str:
    name = connection.endpoint.database
    migrate.prepare_database(connection, name, tables or TABLES, CHAIN, 1337)
    return name


def test_every_declared_table_stands_twice_with_its_docs(database: Connection) -> None:
    name = prepare(database)
    rows = database.execute(
        "SELECT name, engine, partition_key, sorting_key, comment FROM system.tables "
        "WHERE database = %(name)s",
        {"name": name},
    )
    stands = {row[0]: row[1:] for row in rows}
    for table in TABLES:
        for suffix in (OPEN, SEALED):
            wanted = ("intDiv(block_number, 100)", ", ".join(table.order_by), table.doc)
            assert stands[table.name + suffix] == ("MergeTree", *wanted)
        columns = database.execute(
            "SELECT name, type, position(comment, %(doc)s) > 0 FROM system.columns "
            "WHERE database = %(name)s AND table = %(table)s ORDER BY position",
            {"name": name, "table": table.name + OPEN, "doc": "Proven by: "},
        )
        wanted_columns = [(*pair, 1) for pair in ddl.column_types(table)[:-1]]
        assert columns == [*wanted_columns, ("load_id", "LowCardinality(UInt64)", 0)]


def test_preparing_again_changes_nothing_and_a_new_table_is_added(database: Connection) -> None:
    name = prepare(database)
    query = (
        "SELECT groupArray((name, toString(uuid))) FROM (SELECT * FROM system.tables "
        "WHERE startsWith(database, %(name)s) ORDER BY database, name)"
    )
    before = database.value(query, {"name": name})
    prepare(database)
    assert database.value(query, {"name": name}) == before
    added = event_table("plums", "A plum.", (ColumnSpec("weight", "?u256", "Of it."),))
    prepare(database, [*TABLES, added])
    assert database.execute(f"SELECT count() FROM {name}.plums") == [(0,)]
    assert database.execute(f"SELECT count() FROM {name}_finalized.plums") == [(0,)]


@pytest.mark.parametrize(
    "changed",
    [
        replace(LOGS, columns=(*LOGS.columns, ColumnSpec("more", "u8", "More."))),
        replace(LOGS, order_by=("block_number",)),
    ],
)
def test_a_changed_layout_is_refused(changed: ddl.Table, database: Connection) -> None:
    prepare(database)
    with pytest.raises(LayoutChanged) as caught:
        prepare(database, [changed])
    assert "logs" in caught.value.what_text


def test_another_grid_or_chain_is_refused(database: Connection) -> None:
    name = prepare(database)
    for chain, chain_id in ((CHAIN.resized(10, 200), 1337), (CHAIN, 1)):
        with pytest.raises(GridChanged, match="HR-4020"):
            migrate.prepare_database(database, name, TABLES, chain, chain_id)


def test_migrations_are_applied_once_in_order(database: Connection) -> None:
    name = database.endpoint.database
    made = [
        migrate.Migration(
            1,
            "one",
            "CREATE TABLE $database.a (n UInt8) ENGINE = $merge_tree "
            "ORDER BY n;\n-- a comment; with a semicolon\n"
            "INSERT INTO $database.a VALUES (1);\n",
        ),
        migrate.Migration(2, "two", "ALTER TABLE $database.a ADD COLUMN m UInt8;\n"),
    ]
    family = EngineFamily()
    assert migrate.migrate(database, name, made[:1], family) == [1]
    assert migrate.migrate(database, name, made, family) == [2]
    assert migrate.migrate(database, name, made, family) == []
    assert database.execute(f"SELECT * FROM {name}.a") == [(1, 0)]
    with pytest.raises(DatabaseNewer):
        migrate.migrate(database, name, made[:1], family)
    edited = [made[0], replace(made[1], text=made[1].text + "SELECT 1;\n")]
    with pytest.raises(MigrationChanged):
        migrate.migrate(database, name, edited, family)


def test_the_shipped_migrations_are_numbered_without_gaps() -> None:
    shipped = migrate.load_migrations()
    assert [each.number for each in shipped] == list(range(1, len(shipped) + 1))
    assert all(each.statements(CLUSTER.substitutions("x")) for each in shipped)


def test_a_cluster_has_replicated_tables_on_it() -> None:
    sql = ddl.create_table("ethereum", LOGS, OPEN, 100_000, CLUSTER)
    assert "ethereum.logs_open ON CLUSTER main\n" in sql
    assert "ENGINE = ReplicatedMergeTree\n" in sql
    for migration in migrate.load_migrations():
        for statement in migration.statements(CLUSTER.substitutions("ethereum")):
            assert " ON CLUSTER main" in statement
            assert "ReplicatedMergeTree" in statement or not statement.startswith("CREATE TABLE")
            assert "$" not in statement
    spread = ddl.create_distributed("ethereum", LOGS, SEALED, CLUSTER)
    assert "Distributed(main, ethereum, logs_sealed," in spread
    with pytest.raises(ValueError, match="cluster"):
        ddl.create_distributed("ethereum", LOGS, SEALED, EngineFamily())


def test_the_layout_hash_follows_what_is_stored_and_not_the_words() -> None:
    hashed = ddl.layout_hash(TRANSACTION_TABLE, 100)
    words = replace(TRANSACTION_TABLE, doc="Other words.")
    assert ddl.layout_hash(words, 100) == hashed
    assert ddl.layout_hash(TRANSACTION_TABLE, 200) != hashed
    fewer = replace(TRANSACTION_TABLE, columns=TRANSACTION_TABLE.columns[:-1])
    assert ddl.layout_hash(fewer, 100) != hashed


def test_text_is_quoted() -> None:
    assert ddl.quoted("it's a \\ line") == "'it\\'s a \\\\ line'"


def test_lookups_by_hash_use_the_skip_index(database: Connection) -> None:
    name = prepare(database)
    columns = "block_number, transaction_index, transaction_hash"
    database.execute(
        f"INSERT INTO {name}.transactions_open ({columns}) SELECT 5, number, "
        "toFixedString(unhex(hex(sipHash128(number)) || hex(sipHash128(number + 1))), 32) "
        "FROM numbers(100000)"
    )
    explained = database.execute(
        f"EXPLAIN indexes = 1 SELECT count() FROM {name}.transactions_open "
        f"WHERE transaction_hash = hash('0x{'ab' * 32}')",
        as_bytes=True,
    )
    text = "\n".join(line[0].decode(errors="replace") for line in explained)
    assert "bloom_filter" in text
    # The filter is wrong about one granule in forty.
    granules = re.findall(r"Granules: (\d+)/13", text)
    assert int(granules[-1]) <= 3


@pytest.mark.parametrize("durable", [True, False])
def test_inserts_wait_for_the_disk_where_that_is_asked(durable: bool, database: Connection) -> None:
    name = database.endpoint.database
    family = EngineFamily(durable=durable)
    migrate.prepare_database(database, name, [LOGS], CHAIN, 1337, family=family)
    for table in ("logs_open", "ledger", "canon"):
        sql = database.value(f"SHOW CREATE TABLE {name}.{table}")
        assert f"fsync_after_insert = {int(durable)}" in sql
        assert f"fsync_part_directory = {int(durable)}" in sql
