"""Columns of the table ``transactions`` in, the encodings that their hashes cover out.

Source: EIP-2718, 2930, 1559, 4844, 7702, and the OP-stack specification of deposits.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.rlp import EMPTY_BYTES, EMPTY_LIST, encode_list
from ingest.rlpcolumns import (
    ADDRESS,
    byte_parts,
    fixed_parts,
    optional_parts,
    uint_parts,
    word_parts,
)
from schemas.columns import Column, ColumnBlock, Nullable, Ragged, Struct

_SIGNATURE = ("v", "r", "s")
_CALL = ("gas_limit", "to_address", "value_wei", "input")
_FEES = ("chain_id", "nonce", "max_priority_fee_per_gas_wei", "max_fee_per_gas_wei")

LAYOUTS: dict[int, tuple[str, ...]] = {
    0: ("nonce", "gas_price_wei", *_CALL, *_SIGNATURE),
    1: ("chain_id", "nonce", "gas_price_wei", *_CALL, "access_list", *_SIGNATURE),
    2: (*_FEES, *_CALL, "access_list", *_SIGNATURE),
    3: (
        *_FEES,
        *_CALL,
        "access_list",
        "max_fee_per_blob_gas_wei",
        "blob_versioned_hashes",
        *_SIGNATURE,
    ),
    4: (*_FEES, *_CALL, "access_list", "authorization_list", *_SIGNATURE),
}
"""The fields of each transaction type of Ethereum, in the order of its encoding."""

_DEPOSIT = (
    "source_hash",
    "from_address",
    "to_address",
    "mint_wei",
    "value_wei",
    "gas_limit",
    "is_system_transaction",
    "input",
)
"""The fields of an OP-stack deposit. It is known by its source hash, for other chains use the
number of its type, too."""

_EMPTY_WHERE_ABSENT = frozenset({"to_address", "mint_wei", "is_system_transaction"})
"""Fields whose absence is encoded as the empty string."""


def encode_transactions(transactions: ColumnBlock) -> list[bytes | None]:
    """The encoding of each transaction, whose keccak is its hash.

    Parameters
    ----------
    transactions : ColumnBlock
        Rows of the table ``transactions``.

    Returns
    -------
    list of bytes or None
        None for a type that this version does not know; empty where a field that the type needs
        is null, so that it has no encoding.
    """
    kinds, layouts = _layouts_of(transactions)
    present = {layout for layout in layouts if layout is not None}
    parts = {
        name: _field_parts(name, transactions.columns[name])
        for name in {name for layout in present for name in layout}
    }
    encoded: list[bytes | None] = []
    for row, (kind, layout) in enumerate(zip(kinds, layouts, strict=True)):
        if layout is None:
            encoded.append(None)
            continue
        pieces = [parts[name][row] for name in layout]
        given = [piece for piece in pieces if piece is not None]
        if len(given) < len(pieces):
            encoded.append(b"")
            continue
        payload = encode_list(given)
        encoded.append(bytes((kind,)) + payload if kind else payload)
    return encoded


def unknown_types(transactions: ColumnBlock) -> npt.NDArray[np.bool_]:
    """Which transactions are of a type that this version cannot encode."""
    return np.array([layout is None for layout in _layouts_of(transactions)[1]], np.bool_)


def _layouts_of(transactions: ColumnBlock) -> tuple[list[int], list[tuple[str, ...] | None]]:
    """The type of each transaction, and the fields of its encoding; None where not known."""
    columns: dict[str, Any] = transactions.columns
    kinds: list[int] = columns["type"].tolist()
    layouts = [LAYOUTS.get(kind) for kind in kinds]
    for row in np.flatnonzero(columns["source_hash"].valid).tolist():
        layouts[row] = layouts[row] or _DEPOSIT
    return kinds, layouts


def _field_parts(name: str, column: Column) -> list[bytes | None]:
    """Each row of a column as RLP; None where it is null and the encoding needs it."""
    if name == "access_list":
        return [*_access_lists(column)]
    if name == "authorization_list":
        return [*_authorizations(column)]
    if name == "blob_versioned_hashes":
        assert isinstance(column, Ragged)
        return [*_lists(word_parts(column.values), column)]
    nullable = isinstance(column, Nullable)
    values: Any = column.values if isinstance(column, Nullable) else column
    encode: Callable[[Any], list[bytes]] = uint_parts
    if isinstance(values, Ragged):
        encode = byte_parts
    elif name == "source_hash":
        encode = word_parts
    elif name in ("to_address", "from_address"):
        encode = _address_parts
    parts = optional_parts(column, encode) if nullable else [*encode(values)]
    if name in _EMPTY_WHERE_ABSENT:
        return [EMPTY_BYTES if part is None else part for part in parts]
    return [*parts]


def _address_parts(values: Any) -> list[bytes]:
    return fixed_parts(values, ADDRESS)


def _lists(parts: list[bytes], column: Ragged) -> list[bytes]:
    """The RLP list of each row, where `parts` are the RLP of the column's values."""
    ends = column.offsets.tolist()
    if not parts:
        return [EMPTY_LIST] * (len(ends) - 1)
    return [encode_list(parts[a:b]) for a, b in pairwise(ends)]


def _access_lists(column: Column) -> list[bytes]:
    assert isinstance(column, Ragged)
    assert isinstance(column.values, Struct)
    addresses, keys = column.values.fields
    assert isinstance(keys, Ragged)
    pairs = zip(_address_parts(addresses), _lists(word_parts(keys.values), keys), strict=True)
    return _lists([encode_list(pair) for pair in pairs], column)


def _authorizations(column: Column) -> list[bytes]:
    assert isinstance(column, Ragged)
    assert isinstance(column.values, Struct)
    chain_id, address, nonce, parity, r, s = column.values.fields
    fields = (
        uint_parts(chain_id),
        _address_parts(address),
        uint_parts(nonce),
        uint_parts(parity),
        uint_parts(r),
        uint_parts(s),
    )
    return _lists([encode_list(part) for part in zip(*fields, strict=True)], column)
