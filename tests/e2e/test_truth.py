"""`headrace run` on a devchain: every table holds exactly the chain's truth, in every column.

The chain is small and its grid fine, so that a run of seconds seals partitions, folds head blocks
and begins in the middle of a segment.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from infra.devchain import Fault, Serving, serve_in_thread, truth_of
from infra.exit_codes import ExitCode
from ingest.keccak import keccak
from ingest.redact import redact_url
from processors.abi import build_layouts
from schemas.tables import CORE_TABLES
from tests.e2e.running import PATIENCE_SECONDS, Headrace, numbers, small_chain, tables, until
from tests.stored_truth import assert_stored, stored_rows

TRANSFER = keccak(b"Transfer(address,address,uint256)")

LIES = (
    "omit_logs",
    "alter_logs",
    "duplicate_logs",
    "alter_header",
    "alter_hash",
    "alter_transaction",
    "alter_receipt",
    "other_receipts",
)
PATIENT = "[limits]\nrequest_timeout_seconds = 3600\nhedge_after_seconds = 3600\n"
"""No answer is left unread because another came sooner: each lie is looked at."""
MAY_BE_HONEST = {"other_receipts"}
"""Refused, but not held against the endpoint: a reorg between two calls looks the same."""


def exactly(headrace: Headrace, serving: Serving, first: int = 0, last: int | None = None) -> int:
    """The views show the chain from `first` to `last` at least, and nothing else.

    Without `last`, to the chain's head. Returns how many partitions are sealed.
    """
    with headrace.stored() as connection:
        shown = numbers(connection, "SELECT block_number FROM blocks ORDER BY 1")
        assert shown, "nothing is visible"
        assert shown[0] == first
        assert shown[-1] >= (
            serving.chain.view.nodes[-1].block.header.number if last is None else last
        )
        assert_stored(connection, tables(), serving.chain.blocks()[first : shown[-1] + 1])
        newest = "SELECT length(sealed) FROM canon ORDER BY generation DESC, seq DESC LIMIT 1"
        return numbers(connection, newest)[0]


def test_runs_store_the_truth_and_go_on(tmp_path: Path) -> None:
    chain = small_chain(seed=11)
    chain.mine(97)
    with serve_in_thread(chain) as serving:
        headrace = Headrace(tmp_path, serving.http_urls)
        headrace.run("--from", "0", "--to", "63")
        exactly(headrace, serving, last=63)
        headrace.run("--to", "97")
        exactly(headrace, serving)
        chain.mine(13)
        chain.reorg(4)
        headrace.run("--to", str(chain.head.header.number))
        exactly(headrace, serving)
        sealed = '"event": "sealed"'
        if sealed not in headrace.log.read_text():
            # The runs above were too short for the upkeep to get its turn.
            process = headrace.start()
            until(lambda: sealed in headrace.log.read_text(), "no partition was sealed")
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_SECONDS) == ExitCode.interrupted
        assert exactly(headrace, serving) >= 1


def test_the_first_block_may_be_anywhere_and_lowered(tmp_path: Path) -> None:
    chain = small_chain(seed=12)
    chain.mine(60)
    with serve_in_thread(chain) as serving:
        headrace = Headrace(tmp_path, serving.http_urls)
        headrace.run("--from", "33", "--to", "60")
        exactly(headrace, serving, first=33)
        headrace.run("--to", "60")
        exactly(headrace, serving, first=33)
        headrace.run("--from", "7", "--to", "60")
        exactly(headrace, serving, first=7)


def test_without_finality_tags_depth_decides(tmp_path: Path) -> None:
    chain = small_chain(seed=15)
    chain.mine(110)
    with serve_in_thread(chain) as serving:
        serving.set_fault(Fault("no_finality_tags"))
        headrace = Headrace(tmp_path, serving.http_urls)
        said = headrace.run("--from", "23", "--to", "110")
        assert "no endpoint says what is final" in said
        assert '"from_block": 20, "to_block": 44, "event": "history_started"' in said
        exactly(headrace, serving, first=23)


def test_the_logs_source_stores_what_was_asked_for(tmp_path: Path) -> None:
    chain = small_chain(seed=13)
    chain.mine(50)
    settings = 'source = "logs"\n[logs]\ntables = ["erc20_transfers"]\n'
    with serve_in_thread(chain) as serving:
        headrace = Headrace(tmp_path, serving.http_urls, settings)
        headrace.run("--from", "0", "--to", "50")
        chain.mine(4)
        chain.reorg(3)
        headrace.run("--to", str(chain.head.header.number))
        with headrace.stored() as connection:
            truth = truth_of(chain.blocks(), chain.chain_id)
            logs = next(table for table in CORE_TABLES if table.name == "logs")
            wanted = {key: row for key, row in truth["logs"].items() if row["topic0"] == TRANSFER}
            assert stored_rows(connection, logs) == wanted
            kinds = {"erc20_transfers", "erc721_transfers", "nonstandard_transfers"}
            assert_stored(connection, tables(), chain.blocks(), only=kinds)
            others = [
                table.name
                for table in build_layouts().tables
                if table.name not in kinds | {"decode_failures"}
                and connection.execute(f"SELECT count() FROM {table.name}") != [(0,)]
            ]
            assert not others


@pytest.mark.parametrize("lies", [LIES[::2], LIES[1::2]], ids=" ".join)
def test_liars_are_named_and_their_lies_are_not_stored(
    tmp_path: Path, lies: tuple[str, ...]
) -> None:
    chain = small_chain(seed=14)
    chain.mine(60)
    with serve_in_thread(chain, endpoints=len(lies) + 1) as serving:
        faults = [serving.set_fault(Fault(lie), at + 1) for at, lie in enumerate(lies)]
        headrace = Headrace(tmp_path, serving.http_urls, PATIENT)
        said = headrace.run("--from", "0", "--to", "60", "--verify", "full")
        exactly(headrace, serving)
        for at, (lie, fault) in enumerate(zip(lies, faults, strict=True), start=1):
            if serving.struck(fault, at) and lie not in MAY_BE_HONEST:
                assert redact_url(serving.http_urls[at]) in said, f"{lie} went unnamed:\n{said}"
        assert sum(serving.struck(f, at) > 0 for at, f in enumerate(faults, start=1)) >= 2
