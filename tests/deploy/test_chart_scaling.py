"""KEDA's ScaledObjects: groups and topics as the roles read them, no worker without work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.roles.process import make_plan
from infra.roles.sink import sink_group
from infra.settings import Settings
from schemas.segments import DATA_TOPICS, RAW_HEADS, data_topic
from schemas.topics import topic_name, topics_by_name
from tests.deploy.charted import Charted, Manifest, chart, component, environment_of
from tests.deploy.conftest import NEEDS_GO, Render
from tests.deploy.environment import read_by_a_role

pytestmark = NEEDS_GO


@pytest.fixture(scope="module")
def charted(renderer: Render) -> Charted:
    return chart(renderer, "everything")


def triggers_of(scaled: Manifest) -> list[dict[str, str]]:
    return [one["metadata"] for one in scaled["spec"]["triggers"]]


def read_topics(role: str, settings: Settings) -> tuple[str, set[str]]:
    """The consumer group of a role's worker and what it reads, as the code has it."""
    prefix = settings.kafka.topic_prefix
    (lane,) = settings.roles.lanes
    if role.startswith("process"):
        plan = make_plan(settings)
        topics = {data_topic(step.takes, plan.lane) for step in plan.steps}
        return plan.app_id, topics | ({RAW_HEADS} if plan.reorg else set())
    return sink_group(prefix, lane), {data_topic(stream, lane) for stream in DATA_TOPICS}


def test_every_worker_of_a_group_is_scaled_by_the_lag_of_all_it_reads(
    charted: Charted, tmp_path: Path
) -> None:
    scaled = {component(one): one for one in charted.of("ScaledObject")}
    stateful = {name: one for name, one in charted.roles.items() if one["kind"] == "StatefulSet"}

    assert set(scaled) == set(stateful)
    for name, role in stateful.items():
        settings = read_by_a_role(environment_of(role["spec"]["template"]), tmp_path)
        group, topics = read_topics(name, settings)
        prefix = settings.kafka.topic_prefix
        triggers = triggers_of(scaled[name])

        assert {one["consumerGroup"] for one in triggers} == {group}
        assert {one["topic"] for one in triggers} == {topic_name(prefix, one) for one in topics}
        assert len(triggers) == len(topics)
        assert topics <= set(topics_by_name())
        assert {one["bootstrapServers"] for one in triggers} == {",".join(settings.kafka.bootstrap)}
        target = scaled[name]["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == (role["kind"], role["metadata"]["name"])


def test_keda_alone_says_how_many_workers_there_are(charted: Charted) -> None:
    """A number of the chart would undo KEDA's at each upgrade."""
    scaled = {component(one) for one in charted.of("ScaledObject")}

    for name, role in charted.roles.items():
        assert ("replicas" in role["spec"]) == (name not in scaled)


@pytest.mark.parametrize(
    ("replicas_max", "partitions", "most"), [(0, 12, 12), (3, 12, 3), (40, 6, 6)]
)
def test_there_are_never_more_workers_than_partitions(
    replicas_max: int, partitions: int, most: int, renderer: Render, tmp_path: Path
) -> None:
    values = {"keda": {"replicasMax": replicas_max}, "kafka": {"partitions": partitions}}
    values |= {"roles": {"sink-history": {"replicas": 8}}}
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    charted = chart(renderer, "everything", file)

    for scaled in charted.of("ScaledObject"):
        spec = scaled["spec"]
        assert spec["maxReplicaCount"] == most
        assert 1 <= spec["minReplicaCount"] <= most
        assert spec["fallback"]["replicas"] <= most


def test_keda_logs_in_as_the_roles_do(charted: Charted, tmp_path: Path) -> None:
    (login,) = charted.of("TriggerAuthentication")
    taken = {one["parameter"]: one["key"] for one in login["spec"]["secretTargetRef"]}
    role = charted.roles["sink-head"]["spec"]["template"]
    kafka = read_by_a_role(environment_of(role), tmp_path).kafka
    files = {"ca": kafka.ssl_ca, "cert": kafka.ssl_certificate, "key": kafka.ssl_key}

    assert set(taken) == {"username", "password", "ca", "cert", "key", "keyPassword"}
    for parameter, file in files.items():
        assert file is not None
        assert file.name == taken[parameter]
    for scaled in charted.of("ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            assert trigger["authenticationRef"]["name"] == login["metadata"]["name"]
            assert trigger["metadata"]["sasl"] == "scram_sha512"
            assert trigger["metadata"]["tls"] == "enable"
            # Brokers from 4.0 on refuse the protocol of KEDA's default, 1.0.0.
            assert trigger["metadata"]["version"] >= "2.1.0"


def test_without_keda_each_role_has_the_number_it_was_given(renderer: Render) -> None:
    charted = chart(renderer, "least")

    assert charted.of("ScaledObject", "TriggerAuthentication") == []
    assert {role["spec"]["replicas"] for role in charted.roles.values()} == {1}
