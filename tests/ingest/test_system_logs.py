"""Receipts and logs that no root covers are stored, and what the rest must be is still checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ingest.system_logs import system_transaction_hash
from ingest.verify import ProvenSegment
from schemas.chains import load_chains
from schemas.errors import HeadraceError
from schemas.errors_verify import (
    BloomMismatch,
    GasMismatch,
    LogsMissing,
    ReceiptMisplaced,
)
from schemas.tables import Verification
from tests.ingest.both_ways import prove_both_ways
from tests.ingest.real_blocks import busy_block, devchain_payload, parsed, parsed_receipts

Json = dict[str, Any]
POLYGON, AVALANCHE = load_chains()["polygon"], load_chains()["avalanche"]
TOKEN, TOPIC = "0x" + "7c" * 20, "0x" + "5e" * 32


def with_state_sync() -> tuple[Json, list[Json]]:
    """A block as bor serves it: its last transaction and receipt are of the chain itself."""
    block, receipts = devchain_payload(busy_block())
    number, block_hash = int(block["number"], 16), bytes.fromhex(block["hash"][2:])
    found = system_transaction_hash(POLYGON.system_logs, number, block_hash)
    assert found is not None
    place = {
        "blockHash": block["hash"],
        "blockNumber": block["number"],
        "transactionIndex": hex(len(receipts)),
    }
    own, nobody = "0x" + found.hex(), "0x" + "00" * 20
    block["transactions"].append(
        place
        | {"hash": own, "from": nobody, "to": nobody, "value": "0x0", "gas": "0x0", "input": "0x"}
        | {"nonce": "0x0", "gasPrice": "0x0", "type": "0x0", "v": "0x0", "r": "0x0", "s": "0x0"}
    )
    first = sum(len(receipt["logs"]) for receipt in receipts)
    logs = [
        place
        | {"transactionHash": own, "logIndex": hex(first + at), "address": TOKEN}
        | {"topics": [TOPIC], "data": "0x", "removed": False}
        for at in range(2)
    ]
    receipts.append(
        place
        | {"transactionHash": own, "cumulativeGasUsed": "0x0", "gasUsed": "0x0", "status": "0x1"}
        | {"type": "0x0", "logs": logs, "logsBloom": "0x" + "00" * 256}
    )
    return block, receipts


def prove(block: Json, receipts: list[Json], facts: Any = POLYGON) -> ProvenSegment:
    level = Verification.header
    return prove_both_ways([parsed(block)], [parsed_receipts(receipts)], level, facts=facts)


def test_a_state_sync_is_stored_with_its_logs() -> None:
    block, receipts = with_state_sync()
    proven = prove(block, receipts)
    assert proven.logs is not None
    assert proven.logs.logs.rows == sum(len(receipt["logs"]) for receipt in receipts)
    assert proven.columns.transactions.rows == len(block["transactions"])
    assert any("chain itself" in word for word in proven.verdict.unproven)


def test_a_node_that_gives_no_receipt_for_it_is_no_liar() -> None:
    block, receipts = with_state_sync()
    proven = prove(block, receipts[:-1])
    assert proven.columns.transactions.rows == len(receipts)


def _without_a_receipt(block: Json, receipts: list[Json]) -> None:
    del receipts[0]


def _without_logs(block: Json, receipts: list[Json]) -> None:
    for receipt in receipts:
        receipt["logs"] = []


def _renamed(block: Json, receipts: list[Json]) -> None:
    for part in (block["transactions"][-1], receipts[-1], *receipts[-1]["logs"]):
        part["hash" if "nonce" in part else "transactionHash"] = TOPIC


def _more_gas(block: Json, receipts: list[Json]) -> None:
    for receipt in receipts[:-1]:
        receipt["cumulativeGasUsed"] = hex(int(receipt["cumulativeGasUsed"], 16) + 1)
    receipts[0]["gasUsed"] = hex(int(receipts[0]["gasUsed"], 16) + 1)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_without_a_receipt, ReceiptMisplaced),
        (_without_logs, LogsMissing),
        (_renamed, BloomMismatch),
        (_more_gas, GasMismatch),
    ],
)
def test_the_rest_of_the_block_is_still_checked(damage: Any, reason: type[HeadraceError]) -> None:
    block, receipts = with_state_sync()
    damage(block, receipts)
    with pytest.raises(reason):
        prove(block, receipts)


def test_other_chains_have_no_such_transaction() -> None:
    with pytest.raises(BloomMismatch):
        prove(*with_state_sync(), facts=replace(POLYGON, system_logs=AVALANCHE.system_logs))
