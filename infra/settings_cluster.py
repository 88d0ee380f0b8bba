"""What a cluster adds to the settings file in: Kafka, an external ClickHouse and the roles."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from schemas.segments import Lane

Port = Annotated[int, Field(ge=0, le=65535)]
SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
AgentName = Literal["decode", "aggregate", "reorg"]


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def words(value: object) -> object:
    """A list written as text, as a variable of the environment has it: by commas or spaces."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


def is_loopback(host: str) -> bool:
    """Whether traffic to the host stays on this machine, as far as its name says."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``; an IPv6 host stands in brackets.

    Raises
    ------
    ValueError
        If it is not of this form.
    """
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", address)
    if found is None or not 0 < int(found[2]) < 65536:
        raise ValueError("an address is host:port, for example kafka-1.example.net:9092")
    return found[1], int(found[2])


def _address(value: str) -> str:
    split_address(value)
    return value


def _clickhouse_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in ("clickhouse", "clickhouses") or not parts.hostname:
        raise ValueError("it is clickhouse://user:password@host:9000, or clickhouses:// for TLS")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("its port is no number up to 65535") from None
    return value


class ClickHouseSettings(Section):
    """The embedded ClickHouse server, and the server that a cluster's roles write to."""

    tcp_port: Port = 0
    """Port of the embedded server's native protocol on loopback; 0 lets the system choose."""
    http_port: Port = 0
    """Port of the embedded server's HTTP interface on loopback; 0 lets the system choose."""
    url: Annotated[SecretStr, AfterValidator(_clickhouse_url)] | None = None
    """The cluster's server: `clickhouse://user:password@host:9000`, `clickhouses://` for TLS;
    `run` and `demo` have their own and need none."""
    ca: Path | None = None
    """Authorities that may sign the server's certificate, in PEM; left out, the system's."""
    verify: bool = True
    """Whether the server's certificate is checked; off only where the network is trusted."""
    unreachable_seconds_max: float = Field(default=600, ge=1, le=86_400)
    """How long a role tries a server that does not answer before it ends."""


class KafkaSettings(Section):
    """The brokers, and how topics are made on them."""

    bootstrap: Annotated[
        tuple[Annotated[str, AfterValidator(_address)], ...],
        Field(min_length=1),
        BeforeValidator(words),
    ] = ("127.0.0.1:9092",)
    """Addresses of some brokers, `host:port`; the others are learnt from them."""
    topic_prefix: str = Field(default="headrace.", pattern=r"^[A-Za-z0-9._-]{0,100}$")
    """What the name of every topic and consumer group begins with."""
    partitions: int = Field(default=4, ge=1, le=1024)
    """Partitions of a topic of segments, at least: as many workers can share a lane."""
    replication_factor: int = Field(default=1, ge=1, le=15)
    """Brokers that keep each partition; 3 on a cluster of three or more."""
    retention_bytes: int = Field(default=2 * 1024**3, ge=1024**2)
    """Bytes that a partition of a topic of segments keeps."""
    retention_hours: float = Field(default=168.0, gt=0, le=24 * 3650)
    """Hours that a topic of segments is kept; what is unread by then is lost to its reader."""
    message_bytes_max: int = Field(default=32 * 1024**2, ge=1024**2, le=512 * 1024**2)
    """Bytes of a message, at most, before and after compression."""
    compression: Literal["zstd", "lz4", "none"] = "zstd"
    """How producers compress."""
    security_protocol: SecurityProtocol = "PLAINTEXT"
    """`SSL` and `SASL_SSL` encrypt; the others are for loopback and trusted networks."""
    sasl_mechanism: SaslMechanism | None = None
    """How to log in, with a SASL protocol."""
    sasl_username: str | None = None
    """Who logs in."""
    sasl_password: SecretStr | None = None
    """The password."""
    ssl_ca: Path | None = None
    """Authorities that may sign the brokers' certificates, in PEM; left out, the system's."""
    ssl_certificate: Path | None = None
    """Our own certificate for mutual TLS, in PEM."""
    ssl_key: Path | None = None
    """Its key, in PEM."""
    ssl_key_password: SecretStr | None = None
    """The password of the key, where it has one."""
    session_timeout_seconds: float = Field(default=15.0, ge=6, le=300)
    """How long a group waits for a worker that went silent before others take its partitions."""
    poll_interval_seconds_max: float = Field(default=300, ge=10, le=86_400)
    """How long a worker may take between two polls before the group takes its partitions."""
    unreachable_seconds_max: float = Field(default=60, ge=1, le=86_400)
    """How long a role tries brokers that do not answer before it ends."""
    instance: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,80}$")
    """Stable name of this worker, other than every other's of its role: it then gets its
    partitions back after a restart without a rebalance."""

    @property
    def encrypted(self) -> bool:
        """Whether what travels to the brokers is encrypted."""
        return self.security_protocol.endswith("SSL")

    def member(self, group: str) -> str | None:
        """The static member that this worker is in a group; None where it has no stable name.

        The brokers give a member that comes back its old partitions, without asking anybody: with
        another number of partitions it is another member, so that added ones are shared out.
        """
        return None if self.instance is None else f"{group}.{self.instance}.{self.partitions}"

    @property
    def sasl(self) -> bool:
        """Whether we log in with a password."""
        return self.security_protocol.startswith("SASL")

    @property
    def exposed(self) -> tuple[str, ...]:
        """Brokers beyond this machine that are spoken to without encryption."""
        if self.encrypted:
            return ()
        return tuple(one for one in self.bootstrap if not is_loopback(split_address(one)[0]))

    @model_validator(mode="after")
    def _whole(self) -> KafkaSettings:
        login = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        if self.sasl and None in login:
            raise ValueError(
                f"{self.security_protocol} needs sasl_mechanism, sasl_username and sasl_password"
            )
        if not self.sasl and login != (None, None, None):
            raise ValueError(f"{self.security_protocol} takes no sasl_… settings")
        files = (self.ssl_ca, self.ssl_certificate, self.ssl_key, self.ssl_key_password)
        if not self.encrypted and files != (None, None, None, None):
            raise ValueError(f"{self.security_protocol} takes no ssl_… settings")
        if (self.ssl_certificate is None) != (self.ssl_key is None):
            raise ValueError("ssl_certificate and ssl_key go together")
        return self


class RolesSettings(Section):
    """What the processes of a cluster do, each started by its own command."""

    health_port: Port = 0
    """Port of `/healthz`, `/readyz` and `/metrics`; 0 lets the system choose, and the log says."""
    health_host: str = "127.0.0.1"
    """Address that this port is opened on; `0.0.0.0` inside a container."""
    lanes: Annotated[tuple[Lane, ...], Field(min_length=1), BeforeValidator(words)] = (
        "history",
        "head",
    )
    """Lanes that this process serves."""
    agents: Annotated[tuple[AgentName, ...], Field(min_length=1), BeforeValidator(words)] = (
        "decode",
        "aggregate",
        "reorg",
    )
    """Agents that `headrace process` runs; `reorg` only on the head lane."""
    history_blocks_per_second_max: float | None = Field(default=None, gt=0)
    """Blocks of history a second that `headrace ingest` sends, at most; left out, what it can."""
    drain_seconds_max: float = Field(default=60, gt=0, le=3600)
    """How long SIGTERM waits for what is under way before the process ends without it."""
    unhealthy_seconds_max: float = Field(default=60, gt=0, le=3600)
    """How long a role's `/healthz` may fail before `headrace local` kills and restarts it."""
