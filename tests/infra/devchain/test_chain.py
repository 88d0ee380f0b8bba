"""Determinism, reorgs and views of a chain."""

import itertools

import pytest

from infra.devchain import Budget, Chain, Spec, stream_blocks

SMALL = Spec(seed=21, budget=Budget(8, 20), finality_depth=12, safe_depth=5)


def _commands(chain: Chain) -> None:
    chain.mine(20)
    chain.reorg(3)
    chain.mine(2)
    chain.reorg(5, 2)
    chain.mine(4)


def test_the_same_commands_give_the_same_bytes():
    one, other = Chain(SMALL), Chain(SMALL)
    _commands(one)
    _commands(other)
    assert one.blocks() == other.blocks()
    for number in range(one.view.head + 1):
        a, b = one.view.at(number), other.view.at(number)
        assert a
        assert b
        assert a.full == b.full
        assert a.receipts == b.receipts


def test_mining_at_once_or_one_by_one_is_the_same():
    one, other = Chain(SMALL), Chain(SMALL)
    one.mine(15)
    for _ in range(15):
        other.mine()
    assert one.blocks() == other.blocks() == tuple(stream_blocks(SMALL, 15))


def test_another_seed_is_another_chain():
    assert Chain(Spec(seed=1)).mine(1).added != Chain(Spec(seed=2)).mine(1).added


@pytest.mark.parametrize(("depth", "new"), [(1, None), (3, 1), (4, 0), (20, 25), (7, 7), (0, 2)])
def test_reorg_replaces_exactly_the_last_blocks(depth, new):
    chain = Chain(SMALL)
    chain.mine(20)
    before = chain.blocks()
    change = chain.reorg(depth, new)
    after = chain.blocks()
    assert change.removed == before[21 - depth :]
    assert after == before[: 21 - depth] + change.added
    assert len(change.added) == (depth + 1 if new is None else new)
    assert not {block.hash for block in change.removed} & {block.hash for block in change.added}
    for parent, block in itertools.pairwise(after):
        assert block.header.parent_hash == parent.hash
        assert block.header.number == parent.header.number + 1
        assert block.header.timestamp > parent.header.timestamp


def test_forks_share_transactions_at_other_places():
    """What makes reorgs hard: one transaction hash in two blocks."""
    chain = Chain(Spec(seed=4, budget=Budget(30, 100)))
    chain.mine(20)
    change = chain.reorg(3)
    old = {t.hash: i for b in change.removed for i, t in enumerate(b.transactions)}
    new = {t.hash: i for b in change.added for i, t in enumerate(b.transactions)}
    assert set(old) & set(new)
    assert set(old) - set(new)
    assert any(old[shared] != new[shared] for shared in set(old) & set(new))


def test_reorg_takes_the_state_back():
    chain, straight = Chain(SMALL), Chain(SMALL)
    chain.mine(20)
    straight.mine(14)
    chain.reorg(6, 0)
    assert dict(chain.state) == dict(straight.state)
    assert chain.blocks() == straight.blocks()


def test_switching_back_restores_the_first_branch():
    chain = Chain(SMALL)
    chain.mine(20)
    first, state = chain.blocks(), dict(chain.state)
    chain.reorg(4)
    second = chain.blocks()
    change = chain.switch(first[-1].hash)
    assert chain.blocks() == first
    assert dict(chain.state) == state
    assert change.removed == second[17:]
    assert change.added == first[17:]
    chain.switch(second[-1].hash)
    assert chain.blocks() == second
    assert chain.mine().added[0].header.parent_hash == second[-1].hash


def test_a_reorg_never_goes_below_genesis():
    chain = Chain(SMALL)
    chain.mine(3)
    with pytest.raises(ValueError, match="cannot orphan 4 of 3"):
        chain.reorg(4)
    assert chain.view.head == 3


def test_a_chain_has_a_limit_and_stays_whole_at_it():
    chain = Chain(SMALL, blocks_max=10)
    chain.mine(8)
    state, blocks = dict(chain.state), chain.blocks()
    for command in (lambda: chain.mine(3), lambda: chain.reorg(2), lambda: chain.reorg(1, -1)):
        with pytest.raises(ValueError, match="no room for"):
            command()
        assert dict(chain.state) == state
        assert chain.blocks() == blocks
    assert chain.room == 2
    chain.reorg(2, 2)
    assert chain.room == 0


def test_finality_is_as_deep_as_the_spec_says():
    chain = Chain(SMALL)
    assert (chain.view.safe, chain.view.finalized) == (0, 0)
    chain.mine(20)
    assert (chain.view.head, chain.view.safe, chain.view.finalized) == (20, 15, 8)


def test_a_view_never_changes():
    chain = Chain(SMALL)
    chain.mine(10)
    view = chain.view
    head = view.hash_at(10)
    chain.reorg(5)
    assert view.head == 10
    assert view.hash_at(10) == head != chain.view.hash_at(10)
    assert view.behind(4).head == 6


def test_listeners_hear_every_change_until_they_stop():
    chain = Chain(SMALL)
    heard = []
    stop = chain.listen(heard.append)
    changes = [chain.mine(2), chain.reorg(1), chain.reorg(1, 0)]
    stop()
    chain.mine()
    assert heard == changes


def test_values_of_the_past():
    chain = Chain(SMALL)
    chain.mine(40)
    past = Chain(SMALL)
    past.mine(30)
    changed = [key for key in chain.state if chain.state[key] != past.state.get(key, 0)]
    assert changed
    for key in chain.state:
        assert chain.value_at(key, 30) == past.state.get(key, 0)


def test_a_clock_stamps_blocks_and_never_goes_back():
    ticks = iter([2_000_000_000.5, 2_000_000_001.9, 1_999_999_990.0, 2_000_000_003.0])
    chain = Chain(Spec(budget=Budget(1, 1), clock=lambda: next(ticks)))
    chain.mine(4)
    stamps = [block.header.timestamp for block in chain.blocks()[1:]]
    assert stamps == [2_000_000_000, 2_000_000_001, 2_000_000_001, 2_000_000_003]
