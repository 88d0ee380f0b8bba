"""A query in, its result out in any format of ClickHouse: `headrace sql`."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from infra.attached import attached, chain_of, http_address
from infra.clickhouse_http import HttpAddress, fetch_text, parse_address, stream_query
from infra.options import ConfigOption, DataOption, read_settings
from infra.readable_bytes import SETTINGS, is_binary, readable_query
from schemas.errors_settings import ClickHouseUnreachable, QueryMissing, QueryRefused

EXAMPLES = (
    'headrace sql "SELECT max(block_number) FROM blocks"',
    'headrace sql --format CSV "SELECT * FROM erc20_transfers LIMIT 10" > transfers.csv',
    "headrace sql --clickhouse http://user:password@host:8123/ethereum < query.sql",
)


def sql(
    query: Annotated[
        str | None, typer.Argument(help="One statement; read from standard input if left out.")
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    clickhouse: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Another ClickHouse: http://user:password@host:8123/db."),
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Any format of ClickHouse: Pretty, CSV, JSON, TSV, Parquet, … "
            "(default: PrettyCompact on a TTY, else TSV).",
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", metavar="", help="Bytes as they are instead of 0x… text.")
    ] = False,
) -> int:
    """Query the tables, while `run` is running and when it is not.

    Hashes and addresses are bytes in ClickHouse and come out as 0x… text; write them as
    addr('0x…') and hash('0x…') in conditions. Reads only, as the user `analyst`.
    """
    text = query if query is not None else _standard_input()
    if not text.strip():
        raise QueryMissing
    chosen = output_format or ("PrettyCompact" if sys.stdout.isatty() else "TSV")
    if clickhouse is not None:
        _write(_answer(parse_address(clickhouse), text, chosen, raw))
        return 0
    settings = read_settings(config, data_dir=data)
    chain = chain_of(settings.data_dir)
    for last in (False, True):
        with attached(settings.data_dir, settings.limits.server) as server:
            try:
                chunks = _answer(http_address(server, chain), text, chosen, raw)
                begun = next(chunks, b"")
            except ClickHouseUnreachable:
                # The server was of another query, which has just ended: ours is started then.
                if last:
                    raise
                continue
            _write(itertools.chain([begun], chunks))
            break
    return 0


def _standard_input() -> str:
    return "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()


def _answer(address: HttpAddress, query: str, chosen: str, raw: bool) -> Iterator[bytes]:
    """The result, with bytes as text where the format is text."""
    values = {"default_format": chosen}
    if chosen.lower().startswith("pretty"):
        values["output_format_pretty_color"] = "1" if sys.stdout.isatty() else "0"
        # "-- 34.19 sextillion" beside a row makes it wider than the terminal.
        values["output_format_pretty_single_large_number_tip_threshold"] = "0"
    shown = None
    if not raw and not is_binary(chosen):
        try:
            shown = readable_query(query, lambda text: fetch_text(address, text))
        except QueryRefused:
            # The query itself is refused, or ends in FORMAT or SETTINGS: it runs as it stands.
            shown = None
    if shown is not None:
        return stream_query(address, shown, values | SETTINGS)
    return stream_query(address, query, values)


def _write(chunks: Iterator[bytes]) -> None:
    try:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough (`headrace sql … | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
