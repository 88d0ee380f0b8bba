"""Settings in, how blocks are fetched and proven out."""

from __future__ import annotations

from dataclasses import dataclass, field

from infra.settings import Settings
from infra.turns import Turns
from ingest.fetch import fetch_blocks
from ingest.logs_source import LogsSource, ProveLogs
from ingest.prove import prover
from ingest.proven import ProvenFetcher
from ingest.providers import ProviderPool
from ingest.verify_logs import LogFilter
from schemas.chains import ChainFacts
from schemas.tables import Verification


@dataclass(frozen=True, slots=True)
class ChainSource:
    """The source of a run: ``receipts`` or ``logs``, with its filter."""

    settings: Settings
    """The run's."""
    facts: ChainFacts
    """The chain."""
    chain_id: int
    """What its endpoints answered."""
    turns: Turns = field(default_factory=Turns)
    """Taken for every proof."""

    def fetcher(self, pool: ProviderPool, level: Verification) -> ProvenFetcher:
        """What fetches segments proven to `level`."""
        if self.settings.source == "logs":
            wanted = self._filter()
            build = ProveLogs(self.chain_id, level, wanted, self.facts)
            fetch = LogsSource(wanted)
            return ProvenFetcher(pool, build, fetch_payloads=fetch, turn=self.turns.take)
        prove = prover(self.facts, self.chain_id, level)
        turn, together = self.turns.take, prove.together
        return ProvenFetcher(pool, prove, fetch_payloads=fetch_blocks, together=together, turn=turn)

    def versions(self) -> set[str]:
        """Content versions that the source gives at any level."""
        levels = Verification
        if self.settings.source == "logs":
            wanted = self._filter()
            proofs = [ProveLogs(self.chain_id, lvl, wanted, self.facts) for lvl in levels]
            return {prove.content_version() for prove in proofs}
        return {prover(self.facts, self.chain_id, lvl).content_version() for lvl in levels}

    def _filter(self) -> LogFilter:
        logs = self.settings.logs
        addresses = frozenset(bytes.fromhex(address[2:]) for address in logs.addresses)
        topics = frozenset(bytes.fromhex(topic[2:]) for topic in logs.topic0)
        return LogFilter(addresses, (topics,) if topics else ())
