"""JSON of receipts in, the columns that they and their logs fill out: the quick reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ingest.build_transactions import RECEIPT_FIELDS
from ingest.logscan import ScannedLogs, scan_placed_logs
from ingest.objectlayout import WINDOW, Irregular, Shape
from ingest.objectscan import PAD_BEFORE, PAD_BEHIND, locate
from ingest.placedcolumns import placed_columns
from ingest.quantitydigits import rare_places, taken
from ingest.wire import ReceiptFields
from schemas.columns import Bytes, Column, Nullable
from schemas.kinds import Kind, parse_kind
from schemas.tables import TRANSACTION_TABLE

Ints = npt.NDArray[np.int64]

_JSON_KEYS = dict(
    zip(ReceiptFields.__struct_fields__, ReceiptFields.__struct_encode_fields__, strict=True)
)
_FIELDS: dict[str, Kind] = {
    attribute: TRANSACTION_TABLE.column(name).kind for name, attribute in RECEIPT_FIELDS.items()
} | {
    "root": parse_kind("?bytes32"),
    "type": parse_kind("?u8"),
    "logs_bloom": parse_kind("?bytes256"),
    "transaction_hash": parse_kind("bytes32"),
    "transaction_index": parse_kind("u64"),
    "block_hash": parse_kind("bytes32"),
    "block_number": parse_kind("u64"),
}
"""Fields that hold hex texts."""
_ROOT = list(_FIELDS).index("root")
_NEEDED = [list(_FIELDS).index(attribute) for attribute in ("cumulative_gas_used", "gas_used")]
"""Fields that every receipt has, though their columns are null where there is no receipt."""
_SHAPE = Shape(tuple(_JSON_KEYS[attribute] for attribute in _FIELDS), hole="logs")


@dataclass(frozen=True, slots=True)
class ScannedReceipts:
    """The receipts of consecutive blocks as columns, one row each."""

    counts: list[int]
    """Number of receipts of each block."""
    columns: dict[str, Column]
    """The columns of the table ``transactions`` that receipts fill."""
    types: Nullable
    """Their types, null where the node names none."""
    blooms: Nullable
    """Their blooms, null where the node gives none."""
    transaction_hash: Bytes
    """uint8[n, 32], as the node says; so are the following."""
    transaction_index: npt.NDArray[np.uint64]
    """Positions of their transactions."""
    block_hash: Bytes
    """Hashes of their blocks."""
    block_number: npt.NDArray[np.uint64]
    """Heights of their blocks."""
    logs: ScannedLogs
    """All their logs, one array a receipt."""


def scan_receipts(results: Sequence[bytes | msgspec.Raw]) -> ScannedReceipts:
    """Read the `result` of eth_getBlockReceipts of blocks.

    Parameters
    ----------
    results : sequence of bytes or msgspec.Raw
        Valid JSON, one a block.

    Raises
    ------
    Irregular
        They have to be read one by one (see `ingest.wire.decode_receipts`): there is none, there
        is no log, or they are not written regularly.
    """
    views = [memoryview(result) for result in results]
    if any(view[0] != ord("[") or view[-1] != ord("]") for view in views):
        raise Irregular
    bodies = [view[1:-1] for view in views if len(view) > 2]
    text = b"".join((PAD_BEFORE, b",".join(bodies), PAD_BEHIND))
    if b"\\" in text or not bodies:
        raise Irregular
    codes = np.frombuffer(text, np.uint8)
    quotes = np.flatnonzero(codes == ord('"'))
    braces = rare_places(codes, "{")
    begins, ends, log_starts = _objects(text, codes, quotes, braces)
    steps = np.cumsum([max(len(view) - 1, 0) if len(view) > 2 else 0 for view in views])
    counts = np.diff(np.searchsorted(begins, steps + len(PAD_BEFORE)), prepend=0).tolist()
    # What stands before the first log has as many quotes in all receipts of one layout.
    heads = log_starts[np.searchsorted(log_starts, begins).clip(max=len(log_starts) - 1)]
    with_logs = (heads > begins) & (heads < ends)
    marks = np.searchsorted(quotes, np.where(with_logs, heads, ends))
    marks -= np.searchsorted(quotes, begins)
    located = locate(text, quotes, begins, ends, np.where(with_logs, marks, -marks), _SHAPE)
    # Some nodes say "0x" where there is no root.
    located.given[:, _ROOT] &= located.ends[:, _ROOT] > located.starts[:, _ROOT]
    if not located.given[:, _NEEDED].all():
        raise Irregular
    kinds = list(_FIELDS.values())
    decoded = placed_columns(text, located.starts, located.ends, located.given, kinds)
    fields: dict[str, Any] = dict(zip(_FIELDS, decoded, strict=True))
    logs = _logs(text, codes, quotes, log_starts, located.holes)
    columns: dict[str, Any] = {
        name: fields[attribute] for name, attribute in RECEIPT_FIELDS.items()
    }
    columns["post_state_root"] = fields["root"]
    columns["log_count"] = Nullable(np.ones(len(begins), np.bool_), logs.counts.astype(np.uint32))
    return ScannedReceipts(
        counts,
        columns,
        fields["type"],
        fields["logs_bloom"],
        fields["transaction_hash"],
        fields["transaction_index"],
        fields["block_hash"],
        fields["block_number"],
        logs,
    )


def _objects(text: bytes, codes: Bytes, quotes: Ints, braces: Ints) -> tuple[Ints, Ints, Ints]:
    """Where receipts begin and end, and where logs begin: they are told by their first keys."""
    first = len(PAD_BEFORE)
    if len(quotes) < 2 or not len(braces) or int(braces[0]) != first:
        raise Irregular
    key = text[first : int(quotes[1]) + 1]
    if len(key) > WINDOW:
        raise Irregular
    outer = taken(text, braces, len(key)).view(f"V{len(key)}").reshape(-1) == np.void(key)
    begins, log_starts = braces[outer], braces[~outer]
    if not len(log_starts) or (codes[begins[1:] - 1] != ord(",")).any():
        raise Irregular
    return begins, np.append(begins[1:] - 1, len(text) - len(PAD_BEHIND)), log_starts


def _logs(text: bytes, codes: Bytes, quotes: Ints, starts: Ints, holes: Ints) -> ScannedLogs:
    """The logs of receipts, which fill the holes."""
    first = np.searchsorted(starts, holes[0])
    behind = np.searchsorted(starts, holes[1])
    counts = behind - first
    filled = np.flatnonzero(counts)
    empty = np.flatnonzero(counts == 0)
    if (
        int(counts.sum()) != len(starts)
        or (holes[0, empty] != holes[1, empty]).any()
        or (starts[first[filled]] != holes[0, filled]).any()
    ):
        raise Irregular
    ends = np.append(starts[1:] - 1, 0)
    ends[behind[filled] - 1] = holes[1, filled]
    between = np.delete(ends, behind[filled] - 1)
    if (codes[between] != ord(",")).any():
        raise Irregular
    return scan_placed_logs(text, quotes, starts, ends, counts)
