"""What the broker has acknowledged in, where an ingester goes on out: as one message.

Covered are final blocks: whole segments of the history lane, and blocks of the head lane from the
moment that a final block has them as ancestors. An ingester keeps nothing else, so any other one
goes on where it ended. Several ingesters of one chain read each other's checkpoints and write what
all of them have covered.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from ingest.coverage import Coverage
from schemas.codec import encode_ingest_checkpoint
from schemas.segments import CHECKPOINTS, BlockRef, Envelope, HeadObserved, IngestCheckpoint


@dataclass(frozen=True, slots=True)
class _Told:
    """A header of the head lane above the newest final one."""

    number: int
    parent_hash: bytes


class Checkpoint:
    """The acknowledged part of one chain; told of acknowledgements from any thread.

    Parameters
    ----------
    chain_id
        The chain.
    content_version
        Of the source, whatever the level of verification; another one begins anew.
    instance
        This ingester's name.
    requests_offset
        Where the topic ``requests`` is read from, until a checkpoint says otherwise.
    """

    def __init__(
        self, chain_id: int, content_version: str, instance: str, requests_offset: int = 0
    ) -> None:
        self.chain_id, self.content_version = chain_id, content_version
        self.instance = instance
        self.requests_offset = requests_offset
        self._coverage = Coverage()
        self._finalized: BlockRef | None = None
        self._head: int | None = None
        self._tip = b""
        self._told: dict[bytes, _Told] = {}
        self._acknowledged: set[bytes] = set()
        self._awaited: dict[bytes, int] = {}
        self._changed = False
        self._lock = threading.Lock()

    @property
    def finalized(self) -> BlockRef | None:
        """The newest final block that the head lane has told, if any."""
        return self._finalized

    @property
    def head(self) -> int | None:
        """The highest block that the head lane has told, if any."""
        return self._head

    def coverage(self) -> Coverage:
        """A copy of what is covered."""
        with self._lock:
            return Coverage(self._coverage.spans)

    def merge(self, other: IngestCheckpoint) -> None:
        """Take in what another ingester, or this one in its former life, has covered."""
        if (other.chain_id, other.content_version) != (self.chain_id, self.content_version):
            return
        with self._lock:
            before = self._coverage.spans
            for span in other.covered:
                self._coverage.add(span.from_block, span.to_block)
            # What we know beyond the other one's word is still to be written.
            self._changed |= before != () and self._coverage.spans != other.covered
            theirs, ours = other.finalized, self._finalized
            if theirs is not None and (ours is None or theirs.number > ours.number):
                self._finalized = theirs
            if other.head is not None:
                self._head = max(other.head, self._head or 0)

    def observe(self, header: HeadObserved) -> None:
        """Know a header of the head lane, before its block is acknowledged."""
        with self._lock:
            self._told[header.hash] = _Told(header.number, header.parent_hash)
            if header.is_head:
                self._tip = header.hash
            if self._head is None or header.number > self._head:
                self._head, self._changed = header.number, True

    def acknowledge(self, from_block: int, to_block: int, last_hash: bytes, lane: str) -> None:
        """All messages of a segment are acknowledged."""
        with self._lock:
            if lane == "history" or self._awaited.pop(last_hash, None) is not None:
                self._changed |= self._coverage.add(from_block, to_block)
            elif last_hash in self._told:
                self._acknowledged.add(last_hash)

    def finalize(self, block: BlockRef) -> None:
        """The word that a block is final is acknowledged: so are its ancestors."""
        with self._lock:
            if self._finalized is None or block.number > self._finalized.number:
                self._finalized = block
            self._changed = True
            block_hash = block.hash
            while (told := self._told.pop(block_hash, None)) is not None:
                if block_hash in self._acknowledged:
                    self._coverage.add(told.number, told.number)
                else:
                    self._awaited[block_hash] = told.number
                block_hash = told.parent_hash
            self._told = {
                key: told for key, told in self._told.items() if told.number > block.number
            }
            self._acknowledged &= self._told.keys()

    def reached(self, first: int, last: int) -> bool:
        """Whether blocks `first` to `last` are acknowledged: final ones, and the head's above."""
        with self._lock:
            end, block_hash = self._coverage.end_of(first), self._tip
            if block_hash in self._told and self._told[block_hash].number < last:
                block_hash = b""
            while end < last and (told := self._told.get(block_hash)) is not None:
                if told.number <= end:
                    return False
                if told.number <= last and block_hash not in self._acknowledged:
                    return False
                if told.number == end + 1:
                    return True
                block_hash = told.parent_hash
            return end >= last

    def took_request(self, offset: int) -> None:
        """The requests below `offset` are done."""
        with self._lock:
            if offset > self.requests_offset:
                self.requests_offset, self._changed = offset, True

    def take(self, now_ms: int) -> IngestCheckpoint | None:
        """The message to write; None where nothing has changed since the last one."""
        with self._lock:
            if not self._changed:
                return None
            self._changed = False
            return IngestCheckpoint(
                self.chain_id,
                self.content_version,
                self._coverage.spans,
                self._finalized,
                self._head,
                self.requests_offset,
                self.instance,
                now_ms,
            )

    def put_back(self) -> None:
        """What was taken could not be written: it is due again."""
        with self._lock:
            self._changed = True


def checkpoint_key(chain_id: int, content_version: str) -> bytes:
    """The key under which the newest checkpoint of a chain's content is kept."""
    return f"{chain_id}:{content_version}".encode()


def checkpoint_envelope(checkpoint: IngestCheckpoint) -> Envelope:
    """The message of a checkpoint."""
    headers: Mapping[str, str] = {
        "chain_id": str(checkpoint.chain_id),
        "schema": "IngestCheckpoint",
    }
    key = checkpoint_key(checkpoint.chain_id, checkpoint.content_version)
    return Envelope(CHECKPOINTS, key, encode_ingest_checkpoint(checkpoint), dict(headers))
