"""A backend that is down for long is left in peace, nothing but the disk grows, and it gets all of it in the end."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.records import encode_event
from tests.faults.application import ACME, Application, body_of, until
from tests.faults.hosts import Host, Process
from tests.faults.oracle import ACCEPTED, Oracle, Reply

REQUESTS = 80
"""So many are made at most, whatever the outage takes: 32 that were under way, then probes."""
MEGABYTE = 1 << 20


def resident(process: Process) -> int:
    """Return how many bytes of memory a process has."""
    pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_an_outage(tmp_path: Path) -> None:
    """While the backend is down it gets few requests, and when it is back it gets all events, each once."""
    down = threading.Event()
    down.set()
    with (
        Oracle(
            tmp_path / "accepted", lambda _: Reply(503) if down.is_set() else ACCEPTED
        ) as oracle,
        Application(tmp_path / "spool", oracle.url) as application,
    ):
        pace = threading.Event()
        began = time.monotonic()
        while time.monotonic() - began < 3:
            application.call()
            pace.wait(0.005)
        assert application.delivery.drainer.gate.in_trouble
        assert oracle.received <= REQUESTS
        down.clear()
        application.settled(oracle)
        assert 0 == oracle.duplicates


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_long_outage(host: Host) -> None:
    """In ten minutes at 200 events a second memory does not grow, and the backlog is gone in three minutes."""
    process = host.start("produce", pause=0.005)
    host.oracle.wait_for_accepted(1000)
    base = resident(process)
    host.oracle.answer = lambda _: Reply(503)
    # What was under way.
    host.oracle.wait_for(lambda oracle: oracle.requests[-1].at > oracle.requests[-2].at + 0.1)
    before = host.oracle.received
    largest = 0
    ends = time.monotonic() + 600
    while time.monotonic() < ends:
        largest = max(largest, resident(process))
        threading.Event().wait(1)
    requests = host.oracle.received - before
    host.oracle.answer = lambda _: ACCEPTED
    back = time.monotonic()
    recorded = len(process.ids)
    process.kill()
    host.drain(300)
    took = time.monotonic() - back
    print(f"{recorded} events, {requests} requests in the outage, the rest in {took:.0f} s")
    print(f"memory {base / MEGABYTE:.1f} MB, in the outage {largest / MEGABYTE:.1f} MB")
    assert requests <= REQUESTS
    assert largest <= base + 20 * MEGABYTE
    assert took <= 180
    assert 0 == host.oracle.duplicates


def leave_behind(directory: Directory, count: int) -> list[str]:
    """Leave so many events in journals, as processes do that end before they are delivered."""
    ids = [os.urandom(16).hex() for _ in range(count)]
    journal = Journal(directory)
    for event_id in ids:
        journal.append(encode_event(event_id, ACME, body_of(event_id)))
    journal.seal()
    return ids


def test_a_backlog(tmp_path: Path) -> None:
    """What earlier processes left is delivered by the next one, once each."""
    with Oracle(tmp_path / "accepted") as oracle:
        left = leave_behind(Directory.prepare(tmp_path / "spool", oracle.url, "default"), 5_000)
        with Application(tmp_path / "spool", oracle.url) as application:
            application.ids += left
            application.settled(oracle)
            assert 0 == oracle.duplicates


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_large_backlog(host: Host) -> None:
    """A million events that were left hold up neither the start of a process nor its memory."""
    host.oracle.remember = False
    left = leave_behind(host.directory, 1_000_000)
    began = time.monotonic()
    process = host.start("produce", count=1, end="wait")
    host.oracle.wait_for_accepted(1)
    started = time.monotonic() - began
    largest = 0
    while len(host.oracle.accepted) < len(left):
        largest = max(largest, resident(process))
        threading.Event().wait(0.5)
    took = time.monotonic() - began
    until(lambda: len(host.oracle.accepted) == len(left) + 1)
    print(f"first event after {started:.1f} s, {len(left) / took:.0f} events a second")
    print(f"memory {largest / MEGABYTE:.1f} MB")
    assert set(left) | set(process.ids) == host.oracle.keys
    assert 0 == host.oracle.duplicates
    assert started <= 2
    assert largest <= 60 * MEGABYTE
