"""chains.toml in, chain facts out."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from schemas.tables import Verification


@dataclass(frozen=True, slots=True)
class SystemLogs:
    """Which logs of a chain neither logsBloom nor receiptsRoot covers."""

    addresses: frozenset[bytes] = frozenset()
    """Contracts that only the chain itself calls, 20 bytes each."""
    transaction_prefix: bytes = b""
    """keccak(prefix, number as 8 bytes, block hash) is the hash of their transaction; or empty."""


@dataclass(frozen=True, slots=True)
class ChainFacts:
    """What Headrace knows of a chain; see the comments in chains.toml."""

    name: str
    """The chain's name, and its database's."""
    chain_id: int | None
    """What eth_chainId must answer; None takes any chain (``local``)."""
    block_time_seconds: float
    """Usual time between blocks."""
    finality: str
    """``tags`` or ``depth``."""
    finality_depth_blocks: int
    """Depth of finality, or the bound on the unfinalised window."""
    segment_blocks: int
    """Blocks of one history segment."""
    partition_blocks: int
    """Blocks of one ClickHouse partition."""
    verification_reached: Verification
    """The highest level that can be reached."""
    verification_note: str
    """Why not ``full``, or what ``full`` leaves out."""
    withdrawals_in_header: bool
    """Whether withdrawalsRoot is the root of a list."""
    deposit_type: int | None = None
    """The type of its transactions that are OP-stack deposits; None where it has none, or where
    that is not known."""
    system_receipts: bool = False
    """Whether a last receipt of a block may be of the block itself."""
    settled_by: str = ""
    """Header field of blocks whose roots, bloom and gas are of earlier blocks; or empty."""
    system_logs: SystemLogs = SystemLogs()
    """Logs that are under neither logsBloom nor receiptsRoot."""

    def __post_init__(self) -> None:
        if self.partition_blocks % self.segment_blocks:
            raise ValueError(f"{self.name}: partition_blocks is not a multiple of segment_blocks")

    def segment_start(self, block_number: int) -> int:
        """First block of the grid segment that holds `block_number`."""
        return block_number // self.segment_blocks * self.segment_blocks

    def partition(self, block_number: int) -> int:
        """Partition id of `block_number`."""
        return block_number // self.partition_blocks

    def resized(self, segment_blocks: int, partition_blocks: int) -> ChainFacts:
        """The same facts on another grid, for tests and small chains."""
        return replace(self, segment_blocks=segment_blocks, partition_blocks=partition_blocks)


@cache
def load_chains() -> dict[str, ChainFacts]:
    """Every chain of chains.toml by name."""
    text = resources.files("schemas").joinpath("chains.toml").read_text("utf-8")
    chains = {}
    for name, facts in tomllib.loads(text).items():
        level = Verification[facts.pop("verification_reached")]
        chain_id = facts.pop("chain_id", None)
        facts["system_logs"] = _system_logs(**facts.get("system_logs", {}))
        chains[name] = ChainFacts(name=name, chain_id=chain_id, verification_reached=level, **facts)
    return chains


def _system_logs(addresses: Sequence[str] = (), transaction_prefix: str = "") -> SystemLogs:
    own = frozenset(bytes.fromhex(address[2:]) for address in addresses)
    return SystemLogs(own, transaction_prefix.encode())
