"""URLs in, names that can be shown out: no secret is ever in them."""

from __future__ import annotations

import contextlib
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.endpoint import EndpointSpec
from ingest.limits import IngestLimits
from ingest.providers import ProviderPool
from ingest.redact import EndpointUrl, parse_endpoint, redact_url
from ingest.rpc import RpcClient, open_session
from schemas.errors import HeadraceError
from schemas.errors_ingest import EndpointUrlInvalid
from tests.ingest.fake_node import FakeNode, Fault, fake_chain

KEY = "k3yAbCdEf0123456789"
SECRET_URLS = [
    f"https://eth.example.com/v2/{KEY}",
    f"https://eth.example.com/?apikey={KEY}",
    f"https://eth.example.com/rpc?a=1&token={KEY}#frag",
    f"https://user:{KEY}@eth.example.com/",
    f"https://{KEY}:x@eth.example.com:8545/path",
    f"wss://eth.example.com/ws/{KEY}/",
    f"https://{KEY}0.rpc.example.com/",
]


@pytest.mark.parametrize("url", SECRET_URLS)
def test_no_form_of_an_endpoint_shows_its_key(url: str) -> None:
    endpoint = parse_endpoint(url)
    for text in (str(endpoint), repr(endpoint), endpoint.name, redact_url(url), f"{endpoint!r}"):
        assert KEY.lower() not in text.lower()
        assert "example.com" in text


def test_two_keys_of_one_host_have_two_names() -> None:
    one, two = (parse_endpoint(f"https://a.example/{key}") for key in ("first1", "second"))
    assert one.name != two.name
    assert one.name == parse_endpoint("https://a.example/first1").name


def test_the_port_is_shown_and_loopback_is_known() -> None:
    local = parse_endpoint("http://127.0.0.1:8545")
    assert local.name.startswith("127.0.0.1:8545#")
    assert local.loopback
    assert parse_endpoint("http://[::1]:8545").loopback
    assert not parse_endpoint("https://eth.example.com").loopback


def test_calls_and_heads_have_their_own_schemes() -> None:
    assert parse_endpoint("wss://a.example/x").http_url == "https://a.example/x"
    assert parse_endpoint("http://a.example/x").websocket_url == "ws://a.example/x"
    assert parse_endpoint("http://a.example", "ws://b.example").websocket_url == "ws://b.example"


@pytest.mark.parametrize("url", SECRET_URLS)
def test_foreign_text_is_scrubbed(url: str) -> None:
    endpoint = parse_endpoint(url)
    key = f"{KEY}0" if ".rpc." in url else KEY
    said = endpoint.scrub(f"key {key} is not allowed at {url} \n\x1b[31m")
    assert KEY.lower() not in said.lower()
    assert "\x1b" not in said
    assert "\n" not in said
    assert len(endpoint.scrub("x" * 10_000)) <= 200


@pytest.mark.parametrize(
    "url",
    [
        "",
        "eth.example.com",
        "ftp://a.example",
        "http://",
        "http://a:99999/",
        "http://a b/",
        "http:/x",
    ],
)
def test_what_is_no_endpoint_is_refused_with_a_code(url: str) -> None:
    with pytest.raises(EndpointUrlInvalid) as caught:
        parse_endpoint(url)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_malformed_url_keeps_its_key() -> None:
    with pytest.raises(EndpointUrlInvalid) as caught:
        parse_endpoint(f"htp://eth.example.com/{KEY}")
    assert KEY not in "".join(traceback.format_exception(caught.value))


@given(st.text(max_size=80))
def test_any_text_has_a_display_form(url: str) -> None:
    name = redact_url(url)
    assert "#" in name
    with contextlib.suppress(EndpointUrlInvalid):
        assert isinstance(parse_endpoint(url), EndpointUrl)


async def test_no_error_of_a_call_shows_the_key() -> None:
    """Refused, resolved nowhere, an error that quotes the key: nothing of it in any traceback."""
    limits = IngestLimits(request_timeout_seconds=2.0)
    async with FakeNode(fake_chain(2)) as node, open_session(limits) as session:

        def quoting(*_: object) -> None:
            raise Fault(-32000, f"key {KEY} of {node.url} is over quota", {"key": KEY})

        node.overrides["eth_chainId"] = quoting
        host = node.url.partition("//")[2].partition("/")[0]
        for url in (
            f"http://{host}/v2/{KEY}?x={KEY}",
            f"http://user:{KEY}@{host}/",
            f"http://127.0.0.1:9/{KEY}",
            f"http://nowhere.invalid/{KEY}",
            f"https://{host}/{KEY}",
        ):
            client = RpcClient(parse_endpoint(url), session, limits)
            with pytest.raises(HeadraceError) as caught:
                await client.call("eth_chainId")
            shown = "".join(traceback.format_exception(caught.value))
            assert KEY not in shown
            assert KEY not in repr(caught.value.data)
            assert KEY not in repr(client)
            assert caught.value.__context__ is None, type(caught.value.__context__)


async def test_a_pool_and_its_endpoints_show_no_key() -> None:
    spec = EndpointSpec(f"https://a.example/{KEY}", websocket_url=f"wss://a.example/{KEY}")
    assert KEY not in repr(spec)
    async with ProviderPool([spec], IngestLimits()) as pool:
        assert KEY not in repr(pool.endpoints) + repr(pool.snapshot()) + repr(pool)
