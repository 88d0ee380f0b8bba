"""Make the JSON that a node would serve from the consensus RLP of blocks and receipts.

Senders are recovered by eth-account, which shares no code with the proofs that are tested.
"""

from __future__ import annotations

from typing import Any

import rlp
from eth_account import Account

from ingest.keccak import keccak

Json = dict[str, Any]

HEADER = (
    ("parentHash", 32),
    ("sha3Uncles", 32),
    ("miner", 20),
    ("stateRoot", 32),
    ("transactionsRoot", 32),
    ("receiptsRoot", 32),
    ("logsBloom", 256),
    ("difficulty", 0),
    ("number", 0),
    ("gasLimit", 0),
    ("gasUsed", 0),
    ("timestamp", 0),
    ("extraData", -1),
    ("mixHash", 32),
    ("nonce", 8),
    ("baseFeePerGas", 0),
    ("withdrawalsRoot", 32),
    ("blobGasUsed", 0),
    ("excessBlobGas", 0),
    ("parentBeaconBlockRoot", 32),
    ("requestsHash", 32),
)
CALL = ("gas", "to", "value", "input")
FEES = ("chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas")
SIGNATURE = ("v", "r", "s")
LAYOUTS = {
    0: ("nonce", "gasPrice", *CALL, *SIGNATURE),
    1: ("chainId", "nonce", "gasPrice", *CALL, "accessList", *SIGNATURE),
    2: (*FEES, *CALL, "accessList", *SIGNATURE),
    3: (*FEES, *CALL, "accessList", "maxFeePerBlobGas", "blobVersionedHashes", *SIGNATURE),
    4: (*FEES, *CALL, "accessList", "authorizationList", *SIGNATURE),
}


def quantity(raw: bytes) -> str:
    return hex(int.from_bytes(raw, "big"))


def text(raw: bytes) -> str:
    return "0x" + raw.hex()


def header_json(fields: list[bytes]) -> Json:
    """A header; fields beyond those that this version knows are named field21, field22, …"""
    block: Json = {"hash": text(keccak(rlp.encode(fields)))}
    for (name, width), raw in zip(HEADER, fields, strict=False):
        block[name] = quantity(raw) if width == 0 else text(raw)
    for place, raw in enumerate(fields[len(HEADER) :], len(HEADER)):
        block[f"field{place}"] = text(raw)
    return block


def _transaction(item: bytes | list[bytes], index: int, block: Json) -> Json:
    kind, payload = (0, item) if isinstance(item, list) else (item[0], rlp.decode(item[1:]))
    raw = rlp.encode(item) if isinstance(item, list) else item
    # Blob transactions of a block body come without their sidecar, so the payload is flat.
    tx: Json = {
        "hash": text(keccak(raw)),
        "type": hex(kind),
        "from": Account.recover_transaction(raw).lower(),
        "blockHash": block["hash"],
        "blockNumber": block["number"],
        "transactionIndex": hex(index),
    }
    for name, value in zip(LAYOUTS[kind], payload, strict=True):
        if name == "accessList":
            tx[name] = [
                {"address": text(address), "storageKeys": [text(key) for key in keys]}
                for address, keys in value
            ]
        elif name == "blobVersionedHashes":
            tx[name] = [text(one) for one in value]
        elif name == "authorizationList":
            fields = ("chainId", "address", "nonce", "yParity", "r", "s")
            tx[name] = [
                {
                    field: text(part) if field == "address" else quantity(part)
                    for field, part in zip(fields, grant, strict=True)
                }
                for grant in value
            ]
        elif name == "to":
            tx[name] = text(value) if value else None
        elif name == "input":
            tx[name] = text(value)
        else:
            tx[name] = quantity(value)
    if kind:
        tx["yParity"] = tx["v"]
    return tx


def block_json(decoded: list[Any]) -> Json:
    """A block from its decoded RLP: header, transactions, ommers, and withdrawals if any."""
    block = header_json(decoded[0])
    block["transactions"] = [
        _transaction(item, index, block) for index, item in enumerate(decoded[1])
    ]
    if len(decoded) > 3:
        block["withdrawals"] = [
            {
                "index": quantity(index),
                "validatorIndex": quantity(validator),
                "address": text(address),
                "amount": quantity(amount),
            }
            for index, validator, address, amount in decoded[3]
        ]
    return block


def receipts_json(items: list[Any], block: Json) -> list[Json]:
    """The receipts of a block from their decoded RLP."""
    receipts, log_index, before = [], 0, 0
    for index, (item, tx) in enumerate(zip(items, block["transactions"], strict=True)):
        kind, payload = (0, item) if isinstance(item, list) else (item[0], rlp.decode(item[1:]))
        outcome, gas, bloom, logs = payload
        place = {
            "blockHash": block["hash"],
            "blockNumber": block["number"],
            "transactionHash": tx["hash"],
            "transactionIndex": hex(index),
        }
        total = int.from_bytes(gas, "big")
        receipt: Json = place | {
            "type": hex(kind),
            "cumulativeGasUsed": hex(total),
            "gasUsed": hex(total - before),
            "logsBloom": text(bloom),
            "logs": [],
        }
        receipt |= {"root": text(outcome)} if len(outcome) == 32 else {"status": quantity(outcome)}
        if tx["to"] is None:
            creator = [bytes.fromhex(tx["from"][2:]), int(tx["nonce"], 16)]
            receipt["contractAddress"] = text(keccak(rlp.encode(creator))[12:])
        before = total
        for address, topics, payload_bytes in logs:
            log = place | {
                "address": text(address),
                "topics": [text(topic) for topic in topics],
                "data": text(payload_bytes),
                "logIndex": hex(log_index),
                "removed": False,
            }
            log_index += 1
            receipt["logs"].append(log)
        receipts.append(receipt)
    return receipts
