"""
OTLP over HTTP: `POST /v1/traces`, and the pages of `watching`.

A request is answered with 200 once its spans are on the shelf. Whoever gets another answer, or none, sends it again.
https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import ssl
import sys
import threading
from collections.abc import Generator, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer
from typing import Any, NoReturn

from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.fleet.gateway.access import Access
from cmdrdata_exporter.fleet.gateway.limits import (
    AGAIN,
    FullError,
    GzipError,
    Held,
    Limits,
    Room,
    TooLargeError,
    inflate,
    joined,
)
from cmdrdata_exporter.fleet.gateway.shelving import AwayError, Shelving
from cmdrdata_exporter.fleet.gateway.spans import GarbageError, read_json, read_protobuf, take
from cmdrdata_exporter.fleet.gateway.watching import Counts, Pages

TRACES = "/v1/traces"
PROTOBUF, JSON = "application/x-protobuf", "application/json"
_STEP = 64 << 10
_HEADER = 64 << 10
"""Bytes that the header of a request may have. Who has not shown a token yet shall not fill the memory."""
_BUFFER = 8 << 10
_LINGER = 1.0
"""Seconds, and bytes, of a request that was refused that are read still, so that its answer is seen."""
_LINGER_BYTES = 1 << 20
_INTAKE = "http"


class _RefusedError(Exception):
    """A request is answered with an error."""

    def __init__(self, status: HTTPStatus, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.retry = retry


class _Reader(io.RawIOBase):
    """What comes of a connection, until a time. One byte now and then keeps nobody waiting."""

    def __init__(self, connection: socket.socket, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self.rest()

    def rest(self) -> None:
        """Wait for the next request."""
        self._between = True
        self._left = _HEADER
        self.deadline = clocks.monotonic() + self._limits.idle

    def begin_body(self) -> None:
        """Read on, since the header is over."""
        self._left = sys.maxsize
        self.deadline = clocks.monotonic() + self._limits.body

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read something."""
        left = self.deadline - clocks.monotonic()
        if left <= 0 or self._left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        number = self._connection.recv_into(buffer)
        self._left -= number
        if self._between:
            self._between = False
            self.deadline = clocks.monotonic() + self._limits.header
        return number


class Intake(HTTPServer):
    """
    The server. `serve` runs it, `stop` ends it.

    Args:
        address: host and port.
        shelving: what stores spans; None: there are only pages here.
        access: who may send.
        limits: how much is taken.
        room: what is under way, of all intakes.
        counts: where to count.
        pages: the pages; they say nothing of customers, and nobody need show a token for them.
    """

    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        *,
        shelving: Shelving | None,
        access: Access,
        limits: Limits,
        room: Room,
        counts: Counts,
        pages: Pages,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.shelving = shelving
        self.access = access
        self.limits = limits
        self.room = room
        self.counts = counts
        self.pages = pages
        self.stopping = False
        self._context = access.context() if shelving is not None else None
        self._lock = threading.Condition()
        self._open: set[socket.socket] = set()
        self._busy = 0
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without asking anybody for the name of this machine."""
        TCPServer.server_bind(self)
        address: Any = self.server_address
        self.server_name, self.server_port = address[:2]

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    def start(self) -> None:
        """Serve in a thread of its own."""
        processes.start_thread(self.serve_forever, 0.2, name="cmdrdata-gateway-http")

    def stop(self, timeout: float) -> None:
        """Take no more, and wait for the answers to what was begun, so many seconds at most."""
        self.stopping = True
        self.shutdown()
        with self._lock:
            self._lock.wait_for(lambda: not self._busy, timeout)
            for each in self._open:
                # It waits for a request that will not come.
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self.server_close()

    # Connections

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, if there may be one more."""
        with self._lock:
            has_room = len(self._open) < self.limits.connections
            if has_room:
                self._open.add(request)
        if has_room and processes.has_started(self._serve, request, client_address):
            return
        with self._lock:
            self._open.discard(request)
        self.counts.add("requests", intake=_INTAKE, status="503")
        with contextlib.suppress(OSError):
            request.settimeout(_LINGER)
            if self._context is None:
                request.sendall(
                    f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {AGAIN}\r\n"
                    "Connection: close\r\nContent-Length: 0\r\n\r\n".encode()
                )
        self.shutdown_request(request)

    def _serve(self, connection: socket.socket, client_address: Any) -> None:
        current = connection
        try:
            if self._context is not None:
                connection.settimeout(self.limits.header)
                current = self._context.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open.discard(connection)
                    self._open.add(current)
            self.finish_request(current, client_address)
        except (OSError, ssl.SSLError):
            pass  # It has gone, is too slow, or has no certificate.
        except Exception:  # noqa: BLE001 - the others go on
            faults.report("intake", "a connection was ended", exc_info=True)
        finally:
            with self._lock:
                self._open.discard(connection)
                self._open.discard(current)
            self.shutdown_request(current)

    @contextlib.contextmanager
    def answering(self) -> Generator[None]:
        """Keep the server from ending before a request is answered."""
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._lock.notify_all()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Intake  # pyright: ignore[reportIncompatibleVariableOverride] - what makes it
    protocol_version = "HTTP/1.1"
    server_version = "cmdrdata-gateway"
    sys_version = ""

    def setup(self) -> None:
        """Read by the clock."""
        super().setup()
        self._reader = _Reader(self.connection, self.server.limits)
        self.rfile = io.BufferedReader(self._reader, _BUFFER)
        self._has_body = False

    def handle_one_request(self) -> None:
        """Answer one request."""
        self._reader.rest()
        self._has_body = False
        super().handle_one_request()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log nothing: the counters have it."""

    # Answers

    def do_GET(self) -> None:
        """Answer with a page."""
        self._refuse_body()
        page = self.server.pages.page(self.path.partition("?")[0])
        if page is None:
            self._answer(HTTPStatus.NOT_FOUND, b"there is no such page\n", "text/plain")
        else:
            self._answer(HTTPStatus(page.status), page.text.encode(), page.content_type)

    def do_POST(self) -> None:
        """Take spans."""
        self._has_body = True
        with self.server.answering():
            status = HTTPStatus.OK
            content_type = PROTOBUF
            try:
                content_type = self._content_type()
                refused = self._take(content_type)
                self._answer(status, _accepted(refused, content_type), content_type)
            except _RefusedError as error:
                status = error.status
                self._reject(status, str(error), content_type, retry=error.retry)
            self.server.counts.add("requests", intake=_INTAKE, status=str(int(status)))

    def _take(self, content_type: str) -> int:
        """Store the spans of the request; return how many cannot be read."""
        server = self.server
        with Held(server.room, server.limits.request) as held:
            try:
                body = self._body(held)
                batches = read_json(body) if content_type == JSON else read_protobuf(body)
                taken = take(batches)
                if server.shelving is not None:
                    server.shelving.store(taken.rows)
            except GarbageError as error:
                raise _RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from None
            except GzipError:
                raise _RefusedError(
                    HTTPStatus.BAD_REQUEST, "the body is said to be gzip, and is none"
                ) from None
            except TooLargeError:
                raise _RefusedError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"a request may have {server.limits.request} bytes, compressed or not; send fewer spans at once",
                ) from None
            except FullError:
                raise _RefusedError(
                    HTTPStatus.TOO_MANY_REQUESTS, "too much is under way; send it again", retry=True
                ) from None
            except AwayError:
                raise _RefusedError(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "the ledger cannot be written now; send it again",
                    retry=True,
                ) from None
            except TimeoutError:
                raise _RefusedError(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"the body did not come within {server.limits.body:g} seconds",
                ) from None
        server.counts.add("spans", taken.spans, intake=_INTAKE)
        server.counts.add("spans_refused", taken.refused, intake=_INTAKE)
        server.counts.add("spans_without_usage", taken.without_usage, intake=_INTAKE)
        return taken.refused

    def _content_type(self) -> str:
        """Return how the body is written, once it is clear that whoever sends it may."""
        server = self.server
        given = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if server.stopping:
            raise _RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, "this gateway ends; send it again", retry=True
            )
        if server.shelving is None or self.path.partition("?")[0] != TRACES:
            raise _RefusedError(
                HTTPStatus.NOT_FOUND, f"traces are taken at {TRACES}, nothing else is"
            )
        if not server.access.admits(self.headers.get("Authorization")):
            raise _RefusedError(
                HTTPStatus.UNAUTHORIZED,
                "expected is the gateway's token: Authorization: Bearer TOKEN",
            )
        if given not in (PROTOBUF, JSON):
            raise _RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected is {PROTOBUF} or {JSON}"
            )
        return given

    # The body

    def _body(self, held: Held) -> bytes:
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("gzip", "identity", ""):
            raise _RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected is Content-Encoding gzip, or none"
            )
        chunks = self._chunks(held)
        self._reader.begin_body()
        body = inflate(chunks, held) if encoding == "gzip" else joined(chunks)
        for _ in chunks:
            pass  # The last chunk has come, what ends it has not.
        self._has_body = False
        return body

    def _chunks(self, held: Held) -> Iterator[bytes]:
        """Return the body as it comes."""
        coding = self.headers.get("Transfer-Encoding")
        length = self.headers.get_all("Content-Length") or []
        if coding is not None:
            if coding.strip().lower() != "chunked" or length:
                _garbage("expected is Transfer-Encoding chunked without Content-Length")
            return self._chunked(held)
        if len(length) != 1:
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "expected is Content-Length")
        if re.fullmatch("[0-9]{1,18}", length[0]) is None:
            _garbage("Content-Length is no number")
        return self._counted(int(length[0]), held)

    def _counted(self, number: int, held: Held) -> Iterator[bytes]:
        if number > self.server.limits.request:
            raise TooLargeError
        yield from self._bytes(number, held)

    def _bytes(self, number: int, held: Held) -> Iterator[bytes]:
        while number:
            part = self.rfile.read1(min(number, _STEP))
            if not part:
                _garbage("the body ends before its time")
            held.add("body", len(part))
            number -= len(part)
            yield part

    def _chunked(self, held: Held) -> Iterator[bytes]:
        while size := self._size():
            yield from self._bytes(size, held)
            if self.rfile.readline(3) != b"\r\n":
                _garbage("a chunk has no end")
        # Fields after the last chunk are of no use.
        for _ in range(20):
            if self.rfile.readline(_STEP) in (b"\r\n", b""):
                return
        _garbage("too many fields follow the body")

    def _size(self) -> int:
        line = self.rfile.readline(256)
        match = re.fullmatch(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n]*)?\r\n", line)
        if match is None:
            _garbage("a chunk has no size")
        return int(match[1], 16)

    def _refuse_body(self) -> None:
        """End the connection after this request, if it has a body that nobody reads."""
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self._has_body = True

    # Writing

    def _reject(self, status: HTTPStatus, message: str, content_type: str, *, retry: bool) -> None:
        if content_type == JSON:
            body = json.dumps({"message": message}).encode()
        else:
            body = Status(message=message).SerializeToString()
        more = {"Retry-After": str(AGAIN)} if retry else {}
        if status is HTTPStatus.UNAUTHORIZED:
            more["WWW-Authenticate"] = 'Bearer realm="cmdrdata gateway"'
        self._answer(status, body, content_type, more)

    def _answer(
        self,
        status: HTTPStatus,
        body: bytes,
        content_type: str,
        more: dict[str, str] | None = None,
    ) -> None:
        ends = self._has_body or self.server.stopping
        self.connection.settimeout(self.server.limits.body)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (more or {}).items():
            self.send_header(name, value)
        if ends:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        if ends:
            self.close_connection = True
            self._linger()

    def _linger(self) -> None:
        """Read on for a moment: who is refused in the middle of sending would not see the answer."""
        with contextlib.suppress(OSError):
            if not isinstance(self.connection, ssl.SSLSocket):
                self.connection.shutdown(socket.SHUT_WR)
            self._reader.begin_body()
            self._reader.deadline = clocks.monotonic() + _LINGER
            left = _LINGER_BYTES
            while left > 0 and (chunk := self._reader.read(_STEP)):
                left -= len(chunk)


def _accepted(refused: int, content_type: str) -> bytes:
    """Return the answer to a request whose spans are stored, but for those that cannot be read."""
    message = f"{refused} spans have no valid ids or cannot be read" if refused else ""
    if content_type == JSON:
        partial = {"rejectedSpans": str(refused), "errorMessage": message}
        return json.dumps({"partialSuccess": partial} if refused else {}).encode()
    answer = ExportTraceServiceResponse()
    if refused:
        answer.partial_success.rejected_spans = refused
        answer.partial_success.error_message = message
    return answer.SerializeToString()


def _garbage(message: str) -> NoReturn:
    raise _RefusedError(HTTPStatus.BAD_REQUEST, message)
