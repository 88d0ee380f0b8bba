"""The ``devchain_*`` methods and the command."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.devchain import Budget, Chain, Spec, serve_in_thread
from infra.devchain.control import CONTROLS
from tests.infra.devchain.client import call, refusal
from tests.patience import PATIENCE_SECONDS


@pytest.fixture
def serving():
    chain = Chain(Spec(seed=19, budget=Budget(3, 8)))
    chain.mine(20)
    with serve_in_thread(chain, 2) as serving:
        yield serving


def test_mining_reorgs_and_switching(serving):
    url = serving.http_urls[0]
    first = call(url, "eth_getBlockByNumber", "latest", False)["hash"]
    mined = call(url, "devchain_mine", 2)
    assert (mined["removed"], len(mined["added"])) == ([], 2)
    assert call(url, "eth_blockNumber") == hex(22)
    change = call(url, "devchain_reorg", 3, 1)
    assert (len(change["removed"]), len(change["added"])) == (3, 1)
    assert change["removed"][0] == first
    latest = call(serving.http_urls[1], "eth_getBlockByNumber", "latest", False)
    assert latest["hash"] == change["added"][0]
    back = call(url, "devchain_switch", first)
    assert back == {"removed": change["added"], "added": [first]}
    assert len(call(url, "devchain_mine")["added"]) == 1


def test_faults_of_one_endpoint_and_of_all(serving):
    url = serving.http_urls[0]
    fault = {"kind": "null_block", "methods": ["eth_getBlockByNumber"], "endpoint": 1}
    assert call(url, "devchain_setFault", fault) == [1]
    assert call(url, "eth_getBlockByNumber", "0x1", False)
    assert call(serving.http_urls[1], "eth_getBlockByNumber", "0x1", False) is None
    call(url, "devchain_clearFaults", 1)
    assert call(serving.http_urls[1], "eth_getBlockByNumber", "0x1", False)
    assert len(call(url, "devchain_setFault", {"kind": "null_block", "count": 1})) == 2
    call(url, "devchain_clearFaults")
    assert call(url, "eth_getBlockByNumber", "0x1", False)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("devchain_mine", [-1]),
        ("devchain_mine", ["many"]),
        ("devchain_reorg", [21]),
        ("devchain_reorg", []),
        ("devchain_switch", ["0x" + "ab" * 32]),
        ("devchain_switch", [4]),
        ("devchain_setFault", [{"kind": "typo"}]),
        ("devchain_setFault", [{}]),
        ("devchain_setFault", [{"kind": "null_block", "endpoint": 9}]),
        ("devchain_setFault", [7]),
        ("devchain_setInterval", ["often"]),
        ("devchain_clearFaults", [9]),
    ],
)
def test_nonsense_is_refused_and_changes_nothing(serving, method, params):
    assert refusal(serving.http_urls[0], method, *params)[0] == -32602
    assert call(serving.http_urls[0], "eth_blockNumber") == hex(20)


def test_every_control_is_tested_here():
    source = Path(__file__).read_text("utf-8")
    assert all(f'"{name}"' in source for name in CONTROLS)


def _started(*options):
    command = [sys.executable, "-m", "infra.devchain", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _stopped(process):
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


def test_command_serves_until_interrupted():
    options = ("--seed", "7", "--blocks", "12", "--interval", "0", "--chain-id", "77")
    budget = ("--transactions", "4", "--logs", "9", "--logs-range-max", "3")
    process = _started(*options, *budget, "--endpoints", "2")
    try:
        urls = [process.stdout.readline().strip() for _ in range(2)]
        assert call(urls[0], "eth_chainId") == "0x4d"
        assert call(urls[1], "eth_blockNumber") == "0xc"
        query = {"fromBlock": "0x1", "toBlock": "0x4"}
        assert refusal(urls[0], "eth_getLogs", query)[1] == "exceed maximum block range: 3"
        expected = Chain(Spec(seed=7, chain_id=77, budget=Budget(4, 9)))
        expected.mine(12)
        head = call(urls[0], "eth_getBlockByNumber", "latest", False)
        assert head["hash"] == "0x" + expected.head.hash.hex()
    finally:
        _stopped(process)


def test_command_mines_reorganises_and_stamps_of_now():
    options = ("--blocks", "6", "--interval", "0.02", "--transactions", "2", "--logs", "3")
    begun = time.time()
    process = _started(*options, "--now", "--reorg-every", "3", "--reorg-depth-max", "2")
    try:
        url = process.stdout.readline().strip()
        heads = {}
        replaced = False
        while not replaced:
            block = call(url, "eth_getBlockByNumber", "latest", False)
            assert begun - 15 < int(block["timestamp"], 16) < time.time() + 15
            heads[block["number"]] = block["hash"]
            for number in list(heads)[-6:]:
                found = call(url, "eth_getBlockByNumber", number, False)
                replaced |= found is not None and found["hash"] != heads[number]
    finally:
        _stopped(process)


def test_command_serves_an_archive(tmp_path):
    options = ("--blocks", "5", "--transactions", "6", "--logs", "12", "--exact")
    for _ in range(2):
        process = _started(*options, "--archive", str(tmp_path / "archive"))
        try:
            url = process.stdout.readline().strip()
            assert call(url, "eth_blockNumber") == "0x5"
            assert refusal(url, "devchain_mine")[1] == "an archived chain does not change"
            assert refusal(url, "devchain_setInterval", 1)[0] == -32602
        finally:
            _stopped(process)
    totals = json.loads((tmp_path / "archive" / "truth.json").read_text("utf-8"))
    assert totals["blocks"]["rows"] == "6"
