"""Filtered logs are held against their headers, and the verdict never says more than that."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ingest.bloom import blooms, covers
from ingest.keccak import keccak
from ingest.reprove import StoredRange, verify_stored
from ingest.verify_logs import LogFilter, group_logs
from ingest.wire import Block, Log, decode_logs
from schemas.chains import load_chains
from schemas.errors_verify import (
    BlockHashMismatch,
    BloomMismatch,
    LogIndexGap,
    LogMisplaced,
    LogOfUnknownBlock,
    LogOutsideFilter,
    LogRemoved,
    LogsMissing,
)
from schemas.tables import Verification
from tests.ingest.both_ways import verify_both_ways
from tests.ingest.real_blocks import devchain, devchain_payload, parsed

Json = dict[str, Any]
HEADER = Verification.header
RANGE = range(1, 9)
ANY = LogFilter()


def _logs(numbers: range = RANGE) -> list[Json]:
    return [
        log
        for number in numbers
        for receipt in devchain_payload(number)[1]
        for log in receipt["logs"]
    ]


def _headers(numbers: range = RANGE) -> list[Block]:
    blocks = []
    for number in numbers:
        rendered = devchain().view.at(number)
        assert rendered is not None
        blocks.append(parsed(json.loads(rendered.brief)))
    return blocks


def _decoded(logs: list[Json]) -> list[Log]:
    decoded = decode_logs(json.dumps(logs).encode())
    assert decoded is not None
    return decoded


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _one_contract() -> tuple[LogFilter, list[Json]]:
    """The filter of the first topic and contract of the range, and its logs."""
    first = next(log for log in _logs() if log["topics"])
    wanted = LogFilter(
        frozenset({_bytes(first["address"])}), (frozenset({_bytes(first["topics"][0])}),)
    )
    inside = [
        log
        for log in _logs()
        if log["address"] == first["address"] and log["topics"][:1] == first["topics"][:1]
    ]
    return wanted, inside


def test_all_logs_of_a_range_agree_with_its_headers() -> None:
    proven = verify_both_ways(_headers(), _decoded(_logs()), Verification.full, ANY)
    assert proven.verdict.level == HEADER
    assert "logsBloom holds each log" in proven.verdict.proven
    assert "absence of further logs with the same addresses and topics" in proven.verdict.unproven
    assert proven.logs is not None
    assert proven.logs.logs.rows == len(_logs())
    assert proven.columns.transactions.rows == 0


def test_a_filters_logs_are_built_with_their_own_counts() -> None:
    wanted, inside = _one_contract()
    proven = verify_both_ways(_headers(), _decoded(inside), HEADER, wanted)
    assert proven.logs is not None
    assert proven.logs.logs.rows == len(inside)
    assert int(proven.logs.headers.columns["log_count"].sum()) == len(inside)
    # The table `blocks` counts all logs of a block, which this source does not know.
    assert not proven.columns.blocks.columns["log_count"].valid.any()


def test_absence_is_proven_where_the_bloom_excludes_the_filter() -> None:
    nobody = LogFilter(frozenset({b"\x01" * 20}))
    blocks = _headers()
    excluded = sum(not covers(_bytes(block.logs_bloom), [b"\x01" * 20]).all() for block in blocks)
    verdict = verify_both_ways(blocks, [], HEADER, nobody).verdict
    assert excluded > 0
    assert (
        f"no log of the filter in {excluded} of {len(blocks)} blocks (logsBloom)" in verdict.proven
    )
    if excluded == len(blocks):
        assert not any("absence" in word for word in verdict.unproven)


def test_a_bloom_never_excludes_what_its_block_holds() -> None:
    for number in RANGE:
        block, _ = devchain_payload(number)
        values = [_bytes(log["address"]) for log in _logs(range(number, number + 1))]
        assert covers(_bytes(block["logsBloom"]), values).all()


def test_blooms_of_many_owners_are_made_in_parts() -> None:
    values = [index.to_bytes(20, "big") for index in range(9000)]
    many = blooms(values, np.arange(9000), 9000)
    for index in (0, 1, 4095, 4096, 8999):
        assert (
            many[index].tobytes()
            == blooms(values[index : index + 1], np.zeros(1, int), 1)[0].tobytes()
        )


def test_off_proves_nothing_and_says_so() -> None:
    verdict = verify_both_ways(_headers(), _decoded(_logs()), Verification.off, ANY).verdict
    assert (verdict.level, verdict.proven) == (Verification.off, ())
    assert "headers" in verdict.unproven


def test_logs_are_grouped_by_block_in_any_order_of_blocks() -> None:
    logs = _decoded(_logs())
    groups = group_logs(_headers(), logs[::-1])
    assert [len(group) for group in groups] == [
        len(_logs(range(number, number + 1))) for number in RANGE
    ]


def _altered(index: int, **changes: object) -> list[Log]:
    logs = _logs()
    logs[index] |= changes
    return _decoded(logs)


STRANGER = "0x" + "5a" * 20
OTHER = "0x" + "77" * 32

DAMAGED = [
    (lambda: _altered(0, blockHash=OTHER), LogOfUnknownBlock),
    (lambda: _altered(0, blockNumber="0x7f"), LogMisplaced),
    (lambda: _altered(1, logIndex="0x0"), LogIndexGap),
    (lambda: _altered(0, logIndex="0x5"), LogIndexGap),
    (lambda: _altered(2, removed=True), LogRemoved),
    (lambda: _decoded([]), LogsMissing),
    (lambda: _decoded(_logs()[:-4]), LogsMissing),
    (lambda: _decoded(_logs(range(2, 9))), LogsMissing),
    (lambda: _altered(-1, address=STRANGER), BloomMismatch),
    (lambda: _altered(-1, topics=[OTHER]), BloomMismatch),
    (lambda: _decoded([*_logs(), _logs()[-1]]), LogIndexGap),
    (lambda: _decoded(_logs()[::-1]), LogIndexGap),
    (lambda: _decoded(_logs(range(1, 10))), LogOfUnknownBlock),
]


@pytest.mark.parametrize("case", range(len(DAMAGED)))
def test_damaged_logs_are_refused(case: int) -> None:
    damage, reason = DAMAGED[case]
    with pytest.raises(reason):
        verify_both_ways(_headers(), damage(), HEADER, ANY)


def test_logs_outside_the_filter_are_refused() -> None:
    wanted, inside = _one_contract()
    outside = next(log for log in _logs() if log not in inside)
    mixed = [log for log in _logs() if log in inside or log == outside]
    with pytest.raises(LogOutsideFilter):
        verify_both_ways(_headers(), _decoded(mixed), HEADER, wanted)


def test_a_position_without_options_asks_for_a_topic() -> None:
    deep = LogFilter(topics=(frozenset(), frozenset(), frozenset(), frozenset()))
    shallow = next(log for log in _logs() if len(log["topics"]) < 4)
    with pytest.raises(LogOutsideFilter):
        verify_both_ways(_headers(), _decoded([shallow]), HEADER, deep)
    four = [log for log in _logs() if len(log["topics"]) == 4]
    assert verify_both_ways(_headers(), _decoded(four), HEADER, deep).verdict.level == HEADER


def test_a_false_header_is_refused() -> None:
    blocks = _headers()
    blocks[2].logs_bloom = "0x" + "ff" * 256
    with pytest.raises(BlockHashMismatch):
        verify_both_ways(blocks, _decoded(_logs()), HEADER, ANY)


def test_what_this_source_stores_is_no_violation() -> None:
    wanted, inside = _one_contract()
    proven = verify_both_ways(_headers(), _decoded(inside[::2]), HEADER, wanted)
    assert proven.logs is not None
    columns = proven.columns
    stored = StoredRange(
        columns.blocks, columns.transactions, proven.logs.logs, columns.withdrawals
    )
    assert verify_stored(stored) == []


# --- logs that no header covers, as Polygon's state syncs -----------------------------------------

POLYGON = load_chains()["polygon"]
STATE_COMMITTED = "0x" + keccak(b"StateCommitted(uint256,bool)").hex()
TOKEN = "0x" + "7c" * 20


def _sync_hash(number: int) -> str:
    block, _ = devchain_payload(number)
    prefix = POLYGON.system_logs.transaction_prefix
    return "0x" + keccak(prefix + number.to_bytes(8, "big") + _bytes(block["hash"])).hex()


def _sync_logs(number: int) -> list[Json]:
    """What the chain itself logs in a block: its contract's event, and that of a token it calls."""
    last = _logs(range(number, number + 1))[-1]
    place = {"transactionHash": _sync_hash(number), "transactionIndex": "0x7f"}
    index = int(last["logIndex"], 16)
    committed, minted = (
        last | place | {"logIndex": hex(index + more), "address": address, "topics": [topic]}
        for more, address, topic in (
            (1, "0x" + "1001".rjust(40, "0"), STATE_COMMITTED),
            (2, TOKEN, OTHER),
        )
    )
    return [committed, minted]


def _with_sync(at: int = 8) -> list[Json]:
    return [*_logs(range(1, at + 1)), *_sync_logs(at), *_logs(range(at + 1, 9))]


SYNCS = LogFilter(topics=(frozenset({_bytes(STATE_COMMITTED)}),))


@pytest.mark.parametrize("at", [3, 8])
@pytest.mark.parametrize("wanted", [ANY, SYNCS], ids=["all", "filtered"])
@pytest.mark.parametrize("level", [HEADER, Verification.full])
def test_logs_of_the_chain_itself_are_no_lie(
    level: Verification, wanted: LogFilter, at: int
) -> None:
    logs = _with_sync(at) if wanted == ANY else _sync_logs(at)[:1]
    proven = verify_both_ways(_headers(), _decoded(logs), level, wanted, POLYGON)
    assert proven.logs is not None
    assert proven.logs.logs.rows == len(logs)
    assert proven.verdict.level == HEADER
    system = 2 if wanted == ANY else 1
    said = f"{system} logs of the chain itself: no header covers them"
    assert said in proven.verdict.unproven


def test_a_chain_without_such_logs_refuses_them() -> None:
    with pytest.raises(BloomMismatch):
        verify_both_ways(_headers(), _decoded(_with_sync()), HEADER, ANY)


def test_other_logs_of_polygon_are_still_held_against_the_bloom() -> None:
    logs = _with_sync()
    logs[-1]["transactionHash"] = _logs()[0]["transactionHash"]
    with pytest.raises(BloomMismatch):
        verify_both_ways(_headers(), _decoded(logs), HEADER, ANY, POLYGON)
    with pytest.raises(LogsMissing):
        verify_both_ways(
            _headers(), _decoded(_logs(range(1, 8)) + _sync_logs(8)), HEADER, ANY, POLYGON
        )
