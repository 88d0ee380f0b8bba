"""Blocks of a synthetic chain in, the rows that every table must hold out.

Nothing is decoded here: each log carries what it means since it was planned. Only the names of
tables and columns come from the project's declarations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from infra.devchain.blocks import EXTRA_DATA, OMMERS_HASH, REQUESTS_HASH
from infra.devchain.envelopes import BLOB_GAS
from infra.devchain.model import FAILURES, Block, Log, Transaction
from infra.devchain.truth_aggregates import aggregates_of
from schemas.events import builtin_events
from schemas.tables import AGGREGATE_TABLES, BLOCK_IDENTITY, CORE_TABLES, EVENT_IDENTITY

Key = tuple[Any, ...]
"""Block number and position: log index and sub_index, transaction index, or nothing more; of an
aggregate what it is of."""
Row = dict[str, Any]
"""Values by column, as `schemas.columns.to_python` gives them."""
UNTOLD = ("verification", "extra", "layout", "reason")
"""Columns that say how a row was made or why; a failure's truth has ``reason_word`` instead."""
_FAILURE_COLUMNS = ("topic0", "topic_count", "data_bytes", "reason_word")
_MODULUS = 1 << 256
_SUMMED = {
    table.name: tuple(
        spec.name
        for spec in table.columns[len(BLOCK_IDENTITY) :]
        if spec.kind_text.removeprefix("?") in ("u32", "u256")
    )
    for table in AGGREGATE_TABLES
}
"""The aggregates' columns of numbers."""


@cache
def parameter_columns() -> Mapping[str, tuple[str, ...]]:
    """The columns of each event table after those that identify its log."""
    declared = {
        event.table.name: tuple(c.name for c in event.table.columns[len(EVENT_IDENTITY) :])
        for event in builtin_events()
    }
    return declared | {FAILURES: _FAILURE_COLUMNS}


def _identity(block: Block) -> Row:
    return {
        "block_number": block.header.number,
        "block_hash": block.hash,
        "block_time": block.header.timestamp,
    }


def block_row(block: Block) -> Row:
    """The row of ``blocks``."""
    header = block.header
    return _identity(block) | {
        "parent_hash": header.parent_hash,
        "ommers_hash": OMMERS_HASH,
        "miner": header.miner,
        "state_root": header.state_root,
        "transactions_root": header.transactions_root,
        "receipts_root": header.receipts_root,
        "logs_bloom": header.bloom,
        "difficulty": 0,
        "gas_limit": header.gas_limit,
        "gas_used": header.gas_used,
        "extra_data": EXTRA_DATA,
        "mix_hash": header.mix_hash,
        "nonce": bytes(8),
        "base_fee_per_gas_wei": header.base_fee,
        "withdrawals_root": header.withdrawals_root,
        "blob_gas_used": header.blob_gas_used,
        "excess_blob_gas": header.excess_blob_gas,
        "parent_beacon_block_root": header.parent_beacon_block_root,
        "requests_hash": REQUESTS_HASH,
        "block_access_list_hash": None,
        "slot_number": None,
        "size_bytes": block.size,
        "transaction_count": len(block.transactions),
        "log_count": block.log_count,
    }


def _transaction_row(block: Block, index: int, sent: Transaction, chain_id: int) -> Row:
    dynamic, blob = sent.type > 1, sent.type == 3
    return _identity(block) | {
        "transaction_index": index,
        "transaction_hash": sent.hash,
        "type": sent.type,
        "from_address": sent.sender,
        "to_address": sent.to,
        "nonce": sent.nonce,
        "value_wei": sent.value,
        "gas_limit": sent.gas,
        "gas_price_wei": sent.gas_price,
        "max_fee_per_gas_wei": sent.max_fee if dynamic else None,
        "max_priority_fee_per_gas_wei": sent.max_priority_fee if dynamic else None,
        "max_fee_per_blob_gas_wei": sent.max_blob_fee if blob else None,
        "input": sent.input,
        "chain_id": chain_id,
        "access_list": [(address, list(keys)) for address, keys in sent.access_list],
        "has_access_list": sent.type > 0,
        "blob_versioned_hashes": list(sent.blob_hashes),
        "authorization_list": list(sent.authorizations),
        "v": sent.v,
        "r": sent.r,
        "s": sent.s,
        "source_hash": None,
        "mint_wei": None,
        "is_system_transaction": None,
        "status": sent.status,
        "post_state_root": None,
        "cumulative_gas_used": sent.cumulative_gas_used,
        "gas_used": sent.gas_used,
        "effective_gas_price_wei": sent.gas_price,
        "contract_address": sent.contract_address,
        "blob_gas_used": len(sent.blob_hashes) * BLOB_GAS if blob else None,
        "blob_gas_price_wei": block.blob_gas_price if blob else None,
        "log_count": len(sent.logs),
        "deposit_nonce": None,
        "deposit_receipt_version": None,
        "l1_fee_wei": None,
    }


def _log_row(place: Row, log: Log) -> Row:
    topics = (*log.topics, None, None, None, None)
    return place | {
        "address": log.address,
        "topic0": topics[0],
        "topic1": topics[1],
        "topic2": topics[2],
        "topic3": topics[3],
        "data": log.data,
    }


def _event_rows(place: Row, log: Log) -> Iterator[tuple[int, Row]]:
    columns = parameter_columns()[log.table]
    for sub_index, values in enumerate(log.rows):
        identity = place | {"sub_index": sub_index, "address": log.address}
        parameters = dict(zip(columns, values, strict=True))
        if log.table == FAILURES:
            word = parameters["reason_word"]
            assert isinstance(word, bytes)
            yield sub_index, identity | parameters | {"reason_word": word.decode()}
        else:
            yield sub_index, identity | parameters


def rows_of(block: Block, chain_id: int) -> Iterator[tuple[str, Key, Row]]:
    """Every row that one block gives: table, key, row.

    Parameters
    ----------
    block : Block
    chain_id : int

    Yields
    ------
    tuple of str, Key and Row
        The key is (number) in ``blocks``, (number, position) in ``transactions`` and
        ``withdrawals``, (number, log_index) in ``logs``, (number, log_index, sub_index) in the
        events' tables, the identity without the block's hash in the aggregates'.
    """
    number = block.header.number
    yield "blocks", (number,), block_row(block)
    for position, withdrawal in enumerate(block.withdrawals):
        row = {
            "position": position,
            "withdrawal_index": withdrawal.number,
            "validator_index": withdrawal.validator,
            "address": withdrawal.address,
            "amount_gwei": withdrawal.amount_gwei,
        }
        yield "withdrawals", (number, position), _identity(block) | row
    log_index = 0
    events: dict[str, list[Row]] = {}
    for index, sent in enumerate(block.transactions):
        yield "transactions", (number, index), _transaction_row(block, index, sent, chain_id)
        for log in sent.logs:
            place = _identity(block) | {
                "transaction_hash": sent.hash,
                "transaction_index": index,
                "log_index": log_index,
            }
            yield "logs", (number, log_index), _log_row(place, log)
            if log.table:
                for sub_index, row in _event_rows(place, log):
                    events.setdefault(log.table, []).append(row)
                    yield log.table, (number, log_index, sub_index), row
            log_index += 1
    yield from aggregates_of(events)


def truth_of(blocks: Iterable[Block], chain_id: int = 1337) -> dict[str, dict[Key, Row]]:
    """The rows that some blocks give, by table and key; every table is there, also when empty."""
    names = (*(table.name for table in CORE_TABLES), *parameter_columns())
    tables: dict[str, dict[Key, Row]] = {name: {} for name in names}
    for block in blocks:
        for table, key, row in rows_of(block, chain_id):
            tables[table][key] = row
    return tables


@dataclass(eq=False, slots=True)
class Totals:
    """Counts and sums of a chain's rows: the truth of a range too large to hold as rows."""

    tables: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per table: ``rows``, and the sum of each number column modulo 2^256."""

    def add(self, block: Block) -> None:
        """Count one block's rows."""
        events: dict[str, list[Row]] = {}
        number = block.header.number
        self._count("blocks", {"gas_used": block.header.gas_used})
        for withdrawal in block.withdrawals:
            self._count("withdrawals", {"amount_gwei": withdrawal.amount_gwei})
        log_index = 0
        for sent in block.transactions:
            self._count("transactions", {"gas_used": sent.gas_used, "value_wei": sent.value})
            for log in sent.logs:
                self._count("logs", {"log_index": log_index})
                if log.table:
                    self._events(log, number, log_index)
                    place = _identity(block) | {"log_index": log_index}
                    events.setdefault(log.table, []).extend(
                        row for _, row in _event_rows(place, log)
                    )
                log_index += 1
        for table, _, row in aggregates_of(events):
            self._count(table, {name: row[name] or 0 for name in _SUMMED[table]})

    def _count(self, table: str, numbers: Mapping[str, int], rows: int = 1) -> None:
        total = self.tables.setdefault(table, {"rows": 0})
        total["rows"] += rows
        for column, number in numbers.items():
            total[column] = (total.get(column, 0) + number) % _MODULUS

    def _events(self, log: Log, number: int, log_index: int) -> None:
        columns = parameter_columns()[log.table]
        for values in log.rows:
            numbers = {
                column: value
                for column, value in zip(columns, values, strict=True)
                if isinstance(value, int)
            }
            numbers |= {"log_index": log_index, "block_number": number}
            self._count(log.table, numbers)
