"""A server of HTTP that nobody keeps from others: so many connections, each a thread, and each read by the clock."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer
from typing import Any

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.fleet.gateway.answers import AGAIN
from cmdrdata_exporter.fleet.gateway.limits import Limits
from cmdrdata_exporter.fleet.gateway.watching import Counts

INTAKE = "http"
LINGER = 1.0
"""Seconds, and bytes, of a request that was refused that are read still, so that its answer is seen."""
LINGER_BYTES = 1 << 20
_HEADER = 64 << 10
"""Bytes that the header of a request may have. Who has not shown a token yet shall not fill the memory."""


class Reader(io.RawIOBase):
    """What comes of a connection, until a time. One byte now and then keeps nobody waiting."""

    def __init__(self, connection: socket.socket, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._gives_way = False
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

    def give_way(self) -> None:
        """End the reading, since others need the room; called in another thread."""
        self._gives_way = True
        shut(self._connection, socket.SHUT_RD)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """
        Read something.

        Raises:
            TimeoutError: nothing came in time, or others need the room.
        """
        left = self.deadline - clocks.monotonic()
        if left <= 0 or self._left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        number = self._connection.recv_into(buffer)
        if self._gives_way:
            raise TimeoutError
        self._left -= number
        if self._between:
            self._between = False
            self.deadline = clocks.monotonic() + self._limits.header
        return number


class Server(HTTPServer):
    """
    The server. `start` runs it, `stop` ends it.

    Args:
        address: host and port.
        handler: serves a connection; it has a `Reader`, and tells by `rests` whether it waits for a request.
        limits: how much is taken.
        counts: where to count.
        context: how connections are encrypted, None: not at all.
    """

    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        limits: Limits,
        counts: Counts,
        context: ssl.SSLContext | None,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.limits = limits
        self.counts = counts
        self.stopping = False
        self._context = context
        self._lock = threading.Condition()
        self._open: dict[socket.socket, bool] = {}
        """With whether each waits for a request that may be refused; the one first that has waited for longest."""
        self._busy = 0
        super().__init__(address, handler)

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
                shut(each)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, if there may be one more."""
        with self._lock:
            if len(self._open) >= self.limits.connections:
                # One that waits, and has shown no token for what it may send, keeps nobody out.
                waiting = next((each for each, waits in self._open.items() if waits), None)
                if waiting is not None:
                    del self._open[waiting]
                    shut(waiting)
            has_room = len(self._open) < self.limits.connections
            if has_room:
                self._open[request] = True
        if has_room and processes.has_started(self._serve, request, client_address):
            return
        with self._lock:
            self._open.pop(request, None)
        self.counts.add("requests", intake=INTAKE, status="503")
        with contextlib.suppress(OSError):
            request.settimeout(LINGER)
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
                current = self._context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
                with self._lock:
                    if self._open.pop(connection, None) is None:
                        return  # It has given way to another one.
                    self._open[current] = True
                current.settimeout(self.limits.header)
                current.do_handshake()
            self.finish_request(current, client_address)
        except (OSError, ssl.SSLError):
            pass  # It has gone, is too slow, or has no certificate.
        except Exception:  # noqa: BLE001 - the others go on
            faults.report("intake", "a connection was ended", exc_info=True)
        finally:
            with self._lock:
                self._open.pop(current, None)
            self.shutdown_request(current)

    def rests(self, connection: socket.socket, *, waits: bool) -> None:
        """Note whether a connection waits for a request, so that it may give way to others."""
        with self._lock:
            if self._open.pop(connection, None) is not None:
                self._open[connection] = waits

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


def shut(connection: socket.socket, how: int = socket.SHUT_RDWR) -> None:
    """Wake the thread that reads a connection, encrypted or not: it is at its end."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, how)
