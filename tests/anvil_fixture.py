"""A pinned npm package in, the path of a real anvil out.

anvil is downloaded once into `.cache/` with npm, checked against the hash pinned here, and used
by one test. Without npm that test skips; with HEADRACE_REQUIRE_ANVIL=1, as in CI, it fails.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NoReturn

import pytest

VERSION = "1.7.1"
INTEGRITY = {
    "linux-amd64": (
        "+XmShybEaxfCrr0OUUZwYEy2OnYZt5pHH9TzBtLv3+VrK0O/ANuNSVEahqNhKHlgX7GRJ59383ofNhxkRWIYTg=="
    ),
}
"""SHA-512 of the tarball of each platform that the test runs on, as the npm registry states it."""

CACHE = Path(__file__).parent.parent / ".cache" / f"anvil-{VERSION}"
DOWNLOAD_SECONDS_MAX = 600
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@pytest.fixture(scope="session")
def anvil() -> Path:
    """The anvil binary, installed where it is not yet."""
    name = f"{sys.platform}-{_MACHINES.get(platform.machine().lower(), platform.machine())}"
    binary = CACHE / name / "package" / "bin" / "anvil"
    if binary.exists():
        return binary
    if name not in INTEGRITY:
        _unavailable(f"anvil {VERSION} is not pinned for {name}")
    if shutil.which("npm") is None:
        _unavailable("npm is not installed, so anvil cannot be fetched")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        # Of several test processes one fetches it, the others wait.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _install(name, binary)
    return binary


def _install(name: str, binary: Path) -> None:
    """Fetch and unpack it, whole or not at all: a run that is cut short leaves nothing to take."""
    tarball = _download(name)
    fresh = CACHE / f"{name}.{os.getpid()}"
    with tarfile.open(tarball) as archive:
        archive.extractall(fresh, filter="data")
    tarball.unlink()
    (fresh / binary.relative_to(CACHE / name)).chmod(0o755)
    shutil.rmtree(CACHE / name, ignore_errors=True)
    fresh.replace(CACHE / name)


def _download(name: str) -> Path:
    """The tarball of a platform, its hash checked."""
    command = ["npm", "pack", f"@foundry-rs/anvil-{name}@{VERSION}", "--silent"]
    try:
        done = subprocess.run(
            [*command, "--pack-destination", str(CACHE)],
            cwd=CACHE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        _unavailable(f"npm gave no anvil within {DOWNLOAD_SECONDS_MAX} s")
    if done.returncode != 0:
        _unavailable(f"npm could not fetch anvil: {done.stderr.strip()[-300:]}")
    tarball = CACHE / done.stdout.strip().splitlines()[-1]
    found = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if found != INTEGRITY[name]:
        tarball.unlink()
        pytest.fail(f"anvil's tarball has the hash {found}, pinned is {INTEGRITY[name]}")
    return tarball


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("HEADRACE_REQUIRE_ANVIL") == "1":
        pytest.fail(f"anvil is required here: {reason}")
    pytest.skip(reason)
