"""A chain in, JSON-RPC endpoints over HTTP and WebSocket on loopback out.

Every endpoint has a port of its own, and its own faults and limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from threading import Thread

import msgspec
from aiohttp import web

from infra.devchain.chain import Chain, Change
from infra.devchain.control import CONTROLS, control, set_fault
from infra.devchain.faults import TRANSPORT_KINDS, Fault, FaultBoard
from infra.devchain.rpc import (
    LIMIT_EXCEEDED,
    Call,
    Endpoint,
    Limits,
    Refusal,
    failure,
    success,
)
from infra.devchain.served import ChainView, Served
from infra.devchain.sessions import Session
from infra.ports import HOST

STOP_SECONDS_MAX = 0.2
"""How long requests may go on when the server stops."""
_GIANT_CHUNK = b"0" * (1 << 20)
_HTML = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
_PARSE_ERROR = Refusal(-32700, "parse error")
_decode_batch = msgspec.json.Decoder(list[Call]).decode
_decode_call = msgspec.json.Decoder(Call).decode


class _Port:
    """One endpoint at its port."""

    def __init__(self, server: DevchainServer, endpoint: Endpoint) -> None:
        self._server = server
        self._endpoint = endpoint
        self._runner: web.ServerRunner | None = None
        self._stopping = asyncio.Event()
        self.sessions: set[Session] = set()
        self.port = 0

    async def start(self, port: int) -> None:
        """Listen; port 0 takes a free one."""
        listening = web.Server(self._serve, access_log=None)
        self._runner = web.ServerRunner(
            listening, handle_signals=False, shutdown_timeout=STOP_SECONDS_MAX
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection."""
        self._stopping.set()
        for session in tuple(self.sessions):
            await session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            session = Session(self._endpoint, self._answer_frame)
            self.sessions.add(session)
            try:
                return await session.run(request)
            finally:
                self.sessions.discard(session)
        if request.method != "POST":
            return web.Response(status=405, text="POST JSON-RPC here (headrace devchain)")
        body = await request.content.read(-1)
        calls, batch = _parse(body)
        struck = None
        if self._endpoint.faults.any_active():
            methods = tuple(call.method for call in calls)
            struck = self._endpoint.faults.draw(TRANSPORT_KINDS, methods)
        if struck is not None:
            broken = await self._break(struck[1], request, calls, batch)
            if broken is not None:
                return broken
        return web.Response(body=self._answer(calls, batch), content_type="application/json")

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the server's end."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _answer_frame(self, body: bytes) -> bytes | None:
        calls, batch = _parse(body)
        methods = tuple(call.method for call in calls)
        struck = self._endpoint.faults.draw(TRANSPORT_KINDS, methods)
        if struck is None:
            return self._answer(calls, batch)
        fault = struck[1]
        if fault.kind in ("hang", "delay"):
            await self._pause(fault.delay_seconds)
        if fault.kind == "delay":
            return self._answer(calls, batch)
        if fault.kind == "truncated":
            answer = self._answer(calls, batch)
            return answer[: len(answer) // 2]
        return _HTML if fault.kind == "html" else None

    def _answer(self, calls: list[Call], batch: bool) -> bytes:
        if not calls:
            return failure(b"null", _PARSE_ERROR)
        calls_max = self._endpoint.limits.batch_calls_max
        if len(calls) > calls_max:
            return failure(b"null", Refusal(LIMIT_EXCEEDED, "batch too large"))
        answers = [self._call(call) for call in calls]
        return b"[" + b",".join(answers) + b"]" if batch else answers[0]

    def _call(self, call: Call) -> bytes:
        try:
            if call.method in CONTROLS:
                return success(call, control(self._server, call.method, call.params))
            return success(call, self._endpoint.answer(call.method, call.params))
        except Refusal as refusal:
            return failure(call.id, refusal)

    async def _break(
        self, fault: Fault, request: web.BaseRequest, calls: list[Call], batch: bool
    ) -> web.StreamResponse | None:
        """Answer as a fault says; None goes on as if there were none."""
        if fault.kind == "delay":
            await self._pause(fault.delay_seconds)
            return None
        if fault.kind == "hang":
            await self._pause(fault.delay_seconds)
        if fault.kind in ("hang", "disconnect"):
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        if fault.kind == "http_status":
            headers = {}
            if fault.retry_after_seconds is not None:
                headers["Retry-After"] = f"{fault.retry_after_seconds:g}"
            return web.Response(status=fault.status, headers=headers, text="refused by a fault")
        if fault.kind == "html":
            return web.Response(body=_HTML, content_type="text/html")
        if fault.kind == "empty_body":
            return web.Response(body=b"", content_type="application/json")
        if fault.kind == "giant":
            return await _giant(fault, request)
        return await _truncated(self._answer(calls, batch), request)


def _parse(body: bytes) -> tuple[list[Call], bool]:
    """The calls of a body, and whether they are a batch; no calls if it is not JSON-RPC."""
    try:
        batch = body.lstrip()[:1] == b"["
        return (_decode_batch(body), True) if batch else ([_decode_call(body)], False)
    except msgspec.DecodeError:
        return [], False


async def _giant(fault: Fault, request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"jsonrpc":"2.0","id":1,"result":"0x')
    left = fault.size_bytes
    while left > 0:
        await response.write(_GIANT_CHUNK[:left])
        left -= len(_GIANT_CHUNK)
    await response.write(b'"}')
    return response


async def _truncated(body: bytes, request: web.BaseRequest) -> web.StreamResponse:
    """Announce a whole body, send half of it and hang up."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


class DevchainServer:
    """Endpoints that serve one chain."""

    def __init__(
        self,
        chain: Served,
        endpoints: int = 1,
        *,
        limits: Limits | None = None,
        fault_seed: int = 0,
    ) -> None:
        self._served = chain
        self.chain = chain if isinstance(chain, Chain) else None
        self.endpoints = [
            Endpoint(chain, FaultBoard(fault_seed + number), limits or Limits())
            for number in range(endpoints)
        ]
        self._ports = [_Port(self, endpoint) for endpoint in self.endpoints]
        self._stop_listening: Callable[[], None] | None = None
        self._miner: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def http_urls(self) -> list[str]:
        """URL of each endpoint."""
        return [f"http://{HOST}:{port.port}" for port in self._ports]

    @property
    def ws_urls(self) -> list[str]:
        """WebSocket URL of each endpoint."""
        return [f"ws://{HOST}:{port.port}" for port in self._ports]

    async def start(self, ports: tuple[int, ...] = ()) -> None:
        """Listen, at ports that the system chooses where none is given."""
        self._loop = asyncio.get_running_loop()
        for number, port in enumerate(self._ports):
            await port.start(ports[number] if number < len(ports) else 0)
        if self.chain is not None:
            self._stop_listening = self.chain.listen(self._changed)

    async def stop(self) -> None:
        """Close every connection and free the ports."""
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        self.set_interval(None)
        for port in self._ports:
            await port.stop()

    def set_interval(self, seconds: float | None) -> None:
        """Mine a block at an interval from now on; None stops. Call it in the server's thread."""
        if self._miner is not None:
            self._miner.cancel()
            self._miner = None
        if seconds is not None and self.chain is not None:
            self._miner = asyncio.create_task(_mine(self.chain, seconds))

    def _changed(self, _: Change) -> None:
        # The view is taken here: later ones would hide heads that came and went meanwhile.
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._push, self._served.view)

    def _push(self, now: ChainView) -> None:
        for port in self._ports:
            for session in tuple(port.sessions):
                session.changed(now)


async def _mine(chain: Chain, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while chain.room > 0:
        due += seconds
        await asyncio.sleep(max(0.0, due - loop.time()))
        chain.mine()


class Serving:
    """A chain served by a thread of its own, for callers without an event loop."""

    def __init__(self, server: DevchainServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self.chain = server.chain
        self.http_urls = server.http_urls
        self.ws_urls = server.ws_urls
        self.endpoints = server.endpoints

    def set_fault(self, fault: Fault, endpoint: int = 0) -> int:
        """Activate a fault on an endpoint and return its number."""
        return set_fault(self.endpoints[endpoint], fault)

    def clear_faults(self, endpoint: int | None = None) -> None:
        """End the faults of one endpoint, or of all."""
        for number, chosen in enumerate(self.endpoints):
            if endpoint in (None, number):
                chosen.faults.clear()

    def struck(self, fault: int, endpoint: int = 0) -> int:
        """How often a fault has struck."""
        return self.endpoints[endpoint].faults.struck(fault)

    def set_interval(self, seconds: float | None) -> None:
        """Mine a block at an interval from now on; None stops: no block comes after it returned."""
        done: Future[None] = Future()

        def obey() -> None:
            try:
                self._server.set_interval(seconds)
            except BaseException as error:  # noqa: BLE001 - it is raised where it was asked
                done.set_exception(error)
            else:
                done.set_result(None)

        self._loop.call_soon_threadsafe(obey)
        done.result()


@contextmanager
def serve_in_thread(
    chain: Served, endpoints: int = 1, *, limits: Limits | None = None, fault_seed: int = 0
) -> Iterator[Serving]:
    """Serve a chain from a thread while the block runs.

    Parameters
    ----------
    chain : Served
        A `Chain`, which the caller may change from its own thread, or an archive.
    endpoints : int
        How many ports serve it.
    limits : Limits, optional
        What they refuse.
    fault_seed : int
        Seeds the dice of faults with a probability.

    Yields
    ------
    Serving
        The URLs, and the way to set faults.
    """
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="devchain", daemon=True)
    thread.start()
    server = DevchainServer(chain, endpoints, limits=limits, fault_seed=fault_seed)
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        try:
            yield Serving(server, loop)
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
            asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
