"""A day of everything at once: processes die and stop, the backend fails in all its ways, and the account is exact."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery.spool.directory import LEDGER
from tests.faults.application import until
from tests.faults.hosts import Host, Process, Zygote
from tests.faults.oracle import (
    ACCEPTED,
    ACCEPTED_AND_RESET,
    ACCEPTED_UNSEEN,
    SILENCE,
    Reply,
    Request,
)

SECONDS = float(os.environ.get("FAULTS_SOAK_SECONDS", str(24 * 3600)))
"""How long it takes."""
ROUND = 60.0
"""Seconds between two looks at the account, for which the faults end."""
FAULT = 3.0
"""Seconds that a fault lasts."""
PAUSE = 0.02
"""Seconds between two calls of each of the two processes: together 100 a second, while both run."""
SLOPE = 1 << 20
"""Bytes an hour by which memory may grow."""
OF_A_TOMBSTONE = 32
"""Bytes."""
LARGEST_BODY = 4096

BACKENDS: list[Callable[[Request], Reply]] = [
    lambda _: ACCEPTED,
    lambda _: Reply(503, {"Retry-After": "1"}),
    lambda _: Reply(429),
    lambda _: Reply(401),
    lambda _: Reply(302, {"Location": "/login"}),
    lambda _: SILENCE,
    lambda _: Reply(delay=0.3),
    lambda request: ACCEPTED_UNSEEN if int(request.key[:2], 16) < 25 else ACCEPTED,
    lambda request: ACCEPTED_AND_RESET if int(request.key[:2], 16) < 25 else ACCEPTED,
    lambda request: Reply(500) if int(request.key[:1], 16) < 5 else ACCEPTED,
]


class Soak:
    """The host in the course of the day."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.oracle.remember = False
        host.environment["CMDRDATA_PROBE_INTERVAL"] = "1"
        self.chance = random.Random(30)
        self.steady = self.start()
        """A process that nothing kills."""
        self.other = self.start()
        self.delivered = self.duplicates = 0

    def start(self) -> Process:
        """Start a process that meters for as long as it lives."""
        return self.host.start("produce_in_turns", pause=PAUSE)

    def fault(self) -> None:
        """Have one of the faults, for a while."""
        self.host.oracle.answer = self.chance.choice(BACKENDS)
        what = self.chance.choice(["kill", "stop", "nothing"])
        if what == "stop":
            self.other.send(signal.SIGSTOP)
        threading.Event().wait(FAULT)
        if what == "stop":
            self.other.send(signal.SIGCONT)
        elif what == "kill":
            self.other.kill()
            self.other = self.start()

    def account(self) -> int:
        """Wait until everything is delivered, check the account, and return what is in memory then."""
        oracle = self.host.oracle
        oracle.answer = lambda _: ACCEPTED
        self.other.kill()
        self.steady.send(signal.SIGUSR1)
        self.steady.wait_for_note("rests")
        until(lambda: not self.waiting(), timeout=300)
        counts = self.host.count()
        self.delivered += len(oracle.keys)
        self.duplicates += oracle.duplicates
        assert set() == set(self.host.ids) - oracle.keys
        assert (self.delivered, self.delivered) == (counts["recorded"], counts["delivered"])
        assert self.duplicates <= counts["ambiguous"]
        assert set() == oracle.altered
        memory = int(Path(f"/proc/{self.steady.pid}/statm").read_text().split()[1])
        # What is accounted for is forgotten, so that the test does not grow itself.
        oracle.forget()
        self.steady.ids.clear()
        self.steady.notes.clear()
        self.host.processes[:] = [self.steady]
        self.other = self.start()
        self.steady.send(signal.SIGUSR1)
        return memory * os.sysconf("SC_PAGE_SIZE")

    def waiting(self) -> int:
        """Return how many events are not delivered."""
        counts = self.host.count()
        return counts["pending"] + counts["in_flight"]


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 3600)
def test_a_day_of_faults(tmp_path: Path, zygote: Zygote) -> None:
    """Whatever happens for a day, each event is billed once, memory does not grow, and little stays on the disk."""
    host = Host(tmp_path, zygote)
    try:
        soak = Soak(host)
        memory = run(soak)
    finally:
        host.close()
    hours, growth = slope(memory)
    with contextlib.closing(sqlite3.connect(host.directory.path / LEDGER)) as ledger:
        (tombstones,) = ledger.execute("SELECT count(*) FROM tombstones").fetchone()
        (events,) = ledger.execute("SELECT count(*) FROM events").fetchone()
        (pages,) = ledger.execute("PRAGMA page_count").fetchone()
        (free,) = ledger.execute("PRAGMA freelist_count").fetchone()
        (size,) = ledger.execute("PRAGMA page_size").fetchone()
    used = (pages - free) * size
    print(f"{soak.delivered} events, {soak.duplicates} raw duplicates, {hours:.2f} h")
    print(f"memory {memory[-1][1] >> 10} KiB, {growth / 1024:.0f} KiB more an hour")
    print(f"ledger {used} bytes of {tombstones} tombstones")
    # What was recorded since the last look.
    assert events < 100 * ROUND
    # Tables that are empty take a few pages.
    assert used <= OF_A_TOMBSTONE * tombstones + 40 * size + LARGEST_BODY * events
    # In less than an hour memory still settles.
    assert hours < 1 or growth < SLOPE


def run(soak: Soak) -> list[tuple[float, int]]:
    """Have faults for a day; return when there was how much in memory."""
    began = time.monotonic()
    memory: list[tuple[float, int]] = []
    while (now := time.monotonic() - began) < SECONDS:
        ends = now + min(ROUND, SECONDS)
        while time.monotonic() - began < ends:
            soak.fault()
        memory.append((time.monotonic() - began, soak.account()))
    return memory


def slope(points: list[tuple[float, int]]) -> tuple[float, float]:
    """Return how many hours were measured, and by how many bytes an hour the measured grew: least squares."""
    settled = points[len(points) // 4 :]
    times = [at / 3600 for at, _ in settled]
    values = [value for _, value in settled]
    mean, middle = sum(times) / len(times), sum(values) / len(values)
    spread = sum((at - mean) ** 2 for at in times)
    grown = sum((at - mean) * (value - middle) for at, value in zip(times, values, strict=True))
    return times[-1] - times[0], grown / spread if spread else 0.0
