"""The embedded server as a process: it starts, is found, dies with its parent, comes back."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.clickhouse import server as module
from infra.clickhouse.server import EmbeddedServer, check_engine, find_running
from infra.ports import free_port
from schemas.errors_embedded import (
    DataDirectoryDamaged,
    DataDirectoryInUse,
    EngineUnusable,
    PortTaken,
    ServerDidNotStart,
    ServerGone,
)
from schemas.errors_sinks import AccessRefused, TooManyQueries
from sinks.connection import Connection, Endpoint
from tests.patience import PATIENCE_SECONDS


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def test_it_serves_is_found_and_keeps_what_is_stored(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert find_running(data) is None
    with EmbeddedServer(data, chain="local", chain_id=7) as server:
        with Connection(server.endpoint()) as connection:
            assert connection.execute("SELECT currentUser()") == [("headrace",)]
            connection.execute("CREATE DATABASE kept")
            connection.execute("CREATE TABLE kept.t (n UInt8) ENGINE = MergeTree ORDER BY n")
            connection.insert_rows("kept.t", ["n"], [(7,)])
        found = find_running(data)
        assert found is not None
        assert (found.tcp_port, found.http_port) == (server.tcp_port, server.http_port)
        assert (found.pid, found.owner_pid) == (server.pid, os.getpid())
        with Connection(found.endpoint("analyst")) as connection:
            assert connection.execute("SELECT n FROM kept.t") == [(7,)]
        assert server.password not in server.native_url + server.http_url + repr(found)
        assert server.password not in repr(server.endpoint())
    assert find_running(data) is None
    with EmbeddedServer(data, chain="local") as again, Connection(again.endpoint()) as connection:
        assert connection.execute("SELECT n FROM kept.t") == [(7,)]


@pytest.mark.parametrize("name", ["o'brien & söhne <x>", "a b;c$(d)"])
def test_any_letter_may_be_in_the_path(name: str, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / name / "data") as server:
        with Connection(server.endpoint()) as connection:
            assert connection.execute("SELECT 1") == [(1,)]
        assert find_running(tmp_path / name / "data") is not None


def test_secrets_are_for_the_owner_only(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data") as server:
        for path in [
            *(server.data_dir / "secrets").iterdir(),
            *(server.data_dir / "run").glob("*.xml"),
        ]:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        config = (server.data_dir / "run" / "users.xml").read_text()
        assert server.password not in config


def test_passwords_are_asked_for_and_default_cannot_log_in(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data") as server:
        for user, password, refusal in (
            ("headrace", "", AccessRefused),
            ("headrace", "wrong", AccessRefused),
            ("analyst", "", AccessRefused),
            ("default", "", TooManyQueries),
        ):
            endpoint = Endpoint(server.host, server.tcp_port, user, password)
            with Connection(endpoint) as connection, pytest.raises(refusal):
                connection.execute("SELECT 1")


def test_a_second_owner_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data"):
        with pytest.raises(DataDirectoryInUse) as caught:
            EmbeddedServer(tmp_path / "data").start()
        assert str(os.getpid()) in caught.value.what_text


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for ports in ((port, 0), (0, port)):
            with pytest.raises(PortTaken) as caught:
                EmbeddedServer(tmp_path / "data", *ports).start()
            assert str(port) in caught.value.what_text
    with EmbeddedServer(tmp_path / "data", tcp_port=free_port()):
        pass


def test_a_killed_server_comes_back_on_its_ports_with_what_was_stored(tmp_path: Path) -> None:
    events: list[tuple[str, int]] = []
    happened = threading.Event()

    def note(event: str, code: int) -> None:
        events.append((event, code))
        happened.set()

    with EmbeddedServer(tmp_path / "data", on_event=note) as server:
        ports, first = (server.tcp_port, server.http_port), server.pid
        with Connection(server.endpoint()) as connection:
            connection.execute("CREATE DATABASE kept")
            connection.execute("CREATE TABLE kept.t (n UInt8) ENGINE = MergeTree ORDER BY n")
            connection.insert_rows("kept.t", ["n"], [(7,)])
            os.kill(first, signal.SIGKILL)
            assert happened.wait(PATIENCE_SECONDS)
            assert events == [("restarted", -signal.SIGKILL)]
            assert (server.tcp_port, server.http_port) == ports
            assert server.pid != first
            assert connection.execute("SELECT n FROM kept.t") == [(7,)]
        server.check()
        found = find_running(tmp_path / "data")
        assert found is not None
        assert found.pid == server.pid


def test_a_server_that_keeps_dying_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTARTS_MAX", 1)
    events: list[str] = []
    with EmbeddedServer(
        tmp_path / "data", on_event=lambda event, _: events.append(event)
    ) as server:
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: events == ["restarted"])
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: events == ["restarted", "gone"])
        with pytest.raises(ServerGone):
            server.check()


def test_stop_is_graceful_and_ends_the_process(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "data").start()
    pid = server.pid
    server.stop()
    assert not is_running(pid)
    assert server._process is not None
    assert server._process.returncode == 0
    server.stop()


OWNER = """
import sys, time
from infra.clickhouse.server import EmbeddedServer
server = EmbeddedServer(sys.argv[1]).start()
print(server.pid, flush=True)
time.sleep(600)
"""


def test_the_server_dies_with_its_owner_and_the_next_one_takes_over(tmp_path: Path) -> None:
    data = tmp_path / "data"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    assert is_running(child)
    with pytest.raises(DataDirectoryInUse) as caught:
        EmbeddedServer(data).start()
    assert str(owner.pid) in caught.value.what_text
    owner.kill()
    owner.wait()
    owner.stdout.close()
    # At once: the new owner waits for the old one's server to notice.
    with EmbeddedServer(data) as server:
        assert server.pid != child
        # It gives up the lock a moment before the system has taken the rest of it away.
        wait_until(lambda: not is_running(child))


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with EmbeddedServer(data) as server, Connection(server.endpoint()) as connection:
        connection.execute("CREATE DATABASE kept")
        connection.execute("CREATE TABLE kept.t (n UInt8) ENGINE = MergeTree ORDER BY n")
    for table in (data / "clickhouse" / "store").rglob("t.sql"):
        table.write_text("this is no SQL")
    with pytest.raises(ServerDidNotStart) as caught:
        EmbeddedServer(data).start()
    assert "child.log" in caught.value.fix_text
    assert len(caught.value.what_text) > 60


def test_a_start_that_fails_leaves_no_pid_of_the_server_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedServer(tmp_path):
        pass
    place = tmp_path / "run" / "server.json"
    place.write_text("{}")

    def refuse(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_atomically", refuse)
    with pytest.raises(OSError, match="No space left"):
        EmbeddedServer(tmp_path).start()

    assert not place.exists()


def test_a_lost_password_is_damage(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with EmbeddedServer(data):
        (data / "secrets" / "headrace").write_text("")
        running = find_running(data)
        assert running is not None
        with pytest.raises(DataDirectoryDamaged, match="HR-5004"):
            running.endpoint()


def test_a_server_file_cut_short_is_no_server(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with EmbeddedServer(data) as server:
        place = data / "run" / "server.json"
        whole = place.read_text()
        for text in (whole[:20], "[]", json.dumps({"host": "127.0.0.1"})):
            place.write_text(text)
            assert find_running(data) is None
        assert server.tcp_port > 0


def test_another_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_engine()
    monkeypatch.setattr(module, "ENGINE_VERSION", "1.2.3")
    with pytest.raises(EngineUnusable) as caught:
        check_engine()
    assert "chdb-core==1.2.3" in caught.value.fix_text
