"""Find what the JSON of a block and of its transactions has and no column holds."""

from __future__ import annotations

import msgspec

from ingest.wire import HEADER_FIELDS, Block, Transaction

_BESIDE_HEADER = frozenset(
    {
        "hash",
        "size",
        "totalDifficulty",
        "uncles",
        "transactions",
        "withdrawals",
        "author",
        "sealFields",
        "signature",
        "step",
        "l1BlockNumber",
        "sendCount",
        "sendRoot",
        "milliTimestamp",
    }
)
"""Fields of a block object that are known not to be under the hash."""

_HEADER_ATTRIBUTES = {
    field.encode_name: field.name
    for field in msgspec.structs.fields(Block)
    if field.encode_name in HEADER_FIELDS
}
"""Attributes of `Block` by their JSON names."""


class _TransactionsRaw(msgspec.Struct):
    transactions: list[msgspec.Raw] = []


_transactions_raw = msgspec.json.Decoder(_TransactionsRaw)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def extra_header_fields(block: Block) -> dict[str, object]:
    """Fields of the block's JSON that may be under its hash and that no column holds.

    These are fields that this version does not know, header fields whose text fits no column, and
    the seal of a header that has no nonce or no mix hash. Reading them parses the JSON a second
    time, so this is called only where the hash does not match.

    Returns
    -------
    dict
        Names and JSON values; empty where there are none, or where the JSON was not kept.
    """
    if block.source is None:
        return {}
    held = {name for name, field in _HEADER_ATTRIBUTES.items() if getattr(block, field) is not None}
    known = held | _BESIDE_HEADER
    if block.mix_hash is None or block.nonce is None:
        known -= {"sealFields"}
    return {
        name: msgspec.json.decode(raw)
        for name, raw in _object.decode(block.source).items()
        if name not in known and bytes(raw) != b"null"
    }


_TRANSACTION_ATTRIBUTES = {
    field.encode_name: field.name for field in msgspec.structs.fields(Transaction)
}
_BESIDE_TRANSACTION = frozenset({"blockNumber", "blockTimestamp"})
"""Fields of a transaction object that say where it stands."""


def extra_transaction_fields(block: Block, index: int) -> dict[str, object]:
    """Fields of a transaction's JSON that no column holds; empty where the JSON was not kept."""
    whole = _transactions_raw.decode(block.source) if block.source is not None else None
    transaction = block.transactions[index] if block.transactions else None
    if whole is None or not isinstance(transaction, Transaction):
        return {}
    names = _TRANSACTION_ATTRIBUTES
    return {
        name: msgspec.json.decode(raw)
        for name, raw in _object.decode(whole.transactions[index]).items()
        if bytes(raw) != b"null"
        and name not in _BESIDE_TRANSACTION
        and (name not in names or getattr(transaction, names[name]) is None)
    }


def missing_header_field(block: Block) -> str:
    """The first field that every header has and this one lacks."""
    needed = HEADER_FIELDS[: HEADER_FIELDS.index("nonce") + 1]
    return next(name for name in needed if getattr(block, _HEADER_ATTRIBUTES[name]) is None)
