"""Every built-in layout, enumerated: a generated log of it decodes as web3's process_log does."""

from __future__ import annotations

import random
from typing import Any

import eth_abi
import pytest
from web3 import Web3

from processors.abi import build_layouts
from processors.decode import decode_logs
from schemas.abi import AbiType, EventAbi
from schemas.events import EVENT_IDENTITY, EventTable, builtin_events
from tests.processors.abi_strategies import as_decoded
from tests.processors.log_rows import all_rows, log_row, log_segment
from tests.processors.process_log import process_log

LAYOUTS = build_layouts()
BUILT_IN = [(table, layout) for table in builtin_events() for layout in table.layouts]

RELIED_UPON = {
    "erc20_transfers": ["from_address", "to_address", "value"],
    "erc20_approvals": ["owner", "spender", "value"],
    "erc721_transfers": ["from_address", "to_address", "token_id"],
    "erc1155_transfers": ["operator", "from_address", "to_address", "id", "value"],
    "uniswap_v2_swaps": [
        "sender", "amount0_in", "amount1_in", "amount0_out", "amount1_out", "to_address",
    ],
    "uniswap_v3_swaps": [
        "sender", "recipient", "amount0", "amount1", "sqrt_price_x96", "liquidity", "tick",
    ],
    "uniswap_v4_swaps": [
        "id", "sender", "amount0", "amount1", "sqrt_price_x96", "liquidity", "tick", "fee",
    ],
}  # fmt: skip
"""Names that queries depend on: a change here breaks what users wrote."""


def some_value(abi_type: AbiType, source: random.Random) -> Any:
    if abi_type.base == "array":
        return [some_value(abi_type.children[0], source) for _ in range(3)]
    if abi_type.base == "address":
        return "0x" + source.randbytes(20).hex()
    if abi_type.base == "bool":
        return source.random() < 0.5
    if abi_type.base == "bytesN":
        return source.randbytes(abi_type.width)
    if abi_type.base == "string":
        return f"ipfs://{source.randbytes(9).hex()}"
    if abi_type.base == "int":
        return source.getrandbits(abi_type.width - 1) * source.choice([1, -1])
    return source.getrandbits(abi_type.width)


def some_log(event: EventAbi, source: random.Random) -> tuple[list[bytes], bytes]:
    topics, types, values = [event.topic0], [], []
    for parameter in event.parameters:
        value = some_value(parameter.type, source)
        if parameter.indexed:
            topics.append(eth_abi.encode([parameter.type.text], [value]))
        else:
            types.append(parameter.type.text)
            values.append(value)
    return topics, eth_abi.encode(types, values)


@pytest.mark.parametrize(("table", "event"), BUILT_IN, ids=lambda x: getattr(x, "text", ""))
def test_each_layout_decodes_as_process_log_does(table: EventTable, event: EventAbi) -> None:
    source = random.Random(event.text)
    logs = [some_log(event, source) for _ in range(20)]
    rows = [log_row(topics, body, log_index=i) for i, (topics, body) in enumerate(logs)]
    out = all_rows(decode_logs(log_segment(rows), LAYOUTS), LAYOUTS.tables)
    assert set(out) == {table.table.name}
    expected = []
    for i, (topics, body) in enumerate(logs):
        values = [
            as_decoded(p.type, value)
            for p, value in zip(event.parameters, process_log(event, topics, body), strict=True)
        ]
        values = [value.decode() if p.type.base == "string" else value
                  for p, value in zip(event.parameters, values, strict=True)]  # fmt: skip
        batch = [p.name in table.batch for p in event.parameters]
        for sub in range(3 if any(batch) else 1):
            row = [v[sub] if b else v for v, b in zip(values, batch, strict=True)]
            expected.append((i, sub, *row))
    found = [
        (row["log_index"], row["sub_index"], *list(row.values())[len(EVENT_IDENTITY) :])
        for row in out[table.table.name]
    ]
    assert found == expected


@pytest.mark.parametrize("event", [event for _, event in BUILT_IN], ids=lambda e: e.text)
def test_topic0_is_web3s(event: EventAbi) -> None:
    assert event.topic0 == bytes(Web3.keccak(text=event.signature))


def test_names_that_queries_rely_on() -> None:
    tables = {table.name: table for table in LAYOUTS.tables}
    for name, columns in RELIED_UPON.items():
        found = [spec.name for spec in tables[name].columns]
        assert found == [spec.name for spec in EVENT_IDENTITY] + columns


def test_every_table_and_column_is_documented() -> None:
    for table in LAYOUTS.tables:
        assert table.doc.endswith("."), table.name
        for spec in table.columns:
            assert spec.doc.endswith("."), f"{table.name}.{spec.name}"


def test_one_topic0_never_means_two_events_of_the_packs() -> None:
    shapes = [(event.topic0, event.topic_count) for _, event in BUILT_IN]
    assert len(set(shapes)) == len(shapes), "two built-in layouts would need the data's shape"
