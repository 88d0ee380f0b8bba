"""The parameters of eth_getLogs in, a predicate on address and topics out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TOPICS_MAX = 4


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which logs are wanted."""

    addresses: frozenset[bytes] | None
    """None wants all."""
    topics: tuple[frozenset[bytes] | None, ...]
    """Per position; None wants any, but there must be one."""

    def matches(self, address: bytes, topics: Sequence[bytes]) -> bool:
        """Whether a log is wanted."""
        if self.addresses is not None and address not in self.addresses:
            return False
        if len(self.topics) > len(topics):
            return False
        for wanted, topic in zip(self.topics, topics, strict=False):
            if wanted is not None and topic not in wanted:
                return False
        return True

    @classmethod
    def parse(cls, address: object, topics: object) -> LogFilter:
        """Read a filter's ``address`` and ``topics``.

        Raises
        ------
        ValueError
            If they are malformed.
        """
        positions = [] if topics is None else topics
        if not isinstance(positions, list) or len(positions) > TOPICS_MAX:
            raise ValueError("exceed max topics")
        wanted = [_alternatives(position, 32) for position in positions]
        return cls(_alternatives(address, 20), tuple(wanted))


def _alternatives(value: object, size: int) -> frozenset[bytes] | None:
    """One value, or a list of them; an empty list and null want any."""
    if value is None or value == []:
        return None
    values = value if isinstance(value, list) else [value]
    if None in values:
        return None
    return frozenset(_fixed(text, size) for text in values)


def _fixed(text: object, size: int) -> bytes:
    if not isinstance(text, str) or not text.startswith("0x"):
        raise ValueError("hex string without 0x prefix")
    parsed = bytes.fromhex(text[2:])
    if len(parsed) != size:
        raise ValueError(f"hex has invalid length {len(parsed)} after decoding; expected {size}")
    return parsed
