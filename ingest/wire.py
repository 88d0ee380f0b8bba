"""Bytes of JSON-RPC results in, typed payloads out: blocks, transactions, receipts, logs.

Values stay the hex text that the node sent; `ingest.build` turns whole segments of them into
columns at once. Fields that no column needs are not declared, so they cost nothing; header fields
that this version does not know survive in `Block.source` (see ingest/extras.py).

Source: the execution-apis specification, and op-geth for OP-stack deposits.
"""

from __future__ import annotations

from typing import Any, TypeVar, Union

import msgspec

from schemas.errors_verify import PayloadInvalid


class Log(msgspec.Struct, gc=False, rename="camel"):
    """One log, as in a receipt or from eth_getLogs."""

    address: str
    topics: list[str]
    data: str
    block_hash: str
    block_number: str
    transaction_hash: str
    transaction_index: str
    log_index: str
    removed: bool = False


class ReceiptFields(msgspec.Struct, gc=False, rename="camel"):
    """One transaction's receipt, but for its logs."""

    transaction_hash: str
    transaction_index: str
    block_hash: str
    block_number: str
    cumulative_gas_used: str | None = None
    gas_used: str | None = None
    status: str | None = None
    root: str | None = None
    """State root after the transaction, before Byzantium; then there is no status."""
    type: str | None = None
    logs_bloom: str | None = None
    contract_address: str | None = None
    effective_gas_price: str | None = None
    blob_gas_used: str | None = None
    blob_gas_price: str | None = None
    deposit_nonce: str | None = None
    deposit_receipt_version: str | None = None
    l1_fee: str | None = msgspec.field(default=None, name="l1Fee")
    from_address: str | None = msgspec.field(default=None, name="from")
    to: str | None = None


class Receipt(ReceiptFields, gc=False, rename="camel", kw_only=True):
    """One transaction's receipt."""

    logs: list[Log]

    def count_logs(self) -> int:
        """How many logs the receipt has."""
        return len(self.logs)


class UnreadReceipt(ReceiptFields, gc=False, rename="camel", kw_only=True):
    """A receipt whose logs are read apart, those of a whole segment at once."""

    logs: msgspec.Raw
    """A JSON array of logs."""
    found: int = msgspec.field(default=0, name="(found)")
    """How many logs were found in it."""

    def count_logs(self) -> int:
        """How many logs the receipt has."""
        return self.found


AnyReceipt = Receipt | UnreadReceipt
"""A receipt, however its logs are read."""


class AccessTuple(msgspec.Struct, gc=False, rename="camel"):
    """One address of an access list (EIP-2930)."""

    address: str
    storage_keys: list[str]


class Authorization(msgspec.Struct, gc=False, rename="camel"):
    """One authorization of a set-code transaction (EIP-7702)."""

    address: str
    nonce: str
    r: str
    s: str
    chain_id: str | None = None
    y_parity: str | None = None
    v: str | None = None


class Transaction(msgspec.Struct, gc=False, rename="camel"):
    """One transaction of any type; what a type does not have is None."""

    hash: str
    from_address: str = msgspec.field(name="from")
    value: str | None = None
    gas: str | None = None
    input: str | None = None
    nonce: str | None = None
    """Deposits have none of their own, and some nodes give none for them."""
    type: str | None = None
    to: str | None = None
    block_hash: str | None = None
    transaction_index: str | None = None
    gas_price: str | None = None
    max_fee_per_gas: str | None = None
    max_priority_fee_per_gas: str | None = None
    max_fee_per_blob_gas: str | None = None
    chain_id: str | None = None
    access_list: list[AccessTuple] | None = None
    blob_versioned_hashes: list[str] | None = None
    authorization_list: list[Authorization] | None = None
    v: str | None = None
    y_parity: str | None = None
    r: str | None = None
    s: str | None = None
    source_hash: str | None = None
    mint: str | None = None
    is_system_tx: bool | None = None

    def has_known_form(self) -> bool:
        """Whether this version knows how a transaction of this type is encoded."""
        return self.source_hash is not None or self.type in _STANDARD_TYPES


STANDARD_TYPES = range(5)
"""Transaction types of Ethereum."""
_STANDARD_TYPES = frozenset({None, *map(hex, STANDARD_TYPES)})


class Withdrawal(msgspec.Struct, gc=False, rename="camel"):
    """One withdrawal from the beacon chain (EIP-4895); the amount is in gwei."""

    index: str
    validator_index: str
    address: str
    amount: str


class Block(msgspec.Struct, gc=False, rename="camel"):
    """A block's header fields and its body, from eth_getBlockBy… or newHeads."""

    hash: str
    number: str
    parent_hash: str
    timestamp: str
    sha3_uncles: str | None = None
    miner: str | None = None
    state_root: str | None = None
    transactions_root: str | None = None
    receipts_root: str | None = None
    logs_bloom: str | None = None
    difficulty: str | None = None
    gas_limit: str | None = None
    gas_used: str | None = None
    extra_data: str | None = None
    mix_hash: str | None = None
    nonce: str | None = None
    base_fee_per_gas: str | None = None
    withdrawals_root: str | None = None
    blob_gas_used: str | None = None
    excess_blob_gas: str | None = None
    parent_beacon_block_root: str | None = None
    requests_hash: str | None = None
    block_access_list_hash: str | None = None
    slot_number: str | None = None
    size: str | None = None
    transactions: list[Transaction | str] | None = None
    """Transactions, or their hashes where the block was asked for without them."""
    withdrawals: list[Withdrawal] | None = None
    source: bytes | msgspec.Raw | None = msgspec.field(default=None, name="(source)")
    """The JSON this block was decoded from, kept until the block is proven."""


HEADER_FIELDS = (
    "parentHash",
    "sha3Uncles",
    "miner",
    "stateRoot",
    "transactionsRoot",
    "receiptsRoot",
    "logsBloom",
    "difficulty",
    "number",
    "gasLimit",
    "gasUsed",
    "timestamp",
    "extraData",
    "mixHash",
    "nonce",
    "baseFeePerGas",
    "withdrawalsRoot",
    "blobGasUsed",
    "excessBlobGas",
    "parentBeaconBlockRoot",
    "requestsHash",
    "blockAccessListHash",
    "slotNumber",
)
"""Header fields in the order in which the hash covers them."""

T = TypeVar("T")

_DECODERS: dict[object, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(Union[kind, None])  # noqa: UP007 (kind is a value here)
    for kind in (Block, Receipt, list[Receipt], list[UnreadReceipt], list[Log])
}


def _decode(kind: type[T], result: bytes | msgspec.Raw, method: str, of: str) -> T | None:
    try:
        decoded: T | None = _DECODERS[kind].decode(result)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = f"{of}: {error}" if of else str(error)
        raise PayloadInvalid(method=method, reason=reason) from None
    return decoded


def decode_block(result: bytes | msgspec.Raw, of: str = "") -> Block | None:
    """Decode the `result` of eth_getBlockByNumber or eth_getBlockByHash, or a newHeads header.

    Parameters
    ----------
    result : bytes or msgspec.Raw
        JSON.
    of : str
        What it is of, for an error: ``block 5``.

    Returns
    -------
    Block or None
        None where the node has no such block.

    Raises
    ------
    PayloadInvalid
        If it is no JSON, or a field is missing or of another type.
    """
    try:
        block = _decode(Block, result, "eth_getBlockByNumber", of)
    except PayloadInvalid:
        block = _decode_partly(result)
        if block is None:
            raise
    if block is not None:
        block.source = result
    return block


def _decode_partly(result: bytes | msgspec.Raw) -> Block | None:
    """The block without the fields that are of another JSON type than expected.

    Only fields that may be absent are left out, and of transactions only of a type that this
    version does not know. None where the rest is no block.
    """
    try:
        fields = msgspec.json.decode(result)
        _drop_ill_typed(fields, Block)
        for transaction in fields.get("transactions") or ():
            if isinstance(transaction, dict) and transaction.get("type") not in _STANDARD_TYPES:
                _drop_ill_typed(transaction, Transaction)
        return msgspec.convert(fields, Block)
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, TypeError):
        return None


def _drop_ill_typed(fields: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    for field in msgspec.structs.fields(struct):
        name = field.encode_name
        if name in fields and not field.required and name != "transactions":
            try:
                msgspec.convert(fields[name], field.type)
            except msgspec.ValidationError:
                del fields[name]


def decode_receipts(result: bytes | msgspec.Raw, of: str = "") -> list[Receipt] | None:
    """Decode the `result` of eth_getBlockReceipts; `of` as in `decode_block`.

    Returns
    -------
    list of Receipt or None
        None where the node has no receipts (yet): never the same as an empty list.

    Raises
    ------
    PayloadInvalid
        If it is no JSON, or a field is missing or of another type.
    """
    return _decode(list[Receipt], result, "eth_getBlockReceipts", of)


def decode_unread_receipts(result: bytes | msgspec.Raw, of: str = "") -> list[UnreadReceipt] | None:
    """Decode the `result` of eth_getBlockReceipts but for the logs; see `decode_receipts`."""
    return _decode(list[UnreadReceipt], result, "eth_getBlockReceipts", of)


def decode_receipt(result: bytes | msgspec.Raw, of: str = "") -> Receipt | None:
    """Decode the `result` of eth_getTransactionReceipt; see `decode_receipts`."""
    return _decode(Receipt, result, "eth_getTransactionReceipt", of)


def decode_logs(result: bytes | msgspec.Raw, of: str = "") -> list[Log] | None:
    """Decode the `result` of eth_getLogs; `of` as in `decode_block`.

    Returns
    -------
    list of Log or None
        None where the node answered null.

    Raises
    ------
    PayloadInvalid
        If it is no JSON, or a field is missing or of another type.
    """
    return _decode(list[Log], result, "eth_getLogs", of)
