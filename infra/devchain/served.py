"""What an endpoint needs of a chain, whether it lives in memory or lies in an archive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from infra.devchain.logfilter import LogFilter


class BlockJson(Protocol):
    """One block's JSON, wherever it comes from."""

    @property
    def number(self) -> int:
        """Its height."""

    @property
    def full(self) -> bytes:
        """With whole transactions."""

    @property
    def brief(self) -> bytes:
        """With transaction hashes."""

    @property
    def header_only(self) -> bytes:
        """Its header."""

    @property
    def receipts(self) -> bytes:
        """Its receipts."""

    def receipt(self, index: int) -> bytes:
        """One of them."""

    def transaction(self, index: int) -> bytes:
        """One of its transactions."""


class ChainView(Protocol):
    """A chain at one moment."""

    @property
    def head(self) -> int:
        """Number of the last block."""

    @property
    def safe(self) -> int:
        """Number of the safe block."""

    @property
    def finalized(self) -> int:
        """Number of the finalized block."""

    def behind(self, blocks: int) -> ChainView:
        """The same chain some blocks ago."""

    def another(self, blocks: int) -> ChainView:
        """A chain of another genesis with the same chain id, so many blocks long."""

    def hash_at(self, number: int) -> bytes | None:
        """Hash of a canonical block."""

    def at(self, number: int) -> BlockJson | None:
        """A canonical block."""

    def known(self, block_hash: bytes) -> BlockJson | None:
        """A block by hash."""

    def transaction(self, transaction_hash: bytes) -> tuple[BlockJson, int] | None:
        """The block that holds a transaction, and its index."""

    def logs(self, first: int, last: int, wanted: LogFilter) -> Iterator[bytes]:
        """Logs of a range."""

    def logs_of(self, block_hash: bytes, wanted: LogFilter) -> Iterator[bytes]:
        """Logs of a block."""

    def value(self, key: bytes, number: int) -> int:
        """A value of the state after a block."""


class Served(Protocol):
    """A chain that can be served."""

    @property
    def chain_id(self) -> int:
        """Its id."""

    @property
    def seed(self) -> int:
        """What it was made from."""

    @property
    def view(self) -> ChainView:
        """The chain now."""
