"""An event and a log in, what web3's process_log makes of it out: the oracle of the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from web3 import Web3
from web3._utils.events import get_event_data

from schemas.abi import AbiType, EventAbi, Parameter

_CODEC = Web3().codec


def process_log(event: EventAbi, topics: Sequence[bytes], body: bytes) -> list[Any]:
    """The parameters' values; raises what web3 raises."""
    abi: Any = {
        "type": "event",
        "anonymous": False,
        "name": event.name,
        "inputs": [_input(parameter) for parameter in event.parameters],
    }
    log: Any = dict.fromkeys(
        ["logIndex", "transactionIndex", "transactionHash", "address", "blockHash", "blockNumber"]
    )
    found = get_event_data(_CODEC, abi, {**log, "topics": topics, "data": body})["args"]
    return [_unnamed(p.type, found[p.name]) for p in event.parameters]


def _input(parameter: Parameter) -> dict[str, Any]:
    return {**_part(parameter.type, parameter.name), "indexed": parameter.indexed}


def _part(abi_type: AbiType, name: str) -> dict[str, Any]:
    suffix = ""
    while abi_type.base == "array":
        suffix = f"[{abi_type.length or ''}]{suffix}"
        abi_type = abi_type.children[0]
    if abi_type.base != "tuple":
        return {"name": name, "type": abi_type.text + suffix}
    components = [_part(member, f"m{i}") for i, member in enumerate(abi_type.children)]
    return {"name": name, "type": f"tuple{suffix}", "components": components}


def _unnamed(abi_type: AbiType, value: Any) -> Any:
    """web3 names the members of tuples; eth-abi and Headrace do not."""
    if abi_type.base == "array" and not isinstance(value, bytes):
        return [_unnamed(abi_type.children[0], element) for element in value]
    if abi_type.base == "tuple" and isinstance(value, dict):
        pairs = zip(abi_type.children, value.values(), strict=True)
        return tuple(_unnamed(member, part) for member, part in pairs)
    return value
