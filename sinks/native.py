"""Columns in, one block of ClickHouse's native protocol out, without Python per row.

clickhouse-driver writes its own blocks column by column, value by value. Here a block's columns
arrive as the bytes that the protocol wants (``schemas.columns.to_native``): they are framed and
sent. Only the subclasses below know of it; the driver itself is not patched.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import lz4.block  # type: ignore[import-untyped]
from clickhouse_cityhash.cityhash import CityHash128  # type: ignore[import-untyped]
from clickhouse_driver import Client
from clickhouse_driver.block import ColumnOrientedBlock
from clickhouse_driver.connection import Connection as DriverConnection
from clickhouse_driver.streams.compressed import CompressedBlockOutputStream
from clickhouse_driver.streams.native import BlockOutputStream

from schemas.columns import Part

FRAME_BYTES = 1 << 20
PIECE_BYTES = 1 << 16
"""Parts of this size and above are sent as they are."""
_UNTOLD = {"send_profile_events": 0}
"""A third of a small insert's cost was to read what the server counted. The driver's own inserts
wait for that, so it is a setting of ours only."""
PING_SECONDS = 1.0
"""How long the answer to a ping counts: a round trip before each of thirty inserts is waste."""
LZ4_METHOD = 0x82
BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
"""Block info of the protocol: field 1 is_overflows = 0, field 2 bucket_num = -1, end."""


@dataclass(frozen=True, slots=True)
class NativeBlock:
    """A block whose columns are bytes already."""

    rows: int
    """How many rows each column holds."""
    columns: tuple[tuple[str, str, Sequence[Part]], ...]
    """(name, ClickHouse type, pieces of the body) in the table's order."""


def block_parts(block: NativeBlock) -> Iterator[Part]:
    """The block's bytes in the order in which they are sent.

    Source: ClickHouse's native protocol, revision 54454 and later (a serialization flag a column).
    """
    yield BLOCK_INFO + varint(len(block.columns)) + varint(block.rows)
    for name, type_, body in block.columns:
        yield _text(name) + _text(type_) + b"\x00"
        yield from body


def pieces(parts: Iterable[Part]) -> Iterator[Part]:
    """The same bytes, small parts joined until they are worth a call to the system."""
    pending: list[Part] = []
    size = 0
    for part in parts:
        length = memoryview(part).nbytes
        if length < PIECE_BYTES:
            pending.append(part)
            size += length
        if size >= PIECE_BYTES or (pending and length >= PIECE_BYTES):
            yield b"".join(pending)
            pending, size = [], 0
        if length >= PIECE_BYTES:
            yield part
    if pending:
        yield b"".join(pending)


def compressed_frames(parts: Iterable[Part]) -> Iterator[bytes]:
    """The bytes cut into frames of at most 1 MiB, each compressed with LZ4 and checksummed."""
    pending: list[memoryview] = []
    size = 0
    for piece in pieces(parts):
        view = memoryview(piece).cast("B")
        while view:
            cut = view[: FRAME_BYTES - size]
            pending.append(cut)
            size += len(cut)
            view = view[len(cut) :]
            if size == FRAME_BYTES:
                yield _frame(b"".join(pending))
                pending, size = [], 0
    if size:
        yield _frame(b"".join(pending))


def varint(value: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class NativeClient(Client):  # type: ignore[misc]
    """clickhouse-driver's client that can also send a `NativeBlock`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        context = self.connection.context
        kwargs.pop("settings", None)
        self.connection: DriverConnection = _NativeConnection(*args, **kwargs)
        self.connection.context = context
        self.connections: deque[DriverConnection] = deque()

    def insert_block(
        self, sql: str, block: NativeBlock, settings: dict[str, object]
    ) -> Sequence[tuple[str, str]] | None:
        """Send one block as one INSERT.

        Returns
        -------
        The table's columns where they differ from the block's: then nothing was sent.
        """
        with self.disconnect_on_error(sql, {**settings, **_UNTOLD}):
            self.connection.send_query(sql)
            self.connection.send_external_tables(None)
            sample = self.receive_sample_block()
            asked: list[tuple[str, str]] = list(sample.columns_with_types)
            if asked != [(name, type_) for name, type_, _ in block.columns]:
                self.disconnect()
                return asked
            self.connection.send_data(block)
            self.connection.send_data(ColumnOrientedBlock())
            # Takes profile events, too, from a server that does not know how to leave them out.
            self.receive_end_of_insert_query()
        return None


class _NativeConnection(DriverConnection):  # type: ignore[misc]
    """The driver's connection with block writers that know `NativeBlock`, and fewer pings."""

    _asked_at = -inf

    def ping(self) -> bool | None:
        """Whether the connection stands; the driver asks before each query.

        One that answered a moment ago is only looked at: a peer that has gone has closed it.
        """
        now = time.monotonic()
        if self.socket and now - self._asked_at < PING_SECONDS and not _has_news(self.socket):
            return True
        stands: bool | None = super().ping()
        self._asked_at = now if stands else -inf
        return stands

    def get_block_out_stream(self) -> BlockOutputStream:
        if self.compression:
            return _CompressedWriter(
                self.compressor_cls, self.compress_block_size, self.fout, self.context
            )
        return _PlainWriter(self.fout, self.context, self.socket)


class _PlainWriter(BlockOutputStream):  # type: ignore[misc]
    def __init__(self, fout: Any, context: Any, peer: socket.socket) -> None:
        super().__init__(fout, context)
        self._peer = peer

    def write(self, block: object) -> None:
        if not isinstance(block, NativeBlock):
            super().write(block)
            return
        # Past the driver's buffer, through which every byte would be copied once more.
        self.fout.flush()
        for piece in pieces(block_parts(block)):
            self._peer.sendall(piece)


class _CompressedWriter(CompressedBlockOutputStream):  # type: ignore[misc]
    def write(self, block: object) -> None:
        if not isinstance(block, NativeBlock):
            super().write(block)
            return
        for frame in compressed_frames(block_parts(block)):
            self.raw_fout.write(frame)
        self.raw_fout.flush()


def _has_news(peer: socket.socket) -> bool:
    """Whether bytes wait to be read, or the end."""
    news = select.poll()
    news.register(peer, select.POLLIN)
    return bool(news.poll(0))


def _frame(plain: bytes) -> bytes:
    packed: bytes = lz4.block.compress(plain, store_size=False)
    body = struct.pack("<BII", LZ4_METHOD, len(packed) + 9, len(plain)) + packed
    digest: int = CityHash128(body)
    # One integer holds both halves of the digest; the wire wants the high half first.
    return struct.pack("<QQ", digest >> 64, digest & 0xFFFF_FFFF_FFFF_FFFF) + body


def _text(text: str) -> bytes:
    raw = text.encode()
    return varint(len(raw)) + raw
