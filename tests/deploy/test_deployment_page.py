"""docs/deployment.md: its groups are those of the code, and its values are taken by the chart."""

from __future__ import annotations

import re
from pathlib import Path

from infra.roles.process import make_plan
from infra.roles.sink import sink_group
from infra.settings import Settings
from schemas.segments import DATA_TOPICS, FORKS, RAW_HEADS, Lane, data_topic
from tests.deploy.charted import KUBERNETES, chart
from tests.deploy.conftest import NEEDS_GO, ROOT, Render

PAGE = (ROOT / "docs" / "deployment.md").read_text("utf-8")
LANES: tuple[Lane, ...] = ("history", "head")


def groups_of_the_page() -> dict[str, tuple[set[str], set[str]]]:
    """What each group reads and writes."""
    rows = re.findall(r"^\| `PREFIX([\w.]+)` \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
    return {
        group: (set(re.findall(r"`([^`]+)`", read)), set(re.findall(r"`([^`]+)`", written)))
        for group, read, written in rows
    }


def test_the_groups_of_the_page_are_those_of_the_code() -> None:
    expected: dict[str, tuple[set[str], set[str]]] = {}
    for lane in LANES:
        settings = Settings(kafka={"topic_prefix": ""}, roles={"lanes": (lane,)})
        plan = make_plan(settings)
        reads = {data_topic(step.takes, lane) for step in plan.steps}
        writes = {data_topic(step.gives, lane) for step in plan.steps}
        if plan.reorg:
            reads, writes = reads | {RAW_HEADS}, writes | {FORKS}
        expected[plan.app_id] = (reads, writes)
        expected[sink_group("", lane)] = ({data_topic(one, lane) for one in DATA_TOPICS}, set())

    assert groups_of_the_page() == expected


@NEEDS_GO
def test_the_chart_takes_the_values_of_the_page(renderer: Render, tmp_path: Path) -> None:
    (values,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "values.yaml"
    file.write_text(values)

    charted = chart(renderer, file, kubernetes=KUBERNETES)

    assert charted.of("ScaledObject")
    assert charted.of("ServiceMonitor")
