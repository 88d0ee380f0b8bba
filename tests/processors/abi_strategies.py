"""Hypothesis strategies: ABI types, their values, and bytes damaged the way an attacker would."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from schemas.abi import AbiType

bits = st.integers(1, 32).map(lambda n: 8 * n)
words = st.one_of(
    st.sampled_from(["address", "bool", "uint256", "int256", "bytes32", "uint8", "int24"]),
    bits.map(lambda n: f"uint{n}"),
    bits.map(lambda n: f"int{n}"),
    st.integers(1, 32).map(lambda n: f"bytes{n}"),
)


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.tuples(inner, st.sampled_from(["[]", "[]", "[1]", "[2]", "[3]"])).map("".join)
    tuples = st.lists(inner, min_size=1, max_size=3).map(lambda members: f"({','.join(members)})")
    return arrays | tuples


types = st.recursive(words | st.sampled_from(["bytes", "string"]), _nested, max_leaves=5)


def values(abi_type: AbiType) -> st.SearchStrategy[Any]:
    """Values of a type as eth-abi takes them."""
    if abi_type.base == "array":
        size = abi_type.length
        least, most = (0, 3) if size is None else (size, size)
        return st.lists(values(abi_type.children[0]), min_size=least, max_size=most)
    if abi_type.base == "tuple":
        return st.tuples(*(values(member) for member in abi_type.children))
    if abi_type.base == "uint":
        return st.integers(0, 2**abi_type.width - 1)
    if abi_type.base == "int":
        return st.integers(-(2 ** (abi_type.width - 1)), 2 ** (abi_type.width - 1) - 1)
    if abi_type.base == "address":
        return st.binary(min_size=20, max_size=20).map(lambda raw: f"0x{raw.hex()}")
    if abi_type.base == "bool":
        return st.booleans()
    if abi_type.base == "bytesN":
        return st.binary(min_size=abi_type.width, max_size=abi_type.width)
    if abi_type.base == "bytes":
        return st.binary(max_size=70)
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def as_decoded(abi_type: AbiType, value: Any) -> Any:
    """What eth-abi decodes, in the form that `to_python` gives it."""
    if abi_type.base == "array":
        return [as_decoded(abi_type.children[0], element) for element in value]
    if abi_type.base == "tuple":
        pairs = zip(abi_type.children, value, strict=True)
        return tuple(as_decoded(member, part) for member, part in pairs)
    if abi_type.base == "address":
        return bytes.fromhex(value[2:])
    return value.encode() if abi_type.base == "string" else value


_EDGES = [0, 1, 2, 31, 32, 33, 64, 96, 128, 160, 2**63, 2**64, 2**64 + 32, 2**255, 2**256 - 1]


@st.composite
def damaged(draw: st.DrawFn, raw: bytes) -> bytes:
    """`raw` after one to three changes of the kinds that decoders get wrong."""
    out = bytearray(raw)
    for _ in range(draw(st.integers(1, 3))):
        if not out:
            break
        at = draw(st.integers(0, len(out) - 1))
        word = at // 32 * 32
        kind = draw(st.sampled_from(["bit", "word", "swap", "cut", "grow"]))
        if kind == "bit":
            out[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "word":
            near = [len(out), len(out) - 32, max(0, len(out) - word)]
            number = draw(st.sampled_from(_EDGES + near) | st.integers(0, len(out) + 64))
            out[word : word + 32] = max(0, number).to_bytes(32, "big")
        elif kind == "swap":
            other = draw(st.integers(0, len(out) - 1)) // 32 * 32
            out[word : word + 32] = out[other : other + 32]
        elif kind == "cut":
            del out[len(out) - min(len(out), draw(st.sampled_from([1, 31, 32, 64]))) :]
        else:
            out += draw(st.binary(min_size=1, max_size=33))
    return bytes(out)
