"""Render the ClickHouse server's config.xml and users.xml."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from xml.sax.saxutils import escape

Tree: TypeAlias = Mapping[str, "Tree | Sequence[str] | str | int"]

MIB = 1 << 20


FIXED_SETTINGS = (
    *("format_schema", "format_template_resultset", "format_template_row"),
    *("input_format_record_errors_file_path", "output_format_schema"),
    *("format_avro_schema_registry_url", "rename_files_after_processing"),
    "allow_introspection_functions",
)
"""Settings that name a file or an address, or show the process: no analyst changes them."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How much of the machine the embedded server may take."""

    memory_bytes_max: int = 560 * MIB
    """What the whole server may allocate."""
    query_memory_bytes_max: int = 400 * MIB
    """What one of our own queries may allocate before it spills or fails."""
    analyst_memory_bytes_max: int = 300 * MIB
    """What one query of the analyst may allocate."""
    analyst_seconds_max: int = 60
    """How long a query of the analyst may run."""
    analyst_result_rows_max: int = 1_000_000
    """How many rows a query of the analyst may return."""
    mark_cache_bytes: int = 24 * MIB
    """Cache of primary-key marks."""
    log_bytes_max: int = 10 * MIB
    """Size of the server's log before it is rotated once."""


def render_config(
    host: str, tcp_port: int, http_port: int, run_dir: str, limits: ServerLimits
) -> str:
    """The server's config.xml; port 0 lets the system choose."""
    tree: Tree = {
        "listen_host": host,
        "tcp_port": tcp_port,
        "http_port": http_port,
        "users_config": f"{run_dir}/users.xml",
        # clickhouse-local looks for the level here; it would write every trace line otherwise.
        "log-level": "warning",
        "logger": {
            "level": "warning",
            "log": f"{run_dir}/clickhouse.log",
            "size": limits.log_bytes_max,
            "count": 1,
        },
        "max_server_memory_usage": limits.memory_bytes_max,
        "max_concurrent_queries": 100,
        "max_connections": 256,
        "mark_cache_size": limits.mark_cache_bytes,
        "index_mark_cache_size": 4 * MIB,
        "uncompressed_cache_size": 0,
        "index_uncompressed_cache_size": 0,
        "mmap_cache_size": 64,
        "compiled_expression_cache_size": 4 * MIB,
        "query_cache": {"max_size_in_bytes": 4 * MIB, "max_entries": 64},
        "background_pool_size": 2,
        "background_merges_mutations_concurrency_ratio": 1,
        "background_common_pool_size": 2,
        "background_schedule_pool_size": 4,
        "background_buffer_flush_schedule_pool_size": 1,
        "background_message_broker_schedule_pool_size": 1,
        "background_distributed_schedule_pool_size": 1,
        "max_thread_pool_size": 400,
        "max_thread_pool_free_size": 8,
        "max_io_thread_pool_size": 8,
        "max_io_thread_pool_free_size": 0,
        "asynchronous_metrics_update_period_s": 60,
        # Merges of wide tables take a buffer a column: small ones, and a column at a time.
        "merge_tree": {
            "min_columns_to_activate_adaptive_write_buffer": 1,
            "vertical_merge_algorithm_min_rows_to_activate": 1,
            "vertical_merge_algorithm_min_columns_to_activate": 6,
            "merge_max_block_size_bytes": 2 * MIB,
        },
        "part_log": {
            "database": "system",
            "table": "part_log",
            "ttl": "event_date + INTERVAL 3 DAY DELETE",
            "flush_interval_milliseconds": 7500,
            "max_size_rows": 16384,
            "reserved_size_rows": 256,
            "buffer_size_rows_flush_threshold": 8192,
        },
    }
    return _document(tree)


def render_users(
    password: str, analyst_password: str, limits: ServerLimits, databases: Sequence[str] = ()
) -> str:
    """The server's users.xml: `headrace` does all, `analyst` reads, `default` cannot log in.

    `databases` are the analyst's; empty means every database but ClickHouse's own.
    """
    local = {"ip": ["127.0.0.1", "::1"]}
    tree: Tree = {
        "profiles": {
            "default": {
                "max_memory_usage": limits.query_memory_bytes_max,
                "max_bytes_before_external_group_by": limits.query_memory_bytes_max // 2,
                "max_bytes_before_external_sort": limits.query_memory_bytes_max // 2,
                "max_threads": 2,
                # Buffers of a column, of which there are many at once.
                "max_read_buffer_size": 128 << 10,
                "max_compress_block_size": 256 << 10,
                "allow_suspicious_low_cardinality_types": 1,
            },
            "analyst": _analyst_profile(limits),
            # The engine's own session logs in as `default` without a password and cannot do
            # otherwise. It is that user's one session, so nobody else can log in as `default`.
            "engine": {"max_sessions_for_user": 1},
        },
        "quotas": {"default": {}},
        "users": {
            "headrace": {
                "password_sha256_hex": _digest(password),
                "networks": local,
                "profile": "default",
                "quota": "default",
                "access_management": 1,
                "named_collection_control": 1,
            },
            "analyst": {
                "password_sha256_hex": _digest(analyst_password),
                "networks": local,
                "profile": "analyst",
                "quota": "default",
                "grants": {"query": _analyst_grants(databases)},
            },
            "default": {
                "password": "",
                "networks": {"ip": ["127.0.0.1"]},
                "profile": "engine",
                "quota": "default",
                "grants": {"query": ["GRANT SYSTEM LISTEN ON *.*"]},
            },
        },
    }
    return _document(tree)


def _analyst_profile(limits: ServerLimits) -> Tree:
    """Reads only; each limit can be lowered by the query's own settings and never raised."""
    caps = {
        "max_execution_time": limits.analyst_seconds_max,
        "max_memory_usage": limits.analyst_memory_bytes_max,
        "max_result_rows": limits.analyst_result_rows_max,
        "max_threads": 2,
        "max_concurrent_queries_for_user": 20,
    }
    constraints: dict[str, Tree] = {name: {"min": 1, "max": cap} for name, cap in caps.items()}
    constraints |= {name: {"const": ""} for name in ("readonly", *FIXED_SETTINGS)}
    return {
        # 2 and not 1: clients such as Grafana set harmless settings with every query.
        "readonly": 2,
        "allow_ddl": 0,
        "allow_introspection_functions": 0,
        "result_overflow_mode": "throw",
        "max_bytes_before_external_group_by": limits.analyst_memory_bytes_max // 2,
        "max_bytes_before_external_sort": limits.analyst_memory_bytes_max // 2,
        **caps,
        "constraints": constraints,
    }


def _analyst_grants(databases: Sequence[str]) -> list[str]:
    """Own databases, and of ClickHouse's only what describes tables and functions."""
    readable = ("tables", "columns", "databases", "functions", "settings", "parts")
    system = [f"GRANT SELECT ON system.{table}" for table in readable]
    shown = ["GRANT SHOW ON *.*"]
    if databases:
        return [*(f"GRANT SELECT ON {name}.*" for name in databases), *shown, *system]
    return ["GRANT SELECT ON *.*", *shown, "REVOKE SELECT ON system.*", *system]


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def _document(tree: Tree) -> str:
    return f"<clickhouse>\n{_elements(tree, 1)}</clickhouse>\n"


def _elements(tree: Tree, depth: int) -> str:
    lines = []
    for name, value in tree.items():
        many = value if isinstance(value, list | tuple) else [value]
        for one in many:
            if isinstance(one, Mapping):
                body = f"\n{_elements(one, depth + 1)}{' ' * depth}"
            else:
                body = escape(str(one))
            lines.append(f"{' ' * depth}<{name}>{body}</{name}>\n")
    return "".join(lines)
