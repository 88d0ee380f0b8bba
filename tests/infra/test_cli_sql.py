"""`headrace sql` and `status` on a real server: running, not running, and elsewhere."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from infra import cli
from infra.clickhouse.server import EmbeddedServer
from infra.clickhouse_http import HttpAddress, fetch_text, parse_address, stream_query
from infra.exit_codes import ExitCode
from infra.readable_bytes import is_binary, readable_query
from schemas.chains import load_chains
from schemas.errors_settings import ClickHouseUrlInvalid, QueryRefused
from schemas.tables import CORE_TABLES
from sinks.connection import Connection
from sinks.migrate import prepare_database

CHAIN = load_chains()["local"].resized(10, 100)
BLOCK = "(block_number, block_hash, block_time, logs_bloom, extra_data, load_id)"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a chain of three visible blocks, whose server is not running."""
    folder = tmp_path_factory.mktemp("sql") / "data"
    with (
        EmbeddedServer(folder, chain="local", chain_id=7) as server,
        Connection(server.endpoint(database="default")) as connection,
    ):
        prepare_database(connection, "local", CORE_TABLES, CHAIN, 7)
        connection.execute(
            f"INSERT INTO local.blocks_open {BLOCK} SELECT number, "
            "unhex(repeat('0a', 31) || hex(toUInt8(number))), 1700000000 + number, '', "
            "if(number = 1, 'geth', unhex('00ff')), 5 FROM numbers(3)"
        )
        connection.execute(
            "INSERT INTO local.canon (generation, seq, at, floor, head, head_hash, finalized,"
            " sealed, loads) SELECT 1, 9, now64(3), 0, 2, unhex(repeat('0a', 31) || '02'), 1,"
            " [], [5]"
        )
        connection.execute(
            "INSERT INTO local.reorgs (generation, seq, at, depth_blocks, ancestor_number,"
            " old_head_number, new_head_number) VALUES (1, 8, now64(3), 2, 0, 2, 1)"
        )
        connection.execute(
            "INSERT INTO local.ledger (stream, content_version, from_block, to_block) VALUES"
            " ('logs', 'a', 0, 9), ('logs', 'a', 10, 19), ('logs', 'a', 40, 49)"
        )
    return folder


def sql(capfd: pytest.CaptureFixture[str], data_dir: Path, *words: str) -> str:
    assert cli.main(["sql", "--data", str(data_dir), *words]) == ExitCode.ok
    return capfd.readouterr().out


def test_a_query_runs_without_a_running_server(
    data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sql(capfd, data_dir, "SELECT max(block_number) FROM blocks") == "2\n"


def test_queries_run_beside_a_running_server(
    data_dir: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedServer(data_dir) as server:
        assert sql(capfd, data_dir, "--format", "CSV", "SELECT count(), currentUser() FROM blocks")
        monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 5 FORMAT JSONEachRow"))
        assert sql(capfd, data_dir) == '{"5":5}\n'
        shown = sql(
            capfd,
            data_dir,
            "SELECT block_number, block_hash, extra_data FROM blocks ORDER BY block_number DESC;",
        )
        assert shown.splitlines() == [
            f"2\t0x{'0a' * 31}02\t0x00ff",
            f"1\t0x{'0a' * 31}01\tgeth",
            f"0\t0x{'0a' * 31}00\t0x00ff",
        ]
        raw = sql(capfd, data_dir, "--raw", "--format", "TSVRaw", "SELECT unhex('410a42')")
        assert raw == "A\nB\n"
        query = "SELECT block_hash, 34000000 FROM blocks LIMIT 1"
        pretty = sql(capfd, data_dir, "--format", "Pretty", query)
        assert "0x0a0a" in pretty
        assert "\x1b" not in pretty
        assert "million" not in pretty
        _check_refusals(data_dir, capfd)
        _check_status_of_running(data_dir, capfd, server)
        _check_streams(server)


def _check_refusals(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for query, words in (
        ("SELECT * FROM nonsense", "SHOW TABLES"),
        ("SELECT nonsense FROM blocks", "nonsense"),
        ("SELEKT 1", "Syntax error"),
        ("DROP TABLE blocks_open", "analyst"),
        ("INSERT INTO blocks_open (block_number) VALUES (1)", "analyst"),
        ("SELECT throwIf(number = 70000, 'late') FROM numbers(100000)", "late"),
    ):
        assert cli.main(["sql", "--data", str(data_dir), query]) == ExitCode.usage
        shown = capfd.readouterr().err
        assert words in shown
        assert "error HR-1021" in shown
        assert "DB::Exception" not in shown
        assert "(version" not in shown
        assert "Stack trace" not in shown
        assert "executing" not in shown
        assert len(shown.splitlines()) == 3


def _check_status_of_running(
    data_dir: Path, capfd: pytest.CaptureFixture[str], server: EmbeddedServer
) -> None:
    assert cli.main(["status", "--data", str(data_dir), "--json"]) == ExitCode.ok
    found = json.loads(capfd.readouterr().out)
    assert found["running"]["http_port"] == server.http_port


def _check_streams(server: EmbeddedServer) -> None:
    """Large results come in pieces, and an error in the middle is found at the tail."""
    endpoint = server.endpoint("headrace")
    url = f"http://{endpoint.host}:{endpoint.http_port}/"
    address = HttpAddress(url, "headrace", endpoint.password, "local")
    chunks = list(stream_query(address, "SELECT number FROM numbers(200000) FORMAT TSV"))
    assert len(chunks) > 1
    assert b"".join(chunks) == b"".join(b"%d\n" % number for number in range(200_000))
    late = (
        "SELECT number, throwIf(number = 180000, 'late') FROM numbers(200000) "
        "SETTINGS max_block_size = 1000 FORMAT TSV"
    )
    received: list[bytes] = []
    with pytest.raises(QueryRefused, match="late"):
        received.extend(stream_query(address, late))
    assert received
    assert b"exception" not in b"".join(received).lower()
    # A server elsewhere, named by its URL; a password in it is not shown.
    named = f"http://headrace:{endpoint.password}@{endpoint.host}:{endpoint.http_port}/local"
    assert fetch_text(parse_address(named), "SELECT database()") == "local\n"


def test_status_shows_what_is_visible(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--data", str(data_dir), "--json"]) == ExitCode.ok
    found = json.loads(capfd.readouterr().out)

    assert found["running"] is None
    assert (found["chain"], found["chain_id"]) == ("local", 7)
    assert (found["canon"]["floor"], found["canon"]["head"]) == (0, 2)
    assert found["canon"]["head_hash"] == "0x" + "0a" * 31 + "02"
    assert found["head_time"] == 1_700_000_002
    assert found["lag_seconds"] > 0
    assert found["partitions_open"] == [0]
    assert found["partitions_sealed"] == []
    (blocks,) = (table for table in found["tables"] if table["name"] == "blocks")
    assert blocks["rows_open"] == 3
    assert blocks["bytes"] > 0
    assert found["reorgs"][0]["depth_blocks"] == 2
    (covered,) = found["coverage"]
    assert (covered["stream"], covered["segments"], covered["gaps"]) == ("logs", 3, 1)
    assert (covered["from_block"], covered["to_block"]) == (0, 49)


def test_status_of_a_clusters_server(
    data_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cluster.toml"
    with EmbeddedServer(data_dir) as server:
        at = server.endpoint("headrace")
        url = f"clickhouse://headrace:{at.password}@{at.address}"
        file.write_text(f'chain = "local"\n[clickhouse]\nurl = "{url}"\n')
        words = ["status", "--config", str(file)]
        assert cli.main([*words, "--json"]) == ExitCode.ok
        found = json.loads(capfd.readouterr().out)
        assert (found["data_dir"], found["running"]) == (None, None)
        assert (found["clickhouse"], found["canon"]["head"]) == (at.address, 2)
        assert cli.main(words) == ExitCode.ok
        assert f"ClickHouse\t{at.address}" in capfd.readouterr().out
        assert cli.main([*words, "--data", str(tmp_path)]) == ExitCode.storage
        assert "HR-1030" in capfd.readouterr().err
        for command in ("status", "audit"):
            file.write_text(f'chain = "ethereum"\n[clickhouse]\nurl = "{url}"\n')
            assert cli.main([command, "--config", str(file)]) == ExitCode.storage
            assert "HR-6303" in capfd.readouterr().err
            file.write_text(f'[clickhouse]\nurl = "{url}"\n')
            assert cli.main([command, "--config", str(file)]) == ExitCode.usage
            assert "HR-6301" in capfd.readouterr().err


def test_status_is_readable(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--data", str(data_dir)]) == ExitCode.ok
    shown = capfd.readouterr().out

    assert "visible\t0 … 2" in shown
    assert "finalized\t1" in shown
    assert "safe\tnone yet" in shown
    assert "last reorgs" in shown


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://host", HttpAddress("http://host:8123/", "default", "", "default")),
        ("https://h/db", HttpAddress("https://h:8443/", "default", "", "db")),
        ("http://u:p%40@h:1/a", HttpAddress("http://h:1/", "u", "p@", "a")),
        ("http://[::1]:5/", HttpAddress("http://[::1]:5/", "default", "", "default")),
    ],
)
def test_an_address_is_taken_apart(url: str, address: HttpAddress) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize("url", ["host:8123", "tcp://h", "http://", "http://h:x", "http://h:0"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ClickHouseUrlInvalid):
        parse_address(url)


def test_an_address_hides_its_password() -> None:
    assert "hidden" not in repr(parse_address("http://user:hidden@host/"))


def test_only_columns_of_bytes_are_rewritten() -> None:
    described = "\n".join(
        json.dumps([name, kind])
        for name, kind in (
            ("n", "UInt64"),
            ("h", "FixedString(32)"),
            ("a", "Nullable(FixedString(20))"),
            ("t", "String"),
            ("l", "Array(FixedString(4))"),
            ("odd `name`", "FixedString(2)"),
        )
    )
    shown = readable_query("SELECT * FROM t -- all", lambda _: described)

    assert shown is not None
    assert "(\nSELECT * FROM t -- all\n)" in shown
    assert "AS `h`" in shown
    assert "AS `l`" in shown
    assert "AS `odd \\`name\\``" in shown
    assert "`n`" not in shown


@pytest.mark.parametrize("query", ["SHOW TABLES", "EXPLAIN SELECT 1", "", "INSERT INTO t SELECT 1"])
def test_what_is_no_select_runs_as_it_stands(query: str) -> None:
    def never(_query: str) -> str:
        raise AssertionError("nothing is to be described")

    assert readable_query(query, never) is None


def test_binary_formats_are_known() -> None:
    assert is_binary("Parquet")
    assert is_binary("RowBinaryWithNamesAndTypes")
    assert not is_binary("JSONEachRow")
