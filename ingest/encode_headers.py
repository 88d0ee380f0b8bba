"""Encode headers as RLP, which each block's hash covers, from columns of the table ``blocks``.

The fields up to the extra data are the same on every chain. The seal follows: mix hash and nonce,
or the two fields of an AuRa chain. The rest was added by forks; chains that forked otherwise are
dialects, recognised by a field that only they have. Fields that no column holds are read from the
column ``extra``. A dialect is a guess that only the hash can confirm, so a wrong one proves nothing
false.

Source: Yellow Paper 4.3, EIP-1559, 4895, 4844, 4788, 7685, 7928, 7843; OpenEthereum for
``sealFields``. Avalanche's order was confirmed by the hashes of C-Chain blocks from before Durango
and from after Helicon.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    "block_access_list_hash",
    "slot_number",
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


_SEAL = 2
"""Items of a header's seal."""


def encode_headers(blocks: ColumnBlock) -> list[bytes | None]:
    """The RLP of each header, whose keccak is the block's hash.

    Parameters
    ----------
    blocks : ColumnBlock
        Rows of the table ``blocks``.

    Returns
    -------
    list of bytes or None
        One a block. Fields that this version does not know are not in it. None where a field
        that every header has is null.
    """
    column: dict[str, Any] = blocks.columns
    heads = zip(
        word_parts(column["parent_hash"]),
        optional_parts(column["ommers_hash"], word_parts),
        optional_parts(column["miner"], lambda values: fixed_parts(values, ADDRESS)),
        optional_parts(column["state_root"], word_parts),
        optional_parts(column["transactions_root"], word_parts),
        optional_parts(column["receipts_root"], word_parts),
        optional_parts(column["logs_bloom"], lambda values: fixed_parts(values, BLOOM)),
        optional_parts(column["difficulty"], uint_parts),
        uint_parts(column["block_number"]),
        optional_parts(column["gas_limit"], uint_parts),
        optional_parts(column["gas_used"], uint_parts),
        uint_parts(column["block_time"]),
        optional_parts(column["extra_data"], byte_parts),
        strict=True,
    )
    seals: Iterable[tuple[bytes | None, ...]] = zip(
        optional_parts(column["mix_hash"], word_parts),
        optional_parts(column["nonce"], lambda values: fixed_parts(values, b"\x88")),
        strict=True,
    )
    later = [
        optional_parts(column[name], word_parts if name.endswith(("root", "hash")) else uint_parts)
        for name in _ETHEREUM
    ]
    texts = column["extra"]
    ends, raw = texts.offsets.tolist(), texts.values.tobytes()
    encoded: list[bytes | None] = []
    tails = zip(*later, strict=True)
    for row, (head, seal, tail) in enumerate(zip(heads, seals, tails, strict=True)):
        if ends[row] < ends[row + 1]:
            fields = _json_object(raw[ends[row] : ends[row + 1]])
            seal, tail = _seal(fields, seal), _dialect_tail(fields, tail)
        needed = [part for part in (*head, *seal) if part is not None]
        if len(needed) < len(head) + _SEAL:
            encoded.append(None)
        else:
            encoded.append(encode_list([*needed, *[part for part in tail if part is not None]]))
    return encoded


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def _seal(fields: dict[str, Any], seal: tuple[bytes | None, ...]) -> tuple[bytes | None, ...]:
    """The two items of the seal; from ``sealFields``, which are RLP, where a column is null.

    Items of other numbers are refused: they could hide fields that follow the seal. So are items
    of 32 and 8 bytes, which are mix hash and nonce and have columns of their own.
    """
    if None not in seal or "sealFields" not in fields:
        return seal
    try:
        items = [bytes.fromhex(text[2:]) for text in fields["sealFields"]]
    except (TypeError, ValueError):
        return seal
    sizes = [_string_size(item) for item in items]
    if len(items) != _SEAL or None in sizes or sizes == [32, 8]:
        return seal
    return tuple(items)


def _string_size(item: bytes) -> int | None:
    """The size of the one RLP string that `item` is; None where it is anything else."""
    if len(item) == 1 and item[0] < 0x80:
        return 1
    if item and 0x80 <= item[0] <= 0xB7:
        size = item[0] - 0x80
        return size if len(item) == size + 1 else None
    if len(item) > 1 and item[0] == 0xB8 and item[1] > 55:
        return item[1] if len(item) == item[1] + 2 else None
    return None


def _dialect_tail(
    fields: dict[str, Any], tail: tuple[bytes | None, ...]
) -> tuple[bytes | None, ...]:
    """What follows the nonce where a header has fields that no column holds."""
    parts = dict(zip(_ETHEREUM, tail, strict=True))
    order = next((order for mark, order in _DIALECTS.items() if mark in fields), None)
    if order is None:
        return tail
    try:
        for name in order:
            if name in fields:
                parts[name] = _json_part(name, fields[name])
    except (TypeError, ValueError):
        return tail
    return tuple(parts.get(name) for name in order)


def _json_part(name: str, text: str) -> bytes:
    if name in _BYTES_FIELDS:
        return encode_bytes(bytes.fromhex(text[2:]))
    return encode_uint(int(text, 16))
