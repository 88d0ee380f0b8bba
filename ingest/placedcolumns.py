"""Places of hex texts in, columns out: the texts of several fields are decoded together."""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.hexcolumns import as_kind, is_quantity, zeros
from ingest.objectlayout import Irregular
from ingest.quantitydigits import NARROW, WIDE, decode_ended, taken
from schemas.columns import Bytes, Column, Nullable, Ragged
from schemas.kinds import Kind

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def placed_columns(
    text: bytes, starts: Ints, ends: Ints, given: Mask, kinds: Sequence[Kind]
) -> list[Column]:
    """Decode fields of rows.

    Parameters
    ----------
    text : bytes
        What holds the digits; at least 64 characters stand before the first of them.
    starts, ends : int64[rows, fields]
        Where the digits of each value begin and end.
    given : bool[rows, fields]
        False where there is no value.
    kinds : sequence of Kind
        The fields' kinds, as of `ingest.hexcolumns.hex_column`.

    Returns
    -------
    list of Column
        What `hex_column` gives for the same texts.

    Raises
    ------
    Irregular
        A value is malformed, out of range, absent where it must not be, or begins with so many
        zeros that it has more digits than its kind.
    """
    sizes = np.where(given, ends - starts, 0)
    inner = [kind.children[0] if kind.shape == "nullable" else kind for kind in kinds]
    columns: list[Any] = [None] * len(kinds)
    quantities = [field for field, kind in enumerate(inner) if is_quantity(kind)]
    fixed: dict[int, list[int]] = {}
    for field, kind in enumerate(inner):
        if kind.shape == "fixed" and not is_quantity(kind):
            fixed.setdefault(2 * kind.width, []).append(field)
    try:
        for digits, fields in fixed.items():
            if not (sizes[:, fields] == digits * given[:, fields]).all():
                raise Irregular
            at, counts = _flat(starts, given, fields)
            parts = decode_digits(taken(text, at, digits))
            _share(columns, fields, counts, parts)
        _quantities(columns, text, ends, sizes, given, quantities)
        for field, kind in enumerate(inner):
            if kind.shape == "ragged":
                columns[field] = _ragged(text, starts[:, field], ends[:, field], given[:, field])
            elif is_quantity(kind):
                columns[field] = as_kind(kind, columns[field])
                if columns[field] is None:
                    raise Irregular
    except ValueError:
        raise Irregular from None
    return [
        _whole(kind, column, given[:, field])
        for field, (kind, column) in enumerate(zip(kinds, columns, strict=True))
    ]


def decode_digits(digits: Bytes) -> Bytes:
    """The bytes that rows of hex digits say; ValueError where one is no digit."""
    decoded = np.frombuffer(unhexlify(np.ascontiguousarray(digits).data), np.uint8)
    return decoded.reshape(len(digits), digits.shape[1] >> 1)


def _flat(places: Ints, given: Mask, fields: list[int]) -> tuple[Ints, list[int]]:
    """The given places of some fields, field after field, and how many each has."""
    own = given[:, fields].T
    flat: Ints = places[:, fields].T[own]
    return flat, own.sum(axis=1).tolist()


def _share(columns: list[Any], fields: list[int], counts: list[int], parts: Bytes) -> None:
    """Give each field its rows."""
    begin = 0
    for field, count in zip(fields, counts, strict=True):
        columns[field] = parts[begin : begin + count]
        begin += count


def _quantities(
    columns: list[Any], text: bytes, ends: Ints, sizes: Ints, given: Mask, fields: list[int]
) -> None:
    """Big-endian numbers of fields of quantities, of 32 bytes where 8 do not hold them."""
    if not ((sizes[:, fields] > 0) == given[:, fields]).all():
        raise Irregular
    largest = sizes[:, fields].max(axis=0)
    if int(largest.max()) > WIDE:
        raise Irregular
    for width in (NARROW, WIDE):
        own = [
            field
            for field, size in zip(fields, largest.tolist(), strict=True)
            if (size > NARROW) == (width == WIDE)
        ]
        if own:
            at, counts = _flat(ends, given, own)
            digits, _ = _flat(sizes, given, own)
            _share(columns, own, counts, decode_ended(text, at, digits, width))


def _ragged(text: bytes, starts: Ints, ends: Ints, given: Mask) -> Ragged:
    """Values of any length; every row must have one."""
    sizes = ends - starts
    if not given.all() or int(sizes.min()) < 0 or (sizes & 1).any():
        raise Irregular
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    decoded = unhexlify(b"".join([text[start:stop] for start, stop in pairs]))
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(sizes >> 1, out=offsets[1:])
    return Ragged(offsets, np.frombuffer(decoded, np.uint8))


def _whole(kind: Kind, values: Any, given: Mask) -> Column:
    """The column of a kind from the values of the rows that have one."""
    if kind.shape != "nullable":
        if not given.all():
            raise Irregular
        column: Column = values
        return column
    if len(values) == len(given):
        return Nullable(given, values)
    spread: Any = zeros(kind.children[0], len(given))
    spread[given] = values
    return Nullable(given, spread)
