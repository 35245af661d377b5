"""The processes that deliver: ours, and bare connections beside it."""

from __future__ import annotations

import http.client
import logging
import queue
import selectors
import socket
import threading
import time
from pathlib import Path

import ours
import spool

from cmdrdata_exporter import CmdrDataSpanExporter
from cmdrdata_exporter.delivery import Delivery

CONNECTIONS = 32
"""The most that ours has, and what the bare ones have."""


def memory(what: str) -> int:
    """Return a line of what Linux knows of this process's memory, in bytes: `VmRSS` now, `VmHWM` at most so far."""
    return _status(what) << 10


def _status(what: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == what:
            return int(value.split()[0])
    return 0


class Delivering:
    """
    Our delivery over a directory, as an application has it; worker of a `Process`.

    Args:
        path: the spool.
        endpoint: where events are posted.
        drains: False: it only records.
        fsync: whether an event is on the disk itself when it is recorded.
    """

    def __init__(self, path: str, endpoint: str, drains: bool = True, fsync: bool = False) -> None:
        # What it has to say of a dead backend, of versions or of a limit shows in what is measured.
        logging.disable()
        self._arguments = (path, endpoint, drains, fsync)
        self._exporter: CmdrDataSpanExporter | None = None
        self._delivery: Delivery | None = None

    def start(self) -> float:
        """Begin to drain, and return when, in monotonic seconds."""
        path, endpoint, drains, fsync = self._arguments
        began = time.monotonic()
        self._exporter = ours.exporter(path, endpoint, drains=drains, fsync=fsync)
        self._delivery = ours.delivery(self._exporter)
        return began

    def record(self, first: int, number: int = 1) -> float:
        """Record so many events, and return when that began."""
        assert self._delivery is not None
        began = time.monotonic()
        for n in range(first, first + number):
            event_id, body = spool.event(n)
            self._delivery.record(event_id, spool.HEADER, body)
        return began

    def paced(self, first: int, rate: float, seconds: float) -> tuple[list[int], float]:
        """
        Record `rate` events a second in this thread.

        Return the nanoseconds of each, with what it waits for, and the process's processor seconds for an event, of all
        threads: recording, delivering where it drains, and the clock. The first half second does not count.
        """
        assert self._delivery is not None
        taken: list[int] = []
        skipped, number = int(rate / 2), int(rate * (seconds + 0.5))
        used, began = 0.0, time.perf_counter()
        for n in range(number):
            time.sleep(max(0.0, began + n / rate - time.perf_counter()))
            if n == skipped:
                used = time.process_time()
            event_id, body = spool.event(first + n)
            start = time.perf_counter_ns()
            self._delivery.record(event_id, spool.HEADER, body)
            taken.append(time.perf_counter_ns() - start)
        used = time.process_time() - used
        return taken[skipped:], used / (number - skipped)

    def flush(self) -> bool:
        """Wait until nothing is left to deliver."""
        assert self._exporter is not None
        return self._exporter.force_flush()

    def used(self) -> float:
        """Return the processor seconds so far."""
        return time.process_time()

    def threads(self, seconds: float) -> int:
        """Return how many threads this process has at most within so many seconds."""
        most, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            most = max(most, _status("Threads"))
            time.sleep(0.01)
        return most

    def resident(self) -> tuple[int, int]:
        """Return the bytes of memory now, and the most so far."""
        return memory("VmRSS"), memory("VmHWM")


class BareLoop:
    """One thread with so many keep-alive connections, which posts and does nothing else; worker of a `Process`."""

    def __init__(self, port: int) -> None:
        self._poll = selectors.DefaultSelector()
        self._idle: list[socket.socket] = []
        for _ in range(CONNECTIONS):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._poll.register(connection, selectors.EVENT_READ)
            self._idle.append(connection)

    def post(self, first: int, number: int) -> float:
        """Post so many events, and return the processor seconds that took."""
        used = time.process_time()
        numbers = iter(range(first, first + number))
        for connection in self._idle:
            connection.sendall(_request(next(numbers)))
        waiting = len(self._idle)
        while waiting:
            for key, _ in self._poll.select():
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                # The backend's answers are short and come in one piece.
                answer = connection.recv(4096)
                assert answer.startswith(b"HTTP/1.1 201 ")
                assert answer.endswith(b"\r\n\r\n{}")
                n = next(numbers, None)
                if n is None:
                    waiting -= 1
                else:
                    connection.sendall(_request(n))
        return time.process_time() - used


def _request(number: int) -> bytes:
    event_id, body = spool.event(number)
    head = (
        "POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nIdempotency-Key: {event_id}\r\nUser-Agent: benchmark\r\n"
        f"Authorization: Bearer {ours.KEY}\r\n\r\n"
    )
    return head.encode() + body


class BareThreads:
    """As many threads with a connection of `http.client` each, and nothing else; worker of a `Process`."""

    def __init__(self, port: int) -> None:
        self._connections = [
            http.client.HTTPConnection("127.0.0.1", port) for _ in range(CONNECTIONS)
        ]

    def post(self, first: int, number: int) -> float:
        """Post so many events, and return the processor seconds that took."""
        used = time.process_time()
        work: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        for n in range(first, first + number):
            work.put(n)
        threads = [
            threading.Thread(target=self._send, args=(connection, work))
            for connection in self._connections
        ]
        for thread in threads:
            work.put(None)
            thread.start()
        for thread in threads:
            thread.join()
        return time.process_time() - used

    @staticmethod
    def _send(connection: http.client.HTTPConnection, work: queue.SimpleQueue[int | None]) -> None:
        while (n := work.get()) is not None:
            event_id, body = spool.event(n)
            headers = {
                "Content-Type": "application/json",
                "Idempotency-Key": event_id,
                "User-Agent": "benchmark",
                "Authorization": f"Bearer {ours.KEY}",
            }
            connection.request("POST", "/events", body, headers)
            connection.getresponse().read()
