"""Helm's and Compose's own libraries in, what they make of our files out.

`renderer/` is a small Go program around the two libraries, its modules pinned by hash. It is built
once into `.cache/`. Without Go the tests that need it skip; with HEADRACE_REQUIRE_HELM=1, as in CI,
they fail.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCE = Path(__file__).parent / "renderer"
BUILD_SECONDS_MAX = 2400
"""The build takes more than two minutes of CPU, and other tests are at work beside it."""
NEEDS_GO = pytest.mark.timeout(3000)
"""Of tests that use `renderer`: the first of each test process waits until it is built."""

Render = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def renderer() -> Render:
    """Runs the program with some arguments."""
    binary = _built()

    def render(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [str(binary), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return render


def _built() -> Path:
    digest = hashlib.sha256()
    for path in sorted(SOURCE.iterdir()):
        digest.update(path.read_bytes())
    folder = ROOT / ".cache" / f"renderer-{digest.hexdigest()[:16]}"
    binary = folder / "renderer"
    if binary.exists():
        return binary
    if shutil.which("go") is None:
        _unavailable("Go is not installed, so Helm's library cannot be built")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        # Of several test processes one builds, the others wait.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _build(binary)
    return binary


def _build(binary: Path) -> None:
    fresh = binary.with_name(f"renderer.{os.getpid()}")
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", str(fresh)]
    try:
        done = subprocess.run(
            [*command, "."],
            cwd=SOURCE,
            env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        _unavailable(f"Go did not build the renderer within {BUILD_SECONDS_MAX} s")
    if done.returncode != 0:
        _unavailable(f"Go could not build the renderer: {done.stderr.strip()[-500:]}")
    fresh.replace(binary)


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("HEADRACE_REQUIRE_HELM") == "1":
        pytest.fail(f"the renderer is required here: {reason}")
    pytest.skip(reason)
