"""Failures of Kafka: brokers, topics, deliveries, and the broker for one machine: HR-60xx."""

from __future__ import annotations

from schemas.errors import Permanent, Transient


class BrokerUnreachable(Transient):
    """No broker answered in time."""

    code = "HR-6001"
    what = "no Kafka broker answers at {addresses}: {tried} for {seconds:.0f} s, last: {reason}"
    why = (
        "the brokers are down or starting, the address or port is wrong, a firewall is between, "
        "or they speak another protocol than {protocol} there"
    )
    fix = (
        "check `bootstrap` and `security_protocol` in [kafka] and that the brokers run, then start "
        "this again: nothing is lost; `unreachable_seconds_max` says how long to go on trying"
    )


class BrokerRefused(Permanent):
    """The brokers answered, and would not have us."""

    code = "HR-6002"
    what = "the Kafka brokers at {addresses} refused: {reason}"
    why = "user, password, certificate or access rights are not what they expect"
    fix = (
        "correct sasl_… and ssl_… in [kafka], or give the user the rights to topics and groups "
        "beginning with {prefix}"
    )


class TopicsMissing(Permanent):
    """Topics that a role needs do not exist."""

    code = "HR-6003"
    what = "Kafka has no topic {topics}"
    why = "topics are made once, by a command, and never by being written to"
    fix = "run `headrace topics create` with the same settings"


class PartitionsTooFew(Permanent):
    """A topic has fewer partitions than the settings say."""

    code = "HR-6004"
    what = "topic {topic} has {found} partition(s), and the settings say {declared}"
    why = "it was made with other settings, and producers would name partitions that do not exist"
    fix = "run `headrace topics alter`, or set `partitions` in [kafka] to {found}"


class MessageLimitTooSmall(Permanent):
    """A topic takes smaller messages than the settings let us send."""

    code = "HR-6005"
    what = "topic {topic} takes messages of {found} bytes, and ours have up to {declared}"
    why = "max.message.bytes of the topic is lower than `message_bytes_max` needs"
    fix = "run `headrace topics alter`, or lower `message_bytes_max` in [kafka]"


class MessageTooLarge(Permanent):
    """One message exceeds what may be sent."""

    code = "HR-6006"
    what = "a message for topic {topic} (key {key}) has {size_bytes} bytes; the limit is {limit}"
    why = "a segment of this chain holds more than `message_bytes_max`"
    fix = (
        "raise `message_bytes_max` in [kafka] and run `headrace topics alter`, or choose a smaller "
        "`segment_blocks`"
    )


class DeliveryFailed(Transient):
    """The brokers did not take a message."""

    code = "HR-6007"
    what = "a message for topic {topic} (key {key}) was not taken: {reason}"
    why = "the brokers answered with an error, or too few replicas are in sync"
    fix = "check the brokers, then start this again: what was not acknowledged is sent again"


class ProducerFailed(Transient):
    """The producer cannot go on without sending twice or out of order."""

    code = "HR-6008"
    what = "the Kafka producer stopped: {reason}"
    why = "the brokers lost its state, or another process took its place"
    fix = "start this again: what was not acknowledged is sent again"


class TopicsRefused(Permanent):
    """The brokers would not make or change topics."""

    code = "HR-6009"
    what = "Kafka would not {action} topic {topic}: {reason}"
    why = "the brokers do not allow it"
    fix = (
        "correct [kafka] (a `replication_factor` above the number of brokers is refused), or let "
        "an administrator make the topics that `headrace topics describe` lists"
    )


class PartitionsNotFewer(Permanent):
    """A topic cannot lose partitions."""

    code = "HR-6010"
    what = "topic {topic} has {found} partitions and cannot be cut to {declared}"
    why = "Kafka only adds partitions"
    fix = "set `partitions` in [kafka] to {found}, or use another `topic_prefix`"


class JavaMissing(Permanent):
    """There is no Java for the local broker."""

    code = "HR-6011"
    what = "no Java {wanted} or newer is found: {found}"
    why = "the local Kafka broker runs on Java"
    fix = (
        "install one (Debian and Ubuntu: apt install openjdk-17-jre-headless; macOS: brew install "
        "openjdk@17) or name it in JAVA_HOME"
    )


class BrokerFilesMissing(Permanent):
    """The local broker's files could not be fetched."""

    code = "HR-6012"
    what = "the files of Kafka {version} could not be fetched: {detail}"
    why = "they come from Maven Central, once, by Maven (`mvn`), into {folder}"
    fix = (
        "install Maven (Debian and Ubuntu: apt install maven) and check the network; behind a "
        "mirror or a proxy, name it in Maven's settings.xml"
    )


class BrokerDidNotStart(Permanent):
    """The local broker ended, or did not answer, while starting."""

    code = "HR-6013"
    what = "the local Kafka broker did not start: {detail}"
    why = "its process ended or did not answer within {timeout_seconds} s"
    fix = "read {log}; check free memory and disk, then run again"
