"""Variables of a container in, the settings that a role would read of them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from infra.settings import Settings
from infra.settings_sources import _from_environment, load_settings


def read_by_a_role(environ: Mapping[str, str], folder: Path, settings: str = "") -> Settings:
    """What the variables and the text of the settings file come to; no variable is idle."""
    given = {name: value for name, value in environ.items() if name.startswith("HEADRACE_")}
    assert set(_from_environment(given).values()) == set(given), "variables that are no setting"
    config = folder / "headrace.toml"
    config.write_text(settings)
    return load_settings(config, {}, given)
