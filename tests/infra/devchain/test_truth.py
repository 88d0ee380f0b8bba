"""The oracle's rows against the declarations, the RPC's answers and the project's own decoder."""

import json

import pytest

from infra.devchain import Budget, Chain, Spec, truth_of
from infra.devchain.model import FAILURES
from infra.devchain.truth import UNTOLD, parameter_columns
from processors.abi import build_layouts
from processors.aggregate import aggregate_events
from processors.decode import decode_logs
from schemas.columns import ColumnBlock, from_python, to_python
from schemas.events import builtin_events
from schemas.segments import LogSegment, SegmentName
from schemas.tables import (
    AGGREGATE_TABLES,
    CORE_TABLES,
    HEADER_REFS,
    LOGS,
    Verification,
    empty_block,
)


@pytest.fixture(scope="module")
def chain() -> Chain:
    made = Chain(Spec(seed=31, budget=Budget(25, 120)))
    made.mine(200)
    made.reorg(9)
    return made


@pytest.fixture(scope="module")
def truth(chain):
    return truth_of(chain.blocks(), chain.chain_id)


def test_every_declared_column_is_told(truth):
    for table in (*CORE_TABLES, *(event.table for event in builtin_events())):
        rows = truth[table.name]
        names = [column.name for column in table.columns if column.name not in UNTOLD]
        for row in rows.values():
            assert list(row) == names, table.name
        for column in table.columns:
            if column.name in names and rows:
                told = [row[column.name] for row in rows.values()]
                assert to_python(column.kind, from_python(column.kind, told)) == told
    assert set(truth) == {t.name for t in CORE_TABLES} | set(parameter_columns())


def test_keys_are_the_identities(truth):
    declared = {table.name: table for table in (*CORE_TABLES, *build_layouts().tables)}
    for table, rows in truth.items():
        names = [name for name in declared[table].identity if name != "block_hash"]
        for key, row in rows.items():
            assert key == tuple(row[name] for name in names)


def test_transactions_are_what_the_rpc_answers(chain, truth):
    for number in range(0, chain.view.head + 1, 5):
        rendered = chain.view.at(number)
        receipts = json.loads(rendered.receipts)
        for index, sent in enumerate(json.loads(rendered.full)["transactions"]):
            row, receipt = truth["transactions"][number, index], receipts[index]
            for column, name in (
                ("transaction_hash", "hash"),
                ("from_address", "from"),
                ("to_address", "to"),
                ("input", "input"),
            ):
                text = None if row[column] is None else "0x" + row[column].hex()
                assert text == sent[name]
            for column, value in (
                ("value_wei", sent["value"]),
                ("gas_price_wei", sent["gasPrice"]),
                ("max_fee_per_gas_wei", sent.get("maxFeePerGas")),
                ("max_fee_per_blob_gas_wei", sent.get("maxFeePerBlobGas")),
                ("status", receipt["status"]),
                ("effective_gas_price_wei", receipt["effectiveGasPrice"]),
                ("blob_gas_used", receipt.get("blobGasUsed")),
                ("blob_gas_price_wei", receipt.get("blobGasPrice")),
            ):
                assert row[column] == (None if value is None else int(value, 16)), column
            assert row["has_access_list"] == ("accessList" in sent)
            assert row["log_count"] == len(receipt["logs"])


def rows_of(block, table):
    """A block's rows as dictionaries."""
    if not block.rows:
        return []
    values = [to_python(column.kind, block.columns[column.name]) for column in table.columns]
    names = [column.name for column in table.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def decoded(truth, layouts):
    """What the project's own decoder makes of the logs."""
    rows = list(truth["logs"].values())
    columns = {
        column.name: from_python(column.kind, [row[column.name] for row in rows])
        for column in LOGS.columns
    }
    segment = LogSegment(
        SegmentName(1337, "logs", "history", 0, 999, bytes(32), "0" * 16),
        0,
        Verification.off,
        (),
        (),
        empty_block(HEADER_REFS),
        ColumnBlock("logs", len(rows), columns),
    )
    return decode_logs(segment, layouts)


def test_the_decoder_finds_exactly_the_truth(truth):
    layouts = build_layouts()
    declared = {table.name: table for table in layouts.tables}
    for block in decoded(truth, layouts).tables:
        found = {}
        for row in rows_of(block, declared[block.table]):
            if block.table == FAILURES:
                row["reason_word"] = row.pop("reason").split(b":")[0].decode()
                del row["layout"]
            found[row["block_number"], row["log_index"], row["sub_index"]] = row
        assert found == truth[block.table], block.table


def test_the_aggregator_finds_exactly_the_truth(truth):
    segment = aggregate_events(decoded(truth, build_layouts()))
    for table, block in zip(AGGREGATE_TABLES, segment.tables, strict=True):
        names = [name for name in table.identity if name != "block_hash"]
        rows = rows_of(block, table)
        assert {tuple(row[name] for name in names): row for row in rows} == truth[table.name]
        assert len(rows) == len(truth[table.name])


def test_most_tables_have_rows(truth):
    empty = {name for name, rows in truth.items() if not rows}
    assert empty <= {"nonstandard_approvals"}
    assert {row["reason_word"] for row in truth[FAILURES].values()} <= {
        "short",
        "value",
        "pointer",
        "topics",
    }
    assert any(row["sub_index"] for row in truth["erc1155_transfers"].values())
