"""A seed in, a synthetic EVM chain served over JSON-RPC out.

Hashes, parent links, roots and blooms are true; state roots and signatures are deterministic
fakes, and `web3_clientVersion` says ``synthetic``.
"""
