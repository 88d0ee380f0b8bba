"""A command in; it runs until it ends, or until the process that asked for it is gone.

This file imports nothing of ours: it runs as a script, between a supervisor and its child. The
supervisor holds the other end of our standard input, which closes when it dies, however it dies.
Signals go on to the child. On Linux the child is killed also when this process is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys

POLL_SECONDS = 1.0
PR_SET_PDEATHSIG = 1


def hold(command: list[str]) -> int:
    """Run the command; returns its exit code, 128 and the signal where one ended it."""
    woken, waker = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    # There is one thread here, so that the parent whose death counts is this process.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)  # noqa: PLW1509
    while child.poll() is None:
        ready, _, _ = select.select([0, woken], [], [], POLL_SECONDS)
        if 0 in ready and not os.read(0, 1):
            child.kill()
            child.wait()
        for arrived in os.read(woken, 64) if woken in ready else b"":
            if arrived != signal.SIGCHLD:
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(arrived)
    code = child.returncode
    return code if code >= 0 else 128 - code


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(hold(sys.argv[1:]))
