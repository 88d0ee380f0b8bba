"""Nodes and chains that go wrong in the middle of a run: a coded end, and nothing lost.

Each bad answer meets a data directory that already holds blocks. The run ends with the exit code
and error that `FAULTS` names, without a traceback; once the node is well again the same command
goes on, and what is stored is exactly the truth.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.devchain import Chain, Fault, serve_in_thread
from infra.exit_codes import ExitCode
from tests.e2e.running import (
    FINALITY_DEPTH,
    PATIENCE_SECONDS,
    ROOT,
    Headrace,
    numbers,
    shown,
    small_chain,
    tables,
    until,
)
from tests.stored_truth import assert_stored

IMPATIENT = """
[limits]
retry_attempts_max = 2
backoff_seconds_max = 0.05
response_bytes_max = 4_000_000
"""
RECEIPTS = frozenset({"eth_getBlockReceipts"})
FAULTS = {
    "null receipts for ever": (Fault("null_receipts", RECEIPTS), ExitCode.network),
    "pruned history": (Fault("pruned", blocks=FINALITY_DEPTH + 2), ExitCode.network),
    "a hash that does not match": (Fault("alter_hash"), ExitCode.halted),
    "receipts of another block": (Fault("other_receipts", RECEIPTS), ExitCode.halted),
    "logs that were altered": (Fault("alter_logs"), ExitCode.halted),
    "giant answers": (Fault("giant", RECEIPTS, size_bytes=9_000_000), ExitCode.network),
    "silence": (Fault("hang", RECEIPTS), ExitCode.network),
}
HASTE = ("HEADRACE_LIMITS__REQUEST_TIMEOUT_SECONDS", "2")
"""For silence alone: a slow machine is silent as well, now and then."""


def ends(headrace: Headrace, what: str, code: ExitCode, *words: str) -> str:
    """A run that must end with this code and one error; its error."""
    before = headrace.log.stat().st_size if headrace.log.exists() else 0
    process = headrace.start(*words)
    try:
        got = process.wait(PATIENCE_SECONDS)
    finally:
        headrace.end(process)
    said = headrace.log.read_bytes()[before:].decode()
    assert got == code, f"{what}: {said}"
    assert "Traceback" not in said
    errors = re.findall(r"^error HR-\d{4}: .+\n  why .+\n  do  .+$", said, re.MULTILINE)
    assert len(errors) == 1, said
    return str(errors[0])


def exactly(headrace: Headrace, chain: Chain) -> None:
    """What is stored is the chain, from its first block to its last."""
    with headrace.stored() as connection:
        shown = numbers(connection, "SELECT max(block_number) FROM blocks")
        assert shown == [chain.head.header.number]
        assert_stored(connection, tables(), chain.blocks())


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    """Another command of ours."""
    return subprocess.run(
        [sys.executable, "-m", "infra.cli", *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def mended_by_rewind(headrace: Headrace, chain: Chain, error: str, shared: int) -> None:
    """The command that an error names mends the chain; it keeps all that both branches share."""
    named = re.search(r"headrace rewind --to (\d+)", error)
    assert named is not None, error
    assert int(named[1]) == shared, error
    refused = cli("rewind", "--to", named[1], "--data", str(headrace.data))
    assert refused.returncode == ExitCode.usage, refused.stderr
    done = cli("rewind", "--to", named[1], "--yes", "--data", str(headrace.data))
    assert done.returncode == 0, done.stderr
    headrace.run("--to", str(chain.head.header.number))
    exactly(headrace, chain)


def test_bad_answers_end_a_run_and_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = small_chain(seed=21)
    chain.mine(24)
    with serve_in_thread(chain) as serving:
        headrace = Headrace(tmp_path, serving.http_urls, IMPATIENT)
        headrace.run("--from", "0", "--to", "24")
        for name, (fault, code) in FAULTS.items():
            chain.mine(11)
            serving.set_fault(fault)
            with monkeypatch.context() as patch:
                if fault.kind == "hang":
                    patch.setenv(*HASTE)
                ends(headrace, name, code, "--to", str(chain.head.header.number))
            serving.clear_faults()
        headrace.run("--to", str(chain.head.header.number))
        exactly(headrace, chain)


def test_a_reorg_below_finality_halts_and_a_rewind_mends_it(tmp_path: Path) -> None:
    chain = small_chain(seed=22)
    chain.mine(60)
    with serve_in_thread(chain) as serving:
        headrace = Headrace(tmp_path, serving.http_urls)
        process = headrace.start("--from", "0")
        try:
            until(lambda: shown(headrace) == 60, "block 60 is not visible")
            chain.reorg(30, 35)
            code = process.wait(PATIENCE_SECONDS)
        finally:
            headrace.end(process)
        said = headrace.said()
        assert code == ExitCode.halted, said
        assert "error HR-3001" in said
        assert "no block above 30 is the same on both" in said
        assert "Traceback" not in said
        mended_by_rewind(headrace, chain, said, shared=30)


def test_a_reorg_below_finality_between_runs_halts_as_well(tmp_path: Path) -> None:
    chain = small_chain(seed=23)
    chain.mine(60)
    with serve_in_thread(chain) as serving:
        headrace = Headrace(tmp_path, serving.http_urls)
        headrace.run("--from", "0", "--to", "60")
        chain.reorg(30, 50)
        head = chain.head.header.number
        error = ends(headrace, "reorg", ExitCode.halted, "--to", str(head))
        mended_by_rewind(headrace, chain, error, shared=30)


@pytest.mark.parametrize("blocks", [5, 90], ids=["lower", "higher"])
def test_a_chain_that_was_reset_between_runs_halts(tmp_path: Path, blocks: int) -> None:
    chain = small_chain(seed=25)
    chain.mine(60)
    with serve_in_thread(chain) as serving:
        headrace = Headrace(tmp_path, serving.http_urls)
        headrace.run("--from", "0", "--to", "60")
        serving.set_fault(Fault("reset", blocks=blocks))
        error = ends(headrace, "reset", ExitCode.halted)
        assert "HR-5105" in error
        assert "another data directory" in error
        serving.clear_faults()
        headrace.run("--to", "60")
        exactly(headrace, chain)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("reset", blocks=58), "HR-5105"),
        (Fault("reset", blocks=5), "HR-5105"),
        (Fault("back", blocks=30), "HR-3001"),
    ],
    ids=["reset", "reset and lower", "set back"],
)
def test_a_chain_that_is_reset_or_goes_back_while_it_is_followed_halts(
    tmp_path: Path, fault: Fault, code: str
) -> None:
    chain = small_chain(seed=26)
    chain.mine(60)
    with serve_in_thread(chain) as serving:
        headrace = Headrace(tmp_path, serving.http_urls, "[limits]\nfinal_absent_seconds = 1.0\n")
        process = headrace.start("--from", "0")
        try:
            until(lambda: shown(headrace) == 60, "block 60 is not visible")
            serving.set_fault(fault)
            assert process.wait(PATIENCE_SECONDS) == ExitCode.halted, headrace.said()
        finally:
            headrace.end(process)
        said = headrace.said()
        assert f"error {code}" in said
        assert "Traceback" not in said
        if fault.kind == "back":
            assert "headrace rewind --to 30" in said
        serving.clear_faults()
        exactly(headrace, chain)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is nearly full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted(folder, "size=400m"):
        pytest.skip("only root may mount a file system that can be filled")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def mounted(folder: Path, options: str) -> bool:
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def test_a_full_disk_ends_a_run_and_loses_nothing(small_disk: Path) -> None:
    chain = small_chain(seed=24)
    chain.mine(50)
    with serve_in_thread(chain) as serving:
        headrace = Headrace(small_disk, serving.http_urls)
        headrace.run("--from", "0", "--to", "20")
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(bytes(1 << 16))
        error = ends(headrace, "full disk", ExitCode.storage, "--to", "50")
        assert "disk" in error or "space" in error, error
        filler.unlink()
        headrace.run("--to", "50")
        exactly(headrace, chain)


def test_the_limits_of_the_fork_window_hold(tmp_path: Path) -> None:
    chain = small_chain(seed=25)
    chain.mine(30)
    with serve_in_thread(chain) as serving:
        headrace = Headrace(tmp_path, serving.http_urls, "[limits]\nwindow_blocks_max = 5\n")
        error = ends(headrace, "window", ExitCode.halted, "--from", "0")
        assert "HR-3002" in error
