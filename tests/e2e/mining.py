"""Dice in, a served chain mined and reorganised at random out, with what is to be told of it."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from random import Random

from infra.devchain import Chain, Serving, serve_in_thread
from sinks.connection import Connection
from tests.e2e.running import FINALITY_DEPTH, small_chain

FIRST_BLOCKS = 120


def fresh_dice() -> Random:
    """Dice whose seed is shown with a failure; HEADRACE_SEED repeats them."""
    seed = os.environ.get("HEADRACE_SEED") or str(secrets.randbelow(1 << 32))
    print(f"repeat with HEADRACE_SEED={seed}")
    return Random(seed)


class Miner:
    """A thread that mines and reorganises a chain at random."""

    def __init__(self, chain: Chain, dice: Random) -> None:
        self.chain, self.dice = chain, dice
        self.reorgs = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._mine, name="miner", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _mine(self) -> None:
        while not self._stopping.wait(self.dice.uniform(0.1, 0.6)):
            if self.dice.random() < 0.3:
                self.reorgs += 1
                # Never below what was final: the new branch is longer than what it replaces.
                self.chain.reorg(self.dice.randint(1, FINALITY_DEPTH - 4))
            else:
                self.chain.mine()


@contextmanager
def mined(dice: Random) -> Iterator[tuple[Serving, Miner]]:
    """A served chain that is being mined."""
    chain = small_chain(seed=dice.randrange(1 << 20))
    chain.mine(FIRST_BLOCKS)
    miner = Miner(chain, Random(dice.random()))
    with serve_in_thread(chain) as serving:
        miner.start()
        try:
            yield serving, miner
        finally:
            miner.stop()


def check_reorgs(connection: Connection, chain: Chain) -> None:
    """Each step from one canon row to the next extends the chain, or is told in `reorgs`."""
    # A row is written again where ClickHouse died before it said that it had it.
    canon = connection.execute(
        "SELECT DISTINCT generation, seq, head, head_hash FROM canon ORDER BY generation, seq",
        as_bytes=True,
    )
    rows = connection.execute(
        "SELECT generation, seq, depth_blocks, ancestor_number, ancestor_hash, "
        "removed.1, removed.2, added.1, added.2 FROM reorgs",
        as_bytes=True,
    )
    told = {tuple(row[:2]): row[2:] for row in rows}
    assert len(told) == len(rows), "a reorg is told twice"
    assert told.keys() <= {tuple(row[:2]) for row in canon}, "a reorg is told that never was"
    for before, after in pairwise(canon):
        replaced = not _is_above(chain, after[3], before[3], before[2])
        row = told.get(tuple(after[:2]))
        assert (row is not None) == replaced, f"{before} → {after}: {row}"
        if row is None:
            continue
        depth, ancestor_number, ancestor_hash, *lists = row
        removed = sorted(zip(lists[0], lists[1], strict=True))
        added = sorted(zip(lists[2], lists[3], strict=True))
        assert depth == len(removed) == before[2] - ancestor_number
        assert removed[-1] == (before[2], before[3])
        for branch in (removed, added):
            parent = ancestor_hash
            for number, block_hash in branch:
                node = chain.node(block_hash)
                assert node is not None
                assert node.block.header.number == number
                assert node.block.header.parent_hash == parent
                parent = block_hash


def _is_above(chain: Chain, block_hash: bytes, other: bytes, number: int) -> bool:
    """Whether a block is, or descends from, another at height `number`."""
    while True:
        node = chain.node(block_hash)
        if node is None or node.block.header.number < number:
            return False
        if node.block.header.number == number:
            return block_hash == other
        block_hash = node.block.header.parent_hash
