"""OTLP over HTTP, with the clients that others use: what is taken is stored, and all else gets a clear answer."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import select
import socket
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from cmdrdata_exporter import faults
from cmdrdata_exporter.fleet.gateway.access import Access, Token
from cmdrdata_exporter.fleet.gateway.exports import Exports
from cmdrdata_exporter.fleet.gateway.limits import Limits, Room
from cmdrdata_exporter.fleet.gateway.otlp_http import JSON, PROTOBUF, TRACES, Intake
from cmdrdata_exporter.fleet.gateway.shelving import AwayError
from cmdrdata_exporter.fleet.gateway.spans import SpanRow
from cmdrdata_exporter.fleet.gateway.watching import Counts, Pages
from tests.fleet.gateways import wait_for
from tests.fleet.otlp import CHAT, request, span

SDK = "opentelemetry.instrumentation.openai.v1"
TOKEN = "0123456789abcdef"
BODY = request((SDK, span(1, 1))).SerializeToString()
SMALL = Limits(request=10_000, in_flight=30_000, connections=4, idle=5.0, header=0.5, body=0.5)


class Shelf:
    """Takes rows in the place of a database."""

    def __init__(self) -> None:
        self.rows: list[SpanRow] = []
        self.is_away = False
        self.is_asked = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()

    def store(self, rows: Sequence[SpanRow]) -> None:
        """Keep rows."""
        self.is_asked.set()
        self.goes_on.wait(20)
        if self.is_away:
            raise AwayError
        self.rows += rows


Start = Callable[..., Intake]


def exports_of(shelf: Shelf, access: Access, limits: Limits) -> Exports:
    """Return what takes requests, for a shelf that stands in."""
    shelving: Any = shelf
    return Exports(shelving, access, limits, Counts())


def intake_of(shelf: Shelf, access: Access, limits: Limits) -> Intake:
    """Return a server that is not started yet."""
    exports = exports_of(shelf, access, limits)
    pages = Pages(exports.counts, dict, list)
    return Intake(("127.0.0.1", 0), pages, exports, limits, exports.counts)


def used(intake: Intake) -> int:
    """Return how many bytes are under way."""
    assert intake.exports is not None
    return intake.exports.room.used


@pytest.fixture
def shelf() -> Shelf:
    """An empty shelf."""
    return Shelf()


@pytest.fixture
def start(shelf: Shelf) -> Iterator[Start]:
    """Starts servers, which are stopped at the end."""
    running: list[Intake] = []

    def start(access: Access | None = None, limits: Limits = SMALL) -> Intake:
        intake = intake_of(shelf, access or Access(), limits)
        intake.start()
        running.append(intake)
        return intake

    yield start
    shelf.goes_on.set()
    for intake in running:
        intake.stop(5)


def post(
    intake: Intake, body: Any, headers: dict[str, str] | None = None
) -> tuple[int, bytes, Any]:
    """Post a body; return the status, the answer and its headers."""
    connection = http.client.HTTPConnection("127.0.0.1", intake.server_port, timeout=20)
    try:
        connection.request("POST", TRACES, body, {"Content-Type": PROTOBUF} | (headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def message(answer: bytes) -> str:
    """Return what an answer says."""
    return Status.FromString(answer).message


@pytest.mark.parametrize("compression", list(Compression))
def test_the_exporter_of_opentelemetry(
    start: Start, shelf: Shelf, compression: Compression
) -> None:
    """What the SDK's own exporter sends is taken, compressed or not; the event has what the span says."""
    intake = start(limits=Limits())
    url = f"http://127.0.0.1:{intake.server_port}{TRACES}"
    if compression is Compression.Deflate:
        assert post(intake, zlib.compress(BODY), {"Content-Encoding": "deflate"})[0] == 415
        return
    provider = TracerProvider(resource=Resource.create({"host.name": "web-7"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(url, compression=compression)))
    with provider.get_tracer(SDK).start_as_current_span("chat", attributes=CHAT):
        pass
    provider.shutdown()
    [row] = shelf.rows
    assert row.body is not None
    event = json.loads(row.body)
    assert row.host == "web-7"
    assert (event["customer_id"], event["model"], event["total_tokens"]) == ("acme", "gpt-5", 15)
    assert event["request"]["id"] == row.event


def test_json(start: Start, shelf: Shelf) -> None:
    """JSON is taken as protobuf is, with ids in hexadecimal digits, and makes the same event."""
    intake = start()
    document = json_format.MessageToDict(request((SDK, span(1, 1))))
    [its] = [
        each
        for batch in document["resourceSpans"]
        for group in batch["scopeSpans"]
        for each in group["spans"]
    ]
    original = span(1, 1)
    its["traceId"], its["spanId"] = original.trace_id.hex(), original.span_id.hex()
    status, answer, _ = post(intake, json.dumps(document), {"Content-Type": JSON})
    assert (status, json.loads(answer)) == (200, {})
    assert post(intake, BODY)[0] == 200
    assert shelf.rows[0] == shelf.rows[1]


def test_chunks(start: Start, shelf: Shelf) -> None:
    """A body without a length, as Node.js sends it, is taken."""
    intake = start()
    packed = gzip.compress(BODY)
    parts = iter([packed[:7], packed[7:50], packed[50:]])
    assert post(intake, parts, {"Content-Encoding": "gzip"})[0] == 200
    assert len(shelf.rows) == 1


def test_spans_without_ids(start: Start, shelf: Shelf) -> None:
    """A span that cannot be told from others is refused, and the answer says so; the others are taken."""
    nobody = span(1, 2)
    nobody.trace_id = b"short"
    body = request((SDK, nobody), (SDK, span(1, 1))).SerializeToString()
    status, answer, _ = post(start(), body)
    partial = ExportTraceServiceResponse.FromString(answer).partial_success
    assert (status, partial.rejected_spans, bool(partial.error_message)) == (200, 1, True)
    assert len(shelf.rows) == 1


GARBAGE: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "protobuf": (b"\xff\xfe no protobuf", {}, 400, "protobuf"),
    "json": (b"{", {"Content-Type": JSON}, 400, "JSON"),
    "json shape": (b'{"resourceSpans":[1]}', {"Content-Type": JSON}, 400, "JSON"),
    "gzip": (b"no gzip", {"Content-Encoding": "gzip"}, 400, "gzip"),
    "cut gzip": (gzip.compress(BODY)[:-9], {"Content-Encoding": "gzip"}, 400, "gzip"),
    "two gzips": (gzip.compress(BODY) * 2, {"Content-Encoding": "gzip"}, 400, "gzip"),
    "type": (BODY, {"Content-Type": "text/html"}, 415, PROTOBUF),
    "encoding": (BODY, {"Content-Encoding": "br"}, 415, "gzip"),
    "large": (b"x" * 10_001, {}, 413, "10000 bytes"),
    "bomb": (
        gzip.compress(b"\0" * 9_000_000),
        {"Content-Encoding": "gzip"},
        413,
        "10000 bytes",
    ),
    "deep json": (b"[" * 9000, {"Content-Type": JSON}, 400, "JSON"),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage(start: Start, shelf: Shelf, case: str) -> None:
    """What cannot be taken gets an answer that says why; nothing of it is stored, and all room is given back."""
    body, headers, expected, said = GARBAGE[case]
    intake = start(limits=replace(SMALL, in_flight=1 << 20))
    status, answer, received = post(intake, body, headers)
    is_json = received["Content-Type"] == JSON
    assert status == expected
    assert said in (json.loads(answer)["message"] if is_json else message(answer))
    assert (shelf.rows, used(intake)) == ([], 0)
    assert post(intake, BODY)[0] == 200


def test_a_bomb_is_not_blown_up(start: Start, shelf: Shelf) -> None:
    """Of a body that grows beyond what is allowed no more is inflated than that."""
    limits = replace(SMALL, request=1 << 20, in_flight=4 << 20)
    taken: list[int] = []

    class Watched(Room):
        def take(self, number: int) -> None:
            super().take(number)
            taken.append(self.used)

    intake = start(limits=limits)
    assert intake.exports is not None
    intake.exports.room = Watched(limits.in_flight)
    bomb = gzip.compress(b"\0" * (200 << 20))
    assert post(intake, bomb, {"Content-Encoding": "gzip"})[0] == 413
    assert max(taken) <= 2 << 20
    assert shelf.rows == []


RAW = {
    "half a body": (b"Content-Length: 500\r\n\r\nabc", 503),
    "half a chunk": (b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", 503),
    "no chunk": (b"Transfer-Encoding: chunked\r\n\r\nhello\r\n", 400),
    "two lengths": (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 411),
    "both": (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "no length": (b"\r\n", 411),
    "negative": (b"Content-Length: -5\r\n\r\n", 400),
    "half a header": (b"Content-Le", None),
    "header without end": (b"X: " + b"x" * 200_000, None),
}


@pytest.mark.parametrize("case", RAW)
def test_half_requests(start: Start, shelf: Shelf, case: str) -> None:
    """A request that is broken off, slow, or ambiguous about its length is ended in time, and the connection too."""
    rest, expected = RAW[case]
    intake = start()
    with socket.create_connection(("127.0.0.1", intake.server_port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            + rest
        )
        said = b""
        try:
            while part := connection.recv(4096):
                said += part
        except ConnectionResetError:
            pass
    if expected is None:
        assert b" 200 " not in said
    else:
        assert said.startswith(b"HTTP/1.1 %d " % expected)
    assert (shelf.rows, used(intake)) == ([], 0)
    assert post(intake, BODY)[0] == 200


def test_a_byte_now_and_then(start: Start) -> None:
    """Who sends a header byte by byte is not waited for longer than for any other."""
    intake = start()
    ended = False
    with socket.create_connection(("127.0.0.1", intake.server_port), timeout=0.1) as connection:
        for _ in range(100):
            with contextlib.suppress(TimeoutError):
                try:
                    connection.sendall(b"P")
                    ended = not connection.recv(1)
                except ConnectionError:
                    ended = True
            if ended:
                break
    assert ended


def test_tokens(start: Start, shelf: Shelf, tmp_path: Path) -> None:
    """Only the token that is in the file now lets anybody in; no answer has it."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    intake = start(Access(token=Token(path=path)))
    for headers in ({}, {"Authorization": "Bearer nobody"}, {"Authorization": f"Basic {TOKEN}"}):
        status, answer, received = post(intake, BODY, headers)
        assert (status, received["WWW-Authenticate"]) == (401, 'Bearer realm="cmdrdata gateway"')
        assert TOKEN not in message(answer)
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert post(intake, BODY, right)[0] == 200
    path.write_text("fedcba9876543210")
    assert post(intake, BODY, right)[0] == 401
    assert post(intake, BODY, {"Authorization": "Bearer fedcba9876543210"})[0] == 200
    path.unlink()
    assert post(intake, BODY, {"Authorization": "Bearer fedcba9876543210"})[0] == 401
    assert len(shelf.rows) == 2
    assert faults.counts.pop("token") == 1


def test_a_ledger_that_is_away(start: Start, shelf: Shelf) -> None:
    """Nothing is acknowledged that is not stored: it is to come again."""
    shelf.is_away = True
    status, _, received = post(start(), BODY)
    assert (status, received["Retry-After"]) == (503, "1")
    assert shelf.rows == []


def test_too_much_at_once(start: Start, shelf: Shelf) -> None:
    """While too much is under way more is refused, to come again, rather than kept in memory."""
    intake = start(limits=replace(SMALL, in_flight=2500))
    shelf.goes_on.clear()
    first: list[int] = []
    thread = threading.Thread(target=lambda: first.append(post(intake, BODY)[0]))
    thread.start()
    assert shelf.is_asked.wait(10)
    assert 1250 < used(intake) < 2500
    status, _, received = post(intake, BODY)
    assert (status, received["Retry-After"]) == (429, "1")
    shelf.goes_on.set()
    thread.join()
    assert first == [200]
    assert post(intake, BODY)[0] == 200


def begun(intake: Intake, length: int, sent: bytes) -> socket.socket:
    """Begin a request, and send no more of its body than a part."""
    connection = socket.create_connection(("127.0.0.1", intake.server_port), timeout=10)
    connection.sendall(
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (length, sent)
    )
    return connection


def test_slow_bodies_give_way(start: Start) -> None:
    """Who fills the room with a body that does not go on makes room for others after a while, and is to come again."""
    limits = replace(SMALL, body=60.0, grace=0.0)
    intake = start(limits=limits)
    slow = [begun(intake, 9000, b"x" * 8000) for _ in range(3)]
    wait_for(lambda: used(intake) == 24_000)
    large = request((SDK, span(1, 1, attributes=CHAT | {"text": "x" * 8000}))).SerializeToString()
    status, _, received = post(intake, large)
    assert (status, received["Retry-After"]) == (429, "1")
    # Whichever the gateway has begun to read first.
    answered, _, _ = select.select(slow, [], [], 10)
    said = answered[0].recv(4096)
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 1\r\n" in said
    wait_for(lambda: used(intake) == 16_000)
    assert post(intake, large)[0] == 200
    for each in slow:
        each.close()


def test_connections_without_a_request_give_way(start: Start) -> None:
    """Connections that wait, or have sent half a header, keep nobody out."""
    intake = start(limits=replace(SMALL, idle=60.0, header=60.0))
    kept = [socket.create_connection(("127.0.0.1", intake.server_port)) for _ in range(4)]
    for each in kept[:2]:
        each.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: ")
    wait_for(lambda: intake.connections == 4)
    for _ in range(3):
        assert post(intake, BODY)[0] == 200
    ended, _, _ = select.select(kept, [], [], 10)
    assert ended[0].recv(1) == b""
    for each in kept:
        each.close()


def test_too_many_connections(start: Start) -> None:
    """One connection too many is refused at once, and taken once another one has ended."""
    intake = start(limits=replace(SMALL, body=60.0))
    kept = [begun(intake, 100, b"x") for _ in range(4)]
    wait_for(lambda: used(intake) == 4)
    assert post(intake, b"")[0] == 503
    for each in kept:
        each.close()
    wait_for(lambda: not intake.connections)
    assert post(intake, BODY)[0] == 200


def test_nobody_is_asked_for_a_body_that_is_refused(start: Start) -> None:
    """A client that waits to be asked for its body is asked once it is known who it is."""
    intake = start(Access(token=Token(text=TOKEN)))
    for token, first in ((b"nobody", b"HTTP/1.1 401 "), (TOKEN.encode(), b"HTTP/1.1 100 ")):
        with socket.create_connection(("127.0.0.1", intake.server_port), timeout=10) as connection:
            connection.sendall(
                b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
                b"Content-Length: 5\r\nExpect: 100-continue\r\nAuthorization: Bearer %s\r\n\r\n"
                % token
            )
            assert connection.recv(4096).startswith(first)


def test_other_methods(start: Start) -> None:
    """What is no export is refused as the specification has it: with a status that clients can read."""
    intake = start()
    for method, expected in (("GET", 405), ("PUT", 501)):
        connection = http.client.HTTPConnection("127.0.0.1", intake.server_port, timeout=20)
        connection.request(method, TRACES)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Type")) == (expected, PROTOBUF)
        assert message(answer.read())
        connection.close()


def test_the_end(start: Start, shelf: Shelf) -> None:
    """What was begun is answered before the server ends; a connection that waits for nothing is ended at once."""
    intake = start(limits=replace(SMALL, idle=60.0))
    idle = socket.create_connection(("127.0.0.1", intake.server_port))
    shelf.goes_on.clear()
    first: list[int] = []
    thread = threading.Thread(target=lambda: first.append(post(intake, BODY)[0]))
    thread.start()
    assert shelf.is_asked.wait(10)
    ending = threading.Thread(target=intake.stop, args=(10,))
    ending.start()
    while not intake.stopping:
        pass
    shelf.goes_on.set()
    thread.join()
    ending.join()
    assert first == [200]
    assert idle.recv(1) == b""
    idle.close()
