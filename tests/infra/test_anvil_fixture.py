"""The fixture's own promise: a binary that runs, of the version that is pinned."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.anvil_fixture import VERSION


def test_the_installed_anvil_is_the_pinned_one(anvil: Path) -> None:
    done = subprocess.run([anvil, "--version"], capture_output=True, text=True, check=True)

    assert VERSION in done.stdout
