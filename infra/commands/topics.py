"""Kafka settings in, topics made, changed, shown or checked out: `headrace topics`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.options import ConfigOption, JsonOption, read_settings
from infra.terminal import Terminal, open_terminal, show_table, sized

if TYPE_CHECKING:
    from infra.kafka.admin import TopicState

EXAMPLES = (
    "headrace topics create --config headrace.toml",
    "headrace topics describe --config headrace.toml",
    "headrace topics alter --config headrace.toml",
    "headrace topics check --config headrace.toml --json",
)


class Action(StrEnum):
    """What is done with the topics."""

    create = "create"
    alter = "alter"
    describe = "describe"
    check = "check"


def topics(
    action: Annotated[
        Action,
        typer.Argument(
            metavar="create|alter|describe|check",
            help="`create` makes those that are missing; `alter` brings partitions, limits and "
            "retention to what the settings say; `describe` shows what is there and what differs; "
            "`check` asks what every role asks when it starts.",
        ),
    ],
    config: ConfigOption = None,
    json: JsonOption = False,
) -> int:
    """Cluster: make and keep the topics in Kafka.

    Run `create` once before the roles start, and `alter` after `partitions`, `retention_…` or
    `message_bytes_max` in [kafka] have changed. Both may be run again at any time.
    """
    from infra.kafka.admin import (  # noqa: PLC0415 - heavy imports wait for their command
        alter_topics,
        check_topics,
        connect,
        create_topics,
        describe_topics,
    )
    from infra.kafka.clients import warn_if_exposed  # noqa: PLC0415 - as above

    kafka = read_settings(config).kafka
    warn_if_exposed(kafka)
    terminal = open_terminal(json=json)
    admin = connect(kafka)
    made: list[str] = []
    changed: list[TopicState] = []
    if action is Action.create:
        made = create_topics(kafka, admin)
    elif action is Action.alter:
        changed = alter_topics(kafka, admin)
    elif action is Action.check:
        check_topics(kafka, admin=admin)
    states = describe_topics(kafka, admin)
    if json:
        terminal.write_json(
            {
                "created": made,
                "altered": [state.name for state in changed],
                "topics": [_fields(state) for state in states],
            }
        )
        return 0
    if action is Action.describe:
        _show(terminal, states)
    for name in made:
        terminal.write_line(f"created {name}")
    for state in changed:
        terminal.write_line(f"altered {state.name}: it was {'; '.join(state.differences)}")
    if action is not Action.describe and not made and not changed:
        terminal.write_line(f"{len(states)} topics are there: nothing to do")
    if action is Action.create and any(state.differences for state in states):
        terminal.write_line(
            "some differ from the settings: see `headrace topics describe`, then `alter`"
        )
    return 0


def _fields(state: TopicState) -> dict[str, Any]:
    return {
        "name": state.name,
        "partitions": state.partitions,
        "replicas": state.replicas,
        "messages": list(state.topic.messages),
        "config": dict(state.config),
        "differences": list(state.differences),
    }


def _show(terminal: Terminal, states: list[TopicState]) -> None:
    columns = ("topic", "partitions", "replicas", "kept", "message", "differs")
    rows = [
        (
            state.name,
            state.partitions,
            state.replicas,
            _kept(state),
            sized(int(state.config.get("max.message.bytes", 0))) if state.config else None,
            "; ".join(state.differences) or "no",
        )
        for state in states
    ]
    show_table(terminal, "topics", columns, rows, right=("partitions", "replicas", "message"))


def _kept(state: TopicState) -> str:
    if state.config.get("cleanup.policy") == "compact":
        return "newest of each key"
    found = []
    size, age = (int(state.config.get(f"retention.{key}", -1)) for key in ("bytes", "ms"))
    if size >= 0:
        found.append(f"{sized(size)} a partition")
    if age >= 0:
        found.append(f"{age / 3_600_000:g} h")
    return ", ".join(found) or "for ever"
