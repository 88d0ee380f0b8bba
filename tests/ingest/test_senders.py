"""Senders are recovered as eth-account does, which shares no code with ingest."""

from __future__ import annotations

from typing import Any

import pytest
from eth_account import Account

from ingest.build import build_block_columns
from ingest.encode_transactions import encode_transactions
from ingest.senders import recover_senders, signed_chain_id
from ingest.verify import prove_segment
from schemas.tables import Verification
from tests.ingest.real_blocks import busy_block, devchain_payload, parsed, parsed_receipts

Json = dict[str, Any]


def _recovered(block: Json) -> tuple[list[bytes | None], list[bytes]]:
    transactions = build_block_columns([parsed(block)]).transactions
    encoded = encode_transactions(transactions)
    known = [payload for payload in encoded if payload]
    assert len(known) == len(encoded)
    return recover_senders(transactions, encoded), known


def test_every_type_is_recovered_as_by_another_library() -> None:
    kinds = set()
    for number in range(1, 12):
        block, _ = devchain_payload(number)
        found, encoded = _recovered(block)
        kinds |= {tx["type"] for tx in block["transactions"]}
        for tx, sender, payload in zip(block["transactions"], found, encoded, strict=True):
            assert sender is not None
            assert "0x" + sender.hex() == tx["from"]
            if tx["type"] != "0x3":  # It wants the blobs, too.
                assert Account.recover_transaction(payload).lower() == tx["from"]
    assert kinds == {"0x0", "0x1", "0x2", "0x3", "0x4"}


def _legacy(**changes: Any) -> Json:
    """A devchain block with one legacy transaction that names no chain."""
    block, _ = devchain_payload(busy_block())
    fields = {"nonce": 7, "gasPrice": 10**9, "gas": 21_000, "to": b"\x11" * 20, "value": 5}
    signed = Account.sign_transaction({**fields, "data": b""}, b"\x07" * 32)
    tx = {
        "hash": "0x" + bytes(signed.hash).hex(),
        "from": Account.from_key(b"\x07" * 32).address.lower(),
        "to": "0x" + "11" * 20,
        "input": "0x",
        "type": "0x0",
    }
    tx |= {name: hex(int(fields[name])) for name in ("nonce", "gasPrice", "gas", "value")}
    tx |= {name: hex(getattr(signed, name)) for name in ("v", "r", "s")}
    return block | {"transactions": [tx | changes]}


def test_a_legacy_signature_that_names_no_chain() -> None:
    block = _legacy()
    assert block["transactions"][0]["v"] in ("0x1b", "0x1c")
    (sender,), _ = _recovered(block)
    assert sender is not None
    assert "0x" + sender.hex() == block["transactions"][0]["from"]
    assert [signed_chain_id(v) for v in (27, 28, 35, 36, 37, 2709)] == [None, None, 0, 0, 1, 1337]


@pytest.mark.parametrize(
    "changes",
    [
        {"r": "0x0", "s": "0x0", "v": "0x0"},
        {"r": "0x1", "s": "0x1"},
        {"r": "0x" + "5a" * 20, "s": "0x" + "5a" * 20},
        {"r": "0x" + "ff" * 32},
        {"v": "0x5"},
    ],
    ids=str,
)
def test_what_no_key_signed_has_no_sender(changes: Json) -> None:
    (sender,), _ = _recovered(_legacy(**changes))
    assert sender is None


def test_a_proven_block_says_that_senders_are_proven() -> None:
    block, receipts = devchain_payload(busy_block())
    for tx in block["transactions"]:
        if tx["type"] == "0x0":
            tx.pop("chainId", None)
    proven = prove_segment([parsed(block)], [parsed_receipts(receipts)], Verification.full)
    assert "senders" in proven.verdict.proven
    assert not any("senders" in word for word in proven.verdict.unproven)
    chain_ids: Any = proven.columns.transactions.columns["chain_id"]
    assert chain_ids.valid.all()
    assert set(chain_ids.values.tolist()) == {1337}
