"""Transactions of forms that this version does not know are stored; what is not proven is said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ingest.endpoint import ReceiptsBy
from ingest.fetch import BlockPayload
from ingest.prove import ProveAndBuild
from ingest.reprove import StoredRange, verify_stored
from ingest.verify import ProvenSegment, prove_segment
from schemas.chains import load_chains
from schemas.columns import to_python
from schemas.errors_verify import (
    FieldMissing,
    HexMalformed,
    PayloadInvalid,
    QuantityOutOfRange,
    ReceiptsNotProvable,
)
from schemas.tables import TRANSACTION_TABLE, Verification
from tests.ingest.damages import FULL, RECEIPTS, Json, prove
from tests.ingest.other_headers import rehashed
from tests.ingest.real_blocks import busy_block, devchain_payload, parsed, parsed_receipts

OFF = Verification.off
CALLS = [{"to": "0x" + "11" * 20, "value": "0x5", "input": "0x"}]
SCROLL = {"type": "0x7e", "queueIndex": "0x3f2", "sender": "0x" + "22" * 20, "gasPrice": "0x0"}
"""A message from the layer below, which has the number of an OP-stack deposit."""
BATCH = {"type": "0x76", "calls": CALLS, "feeToken": "0x" + "33" * 20, "nonceKey": "0x0"}
"""A batch of calls, without a value, a callee or an input of its own."""


def _as_type(index: int, form: Json, without: tuple[str, ...]) -> tuple[Json, list[Json]]:
    """A block with one transaction of another form, and the roots and hash that it then has."""
    block, receipts = devchain_payload(busy_block())
    transaction = block["transactions"][index]
    for name in without:
        del transaction[name]
    transaction |= form
    receipts[index]["type"] = form["type"]
    return rehashed(block, receipts)


SHAPES = {
    "scroll": (SCROLL, ("v", "r", "s")),
    "batch": (BATCH, ("value", "to", "input")),
}


def _row(proven: ProvenSegment, index: int) -> Json:
    columns: dict[str, Any] = proven.columns.transactions.columns
    kinds = {spec.name: spec.kind for spec in TRANSACTION_TABLE.columns}
    return {name: to_python(kinds[name], columns[name])[index] for name in kinds}


def _violations(proven: ProvenSegment) -> list[str]:
    assert proven.logs is not None
    columns, logs = proven.columns, proven.logs.logs
    stored = StoredRange(columns.blocks, columns.transactions, logs, columns.withdrawals)
    return [violation.what for violation in verify_stored(stored)]


@pytest.mark.parametrize("level", Verification)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_unknown_form_is_stored_and_its_root_is_said_not_to_be_proven(
    shape: str, level: Verification
) -> None:
    form, without = SHAPES[shape]
    block, receipts = _as_type(1, form, without)
    proven = prove(block, receipts, level)
    assert proven.verdict.level == min(level, RECEIPTS)
    said = [words for words in proven.verdict.unproven if form["type"] in words]
    assert len(said) == (level == FULL)
    row = _row(proven, 1)
    assert row["type"] == int(form["type"], 16)
    own = {name: value for name, value in form.items() if name not in ("type", "gasPrice")}
    assert msgspec.json.decode(row["extra"]) == own
    if "value" in without:
        assert (row["value_wei"], row["to_address"], row["input"]) == (None, None, None)
    assert row["nonce"] == int(block["transactions"][1]["nonce"], 16)
    assert _row(proven, 0)["extra"] == b""
    assert _violations(proven) == []


def test_a_deposit_of_a_known_chain_is_whole() -> None:
    block, receipts = _as_type(1, *SHAPES["scroll"])
    facts = load_chains()["optimism"]
    blocks, parts = [parsed(block)], [parsed_receipts(receipts)]
    with pytest.raises(FieldMissing, match="source_hash of transaction 1"):
        prove_segment(blocks, parts, RECEIPTS, facts)
    assert prove_segment(blocks, parts, RECEIPTS, replace(facts, deposit_type=None))


@pytest.mark.parametrize("name", ["value", "gas", "input", "nonce"])
def test_a_known_form_is_whole_unless_nothing_is_proven(name: str) -> None:
    block, receipts = devchain_payload(busy_block())
    del block["transactions"][1][name]
    with pytest.raises(FieldMissing, match=rf"block {busy_block()} .*of transaction 1"):
        prove(block, receipts, Verification.header)
    assert prove(block, receipts, OFF).columns.transactions.rows == len(receipts)


def test_receipts_of_an_unknown_type_that_have_another_root_name_the_level_that_takes_them() -> (
    None
):
    block, receipts = _as_type(1, *SHAPES["batch"])
    receipts[1]["cumulativeGasUsed"] = "0x1"
    receipts[1]["status"] = "0x0"
    with pytest.raises(ReceiptsNotProvable, match="0x76") as caught:
        prove(block, receipts, RECEIPTS)
    assert "--verify header" in caught.value.fix_text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("value", "0x1" + "0" * 64),
        ("nonce", "0x1" + "0" * 16),
        ("gas", "12"),
        ("input", "0x1"),
        ("to", "0x12"),
        ("accessList", [{"address": "0x12", "storageKeys": []}]),
    ],
)
def test_a_field_that_fits_no_column_is_null_and_kept(name: str, value: Any) -> None:
    form, without = SHAPES["scroll"]
    block, receipts = _as_type(1, form | {name: value}, without)
    row = _row(prove(block, receipts, RECEIPTS), 1)
    assert msgspec.json.decode(row["extra"])[name] == value
    block, receipts = devchain_payload(busy_block())
    block["transactions"][1][name] = value
    row = _row(prove(block, receipts, OFF), 1)
    assert msgspec.json.decode(row["extra"])[name] == value
    with pytest.raises((HexMalformed, QuantityOutOfRange), match=f"block {busy_block()} "):
        prove(block, receipts, Verification.header)


def test_an_authorization_without_a_chain_id_is_kept_and_else_named() -> None:
    block, receipts = devchain_payload(busy_block())
    grant = {"address": "0x" + "11" * 20, "nonce": "0x1", "r": "0x1", "s": "0x2", "v": "0x0"}
    block["transactions"][1]["authorizationList"] = [grant]
    row = _row(prove(block, receipts, OFF), 1)
    assert row["authorization_list"] == []
    assert msgspec.json.decode(row["extra"])["authorizationList"] == [grant]
    with pytest.raises(FieldMissing, match=rf"block {busy_block()} .*authorization chain_id"):
        prove(block, receipts, Verification.header)


def test_a_receipt_beyond_its_column_is_null_and_kept() -> None:
    block, receipts = devchain_payload(busy_block())
    receipts[1]["gasUsed"] = "0x1" + "0" * 16
    row = _row(prove(block, receipts, OFF), 1)
    assert row["gas_used"] is None
    assert msgspec.json.decode(row["extra"]) == {"receipt": {"gas_used": "0x1" + "0" * 16}}
    with pytest.raises(QuantityOutOfRange, match=f"block {busy_block()} "):
        prove(block, receipts, Verification.header)


def test_a_field_of_another_json_type_is_kept_where_the_form_is_unknown() -> None:
    block, receipts = _as_type(1, SCROLL | {"to": ["0x"], "nonce": 7}, ("v", "r", "s"))
    row = _row(prove(block, receipts, RECEIPTS), 1)
    kept = msgspec.json.decode(row["extra"])
    assert (row["to_address"], row["nonce"], kept["to"], kept["nonce"]) == (None, None, ["0x"], 7)
    block["transactions"][1]["type"] = "0x2"
    with pytest.raises(PayloadInvalid, match="nonce"):
        parsed(block)


def test_a_timestamp_beyond_its_column_is_refused_by_name_at_every_level() -> None:
    block, receipts = devchain_payload(3)
    block["timestamp"] = hex(1 << 32)
    for level in Verification:
        with pytest.raises(QuantityOutOfRange, match=r"block 3 .*timestamp is 0x100000000"):
            prove(block, receipts, level)


def test_a_payload_that_cannot_be_read_names_its_block() -> None:
    block, receipts = devchain_payload(3)
    build = ProveAndBuild(1, OFF, load_chains()["local"])
    for part, method in ((block, "eth_getBlockByNumber"), (receipts[0], "eth_getBlockReceipts")):
        lost = part.pop("hash" if part is block else "transactionHash")
        parts = [json.dumps(one).encode() for one in (block, receipts)]
        with pytest.raises(PayloadInvalid, match=f"{method} promises: block 3: "):
            build([BlockPayload(3, *parts, ReceiptsBy.block)], "history", 0)
        part["hash" if part is block else "transactionHash"] = lost


def test_roots_are_those_of_the_tests_own_blocks() -> None:
    block, _ = rehashed(*devchain_payload(busy_block()))
    same, _ = devchain_payload(busy_block())
    assert block["receiptsRoot"] == same["receiptsRoot"]
    assert block["hash"] == same["hash"]
