"""JSON of transactions in, the columns that they fill out: the quick reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ingest.build_transactions import (
    TRANSACTION_FIELDS,
    nested_columns,
)
from ingest.hexcolumns import AnyRows
from ingest.objectlayout import Irregular, Shape
from ingest.objectscan import PAD_BEFORE, PAD_BEHIND, Located, locate
from ingest.placedcolumns import placed_columns
from ingest.quantitydigits import rare_places
from ingest.tablecolumns import block_rows
from ingest.wire import AccessTuple, Authorization, BlockFields, Transaction
from schemas.columns import Bytes, Column, Nullable, Ragged
from schemas.errors import HeadraceError
from schemas.kinds import Kind, parse_kind
from schemas.tables import TRANSACTION_TABLE

_JSON_KEYS = dict(
    zip(Transaction.__struct_fields__, Transaction.__struct_encode_fields__, strict=True)
)
_LISTS: dict[str, msgspec.json.Decoder[Any]] = {
    "access_list": msgspec.json.Decoder(list[AccessTuple] | None),
    "blob_versioned_hashes": msgspec.json.Decoder(list[str] | None),
    "authorization_list": msgspec.json.Decoder(list[Authorization] | None),
}
"""Fields that hold lists, and who reads them."""
_FIELDS: dict[str, Kind] = {
    attribute: TRANSACTION_TABLE.column(name).kind for name, attribute in TRANSACTION_FIELDS.items()
} | {
    "nonce": parse_kind("u64"),
    "type": parse_kind("?u8"),
    "v": parse_kind("?u256"),
    "y_parity": parse_kind("?u256"),
    "block_hash": parse_kind("bytes32"),
    "transaction_index": parse_kind("u64"),
}
"""Fields that hold hex texts."""
_AT = {attribute: place for place, attribute in enumerate(_FIELDS)}
_SHAPE = Shape(
    tuple(_JSON_KEYS[attribute] for attribute in _FIELDS),
    tuple(_JSON_KEYS[attribute] for attribute in ("is_system_tx", *_LISTS)),
)


class _Lists(msgspec.Struct, gc=False, rename="camel"):
    access_list: msgspec.Raw = msgspec.Raw()
    blob_versioned_hashes: msgspec.Raw = msgspec.Raw()
    authorization_list: msgspec.Raw = msgspec.Raw()


_lists = msgspec.json.Decoder(_Lists)


@dataclass(frozen=True, slots=True)
class ScannedTransactions:
    """The transactions of consecutive blocks as columns, one row each."""

    counts: list[int]
    """Number of transactions of each block."""
    columns: dict[str, Column]
    """The columns of the table ``transactions`` that a transaction's own fields fill."""
    types: Nullable
    """Their types, null where the node names none."""
    block_hash: Bytes
    """uint8[n, 32], as the node says."""
    transaction_index: npt.NDArray[np.uint64]
    """Positions in their blocks, as the node says."""


def scan_transactions(
    blocks: Sequence[BlockFields], bodies: Sequence[Sequence[msgspec.Raw]]
) -> ScannedTransactions:
    """Read the transactions of blocks.

    Parameters
    ----------
    blocks : sequence of BlockFields
        Consecutive blocks.
    bodies : sequence of sequences of msgspec.Raw
        The JSON of each block's transactions; there is one at least.

    Raises
    ------
    Irregular
        They have to be read one by one, as `ingest.build_transactions` does: then what is wrong
        with one is named. What is scanned is always what would be read.
    """
    texts: list[Any] = [text for body in bodies for text in body]
    lists = _take_lists(texts)
    text = b"".join((PAD_BEFORE, b",".join(texts), PAD_BEHIND))
    if b"\\" in text:
        raise Irregular
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.cumsum(sizes + 1) + (len(PAD_BEFORE) - 1)
    begins = ends - sizes
    quotes = np.flatnonzero(np.frombuffer(text, np.uint8) == ord('"'))
    marks = np.diff(np.searchsorted(quotes, begins), append=len(quotes))
    located = locate(text, quotes, begins, ends, marks, _SHAPE)
    _choose_parity(text, located)
    kinds = list(_FIELDS.values())
    decoded = placed_columns(text, located.starts, located.ends, located.given, kinds)
    fields: dict[str, Any] = dict(zip(_FIELDS, decoded, strict=True))
    columns = {name: fields[attribute] for name, attribute in TRANSACTION_FIELDS.items()}
    columns |= {"nonce": fields["nonce"], "type": fields["type"].values, "v": fields["v"]}
    counts = list(map(len, bodies))
    columns |= _constant_columns(blocks, counts, located, lists)
    return ScannedTransactions(
        counts, columns, fields["type"], fields["block_hash"], fields["transaction_index"]
    )


def _take_lists(texts: list[Any]) -> dict[tuple[str, int], Any]:
    """Take the contents out of lists, which differ in length; by field and transaction.

    The texts in which there are some are replaced by others, with empty lists.
    """
    codes = np.frombuffer(b",".join(texts) + b"]", np.uint8)
    opened = rare_places(codes, "[")
    opened = opened[codes[opened + 1] != ord("]")]
    lists: dict[tuple[str, int], Any] = {}
    if not len(opened):
        return lists
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
    for row in sorted({*np.searchsorted(ends, opened, "right").tolist()}):
        text = bytes(texts[row])
        try:
            found = _lists.decode(text)
            for attribute, decoder in _LISTS.items():
                raw = bytes(getattr(found, attribute))
                if len(raw) > 2 and raw != b"null":
                    lists[attribute, row] = decoder.decode(raw)
                    key = b'"%s":' % _JSON_KEYS[attribute].encode()
                    text = text.replace(key + raw, key + b"[]", 1)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Irregular from None
        texts[row] = text
    return lists


def _choose_parity(text: bytes, located: Located) -> None:
    """Let v be y_parity where there is one, but for transactions that say to be of type 0x0."""
    starts, ends, given = located.starts, located.ends, located.given
    v, parity, kind = _AT["v"], _AT["y_parity"], _AT["type"]
    codes = np.frombuffer(text, np.uint8)
    legacy = (ends[:, kind] - starts[:, kind] == 1) & (codes[starts[:, kind]] == ord("0"))
    taken = given[:, parity] & ~(legacy | ~given[:, kind])
    for places in (starts, ends, given):
        places[:, v] = np.where(taken, places[:, parity], places[:, v])


def _constant_columns(
    blocks: Sequence[BlockFields],
    counts: list[int],
    located: Located,
    lists: dict[tuple[str, int], Any],
) -> dict[str, Column]:
    """Columns of lists and flags, whose values are the same in all objects of one layout."""
    constants = [layout.constants for layout in located.layouts]
    for first, *more in (constants[layout] for layout in {*located.layout.tolist()}):
        if first == [] or True in more or False in more:
            raise Irregular
    system = np.array([layout[0] is not None for layout in constants], np.bool_)
    is_system = np.array([layout[0] is True for layout in constants], np.uint8)
    has_access = np.array([layout[1] is not None for layout in constants], np.uint8)
    try:
        columns = _list_columns(sum(counts), lists, block_rows(blocks, counts))
    except HeadraceError:
        raise Irregular from None
    columns["has_access_list"] = has_access[located.layout]
    columns["is_system_transaction"] = Nullable(system[located.layout], is_system[located.layout])
    return columns


def _list_columns(
    count: int, lists: dict[tuple[str, int], Any], rows: AnyRows
) -> dict[str, Column]:
    """Columns of lists, where few of the transactions have some."""
    own = sorted({row for _, row in lists})
    found = {attribute: [lists.get((attribute, row)) for row in own] for attribute in _LISTS}
    columns = nested_columns(found, rows)
    # A row's list ends where that of the last row with one ends.
    before = np.searchsorted(own, np.arange(count + 1), "left")
    for name in _LISTS:
        column = columns[name]
        assert isinstance(column, Ragged)
        columns[name] = Ragged(column.offsets[before], column.values)
    return columns
