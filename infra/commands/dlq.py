"""Messages that a role refused in; listed, shown and driven again out: `headrace dlq`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from infra.exit_codes import ExitCode
from infra.options import ConfigOption, JsonOption, read_settings
from infra.terminal import Terminal, open_terminal, show_table, sized
from schemas.errors_roles import DeadLetterUnknown
from sinks.dead_letters import Letter, Letters

EXAMPLES = (
    "headrace dlq list --config headrace.toml",
    "headrace dlq list --topic raw.logs.head --oldest --limit 1000",
    "headrace dlq show 0:17",
    "headrace dlq redrive 0:17 2:3",
    "headrace dlq redrive --all --code HR-6306",
)


LIST_LETTERS = 100
"""How many letters are listed where nothing else is asked."""


class Action(StrEnum):
    """What to do with dead letters."""

    list = "list"
    show = "show"
    redrive = "redrive"


def dlq(
    action: Annotated[Action, typer.Argument(metavar="list|show|redrive", help="What to do.")],
    letters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PARTITION:OFFSET]...", help="Which letters, by their ids."),
    ] = None,
    config: ConfigOption = None,
    code: Annotated[
        str | None, typer.Option("--code", metavar="HR-NNNN", help="Only those of one reason.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", metavar="NAME", help="Only those of one topic.")
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", metavar="", help="Redrive every letter that was not driven yet."),
    ] = False,
    limit: Annotated[
        int,
        typer.Option("--limit", metavar="N", min=1, help="How many are listed at most."),
    ] = LIST_LETTERS,
    oldest: Annotated[
        bool, typer.Option("--oldest", metavar="", help="List the oldest, not the newest, first.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Cluster: look at the messages that a role refused, and drive them again.

    Nothing waits for them: what they held is missing until they are driven again, or their range is
    replayed. Mend the cause first; what is refused again becomes a new letter.
    """
    settings = read_settings(config)
    terminal = open_terminal(json=json)
    # Heavy imports wait for their command.
    from infra.roles.dead_letters import (  # noqa: PLC0415
        read_letters,
        redrive,
        whole_letters,
    )

    def wanted(one: Letter) -> bool:
        named = not letters or one.id in letters
        return (
            named and code in (None, one.letter.reason_code) and topic in (None, one.letter.topic)
        )

    if action is Action.list:
        listed = Letters(wanted, limit, newest=not oldest)
        _list(terminal, read_letters(settings.kafka, listed), listed.found)
        return int(ExitCode.ok)
    if not letters and not every:
        raise typer.BadParameter(f"name the letters to {action.value}, or say --all")
    chosen = read_letters(settings.kafka, Letters(wanted))
    for one in letters or ():
        if one not in {letter.id for letter in chosen}:
            raise DeadLetterUnknown(letter=one)
    if action is Action.show:
        _show(terminal, whole_letters(settings.kafka, chosen))
        return int(ExitCode.ok)
    due = chosen if letters else [one for one in chosen if not one.redriven]
    done = redrive(settings.kafka, whole_letters(settings.kafka, due))
    _tell(terminal, done.driven, [str(error) for error in done.unfit])
    return int(ExitCode.failed if done.unfit else ExitCode.ok)


def _fields(one: Letter) -> dict[str, Any]:
    letter = one.letter
    return {
        "id": one.id,
        "at": _time(letter.observed_at_ms),
        "stage": letter.stage,
        "code": letter.reason_code,
        "reason": letter.reason,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "key": letter.key.decode(errors="replace"),
        "size_bytes": one.size_bytes,
        "redriven": one.redriven,
    }


def _list(terminal: Terminal, chosen: list[Letter], found: int) -> None:
    if terminal.json:
        terminal.write_json([_fields(one) for one in chosen])
        return
    columns = ("id", "at", "stage", "code", "topic", "partition", "offset", "size", "redriven")
    rows = [
        tuple(sized(one.size_bytes) if name == "size" else _fields(one)[name] for name in columns)
        for one in chosen
    ]
    show_table(terminal, "dead letters", columns, rows, right=("partition", "offset", "size"))
    if found > len(chosen):
        terminal.write_line(f"{len(chosen)} of {found} letters; --limit {found} lists all")


def _show(terminal: Terminal, chosen: Iterator[Letter]) -> None:
    shown = [
        {**_fields(one), "headers": one.headers, "begins_with": one.letter.value[:64].hex()}
        for one in chosen
    ]
    if terminal.json:
        terminal.write_json(shown)
        return
    for fields in shown:
        show_table(terminal, f"dead letter {fields['id']}", ("what", "value"), list(fields.items()))


def _tell(terminal: Terminal, driven: Sequence[str], unfit: Sequence[str]) -> None:
    if terminal.json:
        terminal.write_json({"redriven": list(driven), "unfit": list(unfit)})
        return
    terminal.write_line(f"{len(driven)} message(s) driven again")
    for reason in unfit:
        terminal.write_line(reason)


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
