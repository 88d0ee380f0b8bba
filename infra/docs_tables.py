"""Declarations of tables, errors, metrics and chains in, Markdown out."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence

import schemas
from infra.exit_codes import exit_code_of
from schemas.chains import ChainFacts, load_chains
from schemas.errors import HeadraceError, Transient
from schemas.events import DECODE_FAILURES, builtin_events
from schemas.metrics import METRICS
from schemas.standing import NEEDS, standing
from schemas.tables import (
    BLOCKS,
    CORE_TABLES,
    LOGS,
    TRANSACTION_TABLE,
    WITHDRAWALS,
    ColumnSpec,
    Table,
    Verification,
)
from schemas.topics import TOPICS

AREAS = {
    "HR-1": "Settings and command line",
    "HR-20": "Endpoints and their answers",
    "HR-22": "Failed proofs of blocks",
    "HR-2": "Ingest",
    "HR-30": "Reorgs",
    "HR-31": "Declarations of what to decode",
    "HR-39": "Messages between the stages",
    "HR-3": "Processors",
    "HR-4": "ClickHouse",
    "HR-5": "Data directory and embedded server",
    "HR-60": "Kafka",
    "HR-61": "The role ingest",
    "HR-62": "The role process",
    "HR-63": "The roles sink and publish",
    "HR-64": "Replay",
    "HR-65": "The cluster on one machine",
    "HR-66": "Aggregates",
}
"""Headings by the longest prefix of the code."""


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells are escaped."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join('---' for _ in head)}|"]
    for row in rows:
        cells = (cell.replace("|", "\\|").replace("\n", " ") for cell in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def declared_errors() -> dict[str, type[HeadraceError]]:
    """Every error that a module of schemas/ declares, by its code."""
    for module in pkgutil.iter_modules(schemas.__path__):
        importlib.import_module(f"schemas.{module.name}")
    return {
        code: error
        for code, error in sorted(HeadraceError.registry.items())
        if error.__module__.startswith("schemas.")
    }


def error_table() -> str:
    """Every error: code, what, why, what to do, exit code."""
    by_area: dict[str, list[tuple[str, type[HeadraceError]]]] = {}
    for code, error in declared_errors().items():
        area = max((prefix for prefix in AREAS if code.startswith(prefix)), key=len)
        by_area.setdefault(AREAS[area], []).append((code, error))
    parts = []
    for title, errors in by_area.items():
        rows = [
            (
                f"`{code}`",
                "retried" if issubclass(error, Transient) else "final",
                error.what,
                error.why,
                error.fix,
                str(exit_code_of(error).value),
            )
            for code, error in errors
        ]
        head = ("Code", "Kind", "What happened", "Why", "What to do", "Exit")
        parts.append(f"### {title}\n\n{markdown_table(head, rows)}")
    return "\n".join(parts)


def metric_table() -> str:
    """Every metric."""
    rows = [(f"`{one.name}`", one.kind, one.doc, one.watch) for one in METRICS]
    return markdown_table(("Metric", "Kind", "Meaning", "Watch for"), rows)


def chain_table() -> str:
    """What is known of each chain."""
    rows = []
    for name, facts in load_chains().items():
        finality = f"{facts.finality_depth_blocks} block(s) deep"
        rows.append(
            (
                f"`{name}`",
                "any" if facts.chain_id is None else str(facts.chain_id),
                "the node's tags" if facts.finality == "tags" else finality,
                str(facts.segment_blocks),
                str(facts.partition_blocks),
                f"`{facts.verification_reached.name}`",
                facts.verification_note,
            )
        )
    head = ("Chain", "Id", "Finality", "Segment", "Partition", "Proven up to", "Note")
    return markdown_table(head, rows)


def proven_text(spec: ColumnSpec) -> str:
    """What proves a column, from which level on, and what it is checked by below that."""
    needed = NEEDS.get(spec.proven_by)
    by = spec.proven_by if needed is None else f"{spec.proven_by} (from `{needed.name}`)"
    return f"{by}; checked by {spec.checked_by}" if spec.checked_by else by


def proof_table() -> str:
    """What each column rests on at each level, on a chain that reaches all of them."""
    facts = load_chains()["local"]
    rows = []
    for table in CORE_TABLES:
        groups: dict[tuple[str, str], list[ColumnSpec]] = {}
        for spec in table.columns:
            groups.setdefault((spec.proven_by, spec.checked_by), []).append(spec)
        for specs in groups.values():
            names = " ".join(f"`{spec.name}`" for spec in specs)
            levels = [str(standing(specs[0], level, facts)) for level in Verification]
            rows.append((f"`{table.name}`", names, proven_text(specs[0]), *levels))
    levels = [f"`{level.name}`" for level in Verification]
    return markdown_table(("Table", "Columns", "Proven by", *levels), rows)


CHAIN_KINDS = {
    "Headers": (BLOCKS, "state_root"),
    "Addresses and topics of logs": (LOGS, "topic0"),
    "Data of logs, receipts": (LOGS, "data"),
    "Gas used": (TRANSACTION_TABLE, "gas_used"),
    "Transactions": (TRANSACTION_TABLE, "value_wei"),
    "Senders, prices paid, contracts": (TRANSACTION_TABLE, "effective_gas_price_wei"),
    "Withdrawals": (WITHDRAWALS, "amount_gwei"),
}
"""A column that stands for each kind."""


def chain_proof_table() -> str:
    """What each chain's data rest on at each level that it reaches above `off`."""
    rows = []
    for name, facts in load_chains().items():
        for level in Verification:
            if Verification.off < level <= facts.verification_reached:
                cells = [
                    str(standing(table.column(column), level, facts))
                    for table, column in CHAIN_KINDS.values()
                ]
                rows.append((f"`{name}`", f"`{level.name}`", *cells, _exceptions(facts)))
    return markdown_table(("Chain", "Level", *CHAIN_KINDS, "Except"), rows)


def _exceptions(facts: ChainFacts) -> str:
    """Which blocks and logs of a chain the table does not speak of."""
    words = []
    if facts.settled_by:
        words.append(
            f"blocks whose header has `{facts.settled_by}`: it speaks of earlier blocks, so "
            "their logs and gas are the node's word"
        )
    system = facts.system_logs
    if system.addresses or system.transaction_prefix:
        words.append("logs of the chain itself, which no header covers: the node's word")
    return "; ".join(words)


def data_dictionary() -> str:
    """Every declared table with its columns."""
    parts = []
    for table in dictionary_tables():
        rows = [
            (f"`{one.name}`", f"`{one.kind.clickhouse_type}`", one.doc, proven_text(one))
            for one in table.columns
        ]
        keys = ", ".join(f"`{name}`" for name in table.order_by)
        parts.append(
            f"### `{table.name}`\n\n{table.doc} Sorted by {keys}.\n\n"
            + markdown_table(("Column", "Type", "What it holds", "Proven by"), rows)
        )
    return "\n".join(parts)


def dictionary_tables() -> tuple[Table, ...]:
    """Core tables, built-in events, and decode_failures."""
    return (*CORE_TABLES, *(one.table for one in builtin_events()), DECODE_FAILURES)


def kafka_topic_table() -> str:
    """Every topic of Kafka."""
    kept = {
        "segments": "`retention_bytes` a partition, `retention_hours`",
        "control": "`retention_hours`, and 30 days at least",
        "newest": "the newest of each key, for ever",
        "letters": "`retention_bytes` a partition",
    }
    rows = [
        (
            f"`{topic.name}`",
            " ".join(f"`{name}`" for name in topic.messages) or "private",
            topic.doc,
            f"`{topic.key}`" if topic.key.startswith("chain_id") else topic.key,
            "`partitions`" if topic.partitioned else "1",
            kept[topic.retention],
        )
        for topic in TOPICS
    ]
    return markdown_table(("Topic", "Message", "Holds", "Key", "Partitions", "Kept"), rows)


def topic_table() -> str:
    """What each built-in event table is decoded from."""
    rows = [
        (f"`{declared.table.name}`", f"`{layout.text}`", f"`0x{layout.topic0.hex()}`")
        for declared in builtin_events()
        for layout in declared.layouts
    ]
    return markdown_table(("Table", "Event", "topic0"), rows)
