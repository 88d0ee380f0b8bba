"""A directory in, a local cluster's place out: its lock, its state file, its logs, its wiping."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.clickhouse.datadir import LOST_FOUND, write_atomically
from schemas.errors_embedded import DataDirectoryUnwritable
from schemas.errors_local import LocalInUse, NotALocalDirectory

STATE, LOCK, SETTINGS, LOGS = "local.json", "local.lock", "headrace.toml", "logs"
KAFKA, CLICKHOUSE = "kafka", "clickhouse"
OURS = frozenset({STATE, LOCK, SETTINGS, LOGS, KAFKA, CLICKHOUSE})


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process of the cluster as the state file has it."""

    name: str
    """For example ``sink-0``."""
    state: str
    """``running``, ``restarting``, ``done``, ``failed`` or ``stopped``."""
    pid: int | None
    """Process id of its leash; None while it does not run."""
    starts: int
    """How often it was started."""
    exit_code: int | None
    """What it ended with last."""
    address: str
    """Where it can be asked: health of a role, clients' address of a server."""
    log: str
    """The file with what it said."""


@dataclass(frozen=True, slots=True)
class LocalState:
    """What a running cluster says of itself."""

    pid: int
    """Process id of the supervisor."""
    ready: bool
    """Whether every process was started."""
    bootstrap: str
    """Kafka's address."""
    clickhouse_native: str
    """ClickHouse's native address, without the password."""
    clickhouse_http: str
    """ClickHouse's HTTP address."""
    settings: str
    """The settings file of its roles."""
    processes: tuple[ProcessState, ...]
    """Every process."""


class LocalDirectory:
    """The directory of a local cluster.

    Parameters
    ----------
    path
        Made where it is missing.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path).absolute()
        self._lock: int | None = None

    @property
    def logs(self) -> Path:
        """A file for each process."""
        return self.path / LOGS

    @property
    def settings(self) -> Path:
        """The settings file of the roles; it holds secrets."""
        return self.path / SETTINGS

    def prepare(self) -> None:
        """Make it, and see that no cluster runs in it.

        Raises
        ------
        NotALocalDirectory, LocalInUse, DataDirectoryUnwritable
        """
        try:
            if self.path.exists():
                self._refuse_others()
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            (self.path / LOCK).touch(mode=0o600)
            for name in (LOGS, KAFKA):
                (self.path / name).mkdir(exist_ok=True)
                # Logs and topics hold what the tables hold: for the owner alone, here too where
                # an earlier version made them, or where the directory is a mounted disk.
                (self.path / name).chmod(0o700)
        except OSError as error:
            detail = error.strerror or str(error)
            raise DataDirectoryUnwritable(path=str(self.path), detail=detail) from error
        if self.held():
            raise LocalInUse(path=str(self.path), pid=self.owner())

    def own(self) -> None:
        """Make it and lock it.

        Raises
        ------
        NotALocalDirectory, LocalInUse, DataDirectoryUnwritable
        """
        self.prepare()
        lock = os.open(self.path / LOCK, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise LocalInUse(path=str(self.path), pid=self.owner()) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def release(self) -> None:
        """Give it up."""
        if self._lock is not None:
            (self.path / STATE).unlink(missing_ok=True)
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    def owner(self) -> str:
        """Process id of whoever holds it, as text."""
        with contextlib.suppress(OSError):
            return (self.path / LOCK).read_text().strip() or "unknown"
        return "unknown"

    def held(self) -> bool:
        """Whether a cluster runs here."""
        try:
            descriptor = os.open(self.path / LOCK, os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def write_state(self, state: LocalState) -> None:
        """Say what runs; a reader sees the old or the new."""
        write_atomically(self.path / STATE, json.dumps(asdict(state), indent=1) + "\n")

    def read_state(self) -> LocalState | None:
        """What the running cluster says of itself; None where none runs."""
        if not self.held():
            return None
        try:
            fields: dict[str, Any] = json.loads((self.path / STATE).read_text())
            processes = tuple(ProcessState(**one) for one in fields.pop("processes"))
            return LocalState(**fields, processes=processes)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def last_words(self, log: Path | str) -> str:
        """The end of a log, for an error."""
        try:
            text = Path(log).read_text("utf-8", errors="replace").strip()
        except OSError:
            return "nothing"
        return " / ".join(line.strip() for line in text.splitlines()[-3:])[-500:] or "nothing"

    def wipe(self) -> None:
        """Remove the cluster's files, and the directory where nothing else is in it.

        Raises
        ------
        NotALocalDirectory, LocalInUse
        """
        if not self.path.exists():
            return
        self._refuse_others()
        if self.held():
            raise LocalInUse(path=str(self.path), pid=self.owner())
        for name in OURS - {LOCK}:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        (self.path / LOCK).unlink(missing_ok=True)
        # A mounted disk cannot be removed.
        if not self.path.is_mount() and not any(self.path.iterdir()):
            self.path.rmdir()

    def _refuse_others(self) -> None:
        found = {entry.name for entry in self.path.iterdir()} - {LOST_FOUND}
        # A draft of a state file that was cut short is ours, too.
        strangers = {name for name in found - OURS if not name.startswith(f".{STATE}.")}
        if strangers or (found and LOCK not in found):
            raise NotALocalDirectory(path=str(self.path))
        for name in found - OURS:
            (self.path / name).unlink()
