"""OTLP over HTTP, with the clients that others use: what is taken is stored, and all else gets a clear answer."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
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
from cmdrdata_exporter.fleet.gateway.limits import Limits, Room
from cmdrdata_exporter.fleet.gateway.otlp_http import JSON, PROTOBUF, TRACES, Intake
from cmdrdata_exporter.fleet.gateway.shelving import AwayError
from cmdrdata_exporter.fleet.gateway.spans import SpanRow
from cmdrdata_exporter.fleet.gateway.watching import Counts, Pages
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
        self.goes_on = threading.Event()
        self.goes_on.set()

    def store(self, rows: Sequence[SpanRow]) -> None:
        """Keep rows."""
        self.goes_on.wait(20)
        if self.is_away:
            raise AwayError
        self.rows += rows


Start = Callable[..., Intake]


@pytest.fixture
def shelf() -> Shelf:
    """An empty shelf."""
    return Shelf()


@pytest.fixture
def start(shelf: Shelf) -> Iterator[Start]:
    """Starts servers, which are stopped at the end."""
    running: list[Intake] = []

    def start(access: Access | None = None, limits: Limits = SMALL) -> Intake:
        counts = Counts()
        intake = Intake(
            ("127.0.0.1", 0),
            shelving=shelf,  # pyright: ignore[reportArgumentType] - in its place
            access=access or Access(),
            limits=limits,
            room=Room(limits.in_flight),
            counts=counts,
            pages=Pages(counts, dict, list),
        )
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
    "json ids": (
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"zzzz"}]}]}]}',
        {"Content-Type": JSON},
        400,
        "hexadecimal",
    ),
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
    intake = start()
    status, answer, received = post(intake, body, headers)
    is_json = received["Content-Type"] == JSON
    assert status == expected
    assert said in (json.loads(answer)["message"] if is_json else message(answer))
    assert (shelf.rows, intake.room.used) == ([], 0)
    assert post(intake, BODY)[0] == 200


def test_a_bomb_is_not_blown_up(start: Start, shelf: Shelf) -> None:
    """Of a body that grows beyond what is allowed no more is inflated than that."""
    limits = replace(SMALL, request=1 << 20, in_flight=4 << 20)
    used: list[int] = []

    class Watched(Room):
        def take(self, number: int) -> None:
            super().take(number)
            used.append(self.used)

    intake = start(limits=limits)
    intake.room = Watched(limits.in_flight)
    bomb = gzip.compress(b"\0" * (200 << 20))
    assert post(intake, bomb, {"Content-Encoding": "gzip"})[0] == 413
    assert max(used) <= 2 << 20
    assert shelf.rows == []


RAW = {
    "half a body": (b"Content-Length: 500\r\n\r\nabc", 408),
    "half a chunk": (b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", 408),
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
    assert (shelf.rows, intake.room.used) == ([], 0)
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
    intake = start(limits=replace(SMALL, in_flight=len(BODY) + 10))
    shelf.goes_on.clear()
    first: list[int] = []
    thread = threading.Thread(target=lambda: first.append(post(intake, BODY)[0]))
    thread.start()
    while not intake.room.used:
        pass
    status, _, received = post(intake, BODY)
    assert (status, received["Retry-After"]) == (429, "1")
    shelf.goes_on.set()
    thread.join()
    assert first == [200]
    assert post(intake, BODY)[0] == 200


def test_too_many_connections(start: Start) -> None:
    """One connection too many is refused at once, and taken once another one has ended."""
    intake = start(limits=replace(SMALL, idle=20.0))
    kept = [socket.create_connection(("127.0.0.1", intake.server_port)) for _ in range(4)]
    while intake.connections < 4:
        pass
    assert post(intake, b"")[0] == 503
    for each in kept:
        each.close()
    while intake.connections:
        pass
    assert post(intake, BODY)[0] == 200


def test_the_end(start: Start, shelf: Shelf) -> None:
    """What was begun is answered before the server ends; a connection that waits for nothing is ended at once."""
    intake = start(limits=replace(SMALL, idle=60.0))
    idle = socket.create_connection(("127.0.0.1", intake.server_port))
    shelf.goes_on.clear()
    first: list[int] = []
    thread = threading.Thread(target=lambda: first.append(post(intake, BODY)[0]))
    thread.start()
    while not intake.room.used:
        pass
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
