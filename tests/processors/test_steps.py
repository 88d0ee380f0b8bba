"""Steps refuse what reads well and is no segment of ours: a worker would die of it for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from infra.contracts import declare_contracts
from infra.settings import Settings
from processors.abi import build_layouts
from processors.steps import Step, build_steps
from schemas.codec import UnknownMessage, encode_event_segment, encode_log_segment
from schemas.columns import ColumnBlock, Nullable
from schemas.segments import EventSegment
from tests.sinks.random_columns import random_block
from tests.sinks.segments_of import PLUMS, logs_of, name_of

LAYOUTS = build_layouts(declare_contracts(Settings(chain="local")))
STEPS: dict[str, Step] = {step.agent: step for step in build_steps(LAYOUTS)}


def test_a_log_with_more_topics_than_there_are_is_refused() -> None:
    segment = logs_of(0, 9)
    topic = cast("Nullable", segment.logs.columns["topic0"])
    damaged = replace(topic, valid=np.full(len(topic.valid), 200, np.uint8).view(bool))
    logs = replace(segment.logs, columns={**segment.logs.columns, "topic0": damaged})
    with pytest.raises(UnknownMessage, match="IndexError"):
        STEPS["decode"].derive(encode_log_segment(replace(segment, logs=logs)))


def test_events_of_a_known_table_with_strange_columns_are_refused() -> None:
    plums = random_block(PLUMS, 5, 1, 0, 10)
    block = ColumnBlock("uniswap_v3_swaps", plums.rows, plums.columns)
    segment = EventSegment(name_of("events", 0, 9), 0, (block,))
    tables = {block.table: replace(PLUMS, name=block.table)}
    with pytest.raises(UnknownMessage, match="KeyError"):
        STEPS["aggregate"].derive(encode_event_segment(segment, tables))


def test_a_range_that_runs_backwards_is_refused() -> None:
    segment = logs_of(0, 9)
    name = replace(segment.name, from_block=9, to_block=0)
    with pytest.raises(UnknownMessage, match="from block 9 to 0"):
        STEPS["decode"].derive(encode_log_segment(replace(segment, name=name)))
