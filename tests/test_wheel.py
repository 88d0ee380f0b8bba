"""The built wheel holds every package and data file, and runs from an empty environment."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ingest", "processors", "sinks", "schemas", "infra")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the wheel in it; the libraries are lent by this one."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # Only the libraries: our own editable install is a .pth file, which this does not follow.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def tracked() -> set[str]:
    """Every file of the packages that git knows; without git, every file there is."""
    if not (ROOT / ".git").exists():
        found = (path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.is_file())
        return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}
    listed = subprocess.run(
        ["git", "ls-files", "-z", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())

    assert tracked() <= held


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name.split("/")[0] for name in archive.namelist()}

    assert {name for name in held if not name.endswith(".dist-info")} == set(PACKAGES)


def run(python: Path, code: str, cwd: Path) -> str:
    done = subprocess.run(
        [python, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_loads_from_the_wheel(python: Path, tmp_path: Path) -> None:
    modules = sorted(
        ".".join(Path(name).with_suffix("").parts)
        for name in tracked()
        if name.endswith(".py") and not name.endswith(("__init__.py", "__main__.py"))
    )
    code = (
        "import importlib, infra\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(infra.__file__)\n"
    )

    assert str(ROOT / "infra") not in run(python, code, tmp_path)


def test_the_console_script_runs_from_the_wheel(python: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from importlib.metadata import entry_points\n"
        "(script,) = entry_points(group='console_scripts', name='headrace')\n"
        "sys.exit(script.load()(['--help']))\n"
    )
    shown = run(python, code, tmp_path)

    assert "Usage: headrace" in shown
    assert "doctor" in shown
