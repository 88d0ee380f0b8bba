"""Recover the senders of transactions from their signatures.

Source: Yellow Paper, appendix F; EIP-155 and EIP-2718 for what is signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coincurve import PublicKey

from ingest.keccak import keccak
from ingest.rlp import EMPTY_BYTES, encode_uint, list_prefix
from schemas.columns import ColumnBlock

SIGNED_TYPES = frozenset(range(5))
"""Types whose encoding ends in a signature of the sender."""
_SHORT_BITS = 160
"""No key makes r and s this short: nodes for tests fill them with constants or the address."""
_UNPROTECTED = (27, 28)
"""v of legacy signatures that name no chain."""


def signed_chain_id(v: int) -> int | None:
    """The chain id in a legacy signature; None where it names none (EIP-155)."""
    return (v - 35) // 2 if v >= 35 else None


def recover_senders(
    transactions: ColumnBlock, encoded: Sequence[bytes | None]
) -> list[bytes | None]:
    """The address whose key signed each transaction.

    Parameters
    ----------
    transactions : ColumnBlock
        Rows of ``transactions``.
    encoded : sequence of bytes or None
        Their encodings, as `ingest.encode_transactions` makes them; None for those to leave out.

    Returns
    -------
    list of bytes or None
        20 bytes; None where there is no encoding, or no signature that a key can have made.
    """
    columns: dict[str, Any] = transactions.columns
    kinds = columns["type"].tolist()
    v, r, s = (_numbers(columns[name]) for name in ("v", "r", "s"))
    return [
        _recover(payload, kind, *signature) if payload and kind in SIGNED_TYPES else None
        for payload, kind, *signature in zip(encoded, kinds, v, r, s, strict=True)
    ]


def _numbers(column: Any) -> list[int]:
    """Each row of a nullable u256 column; 0 where it is null."""
    valid, raw = column.valid.tolist(), column.values.tobytes()
    return [
        int.from_bytes(raw[32 * row : 32 * row + 32], "little") if ok else 0
        for row, ok in enumerate(valid)
    ]


def _recover(payload: bytes, kind: int, v: int, r: int, s: int) -> bytes | None:
    parity = v if kind else (v - 27 if v in _UNPROTECTED else (v - 35) & 1)
    if parity not in (0, 1) or (not kind and v < _UNPROTECTED[0]):
        return None
    if max(r.bit_length(), s.bit_length()) <= _SHORT_BITS:
        return None
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes((parity,))
    digest = keccak(_signing_payload(payload, kind, v, r, s))
    try:
        public = PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except ValueError:
        return None
    return keccak(public.format(compressed=False)[1:])[12:]


def _signing_payload(payload: bytes, kind: int, v: int, r: int, s: int) -> bytes:
    """The encoding of a transaction without its signature, which is what was signed."""
    start = 1 if kind else 0
    head = payload[start]
    start += 1 if head <= 0xF7 else 1 + head - 0xF7
    tail = sum(len(encode_uint(part)) for part in (v, r, s))
    body = payload[start : len(payload) - tail]
    if kind:
        return bytes((kind,)) + list_prefix(len(body)) + body
    chain = signed_chain_id(v)
    if chain is not None:
        body += encode_uint(chain) + EMPTY_BYTES + EMPTY_BYTES
    return list_prefix(len(body)) + body
