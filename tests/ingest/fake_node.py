"""A scripted chain in, JSON-RPC answers out: a node whose every answer a test can bend."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from ingest.fetch import BlockPayload
from ingest.publish import Built
from schemas.columns import ColumnBlock, from_python
from schemas.errors_verify import ReceiptsRootMismatch
from schemas.segments import Lane, LogSegment, SegmentName
from schemas.tables import HEADER_REFS, LOGS, Verification, empty_block
from tests.patience import PATIENCE_SECONDS

GENESIS_TIME = 1_700_000_000


@dataclass(frozen=True, slots=True)
class FakeBlock:
    """A block of the fake chain."""

    number: int
    hash: str
    parent_hash: str
    transactions: tuple[str, ...] = ()

    def header(self) -> dict[str, Any]:
        """As newHeads shows it."""
        return {
            "number": hex(self.number),
            "hash": self.hash,
            "parentHash": self.parent_hash,
            "timestamp": hex(GENESIS_TIME + self.number),
            "logsBloom": "0x" + "01" * 256 if self.transactions else "0x" + "00" * 256,
        }

    def receipts(self) -> list[dict[str, Any]]:
        """One receipt a transaction."""
        return [
            {"transactionHash": tx, "blockHash": self.hash, "logs": []} for tx in self.transactions
        ]


def fake_hash(*parts: object) -> str:
    """32 bytes of hex from any parts."""
    return "0x" + hashlib.blake2s(repr(parts).encode()).hexdigest()


def fake_chain(blocks: int, fork: str = "a", start: FakeBlock | None = None) -> list[FakeBlock]:
    """`blocks` linked blocks after `start`, or from genesis."""
    chain: list[FakeBlock] = []
    parent = start
    for _ in range(blocks):
        number = 0 if parent is None else parent.number + 1
        above = "0x" + "00" * 32 if parent is None else parent.hash
        block_hash = fake_hash(fork, number, above)
        transactions = tuple(fake_hash(block_hash, index) for index in range(number % 3))
        parent = FakeBlock(number, block_hash, above, transactions)
        chain.append(parent)
    return chain


class Fault(Exception):
    """A JSON-RPC error object."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message} | ({"data": data} if data else {})


class FakeNode:
    """A node on a loopback port; use it as an asynchronous context manager."""

    def __init__(self, chain: Sequence[FakeBlock], chain_id: int = 7) -> None:
        self.canonical = list(chain)
        self.by_hash = {block.hash: block for block in chain}
        self.chain_id = chain_id
        self.finalized = 0
        self.calls: Counter[str] = Counter()
        self.requests = 0
        self.overrides: dict[str, Callable[..., Any]] = {}
        self.missing: set[str] = set()
        self.intercept: Callable[[Any], web.StreamResponse | None] | None = None
        self.batch_calls_max = 1000
        self.websocket = False
        self.sockets: list[web.WebSocketResponse] = []
        self.subscribed = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.hold: Callable[[Any], asyncio.Event | None] = lambda _: None
        self.held = asyncio.Event()
        self._answered = asyncio.Event()
        self._methods: dict[str, Callable[..., Any]] = {
            "eth_chainId": lambda: hex(self.chain_id),
            "eth_blockNumber": lambda: hex(self.head.number),
            "eth_getBlockByNumber": self.block,
            "eth_getBlockByHash": self.block,
            "eth_getBlockReceipts": self.block_receipts,
            "eth_getTransactionReceipt": self._transaction_receipt,
        }

    async def __aenter__(self) -> FakeNode:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._server = TestServer(app)
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        for socket in self.sockets:
            await socket.close()
        await self._server.close()

    @property
    def url(self) -> str:
        """Its address, with a secret in the path."""
        return f"http://127.0.0.1:{self._server.port}/v2/SECRETSECRET"

    @property
    def head(self) -> FakeBlock:
        """The newest canonical block."""
        return self.canonical[-1]

    async def extend(self, blocks: Sequence[FakeBlock], drop: int = 0) -> None:
        """Drop the newest blocks, add others, and tell the subscribers."""
        if drop:
            del self.canonical[-drop:]
        for block in blocks:
            self.canonical.append(block)
            self.by_hash[block.hash] = block
            await self.announce(block)

    async def announce(self, block: FakeBlock) -> None:
        """Tell the subscribers of a header."""
        params = {"subscription": "0x1", "result": block.header()}
        text = json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": params})
        for socket in self.sockets:
            if not socket.closed:
                await socket.send_str(text)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._serve_socket(request)
        self.requests += 1
        body = json.loads(await request.read())
        if self.gate is not None:
            await self.gate.wait()
        holding = self.hold(body)
        if holding is not None:
            self.held.set()
            await holding.wait()
        if self.intercept is not None:
            answer = self.intercept(body)
            if answer is not None:
                return answer
        if isinstance(body, list):
            if len(body) > self.batch_calls_max:
                fault = {"code": -32600, "message": "batch too large"}
                return web.json_response({"jsonrpc": "2.0", "id": None, "error": fault})
            return web.json_response([self._reply(call) for call in reversed(body)])
        return web.json_response(self._reply(body))

    async def _serve_socket(self, request: web.Request) -> web.StreamResponse:
        if not self.websocket:
            return web.Response(status=404)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for frame in socket:
            if frame.type is not WSMsgType.TEXT:
                continue
            call = json.loads(frame.data)
            await socket.send_json({"jsonrpc": "2.0", "id": call["id"], "result": "0x1"})
            self.sockets.append(socket)
            self.subscribed.set()
        return socket

    def _reply(self, call: dict[str, Any]) -> dict[str, Any]:
        reply = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            return reply | {"result": self._answer(call["method"], call["params"])}
        except Fault as fault:
            return reply | {"error": fault.body}

    async def asked(self, method: str, times: int) -> None:
        """Wait until a method has been called so many times more."""
        until = self.calls[method] + times
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.calls[method] < until:
                self._answered.clear()
                await self._answered.wait()

    def _answer(self, method: str, params: list[Any]) -> Any:
        self.calls[method] += 1
        self._answered.set()
        if method in self.overrides:
            return self.overrides[method](*params)
        if method in self.missing:
            raise Fault(-32601, f"the method {method} does not exist/is not available")
        return self._methods[method](*params)

    def find(self, block_id: str) -> FakeBlock | None:
        """A block by tag, height or hash."""
        if block_id in ("latest", "safe", "finalized"):
            number = self.head.number if block_id == "latest" else self.finalized
            return next((b for b in self.canonical if b.number == number), None)
        if len(block_id) == 66:
            return self.by_hash.get(block_id)
        return next((b for b in self.canonical if b.number == int(block_id, 16)), None)

    def block(self, block_id: str, whole: bool) -> dict[str, Any] | None:
        """As eth_getBlockBy… answers."""
        block = self.find(block_id)
        if block is None:
            return None
        body = [{"hash": tx} for tx in block.transactions] if whole else list(block.transactions)
        return block.header() | {"transactions": body}

    def block_receipts(self, block_id: str) -> list[dict[str, Any]] | None:
        """As eth_getBlockReceipts answers."""
        block = self.find(block_id)
        return None if block is None else block.receipts()

    def _transaction_receipt(self, tx: str) -> dict[str, Any] | None:
        every = (receipt for block in self.by_hash.values() for receipt in block.receipts())
        return next((receipt for receipt in every if receipt["transactionHash"] == tx), None)


def fake_build(payloads: Sequence[BlockPayload], lane: Lane, observed_at_ms: int) -> Built:
    """Segments of headers only; receipts of another block fail as a proof would."""
    blocks = [json.loads(bytes(payload.block)) for payload in payloads]
    for block, payload in zip(blocks, payloads, strict=True):
        for receipt in json.loads(bytes(payload.receipts)):
            if receipt.get("blockHash") != block["hash"]:
                raise ReceiptsRootMismatch(
                    number=int(block["number"], 16),
                    hash=block["hash"],
                    computed="0x1",
                    expected="0x2",
                    note="",
                )
    hashes = [bytes.fromhex(block["hash"][2:]) for block in blocks]
    parents = [bytes.fromhex(block["parentHash"][2:]) for block in blocks]
    numbers = [int(block["number"], 16) for block in blocks]
    columns = {
        "block_number": np.array(numbers, np.uint64),
        "block_hash": from_python(_kind("block_hash"), hashes),
        "block_time": np.array([int(b["timestamp"], 16) for b in blocks], np.uint32),
        "parent_hash": from_python(_kind("parent_hash"), parents),
        "log_count": np.zeros(len(blocks), np.uint32),
    }
    name = SegmentName(7, "logs", lane, numbers[0], numbers[-1], hashes[-1], "0" * 16)
    logs = LogSegment(
        name,
        observed_at_ms,
        Verification.off,
        (),
        (),
        ColumnBlock(HEADER_REFS.name, len(blocks), columns),
        empty_block(LOGS),
    )
    return Built(None, logs)


def _kind(column: str) -> Any:
    return next(spec.kind for spec in HEADER_REFS.columns if spec.name == column)


def altered(block: FakeBlock, **fields: Any) -> FakeBlock:
    """A copy of a block with other fields."""
    return replace(block, **fields)
