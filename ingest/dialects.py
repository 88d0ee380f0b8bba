"""JSON-RPC error objects in, their meaning out: what nodes and providers say is data.

Codes are looked at first, wording only through the table `dialects.toml`; whatever the table
does not know means `failed`, and a getLogs range that failed is halved.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources

from schemas.errors import HeadraceError
from schemas.errors_ingest import (
    AccessRefused,
    AnswerTooLarge,
    BatchRefused,
    BlockNotServed,
    CallFailed,
    CallInvalid,
    HistoryPruned,
    MethodMissing,
    RangeTooWide,
    RateLimited,
)


class Meaning(StrEnum):
    """What an error object means to the caller."""

    range_too_wide = "range_too_wide"
    rate_limited = "rate_limited"
    batch_refused = "batch_refused"
    method_missing = "method_missing"
    not_served = "not_served"
    pruned = "pruned"
    access_refused = "access_refused"
    too_large = "too_large"
    invalid = "invalid"
    failed = "failed"


@dataclass(frozen=True, slots=True)
class RpcFault:
    """A JSON-RPC error object as it came."""

    code: int
    """Its code; 0 where there was none."""
    message: str
    """Its message, with secrets removed."""
    data: str = ""
    """Its data as JSON text, with secrets removed."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One rule of dialects.toml."""

    provider: str
    """Who answers so."""
    codes: frozenset[int]
    """Codes it concerns; empty: any."""
    methods: frozenset[str]
    """Methods it concerns; empty: any."""
    pattern: re.Pattern[str] | None
    """What the text must hold; None: anything."""
    blocks: int | None
    """Widest range allowed, where the text does not tell."""
    meaning: Meaning
    """What it means."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was understood of a fault."""

    meaning: Meaning
    """What it means."""
    blocks_max: int | None = None
    """For `range_too_wide`: the widest range that works, if the text tells."""
    wait_seconds: float | None = None
    """For `rate_limited`: the wait asked for, if the data tell."""


@cache
def load_dialects() -> tuple[Dialect, ...]:
    """The rules of dialects.toml, in order."""
    text = resources.files("ingest").joinpath("dialects.toml").read_text("utf-8")
    return tuple(
        Dialect(
            provider=rule["provider"],
            codes=frozenset(rule.get("codes", ())),
            methods=frozenset(rule.get("methods", ())),
            pattern=re.compile(rule["pattern"], re.IGNORECASE) if "pattern" in rule else None,
            blocks=rule.get("blocks"),
            meaning=Meaning(rule["meaning"]),
        )
        for rule in tomllib.loads(text)["rule"]
    )


def read_fault(fault: RpcFault, method: str) -> Reading:
    """Find what an error object means.

    Parameters
    ----------
    fault : RpcFault
        The error object.
    method : str
        The method that was called.
    """
    text = f"{fault.message} {fault.data}"
    for rule in load_dialects():
        if rule.codes and fault.code not in rule.codes:
            continue
        if rule.methods and method not in rule.methods:
            continue
        found = rule.pattern.search(text) if rule.pattern else None
        if rule.pattern and not found:
            continue
        if rule.meaning is Meaning.range_too_wide:
            return Reading(rule.meaning, blocks_max=_blocks_max(found) or rule.blocks)
        if rule.meaning is Meaning.rate_limited:
            return Reading(rule.meaning, wait_seconds=_wait_seconds(fault.data))
        return Reading(rule.meaning)
    return Reading(Meaning.failed)


def _blocks_max(found: re.Match[str] | None) -> int | None:
    groups = {name: text for name, text in found.groupdict().items() if text} if found else {}
    if "first" in groups:
        first, last = (int(groups[name], 0) for name in ("first", "last"))
        return last - first + 1 if last >= first else None
    for name, text in groups.items():
        digits = re.sub(r"\D", "", text)
        if digits and int(digits) > 0:
            return int(digits) * (1000 if name == "thousands" else 1)
    return None


def _wait_seconds(data: str) -> float | None:
    found = re.search(r'"(?:backoff_seconds|retry_after)"\s*:\s*"?(\d+(?:\.\d+)?)', data)
    return float(found.group(1)) if found else None


def fault_error(fault: RpcFault, endpoint: str, method: str, calls: int = 1) -> HeadraceError:
    """The coded error for an error object.

    Parameters
    ----------
    fault : RpcFault
        The error object.
    endpoint : str
        Display name of who sent it.
    method : str
        The method that was called.
    calls : int
        Calls in the request.
    """
    reading = read_fault(fault, method)
    who = {"endpoint": endpoint, "method": method, "rpc_code": fault.code}
    match reading.meaning:
        case Meaning.rate_limited:
            wait = reading.wait_seconds if reading.wait_seconds is not None else "?"
            return RateLimited(**who, retry_after_seconds=wait)
        case Meaning.range_too_wide:
            return RangeTooWide(**who, blocks="several", blocks_max=reading.blocks_max)
        case Meaning.batch_refused:
            return BatchRefused(**who, calls=calls)
        case Meaning.method_missing:
            return MethodMissing(**who)
        case Meaning.not_served:
            return BlockNotServed(**who, block="asked for")
        case Meaning.pruned:
            return HistoryPruned(**who, block="asked for")
        case Meaning.access_refused:
            return AccessRefused(**who, status=200)
        case Meaning.too_large:
            return AnswerTooLarge(**who, limit_bytes="the endpoint allows")
        case Meaning.invalid:
            return CallInvalid(**who, message=fault.message)
        case Meaning.failed:
            return CallFailed(**who, message=fault.message)
