"""Build the columns of the table ``transactions`` from transactions and receipts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ingest.extras import extra_transaction_fields
from ingest.hexcolumns import AnyRows, HexTexts, InnerRows, Rows, hex_column, hex_columns, zeros
from ingest.tablecolumns import (
    as_array,
    block_rows,
    drop_unreadable,
    field_texts,
    fill_fields,
    list_offsets,
    nullable_counts,
    positions,
    repeat_identity,
    table_block,
    values_by_field,
)
from ingest.wire import (
    AccessTuple,
    AnyReceipt,
    Authorization,
    Block,
    Transaction,
)
from schemas.columns import Column, ColumnBlock, Nullable, Ragged, Struct, from_python
from schemas.errors_verify import FieldMissing, HexMalformed, QuantityOutOfRange
from schemas.kinds import parse_kind
from schemas.tables import TRANSACTION_TABLE, empty_block

_TRANSACTION_FIELDS = {
    "transaction_hash": "hash",
    "from_address": "from_address",
    "to_address": "to",
    "value_wei": "value",
    "gas_limit": "gas",
    "gas_price_wei": "gas_price",
    "max_fee_per_gas_wei": "max_fee_per_gas",
    "max_priority_fee_per_gas_wei": "max_priority_fee_per_gas",
    "max_fee_per_blob_gas_wei": "max_fee_per_blob_gas",
    "input": "input",
    "chain_id": "chain_id",
    "r": "r",
    "s": "s",
    "source_hash": "source_hash",
    "mint_wei": "mint",
}
"""Columns of ``transactions`` that hold one hex field of the transaction."""

_RECEIPT_FIELDS = {
    "status": "status",
    "cumulative_gas_used": "cumulative_gas_used",
    "gas_used": "gas_used",
    "effective_gas_price_wei": "effective_gas_price",
    "contract_address": "contract_address",
    "blob_gas_used": "blob_gas_used",
    "blob_gas_price_wei": "blob_gas_price",
    "deposit_nonce": "deposit_nonce",
    "deposit_receipt_version": "deposit_receipt_version",
    "l1_fee_wei": "l1_fee",
}
"""Columns of ``transactions`` that hold one hex field of the receipt."""

_NONE = empty_block(TRANSACTION_TABLE)
_LISTS = ("access_list", "blob_versioned_hashes", "authorization_list")
"""Fields of a transaction that are lists."""
_AUTHORIZATION_FIELDS = ("chain_id", "address", "nonce", "y_parity", "r", "s")


def build_transactions(
    blocks: Sequence[Block],
    body: list[list[Transaction]],
    receipts: Sequence[AnyReceipt | None] | None,
    header: dict[str, Column],
    *,
    lenient: bool = False,
) -> ColumnBlock:
    """Build the columns of the table ``transactions``.

    What no column holds of a transaction of unknown form goes to ``extra``: fields that this
    version does not know, and those whose text does not fit their column, which is then null.

    Parameters
    ----------
    blocks : sequence of Block
        The segment's blocks, only read to name one in an error.
    body : list of lists of Transaction
        Each block's transactions.
    receipts : sequence of AnyReceipt or None, optional
        One a transaction, None where a transaction has none.
    header : dict
        The blocks' identity columns, one row a block.
    lenient : bool
        Whether transactions of known form and receipts are treated so, too.

    Returns
    -------
    ColumnBlock
        One row a transaction.

    Raises
    ------
    HexMalformed, QuantityOutOfRange, FieldMissing
        Naming the block, the field and the value.
    """
    transactions = list(chain.from_iterable(body))
    if not transactions:
        return ColumnBlock(TRANSACTION_TABLE.name, 0, dict(_NONE.columns))
    counts = [len(part) for part in body]
    dropped: dict[int, dict[str, Any]] = {}
    try:
        columns = _filled(blocks, counts, transactions, receipts, header)
    except (HexMalformed, QuantityOutOfRange, FieldMissing):
        given = receipts if lenient else None
        dropped = _drop_unreadable(transactions, given, lenient=lenient)
        if not dropped:
            raise
        columns = _filled(blocks, counts, transactions, receipts, header)
    columns["extra"] = _extras(blocks, body, dropped)
    return table_block(TRANSACTION_TABLE, len(transactions), columns)


def _filled(
    blocks: Sequence[Block],
    counts: list[int],
    transactions: list[Transaction],
    receipts: Sequence[AnyReceipt | None] | None,
    header: dict[str, Column],
) -> dict[str, Column]:
    """All columns but ``extra``."""
    rows = block_rows(blocks, counts)
    columns = repeat_identity(header, counts)
    values = values_by_field(transactions)
    wanted = field_texts(TRANSACTION_TABLE, _TRANSACTION_FIELDS, values, "transaction ")
    nonces = values["nonce"]
    if receipts is not None and None in nonces:
        pairs = zip(nonces, receipts, strict=True)
        nonces = tuple(r.deposit_nonce if nonce is None and r else nonce for nonce, r in pairs)
    wanted.append(HexTexts(parse_kind("?u64"), nonces, "transaction nonce"))
    types = tuple("0x0" if kind is None else kind for kind in values["type"])
    wanted.append(HexTexts(parse_kind("u8"), types, "transaction type"))
    parity = tuple(
        v if y_parity is None or kind == "0x0" else y_parity
        for v, y_parity, kind in zip(values["v"], values["y_parity"], types, strict=True)
    )
    wanted.append(HexTexts(parse_kind("?u256"), parity, "transaction v"))
    names = (*_TRANSACTION_FIELDS, "nonce", "type", "v")
    columns |= dict(zip(names, hex_columns(wanted, rows), strict=True))
    columns["transaction_index"] = positions(counts)
    systems = values["is_system_tx"]
    columns["is_system_transaction"] = Nullable(
        np.array([system is not None for system in systems], np.bool_),
        np.array([system is True for system in systems], np.uint8),
    )
    columns |= _receipt_columns(len(transactions), receipts, rows)
    columns |= _nested_columns(values, rows)
    return columns


def _drop_unreadable(
    transactions: list[Transaction], receipts: Sequence[AnyReceipt | None] | None, *, lenient: bool
) -> dict[int, dict[str, Any]]:
    """Set fields to None that no column can hold; what was dropped of receipts, by row."""
    dropped: dict[int, dict[str, Any]] = {}
    signature = {"nonce": "nonce", "v": "v"}
    for row, transaction in enumerate(transactions):
        if not lenient and transaction.has_known_form():
            continue
        found = drop_unreadable(TRANSACTION_TABLE, _TRANSACTION_FIELDS | signature, transaction)
        if found | _drop_lists(transaction):
            dropped[row] = {}
        receipt = None if receipts is None else receipts[row]
        if receipt is not None and (
            found := drop_unreadable(TRANSACTION_TABLE, _RECEIPT_FIELDS, receipt)
        ):
            dropped[row] = {"receipt": found}
    return dropped


def _drop_lists(transaction: Transaction) -> dict[str, Any]:
    """Set a transaction's lists to None that no column can hold."""
    found = {}
    for name in _LISTS:
        alone = dict.fromkeys(_LISTS, (None,)) | {name: (getattr(transaction, name),)}
        try:
            _nested_columns(alone, Rows(["0x0"], ["0x"], [1]))
        except (HexMalformed, FieldMissing, QuantityOutOfRange):
            found[name] = getattr(transaction, name)
            setattr(transaction, name, None)
    return found


def _extras(
    blocks: Sequence[Block], body: list[list[Transaction]], dropped: dict[int, dict[str, Any]]
) -> Ragged:
    """The column ``extra``; empty for transactions of known form whose fields were all read."""
    texts = [b""] * sum(map(len, body))
    if not dropped and all(one.has_known_form() for part in body for one in part):
        return Ragged(np.zeros(len(texts) + 1, np.int64), np.empty(0, np.uint8))
    row = 0
    for block, transactions in zip(blocks, body, strict=True):
        for index, transaction in enumerate(transactions):
            if row in dropped or not transaction.has_known_form():
                fields = extra_transaction_fields(block, index) | dropped.get(row, {})
                texts[row] = msgspec.json.encode(fields, order="sorted") if fields else b""
            row += 1
    column = from_python(parse_kind("string"), texts)
    assert isinstance(column, Ragged)
    return column


def _receipt_columns(
    count: int, receipts: Sequence[AnyReceipt | None] | None, rows: AnyRows
) -> dict[str, Column]:
    names = (*_RECEIPT_FIELDS, "post_state_root", "log_count")
    if receipts is None:
        receipts = [None] * count
    given = [receipt for receipt in receipts if receipt is not None]
    if not given:
        kinds = [TRANSACTION_TABLE.column(name).kind.children[0] for name in names]
        absent = np.zeros(count, np.bool_)
        pairs = zip(names, kinds, strict=True)
        return {name: Nullable(absent, zeros(kind, count)) for name, kind in pairs}
    if len(given) < count:
        rows = InnerRows(rows, [() if receipt is None else (receipt,) for receipt in receipts])
    columns = fill_fields(TRANSACTION_TABLE, _RECEIPT_FIELDS, given, rows, "receipt ")
    # Some nodes say "0x" where there is no root.
    roots = [None if receipt.root == "0x" else receipt.root for receipt in given]
    columns["post_state_root"] = hex_column(parse_kind("?bytes32"), roots, "receipt root", rows)
    columns["log_count"] = nullable_counts([receipt.count_logs() for receipt in given])
    if len(given) == count:
        return columns
    has = np.array([receipt is not None for receipt in receipts], np.bool_)
    return {name: _spread(columns[name], has) for name in names}


def _spread(column: Column, has: npt.NDArray[np.bool_]) -> Nullable:
    """The column's values at the rows that `has` marks, null at the others."""
    assert isinstance(column, Nullable)
    values = as_array(column.values)
    valid = np.zeros(len(has), np.bool_)
    valid[has] = column.valid
    spread = np.zeros((len(has), *values.shape[1:]), values.dtype)
    spread[has] = values
    return Nullable(valid, spread)


def _nested_columns(values: dict[str, tuple[Any, ...]], rows: AnyRows) -> dict[str, Column]:
    """Columns that hold lists; nearly all transactions of most chains have none."""
    access: list[Sequence[AccessTuple]] = [entries or () for entries in values["access_list"]]
    tuples = list(chain.from_iterable(access))
    tuple_rows = InnerRows(rows, access)
    keys = [entry.storage_keys for entry in tuples]
    key_rows = InnerRows(tuple_rows, keys)
    blobs: list[Sequence[str]] = [hashes or () for hashes in values["blob_versioned_hashes"]]
    grants: list[Sequence[Authorization]] = [
        entries or () for entries in values["authorization_list"]
    ]
    flat_grants = list(chain.from_iterable(grants))
    grant_kinds = TRANSACTION_TABLE.column("authorization_list").kind.children[0].children
    wanted = []
    for name, kind in zip(_AUTHORIZATION_FIELDS, grant_kinds, strict=True):
        texts = [
            grant.v if name == "y_parity" and grant.y_parity is None else getattr(grant, name)
            for grant in flat_grants
        ]
        wanted.append(HexTexts(kind, texts, f"authorization {name}"))
    fields = hex_columns(wanted, InnerRows(rows, grants))
    bytes20, bytes32 = parse_kind("bytes20"), parse_kind("bytes32")
    addresses = [entry.address for entry in tuples]
    storage = hex_column(
        bytes32, list(chain.from_iterable(keys)), "access list storage key", key_rows
    )
    blob_rows = InnerRows(rows, blobs)
    blob_hashes = list(chain.from_iterable(blobs))
    return {
        "has_access_list": np.array(
            [entries is not None for entries in values["access_list"]], np.uint8
        ),
        "access_list": Ragged(
            list_offsets(access),
            Struct(
                (
                    hex_column(bytes20, addresses, "access list address", tuple_rows),
                    Ragged(list_offsets(keys), storage),
                )
            ),
        ),
        "blob_versioned_hashes": Ragged(
            list_offsets(blobs), hex_column(bytes32, blob_hashes, "blob hash", blob_rows)
        ),
        "authorization_list": Ragged(list_offsets(grants), Struct(tuple(fields))),
    }
