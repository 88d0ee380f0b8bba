"""The cluster's ClickHouse users: those of the embedded server, tried on the real engine."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import pytest

import infra.clickhouse.server as server_module
from infra.clickhouse.config import ServerLimits, render_users
from infra.clickhouse.server import EmbeddedServer
from schemas.errors_sinks import AccessRefused, QueryRefused
from sinks.connection import Connection
from tests.deploy.test_compose import FOLDER, SERVICES

USERS = FOLDER / "clickhouse" / "users.xml"
OURS = ET.fromstring(USERS.read_text("utf-8"))
EMBEDDED = ET.fromstring(render_users("a", "b", ServerLimits()))


def part(tree: ET.Element, path: str) -> ET.Element:
    found = tree.find(path)
    assert found is not None, path
    return found


def tree_of(element: ET.Element) -> object:
    """An element's content, in an order of its own."""
    if len(element) == 0:
        return (element.tag, (element.text or "").strip())
    return (element.tag, [tree_of(one) for one in element])


def test_the_analyst_has_the_limits_of_the_embedded_server() -> None:
    path = "profiles/analyst"

    assert tree_of(part(OURS, path)) == tree_of(part(EMBEDDED, path))


@pytest.mark.parametrize("user", ["headrace", "analyst"])
def test_a_user_may_do_what_it_may_on_the_embedded_server(user: str) -> None:
    ours, embedded = part(OURS, f"users/{user}"), part(EMBEDDED, f"users/{user}")
    own = {"password", "password_sha256_hex", "networks"}

    assert [tree_of(one) for one in ours if one.tag not in own] == [
        tree_of(one) for one in embedded if one.tag not in own
    ]


def test_passwords_come_from_the_environment_and_nobody_else_logs_in() -> None:
    variables = {one.attrib["from_env"] for one in OURS.iter("password")}
    handed = SERVICES["clickhouse"]["environment"]

    assert variables == {"CLICKHOUSE_PASSWORD", "CLICKHOUSE_ANALYST_PASSWORD"}
    assert all(":?" in handed[name] for name in variables)
    assert part(OURS, "users/default").attrib == {"remove": "remove"}
    assert {one.tag for one in part(OURS, "users")} == {"default", "headrace", "analyst"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The engine with the users of the Compose file instead of its own."""
    with pytest.MonkeyPatch.context() as patch:

        def ours(password: str, analyst: str, limits: ServerLimits, *_: object) -> str:
            handed = (
                *server_module.ENVIRONMENT,
                "CLICKHOUSE_PASSWORD",
                "CLICKHOUSE_ANALYST_PASSWORD",
            )
            patch.setattr(server_module, "ENVIRONMENT", handed)
            patch.setenv("CLICKHOUSE_PASSWORD", password)
            patch.setenv("CLICKHOUSE_ANALYST_PASSWORD", analyst)
            whole = ET.fromstring(render_users("no", "no", limits))
            # The embedded engine is itself the user `default`; all else is as Compose has it.
            users, theirs = part(whole, "users"), part(OURS, "users")
            for one in [*theirs]:
                if one.tag != "default":
                    users.remove(part(users, one.tag))
                    users.append(one)
            profiles = part(whole, "profiles")
            profiles.remove(part(profiles, "analyst"))
            profiles.append(part(OURS, "profiles/analyst"))
            return ET.tostring(whole, encoding="unicode")

        patch.setattr(server_module, "render_users", ours)
        folder = tmp_path_factory.mktemp("users") / "data"
        with EmbeddedServer(folder, chain="test") as running:
            yield running


def test_the_engine_lets_both_in_and_the_analyst_only_read(server: EmbeddedServer) -> None:
    database = f"t{secrets.token_hex(4)}"
    with Connection(server.endpoint()) as pipeline:
        pipeline.execute(f"CREATE DATABASE {database}")
        pipeline.execute(f"CREATE TABLE {database}.t (n UInt64) ENGINE = MergeTree ORDER BY n")
        pipeline.execute(f"INSERT INTO {database}.t SELECT number FROM numbers(5)")

    with Connection(server.endpoint("analyst")) as analyst:
        assert analyst.execute(f"SELECT sum(n) FROM {database}.t") == [(10,)]
        for refused in (
            f"INSERT INTO {database}.t SELECT 1",
            f"DROP TABLE {database}.t",
            "SELECT count() FROM system.users",
            "SELECT 1 SETTINGS max_execution_time = 3600",
        ):
            with pytest.raises((AccessRefused, QueryRefused)):
                analyst.execute(refused)
