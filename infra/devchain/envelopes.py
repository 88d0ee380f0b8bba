"""Planned transactions and their random bits in, typed envelopes and receipts out.

Types 0 to 4 occur, signed by keys that follow from the chain's seed. Only the signatures inside of
authorizations (EIP-7702) are numbers of the right size that nobody made.

Source: EIPs 155, 1559, 2718, 2930, 4844, 7702.
"""

from collections.abc import Mapping
from functools import lru_cache

from coincurve import PrivateKey

from infra.devchain.cast import created_address
from infra.devchain.model import Log, Plan, Transaction
from infra.devchain.world import NONCE
from ingest.keccak import keccak
from ingest.rlp import EMPTY_LIST, bytes_prefix, encode_bytes, encode_list, encode_uint, list_prefix

GWEI = 10**9
BLOB_GAS = 1 << 17
BLOBS_MAX = 9
AUTHORIZATION_GAS = 25_000
_BLOB_FEE_CAP = 30 * GWEI
_BLOOM_MEMO_MAX = 200_000
_BLOOM_PREFIX = bytes_prefix(256)
_TOPICS_PREFIX = tuple(list_prefix(33 * count) + (b"\xa0" if count else b"") for count in range(5))
_TYPE_BELOW = ((40, 0), (52, 1), (62, 3), (72, 4))
"""Of 256 transactions, 40 are of type 0, 12 of type 1, … and the rest of type 2."""

AccessList = tuple[tuple[bytes, tuple[bytes, ...]], ...]
Authorizations = tuple[tuple[int, bytes, int, int, int, int], ...]


_key = lru_cache(maxsize=4096)(PrivateKey)


@lru_cache(maxsize=_BLOOM_MEMO_MAX)
def _bloom_bits(value: bytes) -> int:
    """Three bits of the 2048 for one address or topic."""
    digest = keccak(value)
    bits = 0
    for start in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[start : start + 2], "big") & 2047)
    return bits


def _bloom(logs: tuple[Log, ...]) -> int:
    bits = 0
    for log in logs:
        bits |= _bloom_bits(log.address)
        for topic in log.topics:
            bits |= _bloom_bits(topic)
    return bits


def _encode_log(log: Log) -> bytes:
    topics = log.topics
    body = b"".join(
        (
            b"\x94",
            log.address,
            _TOPICS_PREFIX[len(topics)],
            b"\xa0".join(topics),
            encode_bytes(log.data),
        )
    )
    return list_prefix(len(body)) + body


def encode_receipt(kind: int, status: int, gas: int, bloom: bytes, logs: tuple[Log, ...]) -> bytes:
    """A receipt as the receipts' trie holds it; ``gas`` is the cumulative gas used."""
    encoded = b"".join([_encode_log(log) for log in logs])
    body = b"".join(
        (
            b"\x01" if status else b"\x80",
            encode_uint(gas),
            _BLOOM_PREFIX,
            bloom,
            list_prefix(len(encoded)),
            encoded,
        )
    )
    prefix = bytes((kind,)) if kind else b""
    return prefix + list_prefix(len(body)) + body


def _encode_access_list(entries: AccessList) -> bytes:
    if not entries:
        return EMPTY_LIST
    return encode_list(
        encode_list((b"\x94" + address, encode_list(b"\xa0" + key for key in keys)))
        for address, keys in entries
    )


def _encode_authorizations(entries: Authorizations) -> bytes:
    return encode_list(
        encode_list((encode_uint(entry[0]), b"\x94" + entry[1], *map(encode_uint, entry[2:])))
        for entry in entries
    )


def encode_transaction(transaction: Transaction, chain_id: int, *, signed: bool = True) -> bytes:
    """The envelope of a transaction: its keccak-256 is its hash, or unsigned what is signed."""
    kind = transaction.type
    to = b"\x94" + transaction.to if transaction.to else b"\x80"
    call = (
        encode_uint(transaction.gas),
        to,
        encode_uint(transaction.value),
        encode_bytes(transaction.input),
    )
    tail: tuple[bytes, ...] = ()
    if signed:
        tail = tuple(map(encode_uint, (transaction.v, transaction.r, transaction.s)))
    elif kind == 0:
        tail = (encode_uint(chain_id), b"\x80", b"\x80")
    nonce = encode_uint(transaction.nonce)
    if kind == 0:
        return encode_list((nonce, encode_uint(transaction.gas_price), *call, *tail))
    head = (encode_uint(chain_id), nonce)
    access = _encode_access_list(transaction.access_list)
    if kind == 1:
        price = encode_uint(transaction.gas_price)
        return b"\x01" + encode_list((*head, price, *call, access, *tail))
    fees = (encode_uint(transaction.max_priority_fee), encode_uint(transaction.max_fee))
    if kind == 2:
        return b"\x02" + encode_list((*head, *fees, *call, access, *tail))
    if kind == 3:
        blobs = (
            encode_uint(transaction.max_blob_fee),
            encode_list(b"\xa0" + versioned for versioned in transaction.blob_hashes),
        )
        return b"\x03" + encode_list((*head, *fees, *call, access, *blobs, *tail))
    granted = _encode_authorizations(transaction.authorizations)
    return b"\x04" + encode_list((*head, *fees, *call, access, granted, *tail))


def _access_list(entropy: bytes, target: bytes) -> AccessList:
    keys = (entropy[:32], entropy[17:49])
    entries: AccessList = ((target, keys[: entropy[50] & 3]),)
    return entries if entropy[51] & 1 else (*entries, (entropy[20:40], keys))


def _authorizations(entropy: bytes, chain_id: int) -> Authorizations:
    r = int.from_bytes(entropy[1:33], "big") >> 1
    s = int.from_bytes(entropy[30:62], "big") >> 2
    first = (chain_id, entropy[4:24], entropy[2], entropy[3] & 1, r, s)
    other = (0, entropy[31:51], 0, entropy[5] & 1, s, r)
    return (first, other) if entropy[6] & 1 else (first,)


class Envelopes:
    """The transactions of one block while they are sealed, in order."""

    __slots__ = (
        "_base_fee",
        "_chain_id",
        "_scale_percent",
        "_state",
        "_writes",
        "blobs",
        "bloom",
        "gas_used",
        "log_count",
        "raw",
        "receipts",
        "transactions",
    )

    def __init__(
        self,
        chain_id: int,
        base_fee: int,
        scale_percent: int,
        state: Mapping[bytes, int],
        writes: dict[bytes, int],
    ) -> None:
        self._chain_id = chain_id
        self._base_fee = base_fee
        self._scale_percent = scale_percent
        self._state = state
        self._writes = writes
        self.transactions: list[Transaction] = []
        self.raw: list[bytes] = []
        self.receipts: list[bytes] = []
        self.gas_used = self.bloom = self.blobs = self.log_count = 0

    def _kind(self, plan: Plan, entropy: int) -> int:
        draw = entropy & 0xFF
        for below, kind in _TYPE_BELOW:
            if draw < below:
                if kind > 2 and (plan.to is None or self.blobs >= BLOBS_MAX):
                    return 2
                return kind
        return 2

    def add(self, plan: Plan, entropy: int) -> None:
        """Seal the next transaction."""
        kind = self._kind(plan, entropy)
        tip = (((entropy >> 8) & 0xFF) + 1) * 10_000_000
        cap = max(60 * GWEI + ((entropy >> 16) & 0xFF) * 100_000_000, self._base_fee + tip)
        access: AccessList = ()
        authorizations: Authorizations = ()
        blob_hashes: tuple[bytes, ...] = ()
        if kind in (1, 3, 4) or (kind == 2 and not (entropy >> 25) & 7):
            bits = entropy.to_bytes(68, "big")
            if kind == 3:
                count = min(1 + bits[9] % 3, BLOBS_MAX - self.blobs)
                self.blobs += count
                starts = range(10, 10 + count)
                blob_hashes = tuple(b"\x01" + bits[start : start + 31] for start in starts)
            elif kind == 4:
                authorizations = _authorizations(bits, self._chain_id)
            if bits[60] & 3 and plan.to:
                access = _access_list(bits, plan.to)
        gas_used = self._gas(plan, len(authorizations))
        nonce = self._next_nonce(plan.sender)
        bloom = _bloom(plan.logs)
        self.gas_used += gas_used
        self.bloom |= bloom
        self.log_count += len(plan.logs)
        self._append(
            Transaction(
                hash=b"",
                type=kind,
                nonce=nonce,
                sender=plan.sender,
                to=plan.to,
                value=plan.value,
                gas=gas_used if gas_used == 21_000 else gas_used * 5 // 4,
                gas_price=cap if kind < 2 else self._base_fee + tip,
                max_fee=cap if kind > 1 else 0,
                max_priority_fee=tip if kind > 1 else 0,
                max_blob_fee=_BLOB_FEE_CAP if kind == 3 else 0,
                input=plan.input,
                access_list=access,
                blob_hashes=blob_hashes,
                authorizations=authorizations,
                v=0,
                r=0,
                s=0,
                status=0 if plan.failed else 1,
                gas_used=gas_used,
                cumulative_gas_used=self.gas_used,
                bloom=bloom.to_bytes(256, "big"),
                contract_address=None if plan.to else created_address(plan.sender, nonce),
                logs=plan.logs,
            ),
            plan.secret,
        )

    def _next_nonce(self, sender: bytes) -> int:
        key = NONCE + sender
        nonce = self._writes.get(key)
        if nonce is None:
            nonce = self._state.get(key, 0)
        self._writes[key] = nonce + 1
        return nonce

    def _gas(self, plan: Plan, authorizations: int) -> int:
        if plan.gas == 21_000 and not plan.logs:
            return 21_000 + AUTHORIZATION_GAS * authorizations
        return plan.gas * self._scale_percent // 100 + AUTHORIZATION_GAS * authorizations

    def _append(self, unsigned: Transaction, secret: bytes) -> None:
        signing = encode_transaction(unsigned, self._chain_id, signed=False)
        signature = _key(secret).sign_recoverable(keccak(signing), hasher=None)
        unhashed = unsigned._replace(
            v=signature[64] + (0 if unsigned.type else 35 + 2 * self._chain_id),
            r=int.from_bytes(signature[:32], "big"),
            s=int.from_bytes(signature[32:64], "big"),
        )
        raw = encode_transaction(unhashed, self._chain_id)
        self.raw.append(raw)
        self.transactions.append(Transaction(keccak(raw), *unhashed[1:]))
        self.receipts.append(
            encode_receipt(
                unhashed.type,
                unhashed.status,
                unhashed.cumulative_gas_used,
                unhashed.bloom,
                unhashed.logs,
            )
        )
