"""How long after the node has a block can all its rows be queried, at one block a second.

The claim: at most 500 ms at the median and 2 s at the 99th percentile, with 30 transactions and
100 logs a block, proven in full. Time begins when the node could first answer for the block, which
it also tells over a WebSocket; it ends when a query that reads `blocks`, `logs` and
`erc20_transfers` has returned the block from all three. That is looked for every 50 ms, so up to
so much is the benchmark's own. At the end every table is compared with the node's truth.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.headrace_command import HEADRACE, headrace_env
from benchmarks.measure import Sampler, record
from benchmarks.served import LOGS, TRANSACTIONS
from benchmarks.stored import compare, every_table
from infra.clickhouse.server import find_running
from infra.devchain.chain import Chain
from infra.devchain.planning import Budget
from infra.devchain.sealing import Spec
from infra.devchain.server import serve_in_thread
from infra.devchain.truth import Totals
from infra.exit_codes import ExitCode
from schemas.errors import HeadraceError
from sinks.connection import Connection

P50_MS_MAX, P99_MS_MAX = 500.0, 2_000.0
"""Claimed."""
PAST_BLOCKS = 100
"""Blocks that are there before the run begins."""
WARM_BLOCKS = 10
"""Live blocks that are not counted: connections open, modules load."""
POLL_SECONDS = 0.05
START_SECONDS_MAX = 60.0
CHAIN = "local"


class Watch:
    """Polls what is visible, in a thread of its own, and notes when each block came."""

    def __init__(self, data: Path) -> None:
        self.seen: dict[int, float] = {}
        self.stamped: dict[int, float] = {}
        self._data = data
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(POLL_SECONDS):
            running = find_running(self._data)
            if running is not None:
                with Connection(running.endpoint(database=CHAIN)) as connection:
                    self._follow(connection)

    def _follow(self, connection: Connection) -> None:
        shown = -1
        newest = "SELECT head, toUnixTimestamp64Milli(at) FROM canon"
        newest += " ORDER BY generation DESC, seq DESC LIMIT 1"
        while not self._stopping.wait(POLL_SECONDS):
            try:
                rows = connection.execute(newest)
                if not rows or rows[0][0] <= shown:
                    continue
                above = f"WHERE block_number > {shown}"
                (heights,) = connection.execute(
                    f"SELECT (SELECT max(block_number) FROM blocks {above}), "
                    f"(SELECT max(block_number) FROM logs {above}), "
                    f"(SELECT max(block_number) FROM erc20_transfers {above})"
                )
            except HeadraceError:
                continue  # The database is being made.
            at = time.time()
            visible = min(height or 0 for height in heights)
            for number in range(shown + 1, visible + 1):
                self.seen[number] = at
                self.stamped.setdefault(number, rows[0][1] / 1000)
            shown = max(shown, visible)


def mine(chain: Chain, blocks: int) -> dict[int, float]:
    """Mine a block a second; when each could first be asked for."""
    mined: dict[int, float] = {}
    due = time.monotonic()
    for _ in range(blocks):
        due += 1.0
        time.sleep(max(0.0, due - time.monotonic()))
        chain.mine()
        mined[chain.view.head] = time.time()
    return mined


def run(blocks: int) -> dict[str, Any]:
    """Follow `blocks` live blocks; raises if the tables are not the truth at the end."""
    start = int(time.time()) - PAST_BLOCKS
    spec = Spec(
        seed=7,
        chain_id=1337,
        budget=Budget(TRANSACTIONS, LOGS, True),
        finality_depth=64,
        safe_depth=32,
        block_time_seconds=1.0,
        start_time=start,
    )
    chain = Chain(spec)
    chain.mine(PAST_BLOCKS)
    with (
        tempfile.TemporaryDirectory(prefix="headrace-head-latency-") as scratch,
        serve_in_thread(chain) as serving,
    ):
        data, config = Path(scratch) / "data", Path(scratch) / "headrace.toml"
        urls = f'url = "{serving.http_urls[0]}"\nwebsocket_url = "{serving.ws_urls[0]}"\n'
        config.write_text(f"[[rpc]]\n{urls}")
        words = ["run", "--config", str(config), "--chain", CHAIN, "--from", "0"]
        process = subprocess.Popen([*HEADRACE, *words, "--data", str(data)], env=headrace_env())
        started = time.perf_counter()
        sampler, watch = Sampler(process.pid), Watch(data)
        try:
            await_come(lambda: PAST_BLOCKS in watch.seen)
            mined = mine(chain, WARM_BLOCKS + blocks)
            head = chain.view.head
            await_come(lambda: head in watch.seen)
        finally:
            watch.stop()
            process.send_signal(signal.SIGINT)
            process.wait()
        usage = sampler.end(time.perf_counter() - started, process.returncode)
        if process.returncode != ExitCode.interrupted:
            raise SystemExit(f"headrace run ended with exit code {process.returncode}")
        totals = Totals()
        for node in chain.view.nodes:
            totals.add(node.block)
        compared = compare(data, totals.tables, every_table())
    if compared.differences:
        raise SystemExit("the result is not the truth:\n" + "\n".join(compared.differences))
    counted = list(mined)[WARM_BLOCKS:]
    latency = np.array([watch.seen[n] - mined[n] for n in counted]) * 1000
    stamped = np.array([watch.stamped[n] - mined[n] for n in counted]) * 1000
    queryable = percentiles(latency)
    figures = {
        "blocks": blocks,
        "queryable_ms": queryable,
        "canon_stamped_ms": percentiles(stamped),
        "cpu_seconds_of_the_whole_run": usage.cpu_seconds_by_command,
        "clickhouse_cpu_seconds_by_thread": usage.cpu_seconds_by_thread,
        "peak_bytes": usage.peak_bytes,
    }
    held = queryable["p50"] <= P50_MS_MAX and queryable["p99"] <= P99_MS_MAX
    return {**figures, "claim_held": held}


def await_come(come: Callable[[], bool]) -> None:
    """Wait until something has come."""
    until = time.monotonic() + START_SECONDS_MAX
    while not come():
        if time.monotonic() > until:
            raise SystemExit(f"nothing became visible in {START_SECONDS_MAX:g} s")
        time.sleep(0.05)


def percentiles(values: np.ndarray[Any, Any]) -> dict[str, float]:
    """Median, 90th and 99th percentile and maximum."""
    points = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    return {name: round(float(np.percentile(values, at)), 1) for name, at in points.items()}


def main(words: Sequence[str] | None = None) -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=150)
    given = parser.parse_args(words)
    record("head_latency", run(given.blocks))


if __name__ == "__main__":
    main()
