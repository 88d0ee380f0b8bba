"""A run directory in, a listening ClickHouse server out: the child process's main.

The engine is the extension module of the chdb-core wheel. It holds the whole of
clickhouse-local, which understands ``SYSTEM START LISTEN``. This file imports nothing of ours: it
runs as a script, in a process that holds nothing but the engine.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import select
import signal
import socket
import sys
import threading
import types
from pathlib import Path
from typing import Any

KEEPALIVE = "headrace keepalive"
"""A comment in the query that keeps the engine's main loop busy; killing that query ends it."""

PARENT_POLL_SECONDS = 1.0


def load_engine() -> Any:
    """Load ``chdb._chdb`` without running the ``__init__`` of chdb.

    That one opens and closes an embedded connection, after which parts of the engine stay shut
    down for the rest of the process; it also imports pandas.

    Raises
    ------
    ImportError
        If chdb-core is not installed or has no such module.
    """
    spec = importlib.util.find_spec("chdb")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("chdb-core is not installed")
    package = types.ModuleType("chdb")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules["chdb"] = package
    if sys.platform == "linux":
        library = Path(package.__path__[0]) / "_chdb.abi3.so"
        # RTLD_DEEPBIND, as chdb itself does: the engine's own symbols win over Python's.
        ctypes.CDLL(str(library), mode=sys.getdlopenflags() | os.RTLD_DEEPBIND)
    return importlib.import_module("chdb._chdb")


def serve(run_dir: Path, data_path: str, password_file: Path, parent: int) -> int:
    """Serve until the engine ends, the parent asks for a stop, or the parent is gone.

    Parameters
    ----------
    run_dir
        Holds config.xml and users.xml; ports.tsv is written into it.
    data_path
        ClickHouse's own directory.
    password_file
        Holds the password of the user `headrace`, for the graceful stop.
    parent
        Process id of the parent. Its end of our standard input closes when it dies.

    Returns
    -------
    int
        The exit code: 0 after a stop that was asked for.
    """
    os.chdir(run_dir)
    engine = load_engine()
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    outcome: dict[str, str] = {}

    def run() -> None:
        answer = engine.query(_main_sql(), "TSV", path=data_path)
        outcome["error"] = answer.error_message() if answer.has_error() else ""
        os.write(waker, b"\0")

    main = threading.Thread(target=run, daemon=True)
    main.start()
    asked = False
    while main.is_alive():
        ready, _, _ = select.select([0, woken], [], [], PARENT_POLL_SECONDS)
        if os.getppid() != parent or (0 in ready and not os.read(0, 1)):
            # The parent is gone: leave at once, as kill -9 would. What was acknowledged is in the
            # page cache, and the next owner of the directory is perhaps waiting for it.
            os._exit(3)
        if (woken in ready and signal.SIGTERM in os.read(woken, 64)) or 0 in ready:
            asked = True
        if asked and main.is_alive() and not _stop_engine(run_dir, password_file):
            os._exit(4)
        if asked:
            main.join()
    error = outcome.get("error", "the engine's thread died")
    if asked:
        return 0
    sys.stderr.write(error + "\n")
    return 1


def _main_sql() -> str:
    """Listen, tell the ports (in the working directory: its path may hold any letter), wait."""
    return (
        "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "
        "SELECT getServerPort('tcp_port'), getServerPort('http_port') "
        "INTO OUTFILE 'ports.tsv' TRUNCATE FORMAT TSV; "
        f"SELECT sleep(1000000000) /* {KEEPALIVE} */ "
        "SETTINGS function_sleep_max_microseconds_per_block = 0, max_execution_time = 0"
    )


def _stop_engine(run_dir: Path, password_file: Path) -> bool:
    """Kill the keepalive query: the engine then shuts down cleanly. False if that failed."""
    try:
        port = (run_dir / "ports.tsv").read_text().split()[1]
        password = password_file.read_text().strip()
        sql = f"KILL QUERY WHERE query LIKE '%{KEEPALIVE}%' AND query NOT LIKE 'KILL%' ASYNC"
        # By hand: loading an HTTP client would take as long as the rest of this file.
        head = (
            f"POST / HTTP/1.0\r\nX-ClickHouse-User: headrace\r\nX-ClickHouse-Key: {password}\r\n"
            f"Content-Length: {len(sql)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as peer:
            peer.sendall((head + sql).encode())
            status = peer.makefile("rb").readline().decode("latin-1").strip()
        if status.split(" ")[1] != "200":
            raise OSError(f"the server said {status}")
    except (OSError, IndexError, ValueError) as error:
        sys.stderr.write(f"the graceful stop failed: {error}\n")
        return False
    return True


if __name__ == "__main__":
    code = serve(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    sys.stderr.flush()
    # Not sys.exit: the interpreter must not tear down the engine's module.
    os._exit(code)
