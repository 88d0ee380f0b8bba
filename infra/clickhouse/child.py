"""Run the ClickHouse engine as a server: the main function of the child process.

The engine is the extension module of the chdb-core wheel. It holds the whole of
clickhouse-local, which understands ``SYSTEM START LISTEN``. This file runs as a script, in a
process that holds nothing but the engine and `confinement.py`.
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
STOP_SQL = f"KILL QUERY WHERE query LIKE '%{KEEPALIVE}%' AND query NOT LIKE 'KILL%' ASYNC"
"""Ends the engine cleanly; the parent sends it as the user `headrace`."""

PARENT_POLL_SECONDS = 1.0


def load_sibling(name: str) -> Any:
    """Load a module that lies beside this file, without the package around it."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


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


def serve(run_dir: Path, data_path: Path, parent: int) -> int:
    """Serve until the engine ends or the parent is gone; the parent ends it by `STOP_SQL`.

    Parameters
    ----------
    run_dir
        Holds config.xml and users.xml; ports.tsv is written into it.
    data_path
        ClickHouse's own directory.
    parent
        Process id of the parent. Its end of our standard input closes when it dies.

    Returns
    -------
    int
        The exit code: 0 after a stop that was asked for.
    """
    os.chdir(run_dir)
    confinement = load_sibling("confinement")
    engine = load_engine()
    confinement.refuse_null_mutexes(Path(engine.__file__))
    if confinement.can_confine():
        confinement.confine([run_dir, data_path])
    # The parent stops us: a signal to the whole machine or session would come to it, too.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    ended, ending = socket.socketpair()
    outcome: dict[str, str] = {}

    def run() -> None:
        answer = engine.query(_main_sql(), "TSV", path=str(data_path))
        outcome["error"] = answer.error_message() if answer.has_error() else ""
        ending.send(b"\0")

    main = threading.Thread(target=run, daemon=True)
    main.start()
    while main.is_alive():
        ready, _, _ = select.select([0, ended.fileno()], [], [], PARENT_POLL_SECONDS)
        if os.getppid() != parent or (0 in ready and not os.read(0, 1)):
            # The parent is gone: leave at once, as kill -9 would. What was acknowledged is in the
            # page cache, and the next owner of the directory is perhaps waiting for it.
            os._exit(3)
        if ended.fileno() in ready:
            main.join()
    error = outcome.get("error", "the engine's thread died")
    # Without an error its main query was killed: the stop that the parent asks for.
    sys.stderr.write(error and error + "\n")
    return 1 if error else 0


def _main_sql() -> str:
    """Listen, tell the ports (in the working directory: its path may hold any letter), wait."""
    return (
        "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "
        "SELECT getServerPort('tcp_port'), getServerPort('http_port') "
        "INTO OUTFILE 'ports.tsv' TRUNCATE FORMAT TSV; "
        f"SELECT sleep(1000000000) /* {KEEPALIVE} */ "
        "SETTINGS function_sleep_max_microseconds_per_block = 0, max_execution_time = 0"
    )


if __name__ == "__main__":
    code = serve(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    sys.stderr.flush()
    # Not sys.exit: the interpreter must not tear down the engine's module.
    os._exit(code)
