"""[[contracts]] entries in, tables out; a malformed ABI is refused with file and line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from processors.abi import build_layouts
from schemas.abi import parse_event
from schemas.contracts import EVENTS_MAX, ContractEntry, FactoryEntry, declare_contract
from schemas.errors_processors import (
    EventsIndistinct,
    MalformedAbi,
    MalformedContract,
    TableNameTaken,
)
from schemas.events import declare_table

ABI = """[
  {"type": "constructor", "inputs": []},
  {
    "type": "event",
    "name": "OrderFilled",
    "inputs": [
      {"name": "maker", "type": "address", "indexed": true},
      {"name": "takerAmount", "type": "uint128", "indexed": false}
    ]
  },
  {"type": "event", "name": "Set", "inputs": [{"name": "x", "type": "uint256"}]},
  {"type": "event", "name": "Set", "inputs": [{"name": "x", "type": "bytes32"}]},
  {"type": "event", "name": "Note", "inputs": [], "anonymous": true}
]
"""


def entry(**changes: Any) -> ContractEntry:
    facts: dict[str, Any] = {"name": "desk", "where": "headrace.toml line 12", **changes}
    return ContractEntry(**facts)


def columns(table: Any) -> list[tuple[str, str]]:
    return [(spec.name, spec.kind_text) for spec in table.columns[8:]]


def test_events_of_a_json_abi_become_tables() -> None:
    contract = declare_contract(entry(abi=("abis/desk.json", ABI)))
    names = [event.table.name for event in contract.events]
    assert names[0] == "desk_order_filled"
    sets = [f"desk_set_{parse_event(t).topic0[:4].hex()}" for t in ("Set(uint256)", "Set(bytes32)")]
    assert names[1:] == sets
    assert columns(contract.events[0].table) == [("maker", "bytes20"), ("taker_amount", "u256")]
    assert contract.skipped == ("Note() anonymous is anonymous",)
    assert contract.addresses is None
    layouts = build_layouts([contract])
    assert [table.name for table in layouts.tables][-4:] == [*names, "decode_failures"]


@pytest.mark.parametrize("shape", ["compact", "artifact", "indented"])
def test_compiler_output_holds_its_abi_under_a_key(shape: str) -> None:
    entries = json.loads(ABI)
    text = {
        "compact": json.dumps(entries),
        "artifact": json.dumps({"contractName": "Desk", "abi": entries, "bytecode": "0x"}),
        "indented": json.dumps({"abi": entries}, indent=4),
    }[shape]
    assert len(declare_contract(entry(abi=("desk.json", text))).events) == 3


def test_signatures_become_tables_and_layouts_of_one_event_share_one() -> None:
    texts = ("Paid(address indexed who, uint256 amount)", "Paid(address who, uint256 amount)")
    contract = declare_contract(entry(signatures=tuple((text, "x") for text in texts)))
    (event,) = contract.events
    assert event.table.name == "desk_paid"
    assert [layout.text for layout in event.layouts] == list(texts)


@pytest.mark.parametrize(
    ("damage", "where", "reason"),
    [
        (("uint128", "uint129"), "abis/desk.json line 3", "input 1 ('takerAmount') of OrderFilled"),
        (('"Set", "inputs": [{"name": "x", "type": "bytes32"', '"Set", "inputs": [{"name": "x"'),
         "abis/desk.json line 12", "its type is None"),
        (('"OrderFilled",', '"OrderFilled"'),
         "abis/desk.json line 6", "it is not JSON at column 5"),
        (('{"type": "constructor", "inputs": []}', "7"), "abis/desk.json line 2", "is no object"),
    ],
)  # fmt: skip
def test_a_malformed_abi_names_file_and_line(
    damage: tuple[str, str], where: str, reason: str
) -> None:
    assert damage[0] in ABI
    with pytest.raises(MalformedAbi) as caught:
        declare_contract(entry(abi=("abis/desk.json", ABI.replace(*damage))))
    assert caught.value.data["where"] == where
    assert reason in str(caught.value)
    assert str(caught.value).startswith("HR-3101: abis/desk.json line ")


def test_lines_are_found_inside_a_compilers_output() -> None:
    text = json.dumps({"abi": json.loads(ABI.replace("uint128", "uint129"))}, indent=1)
    line = 1 + text[: text.index('"OrderFilled"')].count("\n") - 2
    with pytest.raises(MalformedAbi) as caught:
        declare_contract(entry(abi=("out/Desk.json", text)))
    assert caught.value.data["where"] == f"out/Desk.json line {line}"


@pytest.mark.parametrize("text", ["", "{}", "3", '{"abi": 3}', "[" * 100_000, "not json"])
def test_what_is_no_abi_is_refused(text: str) -> None:
    with pytest.raises(MalformedAbi):
        declare_contract(entry(abi=("desk.json", text)))


def test_a_malformed_signature_names_file_line_and_column() -> None:
    with pytest.raises(MalformedAbi) as caught:
        declare_contract(entry(signatures=(("Paid(adress who)", "headrace.toml line 14"),)))
    assert caught.value.data["where"] == "headrace.toml line 14"
    assert "at column 6 of 'Paid(adress who)'" in str(caught.value)


FACTORY = FactoryEntry("0x" + "11" * 20, "Made(address indexed a, uint256 n)", "a", "toml line 9")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "Desk"}, "'Desk' is no name"),
        ({"name": "1desk"}, "'1desk' is no name"),
        ({"signatures": ()}, "desk declares no event"),
        (
            {"signatures": (("N() anonymous", "x"),)},
            "declares no event; N() anonymous is anonymous",
        ),
        ({"signatures": ((f"{'N' * 130}()", "x"),)}, "is longer than 120 characters"),
        (
            {"signatures": tuple((f"N{i}()", "x") for i in range(EVENTS_MAX + 1))},
            "desk declares 257 events, at most 256 are allowed",
        ),
        ({"addresses": ("0x12",)}, "'0x12' is no address"),
        ({"addresses": ()}, "desk has no address"),
        ({"addresses": ("0x" + "11" * 20,), "factory": FACTORY}, "give one of the two"),
        ({"factory": FactoryEntry("0x1", FACTORY.event, "a", "x")}, "'0x1' is no address"),
        (
            {"factory": FactoryEntry(FACTORY.address, FACTORY.event, "n", "x")},
            "'n' is no address parameter of Made(address indexed a, uint256 n); it has a",
        ),
        (
            {"factory": FactoryEntry(FACTORY.address, "Made(address a) anonymous", "a", "x")},
            "is anonymous",
        ),
    ],
)
def test_an_entry_that_cannot_be_used_is_refused(changes: dict[str, Any], reason: str) -> None:
    facts = {"signatures": (("Paid(address who)", "x"),), **changes}
    with pytest.raises(MalformedContract) as caught:
        declare_contract(entry(**facts))
    assert reason in str(caught.value)


def test_tables_never_share_a_name() -> None:
    one = declare_contract(entry(signatures=(("Paid(address who)", "x"),)))
    with pytest.raises(TableNameTaken) as caught:
        build_layouts([one, one])
    assert caught.value.data["table"] == "desk_paid"
    named = declare_contract(entry(name="erc20", signatures=(("Transfers(address who)", "x"),)))
    with pytest.raises(TableNameTaken):
        build_layouts([named])
    storage = declare_contract(entry(name="logs", signatures=(("Open(address who)", "x"),)))
    with pytest.raises(TableNameTaken):
        build_layouts([storage])


def test_a_factory_of_the_contracts_own_event_gets_a_table_of_its_own() -> None:
    factory = FactoryEntry("0x" + "11" * 20, "Paid(address who)", "who", "x")
    contract = declare_contract(entry(signatures=(("Paid(address who)", "x"),), factory=factory))
    topic0 = parse_event("Paid(address)").topic0[:4].hex()
    assert contract.creations.table.name == f"desk_paid_{topic0}"


def test_events_that_the_index_cannot_tell_apart_are_refused() -> None:
    first, second = parse_event("A(uint256 x)"), parse_event("B(uint256 x)")
    first.__dict__["topic0"] = bytes(8) + b"\1" * 24
    second.__dict__["topic0"] = bytes(8) + b"\2" * 24
    with pytest.raises(EventsIndistinct):
        build_layouts((), [declare_table("a", "", [first]), declare_table("b", "", [second])])
