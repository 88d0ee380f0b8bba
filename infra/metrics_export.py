"""Progress snapshots in, Prometheus metrics on loopback out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from infra.ports import HOST, check_port
from infra.progress import Progress
from schemas.metrics import METRICS

LATENCY = "headrace_head_latency_seconds"
LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)

_DECLARED = {metric.name: metric for metric in METRICS}


class ProgressCollector(Collector):
    """Reads a snapshot at each scrape, so that a metric costs nothing between two."""

    def __init__(self, snapshot: Callable[[], Progress]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Any]:
        """Every declared metric but the histogram, which is counted where it happens."""
        progress = self._snapshot()
        for name, labels, values in _values(progress):
            declared = _DECLARED[name]
            family: Any
            if declared.kind == "counter":
                family = CounterMetricFamily(name, declared.doc, labels=labels)
            else:
                family = GaugeMetricFamily(name, declared.doc, labels=labels)
            for label_values, value in values:
                family.add_metric([progress.chain, *label_values], value)
            yield family


Values = list[tuple[list[str], float]]


def _values(progress: Progress) -> Iterator[tuple[str, list[str], Values]]:
    stages, providers = progress.stages, progress.providers
    lag = progress.head_lag_blocks
    by_stage: dict[str, Values] = {
        "headrace_blocks_total": [([stage.name], stage.blocks) for stage in stages],
        "headrace_logs_total": [([stage.name], stage.logs) for stage in stages],
        "headrace_queue_bytes": [([stage.name], stage.queue_bytes) for stage in stages],
    }
    by_provider: dict[str, Values] = {
        "headrace_provider_errors_total": [([one.name], one.errors) for one in providers],
        "headrace_provider_quarantined": [
            ([one.name], float(one.state == "quarantined")) for one in providers
        ],
    }
    plain: dict[str, Values] = {
        "headrace_loads_total": [([], progress.loads)],
        "headrace_head_lag_blocks": [] if lag is None else [([], lag)],
        "headrace_reorgs_total": [([], progress.reorg_count)],
        "headrace_decode_failures_total": [([], progress.decode_failures)],
        "headrace_dead_letters_total": [([], progress.dead_letters)],
    }
    for label, group in (("stage", by_stage), ("provider", by_provider), ("", plain)):
        for name, values in group.items():
            yield name, ["chain", label] if label else ["chain"], values


class MetricsExport:
    """The registry of one run."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._latency = Histogram(
            LATENCY,
            _DECLARED[LATENCY].doc,
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )

    def observe_head_latency(self, seconds: float) -> None:
        """Count a head block: from the node showing it to its being queryable."""
        self._latency.observe(seconds)

    @contextlib.contextmanager
    def served(self, port: int, snapshot: Callable[[], Progress]) -> Iterator[int]:
        """Serve on loopback while the context lasts; gives the port, chosen where it is 0.

        Raises
        ------
        PortTaken
        """
        check_port(HOST, port)
        self.registry.register(collector := ProgressCollector(snapshot))
        server, thread = start_http_server(port, HOST, self.registry)
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
            self.registry.unregister(collector)
