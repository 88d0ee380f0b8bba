"""TOML text in, the line of every key out, so that an error can point at it."""

from __future__ import annotations

import re
from collections.abc import Mapping

Path = tuple[str | int, ...]

_TABLE = re.compile(r"\s*\[(?P<name>[^\[\]]+)\]\s*(#.*)?$")
_ARRAY_TABLE = re.compile(r"\s*\[\[(?P<name>[^\[\]]+)\]\]\s*(#.*)?$")
_KEY = re.compile(r"""\s*(?P<key>(?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"))*)\s*=""")
_STRING = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'')


def key_lines(text: str) -> dict[Path, int]:
    """Map each key's path (with indexes for arrays of tables) to its line, counted from 1.

    The text must have parsed as TOML. Keys inside inline tables share the line of their table's
    key: look paths up with `line_of`, which falls back to the nearest parent.
    """
    lines: dict[Path, int] = {}
    arrays: dict[Path, int] = {}
    table: Path = ()
    depth = 0
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        if fence:
            fence = "" if fence in line else fence
            continue
        if depth == 0:
            if found := _ARRAY_TABLE.match(line):
                name = _resolve(_split(found["name"]), arrays)
                arrays[name] = arrays.get(name, -1) + 1
                table = (*name, arrays[name])
                lines.setdefault(name, number)
                lines[table] = number
                continue
            if found := _TABLE.match(line):
                table = _resolve(_split(found["name"]), arrays)
                lines.setdefault(table, number)
                continue
            if found := _KEY.match(line):
                lines[(*table, *_split(found["key"]))] = number
        fence, depth = _open_after(line, depth)
    return lines


def line_of(lines: Mapping[Path, int], path: Path) -> int | None:
    """The line of `path`, or of its nearest parent that has one."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _split(dotted: str) -> Path:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _resolve(name: Path, arrays: Mapping[Path, int]) -> Path:
    """A header's name, with the index of the newest element for each array of tables above it."""
    resolved: Path = ()
    for position, part in enumerate(name):
        resolved = (*resolved, part)
        if resolved in arrays and position < len(name) - 1:
            resolved = (*resolved, arrays[resolved])
    return resolved


def _open_after(line: str, depth: int) -> tuple[str, int]:
    """The multi-line string that is open after `line`, and how many brackets are."""
    for fence in ('"""', "'''"):
        if line.count(fence) % 2:
            return fence, depth
    code = _STRING.sub("", line).partition("#")[0]
    opened = code.count("[") + code.count("{") - code.count("]") - code.count("}")
    return "", depth + opened
