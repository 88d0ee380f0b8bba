"""Planned transactions and a parent in, a sealed block with true hashes, roots and blooms out.

The state root is a deterministic fake, since no virtual machine runs; so are the signatures.

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
_GAS_LIMIT_MIN = 2_000_000
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
    base_fee = next_base_fee(parent.header) if parent else 12 * GWEI
    excess = _next_excess(parent.header) if parent else 0
    draft = Envelopes(rules.chain_id, base_fee, gas_scale_percent(base_fee), state, planned.writes)
    for plan, entropy in zip(planned.plans, planned.entropies, strict=True):
        draft.add(plan, entropy)
    bodies = [encode_withdrawal(withdrawal) for withdrawal in withdrawals]
    transactions_root = ordered_root(draft.raw)
    parent_state = parent.header.state_root if parent else EMPTY_ROOT
    header = Header(
        parent_hash=parent.hash if parent else bytes(32),
        miner=keccak(b"builder" + randomness[:1])[12:],
        state_root=keccak(parent_state + transactions_root + randomness),
        transactions_root=transactions_root,
        receipts_root=ordered_root(draft.receipts),
        bloom=draft.bloom.to_bytes(256, "big"),
        number=parent.header.number + 1 if parent else 0,
        gas_limit=rules.gas_limit,
        gas_used=draft.gas_used,
        timestamp=timestamp,
        mix_hash=randomness,
        base_fee=base_fee,
        withdrawals_root=ordered_root(bodies),
        blob_gas_used=draft.blobs * BLOB_GAS,
        excess_blob_gas=excess,
        parent_beacon_block_root=keccak(b"beacon" + randomness),
    )
    encoded = encode_header(header)
    size = len(encoded) + sum(map(len, draft.raw)) + sum(map(len, bodies)) + 3 * len(draft.raw) + 9
    return Block(
        keccak(encoded),
        header,
        size,
        blob_gas_price(excess),
        tuple(draft.transactions),
        withdrawals,
        draft.log_count,
    )


def _next_excess(parent: Header) -> int:
    return max(0, parent.excess_blob_gas + parent.blob_gas_used - BLOB_GAS_TARGET)
