"""Branches of headers in, what nodes would show of them and a follower's chain out."""

from __future__ import annotations

from processors.fork import Event, ForkState
from processors.reorg import advance, from_blocks
from schemas.segments import BlockRef, FinalityAdvanced, ForkUpdate, HeadObserved

ANCHOR = BlockRef(100, b"anchor".ljust(32, b"\0"))


def block(number: int, branch: str) -> BlockRef:
    return BlockRef(number, f"{number}{branch}".encode().ljust(32, b"\0"))


class Tree:
    """Blocks by branch letters: a branch is a list of refs, its parent chain known."""

    def __init__(self) -> None:
        self.parents: dict[bytes, BlockRef] = {}

    def grow(self, parent: BlockRef, count: int, branch: str) -> list[BlockRef]:
        grown = []
        for _ in range(count):
            child = block(parent.number + 1, branch)
            self.parents[child.hash] = parent
            grown.append(child)
            parent = child
        return grown

    def path(self, head: BlockRef) -> list[BlockRef]:
        path = [head]
        while path[-1].hash in self.parents:
            path.append(self.parents[path[-1].hash])
        return path[::-1]

    def seen(
        self, ref: BlockRef, *, is_head: bool = True, provider: str = "a", at: int = 0
    ) -> HeadObserved:
        parent = self.parents[ref.hash].hash if ref.hash in self.parents else b"?" * 32
        return HeadObserved(1, ref.number, ref.hash, parent, 0, at, provider, is_head)


def final(ref: BlockRef, kind: str = "finalized") -> FinalityAdvanced:
    return FinalityAdvanced(1, "safe" if kind == "safe" else "finalized", ref.number, ref.hash, 0)


def run(
    state: ForkState, *observed: HeadObserved | FinalityAdvanced
) -> tuple[ForkState, list[Event]]:
    events: list[Event] = []
    for one in observed:
        state, more = advance(state, one)
        events += more
    return state, events


def follow(chain: list[BlockRef], update: ForkUpdate) -> list[BlockRef]:
    """A follower's chain after an update; it fails where the update does not fit."""
    for removed in update.removed:
        assert chain.pop() == removed
    if update.added:
        assert update.added[0].number == chain[-1].number + 1
    chain.extend(update.added)
    assert chain[-1] == update.head
    for mark in (update.safe, update.finalized):
        assert mark is None or mark in chain
    return chain


def chain_at(head: BlockRef, tree: Tree) -> ForkState:
    path = tree.path(head)
    return from_blocks(1, path[0], path[1:])
