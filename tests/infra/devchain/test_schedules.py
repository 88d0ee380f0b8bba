"""Any schedule of commands ends as a straight replay would, and readers beside it see no tear."""

from itertools import pairwise
from threading import Thread

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.devchain import Budget, Chain, Spec, serve_in_thread
from tests.infra.devchain.client import call

SPEC = Spec(seed=29, budget=Budget(3, 8), finality_depth=4)
COMMANDS = st.lists(
    st.one_of(
        st.tuples(st.just("mine"), st.integers(0, 4), st.none()),
        st.tuples(st.just("reorg"), st.integers(0, 6), st.none() | st.integers(0, 5)),
        st.tuples(st.just("switch"), st.integers(0, 40), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(COMMANDS)
def test_any_schedule_ends_as_a_replay_of_its_chain(commands):
    chain = Chain(SPEC)
    chain.mine(3)
    sealed = list(chain.blocks())
    for name, number, new_blocks in commands:
        before = chain.blocks()
        if name == "mine":
            change = chain.mine(number)
        elif name == "reorg":
            change = chain.reorg(min(number, chain.view.head), new_blocks)
        else:
            change = chain.switch(sealed[number % len(sealed)].hash)
        sealed += change.added
        kept = len(before) - len(change.removed)
        assert chain.blocks() == before[:kept] + change.added
        assert before[kept:] == change.removed
    state: dict[bytes, int] = {}
    for node in chain.view.nodes:
        state.update(node.after)
    assert dict(chain.state) == state
    for parent, block in pairwise(chain.blocks()):
        assert block.header.parent_hash == parent.hash
    assert len({block.hash for block in sealed}) <= len(sealed)


def test_readers_beside_reorgs_see_whole_blocks():
    chain = Chain(SPEC)
    chain.mine(10)
    with serve_in_thread(chain) as serving:

        def disturb():
            for round_ in range(60):
                chain.reorg(1 + round_ % 5)

        writer = Thread(target=disturb)
        writer.start()
        try:
            while writer.is_alive():
                block = call(serving.http_urls[0], "eth_getBlockByNumber", "latest", True)
                receipts = call(serving.http_urls[0], "eth_getBlockReceipts", block["hash"])
                # None where the block was rolled back and the chain became shorter meanwhile.
                if receipts is not None:
                    assert [receipt["transactionHash"] for receipt in receipts] == [
                        sent["hash"] for sent in block["transactions"]
                    ]
                    assert {receipt["blockHash"] for receipt in receipts} <= {block["hash"]}
        finally:
            writer.join()
    assert chain.view.head == 70
