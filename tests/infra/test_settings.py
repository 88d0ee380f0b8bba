"""Files, variables and flags into settings; every mistake names its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.contracts import declare_contracts
from infra.settings import Limits, Settings, limit_groups
from infra.settings_sources import known_keys, load_settings
from infra.toml_lines import key_lines, line_of
from schemas.chains import load_chains
from schemas.errors import HeadraceError
from schemas.errors_processors import MalformedAbi
from schemas.errors_settings import (
    AbiUnreadable,
    ChainUnknown,
    RangeInvalid,
    SettingInvalid,
    SettingsFileMissing,
    SettingsNotToml,
    SettingUnknown,
)
from schemas.tables import Verification

ADDRESS = "0x" + "ab" * 20
WHOLE = f"""
chain = "base"
from = 5
to = 90
source = "logs"
verify = "header"
data = "elsewhere"

[[rpc]]
url = "https://one.example/secret-key-1"
weight = 3

[[rpc]]
url = "https://two.example/secret-key-2"
websocket_url = "wss://two.example/secret-key-2"

[clickhouse]
http_port = 8123

[logs]
addresses = ["{ADDRESS}"]

[limits]
response_bytes_max = 1000
batch_rows_max = 7
analyst_seconds_max = 9

[[contracts]]
name = "vault"
events = [
  "Deposit(address indexed who, uint256 amount)",
  "Withdrawal(address indexed who, uint256 amount)",
]
addresses = ["{ADDRESS}"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "headrace.toml"


def load(file: Path, text: str, environ: dict[str, str] | None = None, **flags: object) -> Settings:
    file.write_text(text)
    return load_settings(file, flags, environ or {})


def test_a_whole_file_is_read(file: Path) -> None:
    settings = load(file, WHOLE)

    assert (settings.chain, settings.from_block, settings.to_block) == ("base", 5, 90)
    assert settings.source == "logs"
    assert settings.verify is Verification.header
    assert settings.data_dir == Path("elsewhere")
    assert [one.weight for one in settings.rpc] == [3, 1]
    assert settings.clickhouse.http_port == 8123
    assert settings.logs.addresses == (ADDRESS,)
    assert settings.limits.ingest.response_bytes_max == 1000
    assert settings.limits.pipeline.batch.rows_max == 7
    assert settings.limits.server.analyst_seconds_max == 9
    (vault,) = declare_contracts(settings)
    assert [one.table.name for one in vault.events] == ["vault_deposit", "vault_withdrawal"]


def test_nothing_given_is_the_default(tmp_path: Path) -> None:
    settings = load_settings(None, {}, {}, default_file=tmp_path / "none.toml")

    assert settings == Settings()
    assert settings.limits == Limits()


def test_flags_win_over_variables_over_the_file(file: Path) -> None:
    environ = {"HEADRACE_FROM": "20", "HEADRACE_TO": "30", "HEADRACE_CHAIN": "optimism"}
    settings = load(file, "from = 1\nto = 2\nchain = 'base'", environ, to_block="40", chain=None)

    assert (settings.from_block, settings.to_block, settings.chain) == (20, 40, "optimism")


def test_variables_reach_tables_and_lists(file: Path) -> None:
    environ = {
        "HEADRACE_RPC": "https://a.example https://b.example",
        "HEADRACE_LIMITS__RESPONSE_BYTES_MAX": "77",
        "HEADRACE_CLICKHOUSE__TCP_PORT": "9000",
        "HEADRACE_LOGS__ADDRESSES": f'["{ADDRESS}"]',
    }
    settings = load(file, "[limits]\nbatch_rows_max = 3", environ)

    assert len(settings.rpc) == 2
    assert settings.limits.ingest.response_bytes_max == 77
    assert settings.limits.pipeline.batch_rows_max == 3
    assert settings.clickhouse.tcp_port == 9000
    assert settings.logs.addresses == (ADDRESS,)


@pytest.mark.parametrize(
    ("text", "error", "place"),
    [
        ("\nchian = 'base'", SettingUnknown, "line 2"),
        ("[[rpc]]\nurl = 'http://a'\nweigth = 2", SettingUnknown, "line 3"),
        ("[limits]\nresponse_bytes = 2", SettingUnknown, "line 2"),
        ("[rpcs]\nx = 1", SettingUnknown, "line 1"),
        ("[[contracts]]\nname = 'a'\ndeclared_at = 'b'", SettingUnknown, "line 3"),
        ("from = 'five'", SettingInvalid, "line 1"),
        ("from = -1", SettingInvalid, "line 1"),
        ("to = 'lates'", SettingInvalid, "line 1"),
        ("\n\nverify = 'most'", SettingInvalid, "line 3"),
        ("source = 'traces'", SettingInvalid, "line 1"),
        ("[limits]\n\nresponse_bytes_max = 0", SettingInvalid, "line 3"),
        ("[limits]\nresponse_bytes_max = 'x'", SettingInvalid, "line 2"),
        ("limits = 3", SettingInvalid, "line 1"),
        ("[[rpc]]\nurl = 'http://a'\n[[rpc]]\nurl = 'http://b'\nweight = 0", SettingInvalid, "5"),
        ("[[contracts]]\nname = 'A'\nevents = ['A()']", SettingInvalid, "line 2"),
        ("[[contracts]]\nname = 'a'", SettingInvalid, "line 1"),
        (f"[logs]\naddresses = ['{ADDRESS}', '0x12']", SettingInvalid, "line 2"),
        ("[clickhouse]\ntcp_port = 70000", SettingInvalid, "line 2"),
        ("[clickhouse]\n\nurl = 'http://db:8123'", SettingInvalid, "line 3"),
        ("[kafka]\nbootstrap = ['a:9092', 'b']", SettingInvalid, "line 2"),
        ("[kafka]\nbootstrap = []", SettingInvalid, "line 2"),
        ("[kafka]\nsasl_username = 'me'", SettingInvalid, "line 1"),
        ("[roles]\nlanes = 'middle'", SettingInvalid, "line 2"),
        ("chain = 'etherium'", ChainUnknown, "line 1"),
        ("a = = 1", SettingsNotToml, "line 1"),
        ("[[contracts]]\nname = 'a'\nabi = 'none.json'", AbiUnreadable, "none.json"),
        ("from = 5\nto = 4", RangeInvalid, "--from 5"),
    ],
)
def test_a_mistake_names_its_place(
    file: Path, text: str, error: type[HeadraceError], place: str
) -> None:
    with pytest.raises(error) as raised:
        load(file, text)

    assert place in raised.value.what_text
    assert raised.value.why_text
    assert raised.value.fix_text


def test_a_misspelt_key_is_answered_by_the_right_one(file: Path) -> None:
    with pytest.raises(SettingUnknown) as raised:
        load(file, "[limits]\nresponse_byte_max = 5")

    assert "`response_bytes_max`" in raised.value.fix_text


def test_a_misspelt_variable_is_refused(file: Path) -> None:
    with pytest.raises(SettingUnknown) as raised:
        load(file, "", {"HEADRACE_FORM": "5"})

    assert "HEADRACE_FROM" in raised.value.fix_text


def test_tables_name_the_topics_that_are_fetched(file: Path) -> None:
    logs = load(file, "[logs]\ntables = ['erc20_transfers', 'erc1155_transfers']").logs

    transfer = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
    assert transfer in logs.topic0
    assert len(logs.topic0) == 3
    environ = {"HEADRACE_LOGS__TABLES": "erc20_transfers"}
    assert load(file, "", environ).logs.topic0 == (transfer,)
    with pytest.raises(SettingInvalid, match="line 2"):
        load(file, "[logs]\ntables = ['erc21_transfers']")


def test_variables_of_others_are_left_alone(file: Path) -> None:
    assert load(file, "", {"HEADRACE_CHAINDATA": "x", "OTHER_FROM": "7"}) == load(file, "")


def test_a_mistake_in_a_variable_or_flag_names_it(file: Path) -> None:
    with pytest.raises(SettingInvalid, match="HEADRACE_FROM"):
        load(file, "from = 1", {"HEADRACE_FROM": "x"})
    with pytest.raises(SettingInvalid, match="flag --to") as caught:
        load(file, "to = 1", to_block="x")
    assert "a number or `latest`" in caught.value.why_text
    with pytest.raises(ChainUnknown, match="flag --chain"):
        load(file, "", chain="x")


def test_a_named_file_must_exist_and_a_default_one_need_not(tmp_path: Path) -> None:
    with pytest.raises(SettingsFileMissing):
        load_settings(tmp_path / "none.toml", {}, {})
    with pytest.raises(SettingsFileMissing):
        load_settings(tmp_path, {}, {})


def test_a_malformed_event_names_its_line(file: Path) -> None:
    with pytest.raises(MalformedAbi) as raised:
        declare_contracts(load(file, WHOLE.replace("Withdrawal(address", "Withdrawal(adress")))

    line = 1 + WHOLE.splitlines().index('  "Withdrawal(address indexed who, uint256 amount)",')
    assert f"line {line}" in raised.value.what_text


def test_abi_paths_start_at_the_settings_file(file: Path) -> None:
    folder = file.parent / "abis"
    folder.mkdir()
    (folder / "a.json").write_text('[{"type": "event", "name": "Ping", "inputs": []}]')
    settings = load(file, "[[contracts]]\nname = 'a'\nabi = 'abis/a.json'")

    (contract,) = declare_contracts(settings)

    assert contract.events[0].table.name == "a_ping"


def test_secrets_are_never_shown(file: Path) -> None:
    settings = load(file, WHOLE)

    for shown in (repr(settings), str(settings), repr(settings.rpc), settings.model_dump_json()):
        assert "secret-key" not in shown
    with pytest.raises(SettingInvalid) as raised:
        load(file, '[[rpc]]\nurl = ["https://one.example/secret-key-1"]')
    assert "secret-key" not in raised.value.what_text


CLUSTER = """
[kafka]
bootstrap = "one:9092, [::1]:9093"
security_protocol = "SASL_SSL"
sasl_mechanism = "SCRAM-SHA-512"
sasl_username = "indexer"
sasl_password = "secret-key-3"
ssl_ca = "/etc/ca.pem"

[clickhouse]
url = "clickhouses://writer:secret-key-4@db:9440"
"""


def test_the_cluster_is_read_from_file_and_variables(file: Path) -> None:
    environ = {
        "HEADRACE_KAFKA__PARTITIONS": "12",
        "HEADRACE_ROLES__LANES": "head",
        "HEADRACE_CLICKHOUSE__VERIFY": "false",
    }
    settings = load(file, CLUSTER, environ)

    assert settings.kafka.bootstrap == ("one:9092", "[::1]:9093")
    assert settings.kafka.partitions == 12
    assert settings.roles.lanes == ("head",)
    assert settings.clickhouse.verify is False
    assert settings.kafka.exposed == ()
    assert "secret-key" not in repr(settings)
    plain = load(file, "", {"HEADRACE_KAFKA__BOOTSTRAP": "localhost:1 127.0.0.9:2 [::1]:3 db:4"})
    assert plain.kafka.exposed == ("db:4",)


@pytest.mark.parametrize(
    "change",
    [
        ('sasl_password = "secret-key-3"', "sasl_password = 3_333_333"),
        ('sasl_mechanism = "SCRAM-SHA-512"', ""),
        ('"SASL_SSL"', '"SSL"'),
        ('"SASL_SSL"', '"SASL_PLAINTEXT"'),
        ("[clickhouse]", 'ssl_key = "/etc/key.pem"\n[clickhouse]'),
        ("clickhouses://", "https://"),
        ("9440", "94400000"),
    ],
)
def test_an_error_shows_no_secret_of_the_cluster(file: Path, change: tuple[str, str]) -> None:
    with pytest.raises(SettingInvalid) as raised:
        load(file, CLUSTER.replace(*change))

    assert "secret-key" not in str(raised.value)
    assert "3333333" not in str(raised.value)
    assert "of this form" in raised.value.what_text


def test_settings_are_frozen(file: Path) -> None:
    settings = load(file, "")
    with pytest.raises(ValidationError):
        settings.chain = "base"  # type: ignore[misc]


def test_verification_stays_within_what_the_chain_reaches(file: Path) -> None:
    polygon = load(file, "chain = 'polygon'\nverify = 'full'")
    ethereum = load(file, "chain = 'ethereum'")

    assert polygon.verify_head is Verification.header
    assert ethereum.verify_history is Verification.receipts
    assert ethereum.verify_head is Verification.full


def test_the_grid_can_be_another_than_the_chains(file: Path) -> None:
    settings = load(file, "chain = 'base'\nsegment_blocks = 4\npartition_blocks = 40")

    assert (settings.facts.segment_blocks, settings.facts.partition_blocks) == (4, 40)
    assert load(file, "chain = 'base'").facts == load_chains()["base"]
    environ = {"HEADRACE_SEGMENT_BLOCKS": "2"}
    assert load(file, "chain = 'base'", environ).facts.segment_blocks == 2
    with pytest.raises(ValueError, match="multiple"):
        _ = load(file, "segment_blocks = 3\npartition_blocks = 10").facts


def test_without_a_chain_the_facts_are_of_any(file: Path) -> None:
    assert load(file, "").chain is None
    assert load(file, "").facts.chain_id is None


def test_every_limit_has_one_group_and_can_be_set(file: Path) -> None:
    names = [
        name
        for field in Limits.model_fields.values()
        for name in getattr(field.annotation, "__dataclass_fields__", {})
    ]
    assert len(names) == len(set(names)), "two groups share the name of a limit"
    text = "[limits]\n" + "".join(f"{name} = 12345\n" for name in names)
    limits = load(file, text).limits
    for name, group in limit_groups().items():
        assert getattr(getattr(limits, group), name) == 12345


def test_every_key_of_the_top_has_a_table_or_a_value() -> None:
    keys = known_keys()

    assert {"chain", "from", "to", "data", "rpc", "contracts", "limits"} <= set(keys)
    assert keys["contracts"]
    assert not keys["chain"]
    assert set(known_keys(("contracts", 0))) == {"name", "abi", "events", "addresses", "factory"}
    assert set(known_keys(("contracts", 0, "factory"))) == {"address", "event", "parameter"}


NAMES = st.from_regex(r"[a-z]{1,8}", fullmatch=True)


@given(st.lists(st.tuples(NAMES, st.dictionaries(NAMES, st.integers(), max_size=4)), max_size=6))
def test_every_key_is_found_at_its_line(tables: list[tuple[str, dict[str, int]]]) -> None:
    lines, expected, counts = ["# heading"], {}, dict[str, int]()
    for name, keys in tables:
        index = counts.get(name, -1) + 1
        counts[name] = index
        lines += ["", f"[[{name}]]  # a table"]
        expected[name, index] = len(lines)
        for key, value in keys.items():
            lines += [f"{key} = [", f"  {value}, # not = a key", "]"]
            expected[name, index, key] = len(lines) - 2
    found = key_lines("\n".join(lines))

    for path, line in expected.items():
        assert line_of(found, path) == line


def test_text_over_several_lines_hides_no_key() -> None:
    text = 'a = """\nb = 1\n[c]\n"""\nd = { x = 1 }\n[e.f]\ng = "="\n'

    found = key_lines(text)

    assert found == {("a",): 1, ("d",): 5, ("e", "f"): 6, ("e", "f", "g"): 7}
    assert line_of(found, ("d", "x")) == 5
    assert line_of(found, ("z",)) is None
