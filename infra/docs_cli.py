"""The command line and the settings as declared in, their reference in Markdown out."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import typing
from itertools import pairwise
from typing import Any

import typer.main
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from infra.cli import build_app, command_names
from infra.docs_tables import markdown_table
from infra.exit_codes import MEANINGS
from infra.settings import NOT_IN_FILE, Limits, Settings, file_name


def cli_reference() -> str:
    """Every command with its flags and examples."""
    group: Any = typer.main.get_command(build_app())
    parts = []
    for name in command_names():
        module = importlib.import_module(f"infra.commands.{name}")
        command = group.commands[name]
        text = inspect.cleandoc(getattr(module, name).__doc__ or "")
        rows = [
            (_spelling(parameter), parameter.help or "")
            for parameter in command.params
            if parameter.name != "help"
        ]
        examples = "\n".join(f"$ {line}" for line in module.EXAMPLES)
        parts.append(
            f"### `headrace {name}`\n\n{text}\n\n"
            + markdown_table(("Flag", "Meaning"), rows)
            + f"\n```console\n{examples}\n```\n"
        )
    return "\n".join(parts)


def _spelling(parameter: Any) -> str:
    options = [option for option in parameter.opts if option.startswith("--")]
    if not options:
        return f"`{str(parameter.name).upper()}`"
    metavar = parameter.metavar or ("" if parameter.is_flag else "VALUE")
    return f"`{options[0]}{' ' + metavar if metavar else ''}`"


def exit_code_table() -> str:
    """Every exit code."""
    rows = [(str(code.value), meaning) for code, meaning in MEANINGS.items()]
    return markdown_table(("Exit code", "Meaning"), rows)


def settings_reference() -> str:
    """Every setting of headrace.toml, table by table."""
    parts = [_section("Top level", Settings, "`HEADRACE_<NAME>` in the environment.")]
    for name, title in (
        ("rpc", "`[[rpc]]`"),
        ("clickhouse", "`[clickhouse]`"),
        ("kafka", "`[kafka]`"),
        ("roles", "`[roles]`"),
        ("logs", "`[logs]`"),
        ("contracts", "`[[contracts]]`"),
    ):
        model = next(_models(Settings.model_fields[name].annotation))
        parts.append(_section(title, model, ""))
        parts += [
            _section(f"`{name}.{inner}`", nested, "")
            for inner, field in model.model_fields.items()
            for nested in _models(field.annotation)
        ]
    parts.append(_limits())
    return "\n".join(parts)


def _section(title: str, model: type[BaseModel], note: str) -> str:
    # Read here and not by pydantic, which would read and parse every class at each start.
    docs = attribute_docs(model)
    rows = [
        (f"`{file_name(name) if model is Settings else name}`", _default(field), docs[name])
        for name, field in model.model_fields.items()
        if name not in NOT_IN_FILE
    ]
    note = f"{note}\n\n" if note else ""
    return f"### {title}\n\n{note}" + markdown_table(("Key", "Default", "Meaning"), rows)


def _limits() -> str:
    rows = []
    for field in Limits.model_fields.values():
        group: Any = field.annotation
        docs = attribute_docs(group)
        rows += [
            (f"`{one.name}`", f"`{one.default}`", docs.get(one.name, ""))
            for one in dataclasses.fields(group)
        ]
    return (
        "### `[limits]`\n\nEvery bound by its name; `HEADRACE_LIMITS__<NAME>` in the environment."
        "\n\n" + markdown_table(("Key", "Default", "Meaning"), rows)
    )


def attribute_docs(owner: type) -> dict[str, str]:
    """The docstring under each field of a dataclass or a model."""
    (declared,) = ast.parse(inspect.getsource(owner)).body
    assert isinstance(declared, ast.ClassDef)
    return {
        field.target.id: " ".join(doc.value.value.split())
        for field, doc in pairwise(declared.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(doc, ast.Expr)
        and isinstance(doc.value, ast.Constant)
        and isinstance(doc.value.value, str)
    }


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, BaseModel):
        return "see below"
    if field.default in (None, ()):
        return "none"
    if isinstance(field.default, tuple):
        return " ".join(f"`{one}`" for one in field.default)
    return f"`{field.default}`"


def _models(annotation: Any) -> typing.Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models(inner)
