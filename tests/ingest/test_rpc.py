"""Calls in, raw results or coded errors out, whatever the server answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ingest.limits import IngestLimits
from ingest.redact import parse_endpoint
from ingest.rpc import RpcCall, RpcClient, open_session, retry_after_seconds
from schemas.errors import HeadraceError, Permanent, Transient
from schemas.errors_ingest import (
    AccessRefused,
    AnswerIsHtml,
    AnswerNotJsonRpc,
    AnswerTooLarge,
    AnswerTruncated,
    BatchRefused,
    CallFailed,
    CallInvalid,
    EndpointTimeout,
    EndpointUnreachable,
    MethodMissing,
    RateLimited,
    ReplyMismatched,
    RequestRefused,
    ServerFailed,
)
from tests.ingest.patient import PATIENT
from tests.patience import PATIENCE_SECONDS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LIMITS = replace(PATIENT, response_bytes_max=50_000)
CALLS = [RpcCall("eth_chainId", ()), RpcCall("eth_blockNumber", ())]


@contextlib.asynccontextmanager
async def client_of(handler: Handler, limits: IngestLimits = LIMITS) -> AsyncIterator[RpcClient]:
    app = web.Application()
    app.router.add_route("*", "/", handler)
    async with TestServer(app) as server, open_session(limits) as session:
        yield RpcClient(parse_endpoint(f"http://127.0.0.1:{server.port}/"), session, limits)


def says(body: object, status: int = 200, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(text=text, status=status, headers=headers)

    return handler


def echo(result: Callable[[str], object]) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        calls = await request.json()

        def reply(call: dict[str, object]) -> dict[str, object]:
            return {"jsonrpc": "2.0", "id": call["id"], "result": result(str(call["method"]))}

        body = [reply(c) for c in reversed(calls)] if isinstance(calls, list) else reply(calls)
        return web.json_response(body)

    return handler


def fault(code: object, message: str) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}


async def test_a_result_stays_the_bytes_that_came() -> None:
    async with client_of(echo(lambda _: {"a": [1, None]})) as client:
        assert bytes(await client.call("eth_chainId")) == b'{"a": [1, null]}'
        assert client.bytes_received > 0


async def test_null_is_a_result() -> None:
    async with client_of(echo(lambda _: None)) as client:
        assert bytes(await client.call("eth_getBlockReceipts", "0x1")) == b"null"


async def test_batch_replies_are_matched_by_id_in_any_order() -> None:
    async with client_of(echo(lambda method: method)) as client:
        outcomes = await client.batch(CALLS)
        assert [bytes(o) for o in outcomes if not isinstance(o, HeadraceError)] == [
            b'"eth_chainId"',
            b'"eth_blockNumber"',
        ]


async def test_one_failed_call_leaves_the_others() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        first, second = await request.json()
        return web.json_response(
            [
                {"id": second["id"], "error": {"code": -32601, "message": "no"}},
                {"id": first["id"], "result": "0x1", "error": None},
            ]
        )

    async with client_of(handler) as client:
        one, two = await client.batch(CALLS)
        assert not isinstance(one, HeadraceError)
        assert isinstance(two, MethodMissing)


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (says("<!DOCTYPE html><html></html>"), AnswerIsHtml),
        (says("  <html>", 404), RequestRefused),
        (says("anything", **{"Content-Type": "text/html"}), AnswerIsHtml),
        (says("hello"), AnswerNotJsonRpc),
        (says(""), AnswerNotJsonRpc),
        (says("null"), AnswerNotJsonRpc),
        (says("{}"), AnswerNotJsonRpc),
        (says('"text"'), AnswerNotJsonRpc),
        (says('{"jsonrpc":"2.0","id":1,"result":{"number":"0x'), AnswerTruncated),
        (says('[{"jsonrpc":"2.0","id":1,"resu'), AnswerTruncated),
        (says("x" * 60_000), AnswerTooLarge),
        (says("slow down", 429), RateLimited),
        (says(fault(-32005, "daily request count exceeded"), 429), RateLimited),
        (says("bad key", 401), AccessRefused),
        (says("forbidden", 403), AccessRefused),
        (says("not here", 404), RequestRefused),
        (says("moved", 301, Location="http://elsewhere.example/"), RequestRefused),
        (says("gateway", 502), ServerFailed),
        (says("<html>", 503), ServerFailed),
        (says(fault(-32602, "invalid argument 0"), 400), CallInvalid),
        (says(fault(-32000, "header overloaded"), 500), CallFailed),
        (says(fault("-32601", "no method")), MethodMissing),
        (says({"error": "some text", "id": 1}), CallFailed),
        (says({"jsonrpc": "2.0", "id": 987654, "result": "0x1"}), ReplyMismatched),
    ],
)
async def test_each_answer_has_its_error(handler: Handler, error: type[HeadraceError]) -> None:
    async with client_of(handler) as client:
        with pytest.raises(error) as caught:
            await client.call("eth_chainId")
        assert type(caught.value) is error
        assert isinstance(caught.value, Transient | Permanent)
        assert caught.value.what_text
        assert caught.value.why_text
        assert caught.value.fix_text
        assert caught.value.data["endpoint"] == client.url.name


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (says(fault(-32600, "batch too large")), BatchRefused),
        (says(fault(-32000, "no")), BatchRefused),
        (says(fault(429, "too many requests")), RateLimited),
        (says("payload too large", 413), BatchRefused),
        (says("bad", 400), BatchRefused),
        (says([]), ReplyMismatched),
        (says([{"id": 1, "result": 1}, {"id": 1, "result": 1}]), ReplyMismatched),
        (says([{"id": None, "error": {"code": -32600, "message": "batch limit 1"}}]), BatchRefused),
        (says("[1,2]"), AnswerNotJsonRpc),
        (says("<html>"), AnswerIsHtml),
        (says("<html>", 503), ServerFailed),
        (says("[]", 429), RateLimited),
    ],
)
async def test_a_batch_refused_as_a_whole(handler: Handler, error: type[HeadraceError]) -> None:
    async with client_of(handler) as client:
        with pytest.raises(error) as caught:
            await client.batch(CALLS)
        assert type(caught.value) is error


async def test_a_giant_answer_is_given_up_at_the_bound() -> None:
    closed = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * 65536)
        finally:
            closed.set()

    async with client_of(handler) as client:
        with pytest.raises(AnswerTooLarge):
            await client.call("eth_chainId")
        async with asyncio.timeout(PATIENCE_SECONDS):
            await closed.wait()
        assert client.bytes_received <= LIMITS.response_bytes_max


async def test_a_body_cut_off_by_the_server() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"jsonrpc":"2.0"')
        assert request.transport is not None
        request.transport.close()
        return response

    async with client_of(handler) as client:
        with pytest.raises(AnswerTruncated):
            await client.call("eth_chainId")


async def test_a_connection_dropped_without_an_answer() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with client_of(handler) as client:
        with pytest.raises(EndpointUnreachable):
            await client.call("eth_chainId")


async def test_no_answer_in_time() -> None:
    released = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    limits = IngestLimits(request_timeout_seconds=0.05)
    async with client_of(handler, limits) as client:
        with pytest.raises(EndpointTimeout, match=r"eth_chainId within 0\.05 s"):
            await client.call("eth_chainId")
        released.set()


async def test_retry_after_reaches_the_error() -> None:
    async with client_of(says("", 429, **{"Retry-After": "7"})) as client:
        with pytest.raises(RateLimited) as caught:
            await client.call("eth_chainId")
        assert caught.value.data["retry_after_seconds"] == 7.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        (
            {
                "Date": "Tue, 15 Nov 1994 08:12:31 GMT",
                "Retry-After": "Tue, 15 Nov 1994 08:13:01 GMT",
            },
            30.0,
        ),
        ({"Retry-After": "Tue, 15 Nov 1994 08:13:01 GMT"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds


async def test_compressed_answers_are_bounded_after_decompression() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.Response(body=b" " * 5_000_000)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with client_of(handler) as client:
        with pytest.raises(AnswerTooLarge):
            await client.call("eth_chainId")
