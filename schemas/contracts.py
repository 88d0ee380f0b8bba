"""A user's [[contracts]] entries in, their declared event tables out; errors name file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from schemas.abi import EventAbi, event_from_json, parse_event
from schemas.errors_processors import MalformedAbi, MalformedContract
from schemas.events import EventTable, declare_table, snake_case

ABI_BYTES_MAX = 16 * 1024 * 1024
"""Largest ABI file that is read; the largest published ones are below 1 MiB."""

EVENTS_MAX = 256
"""Most events that one contract declares: each becomes two tables in ClickHouse."""

TABLE_NAME_MAX = 120
"""Longest table name: ClickHouse makes file names of it, and the sinks add to it."""

JSON_DEPTH_MAX = 256
"""Deepest nesting of an ABI file; beyond some thousands Python's own reader may crash."""

_BRACKET = re.compile(r"[\[\]{}]")
_ABI_KEY = re.compile(r'"abi"\s*:\s*\[')
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Factory:
    """A contract whose event announces further contracts."""

    address: bytes
    """The factory, 20 bytes."""
    event: EventAbi
    """The event that announces one."""
    parameter: str
    """Its parameter that holds the new contract's address."""


@dataclass(frozen=True, slots=True)
class Contract:
    """A contract, or a kind of contract, whose events get tables of their own."""

    name: str
    """Prefix of its tables."""
    events: tuple[EventTable, ...]
    """One table a canonical event signature."""
    addresses: frozenset[bytes] | None
    """The contracts, 20 bytes each; None takes every contract that emits these events."""
    factory: Factory | None
    """The factory that announces them: their tables hold every address, and are joined on read."""
    creations: EventTable
    """The table of the factory's event; without meaning where there is no factory."""
    skipped: tuple[str, ...]
    """Events of the ABI that get no table, with the reason: anonymous ones have no topic0."""


@dataclass(frozen=True, slots=True)
class FactoryEntry:
    """The ``factory`` of a [[contracts]] entry as written."""

    address: str
    """The factory, ``0x…``."""
    event: str
    """Declaration of its event."""
    parameter: str
    """The parameter that holds the new contract's address."""
    where: str
    """File and line."""


@dataclass(frozen=True, slots=True)
class ContractEntry:
    """A [[contracts]] entry as written; give `abi` or `signatures`."""

    name: str
    """Prefix of its tables."""
    where: str
    """File and line of the entry."""
    abi: tuple[str, str] | None = None
    """Path and text of a JSON ABI, or of a compiler's output that holds one under ``abi``."""
    signatures: tuple[tuple[str, str], ...] = ()
    """Declarations of events, each with its file and line."""
    addresses: tuple[str, ...] | None = None
    """``0x…`` addresses; None takes all."""
    factory: FactoryEntry | None = None
    """The factory that announces them."""


def declare_contract(entry: ContractEntry) -> Contract:
    """The tables and layouts of a [[contracts]] entry.

    Raises
    ------
    MalformedAbi
        If the ABI or a signature cannot be read; says the file and the line.
    MalformedContract
        If the entry names no event, or an address or a factory that cannot be used.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", entry.name):
        raise MalformedContract(
            where=entry.where, reason=f"{entry.name!r} is no name: small letters, digits and _"
        )
    found = [] if entry.abi is None else _abi_events(entry.name, entry.abi)
    found += [(_parsed(text, where, entry.name), where) for text, where in entry.signatures]
    skipped = tuple(f"{event.text} is anonymous" for event, _ in found if event.anonymous)
    named = [(event, where) for event, where in found if not event.anonymous]
    if not named:
        why = f"; {'; '.join(skipped)}" if skipped else ""
        raise MalformedContract(where=entry.where, reason=f"{entry.name} declares no event{why}")
    if len(named) > EVENTS_MAX:
        reason = f"{entry.name} declares {len(named)} events, at most {EVENTS_MAX} are allowed"
        raise MalformedContract(where=entry.where, reason=reason)
    addresses = None
    if entry.addresses is not None:
        addresses = frozenset(_address(text, entry.where) for text in entry.addresses)
        if not addresses:
            raise MalformedContract(where=entry.where, reason=f"{entry.name} has no address")
    tables = _tables(entry.name, named)
    factory = None if entry.factory is None else _factory(entry, entry.factory)
    creations = tables[0]
    if factory is not None and entry.factory is not None:
        used = {table.table.name for table in tables}
        name = f"{entry.name}_{snake_case(factory.event.name)}"
        name = f"{name}_{factory.event.topic0[:4].hex()}" if name in used else name
        doc = f"{factory.event.text}: the factory of {entry.name} announces a contract."
        creations = _declared(name, doc, [(factory.event, entry.factory.where)], entry.name)
    return Contract(entry.name, tables, addresses, factory, creations, skipped)


def _tables(contract: str, found: Sequence[tuple[EventAbi, str]]) -> tuple[EventTable, ...]:
    """One table a canonical signature; overloaded events carry four bytes of topic0 in the name."""
    by_signature: dict[str, list[tuple[EventAbi, str]]] = {}
    for event, where in found:
        declared = by_signature.setdefault(event.signature, [])
        if all(event.text != other.text for other, _ in declared):
            declared.append((event, where))
    names = [f"{contract}_{snake_case(declared[0][0].name)}" for declared in by_signature.values()]
    tables = []
    for name, (signature, declared) in zip(names, by_signature.items(), strict=True):
        if names.count(name) > 1:
            name = f"{name}_{declared[0][0].topic0[:4].hex()}"
        doc = f"{signature} of the contract {contract}, as its ABI declares it."
        tables.append(_declared(name, doc, declared, contract))
    return tuple(tables)


def _declared(
    name: str, doc: str, layouts: Sequence[tuple[EventAbi, str]], contract: str
) -> EventTable:
    if len(name) > TABLE_NAME_MAX:
        reason = f"the table name {name} is longer than {TABLE_NAME_MAX} characters"
        raise MalformedContract(where=layouts[-1][1], reason=reason)
    try:
        return declare_table(name, doc, [event for event, _ in layouts])
    except ValueError as error:
        raise MalformedAbi(where=layouts[-1][1], contract=contract, reason=str(error)) from None


def _factory(entry: ContractEntry, factory: FactoryEntry) -> Factory:
    event = _parsed(factory.event, factory.where, entry.name)
    if entry.addresses is not None:
        reason = f"{entry.name} has addresses and a factory; give one of the two"
        raise MalformedContract(where=factory.where, reason=reason)
    if event.anonymous:
        raise MalformedContract(where=factory.where, reason=f"{event.text} is anonymous")
    fitting = [p.name for p in event.parameters if p.type.base == "address"]
    if fitting.count(factory.parameter) != 1:
        known = ", ".join(filter(None, fitting)) or "none"
        reason = f"{factory.parameter!r} is no address parameter of {event.text}; it has {known}"
        raise MalformedContract(where=factory.where, reason=reason)
    return Factory(_address(factory.address, factory.where), event, factory.parameter)


def _address(text: str, where: str) -> bytes:
    if not _ADDRESS.fullmatch(text):
        raise MalformedContract(where=where, reason=f"{text!r} is no address: 0x and 40 hex digits")
    return bytes.fromhex(text[2:])


def _parsed(text: str, where: str, contract: str) -> EventAbi:
    try:
        return parse_event(text)
    except ValueError as error:
        raise MalformedAbi(where=where, contract=contract, reason=str(error)) from None


def _abi_events(contract: str, abi: tuple[str, str]) -> list[tuple[EventAbi, str]]:
    """The events of a JSON ABI, each with its file and line."""
    path, text = abi

    def fail(reason: str, line: int) -> MalformedAbi:
        return MalformedAbi(where=f"{path} line {line}", contract=contract, reason=reason)

    if len(text) > ABI_BYTES_MAX:
        raise fail(f"an ABI of {len(text)} characters is beyond {ABI_BYTES_MAX}", 1)
    depth = accumulate(1 if bracket in "[{" else -1 for bracket in _BRACKET.findall(text))
    if max(depth, default=0) > JSON_DEPTH_MAX:
        raise fail(f"its JSON nests deeper than {JSON_DEPTH_MAX}", 1)
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"it is not JSON at column {error.colno}: {error.msg}"
        raise fail(reason, error.lineno) from None
    entries = whole.get("abi") if isinstance(whole, Mapping) else whole
    if not isinstance(entries, list):
        raise fail("it is neither a JSON array nor an object that holds one under `abi`", 1)
    events = []
    for declared, line in zip(entries, _lines(text, whole, len(entries)), strict=True):
        if not isinstance(declared, Mapping):
            raise fail("an entry of the ABI is no object", line)
        if declared.get("type") == "event":
            try:
                events.append((event_from_json(declared), f"{path} line {line}"))
            except ValueError as error:
                raise fail(str(error), line) from None
    return events


def _lines(text: str, whole: Any, count: int) -> list[int]:
    """The line on which each of the ABI's entries begins."""
    if isinstance(whole, Mapping):
        match = _ABI_KEY.search(text)
        at = match.end() if match else 0
    else:
        at = text.index("[") + 1
    lines, line, seen = [], 1, 0
    for _ in range(count):
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        line, seen = line + text.count("\n", seen, at), at
        lines.append(line)
        try:
            _, at = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError:  # "abi" stands in an unusual place: keep the last line
            at = len(text)
    return lines
