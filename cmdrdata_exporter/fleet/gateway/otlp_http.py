"""
OTLP over HTTP: `POST /v1/traces`, and the pages of `watching`.

A request is answered with 200 once its spans are on the shelf. Whoever gets another answer, or none, sends it again.
https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from cmdrdata_exporter import clocks
from cmdrdata_exporter.fleet.gateway.answers import (
    AGAIN,
    GARBAGE,
    NO_LENGTH,
    NOT_FOUND,
    NOT_NOW,
    STRANGER,
    WRONG_METHOD,
    WRONG_TYPE,
    Answer,
    RefusedError,
    accepted,
)
from cmdrdata_exporter.fleet.gateway.connections import (
    INTAKE,
    LINGER,
    LINGER_BYTES,
    Reader,
    Server,
)
from cmdrdata_exporter.fleet.gateway.exports import Exports
from cmdrdata_exporter.fleet.gateway.limits import Held, Limits, inflate, joined
from cmdrdata_exporter.fleet.gateway.watching import Counts, Pages

TRACES = "/v1/traces"
PROTOBUF, JSON = "application/x-protobuf", "application/json"
_STEP = 64 << 10
_BUFFER = 8 << 10


class Intake(Server):
    """
    The server.

    Args:
        address: host and port.
        pages: the pages; they say nothing of customers, and nobody need show a token for them.
        exports: what takes spans; None: there are only pages here.
        limits: how much is taken.
        counts: where to count.
    """

    def __init__(
        self,
        address: tuple[str, int],
        pages: Pages,
        exports: Exports | None,
        limits: Limits,
        counts: Counts,
    ) -> None:
        self.pages = pages
        self.exports = exports
        context = None if exports is None else exports.access.context()
        super().__init__(address, _Handler, limits, counts, context)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Intake  # pyright: ignore[reportIncompatibleVariableOverride] - what makes it
    protocol_version = "HTTP/1.1"
    server_version = "cmdrdata-gateway"
    sys_version = ""

    def setup(self) -> None:
        """Read by the clock."""
        super().setup()
        self._reader = Reader(self.connection, self.server.limits)
        self.rfile = io.BufferedReader(self._reader, _BUFFER)
        self._has_body = False

    def handle_one_request(self) -> None:
        """Answer one request."""
        self._reader.rest()
        self.server.rests(self.connection, waits=True)
        self._has_body = False
        super().handle_one_request()

    def handle_expect_100(self) -> bool:
        """Ask for no body yet: who sends it may not be let in."""
        return True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Log nothing: the counters have it."""

    # Answers

    def do_GET(self) -> None:
        """Answer with a page."""
        self.server.rests(self.connection, waits=False)
        length = self.headers.get("Content-Length", "0")
        self._has_body = length != "0" or "Transfer-Encoding" in self.headers
        path = self.path.partition("?")[0]
        page = self.server.pages.page(path)
        if page is not None:
            self._answer(HTTPStatus(page.status), page.text.encode(), page.content_type)
        elif path == TRACES and self.server.exports is not None:
            self._refuse(RefusedError(WRONG_METHOD, "spans are sent by POST"), PROTOBUF)
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"there is no such page\n", "text/plain")

    def do_POST(self) -> None:
        """Take spans."""
        self._has_body = True
        given = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        content_type = JSON if given == JSON else PROTOBUF
        status = HTTPStatus.OK
        with self.server.answering():
            try:
                refused = self._take(given)
                self._answer(status, _written(accepted(refused), content_type), content_type)
            except RefusedError as error:
                status = error.answer.http
                self._refuse(error, content_type)
            self.server.counts.add("requests", intake=INTAKE, status=str(int(status)))

    def _take(self, content_type: str) -> int:
        """Store the spans of the request; return how many cannot be read."""
        exports = self.server.exports
        if self.server.stopping:
            raise RefusedError(NOT_NOW, "this gateway ends; send it again")
        if exports is None or self.path.partition("?")[0] != TRACES:
            raise RefusedError(NOT_FOUND, f"traces are taken at {TRACES}, nothing else is")
        exports.admit(self.headers.get("Authorization"))
        if content_type not in (PROTOBUF, JSON):
            raise RefusedError(WRONG_TYPE, f"expected is {PROTOBUF} or {JSON}")
        self.server.rests(self.connection, waits=False)
        with exports.held() as held:
            exports.room.begin(held, self._reader.give_way)
            try:
                body = self._body(held)
            except TimeoutError:
                raise exports.too_slow() from None
            return exports.take(body, held, INTAKE, is_json=content_type == JSON)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer to what is no request of HTTP, or of a method that there is not."""
        del explain
        self._has_body = True
        status = HTTPStatus(code)
        self._refuse(RefusedError(Answer(status, GARBAGE.grpc), message or status.phrase), PROTOBUF)

    # The body

    def _body(self, held: Held) -> bytearray:
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("gzip", "identity", ""):
            raise RefusedError(WRONG_TYPE, "expected is Content-Encoding gzip, or none")
        chunks = self._chunks(held)
        self._reader.begin_body()
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
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
                raise RefusedError(
                    GARBAGE, "expected is Transfer-Encoding chunked without Content-Length"
                )
            return self._chunked(held)
        if len(length) != 1:
            raise RefusedError(NO_LENGTH, "expected is Content-Length")
        if re.fullmatch("[0-9]{1,18}", length[0]) is None:
            raise RefusedError(GARBAGE, "Content-Length is no number")
        held.check(int(length[0]))
        return self._bytes(int(length[0]), held)

    def _bytes(self, number: int, held: Held) -> Iterator[bytes]:
        while number:
            part = self.rfile.read1(min(number, _STEP))
            if not part:
                raise RefusedError(GARBAGE, "the body ends before its time")
            held.add_body("body", len(part))
            number -= len(part)
            yield part

    def _chunked(self, held: Held) -> Iterator[bytes]:
        while size := self._size():
            yield from self._bytes(size, held)
            if self.rfile.readline(3) != b"\r\n":
                raise RefusedError(GARBAGE, "a chunk has no end")
        # Fields after the last chunk are of no use.
        for _ in range(20):
            if self.rfile.readline(_STEP) in (b"\r\n", b""):
                return
        raise RefusedError(GARBAGE, "too many fields follow the body")

    def _size(self) -> int:
        line = self.rfile.readline(256)
        match = re.fullmatch(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n]*)?\r\n", line)
        if match is None:
            raise RefusedError(GARBAGE, "a chunk has no size")
        return int(match[1], 16)

    # Writing

    def _refuse(self, error: RefusedError, content_type: str) -> None:
        more: dict[str, str] = {}
        if error.answer.again:
            more["Retry-After"] = str(AGAIN)
        if error.answer is STRANGER:
            more["WWW-Authenticate"] = 'Bearer realm="cmdrdata gateway"'
        if error.answer is WRONG_METHOD:
            more["Allow"] = "POST"
        self._answer(error.answer.http, _written(error.status(), content_type), content_type, more)

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
            self._reader.deadline = clocks.monotonic() + LINGER
            left = LINGER_BYTES
            while left > 0 and (chunk := self._reader.read(_STEP)):
                left -= len(chunk)


def _written(message: Message, content_type: str) -> bytes:
    if content_type == JSON:
        return json_format.MessageToJson(message, indent=None).encode()
    return message.SerializeToString()
