"""Make blocks whose headers are of other forms than the devchain's, with their true hashes."""

from __future__ import annotations

from typing import Any

import rlp

from ingest.keccak import keccak
from ingest.trie import ordered_root
from ingest.wire import HEADER_FIELDS
from tests.infra.devchain.oracles import encode_receipt
from tests.ingest.real_blocks import devchain_payload

Json = dict[str, Any]

AMSTERDAM = {"blockAccessListHash": "0x" + "7b" * 32, "slotNumber": "0x2a"}
"""The header fields that Amsterdam adds."""
STEP, SIGNATURE = b"\x84\x12\x34\x56\x78", b"\xb8\x41" + b"\x5a" * 65
"""The seal of an AuRa header: its two fields, as RLP."""


def header_item(name: str, text: str) -> bytes | int:
    """A header field as `rlp` takes it."""
    numbers = ("difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas")
    if name in (*numbers, "blobGasUsed", "excessBlobGas", "slotNumber"):
        return int(text, 16)
    return bytes.fromhex(text[2:])


def amsterdam_block(number: int = 1) -> tuple[Json, list[Json]]:
    """A devchain block with the fields of Amsterdam, and its receipts."""
    block, receipts = devchain_payload(number)
    block |= AMSTERDAM
    return rehashed(block, receipts)


def rehashed(block: Json, receipts: list[Json]) -> tuple[Json, list[Json]]:
    """The block with the receiptsRoot of these receipts, and the hash that it then has."""
    block["receiptsRoot"] = "0x" + ordered_root([*map(encode_receipt, receipts)]).hex()
    items = [header_item(name, block[name]) for name in HEADER_FIELDS if name in block]
    return _renamed(block, receipts, keccak(rlp.encode(items)))


def aura_block(number: int = 1) -> tuple[Json, list[Json]]:
    """A devchain block with the seal of an AuRa chain, and its receipts."""
    block, receipts = devchain_payload(number)
    del block["mixHash"], block["nonce"]
    before, after = HEADER_FIELDS[:13], HEADER_FIELDS[15:]
    items = [rlp.encode(header_item(name, block[name])) for name in before]
    items += [STEP, SIGNATURE]
    items += [rlp.encode(header_item(name, block[name])) for name in after if name in block]
    payload = b"".join(items)
    size = len(payload).to_bytes(2, "big")
    block["sealFields"] = ["0x" + STEP.hex(), "0x" + SIGNATURE.hex()]
    block |= {"author": block["miner"], "step": "305419896", "signature": "5a" * 65}
    return _renamed(block, receipts, keccak(b"\xf9" + size + payload))


def _renamed(block: Json, receipts: list[Json], block_hash: bytes) -> tuple[Json, list[Json]]:
    text = "0x" + block_hash.hex()
    parts = [block, *block["transactions"], *receipts]
    parts += [log for receipt in receipts for log in receipt["logs"]]
    for part in parts:
        part["hash" if part is block else "blockHash"] = text
    return block, receipts
