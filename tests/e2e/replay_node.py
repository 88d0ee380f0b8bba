"""Blocks with their receipts in, a JSON-RPC node that serves them as its chain out."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NOT_FOUND = {"code": -32601, "message": "the method does not exist"}


class ReplayNode:
    """A node whose chain and finality are set from outside, also while it is asked.

    Parameters
    ----------
    chain_id
        What it claims to serve.
    blocks
        Each with `block` and `receipts`, as JSON-RPC gives them, in the chain's order.
    finalized
        Number of the last final block; the safe one is the same.
    """

    def __init__(self, chain_id: int, blocks: Sequence[Any], finalized: int) -> None:
        self.chain_id, self.finalized = chain_id, finalized
        self._by_hash: dict[str, Any] = {}
        self._by_number: dict[int, Any] = {}
        self.head = -1
        self.show(blocks)

    def show(self, blocks: Sequence[Any]) -> None:
        """Make these blocks the canonical chain."""
        self._by_hash = self._by_hash | {one["block"]["hash"]: one for one in blocks}
        self._by_number = {int(one["block"]["number"], 16): one for one in blocks}
        self.head = max(self._by_number)

    def answer(self, call: Any) -> Any:
        """The reply to one call."""
        method, params = call["method"], call.get("params", [])
        reply = {"jsonrpc": "2.0", "id": call["id"]}
        if method == "eth_chainId":
            return reply | {"result": hex(self.chain_id)}
        if method == "eth_blockNumber":
            return reply | {"result": hex(self.head)}
        if method in ("eth_getBlockByNumber", "eth_getBlockByHash"):
            found = self._find(params[0])
            return reply | {"result": self._block(found, full=params[1])}
        if method == "eth_getBlockReceipts":
            found = self._find(params[0])
            return reply | {"result": None if found is None else found["receipts"]}
        if method == "eth_getLogs":
            return reply | {"result": list(self._logs(params[0]))}
        return reply | {"error": NOT_FOUND}

    def _logs(self, wanted: Any) -> Iterator[Any]:
        """The logs of some contracts, as far as the receipts are known."""
        if "blockHash" in wanted:
            blocks = [self._by_hash[wanted["blockHash"]]]
        else:
            first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
            blocks = [self._by_number[number] for number in range(first, last + 1)]
        addresses = {address.lower() for address in wanted["address"]}
        for one in blocks:
            for receipt in one["receipts"] or ():
                yield from (log for log in receipt["logs"] if log["address"] in addresses)

    def _find(self, wanted: Any) -> Any:
        tags = {"latest": self.head, "safe": self.finalized, "finalized": self.finalized}
        if isinstance(wanted, dict):
            wanted = wanted["blockHash"]
        if wanted in tags:
            return self._by_number.get(tags[wanted])
        if len(wanted) == 66:
            return self._by_hash.get(wanted)
        return self._by_number.get(int(wanted, 16))

    @staticmethod
    def _block(found: Any, *, full: bool) -> Any:
        if found is None or full:
            return found and found["block"]
        hashes = [transaction["hash"] for transaction in found["block"]["transactions"]]
        return found["block"] | {"transactions": hashes}


def read_blocks(path: Path) -> list[Any]:
    """The blocks of a file of JSON lines."""
    with gzip.open(path) as lines:
        return [json.loads(line) for line in lines]


@contextmanager
def serve_replay(node: ReplayNode) -> Iterator[str]:
    """Serve a node on loopback; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            many = isinstance(asked, list)
            said = [node.answer(call) for call in asked] if many else node.answer(asked)
            body = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: Any) -> None:
            """Tests are quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
