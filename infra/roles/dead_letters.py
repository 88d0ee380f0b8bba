"""The topic `dead_letters` in; its letters listed, shown and driven again out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from infra.kafka.admin import check_topics
from infra.kafka.producer import EnvelopeProducer
from infra.roles.topic_reader import TopicReader
from infra.settings_cluster import KafkaSettings
from schemas.errors_roles import DeadLetterUnknown, RedriveUnfit
from schemas.segments import DEAD_LETTERS
from sinks.dead_letters import Letter, Letters, read_letter


def read_letters(kafka: KafkaSettings, letters: Letters) -> list[Letter]:
    """Let a list hear every message that is kept; the list.

    Raises
    ------
    HeadraceError
        One of HR-60xx.
    """
    with TopicReader(kafka, DEAD_LETTERS) as reader:
        for partition in reader.partitions():
            low, high = reader.bounds(partition)
            for read in reader.read(partition, low, high):
                envelope = read.envelope
                letters.add(partition, read.offset, envelope.value, envelope.headers)
    return letters.all()


def whole_letters(kafka: KafkaSettings, listed: Iterable[Letter]) -> Iterator[Letter]:
    """Letters of a list with what they hold, one at a time.

    Raises
    ------
    DeadLetterUnknown
        If one was dropped since it was listed.
    HeadraceError
        One of HR-60xx.
    """
    with TopicReader(kafka, DEAD_LETTERS) as reader:
        for one in listed:
            read = next(reader.read(one.partition, one.offset, one.offset + 1), None)
            if read is None:
                raise DeadLetterUnknown(letter=one.id)
            envelope = read.envelope
            letter = read_letter(one.partition, one.offset, envelope.value, envelope.headers)
            assert letter is not None
            yield replace(letter, redriven=one.redriven)


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a drive did."""

    driven: tuple[str, ...]
    """Ids of letters whose message was sent to its topic again."""
    unfit: tuple[RedriveUnfit, ...]
    """Why others were not."""


def redrive(kafka: KafkaSettings, letters: Iterable[Letter]) -> Redriven:
    """Send the messages of letters, which must be whole, to their topics and partitions again.

    Each letter is marked once the brokers have its message; doing it twice is harmless.

    Raises
    ------
    HeadraceError
        One of HR-60xx.
    """
    driven: list[str] = []
    unfit: list[RedriveUnfit] = []
    partitions = check_topics(kafka)
    with EnvelopeProducer(kafka, partitions, client_id="headrace-dlq") as producer:
        for letter in letters:
            try:
                envelope = letter.envelope()
                if letter.letter.partition not in range(partitions.get(envelope.topic, 0)):
                    place = f"{envelope.topic}/{letter.letter.partition}"
                    raise RedriveUnfit(letter=letter.id, reason=f"there is no {place} any more")
            except RedriveUnfit as error:
                unfit.append(error)
                continue
            producer.deliver_blocking(envelope, partition=letter.letter.partition)
            producer.deliver_blocking(letter.mark(), partition=letter.partition)
            driven.append(letter.id)
    return Redriven(tuple(driven), tuple(unfit))
