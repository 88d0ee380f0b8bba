"""Segments proven together are, byte for byte and word for word, what each alone is."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ingest.encode_transactions import LAYOUTS
from ingest.endpoint import ReceiptsBy
from ingest.fetch import BlockPayload
from ingest.prove import ProveAndBuild
from ingest.publish import Built, segment_envelopes
from schemas.errors_verify import ReceiptsRootMismatch
from schemas.segments import Envelope
from schemas.tables import Verification
from tests.ingest.devchain_node import CHAIN_ID, LOCAL, small_chain

CHAIN = small_chain(20)
"""Blocks without transactions are among them, and transactions of every type."""
SIZES = ([5, 5, 5], [9, 1, 1, 6], [1, 18])
Parts = list[list[BlockPayload]]


def payload(number: int) -> BlockPayload:
    rendered = CHAIN.view.at(number)
    assert rendered is not None
    return BlockPayload(number, rendered.full, rendered.receipts, ReceiptsBy.block)


def altered(payload: BlockPayload, receipts: object, by: ReceiptsBy) -> BlockPayload:
    return replace(payload, receipts=json.dumps(receipts).encode(), receipts_by=by)


def parts_of(sizes: Sequence[int], first: int = 1) -> Parts:
    parts: Parts = []
    for size in sizes:
        parts.append([payload(number) for number in range(first, first + size)])
        first += size
    return parts


def messages(built: Sequence[Built]) -> list[Envelope]:
    return [envelope for one in built for envelope in segment_envelopes(one, 10)]


def assert_as_alone(prove: ProveAndBuild, parts: Parts) -> list[Built]:
    together = prove.together(parts, "history", 5)
    alone = [prove(part, "history", 5) for part in parts]
    assert messages(together) == messages(alone)
    return together


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("level", Verification)
def test_messages_are_those_of_each_alone(level: Verification, sizes: list[int]) -> None:
    built = assert_as_alone(ProveAndBuild(CHAIN_ID, level, LOCAL), parts_of(sizes))
    assert [one.to_block - one.from_block + 1 for one in built] == sizes


def test_a_verdict_that_speaks_of_some_blocks_is_said_of_their_segment_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(LAYOUTS, 3)
    built = assert_as_alone(ProveAndBuild(CHAIN_ID, Verification.full, LOCAL), parts_of([8, 8]))
    assert [one.logs.level for one in built] == [Verification.full, Verification.receipts]


def test_a_proof_that_fails_in_one_part_fails_for_all() -> None:
    parts = parts_of([5, 5, 5])
    receipts = json.loads(bytes(parts[1][2].receipts))
    receipts[0]["cumulativeGasUsed"] = "0x1"
    parts[1][2] = altered(parts[1][2], receipts, ReceiptsBy.block)
    prove = ProveAndBuild(CHAIN_ID, Verification.receipts, LOCAL)
    for part in (parts[0], parts[2]):
        prove(part, "history", 5)
    for refused in (parts, parts[1:2]):
        with pytest.raises(ReceiptsRootMismatch):
            prove.together(refused, "history", 5)


def test_where_only_logs_came_each_part_is_proven_alone() -> None:
    """Their verdict counts blocks."""
    parts = parts_of([3, 2])
    for part in parts:
        for at, whole in enumerate(part):
            receipts = json.loads(bytes(whole.receipts))
            logs = [log for receipt in receipts for log in receipt["logs"]]
            part[at] = altered(whole, logs, ReceiptsBy.logs)
    built = assert_as_alone(ProveAndBuild(CHAIN_ID, Verification.receipts, LOCAL), parts)
    assert {one.logs.level for one in built} == {Verification.header}


def test_it_can_be_sent_to_another_process() -> None:
    prove = pickle.loads(pickle.dumps(ProveAndBuild(CHAIN_ID, Verification.full, LOCAL).together))
    assert [one.from_block for one in prove(parts_of([2, 3]), "history", 5)] == [1, 3]
