"""Payloads are decoded as nodes send them, and refused with a code where they are none."""

from __future__ import annotations

import json

import msgspec
import pytest

from ingest.extras import extra_header_fields
from ingest.wire import (
    HEADER_FIELDS,
    decode_block,
    decode_logs,
    decode_receipt,
    decode_receipts,
)
from schemas.errors_verify import PayloadInvalid
from tests.ingest.real_blocks import devchain_payload, load_payload, needs_chaindata, parsed

DECODERS = [decode_block, decode_receipts, decode_receipt, decode_logs]
GARBAGE = [b"", b"{", b"<html></html>", b"[1]", b'"0x"', b"7", b'{"hash": 5}', b"\xff\xfe", b"[{}]"]


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_refused_with_a_code(decode, garbage: bytes) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        decode(garbage)
    assert caught.value.code == "HR-2200"
    assert caught.value.fix_text


@pytest.mark.parametrize("decode", DECODERS)
def test_null_is_none_and_never_empty(decode) -> None:
    assert decode(b"null") is None


def test_a_raw_result_is_decoded_as_its_bytes() -> None:
    block, receipts = devchain_payload(3)
    raw = msgspec.Raw(json.dumps(block).encode())
    decoded = decode_block(raw)
    assert decoded is not None
    assert decoded.hash == block["hash"]
    assert [tx.hash for tx in decoded.transactions or []] == [
        tx["hash"] for tx in block["transactions"]
    ]
    logs = decode_receipts(msgspec.Raw(json.dumps(receipts).encode()))
    assert logs is not None
    assert [len(receipt.logs) for receipt in logs] == [len(r["logs"]) for r in receipts]


def test_a_block_without_whole_transactions() -> None:
    block, _ = devchain_payload(3)
    hashes = [tx["hash"] for tx in block["transactions"]]
    assert parsed(block | {"transactions": hashes}).transactions == hashes
    header = {name: block[name] for name in (*HEADER_FIELDS, "hash") if name in block}
    assert parsed(header).transactions is None


def test_extra_header_fields_survive() -> None:
    block, _ = devchain_payload(3)
    assert extra_header_fields(parsed(block)) == {}
    more = {"ofTomorrow": "0x01", "slotNumber": None, "nested": {"a": [1]}}
    found = extra_header_fields(parsed(block | more | {"totalDifficulty": "0x0"}))
    assert found == {"ofTomorrow": "0x01", "nested": {"a": [1]}}


def test_a_field_cannot_stand_in_for_the_kept_json() -> None:
    block, _ = devchain_payload(3)
    decoded = parsed(block | {"(source)": None, "more": 1})
    assert extra_header_fields(decoded) == {"more": 1}


@pytest.mark.parametrize("name", ["hash", "number", "parentHash", "timestamp"])
def test_a_missing_header_field_is_named(name: str) -> None:
    block, _ = devchain_payload(3)
    del block[name]
    with pytest.raises(PayloadInvalid, match=name):
        decode_block(json.dumps(block).encode())


@needs_chaindata
def test_deposit_transactions_of_the_op_stack() -> None:
    block, _ = load_payload("optimism", 107728767)
    deposit = parsed(block).transactions[0]
    assert (deposit.type, deposit.is_system_tx, deposit.mint) == ("0x7e", False, "0x0")
    assert deposit.source_hash == block["transactions"][0]["sourceHash"]
