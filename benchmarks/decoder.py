"""How many logs a second one core decodes: ERC-20 alone, a mainnet-like mix, and batches.

The claim: at least 2 million ERC-20 logs a second at batches of 10 blocks of 100 logs. Columns
come in and columns go out; nothing is read, encoded or written. `eth_abi.decode` and web3's
`process_log` decode the same ERC-20 logs for comparison.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from eth_abi.abi import decode
from web3 import Web3
from web3._utils.events import get_event_data

from benchmarks.measure import record
from processors.abi import build_layouts
from processors.decode import decode_logs
from schemas.abi import AbiType, EventAbi
from schemas.columns import Column, ColumnBlock, Nullable, Ragged
from schemas.events import builtin_events
from schemas.segments import LogSegment, SegmentName
from schemas.tables import HEADER_REFS, Verification, empty_block

BLOCKS, LOGS_A_BLOCK = 10, 100
SECONDS = 2.0

MIX = {
    "erc20_transfers": 52,
    "erc20_approvals": 6,
    "erc721_transfers": 8,
    "approvals_for_all": 1,
    "erc1155_transfers": 3,
    "uniswap_v2_swaps": 8,
    "uniswap_v2_syncs": 8,
    "uniswap_v3_swaps": 4,
    "uniswap_v4_swaps": 1,
    "weth_deposits": 5,
    "weth_withdrawals": 4,
}
"""Logs of each table in a hundred, close to what mainnet blocks of 2023 to 2025 hold."""


def word(abi_type: AbiType, random: np.random.Generator) -> bytes:
    """A random word that is a value of the type."""
    if abi_type.base == "bytesN":
        return random.bytes(abi_type.width).ljust(32, b"\0")
    size = {"address": 20, "bool": 0}.get(abi_type.base, abi_type.width // 8)
    return random.bytes(size - (abi_type.base == "int")).rjust(32, b"\0") if size else bytes(32)


def sample(event: EventAbi, random: np.random.Generator) -> tuple[list[bytes], bytes]:
    """Topics and data of a random log of an event."""
    topics, body, arrays = [event.topic0], b"", b""
    heads = 32 * sum(not p.indexed for p in event.parameters)
    for parameter in event.parameters:
        if parameter.indexed:
            topics.append(word(parameter.type, random))
        elif parameter.type.base == "array":
            body += (heads + len(arrays)).to_bytes(32, "big")
            arrays += (3).to_bytes(32, "big") + random.bytes(96)
        else:
            body += word(parameter.type, random)
    return topics, body + arrays


def segment(events: list[EventAbi], seed: int) -> LogSegment:
    """A segment of one log of each event, in this order, cut into blocks."""
    random = np.random.default_rng(seed)
    samples = [sample(event, random) for event in events]
    count = len(samples)
    at = np.arange(count)
    hashes = random.integers(0, 256, (count // LOGS_A_BLOCK + 1, 32), np.uint8)
    columns: dict[str, Column] = {
        "block_number": (at // LOGS_A_BLOCK).astype(np.uint64),
        "block_hash": hashes[at // LOGS_A_BLOCK],
        "block_time": (at // LOGS_A_BLOCK * 12).astype(np.uint32),
        "transaction_hash": random.integers(0, 256, (count, 32), np.uint8),
        "transaction_index": Nullable(
            np.ones(count, np.bool_), (at % LOGS_A_BLOCK // 3).astype(np.uint32)
        ),
        "log_index": (at % LOGS_A_BLOCK).astype(np.uint32),
        "address": random.integers(0, 256, (count, 20), np.uint8),
    }
    for i in range(4):
        valid = np.array([len(topics) > i for topics, _ in samples])
        flat = b"".join(topics[i] if len(topics) > i else bytes(32) for topics, _ in samples)
        values = np.frombuffer(flat, np.uint8).reshape(count, 32)
        columns[f"topic{i}"] = Nullable(valid, values)
    offsets = np.concatenate([[0], np.cumsum([len(body) for _, body in samples])])
    values = np.frombuffer(b"".join(body for _, body in samples), np.uint8)
    columns["data"] = Ragged(offsets.astype(np.int64), values)
    name = SegmentName(1, "logs", "history", 0, BLOCKS - 1, bytes(32), "0" * 16)
    logs = ColumnBlock("logs", count, columns)
    return LogSegment(name, 0, Verification.off, (), (), empty_block(HEADER_REFS), logs)


def rate(work: Callable[[], object], logs: int) -> dict[str, float]:
    """Logs a CPU second, the median of a number of rounds."""
    work()
    started = time.perf_counter()
    rounds: list[float] = []
    while time.perf_counter() - started < SECONDS or len(rounds) < 5:
        before = time.process_time()
        for _ in range(20):
            work()
        rounds.append((time.process_time() - before) / 20)
    spent = float(np.median(rounds))
    return {
        "logs_per_cpu_second": round(logs / spent),
        "microseconds_per_segment": round(spent * 1e6, 1),
    }


def reference(
    segment_logs: ColumnBlock, event: EventAbi, count: int
) -> dict[str, Callable[[], Any]]:
    """eth-abi and web3 over the first `count` ERC-20 logs."""
    columns: dict[str, Any] = segment_logs.columns
    topics = [
        [columns[f"topic{i}"].values[row].tobytes() for i in range(3)] for row in range(count)
    ]
    data = columns["data"]
    bodies = [data.values[a:b].tobytes() for a, b in pairwise(data.offsets[: count + 1])]
    inputs = [{"name": p.name, "type": p.type.text, "indexed": p.indexed} for p in event.parameters]
    abi: Any = {"type": "event", "name": event.name, "anonymous": False, "inputs": inputs}
    entry: dict[str, Any] = dict.fromkeys(
        ["logIndex", "transactionIndex", "transactionHash", "address", "blockHash", "blockNumber"]
    )
    codec = Web3().codec

    def with_eth_abi() -> None:
        for head, body in zip(topics, bodies, strict=True):
            decode(["address"], head[1])
            decode(["address"], head[2])
            decode(["uint256"], body)

    def with_web3() -> None:
        for head, body in zip(topics, bodies, strict=True):
            get_event_data(codec, abi, {**entry, "topics": head, "data": body})

    return {"eth_abi": with_eth_abi, "web3_process_log": with_web3}


def main() -> None:
    """Measure and record."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    layouts = build_layouts()
    tables = {event.table.name: event.layouts[-1] for event in builtin_events()}
    size = BLOCKS * LOGS_A_BLOCK
    random = np.random.default_rng(7)
    mixed = [tables[name] for name, share in MIX.items() for _ in range(share * size // 100)]
    inputs = {
        "erc20": [next(e for e in builtin_events() if e.table.name == "erc20_transfers").layouts[0]]
        * size,
        "mainnet_mix": [mixed[i] for i in random.permutation(len(mixed))],
        "erc1155_batches_of_3": [tables["erc1155_transfers"]] * size,
    }
    figures: dict[str, Any] = {"logs_per_segment": size, "tables": len(layouts.tables)}
    for name, events in inputs.items():
        built = segment(events, seed=7)
        decoded = decode_logs(built, layouts)
        if decoded.tables[-1].rows:
            raise SystemExit(f"{name}: {decoded.tables[-1].rows} logs were refused")
        figures[name] = rate(lambda built=built: decode_logs(built, layouts), size)  # type: ignore[misc]
    erc20 = segment(inputs["erc20"], seed=7).logs
    for name, work in reference(erc20, inputs["erc20"][0], 20).items():
        figures[name] = rate(work, 20)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures["peak_bytes"] = usage.ru_maxrss * 1024
    figures["cpu_seconds"] = round(usage.ru_utime + usage.ru_stime, 2)
    figures["claim_held"] = figures["erc20"]["logs_per_cpu_second"] >= 2_000_000
    record("decoder", figures)


if __name__ == "__main__":
    main()
