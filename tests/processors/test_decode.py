"""Logs in, rows of the declared tables out: layouts told apart, refusals explicit, order kept."""

from __future__ import annotations

from typing import Any

import eth_abi
import pytest

from processors.abi import Layouts, build_layouts
from processors.decode import decode_logs
from schemas.abi import parse_event
from schemas.codec import (
    decode_event_segment,
    decode_log_segment,
    encode_event_segment,
    encode_log_segment,
)
from schemas.contracts import Contract, ContractEntry, FactoryEntry, declare_contract
from schemas.events import builtin_events, declare_table
from schemas.tables import EVENT_IDENTITY
from tests.processors.log_rows import ADDRESS, all_rows, log_row, log_segment

LAYOUTS = build_layouts()
TRANSFER = parse_event("Transfer(address a, address b, uint256 c)").topic0
APPROVAL = parse_event("Approval(address a, address b, uint256 c)").topic0
SINGLE = parse_event("TransferSingle(address a, address b, address c, uint d, uint e)").topic0
BATCH = parse_event("TransferBatch(address a, address b, address c, uint[] d, uint[] e)").topic0
A, B, C = (bytes([n]) * 20 for n in (1, 2, 3))


def word(value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return value.rjust(32, b"\0")
    return value.to_bytes(32, "big", signed=value < 0)


def decode(rows: list[dict[str, Any]], layouts: Layouts = LAYOUTS) -> dict[str, Any]:
    return all_rows(decode_logs(log_segment(rows), layouts), layouts.tables)


def reasons(rows: list[dict[str, Any]], layouts: Layouts = LAYOUTS) -> list[str]:
    return [row["reason"] for row in decode(rows, layouts).get("decode_failures", [])]


def test_one_topic0_with_four_layouts() -> None:
    words = [word(A), word(B), word(5)]
    out = decode(
        [
            log_row([TRANSFER, *words[:2]], words[2], log_index=0),
            log_row([TRANSFER, *words], log_index=1),
            log_row([TRANSFER], b"".join(words), log_index=2),
            log_row([TRANSFER, words[0]], b"".join(words[1:]), log_index=3),
            log_row([TRANSFER, *words[:2]], word(6), log_index=4),
        ]
    )
    assert set(out) == {"erc20_transfers", "erc721_transfers", "nonstandard_transfers"}
    assert [(r["log_index"], r["value"]) for r in out["erc20_transfers"]] == [(0, 5), (4, 6)]
    assert [(r["log_index"], r["token_id"]) for r in out["erc721_transfers"]] == [(1, 5)]
    assert [(r["log_index"], r["value"]) for r in out["nonstandard_transfers"]] == [(2, 5), (3, 5)]
    for rows in out.values():
        assert all((r["from_address"], r["to_address"]) == (A, B) for r in rows)


def test_rows_carry_the_identity_of_their_log() -> None:
    row = log_row([TRANSFER, word(A), word(B)], word(1), log_index=8, block_number=99)
    (decoded,) = decode([row])["erc20_transfers"]
    for spec in EVENT_IDENTITY:
        assert decoded[spec.name] == (0 if spec.name == "sub_index" else row[spec.name])


def test_every_table_comes_once_also_for_a_segment_without_logs() -> None:
    out = decode_logs(log_segment([]), LAYOUTS)
    assert [block.table for block in out.tables] == [table.name for table in LAYOUTS.tables]
    assert len({block.table for block in out.tables}) == len(out.tables)
    assert all(block.rows == 0 and block.columns == {} for block in out.tables)
    assert out.name.stream == "events"
    assert out.name.last_hash == bytes(32)
    assert out.observed_at_ms == 1_700_000_000_000


def test_unknown_and_anonymous_logs_are_neither_rows_nor_failures() -> None:
    assert decode([log_row(), log_row([], b"x" * 190_000), log_row([b"\1" * 32], b"abc")]) == {}


def test_a_topic0_that_shares_the_index_prefix_is_unknown() -> None:
    forged = TRANSFER[:8] + bytes(24)
    out = decode([log_row([forged, word(A), word(B)], word(1), log_index=0)])
    assert out == {}


def test_known_topic0_with_other_topics_is_a_failure() -> None:
    deposit = parse_event("Deposit(address dst, uint256 wad)").topic0
    rows = [log_row([deposit], word(A) + word(1), log_index=3, address=C)]
    (failure,) = decode(rows)["decode_failures"]
    assert failure["topic0"] == deposit
    assert failure["topic_count"] == 1
    assert failure["data_bytes"] == 64
    assert failure["layout"] == "weth_deposits: Deposit(address indexed dst, uint256 wad)"
    assert failure["reason"] == "topics: no layout of Deposit(address,uint256) has 1 topics"
    assert (failure["address"], failure["log_index"], failure["sub_index"]) == (C, 3, 0)


@pytest.mark.parametrize(
    ("topics", "data", "reason"),
    [
        ([word(A), word(B)], word(1)[:31], "short: 31 bytes of data where 32 are needed"),
        ([word(A), word(B)], b"", "short: 0 bytes of data where 32 are needed"),
        ([b"\1" * 32, word(B)], word(1), "value: bits beyond from (address) are set"),
        ([word(A), b"\1" * 32], word(1), "value: bits beyond to (address) are set"),
    ],
)
def test_a_transfer_that_violates_its_types(topics: list[bytes], data: bytes, reason: str) -> None:
    good = log_row([TRANSFER, word(A), word(B)], word(1), log_index=1)
    rows = [log_row([TRANSFER, *topics], data), good, log_row([TRANSFER, *topics], data)]
    assert reasons(rows) == [reason, reason]
    assert len(decode(rows)["erc20_transfers"]) == 1


def test_trailing_data_is_taken_as_eth_abi_takes_it() -> None:
    data = word(5) + b"trailing"
    assert eth_abi.decode(["uint256"], data) == (5,)
    (row,) = decode([log_row([TRANSFER, word(A), word(B)], data)])["erc20_transfers"]
    assert row["value"] == 5


def batch(ids: list[int], amounts: list[int], log_index: int = 0) -> dict[str, Any]:
    data = eth_abi.encode(["uint256[]", "uint256[]"], [ids, amounts])
    return log_row([BATCH, word(C), word(A), word(B)], data, log_index=log_index)


def test_batches_become_a_row_an_element_in_the_order_of_the_chain() -> None:
    topics = [SINGLE, word(C), word(A), word(B)]
    rows = [
        batch([1, 2, 3], [10, 20, 30], 0),
        log_row(topics, word(7) + word(70), log_index=1),
        batch([], [], 2),
        batch([4], [40], 3),
    ]
    out = decode(rows)
    assert set(out) == {"erc1155_transfers"}
    found = [
        (r["log_index"], r["sub_index"], r["id"], r["value"]) for r in out["erc1155_transfers"]
    ]
    assert found == [(0, 0, 1, 10), (0, 1, 2, 20), (0, 2, 3, 30), (1, 0, 7, 70), (3, 0, 4, 40)]
    assert {
        (r["operator"], r["from_address"], r["to_address"]) for r in out["erc1155_transfers"]
    } == {(C, A, B)}


def test_a_batch_of_arrays_that_differ_in_length_is_a_failure() -> None:
    rows = [batch([1, 2], [10], 0), batch([5], [50], 1)]
    out = decode(rows)
    assert [(r["id"], r["value"]) for r in out["erc1155_transfers"]] == [(5, 50)]
    (failure,) = out["decode_failures"]
    assert failure["reason"] == (
        "batch: values (uint256[]) differs in length from the batch's other arrays"
    )


def test_a_segment_of_empty_batches_gives_empty_tables() -> None:
    assert decode([batch([], [], 0), batch([], [], 1)]) == {}


def test_read_only_columns_of_a_message_decode_and_travel_on() -> None:
    rows = [batch([1], [2]), log_row([TRANSFER, word(A), word(B)], word(1)), log_row([TRANSFER])]
    segment = decode_log_segment(encode_log_segment(log_segment(rows)))
    out = decode_logs(segment, LAYOUTS)
    assert all_rows(out, LAYOUTS.tables) == decode(rows)
    tables = {table.name: table for table in LAYOUTS.tables}
    again = decode_event_segment(encode_event_segment(out, tables))
    assert all_rows(again, LAYOUTS.tables) == decode(rows)


def entry(**changes: Any) -> Contract:
    facts: dict[str, Any] = {
        "name": "mine",
        "where": "headrace.toml line 3",
        "signatures": (("Transfer(address indexed from, address indexed to, uint256 value)", "x"),),
    }
    return declare_contract(ContractEntry(**{**facts, **changes}))


def test_a_users_table_fills_beside_the_built_in_one() -> None:
    layouts = build_layouts([entry(addresses=(f"0x{A.hex()}", f"0x{C.hex()}"))])
    rows = [
        log_row([TRANSFER, word(A), word(B)], word(i), log_index=i, address=address)
        for i, address in enumerate([A, B, C, ADDRESS])
    ]
    out = decode(rows, layouts)
    assert [r["value"] for r in out["erc20_transfers"]] == [0, 1, 2, 3]
    assert [r["value"] for r in out["mine_transfer"]] == [0, 2]
    assert [r["address"] for r in out["mine_transfer"]] == [A, C]


def test_a_restricted_contract_reports_what_it_cannot_decode() -> None:
    layouts = build_layouts([entry(addresses=(f"0x{A.hex()}",))])
    words = [word(A), word(B), word(5)]
    rows = [
        log_row([TRANSFER, *words], log_index=0, address=A),
        log_row([TRANSFER, *words], log_index=1, address=B),
    ]
    out = decode(rows, layouts)
    assert len(out["erc721_transfers"]) == 2
    (failure,) = out["decode_failures"]
    assert (failure["log_index"], failure["address"]) == (0, A)
    assert failure["layout"].startswith("mine_transfer: ")


def test_an_unrestricted_contract_reports_only_what_nobody_decodes() -> None:
    layouts = build_layouts([entry()])
    words = [word(A), word(B), word(5)]
    assert set(decode([log_row([TRANSFER, *words])], layouts)) == {"erc721_transfers"}
    assert len(reasons([log_row([TRANSFER, *words[:2]], b"")], layouts)) == 1


def test_a_restricted_contract_may_decode_what_the_packs_cannot() -> None:
    deposit = "Deposit(address dst, uint256 wad)"
    layouts = build_layouts([entry(signatures=((deposit, "x"),), addresses=(f"0x{A.hex()}",))])
    topic0 = parse_event(deposit).topic0
    rows = [
        log_row([topic0], word(B) + word(i), log_index=i, address=a) for i, a in enumerate([A, C])
    ]
    out = decode(rows, layouts)
    assert [r["wad"] for r in out["mine_deposit"]] == [0]
    assert [r["log_index"] for r in out["decode_failures"]] == [1]


def test_a_factorys_children_are_decoded_from_every_address_and_joined_on_read() -> None:
    contract = entry(
        factory=FactoryEntry(
            f"0x{A.hex()}", "Created(address indexed owner, address token)", "token", "x"
        )
    )
    layouts = build_layouts([contract])
    created = parse_event("Created(address,address)").topic0
    rows = [
        log_row([TRANSFER, word(A), word(B)], word(1), log_index=0, address=C),
        log_row([created, word(B)], word(C), log_index=1, address=A),
        log_row([created, word(B)], word(C), log_index=2, address=B),
    ]
    out = decode(rows, layouts)
    assert [r["log_index"] for r in out["mine_transfer"]] == [0]
    assert [(r["log_index"], r["token"]) for r in out["mine_created"]] == [(1, C)]
    assert "decode_failures" not in out
    (membership,) = layouts.memberships
    assert membership.tables == ("mine_transfer",)
    assert (membership.creations_table, membership.creations_column) == ("mine_created", "token")
    assert membership.factory.address == A


def test_vanity_addresses_are_told_apart() -> None:
    addresses = [bytes(19) + bytes([n]) for n in range(40)]
    addresses += [bytes([n]) + bytes(19) for n in range(1, 40)]
    addresses += [b"ab" + bytes(n) + b"c" + bytes(17 - n) for n in range(18)]
    chosen = addresses[::3]
    layouts = build_layouts([entry(addresses=tuple(f"0x{a.hex()}" for a in chosen))])
    rows = [
        log_row([TRANSFER, word(A), word(B)], word(i), log_index=i, address=address)
        for i, address in enumerate(addresses)
    ]
    assert [r["address"] for r in decode(rows, layouts)["mine_transfer"]] == chosen


PAIRS = ["Pair(uint8[2] indexed a, uint8 b)", "Pair(uint8[2] a, uint8 indexed b)"]


def test_of_layouts_with_equal_topics_the_shape_of_the_data_decides() -> None:
    declared = [declare_table(f"t{i}", "", [parse_event(text)]) for i, text in enumerate(PAIRS)]
    topics = [parse_event(PAIRS[0]).topic0, word(7)]
    rows = [
        log_row(topics, word(1) + word(2), log_index=0),
        log_row(topics, word(1) + word(256), log_index=1),
        log_row(topics, word(3), log_index=2),
        log_row(topics, word(256) + word(1), log_index=3),
    ]
    out = decode(rows, build_layouts((), declared))
    assert [(r["log_index"], r["a"], r["b"]) for r in out["t1"]] == [(0, [1, 2], 7)]
    # What the layout of more data refuses is offered to the one of less, in the chain's order.
    assert [(r["log_index"], r["a"], r["b"]) for r in out["t0"]] == [
        (1, word(7), 1),
        (2, word(7), 3),
    ]
    assert [r["log_index"] for r in out["decode_failures"]] == [3]


def test_events_without_parameters_have_rows_of_identity_alone() -> None:
    layouts = build_layouts((), [declare_table("paused", "", [parse_event("Paused()")])])
    topic0 = parse_event("Paused()").topic0
    out = decode([log_row([topic0], log_index=4), log_row([topic0], b"more")], layouts)
    assert [row["log_index"] for row in out["paused"]] == [4, 0]


def test_indexed_values_that_are_no_word_are_their_hash() -> None:
    text = "Named(string indexed name, uint256[] indexed ids, (uint256,bool) indexed pair)"
    layouts = build_layouts((), [declare_table("named", "", [parse_event(text)])])
    hashes = [bytes([n]) * 32 for n in (7, 8, 9)]
    (row,) = decode([log_row([parse_event(text).topic0, *hashes])], layouts)["named"]
    assert [row["name"], row["ids"], row["pair"]] == hashes


def test_content_version_follows_what_decides_the_rows() -> None:
    base = build_layouts()
    assert base.content_version == build_layouts().content_version
    versions = {
        base.content_version,
        build_layouts([entry()]).content_version,
        build_layouts([entry(name="other")]).content_version,
        build_layouts([entry(addresses=(f"0x{A.hex()}",))]).content_version,
        build_layouts([entry(addresses=(f"0x{B.hex()}",))]).content_version,
        build_layouts(
            [entry(signatures=(("Transfer(address indexed a, address b, uint256 c)", "x"),))]
        ).content_version,
        build_layouts((), builtin_events()[1:]).content_version,
    }
    assert len(versions) == 7
    moved = entry(where="elsewhere line 9")
    assert build_layouts([entry()]).content_version == build_layouts([moved]).content_version
    name = decode_logs(log_segment([]), base).name
    assert (
        name.content_version
        != decode_logs(log_segment([]), build_layouts([entry()])).name.content_version
    )


def test_a_log_of_190_kb_decodes() -> None:
    text = "Blob(bytes payload)"
    layouts = build_layouts((), [declare_table("blobs", "", [parse_event(text)])])
    payload = bytes(range(256)) * 743
    row = log_row([parse_event(text).topic0], eth_abi.encode(["bytes"], [payload]))
    assert len(row["data"]) > 190_000
    assert decode([row], layouts)["blobs"][0]["payload"] == payload


def test_more_events_than_16_bits_number_are_told_apart() -> None:
    events = [parse_event(f"Event{i}(uint256 x)") for i in range(16_400)]
    tables = [declare_table(f"t{i}", "", [event]) for i, event in enumerate(events)]
    layouts = build_layouts((), tables)
    assert len(layouts.groups) > 1 << 16
    chosen = [0, 1, 8_000, 16_398, 16_399]
    rows = [log_row([events[i].topic0], word(i), log_index=n) for n, i in enumerate(chosen)]
    out = decode(rows, layouts)
    assert {name: row["x"] for name, (row,) in out.items()} == {f"t{i}": i for i in chosen}
