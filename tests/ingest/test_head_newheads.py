"""An endpoint in, the headers it announces out, and every way in which that can end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ingest.headwindow import read_header
from ingest.limits import IngestLimits
from ingest.newheads import subscribe_heads
from ingest.redact import parse_endpoint
from ingest.rpc import open_session
from schemas.errors import HeadraceError
from schemas.errors_ingest import AnswerNotJsonRpc, EndpointUnreachable, MethodMissing
from schemas.errors_verify import HexMalformed, PayloadInvalid
from tests.ingest.fake_node import FakeNode, fake_chain
from tests.ingest.leap import leap
from tests.patience import PATIENCE_SECONDS

KEY = "k3yAbCdEf0123456789"
Talk = Callable[[web.WebSocketResponse], Awaitable[None]]


@contextlib.asynccontextmanager
async def socket_url(talk: Talk) -> AsyncIterator[str]:
    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        await talk(socket)
        return socket

    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    async with TestServer(app) as server:
        yield f"ws://127.0.0.1:{server.port}/{KEY}"


async def first_failure(url: str, limits: IngestLimits | None = None) -> HeadraceError:
    """The error that ends a subscription, with the key in none of its forms."""
    limits = limits or IngestLimits()
    async with open_session(limits) as session:
        with pytest.raises(HeadraceError) as caught:
            async for _ in subscribe_heads(session, parse_endpoint(url), limits):
                pass
    assert KEY not in "".join(traceback.format_exception(caught.value))
    return caught.value


async def test_headers_come_as_they_were_sent() -> None:
    chain = fake_chain(3)
    async with FakeNode(chain) as node, open_session(IngestLimits()) as session:
        node.websocket = True
        heads = subscribe_heads(session, parse_endpoint(node.url), IngestLimits())
        async with contextlib.aclosing(heads):
            assert await anext(heads) is None
            async with asyncio.timeout(PATIENCE_SECONDS):
                await node.subscribed.wait()
            await node.announce(chain[2])
            header = await anext(heads)
            assert header is not None
            assert read_header(header).hash == bytes.fromhex(chain[2].hash[2:])


async def test_a_subscription_outlives_the_timeout_of_a_request() -> None:
    chain = fake_chain(3)
    limits = IngestLimits()
    async with FakeNode(chain) as node, open_session(limits) as session:
        node.websocket = True
        heads = subscribe_heads(session, parse_endpoint(node.url), limits)
        async with contextlib.aclosing(heads):
            await anext(heads)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await node.subscribed.wait()
            waiting = asyncio.ensure_future(anext(heads))
            leap(limits.request_timeout_seconds + 1)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not waiting.done()
            await node.announce(chain[2])
            assert await waiting is not None


async def test_an_endpoint_without_websocket() -> None:
    async with FakeNode(fake_chain(1)) as node:
        error = await first_failure(f"{node.url}/{KEY}")
        assert isinstance(error, EndpointUnreachable)


async def test_nobody_listens() -> None:
    assert isinstance(await first_failure(f"ws://127.0.0.1:9/{KEY}"), EndpointUnreachable)


async def test_a_node_without_subscriptions() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        error = {"code": -32601, "message": f"no eth_subscribe for {KEY}"}
        await socket.send_json({"jsonrpc": "2.0", "id": 1, "error": error})

    async with socket_url(talk) as url:
        assert isinstance(await first_failure(url), MethodMissing)


async def test_a_frame_that_is_no_json() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_str("hello")

    async with socket_url(talk) as url:
        assert isinstance(await first_failure(url), AnswerNotJsonRpc)


async def test_a_frame_above_the_bound() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_str("x" * 10_000)
        await socket.receive()

    async with socket_url(talk) as url:
        error = await first_failure(url, IngestLimits(websocket_bytes_max=1000))
        assert isinstance(error, EndpointUnreachable)


async def test_a_socket_that_closes() -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.close()

    async with socket_url(talk) as url:
        assert isinstance(await first_failure(url), EndpointUnreachable)


@pytest.mark.parametrize(
    "change",
    [{"hash": "0x12"}, {"number": "ten"}, {"parentHash": None}, {"timestamp": 5}, {"hash": "zz"}],
)
def test_what_is_no_header_is_refused(change: dict[str, object]) -> None:
    header = fake_chain(3)[2].header() | change
    with pytest.raises((PayloadInvalid, HexMalformed)):
        read_header(json.dumps(header).encode())
