"""Every check, well and ill, each with its fix."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from infra import cli, doctor
from infra.clickhouse.server import EmbeddedServer
from infra.doctor_endpoints import check_endpoints
from infra.exit_codes import ExitCode
from infra.settings import Settings

Serve = Callable[[dict[str, Any]], Any]


def states(checks: list[doctor.Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(data_dir=folder, **more)


def test_a_healthy_machine_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json", "--data", str(tmp_path / "new")]) == ExitCode.ok

    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    by_name = {check["name"]: check["state"] for check in found["checks"]}
    for name in ("python", "wheels", "data directory", "engine", "ports"):
        assert by_name[name] == "ok"
    assert not (tmp_path / "new").exists()


def test_whatever_is_not_well_has_a_fix(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    for check in doctor.run_checks(settings(tmp_path)):
        assert bool(check.fix) == (check.state != "ok"), check


def test_a_directory_of_other_files_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letter.txt").write_text("dear")

    assert cli.main(["doctor", "--data", str(tmp_path)]) == ExitCode.failed

    shown = capsys.readouterr().out
    assert "FAIL data directory" in shown
    assert "do: Choose an empty" in shown


def test_a_damaged_directory_fails(tmp_path: Path) -> None:
    (tmp_path / "headrace.json").write_text("{")

    found = states(list(doctor.run_checks(settings(tmp_path))))

    assert found["data directory"] == "fail"


def test_a_running_directory_is_well_and_its_ports_are_ours(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "d", chain="local") as server:
        chosen = {"tcp_port": server.tcp_port, "http_port": server.http_port}
        found = list(doctor.run_checks(settings(tmp_path / "d", clickhouse=chosen)))

    assert states(found)["ports"] == "ok"
    assert any("run by pid" in check.found for check in found)


def test_a_taken_port_fails(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        chosen = {"http_port": taken.getsockname()[1]}
        found = list(doctor.run_checks(settings(tmp_path, clickhouse=chosen)))

    assert states(found)["ports"] == "fail"
    assert any("HR-5006" in check.found for check in found)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start nodes that answer from a table of results by method."""
    runners = []

    async def start(results: dict[str, Any]) -> str:
        async def answer(request: web.Request) -> web.Response:
            call = await request.json()
            reply = {"jsonrpc": "2.0", "id": call["id"]}
            if call["method"] in results:
                return web.json_response(reply | {"result": results[call["method"]]})
            error = {"code": -32601, "message": "the method does not exist"}
            return web.json_response(reply | {"error": error})

        app = web.Application()
        app.router.add_post("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/secret-key"

    yield start
    for runner in runners:
        await runner.cleanup()


def node(chain_id: int = 8453, age_seconds: float = 1, **more: Any) -> dict[str, Any]:
    head = {
        "number": "0x10",
        "timestamp": hex(int(time.time() - age_seconds)),
        "hash": "0x" + "ab" * 32,
        "parentHash": "0x" + "cd" * 32,
    }
    return {"eth_chainId": hex(chain_id), "eth_getBlockByNumber": head, **more}


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (lambda: node(eth_getBlockReceipts=[]), ["ok", "ok", "ok"]),
        (node, ["ok", "ok", "warn"]),
        (lambda: node(eth_getBlockReceipts=None), ["ok", "ok", "warn"]),
        (lambda: node(age_seconds=7200, eth_getBlockReceipts=[]), ["ok", "warn", "ok"]),
        (lambda: node(age_seconds=-3600, eth_getBlockReceipts=[]), ["ok", "warn", "ok"]),
        (lambda: node(chain_id=1), ["fail"]),
        (dict, ["fail"]),
        (lambda: {"eth_chainId": "nonsense"}, ["fail"]),
        (lambda: {"eth_chainId": "0x2105", "eth_getBlockByNumber": None}, ["fail"]),
        (lambda: {"eth_chainId": "0x2105", "eth_getBlockByNumber": {"number": 5}}, ["fail"]),
    ],
)
async def test_an_endpoint_is_judged(
    serve: Serve, tmp_path: Path, results: Callable[[], dict[str, Any]], expected: list[str]
) -> None:
    url = await serve(results())
    checks = await check_endpoints(settings(tmp_path, chain="base", rpc=[url]))

    assert [check.state for check in checks] == expected
    for check in checks:
        assert "secret-key" not in check.name + check.found + check.fix
        assert bool(check.fix) == (check.state != "ok")


async def test_dead_and_malformed_endpoints_fail_alone(serve: Serve, tmp_path: Path) -> None:
    well = await serve(node(eth_getBlockReceipts=[]))
    urls = ["http://127.0.0.1:1/secret-key", "ftp://nowhere", well]

    checks = await check_endpoints(settings(tmp_path, chain="base", rpc=urls))

    assert [check.state for check in checks] == ["fail", "fail", "ok", "ok", "ok"]
