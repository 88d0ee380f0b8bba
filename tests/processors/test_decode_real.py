"""Real logs in: what is decoded equals web3's process_log, eth-abi, and the expected files."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import eth_abi
import pytest
from eth_abi.exceptions import DecodingError
from web3.exceptions import Web3Exception

from processors.abi import Layouts, build_layouts
from processors.decode import decode_logs
from schemas.abi import EventAbi
from schemas.events import EVENT_IDENTITY, EventTable, builtin_events
from tests.processors.abi_strategies import as_decoded
from tests.processors.log_rows import all_rows, from_rpc, log_segment, read_logs
from tests.processors.process_log import process_log

LAYOUTS = build_layouts()
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "erc20": ("erc20_transfers", {"from": "from_address", "to": "to_address", "value": "value"}),
    "erc721": (
        "erc721_transfers",
        {"from": "from_address", "to": "to_address", "tokenId": "token_id"},
    ),
    "transfer_nonstandard": ("nonstandard_transfers", {}),
    "v2swap": (
        "uniswap_v2_swaps",
        {
            "sender": "sender",
            "to": "to_address",
            "amount0In": "amount0_in",
            "amount1In": "amount1_in",
            "amount0Out": "amount0_out",
            "amount1Out": "amount1_out",
        },
    ),
    "v3swap": (
        "uniswap_v3_swaps",
        {
            "sender": "sender",
            "recipient": "recipient",
            "amount0": "amount0",
            "amount1": "amount1",
            "sqrtPriceX96": "sqrt_price_x96",
            "liquidity": "liquidity",
            "tick": "tick",
        },
    ),
    "v4swap": (
        "uniswap_v4_swaps",
        {
            "id": "id",
            "sender": "sender",
            "amount0": "amount0",
            "amount1": "amount1",
            "sqrtPriceX96": "sqrt_price_x96",
            "liquidity": "liquidity",
            "tick": "tick",
            "fee": "fee",
        },
    ),
}
"""Kinds of the expected files: our table, and our column of each of their fields."""


def blocks(chaindata: Path) -> list[Path]:
    return sorted((chaindata / "blocks").glob("*/*.json.gz"))


def oracle(rows: list[dict[str, Any]]) -> tuple[Counter[Any], set[int]]:
    """Rows by process_log, layout after layout, and the logs of known events that none took."""
    found: Counter[Any] = Counter()
    missed = set()
    for row in rows:
        topics = [row[f"topic{i}"] for i in range(4) if row[f"topic{i}"] is not None]
        offers = [
            (table, event)
            for table in builtin_events()
            for event in table.layouts
            if topics and event.topic0 == topics[0]
        ]
        taken = [result for offer in offers if (result := try_layout(*offer, topics, row))]
        assert len(taken) <= 1
        found.update(taken[0] if taken else ())
        if offers and not taken:
            missed.add(row["log_index"])
    return found, missed


def try_layout(
    table: EventTable, event: EventAbi, topics: list[bytes], row: dict[str, Any]
) -> list[Any]:
    try:
        values = process_log(event, topics, row["data"])
    except (DecodingError, UnicodeDecodeError, Web3Exception):
        return []
    body = [p.type.text for p in event.parameters if not p.indexed]
    again = iter(eth_abi.decode(body, row["data"]))
    rows = [as_decoded(p.type, v) for p, v in zip(event.parameters, values, strict=True)]
    for parameter, value in zip(event.parameters, rows, strict=True):
        if not parameter.indexed:
            assert as_decoded(parameter.type, next(again)) == value
    batch = [p.name in table.batch for p in event.parameters]
    if not any(batch):
        return [(table.table.name, row["log_index"], 0, *rows)]
    columns = [v if b else None for v, b in zip(rows, batch, strict=True)]
    size = len(next(column for column in columns if column is not None))
    return [
        (
            table.table.name,
            row["log_index"],
            sub,
            *(v[sub] if b else v for v, b in zip(rows, batch, strict=True)),
        )
        for sub in range(size)
    ]


def ours(layouts: Layouts, rows: list[dict[str, Any]]) -> tuple[Counter[Any], set[int]]:
    out = all_rows(decode_logs(log_segment(rows), layouts), layouts.tables)
    missed = {row["log_index"] for row in out.pop("decode_failures", [])}
    found: Counter[Any] = Counter()
    for name, decoded in out.items():
        for row in decoded:
            values = [v.encode() if isinstance(v, str) else v for v in row.values()]
            tail = values[len(EVENT_IDENTITY) :]
            found[name, row["log_index"], row["sub_index"], *tail] += 1
    return found, missed


def test_all_real_logs_equal_process_log_and_eth_abi(chaindata: Path) -> None:
    decoded = 0
    for path in blocks(chaindata):
        rows = [from_rpc(log) for log in read_logs(path)]
        if rows:
            assert ours(LAYOUTS, rows) == oracle(rows), path.name
            decoded += len(rows)
    assert decoded > 4_000


def logs_within(value: Any) -> Iterator[dict[str, Any]]:
    """The JSON-RPC logs anywhere inside a JSON value."""
    if isinstance(value, dict):
        if {"topics", "data", "logIndex", "blockHash"} <= set(value) and value["blockHash"]:
            yield value
        for part in value.values():
            yield from logs_within(part)
    elif isinstance(value, list):
        for part in value:
            yield from logs_within(part)


def json_values(path: Path) -> Iterator[Any]:
    """What a file holds of JSON: all of it, or its lines, or the lines of recorded calls."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    try:
        yield json.loads(text)
    except ValueError:
        for line in text.splitlines():
            with suppress(ValueError):
                yield json.loads(line.removeprefix("<< "))


def test_logs_of_every_other_file_equal_process_log(chaindata: Path) -> None:
    """Recorded calls, exports and the rechained blocks; each log once, wherever it stands."""
    rows: dict[Any, dict[str, Any]] = {}
    kinds = (".json", ".io", ".jsonl", ".gz")
    for path in sorted(chaindata.rglob("*")):
        if path.suffix in kinds and path.relative_to(chaindata).parts[0] != "blocks":
            for log in (log for value in json_values(path) for log in logs_within(value)):
                row = from_rpc(log)
                rows[row["address"], *log["topics"], row["data"]] = {**row, "log_index": len(rows)}
    assert len(rows) > 3_000
    assert ours(LAYOUTS, list(rows.values())) == oracle(list(rows.values()))


def test_one_segment_of_all_blocks_equals_block_by_block(chaindata: Path) -> None:
    rows = [from_rpc(log) for path in blocks(chaindata) for log in read_logs(path)]
    rows = [{**row, "log_index": i} for i, row in enumerate(rows)]
    whole = ours(LAYOUTS, rows)
    assert whole == oracle(rows)


def test_transfers_and_swaps_equal_the_expected_files(chaindata: Path) -> None:
    seen: Counter[str] = Counter()
    for path in sorted((chaindata / "expected").glob("*/*.json")):
        expected = json.loads(path.read_text())
        name = path.name.replace(".expected.json", ".json.gz")
        rows = [from_rpc(log) for log in read_logs(chaindata / "blocks" / path.parent.name / name)]
        out = all_rows(decode_logs(log_segment(rows), LAYOUTS), LAYOUTS.tables)
        for kind, (table, fields) in KINDS.items():
            theirs = [entry for entry in expected["decoded"] if entry["kind"] == kind]
            found = [
                {
                    "tx": "0x" + row["transaction_hash"].hex(),
                    "logIndex": row["log_index"],
                    "address": "0x" + row["address"].hex(),
                    "kind": kind,
                    **{field: shown(row[column]) for field, column in fields.items()},
                }
                for row in out.get(table, [])
            ]
            assert found == [strip(entry, kind) for entry in theirs], f"{path.name} {kind}"
            seen[kind] += len(found)
        check_1155(expected, out.get("erc1155_transfers", []), seen)
    assert all(seen[kind] for kind in (*KINDS, "erc1155"))


def check_1155(expected: dict[str, Any], rows: list[dict[str, Any]], seen: Counter[str]) -> None:
    theirs = [
        (entry["logIndex"], sub, entry["operator"], entry["from"], entry["to"], token, value)
        for entry in expected["decoded"]
        if entry["kind"].startswith("erc1155")
        for sub, (token, value) in enumerate(zip(entry["ids"], entry["values"], strict=True))
    ]
    parts = ("operator", "from_address", "to_address", "id", "value")
    found = [
        (row["log_index"], row["sub_index"], *(shown(row[part]) for part in parts)) for row in rows
    ]
    assert found == theirs
    seen["erc1155"] += len(found)


def shown(value: Any) -> str:
    return f"0x{value.hex()}" if isinstance(value, bytes) else str(value)


def strip(entry: dict[str, Any], kind: str) -> dict[str, Any]:
    return {key: entry[key] for key in ("tx", "logIndex", "address", "kind", *KINDS[kind][1])}


def test_the_known_oddities_are_where_they_belong(chaindata: Path) -> None:
    """CryptoKitties index nothing; WETH's predecessor of block 1,000,000 does not either."""
    rows = [from_rpc(log) for log in read_logs(chaindata / "blocks/mainnet/6307510.json.gz")]
    out = all_rows(decode_logs(log_segment(rows), LAYOUTS), LAYOUTS.tables)
    kitties = bytes.fromhex("06012c8cf97bead5deae237070f9587f8e7a266d")
    assert sum(row["address"] == kitties for row in out["nonstandard_transfers"]) == 3
    rows = [from_rpc(log) for log in read_logs(chaindata / "blocks/mainnet/1000000.json.gz")]
    out = all_rows(decode_logs(log_segment(rows), LAYOUTS), LAYOUTS.tables)
    assert [row["reason"] for row in out["decode_failures"]] == [
        "topics: no layout of Deposit(address,uint256) has 1 topics"
    ]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_how_logs_are_cut_into_segments_does_not_matter(chaindata: Path, size: int) -> None:
    rows = [from_rpc(log) for log in read_logs(chaindata / "blocks/mainnet/18000000.json.gz")]
    whole = ours(LAYOUTS, rows)
    found: Counter[Any] = Counter()
    for start in range(0, len(rows), size):
        part, missed = ours(LAYOUTS, rows[start : start + size])
        assert not missed
        found += part
    assert (found, set()) == whole
