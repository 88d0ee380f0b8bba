"""Columns of the table ``blocks`` in, the RLP that each block's hash covers out.

The fields up to the nonce are the same on every chain. What follows was added by forks; chains
that forked otherwise are dialects, told by a field that only they have. Fields that no column
holds are read from ``unknown_fields``. A dialect is a guess that only the hash can confirm, so a
wrong one proves nothing false.

Source: Yellow Paper 4.3, EIP-1559, 4895, 4844, 4788, 7685. Avalanche's order was confirmed by the
hashes of C-Chain blocks from before Durango and from after Helicon.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ingest.encode import BLOOM
from ingest.rlp import encode_bytes, encode_list, encode_uint
from ingest.rlpcolumns import (
    ADDRESS,
    byte_parts,
    fixed_parts,
    optional_parts,
    uint_parts,
    word_parts,
)
from schemas.columns import ColumnBlock

_ETHEREUM = (
    "base_fee_per_gas_wei",
    "withdrawals_root",
    "blob_gas_used",
    "excess_blob_gas",
    "parent_beacon_block_root",
    "requests_hash",
)
"""Columns that follow the nonce, in order; those that are null are left out."""

_AVALANCHE = (
    "extDataHash",
    "base_fee_per_gas_wei",
    "extDataGasUsed",
    "blockGasCost",
    "blob_gas_used",
    "excess_blob_gas",
    "parent_beacon_block_root",
    "timestampMilliseconds",
    "minDelayExcess",
    "targetExponent",
    "minPriceExponent",
    "settledHeight",
    "settledGasUnix",
    "settledGasNumerator",
    "settledExcess",
)
"""As `_ETHEREUM`; names that are no columns are JSON fields."""

_DIALECTS = {"extDataHash": _AVALANCHE}
"""What follows the nonce, by the JSON field that tells the dialect."""

_BYTES_FIELDS = frozenset({"extDataHash"})
"""JSON fields of dialects that are bytes; the others are numbers."""


def encode_headers(blocks: ColumnBlock) -> list[bytes]:
    """The RLP of each header, whose keccak is the block's hash.

    Parameters
    ----------
    blocks : ColumnBlock
        Rows of the table ``blocks``.

    Returns
    -------
    list of bytes
        One a block. Fields that this version does not know are not in it.
    """
    column: dict[str, Any] = blocks.columns
    required = [
        word_parts(column["parent_hash"]),
        word_parts(column["ommers_hash"]),
        fixed_parts(column["miner"], ADDRESS),
        word_parts(column["state_root"]),
        word_parts(column["transactions_root"]),
        word_parts(column["receipts_root"]),
        fixed_parts(column["logs_bloom"], BLOOM),
        uint_parts(column["difficulty"]),
        uint_parts(column["block_number"]),
        uint_parts(column["gas_limit"]),
        uint_parts(column["gas_used"]),
        uint_parts(column["block_time"]),
        byte_parts(column["extra_data"]),
        word_parts(column["mix_hash"]),
        fixed_parts(column["nonce"], b"\x88"),
    ]
    later = [
        optional_parts(column[name], word_parts if name.endswith(("root", "hash")) else uint_parts)
        for name in _ETHEREUM
    ]
    heads, tails = zip(*required, strict=True), zip(*later, strict=True)
    texts = column["unknown_fields"]
    ends, raw = texts.offsets.tolist(), texts.values.tobytes()
    encoded = []
    for row, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        if ends[row] < ends[row + 1]:
            tail = _dialect_tail(raw[ends[row] : ends[row + 1]], tail)
        encoded.append(encode_list([*head, *[part for part in tail if part is not None]]))
    return encoded


def _dialect_tail(unknown: bytes, tail: tuple[bytes | None, ...]) -> tuple[bytes | None, ...]:
    """What follows the nonce where a header has fields that no column holds."""
    parts = dict(zip(_ETHEREUM, tail, strict=True))
    try:
        fields = msgspec.json.decode(unknown, type=dict[str, Any])
        order = next(order for mark, order in _DIALECTS.items() if mark in fields)
        for name in order:
            if name in fields:
                parts[name] = _json_part(name, fields[name])
    except (StopIteration, TypeError, ValueError):
        return tail
    return tuple(parts.get(name) for name in order)


def _json_part(name: str, text: str) -> bytes:
    if name in _BYTES_FIELDS:
        return encode_bytes(bytes.fromhex(text[2:]))
    return encode_uint(int(text, 16))
