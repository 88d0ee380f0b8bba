"""Table declarations in, Avro schemas out; and the registry of every released schema.

`python -m schemas.avro_schemas` rewrites the current version's files from the declarations. A
released version is never changed: raise ``LAYOUT`` instead, and the old files stay readable.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import fastavro
import fastavro.schema

from schemas.kinds import Kind
from schemas.tables import BLOCKS, HEADER_REFS, LOGS, TRANSACTION_TABLE, WITHDRAWALS, Table

LAYOUT = 1
"""Version of the column layout and of the schemas; one folder under schemas/avro a version."""

NAMESPACE = "headrace"

_REF = {
    "type": "record",
    "name": "BlockRef",
    "fields": [
        {"name": "number", "type": "long"},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 32}},
    ],
}


def buffer_names(kind: Kind, name: str) -> list[str]:
    """The Avro field names of a column's buffers, in the order of `columns.to_buffers`."""
    if kind.shape in ("number", "fixed"):
        return [name]
    if kind.shape == "ragged":
        return [f"{name}_offsets", name]
    if kind.shape == "nullable":
        return [f"{name}_valid", *buffer_names(kind.children[0], name)]
    if kind.shape == "list":
        return [f"{name}_offsets", *buffer_names(kind.children[0], f"{name}_item")]
    fields = enumerate(kind.children)
    return [found for i, child in fields for found in buffer_names(child, f"{name}_{i}")]


def _columns_record(table: Table, record: str) -> dict[str, Any]:
    fields: list[dict[str, Any]] = [{"name": "rows", "type": "long"}]
    for spec in table.columns:
        for position, name in enumerate(buffer_names(spec.kind, spec.name)):
            doc = f"{spec.kind_text}: {spec.doc}" if position == 0 else f"of {spec.name}"
            fields.append({"name": name, "type": "bytes", "doc": doc})
    return {"type": "record", "name": record, "doc": table.doc, "fields": fields}


def _name_record(hash_type: object) -> dict[str, Any]:
    lane = {"type": "enum", "name": "Lane", "symbols": ["history", "head"]}
    return {
        "type": "record",
        "name": "SegmentName",
        "fields": [
            {"name": "chain_id", "type": "long"},
            {"name": "stream", "type": "string"},
            {"name": "lane", "type": lane},
            {"name": "from_block", "type": "long"},
            {"name": "to_block", "type": "long"},
            {"name": "last_hash", "type": hash_type},
            {"name": "content_version", "type": "string"},
        ],
    }


def _message(name: str, doc: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": NAMESPACE, "doc": doc, "fields": fields}


def _segment(name: str, doc: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    hash_type = {"type": "fixed", "name": "Hash", "size": 32}
    head: list[dict[str, Any]] = [
        {"name": "name", "type": _name_record(hash_type)},
        {"name": "observed_at_ms", "type": "long"},
    ]
    return _message(name, doc, head + fields)


def _segment_schemas() -> list[dict[str, Any]]:
    strings = {"type": "array", "items": "string"}
    level = {"type": "enum", "name": "Level", "symbols": ["off", "header", "receipts", "full"]}
    column = {
        "type": "record",
        "name": "EventColumn",
        "fields": [
            {"name": "name", "type": "string"},
            {"name": "kind", "type": "string"},
            {"name": "buffers", "type": {"type": "array", "items": "bytes"}},
        ],
    }
    event_columns = {
        "type": "record",
        "name": "EventColumns",
        "fields": [
            {"name": "table", "type": "string"},
            {"name": "rows", "type": "long"},
            {"name": "columns", "type": {"type": "array", "items": column}},
        ],
    }
    return [
        _segment(
            "BlockSegment",
            "Headers, transactions with receipts, withdrawals, as columns.",
            [
                {"name": "blocks", "type": _columns_record(BLOCKS, "BlocksColumns")},
                {"name": "transactions", "type": _columns_record(TRANSACTION_TABLE, "TxColumns")},
                {"name": "withdrawals", "type": _columns_record(WITHDRAWALS, "WithdrawalsColumns")},
            ],
        ),
        _segment(
            "LogSegment",
            "Logs as columns, and what was proven of them.",
            [
                {"name": "level", "type": level},
                {"name": "proven", "type": strings},
                {"name": "unproven", "type": strings},
                {"name": "headers", "type": _columns_record(HEADER_REFS, "HeaderColumns")},
                {"name": "logs", "type": _columns_record(LOGS, "LogsColumns")},
            ],
        ),
        _segment(
            "EventSegment",
            "Decoded events, one column block a table.",
            [{"name": "tables", "type": {"type": "array", "items": event_columns}}],
        ),
        _segment(
            "AggregateSegment",
            "What events add up to in each block, one column block a table.",
            [{"name": "tables", "type": {"type": "array", "items": event_columns}}],
        ),
    ]


def _update_schemas() -> list[dict[str, Any]]:
    hash_type = {"type": "fixed", "name": "Hash", "size": 32}
    refs = {"type": "array", "items": "BlockRef"}
    at = {"name": "observed_at_ms", "type": "long"}
    chain = {"name": "chain_id", "type": "long"}
    kind = {"type": "enum", "name": "FinalityKind", "symbols": ["safe", "finalized"]}
    return [
        _message(
            "HeadObserved",
            "A header that a node showed.",
            [
                chain,
                {"name": "number", "type": "long"},
                {"name": "hash", "type": hash_type},
                {"name": "parent_hash", "type": "Hash"},
                {"name": "time", "type": "long"},
                at,
                {"name": "provider", "type": "string"},
                {"name": "is_head", "type": "boolean"},
            ],
        ),
        _message(
            "FinalityAdvanced",
            "A block that a node calls safe or finalized.",
            [
                chain,
                {"name": "kind", "type": kind},
                {"name": "number", "type": "long"},
                {"name": "hash", "type": hash_type},
                at,
            ],
        ),
        _message(
            "ForkUpdate",
            "The canonical chain after one step.",
            [
                chain,
                {"name": "head", "type": _REF},
                {"name": "safe", "type": ["null", "BlockRef"]},
                {"name": "finalized", "type": ["null", "BlockRef"]},
                {"name": "removed", "type": refs},
                {"name": "added", "type": refs},
                at,
            ],
        ),
    ]


def _ingest_schemas() -> list[dict[str, Any]]:
    hash_type = {"type": "fixed", "name": "Hash", "size": 32}
    span = {
        "type": "record",
        "name": "BlockSpan",
        "fields": [
            {"name": "from_block", "type": "long"},
            {"name": "to_block", "type": "long"},
        ],
    }
    claim_kind = {"type": "enum", "name": "ClaimKind", "symbols": ["claim", "beat", "release"]}
    return [
        _message(
            "SegmentWanted",
            "A range to ingest once more, by name.",
            [
                {"name": "chain_id", "type": "long"},
                {"name": "from_block", "type": "long"},
                {"name": "to_block", "type": "long"},
                {"name": "last_hash", "type": ["null", hash_type]},
                {"name": "streams", "type": {"type": "array", "items": "string"}},
                {"name": "request_id", "type": "string"},
                {"name": "reason", "type": "string"},
                {"name": "requested_at_ms", "type": "long"},
            ],
        ),
        _message(
            "PublisherClaim",
            "A publisher's word on the chain whose canon it writes.",
            [
                {"name": "chain_id", "type": "long"},
                {"name": "kind", "type": claim_kind},
                {"name": "generation", "type": "long"},
                {"name": "publisher", "type": "string"},
                {"name": "host", "type": "string"},
                {"name": "pid", "type": "long"},
                {"name": "observed_at_ms", "type": "long"},
            ],
        ),
        _message(
            "IngestCheckpoint",
            "What the broker has acknowledged of a chain.",
            [
                {"name": "chain_id", "type": "long"},
                {"name": "content_version", "type": "string"},
                {"name": "covered", "type": {"type": "array", "items": span}},
                {"name": "finalized", "type": ["null", _REF]},
                {"name": "head", "type": ["null", "long"]},
                {"name": "requests_offset", "type": "long"},
                {"name": "instance", "type": "string"},
                {"name": "observed_at_ms", "type": "long"},
            ],
        ),
    ]


def _dead_letter_schema() -> dict[str, Any]:
    return _message(
        "DeadLetter",
        "A message that a stage refused.",
        [
            {"name": "stage", "type": "string"},
            {"name": "reason_code", "type": "string"},
            {"name": "reason", "type": "string"},
            {"name": "topic", "type": "string"},
            {"name": "partition", "type": "int"},
            {"name": "offset", "type": "long"},
            {"name": "key", "type": "bytes"},
            {"name": "value", "type": "bytes"},
            {"name": "observed_at_ms", "type": "long"},
        ],
    )


def declared_schemas() -> dict[str, dict[str, Any]]:
    """Every message's current schema, made from the declarations."""
    messages = [*_segment_schemas(), *_update_schemas(), *_ingest_schemas()]
    messages.append(_dead_letter_schema())
    return {message["name"]: message for message in messages}


@cache
def released_schemas() -> dict[tuple[str, int], Any]:
    """Every released schema by (message, layout), parsed by fastavro."""
    found = {}
    for folder in resources.files("schemas").joinpath("avro").iterdir():
        if folder.is_dir() and folder.name.startswith("v"):
            for file in folder.iterdir():
                schema = fastavro.parse_schema(json.loads(file.read_text("utf-8")))
                found[file.name.removesuffix(".avsc"), int(folder.name[1:])] = schema
    return found


@cache
def fingerprints() -> dict[bytes, tuple[str, int]]:
    """(message, layout) by the 8-byte fingerprint that starts an encoded message."""
    return {fingerprint(key): key for key in released_schemas()}


@cache
def fingerprint(key: tuple[str, int]) -> bytes:
    """CRC-64-AVRO of a released schema's canonical form, little-endian.

    Source: Avro specification, "Single-object encoding".
    """
    canonical = fastavro.schema.to_parsing_canonical_form(released_schemas()[key])
    return bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def write_schemas(folder: Path) -> None:
    """Write the current version's .avsc files."""
    target = folder / f"v{LAYOUT}"
    target.mkdir(parents=True, exist_ok=True)
    for name, schema in declared_schemas().items():
        (target / f"{name}.avsc").write_text(json.dumps(schema, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    write_schemas(Path(__file__).parent / "avro")
    sys.exit(0)
