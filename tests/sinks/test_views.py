"""The views, on a real engine: exact, whole, pruned, and the same canon row for all of a query."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime

import pytest

from schemas.errors_sinks import SnapshotExpired
from sinks import views
from sinks.connection import Connection, Endpoint
from sinks.ddl import EngineFamily
from sinks.writer import Segment
from tests.patience import PATIENCE_SECONDS
from tests.sinks.published import AS_OF, CANON, Chain, expected
from tests.sinks.segments_of import TABLES, blocks_of, events_of, logs_of


@pytest.fixture
def chain(database: Connection) -> Chain:
    return Chain(database)


def test_an_empty_canon_shows_nothing_and_is_no_error(chain: Chain) -> None:
    chain.load(logs_of(0, 9))
    for suffix in views.FINALITIES:
        for table in TABLES:
            rows = chain.connection.value(f"SELECT count() FROM {chain.name}{suffix}.{table.name}")
            assert rows == 0
    assert chain.connection.execute(f"SELECT * FROM {chain.name}.status") == []
    assert chain.connection.execute(f"SELECT is_visible, is_sealed FROM {chain.name}.loads") == [
        (0, 0)
    ]


def test_views_have_the_declared_columns_without_load_id(chain: Chain) -> None:
    for suffix in views.FINALITIES:
        for table in TABLES:
            rows = chain.connection.execute(f"DESCRIBE TABLE {chain.name}{suffix}.{table.name}")
            declared = [(spec.name, spec.kind.clickhouse_type) for spec in table.columns]
            assert [row[:2] for row in rows] == declared


def test_orphans_zombies_and_other_loads_are_invisible(chain: Chain) -> None:
    history = [logs_of(b, b + 9) for b in range(0, 90, 10)]
    loads = [chain.load(*history[:4]), chain.load(*history[4:])]
    chain.load(*history[2:6])
    heads = [logs_of(b, b, rows=5) for b in range(90, 95)]
    loads += [chain.load(head) for head in heads]
    for number in range(92, 96):
        chain.load(logs_of(number, number, rows=7, seed=9))
    chain.publish(94, loads)
    assert chain.counts() == expected(*history, *heads)
    identities = "uniqExact((block_number, block_hash, log_index))"
    assert chain.connection.value(f"SELECT count() = {identities} FROM {chain.name}.logs") == 1


def test_a_load_across_floor_and_head_is_cut_there(chain: Chain) -> None:
    segments = [logs_of(b, b + 9) for b in range(0, 50, 10)]
    load = chain.load(*segments)
    chain.publish(37, [load], floor=13)
    assert chain.counts() == expected(*segments, first=13, last=37)
    chain.publish(49, [load], straddling=False)
    assert chain.counts() == expected(*segments)


def test_safe_and_finalized_bound_the_same_rows(chain: Chain) -> None:
    segments = [logs_of(b, b, rows=4) for b in range(20)]
    loads = [chain.load(segment) for segment in segments]
    chain.publish(19, loads, safe=12, straddling=False)
    assert chain.counts(suffix="_safe") == expected(*segments, last=12)
    assert chain.counts(suffix="_finalized") == {}
    chain.publish(19, loads, safe=12, finalized=7, straddling=False)
    assert chain.counts(suffix="_finalized") == expected(*segments, last=7)
    assert chain.counts() == expected(*segments)


def test_a_sealed_partition_counts_once_before_and_after_its_open_rows_go(chain: Chain) -> None:
    old = [logs_of(b, b + 9) for b in range(0, 100, 10)]
    new = [logs_of(b, b + 9) for b in range(100, 150, 10)]
    sealed_load, open_load = chain.load(*old), chain.load(*new)
    before = chain.publish(149, [sealed_load, open_load])
    whole = expected(*old, *new)
    assert chain.counts() == whole
    chain.seal(0)
    assert chain.counts() == whole
    chain.publish(149, [open_load], sealed=[0])
    assert chain.counts() == whole
    assert chain.counts(settings={AS_OF: f"as_of={before}"}) == whole
    chain.connection.execute(f"ALTER TABLE {chain.name}.logs_open DROP PARTITION 0")
    assert chain.counts() == whole
    sealed = chain.connection.execute(
        f"SELECT load_id, is_visible, is_sealed FROM {chain.name}.loads ORDER BY from_block"
    )
    assert sealed == [(sealed_load.load_id, 0, 1)] * 10 + [(open_load.load_id, 1, 0)] * 5


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"use_partition_pruning": 0},
        {"use_primary_key": 0},
        {"use_skip_indexes": 0},
        {"query_plan_enable_optimizations": 0},
        {"query_plan_filter_push_down": 0},
        {"optimize_move_to_prewhere": 0},
        {"optimize_trivial_count_query": 0},
        {"optimize_use_implicit_projections": 0},
        {"optimize_use_projections": 0},
        {"use_query_condition_cache": 0},
        {"enable_optimize_predicate_expression": 0},
        {"max_threads": 1},
        {"query_plan_optimize_lazy_materialization": 0},
        {"use_skip_indexes_on_data_read": 0},
        {"optimize_read_in_order": 0},
    ],
    ids=lambda setting: next(iter(setting), "default"),
)
def test_no_setting_of_a_user_makes_sealed_parts_count_that_should_not(
    setting: dict[str, int], chain: Chain
) -> None:
    # T_sealed holds partitions 0 and 1, the canon row shows only 0 of them: the rest is open.
    segments = [logs_of(b, b + 9) for b in range(0, 200, 10)]
    loads = [chain.load(*segments[:10]), chain.load(*segments[10:])]
    chain.seal(0)
    chain.seal(1)
    chain.publish(199, loads[1:], sealed=[0])
    name = chain.name
    assert chain.counts(settings=setting) == expected(*segments)
    one = f"SELECT count() FROM {name}.logs"
    assert chain.connection.value(one, settings=setting) == 400
    some = (
        f"SELECT count(), min(block_number), max(block_number) FROM {name}.logs "
        "WHERE (block_number < 50 OR block_number >= 150) AND log_index >= 0"
    )
    wanted = expected(*segments[:5], *segments[15:])
    rows = chain.connection.execute(some, settings=setting)
    assert rows == [(sum(wanted.values()), min(wanted), max(wanted))]
    ordered = f"SELECT block_number FROM {name}.logs ORDER BY block_number DESC LIMIT 3"
    highest = [row[0] for row in chain.connection.execute(ordered, settings=setting)]
    flat = [number for number, count in expected(*segments).items() for _ in range(count)]
    assert highest == flat[::-1][:3]


def test_as_of_shows_an_older_state_or_fails(chain: Chain) -> None:
    segments = [logs_of(b, b, rows=3) for b in range(6)]
    loads = [chain.load(segment) for segment in segments]
    names = [chain.publish(number, loads[: number + 1]) for number in range(6)]
    for number, name in enumerate(names):
        counts = chain.counts(settings={AS_OF: f"as_of={name}"})
        assert counts == expected(*segments[: number + 1])
    newest = expected(*segments)
    assert chain.counts(settings={AS_OF: "anything else"}) == newest
    for text in ("1:99", "0:0", "yesterday", ""):
        with pytest.raises(SnapshotExpired):
            chain.counts(settings={AS_OF: f"as_of={text}"})


def test_the_highest_generation_wins_whatever_its_seq(chain: Chain) -> None:
    first, second = logs_of(0, 0, rows=3), logs_of(0, 0, rows=8, seed=4)
    loads = [chain.load(first), chain.load(second)]
    chain.publish(0, loads[1:], generation=2, seq=1)
    chain.publish(0, loads[:1], generation=1, seq=9_000)
    assert chain.counts() == {0: 8}
    # A row that a retry wrote twice is one row.
    chain.publish(0, loads[1:], generation=2, seq=1)
    assert chain.counts() == {0: 8}


def explain(connection: Connection, sql: str) -> str:
    rows = connection.execute(f"EXPLAIN indexes = 1 {sql}", as_bytes=True)
    return "\n".join(row[0].decode(errors="replace") for row in rows)


def test_filters_prune_through_the_view(chain: Chain) -> None:
    name, connection = chain.name, chain.connection
    loads = [
        chain.load(*[logs_of(b, b + 9, rows=3000) for b in range(first, first + 90, 10)])
        for first in (0, 100, 200)
    ]
    chain.seal(0)
    chain.seal(1)
    chain.publish(289, loads[2:], sealed=[0, 1])
    address = connection.value(f"SELECT hex0x(any(address)) FROM {name}.logs_sealed")
    by_address = explain(
        connection, f"SELECT count() FROM {name}.logs WHERE address = addr('{address}')"
    )
    sealed, opened = by_address.split(f"ReadFromMergeTree ({name}.logs_open)")
    for plan in (sealed, opened):
        assert "PrimaryKey" in plan
        assert "address" in plan.split("PrimaryKey")[1].split("Condition")[0]
    assert _granules(sealed)[-1][0] <= 2
    assert _granules(opened)[-1][0] <= 1
    by_block = explain(
        connection, f"SELECT count() FROM {name}.logs WHERE block_number BETWEEN 110 AND 112"
    )
    sealed, opened = by_block.split(f"ReadFromMergeTree ({name}.logs_open)")
    assert "Parts: 1/2" in sealed
    assert "Parts: 0/1" in opened
    by_topic = explain(
        connection,
        f"SELECT count() FROM {name}.logs WHERE address = addr('{address}') "
        f"AND topic0 = hash('0x{'00' * 32}')",
    )
    assert "topic0" in by_topic.split("PrimaryKey")[1].split("Condition")[0]


def _granules(plan: str) -> list[tuple[int, int]]:
    found = []
    for line in plan.splitlines():
        text = line.strip(" │├└─")
        if text.startswith("Granules: ") and "/" in text:
            chosen, total = text.removeprefix("Granules: ").split("/")
            found.append((int(chosen), int(total)))
    return found


def test_every_view_of_a_database_embeds_the_same_scalar() -> None:
    family = EngineFamily()
    scalar = views.canon_scalar("ethereum")
    made = views.database_views("ethereum", TABLES, 100, family)
    for view in made:
        if not view.record.endswith(".coverage"):
            assert view.sql.count(scalar) == 1, view.record
        assert "FINAL" not in view.sql
    assert len({view.record for view in made}) == len(made) == 3 * len(TABLES) + 3


def test_no_query_over_several_views_is_ever_torn(chain: Chain, endpoint: Endpoint) -> None:
    """Heads jump to and fro as fast as canon rows can be written; every query sees one of them."""
    segments: list[list[Segment]] = [
        [logs_of(b, b, rows=4), blocks_of(b, b, rows=4), events_of(b, b, rows=4)] for b in range(40)
    ]
    loads = [[chain.load(segment) for segment in block] for block in segments]
    chain.publish(39, [load for block in loads for load in block], safe=37, finalized=34)
    stop = threading.Event()
    flips = 0

    def flip() -> None:
        nonlocal flips
        random.seed(5)
        with Connection(endpoint) as own:
            while not stop.is_set():
                head = random.randrange(5, 40)
                visible = [load.load_id for block in loads[: head + 1] for load in block]
                chain.seq += 1
                values = (
                    1,
                    chain.seq,
                    datetime.now(UTC),
                    0,
                    head,
                    bytes(32),
                    head - 2,
                    head - 5,
                    [],
                    visible,
                    False,
                )
                own.insert_rows(f"{chain.name}.canon", CANON, [values])
                flips += 1

    name = chain.name
    sql = (
        f"SELECT (SELECT max(block_number) FROM {name}.logs), (SELECT count() FROM {name}.logs), "
        f"(SELECT max(block_number) FROM {name}.transactions), "
        f"(SELECT count() FROM {name}.plums), (SELECT count() FROM {name}_safe.plums), "
        f"(SELECT max(block_number) FROM {name}_finalized.logs), "
        f"(SELECT count() FROM {name}.logs AS l JOIN {name}.blocks AS b USING (block_number)), "
        f"(SELECT any(head) FROM {name}.status)"
    )
    thread = threading.Thread(target=flip)
    thread.start()
    until = time.monotonic() + PATIENCE_SECONDS
    try:
        queries = 0
        while queries < 60 or (flips <= 20 and thread.is_alive() and time.monotonic() < until):
            queries += 1
            head, logs, of_transactions, plums, safe, finalized, joined, said = (
                chain.connection.execute(sql)[0]
            )
            assert (of_transactions, said) == (head, head)
            assert (logs, plums, joined) == ((head + 1) * 4,) * 3
            assert (safe, finalized) == ((head - 1) * 4, head - 5)
    finally:
        stop.set()
        thread.join()
    assert flips > 20
