"""Lines of Faust's and aiokafka's own loggers in, one structured line each out, seldom repeated."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from mode.threads import WorkerThread

from schemas.errors import HeadraceError

log = structlog.get_logger(__name__)

SEEN_SECONDS = 30.0
"""A line that is the same but for its data is shown at most so often."""
LOGGERS = ("faust", "mode", "aiokafka", "asyncio")
EXPECTED = ("Topic creation disabled", "Task was destroyed but it is pending")
"""What these libraries warn of and we want so."""
PASSED_OVER = "Ignoring missing topic"
"""A broker that just came back may not name a topic, which Faust then never reads."""


class QuietHandler(logging.Handler):
    """Shows warnings and errors without tracebacks: what ends the process is said by its code."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self.passed_over = threading.Event()
        """Set once Faust has passed over a topic: the worker is to end, and start again."""
        self._clock = clock
        self._shown: dict[tuple[str, object], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Show a line, unless it was just shown or says what we say ourselves."""
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage()
        if text.startswith(PASSED_OVER):
            self.passed_over.set()
        if isinstance(error, HeadraceError) or text.startswith(EXPECTED):
            return
        key, now = (record.name, record.msg), self._clock()
        if now - self._shown.get(key, float("-inf")) < SEEN_SECONDS:
            return
        self._shown[key] = now
        reason = {"error": f"{type(error).__name__}: {error}"} if error else {}
        show = log.error if record.levelno >= logging.ERROR else log.warning
        if record.name.startswith("aiokafka"):
            # Brokers that do not answer are said once, by our own producer; these say it for ever.
            show = log.debug
        show("faust_says", logger=record.name, text=text.strip().splitlines()[0], **reason)


def _thread_ended(usual: Callable[[Any], object], args: Any) -> None:
    """Faust's own threads end so when the brokers are gone: the worker says why it ends."""
    if isinstance(args.thread, WorkerThread):
        log.debug("faust_thread_ended", reason=f"{args.exc_type.__name__}: {args.exc_value}")
    else:
        usual(args)


def quiet_logs() -> QuietHandler:
    """Route the libraries' loggers through the handler that it returns, and nowhere else."""
    threading.excepthook = partial(_thread_ended, threading.excepthook)
    handler = QuietHandler()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
    return handler
