"""Measure what each level of verification costs, and the recovery of senders within `full`.

The claim is a decision (docs/decisions.md): `receipts` for history, `full` at the head. Blocks of
30 transactions and 100 logs are decoded, built and proven in this process; nothing is fetched or
stored. Each level takes its turn in each round, and the least of the rounds counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.measure import record
from infra.devchain.chain import Chain, Spec
from infra.devchain.planning import Budget
from ingest.encode_transactions import encode_transactions
from ingest.scanned import scan_receipts
from ingest.senders import recover_senders
from ingest.verify import ProvenSegment, prove_segment
from ingest.wire import Block, decode_block
from schemas.tables import Verification

SEGMENT_BLOCKS = 10
WARM_BLOCKS = 60
"""Blocks at the start that found the economy and have fewer logs."""

Payloads = list[tuple[bytes, bytes]]


def payloads(blocks: int) -> Payloads:
    """Blocks and receipts as a node would send them."""
    chain = Chain(Spec(seed=3, budget=Budget(30, 100)))
    chain.mine(WARM_BLOCKS + blocks)
    found = []
    for number in range(WARM_BLOCKS, WARM_BLOCKS + blocks):
        rendered = chain.view.at(number)
        assert rendered is not None
        found.append((rendered.full, rendered.receipts))
    return found


def prove(part: Payloads, level: Verification) -> ProvenSegment:
    """One segment, from JSON to proven columns."""
    blocks: list[Block] = []
    for block, _ in part:
        decoded = decode_block(block)
        assert decoded is not None
        blocks.append(decoded)
    return prove_segment(blocks, scan_receipts(blocks, [own for _, own in part]), level)


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time that this process spends on some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    found = payloads(given.blocks)
    parts = [found[at : at + SEGMENT_BLOCKS] for at in range(0, len(found), SEGMENT_BLOCKS)]
    proven = [prove(part, Verification.full) for part in parts]
    tables = [segment.columns.transactions for segment in proven]
    encoded = [encode_transactions(table) for table in tables]
    logs = sum(segment.logs.logs.rows for segment in proven if segment.logs is not None)
    transactions = sum(table.rows for table in tables)

    def at_level(level: Verification) -> None:
        for part in parts:
            prove(part, level)

    def senders() -> None:
        for pair in zip(tables, encoded, strict=True):
            recover_senders(*pair)

    works: dict[str, Callable[[], object]] = {
        level.name: partial(at_level, level) for level in Verification
    }
    works["senders_alone"] = senders
    least = dict.fromkeys(works, float("inf"))
    for _ in range(given.rounds):
        for name, work in works.items():
            least[name] = min(least[name], cpu_seconds(work))
    figures: dict[str, Any] = {
        "blocks": given.blocks,
        "rounds": given.rounds,
        "logs": logs,
        "transactions": transactions,
    }
    for name, seconds in least.items():
        figures[name] = {
            "cpu_seconds_per_million_logs": round(seconds / logs * 1e6, 2),
            "cpu_microseconds_per_transaction": round(seconds / transactions * 1e6, 1),
        }
    record("proof_levels", figures)


if __name__ == "__main__":
    main()
