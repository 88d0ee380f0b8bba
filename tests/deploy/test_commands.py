"""Command lines of containers: the program of today takes each of them."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from infra.cli import _general_first, build_app
from tests.deploy.charted import chart, container_of
from tests.deploy.conftest import NEEDS_GO, Render
from tests.deploy.test_compose import OURS


def check(words: list[str]) -> None:
    """Parse a command line as `headrace` does, without running it."""
    words, _general = _general_first(words)
    group: Any = typer.main.get_command(build_app())
    group.commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("name", OURS)
def test_a_compose_service_starts_a_command_that_exists(name: str) -> None:
    check(OURS[name]["command"])


@NEEDS_GO
def test_a_pod_of_the_chart_starts_a_command_that_exists(renderer: Render) -> None:
    for _name, pod in chart(renderer, "everything").pods:
        check(container_of(pod)["args"])
