"""A publisher is taken for dead only by one that can see its processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from infra.roles.whereabouts import is_gone, whereabouts


def place(folder: Path, boot: str, namespace: str) -> str:
    """The whereabouts of a process of a host's boot and a container."""
    (folder / "boot_id").write_text(boot)
    link = folder / "pid"
    link.unlink(missing_ok=True)
    link.symlink_to(f"pid:[{namespace}]")
    return whereabouts(folder / "boot_id", link)


def test_the_first_process_of_another_container_is_not_ours(tmp_path: Path) -> None:
    here, other = place(tmp_path, "b", "1"), place(tmp_path, "b", "2")
    assert here == place(tmp_path, "b", "1") != other
    assert not is_gone(other, os.getpid(), here)
    assert is_gone(here, os.getpid(), here), "it ran before us, under our number"


def test_after_a_boot_nothing_is_where_it_was(tmp_path: Path) -> None:
    assert place(tmp_path, "b", "1") != place(tmp_path, "c", "1")


def test_without_namespaces_the_host_must_do(tmp_path: Path) -> None:
    assert ":" not in whereabouts(tmp_path / "none", tmp_path / "none")


def test_a_process_that_ended_is_gone_and_one_that_runs_is_not() -> None:
    here = whereabouts()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not is_gone(here, process.pid, here)
        process.communicate(b"\n")
    assert is_gone(here, process.pid, here)
