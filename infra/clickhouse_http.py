"""A query in, the bytes of its result out, streamed from ClickHouse's HTTP interface."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ingest.redact import redact_url
from schemas.errors_settings import ClickHouseUnreachable, ClickHouseUrlInvalid, QueryRefused

CHUNK_BYTES = 1 << 16
TAIL_BYTES = 1 << 15
"""Held back until the end: an error in the middle of a result is written at its tail."""
TIMEOUT_SECONDS = 3600.0

_ERROR = re.compile(r"Code: (\d+)\.\s*(?:DB::Exception: )?(.*)", re.DOTALL)
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)\s*(?:\(version [^)]*\)+)?\s*$")
_NOISE = re.compile(
    r"\s*(?:\(version .*|Stack trace:.*|: [Ww]hile executing .*|__exception__.*)$", re.DOTALL
)

_SUGGESTIONS = {
    "UNKNOWN_TABLE": '`headrace sql "SHOW TABLES"` lists the tables; check the database too.',
    "UNKNOWN_DATABASE": '`headrace sql "SHOW DATABASES"` lists them; each is named as its chain.',
    "UNKNOWN_IDENTIFIER": '`headrace sql "DESCRIBE <table>"` lists the columns.',
    "SYNTAX_ERROR": "Correct the SQL at the place named above.",
    "READONLY": "`sql` reads only, as the user `analyst`.",
    "ACCESS_DENIED": "`sql` reads only, as the user `analyst`.",
    "MEMORY_LIMIT_EXCEEDED": "Filter or aggregate more, or raise analyst_memory_bytes_max.",
    "TIMEOUT_EXCEEDED": "Filter by block_number or address, or raise analyst_seconds_max.",
    "TOO_MANY_ROWS_OR_BYTES": "Add a LIMIT, or raise analyst_result_rows_max.",
}


@dataclass(frozen=True, slots=True)
class HttpAddress:
    """Where and as whom to query."""

    url: str
    """`http://host:port/` without user and password."""
    user: str
    """ClickHouse user."""
    password: str = field(repr=False)
    """Their password."""
    database: str
    """Database of unqualified table names."""


def parse_address(url: str) -> HttpAddress:
    """An address given by hand: ``http://user:password@host:8123/database``.

    Raises
    ------
    ClickHouseUrlInvalid
    """
    reason = ""
    try:
        parts = urllib.parse.urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise ClickHouseUrlInvalid(url=redact_url(url), reason="It cannot be parsed") from None
    if parts.scheme not in ("http", "https"):
        reason = "It does not begin with http:// or https://"
    elif not parts.hostname:
        reason = "It names no host"
    elif port == 0:
        reason = "Port 0 is none"
    if reason:
        raise ClickHouseUrlInvalid(url=redact_url(url), reason=reason)
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    port = port or (8443 if parts.scheme == "https" else 8123)
    return HttpAddress(
        url=f"{parts.scheme}://{host}:{port}/",
        user=urllib.parse.unquote(parts.username or "default"),
        password=urllib.parse.unquote(parts.password or ""),
        database=urllib.parse.unquote(parts.path.strip("/")) or "default",
    )


def stream_query(
    address: HttpAddress, query: str, settings: Mapping[str, str] | None = None
) -> Iterator[bytes]:
    """Run a query and yield its result as it arrives.

    Parameters
    ----------
    address
        The server.
    query
        One statement; a FORMAT clause of its own wins over `default_format`.
    settings
        ClickHouse settings, and parameters of the HTTP interface.

    Raises
    ------
    QueryRefused
        ClickHouse answered with an error, also one in the middle of the result.
    ClickHouseUnreachable
        No connection, or one that broke before the result was complete.
    """
    values = {"database": address.database, "http_write_exception_in_output_format": "0"}
    values |= settings or {}
    request = urllib.request.Request(  # noqa: S310 - parse_address lets only http(s) pass
        f"{address.url}?{urllib.parse.urlencode(values)}",
        data=query.encode(),
        headers={"X-ClickHouse-User": address.user, "X-ClickHouse-Key": address.password},
    )
    shown = address.url.rstrip("/")
    try:
        # A proxy for the internet is of no use to a server on loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            yield from _body(answer, answer.headers.get("X-ClickHouse-Exception-Tag", ""))
    except urllib.error.HTTPError as error:
        with error:
            text = error.read(1 << 20).decode(errors="replace")
        raise _refused(text, f"HTTP {error.code}") from None
    except http.client.HTTPException as error:
        raise ClickHouseUnreachable(url=shown, reason=f"the answer broke off ({error})") from None
    except OSError as error:
        cause = getattr(error, "reason", error)
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise ClickHouseUnreachable(url=shown, reason=reason) from None


def fetch_text(address: HttpAddress, query: str, settings: Mapping[str, str] | None = None) -> str:
    """The whole result of a small query."""
    return b"".join(stream_query(address, query, settings)).decode(errors="replace")


def _body(answer: http.client.HTTPResponse, exception_tag: str) -> Iterator[bytes]:
    held = b""
    broken: http.client.IncompleteRead | None = None
    while True:
        try:
            chunk = answer.read1(CHUNK_BYTES)
        except http.client.IncompleteRead as error:
            chunk, broken = b"", error
            held += error.partial
        if not chunk:
            break
        held += chunk
        if len(held) > 2 * TAIL_BYTES:
            yield held[:-TAIL_BYTES]
            held = held[-TAIL_BYTES:]
    marker = b"__exception__\r\n" + exception_tag.encode() if exception_tag else b"__exception__"
    before, found, after = held.partition(marker)
    if found and (exception_tag or broken):
        yield before.rstrip(b"\r\n")
        raise _refused(after.decode(errors="replace"), "in the middle of the result")
    yield held
    if broken is not None:
        raise broken


def _refused(text: str, fallback: str) -> QueryRefused:
    """An error's text without ClickHouse's version, stack trace and wrapping."""
    found = _ERROR.search(text)
    if found is None:
        message = " ".join(text.split())[:300] or fallback
        return QueryRefused(
            message=message, clickhouse_code="unknown", clickhouse_name=fallback, suggestion=""
        )
    code, message = found[1], found[2].strip()
    line = re.sub(r"\s*\(version [^)]*\([^)]*\)\)|\s*\(version [^)]*\)", "", message)
    name = _NAME.search(line.split("__exception__")[0].strip())
    shown = re.sub(r"\.?\s*\([A-Z][A-Z0-9_]+\)\s*$", "", _NOISE.sub("", line).strip())
    label = name[1] if name else "UNKNOWN"
    return QueryRefused(
        message=shown.rstrip("."),
        clickhouse_code=code,
        clickhouse_name=label,
        suggestion=_SUGGESTIONS.get(label, "Correct the query and run it again."),
    )
