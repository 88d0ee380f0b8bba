"""Settings in, the declared contracts of `[[contracts]]` out."""

from __future__ import annotations

from infra.settings import Contract as ContractSettings
from infra.settings import Settings
from schemas.contracts import (
    ABI_BYTES_MAX,
    Contract,
    ContractEntry,
    FactoryEntry,
    declare_contract,
)
from schemas.errors_settings import AbiUnreadable


def declare_contracts(settings: Settings) -> tuple[Contract, ...]:
    """Every `[[contracts]]` entry with its tables and layouts.

    Raises
    ------
    AbiUnreadable
        And whatever `declare_contract` raises, with file and line.
    """
    return tuple(declare_contract(_entry(contract)) for contract in settings.contracts)


def _entry(contract: ContractSettings) -> ContractEntry:
    factory = None
    if contract.factory is not None:
        factory = FactoryEntry(
            contract.factory.address,
            contract.factory.event,
            contract.factory.parameter,
            contract.factory.declared_at,
        )
    addresses = None if isinstance(contract.addresses, str) else contract.addresses
    signatures = zip(contract.events, contract.events_declared_at, strict=True)
    return ContractEntry(
        name=contract.name,
        where=contract.declared_at,
        abi=_abi_text(contract),
        signatures=tuple(signatures),
        addresses=addresses,
        factory=factory,
    )


def _abi_text(contract: ContractSettings) -> tuple[str, str] | None:
    if contract.abi is None:
        return None
    try:
        with contract.abi.open(encoding="utf-8") as file:
            # One character more than allowed: declare_contract refuses it, and says the bound.
            return str(contract.abi), file.read(ABI_BYTES_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise AbiUnreadable(
            path=str(contract.abi), contract=contract.name, reason=str(error)
        ) from None
