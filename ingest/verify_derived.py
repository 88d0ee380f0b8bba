"""Check the fields of transactions that no root covers but that follow from covered ones.

Their inputs are proven first: transactionsRoot, transaction hashes, receiptsRoot, the header.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.build import BlockColumns
from ingest.keccak import keccak
from ingest.places import block_place
from ingest.rlp import encode_bytes, encode_list, encode_uint
from ingest.rlpcolumns import rows_of
from ingest.senders import SIGNED_TYPES, recover_senders, signed_chain_id
from ingest.wire import Block
from schemas.columns import Nullable
from schemas.errors_verify import DerivedMismatch

BLOB_GAS = 1 << 17
"""Gas of one blob (EIP-4844)."""
_FEE_MARKET, _BLOB = 2, 3
_NARROW_BITS = 62
"""Prices below so many bits are added as numbers of 64 bits."""

Numbers = npt.NDArray[Any]
"""uint64, or Python's integers where one is wider."""


def check_derived(
    blocks: Sequence[Block], columns: BlockColumns, encoded: Sequence[bytes | None]
) -> list[str]:
    """Compare what follows from proven fields, and fill the chain ids of legacy transactions.

    Parameters
    ----------
    blocks : sequence of Block
        Only read to name one in an error.
    columns : BlockColumns
        What was built of them and their receipts; the column ``chain_id`` is completed.
    encoded : sequence of bytes or None
        The encodings of the transactions that are under transactionsRoot; None for the others.

    Returns
    -------
    list of str
        What could not be derived, in words.

    Raises
    ------
    DerivedMismatch
        ``from``, ``chainId``, ``effectiveGasPrice``, ``gasPrice``, ``contractAddress`` or
        ``blobGasUsed`` is another than follows.
    """
    check = _Derived(blocks, columns, encoded)
    if not check.rows:
        return []
    check.senders()
    check.chain_ids()
    check.prices()
    check.blob_gas()
    check.contracts()
    unsigned = check.unsigned
    return [f"senders of {unsigned} transactions: no key signed them"] if unsigned else []


class _Derived:
    """The transactions of a segment, with what is known of each."""

    def __init__(
        self, blocks: Sequence[Block], columns: BlockColumns, encoded: Sequence[bytes | None]
    ) -> None:
        self.rows = columns.transactions.rows
        self.unsigned = 0
        self._blocks, self._encoded, self._table = blocks, encoded, columns.transactions
        self._columns: Any = columns.transactions.columns
        header: dict[str, Any] = columns.blocks.columns
        heights: Any = columns.transactions.columns["block_number"]
        self._owners = np.searchsorted(header["block_number"], heights)
        self._base = header["base_fee_per_gas_wei"]
        self._proven = np.array([bool(payload) for payload in encoded], np.bool_)

    def senders(self) -> None:
        """The sender is whose key signed; a deposit's is under the transaction's hash itself."""
        found = recover_senders(self._table, self._encoded)
        kinds = self._columns["type"].tolist()
        given = rows_of(self._columns["from_address"])
        for row, (sender, stated, kind) in enumerate(zip(found, given, kinds, strict=True)):
            if sender is None:
                self.unsigned += bool(self._proven[row]) and kind in SIGNED_TYPES
            elif sender != stated:
                self._refuse(row, "from", "0x" + stated.hex(), "0x" + sender.hex(), "its signature")

    def chain_ids(self) -> None:
        """A legacy transaction has its chain id in `v`, or none."""
        column, v = self._columns["chain_id"], self._columns["v"]
        legacy = (self._columns["type"] == 0) & v.valid & self._proven
        valid, values = column.valid.copy(), column.values.copy()
        for row in np.flatnonzero(legacy).tolist():
            signed = signed_chain_id(int.from_bytes(v.values[row].tobytes(), "little"))
            if signed is None:
                valid[row], values[row] = False, 0
                continue
            if signed >> 64:
                continue
            if valid[row] and int(values[row]) != signed:
                self._refuse(row, "chainId", int(values[row]), signed, "v")
            valid[row], values[row] = True, signed
        self._columns["chain_id"] = Nullable(valid, values)

    def prices(self) -> None:
        """What is paid per gas follows from the fees and the base fee (EIP-1559)."""
        columns, kinds = self._columns, self._columns["type"]
        own = columns["gas_price_wei"]
        market = (kinds >= _FEE_MARKET) & np.isin(kinds, [*SIGNED_TYPES])
        based = self._base.valid[self._owners]
        base = _numbers(self._base.values)[self._owners]
        cap = _numbers(columns["max_fee_per_gas_wei"].values)
        tip = _numbers(columns["max_priority_fee_per_gas_wei"].values)
        paid = np.where(market, np.minimum(cap, base + tip), _numbers(own.values))
        known = self._proven & np.where(market, based, (kinds < _FEE_MARKET) & own.valid)
        stated = columns["effective_gas_price_wei"]
        price = _numbers(stated.values)
        self._compare("effectiveGasPrice", known & stated.valid, price, paid, "its fees")
        # Some nodes repeat the cap in a mined transaction's gasPrice.
        price = _numbers(own.values)
        other = known & market & own.valid & (price != cap)
        self._compare("gasPrice", other, price, paid, "its fees")

    def blob_gas(self) -> None:
        """A blob transaction uses so much blob gas for each of its blobs."""
        stated = self._columns["blob_gas_used"]
        used = np.diff(self._columns["blob_versioned_hashes"].offsets) * BLOB_GAS
        known = self._proven & (self._columns["type"] == _BLOB) & stated.valid
        self._compare("blobGasUsed", known, stated.values, used, "its blobs")

    def contracts(self) -> None:
        """A transaction without a callee creates the contract of its sender and nonce."""
        columns = self._columns
        stated, called = columns["contract_address"], columns["to_address"].valid
        signed = np.isin(columns["type"], [*SIGNED_TYPES])
        own, deposit = columns["nonce"], columns["deposit_nonce"]
        nonces = np.where(signed, own.values, deposit.values)
        given = stated.valid & np.any(stated.values != 0, axis=1)
        for row in np.flatnonzero(self._proven & called & given)[:1].tolist():
            found = "0x" + stated.values[row].tobytes().hex()
            self._refuse(row, "contractAddress", found, "nothing", "to")
        created = self._proven & ~called & np.where(signed, own.valid, deposit.valid)
        succeeded = columns["status"].valid & (columns["status"].values == 1)
        for row in np.flatnonzero(created & (stated.valid | succeeded)).tolist():
            nonce = int(nonces[row])
            sender = columns["from_address"][row].tobytes()
            address = keccak(encode_list((encode_bytes(sender), encode_uint(nonce))))[12:]
            found = stated.values[row].tobytes() if stated.valid[row] else b""
            if found != address:
                text = "0x" + found.hex() if found else "missing"
                source = "sender and nonce"
                self._refuse(row, "contractAddress", text, "0x" + address.hex(), source)

    def _compare(
        self,
        field: str,
        known: npt.NDArray[np.bool_],
        found: Numbers,
        expected: Numbers,
        source: str,
    ) -> None:
        for row in np.flatnonzero(known & (found != expected))[:1].tolist():
            self._refuse(row, field, int(found[row]), int(expected[row]), source)

    def _refuse(self, row: int, field: str, found: object, expected: object, source: str) -> None:
        owner = int(self._owners[row])
        raise DerivedMismatch(
            field=field,
            index=int(self._columns["transaction_index"][row]),
            found=found,
            expected=expected,
            source=source,
            **block_place(self._blocks[owner]),
        )


def _numbers(column: npt.NDArray[np.uint8]) -> Numbers:
    """The rows of a u256 column as numbers that can be added."""
    if not column[:, 8:].any():
        narrow = np.ascontiguousarray(column[:, :8]).view("<u8").reshape(len(column))
        if not (narrow >> np.uint64(_NARROW_BITS)).any():
            return narrow
    return np.array([int.from_bytes(row, "little") for row in rows_of(column)], object)
