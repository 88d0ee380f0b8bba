"""JSON of blocks and receipts in, hashes and roots computed by other code than ours out."""

from collections.abc import Sequence
from typing import Any

import rlp
from eth_utils import keccak

EMPTY_ROOT = keccak(rlp.encode(b""))


def number(text: str) -> int:
    return int(text, 16)


def raw(text: str | None) -> bytes:
    return bytes.fromhex(text[2:]) if text else b""


def _compact(nibbles: Sequence[int], leaf: bool) -> bytes:
    flag = 2 * leaf + len(nibbles) % 2
    padded = [flag, *nibbles] if len(nibbles) % 2 else [flag, 0, *nibbles]
    return bytes(16 * high + low for high, low in zip(padded[::2], padded[1::2], strict=True))


def _node(entries: list[tuple[list[int], bytes]]) -> Any:
    if not entries:
        return b""
    if len(entries) == 1:
        return [_compact(entries[0][0], leaf=True), entries[0][1]]
    first = entries[0][0]
    shared = 0
    while all(len(path) > shared and path[shared] == first[shared] for path, _ in entries):
        shared += 1
    if shared:
        below = _node([(path[shared:], value) for path, value in entries])
        return [_compact(first[:shared], leaf=False), _reference(below)]
    branches = [
        _reference(_node([(path[1:], value) for path, value in entries if path[:1] == [nibble]]))
        for nibble in range(16)
    ]
    return [*branches, next((value for path, value in entries if not path), b"")]


def _reference(node: Any) -> Any:
    encoded = rlp.encode(node)
    return node if node == b"" or len(encoded) < 32 else keccak(encoded)


def trie_root(values: Sequence[bytes]) -> bytes:
    entries = []
    for index, value in enumerate(values):
        key = rlp.encode(index)
        entries.append(([nibble for byte in key for nibble in divmod(byte, 16)], value))
    return keccak(rlp.encode(_node(entries)))


def header_hash(block: dict[str, Any]) -> bytes:
    return keccak(rlp.encode(raw_header(block)))


def raw_header(block: dict[str, Any]) -> list[Any]:
    fixed = ["parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot"]
    fields: list[Any] = [raw(block[name]) for name in [*fixed, "logsBloom"]]
    quantities = ["difficulty", "number", "gasLimit", "gasUsed", "timestamp"]
    fields += [number(block[name]) for name in quantities]
    fields += [raw(block[name]) for name in ("extraData", "mixHash", "nonce")]
    fields += [number(block["baseFeePerGas"]), raw(block["withdrawalsRoot"])]
    fields += [number(block["blobGasUsed"]), number(block["excessBlobGas"])]
    fields += [raw(block["parentBeaconBlockRoot"]), raw(block["requestsHash"])]
    return fields


def bloom_of(logs: list[dict[str, Any]]) -> bytes:
    bits = 0
    for log in logs:
        for value in [log["address"], *log["topics"]]:
            digest = keccak(raw(value))
            for start in (0, 2, 4):
                bits |= 1 << (int.from_bytes(digest[start : start + 2], "big") % 2048)
    return bits.to_bytes(256, "big")


def encode_receipt(receipt: dict[str, Any]) -> bytes:
    logs = [
        [raw(log["address"]), [raw(topic) for topic in log["topics"]], raw(log["data"])]
        for log in receipt["logs"]
    ]
    body = rlp.encode(
        [
            number(receipt["status"]),
            number(receipt["cumulativeGasUsed"]),
            raw(receipt["logsBloom"]),
            logs,
        ]
    )
    kind = number(receipt["type"])
    return (bytes([kind]) if kind else b"") + body


def encode_transaction(sent: dict[str, Any]) -> bytes:
    kind = number(sent["type"])
    call = [number(sent["gas"]), raw(sent["to"]), number(sent["value"]), raw(sent["input"])]
    signature = [number(sent[name]) for name in "vrs"]
    if kind == 0:
        return rlp.encode([number(sent["nonce"]), number(sent["gasPrice"]), *call, *signature])
    head = [number(sent["chainId"]), number(sent["nonce"])]
    access = [
        [raw(entry["address"]), [raw(key) for key in entry["storageKeys"]]]
        for entry in sent["accessList"]
    ]
    if kind == 1:
        fields = [*head, number(sent["gasPrice"]), *call, access]
    else:
        fees = [number(sent["maxPriorityFeePerGas"]), number(sent["maxFeePerGas"])]
        fields = [*head, *fees, *call, access]
    if kind == 3:
        hashes = [raw(versioned) for versioned in sent["blobVersionedHashes"]]
        fields += [number(sent["maxFeePerBlobGas"]), hashes]
    if kind == 4:
        names = ("chainId", "address", "nonce", "yParity", "r", "s")
        fields.append(
            [
                [raw(g[name]) if name == "address" else number(g[name]) for name in names]
                for g in sent["authorizationList"]
            ]
        )
    return bytes([kind]) + rlp.encode([*fields, *signature])


def encode_withdrawal(withdrawal: dict[str, Any]) -> bytes:
    names = ("index", "validatorIndex", "address", "amount")
    return rlp.encode(
        [raw(withdrawal[n]) if n == "address" else number(withdrawal[n]) for n in names]
    )
