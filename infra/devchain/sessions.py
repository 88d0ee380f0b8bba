"""WebSocket messages in, answers and pushed heads out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import WSMsgType, web

from infra.devchain.faults import TRANSPORT_KINDS
from infra.devchain.rpc import Call, Endpoint, Params, Refusal, failure, success
from infra.devchain.served import ChainView

QUEUE_MAX = 4096
"""Pushed messages that may wait for a slow reader before it is disconnected."""
HEADS_MAX = 256
"""Heads pushed for one change of the chain; of a longer one only the last."""
_PUSH = ("eth_subscription",)
Answer = Callable[[bytes], Awaitable[bytes | None]]
_decode_call = msgspec.json.Decoder(Call).decode


class Session:
    """One WebSocket connection."""

    def __init__(self, endpoint: Endpoint, answer: Answer) -> None:
        self._endpoint = endpoint
        self._answer = answer
        self._socket = web.WebSocketResponse(max_msg_size=1 << 26)
        self._seen: dict[str, ChainView] = {}
        self._numbers = 0
        self._closing: asyncio.Task[None] | None = None
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUE_MAX)

    async def run(self, request: web.BaseRequest) -> web.WebSocketResponse:
        """Serve the connection until it closes."""
        await self._socket.prepare(request)
        writer = asyncio.create_task(self._write())
        try:
            async for frame in self._socket:
                if frame.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                body = frame.data.encode() if isinstance(frame.data, str) else frame.data
                if not await self._read(body, request):
                    break
        finally:
            writer.cancel()
        return self._socket

    async def close(self) -> None:
        """End the connection."""
        await self._socket.close()

    def changed(self, now: ChainView) -> None:
        """Push the heads that are new since the last push."""
        view = self._endpoint.view(now)
        for subscription, seen in self._seen.items():
            heads = _new_heads(seen, view)
            self._seen[subscription] = view
            for head in heads:
                self._push(subscription, head)

    def _push(self, subscription: str, head: bytes) -> None:
        struck = self._endpoint.faults.draw(TRANSPORT_KINDS, _PUSH)
        if struck and struck[1].kind == "hang":
            return
        frame = b'{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"%s"'
        frame = frame % subscription.encode() + b',"result":' + head + b"}}"
        if (struck and struck[1].kind == "disconnect") or self._queue.full():
            self._closing = asyncio.get_running_loop().create_task(self.close())
            return
        self._queue.put_nowait(frame[: len(frame) // 2] if struck else frame)

    async def _write(self) -> None:
        while True:
            frame = await self._queue.get()
            if self._socket.closed:
                return
            await self._socket.send_str(frame.decode())

    async def _read(self, body: bytes, request: web.BaseRequest) -> bool:
        """Answer one message; false ends the connection."""
        subscribing = self._subscription(body)
        answer = subscribing if subscribing is not None else await self._answer(body)
        if answer is None:
            if request.transport is not None:
                request.transport.abort()
            return False
        await self._queue.put(answer)
        return True

    def _subscription(self, body: bytes) -> bytes | None:
        if b"eth_subscribe" not in body and b"eth_unsubscribe" not in body:
            return None
        try:
            call = _decode_call(body)
        except msgspec.DecodeError:
            return None
        if call.method == "eth_unsubscribe":
            gone = self._seen.pop(str(call.params[0]) if call.params else "", None)
            return success(call, b"true" if gone is not None else b"false")
        try:
            return success(call, self._subscribe(call.params))
        except Refusal as refusal:
            return failure(call.id, refusal)

    def _subscribe(self, params: Params) -> bytes:
        if not params or params[0] != "newHeads":
            raise Refusal(-32602, f"no {params[:1]!r} subscription in eth namespace")
        self._numbers += 1
        name = f"0x{self._numbers:032x}"
        self._seen[name] = self._endpoint.view()
        return b'"%s"' % name.encode()


def _new_heads(seen: ChainView, view: ChainView) -> list[bytes]:
    """Headers of the blocks that one view has and another has not, lowest first."""
    number = view.head
    heads: list[bytes] = []
    while number >= 0 and len(heads) < HEADS_MAX:
        if seen.hash_at(number) == view.hash_at(number):
            break
        block = view.at(number)
        if block is not None:
            heads.append(block.header_only)
        number -= 1
    return heads[::-1]
