"""Names and meanings of every metric; the docs are generated from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One declared metric."""

    name: str
    """Prometheus name, units last."""
    kind: Literal["counter", "gauge", "histogram"]
    """Its Prometheus type."""
    doc: str
    """What it means."""
    watch: str
    """What to watch it for."""
    embedded: bool = True
    """Whether `headrace run` serves it, too; else only roles of a cluster do."""


METRICS = (
    Metric(
        "headrace_blocks_total", "counter", "Blocks that left a stage.", "a stage that stands still"
    ),
    Metric("headrace_logs_total", "counter", "Logs that left a stage.", "throughput"),
    Metric("headrace_loads_total", "counter", "Loads written to ClickHouse.", "many small loads"),
    Metric(
        "headrace_head_lag_blocks", "gauge", "Node's head less the visible head.", "a steady rise"
    ),
    Metric(
        "headrace_head_age_seconds",
        "gauge",
        "Seconds since the node showed the visible head; in a backfill, since that advanced.",
        "a steady rise, whatever stands still",
        embedded=False,
    ),
    Metric(
        "headrace_head_latency_seconds",
        "histogram",
        "From the node showing a block to its being queryable.",
        "p99 above the block time",
    ),
    Metric("headrace_reorgs_total", "counter", "Reorgs applied.", "depths above the usual"),
    Metric("headrace_queue_bytes", "gauge", "Bytes waiting in a queue.", "a queue at its limit"),
    Metric(
        "headrace_provider_errors_total", "counter", "Failed calls by provider.", "one that rises"
    ),
    Metric("headrace_provider_quarantined", "gauge", "1 while a provider is quarantined.", "any 1"),
    Metric(
        "headrace_decode_failures_total", "counter", "Logs that no layout could decode.", "a jump"
    ),
    Metric(
        "headrace_lag_messages",
        "gauge",
        "Messages of a topic's partition that a sink has not taken.",
        "a steady rise",
        embedded=False,
    ),
    Metric("headrace_dead_letters_total", "counter", "Messages that were refused.", "any rise"),
)
