"""Find the chain that the endpoints serve, and how its blocks become final."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from infra.settings import Settings
from ingest.chain_id import agreed_chain_id, read_chain_id
from ingest.endpoint import Endpoint, EndpointSpec
from ingest.preflight import Preflight, preflight
from ingest.providers import ProviderPool
from schemas.chains import ChainFacts, load_chains
from schemas.errors import HeadraceError
from schemas.errors_infra import GridInvalid
from schemas.errors_ingest import EndpointsUnusable
from schemas.errors_settings import LevelNotReached
from schemas.tables import Verification


def endpoint_specs(settings: Settings) -> list[EndpointSpec]:
    """The endpoints as a pool takes them, secrets included."""
    return [
        EndpointSpec(
            endpoint.url.get_secret_value(),
            endpoint.weight,
            endpoint.websocket_url.get_secret_value() if endpoint.websocket_url else None,
        )
        for endpoint in settings.rpc
    ]


async def meet_chain(
    settings: Settings, pool: ProviderPool, note: Callable[[str], None]
) -> tuple[Settings, ChainFacts, Preflight]:
    """The settings with the chain filled in, its facts, and what the endpoints said.

    Parameters
    ----------
    settings
        Of a role or a run.
    pool
        The endpoints; those that cannot serve are left out.
    note
        Told what the user should know: who is left out, and what is assumed.

    Raises
    ------
    HeadraceError
        No endpoint can serve.
    """
    settings, facts = await find_chain(settings, pool)
    receipts = settings.source == "receipts"
    said = await preflight(pool, facts, from_block=settings.from_block, receipts=receipts)
    for name, error in said.excluded:
        note(f"{name} is left out: {error.what_text}")
    for warning in said.warnings:
        note(f"{warning.what_text}: {warning.fix_text}")
    short = level_not_reached(settings)
    if short is not None:
        note(f"{short.code}: {short.what_text} ({short.why_text}) {short.fix_text}")
    tags = facts.finality
    facts, said = await settle_finality(pool, facts, said)
    if facts.finality != tags:
        note(
            "no endpoint says what is final: blocks count as final once they are "
            f"{facts.finality_depth_blocks} below the head"
        )
    return settings, facts, said


def level_not_reached(settings: Settings) -> LevelNotReached | None:
    """A warning where `verify` asks for more than the chain or the source can reach."""
    asked, facts = settings.verify, settings.facts
    reached, subject, reason = facts.verification_reached, facts.name, facts.verification_note
    if settings.source == "logs" and reached > Verification.header:
        reached, subject = Verification.header, "--source logs"
        reason = "eth_getLogs gives no receipts, so no root can be rebuilt"
    if asked is None or asked <= reached:
        return None
    return LevelNotReached(
        asked=asked.name,
        subject=subject,
        reached=reached.name,
        reason=reason[:1].upper() + reason[1:],
    )


async def find_chain(settings: Settings, pool: ProviderPool) -> tuple[Settings, ChainFacts]:
    """The settings with the chain filled in, and its facts.

    Where no chain was named it is the one of chains.toml with the chain id that most
    endpoints serve; ``local`` for an id that none has.

    Raises
    ------
    HeadraceError
        No endpoint answers.
    GridInvalid
        A partition that is no multiple of its segments.
    """
    if settings.chain is None:
        chain_id = await ask_chain_id(pool)
        known = [name for name, facts in load_chains().items() if facts.chain_id == chain_id]
        settings = settings.model_copy(update={"chain": known[0] if known else "local"})
    try:
        return settings, settings.facts
    except ValueError as error:
        raise GridInvalid(reason=str(error)) from error


async def ask_chain_id(pool: ProviderPool) -> int:
    """The chain id that most of the endpoints that answer serve. Their order does not matter.

    Raises
    ------
    ChainsDiffer
        Two ids are served by equally many.
    EndpointsUnusable
        No endpoint answers; where there is only one, its own error instead.
    """

    async def ask(endpoint: Endpoint) -> int | HeadraceError:
        try:
            return read_chain_id(endpoint.url, await endpoint.client.call("eth_chainId"))
        except HeadraceError as error:
            return error

    answers = await asyncio.gather(*(ask(endpoint) for endpoint in pool.endpoints))
    ids, errors = {}, []
    for endpoint, answer in zip(pool.endpoints, answers, strict=True):
        if isinstance(answer, HeadraceError):
            errors.append(answer)
        else:
            ids[endpoint] = answer
    if ids:
        return agreed_chain_id(ids)
    if len(errors) == 1:
        raise errors[0]
    raise EndpointsUnusable(reasons="; ".join(map(str, errors)))


async def settle_finality(
    pool: ProviderPool, facts: ChainFacts, said: Preflight
) -> tuple[ChainFacts, Preflight]:
    """The facts and the preflight, by depth where no endpoint knows the tag `finalized`.

    Without this the whole chain would be one unfinalised window, from genesis on.

    Raises
    ------
    HeadraceError
        No endpoint answers any more.
    """
    if said.finalized is not None or facts.finality != "tags":
        return facts, said
    facts = replace(facts, finality="depth")
    return facts, await preflight(pool, facts, receipts=False)
