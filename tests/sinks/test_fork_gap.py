"""Gaps and doubts longer than one look in, closed ones out, whatever is told meanwhile."""

from __future__ import annotations

from dataclasses import replace

from schemas.segments import BlockRef, ForkUpdate
from sinks.canon import Canon
from sinks.canon_row import CanonSettings
from sinks.connection import Connection, Endpoint
from sinks.fork_gap import read_ancestors
from tests.sinks.canon_ledger import FACTS, STREAMS, VERSIONS, ledger, ref
from tests.sinks.rig import prepare


def snapshot(first: int, last: int) -> ForkUpdate:
    chain = tuple(map(ref, range(first, last + 1)))
    return ForkUpdate(1, chain[-1], None, chain[0], (), chain, 0)


def everywhere(canon: Canon, load_id: int, first: int, last: int) -> None:
    lane = "history" if last > first else "head"
    for offset, stream in enumerate(STREAMS):
        canon.add([ledger(stream, load_id + offset, first, ref(last), lane)])  # type: ignore[arg-type]


def shown_to(head: int, *, told_to: int) -> Canon:
    """History to block 4, head blocks from there; the fork is told of up to another height."""
    canon = Canon(FACTS, VERSIONS, 0, 1)
    assert canon.apply_fork(snapshot(4, told_to), 0)
    everywhere(canon, 1, 0, 4)
    for number in range(5, head + 1):
        everywhere(canon, 10 * number, number, number)
    assert canon.step(0) is not None
    return canon


def look(canon: Canon) -> bool:
    """What the publisher looks up, over rows that hold every block."""
    gap = canon.fork_gap()
    if gap is not None:
        base, lowest = gap
        canon.close_fork_gap([ref(number) for number in range(lowest, base.number)])
    return gap is not None


def test_a_gap_of_many_looks_closes_while_snapshot_follows_on_snapshot() -> None:
    facts = replace(FACTS, partition_blocks=1_000)
    canon = Canon(facts, VERSIONS, 0, 1, settings=CanonSettings(fork_gap_blocks_max=5))
    everywhere(canon, 1, 0, 4)
    for number in range(5, 100):
        everywhere(canon, 10 * number, number, number)
    looks = 0
    for turn in range(40):
        assert canon.apply_fork(snapshot(60 + turn, 64 + turn), 0)
        looks += look(canon)
    assert looks == 11
    change = canon.step(0)
    assert change is not None
    assert change.row.head == ref(99)
    assert not look(canon)


def test_a_snapshot_above_blocks_that_the_view_knows_leaves_nothing_in_doubt() -> None:
    canon = shown_to(8, told_to=12)
    assert canon.apply_fork(snapshot(11, 13), 0)
    for number in range(9, 14):
        everywhere(canon, 10 * number, number, number)
    change = canon.step(0)
    assert change is not None
    assert (change.row.head, change.reorg) == (ref(13), None)


def test_history_ahead_of_a_late_word_says_what_left_and_what_joined() -> None:
    """Block 5 left and came back; the word that it left is late, and history is there already."""
    canon = shown_to(7, told_to=7)
    everywhere(canon, 200, 5, 9)
    removed, other = tuple(map(ref, (7, 6, 5))), (ref(5, "b"), ref(6, "b"))
    assert canon.apply_fork(ForkUpdate(1, other[-1], None, ref(4), removed, other, 0), 0)
    assert canon.step(5_000) is None, "the rows below the segment's last block say what left"
    asked = canon.doubt()
    assert asked == (ref(9), 4)
    canon.settle(ref(9), [ref(number) for number in range(4, 9)])
    change = canon.step(5_000)
    assert change is not None
    assert (change.row.head, change.reorg) == (ref(9), None)


def test_the_ancestors_of_a_segments_last_block_are_read_however_long_it_is(
    endpoint: Endpoint,
) -> None:
    prepare(endpoint)
    with Connection(endpoint) as connection:
        connection.execute(
            "INSERT INTO blocks_open (block_number, block_hash, parent_hash, load_id) "
            "SELECT number, leftPad(toString(number), 32, '0'), "
            "leftPad(toString(number - 1), 32, '0'), 1 FROM numbers(1, 2500)"
        )
        found = read_ancestors(connection, endpoint.database, block(2_500), 2)
        assert found == [block(number) for number in range(2, 2_500)]


def block(number: int) -> BlockRef:
    return BlockRef(number, f"{number:032}".encode())
