"""What is stored is changed behind the back of everybody: the audit names what was changed.

One data directory is indexed from a devchain; its first partitions are sealed. Each test changes
rows, runs the audit, and puts the rows back.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.audit import Audit, run_audit
from infra.audit_aggregates import STATEMENT, aggregate_invariants
from infra.clickhouse.server import EmbeddedServer, find_running
from infra.contracts import declare_contracts
from infra.devchain import serve_in_thread
from infra.display import Display
from infra.settings import Contract, Settings
from infra.terminal import open_terminal
from processors.abi import build_layouts
from schemas.errors_settings import DataMissing, RangeInvalid, RangeNotVisible
from schemas.errors_sinks import SnapshotExpired
from schemas.tables import (
    AGGREGATE_TABLES,
    BLOCKS,
    CORE_TABLES,
    LOGS,
    POOL_TRADES,
    TOKEN_FLOWS,
    TRANSACTION_TABLE,
    ColumnSpec,
    Table,
)
from sinks.canon_table import append_canon, forget_before, read_canon
from sinks.connection import Connection
from tests.e2e.running import (
    CHAIN,
    PARTITION_BLOCKS,
    PATIENCE_SECONDS,
    ROOT,
    Headrace,
    small_chain,
    until,
)
from tests.infra.tampering import Tamperer, other_value

HEAD = 60
EVENTS_MAX = 18
BATCH = 9
"""Rows of one table that are changed at a time, each of another block."""
EVENTS = {table.name: table for table in build_layouts().tables}
TRANSFERS = EVENTS["erc20_transfers"]
PROVEN = [
    (table, specs[at : at + BATCH])
    for table in CORE_TABLES
    if table not in AGGREGATE_TABLES
    for specs in [[one for one in table.columns if one.proven_by not in ("none", "signature")]]
    for at in range(0, len(specs), BATCH)
]
"""A table, and some of its columns."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """A data directory with a server on it."""

    data: Path
    """The directory."""
    connection: Connection
    """As the user that writes."""
    tamperer: Tamperer
    """Of its rows."""
    said_while_running: dict[str, Any]
    """What an audit said while the run was on."""


def audit(data: Path, *bounds: int | None, **settings: Any) -> int:
    """Run the audit; it writes JSON to standard output."""
    first, last = bounds or (None, None)
    display = Display(open_terminal(json=True))
    return run_audit(Settings(data_dir=data, **settings), first, last, display)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Indexed]:
    folder = tmp_path_factory.mktemp("audited")
    chain = small_chain(seed=21)
    chain.mine(HEAD)
    with serve_in_thread(chain) as serving:
        headrace = Headrace(folder, serving.http_urls)
        process = headrace.start("--from", "0")
        try:
            until(lambda: _sealed(headrace.data) >= 2, "nothing was sealed")
            words = (sys.executable, "-m", "infra.cli", "audit", "--json")
            answer = subprocess.run(
                [*words, "--data", headrace.data], cwd=ROOT, capture_output=True, check=True
            )
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_SECONDS) == 130, headrace.said()
        finally:
            if process.poll() is None:
                headrace.end(process)
    with (
        EmbeddedServer(headrace.data, chain=CHAIN) as server,
        Connection(server.endpoint(database=CHAIN)) as connection,
    ):
        tamperer = Tamperer(connection, PARTITION_BLOCKS)
        assert tamperer.row.head.number == HEAD
        yield Indexed(headrace.data, connection, tamperer, json.loads(answer.stdout))
        assert audit(headrace.data) == 0, "a test left something changed"


def _sealed(data: Path) -> int:
    """Partitions that a running server shows as sealed."""
    server = find_running(data)
    if server is None:
        return 0
    with Connection(server.endpoint()) as admin:
        if not admin.value(
            f"SELECT count() FROM system.tables WHERE table = 'canon' AND database = '{CHAIN}'"
        ):
            return 0
        row = read_canon(admin, CHAIN)
    return 0 if row is None or row.head.number < HEAD else len(row.sealed)


@pytest.fixture
def said(indexed: Indexed, capsys: pytest.CaptureFixture[str]) -> Any:
    """Audits, checks the exit code, and gives what is broken: (invariant, block, what)."""

    def broken(*bounds: int | None, **settings: Any) -> list[tuple[str, int, str]]:
        capsys.readouterr()
        code = audit(indexed.data, *bounds, **settings)
        answer = json.loads(capsys.readouterr().out)
        found = [
            (invariant["code"], one["block_number"], one["what"])
            for invariant in answer["invariants"]
            for one in invariant["broken"]
        ]
        assert code == bool(found)
        assert answer["ok"] is (not found)
        return found

    return broken


def test_what_was_indexed_breaks_nothing(indexed: Indexed, said: Any) -> None:
    assert said() == []
    assert indexed.said_while_running["ok"] is True
    assert indexed.said_while_running["to_block"] == HEAD
    codes = {invariant["code"] for invariant in indexed.said_while_running["invariants"]}
    assert codes == {"I1", "I2/I3", "I3", "I4", "I5", "I6", "I8", "I10"}


def rows_for(
    indexed: Indexed, table: Table, specs: Sequence[ColumnSpec]
) -> list[tuple[str, int, ColumnSpec]]:
    """Columns, each with a row (a condition, its block) where it is used if there is any.

    The rows are of blocks that lie apart, open ones and sealed ones.
    """
    chosen: list[tuple[str, int, ColumnSpec]] = []
    for spec in specs:
        used = _used(spec)
        rows = indexed.connection.execute(
            f"SELECT DISTINCT block_number, {used} AS used FROM {table.name} "
            "WHERE block_number > 0 ORDER BY used DESC, sipHash64(block_number)"
        )
        far = [
            (number, has)
            for number, has in rows
            if all(abs(number - other) > 2 for _, other, _ in chosen)
        ]
        number, has = far[0]
        chosen.append((f"block_number = {number} AND {used} = {has}", number, spec))
    return chosen


def _used(spec: ColumnSpec) -> str:
    if spec.name == "gas_price_wei":
        return "type = 0"  # of later types it is the node's word
    if spec.kind.shape == "nullable":
        return f"isNotNull({spec.name})"
    return f"notEmpty({spec.name})" if spec.kind.shape == "list" else "1"


@pytest.mark.parametrize(
    ("table", "specs"), PROVEN, ids=[f"{table.name}.{specs[0].name}" for table, specs in PROVEN]
)
def test_any_other_value_in_a_proven_column_is_noticed(
    indexed: Indexed,
    said: Any,
    monkeypatch: pytest.MonkeyPatch,
    table: Table,
    specs: Sequence[ColumnSpec],
) -> None:
    monkeypatch.setattr("infra.audit.FINDINGS_MAX", 1000)
    batch = rows_for(indexed, table, specs)
    with indexed.tamperer.restoring(table):
        for where, _, spec in batch:
            place, row = indexed.tamperer.visible(table, where)
            value = other_value(spec.kind, spec.name)
            indexed.tamperer.change(place, row, **{spec.name: value})
        # I10 names the first block of a load.
        named = {number for code, number, _ in said() if code != "I10"}
    missed = [spec.name for _, number, spec in batch if number not in named]
    assert not missed, missed
    neighbours = {number + step for _, number, _ in batch for step in (-1, 0, 1)}
    assert named <= neighbours, sorted(named - neighbours)


@pytest.mark.parametrize("table", AGGREGATE_TABLES, ids=lambda table: table.name)
def test_any_other_value_in_an_aggregate_is_noticed(indexed: Indexed, table: Table) -> None:
    def found() -> list[tuple[int, str]]:
        return [
            row
            for check in aggregate_invariants()
            for row in indexed.connection.execute(check.sql.format(from_block=0, to_block=HEAD))
        ]

    for spec in table.columns:
        with indexed.tamperer.restoring(table):
            place, row = indexed.tamperer.visible(table, _used(spec))
            number = indexed.connection.value(f"SELECT block_number FROM {place} WHERE {row}")
            value = other_value(spec.kind, spec.name)
            indexed.tamperer.change(place, row, **{spec.name: value})
            told = found()
        assert number in {at for at, _ in told}, spec.name
        assert all(what.startswith(f"{table.name}: the row of address 0x") for _, what in told)
        if spec.name not in table.identity:
            ((_, what),) = told
            assert what.endswith(f" differs from its events in {spec.name}")
    assert found() == []


def test_any_other_value_in_an_event_is_noticed(indexed: Indexed, said: Any) -> None:
    filled = [
        table
        for table in EVENTS.values()
        if indexed.connection.value(f"SELECT count() FROM {table.name}")
    ][:EVENTS_MAX]
    assert len(filled) > EVENTS_MAX // 2
    with indexed.tamperer.restoring(*filled):
        for table in filled:
            spec = table.columns[-1]
            place, row = indexed.tamperer.visible(table, "1")
            indexed.tamperer.change(place, row, **{spec.name: other_value(spec.kind, spec.name)})
        found = said()
    assert {code for code, _, _ in found} == {"I8"}
    # An aggregate of an event that was changed no longer adds up, either.
    events = [what for _, _, what in found if ": the row of log_index " in what]
    others = {what.split(":")[0] for _, _, what in found} - {table.name for table in filled}
    assert others <= {table.name for table in AGGREGATE_TABLES}
    for table, what in zip(filled, events, strict=True):
        assert what.startswith(f"{table.name}: the row of log_index ")
        assert what.endswith(f" differs from its log in {table.columns[-1].name}")


@pytest.mark.parametrize("block", [3, HEAD - 18], ids=["sealed", "open"])
@pytest.mark.parametrize("what", ["delete", "double"])
def test_a_row_that_is_gone_or_doubled_is_noticed(
    indexed: Indexed, said: Any, what: str, block: int
) -> None:
    expected = {
        ("delete", BLOCKS): {"I1"},
        ("delete", TRANSACTION_TABLE): {"I2/I3"},
        ("delete", LOGS): {"I4", "I2/I3"},
        ("delete", TRANSFERS): {"I8"},
        ("delete", TOKEN_FLOWS): {"I8"},
        ("delete", POOL_TRADES): {"I8"},
        ("double", BLOCKS): {"I5", "I6"},
        ("double", TRANSACTION_TABLE): {"I6", "I2/I3"},
        ("double", LOGS): {"I4", "I6", "I2/I3"},
        ("double", TRANSFERS): {"I6", "I8"},
        ("double", TOKEN_FLOWS): {"I6", "I8"},
        ("double", POOL_TRADES): {"I6", "I8"},
    }
    tables = [table for done, table in expected if done == what]
    changed = {}
    with indexed.tamperer.restoring(*tables):
        for at, table in enumerate(tables):
            where = f"block_number >= {block + 3 * at}"
            place, row = indexed.tamperer.visible(table, where)
            number = indexed.connection.value(f"SELECT block_number FROM {place} WHERE {row}")
            getattr(indexed.tamperer, what)(place, row)
            changed[table] = (number, place)
        found = said(0, HEAD)
    for table, (number, place) in changed.items():
        codes = {code for code, n, _ in found if n in (number, number + 1)}
        assert expected[what, table] <= codes, f"{table.name}: {found}"
        assert any(f"{place}: load" in text for code, _, text in found if code == "I10")


def test_a_whole_block_that_is_gone_is_noticed(indexed: Indexed, said: Any) -> None:
    for number in (11, HEAD):
        tables = (*CORE_TABLES, *EVENTS.values())
        with indexed.tamperer.restoring(*tables):
            for table in tables:
                place = indexed.tamperer.place(table, number)
                indexed.tamperer.delete(place, f"block_number = {number}")
            found = said()
        wanted = number + 1 if number < HEAD else HEAD
        assert ("I1", wanted) in {(code, n) for code, n, _ in found}
        assert "I10" in {code for code, _, _ in found}


def test_rows_of_a_block_that_is_not_visible_are_noticed(indexed: Indexed, said: Any) -> None:
    for table in (LOGS, TRANSACTION_TABLE, TRANSFERS):
        with indexed.tamperer.restoring(table):
            place, row = indexed.tamperer.visible(table, "block_number > 20")
            number = indexed.connection.value(f"SELECT block_number FROM {place} WHERE {row}")
            strange = other_value(table.column("block_hash").kind, "block_hash")
            indexed.tamperer.change(place, row, block_hash=strange)
            found = said(number, number)
        (what,) = [what for code, _, what in found if code == "I6"]
        assert "no block 0x" in what


def test_a_load_without_a_ledger_row_is_noticed(indexed: Indexed, said: Any) -> None:
    load = indexed.tamperer.row.loads[0]
    run = indexed.connection.execute
    run("CREATE TABLE kept_ledger ENGINE = Memory AS SELECT * FROM ledger")
    try:
        run(f"ALTER TABLE ledger DELETE WHERE load_id = {load} SETTINGS mutations_sync = 2")
        assert ("I10", f"load {load} is visible and has no ledger row") in {
            (code, what) for code, _, what in said()
        }
    finally:
        run("TRUNCATE TABLE ledger SYNC")
        run("INSERT INTO ledger SELECT * FROM kept_ledger")
        run("DROP TABLE kept_ledger SYNC")
    assert said() == []


def test_only_the_range_that_is_asked_for_is_checked(indexed: Indexed, said: Any) -> None:
    with indexed.tamperer.restoring(TRANSACTION_TABLE):
        place, row = indexed.tamperer.visible(TRANSACTION_TABLE, "block_number >= 30")
        number = indexed.connection.value(f"SELECT block_number FROM {place} WHERE {row}")
        indexed.tamperer.change(place, row, value_wei="value_wei + 1")
        assert said(0, number - 1) == []
        assert {n for _, n, _ in said(number, number)} == {number}


def test_what_other_contracts_decoded_is_not_called_broken(
    indexed: Indexed, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = Contract(
        name="plum", events=("event Plum(uint256 weight)",), events_declared_at=("a test",)
    )
    assert audit(indexed.data, contracts=(contract,)) == 0
    answer = json.loads(capsys.readouterr().out)
    # The aggregates are made of the stored events, whatever these were decoded by.
    (checked,) = [one for one in answer["invariants"] if one["code"] == "I8"]
    assert checked["statement"] == STATEMENT
    assert any("--config" in one["why"] for one in answer["not_checked"])


def test_a_range_that_is_not_visible_is_refused(indexed: Indexed, tmp_path: Path) -> None:
    for bounds in ((0, HEAD + 1), (HEAD + 5, None)):
        with pytest.raises(RangeNotVisible, match="HR-1032"):
            audit(indexed.data, *bounds)
    with pytest.raises(RangeInvalid, match="HR-1007"):
        audit(indexed.data, 9, 8)
    with pytest.raises(DataMissing):
        audit(tmp_path / "nothing")


def test_a_clusters_server_is_audited(indexed: Indexed) -> None:
    at = indexed.connection.endpoint
    url = f"clickhouse://{at.user}:{at.password}@{at.address}"
    settings = Settings(chain=CHAIN, clickhouse={"url": url})
    display = Display(open_terminal(json=True))
    assert run_audit(settings, None, None, display) == 0
    assert run_audit(settings, None, None, display, data=indexed.data) == 0
    with indexed.tamperer.restoring(LOGS):
        place, row = indexed.tamperer.visible(LOGS, "block_number > 20")
        indexed.tamperer.change(place, row, data="concat(data, 'x')")
        assert run_audit(settings, None, None, display) == 1


def test_an_audit_goes_on_where_its_canon_row_is_swept_meanwhile(indexed: Indexed) -> None:
    connection, row = indexed.connection, indexed.tamperer.row
    layouts = build_layouts(declare_contracts(Settings(data_dir=indexed.data)))
    found = Audit(connection, CHAIN, layouts, row).run(0, HEAD)
    seen = [next(found)]
    append_canon(connection, CHAIN, replace(row, seq=row.seq + 1), datetime.now(UTC))
    forget_before(connection, CHAIN, (row.generation, row.seq + 1))
    seen += found
    assert not any(one.broken for one in seen)
    assert {"I2/I3", "I8", "I10"} <= {one.code for one in seen}
    with pytest.raises(SnapshotExpired):
        list(Audit(connection, CHAIN, layouts, row).run(0, HEAD + 1))


def test_people_read_what_is_broken_and_where(
    indexed: Indexed, capsys: pytest.CaptureFixture[str]
) -> None:
    with indexed.tamperer.restoring(LOGS):
        place, row = indexed.tamperer.visible(LOGS, "block_number > 20")
        number = indexed.connection.value(f"SELECT block_number FROM {place} WHERE {row}")
        indexed.tamperer.change(place, row, data="concat(data, 'x')")
        settings = Settings(data_dir=indexed.data)
        assert run_audit(settings, number, number, Display(open_terminal())) == 1
    text = capsys.readouterr().out
    assert "I2/I3 BROKEN" in text
    assert f"{number}\t" in text
    assert "1 blocks" in text
