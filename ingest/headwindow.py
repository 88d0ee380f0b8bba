"""Headers in, what is known of the unfinalised window out: pure, no IO."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from ingest.hexcolumns import clip
from schemas.errors_verify import HexMalformed, PayloadInvalid


@dataclass(frozen=True, slots=True)
class HeadHeader:
    """What following the head needs of a header."""

    number: int
    """Height."""
    hash: bytes
    """32 bytes."""
    parent_hash: bytes
    """32 bytes."""
    time: int = 0
    """Timestamp, unix seconds."""


class _HeaderFields(msgspec.Struct, gc=False, rename="camel"):
    number: str
    hash: str
    parent_hash: str
    timestamp: str


_header_fields = msgspec.json.Decoder(_HeaderFields)


def read_header(header: bytes | msgspec.Raw) -> HeadHeader:
    """A header from the JSON of newHeads or of a block, unproven.

    Raises
    ------
    PayloadInvalid, HexMalformed
        Not a header: a field is missing, or is not hex of its width.
    """
    try:
        fields = _header_fields.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PayloadInvalid(method="eth_getBlockByNumber", reason=str(error)) from None
    return HeadHeader(
        _number(fields, "number"),
        _hash(fields, "hash"),
        _hash(fields, "parent_hash"),
        _number(fields, "timestamp"),
    )


def _number(fields: _HeaderFields, name: str) -> int:
    text: str = getattr(fields, name)
    if not re.fullmatch("0x[0-9a-fA-F]{1,15}", text):
        raise _malformed(fields, name, "0x and up to 15 hex digits")
    return int(text, 16)


def _hash(fields: _HeaderFields, name: str) -> bytes:
    text: str = getattr(fields, name)
    if not re.fullmatch("0x[0-9a-fA-F]{64}", text):
        raise _malformed(fields, name, "0x and 64 hex digits")
    return bytes.fromhex(text[2:])


def _malformed(fields: _HeaderFields, name: str, wanted: str) -> HexMalformed:
    values = {"number": clip(fields.number), "hash": clip(fields.hash)}
    return HexMalformed(field=name, wanted=wanted, value=clip(getattr(fields, name)), **values)


class HeadWindow:
    """Headers of the unfinalised window by hash, above a floor that is final.

    Parameters
    ----------
    known : Iterable[HeadHeader]
        Headers whose blocks are stored; the lowest is the anchor and must be final.
    """

    def __init__(self, known: Iterable[HeadHeader]) -> None:
        self._headers = {header.hash: header for header in known}
        if not self._headers:
            raise ValueError("the window needs an anchor")
        self.floor = min(header.number for header in self._headers.values())
        self.highest = max(header.number for header in self._headers.values())

    def __contains__(self, block_hash: bytes) -> bool:
        return block_hash in self._headers

    def __len__(self) -> int:
        return len(self._headers)

    def get(self, block_hash: bytes) -> HeadHeader | None:
        """The header with this hash, if it is known."""
        return self._headers.get(block_hash)

    def tip(self) -> HeadHeader:
        """The highest header known."""
        return max(self._headers.values(), key=lambda header: header.number)

    def add(self, header: HeadHeader) -> None:
        """Know a header."""
        self._headers[header.hash] = header
        self.highest = max(self.highest, header.number)

    def branch(self, block_hash: bytes) -> Iterator[HeadHeader]:
        """A header and its known ancestors, newest first."""
        header = self._headers.get(block_hash)
        while header is not None:
            yield header
            # The block before genesis is its own parent.
            below = self._headers.get(header.parent_hash)
            header = below if below is not header else None

    def ancestor(self, block_hash: bytes, number: int) -> HeadHeader | None:
        """The ancestor of a block at a height, if it is known."""
        return next((h for h in self.branch(block_hash) if h.number == number), None)

    def is_ancestor(self, older: bytes, newer: bytes) -> bool:
        """Whether a known block is an ancestor of another known block."""
        header = self._headers.get(older)
        if header is None or older == newer:
            return False
        found = self.ancestor(newer, header.number)
        return found is not None and found.hash == older

    def finalize(self, header: HeadHeader) -> None:
        """Forget what lies below a final block, which becomes the anchor."""
        self.floor = header.number
        self._headers = {
            block_hash: kept
            for block_hash, kept in self._headers.items()
            if kept.number > header.number or block_hash == header.hash
        }
        self._headers[header.hash] = header
        self.highest = max(kept.number for kept in self._headers.values())
