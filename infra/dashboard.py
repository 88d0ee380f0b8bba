"""Declared metrics in, the Grafana dashboard that shows each of them out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas.metrics import METRICS, Metric

PATH = Path(__file__).parent / "compose" / "grafana" / "dashboards" / "headrace.json"

SOURCE = {"type": "prometheus", "uid": "prometheus"}
QUANTILES = (0.5, 0.99)
PANEL_WIDTH, PANEL_HEIGHT, GRID_WIDTH = 12, 8, 24
WORKERS_HEIGHT = 4


def dashboard() -> str:
    """The dashboard as Grafana reads it, a panel a metric in the order of the declaration."""
    panels = [_workers_panel()]
    for position, metric in enumerate(METRICS):
        column, row = position % 2, position // 2
        place = {"x": column * PANEL_WIDTH, "y": WORKERS_HEIGHT + row * PANEL_HEIGHT}
        panels.append(_panel(metric, len(panels) + 1, place))
    whole = {
        "uid": "headrace",
        "title": "Headrace",
        "tags": ["headrace"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "utc",
        "panels": panels,
    }
    return json.dumps(whole, indent=1) + "\n"


def _workers_panel() -> dict[str, Any]:
    return {
        "id": 1,
        "type": "stat",
        "title": "Workers that answer",
        "description": "Of each role. Watch for: fewer than were started.",
        "datasource": SOURCE,
        "gridPos": {"x": 0, "y": 0, "w": GRID_WIDTH, "h": WORKERS_HEIGHT},
        "fieldConfig": {"defaults": {"unit": "none", "min": 0}, "overrides": []},
        "targets": [_target("A", 'sum by (role) (up{job="headrace"})', "{{role}}")],
    }


def _panel(metric: Metric, number: int, place: dict[str, int]) -> dict[str, Any]:
    targets = [_target(name, *query) for name, query in zip("ABC", _queries(metric), strict=False)]
    defaults = {"unit": _unit(metric), "min": 0, "custom": {"fillOpacity": 10, "lineWidth": 1}}
    return {
        "id": number,
        "type": "timeseries",
        "title": metric.name,
        "description": f"{metric.doc} Watch for: {metric.watch}.",
        "datasource": SOURCE,
        "gridPos": {**place, "w": PANEL_WIDTH, "h": PANEL_HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}},
        "targets": targets,
    }


def _queries(metric: Metric) -> Iterator[tuple[str, str]]:
    """PromQL and legend of each line of a metric; a counter as its rate over all workers."""
    if metric.kind == "histogram":
        rates = f"sum by (le) (rate({metric.name}_bucket[$__rate_interval]))"
        for quantile in QUANTILES:
            yield f"histogram_quantile({quantile}, {rates})", f"p{quantile * 100:g}"
    elif metric.kind == "counter":
        yield f"sum without (instance, pod) (rate({metric.name}[$__rate_interval]))", "__auto"
    else:
        yield metric.name, "__auto"


def _unit(metric: Metric) -> str:
    """Grafana's name of the unit; a counter is shown as a rate."""
    for ending, unit in (("_seconds", "s"), ("_bytes", "bytes"), ("_bytes_total", "Bps")):
        if metric.name.endswith(ending):
            return unit
    return "cps" if metric.kind == "counter" else "short"


def _target(name: str, expression: str, legend: str) -> dict[str, Any]:
    return {"refId": name, "datasource": SOURCE, "expr": expression, "legendFormat": legend}
