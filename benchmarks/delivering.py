"""The processes that deliver: ours, and bare connections beside it."""

from __future__ import annotations

import http.client
import queue
import resource
import threading
import time
from pathlib import Path

import spool

from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.http.client import Client
from cmdrdata_exporter.delivery.options import SENDERS, Options
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.version import USER_AGENT


def processor_seconds() -> float:
    """Return the processor time that this process has taken."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory(what: str) -> int:
    """Return a line of what Linux knows of this process's memory, in bytes: `VmRSS` now, `VmHWM` at most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == what:
            return int(value.split()[0]) << 10
    return 0


class Delivering:
    """Our delivery over a directory, as an application has it; worker of a `Process`."""

    def __init__(self, path: str, port: int) -> None:
        self._directory = spool.directory(Path(path))
        self._port = port
        self._delivery: DurableDelivery | None = None

    def start(self) -> float:
        """Begin to drain, and return when, in monotonic seconds."""
        began = time.monotonic()
        client = Client(
            f"http://127.0.0.1:{self._port}/events",
            lambda: "tok-benchmark",
            USER_AGENT,
            connections=SENDERS,
            clock=time.time,
        )
        self._delivery = DurableDelivery(
            self._directory, Options(post=client.post, reset=client.reset)
        )
        self._delivery.start()
        return began

    def record(self, number: int) -> float:
        """Record one event, and return when that began."""
        assert self._delivery is not None
        began = time.monotonic()
        event_id, body = spool.event(number)
        self._delivery.record(event_id, spool.HEADER, body)
        return began

    def used(self) -> float:
        """Return the processor seconds so far."""
        return processor_seconds()

    def resident(self) -> tuple[int, int]:
        """Return the bytes of memory now, and the most so far."""
        return memory("VmRSS"), memory("VmHWM")

    def close(self) -> None:
        """End the delivery."""
        if self._delivery is not None:
            self._delivery.close(5.0)


class Bare:
    """So many keep-alive connections, each with a thread, and nothing else; worker of a `Process`."""

    def __init__(self, port: int) -> None:
        self._port = port

    def start(self, number: int) -> float:
        """Begin to send so many events, and return when."""
        work: queue.SimpleQueue[int] = queue.SimpleQueue()
        for n in range(number):
            work.put(n)
        began = time.monotonic()
        for _ in range(SENDERS):
            threading.Thread(target=self._send, args=(work,), daemon=True).start()
        return began

    def used(self) -> float:
        """Return the processor seconds so far."""
        return processor_seconds()

    def _send(self, work: queue.SimpleQueue[int]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        while not work.empty():
            event_id, body = spool.event(work.get())
            headers = {
                "Content-Type": "application/json",
                "Idempotency-Key": event_id,
                "User-Agent": USER_AGENT,
                "Authorization": "Bearer tok-benchmark",
            }
            connection.request("POST", "/events", body, headers)
            connection.getresponse().read()


class Reading:
    """A command that reads a ledger; worker of a `Process`."""

    def __init__(self, path: str) -> None:
        self._directory = spool.directory(Path(path))

    def counts(self) -> float:
        """Return the seconds that the counts of all states take, as `cmdrdata status` asks for them."""
        began = time.perf_counter()
        with LedgerReader(self._directory) as ledger:
            ledger.counts()
            ledger.oldest_pending()
        return time.perf_counter() - began

    def report(self, by: tuple[str, ...], since: str | None) -> tuple[float, int]:
        """Return the seconds that a usage report takes, and how many rows it has."""
        began = time.perf_counter()
        with LedgerReader(self._directory) as ledger:
            rows = sum(1 for _ in ledger.totals(by, since=since))
        return time.perf_counter() - began, rows
