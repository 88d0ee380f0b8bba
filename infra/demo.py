"""A synthetic chain in, a guided tour through a running index of it out: `headrace demo`."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.status import Status

from infra.clickhouse.server import RunningServer, find_running
from infra.demo_run import RunBeside
from infra.devchain import Budget, Chain, Fault, Spec, serve_in_thread
from infra.devchain.server import Serving
from infra.display import Display
from infra.exit_codes import ExitCode
from infra.terminal import show_table
from schemas.errors_infra import DemoRunEnded
from sinks.connection import Connection

BLOCKS_BEFORE = 600
BLOCK_SECONDS = 1.0
FINALITY_DEPTH = 24
REORG_DEPTH = 4
LIAR = 2
"""Which endpoint lies."""
WAIT_SECONDS = 300.0

QUERIES = {
    "Rows by table, of one legal chain at one block": """
        SELECT (SELECT max(block_number) FROM blocks) AS head,
            (SELECT count() FROM blocks) AS blocks,
            (SELECT count() FROM transactions) AS transactions,
            (SELECT count() FROM logs) AS logs,
            (SELECT count() FROM erc20_transfers) AS erc20_transfers,
            (SELECT count() FROM uniswap_v3_swaps) AS v3_swaps,
            (SELECT count() FROM decode_failures) AS decode_failures""",
    "The most active ERC-20 tokens": """
        SELECT hex0x(address) AS token, count() AS transfers,
            uniqExact(from_address) AS senders, uniqExact(to_address) AS receivers
        FROM erc20_transfers GROUP BY address ORDER BY transfers DESC LIMIT 5""",
    "Uniswap V3 pools by swaps, with the last price tick": """
        SELECT hex0x(address) AS pool, count() AS swaps,
            argMax(tick, (block_number, log_index)) AS last_tick
        FROM uniswap_v3_swaps GROUP BY address ORDER BY swaps DESC LIMIT 5""",
    "What could not be decoded is a row, never silence": """
        SELECT block_number, log_index, layout, reason FROM decode_failures
        ORDER BY block_number DESC LIMIT 3""",
}

REORG_QUERIES = {
    "What the views showed, and show now": """
        SELECT formatDateTime(at, '%T') AS at, depth_blocks, old_head_number AS old_head,
            substring(hex0x(old_head_hash), 1, 14) AS old_hash, new_head_number AS new_head,
            substring(hex0x(new_head_hash), 1, 14) AS new_hash
        FROM reorgs ORDER BY reorgs.at DESC LIMIT 1""",
    "No row of a replaced block is left in any view": """
        SELECT count() AS orphaned_logs FROM logs
        WHERE block_hash NOT IN (SELECT block_hash FROM blocks)""",
}


def run_demo(display: Display, *, data_dir: Path | None, leave: bool) -> int:
    """Show the whole on a synthetic chain, then stay up until Ctrl-C, or leave.

    Parameters
    ----------
    display
        Where the tour is shown.
    data_dir
        Data directory; None takes one that is removed afterwards.
    leave
        Whether to end after the tour.

    Raises
    ------
    DemoRunEnded
        The run beside the tour ended, or did not get on.
    """
    display.note("SYNTHETIC: everything here comes from a chain that headrace makes up.", "bold")
    display.note(f"making {BLOCKS_BEFORE} blocks with tokens, pools, NFTs and swaps …")
    spec = Spec(
        budget=Budget(12, 40),
        finality_depth=FINALITY_DEPTH,
        safe_depth=FINALITY_DEPTH // 2,
        block_time_seconds=BLOCK_SECONDS,
        start_time=int(time.time() - BLOCKS_BEFORE * BLOCK_SECONDS),
    )
    chain = Chain(spec)
    chain.mine(BLOCKS_BEFORE)
    with (
        _directory(data_dir) as directory,
        serve_in_thread(chain, endpoints=3) as node,
        RunBeside(node.http_urls, directory) as run,
    ):
        tour = Tour(display, chain, node, run, directory)
        tour.show_backfill()
        with tour.connected():
            tour.show_queries()
            tour.show_reorg()
            tour.show_liar()
            if leave:
                display.note("\nThe tour is over: `headrace run --rpc URL` does this on a chain.")
                return int(ExitCode.ok)
            tour.stay()
    return int(ExitCode.ok)


class Tour:
    """The stations of the tour."""

    def __init__(
        self, display: Display, chain: Chain, node: Serving, run: RunBeside, directory: Path
    ) -> None:
        self._display, self._chain, self._node = display, chain, node
        self._run, self._directory = run, directory
        self._connection: Connection | None = None
        self._server: RunningServer | None = None

    def show_backfill(self) -> None:
        """Follow the backfill until the head is reached; blocks then come one a second."""
        self._say("1. Backfill: three endpoints serve the chain; every block is proven")
        self._display.note(f"   headrace run --rpc {' --rpc '.join(self._node.http_urls)}")
        head = self._chain.head.header.number
        began = time.monotonic()
        with self._busy("starting ClickHouse …") as moving:

            def reached(seen: dict[str, Any]) -> bool:
                if moving is not None:
                    moving.update(_backfill_line(seen, head + 1))
                return _visible(seen) >= head

            self._run.wait_for(reached, WAIT_SECONDS, "the backfill")
        seconds = time.monotonic() - began
        logs = sum(block.log_count for block in self._chain.blocks())
        self._display.note(
            f"   {head + 1:,} blocks and {logs:,} logs are queryable after {seconds:.1f} s, "
            "the start of ClickHouse included"
        )
        self._node.set_interval(BLOCK_SECONDS)

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """A connection to the run's ClickHouse, as the analyst that queries it."""
        server = find_running(self._directory)
        if server is None:
            raise DemoRunEnded(what="ClickHouse", said="no server answers")
        self._server = server
        with Connection(server.endpoint("analyst", "local")) as connection:
            self._connection = connection
            yield

    def show_queries(self) -> None:
        """Sample queries and what they give."""
        self._say("2. SQL, while blocks keep coming in")
        for title, sql in QUERIES.items():
            self._query(title, sql)

    def show_reorg(self) -> None:
        """Replace the newest blocks; every table changes with them, at once."""
        self._say(f"3. A reorg: the node replaces its last {REORG_DEPTH} blocks")
        before = self._run.snapshot["reorg_count"]
        self._node.set_interval(None)
        head = self._chain.head.header.number
        self._run.wait_for(lambda seen: _visible(seen) >= head, WAIT_SECONDS, "the head")
        self._chain.reorg(REORG_DEPTH)
        self._run.wait_for(lambda seen: seen["reorg_count"] > before, WAIT_SECONDS, "the reorg")
        for title, sql in REORG_QUERIES.items():
            self._query(title, sql)

    def show_liar(self) -> None:
        """Let one endpoint alter logs; nothing of it is published."""
        self._say("4. A lying provider: one endpoint alters logs, nothing of it is published")
        # The honest endpoints stumble for a moment, so that the liar is asked.
        self._node.set_fault(Fault("hang", delay_seconds=0.2), 0)
        self._node.set_fault(Fault("hang", delay_seconds=0.2), 1)
        self._node.set_fault(Fault("alter_logs"), LIAR)
        self._node.set_interval(BLOCK_SECONDS)
        with self._busy("waiting for a block that the liar is asked for …"):
            seen = self._run.wait_for(_has_quarantined, WAIT_SECONDS, "the liar")
            self._node.clear_faults()
            head = _visible(seen)
            seen = self._run.wait_for(
                lambda now: _visible(now) > head + 1, WAIT_SECONDS, "the head"
            )
        for provider in seen["providers"]:
            self._display.note(f"   {provider['name']}: {provider['state']} {provider['note']}")

    def stay(self) -> None:
        """Say how to query, and stay up until Ctrl-C."""
        assert self._server is not None
        self._say("5. Yours: the chain goes on, one block a second, until Ctrl-C")
        data = self._directory
        self._display.note(f'   headrace sql --data {data} "SELECT count() FROM logs"')
        self._display.note(f"   headrace status --data {data}")
        self._display.note(f"   headrace audit --data {data}")
        self._display.note(
            f"   any ClickHouse client: {self._server.host}:{self._server.tcp_port} (native), "
            f":{self._server.http_port} (HTTP), database local"
        )
        self._display.note(f"   … user analyst, password in {data / 'secrets' / 'analyst'}")
        with contextlib.suppress(KeyboardInterrupt):
            with self._busy("") as moving:
                while not self._run.ended:
                    time.sleep(1.0)
                    seen = self._run.snapshot
                    if isinstance(moving, Status):
                        moving.update(
                            f"head {seen.get('head_block')}, queryable to "
                            f"{seen.get('visible_block')}, {seen.get('reorg_count')} reorg(s)"
                        )
            raise DemoRunEnded(what="the run", said=self._run.said)
        self._display.note("stopping; the run drains first …")

    def _busy(self, text: str) -> contextlib.AbstractContextManager[Status | None]:
        """Something that moves while a person waits."""
        terminal = self._display.terminal
        return terminal.out.status(text) if terminal.live else contextlib.nullcontext()

    def _say(self, text: str) -> None:
        self._display.note(f"\n{text}", "bold cyan")

    def _query(self, title: str, sql: str) -> None:
        assert self._connection is not None
        rows, columns = self._connection.execute_with_types(sql)
        names: Sequence[str] = [name for name, _ in columns]
        if self._display.terminal.json:
            found = [dict(zip(names, row, strict=True)) for row in rows]
            self._display.terminal.write_json({"title": title, "rows": found})
            return
        self._display.note("")
        show_table(self._display.terminal, title, names, rows)


def _visible(seen: dict[str, Any]) -> int:
    """The visible height of a snapshot; -1 for none."""
    number = seen.get("visible_block")
    return number if isinstance(number, int) else -1


def _backfill_line(seen: dict[str, Any], total: int) -> str:
    """How far each stage of the run is."""
    done = [f"{stage['name']} {stage['blocks']:,}" for stage in seen["stages"]]
    return f"of {total:,} blocks: {', '.join(done)}, queryable {_visible(seen) + 1:,}"


def _has_quarantined(seen: dict[str, Any]) -> bool:
    return any(provider["state"] == "quarantined" for provider in seen["providers"])


@contextlib.contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    """The directory that was given, or one that is removed afterwards."""
    if given is not None:
        yield given
        return
    made = Path(tempfile.mkdtemp(prefix="headrace-demo-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
