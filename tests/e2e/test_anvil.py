"""A live anvil, followed while it mines and reorganises: what can be queried is what it has."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from infra.attached import http_address
from infra.clickhouse.server import find_running
from infra.clickhouse_http import fetch_text
from infra.exit_codes import ExitCode
from schemas.errors_settings import ClickHouseUnreachable, QueryRefused
from tests.e2e.running import UNHURRIED
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
TRANSFER = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
RUNTIME = f"602a6000526002337f{TRANSFER}60206000a300"
"""Emits Transfer(caller, address 2, 42) whenever it is called."""
CREATION = f"0x60{len(RUNTIME) // 2:02x}80600b6000396000f3{RUNTIME}"

SILENT_SOON = {"HEADRACE_LIMITS__HEAD_SILENT_SECONDS": "4"}
T = TypeVar("T")


class Node:
    """JSON-RPC to a running anvil."""

    def __init__(self, url: str, pid: int) -> None:
        self.url, self.pid = url, pid
        self.account: str = self.call("eth_accounts")[0]

    def call(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        request = urllib.request.Request(
            self.url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            reply = json.loads(answer.read())
        assert "error" not in reply, reply
        return reply["result"]

    def send(self, **transaction: str) -> str:
        sent: str = self.call("eth_sendTransaction", {"from": self.account, **transaction})
        return sent

    def receipt(self, transaction: str) -> Any:
        return until(lambda: self.call("eth_getTransactionReceipt", transaction))

    def head(self) -> int:
        return int(self.call("eth_blockNumber"), 16)

    def hashes(self, first: int, last: int) -> list[str]:
        return [
            self.call("eth_getBlockByNumber", hex(number), False)["hash"]
            for number in range(first, last + 1)
        ]


def until(ask: Callable[[], T | None]) -> T:
    """Ask until there is an answer."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"no answer within {PATIENCE_SECONDS} s")


@pytest.fixture
def node(anvil: Path, tmp_path: Path) -> Iterator[Node]:
    log = tmp_path / "anvil.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [anvil, "--port", "0", "--block-time", "1", "--chain-id", "31337"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            found = until(lambda: re.search(r"Listening on ([\d.:]+)", log.read_text()))
            yield Node(f"http://{found[1]}", process.pid)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def run(node: Node, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (tmp_path / "run.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "infra.cli", "run", "--rpc", node.url),
                *("--from", "0", "--data", str(tmp_path / "data")),
            ],
            cwd=ROOT,
            env={**os.environ, **UNHURRIED, **SILENT_SOON},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def query(data: Path, sql: str) -> str | None:
    """The result of a query; None while the server is not up or not prepared."""
    running = find_running(data)
    if running is None:
        return None
    try:
        return fetch_text(http_address(running, "local"), sql).strip()
    except (QueryRefused, ClickHouseUnreachable):
        return None


def visible_to(data: Path, number: int) -> Callable[[], bool]:
    return lambda: int(query(data, "SELECT max(block_number) FROM blocks") or -1) >= number


def test_a_live_anvil_is_followed_through_a_reorg(
    node: Node, run: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    token = node.receipt(node.send(data=CREATION))["contractAddress"]
    for _ in range(3):
        node.receipt(node.send(to=token))
    # Blocks that came while we look would be the ones replaced, and nobody would have seen them.
    node.call("evm_setIntervalMining", 0)
    until(visible_to(data, node.head()))
    before = node.hashes(0, node.head())

    node.call("anvil_reorg", 3, [])
    node.call("evm_setIntervalMining", 1)
    node.receipt(node.send(to=token))
    head = node.head()
    assert node.hashes(0, len(before) - 1) != before, "anvil did not reorganise"
    until(visible_to(data, head))
    until(lambda: query(data, "SELECT count() FROM reorgs") not in (None, "0"))

    run.send_signal(signal.SIGINT)
    assert run.wait(PATIENCE_SECONDS) in (ExitCode.ok, ExitCode.interrupted)
    _check_stored(node, data, token)


def test_an_anvil_that_is_set_back_below_finality_halts_the_run(
    node: Node, run: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    node.call("evm_setIntervalMining", 0)
    node.call("anvil_mine", hex(5))
    kept = node.head()
    snapshot = node.call("evm_snapshot")
    node.call("anvil_mine", hex(150))
    until(visible_to(data, node.head()))
    until(
        lambda: (
            query(data, f"SELECT finalized > {kept} FROM canon ORDER BY seq DESC LIMIT 1") == "1"
        )
    )
    node.call("evm_revert", snapshot)
    node.call("anvil_mine", hex(100))
    assert run.wait(PATIENCE_SECONDS) == ExitCode.halted
    said = (tmp_path / "run.log").read_text()
    assert "error HR-3001" in said
    assert f"headrace rewind --to {kept}" in said


def test_an_anvil_that_stands_still_is_followed_again(
    node: Node, run: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    data, log = tmp_path / "data", tmp_path / "run.log"
    until(visible_to(data, 2))
    os.kill(node.pid, signal.SIGSTOP)
    try:
        until(lambda: "head_silent" in log.read_text())
        until(lambda: "no endpoint has named a head that counts for" in log.read_text())
    finally:
        os.kill(node.pid, signal.SIGCONT)
    until(visible_to(data, node.head()))


def _check_stored(node: Node, data: Path, token: str) -> None:
    """The stored chain is the node's, block by block, with its transfers."""
    blocks = _offline(data, "SELECT block_number, hex0x(block_hash) FROM blocks ORDER BY 1")
    transfers = _offline(
        data,
        "SELECT block_number, log_index, hex0x(address), hex0x(from_address), value "
        "FROM erc20_transfers ORDER BY 1, 2",
    )
    numbers = [int(number) for number, _ in blocks]
    assert numbers == list(range(len(blocks)))
    assert [shown for _, shown in blocks] == node.hashes(0, numbers[-1])
    logs = node.call(
        "eth_getLogs", {"fromBlock": "0x0", "toBlock": hex(numbers[-1]), "address": token}
    )
    assert len(logs) >= 1
    assert [tuple(row) for row in transfers] == [
        (str(int(log["blockNumber"], 16)), str(int(log["logIndex"], 16)), token, node.account, "42")
        for log in logs
    ]


def _offline(data: Path, sql: str) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "sql", "--data", str(data), sql],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]
