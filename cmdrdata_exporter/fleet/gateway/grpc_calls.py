"""
One connection of OTLP over gRPC, and its calls.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import string
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from google.rpc.code_pb2 import OK, Code
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import FlowControlError, ProtocolError
from h2.settings import SettingCodes, Settings

from cmdrdata_exporter.fleet.gateway.answers import (
    NOT_FOUND,
    NOT_NOW,
    WRONG_TYPE,
    RefusedError,
    accepted,
)
from cmdrdata_exporter.fleet.gateway.limits import Held

if TYPE_CHECKING:
    from cmdrdata_exporter.fleet.gateway.otlp_grpc import GrpcIntake

INTAKE = "grpc"
SERVICE, METHOD = "opentelemetry.proto.collector.trace.v1.TraceService", "Export"
STREAMS = 100
"""Calls that a connection may have at once."""
CLOSING = 1.0
"""Seconds in which a connection may take what was last said to it."""
_SETTINGS = {
    SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
    SettingCodes.MAX_HEADER_LIST_SIZE: 64 << 10,
    SettingCodes.INITIAL_WINDOW_SIZE: 256 << 10,
}
_WINDOW = 1 << 20
"""Bytes that a connection may send before it hears of us. Each is counted as soon as it comes."""
_TYPE = "application/grpc"
_PLAIN = "".join(set(string.printable[:95]) - {"%"})


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, intake: GrpcIntake) -> None:
        self.intake = intake
        self.closed = asyncio.Event()
        self.calls: dict[int, Call] = {}
        self._transport: Any = None
        self._idle: asyncio.TimerHandle | None = None
        self.http = H2Connection(H2Configuration(client_side=False))
        self.http.local_settings = Settings(client=False, initial_values=_SETTINGS)

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport
        self.http.initiate_connection()
        self.http.increment_flow_control_window(_WINDOW)
        self.flush()
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget its calls."""
        del exc
        if self._idle is not None:
            self._idle.cancel()
        for call in list(self.calls.values()):
            call.leave()
        self.closed.set()

    def pause_writing(self) -> None:
        """Read no more from a peer that does not."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Read frames."""
        try:
            for event in self.http.receive_data(data):
                self._meet(event)
        except ProtocolError:
            self.end()
        self.flush()

    def _meet(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            if self._idle is not None:
                self._idle.cancel()
            number = event.stream_id or 0
            call = self.calls[number] = Call(self, number)
            call.begin(
                {name.decode("latin-1"): text.decode("latin-1") for name, text in event.headers}
            )
            return
        call = self.calls.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, DataReceived):
            if event.flow_controlled_length:
                with contextlib.suppress(ProtocolError):  # The stream has ended.
                    self.http.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id or 0
                    )
            if call is not None:
                call.receive(event.data or b"")
        elif isinstance(event, StreamEnded) and call is not None:
            call.complete()
        elif isinstance(event, StreamReset) and call is not None:
            call.leave()

    def forget(self, call: Call) -> None:
        """Forget a call that has its answer, or needs none."""
        if self.calls.pop(call.number, None) is not None and not self.calls:
            self._rest()
            self.intake.rests(self)

    def _rest(self) -> None:
        self._idle = self.intake.loop.call_later(self.intake.limits.idle, self.end)

    def flush(self) -> None:
        """Send what is to be sent."""
        if not self._transport.is_closing():
            self._transport.write(self.http.data_to_send())

    def end(self) -> None:
        """Say that this is the end, and end."""
        with contextlib.suppress(ProtocolError):
            self.http.close_connection()
        if self._transport is not None:
            self.flush()
            self._transport.close()
            self.intake.loop.call_later(CLOSING, self._transport.abort)

    def abort(self) -> None:
        """End."""
        if self._transport is not None:
            self._transport.abort()


class Call:
    """One call. Only the thread of the loop has it, but for its body, once that has come."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self._intake = connection.intake
        self.number = number
        self.held: Held = self._intake.exports.held()
        self.body = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._has_come = False

    def begin(self, headers: dict[str, str]) -> None:
        """Read on if it may be, which its header tells."""
        try:
            self._check(headers)
        except RefusedError as error:
            self.refuse(error)
            return
        self._timer = self._intake.loop.call_later(self._intake.limits.body, self.give_way)
        self._intake.open(self)

    def _check(self, headers: dict[str, str]) -> None:
        if self._intake.stopping:
            raise RefusedError(NOT_NOW, "this gateway ends; send it again")
        path = f"/{SERVICE}/{METHOD}"
        if (headers.get(":method"), headers.get(":path")) != ("POST", path):
            raise RefusedError(NOT_FOUND, f"expected is {SERVICE}/{METHOD}, nothing else is")
        if not headers.get("content-type", "").startswith(_TYPE):
            raise RefusedError(WRONG_TYPE, f"expected is {_TYPE}")
        self._intake.exports.admit(headers.get("authorization"))
        if headers.get("grpc-encoding", "identity") not in ("identity", "gzip"):
            raise RefusedError(WRONG_TYPE, "expected is grpc-encoding gzip, or none")

    def receive(self, data: bytes) -> None:
        """Take a part of the message."""
        try:
            self.held.add_body("body", len(data))
        except RefusedError as error:
            self.refuse(error)
        else:
            self.body += data

    def complete(self) -> None:
        """Store what has come."""
        self._has_come = True
        self._await_no_more()
        self._intake.answer(self)

    def _await_no_more(self) -> None:
        self._intake.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def give_way(self) -> None:
        """End, since the message has not come in time, or others need the room."""
        if self in self._intake.waiting:
            self.refuse(self._intake.exports.too_slow())

    def give_way_soon(self) -> None:
        """End; called in another thread."""
        with contextlib.suppress(RuntimeError):  # The loop has ended.
            self._intake.loop.call_soon_threadsafe(self.give_way)

    def accept(self, refused: int) -> None:
        """Answer that the spans are stored, but for those that cannot be read."""
        message = accepted(refused).SerializeToString()
        data = b"\0" + len(message).to_bytes(4, "big") + message
        trailer = [("grpc-status", str(OK))]
        self._answer(OK, [(":status", "200"), ("content-type", _TYPE)], data, trailer)

    def refuse(self, error: RefusedError) -> None:
        """Answer with an error."""
        said = base64.b64encode(error.status().SerializeToString()).rstrip(b"=").decode()
        header = [
            (":status", "200"),
            ("content-type", _TYPE),
            ("grpc-status", str(error.answer.grpc)),
            ("grpc-message", quote(str(error), safe=_PLAIN)),
            ("grpc-status-details-bin", said),
            ("grpc-accept-encoding", "identity,gzip"),
        ]
        self._answer(error.answer.grpc, header)

    def _answer(
        self,
        code: int,
        header: Iterable[tuple[str, str]],
        data: bytes = b"",
        trailer: Iterable[tuple[str, str]] = (),
    ) -> None:
        http, number = self._connection.http, self.number
        # The client may have gone, or the stream have ended.
        with contextlib.suppress(ProtocolError):
            http.send_headers(number, header, end_stream=not trailer)
            try:
                if data:
                    http.send_data(number, data)
                    http.send_headers(number, trailer, end_stream=True)
                if not self._has_come:
                    http.reset_stream(number, ErrorCodes.NO_ERROR)
            except FlowControlError:
                # A client that takes not even these few bytes will ask again.
                http.reset_stream(number, ErrorCodes.CANCEL)
        self._intake.exports.counts.add("requests", intake=INTAKE, status=Code.Name(code))
        self.end()
        self._connection.flush()

    def leave(self) -> None:
        """End, since nobody waits for the answer. What has come is stored still, and keeps its room as long."""
        if self._has_come:
            self._connection.forget(self)
        else:
            self.end()

    def end(self) -> None:
        """Give back what it has."""
        self._await_no_more()
        self.held.release()
        self._connection.forget(self)
