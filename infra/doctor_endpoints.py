"""Check each endpoint's chain id, head, clock and receipts."""

from __future__ import annotations

import time

from infra.doctor import Check, State, from_error
from infra.settings import RpcEndpoint, Settings
from ingest.chain_id import read_chain_id
from ingest.headwindow import read_header
from ingest.redact import parse_endpoint
from ingest.rpc import RpcClient, open_session
from schemas.errors import HeadraceError
from schemas.errors_ingest import ChainIdWrong


async def check_endpoints(settings: Settings) -> list[Check]:
    """Chain id, head, clock and receipts of every endpoint."""
    checks: list[Check] = []
    async with open_session(settings.limits.ingest) as session:
        for given in settings.rpc:
            try:
                url = parse_endpoint(given.url.get_secret_value())
            except HeadraceError as error:
                checks.append(from_error(f"endpoint {given.name}", error))
                continue
            client = RpcClient(url, session, settings.limits.ingest)
            checks += await _check_one(settings, given, client)
    return checks


async def _check_one(settings: Settings, given: RpcEndpoint, client: RpcClient) -> list[Check]:
    name = f"endpoint {given.name}"
    try:
        chain_id = read_chain_id(client.url, await client.call("eth_chainId"))
        expected = settings.facts.chain_id
        if expected is not None and chain_id != expected:
            wrong = ChainIdWrong(
                endpoint=given.name, actual=chain_id, chain=settings.chain, expected=expected
            )
            return [from_error(name, wrong)]
        raw = await client.call("eth_getBlockByNumber", "latest", False)
        head = read_header(raw)
    except HeadraceError as error:
        return [from_error(name, error)]
    reached = Check(name, "ok", f"chain {chain_id}, head {head.number:,}")
    return [
        reached,
        _clock(settings, name, head.time),
        await _receipts(settings, name, client, f"0x{head.hash.hex()}"),
    ]


def _clock(settings: Settings, name: str, head_time: int) -> Check:
    skew = time.time() - head_time
    found = f"latest block is {skew:.0f} s old"
    allowed = settings.limits.ingest.clock_skew_seconds_max
    if -settings.facts.block_time_seconds - 15 <= skew <= allowed:
        return Check(f"{name}: clock", "ok", found)
    if skew < 0:
        fix = "The local clock is behind: set it (NTP)."
    else:
        fix = "The node is out of sync, or the local clock is ahead: check both."
    return Check(f"{name}: clock", "warn", found, fix)


async def _receipts(settings: Settings, name: str, client: RpcClient, head_hash: str) -> Check:
    state: State = "ok"
    try:
        answer = await client.call("eth_getBlockReceipts", head_hash)
    except HeadraceError as error:
        found = f"no eth_getBlockReceipts ({error.code})"
        state = "warn" if settings.source == "receipts" else "ok"
    else:
        found = "eth_getBlockReceipts is served"
        if bytes(answer) == b"null":
            found, state = "eth_getBlockReceipts answers null for the head", "warn"
    fix = "Receipts are then fetched one by one, which costs many calls: prefer another endpoint."
    return Check(f"{name}: receipts", state, found, fix if state != "ok" else "")
