"""The values a synthetic chain is made of: what an economy plans, and what a block holds.

These are named tuples, not dataclasses: a chain makes a million logs, and a frozen dataclass costs
four times as much to create.
"""

from typing import NamedTuple

Value = int | bytes | None
Row = tuple[Value, ...]
"""Parameter values of one decoded event, in the order of its ABI."""

UNDECODED = ""
"""Table of a log whose event no built-in pack declares."""
FAILURES = "decode_failures"
"""Table of a log that has a known topic0 but does not decode."""


class Log(NamedTuple):
    """A log as its contract emits it, with the truth about what it means."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    table: str = UNDECODED
    """The event's table, ``decode_failures``, or ``""``."""
    rows: tuple[Row, ...] = ()
    """One row, several for a batch, by sub_index."""


class Plan(NamedTuple):
    """What a transaction does, before fees, signature and position are known."""

    sender: bytes
    to: bytes | None
    """None creates a contract."""
    value: int
    input: bytes
    logs: tuple[Log, ...]
    gas: int
    """Gas used."""
    failed: bool = False
    secret: bytes = b""
    """The sender's private key."""


class Transaction(NamedTuple):
    """A transaction in a block, and its receipt."""

    hash: bytes
    type: int
    nonce: int
    sender: bytes
    to: bytes | None
    value: int
    gas: int
    gas_price: int
    """What the sender pays per gas: the legacy price or the effective one."""
    max_fee: int
    max_priority_fee: int
    max_blob_fee: int
    input: bytes
    access_list: tuple[tuple[bytes, tuple[bytes, ...]], ...]
    blob_hashes: tuple[bytes, ...]
    authorizations: tuple[tuple[int, bytes, int, int, int, int], ...]
    """EIP-7702: chain id, address, nonce, y parity, r, s."""
    v: int
    r: int
    s: int
    status: int
    gas_used: int
    cumulative_gas_used: int
    bloom: bytes
    contract_address: bytes | None
    logs: tuple[Log, ...]


class Withdrawal(NamedTuple):
    """A withdrawal from the beacon chain (EIP-4895)."""

    number: int
    """Its index over the whole chain."""
    validator: int
    address: bytes
    amount_gwei: int


class Header(NamedTuple):
    """The header fields of a Prague block that are not constant."""

    parent_hash: bytes
    miner: bytes
    state_root: bytes
    transactions_root: bytes
    receipts_root: bytes
    bloom: bytes
    number: int
    gas_limit: int
    gas_used: int
    timestamp: int
    mix_hash: bytes
    base_fee: int
    withdrawals_root: bytes
    blob_gas_used: int
    excess_blob_gas: int
    parent_beacon_block_root: bytes


class Block(NamedTuple):
    """A whole block."""

    hash: bytes
    header: Header
    size: int
    """Bytes of its RLP."""
    blob_gas_price: int
    transactions: tuple[Transaction, ...]
    withdrawals: tuple[Withdrawal, ...]
    log_count: int
