"""A query in, the same query with its bytes as 0x… text out.

Hashes and addresses are fixed-size bytes in ClickHouse. People and text formats want them as
``0x…``; binary formats, and `--raw`, get the bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

BINARY_FORMATS = frozenset(
    {
        "arrow", "arrowstream", "avro", "bsonerow", "capnproto", "msgpack", "mysqlwire", "native",
        "npy", "null", "orc", "parquet", "protobuf", "protobuflist", "protobufsingle", "rawblob",
        "rowbinary", "rowbinarywithnames", "rowbinarywithnamesandtypes", "rowbinarywithdefaults",
    }
)  # fmt: skip

SETTINGS = {"query_plan_remove_redundant_sorting": "0"}
"""Else ClickHouse would drop the ORDER BY of the query inside."""

_FIXED = re.compile(r"FixedString\(\d+\)")
_NULLABLE_FIXED = re.compile(r"(?:LowCardinality\()?(?:Nullable\()?FixedString\(\d+\)\)*")
_LIST = re.compile(r"Array\((.*)\)")
_TEXT = "^[^\\\\x00-\\\\x08\\\\x0b\\\\x0c\\\\x0e-\\\\x1f\\\\x7f]*$"


def is_binary(output_format: str) -> bool:
    """Whether a format carries bytes as they are."""
    return output_format.lower() in BINARY_FORMATS


def readable_query(query: str, describe: Callable[[str], str]) -> str | None:
    """The query with every column of bytes as text, or None where it is to run as it stands.

    Parameters
    ----------
    query
        A statement by hand.
    describe
        Runs a statement and returns its result as text; raises where ClickHouse refuses it.
        It is asked for the columns of `query`, which only a SELECT has.
    """
    inner = query.strip().rstrip(";").rstrip()
    if not re.match(r"(?is)(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(?:select|with)\b", inner):
        return None
    lines = describe(f"DESCRIBE (\n{inner}\n) FORMAT JSONCompactEachRow").splitlines()
    columns = [json.loads(line)[:2] for line in lines if line]
    shown = [
        f"{expression} AS {_quoted(name)}"
        for name, kind in columns
        if (expression := _expression(_quoted(name), kind)) is not None
    ]
    if not shown or len({name for name, _ in columns}) != len(columns):
        return None
    return f"SELECT * REPLACE ({', '.join(shown)}) FROM (\n{inner}\n)"


def _expression(name: str, kind: str) -> str | None:
    if _NULLABLE_FIXED.fullmatch(kind):
        return f"concat('0x', lower(hex({name})))"
    if kind in ("String", "Nullable(String)"):
        # Bytes of any length have no type of their own: what is not text is shown as 0x….
        text = f"(isValidUTF8({name}) AND match({name}, '{_TEXT}'))"
        return f"if({text}, {name}, concat('0x', lower(hex({name}))))"
    listed = _LIST.fullmatch(kind)
    if listed and _FIXED.fullmatch(listed[1]):
        return f"arrayMap(b -> concat('0x', lower(hex(b))), {name})"
    return None


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
