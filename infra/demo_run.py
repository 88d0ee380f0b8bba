"""Endpoints and a data directory in, a `headrace run` beside us and its snapshots out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from schemas.errors_infra import DemoRunEnded

STOP_SECONDS = 90.0
LINES_KEPT = 20


class RunBeside:
    """A `headrace run --json` as a child process; the newest snapshot is kept.

    Parameters
    ----------
    urls
        Endpoints.
    data_dir
        Data directory.
    """

    def __init__(self, urls: Sequence[str], data_dir: Path) -> None:
        rpc = [word for url in urls for word in ("--rpc", url)]
        command = [sys.executable, "-m", "infra.cli", "run", "--json", "--chain", "local", *rpc]
        self._command = [*command, "--from", "0", "--data", str(data_dir)]
        self._process: subprocess.Popen[str] | None = None
        self._changed = threading.Condition()
        self._snapshot: dict[str, Any] = {}
        self._said: list[str] = []
        self._ended = False

    def __enter__(self) -> RunBeside:
        # A session of its own: Ctrl-C reaches us alone, and we pass it on once.
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for target in (self._read_snapshots, self._read_errors):
            threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def snapshot(self) -> dict[str, Any]:
        """The newest snapshot: the fields of `infra.progress.Progress`."""
        return self._snapshot

    @property
    def ended(self) -> bool:
        """Whether the run has ended by itself."""
        return self._ended

    @property
    def said(self) -> str:
        """The last lines that it said."""
        return "\n".join(self._said) or "nothing"

    def wait_for(
        self, reached: Callable[[dict[str, Any]], bool], seconds: float, what: str
    ) -> dict[str, Any]:
        """Wait for a snapshot that satisfies `reached`.

        Raises
        ------
        DemoRunEnded
            The run ended, or the time is up.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or (bool(self._snapshot) and reached(self._snapshot)), seconds
            )
            if self._snapshot and reached(self._snapshot):
                return self._snapshot
        raise DemoRunEnded(what=what, said=self.said)

    def _read_snapshots(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            snapshot = json.loads(line)
            with self._changed:
                self._snapshot = snapshot
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read_errors(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._said = [*self._said, line.rstrip()][-LINES_KEPT:]
