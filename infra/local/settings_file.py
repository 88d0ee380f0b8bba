"""Settings in, the text of a headrace.toml that says the same out."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from infra.settings import NOT_IN_FILE, Limits, Settings, file_name


def settings_toml(settings: Settings) -> str:
    """Everything that differs from its default, secrets included: for a file of mode 0600.

    Paths become absolute, as the file lies elsewhere than the one they were read from.
    """
    lines = ["# Written by `headrace local up`; it is written anew each time.", ""]
    tables: list[str] = []
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if value == field.default:
            continue
        if isinstance(value, Limits):
            tables += ["", "[limits]", *_limits(value)]
        elif isinstance(value, BaseModel):
            tables += ["", f"[{file_name(name)}]", *_fields(value)]
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for one in value:
                tables += ["", f"[[{file_name(name)}]]", *_fields(one)]
        else:
            lines.append(f"{file_name(name)} = {_toml(value)}")
    return "\n".join([*lines, *tables, ""])


def _fields(model: BaseModel) -> list[str]:
    return [
        f"{name} = {_toml(getattr(model, name))}"
        for name, field in type(model).model_fields.items()
        if name not in NOT_IN_FILE
        and getattr(model, name) is not None
        and getattr(model, name) != field.default
    ]


def _limits(limits: Limits) -> list[str]:
    found = []
    for group, field in Limits.model_fields.items():
        given = getattr(limits, group)
        found += [
            f"{name} = {_toml(getattr(given, name))}"
            for name in type(given).__dataclass_fields__
            if getattr(given, name) != getattr(field.default, name)
        ]
    return found


def _toml(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, BaseModel):
        return "{ " + ", ".join(_fields(value)) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    if isinstance(value, Enum):
        return json.dumps(value.name)
    if isinstance(value, Path):
        value = str(value.absolute())
    # TOML's basic strings, integers, floats and booleans are JSON's.
    return json.dumps(value)
