"""Refused messages in, envelopes of the topic `dead_letters` out, and back for another drive."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace

from schemas.codec import UnknownMessage, decode_dead_letter, encode_dead_letter, message_name
from schemas.errors import HeadraceError
from schemas.errors_roles import RedriveUnfit
from schemas.segments import DEAD_LETTERS, LETTER_SOURCE, DeadLetter, Envelope
from schemas.topics import topics_by_name

REDRIVEN = "redriven"
"""Header of a mark: the letter of that id was driven again."""


def dead_letter(
    source: Envelope, partition: int, offset: int, error: HeadraceError, stage: str, now_ms: int
) -> Envelope:
    """The letter for a message that a stage refused; it goes to the same partition number.

    Parameters
    ----------
    source
        The refused message; its topic is named without the prefix.
    partition, offset
        Where it lies.
    error
        Why it was refused.
    stage
        Who refused it.
    now_ms
        Unix milliseconds.
    """
    letter = DeadLetter(
        stage=stage,
        reason_code=error.code,
        reason=error.what_text,
        topic=source.topic,
        partition=partition,
        offset=offset,
        key=source.key,
        value=source.value,
        observed_at_ms=now_ms,
    )
    kept = {f"{LETTER_SOURCE}{name}": text for name, text in source.headers.items()}
    headers = {"schema": "DeadLetter", **kept}
    return Envelope(DEAD_LETTERS, source.key, encode_dead_letter(letter), headers)


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it lies in its topic."""

    partition: int
    """Its partition."""
    offset: int
    """Its offset."""
    letter: DeadLetter
    """What it holds; in a list without the bytes of the refused message."""
    headers: dict[str, str]
    """Its headers."""
    size_bytes: int
    """Bytes of the refused message."""
    redriven: int = 0
    """How often it was driven again."""

    @property
    def id(self) -> str:
        """``partition:offset``."""
        return f"{self.partition}:{self.offset}"

    def envelope(self) -> Envelope:
        """The refused message as it was sent.

        Raises
        ------
        RedriveUnfit
            If the letter does not hold it, or if it is of the moment, and that is over.
        """
        source = self.letter
        headers = {
            name.removeprefix(LETTER_SOURCE): text
            for name, text in self.headers.items()
            if name.startswith(LETTER_SOURCE)
        }
        topic = topics_by_name().get(source.topic)
        if topic is not None and topic.retention != "segments":
            # A head or a fork of before would set the chain back.
            reason = f"{source.topic} tells what is so now, and this was so before"
            raise RedriveUnfit(letter=self.id, reason=reason)
        if not source.value:
            raise RedriveUnfit(letter=self.id, reason="the message was empty, or too large to keep")
        if not headers:
            # Whoever wrote the letter kept no headers: the bytes say what they are.
            try:
                headers = {"schema": message_name(source.value)}
            except UnknownMessage as error:
                raise RedriveUnfit(letter=self.id, reason=error.what_text) from error
        return Envelope(source.topic, source.key, source.value, headers)

    def mark(self) -> Envelope:
        """The message that says that this letter was driven again."""
        headers = {"schema": "DeadLetter", REDRIVEN: self.id}
        return Envelope(DEAD_LETTERS, self.letter.key, b"", headers)


def read_letter(
    partition: int, offset: int, value: bytes, headers: dict[str, str]
) -> Letter | None:
    """A message of the topic as a letter; None where it is none of ours."""
    try:
        letter = decode_dead_letter(value)
    except UnknownMessage:
        return None
    return Letter(partition, offset, letter, headers, len(letter.value))


class Letters:
    """The letters of a topic in, message by message; those that are asked for out, as a list.

    What they hold is let go: a list of many does not need the memory of all.

    Parameters
    ----------
    wanted
        Which letters are asked for.
    count_max
        How many of them, at most; None for all.
    newest
        The newest of them, newest first; else the oldest, oldest first.
    """

    def __init__(
        self,
        wanted: Callable[[Letter], bool] = lambda _letter: True,
        count_max: int | None = None,
        *,
        newest: bool = False,
    ) -> None:
        self.found = 0
        """Letters that were asked for, whether the list has room for them or not."""
        self._wanted, self._count_max = wanted, count_max
        self._sign = 1 if newest else -1
        self._listed: list[tuple[tuple[int, int, int], Letter]] = []
        self._driven: dict[str, int] = {}

    def add(self, partition: int, offset: int, value: bytes, headers: dict[str, str]) -> None:
        """Take a message of the topic."""
        driven = headers.get(REDRIVEN)
        if driven is not None:
            self._driven[driven] = self._driven.get(driven, 0) + 1
            return
        letter = read_letter(partition, offset, value, headers)
        if letter is None or not self._wanted(letter):
            return
        self.found += 1
        at = self._sign * letter.letter.observed_at_ms
        place = (at, self._sign * partition, self._sign * offset)
        empty = replace(letter, letter=replace(letter.letter, value=b""))
        heapq.heappush(self._listed, (place, empty))
        if self._count_max is not None and len(self._listed) > self._count_max:
            heapq.heappop(self._listed)

    def all(self) -> list[Letter]:
        """The list, with how often each letter was driven again."""
        return [
            replace(one, redriven=self._driven.get(one.id, 0))
            for _, one in sorted(self._listed, key=lambda kept: kept[0], reverse=True)
        ]
