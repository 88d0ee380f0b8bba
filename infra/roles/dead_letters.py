"""The topic `dead_letters` in; its letters listed, shown and driven again out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from infra.kafka.admin import check_topics
from infra.kafka.producer import EnvelopeProducer
from infra.roles.topic_reader import TopicReader
from infra.settings_cluster import KafkaSettings
from schemas.errors_roles import RedriveUnfit
from schemas.segments import DEAD_LETTERS
from sinks.dead_letters import Letter, Letters


def read_letters(kafka: KafkaSettings) -> Letters:
    """Every letter that is kept.

    Raises
    ------
    HeadraceError
        One of HR-60xx.
    """
    letters = Letters()
    with TopicReader(kafka, DEAD_LETTERS) as reader:
        for partition in reader.partitions():
            low, high = reader.bounds(partition)
            for read in reader.read(partition, low, high):
                envelope = read.envelope
                letters.add(partition, read.offset, envelope.value, envelope.headers)
    return letters


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a drive did."""

    driven: tuple[Letter, ...]
    """Letters whose message was sent to its topic again."""
    unfit: tuple[tuple[Letter, RedriveUnfit], ...]
    """Letters that do not hold their message, with the reason."""


def redrive(
    kafka: KafkaSettings, letters: Sequence[Letter], on_driven: Callable[[Letter], None]
) -> Redriven:
    """Send the messages of letters to their topics and partitions again.

    Each letter is marked once the brokers have its message; doing it twice is harmless.

    Raises
    ------
    HeadraceError
        One of HR-60xx.
    """
    driven: list[Letter] = []
    unfit: list[tuple[Letter, RedriveUnfit]] = []
    partitions = check_topics(kafka)
    with EnvelopeProducer(kafka, partitions, client_id="headrace-dlq") as producer:
        for letter in letters:
            try:
                envelope = letter.envelope()
                if letter.letter.partition not in range(partitions.get(envelope.topic, 0)):
                    place = f"{envelope.topic}/{letter.letter.partition}"
                    raise RedriveUnfit(letter=letter.id, reason=f"there is no {place} any more")
            except RedriveUnfit as error:
                unfit.append((letter, error))
                continue
            producer.deliver_blocking(envelope, partition=letter.letter.partition)
            producer.deliver_blocking(letter.mark(), partition=letter.partition)
            driven.append(letter)
            on_driven(letter)
    return Redriven(tuple(driven), tuple(unfit))
