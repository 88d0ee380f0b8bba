"""Build the columns of a segment and prove them against its headers, or raise the coded reason.

What is encoded and hashed are the columns that will be stored, so a proof covers the conversion
from hex as well. The order of the checks gives each kind of damage its own error: the header
first, then where things say they belong, then the roots that cover them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from ingest.build import BlockColumns, build_block_columns, build_header_columns
from ingest.build_logs import LogColumns, build_log_columns, build_scanned_log_columns
from ingest.encode_transactions import encode_transactions, unknown_types
from ingest.extras import extra_header_fields, missing_header_field
from ingest.hexcolumns import clip
from ingest.keccak import keccak
from ingest.places import (
    block_place,
    check_receipts,
    check_receipts_alone,
    check_transactions,
)
from ingest.proofs import (
    header_hashes,
    row_ranges,
    transaction_root,
    withdrawal_roots,
)
from ingest.rlpcolumns import rows_of
from ingest.scanned import ScannedReceipts
from ingest.system_logs import system_transaction_hash
from ingest.tablecolumns import as_array
from ingest.verdict import Verdict
from ingest.verify_blooms import check_blooms
from ingest.verify_derived import check_derived
from ingest.verify_receipts import check_gas, prove_receipts
from ingest.wire import (
    HEADER_FIELDS,
    Block,
    Receipt,
)
from schemas.chains import ChainFacts, load_chains
from schemas.columns import Column, ColumnBlock, Nullable, from_python
from schemas.errors_verify import (
    BlockHashMismatch,
    BlockNumberGap,
    FieldMissing,
    HeaderNotProvable,
    ParentMismatch,
    TransactionHashMismatch,
    TransactionsRootMismatch,
    UnknownHeaderFields,
    WithdrawalsRootMismatch,
)
from schemas.kinds import parse_kind
from schemas.tables import BLOCKS, Verification

NO_RECEIPTS = ("receipts and logs",)
"""What a verdict says where there were no receipts, or none of them was looked at."""
NO_RECEIPTS_ROOT = "receipts and logs: receiptsRoot was not rebuilt"
"""What a verdict says where they were only checked by blooms, gas, counts and positions."""
STORAGE_ROOT = "withdrawals: withdrawalsRoot is not the root of their list on this chain"
"""What a verdict says of withdrawals where the chain's facts say so."""


@dataclass(frozen=True, slots=True)
class ProvenSegment:
    """The columns of a segment, and what was proven of them."""

    columns: BlockColumns
    """Blocks, transactions and withdrawals."""
    logs: LogColumns | None
    """Header references and logs; None where no receipts were given."""
    verdict: Verdict
    """What was proven."""


def prove_segment(
    blocks: Sequence[Block],
    receipts: Sequence[Sequence[Receipt]] | ScannedReceipts | None,
    level: Verification,
    facts: ChainFacts | None = None,
) -> ProvenSegment:
    """Build the columns of consecutive blocks and prove them as far as `level` asks.

    Parameters
    ----------
    blocks : sequence of Block
        At least one block, each the parent of the next.
    receipts : sequence of sequences of Receipt, or ScannedReceipts, optional
        Each block's receipts. Without them no level above ``header`` is reached.
    level : Verification
        How far to prove.
    facts : ChainFacts, optional
        The chain; left out, one without exceptions.

    Returns
    -------
    ProvenSegment
        Its verdict's level is below `level` where receipts are missing, or where a transaction
        type is unknown and ``full`` was asked for; the verdict then says so.

    Raises
    ------
    HexMalformed, QuantityOutOfRange, FieldMissing, TopicsTooMany
        A value cannot be stored.
    BlockHashMismatch, UnknownHeaderFields, HeaderNotProvable, ParentMismatch, BlockNumberGap
        From level ``header``.
    ReceiptsOfAnotherBlock, ReceiptMisplaced, LogMisplaced, LogIndexGap, LogRemoved, …
        At every level, more strictly from ``header``.
    BloomMismatch, GasMismatch, ReceiptsCountMismatch, LogsMissing
        From level ``header``.
    ReceiptsRootMismatch
        From level ``receipts``.
    TransactionsRootMismatch, TransactionHashMismatch, DerivedMismatch, WithdrawalsRootMismatch
        At level ``full``.
    """
    facts = load_chains()["local"] if facts is None else facts
    header = build_header_columns(blocks)
    header["extra"] = check_headers(blocks, header, level)
    system = _check_places(blocks, receipts, header, level, facts)
    unproven: tuple[str, ...] = (
        NO_RECEIPTS if level < Verification.receipts or receipts is None else ()
    )
    columns, logs = _build(blocks, receipts, header, lenient=level == Verification.off)
    if level > Verification.off:
        _check_known_forms(blocks, columns, facts)
    if level >= Verification.receipts and receipts is not None and logs is not None:
        parts = receipts.receipts if isinstance(receipts, ScannedReceipts) else receipts
        prove_receipts(blocks, parts, columns, logs)
    elif level == Verification.header and logs is not None:
        unproven = _check_unproven(blocks, columns, logs, facts, system)
    reached = level if receipts is not None else min(level, Verification.header)
    verdict = _verdict(blocks, columns, level, reached, facts, unproven)
    columns.blocks.columns["verification"] = np.full(len(blocks), int(verdict.level), np.int8)
    return ProvenSegment(columns, logs, verdict)


def _check_places(
    blocks: Sequence[Block],
    receipts: Sequence[Sequence[Receipt]] | ScannedReceipts | None,
    header: dict[str, Column],
    level: Verification,
    facts: ChainFacts,
) -> list[bytes | None]:
    """Check what says where it stands; return each block's transaction that no root covers."""
    strict = level >= Verification.header
    columns: dict[str, Any] = header
    pairs = zip(columns["block_number"].tolist(), rows_of(columns["block_hash"]), strict=True)
    system = [system_transaction_hash(facts.system_logs, *pair) for pair in pairs]
    # Without a row for a system receipt receiptsRoot cannot be rebuilt.
    of_block = facts.system_receipts and level <= Verification.header
    for row, (block, outside) in enumerate(zip(blocks, system, strict=True)):
        if strict:
            check_transactions(block)
        last = None if outside is None else _hex(outside)
        if isinstance(receipts, ScannedReceipts):
            check_receipts_alone(block, receipts.receipts[row], strict=strict, system=last)
        elif receipts is not None:
            check_receipts(block, receipts[row], strict=strict, system=last, of_block=of_block)
    return system


def _check_unproven(
    blocks: Sequence[Block],
    columns: BlockColumns,
    logs: LogColumns,
    facts: ChainFacts,
    system: Sequence[bytes | None],
) -> tuple[str, ...]:
    """Check receipts and logs by blooms and gas; return what remains unproven."""
    owners = np.repeat(np.arange(len(blocks)), as_array(logs.headers.columns["log_count"]))
    check = check_blooms(blocks, columns.blocks, logs.logs, owners, facts, all_logs=True)
    outside = set(system)
    hashes = rows_of(columns.transactions.columns["transaction_hash"])
    counted = np.array([value not in outside for value in hashes], np.bool_)
    check_gas(blocks, columns, counted=counted, own=check.own)
    return (NO_RECEIPTS_ROOT, *check.unproven())


def _build(
    blocks: Sequence[Block],
    receipts: Sequence[Sequence[Receipt]] | ScannedReceipts | None,
    header: dict[str, Column],
    *,
    lenient: bool,
) -> tuple[BlockColumns, LogColumns | None]:
    """All columns of the segment."""
    if isinstance(receipts, ScannedReceipts):
        columns = build_block_columns(blocks, receipts.receipts, header, lenient=lenient)
        return columns, build_scanned_log_columns(blocks, receipts.logs, columns, in_receipts=True)
    columns = build_block_columns(blocks, receipts, header, lenient=lenient)
    return columns, None if receipts is None else build_log_columns(blocks, receipts, columns)


def _verdict(
    blocks: Sequence[Block],
    columns: BlockColumns,
    level: Verification,
    reached: Verification,
    facts: ChainFacts,
    words: tuple[str, ...],
) -> Verdict:
    """Prove the bodies at level ``full``, and put all that is proven into words."""
    proven, unproven = [], list(words)
    if level >= Verification.header:
        proven += ["header hash", "parent links"]
    if reached >= Verification.receipts:
        proven += ["receiptsRoot", "logsBloom", "log indexes", "gas used"]
    elif NO_RECEIPTS_ROOT in words:
        proven += ["logsBloom names the logs' addresses and topics", "log indexes", "gas used"]
    if level < Verification.full:
        return Verdict(reached, tuple(proven), (*unproven, "transactions", "withdrawals"))
    encoded = _prove_transactions(blocks, columns)
    kinds: Any = columns.transactions.columns["type"]
    unknown = ", ".join(map(hex, np.unique(kinds[unknown_types(columns.transactions)])))
    if unknown:
        unproven.append(f"transactions: types unknown to this version: {unknown}")
        reached = min(reached, Verification.receipts)
    else:
        proven += ["transactionsRoot", "transaction hashes", "senders", "derived fields"]
    unproven += check_derived(blocks, columns, encoded)
    if facts.withdrawals_in_header:
        _prove_withdrawals(blocks, columns)
        proven.append("withdrawalsRoot")
    else:
        unproven.append(STORAGE_ROOT)
    return Verdict(reached, tuple(proven), tuple(unproven))


def check_headers(
    blocks: Sequence[Block], header: dict[str, Column], level: Verification
) -> Column:
    """Check hashes and links of consecutive blocks.

    Parameters
    ----------
    blocks : sequence of Block
        The blocks, of which only unknown header fields are read here.
    header : dict
        What `build_header_columns` gave for them.
    level : Verification
        Below ``header`` nothing is refused.

    Returns
    -------
    Column
        The column ``extra``: JSON where a header has fields that its hash may cover and that no
        column holds.

    Raises
    ------
    BlockHashMismatch, UnknownHeaderFields, HeaderNotProvable, ParentMismatch, BlockNumberGap
    """
    columns: dict[str, Any] = header
    claimed = rows_of(columns["block_hash"])
    computed = header_hashes(ColumnBlock(BLOCKS.name, len(blocks), header))
    unknown = [
        {} if computed[row] == claimed[row] else extra_header_fields(block)
        for row, block in enumerate(blocks)
    ]
    texts = [msgspec.json.encode(fields, order="sorted") if fields else b"" for fields in unknown]
    kept = from_python(parse_kind("string"), texts)
    if any(unknown):
        # Some chains extend the header in ways that are known: see ingest/encode_headers.py.
        extended = header | {"extra": kept}
        computed = header_hashes(ColumnBlock(BLOCKS.name, len(blocks), extended))
    if level < Verification.header:
        return kept
    for row, block in enumerate(blocks):
        if computed[row] == claimed[row]:
            continue
        _refuse_header(block, computed[row], unknown[row])
    _check_links(blocks, columns, claimed)
    return kept


def _refuse_header(block: Block, computed: bytes | None, extra: dict[str, object]) -> None:
    """Say why a header does not have the block's hash."""
    place = block_place(block)
    for name in HEADER_FIELDS:
        if name in extra:
            raise HeaderNotProvable(field=name, value=clip(extra[name]), **place)
    if computed is None:
        name = missing_header_field(block)
        raise HeaderNotProvable(field=name, value="absent or null", **place)
    if unknown := extra.keys() - {"sealFields"}:
        raise UnknownHeaderFields(fields=", ".join(sorted(unknown)), **place)
    raise BlockHashMismatch(computed=_hex(computed), **place)


def _check_links(blocks: Sequence[Block], columns: dict[str, Any], hashes: list[bytes]) -> None:
    numbers = columns["block_number"].tolist()
    parents = rows_of(columns["parent_hash"])
    for row in range(1, len(blocks)):
        place = block_place(blocks[row])
        if numbers[row] != numbers[row - 1] + 1:
            raise BlockNumberGap(expected=numbers[row - 1] + 1, **place)
        if parents[row] != hashes[row - 1]:
            raise ParentMismatch(
                before=numbers[row - 1],
                parent=_hex(parents[row]),
                expected=_hex(hashes[row - 1]),
                **place,
            )


_NEEDED = ("nonce", "value_wei", "gas_limit", "input")
"""Columns that no transaction of known form has null."""


def _check_known_forms(blocks: Sequence[Block], columns: BlockColumns, facts: ChainFacts) -> None:
    """Check that transactions of a type that this version or the chain's facts know are whole."""
    transactions: dict[str, Any] = columns.transactions.columns
    lacking = {name: ~transactions[name].valid for name in _NEEDED}
    deposits = transactions["type"] == facts.deposit_type
    lacking["source_hash"] = deposits & ~transactions["source_hash"].valid
    if not any(rows.any() for rows in lacking.values()):
        return
    known = ~unknown_types(columns.transactions) | deposits
    starts = [start for start, _ in row_ranges(columns.blocks, columns.transactions)]
    for name, rows in lacking.items():
        for row in np.flatnonzero(rows & known)[:1].tolist():
            at = int(np.searchsorted(starts, row, "right")) - 1
            field = f"{name} of transaction {row - starts[at]}"
            raise FieldMissing(field=field, **block_place(blocks[at]))


def _prove_transactions(blocks: Sequence[Block], columns: BlockColumns) -> Sequence[bytes | None]:
    """Prove transactionsRoot and hashes; return the encodings, None where none was provable."""
    transactions = columns.transactions
    ranges = row_ranges(columns.blocks, transactions)
    encoded = encode_transactions(transactions)
    expected = _fixed_rows(columns.blocks, "transactions_root")
    hashes = _fixed_rows(transactions, "transaction_hash")
    for block, wanted, (start, stop) in zip(blocks, expected, ranges, strict=True):
        place = block_place(block)
        if block.transactions is None or len(block.transactions) != stop - start:
            raise FieldMissing(field="transactions", **place)
        own = encoded[start:stop]
        for index, payload in enumerate(own):
            if payload == b"":
                raise FieldMissing(field=f"a field of transaction {index}", **place)
        if None in own:
            encoded[start:stop] = [None] * len(own)
            continue
        root = transaction_root(own)
        if root != wanted:
            raise TransactionsRootMismatch(
                computed=_hex(root or b""), expected=_hex(wanted), **place
            )
        for index, payload in enumerate(own):
            computed = keccak(payload or b"")
            if computed != hashes[start + index]:
                raise TransactionHashMismatch(
                    index=index,
                    computed=_hex(computed),
                    given=_hex(hashes[start + index]),
                    **place,
                )
    return encoded


def _prove_withdrawals(blocks: Sequence[Block], columns: BlockColumns) -> None:
    ranges = row_ranges(columns.blocks, columns.withdrawals)
    roots = withdrawal_roots(columns.withdrawals, ranges)
    expected: Any = columns.blocks.columns["withdrawals_root"]
    wanted = rows_of(expected.values)
    for row, block in enumerate(blocks):
        start, stop = ranges[row]
        if not expected.valid[row]:
            if stop > start:
                raise WithdrawalsRootMismatch(
                    computed=_hex(roots[row]), expected="nothing", **block_place(block)
                )
            continue
        if roots[row] != wanted[row]:
            if block.withdrawals is None:
                raise FieldMissing(field="withdrawals", **block_place(block))
            raise WithdrawalsRootMismatch(
                computed=_hex(roots[row]), expected=_hex(wanted[row]), **block_place(block)
            )


def _fixed_rows(table: ColumnBlock, name: str) -> list[bytes]:
    column: Any = table.columns[name]
    return rows_of(column.values if isinstance(column, Nullable) else column)


def _hex(value: bytes) -> str:
    return "0x" + value.hex()
