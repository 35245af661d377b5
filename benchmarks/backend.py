"""A backend on loopback that costs next to nothing: it reads each event's key and accepts it after a while."""

from __future__ import annotations

import asyncio
import re
import threading
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_KEY = re.compile(rb"\r\nidempotency-key: *([^\r]+)", re.IGNORECASE)
_ANSWER = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Backend:
    """The backend, in the process that makes it; worker of a `Process`."""

    def __init__(self) -> None:
        self.latency = 0.0
        self.arrivals: dict[str, float] = {}
        self.open = self.most = self.opened = 0
        self._loop = asyncio.new_event_loop()
        started: threading.Event = threading.Event()
        threading.Thread(target=self._run, args=(started,), daemon=True).start()
        started.wait()

    def port(self) -> int:
        """Return where it listens."""
        return self._port

    def reset(self, latency: float) -> None:
        """Forget what came so far, and answer after `latency` seconds from now on."""
        self.latency = latency
        self.arrivals = {}
        self.most = self.opened = 0

    def number(self) -> int:
        """Return how many events came."""
        return len(self.arrivals)

    def first(self) -> float | None:
        """Return when the first one came, in monotonic seconds, which all processes of a machine share."""
        return next(iter(self.arrivals.values()), None)

    def times(self) -> dict[str, float]:
        """Return when each came, by its key."""
        return self.arrivals

    def connections(self) -> tuple[int, int]:
        """Return how many connections were open at once at most, and how many were opened."""
        return self.most, self.opened

    def last(self) -> float | None:
        """Return when the last one came."""
        return next(reversed(self.arrivals.values()), None)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        listening = self._loop.create_server(
            lambda: _Connection(self, self._loop), "127.0.0.1", 0, backlog=256
        )
        server = self._loop.run_until_complete(listening)
        self._port: int = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()


class _Connection(asyncio.Protocol):
    def __init__(self, backend: Backend, loop: asyncio.AbstractEventLoop) -> None:
        self._backend = backend
        self._loop = loop
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        backend = self._backend
        backend.open += 1
        backend.opened += 1
        backend.most = max(backend.most, backend.open)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the base's
        self._backend.open -= 1

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        head = received.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(received, 0, head)
        if len(received) < head + 4 + (int(length[1]) if length else 0):
            return
        # No client of ours sends a request before it has the answer to the last one.
        self._received = b""
        if key := _KEY.search(received, 0, head):
            self._backend.arrivals.setdefault(key[1].decode(), time.monotonic())
        self._loop.call_later(self._backend.latency, self._answer)

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)
