"""ABI texts in, event declarations out: types, signatures, JSON entries, topic hashes.

Source: Solidity documentation, "Contract ABI Specification" (types, canonical signatures, JSON).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import sha3

DEPTH_MAX = 16
"""How deep arrays and tuples may nest: Solidity's own compiler stops near here."""

HEAD_BYTES_MAX = 1 << 24
"""Most bytes the head of one type may take: a log of more costs over 100 million gas."""

PARAMETERS_MAX = 64
"""Most parameters an event or a tuple may have; the EVM's stack gives Solidity 16."""

_ALIASES = {
    "uint": "uint256",
    "int": "int256",
    "byte": "bytes1",
    "fixed": "fixed128x18",
    "ufixed": "ufixed128x18",
}
_NUMBER = re.compile(r"(u?int|u?fixed)([1-9]\d*)(?:x([1-9]\d*))?")
_FIXED_BYTES = re.compile(r"bytes([1-9]\d*)")
_TOKEN = re.compile(r"\s*([A-Za-z_$][\w$]*|\d+|[()\[\],;]|.)", re.ASCII)
_NAME = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class AbiType:
    """A type of the contract ABI."""

    base: str
    """``uint int address bool bytesN bytes string array tuple``; fixed-point types are ints."""
    text: str
    """The canonical text, as it stands in the event's signature."""
    width: int = 0
    """Bits of a number, bytes of a bytesN, else 0."""
    children: tuple[AbiType, ...] = ()
    """The element of an array, the members of a tuple."""
    length: int | None = None
    """How many elements an array of fixed length has."""
    dynamic: bool = False
    """Whether its encoding is a pointer into the tail."""
    head_bytes: int = 32
    """Bytes that it takes in the head."""

    @property
    def kind_text(self) -> str:
        """The column kind that holds its values, in the grammar of schemas/kinds.py."""
        if self.base in ("uint", "int"):
            native = next((bits for bits in (8, 16, 32, 64) if self.width <= bits), 256)
            return f"{self.base[0]}{native}"
        if self.base == "address":
            return "bytes20"
        if self.base == "bytesN":
            return f"bytes{self.width}"
        if self.base == "array":
            return f"[{self.children[0].kind_text}]"
        if self.base == "tuple":
            return "(" + ",".join(child.kind_text for child in self.children) + ")"
        return self.base

    @property
    def is_word(self) -> bool:
        """Whether a value is one 32-byte word: such a value stands in a topic as it is."""
        return self.base in ("uint", "int", "address", "bool", "bytesN")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an event."""

    name: str
    """Its name, ``""`` where the ABI gives none."""
    type: AbiType
    """Its type."""
    indexed: bool
    """Whether it stands in a topic."""

    @property
    def kind_text(self) -> str:
        """The column kind of its values; an indexed value that is no word is its keccak-256."""
        return "bytes32" if self.indexed and not self.type.is_word else self.type.kind_text


@dataclass(frozen=True)
class EventAbi:
    """An event as its ABI declares it."""

    name: str
    """The event's name."""
    parameters: tuple[Parameter, ...]
    """Its parameters in order."""
    anonymous: bool = field(default=False)
    """Anonymous events carry no signature in topic0."""

    @cached_property
    def signature(self) -> str:
        """The canonical signature, for example ``Transfer(address,address,uint256)``."""
        return f"{self.name}({','.join(p.type.text for p in self.parameters)})"

    @cached_property
    def topic0(self) -> bytes:
        """keccak-256 of the signature."""
        return bytes(sha3.keccak_256(self.signature.encode()).digest())

    @cached_property
    def text(self) -> str:
        """The full declaration, with names and ``indexed``."""
        parts = [
            " ".join(filter(None, (p.type.text, "indexed" if p.indexed else "", p.name)))
            for p in self.parameters
        ]
        return f"{self.name}({', '.join(parts)}){' anonymous' if self.anonymous else ''}"

    @property
    def topic_count(self) -> int:
        """How many topics its logs have."""
        return sum(p.indexed for p in self.parameters) + (not self.anonymous)


def parse_type(text: str) -> AbiType:
    """Parse a type such as ``uint256``, ``address[2][]`` or ``(bytes32,string)[]``.

    Raises
    ------
    ValueError
        If it is no type of the ABI, or beyond the limits of this module.
    """
    reader = _Reader(text)
    parsed = reader.type()
    reader.expect_end()
    return parsed


def parse_event(text: str) -> EventAbi:
    """Parse ``[event] Name(type [indexed] [name], …) [anonymous][;]``.

    Raises
    ------
    ValueError
        If it is no event's declaration; the text says what was expected, and at which column.
    """
    reader = _Reader(text)
    if reader.peek() == "event":
        reader.next()
    name = reader.name("the event's name")
    reader.expect("(")
    parameters: list[Parameter] = []
    while reader.peek() != ")":
        if parameters:
            reader.expect(",")
        kind = reader.type()
        reader.accept("payable")
        indexed = reader.accept("indexed")
        label = reader.name("a parameter's name") if reader.peek() not in (",", ")") else ""
        parameters.append(Parameter(label, kind, indexed))
    reader.expect(")")
    anonymous = reader.accept("anonymous")
    reader.accept(";")
    reader.expect_end()
    return _checked(EventAbi(name, tuple(parameters), anonymous))


def event_from_json(entry: Mapping[str, Any]) -> EventAbi:
    """The event of one JSON ABI entry whose ``type`` is ``event``.

    Raises
    ------
    ValueError
        If the entry lacks what an event needs or names an unknown type.
    """
    name, inputs = entry.get("name"), entry.get("inputs", [])
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"an event's name is {name!r}")
    if not isinstance(inputs, list) or not all(isinstance(item, dict) for item in inputs):
        raise ValueError(f"the inputs of {name} are not a list of objects")
    parameters = []
    for position, item in enumerate(inputs):
        label, indexed = item.get("name", ""), item.get("indexed", False)
        if not isinstance(label, str) or (label and not _NAME.fullmatch(label)):
            raise ValueError(f"the name of input {position} of {name} is {label!r}")
        if not isinstance(indexed, bool):
            raise ValueError(f"indexed of input {position} of {name} is {indexed!r}")
        try:
            parameters.append(Parameter(label, parse_type(_json_type(item)), indexed))
        except ValueError as error:
            raise ValueError(f"input {position} ({label!r}) of {name}: {error}") from None
    return _checked(EventAbi(name, tuple(parameters), entry.get("anonymous", False) is True))


def _json_type(item: Mapping[str, Any], depth: int = 0) -> str:
    """The type text of a JSON input, tuples written out."""
    text = item.get("type")
    if not isinstance(text, str):
        raise ValueError(f"its type is {text!r}")
    if not text.startswith("tuple"):
        return text
    components = item.get("components")
    if not isinstance(components, list) or not components or depth > DEPTH_MAX:
        raise ValueError(f"{text} has no components, or they nest too deep")
    if not all(isinstance(component, dict) for component in components):
        raise ValueError(f"the components of {text} are not objects")
    inner = ",".join(_json_type(component, depth + 1) for component in components)
    return f"({inner}){text[5:]}"


def _checked(event: EventAbi) -> EventAbi:
    """The event, if logs can hold it."""
    if event.topic_count > 4:
        raise ValueError(f"{event.name} has {event.topic_count} topics where a log has at most 4")
    if len(event.parameters) > PARAMETERS_MAX:
        raise ValueError(f"{event.name} has more than {PARAMETERS_MAX} parameters")
    return event


class _Reader:
    """A cursor over the tokens of a declaration."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [
            (match[1], match.start(1) + 1)
            for match in _TOKEN.finditer(text)
            if not match[1].isspace()
        ]
        self._at = 0

    def peek(self) -> str:
        """The next token, ``""`` at the end."""
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def next(self) -> str:
        """Take the next token."""
        token = self.peek()
        self._at += 1
        return token

    def accept(self, token: str) -> bool:
        """Take the next token if it is `token`."""
        taken = self.peek() == token
        self._at += taken
        return taken

    def expect(self, token: str) -> None:
        """Take `token`."""
        if not self.accept(token):
            raise self.error(f"expected {token!r}")

    def expect_end(self) -> None:
        """Check that nothing is left."""
        if self.peek():
            raise self.error("expected the end")

    def name(self, what: str) -> str:
        """Take an identifier."""
        if not _NAME.fullmatch(self.peek()):
            raise self.error(f"expected {what}")
        return self.next()

    def error(self, expectation: str) -> ValueError:
        """What was expected, and where."""
        column = self._tokens[self._at][1] if self._at < len(self._tokens) else len(self._text) + 1
        found = repr(self.peek()) if self.peek() else "the end"
        return ValueError(f"{expectation} at column {column} of {self._text!r}, found {found}")

    def type(self, depth: int = 0) -> AbiType:
        """Take a type."""
        if depth > DEPTH_MAX:
            raise ValueError(f"types nest deeper than {DEPTH_MAX} in {self._text!r}")
        if self.peek() == "tuple":
            self.next()
            if self.peek() != "(":
                raise self.error("expected '(' after tuple")
        if self.accept("("):
            parsed = self._tuple(depth)
        else:
            at, word = self._at, self.name("a type")
            try:
                parsed = _word_type(_ALIASES.get(word, word))
            except ValueError as error:
                self._at = at
                raise self.error(str(error)) from None
        while self.accept("["):
            depth += 1
            size = None if self.peek() == "]" else self.next()
            if depth > DEPTH_MAX:
                raise ValueError(f"types nest deeper than {DEPTH_MAX} in {self._text!r}")
            if size is not None and (not size.isdecimal() or size.startswith("0")):
                raise self.error("an array's length is not a positive number; expected ']' or one")
            self.expect("]")
            parsed = array_type(parsed, None if size is None else int(size))
        return parsed

    def _tuple(self, depth: int) -> AbiType:
        members: list[AbiType] = []
        while True:
            members.append(self.type(depth + 1))
            if self.peek() not in (",", ")"):
                self.name("a member's name, ',' or ')'")
            if self.accept(")"):
                break
            self.expect(",")
        if len(members) > PARAMETERS_MAX:
            raise ValueError(f"a tuple of {self._text!r} has more than {PARAMETERS_MAX} members")
        return tuple_type(tuple(members))


def _word_type(text: str) -> AbiType:
    if text in ("address", "bool"):
        return AbiType(text, text)
    if text in ("bytes", "string"):
        return AbiType(text, text, dynamic=True)
    if text == "function":
        return AbiType("bytesN", text, 24)
    if number := _NUMBER.fullmatch(text):
        bits, fraction = int(number[2]), number[3]
        base = "uint" if number[1].startswith("u") else "int"
        is_fixed = "fixed" in number[1]
        sized = bits <= 256 and bits % 8 == 0
        if sized and is_fixed == (fraction is not None) and int(fraction or 1) <= 80:
            return AbiType(base, text, bits)
    if (fixed := _FIXED_BYTES.fullmatch(text)) and int(fixed[1]) <= 32:
        return AbiType("bytesN", text, int(fixed[1]))
    raise ValueError(f"{text!r} is no type of the ABI (an enum is uint8, a contract is address)")


def array_type(element: AbiType, length: int | None) -> AbiType:
    """The type of arrays of `element`, of any length where `length` is None."""
    dynamic = element.dynamic or length is None
    spread = (length or 0) * element.head_bytes
    if spread > HEAD_BYTES_MAX:
        raise ValueError(f"{element.text}[{length}] takes more than {HEAD_BYTES_MAX} bytes")
    text = f"{element.text}[{'' if length is None else length}]"
    return AbiType("array", text, 0, (element,), length, dynamic, 32 if dynamic else spread)


def tuple_type(members: tuple[AbiType, ...]) -> AbiType:
    """The type of tuples of `members`."""
    dynamic = any(member.dynamic for member in members)
    head_bytes = 32 if dynamic else sum(member.head_bytes for member in members)
    if head_bytes > HEAD_BYTES_MAX:
        raise ValueError(f"a tuple takes more than {HEAD_BYTES_MAX} bytes")
    text = "(" + ",".join(member.text for member in members) + ")"
    return AbiType("tuple", text, 0, members, None, dynamic, head_bytes)
