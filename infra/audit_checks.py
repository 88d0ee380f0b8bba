"""Tables in, SQL out: one query per invariant, each naming the rows that break it.

A query returns (block_number, what) rows, none where the invariant holds. `{from_block}` and
`{to_block}` are bounds, included. The recomputation of hashes and roots from the stored columns
(I2, I3) is not SQL; infra/audit.py does it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.tables import Table


@dataclass(frozen=True, slots=True)
class Invariant:
    """One invariant and the query that finds what breaks it."""

    code: str
    """``I1`` … as docs/guarantees.md numbers them."""
    statement: str
    """What must hold, in words."""
    sql: str
    """Returns (block_number UInt64, what String), at most 20 rows; none where it holds."""


_BETWEEN = "block_number BETWEEN {from_block} AND {to_block}"
_LOGS_OF_BLOCKS = f"""
    SELECT block_number, 0, countIf(transaction_index IS NULL) FROM logs
    WHERE {_BETWEEN} GROUP BY block_number"""
"""How many logs each block has of its own receipt, which is of no transaction."""


def chain_invariants() -> tuple[Invariant, ...]:
    """I1, I4 and I5: what `blocks`, `transactions` and `logs` must agree on."""
    window = "OVER (ORDER BY block_number ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)"
    heights = f"""
        SELECT block_number, concat('follows block ', toString(previous))
        FROM (SELECT block_number, first_value(block_number) {window} AS previous
              FROM blocks WHERE {_BETWEEN})
        WHERE previous != block_number AND previous + 1 != block_number LIMIT 20"""
    ends = f"""
        SELECT toUInt64(bound), 'no such block is stored'
        FROM (SELECT arrayJoin([{{from_block}}, {{to_block}}]) AS bound)
        WHERE bound NOT IN (SELECT block_number FROM blocks WHERE {_BETWEEN})"""
    parents = f"""
        SELECT block_number, concat('parent_hash is 0x', lower(hex(parent_hash)),
                                    ', the block before is 0x', lower(hex(before)))
        FROM (SELECT block_number, parent_hash, first_value(block_hash) {window} AS before,
                     first_value(block_number) {window} AS previous
              FROM blocks WHERE {_BETWEEN})
        WHERE previous != block_number AND parent_hash != before LIMIT 20"""
    one_hash = f"""
        SELECT block_number, concat(toString(uniqExact(block_hash)), ' hashes, ',
                                    toString(count()), ' rows')
        FROM blocks WHERE {_BETWEEN} GROUP BY block_number
        HAVING count() != 1 LIMIT 20"""
    counts = f"""
        SELECT block_number, concat(toString(sum(stored)), ' logs are stored, ',
                                    toString(sum(said)), ' belong there by its receipts')
        FROM (SELECT block_number, assumeNotNull(log_count) AS said, 0 AS stored
              FROM blocks WHERE {_BETWEEN} AND log_count IS NOT NULL
              UNION ALL
              SELECT block_number, 0, count() FROM logs
              WHERE {_BETWEEN} AND block_number IN
                (SELECT block_number FROM blocks WHERE {_BETWEEN} AND log_count IS NOT NULL)
              GROUP BY block_number)
        GROUP BY block_number HAVING sum(said) != sum(stored) LIMIT 20"""
    receipts = f"""
        SELECT block_number, concat('its transactions count ', toString(sum(stored)),
                                    ' logs, ', toString(sum(said)), ' belong there')
        FROM (SELECT block_number, toUInt64(log_count) AS said, 0 AS stored
              FROM blocks WHERE {_BETWEEN} AND log_count IS NOT NULL
              UNION ALL
              SELECT block_number, 0, sum(assumeNotNull(log_count)) FROM transactions
              WHERE {_BETWEEN} AND log_count IS NOT NULL GROUP BY block_number
              UNION ALL {_LOGS_OF_BLOCKS})
        GROUP BY block_number HAVING sum(said) != sum(stored) LIMIT 20"""
    indexes = f"""
        SELECT block_number, concat('log_index goes to ', toString(max(log_index)), ' over ',
                                    toString(count()), ' logs')
        FROM logs WHERE {_BETWEEN} AND block_number IN
            (SELECT block_number FROM blocks WHERE {_BETWEEN} AND log_count IS NOT NULL)
        GROUP BY block_number
        HAVING max(log_index) + 1 != count() OR uniqExact(log_index) != count() LIMIT 20"""
    return (
        Invariant("I1", "heights are contiguous", heights),
        Invariant("I1", "the range is stored from end to end", ends),
        Invariant("I1", "each block names the one before as its parent", parents),
        Invariant("I4", "a block's logs are as many as its receipts say", counts),
        Invariant("I4", "receipts and blocks count the same logs", receipts),
        Invariant("I4", "log indexes run from 0 without a gap", indexes),
        Invariant("I5", "one canonical hash per height", one_hash),
    )


def transaction_invariants() -> tuple[Invariant, ...]:
    """I3: what the roots do not cover because it follows from what they do.

    Some nodes give every transaction a deposit's fields, as zeros: those are let pass.
    """
    fields = f"""
        SELECT block_number, concat('transaction ', toString(transaction_index), ' of type ',
                                    toString(type), ' has fields of another type')
        FROM transactions WHERE {_BETWEEN} AND type <= 4 AND (
            (type != 3 AND max_fee_per_blob_gas_wei IS NOT NULL)
            OR (type != 3 AND notEmpty(blob_versioned_hashes))
            OR (type != 4 AND notEmpty(authorization_list))
            OR source_hash != toFixedString('', 32) OR mint_wei != 0 OR is_system_transaction
            OR deposit_nonce IS NOT NULL OR deposit_receipt_version IS NOT NULL) LIMIT 20"""
    gas = f"""
        SELECT block_number, concat('transaction ', toString(transaction_index), ' used ',
                                    toString(gas_used), ' gas, its receipt says ', toString(said))
        FROM (SELECT block_number, transaction_index, gas_used, toInt64(cumulative_gas_used)
                     - if(transaction_index = 0, 0, lagInFrame(toInt64(cumulative_gas_used))
                       OVER (PARTITION BY block_number ORDER BY transaction_index)) AS said
              FROM transactions WHERE {_BETWEEN} AND block_number IN
                (SELECT block_number FROM blocks WHERE {_BETWEEN} AND verification >= 'receipts'))
        WHERE toInt64(gas_used) != said LIMIT 20"""
    return (
        Invariant("I3", "a transaction has the fields of its type only", fields),
        Invariant("I3", "a transaction's gas is what it adds to its block's", gas),
    )


def identity_invariants(tables: Iterable[Table]) -> tuple[Invariant, ...]:
    """I6: no identity is visible twice; every row belongs to a visible block, with its time."""
    found = []
    for table in tables:
        identity = ", ".join(table.identity)
        found.append(
            Invariant(
                "I6",
                f"no row of {table.name} is visible twice",
                f"SELECT block_number, concat(toString(count()), ' rows of one identity') "
                f"FROM {table.name} WHERE {_BETWEEN} GROUP BY {identity} "
                "HAVING count() > 1 LIMIT 20",
            )
        )
        if table.name != "blocks":
            found.append(
                Invariant(
                    "I6",
                    f"every row of {table.name} is of a visible block",
                    f"SELECT DISTINCT block_number, concat('no block 0x', lower(hex(block_hash)), "
                    f"' of ', toString(block_time), ' is visible') FROM {table.name} "
                    f"WHERE {_BETWEEN} AND (block_number, block_hash, block_time) NOT IN "
                    f"(SELECT block_number, block_hash, block_time FROM blocks WHERE {_BETWEEN}) "
                    "LIMIT 20",
                )
            )
    return tuple(found)
