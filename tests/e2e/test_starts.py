"""Every start and end of a run, below, at and above what is final, and near the head."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.devchain import Chain, Fault, serve_in_thread
from infra.devchain.server import Serving
from infra.exit_codes import ExitCode
from tests.e2e.running import (
    FINALITY_DEPTH,
    PATIENCE_SECONDS,
    Headrace,
    numbers,
    shown,
    small_chain,
    until,
)
from tests.e2e.test_bad_chain import ends

HEAD = 40
FINAL = HEAD - FINALITY_DEPTH


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    chain = small_chain(seed=61)
    chain.mine(HEAD)
    with serve_in_thread(chain) as running:
        yield running


@pytest.mark.parametrize(
    ("first", "last", "source"),
    [
        (FINAL - 1, FINAL + 2, "receipts"),
        (FINAL + 1, FINAL + 1, "receipts"),
        (FINAL + 2, HEAD, "logs"),
        (HEAD - 7, HEAD, "receipts"),
        (HEAD - 7, HEAD - 7, "logs"),
        (HEAD, HEAD, "receipts"),
    ],
)
def test_any_start_up_to_the_head_shows_its_range(
    serving: Serving, tmp_path: Path, first: int, last: int, source: str
) -> None:
    headrace = Headrace(tmp_path, serving.http_urls)
    headrace.run("--from", str(first), "--to", str(last), "--source", source)
    with headrace.stored() as connection:
        blocks = numbers(connection, "SELECT block_number FROM blocks ORDER BY block_number")
    assert blocks == list(range(first, blocks[-1] + 1))
    assert last in blocks


def test_a_start_above_the_head_says_so(serving: Serving, tmp_path: Path) -> None:
    headrace = Headrace(tmp_path, serving.http_urls)
    error = ends(headrace, "above the head", ExitCode.usage, "--from", str(HEAD + 1))
    assert str(HEAD) in error


def test_a_start_near_the_head_follows_it_and_becomes_history(tmp_path: Path) -> None:
    chain = small_chain(seed=62)
    chain.mine(HEAD)
    with serve_in_thread(chain) as running:
        headrace = Headrace(tmp_path, running.http_urls)
        process = headrace.start("--from", str(HEAD - 3))
        try:
            until(lambda: shown(headrace) == HEAD, "the head is not visible")
            chain.mine(3 * FINALITY_DEPTH)
            top = HEAD + 3 * FINALITY_DEPTH
            until(lambda: shown(headrace) == top, "the new head is not visible")
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_SECONDS) == ExitCode.interrupted
        finally:
            headrace.end(process)
        headrace.audit()


@pytest.mark.parametrize("last", [6, None])
def test_a_chain_younger_than_its_finality_starts(tmp_path: Path, last: int | None) -> None:
    """Its node answers `safe` and `finalized` with an error, and 14 blocks are below any depth."""
    chain: Chain = small_chain(seed=63)
    chain.mine(14)
    with serve_in_thread(chain) as running:
        running.set_fault(Fault("no_finality_tags"))
        headrace = Headrace(tmp_path, running.http_urls)
        if last is not None:
            headrace.run("--from", "0", "--to", str(last))
            return
        process = headrace.start("--from", "0")
        try:
            until(lambda: shown(headrace) == 14, "the head is not visible")
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_SECONDS) == ExitCode.interrupted
        finally:
            headrace.end(process)
