"""
A stand-in for OpenAI on loopback that answers as it is told, byte for byte.

    provider.answer("/v1/chat/completions", Reply(json={...}))

An answer is used again and again until another one is given; several given at once are used one after another.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from typing_extensions import Self


@dataclass(frozen=True)
class Reply:
    """One answer of the provider."""

    json: Any = None
    """The body of a plain answer."""
    events: Sequence[Any] | None = None
    """The data of server-sent events; a string goes out as it is, a pair is the event's name and its data."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    content: bytes | None = None
    """A body that is sent as it is."""
    done: bool = True
    """Whether a stream ends with `[DONE]`."""
    cut_after: int | None = None
    """After how many events the connection is closed in the middle of the body."""
    silent: bool = False
    """Whether nothing is answered at all until the provider stops."""
    hold_after: int | None = None
    """After how many events the stream waits until the provider stops, or is told to go on by `release`."""


@dataclass(frozen=True)
class Request:
    """One request as the provider received it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: tuple[str, int]
    """The address the request came from: the same one, the same connection."""

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


def _named(event: Any) -> tuple[str, Any]:
    """Return the name of a server-sent event, empty where it has none, and its data."""
    if isinstance(event, tuple):
        name, data = cast("tuple[str, Any]", event)
        return name, data
    return (event.get("type", "") if hasattr(event, "get") else ""), event


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Each event of a stream shall leave at once.
    wbufsize = 0
    disable_nagle_algorithm = True

    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Stay silent."""

    def do_POST(self) -> None:
        """Answer a POST."""
        provider = self.server.provider
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path, _, _ = self.path.partition("?")
        provider.requests.append(
            Request(
                self.command,
                self.path,
                {k.lower(): v for k, v in self.headers.items()},
                body,
                self.client_address,
            )
        )
        reply = provider.next_reply(path)
        if reply.silent:
            provider.released.wait(30)
            self.close_connection = True
            return
        if reply.events is not None:
            self._stream(reply, reply.events)
            return
        content = reply.content if reply.content is not None else json.dumps(reply.json).encode()
        self.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        """Answer a GET."""
        self.do_POST()

    def _stream(self, reply: Reply, events: Sequence[Any]) -> None:
        self.send_response(reply.status)
        for name, value in {"content-type": "text/event-stream", **reply.headers}.items():
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for number, event in enumerate([*events, *(["[DONE]"] if reply.done else [])]):
                if number == reply.cut_after:
                    self.close_connection = True
                    return
                if number == reply.hold_after:
                    self.server.provider.released.wait(30)
                name, data = _named(event)
                name = f"event: {name}\n" if name else ""
                data = data if isinstance(data, str) else json.dumps(data)
                self._chunk(f"{name}data: {data}\n\n".encode())
            self._chunk(b"")
        except OSError:
            self.close_connection = True  # The client went away, as some tests mean it to.

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Some tests open hundreds of connections at once.
    request_queue_size = 512
    provider: Provider

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent about clients that go away."""


class Provider:
    """The stand-in; a context manager that runs it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.released = threading.Event()
        self._replies: dict[str, list[Reply]] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.provider = self
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.01},
            name="provider",
            daemon=True,
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        """What clients take as `base_url`."""
        return f"http://127.0.0.1:{self.port}/v1"

    def answer(self, path: str, *replies: Reply) -> None:
        """Answer requests for `path` with `replies`, the last of them from then on."""
        self._replies[path] = list(replies)

    def next_reply(self, path: str) -> Reply:
        """Return the reply to a request."""
        replies = self._replies.get(path)
        if not replies:
            return Reply(
                status=404,
                json={"error": {"message": f"no such path: {path}", "code": "not_found"}},
            )
        return replies.pop(0) if len(replies) > 1 else replies[0]

    def release(self) -> None:
        """Let streams that are held go on."""
        self.released.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
