"""Each damaged copy of a block is refused, and for its own reason."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.build import build_header_columns
from ingest.proofs import header_hashes
from ingest.verify import ProvenSegment, check_headers
from schemas.columns import ColumnBlock
from schemas.errors import HeadraceError
from schemas.errors_verify import (
    BlockNumberGap,
    BloomMismatch,
    DerivedMismatch,
    LogIndexGap,
    LogMisplaced,
    LogRemoved,
    LogsMissing,
    ParentMismatch,
    ReceiptsOfAnotherBlock,
    ReceiptsRootMismatch,
)
from schemas.tables import Verification
from tests.ingest.both_ways import prove_both_ways
from tests.ingest.damages import (
    BLOCKS,
    DERIVED,
    FULL,
    REAL,
    REFUSED,
    REFUSED_AT_HEADER,
    Damage,
    Json,
    Payload,
    alter_a_logs_block,
    drop_a_transaction_and_its_receipt,
    flip,
    give_two_logs_one_index,
    logs_in,
    move_a_log_by_name,
    payload_of,
    prove,
    receipts_of_another_block,
    remove_a_log,
    renumber,
)
from tests.ingest.real_blocks import (
    MISSING,
    busy_block,
    devchain_payload,
    parsed,
    parsed_receipts,
)


@pytest.mark.parametrize("source", BLOCKS, ids=lambda source: f"{source[0]}-{source[1]}")
@pytest.mark.parametrize(("damage", "reason"), REFUSED, ids=lambda part: part.__name__)
def test_damage_is_refused_for_its_own_reason(
    source: tuple[str, int], damage: Damage, reason: type[HeadraceError]
) -> None:
    block, receipts = payload_of(source)
    given_hash, number = block["hash"], int(block["number"], 16)
    receipts = damage(block, receipts) or receipts
    with pytest.raises(HeadraceError) as caught:
        prove(block, receipts)
    assert type(caught.value) is reason, str(caught.value)
    assert caught.value.data["number"] == str(number)
    assert caught.value.data["hash"] in (given_hash, block["hash"])
    assert caught.value.why_text
    assert caught.value.fix_text


@pytest.mark.parametrize("source", BLOCKS, ids=lambda source: f"{source[0]}-{source[1]}")
@pytest.mark.parametrize(("damage", "reason"), REFUSED_AT_HEADER, ids=lambda part: part.__name__)
def test_damage_is_refused_without_roots(
    source: tuple[str, int], damage: Damage, reason: type[HeadraceError]
) -> None:
    block, receipts = payload_of(source)
    receipts = damage(block, receipts) or receipts
    with pytest.raises(HeadraceError) as caught:
        prove(block, receipts, Verification.header)
    if damage is drop_a_transaction_and_its_receipt:
        # A last transaction with logs of its own is missed in the bloom first.
        assert type(caught.value) in (reason, LogsMissing)
    else:
        assert type(caught.value) is reason, str(caught.value)


def _damaged(payloads: Iterable[Payload], damage: Damage) -> list[Payload]:
    """Those of the blocks that hold what the damage alters, altered."""
    damaged = []
    for block, receipts in payloads:
        try:
            damage(block, receipts)
        except (ValueError, IndexError):
            continue
        damaged.append((block, receipts))
    return damaged


@pytest.mark.parametrize("damage", DERIVED, ids=lambda part: part.__name__)
def test_what_follows_from_proven_fields_is_compared(damage: Damage) -> None:
    synthetic = _damaged(map(devchain_payload, range(1, 12)), damage)
    real = _damaged(map(payload_of, REAL), damage)
    assert synthetic
    assert real or not REAL
    for block, receipts in (*synthetic, *real):
        with pytest.raises(DerivedMismatch) as caught:
            prove(block, receipts, FULL)
        assert caught.value.data["number"] == str(int(block["number"], 16))


def _prove_all(payloads: list[Payload], level: Verification = FULL) -> ProvenSegment:
    blocks = [parsed(block) for block, _ in payloads]
    return prove_both_ways(blocks, [parsed_receipts(part) for _, part in payloads], level)


def test_blocks_out_of_order_or_missing_are_refused() -> None:
    first, second, third = (devchain_payload(number) for number in (3, 4, 5))
    assert _prove_all([first, second, third]).verdict.level == FULL
    with pytest.raises(BlockNumberGap, match="block 4 was due"):
        _prove_all([first, third])
    with pytest.raises(BlockNumberGap):
        _prove_all([second, first])
    with pytest.raises(BlockNumberGap):
        _prove_all([first, first])


def test_receipts_swapped_between_blocks_are_refused() -> None:
    (first, own), (second, other) = devchain_payload(busy_block()), devchain_payload(2)
    assert first["hash"] != second["hash"]
    with pytest.raises(ReceiptsOfAnotherBlock):
        prove(first, other)
    with pytest.raises(ReceiptsOfAnotherBlock):
        prove(second, own)


def test_a_block_of_another_branch_is_refused() -> None:
    first, _ = devchain_payload(3)
    second, _ = devchain_payload(4)
    second["parentHash"] = flip(first["hash"])
    decoded = [parsed(first), parsed(second)]
    columns = build_header_columns(decoded)
    hashes = header_hashes(ColumnBlock("blocks", 2, columns))
    decoded[1].hash = "0x" + hashes[1].hex()
    with pytest.raises(ParentMismatch, match="block 3 is"):
        check_headers(decoded, build_header_columns(decoded), Verification.header)


@pytest.mark.skipif(not REAL, reason=MISSING)
def test_two_neighbours_of_mainnet_are_linked() -> None:
    payloads = [payload_of(("mainnet", number)) for number in (16_000_000, 16_000_001)]
    assert _prove_all(payloads, FULL).verdict.level == FULL


@pytest.mark.parametrize("level", [Verification.off, Verification.header])
def test_lower_levels_still_refuse_logs_of_elsewhere(level: Verification) -> None:
    block, receipts = payload_of(("devchain", 0))
    for damage, reason in (
        (alter_a_logs_block, LogMisplaced),
        (move_a_log_by_name, LogMisplaced),
        (receipts_of_another_block, ReceiptsOfAnotherBlock),
        (give_two_logs_one_index, LogIndexGap),
        (remove_a_log, LogRemoved),
    ):
        damaged, parts = deepcopy(block), deepcopy(receipts)
        parts = damage(damaged, parts) or parts
        with pytest.raises(reason):
            prove(damaged, parts, level)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in _leaves(part, (*path, key))]
    if isinstance(value, list):
        return [leaf for key, part in enumerate(value) for leaf in _leaves(part, (*path, key))]
    return [path] if isinstance(value, str) else []


UNPROVEN_IN_RECEIPTS = {"effectiveGasPrice", "contractAddress", "blockTimestamp"}

UNPROVEN_IN_RECEIPTS |= {"blobGasUsed", "blobGasPrice"}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_altered_text_of_any_receipt_is_refused(data: st.DataObject) -> None:
    block, receipts = payload_of(("devchain", 0))
    leaves = [path for path in _leaves(receipts) if path[-1] not in UNPROVEN_IN_RECEIPTS]
    path = data.draw(st.sampled_from(leaves))
    owner: Any = receipts
    for key in path[:-1]:
        owner = owner[key]
    text = owner[path[-1]]
    at = data.draw(st.integers(2, len(text) - 1)) if len(text) > 2 else None
    if at is None:
        owner[path[-1]] = "0x00"
    else:
        digit = data.draw(st.sampled_from([d for d in "0123456789abcdef" if d != text[at]]))
        owner[path[-1]] = text[:at] + digit + text[at + 1 :]
    with pytest.raises(HeadraceError) as caught:
        prove(block, receipts)
    assert caught.value.code.startswith("HR-22")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_reshuffled_logs_are_refused(data: st.DataObject) -> None:
    block, receipts = payload_of(("devchain", 0))
    logs = logs_in(receipts)
    chosen = data.draw(
        st.lists(st.sampled_from(range(len(logs))), max_size=len(logs) + 2).filter(
            lambda order: order != list(range(len(logs)))
        )
    )
    flat, at = [deepcopy(logs[index]) for index in chosen], 0
    for index, receipt in enumerate(receipts):
        size = len(receipt["logs"]) if index < len(receipts) - 1 else len(flat)
        receipt["logs"] = flat[at : at + size]
        at += size
        for log in receipt["logs"]:
            log["transactionHash"] = receipt["transactionHash"]
            log["transactionIndex"] = receipt["transactionIndex"]
    renumber(receipts)
    if [_content(log) for log in logs_in(receipts)] == [_content(log) for log in logs]:
        return
    with pytest.raises((ReceiptsRootMismatch, BloomMismatch)):
        prove(block, receipts)


def _content(log: Json) -> tuple[Any, ...]:
    return log["address"], tuple(log["topics"]), log["data"], log["transactionHash"]
