"""Declared tables in, ClickHouse DDL out: `T_open` and `T_sealed` of each, their layout hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.kinds import Kind
from schemas.tables import Table

OPEN, SEALED = "_open", "_sealed"
LOAD_ID = "load_id"
LOAD_ID_TYPE = "LowCardinality(UInt64)"
"""A byte a row, and `load_id IN …` is decided once a load, not once a row."""

CREATE_SETTINGS: dict[str, object] = {"allow_suspicious_low_cardinality_types": 1}
"""Settings that `create_table` needs: ClickHouse is wary of LowCardinality numbers."""


@dataclass(frozen=True, slots=True)
class EngineFamily:
    """Which MergeTree the tables are made of."""

    kind: Literal["local", "replicated"] = "local"
    """``replicated`` needs Keeper, and the macros {shard} and {replica} on every server."""
    cluster: str = ""
    """The cluster's name in the servers' configuration; '' without one."""
    durable: bool = True
    """Whether an insert waits for the disk. Rows must reach it before their ledger row does, or a
    power cut could leave a ledger that lies. It costs some milliseconds an insert."""

    @property
    def merge_tree(self) -> str:
        """The engine's name; the replica's path is the server's default_replica_path."""
        return "MergeTree" if self.kind == "local" else "ReplicatedMergeTree"

    @property
    def on_cluster(self) -> str:
        """`` ON CLUSTER name``, or nothing."""
        return f" ON CLUSTER {self.cluster}" if self.cluster else ""

    @property
    def durability(self) -> str:
        """Settings of a table that is inserted into."""
        value = int(self.durable)
        return f"fsync_after_insert = {value}, fsync_part_directory = {value}"

    def substitutions(self, database: str) -> dict[str, str]:
        """What `$name` stands for in migrations."""
        return {
            "database": database,
            "merge_tree": self.merge_tree,
            "on_cluster": self.on_cluster,
            "durable": self.durability,
        }


def column_types(table: Table) -> tuple[tuple[str, str], ...]:
    """(name, ClickHouse type) of the table's columns as stored, `load_id` last."""
    declared = tuple((spec.name, spec.kind.clickhouse_type) for spec in table.columns)
    return (*declared, (LOAD_ID, LOAD_ID_TYPE))


def create_table(
    database: str, table: Table, suffix: str, partition_blocks: int, family: EngineFamily
) -> str:
    """``CREATE TABLE IF NOT EXISTS`` of `T_open`, `T_sealed`, or another table of that structure.

    Parameters
    ----------
    suffix
        ``OPEN`` or ``SEALED``; the sealer's staging tables take another.
    partition_blocks
        Blocks of one partition.
    """
    name = f"{database}.{table.name}{suffix}"
    lines = [
        f"{spec.name} {spec.kind.clickhouse_type}{codec(spec.name, spec.kind)} "
        f"COMMENT {quoted(f'{spec.doc} Proven by: {spec.proven_by}.')}"
        for spec in table.columns
    ]
    lines.append(f"{LOAD_ID} {LOAD_ID_TYPE} CODEC(LZ4) COMMENT 'The load that wrote the row'")
    lines += [
        f"INDEX {column}_{type_} {column} TYPE {type_} GRANULARITY {_granularity(type_)}"
        for column, type_ in skip_indexes(table)
    ]
    settings = _settings(table, suffix, family)
    body = ",\n    ".join(lines)
    return (
        f"CREATE TABLE IF NOT EXISTS {name}{family.on_cluster}\n(\n    {body}\n)\n"
        f"ENGINE = {family.merge_tree}\n"
        f"PARTITION BY intDiv(block_number, {partition_blocks})\n"
        f"ORDER BY ({', '.join(table.order_by)})\n"
        f"{settings}COMMENT {quoted(table.doc)}"
    )


def create_distributed(database: str, table: Table, suffix: str, family: EngineFamily) -> str:
    """The table that reads and writes all shards of a cluster, sharded by partition.

    Raises
    ------
    ValueError
        If the family names no cluster.
    """
    if not family.cluster:
        raise ValueError("a Distributed table needs a cluster")
    local = f"{table.name}{suffix}"
    return (
        f"CREATE TABLE IF NOT EXISTS {database}.{local}_all{family.on_cluster} "
        f"AS {database}.{local}\n"
        f"ENGINE = Distributed({family.cluster}, {database}, {local}, sipHash64(_partition_id))"
    )


def layout_hash(table: Table, partition_blocks: int) -> str:
    """16 hex digits that change when what is stored, or how it is sorted, does."""
    text = repr((column_types(table), table.order_by, partition_blocks))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def codec(name: str, kind: Kind) -> str:
    """The compression codec of a column."""
    if name in ("block_number", "block_time") or (
        kind.shape == "number" and kind.text in ("u64", "time")
    ):
        return " CODEC(Delta, ZSTD(1))"
    return " CODEC(ZSTD(1))"


def skip_indexes(table: Table) -> tuple[tuple[str, str], ...]:
    """The declared skip indexes, and block ranges where rows are not sorted by them."""
    if table.order_by[0] == "block_number":
        return table.skip_indexes
    return (*table.skip_indexes, ("block_number", "minmax"))


def quoted(text: str) -> str:
    """A SQL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def literal(values: Sequence[str]) -> str:
    """A SQL array of strings."""
    return "[" + ", ".join(quoted(value) for value in values) + "]"


def _granularity(type_: str) -> int:
    return 1 if type_.startswith("bloom_filter") else 2


def _settings(table: Table, suffix: str, family: EngineFamily) -> str:
    given = []
    if any(table.column(name).kind.shape == "nullable" for name in table.order_by):
        given.append("allow_nullable_key = 1")
    if suffix == OPEN:
        given.append(family.durability)
    return f"SETTINGS {', '.join(given)}\n" if given else ""
