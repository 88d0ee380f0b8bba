"""Declared events in, the index by which logs find their layouts out.

A log finds its layout by topic0, by its number of topics, then by the shape of its data: of
several layouts with the same topics, the one whose heads take most data is tried first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from processors.abi_words import Word, clear_words, word_of
from schemas.abi import AbiType, EventAbi, parse_type
from schemas.columns import ColumnBlock
from schemas.contracts import Contract, Factory
from schemas.errors_processors import EventsIndistinct, TableNameTaken
from schemas.events import DECODE_FAILURES, EventTable, builtin_events
from schemas.segments import content_version
from schemas.tables import CORE_TABLES, EVENT_IDENTITY, Table

DECODER_VERSION = 1
"""Rises whenever the same log may decode to other rows."""

_HASH = parse_type("bytes32")

Rows: TypeAlias = npt.NDArray[np.int64]
Owned: TypeAlias = tuple[str, frozenset[bytes] | None, EventTable]
"""Owner's name (``""`` for the packs), the only addresses it claims, and what it declares."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the logs of one declaration become rows of one table."""

    table: int
    """Position of the table among Layouts.tables."""
    label: str
    """Table and declaration, for decode_failures."""
    event: EventAbi
    """The declaration."""
    columns: tuple[str, ...]
    """The parameters' columns."""
    kinds: tuple[str, ...]
    """The kinds of the parameters as decoded, before a batch becomes rows."""
    topics: tuple[tuple[int, Word], ...]
    """(position, word) of the parameters that topic1, topic2 and so on hold."""
    words: tuple[tuple[int, Word], ...]
    """(position, word) of the parameters in the data, where every one of them is a word."""
    clear: npt.NDArray[np.uint64]
    """uint64[4 * words]: the bits of the words in the data that must be 0."""
    tails: tuple[tuple[int, AbiType], ...]
    """(position, type) of the parameters in the data, where any is not."""
    head_bytes: int
    """Least bytes of data."""
    batch: tuple[int, ...]
    """Positions of the array parameters that become one row an element."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """A set of addresses that rows of addresses are looked up in."""

    rising: npt.NDArray[np.bytes_]
    """S20[n]: numpy drops trailing zeros of such strings, which tells those of one width apart."""

    def holds(self, addresses: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """bool[n]: which of `addresses`, uint8[n, 20], are in the set."""
        texts = np.ascontiguousarray(addresses).view("S20").ravel()
        at = np.minimum(self.rising.searchsorted(texts), len(self.rising) - 1)
        held: npt.NDArray[np.bool_] = self.rising[at] == texts
        return held


@dataclass(frozen=True, slots=True)
class Claim:
    """What one owner (a pack's table, a user's contract) makes of the logs of a group."""

    owner: str
    """The owner's name."""
    addresses: Addresses | None
    """The only addresses that it claims; None claims all."""
    layouts: tuple[Layout, ...]
    """Layouts to try in turn; none where the event is declared with other numbers of topics."""
    label: str
    """What decode_failures calls a log that no layout took."""


@dataclass(frozen=True, slots=True)
class Group:
    """The logs of one topic0 and one number of topics."""

    event: str
    """Signature of the event."""
    topic_count: int
    """How many topics the logs have."""
    claims: tuple[Claim, ...]
    """Who makes what of them; at least one."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What a reader joins to keep the events of the contracts that a factory created."""

    contract: str
    """Name of the user's contract."""
    tables: tuple[str, ...]
    """Its event tables, which hold the events of every address."""
    factory: Factory
    """The factory."""
    creations_table: str
    """The table of the factory's creations."""
    creations_column: str
    """Its column that holds the addresses created."""


@dataclass(frozen=True, slots=True)
class Layouts:
    """Everything that decoding depends on, besides the logs."""

    events: tuple[EventTable, ...]
    """Declarations, in the order of the tables."""
    tables: tuple[Table, ...]
    """Every event table, and decode_failures last."""
    content_version: str
    """16 hex digits: changes when the same logs may give other rows."""
    memberships: tuple[Membership, ...]
    """Contracts that a factory created: joined on read, never needed to decode."""
    groups: tuple[Group, ...]
    """Group of each group number but 0, which is no group."""
    prefixes: npt.NDArray[np.uint64]
    """First 8 bytes of each known topic0 as little-endian numbers, rising."""
    topic0: npt.NDArray[np.uint64]
    """uint64[n, 4]: the whole of each known topic0, in the order of the prefixes."""
    group_numbers: npt.NDArray[np.unsignedinteger[Any]]
    """uint16[n, 5] (or uint32): group number by (topic0, number of topics)."""
    empty_blocks: tuple[ColumnBlock, ...]
    """A block of no rows for each table."""

    @property
    def known_topic0(self) -> tuple[bytes, ...]:
        """Every topic0 that is declared: what a source of logs alone has to ask for."""
        return tuple(row.tobytes() for row in self.topic0)


def build_layouts(
    contracts: Sequence[Contract] = (), packs: Sequence[EventTable] | None = None
) -> Layouts:
    """The layouts of the built-in packs and of a user's contracts.

    Parameters
    ----------
    contracts
        The parsed ``[[contracts]]`` entries of the settings.
    packs
        Built-in declarations, if not those of schemas/packs.

    Raises
    ------
    TableNameTaken
        If two declarations would share a table.
    EventsIndistinct
        If two different events share the first 8 bytes of topic0.
    """
    builtin = builtin_events() if packs is None else tuple(packs)
    owned: list[Owned] = [("", None, event) for event in builtin]
    memberships = []
    for contract in contracts:
        owned += [(contract.name, contract.addresses, event) for event in contract.events]
        if contract.factory is not None:
            owned.append((contract.name, frozenset([contract.factory.address]), contract.creations))
            memberships.append(_membership(contract, contract.factory))
    events = tuple(event for _, _, event in owned)
    tables = (*(event.table for event in events), DECODE_FAILURES)
    _check_names(owned)
    found: dict[bytes, list[tuple[str, Addresses | None, Layout]]] = defaultdict(list)
    for position, (owner, addresses, declared) in enumerate(owned):
        address_set = None if addresses is None else _address_set(addresses)
        for event in declared.layouts:
            layout = _layout(position, declared, event)
            found[event.topic0].append((owner, address_set, layout))
    topic0s = sorted(found, key=lambda topic0: int.from_bytes(topic0[:8], "little"))
    groups, numbers = _groups([found[topic0] for topic0 in topic0s])
    whole = np.frombuffer(b"".join(topic0s), "<u8").reshape(len(topic0s), 4)
    for i in np.flatnonzero(whole[1:, 0] == whole[:-1, 0]).tolist():
        first, second = (found[topic0s[at]][0][2].label for at in (i, i + 1))
        raise EventsIndistinct(first=first, second=second)
    return Layouts(
        events,
        tables,
        _version(owned),
        tuple(memberships),
        groups,
        np.ascontiguousarray(whole[:, 0]),
        whole,
        numbers,
        tuple(ColumnBlock(table.name, 0, {}) for table in tables),
    )


def _layout(position: int, declared: EventTable, event: EventAbi) -> Layout:
    columns = declared.table.columns[len(EVENT_IDENTITY) :]
    topics = [(i, p) for i, p in enumerate(event.parameters) if p.indexed]
    body = [(i, p.type) for i, p in enumerate(event.parameters) if not p.indexed]
    flat = all(abi_type.is_word for _, abi_type in body)
    words = tuple((i, word_of(abi_type)) for i, abi_type in body) if flat else ()
    return Layout(
        position,
        f"{declared.table.name}: {event.text}",
        event,
        tuple(column.name for column in columns),
        tuple(parameter.kind_text for parameter in event.parameters),
        tuple((i, word_of(p.type if p.type.is_word else _HASH)) for i, p in topics),
        words,
        clear_words(tuple(word.clear for _, word in words)),
        () if flat else tuple(body),
        sum(abi_type.head_bytes for _, abi_type in body),
        tuple(i for i, p in enumerate(event.parameters) if p.name in declared.batch),
    )


def _groups(
    by_topic0: Sequence[Sequence[tuple[str, Addresses | None, Layout]]],
) -> tuple[tuple[Group, ...], npt.NDArray[np.unsignedinteger[Any]]]:
    """Groups for every number of topics that a log of a known topic0 can have."""
    groups: list[Group] = []
    # 16 bits while they do: numpy sorts those by counting, three times as fast.
    dtype = np.uint16 if 4 * len(by_topic0) < 1 << 16 else np.uint32
    numbers: npt.NDArray[np.unsignedinteger[Any]] = np.zeros((len(by_topic0), 5), dtype)
    for at, declared in enumerate(by_topic0):
        owners: dict[tuple[str, int], list[tuple[Addresses | None, Layout]]] = defaultdict(list)
        for owner, addresses, layout in declared:
            owners[owner, id(addresses)].append((addresses, layout))
        for topic_count in range(1, 5):
            claims = []
            for (owner, _), offers in owners.items():
                fitting = [x for _, x in offers if x.event.topic_count == topic_count]
                fitting.sort(key=lambda x: (-x.head_bytes, x.label))
                label = "; ".join(x.label for x in fitting or [x for _, x in offers])
                claims.append(Claim(owner, offers[0][0], tuple(fitting), label))
            groups.append(Group(declared[0][2].event.signature, topic_count, tuple(claims)))
            numbers[at, topic_count] = len(groups)
    return tuple(groups), numbers


def _address_set(addresses: frozenset[bytes]) -> Addresses:
    return Addresses(np.sort(np.array(list(addresses), "S20")))


def _membership(contract: Contract, factory: Factory) -> Membership:
    creations = contract.creations.table
    position = [p.name for p in factory.event.parameters].index(factory.parameter)
    return Membership(
        contract.name,
        tuple(event.table.name for event in contract.events),
        factory,
        creations.name,
        creations.columns[len(EVENT_IDENTITY) + position].name,
    )


def _check_names(owned: Sequence[Owned]) -> None:
    """Refuse tables that would share a name, in ClickHouse's sense: T, T_open and T_sealed."""
    holders = {
        physical: "Headrace itself"
        for table in (*CORE_TABLES, DECODE_FAILURES)
        for physical in _physical(table.name)
    }
    for owner, _, event in owned:
        names = _physical(event.table.name)
        for physical in names:
            if physical in holders:
                holder = holders[physical]
                raise TableNameTaken(contract=owner, table=event.table.name, holder=holder)
        holders |= dict.fromkeys(names, f"contract {owner}" if owner else "a built-in pack")


def _physical(name: str) -> tuple[str, str, str]:
    return name, f"{name}_open", f"{name}_sealed"


def _version(owned: Sequence[Owned]) -> str:
    """A hash of the decoder's version and of whatever decides which rows a log gives."""
    declarations = [
        (
            event.table.name,
            [(column.name, column.kind_text) for column in event.table.columns],
            sorted(layout.text for layout in event.layouts),
            sorted(event.batch),
            owner,
            None if addresses is None else sorted(a.hex() for a in addresses),
        )
        for owner, addresses, event in owned
    ]
    return content_version(decoder=DECODER_VERSION, events=sorted(declarations, key=str))
