"""The Compose file: read by Compose's own library, true of roles, settings and limits."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from infra.clickhouse.config import ServerLimits
from infra.roles.process import make_plan
from infra.roles.role_run import DRAIN_GRACE_SECONDS
from infra.settings import Settings
from tests.deploy.conftest import NEEDS_GO, ROOT, Render
from tests.deploy.environment import read_by_a_role
from tests.deploy.test_image import image_environment

FOLDER = ROOT / "infra" / "compose"
COMPOSE = FOLDER / "compose.yaml"
EXAMPLE = FOLDER / ".env.example"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
OURS = {name: one for name, one in SERVICES.items() if "build" in one}
ONE_SHOT = frozenset({"topics", "migrate"})
ROLES = {name: one for name, one in OURS.items() if name not in ONE_SHOT}
FILLED = {
    "HEADRACE_CHAIN": "ethereum",
    "HEADRACE_FROM": "20000000",
    "HEADRACE_RPC": "https://rpc.example/KEY",
    "CLICKHOUSE_PASSWORD": "secret1",
    "CLICKHOUSE_ANALYST_PASSWORD": "secret2",
    "GRAFANA_PASSWORD": "secret3",
}
"""What .env.example leaves to its reader."""


def filled(text: str) -> str:
    """A variable's text with ${…} replaced as Compose would."""
    return re.sub(
        r"\$\{(\w+)(?::([-?])([^}]*))?\}",
        lambda found: FILLED.get(found[1], found[3] if found[2] == "-" else ""),
        text,
    )


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    given = {name: value for name, value in service["environment"].items() if value is not None}
    return image_environment() | {name: filled(str(value)) for name, value in given.items()}


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@NEEDS_GO
def test_compose_reads_it(renderer: Render, tmp_path: Path) -> None:
    variables = tmp_path / "env"
    variables.write_text("".join(f"{name}={value}\n" for name, value in FILLED.items()))

    done = renderer("compose", COMPOSE, variables)

    assert done.returncode == 0, done.stderr
    project = json.loads(done.stdout)
    assert set(project["services"]) == set(SERVICES)
    for name in ROLES:
        service = project["services"][name]
        assert service["entrypoint"][-1] == "headrace"
        assert "${" not in json.dumps(service["environment"])
        # As Compose hands it on: `$$` of the file is one `$` for the container's shell.
        assert 'exec headrace "$$@"' in service["entrypoint"][2].replace("$", "$$")


@NEEDS_GO
@pytest.mark.parametrize("name", FILLED)
def test_compose_says_which_variable_is_missing(
    name: str, renderer: Render, tmp_path: Path
) -> None:
    variables = tmp_path / "env"
    rest = {one: value for one, value in FILLED.items() if one != name}
    variables.write_text("".join(f"{one}={value}\n" for one, value in rest.items()))

    done = renderer("compose", COMPOSE, variables)

    assert done.returncode != 0
    assert name in done.stderr
    assert ".env" in done.stderr


def test_the_example_names_every_variable_and_no_other() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text()))
    passed_on = {
        name for one in OURS.values() for name, value in one["environment"].items() if value is None
    }
    offered = re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE)
    optional = {"HEADRACE_IMAGE", "KAFKA_CLUSTER_ID", "CLICKHOUSE_VERSION"}

    assert {name for name, _value in offered} == (used | passed_on) - optional
    assert {name for name, value in offered if not value} == set(FILLED) - {"HEADRACE_CHAIN"}


@pytest.mark.parametrize("name", OURS)
def test_a_service_has_settings_that_exist(name: str, tmp_path: Path) -> None:
    service = OURS[name]
    toml = (FOLDER / "headrace.toml").read_text()

    settings = read_by_a_role(environment_of(service), tmp_path, toml)

    assert settings.chain == "ethereum"
    assert settings.kafka.bootstrap == ("kafka:19092",)
    assert settings.clickhouse.url is not None
    assert settings.clickhouse.url.get_secret_value().endswith(":secret1@clickhouse:9000")
    assert bool(settings.rpc) == (name in ("ingest", "migrate"))


def test_every_role_runs_on_every_lane_with_every_agent(tmp_path: Path) -> None:
    roles = ROLES.values()
    settings = [read_by_a_role(environment_of(one), tmp_path) for one in roles]
    commands = {one["command"][0] for one in roles}
    lanes = {
        (one["command"][0], lane)
        for one, read in zip(roles, settings, strict=True)
        for lane in read.roles.lanes
    }
    plans = [
        make_plan(read)
        for one, read in zip(roles, settings, strict=True)
        if one["command"] == ["process"]
    ]

    assert commands == {"ingest", "process", "sink", "publish"}
    assert lanes == {(command, lane) for command in commands for lane in ("history", "head")}
    for plan in plans:
        assert {step.agent for step in plan.steps} == {"decode", "aggregate"}
    assert [plan.lane for plan in plans if plan.reorg] == ["head"]


@pytest.mark.parametrize("name", ROLES)
def test_a_role_is_watched_restarted_and_drained(name: str, tmp_path: Path) -> None:
    service = ROLES[name]
    roles = read_by_a_role(environment_of(service), tmp_path).roles

    assert f"127.0.0.1:{roles.health_port}/healthz" in service["healthcheck"]["test"][-1]
    assert service["restart"] == "unless-stopped"
    grace = roles.drain_seconds_max + DRAIN_GRACE_SECONDS
    assert seconds(service["stop_grace_period"]) > grace
    assert set(service["depends_on"]) == ONE_SHOT


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_limits_and_ports_on_loopback_only(name: str) -> None:
    service = SERVICES[name]

    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert service.get("network_mode") is None
    assert not service.get("privileged")
    assert name in ONE_SHOT or "healthcheck" in service
    assert ":latest" not in service["image"]


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_write_nothing_and_gain_nothing(name: str) -> None:
    service = OURS[name]

    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_mounts_exists(name: str) -> None:
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]
    for mount in SERVICES[name].get("volumes", ()):
        source = mount.split(":")[0]
        assert (FOLDER / source).exists() if source.startswith(".") else source in volumes


def test_the_broker_takes_our_messages_and_makes_no_topic_by_itself() -> None:
    broker, kafka = SERVICES["kafka"]["environment"], Settings().kafka

    assert int(broker["KAFKA_MESSAGE_MAX_BYTES"]) >= kafka.message_bytes_max
    assert broker["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert int(broker["KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR"]) == kafka.replication_factor


def test_clickhouse_has_room_for_the_analyst() -> None:
    memory = SERVICES["clickhouse"]["deploy"]["resources"]["limits"]["memory"]

    assert int(memory.removesuffix("G")) << 30 > 4 * ServerLimits().analyst_memory_bytes_max


@pytest.mark.parametrize(
    "path",
    [*sorted(FOLDER.rglob("*.yaml")), ROOT / "infra" / "helm" / "headrace" / "values.yaml"],
    ids=lambda path: path.name,
)
def test_yaml_is_clean(path: Path) -> None:
    rules = {"line-length": {"max": 125}, "document-start": "disable", "braces": "enable"}
    rules |= {"truthy": {"check-keys": False}}
    config = YamlLintConfig(json.dumps({"extends": "default", "rules": rules}))

    assert [str(found) for found in linter.run(path.read_text(), config)] == []
