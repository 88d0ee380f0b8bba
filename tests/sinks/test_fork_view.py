"""Fork updates in, what is known of the hashes below the newest snapshot out."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.segments import BlockRef, ForkUpdate
from sinks.fork_view import ForkView
from tests.sinks.canon_ledger import ref


def snapshot(chain: Iterable[BlockRef]) -> ForkUpdate:
    refs = tuple(chain)
    return ForkUpdate(1, refs[-1], None, refs[0], (), refs, 0)


def known(view: ForkView) -> list[BlockRef]:
    assert view.base == min(view.hashes)
    return [BlockRef(number, view.hashes[number]) for number in sorted(view.hashes)]


def test_a_snapshot_on_a_known_block_keeps_what_lies_below_it() -> None:
    view = ForkView()
    view.apply(snapshot(map(ref, range(10, 14))))
    view.extend_below([ref(8), ref(9)])
    view.apply(snapshot([ref(12), ref(13, "b"), ref(14, "b")]))
    assert known(view) == [*map(ref, range(8, 13)), ref(13, "b"), ref(14, "b")]
    view.extend_below([ref(7)])
    assert known(view)[0] == ref(7)


def test_a_snapshot_on_another_branch_or_out_of_reach_keeps_nothing() -> None:
    for first in (ref(12, "b"), ref(14), ref(9), ref(15)):
        view = ForkView()
        view.apply(snapshot(map(ref, range(10, 14))))
        view.apply(snapshot([first, ref(first.number + 1, "b")]))
        assert known(view) == [first, ref(first.number + 1, "b")]


def test_an_older_snapshot_on_a_known_block_takes_the_view_back_above_it_only() -> None:
    view = ForkView()
    view.apply(snapshot(map(ref, range(10, 20))))
    view.apply(snapshot([ref(12), ref(13)]))
    assert known(view) == [ref(10), ref(11), ref(12), ref(13)]
    assert view.head == ref(13)
