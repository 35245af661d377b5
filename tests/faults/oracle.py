"""
The oracle: a backend on loopback that misbehaves as scripted, and knows for certain what it accepted.

What it accepts is in a log of its own, on the disk, before it says anything: what was produced and is not in `keys`
is lost, `keys` are billed, `duplicates` are raw.
It speaks HTTP by hand, because a server library would not send what a broken backend sends.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import os
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Self

PATIENCE = 30.0
"""Seconds after which what is waited for is taken to be missing."""


class Then(enum.Enum):
    """What becomes of the connection after a reply."""

    KEEP = "it waits for the next request"
    CLOSE = "it is closed, unannounced"
    RESET = "it is reset"
    HOLD = "it stays open, and nothing ever comes"


@dataclass(frozen=True)
class Reply:
    """What the backend does with a request."""

    status: int = 202
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b"{}"
    accepts: bool | None = None
    """Whether it keeps the event. None: as the status says."""
    delay: float = 0.0
    """Seconds from the request to the reply."""
    before: bytes = b""
    """This is sent at once."""
    raw: bytes | None = None
    """Exactly this is sent, whatever status, headers and body are."""
    then: Then = Then.KEEP

    @property
    def accepted(self) -> bool:
        """Whether it keeps the event."""
        return 200 <= self.status < 300 if self.accepts is None else self.accepts

    def encoded(self) -> bytes:
        """Return the bytes that are sent."""
        if self.raw is not None:
            return self.raw
        phrase = {status.value: status.phrase for status in HTTPStatus}.get(self.status, "")
        lines = [f"HTTP/1.1 {self.status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status == 204 or "Content-Length" in self.headers:
            return "\r\n".join([*lines, "", ""]).encode() + self.body
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


ACCEPTED = Reply()
ACCEPTED_UNSEEN = Reply(accepts=True, raw=b"", then=Then.CLOSE)
"""The event is kept, and the connection closed without a word."""
ACCEPTED_AND_RESET = Reply(accepts=True, raw=b"HTTP/1.1 20", then=Then.RESET)
SILENCE = Reply(accepts=False, raw=b"", then=Then.HOLD)
"""A black hole: it takes the request and never answers."""


class Request(NamedTuple):
    """A request as it came."""

    at: float
    """Monotonic seconds."""
    key: str
    """Its `Idempotency-Key`."""
    body: bytes
    headers: dict[str, str]
    """By lower-case name."""
    turn: int
    """Which one it is on its connection, from 0."""
    attempt: int
    """Which one it is with its key, from 0."""


class Received(NamedTuple):
    """What is remembered of a request."""

    at: float
    key: str
    headers: dict[str, str]


class Oracle:
    """
    The backend, until it is closed; use it as a context manager.

    Args:
        log: the file that keeps what was accepted.
        answer: what is done with a request, called in its connection's thread; assign `answer` to change it.
        port: where to listen; 0 for one that is free.
        tls: with which certificate.
        remember: whether `requests` is kept, which a million of them is better without.
    """

    def __init__(
        self,
        log: Path,
        answer: Callable[[Request], Reply] = lambda _: ACCEPTED,
        *,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        remember: bool = True,
    ) -> None:
        self.answer: Callable[[Request], Reply] = answer
        self.accepted: list[tuple[str, str]] = []
        """The key of each event that was kept and the SHA-256 of its body, in order."""
        self.requests: list[Received] = []
        self.received = 0
        """How many requests there were."""
        self.changed = threading.Condition()
        """Notified after each request."""
        self._attempts: Counter[str] = Counter()
        self.remember = remember
        self._tls = tls
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._syncing = threading.Lock()
        self._written = self._synced = 0
        self._closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}/api/events"
        """The endpoint."""
        self._start(self._listen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and cut every connection: from now on it cannot be reached."""
        if self._closing.is_set():
            return
        self._closing.set()
        # A thread in accept() sees it when somebody connects.
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        self._threads[0].join(PATIENCE)
        self._listener.close()
        with self.changed:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        os.close(self._log)

    # What is known

    @property
    def keys(self) -> set[str]:
        """The keys of the events that were kept: what is billed."""
        with self.changed:
            return {key for key, _ in self.accepted}

    @property
    def duplicates(self) -> int:
        """How many times an event was kept that was there already: the raw duplicates."""
        with self.changed:
            return len(self.accepted) - len({key for key, _ in self.accepted})

    @property
    def altered(self) -> set[str]:
        """The keys that came with more than one body, of which there must be none."""
        with self.changed:
            distinct = Counter(key for key, _ in set(self.accepted))
        return {key for key, number in distinct.items() if number > 1}

    def wait_for(self, condition: Callable[[Oracle], bool], timeout: float = PATIENCE) -> None:
        """Wait until something is true, which is looked at after each request."""
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self), timeout), (
                f"{len(self.accepted)} events accepted in {self.received} requests"
            )

    def wait_for_accepted(self, number: int, timeout: float = PATIENCE) -> None:
        """Wait until so many events, of different keys, were kept."""
        self.wait_for(
            lambda oracle: len(oracle.accepted) >= number and len(oracle.keys) >= number, timeout
        )

    def wait_for_requests(self, number: int, timeout: float = PATIENCE) -> None:
        """Wait until there were so many requests."""
        self.wait_for(lambda oracle: oracle.received >= number, timeout)

    def forget(self) -> None:
        """Start counting anew, with an empty log."""
        with self.changed:
            os.ftruncate(self._log, 0)
            self.accepted.clear()
            self.requests.clear()
            self._attempts.clear()
            self.received = 0

    # The server

    def _start(self, function: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._closing.is_set():
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.changed:
                self._connections.add(connection)
                self._threads[1:] = [thread for thread in self._threads[1:] if thread.is_alive()]
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        stream = connection
        try:
            if self._tls is not None:
                stream = self._tls.wrap_socket(connection, server_side=True)
                with self.changed:
                    self._connections.remove(connection)
                    self._connections.add(stream)
            with stream.makefile("rb") as reader:
                turn = 0
                while self._serve_one(stream, reader, turn):
                    turn += 1
        except (OSError, ValueError):
            pass  # The client has gone, or does not trust us.
        finally:
            with self.changed:
                self._connections.discard(stream)
            stream.close()

    def _serve_one(self, connection: socket.socket, reader: BufferedReader, turn: int) -> bool:
        """Serve a request; say whether another one may follow."""
        if not reader.readline():
            return False
        headers: dict[str, str] = {}
        while (line := reader.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        body = reader.read(length)
        if len(body) < length:
            return False  # The client died in the middle of it.
        key = headers.get("idempotency-key", "")
        with self.changed:
            attempt = self._attempts[key]
            self._attempts[key] += 1
        request = Request(time.monotonic(), key, body, headers, turn, attempt)
        reply = self.answer(request)
        if reply.accepted:
            self._keep(key, hashlib.sha256(body).hexdigest())
        with self.changed:
            self.received += 1
            if self.remember:
                self.requests.append(Received(request.at, key, headers))
            self.changed.notify_all()
        connection.sendall(reply.before)
        if reply.delay:
            # Cut short where the backend goes down meanwhile.
            self._closing.wait(reply.delay)
        connection.sendall(reply.encoded())
        if reply.then is Then.HOLD:
            self._closing.wait()
        if reply.then is Then.RESET:
            # Closing with a linger of zero seconds sends RST.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return reply.then is Then.KEEP and not self._closing.is_set()

    def _keep(self, key: str, digest: str) -> None:
        """Note an event as accepted, on the disk when this returns."""
        with self.changed:
            os.write(self._log, f"{key} {digest}\n".encode())
            self.accepted.append((key, digest))
            self._written += 1
            number = self._written
        with self._syncing:
            # Those that were written meanwhile are synced together.
            if self._synced < number:
                written = self._written
                os.fsync(self._log)
                self._synced = written
