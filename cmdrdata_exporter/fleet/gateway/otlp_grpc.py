"""
OTLP over gRPC: `TraceService/Export`.

As over HTTP: a call is answered once its spans are on the shelf.
https://opentelemetry.io/docs/specs/otlp/#otlpgrpc

It is not gRPC's own server, which keeps what has come of a message where it is neither seen nor counted until all of it
has come: many slow clients would fill the memory. Here one thread reads all connections, so that a client that sends
nothing keeps nobody waiting, and `THREADS` others store what has come. `grpc_calls` has one connection and its calls.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

from google.rpc.code_pb2 import Code

from cmdrdata_exporter import faults, processes
from cmdrdata_exporter.fleet.gateway.answers import GARBAGE, NOT_NOW, RefusedError
from cmdrdata_exporter.fleet.gateway.exports import Exports
from cmdrdata_exporter.fleet.gateway.grpc_calls import CLOSING, INTAKE, Call, Connection
from cmdrdata_exporter.fleet.gateway.limits import inflate

_PREFIX = 5
"""Bytes before a message: whether it is compressed, and its length."""
THREADS = 16
"""How many calls are stored at once. The others wait, and their bytes count."""
CALLS = 1000
"""How many may be open whose message has not come. One more, and the oldest of them gives way."""


class GrpcIntake:
    """
    The server.

    Args:
        address: host and port.
        exports: what takes spans.

    Raises:
        OSError: nobody can listen there.
    """

    def __init__(self, address: tuple[str, int], exports: Exports) -> None:
        self.exports = exports
        self.limits = exports.limits
        self._context = exports.access.context()
        if self._context is not None:
            self._context.set_alpn_protocols(["h2"])
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            self._socket = socket.create_server(address, family=family)
        except OSError as error:
            raise OSError(
                f"nobody can listen at {address[0]}:{address[1]}: it is taken, or not ours"
            ) from error
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.waiting: dict[Call, None] = {}
        """The calls whose message has not come, the oldest first."""
        self._open: dict[Connection, asyncio.Task[None]] = {}
        """The connections, those first that have had no call for longest."""
        self._answers: set[asyncio.Task[None]] = set()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="cmdrdata-gateway-grpc")
        self.stopping = False
        self._ended = threading.Event()

    def start(self) -> None:
        """Serve in a thread of its own."""
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(
            lambda _, what: faults.report("intake", "a connection failed: %s", what["message"])
        )
        self._stop = asyncio.Event()
        processes.start_thread(self._run, name="cmdrdata-gateway-grpc")

    def stop(self, timeout: float) -> None:
        """Take no more, and wait for the answers to what was begun, so many seconds at most."""
        self.stopping = True
        self._timeout = timeout
        if not self._ended.is_set():
            self.loop.call_soon_threadsafe(self._stop.set)
        self._ended.wait(timeout + CLOSING)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    def _run(self) -> None:
        try:
            self.loop.run_until_complete(self._serve())
        finally:
            self.loop.close()
            self._pool.shutdown(wait=False)
            self._ended.set()

    async def _serve(self) -> None:
        accepting = self.loop.create_task(self._accept())
        await self._stop.wait()
        accepting.cancel()
        if self._answers:
            await asyncio.wait(self._answers, timeout=self._timeout)
        for each in list(self._open):
            each.end()
        connections = [accepting, *self._open.values()]
        await asyncio.wait(connections, timeout=CLOSING / 2)
        for each in connections:
            each.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        self._socket.close()

    async def _accept(self) -> None:
        while True:
            try:
                accepted, _ = await self.loop.sock_accept(self._socket)
            except OSError:
                # It has gone, or this process may open no more files now.
                await asyncio.sleep(CLOSING)
                continue
            if len(self._open) >= self.limits.connections:
                # One without a call keeps nobody out: its client connects again when it has something to send.
                idle = next((each for each in self._open if not each.calls), None)
                if idle is None:
                    self.exports.counts.add(
                        "requests", intake=INTAKE, status=Code.Name(NOT_NOW.grpc)
                    )
                    accepted.close()
                    continue
                self._open.pop(idle).cancel()
            connection = Connection(self)
            self._open[connection] = self.loop.create_task(self._connect(connection, accepted))

    async def _connect(self, connection: Connection, accepted: socket.socket) -> None:
        timeout = None if self._context is None else self.limits.header
        try:
            await self.loop.connect_accepted_socket(
                lambda: connection, accepted, ssl=self._context, ssl_handshake_timeout=timeout
            )
            await connection.closed.wait()
        except OSError:
            pass  # It has gone, is too slow, or has no certificate.
        finally:
            connection.abort()
            self._open.pop(connection, None)

    def rests(self, connection: Connection) -> None:
        """Note that a connection has no call any more."""
        if (task := self._open.pop(connection, None)) is not None:
            self._open[connection] = task

    def open(self, call: Call) -> None:
        """Note that a call waits for its message."""
        if len(self.waiting) >= CALLS:
            next(iter(self.waiting)).give_way()
        self.waiting[call] = None
        self.exports.room.begin(call.held, call.give_way_soon)

    def answer(self, call: Call) -> None:
        """Store what has come, and answer."""
        task = self.loop.create_task(self._answer(call))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, call: Call) -> None:
        try:
            refused = await self.loop.run_in_executor(self._pool, self._take, call)
        except RefusedError as error:
            call.refuse(error)
        except Exception:  # noqa: BLE001 - the others go on
            faults.report("intake", "a call failed", exc_info=True)
            call.refuse(RefusedError(NOT_NOW, "this gateway failed; send it again"))
        else:
            call.accept(refused)

    def _take(self, call: Call) -> int:
        body = call.body
        length = int.from_bytes(body[1:_PREFIX], "big")
        if len(body) < _PREFIX or length != len(body) - _PREFIX:
            raise RefusedError(GARBAGE, "expected is one message")
        is_packed = body[0]
        del body[:_PREFIX]
        if is_packed:
            body = inflate([body], call.held)
        return self.exports.take(body, call.held, INTAKE)
