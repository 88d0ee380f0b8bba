"""Aggregates against a plain oracle, whatever the segments; sums of 256 bits; equal prices."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.devchain.truth_aggregates import aggregates_of
from processors.aggregate import aggregate_events, aggregate_version
from schemas.codec import decode_aggregate_segment, encode_aggregate_segment
from schemas.columns import concat, to_buffers
from schemas.segments import AggregateSegment
from schemas.tables import AGGREGATE_TABLES
from tests.processors.event_rows import Key, Row, aggregate_rows, event_row, event_segment

MAX = (1 << 256) - 1
Rows = dict[str, list[Row]]

ADDRESSES = [
    bytes(20),
    b"\1" * 20,
    b"\1" * 19 + b"\2",
    b"\1" * 6 + bytes(14),
    b"\2" + bytes(19),
    bytes(19) + b"\1",
]
"""Some differ only behind what a group is sorted by first."""
IDS = [bytes(32), b"\1" * 32, b"\1" * 31 + b"\2", b"\1" * 20 + bytes(12)]
SMALL = st.integers(0, 3)
WORD = SMALL | st.integers(0, MAX) | st.sampled_from([MAX, MAX - 1, 1 << 255, (1 << 32) - 1])
ROOT = st.integers(0, 5) | st.sampled_from([1 << 96, (1 << 96) + 1, (1 << 160) - 1])
RESERVE = st.integers(0, 4) | st.sampled_from([(1 << 112) - 1, (1 << 112) - 2, 1 << 60])
BLOCK_NUMBERS = st.sampled_from([0, 1, 2, 5, 70_000])
SIGNED_256, SIGNED_128 = (
    SMALL.map(lambda n: -n) | SMALL | st.sampled_from([-(1 << bits), (1 << bits) - 1, -(1 << 64)])
    for bits in (255, 127)
)


def signed(values: st.SearchStrategy[int]) -> dict[str, st.SearchStrategy[Any]]:
    return {"amount0": values, "amount1": values, "sqrt_price_x96": ROOT}


TRANSFER = {"from_address": st.sampled_from(ADDRESSES), "to_address": st.sampled_from(ADDRESSES)}
FIELDS: Mapping[str, dict[str, st.SearchStrategy[Any]]] = {
    "erc20_transfers": TRANSFER | {"value": WORD},
    "erc721_transfers": TRANSFER | {"token_id": WORD},
    "erc1155_transfers": TRANSFER | {"id": WORD, "value": WORD},
    "uniswap_v2_swaps": {f"amount{i}_{way}": WORD for i in (0, 1) for way in ("in", "out")},
    "uniswap_v2_syncs": {"reserve0": RESERVE, "reserve1": RESERVE},
    "uniswap_v3_swaps": signed(SIGNED_256),
    "uniswap_v4_swaps": signed(SIGNED_128) | {"id": st.sampled_from(IDS)},
}


@st.composite
def logs(draw: st.DrawFn) -> Rows:
    """Events of a few blocks: every log is of one table, its index rises, with gaps or without."""
    rows: Rows = {}
    places: dict[int, int] = {}
    kinds = sorted(FIELDS) + ["uniswap_v2_swaps", "uniswap_v2_syncs"] * 2
    for _ in range(draw(st.integers(0, 30))):
        number, table = draw(BLOCK_NUMBERS), draw(st.sampled_from(kinds))
        few = ADDRESSES[1:3] if table.startswith("uniswap") else ADDRESSES
        address = draw(st.sampled_from(few))
        log_index = places.get(number, 0) + draw(st.sampled_from([0, 0, 0, 1]))
        places[number] = log_index + 1
        for sub_index in range(draw(st.integers(1, 3)) if table == "erc1155_transfers" else 1):
            values = {name: draw(of) for name, of in FIELDS[table].items()}
            row = event_row(table, number, log_index, address, sub_index, **values)
            rows.setdefault(table, []).append(row)
    return rows


def oracle(rows: Rows) -> dict[str, dict[Key, Row]]:
    found: dict[str, dict[Key, Row]] = {table.name: {} for table in AGGREGATE_TABLES}
    for table, key, row in aggregates_of(rows):
        found[table][key] = row
    return found


def of_blocks(rows: Rows, wanted: set[int]) -> Rows:
    return {
        table: [row for row in mine if row["block_number"] in wanted]
        for table, mine in rows.items()
    }


def joined(parts: list[AggregateSegment]) -> list[list[bytes]]:
    """The buffers of each table over segments one after the other."""
    found = []
    for at, table in enumerate(AGGREGATE_TABLES):
        blocks = [part.tables[at] for part in parts if part.tables[at].rows]
        buffers: list[bytes] = []
        for spec in table.columns:
            column = concat(spec.kind, [block.columns[spec.name] for block in blocks])
            buffers += to_buffers(spec.kind, column)
        found.append(buffers)
    return found


@settings(max_examples=300)
@given(logs())
def test_aggregates_are_the_oracles(rows: Rows) -> None:
    assert aggregate_rows(aggregate_events(event_segment(rows))) == oracle(rows)


@given(logs(), st.data())
def test_a_segments_aggregates_are_those_of_its_blocks(rows: Rows, data: st.DataObject) -> None:
    """Byte for byte, wherever the blocks are cut apart."""
    numbers = sorted({row["block_number"] for mine in rows.values() for row in mine})
    cuts = data.draw(st.sets(st.integers(1, max(1, len(numbers) - 1))))
    edges = [0, *sorted(cuts), len(numbers)]
    parts = [
        aggregate_events(event_segment(of_blocks(rows, set(numbers[a:b]))))
        for a, b in pairwise(edges)
    ]
    assert joined(parts) == joined([aggregate_events(event_segment(rows))])


def test_a_segment_keeps_its_name_but_for_stream_and_version() -> None:
    events = event_segment({})
    made = aggregate_events(events)
    assert made.name.stream == "aggregates"
    assert made.name.content_version == aggregate_version(events.name.content_version)
    assert made.name.content_version != events.name.content_version
    assert (made.name.from_block, made.name.to_block) == (0, 9)
    assert made.observed_at_ms == events.observed_at_ms
    assert aggregate_rows(made) == {"token_flows": {}, "pool_trades": {}}


@given(logs())
@settings(max_examples=20)
def test_aggregates_round_trip_as_a_message(rows: Rows) -> None:
    made = aggregate_events(event_segment(rows))
    again = decode_aggregate_segment(encode_aggregate_segment(made))
    assert again.name == made.name
    assert aggregate_rows(again) == aggregate_rows(made)


@pytest.mark.parametrize(
    ("values", "value", "overflow"),
    [([MAX], MAX, False), ([MAX, 1], 0, True), ([1 << 255] * 3, 1 << 255, True)],
)
def test_a_sum_beyond_256_bits_is_flagged(values: list[int], value: int, overflow: bool) -> None:
    rows = [
        event_row("erc20_transfers", 3, at, b"\7" * 20, value=one, from_address=b"\1" * 20)
        for at, one in enumerate(values)
    ]
    (row,) = aggregate_rows(aggregate_events(event_segment({"erc20_transfers": rows})))[
        "token_flows"
    ].values()
    assert (row["value"], row["value_overflow"]) == (value, overflow)
    assert row["burned_value"] == row["value"]
    assert (row["mint_count"], row["burn_count"]) == (0, len(values))


def swaps_v3(roots: list[int]) -> Rows:
    return {
        "uniswap_v3_swaps": [
            event_row("uniswap_v3_swaps", 3, at, b"\7" * 20, sqrt_price_x96=root)
            for at, root in enumerate(roots)
        ]
    }


def test_prices_that_no_float_tells_apart_are_ordered() -> None:
    top = 1 << 159
    rows = swaps_v3([top + 5, top + 9, top - 7, top + 8, top + 1])
    (row,) = aggregate_rows(aggregate_events(event_segment(rows)))["pool_trades"].values()
    shown = {name: row[f"{name}_sqrt_price_x96"] - top for name in ("open", "high", "low", "close")}
    assert shown == {"open": 5, "high": 9, "low": -7, "close": 1}


def test_of_equal_prices_the_first_is_shown() -> None:
    reserves = [(6, 6), (2, 4), (4, 8), (8, 4), (4, 2)]
    rows: Rows = {"uniswap_v2_syncs": [], "uniswap_v2_swaps": []}
    for at, (reserve0, reserve1) in enumerate(reserves):
        pair = b"\7" * 20
        rows["uniswap_v2_syncs"].append(
            event_row("uniswap_v2_syncs", 3, 2 * at, pair, reserve0=reserve0, reserve1=reserve1)
        )
        rows["uniswap_v2_swaps"].append(event_row("uniswap_v2_swaps", 3, 2 * at + 1, pair))
    (row,) = aggregate_rows(aggregate_events(event_segment(rows)))["pool_trades"].values()
    assert (row["high_reserve0"], row["high_reserve1"]) == (2, 4)
    assert (row["low_reserve0"], row["low_reserve1"]) == (8, 4)
    assert (row["close_reserve0"], row["close_reserve1"]) == (4, 2)
    assert row["open_sqrt_price_x96"] is None
