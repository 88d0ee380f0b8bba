"""Declarations of the core tables: columns, kinds, order, and what proves each column.

This is the one place: Avro schemas, ClickHouse tables, views and the data dictionary follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from schemas.columns import Column, ColumnBlock, empty
from schemas.kinds import Kind, parse_kind


class Verification(IntEnum):
    """How far a block is proven before it is published; each level includes the ones below."""

    off = 0
    """Nothing is proven."""
    header = 1
    """keccak(rlp(header)) is the block's hash and parent links hold."""
    receipts = 2
    """Also receiptsRoot, logsBloom and log indexes: every log and receipt is proven."""
    full = 3
    """Also transactionsRoot, transaction hashes and withdrawalsRoot."""


VERIFICATION_KIND = "enum8(" + ",".join(f"{v.name}={v.value}" for v in Verification) + ")"


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One declared column."""

    name: str
    """Its name in Avro and ClickHouse, units last."""
    kind_text: str
    """Its kind in the grammar of schemas/kinds.py."""
    doc: str
    """What it holds, for the data dictionary."""
    proven_by: str = "none"
    """``header``, ``receiptsRoot``, ``transactionsRoot``, ``withdrawalsRoot``, ``signature`` or
    ``derived``, each from a level on (see schemas/standing.py); or ``none``."""
    checked_by: str = ""
    """What it must agree with from level ``header`` on, where it is not proven; or empty."""

    @property
    def kind(self) -> Kind:
        """The parsed kind."""
        return parse_kind(self.kind_text)


@dataclass(frozen=True, slots=True)
class Table:
    """One declared table."""

    name: str
    """Its name in ClickHouse."""
    stream: str
    """The stream whose loads fill it: one of CORE_STREAMS."""
    doc: str
    """What one row is."""
    columns: tuple[ColumnSpec, ...]
    """Its columns in order, identity first; ``load_id`` is the sink's own and not among them."""
    order_by: tuple[str, ...]
    """The sorting key in ClickHouse: what queries filter by comes first."""
    identity: tuple[str, ...]
    """The columns that identify a row; one identity is visible at most once."""
    skip_indexes: tuple[tuple[str, str], ...] = ()
    """(column, index type) pairs for lookups that the sorting key does not serve."""

    def column(self, name: str) -> ColumnSpec:
        """The column of that name.

        Raises
        ------
        KeyError
            If the table has no such column.
        """
        for spec in self.columns:
            if spec.name == name:
                return spec
        raise KeyError(f"{self.name} has no column {name}")


def empty_block(table: Table) -> ColumnBlock:
    """A block of no rows of `table`."""
    columns: dict[str, Column] = {spec.name: empty(spec.kind) for spec in table.columns}
    return ColumnBlock(table.name, 0, columns)


HEADER, RECEIPTS, TRANSACTIONS = "header", "receiptsRoot", "transactionsRoot"
WITHDRAWALS_ROOT, SIGNATURE, DERIVED, NOTHING = "withdrawalsRoot", "signature", "derived", "none"
BLOOM, GAS, POSITION, ITS_TRANSACTION = "logsBloom", "gas used", "position", "its transaction"
"""What columns are checked by where they are not proven."""

BLOCK_IDENTITY = (
    ColumnSpec("block_number", "u64", "Height of the block.", HEADER),
    ColumnSpec("block_hash", "bytes32", "keccak-256 of the block's RLP-encoded header.", HEADER),
    ColumnSpec("block_time", "time", "The header's timestamp, UTC, in seconds.", HEADER),
)

BLOCKS = Table(
    "blocks",
    "blocks",
    "A block's header, with the counts of what it holds. A header field is null where the node "
    "does not give it, or gives what its column cannot hold; `extra` then has the text.",
    (
        *BLOCK_IDENTITY,
        ColumnSpec("parent_hash", "bytes32", "Hash of the parent block.", HEADER),
        ColumnSpec("ommers_hash", "?bytes32", "Hash of the list of ommer headers.", HEADER),
        ColumnSpec("miner", "?bytes20", "Address that receives the block's fees.", HEADER),
        ColumnSpec("state_root", "?bytes32", "Root of the state trie after the block.", HEADER),
        ColumnSpec("transactions_root", "?bytes32", "Root of the transactions' trie.", HEADER),
        ColumnSpec("receipts_root", "?bytes32", "Root of the receipts' trie.", HEADER),
        ColumnSpec("logs_bloom", "?bytes256", "Bloom filter of addresses and topics.", HEADER),
        ColumnSpec("difficulty", "?u256", "Difficulty; 0 since the Merge.", HEADER),
        ColumnSpec("gas_limit", "?u64", "Gas limit of the block.", HEADER),
        ColumnSpec("gas_used", "?u64", "Gas used by all its transactions.", HEADER),
        ColumnSpec("extra_data", "?bytes", "The producer's free bytes.", HEADER),
        ColumnSpec(
            "mix_hash", "?bytes32", "Proof-of-work mix; prevRandao since the Merge.", HEADER
        ),
        ColumnSpec("nonce", "?bytes8", "Proof-of-work nonce; zeros since the Merge.", HEADER),
        ColumnSpec("base_fee_per_gas_wei", "?u256", "Base fee (EIP-1559).", HEADER),
        ColumnSpec("withdrawals_root", "?bytes32", "Root of the withdrawals (EIP-4895).", HEADER),
        ColumnSpec("blob_gas_used", "?u64", "Blob gas used (EIP-4844).", HEADER),
        ColumnSpec("excess_blob_gas", "?u64", "Excess blob gas (EIP-4844).", HEADER),
        ColumnSpec("parent_beacon_block_root", "?bytes32", "Beacon root (EIP-4788).", HEADER),
        ColumnSpec("requests_hash", "?bytes32", "Hash of execution requests (EIP-7685).", HEADER),
        ColumnSpec("block_access_list_hash", "?bytes32", "Hash of accesses (EIP-7928).", HEADER),
        ColumnSpec("slot_number", "?u64", "Slot of the beacon chain (EIP-7843).", HEADER),
        ColumnSpec(
            "extra", "string", "JSON of what the header has and no column holds, or '' for nothing."
        ),
        ColumnSpec("size_bytes", "?u64", "Size of the block as the node reports it."),
        ColumnSpec("transaction_count", "?u32", "Transactions in the block.", RECEIPTS, POSITION),
        ColumnSpec("log_count", "?u32", "Logs of the block's receipts.", RECEIPTS),
        ColumnSpec("verification", VERIFICATION_KIND, "How far the block was proven when stored."),
    ),
    order_by=("block_number", "block_hash"),
    identity=("block_number", "block_hash"),
    skip_indexes=(("block_hash", "bloom_filter"),),
)

TRANSACTION_TABLE = Table(
    "transactions",
    "blocks",
    "A transaction and its receipt. One of a type that this version does not know has what the "
    "columns hold; the rest is in `extra`.",
    (
        *BLOCK_IDENTITY,
        ColumnSpec("transaction_index", "u32", "Position in the block.", TRANSACTIONS, POSITION),
        ColumnSpec("transaction_hash", "bytes32", "keccak-256 of the transaction.", TRANSACTIONS),
        ColumnSpec("type", "u8", "EIP-2718 type, or a type of the chain's own.", RECEIPTS),
        ColumnSpec("from_address", "bytes20", "Sender.", SIGNATURE),
        ColumnSpec("to_address", "?bytes20", "Callee; null creates a contract.", TRANSACTIONS),
        ColumnSpec("nonce", "?u64", "The sender's transaction count.", TRANSACTIONS),
        ColumnSpec("value_wei", "?u256", "Ether sent along.", TRANSACTIONS),
        ColumnSpec("gas_limit", "?u64", "Gas the sender allows.", TRANSACTIONS),
        ColumnSpec(
            "gas_price_wei",
            "?u256",
            "Gas price; from type 2 on what was paid, or the cap.",
            DERIVED,
        ),
        ColumnSpec("max_fee_per_gas_wei", "?u256", "Fee cap (EIP-1559).", TRANSACTIONS),
        ColumnSpec("max_priority_fee_per_gas_wei", "?u256", "Tip cap (EIP-1559).", TRANSACTIONS),
        ColumnSpec("max_fee_per_blob_gas_wei", "?u256", "Blob fee cap (EIP-4844).", TRANSACTIONS),
        ColumnSpec("input", "?bytes", "Call data or init code.", TRANSACTIONS),
        ColumnSpec("chain_id", "?u64", "Chain id that is signed (type 0: in `v`).", TRANSACTIONS),
        ColumnSpec(
            "access_list", "[(bytes20,[bytes32])]", "Address and storage keys.", TRANSACTIONS
        ),
        ColumnSpec("has_access_list", "bool", "Whether the node gave an access list."),
        ColumnSpec("blob_versioned_hashes", "[bytes32]", "Blobs (EIP-4844).", TRANSACTIONS),
        ColumnSpec(
            "authorization_list",
            "[(u256,bytes20,u64,u8,u256,u256)]",
            "EIP-7702: chain_id, address, nonce, y_parity, r, s.",
            TRANSACTIONS,
        ),
        ColumnSpec("v", "?u256", "Signature v; y parity for typed transactions.", TRANSACTIONS),
        ColumnSpec("r", "?u256", "Signature r.", TRANSACTIONS),
        ColumnSpec("s", "?u256", "Signature s.", TRANSACTIONS),
        ColumnSpec("source_hash", "?bytes32", "OP-stack deposit: source hash.", TRANSACTIONS),
        ColumnSpec("mint_wei", "?u256", "OP-stack deposit: minted ether.", TRANSACTIONS),
        ColumnSpec("is_system_transaction", "?bool", "OP-stack deposit: system.", TRANSACTIONS),
        ColumnSpec("status", "?u8", "1 success, 0 failure; null before Byzantium.", RECEIPTS),
        ColumnSpec("post_state_root", "?bytes32", "State root before Byzantium.", RECEIPTS),
        ColumnSpec("cumulative_gas_used", "?u64", "Gas used up to and with it.", RECEIPTS, GAS),
        ColumnSpec("gas_used", "?u64", "Gas used by it.", RECEIPTS, GAS),
        ColumnSpec("effective_gas_price_wei", "?u256", "Price paid per gas.", DERIVED),
        ColumnSpec("contract_address", "?bytes20", "Contract that it created.", DERIVED),
        ColumnSpec("blob_gas_used", "?u64", "Blob gas used, of type 3.", DERIVED),
        ColumnSpec("blob_gas_price_wei", "?u256", "Blob gas price, per the node."),
        ColumnSpec("log_count", "?u32", "Logs of its receipt.", RECEIPTS),
        ColumnSpec("deposit_nonce", "?u64", "OP-stack deposit receipt's nonce.", RECEIPTS),
        ColumnSpec("deposit_receipt_version", "?u64", "OP-stack receipt version.", RECEIPTS),
        ColumnSpec("l1_fee_wei", "?u256", "OP-stack L1 data fee, per the node."),
        ColumnSpec("extra", "string", "JSON of what a transaction has and no column holds, or ''."),
    ),
    order_by=("block_number", "transaction_index", "block_hash"),
    identity=("block_number", "block_hash", "transaction_index"),
    skip_indexes=(
        ("transaction_hash", "bloom_filter"),
        ("from_address", "bloom_filter"),
        ("to_address", "bloom_filter"),
    ),
)

WITHDRAWALS = Table(
    "withdrawals",
    "blocks",
    "A withdrawal from the beacon chain (EIP-4895).",
    (
        *BLOCK_IDENTITY,
        ColumnSpec("position", "u32", "Position in the block.", WITHDRAWALS_ROOT),
        ColumnSpec("withdrawal_index", "u64", "Index over the whole chain.", WITHDRAWALS_ROOT),
        ColumnSpec("validator_index", "u64", "The validator.", WITHDRAWALS_ROOT),
        ColumnSpec("address", "bytes20", "Who receives it.", WITHDRAWALS_ROOT),
        ColumnSpec("amount_gwei", "u64", "How much.", WITHDRAWALS_ROOT),
    ),
    order_by=("block_number", "position", "block_hash"),
    identity=("block_number", "block_hash", "position"),
)

LOG_POSITION = (
    *BLOCK_IDENTITY,
    ColumnSpec(
        "transaction_hash",
        "bytes32",
        "Hash of the log's transaction; of a system receipt what it gives as one.",
        TRANSACTIONS,
        ITS_TRANSACTION,
    ),
    ColumnSpec(
        "transaction_index",
        "?u32",
        "Position of its transaction; null for a log of the block itself (a system receipt).",
        RECEIPTS,
        POSITION,
    ),
    ColumnSpec("log_index", "u32", "Position of the log in the block.", RECEIPTS, POSITION),
)

LOGS = Table(
    "logs",
    "logs",
    "A log as its contract emitted it.",
    (
        *LOG_POSITION,
        ColumnSpec("address", "bytes20", "The contract that emitted it.", RECEIPTS, BLOOM),
        ColumnSpec("topic0", "?bytes32", "First topic: hash of the event.", RECEIPTS, BLOOM),
        ColumnSpec("topic1", "?bytes32", "Second topic; null where absent.", RECEIPTS, BLOOM),
        ColumnSpec("topic2", "?bytes32", "Third topic; null where absent.", RECEIPTS, BLOOM),
        ColumnSpec("topic3", "?bytes32", "Fourth topic; null where absent.", RECEIPTS, BLOOM),
        ColumnSpec("data", "bytes", "The log's data.", RECEIPTS),
    ),
    order_by=("address", "topic0", "block_number", "log_index"),
    identity=("block_number", "block_hash", "log_index"),
)

EVENT_IDENTITY = (
    *LOG_POSITION,
    ColumnSpec("sub_index", "u32", "Position in a batch event; 0 elsewhere.", RECEIPTS),
    ColumnSpec("address", "bytes20", "The contract that emitted it.", RECEIPTS, BLOOM),
)
"""The columns with which every decoded event's table begins."""

HEADER_REFS = Table(
    "headers",
    "logs",
    "Header references of a LogSegment's blocks (not a table in ClickHouse).",
    (
        *BLOCK_IDENTITY,
        ColumnSpec("parent_hash", "bytes32", "Hash of the parent block.", HEADER),
        ColumnSpec("log_count", "u32", "Logs of the block in this segment.", RECEIPTS),
    ),
    order_by=("block_number",),
    identity=("block_number", "block_hash"),
)

TOKEN_FLOWS = Table(
    "token_flows",
    "aggregates",
    "What a token's transfers of one block add up to.",
    (
        *BLOCK_IDENTITY,
        ColumnSpec("address", "bytes20", "The token: the contract that emitted them.", RECEIPTS),
        ColumnSpec(
            "standard",
            "enum8(erc20=0,erc721=1,erc1155=2)",
            "Whose transfers: those of erc20_transfers, erc721_transfers or erc1155_transfers.",
            RECEIPTS,
        ),
        ColumnSpec("transfer_count", "u32", "Transfers; of ERC-1155 one for each id.", RECEIPTS),
        ColumnSpec("mint_count", "u32", "Those from the zero address.", RECEIPTS),
        ColumnSpec("burn_count", "u32", "Those to the zero address.", RECEIPTS),
        ColumnSpec(
            "value",
            "u256",
            "Sum of the amounts, modulo 2^256; of ERC-721 1 each, of ERC-1155 over all ids.",
            RECEIPTS,
        ),
        ColumnSpec("minted_value", "u256", "The same of those from the zero address.", RECEIPTS),
        ColumnSpec("burned_value", "u256", "The same of those to the zero address.", RECEIPTS),
        ColumnSpec("value_overflow", "bool", "Whether any of the sums is 2^256 or more.", RECEIPTS),
    ),
    order_by=("address", "standard", "block_number"),
    identity=("block_number", "block_hash", "address", "standard"),
)


def _price_columns() -> tuple[ColumnSpec, ...]:
    """The price after the first, dearest, cheapest and last trade, as the pool itself keeps it."""
    moments = {
        "open": "first trade",
        "high": "trade that left token0 dearest",
        "low": "trade that left token0 cheapest",
        "close": "last trade",
    }
    return tuple(
        spec
        for name, when in moments.items()
        for spec in (
            ColumnSpec(
                f"{name}_sqrt_price_x96",
                "?u256",
                f"V3, V4: square root of the price, times 2^96, after the {when}.",
                RECEIPTS,
            ),
            ColumnSpec(
                f"{name}_reserve0", "?u256", f"V2: reserve of token0 after the {when}.", RECEIPTS
            ),
            ColumnSpec(
                f"{name}_reserve1",
                "?u256",
                f"V2: reserve of token1 after the {when}; over reserve0 it is the price.",
                RECEIPTS,
            ),
        )
    )


POOL_TRADES = Table(
    "pool_trades",
    "aggregates",
    "What a pool's swaps of one block add up to, and the prices of token0 in token1 they left; "
    "those of a V2 pair are null where no Sync stands right before the Swap or its reserve0 is 0.",
    (
        *BLOCK_IDENTITY,
        ColumnSpec("address", "bytes20", "The pair or pool; V4: the pool manager.", RECEIPTS),
        ColumnSpec(
            "pool_id", "bytes32", "V4: the pool's id; elsewhere address, as a word.", RECEIPTS
        ),
        ColumnSpec(
            "protocol",
            "enum8(uniswap_v2=0,uniswap_v3=1,uniswap_v4=2)",
            "Whose swaps: those of uniswap_v2_swaps, uniswap_v3_swaps or uniswap_v4_swaps.",
            RECEIPTS,
        ),
        ColumnSpec("trade_count", "u32", "Swaps.", RECEIPTS),
        ColumnSpec("first_log_index", "u32", "Position of the first one's log.", RECEIPTS),
        ColumnSpec("last_log_index", "u32", "Position of the last one's log.", RECEIPTS),
        ColumnSpec("amount0_in", "u256", "Token0 that the pool received, modulo 2^256.", RECEIPTS),
        ColumnSpec("amount0_out", "u256", "Token0 that the pool paid, modulo 2^256.", RECEIPTS),
        ColumnSpec("amount1_in", "u256", "Token1 that the pool received, modulo 2^256.", RECEIPTS),
        ColumnSpec("amount1_out", "u256", "Token1 that the pool paid, modulo 2^256.", RECEIPTS),
        ColumnSpec(
            "amount_overflow", "bool", "Whether any of these sums is 2^256 or more.", RECEIPTS
        ),
        *_price_columns(),
    ),
    order_by=("address", "pool_id", "protocol", "block_number"),
    identity=("block_number", "block_hash", "address", "pool_id", "protocol"),
)

AGGREGATE_TABLES = (TOKEN_FLOWS, POOL_TRADES)
"""One row a block and key, so a row is the same whether its block came alone or in a segment."""

CORE_TABLES = (BLOCKS, TRANSACTION_TABLE, WITHDRAWALS, LOGS, *AGGREGATE_TABLES)
"""Tables whose layout is fixed; the decoded events' tables follow the packs and the settings."""

CORE_STREAMS = ("blocks", "logs", "events", "aggregates")
"""A block is visible when each of these has an accepted load for it."""


def event_table(name: str, doc: str, parameters: tuple[ColumnSpec, ...]) -> Table:
    """The table of a decoded event: identity of its log, then `parameters`."""
    return Table(
        name,
        "events",
        doc,
        (*EVENT_IDENTITY, *parameters),
        order_by=("address", "block_number", "log_index", "sub_index"),
        identity=("block_number", "block_hash", "log_index", "sub_index"),
    )
