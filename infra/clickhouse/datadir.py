"""A directory in, its lock, stamp and passwords out: who owns a data directory, what it holds.

- ``headrace.json``: the stamp (layout version, chain)
- ``headrace.lock``: held (flock) by the process that owns the directory, and by its server
- ``secrets/``: the generated passwords, one file a user, readable by the owner only
- ``clickhouse/``: ClickHouse's own files
- ``run/``: rendered configuration, ports, logs of the running server
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from schemas.errors_embedded import (
    DataDirectoryDamaged,
    DataDirectoryInUse,
    DataDirectoryNewer,
    DataDirectoryOfOtherChain,
    DataDirectoryUnwritable,
    NotADataDirectory,
)

LAYOUT = 1
"""Version of the directory's layout; a directory of a higher one is refused."""
STAMP, LOCK = "headrace.json", "headrace.lock"
LOST_FOUND = "lost+found"
"""A file system's own folder at the top of a mounted disk."""
DIRECTORIES = ("secrets", "clickhouse", "run")
USERS = ("headrace", "analyst")
LOCK_WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """A data directory that this process owns until `release`."""

    path: Path
    """The directory, absolute."""
    lock: int
    """The locked file descriptor; whoever inherits it keeps the directory locked."""

    @property
    def clickhouse(self) -> Path:
        """ClickHouse's own directory."""
        return self.path / "clickhouse"

    @property
    def run(self) -> Path:
        """Configuration, ports and logs of the running server."""
        return self.path / "run"

    def password_file(self, user: str) -> Path:
        """The file that holds the password of `user`."""
        return self.path / "secrets" / user

    def password(self, user: str) -> str:
        """The password of `user`."""
        return read_password(self.path, user)

    def release(self) -> None:
        """Give the directory up; a server that inherited the lock still holds it."""
        os.ftruncate(self.lock, 0)
        os.close(self.lock)


def own_data_directory(
    path: Path,
    chain: str | None = None,
    chain_id: int | None = None,
    lock_wait_seconds: float = LOCK_WAIT_SECONDS,
) -> DataDirectory:
    """Make or open a data directory, lock it and check that it is ours.

    Parameters
    ----------
    path
        The directory; made where it is missing.
    chain, chain_id
        The chain it must hold. None accepts what it holds; a directory that holds no chain yet
        takes the chain given.
    lock_wait_seconds
        How long to wait for the server of a process that died a moment ago.

    Raises
    ------
    DataDirectoryInUse, DataDirectoryOfOtherChain, DataDirectoryNewer, DataDirectoryDamaged,
    NotADataDirectory, DataDirectoryUnwritable
    """
    path = path.absolute()
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (path / STAMP).exists():
            _check_empty(path)
        lock = _take_lock(path, lock_wait_seconds)
        try:
            if (path / STAMP).exists() and not (path / "clickhouse").is_dir():
                raise DataDirectoryDamaged(path=str(path), detail="clickhouse/ is missing")
            for name in DIRECTORIES:
                (path / name).mkdir(exist_ok=True, mode=0o700)
            # Last: a directory without a stamp was never finished, and holds nothing.
            _check_stamp(path, chain, chain_id)
            for user in USERS:
                if not (path / "secrets" / user).exists():
                    write_atomically(path / "secrets" / user, secrets.token_urlsafe(24) + "\n")
        except BaseException:
            os.close(lock)
            raise
    except OSError as error:
        detail = error.strerror or str(error)
        raise DataDirectoryUnwritable(path=str(path), detail=detail) from error
    return DataDirectory(path, lock)


def read_stamp(path: Path) -> dict[str, object]:
    """The stamp of a data directory.

    Raises
    ------
    DataDirectoryDamaged, DataDirectoryNewer, OSError
    """
    try:
        stamp = json.loads((path / STAMP).read_bytes())
    except ValueError as error:
        raise DataDirectoryDamaged(path=str(path), detail=f"{STAMP} is not JSON") from error
    if not isinstance(stamp, dict) or not isinstance(stamp.get("layout"), int):
        raise DataDirectoryDamaged(path=str(path), detail=f"{STAMP} has no layout")
    if stamp["layout"] > LAYOUT:
        raise DataDirectoryNewer(path=str(path), stored=stamp["layout"], known=LAYOUT)
    return stamp


def read_password(path: Path, user: str) -> str:
    """The generated password of `user` in the data directory.

    Raises
    ------
    DataDirectoryDamaged
        If the file is missing or empty.
    """
    try:
        password = (path / "secrets" / user).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataDirectoryDamaged(path=str(path), detail=f"secrets/{user}: {error}") from error
    if not password:
        raise DataDirectoryDamaged(path=str(path), detail=f"secrets/{user} is empty")
    return password


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by `text`, readable by the owner only; a reader sees the old or the new."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)


def is_locked(path: Path) -> bool:
    """Whether some process owns the data directory."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _check_empty(path: Path) -> None:
    """Refuse a directory without a stamp that holds anything but a first start cut short."""
    if {entry.name for entry in path.iterdir()} - {LOCK, LOST_FOUND, *DIRECTORIES}:
        raise NotADataDirectory(path=str(path))
    clickhouse = path / "clickhouse"
    if clickhouse.is_dir() and any(clickhouse.iterdir()):
        raise DataDirectoryDamaged(path=str(path), detail=f"{STAMP} is missing")


def _take_lock(path: Path, wait_seconds: float, clock: Callable[[], float] = time.monotonic) -> int:
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    until = clock() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            # A living owner is final; a dead one's server needs a moment to notice.
            if clock() >= until or _is_alive(owner):
                os.close(descriptor)
                raise DataDirectoryInUse(path=str(path), pid=owner) from None
            time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _check_stamp(path: Path, chain: str | None, chain_id: int | None) -> None:
    """Read or write the stamp; complete it with the chain where it has none yet."""
    stamp = read_stamp(path) if (path / STAMP).exists() else {"layout": LAYOUT}
    stored_name, stored_id = stamp.get("chain"), stamp.get("chain_id")
    for stored, asked in ((stored_name, chain), (stored_id, chain_id)):
        if stored is not None and asked is not None and stored != asked:
            raise DataDirectoryOfOtherChain(
                path=str(path),
                stored=f"chain {stored_name} (id {stored_id})",
                asked=f"chain {chain} (id {chain_id})",
            )
    wanted = {
        **stamp,
        "chain": chain if stored_name is None else stored_name,
        "chain_id": chain_id if stored_id is None else stored_id,
    }
    if wanted != stamp:
        write_atomically(path / STAMP, json.dumps(wanted) + "\n")
