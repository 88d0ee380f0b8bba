"""Refused messages in, envelopes of the topic `dead_letters` out, and back for another drive."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.codec import UnknownMessage, decode_dead_letter, encode_dead_letter, message_name
from schemas.errors import HeadraceError
from schemas.errors_roles import RedriveUnfit
from schemas.segments import DEAD_LETTERS, DeadLetter, Envelope
from schemas.topics import topics_by_name

SOURCE = "source."
"""Prefix under which a letter's headers keep those of the refused message."""
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
    kept = {f"{SOURCE}{name}": text for name, text in source.headers.items()}
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
    """What it holds."""
    headers: dict[str, str]
    """Its headers."""
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
            name.removeprefix(SOURCE): text
            for name, text in self.headers.items()
            if name.startswith(SOURCE)
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


class Letters:
    """Messages of the topic `dead_letters`, put together to letters."""

    def __init__(self) -> None:
        self.letters: dict[str, Letter] = {}
        self.unread = 0
        """Messages that are no letters of ours."""
        self._driven: dict[str, int] = {}

    def add(self, partition: int, offset: int, value: bytes, headers: dict[str, str]) -> None:
        """Take a message of the topic."""
        driven = headers.get(REDRIVEN)
        if driven is not None:
            self._driven[driven] = self._driven.get(driven, 0) + 1
            return
        try:
            letter = Letter(partition, offset, decode_dead_letter(value), headers)
        except UnknownMessage:
            self.unread += 1
            return
        self.letters[letter.id] = letter

    def all(self) -> list[Letter]:
        """Every letter, oldest first, with how often it was driven again."""
        found = sorted(self.letters.values(), key=lambda one: one.letter.observed_at_ms)
        return [
            Letter(one.partition, one.offset, one.letter, one.headers, self._driven.get(one.id, 0))
            for one in found
        ]
