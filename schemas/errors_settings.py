"""What can go wrong before anything runs: settings, the command line, and queries by hand."""

from __future__ import annotations

from schemas.errors import Permanent


class SettingsFileMissing(Permanent):
    """--config names a file that is not there."""

    code = "HR-1001"
    what = "the settings file {path} does not exist"
    why = "It was named by --config, so running on defaults would hide a mistake."
    fix = "Check the path, or leave --config out to run on defaults and flags."


class SettingsNotToml(Permanent):
    """The settings file cannot be parsed."""

    code = "HR-1002"
    what = "{path} is not valid TOML: {reason}"
    why = "The settings file is read as TOML 1.0."
    fix = "Correct that line; text values need quotes, and tables are written [name]."


class SettingUnknown(Permanent):
    """A key that no setting has."""

    code = "HR-1003"
    what = "unknown setting `{key}` ({where})"
    why = "Every key is checked, so that a misspelt one is not silently without effect."
    fix = "{suggestion}"


class SettingInvalid(Permanent):
    """A value that a setting cannot take."""

    code = "HR-1004"
    what = "setting `{key}` cannot be {value} ({where})"
    why = "{reason}."
    fix = "{suggestion}"


class ChainUnknown(Permanent):
    """A chain that chains.toml does not declare."""

    code = "HR-1005"
    what = "unknown chain `{chain}` ({where})"
    why = "Finality, grid and verification differ by chain, so it must be declared."
    fix = "{suggestion}"


class EndpointMissing(Permanent):
    """`run` without an endpoint."""

    code = "HR-1006"
    what = "no RPC endpoint was given for {chain}"
    why = "Blocks are read from nodes; there is no default endpoint."
    fix = "Add --rpc https://… (several for speed and failover), or [[rpc]] to headrace.toml."


class RangeInvalid(Permanent):
    """--from above --to."""

    code = "HR-1007"
    what = "--from {from_block} is above --to {to_block}"
    why = "The range would hold no block."
    fix = "Swap the two, or raise --to."


class RangeNotVisible(Permanent):
    """The range that is to be checked lies outside of what is visible."""

    code = "HR-1032"
    what = "blocks {from_block} to {to_block} are not all visible"
    why = "Blocks {floor} to {head} are."
    fix = "Choose --from and --to within them, or leave both out."


class AbiUnreadable(Permanent):
    """The ABI file of a contract cannot be read."""

    code = "HR-1008"
    what = "the ABI file {path} of contract `{contract}` cannot be read: {reason}"
    why = "Its events' tables are declared from it."
    fix = "Check the path (it is relative to the settings file) and that it holds a JSON array."


class LevelNotReached(Permanent):
    """A warning: a level of verification was asked for that cannot be reached."""

    code = "HR-1009"
    what = "--verify {asked} was asked for, but {subject} is proven to {reached} only"
    why = "{reason}."
    fix = (
        "docs/guarantees.md says what this leaves to the node's word; the column `verification` too"
    )


class QueryMissing(Permanent):
    """`sql` without a query."""

    code = "HR-1020"
    what = "no query was given"
    why = "The query is an argument or comes from standard input, and both were empty."
    fix = 'For example: headrace sql "SELECT max(block_number) FROM blocks"'


class QueryRefused(Permanent):
    """ClickHouse answered a query with an error."""

    code = "HR-1021"
    what = "ClickHouse refuses the query: {message}"
    why = "ClickHouse error {clickhouse_code} ({clickhouse_name})."
    fix = "{suggestion}"


class ClickHouseUrlInvalid(Permanent):
    """--clickhouse is not an address."""

    code = "HR-1022"
    what = "{url} is not a ClickHouse HTTP address"
    why = "{reason}."
    fix = "Write http://user:password@host:8123/database (https for TLS)."


class ClickHouseUnreachable(Permanent):
    """The server named by --clickhouse does not answer."""

    code = "HR-1023"
    what = "the ClickHouse server at {url} does not answer: {reason}"
    why = "Nothing listens there, or the network does not lead there."
    fix = "Check host and port (the HTTP port, 8123 by default, not the native one)."


class DataMissing(Permanent):
    """A command on a data directory that is not there."""

    code = "HR-1030"
    what = "{path} holds no Headrace data"
    why = "{reason}."
    fix = "Name the directory with --data, or make one: headrace run --rpc URL --data {path}"


class ConfirmationMissing(Permanent):
    """`rewind` without a terminal and without --yes."""

    code = "HR-1031"
    what = "rewind needs a confirmation"
    why = "It takes the visible blocks back to {to_block}, and there is no terminal to ask."
    fix = "Look at `headrace status`, then repeat the command with --yes."
