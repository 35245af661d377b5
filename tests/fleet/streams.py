"""A client of gRPC that may begin calls, and not go on."""

from __future__ import annotations

import base64
import contextlib
import socket

from google.rpc.status_pb2 import Status
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes

from cmdrdata_exporter.fleet.gateway.grpc_calls import METHOD, SERVICE

PATH = f"/{SERVICE}/{METHOD}"


def framed(message: bytes, *, is_packed: bool = False) -> bytes:
    """Return a message as gRPC writes it."""
    return bytes((is_packed,)) + len(message).to_bytes(4, "big") + message


class Streams:
    """
    One connection.

    Args:
        port: of the server.
        window: bytes of an answer that it takes.
    """

    def __init__(self, port: int, window: int = 65_535) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._http = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._http.initiate_connection()
        self._http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.answers: dict[int, dict[str, str]] = {}
        """The headers and trailers that have come, by stream."""
        self.ended: set[int] = set()
        """The streams that the server has reset."""
        self.is_over = False
        """Whether the server has ended the connection."""
        self._flush()

    def __enter__(self) -> Streams:  # noqa: PYI034 - Python 3.10 has no `Self`
        """Return this."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._socket.close()

    def _flush(self) -> None:
        self._socket.sendall(self._http.data_to_send())

    def begin(self, path: str = PATH, *, method: str = "POST", **headers: str) -> int:
        """Begin a call; return its stream."""
        stream = self._http.get_next_available_stream_id()
        known = {"te": "trailers", "content-type": "application/grpc"}
        more = known | {name.replace("_", "-"): value for name, value in headers.items()}
        pseudo = {":method": method, ":scheme": "http", ":path": path, ":authority": "x"}
        self._http.send_headers(stream, list((pseudo | more).items()))
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, *, is_all: bool = False) -> None:
        """Send a part of the message."""
        for at in range(0, len(data), 16_384):
            self._http.send_data(stream, data[at : at + 16_384])
        if is_all:
            self._http.end_stream(stream)
        self._flush()

    def reset(self, stream: int) -> None:
        """Give a call up."""
        self._http.reset_stream(stream)
        self._flush()

    def read(self) -> None:
        """Read what comes next."""
        try:
            data = self._socket.recv(65_536)
        except ConnectionError:
            data = b""
        if not data:
            self.is_over = True
            return
        for event in self._http.receive_data(data):
            if isinstance(event, (ResponseReceived, TrailersReceived)):
                said = {str(name): str(value) for name, value in event.headers or ()}
                self.answers.setdefault(event.stream_id or 0, {}).update(said)
            elif isinstance(event, StreamReset):
                self.ended.add(event.stream_id or 0)
            elif isinstance(event, ConnectionTerminated):
                self.is_over = True
            elif isinstance(event, DataReceived):
                self._http.acknowledge_received_data(
                    event.flow_controlled_length or 0, event.stream_id or 0
                )
        # A server that has ended the connection takes no acknowledgement of its answer.
        with contextlib.suppress(ConnectionError):
            self._flush()

    def answer(self, stream: int) -> tuple[int, str]:
        """Return the status of a call and what is said of it, once it has come."""
        while "grpc-status" not in self.answers.get(stream, {}):
            assert not self.is_over
            self.read()
        said = self.answers[stream]
        return int(said["grpc-status"]), said.get("grpc-message", "")

    def details(self, stream: int) -> Status:
        """Return the details of an answer."""
        said = self.answers[stream]["grpc-status-details-bin"]
        return Status.FromString(base64.b64decode(said + "=" * (-len(said) % 4)))
