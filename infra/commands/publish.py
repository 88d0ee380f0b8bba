"""Ledger and forks in, what queries see out: `headrace publish`."""

from __future__ import annotations

from infra.options import ConfigOption, read_settings

EXAMPLES = ("headrace publish --config headrace.toml",)


def publish(config: ConfigOption = None) -> int:
    """Cluster: decide what is visible, compact it and seal it.

    One publisher a chain works at a time. Start a second one as a standby: it claims the chain when
    the first has ended or falls silent. SIGTERM releases the chain.
    """
    settings = read_settings(config)
    from infra.roles.publish import run_publish  # noqa: PLC0415 - heavy imports wait for it

    return run_publish(settings)
