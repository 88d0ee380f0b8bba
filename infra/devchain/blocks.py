"""Planned transactions and a parent in, a sealed block with true hashes, roots and blooms out.

The state root is a deterministic fake, since no virtual machine runs.

Source: Yellow Paper, section 4; EIPs 1559, 2718, 2930, 4788, 4844, 4895, 7685, 7702.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from infra.devchain.envelopes import BLOB_GAS, GWEI, Envelopes
from infra.devchain.model import Block, Header, Withdrawal
from infra.devchain.planning import Budget, Planned
from infra.devchain.world import GAS_PER_LOG, GAS_PLAIN
from ingest.keccak import keccak
from ingest.rlp import EMPTY_LIST, bytes_prefix, encode_bytes, encode_list, encode_uint
from ingest.trie import EMPTY_ROOT, ordered_root

OMMERS_HASH = keccak(EMPTY_LIST)
REQUESTS_HASH = sha256(b"").digest()
EXTRA_DATA = b"headrace devchain (synthetic)"

BLOB_GAS_TARGET = 6 * BLOB_GAS
_BLOB_FEE_FRACTION = 5_007_716
FIRST_BASE_FEE = 12 * GWEI
_GAS_LIMIT_MIN = 2_000_000
_LIST_BASE = 0xC0
_BLOOM_PREFIX = bytes_prefix(256)


def encode_header(header: Header) -> bytes:
    """RLP of a Prague header; its keccak-256 is the block's hash."""
    return encode_list(
        (
            b"\xa0" + header.parent_hash,
            b"\xa0" + OMMERS_HASH,
            b"\x94" + header.miner,
            b"\xa0" + header.state_root,
            b"\xa0" + header.transactions_root,
            b"\xa0" + header.receipts_root,
            _BLOOM_PREFIX + header.bloom,
            b"\x80",
            encode_uint(header.number),
            encode_uint(header.gas_limit),
            encode_uint(header.gas_used),
            encode_uint(header.timestamp),
            encode_bytes(EXTRA_DATA),
            b"\xa0" + header.mix_hash,
            b"\x88" + bytes(8),
            encode_uint(header.base_fee),
            b"\xa0" + header.withdrawals_root,
            encode_uint(header.blob_gas_used),
            encode_uint(header.excess_blob_gas),
            b"\xa0" + header.parent_beacon_block_root,
            b"\xa0" + REQUESTS_HASH,
        )
    )


def encode_withdrawal(withdrawal: Withdrawal) -> bytes:
    """RLP of a withdrawal."""
    return encode_list(
        (
            encode_uint(withdrawal.number),
            encode_uint(withdrawal.validator),
            b"\x94" + withdrawal.address,
            encode_uint(withdrawal.amount_gwei),
        )
    )


def blob_gas_price(excess: int) -> int:
    """Price of blob gas (EIP-4844, fake_exponential)."""
    total, term, step = 0, _BLOB_FEE_FRACTION, 1
    while term > 0:
        total += term
        term = term * excess // (_BLOB_FEE_FRACTION * step)
        step += 1
    return total // _BLOB_FEE_FRACTION


def next_base_fee(parent: Header) -> int:
    """Base fee after a parent (EIP-1559)."""
    target = parent.gas_limit // 2
    delta = parent.base_fee * abs(parent.gas_used - target) // target // 8
    return parent.base_fee + max(delta, 1) if parent.gas_used > target else parent.base_fee - delta


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for every block of a chain."""

    chain_id: int
    gas_limit: int

    @classmethod
    def of(cls, chain_id: int, budget: Budget) -> "Rules":
        """Rules of a chain whose usual blocks are half full."""
        usual = budget.transactions * (GAS_PLAIN + 2_500) + budget.logs * GAS_PER_LOG
        return cls(chain_id, max(_GAS_LIMIT_MIN, 2 * usual))


def gas_scale_percent(base_fee: int) -> int:
    """How much gas people are ready to use at a base fee: keeps it from running away."""
    return 115 if base_fee < 8 * GWEI else 85 if base_fee > 20 * GWEI else 100


def seal_block(
    rules: Rules,
    parent: Block | None,
    planned: Planned,
    state: Mapping[bytes, int],
    *,
    randomness: bytes,
    timestamp: int,
    withdrawals: tuple[Withdrawal, ...],
) -> Block:
    """Give planned transactions a place, fees, receipts and a header.

    Parameters
    ----------
    rules : Rules
    parent : Block or None
        None seals a genesis block.
    planned : Planned
    state : mapping
        State after the parent, which knows each sender's nonce; the next ones are added to
        the plan's writes.
    randomness : bytes
        32 bytes that differ between branches: the mix hash.
    timestamp : int
        Unix seconds.
    withdrawals : tuple of Withdrawal

    Returns
    -------
    Block
    """
    header = Header(
        parent_hash=parent.hash if parent else bytes(32),
        miner=keccak(b"builder" + randomness[:1])[12:],
        state_root=EMPTY_ROOT,
        transactions_root=EMPTY_ROOT,
        receipts_root=EMPTY_ROOT,
        bloom=bytes(256),
        number=parent.header.number + 1 if parent else 0,
        gas_limit=rules.gas_limit,
        gas_used=0,
        timestamp=timestamp,
        mix_hash=randomness,
        base_fee=next_base_fee(parent.header) if parent else FIRST_BASE_FEE,
        withdrawals_root=EMPTY_ROOT,
        blob_gas_used=0,
        excess_blob_gas=_next_excess(parent.header) if parent else 0,
        parent_beacon_block_root=keccak(b"beacon" + randomness),
    )
    fee = header.base_fee
    draft = Envelopes(rules.chain_id, fee, gas_scale_percent(fee), state, planned.writes)
    for plan, entropy in zip(planned.plans, planned.entropies, strict=True):
        draft.add(plan, entropy)
    parent_state = parent.header.state_root if parent else EMPTY_ROOT
    return _close(header, draft, withdrawals, parent_state)


def _close(
    opened: Header, draft: Envelopes, withdrawals: tuple[Withdrawal, ...], parent_state: bytes
) -> Block:
    """The block of a header whose content is known now."""
    bodies = [encode_withdrawal(withdrawal) for withdrawal in withdrawals]
    transactions_root = ordered_root(draft.raw)
    header = opened._replace(
        state_root=keccak(parent_state + transactions_root + opened.mix_hash),
        transactions_root=transactions_root,
        receipts_root=ordered_root(draft.receipts),
        bloom=draft.bloom.to_bytes(256, "big"),
        gas_used=draft.gas_used,
        withdrawals_root=ordered_root(bodies),
        blob_gas_used=draft.blobs * BLOB_GAS,
    )
    encoded = encode_header(header)
    # A typed envelope is a byte string in the block's list; a legacy one is a list itself.
    sent = [raw if raw[0] >= _LIST_BASE else encode_bytes(raw) for raw in draft.raw]
    content = (encoded, encode_list(sent), EMPTY_LIST, encode_list(bodies))
    return Block(
        keccak(encoded),
        header,
        len(encode_list(content)),
        blob_gas_price(header.excess_blob_gas),
        tuple(draft.transactions),
        withdrawals,
        draft.log_count,
    )


def _next_excess(parent: Header) -> int:
    return max(0, parent.excess_blob_gas + parent.blob_gas_used - BLOB_GAS_TARGET)
