"""OTLP over gRPC, with the clients that others use."""

from __future__ import annotations

import _ssl
import gzip
import http.client
import json
import ssl
import subprocess
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

from cmdrdata_exporter.fleet.gateway.access import Access, Token
from cmdrdata_exporter.fleet.gateway.limits import Limits, Room
from cmdrdata_exporter.fleet.gateway.otlp_grpc import METHOD, SERVICE, GrpcIntake
from cmdrdata_exporter.fleet.gateway.otlp_http import Intake
from cmdrdata_exporter.fleet.gateway.watching import Counts, Pages
from tests.fleet.otlp import CHAT, request, span
from tests.fleet.test_gateway_http import TOKEN, Shelf

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
        limits = limits or Limits()
        intake = GrpcIntake(
            ("127.0.0.1", 0),
            shelving=shelf,  # pyright: ignore[reportArgumentType] - in its place
            access=access or Access(),
            limits=limits,
            room=Room(limits.in_flight),
            counts=Counts(),
        )
        intake.start()
        running.append(intake)
        return intake

    yield start
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
    assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE)
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
    intake = start(limits=replace(Limits(), in_flight=10) if why == "full" else None)
    with pytest.raises(grpc.RpcError) as failed:
        call(intake, BODY)
    error: Any = failed.value
    expected = {
        "away": grpc.StatusCode.UNAVAILABLE,
        "full": grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
    assert error.code() is expected[why]
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    info = RetryInfo()
    assert Status.FromString(details).details[0].Unpack(info)
    assert info.retry_delay.seconds == 1
    assert shelf.rows == []


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


def test_certificates_over_grpc(start: Start, shelf: Shelf, certificates: Path) -> None:
    """Only who has a certificate of the authority is let in."""
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
    counts = Counts()
    intake = Intake(
        ("127.0.0.1", 0),
        shelving=shelf,  # pyright: ignore[reportArgumentType] - in its place
        access=Access(
            certificate=certificates / "server.pem",
            key=certificates / "server.key",
            authority=certificates / "ca.pem",
        ),
        limits=Limits(),
        room=Room(1 << 20),
        counts=counts,
        pages=Pages(counts, dict, list),
    )
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
