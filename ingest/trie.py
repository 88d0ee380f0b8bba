"""A list of encoded values in, the root of its ordered Merkle-Patricia trie out.

The keys of such a trie are rlp(0), rlp(1), …, so its shape depends on the count alone: it is
planned once per count and kept, and only values are hashed afterwards.

Source: Ethereum Yellow Paper, appendix D.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter

from ingest.keccak import keccak
from ingest.rlp import EMPTY_BYTES, encode_bytes, encode_uint, frame_bytes, frame_lists, list_prefix

EMPTY_ROOT = keccak(EMPTY_BYTES)
"""Root of a trie without values."""

_PLANS_MAX = 512
_PLANNED_VALUES_MAX = 1024
"""Larger tries are planned each time, so that the plans kept stay below some 30 MB."""
_HASH_PREFIX = b"\xa0"


@dataclass(frozen=True, slots=True)
class _Inner:
    """A branch, or an extension where ``path`` is not empty."""

    path: bytes
    """Encoded shared nibbles of an extension; empty for a branch."""
    pick: Callable[[list[bytes]], Iterable[bytes]]
    """Takes the parts of the node out of the references made so far."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The shape of the trie of one count."""

    leaf_paths: tuple[bytes, ...]
    """Encoded remaining path of each value's leaf, by index."""
    inner: tuple[_Inner, ...]
    """Inner nodes, children before parents; the last is the root. Empty for one value."""


@lru_cache(maxsize=4096)
def _hex_prefix(nibbles: str, *, leaf: bool) -> bytes:
    flag = 2 if leaf else 0
    odd = len(nibbles) & 1
    packed = f"{flag + 1:x}{nibbles}" if odd else f"{flag:x}0{nibbles}"
    return encode_bytes(bytes.fromhex(packed))


class _Planner:
    """Numbers the nodes of one trie: leaves by index, then blank, then inner nodes."""

    def __init__(self, count: int) -> None:
        self.leaf_paths: list[bytes] = [b""] * count
        self.inner: list[_Inner] = []
        self.blank = count

    def place(self, keys: list[tuple[str, int]], depth: int) -> int:
        """Plan the sub-trie of sorted ``keys`` below ``depth`` nibbles; return its number."""
        first, last = keys[0][0], keys[-1][0]
        if len(keys) == 1:
            self.leaf_paths[keys[0][1]] = _hex_prefix(first[depth:], leaf=True)
            return keys[0][1]
        fork = depth
        while first[fork] == last[fork]:
            fork += 1
        slots = [self.blank] * 17
        start = 0
        while start < len(keys):
            nibble = keys[start][0][fork]
            stop = start + 1
            while stop < len(keys) and keys[stop][0][fork] == nibble:
                stop += 1
            slots[int(nibble, 16)] = self.place(keys[start:stop], fork + 1)
            start = stop
        number = self._add(_Inner(b"", itemgetter(*slots)))
        if fork == depth:
            return number
        # A slice, because itemgetter of one plain index gives the bare value, not a tuple.
        path = _hex_prefix(first[depth:fork], leaf=False)
        return self._add(_Inner(path, itemgetter(slice(number, number + 1))))

    def _add(self, node: _Inner) -> int:
        self.inner.append(node)
        return self.blank + len(self.inner)


def _plan(count: int) -> _Plan:
    keys = sorted((encode_uint(index).hex(), index) for index in range(count))
    planner = _Planner(count)
    planner.place(keys, 0)
    return _Plan(tuple(planner.leaf_paths), tuple(planner.inner))


_kept_plan = lru_cache(maxsize=_PLANS_MAX)(_plan)


def ordered_root(values: Sequence[bytes]) -> bytes:
    """Root of the Merkle-Patricia trie that maps rlp(i) to ``values[i]``.

    Parameters
    ----------
    values : sequence of bytes
        Encoded transactions, receipts or withdrawals, in their order. None may be empty: an
        empty value means absence in this trie.

    Returns
    -------
    bytes
        32 bytes.

    Raises
    ------
    ValueError
        If a value is empty.
    """
    if not values:
        return EMPTY_ROOT
    if not all(values):
        raise ValueError("an ordered trie cannot hold an empty value")
    count = len(values)
    plan = _kept_plan(count) if count <= _PLANNED_VALUES_MAX else _plan(count)
    leaves = zip(plan.leaf_paths, frame_bytes(values), strict=True)
    nodes = frame_lists([path + value for path, value in leaves])
    if not plan.inner:
        return keccak(nodes[0])
    references = [_HASH_PREFIX + keccak(node) if len(node) > 31 else node for node in nodes]
    references.append(EMPTY_BYTES)
    node = b""
    for inner in plan.inner:
        body = inner.path + b"".join(inner.pick(references))
        node = list_prefix(len(body)) + body
        references.append(_HASH_PREFIX + keccak(node) if len(node) > 31 else node)
    return keccak(node)
