"""Endpoint URLs in, names that can be shown out: a host and a hash, never a key.

Providers put keys into the path, the query, the user part and even the host name. Only a name
made here goes into errors, logs and displays; text that a server sends back passes `scrub`,
because servers like to quote the key they were called with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2s
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from schemas.errors_ingest import EndpointUrlInvalid

SECRET_CHARS_MIN = 6
"""Shorter parts of a URL (`v2`, `eth`) are words of its path rather than keys."""
LABEL_CHARS_MAX = 20
"""A longer first label of a host name is taken for a key."""

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_SOCKETS = {"http": "ws", "https": "wss"}


@dataclass(frozen=True, slots=True)
class EndpointUrl:
    """An endpoint's address, whose text form is its display name."""

    name: str
    """`host[:port]#hash`: what may be shown."""
    http_url: str = field(repr=False)
    """Where calls are posted. Secret."""
    websocket_url: str = field(repr=False)
    """Where `newHeads` is subscribed. Secret."""
    secrets: tuple[str, ...] = field(repr=False)
    """Parts of the address that must never be shown."""
    loopback: bool = False
    """Whether the endpoint is on this machine, where compression is only a cost."""

    def __str__(self) -> str:
        return self.name

    def scrub(self, text: str, chars_max: int = 200) -> str:
        """Foreign text without this endpoint's secrets, on one line, cut to `chars_max`.

        Parameters
        ----------
        text : str
            Text from a server or a library.
        chars_max : int
            Longest text returned.
        """
        for secret in self.secrets:
            text = re.sub(re.escape(secret), "…", text, flags=re.IGNORECASE)
        text = re.sub(r"\b(?:https?|wss?)://\S+", "<url>", text)
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def parse_endpoint(url: str, websocket_url: str | None = None) -> EndpointUrl:
    """Split an address given by a user into what is used and what may be shown.

    Parameters
    ----------
    url : str
        `http`, `https`, `ws` or `wss` URL; a WebSocket URL also serves calls at its HTTP form.
    websocket_url : str, optional
        Where the head is subscribed, where it differs from `url`.

    Raises
    ------
    EndpointUrlInvalid
        No such scheme, no host, or a port that is none.
    """
    url = url.strip()
    name = redact_url(url)
    reason = ""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise EndpointUrlInvalid(endpoint=name, reason="It cannot be parsed.") from None
    if parts.scheme.lower() not in _SCHEMES:
        reason = "It does not begin with http://, https://, ws:// or wss://."
    elif not parts.hostname:
        reason = "It names no host."
    elif port == 0:
        reason = "Port 0 is none."
    elif any(c.isspace() for c in url):
        reason = "It holds a space."
    if reason:
        raise EndpointUrlInvalid(endpoint=name, reason=reason)
    scheme = _SCHEMES[parts.scheme.lower()]
    http_url = urlunsplit(parts._replace(scheme=scheme, fragment=""))
    socket = websocket_url or urlunsplit(parts._replace(scheme=_SOCKETS[scheme], fragment=""))
    secrets = _secrets(http_url) | _secrets(socket)
    ordered = tuple(sorted(secrets, key=len, reverse=True))
    loopback = parts.hostname in {"localhost", "::1"} or str(parts.hostname).startswith("127.")
    return EndpointUrl(name, http_url, socket, ordered, loopback)


def redact_url(url: str) -> str:
    """The display form of any URL, also of one that cannot be used: `host[:port]#hash`."""
    tail = blake2s(url.encode("utf-8", "replace"), digest_size=3).hexdigest()
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or not re.fullmatch(r"[A-Za-z0-9_.:\-]+", host):
        return f"<endpoint>#{tail}"
    label, dot, rest = host.partition(".")
    if len(label) > LABEL_CHARS_MAX or _looks_like_key(label):
        host = f"{label[:4]}…{dot}{rest}"
    if ":" in host:
        host = f"[{host}]"
    return f"{host}:{port}#{tail}" if port else f"{host}#{tail}"


def _looks_like_key(label: str) -> bool:
    return len(label) >= 16 and "-" not in label and any(c.isdigit() for c in label)


def _secrets(url: str) -> set[str]:
    parts = urlsplit(url)
    found = {part for part in parts.path.split("/") if len(part) >= SECRET_CHARS_MIN}
    found |= {value for _, value in parse_qsl(parts.query) if len(value) >= 4}
    found |= {part for part in (parts.username, parts.password) if part and len(part) >= 3}
    label = (parts.hostname or "").partition(".")[0]
    if len(label) > LABEL_CHARS_MAX or _looks_like_key(label):
        found.add(label)
    return found | {unquote(part) for part in found}
