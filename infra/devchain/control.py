"""A ``devchain_*`` call in, a changed chain or changed faults out: remote control for tests."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from infra.devchain.chain import Chain, Change
from infra.devchain.faults import Fault
from infra.devchain.rpc import INVALID_PARAMS, Endpoint, Params, Refusal

BLOCKS_MAX = 100_000
"""How many blocks one call may mine."""


class Controlled(Protocol):
    """What can be controlled."""

    @property
    def chain(self) -> Chain | None:
        """The chain; None where it cannot change."""

    @property
    def endpoints(self) -> list[Endpoint]:
        """The endpoints that serve it."""

    def set_interval(self, seconds: float | None) -> None:
        """Mine at an interval from now on; None stops."""


def _living(controlled: Controlled) -> Chain:
    if controlled.chain is None:
        raise Refusal(INVALID_PARAMS, "an archived chain does not change")
    return controlled.chain


def _refs(change: Change) -> Any:
    return {
        "removed": [f"0x{block.hash.hex()}" for block in change.removed],
        "added": [f"0x{block.hash.hex()}" for block in change.added],
    }


def _mine(controlled: Controlled, params: Params) -> Any:
    blocks = int(params[0]) if params else 1
    if not 0 <= blocks <= BLOCKS_MAX:
        raise Refusal(INVALID_PARAMS, f"can mine 0 to {BLOCKS_MAX} blocks at once")
    return _refs(_living(controlled).mine(blocks))


def _reorg(controlled: Controlled, params: Params) -> Any:
    new_blocks = int(params[1]) if len(params) > 1 and params[1] is not None else None
    return _refs(_living(controlled).reorg(int(params[0]), new_blocks))


def _switch(controlled: Controlled, params: Params) -> Any:
    try:
        return _refs(_living(controlled).switch(bytes.fromhex(params[0][2:])))
    except KeyError as unknown:
        raise Refusal(INVALID_PARAMS, "unknown block") from unknown


def _chosen(controlled: Controlled, number: int | None) -> list[Endpoint]:
    return controlled.endpoints if number is None else [controlled.endpoints[number]]


def _set_fault(controlled: Controlled, params: Params) -> Any:
    """Take a fault's fields, and ``endpoint``: its number, or null for all."""
    fields = dict(params[0])
    number = fields.pop("endpoint", None)
    try:
        fault = msgspec.convert(fields, Fault)
    except msgspec.ValidationError as wrong:
        raise Refusal(INVALID_PARAMS, str(wrong)) from wrong
    return [set_fault(endpoint, fault) for endpoint in _chosen(controlled, number)]


def set_fault(endpoint: Endpoint, fault: Fault) -> int:
    """Activate a fault on an endpoint and return its number there."""
    number = endpoint.faults.add(fault)
    endpoint.begin_view(number, fault)
    return number


def _clear_faults(controlled: Controlled, params: Params) -> Any:
    for endpoint in _chosen(controlled, params[0] if params else None):
        endpoint.faults.clear()
    return True


def _set_interval(controlled: Controlled, params: Params) -> Any:
    _living(controlled)
    seconds = params[0] if params else None
    controlled.set_interval(float(seconds) if seconds else None)
    return True


CONTROLS: dict[str, Callable[[Controlled, Params], Any]] = {
    "devchain_mine": _mine,
    "devchain_reorg": _reorg,
    "devchain_switch": _switch,
    "devchain_setFault": _set_fault,
    "devchain_clearFaults": _clear_faults,
    "devchain_setInterval": _set_interval,
}


def control(controlled: Controlled, method: str, params: Params) -> bytes:
    """Obey one control call.

    Returns
    -------
    bytes
        The result's JSON.

    Raises
    ------
    Refusal
        If it makes no sense.
    """
    try:
        return msgspec.json.encode(CONTROLS[method](controlled, params))
    except (ValueError, TypeError, LookupError, AttributeError) as wrong:
        raise Refusal(INVALID_PARAMS, f"invalid argument: {wrong}") from wrong
