"""ABI texts in, declarations out: types, signatures, topics, names; what is refused, and how."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi import grammar
from eth_abi.exceptions import ABITypeError, ParseError
from eth_utils.abi import event_abi_to_log_topic
from hypothesis import given, settings
from hypothesis import strategies as st
from web3 import Web3

from schemas.abi import DEPTH_MAX, Parameter, event_from_json, parse_event, parse_type
from schemas.events import RESERVED, SQL_WORDS, column_names, declare_table, snake_case
from schemas.kinds import parse_kind
from sinks.connection import Connection
from tests.processors.abi_strategies import types


@given(types)
@settings(max_examples=300, deadline=None)
def test_types_agree_with_eth_abi(text: str) -> None:
    parsed, theirs = parse_type(text), grammar.parse(text)
    assert parsed.text == theirs.to_type_str() == text
    assert parsed.dynamic == theirs.is_dynamic
    assert parse_kind(parsed.kind_text).text == parsed.kind_text


@given(st.text("uint(),[]0123456789bytestrgodlafx ", max_size=14))
@settings(max_examples=400, deadline=None)
def test_what_eth_abi_refuses_is_refused(text: str) -> None:
    try:
        theirs = grammar.parse(grammar.normalize(text))
        theirs.validate()
    except (ParseError, ABITypeError, ValueError):
        with pytest.raises(ValueError, match=r"."):
            parse_strictly(text)


def parse_strictly(text: str) -> None:
    """eth-abi takes no blanks and no names of members; a declaration as in Solidity has both."""
    parsed = parse_type(text)
    if parsed.text != grammar.normalize(text):
        raise ValueError("not canonical")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("uint8", "u8"),
        ("uint16", "u16"),
        ("uint24", "u32"),
        ("uint32", "u32"),
        ("uint40", "u64"),
        ("uint64", "u64"),
        ("uint72", "u256"),
        ("uint", "u256"),
        ("int8", "i8"),
        ("int24", "i32"),
        ("int64", "i64"),
        ("int72", "i256"),
        ("int", "i256"),
        ("fixed168x10", "i256"),
        ("ufixed", "u256"),
        ("address", "bytes20"),
        ("bool", "bool"),
        ("bytes1", "bytes1"),
        ("byte", "bytes1"),
        ("function", "bytes24"),
        ("bytes", "bytes"),
        ("string", "string"),
        ("uint256[]", "[u256]"),
        ("uint256[3][]", "[[u256]]"),
        ("(address,(bytes,int24)[])", "(bytes20,[(bytes,i32)])"),
    ],
)
def test_kinds_of_types(text: str, kind: str) -> None:
    assert parse_type(text).kind_text == kind


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("uint7", "'uint7' is no type of the ABI"),
        ("uint264", "'uint264' is no type of the ABI"),
        ("uint08", "'uint08' is no type of the ABI"),
        ("bytes33", "'bytes33' is no type of the ABI"),
        ("bytes0", "'bytes0' is no type of the ABI"),
        ("fixed8x81", "'fixed8x81' is no type of the ABI"),
        ("IERC20", "'IERC20' is no type of the ABI (an enum is uint8, a contract is address)"),
        ("uint256[0]", "an array's length is not a positive number"),
        ("uint256[-1]", "an array's length is not a positive number"),
        ("uint256[", "an array's length is not a positive number"),
        ("()", "expected a type at column 2"),
        ("(uint256", "expected a member's name, ',' or ')' at column 9"),
        ("uint256)", "expected the end at column 8"),
        ("tuple", "expected '(' after tuple"),
        ("", "expected a type at column 1 of '', found the end"),
        ("uint256[1000000]", "takes more than"),
        ("uint256[65536][65536][65536]", "takes more than"),
        ("uint256" + "[]" * (DEPTH_MAX + 1), "nest deeper"),
        ("(" * 40 + "uint256" + ")" * 40, "nest deeper"),
        ("(" + ",".join(["uint8"] * 65) + ")", "more than 64 members"),
    ],
)
def test_malformed_types_say_what_and_where(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_type(text)
    assert reason in str(caught.value)


def test_signatures_as_people_write_them() -> None:
    canonical = "Transfer(address indexed from, address indexed to, uint256 value)"
    for text in (
        canonical,
        f"event {canonical};",
        "event  Transfer ( address indexed from,address   indexed to,uint value ) ;",
        "Transfer(address payable indexed from, address payable indexed to, uint256 value)",
    ):
        assert parse_event(text).text == canonical
        assert parse_event(text).topic_count == 3
    event = parse_event("Filled(tuple(address token, uint amount)[] offer, (bool,bytes) indexed x)")
    assert event.signature == "Filled((address,uint256)[],(bool,bytes))"
    assert event.topic0 == bytes(Web3.keccak(text=event.signature))
    assert [p.kind_text for p in event.parameters] == ["[(bytes20,u256)]", "bytes32"]
    assert parse_event("Note(bytes4 indexed sig) anonymous").topic_count == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Transfer(address from", "expected ',' at column 22"),
        ("Transfer(address from address to)", "expected ',' at column 23"),
        ("Transfer", "expected '(' at column 9"),
        ("(address)", "expected the event's name at column 1"),
        ("Transfer(address,)", "expected a type at column 18"),
        ("Transfer(addres from)", "'addres' is no type of the ABI"),
        ("Transfer(address) view", "expected the end at column 19"),
        (
            "A(uint indexed a, uint indexed b, uint indexed c, uint indexed d)",
            "A has 5 topics where a log has at most 4",
        ),
        ("Ünïcode(address a)", "expected the event's name at column 1"),
    ],
)
def test_malformed_signatures_say_what_and_where(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_event(text)
    assert reason in str(caught.value)


def test_json_entries() -> None:
    entry: dict[str, Any] = {
        "type": "event",
        "name": "Filled",
        "anonymous": False,
        "inputs": [
            {"name": "who", "type": "address", "indexed": True},
            {
                "name": "items",
                "type": "tuple[2][]",
                "indexed": False,
                "components": [
                    {"name": "id", "type": "uint256"},
                    {"name": "x", "type": "tuple", "components": [{"name": "y", "type": "bytes"}]},
                ],
            },
            {"name": "", "type": "int24"},
        ],
    }
    event = event_from_json(entry)
    assert event.signature == "Filled(address,(uint256,(bytes))[2][],int24)"
    assert event.topic0 == event_abi_to_log_topic(entry)  # type: ignore[arg-type]
    assert [p.indexed for p in event.parameters] == [True, False, False]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": None}, "an event's name is None"),
        ({"name": "a b"}, "an event's name is 'a b'"),
        ({"inputs": {}}, "the inputs of E are not a list"),
        ({"inputs": ["x"]}, "the inputs of E are not a list"),
        ({"inputs": [{"name": "a"}]}, "its type is None"),
        ({"inputs": [{"name": 3, "type": "bool"}]}, "the name of input 0 of E is 3"),
        ({"inputs": [{"name": "a", "type": "bool", "indexed": "yes"}]}, "indexed of input 0"),
        ({"inputs": [{"name": "a", "type": "uint7"}]}, "input 0 ('a') of E: 'uint7' is no type"),
        ({"inputs": [{"name": "a", "type": "tuple"}]}, "tuple has no components"),
        ({"inputs": [{"name": "a", "type": "tuple", "components": [1]}]}, "are not objects"),
    ],
)
def test_malformed_json_entries_say_what(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        event_from_json({"type": "event", "name": "E", "inputs": [], **changes})
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("sqrtPriceX96", "sqrt_price_x96"),
        ("amount0In", "amount0_in"),
        ("tokenId", "token_id"),
        ("tokenIDs", "token_ids"),
        ("_value", "value"),
        ("URI", "uri"),
        ("tokenURI", "token_uri"),
        ("ERC20Token", "erc20_token"),
        ("HTTPServer", "http_server"),
        ("already_snake", "already_snake"),
        ("$dollar", "dollar"),
    ],
)
def test_snake_case(name: str, column: str) -> None:
    assert snake_case(name) == column


def test_column_names_are_unique_and_clear_of_the_identity() -> None:
    text = (
        "E(address from, address to, uint a, uint A, uint, uint address, uint blockNumber, "
        "uint load_id, uint _1)"
    ).replace("uint address,", "uint address_,")
    names = column_names(parse_event(text).parameters)
    assert names == [
        "from_address",
        "to_address",
        "a",
        "a_3",
        "param4",
        "address_param",
        "block_number_param",
        "load_id_param",
        "_1",
    ]
    text = "E(uint from, bytes32 to, uint index, address top)"
    assert column_names(parse_event(text).parameters) == [
        "from_value",
        "to_value",
        "index_value",
        "top_address",
    ]


def test_a_name_that_is_taken_by_another_ones_position_is_still_unique() -> None:
    names = column_names(parse_event("E(uint a, uint a_2, uint A)").parameters)
    assert names == ["a", "a_2", "a_2_2"]


def test_columns_named_after_any_sql_word_can_be_queried_without_quotes(
    database: Connection,
) -> None:
    keywords = database.execute("SELECT lower(keyword) FROM system.keywords ORDER BY 1")
    words = [word for (word,) in keywords if word.isidentifier()]
    words += ["nan", "inf", "true", "false", "null", "count", "sum", "date", "toString"]
    assert set(words) >= SQL_WORDS
    found = {
        column
        for word in words
        for column in column_names((Parameter(word, parse_type("uint256"), indexed=False),))
    }
    columns = sorted(found)
    spelt = ",\n".join(f"{column} UInt256 CODEC(ZSTD(1)) COMMENT 'x'" for column in columns)
    database.execute(f"CREATE TABLE words (\n{spelt}) ENGINE = MergeTree ORDER BY tuple()")
    database.execute(f"INSERT INTO words SELECT {', '.join(['7'] * len(columns))}")
    for column in columns:
        rows = database.execute(
            f"SELECT {column} FROM words WHERE {column} = 7 GROUP BY {column} ORDER BY {column}"
        )
        assert rows == [(7,)], column


@given(st.lists(st.from_regex(r"\A[A-Za-z_$][\w$]{0,6}\Z", fullmatch=True), max_size=12))
@settings(deadline=None)
def test_any_parameter_names_make_valid_columns(names: list[str]) -> None:
    parameters = [name for name in names if name.isascii() and name != "indexed"]
    event = parse_event("E(" + ",".join(f"uint256 {name}" for name in parameters) + ")")
    columns = column_names(event.parameters)
    assert len(set(columns)) == len(columns)
    assert not (RESERVED | SQL_WORDS) & set(columns)
    assert all(column.isidentifier() and column == column.lower() for column in columns)


def test_layouts_of_a_table_must_give_the_same_columns() -> None:
    with pytest.raises(ValueError, match="does not fill the columns of named"):
        declare_table("named", "", [parse_event("N(string a)"), parse_event("N(string indexed a)")])
