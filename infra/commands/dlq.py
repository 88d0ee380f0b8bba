"""Messages that a role refused in; listed, shown and driven again out: `headrace dlq`."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from infra.exit_codes import ExitCode
from infra.options import ConfigOption, JsonOption, read_settings
from infra.terminal import Terminal, open_terminal, show_table, sized
from schemas.errors_roles import DeadLetterUnknown
from sinks.dead_letters import Letter

EXAMPLES = (
    "headrace dlq list --config headrace.toml",
    "headrace dlq show 0:17",
    "headrace dlq redrive 0:17 2:3",
    "headrace dlq redrive --all --code HR-6306",
)


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
    json: JsonOption = False,
) -> int:
    """Cluster: look at the messages that a role refused, and drive them again.

    Nothing waits for them: what they held is missing until they are driven again, or their range is
    replayed. Mend the cause first; what is refused again becomes a new letter.
    """
    settings = read_settings(config)
    terminal = open_terminal(json=json)
    # Heavy imports wait for their command.
    from infra.roles.dead_letters import read_letters, redrive  # noqa: PLC0415

    found = read_letters(settings.kafka).all()
    named = {letter.id: letter for letter in found}
    for one in letters or ():
        if one not in named:
            raise DeadLetterUnknown(letter=one)
    chosen = [named[one] for one in letters] if letters else found
    chosen = [
        one
        for one in chosen
        if code in (None, one.letter.reason_code) and topic in (None, one.letter.topic)
    ]
    if action is Action.list:
        _list(terminal, chosen)
        return int(ExitCode.ok)
    if not letters and not every:
        raise typer.BadParameter(f"name the letters to {action.value}, or say --all")
    if action is Action.show:
        _show(terminal, chosen)
        return int(ExitCode.ok)
    due = chosen if letters else [one for one in chosen if not one.redriven]
    done = redrive(settings.kafka, due, lambda _letter: None)
    _tell(terminal, [one.id for one in done.driven], [str(error) for _, error in done.unfit])
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
        "size_bytes": len(letter.value),
        "redriven": one.redriven,
    }


def _list(terminal: Terminal, chosen: list[Letter]) -> None:
    if terminal.json:
        terminal.write_json([_fields(one) for one in chosen])
        return
    columns = ("id", "at", "stage", "code", "topic", "partition", "offset", "size", "redriven")
    rows = [
        tuple(
            sized(len(one.letter.value)) if name == "size" else _fields(one)[name]
            for name in columns
        )
        for one in chosen
    ]
    show_table(terminal, "dead letters", columns, rows, right=("partition", "offset", "size"))


def _show(terminal: Terminal, chosen: list[Letter]) -> None:
    shown = [
        {**_fields(one), "headers": one.headers, "begins_with": one.letter.value[:64].hex()}
        for one in chosen
    ]
    if terminal.json:
        terminal.write_json(shown)
        return
    for fields in shown:
        show_table(terminal, f"dead letter {fields['id']}", ("what", "value"), list(fields.items()))


def _tell(terminal: Terminal, driven: list[str], unfit: list[str]) -> None:
    if terminal.json:
        terminal.write_json({"redriven": driven, "unfit": unfit})
        return
    terminal.write_line(f"{len(driven)} message(s) driven again")
    for reason in unfit:
        terminal.write_line(reason)


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
