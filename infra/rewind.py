"""A block in, a visible chain that ends there out: what `headrace rewind` does."""

from __future__ import annotations

from collections.abc import Callable

from infra.attached import chain_of
from infra.clickhouse.server import EmbeddedServer
from infra.contracts import declare_contracts
from infra.display import Display
from infra.exit_codes import ExitCode
from infra.settings import Settings
from processors.abi import build_layouts
from schemas.chains import load_chains
from schemas.tables import CORE_TABLES
from sinks.connection import Connection
from sinks.rewind import Rewinder


def run_rewind(
    settings: Settings, to_block: int, display: Display, confirm: Callable[[str, int], None]
) -> int:
    """Make `to_block` the visible head of a data directory that nobody runs on.

    Parameters
    ----------
    settings
        The process's.
    to_block
        The last block that stays visible.
    display
        Told of the result.
    confirm
        Called with the chain's name and its visible head before anything changes; raises to stop.

    Raises
    ------
    DataDirectoryInUse
        A run owns the directory: stop it first.
    HeadraceError
        NothingVisible, BelowFloor, AboveHead, or another of HR-40xx.
    """
    chain = chain_of(settings.data_dir)
    tables = (*CORE_TABLES, *build_layouts(declare_contracts(settings)).tables)
    with (
        EmbeddedServer(
            settings.data_dir, chain=chain, limits=settings.limits.server, supervise=False
        ) as server,
        Connection(server.endpoint(database=chain)) as connection,
    ):
        ((segment, partition),) = connection.execute(
            "SELECT segment_blocks, partition_blocks FROM chain_facts"
        )
        facts = load_chains()[chain].resized(segment, partition)
        rewinder = Rewinder(connection, chain, facts, tables)
        rewinder.finish()
        confirm(chain, rewinder.check(to_block).head.number)
        row = rewinder.rewind(to_block, "headrace rewind")
    if display.terminal.json:
        display.terminal.write_json({"head": row.head.number, "hash": f"0x{row.head.hash.hex()}"})
    else:
        display.note(f"block {row.head.number:,} is the visible head now; `headrace run` goes on")
    return int(ExitCode.ok)
