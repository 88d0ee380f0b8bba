"""A version of Kafka in, the folder of its jars out; fetched by Maven once for the whole user."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

import structlog

from schemas.errors_kafka import BrokerFilesMissing

log = structlog.get_logger(__name__)

KAFKA_VERSION = "4.3.1"
FETCH_SECONDS_MAX = 600.0
COMPLETE = "COMPLETE"
"""The file that says that a folder of jars is whole; it is written before the folder moves."""


def cache_folder() -> Path:
    """Where files live that can be fetched again, as the XDG base directories have it."""
    named = os.environ.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "headrace"


def broker_jars(cache: Path | None = None, version: str = KAFKA_VERSION) -> Path:
    """The folder of the jars, fetched if it is not there; starters at the same time wait.

    Parameters
    ----------
    cache
        Where it is kept; None takes the user's cache.
    version
        Kafka's.

    Raises
    ------
    BrokerFilesMissing
    """
    cache = cache or cache_folder()
    jars = cache / f"kafka-{version}"
    if (jars / COMPLETE).exists():
        return jars
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f".kafka-{version}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (jars / COMPLETE).exists():
                _fetch(jars, version)
    except OSError as error:
        raise _missing(jars, version, error.strerror or str(error)) from error
    return jars


def _fetch(jars: Path, version: str) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise _missing(jars, version, "there is no `mvn` on the path")
    log.info("kafka_files_fetched_once", version=version, folder=str(jars), size="some 44 MB")
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix=".kafka-") as folder:
        draft = Path(folder) / "jars"
        pom = resources.files("infra.kafka").joinpath("broker_pom.xml").read_text("utf-8")
        (Path(folder) / "pom.xml").write_text(pom, "utf-8")
        command = [
            *(maven, "--batch-mode", "--quiet", "--file", f"{folder}/pom.xml"),
            f"-Dkafka.version={version}",
            f"-Dmaven.repo.local={folder}/repository",
            *("dependency:copy-dependencies", "-DincludeScope=runtime"),
            f"-DoutputDirectory={draft}",
        ]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=FETCH_SECONDS_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            detail = f"Maven was not done within {FETCH_SECONDS_MAX:.0f} s"
            raise _missing(jars, version, detail) from None
        if done.returncode != 0 or not any(draft.glob(f"kafka_*-{version}.jar")):
            raise _missing(jars, version, _first_error(done.stdout + done.stderr))
        (draft / COMPLETE).touch()
        if jars.exists():
            shutil.rmtree(jars)
        draft.rename(jars)


def _first_error(output: str) -> str:
    lines = [line for line in output.splitlines() if "ERROR" in line] or output.splitlines()
    return lines[0].strip()[:400] if lines else "Maven said nothing"


def _missing(jars: Path, version: str, detail: str) -> BrokerFilesMissing:
    return BrokerFilesMissing(version=version, folder=str(jars), detail=detail)
