"""Packs (and a user's events) in, the declared event tables and their layouts out.

A pack is a TOML file of built-in tables: signatures, columns with their docs. Everything else
about them, kinds and topics included, follows from the signatures.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from schemas.abi import AbiType, EventAbi, Parameter, parse_event
from schemas.tables import EVENT_IDENTITY, RECEIPTS, ColumnSpec, Table, event_table

DECODE_FAILURES = event_table(
    "decode_failures",
    "A log whose topic0 is a declared event's but which could not be decoded, and why.",
    (
        ColumnSpec("topic0", "?bytes32", "The log's first topic.", RECEIPTS),
        ColumnSpec("topic_count", "u8", "How many topics it has.", RECEIPTS),
        ColumnSpec("data_bytes", "u32", "Size of its data.", RECEIPTS),
        ColumnSpec("layout", "string", "Table and declaration that came nearest."),
        ColumnSpec("reason", "string", "Why it was refused: a word, a colon, and the details."),
    ),
)
"""One row for each log that should have been decoded and was not; the log itself is in logs."""

RESERVED = frozenset(spec.name for spec in EVENT_IDENTITY) | {"load_id"}
"""Column names that an event's parameters cannot have."""


# fmt: off
SQL_WORDS = frozenset({
    "all", "constraint", "cube", "distinct", "false", "from", "index", "inf", "nan", "not", "null",
    "projection", "rollup", "to", "top", "true",
})
# fmt: on
"""Names that ClickHouse cannot take as a column everywhere unless quoted, or reads as a literal."""


@dataclass(frozen=True, slots=True)
class EventTable:
    """A table and the layouts of logs that fill it."""

    table: Table
    """The table: identity columns, then one column a parameter, in the parameters' order."""
    layouts: tuple[EventAbi, ...]
    """Declarations whose logs become its rows; they differ in what is indexed, or in the event."""
    batch: tuple[str, ...] = ()
    """Array parameters that become one row an element, where a layout has them."""

    def row_kind(self, parameter: Parameter) -> str:
        """The kind of a parameter's column."""
        if parameter.name in self.batch:
            return parameter.type.children[0].kind_text
        return parameter.kind_text


def snake_case(name: str) -> str:
    """``sqrtPriceX96`` → ``sqrt_price_x96``, ``tokenIDs`` → ``token_ids``, ``_to`` → ``to``."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name.replace("$", "_"))
    spaced = re.sub(r"([A-Z]+)([A-Z](?!s(?:[A-Z_]|$))[a-z])", r"\1_\2", spaced)
    return re.sub(r"_+", "_", spaced.lower()).strip("_")


def column_names(parameters: Sequence[Parameter]) -> list[str]:
    """A column name for each parameter: snake case, unique, no SQL keyword, none of the identity.

    ``from`` becomes ``from_address``, or ``from_value`` where it is no address, and so do the other
    words of SQL_WORDS; a name of the identity gets ``_param``; a name that is taken its position.
    """
    names: list[str] = []
    for position, parameter in enumerate(parameters):
        name = snake_case(parameter.name) or f"param{position}"
        if name in SQL_WORDS:
            name += "_address" if parameter.type.base == "address" else "_value"
        elif name in RESERVED:
            name += "_param"
        elif name[0].isdigit():
            name = f"_{name}"
        while name in names:
            name = f"{name}_{position}"
        names.append(name)
    return names


def _describe(parameter: Parameter, abi_type: AbiType) -> str:
    label = f"Parameter {parameter.name or '(unnamed)'}, {abi_type.text}"
    if parameter.indexed and not abi_type.is_word:
        return f"{label}: keccak-256 of the value, which is all that an indexed one leaves."
    return f"{label}."


def declare_table(name: str, doc: str, layouts: Sequence[EventAbi]) -> EventTable:
    """A table for an event of a user's ABI, its columns named after the parameters.

    Raises
    ------
    ValueError
        If the layouts do not give the same kinds of columns.
    """
    parameters = layouts[0].parameters
    columns = tuple(
        ColumnSpec(column, parameter.kind_text, _describe(parameter, parameter.type), RECEIPTS)
        for column, parameter in zip(column_names(parameters), parameters, strict=True)
    )
    return _agreed(EventTable(event_table(name, doc, columns), tuple(layouts)))


def _agreed(declared: EventTable) -> EventTable:
    """The declaration, if each of its layouts fills the same columns."""
    columns = declared.table.columns[len(EVENT_IDENTITY) :]
    expected = [column.kind_text for column in columns]
    for layout in declared.layouts:
        if [declared.row_kind(parameter) for parameter in layout.parameters] != expected:
            raise ValueError(f"{layout.text} does not fill the columns of {declared.table.name}")
    return declared


@cache
def builtin_events() -> tuple[EventTable, ...]:
    """Every table of the packs, by pack and in the order of their files."""
    folder = resources.files("schemas").joinpath("packs")
    packs = sorted((p for p in folder.iterdir() if p.name.endswith(".toml")), key=lambda p: p.name)
    declared: list[EventTable] = []
    for pack in packs:
        for name, facts in tomllib.loads(pack.read_text("utf-8")).items():
            layouts = tuple(parse_event(text) for text in facts["signatures"])
            batch = tuple(facts.get("batch", ()))
            first = EventTable(event_table(name, "", ()), layouts, batch)
            kinds = [first.row_kind(parameter) for parameter in layouts[0].parameters]
            columns = tuple(
                ColumnSpec(column, kind, doc, RECEIPTS)
                for (column, doc), kind in zip(facts["columns"].items(), kinds, strict=True)
            )
            table = event_table(name, " ".join(facts["doc"].split()), columns)
            declared.append(_agreed(EventTable(table, layouts, batch)))
    return tuple(declared)
