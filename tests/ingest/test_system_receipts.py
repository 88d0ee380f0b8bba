"""A receipt of the block itself: stored where the chain is known for it, or nothing is proven."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.reprove import StoredRange, verify_stored
from ingest.verify import prove_segment
from schemas.chains import load_chains
from schemas.errors_verify import ReceiptsCountMismatch, SystemReceipt
from schemas.tables import Verification
from tests.ingest.damages import Json, logs_in
from tests.ingest.other_headers import rehashed
from tests.ingest.real_blocks import busy_block, devchain_payload, parsed, parsed_receipts

HEADER = Verification.header
CELO = load_chains()["celo"]


def _with_system_receipt() -> tuple[Json, list[Json]]:
    """A block with a receipt of its own, whose log repeats one that is under the bloom."""
    block, receipts = devchain_payload(busy_block())
    logs = logs_in(receipts)
    place = {"transactionHash": block["hash"], "transactionIndex": hex(len(receipts))}
    log = logs[0] | place | {"logIndex": hex(len(logs))}
    own = {"cumulativeGasUsed": "0x0", "gasUsed": "0x0", "type": "0x0", "logs": [log]}
    system = receipts[0] | place | own
    block, receipts = rehashed(block, [*receipts, system])
    for part in (receipts[-1], receipts[-1]["logs"][0]):
        part["transactionHash"] = block["hash"]
    return block, receipts


@pytest.mark.parametrize(
    ("chain", "level"), [("local", Verification.off), ("celo", Verification.off), ("celo", HEADER)]
)
def test_its_logs_are_stored_without_a_transaction(chain: str, level: Verification) -> None:
    block, receipts = _with_system_receipt()
    facts = load_chains()[chain]
    proven = prove_segment([parsed(block)], [parsed_receipts(receipts)], level, facts)
    assert proven.verdict.level == level
    assert proven.logs is not None
    columns: dict[str, Any] = proven.logs.logs.columns
    index = columns["transaction_index"]
    assert index.valid.tolist() == [True] * (len(index.valid) - 1) + [False]
    assert bytes(columns["transaction_hash"][-1]).hex() == block["hash"][2:]
    expected = [int(log["transactionIndex"], 16) for log in logs_in(receipts)]
    assert index.values[:-1].tolist() == expected[:-1]
    assert proven.columns.transactions.rows == len(receipts) - 1
    assert proven.columns.blocks.columns["log_count"].values.tolist() == [len(expected)]
    tables = proven.columns
    stored = StoredRange(tables.blocks, tables.transactions, proven.logs.logs, tables.withdrawals)
    assert verify_stored(stored) == []


@pytest.mark.parametrize("chain", ["local", "celo"])
def test_it_is_refused_where_receipts_are_proven(chain: str) -> None:
    block, receipts = _with_system_receipt()
    blocks, parts = [parsed(block)], [parsed_receipts(receipts)]
    with pytest.raises(SystemReceipt) as caught:
        prove_segment(blocks, parts, Verification.receipts, load_chains()[chain])
    assert "--verify off" in caught.value.fix_text
    with pytest.raises(SystemReceipt, match=f"block {busy_block()} "):
        prove_segment(blocks, parts, HEADER)


def test_a_receipt_of_a_transaction_elsewhere_is_stored_only_where_nothing_is_proven() -> None:
    block, receipts = _with_system_receipt()
    other = "0x" + "ab" * 32
    for part in (receipts[-1], receipts[-1]["logs"][0]):
        part["transactionHash"] = other
    blocks, parts = [parsed(block)], [parsed_receipts(receipts)]
    proven = prove_segment(blocks, parts, Verification.off)
    assert proven.logs is not None
    assert bytes(proven.logs.logs.columns["transaction_hash"][-1]).hex() == other[2:]
    for facts in (CELO, None):
        with pytest.raises(ReceiptsCountMismatch):
            prove_segment(blocks, parts, HEADER, facts)
