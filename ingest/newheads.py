"""An endpoint in, the headers it announces out: eth_subscribe newHeads over a WebSocket."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp
import msgspec

from ingest.dialects import RpcFault, fault_error
from ingest.limits import IngestLimits
from ingest.redact import EndpointUrl
from schemas.errors import HeadraceError
from schemas.errors_ingest import AnswerNotJsonRpc, EndpointUnreachable

HEARTBEAT_SECONDS = 20.0
"""A socket that answers no ping for so long is dead."""


class _Params(msgspec.Struct, gc=False):
    result: msgspec.Raw


class _Fault(msgspec.Struct, gc=False):
    code: int = 0
    message: str = ""


class _Frame(msgspec.Struct, gc=False):
    method: str = ""
    params: _Params | None = None
    error: _Fault | None = None


_frame = msgspec.json.Decoder(_Frame)
_SUBSCRIBE = '{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}'


async def subscribe_heads(
    session: aiohttp.ClientSession, url: EndpointUrl, limits: IngestLimits
) -> AsyncGenerator[msgspec.Raw | None, None]:
    """Headers as an endpoint announces them.

    Parameters
    ----------
    session : aiohttp.ClientSession
        The pool's session.
    url : EndpointUrl
        Whose WebSocket address is used.
    limits : IngestLimits
        Bounds.

    Yields
    ------
    msgspec.Raw or None
        None once, when the subscription stands; then the JSON of each header.

    Raises
    ------
    EndpointUnreachable
        No connection, no WebSocket there, or it closed.
    MethodMissing
        The endpoint does not offer eth_subscribe.
    AnswerNotJsonRpc
        A frame that is not JSON-RPC.
    """
    failure: HeadraceError
    try:
        async with session.ws_connect(
            url.websocket_url, heartbeat=HEARTBEAT_SECONDS, max_msg_size=limits.websocket_bytes_max
        ) as socket:
            await socket.send_str(_SUBSCRIBE)
            async for frame in socket:
                if frame.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    continue
                yield _header_of(frame.data, url)
            failure = EndpointUnreachable(endpoint=url.name, cause="WebSocket closed")
    except (aiohttp.ClientError, OSError) as error:
        failure = EndpointUnreachable(endpoint=url.name, cause=type(error).__name__)
    raise failure


def _header_of(text: str | bytes, url: EndpointUrl) -> msgspec.Raw | None:
    """The header of a notification; None for the reply to the subscription."""
    try:
        frame = _frame.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        failure: HeadraceError = AnswerNotJsonRpc(
            endpoint=url.name, method="eth_subscribe", status=101, excerpt="a frame is not JSON"
        )
    else:
        if frame.error is None:
            return None if frame.params is None else frame.params.result
        fault = RpcFault(frame.error.code, url.scrub(frame.error.message))
        failure = fault_error(fault, url.name, "eth_subscribe")
    raise failure
