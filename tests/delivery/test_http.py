"""What the backend's answers mean, and the one POST."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry.instrumentation.utils import (
    is_http_instrumentation_enabled,
    is_instrumentation_enabled,
)
from pytest_httpserver import HTTPServer
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from werkzeug import Request, Response

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery import Outcome, Verdict, cause
from cmdrdata_exporter.delivery.http import connections
from cmdrdata_exporter.delivery.http.answers import Answer, classify, classify_failure, read_answer
from cmdrdata_exporter.delivery.http.client import Client
from tests.provider import Provider, Reply

KEY = "tk-0123456789abcdefghij"
NOW = 1_700_000_000.0
NO_POOL: Any = None
"""What urllib3 is told of the pool where a test makes its errors."""

DELIVERED, DUPLICATE, REFUSED = Verdict.DELIVERED, Verdict.DUPLICATE, Verdict.REFUSED
MISCONFIGURED, FORBIDDEN, RETRY = Verdict.MISCONFIGURED, Verdict.FORBIDDEN, Verdict.RETRY


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
        (403, FORBIDDEN, False),
        (406, FORBIDDEN, False),
        (431, FORBIDDEN, False),
        (451, FORBIDDEN, False),
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


EVENT: dict[str, Any] = {
    "customer_id": "acme",
    "model": "gpt-5-mini",
    "metadata": {"note": "m", "tags": ["blue", {"of": "one"}], "operation": "create"},
    "request": {"id": "5f3a9c01", "streaming": False},
}


def answered(body: object, **changes: Any) -> Verdict:
    """Return the verdict on a 422 with this body to an event."""
    text = body if isinstance(body, str) else json.dumps(body)
    return classify(422, {}, text, NOW, json.dumps(EVENT | changes).encode()).verdict


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "Event already exists"},
        {"message": "ALREADY RECORDED"},
        {"code": "already_exists"},
        {"error": "duplicate event"},
        {"error": {"code": "already_exists", "message": "no"}},
        {"error": {"detail": "this is a duplicate event."}},
        {"message": "event 5f3a9c01 already exists"},
    ],
    ids=str,
)
def test_a_duplicate_told_in_the_body(body: object) -> None:
    """A 422 that says in a place of its own that the event is there already is a delivery."""
    assert answered(body) is DUPLICATE


@pytest.mark.parametrize(
    "body",
    [
        "Event already exists",
        '"already exists"',
        '["already exists"]',
        '{"message": "already exists',
        "[" * 100_000,
        {"reason": "already exists"},
        {"detail": [{"msg": "already exists"}]},
        {"detail": {"message": "already exists"}},
        {"errors": {"message": "already exists"}},
        {"error": {"error": {"message": "already exists"}}},
        {"message": "a duplicate"},
        {"message": "exists already"},
        {"message": "customer acme already exists"},
        {"message": "'blue' already exists"},
        {"error": {"message": "one, already exists"}},
    ],
    ids=lambda body: str(body)[:60],
)
def test_a_duplicate_told_elsewhere(body: object) -> None:
    """Nothing else is: in doubt an event is refused, which can be replayed, and never taken to be delivered."""
    assert answered(body) is REFUSED


@pytest.mark.parametrize(
    "note", ["it already exists, please", "ALREADY_EXISTS", "a duplicate event"]
)
@pytest.mark.parametrize("place", ["value", "key", "customer"])
def test_an_event_that_has_those_words(note: str, place: str) -> None:
    """A backend repeats what it dislikes, whole or cut: an event that has such words is never delivered by words."""
    changes: dict[str, dict[str, Any]] = {
        "value": {"metadata": {"note": [note]}},
        "key": {"metadata": {note: 1}},
        "customer": {"customer_id": note},
    }
    for message in (note, f"no such note: {note[:18]}...", "Event already exists"):
        assert answered({"message": message}, **changes[place]) is REFUSED


def test_the_validation_of_a_backend(httpserver: HTTPServer) -> None:
    """An answer that has the event in it, as FastAPI's have, refuses the event and says why."""
    detail = [
        {
            "type": "string_too_long",
            "loc": ["body", "metadata", "note"],
            "msg": "String should have at most 20 characters",
            "input": "the invoice already exists, duplicate event",
        }
    ]
    said = json.dumps({"detail": detail})
    httpserver.expect_request("/").respond_with_data(said, 422, content_type="application/json")
    body = json.dumps(EVENT | {"metadata": {"note": detail[0]["input"]}}).encode()
    outcome = client(httpserver.url_for("/")).post("1", body, 5)
    assert outcome == Outcome(REFUSED, "HTTP 422", answer=said)


PAGE = "<!DOCTYPE html>\n<html><title>Sign in</title></html>"


@pytest.mark.parametrize(
    ("status", "content_type", "body", "verdict"),
    [
        (200, "text/html; charset=utf-8", PAGE, MISCONFIGURED),
        (201, "TEXT/HTML", "Please sign in", MISCONFIGURED),
        (200, "application/xhtml+xml", "<x/>", MISCONFIGURED),
        (200, "", f"\ufeff \n{PAGE}", MISCONFIGURED),
        (200, "application/json", "<html>", MISCONFIGURED),
        # What breaks off was not empty.
        (202, "text/html", None, MISCONFIGURED),
        (202, "text/html", " \n", DELIVERED),
        (204, "text/html", "", DELIVERED),
        (200, "text/plain", "ok", DELIVERED),
        (200, "application/json", '{"page": "<html>"}', DELIVERED),
        (200, "", None, DELIVERED),
    ],
)
def test_a_page_instead_of_an_api(
    status: int, content_type: str, body: str | None, verdict: Verdict
) -> None:
    """A page for people, of a portal or a login, has delivered nothing, whatever its status."""
    headers = {"content-type": content_type} if content_type else {}
    assert classify(status, headers, body, NOW).verdict is verdict


# The reason


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ('{"detail":"no such customer"}', '{"detail":"no such customer"}'),
        ("", ""),
        (None, ""),
        ("one\r\n\ttwo\x00\x1b[31m\u202ethree  four", "one two [31m three four"),
        ("x " * 400, ("x " * 400)[:300]),
        ("\n" * 9000 + "late", ""),
        ("Bearer tk-0123456789abcdefghij is wrong", "Bearer [scrubbed] is wrong"),
        ("ab " * 99 + "tk-0123456789abcdefghij", "ab " * 99 + "[sc"),
    ],
)
def test_the_reason_for_a_refusal(body: str | None, answer: str) -> None:
    """A refusal has the beginning of the answer: one line, bounded, and nothing that looks like a key."""
    for status in (400, 401, 403, 503):
        outcome = classify(status, {}, body, NOW)
        assert outcome.answer == answer
        assert outcome.explanation == (f"HTTP {status}: {answer}" if answer else f"HTTP {status}")
        assert cause(outcome.explanation) == outcome.reason == f"HTTP {status}"
    assert (classify(200, {}, body, NOW).answer, classify(409, {}, body, NOW).answer) == ("", "")


def test_an_answer_with_our_key(httpserver: HTTPServer) -> None:
    """A backend that repeats the key does not get it into a reason, whatever the key looks like."""
    key = "0123456789 no usual key"
    httpserver.expect_request("/").respond_with_data(f"no account for {key}!", status=400)
    outcome = client(httpserver.url_for("/"), lambda: key).post("1", b"{}", 5)
    assert outcome == Outcome(REFUSED, "HTTP 400", answer="no account for [scrubbed]!")


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


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        NewConnectionError(NO_POOL, "refused"),
        ConnectTimeoutError("slow"),
        SSLError("UNEXPECTED_EOF_WHILE_READING"),
        ReadTimeoutError(NO_POOL, "/", "slow"),
        ProtocolError("Connection aborted."),
        OSError("reset"),
        MemoryError(),
    ],
    ids=repr,
)
def test_failures(error: Exception, sent: bool) -> None:
    """No failure is a verdict; whether any of the event may have left, and nothing else, makes it ambiguous."""
    assert classify_failure(error, sent=sent) == Outcome(RETRY, type(error).__name__, sent)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (
            b"HTTP/1.1 202 Accepted\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\n{}",
            Answer(202, {"content-type": "a/b", "content-length": "2"}, b"{}"),
        ),
        (
            b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n",
            Answer(200, {"connection": "Close", "content-length": "0"}, b"", keep_alive=False),
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, {}, b"")),
        (
            CHUNKED + b"1\r\n{\r\n1;a=b\r\n}\r\n0\r\nA: b\r\n\r\n",
            Answer(200, {"transfer-encoding": "chunked"}, b"{}"),
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
            b"HTTP/1.1 503 No\r\nContent-Length: 1\r\n\r\n!",
            Answer(503, {"content-length": "1"}, b"!"),
        ),
        (
            b"HTTP/1.0 200 OK\nContent-Length: 1\n\n!",
            Answer(200, {"content-length": "1"}, b"!", keep_alive=False),
        ),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
            Answer(101, {"upgrade": "h2c"}, b"", keep_alive=False),
        ),
    ],
    ids=["plain", "closes", "204", "chunked", "interim", "old", "101"],
)
def test_where_an_answer_ends(data: bytes, answer: Answer) -> None:
    """An answer is complete with its last byte and not before, in whatever pieces it comes, and nothing may follow."""
    begun = [read_answer(data[:length]) for length in range(len(data))]
    assert not [each for each in begun if each is not None and each.complete]
    assert {each.status for each in begun if each is not None} <= {answer.status}
    assert read_answer(data) == answer
    followed = read_answer(data + b"x")
    assert followed == answer._replace(keep_alive=False)


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nall", b"all"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", None),
        (CHUNKED + b"9\r\ncut", None),
    ],
)
def test_a_body_that_ends_with_its_connection(data: bytes, body: bytes | None) -> None:
    """Without a length a body ends where the connection does; with one it is cut off there."""
    begun = read_answer(data)
    assert begun is not None
    assert (begun.status, begun.body, begun.complete) == (200, None, False)
    ended = read_answer(data, ended=True)
    assert ended is not None
    assert (ended.status, ended.body, ended.complete, ended.keep_alive) == (200, body, True, False)


def test_a_body_that_goes_wrong() -> None:
    """Where a body cannot be read nobody knows where it ends: the connection carries no other request."""
    found = read_answer(CHUNKED + b"no number\r\n")
    assert found == Answer(200, {"transfer-encoding": "chunked"}, None, keep_alive=False)


@pytest.mark.parametrize("data", [b"nonsense\r\n", b"\x16\x03\x01\n", b"HTTP/1.1 abc OK\r\n"])
def test_what_is_no_answer(data: bytes) -> None:
    """What does not begin as an answer does is none, whatever follows."""
    with pytest.raises(http.client.HTTPException):
        read_answer(data)


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


def test_a_descriptor_that_is_closed(provider: Provider, tmp_path: Path) -> None:
    """Where a program closes our sockets, a file of its own gets no request under their numbers, and stays open."""
    provider.answer("/events", Reply(status=201, json={}))
    posting = client(f"http://127.0.0.1:{provider.port}/events")
    assert posting.post("e1", b"{}", 5).verdict is DELIVERED
    program = tmp_path / "program"
    own = os.open(program, os.O_RDWR | os.O_CREAT)
    numbers: list[int] = []
    for path in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(path.name))) as found:
            if found.getpeername() == ("127.0.0.1", provider.port):
                numbers.append(int(path.name))
    assert len(numbers) == 1
    os.dup2(own, numbers[0])

    assert posting.post("e2", b"{}", 5).verdict is DELIVERED
    posting.reset()

    assert b"" == program.read_bytes()
    assert os.path.samestat(os.fstat(own), os.fstat(numbers[0]))
    assert ["e1", "e2"] == [request.headers["idempotency-key"] for request in provider.requests]
    os.close(own)
    os.close(numbers[0])


def test_redirects_are_not_followed(httpserver: HTTPServer) -> None:
    """The key never follows a redirect."""
    httpserver.expect_request("/api").respond_with_data(status=302, headers={"location": "/login"})
    httpserver.expect_request("/login").respond_with_data(status=200)
    assert client(httpserver.url_for("/api")).post("1", b"{}", 5).verdict is MISCONFIGURED
    assert [request.path for request, _ in httpserver.log] == ["/api"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_read_anew(httpserver: HTTPServer, status: int) -> None:
    """After a refusal the next attempt has the key of that moment."""
    keys = iter(["tk-first-first-first-1", "tk-second-second-second"])

    def answer(request: Request) -> Response:
        return Response(status=200 if "second" in request.headers["authorization"] else status)

    httpserver.expect_request("/").respond_with_handler(answer)
    poster = client(httpserver.url_for("/"), lambda: next(keys))
    assert [poster.post("1", b"{}", 5).verdict for _ in range(3)] == [
        FORBIDDEN if status == 403 else MISCONFIGURED,
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
    monkeypatch.setattr("cmdrdata_exporter.delivery.http.connections.LONGEST_BODY", 0.05)
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
    original = HTTPConnection.connect

    def connect(connection: HTTPConnection) -> None:
        found.append(
            (
                is_instrumentation_enabled(),
                is_http_instrumentation_enabled(),
                otel_context.get_value("of"),
            )
        )
        original(connection)

    monkeypatch.setattr(HTTPConnection, "connect", connect)
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
    send = socket.socket.send

    def keep(connection: socket.socket, data: bytes, *flags: int) -> int:
        if data.startswith(b"POST"):
            written.append(data)
        return send(connection, data, *flags)

    monkeypatch.setattr(socket.socket, "send", keep)
    poster = client(httpserver.url_for("/"))
    for event_id in ("1", "2"):
        assert poster.post(event_id, b'{"n":1}', 5) == Outcome(DELIVERED, "HTTP 201")
    assert [data.partition(b"\r\n\r\n")[2] for data in written] == [b'{"n":1}', b'{"n":1}']


@pytest.mark.parametrize(
    ("url", "event_id", "reason"),
    [
        (f"http://{'x' * 64}.example/", "1", "LocationParseError"),
        ("http://nowhere.invalid/", "1", "NameResolutionError"),
        ("http://127.0.0.1:1/", "1", "NewConnectionError"),
        ("http://127.0.0.1:1/", "a\nb", "ValueError"),
    ],
)
def test_a_request_that_cannot_be_made(url: str, event_id: str, reason: str) -> None:
    """What never left cannot have been accepted, and that it did not is no verdict on it."""
    assert client(url).post(event_id, b"{}", 5) == Outcome(RETRY, reason)
    faults.counts.clear()


@pytest.mark.parametrize("before", [True, False])
def test_no_memory(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    """A lack of memory is no verdict on an event, which may have left when it came."""
    httpserver.expect_request("/").respond_with_data(status=200)

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    if before:
        monkeypatch.setattr(connections.Connector, "connect", fail)
    else:
        monkeypatch.setattr(connections, "read_answer", fail)
    outcome = client(httpserver.url_for("/")).post("1", b"{}", 5)
    assert outcome == Outcome(RETRY, "MemoryError", ambiguous=not before)
    assert faults.counts.pop("delivery") == 1


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
