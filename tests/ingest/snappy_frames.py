"""Snappy framed bytes in, plain bytes out: enough of the format to read era1 files in tests.

Source: google/snappy, format_description.txt and framing_format.txt.
"""

from __future__ import annotations


def unframe(framed: bytes) -> bytes:
    """Decompress a stream of frames; checksums are left to the hashes that tests compare."""
    out, at = b"", 0
    while at < len(framed):
        kind, size = framed[at], int.from_bytes(framed[at + 1 : at + 4], "little")
        body = framed[at + 4 : at + 4 + size]
        at += 4 + size
        if kind == 0x00:
            out += _block(body[4:])
        elif kind == 0x01:
            out += body[4:]
    return out


def _block(packed: bytes) -> bytes:
    at = 0
    while packed[at] & 0x80:
        at += 1
    at += 1
    out = bytearray()
    while at < len(packed):
        tag = packed[at]
        at += 1
        if tag & 3 == 0:
            size = tag >> 2
            if size >= 60:
                width = size - 59
                size = int.from_bytes(packed[at : at + width], "little")
                at += width
            out += packed[at : at + size + 1]
            at += size + 1
            continue
        if tag & 3 == 1:
            size, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | packed[at]
            at += 1
        else:
            width = 2 if tag & 3 == 2 else 4
            size, offset = (tag >> 2) + 1, int.from_bytes(packed[at : at + width], "little")
            at += width
        for _ in range(size):
            out.append(out[-offset])
    return bytes(out)
