"""Read an endpoint's chain id, and find the id that most endpoints serve."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import msgspec

from ingest.endpoint import Endpoint
from ingest.redact import EndpointUrl
from schemas.errors_ingest import ChainIdMalformed, ChainsDiffer

_text = msgspec.json.Decoder(str)
_QUANTITY = re.compile("0x[0-9a-fA-F]{1,16}")
EXCERPT_CHARS = 40
"""So much of a refused answer is shown."""


def read_chain_id(url: EndpointUrl, result: msgspec.Raw) -> int:
    """The chain id in an answer to `eth_chainId`: `0x` and hex digits, at most 64 bits.

    Raises
    ------
    ChainIdMalformed
        The answer is anything else, decimal text included.
    """
    try:
        text = _text.decode(result)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = ""
    if _QUANTITY.fullmatch(text):
        return int(text, 16)
    answer = url.scrub(bytes(result).decode("utf-8", "replace"), EXCERPT_CHARS)
    raise ChainIdMalformed(endpoint=url.name, answer=answer)


def agreed_chain_id(ids: Mapping[Endpoint, int]) -> int:
    """The chain id that most endpoints serve. Their order does not matter.

    Raises
    ------
    ChainsDiffer
        Two ids are served by equally many.
    """
    counts = Counter(ids.values()).most_common(2)
    if len(counts) == 2 and counts[0][1] == counts[1][1]:
        served = "; ".join(f"{endpoint.name}: {chain_id}" for endpoint, chain_id in ids.items())
        raise ChainsDiffer(served=served)
    return counts[0][0]
