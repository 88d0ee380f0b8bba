"""Prometheus and Grafana: every declared metric is shown, and nothing that is not declared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml

from infra.dashboard import PATH, dashboard
from schemas.metrics import METRICS, Metric
from tests.deploy.test_compose import FOLDER, ROLES, SERVICES, environment_of

PROMETHEUS = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yaml").read_text())
ALERTS = yaml.safe_load((FOLDER / "prometheus" / "alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = json.loads(PATH.read_text())["panels"]
SCRAPED = {"up"}
"""What Prometheus adds itself."""


def series() -> set[str]:
    """Names under which the declared metrics are stored."""
    endings = {"histogram": ("_bucket", "_sum", "_count")}
    return {
        f"{one.name}{ending}" for one in METRICS for ending in endings.get(one.kind, ("",))
    } | SCRAPED


def names_in(expression: str) -> set[str]:
    """Metrics that an expression names, which must be PromQL."""
    text = expression.replace("$__rate_interval", "1m")
    promql_parser.parse(text)
    labels_removed = re.sub(r"\{[^}]*\}|\b(?:by|without)\s*\([^)]*\)|\[[^]]*\]", "", text)
    words = set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*\()\b", labels_removed))
    return {word for word in words if word.startswith("headrace") or word in SCRAPED}


def test_the_dashboard_agrees_with_the_declaration() -> None:
    """`make docs` writes it again."""
    assert PATH.read_text("utf-8") == dashboard()


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_has_a_panel_that_says_what_it_means(metric: Metric) -> None:
    (panel,) = [one for one in PANELS if one["title"] == metric.name]

    assert metric.doc in panel["description"]
    assert metric.watch in panel["description"]
    assert panel["targets"]


def test_every_panel_asks_for_metrics_that_exist() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            names = names_in(target["expr"])
            assert names
            assert names <= series()


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_that_exist(rule: dict[str, str]) -> None:
    assert names_in(rule["expr"])
    assert names_in(rule["expr"]) <= series()
    assert rule["annotations"]["summary"]


def test_a_chapter_of_the_runbook_that_an_alert_names_exists() -> None:
    runbook = (Path(__file__).parent.parent.parent / "docs" / "runbook.md").read_text("utf-8")
    named = [re.findall(r'Runbook, "([^"]+)"', rule["annotations"]["summary"]) for rule in RULES]

    assert any(named)
    for (chapter,) in filter(None, named):
        assert f"\n## {chapter}\n" in runbook


def test_prometheus_finds_every_role_on_its_port() -> None:
    (job,) = PROMETHEUS["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    ports = {environment_of(one)["HEADRACE_ROLES__HEALTH_PORT"] for one in ROLES.values()}

    assert set(found["names"]) == set(ROLES)
    assert {str(found["port"])} == ports
    assert job["job_name"] == "headrace"
    mounts = {mount.split(":")[1] for mount in SERVICES["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{name}" for name in PROMETHEUS["rule_files"]} <= mounts


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = FOLDER / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())
    boards = yaml.safe_load((provisioning / "dashboards" / "headrace.yaml").read_text())
    (source,), (board,) = sources["datasources"], boards["providers"]
    used = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    mounts = dict(mount.split(":")[:2][::-1] for mount in SERVICES["grafana"]["volumes"])

    assert used == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    assert (FOLDER / mounts[board["options"]["path"]] / PATH.name) == PATH
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{board['options']['path']}/{PATH.name}"
