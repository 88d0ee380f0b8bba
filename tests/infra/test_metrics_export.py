"""Every declared metric is served, with its value of the moment."""

from __future__ import annotations

import socket
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infra.metrics_export import MetricsExport
from infra.progress import Progress, ProviderProgress, StageProgress
from schemas.errors_embedded import PortTaken
from schemas.metrics import METRICS

NOW = Progress(
    at_seconds=1.0,
    chain="base",
    phase="head",
    visible_block=95,
    head_block=100,
    stages=(StageProgress("ingest", 10, 200, 3000), StageProgress("load", 8, 150, 40)),
    providers=(ProviderProgress("a#1", errors=4), ProviderProgress("b#2", "quarantined")),
    reorg_count=2,
    loads=7,
    decode_failures=3,
    dead_letters=1,
)


def scrape(port: int) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_declared_metric_is_served() -> None:
    export = MetricsExport()
    export.observe_head_latency(0.3)
    with export.served(0, lambda: NOW) as port:
        found = scrape(port)

    names = {name for name, *_ in found}
    for metric in METRICS:
        served = bool(names & {metric.name, f"{metric.name}_bucket"})
        assert served == metric.embedded, metric.name
    assert found["headrace_head_lag_blocks", "base"] == 5
    assert found["headrace_blocks_total", "base", "ingest"] == 10
    assert found["headrace_queue_bytes", "base", "load"] == 40
    assert found["headrace_provider_errors_total", "base", "a#1"] == 4
    assert found["headrace_provider_quarantined", "base", "b#2"] == 1
    assert found["headrace_loads_total", "base"] == 7
    assert found["headrace_head_latency_seconds_count",] == 1


def test_a_scrape_reads_the_moment_and_the_port_is_freed() -> None:
    export, now = MetricsExport(), NOW
    with export.served(0, lambda: now) as port:
        now = replace(NOW, reorg_count=9, visible_block=None)
        found = scrape(port)
        assert found["headrace_reorgs_total", "base"] == 9
        assert ("headrace_head_lag_blocks", "base") not in found
    with export.served(port, lambda: now):
        assert scrape(port)


def test_a_taken_port_is_a_coded_error() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(PortTaken),
        MetricsExport().served(taken.getsockname()[1], lambda: NOW),
    ):
        pass
