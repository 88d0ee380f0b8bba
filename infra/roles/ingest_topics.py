"""Messages of `checkpoints` and `forks` in, what was covered and what is final out."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from infra.roles.topic_reader import Read, TopicReader
from ingest.checkpoint import checkpoint_key
from schemas.codec import UnknownMessage, decode_fork_update, decode_ingest_checkpoint
from schemas.segments import BlockRef, IngestCheckpoint

log = structlog.get_logger(__name__)

FORKS_LOOKED_BACK = 2_000
"""Fork updates that are looked through, newest first, for one of our chain."""


def newest_checkpoints(
    messages: Iterable[Read], chain_id: int, content_version: str
) -> list[IngestCheckpoint]:
    """The checkpoints of a chain's content, oldest first: all of them count together.

    One that cannot be read is left out: what it covers is ingested again at worst, and the next
    checkpoint takes its place under the key.
    """
    key = checkpoint_key(chain_id, content_version)
    found: list[IngestCheckpoint] = []
    for message in messages:
        envelope = message.envelope
        if envelope.key != key or not envelope.value:
            continue
        try:
            found.append(decode_ingest_checkpoint(envelope.value))
        except UnknownMessage as error:
            log.warning("checkpoint_unread", offset=message.offset, code=error.code)
    return found


def told_height(messages: Iterable[Read], chain_id: int) -> int | None:
    """The highest block of a chain that ingesters have sent, by their checkpoints; None for none.

    Parameters
    ----------
    messages
        All of the topic ``checkpoints``.
    chain_id
        The chain.
    """
    heights: list[int] = []
    for message in messages:
        try:
            found = decode_ingest_checkpoint(message.envelope.value)
        except UnknownMessage:
            continue
        if found.chain_id == chain_id:
            heights += [span.to_block for span in found.covered]
            heights += [] if found.head is None else [found.head]
            heights += [] if found.finalized is None else [found.finalized.number]
    return max(heights, default=None)


def told_as_final(forks: TopicReader, chain_id: int) -> BlockRef | None:
    """The newest block that the reorg agent calls final, by its own last word on the chain.

    Parameters
    ----------
    forks
        Of the topic ``forks``.
    chain_id
        The chain.

    Raises
    ------
    HeadraceError
        One of HR-60xx.
    """
    low, high = forks.bounds()
    key = str(chain_id).encode()
    for message in reversed(list(forks.read(0, max(low, high - FORKS_LOOKED_BACK), high))):
        if message.envelope.key == key:
            try:
                return decode_fork_update(message.envelope.value).finalized
            except UnknownMessage as error:
                # Somebody else's, or damaged: the word before it is as good to go on from.
                log.warning("fork_update_unread", offset=message.offset, code=error.code)
    return None
