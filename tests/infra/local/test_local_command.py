"""`headrace local`: the command line around a cluster of real roles."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import cli
from infra.clickhouse.server import find_running
from infra.devchain import serve_in_thread
from infra.exit_codes import ExitCode, exit_code_of
from infra.local.directory import CLICKHOUSE, LocalDirectory
from schemas.errors_kafka import JavaMissing
from sinks.connection import Connection
from tests.e2e.running import CHAIN, small_chain, tables, until
from tests.kafka_rig import require_kafka
from tests.stored_truth import assert_stored


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the cluster is; it is ended, and killed if need be, after the test."""
    path = tmp_path / "cluster"
    yield path
    directory = LocalDirectory(path)
    if directory.held():
        os.kill(int(directory.owner()), signal.SIGKILL)


def run(*words: str) -> int:
    return cli.main(["local", *words])


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_nothing_is_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--dir", str(folder)) == ExitCode.failed
    assert "no cluster is up" in capsys.readouterr().out
    assert run("down", "--dir", str(folder), "--wipe", "--json") == ExitCode.ok
    assert said(capsys)["was_up"] is False
    assert not folder.exists()


def test_a_cluster_needs_an_endpoint(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("up", "--dir", str(folder)) == ExitCode.usage
    assert "--rpc" in capsys.readouterr().err


def test_what_keeps_a_cluster_from_starting_is_quoted(
    folder: Path, dead_address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = f"http://{dead_address}/secret-key"

    assert run("up", "--dir", str(folder), "--rpc", dead) == ExitCode.storage

    told = capsys.readouterr().err
    assert "HR-6506" in told
    assert "HR-20" in told
    assert "secret-key" not in told
    assert not LocalDirectory(folder).held()


def test_a_cluster_without_java_says_what_to_install(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    assert run("up", "--dir", str(folder), "--rpc", "http://127.0.0.1:9") == exit_code_of(
        JavaMissing(wanted=17, found="none")
    )

    told = capsys.readouterr().err
    assert "error HR-6011" in told
    assert "HR-6506" not in told
    assert "apt install" in told
    assert not folder.exists()


def test_a_cluster_from_start_to_wipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Up, followed to the head, refused a second time, down, up again where it was, wiped."""
    require_kafka()
    chain = small_chain(seed=7)
    chain.mine(60)
    with serve_in_thread(chain) as serving:
        words = ("up", "--dir", str(folder), "--rpc", serving.http_urls[0], "--from", "0")
        assert run(*words, "--partitions", "2", "--json") == ExitCode.ok, capsys.readouterr().err
        up = said(capsys)
        assert {one["name"] for one in up["processes"]} == {
            *("kafka", "clickhouse", "ingest", "process-history-0", "process-head-0"),
            *("sink-0", "publish"),
        }
        assert all(one["ready"] for one in up["processes"])
        await_head(folder, 60)

        assert run(*words) == ExitCode.storage
        assert "HR-6501" in capsys.readouterr().err

        assert run("down", "--dir", str(folder)) == ExitCode.ok
        chain.mine(30)
        chain.reorg(3)
        capsys.readouterr()
        assert run(*words) == ExitCode.ok, capsys.readouterr().err
        await_head(folder, chain.head.header.number)
        with connect(folder) as connection:
            assert_stored(connection, tables(), chain.blocks())

    assert run("down", "--dir", str(folder), "--wipe") == ExitCode.ok
    assert not folder.exists()


def connect(folder: Path) -> Connection:
    running = find_running(folder / CLICKHOUSE)
    assert running is not None
    return Connection(running.endpoint(database=CHAIN))


def await_head(folder: Path, number: int) -> None:
    """Wait until a block is visible."""

    def shown() -> bool:
        with connect(folder) as connection:
            return int(connection.value("SELECT max(block_number) FROM blocks")) >= number

    until(shown, f"block {number} is not visible")
