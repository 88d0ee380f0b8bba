"""Calls in, raw JSON results or coded errors out: JSON-RPC over HTTP to one endpoint.

Results stay the bytes that the node sent (`msgspec.Raw`), so that they are parsed once, by
whoever knows their type. No exception of a lower library leaves this module, because those quote
URLs, and URLs hold keys.
"""

from __future__ import annotations

import email.utils
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

import aiohttp
import msgspec

from ingest.dialects import RpcFault, fault_error
from ingest.limits import IngestLimits
from ingest.redact import EndpointUrl
from schemas.errors import HeadraceError
from schemas.errors_ingest import (
    AccessRefused,
    AnswerIsHtml,
    AnswerNotJsonRpc,
    AnswerTooLarge,
    AnswerTruncated,
    BatchRefused,
    CallFailed,
    EndpointTimeout,
    EndpointUnreachable,
    EndpointUrlInvalid,
    RateLimited,
    ReplyMismatched,
    RequestRefused,
    ServerFailed,
)

USER_AGENT = "headrace"
READ_BUFFER_BYTES = 1024 * 1024

Outcome: TypeAlias = msgspec.Raw | HeadraceError
"""One call's end: the bytes of its result, or its coded error."""


class RpcCall(msgspec.Struct, frozen=True, gc=False):
    """One JSON-RPC call."""

    method: str
    """Method name."""
    params: tuple[Any, ...]
    """Positional parameters, JSON-ready."""


class _Request(msgspec.Struct, gc=False):
    id: int
    method: str
    params: tuple[Any, ...]
    jsonrpc: str = "2.0"


class _Reply(msgspec.Struct, gc=False):
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Fault(msgspec.Struct, gc=False):
    code: int | str = 0
    message: str = ""
    data: msgspec.Raw = msgspec.Raw()


@dataclass(frozen=True, slots=True)
class _Answer:
    """One HTTP answer, read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


_encoder = msgspec.json.Encoder()
_replies = msgspec.json.Decoder(list[_Reply])
_reply = msgspec.json.Decoder(_Reply)
_fault = msgspec.json.Decoder(_Fault)


def open_session(limits: IngestLimits, *, env_proxies: bool = False) -> aiohttp.ClientSession:
    """The HTTP session that all endpoints of a pool share; close it at the end.

    Parameters
    ----------
    limits : IngestLimits
        Bounds.
    env_proxies : bool
        Whether proxies named in the environment are used: looking for them, and for a .netrc,
        costs a thread's turn at each request, so it is asked for where there are some.
    """
    timeout = aiohttp.ClientTimeout(
        total=limits.request_timeout_seconds, sock_connect=limits.connect_timeout_seconds
    )
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, keepalive_timeout=30),
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT, "Content-Type": "application/json"},
        read_bufsize=READ_BUFFER_BYTES,
        trust_env=env_proxies,
    )


class RpcClient:
    """JSON-RPC over HTTP to one endpoint: every failure leaves as a coded error."""

    def __init__(
        self, url: EndpointUrl, session: aiohttp.ClientSession, limits: IngestLimits
    ) -> None:
        self.url = url
        self.bytes_received = 0
        self._session = session
        self._limits = limits
        self._ids = count(1)
        encoding = "identity" if url.loopback else "gzip, deflate"
        self._headers = {"Accept-Encoding": encoding}

    def __repr__(self) -> str:
        return f"RpcClient({self.url.name})"

    async def call(self, method: str, *params: Any) -> msgspec.Raw:
        """Call one method.

        Returns
        -------
        msgspec.Raw
            The JSON bytes of `result`, which may be `null`.

        Raises
        ------
        HeadraceError
            Any of HR-2002 … HR-2030.
        """
        request = _Request(next(self._ids), method, params)
        answer = await self._post(_encoder.encode(request), method)
        reply = self._single(answer, method)
        if reply is None:
            raise self._not_json(answer, method)
        outcome = self._outcome(reply, method, 1, answer)
        if isinstance(outcome, HeadraceError):
            raise outcome
        if _id_number(reply.id) != request.id:
            raise ReplyMismatched(
                endpoint=self.url.name, method=method, reason="the id of the reply is another"
            )
        return outcome

    async def batch(self, calls: Sequence[RpcCall]) -> list[Outcome]:
        """Call several methods in one HTTP request.

        Parameters
        ----------
        calls : Sequence[RpcCall]
            At least one call.

        Returns
        -------
        list[Outcome]
            One outcome a call, in the order of `calls`.

        Raises
        ------
        HeadraceError
            The request as a whole failed.
        """
        method = calls[0].method
        requests = [_Request(next(self._ids), call.method, call.params) for call in calls]
        answer = await self._post(_encoder.encode(requests), method)
        replies = self._many(answer, method, len(calls))
        by_id = {_id_number(reply.id): reply for reply in replies}
        if len(replies) != len(calls) or len(by_id) != len(calls):
            raise ReplyMismatched(
                endpoint=self.url.name,
                method=method,
                reason=f"{len(calls)} calls had {len(by_id)} replies",
            )
        outcomes: list[Outcome] = []
        for request in requests:
            reply = by_id.get(request.id)
            if reply is None:
                raise ReplyMismatched(
                    endpoint=self.url.name, method=method, reason="an id has no reply"
                )
            outcomes.append(self._outcome(reply, request.method, len(calls), answer))
        return outcomes

    async def _post(self, body: bytes, method: str) -> _Answer:
        failure: HeadraceError
        try:
            async with self._session.post(
                self.url.http_url, data=body, headers=self._headers, allow_redirects=False
            ) as response:
                return await self._read(response, method)
        except TimeoutError:
            failure = EndpointTimeout(
                endpoint=self.url.name,
                method=method,
                seconds=self._limits.request_timeout_seconds,
            )
        except aiohttp.ClientPayloadError:
            failure = AnswerTruncated(endpoint=self.url.name, method=method, size_bytes="some")
        except aiohttp.InvalidURL:
            failure = EndpointUrlInvalid(endpoint=self.url.name, reason="It cannot be parsed.")
        except aiohttp.ClientResponseError as error:
            failure = AnswerNotJsonRpc(
                endpoint=self.url.name, method=method, status=error.status, excerpt="no valid HTTP"
            )
        except (aiohttp.ClientError, OSError) as error:
            failure = EndpointUnreachable(endpoint=self.url.name, cause=type(error).__name__)
        # Raised outside the handlers: a chained library error would quote the URL.
        raise failure

    async def _read(self, response: aiohttp.ClientResponse, method: str) -> _Answer:
        limit = self._limits.response_bytes_max
        chunks: list[bytes] = []
        size = response.content_length or 0
        if size <= limit:
            size = 0
            async for chunk in response.content.iter_any():
                size += len(chunk)
                if size > limit:
                    break
                chunks.append(chunk)
        self.bytes_received += min(size, limit)
        if size > limit:
            response.close()
            raise AnswerTooLarge(endpoint=self.url.name, method=method, limit_bytes=limit)
        return _Answer(response.status, response.headers, b"".join(chunks))

    def _single(self, answer: _Answer, method: str) -> _Reply | None:
        """The reply object of an answer; None where it is a JSON array."""
        self._refuse_status(answer, method, 1)
        if answer.body.lstrip()[:1] == b"[":
            return None
        try:
            return _reply.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            failure = self._not_json(answer, method)
        raise failure

    def _many(self, answer: _Answer, method: str, calls: int) -> list[_Reply]:
        """The reply objects of an answer to a batch; raises where it was refused as a whole."""
        self._refuse_status(answer, method, calls)
        if answer.body.lstrip()[:1] != b"[":
            raise self._batch_refusal(self._single(answer, method), answer, method, calls)
        try:
            replies = _replies.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            failure = self._not_json(answer, method)
        else:
            if len(replies) != 1 or replies[0].id is not None or not replies[0].error:
                return replies
            failure = self._batch_refusal(replies[0], answer, method, calls)
        raise failure

    def _batch_refusal(
        self, reply: _Reply | None, answer: _Answer, method: str, calls: int
    ) -> HeadraceError:
        """What a single reply to a whole batch means."""
        if reply is None or not (reply.error or reply.result):
            return self._not_json(answer, method)
        outcome = self._outcome(reply, method, calls, answer)
        if isinstance(outcome, CallFailed) and calls > 1:
            return BatchRefused(endpoint=self.url.name, calls=calls, method=method)
        if isinstance(outcome, HeadraceError):
            return outcome
        return ReplyMismatched(
            endpoint=self.url.name, method=method, reason="one reply came for a batch"
        )

    def _refuse_status(self, answer: _Answer, method: str, calls: int) -> None:
        """Raise for an HTTP status that is an error, unless the body says more in JSON-RPC."""
        status, who = answer.status, {"endpoint": self.url.name, "method": method}
        if status == 429:
            wait = retry_after_seconds(answer.headers)
            raise RateLimited(**who, retry_after_seconds="?" if wait is None else wait)
        if status < 300 or self._says_more(answer):
            return
        if status in (401, 403):
            raise AccessRefused(**who, status=status)
        if status >= 500:
            raise ServerFailed(**who, status=status)
        if calls > 1 and status in (400, 413):
            raise BatchRefused(endpoint=self.url.name, calls=calls, method=method)
        raise RequestRefused(**who, status=status)

    def _says_more(self, answer: _Answer) -> bool:
        """Whether the body is a JSON-RPC error, or replies to a batch."""
        try:
            if answer.body.lstrip()[:1] == b"[":
                return bool(_replies.decode(answer.body))
            reply = _reply.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        return bytes(reply.error)[:1] == b"{"

    def _outcome(self, reply: _Reply, method: str, calls: int, answer: _Answer) -> Outcome:
        error = bytes(reply.error)
        if error and error != b"null":
            return fault_error(self._read_fault(error), self.url.name, method, calls)
        return reply.result or self._not_json(answer, method)

    def _read_fault(self, error: bytes) -> RpcFault:
        try:
            fault = _fault.decode(error)
        except (msgspec.DecodeError, UnicodeDecodeError):
            text = error.decode("utf-8", "replace")
            return RpcFault(0, self.url.scrub(text))
        code = fault.code if isinstance(fault.code, int) else _int_or_zero(fault.code)
        data = bytes(fault.data).decode("utf-8", "replace")
        return RpcFault(code, self.url.scrub(fault.message), self.url.scrub(data, 1000))

    def _not_json(self, answer: _Answer, method: str) -> HeadraceError:
        who = {"endpoint": self.url.name, "method": method, "status": answer.status}
        head = answer.body[:512].lstrip()
        kind = answer.headers.get("Content-Type", "").lower()
        if head[:1] == b"<" or "text/html" in kind:
            return AnswerIsHtml(**who)
        if _looks_truncated(answer.body):
            return AnswerTruncated(**who, size_bytes=len(answer.body))
        excerpt = self.url.scrub(head.decode("utf-8", "replace"), 80)
        return AnswerNotJsonRpc(**who, excerpt=excerpt or "an empty answer")


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """The wait of a Retry-After header, in seconds or as a date; None where there is none."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    moment = email.utils.parsedate_tz(text)
    sent = email.utils.parsedate_tz(headers.get("Date", ""))
    if moment is None or sent is None:
        return None
    return max(0.0, float(email.utils.mktime_tz(moment) - email.utils.mktime_tz(sent)))


def _id_number(reply_id: int | str | None) -> int | None:
    return _int_or_zero(reply_id) if isinstance(reply_id, str) else reply_id


def _int_or_zero(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def _looks_truncated(body: bytes) -> bool:
    """JSON that begins and does not end: the last byte closes nothing."""
    text = body.strip()
    if text[:1] not in (b"{", b"["):
        return False
    return text[-1:] != {b"{": b"}", b"[": b"]"}[text[:1]]
