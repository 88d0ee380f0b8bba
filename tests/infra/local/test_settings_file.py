"""Settings into a file and back: nothing is lost, secrets included."""

from __future__ import annotations

from pathlib import Path

from infra.local.settings_file import settings_toml
from infra.settings import Settings
from infra.settings_sources import load_settings

TEXT = """
chain = "base"
from = 5
to = 90
source = "logs"
verify = "header"

[[rpc]]
url = "https://one.example/secret-key-1"
weight = 3

[[rpc]]
url = "https://two.example/secret-\\"key\\"-2"
websocket_url = "wss://two.example/secret-key-2"

[kafka]
bootstrap = ["a:9092", "b:9092"]
security_protocol = "SASL_SSL"
sasl_mechanism = "SCRAM-SHA-256"
sasl_username = "ü"
sasl_password = "p\\u0000w\\\\d"
ssl_ca = "ca.pem"
partitions = 9

[clickhouse]
url = "clickhouse://a:b@db:9000"
verify = false

[roles]
lanes = ["head"]
history_blocks_per_second_max = 12.5

[logs]
tables = ["erc20_transfers"]

[limits]
response_bytes_max = 1000
batch_seconds_max = 0.25

[[contracts]]
name = "pool"
events = ["Swap(address indexed who, uint256 amount)"]

[contracts.factory]
address = "0xabababababababababababababababababababab"
event = "Made(address pool)"
parameter = "pool"

[[contracts]]
name = "vault"
abi = "vault.json"
"""


def test_a_file_says_what_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "vault.json").write_text("[]")
    given, again = tmp_path / "given.toml", tmp_path / "elsewhere" / "again.toml"
    again.parent.mkdir()
    given.write_text(TEXT)
    settings = load_settings(given, {}, {})

    again.write_text(settings_toml(settings))
    read = load_settings(again, {}, {})

    plain = {"declared_at", "events_declared_at"}
    for name in Settings.model_fields:
        ours, theirs = getattr(settings, name), getattr(read, name)
        if name == "contracts":
            ours = [one.model_dump(exclude=plain | {"factory"}) for one in ours]
            theirs = [one.model_dump(exclude=plain | {"factory"}) for one in theirs]
        if name == "kafka":
            ours = ours.model_copy(update={"ssl_ca": Path("ca.pem").absolute()})
        assert theirs == ours, name
    assert read.contracts[0].factory is not None
    assert read.contracts[0].factory.parameter == "pool"


def test_defaults_need_no_line(tmp_path: Path) -> None:
    again = tmp_path / "again.toml"
    again.write_text(settings_toml(Settings()))

    assert load_settings(again, {}, {}) == Settings()
    assert "=" not in again.read_text()
