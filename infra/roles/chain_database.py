"""Settings in, the ClickHouse of a cluster out, as `headrace migrate` has prepared it."""

from __future__ import annotations

import threading

import structlog

from infra.contracts import declare_contracts
from infra.patience import patiently
from infra.settings import Settings
from infra.settings_cluster import is_loopback
from infra.source import ChainSource
from infra.storage import Storage
from processors.abi import Layouts, build_layouts
from schemas.chains import ChainFacts
from schemas.errors import Transient
from schemas.errors_infra import GridInvalid
from schemas.errors_roles import ChainNotNamed, ClickHouseNotNamed
from schemas.tables import CORE_TABLES
from sinks.connection import Connection, Endpoint
from sinks.prepared import check_prepared

log = structlog.get_logger(__name__)


def role_facts(settings: Settings, role: str) -> ChainFacts:
    """The chain that a role without endpoints serves.

    Raises
    ------
    ChainNotNamed, GridInvalid
    """
    if settings.chain is None:
        raise ChainNotNamed(role=role)
    try:
        return settings.facts
    except ValueError as error:
        raise GridInvalid(reason=str(error)) from error


def role_endpoint(settings: Settings, role: str) -> Endpoint:
    """Where a role's ClickHouse is.

    Raises
    ------
    ClickHouseNotNamed
    """
    given = settings.clickhouse
    found = Endpoint.from_url(_url(settings, role))
    if not found.secure and not is_loopback(found.host):
        log.warning("clickhouse_not_encrypted", address=found.address, fix="clickhouses://…:9440")
    return Endpoint(
        found.host,
        found.port,
        found.user,
        found.password,
        secure=found.secure,
        verify=given.verify,
        ca=str(given.ca) if given.ca is not None else None,
    )


def check_named(settings: Settings, role: str) -> None:
    """Refuse settings that do not name a chain and a ClickHouse, before anything is waited for.

    Raises
    ------
    ChainNotNamed, ClickHouseNotNamed, GridInvalid
    """
    role_facts(settings, role)
    _url(settings, role)


def _url(settings: Settings, role: str) -> str:
    """Where ClickHouse is, with its password."""
    if settings.clickhouse.url is None:
        raise ClickHouseNotNamed(role=role)
    return settings.clickhouse.url.get_secret_value()


def role_layouts(settings: Settings) -> Layouts:
    """Every event's layout and table, by the settings."""
    return build_layouts(declare_contracts(settings))


def await_storage(settings: Settings, role: str, stopping: threading.Event) -> Storage | None:
    """The same as `open_storage`, once ClickHouse answers.

    Parameters
    ----------
    settings, role
        Of the role.
    stopping
        Set when the role is to drain: None where that comes first.

    Raises
    ------
    HeadraceError
        As `open_storage`, at last also where ClickHouse has not answered for too long.
    """
    seconds = settings.clickhouse.unreachable_seconds_max
    try:
        return patiently(lambda: open_storage(settings, role), stopping, seconds)
    except Transient:
        if stopping.is_set():
            return None
        raise


def open_storage(settings: Settings, role: str) -> Storage:
    """The chain's database, checked.

    Raises
    ------
    DatabaseNotPrepared
        If `headrace migrate` has to be run.
    SettingsOfOtherContent
        If these settings give other rows than those that are stored.
    HeadraceError
        ChainNotNamed, ClickHouseNotNamed, or one of HR-40xx.
    """
    facts, endpoint = role_facts(settings, role), role_endpoint(settings, role)
    layouts = role_layouts(settings)
    with Connection(endpoint) as admin:
        tables = (*CORE_TABLES, *layouts.tables)
        chain_id = check_prepared(admin, facts.name, tables, facts)
    source = ChainSource(settings, facts, chain_id)
    return Storage(settings, endpoint, source, layouts, prepare=False)
