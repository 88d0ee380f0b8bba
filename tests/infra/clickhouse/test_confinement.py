"""What people get of the server reaches no file, address, process or Python of the machine.

Every function, table function, format and setting that the engine lists is tried as `analyst`
with a file and an address that notice being opened, so an upgrade of the engine cannot open one.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from infra.clickhouse import confinement
from infra.clickhouse.config import FIXED_SETTINGS
from infra.clickhouse.server import EmbeddedServer, check_engine
from schemas.errors_sinks import AccessRefused, QueryRefused
from sinks.connection import Connection

pytestmark = pytest.mark.skipif(
    not confinement.can_confine(), reason="this kernel has no Landlock of version 2 or later"
)

SECRET = "canary-8d1f"
IN_OPEN, IN_ACCESS, IN_NONBLOCK = 0x20, 0x1, 0x800
HARMLESS_STRINGS = frozenset(
    {
        "additional_result_filter",
        "ai_function_embedding_default_credentials",
        "ai_function_text_default_credentials",
        "bool_false_representation",
        "bool_true_representation",
        "chdb_client_name",
        "cluster_for_parallel_replicas",
        "column_names_for_schema_inference",
        "compatibility",
        "compression",
        "count_distinct_implementation",
        "database",
        "default_format",
        "default_view_definer",
        "distributed_cache_client_id",
        "distributed_cache_file_cache_name",
        "distributed_plan_force_exchange_kind",
        "errors_output_format",
        "exclude_materialize_skip_indexes_on_insert",
        "filesystem_cache_name",
        "filter",
        "force_data_skipping_indices",
        "force_optimize_projection_name",
        "format",
        "format_csv_null_representation",
        "format_custom_field_delimiter",
        "format_custom_result_after_delimiter",
        "format_custom_result_before_delimiter",
        "format_custom_row_after_delimiter",
        "format_custom_row_before_delimiter",
        "format_custom_row_between_delimiter",
        "format_json_object_each_row_column_for_object_name",
        "format_regexp",
        "format_schema_message_name",
        "format_schema_source",
        "format_template_resultset_format",
        "format_template_row_format",
        "format_template_rows_between_delimiter",
        "format_tsv_null_representation",
        "framing_output_format",
        "function_implementation",
        "iceberg_metadata_compression_method",
        "ignore_data_skipping_indices",
        "implicit_table_at_top_level",
        "input_format",
        "input_format_mysql_dump_table_name",
        "input_format_orc_reader_time_zone_name",
        "insert_deduplication_token",
        "local_filesystem_read_method",
        "log_comment",
        "metrics_perf_events_list",
        "network_compression_method",
        "order",
        "output_format",
        "output_format_avro_codec",
        "output_format_avro_confluent_subject",
        "output_format_avro_string_column_pattern",
        "output_format_image_terminal_mode",
        "output_format_orc_writer_time_zone_name",
        "output_format_pretty_grid_charset",
        "output_format_sql_insert_table_name",
        "parallel_replicas_custom_key",
        "polyglot_dialect",
        "preferred_optimize_projection_name",
        "promql_database",
        "promql_table",
        "query_cache_tag",
        "remote_filesystem_read_method",
        "s3_base",
        "s3_upload_checksum_algorithm",
        "s3queue_default_zookeeper_path",
        "schema_inference_hints",
        "select",
        "send_logs_source_regexp",
        "sort",
        "stream_like_engine_insert_queue",
        "temporary_files_codec",
        "trace_profile_events_list",
        "url_base",
        "workload",
    }
)
"""Settings of text that were looked at: none names a file or an address that a query opens.

`url_base` and `s3_base` complete addresses of functions that need a grant."""


class Canary:
    """A file and a listening port; either knows whether it was reached."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "canary.txt"
        self.file.write_text(SECRET + "\n")
        self._libc = ctypes.CDLL(None)
        self._watch = self._libc.inotify_init1(IN_NONBLOCK)
        self._libc.inotify_add_watch(self._watch, os.fsencode(self.file), IN_OPEN | IN_ACCESS)
        self._port = socket.create_server(("127.0.0.1", 0))
        self._port.setblocking(False)
        self.url = f"http://127.0.0.1:{self._port.getsockname()[1]}/address"

    def reached(self) -> str:
        """What was opened since the last time; nothing if nothing was."""
        found = []
        try:
            mask = struct.unpack_from("=iI", os.read(self._watch, 4096))[1]
            found.append(f"the file ({mask:#x})")
        except BlockingIOError:
            pass
        try:
            peer, _ = self._port.accept()
            peer.close()
            found.append("the address")
        except BlockingIOError:
            pass
        return " and ".join(found)

    def close(self) -> None:
        os.close(self._watch)
        self._port.close()


class Client:
    """Queries by HTTP as one user, over one connection."""

    def __init__(self, server: EmbeddedServer, user: str) -> None:
        endpoint = server.endpoint(user)
        self._headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": endpoint.password}
        self._connection = http.client.HTTPConnection(server.host, server.http_port, timeout=60)

    def close(self) -> None:
        self._connection.close()

    def ask(self, sql: str) -> tuple[int, str]:
        """Status and answer; a server that dies is an error of the connection."""
        self._connection.request("POST", "/?max_execution_time=5", sql.encode(), self._headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    data = tmp_path_factory.mktemp("confined") / "data"
    with EmbeddedServer(data, supervise=False) as running:
        yield running


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    placed = Canary(tmp_path_factory.mktemp("canary"))
    yield placed
    placed.close()


@pytest.fixture(scope="module")
def analyst(server: EmbeddedServer) -> Iterator[Client]:
    with closing(Client(server, "analyst")) as client:
        yield client


def listed(server: EmbeddedServer, sql: str) -> list[str]:
    with Connection(server.endpoint()) as connection:
        return [row[0] for row in connection.execute(sql)]


def test_the_canary_notices(tmp_path: Path) -> None:
    placed = Canary(tmp_path)
    assert placed.reached() == ""
    placed.file.read_text()
    socket.create_connection(placed._port.getsockname()).close()
    assert placed.reached().count("the") == 2
    placed.close()


def tries(name: str, canary: Canary) -> Iterator[str]:
    path, url = f"'{canary.file}'", f"'{canary.url}'"
    for arguments in (
        *("", "x", "1", path, url, f"{path}, 'x'", f"{path}, 1", f"{url}, 'x'"),
        *(f"{path}, 'CSV', 'a String'", f"{url}, 'LineAsString'", f"'CSV', {path}"),
    ):
        yield f"{name}({arguments})"


def test_no_function_reaches_out_or_ends_the_server(
    server: EmbeddedServer, canary: Canary, analyst: Client
) -> None:
    names = listed(server, "SELECT name FROM system.functions WHERE NOT is_aggregate")
    assert len(names) > 1000
    for name in names:
        if name in {"sleep", "sleepEachRow"}:
            continue
        for call in tries(name, canary):
            _, text = analyst.ask(f"SELECT {call}")
            assert SECRET not in text, call
        assert not canary.reached(), name


def test_no_table_function_reaches_out_or_ends_the_server(
    server: EmbeddedServer, canary: Canary, analyst: Client
) -> None:
    names = listed(server, "SELECT name FROM system.table_functions")
    assert "python" in [name.lower() for name in names]
    for name in names:
        for call in tries(f"`{name}`", canary):
            for sql in (f"SELECT * FROM {call} LIMIT 1", f"INSERT INTO FUNCTION {call} SELECT 1"):
                _, text = analyst.ask(sql)
                assert SECRET not in text, sql
        assert not canary.reached(), name


def test_no_setting_of_a_format_reaches_out(
    server: EmbeddedServer, canary: Canary, analyst: Client
) -> None:
    made = canary.file.with_name("made")
    settings = listed(
        server, "SELECT name FROM system.settings WHERE type IN ('String', 'URI', 'Map')"
    )
    formats = listed(server, "SELECT name FROM system.formats WHERE is_output")
    for name in settings:
        for value in (str(canary.file), f"{canary.file}:X", canary.url, str(made)):
            analyst.ask(f"SELECT 1 AS a SETTINGS {name} = '{value}'")
    assert not canary.reached()
    for name in FIXED_SETTINGS:
        status, text = analyst.ask(f"SELECT 1 AS a SETTINGS {name} = '1'")
        assert status != 200, name
        assert "should not be changed" in text, text
    for form in formats:
        for name in (*FIXED_SETTINGS, "format_schema_message_name"):
            _, text = analyst.ask(f"SELECT 1 AS a SETTINGS {name} = '{canary.file}' FORMAT {form}")
            assert SECRET not in text
    assert not canary.reached()
    assert not made.exists()


def test_settings_of_text_are_known(server: EmbeddedServer) -> None:
    """A new one must be looked at: it may name a file or an address."""
    found = set(listed(server, "SELECT name FROM system.settings WHERE type IN ('String', 'URI')"))
    assert found - HARMLESS_STRINGS - set(FIXED_SETTINGS) == set()


def test_no_engine_dictionary_or_database_can_be_made(
    server: EmbeddedServer, canary: Canary, analyst: Client
) -> None:
    for name in listed(server, "SELECT name FROM system.table_engines"):
        for kind in ("TABLE", "TEMPORARY TABLE"):
            status, _ = analyst.ask(f"CREATE {kind} t (a String) ENGINE = {name}('{canary.file}')")
            assert status != 200, (kind, name)
    for sql in (
        f"CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE(FILE(PATH '{canary.file}'))",
        f"CREATE DATABASE d ENGINE = Filesystem('{canary.file.parent}')",
        "CREATE FUNCTION f AS (x) -> x",
        "BACKUP ALL TO Disk('a', 'b')",
        "SYSTEM SHUTDOWN",
        "SYSTEM STOP LISTEN HTTP",
        "EXECUTE AS headrace SELECT 1",
        "KILL QUERY WHERE 1",
        "SELECT * FROM system.processes",
        f"SELECT 1 INTO OUTFILE '{canary.file}2'",
    ):
        status, text = analyst.ask(sql)
        assert status != 200 or "OUTFILE" in sql, (sql, text)
    assert not canary.reached()
    assert not Path(f"{canary.file}2").exists()


@pytest.mark.parametrize("user", ["analyst", "headrace"])
def test_files_outside_of_the_server_are_refused_to_everybody(
    server: EmbeddedServer, canary: Canary, user: str
) -> None:
    for path in (
        *(canary.file, server.data_dir / "secrets" / "headrace", server.data_dir / "headrace.json"),
        *("/etc/passwd", "/proc/self/environ", "/proc/self/fd/0", f"/proc/{os.getpid()}/environ"),
        *("/proc/self/cwd/../secrets/headrace", "/dev/stdin", "/var/lib/../../etc/passwd"),
    ):
        with closing(Client(server, user)) as client:
            status, text = client.ask(f"SELECT file('{path}')")
        assert status != 200, path
        assert any(why in text for why in ("Permission denied", "CANNOT", "DOESNT_EXIST")), text
    assert not canary.reached()


def test_nobody_connects_out(server: EmbeddedServer, canary: Canary) -> None:
    """The superuser has the grant, so this is the kernel's refusal."""
    with closing(Client(server, "headrace")) as client:
        once = "SETTINGS http_max_tries = 1"
        status, _ = client.ask(f"SELECT * FROM url('{canary.url}', LineAsString) {once}")
    assert status != 200
    assert not canary.reached()


def test_python_is_an_error_and_the_server_goes_on(server: EmbeddedServer) -> None:
    pid = server.pid
    with Connection(server.endpoint("analyst")) as connection:
        for _ in range(20):
            with pytest.raises((QueryRefused, AccessRefused)):
                connection.execute("SELECT * FROM Python(os)")
            assert connection.execute("SELECT 1") == [(1,)]
    assert server.pid == pid
    assert server.alive


def test_the_environment_is_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_RPC", "https://node.example/KEY")
    with EmbeddedServer(tmp_path / "data") as server:
        environment = Path(f"/proc/{server.pid}/environ").read_bytes()
    assert b"KEY" not in environment
    assert b"HEADRACE" not in environment


def test_every_thread_of_the_server_is_confined(server: EmbeddedServer) -> None:
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        assert "NoNewPrivs:\t1" in (task / "status").read_text(), task


PROBE = """
import sys
from pathlib import Path
from infra.clickhouse import confinement
own = Path(sys.argv[1])
confinement.confine([own])
(own / "a").mkdir()
(own / "a" / "f").write_text("x")
(own / "a" / "f").rename(own / "f")
(own / "g").hardlink_to(own / "f")
for step in (lambda: open("/etc/passwd"), lambda: (own / ".." / "out").write_text("x"),
             lambda: __import__("os").execv("/bin/true", ["true"])):
    try:
        step()
    except PermissionError:
        continue
    sys.exit("not refused")
"""


def test_a_confined_process_keeps_its_folder_and_nothing_else(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(own)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_holes_are_named_where_the_system_closes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert confinement.open_holes() == []
    monkeypatch.setattr(confinement, "landlock_abi", lambda: 1)
    monkeypatch.setattr(confinement.platform, "machine", lambda: "riscv64")
    files, python = confinement.open_holes()
    assert "Landlock" in files
    assert "Python" in python


def test_the_engine_is_the_one_that_was_looked_at() -> None:
    check_engine()
