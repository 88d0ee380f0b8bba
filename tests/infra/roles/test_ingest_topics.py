"""What the reorg agent and the ingesters said last, whatever else lies in their topics."""

from __future__ import annotations

from typing import cast

from infra.roles.ingest_topics import newest_checkpoints, told_as_final, told_height
from infra.roles.topic_reader import Read, TopicReader
from ingest.checkpoint import checkpoint_key
from schemas.codec import encode_fork_update, encode_ingest_checkpoint
from schemas.segments import BlockRef, BlockSpan, Envelope, ForkUpdate, IngestCheckpoint

FINAL, HEAD = BlockRef(7, b"\7" * 32), BlockRef(9, b"\11" * 32)
UPDATE = ForkUpdate(
    chain_id=1, head=HEAD, safe=None, finalized=FINAL, removed=(), added=(HEAD,), observed_at_ms=0
)


def message(offset: int, key: bytes, value: bytes) -> Read:
    return Read(0, offset, 0, Envelope("", key, value))


class Forks:
    """The topic `forks`."""

    def __init__(self, *values: tuple[bytes, bytes]) -> None:
        self._messages = [message(at, key, value) for at, (key, value) in enumerate(values)]

    def bounds(self) -> tuple[int, int]:
        return 0, len(self._messages)

    def read(self, partition: int, first: int, end: int) -> list[Read]:
        assert (partition, first, end) == (0, *self.bounds())
        return self._messages


def told(*values: tuple[bytes, bytes]) -> BlockRef | None:
    return told_as_final(cast("TopicReader", Forks(*values)), 1)


def test_the_last_word_on_our_chain_counts() -> None:
    assert told() is None
    assert told((b"2", b"of another chain")) is None
    assert told((b"1", encode_fork_update(UPDATE)), (b"2", b"")) == FINAL


def test_a_message_that_is_none_of_ours_keeps_no_ingester_from_starting() -> None:
    assert told((b"1", b"damaged")) is None
    assert told((b"1", encode_fork_update(UPDATE)), (b"1", b"damaged"), (b"1", b"")) == FINAL


def test_a_checkpoint_that_cannot_be_read_keeps_no_ingester_from_starting() -> None:
    good = IngestCheckpoint(1, "v1", (), FINAL, 9, 3, "one", 0)
    ours, value = checkpoint_key(1, "v1"), encode_ingest_checkpoint(good)
    messages = [
        message(0, ours, b"damaged"),
        message(1, ours, value[: len(value) // 2]),
        message(2, checkpoint_key(2, "v1"), b"of another chain"),
        message(3, ours, value),
        message(4, ours, b""),
    ]
    assert newest_checkpoints(messages, 1, "v1") == [good]
    assert newest_checkpoints(messages[:3], 1, "v1") == []


def test_the_highest_block_that_was_sent_is_told_by_every_checkpoint() -> None:
    def height(*said: IngestCheckpoint) -> int | None:
        values = [b"damaged", b"", *(encode_ingest_checkpoint(one) for one in said)]
        return told_height([message(at, b"", value) for at, value in enumerate(values)], 1)

    assert height() is None
    assert height(IngestCheckpoint(1, "v1", (), None, None, 0, "idle", 0)) is None
    assert height(IngestCheckpoint(2, "v1", (), FINAL, 99, 0, "other chain", 0)) is None
    history = IngestCheckpoint(1, "v1", (BlockSpan(0, 4),), None, None, 0, "history", 0)
    assert height(history) == 4
    assert height(history, IngestCheckpoint(1, "v2", (), FINAL, None, 0, "final", 0)) == 7
    assert height(IngestCheckpoint(1, "v2", (), FINAL, 9, 0, "head", 0), history) == 9
