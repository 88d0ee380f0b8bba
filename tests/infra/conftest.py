"""A devchain in, a data directory that was indexed from it out, and what an audit says of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.audit import run_audit
from infra.clickhouse.server import EmbeddedServer, find_running
from infra.devchain import serve_in_thread
from infra.display import Display
from infra.settings import Settings
from infra.terminal import open_terminal
from sinks.canon_table import read_canon
from sinks.connection import Connection
from tests.e2e.running import CHAIN, PARTITION_BLOCKS, ROOT, Headrace, small_chain, until
from tests.infra.tampering import Tamperer
from tests.patience import PATIENCE_SECONDS

HEAD = 60


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
