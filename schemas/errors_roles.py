"""Failures of the roles `sink` and `publish`, and of dead letters: HR-63xx."""

from __future__ import annotations

from schemas.errors import Permanent


class ChainNotNamed(Permanent):
    """A role was not told which chain it serves."""

    code = "HR-6301"
    what = "`headrace {role}` was not told which chain it serves"
    why = "it speaks to no node that it could ask; its database has the chain's name"
    fix = 'set `chain` in the settings file, for example chain = "ethereum"'


class ClickHouseNotNamed(Permanent):
    """A role was not told where ClickHouse is."""

    code = "HR-6302"
    what = "`headrace {role}` was not told where ClickHouse is"
    why = "the roles of a cluster write to a server of yours"
    fix = "set `url` in [clickhouse]: clickhouse://user:password@host:9000"


class DatabaseNotPrepared(Permanent):
    """The database is not as this version and these settings declare it."""

    code = "HR-6303"
    what = "the database {database} at {address} is not prepared: {reason}"
    why = "tables are made once, by a command, and not by many processes at a time"
    fix = "run `headrace migrate` with the same settings and version"


class OffsetsLost(Permanent):
    """Kafka dropped messages before they were read."""

    code = "HR-6304"
    what = (
        "messages of {topic}, partition {partition}, from offset {offset} on are gone: {reason}; "
        "nothing was skipped"
    )
    why = (
        "the topic's retention (`retention_bytes`, `retention_hours` in [kafka]) dropped them "
        "before they were loaded, or the topic was made anew"
    )
    fix = (
        "start this once with --accept-lost, and run `headrace replay --from {from_block} --to "
        "{to_block}`: it ingests again what is missing and changes nothing else"
    )


class ForeignMessage(Permanent):
    """A message that is no segment of ours."""

    code = "HR-6305"
    what = "a message of {topic} is no segment that belongs there: {reason}"
    why = "something else writes to the topic, or the message is damaged"
    fix = "find its producer (`headrace dlq show`); a topic prefix belongs to one chain's Headrace"


class SegmentOfOtherContent(Permanent):
    """A segment that was made under other settings or by another version."""

    code = "HR-6306"
    what = "the segment {stream} {from_block}-{to_block} is of content version {found}"
    why = (
        "it was made with another source, filter or [[contracts]], or by another version of the "
        "decoder, and would give other rows than these settings: {expected}"
    )
    fix = (
        "give every role the same settings and version; then `headrace dlq redrive` takes it "
        "again, or `headrace replay` ingests it anew"
    )


class InstanceTaken(Permanent):
    """Two workers of a role have one name."""

    code = "HR-6307"
    what = "another worker of the group {group} goes by the name of this one: {reason}"
    why = "each worker needs a name of its own, and the newer one took its partitions"
    fix = "give each worker another `instance` in [kafka], or stop one of the two"


class ConsumerFailed(Permanent):
    """The consumer cannot go on."""

    code = "HR-6308"
    what = "the consumer of the group {group} stopped: {reason}"
    why = "the brokers answered with an error that does not pass"
    fix = "mend the cause, then start this again: it goes on at the last committed offset"


class ChainIdUnknown(Permanent):
    """Nothing says which chain id the database is for."""

    code = "HR-6309"
    what = "nothing says which chain id the database {database} is for"
    why = "`{database}` takes any chain id, and no endpoint is set that could be asked"
    fix = "run `headrace migrate --chain-id N`, or set `rpc`"


class ClaimTooOld(Permanent):
    """The offsets of the topic of claims are far behind the canon."""

    code = "HR-6310"
    what = "the newest generation in {database} is {newest}, and claims are at {offset}"
    why = "the topic `claims` was made anew, or the database belongs to another cluster"
    fix = (
        "use the database's own Kafka and `topic_prefix`; if that is gone for good, migrate to a "
        "new database and replay"
    )


class FloorUnknown(Permanent):
    """Nothing says which block is the first to show."""

    code = "HR-6311"
    what = "nothing says from which block on {database} is to be shown"
    why = "nothing is visible yet, and `from` is not set"
    fix = "set `from` in the settings file to the first block, the same for `ingest` and `publish`"


class DeadLetterUnknown(Permanent):
    """No dead letter has that id."""

    code = "HR-6312"
    what = "there is no dead letter {letter}"
    why = "ids are PARTITION:OFFSET of the topic dead_letters; old letters are dropped in time"
    fix = "see `headrace dlq list`"


class RedriveUnfit(Permanent):
    """A dead letter cannot be driven again."""

    code = "HR-6313"
    what = "dead letter {letter} cannot be driven again: {reason}"
    why = (
        "its original bytes are not kept in it; or it told of a moment (a head, a fork, a claim, a "
        "request), and said again later it would be false"
    )
    fix = (
        "a segment: ingest its range again, `headrace replay`; a head: start the ingester of the "
        "head lane again, it tells the headers above the final block anew; any other: nothing"
    )


class RewindOfCluster(Permanent):
    """A cluster's visible chain cannot be taken back by a command."""

    code = "HR-6314"
    what = "`headrace rewind` does not take back the chain of a cluster"
    why = (
        "ingesters and the reorg agent keep what they have seen in Kafka, and would not send the "
        "blocks above {to_block} again"
    )
    fix = (
        "stop the roles, migrate to a new database (another ClickHouse) under another "
        "`topic_prefix`, and start them with `from` as before"
    )


class SegmentNotBrought(Permanent):
    """A segment that the publisher misses does not come although it was asked for."""

    code = "HR-6315"
    what = "segment {segment} of {stream} was asked for {attempts} time(s) and has not come"
    why = (
        "no ingester of the chain serves requests (with `--to N` it ends when N is acknowledged), "
        "or a stage behind it does not take what it brings; nothing above can be shown"
    )
    fix = (
        "run `headrace ingest` with the same settings: it serves what was asked for, also with "
        "`--to N` before it ends; if one runs, see its log, and `headrace dlq list`"
    )
