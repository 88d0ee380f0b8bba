"""Byte strings, integers and encoded parts in, Recursive Length Prefix bytes out.

Source: Ethereum Yellow Paper, appendix B.
"""

from collections.abc import Iterable

EMPTY_BYTES = b"\x80"
"""RLP of the empty byte string, which is also the integer 0."""
EMPTY_LIST = b"\xc0"
"""RLP of the empty list."""

_SHORT = 56
_BYTES_SHORT = tuple(bytes((0x80 + size,)) for size in range(_SHORT))
_LIST_SHORT = tuple(bytes((0xC0 + size,)) for size in range(_SHORT))


def _long_prefix(size: int, base: int) -> bytes:
    width = (size.bit_length() + 7) >> 3
    return bytes((base + width,)) + size.to_bytes(width, "big")


def bytes_prefix(size: int) -> bytes:
    """Prefix of a byte string of ``size`` bytes, other than a single byte below 0x80."""
    return _BYTES_SHORT[size] if size < _SHORT else _long_prefix(size, 0xB7)


def list_prefix(size: int) -> bytes:
    """Prefix of a list whose encoded parts are ``size`` bytes together."""
    return _LIST_SHORT[size] if size < _SHORT else _long_prefix(size, 0xF7)


def encode_bytes(value: bytes) -> bytes:
    """Encode one byte string.

    Parameters
    ----------
    value : bytes

    Returns
    -------
    bytes
        Its RLP.
    """
    size = len(value)
    if size == 1 and value[0] < 0x80:
        return value
    return bytes_prefix(size) + value


def encode_uint(value: int) -> bytes:
    """Encode a non-negative integer as the byte string of its big-endian digits without zeros.

    Parameters
    ----------
    value : int

    Returns
    -------
    bytes
        Its RLP; zero is the empty string.

    Raises
    ------
    OverflowError
        If ``value`` is negative.
    """
    return encode_bytes(value.to_bytes((value.bit_length() + 7) >> 3, "big"))


def encode_list(encoded_parts: Iterable[bytes]) -> bytes:
    """Encode a list whose parts are RLP already.

    Parameters
    ----------
    encoded_parts : iterable of bytes
        Each part's RLP, in order.

    Returns
    -------
    bytes
        The list's RLP.
    """
    body = b"".join(encoded_parts)
    return list_prefix(len(body)) + body
