"""Every column's declaration says what its values rest on, at each level and on each chain."""

from __future__ import annotations

import pytest

from schemas.chains import load_chains
from schemas.standing import NEEDS, Standing, standing
from schemas.tables import CORE_TABLES, LOGS, NOTHING, TRANSACTION_TABLE, WITHDRAWALS, Verification

OFF, HEADER, RECEIPTS, FULL = Verification
WORD, CHECKED = Standing.told, Standing.checked
PROVEN, DERIVED = Standing.proven, Standing.derived


def test_every_declared_proof_is_made_at_some_level() -> None:
    used = {spec.proven_by for table in CORE_TABLES for spec in table.columns}
    assert used == {*NEEDS, NOTHING}


def test_a_higher_level_never_proves_less() -> None:
    order = [WORD, CHECKED, DERIVED, PROVEN]
    for facts in load_chains().values():
        for table in CORE_TABLES:
            for spec in table.columns:
                found = [order.index(standing(spec, level, facts)) for level in Verification]
                assert found == sorted(found), (facts.name, table.name, spec.name)
                assert found[OFF] == 0


@pytest.mark.parametrize(
    ("chain", "table", "column", "expected"),
    [
        ("ethereum", LOGS, "topic1", [WORD, CHECKED, PROVEN, PROVEN]),
        ("ethereum", LOGS, "data", [WORD, WORD, PROVEN, PROVEN]),
        ("ethereum", LOGS, "transaction_hash", [WORD, CHECKED, CHECKED, PROVEN]),
        ("ethereum", TRANSACTION_TABLE, "from_address", [WORD, WORD, WORD, DERIVED]),
        ("ethereum", TRANSACTION_TABLE, "contract_address", [WORD, WORD, WORD, DERIVED]),
        ("ethereum", TRANSACTION_TABLE, "l1_fee_wei", [WORD] * 4),
        ("polygon", LOGS, "topic1", [WORD, CHECKED, CHECKED, CHECKED]),
        ("polygon", LOGS, "data", [WORD] * 4),
        ("ethereum", WITHDRAWALS, "amount_gwei", [WORD, WORD, WORD, PROVEN]),
        ("base", WITHDRAWALS, "amount_gwei", [WORD] * 4),
    ],
)
def test_what_a_value_rests_on(chain: str, table, column: str, expected: list[Standing]) -> None:
    facts = load_chains()[chain]
    assert [standing(table.column(column), level, facts) for level in Verification] == expected
