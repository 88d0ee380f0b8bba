"""A command line in, an exit code out: the console script `headrace`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from infra import commands
from infra.exit_codes import MEANINGS, ExitCode, exit_code_of
from infra.logs import configure_logs
from infra.terminal import open_terminal, show_error, show_trace, show_unexpected
from schemas.errors import HeadraceError

ORDER = (
    *("demo", "run", "sql", "status", "audit", "doctor", "rewind", "replay"),
    *("local", "topics", "migrate", "ingest", "process", "sink", "publish", "dlq"),
)
"""Commands in the order in which they are met; any other follows."""

HELP = """An EVM indexer whose every query sees one legal chain.

Blocks stream from RPC nodes into ClickHouse, proven against their headers; SQL sees one chain,
at one block, in every table at once.
"""


class _Command(TyperCommand):
    """A command whose `--help` shows no type: it takes no value."""

    def get_help_option(self, ctx: Any) -> Any:
        return _untyped(super().get_help_option(ctx))


class _Group(TyperGroup):
    """The same of all commands together."""

    def get_help_option(self, ctx: Any) -> Any:
        return _untyped(super().get_help_option(ctx))


def _untyped(option: Any) -> Any:
    if option is not None:
        option.metavar = ""
    return option


def command_names() -> list[str]:
    """The name of every command."""
    found = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    return sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else 99, name))


def build_app(names: Sequence[str] | None = None) -> typer.Typer:
    """The application with these commands of infra/commands; None takes every one."""
    app = typer.Typer(
        name="headrace",
        cls=_Group,
        help=HELP,
        epilog="Exit codes: "
        + "; ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items())
        + ".",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    app.callback()(_global_options)
    for name in command_names() if names is None else names:
        module = importlib.import_module(f"infra.commands.{name}")
        epilog = "\n\n".join(["Examples:", *(f"$ {line}" for line in module.EXAMPLES)])
        app.command(name, cls=_Command, epilog=epilog)(getattr(module, name))
    return app


def _version(shown: bool) -> None:
    if shown:
        sys.stdout.write(f"headrace {metadata.version('headrace')}\n")
        raise typer.Exit


def _global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_version, is_eager=True, help="Show the version."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", metavar="", help="Tracebacks of unexpected errors, and more logs."),
    ] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", metavar="", help="Logs as JSON lines, also on a TTY.")
    ] = False,
) -> None:
    configure_logs(json=True if log_json else None, level="debug" if debug else "info")


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; the one place where errors become exit codes.

    Parameters
    ----------
    arguments
        The command line without the program's name; None takes the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    words, general = _general_first(words)
    terminal = open_terminal(json="--json" in words, debug="--debug" in general)
    try:
        code = _run([*general, *words])
    except typer.TyperException as error:
        # Typer's own text: which flag, what it takes, and the command's usage.
        error.show()  # type: ignore[attr-defined]
        return int(ExitCode.usage)
    except HeadraceError as error:
        show_error(terminal, error)
        if terminal.debug:
            show_trace(error)
        return int(exit_code_of(error))
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("\ninterrupted; what was done is kept\n")
        return int(ExitCode.interrupted)
    except Exception as error:  # noqa: BLE001 - the last line of defence: it is shown, coded 1
        show_unexpected(terminal, error)
        return int(ExitCode.failed)
    return int(code)


def _general_first(words: list[str]) -> tuple[list[str], list[str]]:
    """Let --debug and --log-json stand anywhere before `--`."""
    end = words.index("--") if "--" in words else len(words)
    general = [word for word in words[:end] if word in ("--debug", "--log-json")]
    rest = [word for word in words[:end] if word not in ("--debug", "--log-json")]
    return rest + words[end:], general


def _asked(words: list[str]) -> list[str] | None:
    """The commands that these words need: loading all takes longer than many of them run."""
    first = next((word for word in words if not word.startswith("--")), None)
    if first is None:
        return [] if "--version" in words else None
    return [first] if first in command_names() else None


def _run(words: list[str]) -> int:
    app = build_app(_asked(words))
    result: Any = app(words, prog_name="headrace", standalone_mode=False)
    return result if isinstance(result, int) else 0


def script() -> None:
    """`python -m infra.cli`."""
    sys.exit(main())


if __name__ == "__main__":
    script()
