"""A stand-in for the provider's WebSocket endpoints on loopback: it plays a session to each client that connects."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import Self
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

Frame = Mapping[str, Any]
End = Callable[[ServerConnection], None]


def wait(connection: ServerConnection) -> None:
    """Leave it to the client to close."""
    with suppress(ConnectionClosed):
        while True:
            connection.recv()


def close(connection: ServerConnection) -> None:
    """Close in order."""
    connection.close()


def drop(connection: ServerConnection) -> None:
    """Be gone without a word, as a lost network is."""
    connection.socket.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Await:
    """A place in a session where the provider waits for a message of this type."""

    type: str


@dataclass
class Session:
    """What is played on one connection."""

    steps: Sequence[Frame | Await]
    end: End = wait


@dataclass
class Standin:
    """
    The provider: the first connection gets the first session, and the last one is played to all that follow.

    It is a context manager; `url` is what a client takes as its `websocket_base_url`.
    """

    sessions: Sequence[Session] = ()
    paths: list[str] = field(default_factory=list[str])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    refuses: int | None = None
    """The HTTP status that no connection is made with."""
    answered: Mapping[str, str] = field(default_factory=dict[str, str])
    """Headers that the handshake is answered with."""

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._server: Server = serve(
            self._play,
            "127.0.0.1",
            0,
            process_request=self._refuse,
            process_response=self._answer,
            compression=None,
            close_timeout=1,
        )
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()

    @property
    def url(self) -> str:
        """The base of the URLs that it answers at."""
        return f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}/v1"

    def _refuse(self, connection: ServerConnection, request: Any) -> Any:
        return None if self.refuses is None else connection.respond(self.refuses, "no\n")

    def _answer(self, _connection: ServerConnection, _request: Any, response: Any) -> None:
        response.headers.update(self.answered)

    def _play(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        with self._lock:
            session = self.sessions[min(len(self.paths), len(self.sessions) - 1)]
            self.paths.append(connection.request.path)
            self.headers.append(dict(connection.request.headers.raw_items()))
        with suppress(ConnectionClosed):
            for step in session.steps:
                if isinstance(step, Await):
                    self._receive(connection, step.type)
                else:
                    connection.send(json.dumps(step))
            session.end(connection)

    def _receive(self, connection: ServerConnection, kind: str) -> None:
        while True:
            message = json.loads(connection.recv())
            self.messages.append(message)
            if message["type"] == kind:
                return
