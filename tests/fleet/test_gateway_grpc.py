"""OTLP over gRPC, with the clients that others use."""

from __future__ import annotations

import _ssl
import contextlib
import gzip
import http.client
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from cmdrdata_exporter import faults
from cmdrdata_exporter.fleet.gateway.access import Access, Token
from cmdrdata_exporter.fleet.gateway.grpc_calls import METHOD, SERVICE, STREAMS
from cmdrdata_exporter.fleet.gateway.limits import Limits
from cmdrdata_exporter.fleet.gateway.otlp_grpc import CALLS, GrpcIntake
from tests.fleet.gateways import wait_for
from tests.fleet.otlp import CHAT, request, span
from tests.fleet.streams import Streams, framed
from tests.fleet.test_gateway_http import TOKEN, Shelf, exports_of, intake_of

SDK = "opentelemetry.instrumentation.openai.v1"
BODY = request((SDK, span(1, 1))).SerializeToString()
Start = Callable[..., GrpcIntake]


@pytest.fixture
def shelf() -> Shelf:
    """An empty shelf."""
    return Shelf()


@pytest.fixture
def start(shelf: Shelf) -> Iterator[Start]:
    """Starts servers, which are stopped at the end."""
    running: list[GrpcIntake] = []

    def start(access: Access | None = None, limits: Limits | None = None) -> GrpcIntake:
        exports = exports_of(shelf, access or Access(), limits or Limits())
        intake = GrpcIntake(("127.0.0.1", 0), exports)
        intake.start()
        running.append(intake)
        return intake

    yield start
    shelf.goes_on.set()
    for intake in running:
        intake.stop(5)


def call(
    intake: GrpcIntake,
    body: bytes,
    *,
    token: str | None = None,
    compression: grpc.Compression | None = None,
    credentials: grpc.ChannelCredentials | None = None,
) -> bytes:
    """Make a call; return the answer."""
    address = f"localhost:{intake.port}"
    channel: Any = (
        grpc.insecure_channel(address)
        if credentials is None
        else grpc.secure_channel(address, credentials)
    )
    with channel:
        method = channel.unary_unary(f"/{SERVICE}/{METHOD}")
        metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        return method(body, metadata=metadata, timeout=20, compression=compression)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_the_exporter_of_opentelemetry(
    start: Start, shelf: Shelf, compression: grpc.Compression
) -> None:
    """What the SDK's own exporter sends is taken, compressed or not."""
    intake = start()
    provider = TracerProvider(resource=Resource.create({"host.name": "web-7"}))
    exporter = OTLPSpanExporter(f"127.0.0.1:{intake.port}", insecure=True, compression=compression)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer(SDK).start_as_current_span("chat", attributes=CHAT):
        pass
    provider.shutdown()
    [row] = shelf.rows
    assert row.body is not None
    event = json.loads(row.body)
    assert (event["customer_id"], event["total_tokens"], row.host) == ("acme", 15, "web-7")


def test_spans_without_ids(start: Start, shelf: Shelf) -> None:
    """A span that cannot be told from others is refused, and the answer says so; the others are taken."""
    nobody = span(1, 2)
    nobody.trace_id = b"short"
    answer = call(start(), request((SDK, nobody), (SDK, span(1, 1))).SerializeToString())
    partial = ExportTraceServiceResponse.FromString(answer).partial_success
    assert (partial.rejected_spans, bool(partial.error_message)) == (1, True)
    assert len(shelf.rows) == 1


def test_garbage(start: Start, shelf: Shelf) -> None:
    """What is no OTLP is refused for good, and the answer says so."""
    intake = start()
    with pytest.raises(grpc.RpcError) as failed:
        call(intake, b"\xff\xfe no protobuf")
    error: Any = failed.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "protobuf" in error.details()
    assert shelf.rows == []
    call(intake, BODY)


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_too_large(start: Start, shelf: Shelf, compression: grpc.Compression | None) -> None:
    """A message that is too large, compressed or not, is refused."""
    intake = start(limits=replace(Limits(), request=10_000))
    with pytest.raises(grpc.RpcError) as failed:
        call(intake, b"\0" * 20_000_000, compression=compression)
    error: Any = failed.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "10000 bytes" in error.details()
    assert shelf.rows == []
    call(intake, BODY)


def test_tokens(start: Start, shelf: Shelf) -> None:
    """Only who has the token is let in."""
    intake = start(Access(token=Token(text=TOKEN)))
    for token in (None, "nobody"):
        with pytest.raises(grpc.RpcError) as failed:
            call(intake, BODY, token=token)
        error: Any = failed.value
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert TOKEN not in error.details()
    assert shelf.rows == []
    call(intake, BODY, token=TOKEN)
    assert len(shelf.rows) == 1


@pytest.mark.parametrize("why", ["away", "full"])
def test_again(start: Start, shelf: Shelf, why: str) -> None:
    """What cannot be taken now is to come again, after the time that the answer says."""
    shelf.is_away = why == "away"
    intake = start()
    if why == "full":
        intake.exports.room.take(Limits().in_flight)
    with pytest.raises(grpc.RpcError) as failed:
        call(intake, BODY)
    error: Any = failed.value
    expected = {
        "away": grpc.StatusCode.UNAVAILABLE,
        "full": grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
    assert error.code() is expected[why]
    assert delay(Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])) == 1
    assert shelf.rows == []


def delay(status: Status) -> int:
    """Return after how many seconds a call is to come again."""
    info = RetryInfo()
    assert status.details[0].Unpack(info)
    return info.retry_delay.seconds


def used(intake: GrpcIntake) -> int:
    """Return how many bytes are under way."""
    return intake.exports.room.used


UNAVAILABLE, FULL, GARBAGE, UNIMPLEMENTED, STRANGER = 14, 8, 3, 12, 16


def test_silent_streams(start: Start, shelf: Shelf) -> None:
    """However many calls send nothing, others are served in time: those that wait for longest give way."""
    intake = start()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(Streams(intake.port)) for _ in range(CALLS // STREAMS + 2)]
        streams = [(each, each.begin()) for each in silent for _ in range(STREAMS)]
        began = time.monotonic()
        call(intake, BODY)
        assert time.monotonic() - began < 5
        assert len(shelf.rows) == 1
        assert len(intake.waiting) in (CALLS - 1, CALLS)
        connection, oldest = streams[0]
        assert connection.answer(oldest)[0] == UNAVAILABLE
        assert delay(connection.details(oldest)) == 1
        # It begins again, and is waited for as any other.
        again = connection.begin()
        connection.send(again, framed(BODY), is_all=True)
        assert connection.answer(again) == (0, "")


def test_slow_messages(start: Start, shelf: Shelf) -> None:
    """A message that has not come in time is to come again, and what had come of it is forgotten."""
    intake = start(limits=replace(Limits(), body=0.3))
    with Streams(intake.port) as client:
        silent, half = client.begin(), client.begin()
        client.send(half, framed(BODY)[:50])
        for stream in (silent, half):
            status, said = client.answer(stream)
            assert (status, "within 0.3 seconds" in said) == (UNAVAILABLE, True)
            assert delay(client.details(stream)) == 1
        wait_for(lambda: not used(intake))
        assert shelf.rows == []


def test_slow_messages_give_way(start: Start) -> None:
    """Who fills the room with a message that does not go on makes room for others after a while."""
    intake = start(limits=replace(Limits(), request=10_000, in_flight=30_000, grace=0.0))
    with Streams(intake.port) as client:
        slow = [client.begin() for _ in range(3)]
        for stream in slow:
            client.send(stream, b"x" * 9000)
        wait_for(lambda: used(intake) == 27_000)
        large = framed(
            request((SDK, span(1, 1, attributes=CHAT | {"text": "x" * 8000}))).SerializeToString()
        )
        first = client.begin()
        client.send(first, large, is_all=True)
        assert client.answer(first)[0] == FULL
        assert client.answer(slow[0])[0] == UNAVAILABLE
        again = client.begin()
        client.send(again, large, is_all=True)
        assert client.answer(again) == (0, "")


def test_connections_without_a_call_give_way(start: Start) -> None:
    """Connections without a call keep nobody out; one too many with calls is refused."""
    intake = start(limits=replace(Limits(), connections=3))
    with contextlib.ExitStack() as stack:
        kept = [
            stack.enter_context(socket.create_connection(("127.0.0.1", intake.port), timeout=10))
            for _ in range(3)
        ]
        wait_for(lambda: intake.connections == 3)
        call(intake, BODY)
        while kept[0].recv(4096):
            pass
        busy = [stack.enter_context(Streams(intake.port)) for _ in range(3)]
        streams = [each.begin() for each in busy]
        wait_for(lambda: len(intake.waiting) == 3)
        with pytest.raises(grpc.RpcError) as failed:
            call(intake, BODY)
        error: Any = failed.value
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        busy[0].send(streams[0], framed(BODY), is_all=True)
        assert busy[0].answer(streams[0]) == (0, "")
        call(intake, BODY)


def test_idle_connections(start: Start) -> None:
    """A connection without a call is ended after a while, whatever else it sends."""
    intake = start(limits=replace(Limits(), idle=0.2))
    with Streams(intake.port) as client:
        while not client.is_over:
            client.read()
    with socket.create_connection(("127.0.0.1", intake.port), timeout=10) as other:
        other.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while other.recv(4096):
            pass
    wait_for(lambda: not intake.connections)


def test_nobody_sends_before_it_is_known_who_it_is(start: Start) -> None:
    """A call without the token is answered, and ended, before any of its message is taken."""
    intake = start(Access(token=Token(text=TOKEN)))
    with Streams(intake.port) as client:
        stranger = client.begin()
        assert client.answer(stranger)[0] == STRANGER
        while stranger not in client.ended:
            client.read()
        friend = client.begin(authorization=f"Bearer {TOKEN}")
        client.send(friend, framed(BODY), is_all=True)
        assert client.answer(friend) == (0, "")


WRONG: dict[str, tuple[dict[str, str], bytes, int, str]] = {
    "path": ({"path": "/grpc.health.v1.Health/Check"}, b"", UNIMPLEMENTED, "Export"),
    "method": ({"method": "GET"}, b"", UNIMPLEMENTED, "Export"),
    "type": ({"content_type": "text/html"}, b"", UNIMPLEMENTED, "application/grpc"),
    "encoding": ({"grpc_encoding": "br"}, b"", UNIMPLEMENTED, "gzip"),
    "no message": ({}, b"", GARBAGE, "one message"),
    "half a prefix": ({}, b"\0\0", GARBAGE, "one message"),
    "half a message": ({}, framed(BODY)[:-1], GARBAGE, "one message"),
    "two messages": ({}, framed(BODY) * 2, GARBAGE, "one message"),
    "no gzip": ({"grpc_encoding": "gzip"}, framed(BODY, is_packed=True), GARBAGE, "gzip"),
    "bomb": (
        {"grpc_encoding": "gzip"},
        framed(gzip.compress(b"\0" * 2_000_000), is_packed=True),
        GARBAGE,
        "10000 bytes",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_export(start: Start, shelf: Shelf, case: str) -> None:
    """What is no export is refused for good, with a reason; nothing of it is kept."""
    headers, data, expected, said = WRONG[case]
    intake = start(limits=replace(Limits(), request=10_000))
    with Streams(intake.port) as client:
        stream = client.begin(**headers)
        if expected != UNIMPLEMENTED:
            client.send(stream, data, is_all=True)
        status, message = client.answer(stream)
        assert (status, said in message) == (expected, True)
        assert (shelf.rows, used(intake)) == ([], 0)
    call(intake, BODY)


def test_calls_that_are_given_up(start: Start, shelf: Shelf) -> None:
    """A call that is given up, or whose connection goes, gives back its room; what had come is stored."""
    intake = start()
    shelf.goes_on.clear()
    with Streams(intake.port) as client:
        half, whole = client.begin(), client.begin()
        client.send(half, framed(BODY)[:50])
        client.send(whole, framed(BODY), is_all=True)
        assert shelf.is_asked.wait(10)
        client.reset(half)
        client.reset(whole)
        wait_for(lambda: not intake.waiting)
        client.send(client.begin(), framed(BODY)[:50])
        wait_for(lambda: len(intake.waiting) == 1)
    wait_for(lambda: not intake.connections)
    assert used(intake) > 0
    shelf.goes_on.set()
    wait_for(lambda: not used(intake))
    assert len(shelf.rows) == 1


def test_a_client_that_takes_no_answer(start: Start, shelf: Shelf) -> None:
    """A client that lets no byte of an answer through is not waited for."""
    intake = start()
    with Streams(intake.port, window=0) as client:
        stream = client.begin()
        client.send(stream, framed(BODY), is_all=True)
        while stream not in client.ended:
            client.read()
    assert (len(shelf.rows), used(intake)) == (1, 0)


def test_what_fails(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of ours is told, and the call is to come again."""
    intake = start()

    def fail(*_: object) -> int:
        raise RuntimeError

    monkeypatch.setattr(intake.exports, "take", fail)
    with Streams(intake.port) as client:
        stream = client.begin()
        client.send(stream, framed(BODY), is_all=True)
        assert client.answer(stream)[0] == UNAVAILABLE
    assert faults.counts.pop("intake") == 1


def test_the_end(start: Start, shelf: Shelf) -> None:
    """What was begun is answered before the server ends; new calls are to come again."""
    intake = start()
    shelf.goes_on.clear()
    with Streams(intake.port) as client, Streams(intake.port) as idle:
        begun = client.begin()
        client.send(begun, framed(BODY), is_all=True)
        assert shelf.is_asked.wait(10)
        ending = threading.Thread(target=intake.stop, args=(10,))
        ending.start()
        wait_for(lambda: intake.stopping)
        late = idle.begin()
        assert idle.answer(late)[0] == UNAVAILABLE
        shelf.goes_on.set()
        assert client.answer(begun) == (0, "")
        ending.join()
        for each in (client, idle):
            while not each.is_over:
                each.read()
    assert len(shelf.rows) == 1


def openssl(*arguments: str) -> None:
    """Run openssl."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, a server's certificate of it, and a client's; and a client's of another one."""
    folder = tmp_path_factory.mktemp("certificates")
    for authority in ("ca", "other"):
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", f"/CN={authority}"),
            *(
                "-keyout",
                str(folder / f"{authority}.key"),
                "-out",
                str(folder / f"{authority}.pem"),
            ),
        )
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
        key, asked = folder / f"{name}.key", folder / f"{name}.csr"
        openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", str(key), "-out", str(asked)),
        )
        openssl(
            *("x509", "-req", "-in", str(asked), "-days", "2", "-CAcreateserial"),
            *("-CA", str(folder / f"{authority}.pem"), "-CAkey", str(folder / f"{authority}.key")),
            *("-extfile", str(folder / "names"), "-out", str(folder / f"{name}.pem")),
        )
    return folder


def test_certificates_over_grpc(
    start: Start, shelf: Shelf, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who has a certificate of the authority is let in."""
    # Other tests do without.
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", _ssl._SSLContext.load_verify_locations
    )
    access = Access(
        certificate=certificates / "server.pem",
        key=certificates / "server.key",
        authority=certificates / "ca.pem",
    )
    access.check("gateway.example")
    intake = start(access)
    authority = (certificates / "ca.pem").read_bytes()

    def credentials(name: str) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            authority,
            (certificates / f"{name}.key").read_bytes(),
            (certificates / f"{name}.pem").read_bytes(),
        )

    for nobody in (grpc.ssl_channel_credentials(authority), credentials("stranger")):
        with pytest.raises(grpc.RpcError):
            call(intake, BODY, credentials=nobody)
    assert shelf.rows == []
    call(intake, BODY, credentials=credentials("client"))
    assert len(shelf.rows) == 1


def test_certificates_over_http(
    shelf: Shelf, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who has a certificate of the authority is let in."""
    # Other tests do without.
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", _ssl._SSLContext.load_verify_locations
    )
    access = Access(
        certificate=certificates / "server.pem",
        key=certificates / "server.key",
        authority=certificates / "ca.pem",
    )
    intake = intake_of(shelf, access, Limits())
    intake.start()

    def post(name: str | None) -> int:
        context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
        if name is not None:
            context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
        connection = http.client.HTTPSConnection(
            "localhost", intake.server_port, context=context, timeout=10
        )
        try:
            headers = {
                "Content-Type": "application/x-protobuf",
                "Content-Encoding": "gzip",
            }
            connection.request("POST", "/v1/traces", gzip.compress(BODY), headers)
            return connection.getresponse().status
        finally:
            connection.close()

    try:
        for nobody in (None, "stranger"):
            with pytest.raises(OSError):  # noqa: PT011 - as the handshake fails
                post(nobody)
        assert shelf.rows == []
        assert post("client") == 200
        assert len(shelf.rows) == 1
    finally:
        intake.stop(5)
