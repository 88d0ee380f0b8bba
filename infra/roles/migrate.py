"""Settings in, a chain's database on the cluster's ClickHouse out: what `headrace migrate` does."""

from __future__ import annotations

import asyncio

from infra.chain_of_endpoints import ask_chain_id, endpoint_specs
from infra.exit_codes import ExitCode
from infra.patience import patiently
from infra.roles.chain_database import role_endpoint, role_facts, role_layouts
from infra.settings import Settings
from infra.source import ChainSource
from infra.storage import Storage
from infra.terminal import Terminal
from ingest.providers import ProviderPool
from schemas.chains import ChainFacts
from schemas.errors_roles import ChainIdUnknown


def run_migrate(settings: Settings, chain_id: int | None, terminal: Terminal) -> int:
    """Make the database, or bring it up to date.

    Raises
    ------
    ChainIdUnknown
        If nothing says which chain the database is for.
    HeadraceError
        Another of HR-40xx, HR-20xx or HR-63xx.
    """
    facts, endpoint = role_facts(settings, "migrate"), role_endpoint(settings, "migrate")
    layouts = role_layouts(settings)
    source = ChainSource(settings, facts, _chain_id(settings, facts, chain_id))
    storage = patiently(lambda: Storage(settings, endpoint, source, layouts))
    storage.close()
    if terminal.json:
        fields = {"database": facts.name, "chain_id": source.chain_id, "address": endpoint.address}
        terminal.write_json(fields | {"tables": [table.name for table in storage.tables]})
    else:
        terminal.write_line(
            f"{facts.name} at {endpoint.address} (chain id {source.chain_id}) has its "
            f"{len(storage.tables)} tables and their views"
        )
    return int(ExitCode.ok)


def _chain_id(settings: Settings, facts: ChainFacts, given: int | None) -> int:
    """The id that the chain's name says, or that was given, or that an endpoint answers."""
    if facts.chain_id is not None:
        return facts.chain_id
    if given is not None:
        return given
    if not settings.rpc:
        raise ChainIdUnknown(database=facts.name)
    return asyncio.run(_asked(settings))


async def _asked(settings: Settings) -> int:
    async with ProviderPool(endpoint_specs(settings), settings.limits.ingest) as pool:
        return await ask_chain_id(pool)
