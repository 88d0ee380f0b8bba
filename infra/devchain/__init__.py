"""A seed in, a synthetic EVM chain served over JSON-RPC out.

Hashes, parent links, roots and blooms are true; transactions are signed by keys that follow from
the seed. State roots are deterministic fakes, and `web3_clientVersion` says ``synthetic``.

    chain = Chain(Spec(seed=7, budget=Budget(transactions=30, logs=100)))
    chain.mine(1000)
    with serve_in_thread(chain, endpoints=2) as serving:
        serving.set_fault(Fault("omit_logs", probability=0.1), endpoint=1)
        chain.reorg(3)
        ...  # read from serving.http_urls and serving.ws_urls
    truth = truth_of(chain.blocks(), chain.chain_id)
"""

from infra.devchain.chain import Chain, Change
from infra.devchain.faults import KINDS, Fault
from infra.devchain.planning import Budget
from infra.devchain.rpc import Limits
from infra.devchain.sealing import Spec, stream_blocks
from infra.devchain.server import DevchainServer, Serving, serve_in_thread
from infra.devchain.truth import Totals, truth_of

__all__ = [
    "KINDS",
    "Budget",
    "Chain",
    "Change",
    "DevchainServer",
    "Fault",
    "Limits",
    "Serving",
    "Spec",
    "Totals",
    "serve_in_thread",
    "stream_blocks",
    "truth_of",
]
