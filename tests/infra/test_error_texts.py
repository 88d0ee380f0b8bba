"""Every command, option and setting that an error text names exists."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

import schemas
from infra.cli import build_app, command_names
from infra.docs_cli import settings_reference
from schemas.errors import HeadraceError

UNITS = "max|min|seconds|bytes|hours|factor|protocol|prefix|blocks|depth"


def error_classes() -> list[type[HeadraceError]]:
    for module in pkgutil.iter_modules(schemas.__path__, "schemas."):
        importlib.import_module(module.name)
    return [cls for cls in HeadraceError.registry.values() if cls.__module__.startswith("schemas.")]


def text_of(cls: type[HeadraceError]) -> str:
    """What a class always says: its templates without their placeholders."""
    return re.sub(r"\{[^}]*\}", "", f"{cls.what}\n{cls.why}\n{cls.fix}")


def options() -> Iterator[str]:
    group: Any = typer.main.get_command(build_app())
    todo = list(group.commands.values())
    while todo:
        command = todo.pop()
        todo += getattr(command, "commands", {}).values()
        for parameter in command.params:
            yield from (*parameter.opts, *parameter.secondary_opts)


OPTIONS = frozenset(options())
SETTINGS = frozenset(re.findall(r"[a-z][a-z_0-9]*", settings_reference()))
COMMANDS = frozenset(command_names())


@pytest.mark.parametrize("cls", error_classes(), ids=lambda cls: cls.code)
def test_what_a_text_names_exists(cls: type[HeadraceError]) -> None:
    text = text_of(cls)
    named = re.findall(r"`headrace ([a-z]+)", text)
    assert COMMANDS.issuperset(named), named
    assert OPTIONS.issuperset(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)), text
    assert SETTINGS.issuperset(re.findall(rf"\b[a-z]+(?:_[a-z]+)*_(?:{UNITS})\b", text)), text
    assert SETTINGS.issuperset(re.findall(r"\[([a-z_.]+)\]", text)), text
