"""Queries and runs share a data directory: each waits for the other, within bounds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.attached import attached, chain_of, owned_briefly, patient_start
from infra.clickhouse.server import EmbeddedServer, RunningServer
from schemas.errors_embedded import DataDirectoryInUse
from schemas.errors_settings import DataMissing
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    with EmbeddedServer(tmp_path / "d", chain="local"):
        pass
    return tmp_path / "d"


def test_a_server_is_started_where_none_runs_and_stopped_after(data_dir: Path) -> None:
    with attached(data_dir) as server:
        assert isinstance(server, EmbeddedServer)
        with attached(data_dir) as second:
            assert isinstance(second, RunningServer)
            assert second.http_port == server.http_port
    with attached(data_dir) as third:
        assert isinstance(third, EmbeddedServer)


def test_a_run_waits_for_a_query(data_dir: Path) -> None:
    def run() -> int:
        with EmbeddedServer(data_dir) as server:
            return server.http_port

    with ThreadPoolExecutor(1) as pool:
        with attached(data_dir) as query:
            waiting = pool.submit(patient_start, data_dir, run)
            with pytest.raises(DataDirectoryInUse):
                run()
            assert not waiting.done()
            used = query.http_port
        assert waiting.result(PATIENCE_SECONDS) > 0
    assert used > 0


def test_a_run_does_not_wait_for_a_run(data_dir: Path) -> None:
    def run() -> None:
        with EmbeddedServer(data_dir):
            pass

    with EmbeddedServer(data_dir), pytest.raises(DataDirectoryInUse):
        patient_start(data_dir, run)


def test_a_marker_names_its_process(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert not owned_briefly(tmp_path, 5)
    (tmp_path / "run" / "brief").write_text("5\n")
    assert owned_briefly(tmp_path, "5")
    assert not owned_briefly(tmp_path, 6)


def test_what_holds_no_chain_is_said(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(DataMissing, match="no Headrace data"):
            chain_of(folder)
    with EmbeddedServer(tmp_path / "d"):
        pass
    with pytest.raises(DataMissing) as raised:
        chain_of(tmp_path / "d")
    assert "No run" in raised.value.why_text
