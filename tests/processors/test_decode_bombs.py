"""Hostile data in, a refusal out, at a cost that the data's own size bounds."""

from __future__ import annotations

import tracemalloc
from typing import Any

import eth_abi
import pytest
from eth_abi.exceptions import DecodingError

from processors.abi import build_layouts
from processors.abi_tails import EXPANSION_MAX
from processors.decode import decode_logs
from schemas.abi import parse_event
from schemas.events import declare_table
from tests.processors.log_rows import all_rows, log_row, log_segment

MEMORY_FACTOR_MAX = 120
"""Bytes of memory that one byte of hostile data may cost, all intermediate columns included."""


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def decode(type_text: str, bodies: list[bytes]) -> dict[str, list[dict[str, Any]]]:
    event = parse_event(f"Bomb({type_text} p)")
    layouts = build_layouts((), [declare_table("bombs", "", [event])])
    rows = [log_row([event.topic0], body, log_index=i) for i, body in enumerate(bodies)]
    return all_rows(decode_logs(log_segment(rows), layouts), layouts.tables)


def reason(type_text: str, body: bytes) -> str:
    out = decode(type_text, [body])
    assert "bombs" not in out
    (failure,) = out["decode_failures"]
    text: str = failure["reason"]
    return text.split(":", maxsplit=1)[0]


def nested_bomb(depth: int, width: int, leaf: bytes) -> bytes:
    """`depth` arrays of `width` pointers, each of which points at the same next array."""
    body = word(32)
    for _ in range(depth):
        body += word(width) + word(32 * width) * width
    return body + leaf


@pytest.mark.parametrize("depth", [2, 3, 5, 8])
def test_arrays_whose_pointers_share_tails_are_refused_cheaply(depth: int) -> None:
    width = 600
    body = nested_bomb(depth, width, word(1) + word(7))
    type_text = "uint256" + "[]" * (depth + 1)
    tracemalloc.start()
    assert reason(type_text, body) == "expansion"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY_FACTOR_MAX * len(body), f"{peak} bytes for {len(body)}"


def test_byte_strings_whose_pointers_share_a_tail_are_refused() -> None:
    payload = b"\1" * 3200
    body = word(32) + word(100) + word(3200) * 100 + word(3200) + payload
    assert len(eth_abi.decode(["bytes[]"], body)[0]) == 100
    assert reason("bytes[]", body) == "expansion"


def test_tuples_whose_pointers_share_a_wide_tail_are_refused() -> None:
    members = ",".join(["uint256"] * 60)
    body = word(32) + word(50) + word(1600) * 50 + word(1) * 60 + word(61 * 32) + word(0)
    assert len(eth_abi.decode([f"({members},bytes)[]"], body)[0]) == 50
    assert reason(f"({members},bytes)[]", body) == "expansion"


def test_sharing_within_the_limit_is_taken() -> None:
    """Two equal strings behind one pointer are unusual, and valid."""
    body = word(32) + word(2) + word(64) * 2 + word(3) + b"abc".ljust(32, b"\0")
    assert eth_abi.decode(["bytes[]"], body) == ((b"abc", b"abc"),)
    (row,) = decode("bytes[]", [body])["bombs"]
    assert row["p"] == [b"abc", b"abc"]
    assert EXPANSION_MAX >= 2


@pytest.mark.parametrize("size", [2**62, 2**63, 2**64, 2**64 + 1, 2**255, 2**256 - 1, 2**256 - 32])
@pytest.mark.parametrize("type_text", ["bytes", "uint256[]", "string[]", "(uint8,bytes)[]"])
def test_huge_pointers_and_lengths_are_refused(type_text: str, size: int) -> None:
    for body in (word(size) + word(0), word(32) + word(size) + word(0)):
        with pytest.raises((DecodingError, OverflowError)):
            eth_abi.decode([type_text], body)
        assert reason(type_text, body) in ("pointer", "length", "short")


def test_pointers_into_the_heads_are_refused_like_eth_abi_does() -> None:
    for pointer in (0, 31):
        with pytest.raises(DecodingError):
            eth_abi.decode(["bytes"], word(pointer) + word(0))
        assert reason("bytes", word(pointer) + word(0)) == "pointer"


def test_static_tuples_leave_eth_abis_gap() -> None:
    """eth-abi counts such heads too small; data that it takes there are taken here, too."""
    types = "(uint256,uint256)", "bytes"
    event = parse_event("Bomb((uint256,uint256) a, bytes b)")
    layouts = build_layouts((), [declare_table("bombs", "", [event])])

    def decoded(body: bytes) -> list[dict[str, Any]]:
        segment = log_segment([log_row([event.topic0], body)])
        return all_rows(decode_logs(segment, layouts), layouts.tables).get("bombs", [])

    # The pointer leads to itself: 64 is the length, too.
    body = word(1) + word(2) + word(64) + word(5) + word(6)
    assert eth_abi.decode(types, body) == ((1, 2), word(5) + word(6))
    assert [(row["a"], row["b"]) for row in decoded(body)] == [((1, 2), word(5) + word(6))]
    body = word(1) + word(0) + word(32) + word(5) + word(6)
    with pytest.raises(DecodingError):
        eth_abi.decode(types, body)
    assert decoded(body) == []


def test_one_hostile_log_does_not_harm_its_neighbours() -> None:
    good = eth_abi.encode(["uint256[][]"], [[[1, 2], [3]]])
    bomb = nested_bomb(1, 300, word(100) + word(9) * 100)
    out = decode("uint256[][]", [good, bomb, good, word(2**255), b"", good])
    assert [row["log_index"] for row in out["bombs"]] == [0, 2, 5]
    assert all(row["p"] == [[1, 2], [3]] for row in out["bombs"])
    assert [row["reason"].split(":")[0] for row in out["decode_failures"]] == [
        "expansion",
        "pointer",
        "short",
    ]


def test_fixed_arrays_of_any_declared_size_cost_only_what_the_data_hold() -> None:
    tracemalloc.start()
    assert reason("string[400000]", word(32) + word(32)) == "short"
    assert reason("uint256[400000][]", word(32) + word(2) + word(1)) == "short"
    pointers = word(32) + word(64) + word(64 * 32) * 64
    assert reason("(uint256[400000],bytes)[]", pointers + word(0)) == "short"
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("text", [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"a\xf0\x9f\x8e"])
def test_strings_that_are_not_utf8_are_refused(text: bytes) -> None:
    body = word(32) + word(len(text)) + text.ljust(32, b"\0")
    with pytest.raises(UnicodeDecodeError):
        eth_abi.decode(["string"], body)
    assert reason("string", body) == "utf8"


def test_a_character_split_over_two_strings_is_refused() -> None:
    """Each half is no UTF-8, though the two together are."""
    halves = [word(1) + b"\xc3".ljust(32, b"\0"), word(1) + b"\xa9".ljust(32, b"\0")]
    body = word(32) + word(2) + word(64) + word(128) + halves[0] + halves[1]
    assert reason("string[]", body) == "utf8"
