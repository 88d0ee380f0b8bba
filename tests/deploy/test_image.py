"""The image: its Dockerfile is clean, and takes all and only what the roles need."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deploy.conftest import ROOT
from tests.deploy.environment import read_by_a_role

DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"
TEXT = DOCKERFILE.read_text("utf-8")


def copied() -> list[str]:
    """Sources of every COPY from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", TEXT, re.MULTILINE)
    return [source.rstrip("/") for line in lines for source in line.split()[:-1]]


def image_environment() -> dict[str, str]:
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", TEXT, re.MULTILINE)
    return dict(word.split("=", 1) for word in block.replace("\\\n", " ").split())


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint has no wheel for this platform")

    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)

    assert done.stdout == ""
    assert done.returncode == 0


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    ignore = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    admitted = {line.removeprefix("!") for line in ignore if line.startswith("!")}

    assert "*" in ignore
    assert set(copied()) == admitted
    assert all((ROOT / source).exists() for source in copied())


def test_every_package_is_in_the_image() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]

    assert set(wheel["targets"]["wheel"]["packages"]) <= set(copied())


@pytest.mark.parametrize("secret", ["infra/compose/.env", "infra/.env"])
def test_no_secret_is_sent_to_the_builder(secret: str) -> None:
    ignore = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    last = [line for line in ignore if fnmatch.fnmatch(secret, line.removeprefix("!"))][-1]

    assert not last.startswith("!")


def test_the_image_runs_without_root_and_ends_by_sigterm(tmp_path: Path) -> None:
    settings = read_by_a_role(image_environment(), tmp_path)

    assert settings.roles.health_host == "0.0.0.0"
    assert f"EXPOSE {settings.roles.health_port}" in TEXT
    assert "USER 10001:10001" in TEXT
    assert "STOPSIGNAL SIGTERM" in TEXT
    assert 'ENTRYPOINT ["headrace"]' in TEXT
