"""Settings file, environment and flags in, one frozen and validated `Settings` out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from infra.clickhouse.config import ServerLimits
from infra.settings_cluster import (
    ClickHouseSettings,
    KafkaSettings,
    Port,
    RolesSettings,
    Section,
    words,
)
from ingest.limits import IngestLimits
from ingest.redact import redact_url
from processors.fork import ForkLimits
from schemas.chains import ChainFacts, load_chains
from schemas.events import builtin_events
from schemas.tables import Verification
from sinks.batcher import BatchLimits
from sinks.canon_row import CanonSettings

LOGS_SEGMENT_BLOCKS = 100
"""Blocks of a segment, at least, where only filtered logs are fetched: there is little in each."""


@dataclass(frozen=True, slots=True)
class PipelineLimits:
    """Bounds of the queues and batches between the stages."""

    queue_bytes_max: int = 48 * 1024 * 1024
    """Bytes that may wait between two stages, per lane."""
    batch_rows_max: int = 1_000_000
    """Rows of one load of history, over all its tables."""
    batch_bytes_max: int = 64 * 1024 * 1024
    """Bytes of one load of history, as columns in memory."""
    batch_seconds_max: float = 15.0
    """How long a segment of history waits for others of its load."""
    drain_seconds_max: float = 60.0
    """How long Ctrl-C waits for what is under way before it gives up."""

    @property
    def batch(self) -> BatchLimits:
        """The bounds of a load, as the sinks take them."""
        return BatchLimits(self.batch_rows_max, self.batch_bytes_max, self.batch_seconds_max)


def _verification(value: object) -> object:
    if isinstance(value, str):
        if value not in Verification.__members__:
            raise ValueError(f"the levels are {', '.join(Verification.__members__)}")
        return Verification[value]
    return value


def _last_block(value: object) -> object:
    if isinstance(value, str) and value != "latest" and not value.strip().isdecimal():
        raise ValueError("a last block is a number or `latest`")
    return value


def _address(value: str) -> str:
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", value):
        raise ValueError("an address is 0x and 40 hexadecimal digits")
    return value.lower()


def _hash(value: str) -> str:
    if not re.fullmatch(r"0x[0-9a-fA-F]{64}", value):
        raise ValueError("a topic is 0x and 64 hexadecimal digits")
    return value.lower()


def _event_topics() -> dict[str, list[str]]:
    """Signature hashes of each built-in event table."""
    return {
        one.table.name: [f"0x{layout.topic0.hex()}" for layout in one.layouts]
        for one in builtin_events()
    }


def _event_table(value: str) -> str:
    if value not in (known := _event_topics()):
        raise ValueError(f"the built-in event tables are {', '.join(sorted(known))}")
    return value


Level = Annotated[Verification, BeforeValidator(_verification)]
Address = Annotated[str, AfterValidator(_address)]
EventTableName = Annotated[str, AfterValidator(_event_table)]
Topic = Annotated[str, AfterValidator(_hash)]
BlockNumber = Annotated[int, Field(ge=0, le=2**63 - 1)]


class RpcEndpoint(Section):
    """A node that serves the chain."""

    url: SecretStr
    """Address of its JSON-RPC (http, https, ws or wss); shown only as host and hash."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """Share of the calls it gets, relative to the others."""
    websocket_url: SecretStr | None = None
    """Where the head is subscribed, where it differs from `url`."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value

    @property
    def name(self) -> str:
        """What may be shown of it."""
        return redact_url(self.url.get_secret_value())

    def __repr__(self) -> str:
        return f"RpcEndpoint({self.name}, weight={self.weight:g})"

    __str__ = __repr__


class LogsFilter(Section):
    """What `source = "logs"` asks for; all empty means every log."""

    addresses: Annotated[tuple[Address, ...], BeforeValidator(words)] = ()
    """Contracts whose logs are fetched."""
    tables: tuple[EventTableName, ...] = ()
    """Built-in event tables whose events are fetched, for example `erc20_transfers`."""
    topic0: Annotated[tuple[Topic, ...], BeforeValidator(words)] = ()
    """Event signature hashes that are fetched, with those of `tables`."""

    @model_validator(mode="before")
    @classmethod
    def _topics_of_tables(cls, value: object) -> object:
        if not isinstance(value, dict) or not value.get("tables"):
            return value
        tables = words(value["tables"])
        asked = [str(name) for name in (tables if isinstance(tables, list | tuple) else [tables])]
        topics = [topic for name in asked for topic in _event_topics().get(name, ())]
        given = words(value.get("topic0", ()))
        joined = dict.fromkeys([*(given if isinstance(given, list | tuple) else [given]), *topics])
        return {**value, "tables": tuple(asked), "topic0": tuple(joined)}


class Factory(Section):
    """A contract whose event announces further contracts."""

    address: Address
    """The factory."""
    event: str
    """Signature of the event, for example `event PairCreated(address indexed a, …)`."""
    parameter: str
    """The event's parameter that holds the new contract's address."""
    declared_at: str = ""
    """File and line."""


class Contract(Section):
    """A contract, or a kind of contract, whose events get tables of their own."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,60}$")
    """Prefix of its tables: `<name>_<event>`; small letters, digits and `_`."""
    abi: Path | None = None
    """JSON file with its ABI, relative to the settings file."""
    events: tuple[str, ...] = ()
    """Or the signatures of its events."""
    addresses: tuple[Address, ...] | Literal["all"] = "all"
    """The contracts; `all` takes every contract that emits these events."""
    factory: Factory | None = None
    """Or the factory that announces them: the views `<table>_members` show just their events."""
    declared_at: str = ""
    """File and line of the entry."""
    events_declared_at: tuple[str, ...] = ()
    """File and line of each of `events`."""

    @model_validator(mode="after")
    def _one_of_each(self) -> Contract:
        if (self.abi is None) == (not self.events):
            raise ValueError("give either `abi` or `events`")
        if self.factory is not None and self.addresses != "all":
            raise ValueError("give either `addresses` or `factory`")
        return self


class Limits(Section):
    """Every bound, overridden by its name in `[limits]`."""

    ingest: IngestLimits = IngestLimits()
    """Network side."""
    pipeline: PipelineLimits = PipelineLimits()
    """Between the stages."""
    fork: ForkLimits = ForkLimits()
    """Unfinalised window of the chain."""
    canon: CanonSettings = CanonSettings()
    """Publisher of what is visible."""
    server: ServerLimits = ServerLimits()
    """Embedded ClickHouse server."""

    @model_validator(mode="before")
    @classmethod
    def _by_group(cls, value: object) -> object:
        """`[limits]` is flat for its writer; each name belongs to one group."""
        if not isinstance(value, dict):
            return value
        groups = limit_groups()
        grouped: dict[str, Any] = {}
        for name, limit in value.items():
            if name in cls.model_fields:
                grouped[name] = limit
            else:
                grouped.setdefault(groups[name], {})[name] = limit
        return grouped


def limit_groups() -> dict[str, str]:
    """The group of each limit's name."""
    return {
        name: group
        for group, field in Limits.model_fields.items()
        for name in getattr(field.annotation, "__dataclass_fields__", {})
    }


class Settings(BaseSettings):
    """Everything that a run can be told; `infra.settings_sources.load_settings` makes it."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="HEADRACE_")

    chain: str | None = None
    """The chain, as `schemas/chains.toml` names it; left out, it is found by its chain id."""
    rpc: Annotated[tuple[RpcEndpoint, ...], BeforeValidator(words)] = ()
    """Endpoints, each a URL or a table `[[rpc]]` with url, weight and websocket_url."""
    from_block: BlockNumber | None = None
    """First block (`from` in the file); left out, the last final blocks, or 0 for `local`."""
    to_block: Annotated[BlockNumber | Literal["latest"], BeforeValidator(_last_block)] = "latest"
    """Last block (`to` in the file); `latest` goes on with the head."""
    source: Literal["receipts", "logs"] = "receipts"
    """`receipts`: blocks with receipts, provable; `logs`: eth_getLogs only, cheap."""
    verify: Level | None = None
    """Level of verification; left out, `receipts` for history and `full` at the head."""
    data_dir: Path = Path("headrace-data")
    """The data directory (`data` in the file)."""
    segment_blocks: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Blocks of a history segment; left out, as chains.toml says, or 100 with `source = "logs"`.
    Fixed once data are stored."""
    partition_blocks: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Blocks of a partition, a multiple of `segment_blocks`. Fixed once data are stored."""
    metrics_port: Port | None = None
    """Port for Prometheus on loopback; left out, none is opened."""
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    """The embedded server, and that of a cluster."""
    kafka: KafkaSettings = KafkaSettings()
    """The brokers of a cluster."""
    roles: RolesSettings = RolesSettings()
    """What the processes of a cluster do."""
    logs: LogsFilter = LogsFilter()
    """What `source = "logs"` asks for."""
    limits: Limits = Limits()
    """Bounds, by their names."""
    contracts: tuple[Contract, ...] = ()
    """Contracts whose events get tables of their own."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """File and environment are read by load_settings, so that an error names its line."""
        return (init_settings,)

    @property
    def facts(self) -> ChainFacts:
        """What is known of the chain; of `local` where none was named.

        Raises
        ------
        ValueError
            If the partition is no multiple of the segment.
        """
        facts = load_chains()[self.chain or "local"]
        usual = facts.segment_blocks
        if self.source == "logs":
            usual = max(usual, LOGS_SEGMENT_BLOCKS)
        segment = self.segment_blocks or usual
        return facts.resized(segment, self.partition_blocks or facts.partition_blocks)

    @property
    def verify_history(self) -> Verification:
        """Level for final blocks, as far as the chain reaches it."""
        return self._reached(Verification.receipts)

    @property
    def verify_head(self) -> Verification:
        """Level at the head, as far as the chain reaches it."""
        return self._reached(Verification.full)

    def _reached(self, default: Verification) -> Verification:
        asked = default if self.verify is None else self.verify
        return min(asked, self.facts.verification_reached)


NOT_IN_FILE = frozenset({"declared_at", "events_declared_at"})
"""Fields that the loader sets; the settings file cannot."""

FILE_NAMES = {"from": "from_block", "to": "to_block", "data": "data_dir"}
"""Keys of the settings file that are not the field's own name."""


def file_name(field: str) -> str:
    """How a field of `Settings` is spelt in the settings file."""
    return next((name for name, target in FILE_NAMES.items() if target == field), field)
