"""Event names and keys in, lines on standard error out, without secrets."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import structlog

from ingest.redact import redact_url

_URL = re.compile(r"\b(?:https?|wss?)://[^\s'\"<>]+")
_SECRET_KEYS = ("password", "secret", "token", "api_key", "authorization")
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def redact(
    _logger: object, _method: str, event: dict[str, Any] | Mapping[str, Any]
) -> dict[str, Any]:
    """A structlog processor: URLs become host and hash, secrets dots."""
    return {key: _redacted(key, value) for key, value in event.items()}


def _redacted(key: str, value: Any) -> Any:
    if any(word in key.lower() for word in _SECRET_KEYS):
        return "…"
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {inner: _redacted(str(inner), one) for inner, one in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(key, one) for one in value]
    return value


def redact_text(text: str) -> str:
    """Any text with each URL in it as host and hash."""
    return _URL.sub(lambda found: redact_url(found[0]), text)


def configure_logs(*, json: bool | None = None, level: str = "info") -> None:
    """Set structlog up for the process.

    Parameters
    ----------
    json
        JSON lines; None decides by whether standard error is a TTY.
    level
        Lowest level that is written: ``debug``, ``info``, ``warning`` or ``error``.
    """
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: Any = (
        structlog.processors.JSONRenderer(default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        # Looked up at each line: the live display replaces sys.stderr while it is shown.
        logger_factory=lambda *_args: structlog.WriteLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
