"""Any packs, contracts and logs: rows and failures are those of a decoder of one log at a time."""

from __future__ import annotations

from typing import Any

import eth_abi
from eth_abi.exceptions import DecodingError
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.abi import build_layouts
from processors.decode import decode_logs
from schemas.abi import EventAbi, parse_event
from schemas.contracts import ContractEntry, declare_contract
from schemas.events import declare_table
from tests.processors.abi_strategies import as_decoded
from tests.processors.log_rows import all_rows, log_row, log_segment

ADDRESSES = [bytes([n]) * 20 for n in range(1, 5)]
TEXTS = [
    "Moved(address indexed a, address indexed b, uint8 c)",
    "Moved(address indexed a, address b, uint8 indexed c)",
    "Moved(address a, address indexed b, uint8 indexed c)",
    "Moved(address a, address b, uint8 indexed c)",
    "Moved(address indexed a, address indexed b, uint8 indexed c)",
    "Moved(address a, address b, uint8 c)",
    "Named(bytes indexed a, bytes b)",
    "Named(bytes a, bytes b)",
    "Pair(uint8[2] indexed a, uint8 b)",
    "Pair(uint8[2] a, uint8 indexed b)",
]
"""Of one topic0 several have equal numbers of topics; only Pair's differ in the data they need."""

declared = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=5, unique=True)
words = st.sampled_from([bytes(32), b"\0" * 31 + b"\7", b"\0" * 12 + b"\1" * 20, b"\2" * 32])
tails = st.sampled_from(
    [b"", eth_abi.encode(["bytes"], [b"x"]), eth_abi.encode(["bytes", "bytes"], [b"x", b"yz"])]
)
topic0s = sorted({parse_event(text).topic0 for text in TEXTS} | {bytes([9]) * 32})
logs = st.tuples(
    st.sampled_from(topic0s),
    st.lists(words, max_size=3),
    st.lists(words, max_size=4).map(b"".join) | tails,
    st.sampled_from(ADDRESSES),
)


@st.composite
def contracts(draw: st.DrawFn) -> list[ContractEntry]:
    entries = []
    for i in range(draw(st.integers(0, 3))):
        chosen = draw(st.none() | st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=2))
        addresses = None if chosen is None else tuple(f"0x{a.hex()}" for a in chosen)
        texts = tuple((text, "toml") for text in draw(declared) if indexes_alike(text))
        if texts:
            entries.append(ContractEntry(f"c{i}", "toml", None, texts, addresses))
    return entries


def indexes_alike(text: str) -> bool:
    """An indexed `bytes` or array gives another kind of column, so it cannot share a table."""
    return text not in ("Named(bytes indexed a, bytes b)", "Pair(uint8[2] indexed a, uint8 b)")


def decode_one(event: EventAbi, topics: list[bytes], data: bytes) -> tuple[Any, ...] | None:
    """One log by one declaration with eth-abi, or None where it does not fit."""
    if event.topic_count != len(topics) or event.topic0 != topics[0]:
        return None
    body = [p.type.text for p in event.parameters if not p.indexed]
    rest = iter(topics[1:])
    try:
        decoded = iter(eth_abi.decode(body, data))
        values: list[Any] = []
        for p in event.parameters:
            if p.indexed and not p.type.is_word:
                values.append(next(rest))
            elif p.indexed:
                values += eth_abi.decode([p.type.text], next(rest))
            else:
                values.append(next(decoded))
    except (DecodingError, OverflowError):
        return None
    pairs = zip(event.parameters, values, strict=True)
    return tuple(v if isinstance(v, bytes) else as_decoded(p.type, v) for p, v in pairs)


def head_bytes(event: EventAbi) -> int:
    return sum(p.type.head_bytes for p in event.parameters if not p.indexed)


@given(
    declared,
    contracts(),
    st.lists(logs, max_size=12),
)
@settings(max_examples=300)
def test_equals_a_decoder_of_one_log_at_a_time(
    packs: list[str], entries: list[ContractEntry], emitted: list[Any]
) -> None:
    builtin = [declare_table(f"p{i}", "", [parse_event(t)]) for i, t in enumerate(packs)]
    users = [declare_contract(entry) for entry in entries]
    layouts = build_layouts(users, builtin)
    rows = [
        log_row([topic0, *topics], data, log_index=i, address=address)
        for i, (topic0, topics, data, address) in enumerate(emitted)
    ]
    out = all_rows(decode_logs(log_segment(rows), layouts), layouts.tables)
    failures = [row["log_index"] for row in out.pop("decode_failures", [])]
    found = {
        name: [(row["log_index"], *list(row.values())[8:]) for row in decoded]
        for name, decoded in out.items()
    }
    claims: list[tuple[frozenset[bytes] | None, list[Any]]] = [(None, builtin)]
    claims += [(user.addresses, list(user.events)) for user in users]
    expected: dict[str, list[Any]] = {}
    lost = []
    for i, (topic0, topics, data, address) in enumerate(emitted):
        verdicts = []
        for addresses, tables in claims:
            offers = [
                (table.table.name, event)
                for table in tables
                for event in table.layouts
                if event.topic0 == topic0
            ]
            if not offers or (addresses is not None and address not in addresses):
                continue
            offers.sort(key=lambda offer: (-head_bytes(offer[1]), f"{offer[0]}: {offer[1].text}"))
            results = (
                (name, values)
                for name, event in offers
                if (values := decode_one(event, [topic0, *topics], data)) is not None
            )
            taken = next(results, None)
            if taken is not None:
                expected.setdefault(taken[0], []).append((i, *taken[1]))
            verdicts.append((addresses, taken))
        refused = any(addresses is not None and not taken for addresses, taken in verdicts)
        if refused or (verdicts and not any(taken for _, taken in verdicts)):
            lost.append(i)
    assert found == expected
    assert failures == lost
