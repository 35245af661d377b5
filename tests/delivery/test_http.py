"""What the backend's answers mean, and the one POST."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3
from opentelemetry import context as otel_context
from opentelemetry.instrumentation.utils import (
    is_http_instrumentation_enabled,
    is_instrumentation_enabled,
)
from pytest_httpserver import HTTPServer
from urllib3.exceptions import (
    ConnectTimeoutError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from werkzeug import Request, Response

from cmdrdata_exporter.delivery.http import Client, Outcome, Verdict, classify, classify_failure
from tests.provider import Provider, Reply

KEY = "tk-0123456789abcdefghij"
NOW = 1_700_000_000.0
NO_POOL: Any = None
"""What urllib3 is told of the pool where a test makes its errors."""

DELIVERED, DUPLICATE, REFUSED = Verdict.DELIVERED, Verdict.DUPLICATE, Verdict.REFUSED
MISCONFIGURED, RETRY = Verdict.MISCONFIGURED, Verdict.RETRY


@pytest.mark.parametrize(
    ("status", "verdict", "ambiguous"),
    [
        (200, DELIVERED, False),
        (201, DELIVERED, False),
        (202, DELIVERED, False),
        (204, DELIVERED, False),
        (409, DUPLICATE, False),
        (400, REFUSED, False),
        (413, REFUSED, False),
        (422, REFUSED, False),
        (401, MISCONFIGURED, False),
        (403, MISCONFIGURED, False),
        (404, MISCONFIGURED, False),
        (405, MISCONFIGURED, False),
        (301, MISCONFIGURED, False),
        (302, MISCONFIGURED, False),
        (307, MISCONFIGURED, False),
        (402, MISCONFIGURED, False),
        (418, MISCONFIGURED, False),
        (408, RETRY, True),
        (425, RETRY, False),
        (429, RETRY, False),
        (500, RETRY, True),
        (502, RETRY, True),
        (503, RETRY, False),
        (504, RETRY, True),
        (599, RETRY, True),
    ],
)
def test_statuses(status: int, verdict: Verdict, ambiguous: bool) -> None:
    """Every status has its one meaning; only those after which the event may have been kept are ambiguous."""
    assert classify(status, {}, "", NOW) == Outcome(verdict, f"HTTP {status}", ambiguous)


@pytest.mark.parametrize("body", ['{"detail": "Event already exists"}', "DUPLICATE event id"])
def test_a_duplicate_told_in_the_body(body: str) -> None:
    """A 422 that says the event is there already is a delivery."""
    assert classify(422, {}, body, NOW).verdict is DUPLICATE


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("1000000000", 3600.0),
        ("9" * 400, 3600.0),
        ("9" * 5000, None),
        ("-5", 0.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:13:19 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("1.5", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    """Retry-After is seconds or a date, an hour at most, and no more than a hint where it is garbage."""
    assert classify(429, {"retry-after": value}, "", NOW).retry_after == seconds


@pytest.mark.parametrize(
    ("error", "ambiguous"),
    [
        (NewConnectionError(NO_POOL, "refused"), False),
        (NameResolutionError("host", NO_POOL, socket.gaierror("no such host")), False),
        (ConnectTimeoutError("slow"), False),
        # A failed handshake is another error: NoConnectionError.
        (SSLError("UNEXPECTED_EOF_WHILE_READING"), True),
        (SSLError("DECRYPTION_FAILED_OR_BAD_RECORD_MAC"), True),
        (ReadTimeoutError(NO_POOL, "/", "slow"), True),
        (ProtocolError("Connection aborted."), True),
        (OSError("reset"), True),
    ],
)
def test_failures(error: Exception, ambiguous: bool) -> None:
    """A failure before the request could arrive is safe to repeat; any later one may double an event."""
    assert classify_failure(error) == Outcome(RETRY, type(error).__name__, ambiguous)


def client(
    url: str, read_key: Callable[[], str | None] = lambda: KEY, proxy: str | None = None
) -> Client:
    """Return a client as the exporter builds it."""
    return Client(url, read_key, "test/1", connections=2, clock=lambda: NOW, proxy=proxy)


def test_the_request(httpserver: HTTPServer) -> None:
    """One POST carries the bytes as they are, the key, the constant idempotency key and who we are."""
    httpserver.expect_request("/api/events", method="POST").respond_with_data(status=202)
    outcome = client(httpserver.url_for("/api/events?a=b")).post("id-1", b'{"a":1}', 5)
    assert outcome == Outcome(DELIVERED, "HTTP 202")
    ((request, _),) = httpserver.log
    assert (request.get_data(), request.query_string) == (b'{"a":1}', b"a=b")
    headers = {name.lower(): value for name, value in request.headers.items()}
    host = headers.pop("host")
    assert host == f"localhost:{httpserver.port}"
    assert headers == {
        "accept-encoding": "identity",
        "authorization": f"Bearer {KEY}",
        "content-length": "7",
        "content-type": "application/json",
        "idempotency-key": "id-1",
        "user-agent": "test/1",
    }


def test_the_connection_is_kept(provider: Provider) -> None:
    """Events share a connection, also after answers with a body; one with an endless body is given up."""
    sizes = (0, 10_000, 10_000, 200_000, 1)
    provider.answer("/v1", *(Reply(content=b"x" * size) for size in sizes))
    poster = client(provider.url)
    assert {poster.post(str(number), b"{}", 5).verdict for number in range(5)} == {DELIVERED}
    first, last = provider.requests[0].connection, provider.requests[4].connection
    assert first != last
    assert [request.connection for request in provider.requests] == [
        first,
        first,
        first,
        first,
        last,
    ]


def test_redirects_are_not_followed(httpserver: HTTPServer) -> None:
    """The key never follows a redirect."""
    httpserver.expect_request("/api").respond_with_data(status=302, headers={"location": "/login"})
    httpserver.expect_request("/login").respond_with_data(status=200)
    assert client(httpserver.url_for("/api")).post("1", b"{}", 5).verdict is MISCONFIGURED
    assert [request.path for request, _ in httpserver.log] == ["/api"]


def test_a_refused_key_is_read_anew(httpserver: HTTPServer) -> None:
    """After a refusal the next attempt has the key of that moment."""
    keys = iter(["tk-first-first-first-1", "tk-second-second-second"])

    def answer(request: Request) -> Response:
        return Response(status=200 if "second" in request.headers["authorization"] else 401)

    httpserver.expect_request("/").respond_with_handler(answer)
    poster = client(httpserver.url_for("/"), lambda: next(keys))
    assert [poster.post("1", b"{}", 5).verdict for _ in range(3)] == [
        MISCONFIGURED,
        DELIVERED,
        DELIVERED,
    ]


def test_an_unusable_key_file(httpserver: HTTPServer) -> None:
    """A key that cannot be read now is a matter of configuration: nothing is sent without it."""

    def unreadable() -> str:
        raise ValueError("cannot read")

    assert client(httpserver.url_for("/"), unreadable).post("1", b"{}", 5).verdict is MISCONFIGURED
    assert httpserver.log == []


def test_without_a_key(httpserver: HTTPServer) -> None:
    """An endpoint that needs no key gets none."""
    httpserver.expect_request("/").respond_with_data(status=200)
    assert client(httpserver.url_for("/"), lambda: None).post("1", b"{}", 5).verdict is DELIVERED
    assert "authorization" not in {name.lower() for name, _ in httpserver.log[0][0].headers.items()}


@pytest.fixture
def raw_server() -> Iterator[Callable[[bytes], str]]:
    """Start servers that read a request, send given bytes and hang up."""
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def start(reply: bytes) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        threads.append(thread)
        return f"http://127.0.0.1:{listening.getsockname()[1]}/"

    yield start
    for thread in threads:
        thread.join(10)
    for listening in sockets:
        listening.close()


@pytest.mark.parametrize(
    ("reply", "verdict", "ambiguous"),
    [
        (b"", RETRY, True),
        (b"nonsense\r\n\r\n", RETRY, True),
        # The status is the verdict, although the body never comes.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut", DELIVERED, False),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\ncut", REFUSED, False),
    ],
)
def test_answers_that_break_off(
    reply: bytes, verdict: Verdict, ambiguous: bool, raw_server: Callable[[bytes], str]
) -> None:
    """Without a status nothing is known; with one it counts, whatever became of the body."""
    outcome = client(raw_server(reply)).post("1", b"{}", 5)
    assert (outcome.verdict, outcome.ambiguous) == (verdict, ambiguous)


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["none", "no TLS"])
def test_a_handshake_that_breaks_off(reply: bytes, raw_server: Callable[[bytes], str]) -> None:
    """Before there is a connection nothing of the event has left."""
    url = raw_server(reply).replace("http", "https")
    outcome = client(url).post("1", b"{}", 5)
    assert (outcome.verdict, outcome.ambiguous) == (RETRY, False)


@pytest.fixture
def dripping_server() -> Iterator[Callable[[bytes], str]]:
    """Start servers that send a beginning at once, then a byte every few milliseconds for as long as it is read."""
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []
    stopped = threading.Event()

    def start(beginning: bytes) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(beginning)
                while not stopped.wait(0.005):
                    connection.sendall(b"x")

        thread = threading.Thread(target=serve)
        thread.start()
        threads.append(thread)
        return f"http://127.0.0.1:{listening.getsockname()[1]}/"

    yield start
    stopped.set()
    for thread in threads:
        thread.join(10)
    for listening in sockets:
        listening.close()


def test_an_answer_that_trickles_in(
    dripping_server: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt has one deadline, however often something arrives; a body is waited for less, the status counts."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.connections.LONGEST_BODY", 0.05)
    url = dripping_server(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    assert client(url).post("1", b"{}", 0.1) == Outcome(RETRY, "ReadTimeoutError", True)
    url = dripping_server(b"HTTP/1.1 201 Created\r\nContent-Length: 1000000\r\n\r\n")
    assert client(url).post("1", b"{}", 60) == Outcome(DELIVERED, "HTTP 201")


def test_nothing_sees_or_joins_our_requests(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A POST of ours is traced by no instrumentation and takes nothing of the caller's context with it."""
    httpserver.expect_request("/").respond_with_data(status=200)
    found: list[tuple[bool, bool, object]] = []
    original = urllib3.HTTPConnectionPool.urlopen

    def urlopen(*args: Any, **kwargs: Any) -> Any:
        found.append(
            (
                is_instrumentation_enabled(),
                is_http_instrumentation_enabled(),
                otel_context.get_value("of"),
            )
        )
        return original(*args, **kwargs)

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "urlopen", urlopen)
    token = otel_context.attach(otel_context.set_value("of", "a request"))
    try:
        assert client(httpserver.url_for("/")).post("1", b"{}", 5).verdict is DELIVERED
        assert otel_context.get_value("of") == "a request"
    finally:
        otel_context.detach(token)
    assert found == [(False, False, None)]


def test_a_request_is_one_write(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Head and body leave together: one packet, on a connection that is new and on one that is kept."""
    httpserver.expect_request("/").respond_with_data(status=201)
    written: list[bytes] = []
    send = http.client.HTTPConnection.send

    def keep(connection: http.client.HTTPConnection, data: bytes) -> None:
        written.append(data)
        send(connection, data)

    monkeypatch.setattr(http.client.HTTPConnection, "send", keep)
    poster = client(httpserver.url_for("/"))
    for event_id in ("1", "2"):
        assert poster.post(event_id, b'{"n":1}', 5) == Outcome(DELIVERED, "HTTP 201")
    assert [data.partition(b"\r\n\r\n")[2] for data in written] == [b'{"n":1}', b'{"n":1}']


def test_a_refused_connection() -> None:
    """A backend that is not there never had the event."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    outcome = client(f"http://127.0.0.1:{port}/").post("1", b"{}", 5)
    assert (outcome.verdict, outcome.ambiguous) == (RETRY, False)


def test_a_proxy() -> None:
    """An https endpoint is reached through the proxy; one that cannot be reached never had the event."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dead = f"http://127.0.0.1:{listening.getsockname()[1]}"
    through_proxy = client("https://events.example/", proxy=dead).post("1", b"{}", 5)
    assert (through_proxy.verdict, through_proxy.reason, through_proxy.ambiguous) == (
        RETRY,
        "ProxyError",
        False,
    )


def test_a_proxy_with_a_password() -> None:
    """A proxy that asks for a user gets the one of its URL, and never our key."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                received.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        proxy = f"http://us%40er:p%3Aw%C3%BC@127.0.0.1:{listening.getsockname()[1]}"
        outcome = client("https://events.example/", proxy=proxy).post("1", b"{}", 5)
        thread.join(10)
    assert outcome.verdict is RETRY
    request = received[0].decode().split("\r\n")
    assert request[0].startswith("CONNECT events.example:443 ")
    (authorization,) = [line for line in request if line.lower().startswith("proxy-authorization")]
    assert base64.b64decode(authorization.split(" ")[-1]).decode() == "us@er:p:wü"
    assert KEY.encode() not in received[0]
