"""Random types and values, whole and damaged: the decoder takes and refuses what eth-abi does."""

from __future__ import annotations

from typing import Any

import eth_abi
import pytest
from eth_abi.exceptions import DecodingError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web3.exceptions import Web3Exception

from processors.abi import build_layouts
from processors.decode import decode_logs
from schemas.abi import EventAbi, Parameter, parse_type
from schemas.events import declare_table
from tests.processors.abi_strategies import as_decoded, damaged, types, values, words
from tests.processors.log_rows import log_row, log_segment, table_rows
from tests.processors.process_log import process_log

REFUSALS = (DecodingError, UnicodeDecodeError, OverflowError)
FUZZ = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def decoded(event: EventAbi, rows: list[dict[str, Any]]) -> dict[int, tuple[Any, ...] | str]:
    """Per log index: the parameters' values, or the reason of the refusal."""
    layouts = build_layouts((), [declare_table("fuzzed", "", [event])])
    out = decode_logs(log_segment(rows), layouts)
    found: dict[int, tuple[Any, ...] | str] = {}
    for row in table_rows(out, layouts.tables, "fuzzed"):
        found[row["log_index"]] = tuple(row.values())[8:]
    for row in table_rows(out, layouts.tables, "decode_failures"):
        assert row["log_index"] not in found
        found[row["log_index"]] = row["reason"]
    assert len(found) == len(rows)
    return found


@given(st.data())
@FUZZ
def test_equals_eth_abi(data: st.DataObject) -> None:
    texts = data.draw(st.lists(types, min_size=1, max_size=3))
    parsed = [parse_type(text) for text in texts]
    parameters = tuple(Parameter(f"p{i}", t, False) for i, t in enumerate(parsed))
    event = EventAbi("Fuzzed", parameters)
    bodies = []
    for _ in range(4):
        body = eth_abi.encode(texts, [data.draw(values(t)) for t in parsed])
        bodies += [body, data.draw(damaged(body))]
    found = decoded(
        event, [log_row([event.topic0], body, log_index=i) for i, body in enumerate(bodies)]
    )
    for i, body in enumerate(bodies):
        ours = found[i]
        try:
            theirs = eth_abi.decode(texts, body)
        except REFUSALS:
            assert isinstance(ours, str), f"{texts} {body.hex()} is taken as {ours}"
            continue
        if isinstance(ours, str) and ours.startswith("expansion"):
            continue
        expected = tuple(as_decoded(t, v) for t, v in zip(parsed, theirs, strict=True))
        strings = tuple(v.encode() if isinstance(v, str) else v for v in ours)
        assert not isinstance(ours, str), f"{texts} {body.hex()} is refused: {ours}"
        assert strings == expected


@given(st.data())
@FUZZ
def test_equals_process_log_with_indexed_parameters(data: st.DataObject) -> None:
    texts = data.draw(st.lists(words | types, min_size=1, max_size=4))
    marks = [data.draw(st.booleans()) for _ in texts]
    marks = [mark and sum(marks[:i]) < 3 for i, mark in enumerate(marks)]
    parsed = [parse_type(text) for text in texts]
    # web3 reads an indexed array of fixed length, or tuple, from its hash; Solidity means the hash.
    marks = [
        mark and (t.is_word or t.base in ("bytes", "string"))
        for mark, t in zip(marks, parsed, strict=True)
    ]
    event = EventAbi(
        "Fuzzed",
        tuple(Parameter(f"p{i}", t, m) for i, (t, m) in enumerate(zip(parsed, marks, strict=True))),
    )
    topics = [event.topic0]
    body_types, body_values = [], []
    for t, mark in zip(parsed, marks, strict=True):
        value = data.draw(values(t))
        if not mark:
            body_types.append(t.text)
            body_values.append(value)
        elif t.is_word:
            topics.append(eth_abi.encode([t.text], [value]))
        else:
            topics.append(data.draw(st.binary(min_size=32, max_size=32)))
    if data.draw(st.booleans()) and len(topics) > 1:
        topics[-1] = data.draw(damaged(topics[-1])).ljust(32, b"\1")[:32]
    body = eth_abi.encode(body_types, body_values)
    if data.draw(st.booleans()):
        body = data.draw(damaged(body))
    ours = decoded(event, [log_row(topics, body)])[0]
    try:
        theirs = process_log(event, topics, body)
    except (*REFUSALS, Web3Exception):
        assert isinstance(ours, str), f"{event.text} is taken as {ours}"
        return
    if isinstance(ours, str) and ours.startswith("expansion"):
        return
    assert not isinstance(ours, str), f"{event.text} is refused: {ours}"
    strings = tuple(v.encode() if isinstance(v, str) else v for v in ours)
    assert strings == tuple(
        bytes(v) if mark and not t.is_word else as_decoded(t, v)
        for t, mark, v in zip(parsed, marks, theirs, strict=True)
    )


def test_the_fuzzers_see_refusals() -> None:
    """A decoder that takes everything would be caught: this is what the properties rest on."""
    event = EventAbi("Fuzzed", (Parameter("p", parse_type("bytes"), False),))
    body = eth_abi.encode(["bytes"], [b"abc"])
    with pytest.raises(DecodingError):
        eth_abi.decode(["bytes"], body[:-1] + b"\1")
    assert decoded(event, [log_row([event.topic0], body[:-1] + b"\1")])[0] == (
        "padding: bytes after p (bytes) are not zero"
    )
