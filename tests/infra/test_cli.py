"""Every command by enumeration: help, examples, errors, exit codes."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from infra import cli
from infra.exit_codes import ExitCode, exit_code_of
from schemas.errors import HeadraceError, Permanent
from schemas.errors_ingest import ChainIdWrong, StartBeyondHead
from schemas.errors_settings import SettingUnknown
from schemas.errors_verify import ReceiptsRootMismatch

NAMES = (
    *("run", "sql", "status", "audit", "doctor", "demo", "rewind"),
    *("ingest", "topics", "process", "sink", "migrate", "local", "replay"),
    *("publish", "dlq"),
)
"""The spellings that others rely upon."""


def module_of(name: str) -> Any:
    return importlib.import_module(f"infra.commands.{name}")


def test_the_commands_are_those_relied_upon() -> None:
    assert sorted(cli.command_names()) == sorted(NAMES)


@pytest.mark.parametrize("name", cli.command_names())
def test_a_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == ExitCode.ok

    shown = capsys.readouterr().out
    assert f"Usage: headrace {name}" in shown
    assert "Examples:" in shown
    assert f"$ headrace {name}" in shown
    assert "<bool>" not in shown, "a flag takes no value"


@pytest.mark.parametrize("name", cli.command_names())
def test_examples_are_of_their_command_and_use_flags_it_has(name: str) -> None:
    group: Any = typer.main.get_command(cli.build_app())
    flags = {flag for parameter in group.commands[name].params for flag in parameter.opts}
    for example in module_of(name).EXAMPLES:
        words = shlex.split(example)
        assert words[:2] == ["headrace", name]
        assert {word for word in words if word.startswith("--")} <= flags


@pytest.mark.parametrize("name", cli.command_names())
def test_every_flag_has_a_help_text(name: str) -> None:
    group: Any = typer.main.get_command(cli.build_app())
    for parameter in group.commands[name].params:
        assert parameter.help, f"{name} {parameter.name}"


def test_flags_of_run_are_those_relied_upon() -> None:
    group: Any = typer.main.get_command(cli.build_app())
    flags = {flag for parameter in group.commands["run"].params for flag in parameter.opts}

    assert flags >= {
        *("--config", "--chain", "--rpc", "--from", "--to", "--source", "--verify", "--data"),
    }


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["run", "--nonsense"],
        ["run", "--verify", "most"],
        ["run", "--from", "-1"],
        ["run", "--from", "x"],
        ["rewind"],
        ["sql", "SELECT 1", "SELECT 2"],
    ],
    ids=" ".join,
)
def test_a_misused_command_line_is_code_2_and_no_traceback(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == ExitCode.usage

    shown = capsys.readouterr().err
    assert "Error" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["run"], "HR-1006", 2),
        (["run", "--chain", "etherium"], "HR-1005", 2),
        (["run", "--config", "none.toml"], "HR-1001", 2),
        (["run", "--from", "5", "--to", "4", "--rpc", "http://127.0.0.1:1"], "HR-1007", 2),
        (["run", "--to", "soon", "--rpc", "http://127.0.0.1:1"], "HR-1004", 2),
        (["sql", "--data", "none", "SELECT 1"], "HR-1030", 4),
        (["sql", ""], "HR-1020", 2),
        (["sql", "--clickhouse", "ftp://host", "SELECT 1"], "HR-1022", 2),
        (["sql", "--clickhouse", "http://u:hidden@127.0.0.1:1/", "SELECT 1"], "HR-1023", 4),
        (["status", "--data", "none"], "HR-1030", 4),
        (["audit", "--data", "none"], "HR-1030", 4),
        (["rewind", "--to", "5", "--data", "none"], "HR-1030", 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_says_what_why_and_what_to_do(
    words: list[str],
    code: str,
    exit_code: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)

    assert cli.main(words) == exit_code

    what, why, fix = capsys.readouterr().err.splitlines()
    assert what.startswith(f"error {code}: ")
    assert why.startswith("  why ")
    assert fix.startswith("  do  ")
    assert "hidden" not in what


def test_a_mistake_in_the_default_settings_file_names_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.toml").write_text('chain = "base"\nform = 5\n')

    assert cli.main(["run"]) == ExitCode.usage

    shown = capsys.readouterr().err
    assert "headrace.toml line 2" in shown
    assert "Did you mean `from`?" in shown


def test_an_error_is_json_for_scripts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["status", "--json", "--data", str(tmp_path / "none")]) == ExitCode.storage

    error = json.loads(capsys.readouterr().err)["error"]
    assert error["code"] == "HR-1030"
    assert set(error) == {"code", "what", "why", "fix"}


def broken(error: BaseException) -> Any:
    def command(json: bool = False) -> int:
        raise error

    return command


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make `headrace status` raise."""

    def make(error: BaseException) -> None:
        monkeypatch.setattr(module_of("status"), "status", broken(error))

    return make


class Odd(Permanent):
    """An error of a test, outside the registry of the product."""

    code = "HR-9999"
    what = "odd {thing}"
    why = "because of {thing}"
    fix = "do not"


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (SettingUnknown(key="a", where="b", suggestion="c"), ExitCode.usage),
        (StartBeyondHead(from_block=9, head=3), ExitCode.usage),
        (ChainIdWrong(endpoint="e", actual=1, chain="base", expected=2), ExitCode.usage),
        (Odd(thing="one"), ExitCode.failed),
        (KeyboardInterrupt(), ExitCode.interrupted),
        (typer.Abort(), ExitCode.interrupted),
        (RuntimeError("boom"), ExitCode.failed),
        (ZeroDivisionError(), ExitCode.failed),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_handler_maps_every_error(
    failing: Any, error: BaseException, exit_code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)

    assert cli.main(["status"]) == exit_code
    assert "Traceback" not in capsys.readouterr().err


def test_a_failed_proof_is_a_halt() -> None:
    assert exit_code_of(ReceiptsRootMismatch) is ExitCode.halted


def test_an_unexpected_error_asks_for_a_report_and_debug_shows_its_trace(
    failing: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(RuntimeError("boom"))

    cli.main(["status"])
    plain = capsys.readouterr().err
    cli.main(["status", "--debug"])
    debug = capsys.readouterr().err

    assert "boom" in plain
    assert "bug" in plain
    assert "Traceback" in debug
    assert "test_cli.py" in debug


@pytest.mark.parametrize("flags", [[], ["--debug"], ["--json"]], ids=str)
def test_no_secret_of_a_url_is_shown(
    failing: Any, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(RuntimeError("cannot reach https://user:hidden1@rpc.example/hidden2"))

    cli.main(["status", *flags])

    shown = capsys.readouterr().err
    assert "rpc.example#" in shown
    assert "hidden" not in shown


def test_a_coded_error_shows_its_trace_with_debug(
    failing: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(Odd(thing="one"))

    cli.main(["--debug", "status"])

    assert "Traceback" in capsys.readouterr().err


def test_errors_can_be_shown_with_any_text(
    failing: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Markup and braces in foreign text are text."""
    failing(Odd(thing="[bold]{x}[/nope]"))

    cli.main(["status"])

    assert "odd [bold]{x}[/nope]" in capsys.readouterr().err


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == ExitCode.ok
    assert capsys.readouterr().out.startswith("headrace ")


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--version"], []),
        (["--debug", "sql", "SELECT 1"], ["sql"]),
        (["--help"], None),
        (["sqll"], None),
        ([], None),
    ],
)
def test_only_what_is_asked_for_is_loaded(words: list[str], needed: list[str] | None) -> None:
    assert cli._asked(words) == needed


def test_help_of_all_commands_shows_no_types(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == ExitCode.ok
    assert "<bool>" not in capsys.readouterr().out


def test_no_arguments_show_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])

    shown = capsys.readouterr()
    for name in cli.command_names():
        assert name in shown.out + shown.err


def test_the_console_script_passes_the_exit_code_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "status", "--data", str(tmp_path / "none")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == ExitCode.storage
    assert "HR-1030" in done.stderr


def test_every_error_class_can_be_raised_with_its_own_data() -> None:
    """A template that names data nobody gives would hide the error behind a KeyError."""
    error: HeadraceError = Odd(thing="x")

    assert error.what_text == "odd x"
    assert error.why_text == "because of x"
