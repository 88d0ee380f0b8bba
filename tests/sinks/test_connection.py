"""Whatever the driver raises leaves the connection as an error of our tree."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from clickhouse_driver import errors as driver
from clickhouse_driver.connection import Connection as DriverConnection

from schemas import errors_sinks
from schemas.errors import HeadraceError, Permanent, Transient
from schemas.errors_sinks import (
    AccessRefused,
    ClickHouseUnreachable,
    DiskFull,
    MemoryLimitReached,
    ProtocolBroken,
    QueryRefused,
    QueryTimedOut,
    SnapshotExpired,
    TooManyParts,
    UnknownTable,
)
from sinks.connection import Connection, Endpoint, from_server


@contextmanager
def fake_server(answer: Callable[[socket.socket], None]) -> Iterator[Endpoint]:
    """A server that treats each connection as `answer` says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    client, _ = listener.accept()
                except TimeoutError:
                    continue
                with client:
                    answer(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint("127.0.0.1", listener.getsockname()[1], "u", "p")
        finally:
            stop.set()
            thread.join()


def close_at_once(client: socket.socket) -> None:
    client.recv(10)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def speak_http(client: socket.socket) -> None:
    client.recv(1000)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def speak_garbage(client: socket.socket) -> None:
    client.recv(1000)
    client.sendall(b"\x00\x05\xff\xfe\xfd\xfc\xfb" * 50)


def say_nothing(client: socket.socket) -> None:
    client.recv(1000)
    client.settimeout(60.0)
    client.recv(1)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (close_at_once, ClickHouseUnreachable),
        (reset, ClickHouseUnreachable),
        (speak_http, ProtocolBroken),
        (speak_garbage, ProtocolBroken),
        (say_nothing, ClickHouseUnreachable),
    ],
)
def test_a_server_that_misbehaves(
    answer: Callable[[socket.socket], None], kind: type[HeadraceError]
) -> None:
    with fake_server(answer) as endpoint:
        # Of these only one is known by the time it takes.
        seconds = 0.5 if answer is say_nothing else 60.0
        connection = Connection(
            endpoint, connect_timeout_seconds=seconds, query_timeout_seconds=seconds
        )
        for _ in range(2):
            with pytest.raises(kind) as caught:
                connection.execute("SELECT 1")
            assert endpoint.address in caught.value.what_text
        connection.close()


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = Endpoint("127.0.0.1", unused.getsockname()[1])
        with pytest.raises(ClickHouseUnreachable):
            Connection(endpoint).execute("SELECT 1")
    with pytest.raises(ClickHouseUnreachable):
        Connection(Endpoint("no-such-host.invalid", 9000)).execute("SELECT 1")


@pytest.mark.parametrize(
    ("sql", "settings", "kind"),
    [
        ("SELEC 1", {}, QueryRefused),
        ("SELECT * FROM nothing_here", {}, UnknownTable),
        ("SELECT * FROM nowhere.nothing", {}, UnknownTable),
        ("SELECT nothing FROM system.one", {}, UnknownTable),
        (
            "SELECT sum(sleepEachRow(0.1)) FROM numbers(100)",
            {"max_execution_time": 1, "max_block_size": 1},
            QueryTimedOut,
        ),
        (
            "SELECT groupArray(number) FROM numbers(10000000)",
            {"max_memory_usage": 1000000},
            MemoryLimitReached,
        ),
        ("SELECT throwIf(1, 'gone')", {}, SnapshotExpired),
        ("SELECT 1 / toUInt8('x')", {}, QueryRefused),
    ],
)
def test_refusals_of_the_server(
    sql: str, settings: dict[str, object], kind: type[HeadraceError], database: Connection
) -> None:
    with pytest.raises(kind) as caught:
        database.execute(sql, settings=settings)
    for text in (caught.value.what_text, caught.value.why_text, caught.value.fix_text):
        assert text
        assert "Stack trace" not in text
    assert database.execute("SELECT 1") == [(1,)]


def test_every_code_of_the_server_gives_an_error_of_the_tree() -> None:
    codes = {value for name, value in vars(driver.ErrorCodes).items() if name.isupper()} | set(
        range(1, 1100)
    )
    for code in codes:
        error = from_server(code, "DB::Exception: something. Stack trace:\n0. ?")
        assert isinstance(error, Transient | Permanent)
        assert error.data["detail"] == "something"
        assert error.what_text
        assert error.why_text
        assert error.fix_text


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (243, DiskFull),
        (241, MemoryLimitReached),
        (252, TooManyParts),
        (516, AccessRefused),
        (159, QueryTimedOut),
        (60, UnknownTable),
        (62, QueryRefused),
    ],
)
def test_codes_that_callers_tell_apart(code: int, kind: type[HeadraceError]) -> None:
    assert type(from_server(code, "x")) is kind


def test_every_declared_error_says_what_why_and_what_to_do() -> None:
    declared = [
        kind
        for kind in vars(errors_sinks).values()
        if isinstance(kind, type) and issubclass(kind, HeadraceError) and kind.code
    ]
    assert len({kind.code for kind in declared}) == len(declared)
    for kind in declared:
        assert kind.code.startswith("HR-40")
        assert kind.what
        assert kind.why
        assert kind.fix


def test_two_threads_share_one_connection(database: Connection) -> None:
    database.execute("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 20):
                database.insert_rows("t", ["n"], [(number,)])
                assert database.value(f"SELECT count() FROM t WHERE n = {number}") == 1
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert database.value("SELECT count() FROM t") == 60


@contextmanager
def relay(target: Endpoint) -> Iterator[tuple[Endpoint, Callable[[], None]]]:
    """A way to a server, and what cuts every connection that takes it."""
    ends: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(1 << 16):
                sink.sendall(piece)
        except OSError:
            return

    def cut() -> None:
        while ends:
            end = ends.pop()
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                near = listener.accept()[0]
                far = socket.create_connection((target.host, target.port))
                ends.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threads.append(threading.Thread(target=pump, args=pair))
                    threads[-1].start()

        def accept() -> None:
            with suppress(OSError):
                serve()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield replace(target, port=listener.getsockname()[1]), cut
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            cut()
            for thread in threads:
                thread.join()


@pytest.fixture
def pings(monkeypatch: pytest.MonkeyPatch) -> list[bool | None]:
    """The answers to the driver's pings; each counts for as long as a test takes."""
    answers: list[bool | None] = []
    ask = DriverConnection.ping

    def asked(connection: DriverConnection) -> bool | None:
        answers.append(ask(connection))
        return answers[-1]

    monkeypatch.setattr(DriverConnection, "ping", asked)
    monkeypatch.setattr("sinks.native.PING_SECONDS", 1e9)
    return answers


def test_a_connection_that_answered_is_not_asked_before_each_query(
    database: Connection, pings: list[bool | None]
) -> None:
    with Connection(database.endpoint) as connection:
        answers = [connection.value(f"SELECT {number}") for number in range(5)]

    assert answers == [0, 1, 2, 3, 4]
    assert pings == [True]


def test_a_connection_cut_a_moment_after_it_answered_is_opened_again(
    database: Connection, pings: list[bool | None]
) -> None:
    with relay(database.endpoint) as (endpoint, cut), Connection(endpoint) as connection:
        before = [connection.value("SELECT 1"), connection.value("SELECT 2")]
        cut()
        after = connection.value("SELECT 3")

    assert (before, after) == ([1, 2], 3)
    assert pings == [True, False]


def test_bytes_come_as_stored(database: Connection) -> None:
    database.execute("CREATE TABLE t (f FixedString(4), s String) ENGINE = MergeTree ORDER BY f")
    database.insert_rows("t", ["f", "s"], [(b"\xff\x00ab", b"\x00\xfe"), (b"abc\x00", "text")])
    rows = database.execute("SELECT f, s FROM t ORDER BY f", as_bytes=True)
    assert rows == [(b"abc\x00", b"text"), (b"\xff\x00ab", b"\x00\xfe")]


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("clickhouse://h", Endpoint("h", 9000)),
        ("clickhouse://u:p%40x@h:9001/db", Endpoint("h", 9001, "u", "p@x", "db")),
        ("clickhouses://u@h/db/", Endpoint("h", 9440, "u", "", "db", secure=True)),
    ],
)
def test_urls(url: str, wanted: Endpoint) -> None:
    assert Endpoint.from_url(url) == wanted


@pytest.mark.parametrize("url", ["", "http://h", "clickhouse://", "clickhouse://h:x"])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"ClickHouse|Port"):
        Endpoint.from_url(url)


def test_the_password_is_never_shown() -> None:
    endpoint = Endpoint.from_url("clickhouse://u:geheim@h")
    assert "geheim" not in repr(endpoint) + str(endpoint) + endpoint.address
