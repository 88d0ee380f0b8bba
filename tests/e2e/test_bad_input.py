"""`headrace run` on bad input: a coded error of three lines, the right exit code, nothing lost."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra import cli
from infra.clickhouse.server import EmbeddedServer

Answer = tuple[int, bytes]
Serve = Callable[[Callable[[Any], Answer]], str]

HEAD = {
    **dict.fromkeys(("hash", "parentHash", "stateRoot", "mixHash"), "0x" + "ab" * 32),
    **dict.fromkeys(("transactionsRoot", "receiptsRoot", "sha3Uncles"), "0x" + "cd" * 32),
    "number": "0x64",
    "miner": "0x" + "00" * 20,
    "logsBloom": "0x" + "00" * 256,
    "difficulty": "0x0",
    "gasLimit": "0x1",
    "gasUsed": "0x0",
    "extraData": "0x",
    "nonce": "0x" + "00" * 8,
    "transactions": [],
    "uncles": [],
    "size": "0x1",
}


def result(call: Any, value: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": value}).encode()


def node(chain_id: int, age_seconds: int = 0) -> Callable[[Any], Answer]:
    """A node that greets well and serves no bodies."""

    def answer(body: Any) -> Answer:
        head = {**HEAD, "timestamp": hex(int(time.time()) - age_seconds)}
        known: dict[str, Any] = {"eth_chainId": hex(chain_id), "eth_getBlockReceipts": []}
        known["eth_getBlockByNumber"] = head
        replies = [
            result(call, known.get(call["method"]))
            for call in (body if isinstance(body, list) else [body])
        ]
        return 200, b"[" + b",".join(replies) + b"]" if isinstance(body, list) else replies[0]

    return answer


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers = []

    def start(answer: Callable[[Any], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, payload = answer(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_args: Any) -> None:
                """Tests are quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/hidden-key"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def fails(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Run with `words`; it must end with this exit code and an error of three lines."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("RETRY_ATTEMPTS_MAX", "2"), ("BACKOFF_SECONDS_MAX", "0.05")):
        monkeypatch.setenv(f"HEADRACE_LIMITS__{name}", value)

    def run(exit_code: int, *words: str) -> str:
        got = cli.main(["run", *words])
        shown = capfd.readouterr().err
        assert got == exit_code, shown
        lines = [line for line in shown.splitlines() if not line.startswith("{")]
        assert len(lines) == 3, shown
        assert lines[0].startswith("error HR-")
        assert "hidden-key" not in shown
        assert "Traceback" not in shown
        return lines[0]

    return run


def test_nothing_listens(fails: Callable[..., str]) -> None:
    assert "cannot be reached" in fails(3, "--rpc", "http://127.0.0.1:1/hidden-key")


def test_an_endpoint_that_is_no_url(fails: Callable[..., str]) -> None:
    assert "HR-2001" in fails(2, "--rpc", "localhost:8545")


def test_a_web_page(fails: Callable[..., str], serve: Serve) -> None:
    url = serve(lambda _: (200, b"<!DOCTYPE html><html><body>Welcome</body></html>"))
    assert "HTML" in fails(3, "--rpc", url)


def test_something_that_is_no_json_rpc(fails: Callable[..., str], serve: Serve) -> None:
    fails(3, "--rpc", serve(lambda _: (200, b'{"hello": "world"}')))


def test_an_answer_that_is_cut_off(fails: Callable[..., str], serve: Serve) -> None:
    fails(3, "--rpc", serve(lambda body: (200, result(body, "0x1")[:-5])))


def test_a_key_that_is_refused(fails: Callable[..., str], serve: Serve) -> None:
    fails(3, "--rpc", serve(lambda _: (401, b"unauthorized")))


def test_the_wrong_chain(fails: Callable[..., str], serve: Serve) -> None:
    what = fails(2, "--chain", "base", "--rpc", serve(node(1)))
    assert "chain 1" in what
    assert "8453" in what


def test_from_beyond_the_head(fails: Callable[..., str], serve: Serve) -> None:
    what = fails(2, "--chain", "base", "--from", "101", "--rpc", serve(node(8453)))
    assert "HR-2054" in what


def test_a_directory_of_another_chain(
    fails: Callable[..., str], serve: Serve, tmp_path: Path
) -> None:
    with EmbeddedServer(tmp_path / "d", chain="optimism", chain_id=10):
        pass
    words = ("--chain", "base", "--data", str(tmp_path / "d"))
    assert "HR-5002" in fails(4, *words, "--rpc", serve(node(8453)))


def test_a_directory_in_use(fails: Callable[..., str], serve: Serve, tmp_path: Path) -> None:
    words = ("--chain", "base", "--data", str(tmp_path / "d"))
    with EmbeddedServer(tmp_path / "d", chain="base", chain_id=8453):
        assert "HR-5001" in fails(4, *words, "--rpc", serve(node(8453)))


def test_a_directory_of_a_newer_version(
    fails: Callable[..., str], serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "d" / "clickhouse").mkdir(parents=True)
    (tmp_path / "d" / "headrace.json").write_text('{"layout": 99, "chain": "base"}')
    words = ("--chain", "base", "--data", str(tmp_path / "d"))
    assert "HR-5003" in fails(4, *words, "--rpc", serve(node(8453)))


def test_a_damaged_directory(fails: Callable[..., str], serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "headrace.json").write_text("{")
    words = ("--chain", "base", "--data", str(tmp_path / "d"))
    assert "HR-5004" in fails(4, *words, "--rpc", serve(node(8453)))


def test_a_directory_of_other_files(
    fails: Callable[..., str], serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    words = ("--chain", "base", "--data", str(tmp_path))
    assert "HR-5005" in fails(4, *words, "--rpc", serve(node(8453)))
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_taken_port(
    fails: Callable[..., str], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("HEADRACE_CLICKHOUSE__HTTP_PORT", str(taken.getsockname()[1]))
        words = ("--chain", "base", "--rpc", serve(node(8453)))
        assert "HR-5006" in fails(4, *words)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[[contracts]]\nname = 'a'\nevents = [\n 'Ok()',\n 'Broken(uint7 x)',\n]", "line 5"),
        ("[[contracts]]\nname = 'a'\nabi = 'abi.json'", "abi.json line 3"),
        ("[[contracts]]\nname = 'erc20'\nevents = ['Transfers(address a)']", "erc20_transfers"),
    ],
)
def test_a_malformed_abi_names_its_line(
    fails: Callable[..., str], tmp_path: Path, text: str, place: str
) -> None:
    (tmp_path / "headrace.toml").write_text(text)
    (tmp_path / "abi.json").write_text('[\n {"type": "event",\n  "name": }\n]')

    assert place in fails(2, "--rpc", "http://127.0.0.1:1/hidden-key")
