"""The Helm chart: manifests that Kubernetes takes, whose pods start as the roles expect."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from infra.roles.process import make_plan
from infra.roles.role_run import DRAIN_GRACE_SECONDS
from tests.deploy.charted import (
    CHART,
    KUBERNETES,
    VALUES,
    Charted,
    Manifest,
    chart,
    component,
    container_of,
    environment_of,
)
from tests.deploy.conftest import NEEDS_GO, ROOT, Render
from tests.deploy.custom_kinds import KINDS
from tests.deploy.environment import read_by_a_role

pytestmark = NEEDS_GO
"""The renderer is built by the first test that needs it."""

RELEASES = ("least", "everything")


@pytest.fixture(scope="module", params=RELEASES)
def charted(request: pytest.FixtureRequest, renderer: Render) -> Charted:
    return chart(renderer, request.param)


@pytest.fixture(scope="module")
def everything(renderer: Render) -> Charted:
    return chart(renderer, "everything")


@pytest.mark.parametrize("kubernetes", ["1.27.0", KUBERNETES, "1.37.0"])
@pytest.mark.parametrize("release", RELEASES)
def test_kubernetes_takes_every_manifest(release: str, kubernetes: str, renderer: Render) -> None:
    charted = chart(renderer, release, kubernetes=kubernetes)
    names = [(one["kind"], one["metadata"]["name"]) for one in charted.manifests]

    assert len(names) == len(set(names))
    for manifest in charted.manifests:
        if manifest["kind"] in KINDS:
            jsonschema.validate(manifest, KINDS[manifest["kind"]])
        else:
            kubernetes_validate.validate(manifest, kubernetes, strict=True)


def test_everything_is_turned_on_by_everything(everything: Charted) -> None:
    given = yaml.safe_load((VALUES / "everything.yaml").read_text())
    switches = {
        name
        for name, value in yaml.safe_load((CHART / "values.yaml").read_text()).items()
        if isinstance(value, dict) and value.get("enabled") is False
    }

    assert all(given[name]["enabled"] for name in switches)
    assert set(KINDS) <= {one["kind"] for one in everything.manifests}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "chain is missing"),
        ({"chain": "base"}, "from is missing"),
        ({"chian": "base"}, "chian"),
        ({"kafka": {"partitions": 0}}, "/kafka/partitions"),
        ({"kafka": {"bootstrap": ["kafka"]}}, "/kafka/bootstrap"),
        ({"environment": {"PATH": "/"}}, "invalid propertyName 'PATH'"),
        ({"roles": {"sink-head": {"replicas": "2"}}}, "/roles/sink-head/replicas"),
        ({"roles": {"publish": {"replicas": 3}}}, "/roles/publish/replicas"),
        (
            {"chain": "base", "from": 0, "kafka": {"securityProtocol": "SASL_SSL"}},
            "kafka.saslMechanism is missing",
        ),
    ],
    ids=str,
)
def test_values_that_cannot_work_are_refused(
    values: dict[str, Any], said: str, renderer: Render, tmp_path: Path
) -> None:
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))

    done = renderer("chart", CHART, KUBERNETES, file)

    assert done.returncode != 0
    assert said in done.stderr


def test_a_kubernetes_that_is_too_old_is_refused(renderer: Render) -> None:
    done = renderer("chart", CHART, "1.26.0", VALUES / "least.yaml")

    assert done.returncode != 0
    assert "1.27" in done.stderr


def test_the_chart_is_of_the_project_s_version() -> None:
    described = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert described["appVersion"] == project["version"]


def test_every_value_is_described_in_the_schema() -> None:
    """Or it could be misspelt: objects of the schema are closed."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    jsonschema.validate(values, schema)
    assert set(values) == set(schema["required"])


def test_every_pod_has_settings_that_exist(charted: Charted, tmp_path: Path) -> None:
    (shared,) = [
        *(one["data"]["headrace.toml"] for one in charted.of("ConfigMap") if not hooked(one)),
        "",
    ][:1]
    for name, pod in charted.pods:
        settings = read_by_a_role(environment_of(pod), tmp_path, shared)

        assert settings.chain in ("ethereum", "base")
        assert settings.from_block is not None
        assert settings.clickhouse.url is not None
        assert bool(settings.rpc) == (name in ("ingest", "migrate"))


def test_every_role_runs_on_every_lane_with_every_agent(charted: Charted, tmp_path: Path) -> None:
    lanes, plans = set(), []
    for role in charted.roles.values():
        pod = role["spec"]["template"]
        settings = read_by_a_role(environment_of(pod), tmp_path)
        (command,) = [one for one in container_of(pod)["args"] if not one.startswith("-")]
        lanes |= {(command, lane) for lane in settings.roles.lanes}
        plans += [make_plan(settings)] if command == "process" else []

    commands = ("ingest", "process", "sink", "publish")
    assert lanes == {(command, lane) for command in commands for lane in ("history", "head")}
    for plan in plans:
        assert {step.agent for step in plan.steps} == {"decode", "aggregate"}
    assert [plan.lane for plan in plans if plan.reorg] == ["head"]


def test_a_role_is_probed_where_it_answers(charted: Charted, tmp_path: Path) -> None:
    for role in charted.roles.values():
        pod = role["spec"]["template"]
        container, roles = container_of(pod), read_by_a_role(environment_of(pod), tmp_path).roles
        (port,) = container["ports"]
        paths = {
            name: container[name]["httpGet"]["path"]
            for name in ("startupProbe", "livenessProbe", "readinessProbe")
        }

        assert (port["name"], port["containerPort"]) == ("health", roles.health_port)
        assert roles.health_host == "0.0.0.0"
        assert paths == {
            "startupProbe": "/healthz",
            "livenessProbe": "/healthz",
            "readinessProbe": "/readyz",
        }
        grace = pod["spec"]["terminationGracePeriodSeconds"]
        assert grace > roles.drain_seconds_max + DRAIN_GRACE_SECONDS


def test_a_member_of_a_group_keeps_its_name(charted: Charted, tmp_path: Path) -> None:
    """StatefulSets number their pods; whoever is in no group needs no name."""
    for name, role in charted.roles.items():
        pod = role["spec"]["template"]
        instance = read_by_a_role(environment_of(pod, f"{name}-0"), tmp_path).kafka.instance
        stateful = name.startswith(("process", "sink"))

        assert role["kind"] == ("StatefulSet" if stateful else "Deployment")
        assert instance == (f"{name}-0" if stateful else None)
        (service,) = charted.of("Service")
        assert (
            role["spec"].get("serviceName", service["metadata"]["name"])
            == (service["metadata"]["name"])
        )


def test_every_pod_is_confined(charted: Charted) -> None:
    for _name, pod in charted.pods:
        spec, container = pod["spec"], container_of(pod)

        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert spec["automountServiceAccountToken"] is False
        # A Service `headrace-health` would give every pod HEADRACE_HEALTH_PORT: no setting of ours.
        assert spec["enableServiceLinks"] is False
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


def test_what_a_pod_mounts_is_there(charted: Charted) -> None:
    maps = {one["metadata"]["name"]: one for one in charted.of("ConfigMap")}
    for _name, pod in charted.pods:
        volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
        mounted = {one["name"] for one in container_of(pod)["volumeMounts"]}

        assert mounted == set(volumes)
        for volume in volumes.values():
            if "configMap" in volume:
                assert "headrace.toml" in maps[volume["configMap"]["name"]]["data"]


def test_files_that_settings_name_are_mounted(everything: Charted, tmp_path: Path) -> None:
    for _name, pod in everything.pods:
        settings = read_by_a_role(environment_of(pod), tmp_path)
        mounts = [one["mountPath"] for one in container_of(pod)["volumeMounts"]]
        kafka, clickhouse = settings.kafka, settings.clickhouse

        for file in (kafka.ssl_ca, kafka.ssl_certificate, kafka.ssl_key, clickhouse.ca):
            assert file is not None
            assert str(file.parent) in mounts


def test_a_settings_file_that_changes_restarts_the_pods(
    everything: Charted, renderer: Render, tmp_path: Path
) -> None:
    changed = tmp_path / "values.yaml"
    changed.write_text(json.dumps({"settings": "[limits]\nbatch_seconds_max = 2.0\n"}))
    other = chart(renderer, "everything", changed)

    def sums(one: Charted) -> set[str]:
        pods = [role["spec"]["template"]["metadata"] for role in one.roles.values()]
        return {pod["annotations"]["checksum/settings"] for pod in pods}

    assert len(sums(everything)) == 1
    assert sums(everything).isdisjoint(sums(other))


def hooked(manifest: Manifest) -> bool:
    return "helm.sh/hook" in manifest["metadata"].get("annotations", {})


def test_topics_and_tables_are_made_before_any_role(charted: Charted) -> None:
    jobs = {component(one): one for one in charted.of("Job")}
    arguments = {name: container_of(one["spec"]["template"])["args"] for name, one in jobs.items()}

    assert {name: given[1:] for name, given in arguments.items()} == {
        "topics": ["topics", "create"],
        "topics-alter": ["topics", "alter"],
        "migrate": ["migrate"],
    }
    for name, job in jobs.items():
        when = job["metadata"]["annotations"]["helm.sh/hook"]
        assert when == ("pre-upgrade" if name == "topics-alter" else "pre-install,pre-upgrade")
        # Before a release's own resources: what a hook needs must be a hook itself.
        spec = job["spec"]["template"]["spec"]
        assert "serviceAccountName" not in spec
        maps = {one["metadata"]["name"]: one for one in charted.of("ConfigMap")}
        named = [one["configMap"]["name"] for one in spec["volumes"] if "configMap" in one]
        assert all(hooked(maps[name]) for name in named)


def test_a_drain_of_nodes_takes_one_pod_of_a_role_at_a_time(charted: Charted) -> None:
    budgets = {component(one): one["spec"] for one in charted.of("PodDisruptionBudget")}

    assert set(budgets) == set(charted.roles)
    for name, budget in budgets.items():
        labels = charted.roles[name]["spec"]["template"]["metadata"]["labels"]
        assert budget["selector"]["matchLabels"].items() <= labels.items()
        assert budget["maxUnavailable"] == 1


def test_selectors_select(charted: Charted) -> None:
    pods = [role["spec"]["template"]["metadata"]["labels"] for role in charted.roles.values()]
    for name, role in charted.roles.items():
        wanted = role["spec"]["selector"]["matchLabels"].items()
        assert [labels for labels in pods if wanted <= labels.items()] == [
            role["spec"]["template"]["metadata"]["labels"]
        ], name
    (service,) = charted.of("Service")
    for monitor in charted.of("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        assert wanted <= service["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert all(service["spec"]["selector"].items() <= labels.items() for labels in pods)


def test_no_password_is_in_a_manifest(everything: Charted) -> None:
    for _name, pod in everything.pods:
        for one in container_of(pod)["env"]:
            if "PASSWORD" in one["name"] or one["name"].endswith(("_RPC", "__URL")):
                assert set(one) == {"name", "valueFrom"}
    assert everything.of("Secret") == []
