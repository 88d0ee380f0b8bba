"""headrace.toml, HEADRACE_* and flags in, `Settings` out, or an error that names the line.

Later sources win: file, environment, flags. Lists (`rpc`, `contracts`) are replaced, not joined.
"""

from __future__ import annotations

import difflib
import json
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from infra.settings import FILE_NAMES, NOT_IN_FILE, Contract, Settings, file_name, limit_groups
from infra.toml_lines import key_lines, line_of
from ingest.redact import redact_url
from schemas.chains import load_chains
from schemas.errors_settings import (
    AbiUnreadable,
    ChainUnknown,
    RangeInvalid,
    SettingInvalid,
    SettingsFileMissing,
    SettingsNotToml,
    SettingUnknown,
)

DEFAULT_FILE = Path("headrace.toml")
ENV_PREFIX = "HEADRACE_"
ENV_TYPO_CUTOFF = 0.75
"""How near a HEADRACE_* variable must be to a setting to be taken for a misspelt one."""

FLAGS = {
    "from_block": "--from",
    "to_block": "--to",
    "data_dir": "--data",
    "kafka__partitions": "--partitions",
    "roles__lanes": "--lanes",
    "roles__agents": "--agents",
}
TreePath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origins:
    """Where each value came from."""

    file: Path | None
    """The settings file, where one was read."""
    lines: Mapping[TreePath, int]
    """Lines of its keys, as the file spells them."""
    variables: Mapping[TreePath, str]
    """Environment variables by the path of their setting."""
    flags: frozenset[str]
    """Fields that a flag has set."""

    def where(self, path: TreePath) -> str:
        """The origin of the value at `path`, for people."""
        for length in range(len(path), 0, -1):
            flag = "__".join(map(str, path[:length]))
            if flag in self.flags:
                return f"flag {FLAGS.get(flag, '--' + flag)}"
        for length in range(len(path), 0, -1):
            if path[:length] in self.variables:
                return f"environment variable {self.variables[path[:length]]}"
        spelt = (file_name(str(path[0])) if path else "", *path[1:])
        line = line_of(self.lines, spelt)
        if self.file is None:
            return "settings"
        return f"{self.file} line {line}" if line else str(self.file)


def load_settings(
    config: Path | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    default_file: Path = DEFAULT_FILE,
) -> Settings:
    """Read, merge and validate every source.

    Parameters
    ----------
    config
        The settings file; None takes `default_file` where it exists.
    flags
        Values of command-line flags by field of `Settings`, of a table's field as
        `table__field`; None and () are left out.
    environ
        The environment.
    default_file
        What is read where `config` is None.

    Raises
    ------
    SettingsFileMissing, SettingsNotToml, SettingUnknown, SettingInvalid, ChainUnknown,
    RangeInvalid, AbiUnreadable
    """
    if config is None and default_file.exists():
        config = default_file
    text = _read(config) if config is not None else ""
    tree = _parse(config, text)
    lines = key_lines(text)
    _refuse_unknown(tree, config, lines)
    values = {FILE_NAMES.get(key, key): value for key, value in tree.items()}
    variables = _from_environment(environ)
    for path, name in variables.items():
        _set(values, path, _parsed(environ[name]))
    set_flags = {key: value for key, value in flags.items() if value not in (None, (), [])}
    for name, value in set_flags.items():
        _set(values, tuple(name.split("__")), value)
    origins = Origins(config, lines, variables, frozenset(set_flags))
    _check_limits(values, origins)
    _check_chain(values, origins)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise _invalid(error, origins) from None
    _check_range(settings)
    return _with_places(settings, origins, text)


def _read(config: Path) -> str:
    try:
        return config.read_text("utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise SettingsFileMissing(path=str(config)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsNotToml(path=str(config), reason=str(error)) from None


def _parse(config: Path | None, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsNotToml(path=str(config), reason=str(error)) from None


def known_keys(path: TreePath = ()) -> dict[str, bool]:
    """Keys that the table at `path` of the settings file takes; True marks further tables."""
    model: type[BaseModel] | None = Settings
    for part in path:
        if isinstance(part, int) or model is None:
            continue
        if part == "limits":
            return dict.fromkeys(limit_groups(), False)
        field = FILE_NAMES.get(part, part)
        annotation = model.model_fields[field].annotation if field in model.model_fields else None
        model = next(iter(_models(annotation)), None)
    if model is None:
        return {}
    return {
        (file_name(name) if not path else name): bool(list(_models(field.annotation)))
        for name, field in model.model_fields.items()
        if name not in NOT_IN_FILE
    }


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models(inner)


def _refuse_unknown(tree: Any, config: Path | None, lines: Mapping[TreePath, int]) -> None:
    for path in _paths(tree):
        keys = known_keys(path[:-1])
        if path[-1] not in keys:
            line = line_of(lines, path)
            raise SettingUnknown(
                key=_dotted(path),
                where=f"{config} line {line}" if line else str(config),
                suggestion=_suggest(str(path[-1]), list(keys)),
            )


def _paths(tree: Any, path: TreePath = ()) -> Iterable[TreePath]:
    """Paths of every key, parents first."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield (*path, key)
            yield from _paths(value, (*path, key))
    elif isinstance(tree, list):
        for position, value in enumerate(tree):
            yield from _paths(value, (*path, position))


def _dotted(path: TreePath) -> str:
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _suggest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"Known here: {', '.join(sorted(known)[:20])}."


def _single_tables() -> list[str]:
    """Names of the tables that a file has once, such as `[kafka]`."""
    return [
        file_name(name)
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    ]


def _from_environment(environ: Mapping[str, str]) -> dict[TreePath, str]:
    """Settings given by HEADRACE_* variables: path of the field → name of the variable."""
    tops = known_keys()
    nested = {
        f"{table}__{key}".upper(): (table, key)
        for table in _single_tables()
        for key in known_keys((table,))
    }
    spelt: dict[str, TreePath] = {
        name.upper(): (FILE_NAMES.get(name, name),) for name in tops if name != "contracts"
    }
    spelt |= nested
    found: dict[TreePath, str] = {}
    for variable in environ:
        name = variable.removeprefix(ENV_PREFIX)
        if not variable.startswith(ENV_PREFIX):
            continue
        if name in spelt:
            found[spelt[name]] = variable
            continue
        near = difflib.get_close_matches(name, list(spelt), n=1, cutoff=ENV_TYPO_CUTOFF)
        if near:
            raise SettingUnknown(
                key=name.lower(),
                where=f"environment variable {variable}",
                suggestion=f"Did you mean {ENV_PREFIX}{near[0]}?",
            )
    return found


def _set(values: dict[str, Any], path: TreePath, value: object) -> None:
    table = values
    for part in path[:-1]:
        table[str(part)] = dict(table.get(str(part), {}))
        table = table[str(part)]
    table[str(path[-1])] = value


def _parsed(text: str) -> object:
    """A variable's text; lists and tables may be written as JSON."""
    if text[:1] in "[{" and text:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _check_limits(values: Mapping[str, Any], origins: Origins) -> None:
    limits = values.get("limits", {})
    for name, value in limits.items() if isinstance(limits, dict) else ():
        number = value if isinstance(value, int | float) else None
        if number is not None and number <= 0:
            raise SettingInvalid(
                key=f"limits.{name}",
                value=value,
                where=origins.where(("limits", name)),
                reason="A limit is a positive number",
                suggestion="Raise it, or leave it out for the default.",
            )


def _check_chain(values: Mapping[str, Any], origins: Origins) -> None:
    chain = values.get("chain")
    if chain is not None and chain not in load_chains():
        raise ChainUnknown(
            chain=chain,
            where=origins.where(("chain",)),
            suggestion=_suggest(str(chain), list(load_chains()))
            + " For a chain of your own, `local` takes any chain id.",
        )


def _check_range(settings: Settings) -> None:
    first, last = settings.from_block, settings.to_block
    if first is not None and isinstance(last, int) and first > last:
        raise RangeInvalid(from_block=first, to_block=last)


def _with_places(settings: Settings, origins: Origins, text: str) -> Settings:
    """Contracts with file and line, and with ABI paths that start at the settings file."""
    folder = origins.file.parent if origins.file is not None else Path()
    contracts = []
    for position, contract in enumerate(settings.contracts):
        path: TreePath = ("contracts", position)
        places: dict[str, object] = {"declared_at": origins.where(path)}
        places["events_declared_at"] = tuple(
            _place_of(event, origins, (*path, "events"), text) for event in contract.events
        )
        if contract.factory is not None:
            where = origins.where((*path, "factory"))
            places["factory"] = contract.factory.model_copy(update={"declared_at": where})
        if contract.abi is not None:
            places["abi"] = _checked_abi(folder / contract.abi, contract)
        contracts.append(contract.model_copy(update=places))
    return settings.model_copy(update={"contracts": tuple(contracts)})


def _place_of(event: str, origins: Origins, path: TreePath, text: str) -> str:
    """File and line of one of several event signatures."""
    start = line_of(origins.lines, path) or 1
    for number, line in enumerate(text.splitlines()[start - 1 :], start):
        if event in line:
            return f"{origins.file} line {number}"
    return origins.where(path)


def _checked_abi(path: Path, contract: Contract) -> Path:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AbiUnreadable(path=str(path), contract=contract.name, reason=reason) from None
    return path


def _invalid(error: ValidationError, origins: Origins) -> SettingInvalid:
    first = error.errors(include_url=False)[0]
    path = tuple(
        part for part in first["loc"] if isinstance(part, int) or part.replace("_", "").isalnum()
    )
    path = _without_union_tags(path)
    spelt = (file_name(str(path[0])), *path[1:]) if path else ()
    reason = first["msg"].removeprefix("Value error, ")
    return SettingInvalid(
        key=_dotted(spelt),
        value=_shown(path, first["input"]),
        where=origins.where(path),
        reason=reason[:1].upper() + reason[1:],
        suggestion="Correct the value; docs/cli.md lists every setting with its default.",
    )


def _without_union_tags(path: TreePath) -> TreePath:
    """pydantic adds the branch of a union (`int`, `tuple[…]`) to a location: drop it."""
    groups = set(Settings.model_fields["limits"].annotation.model_fields)  # type: ignore[union-attr]
    keys = (
        {
            key
            for table in ((), ("rpc",), ("contracts",), *((name,) for name in _single_tables()))
            for key in known_keys(table)
        }
        | set(FILE_NAMES.values())
        | set(limit_groups())
    )
    keys |= {"address", "event", "parameter"}
    return tuple(
        part for part in path if isinstance(part, int) or (part in keys and part not in groups)
    )


def _shown(path: TreePath, value: object) -> str:
    """The value as an error may show it: an endpoint's address never in full, a secret never."""
    if path and path[0] == "rpc" and path[-1] != "weight":
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        return redact_url(text) if isinstance(text, str) and "//" in text else "of this form"
    if isinstance(value, Mapping) or _secret(path):
        return "of this form"
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _secret(path: TreePath) -> bool:
    """Whether the field at `path` of a table holds a secret."""
    if len(path) != 2 or path[0] not in Settings.model_fields:
        return False
    for model in _models(Settings.model_fields[path[0]].annotation):
        field = model.model_fields.get(str(path[1]))
        if field is not None and "SecretStr" in str(field.annotation):
            return True
    return False
