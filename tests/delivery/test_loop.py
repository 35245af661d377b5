"""The loop: one thread makes many attempts at once, and each has its outcome, whatever becomes of the others."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery import Handed, Outcome, Verdict
from cmdrdata_exporter.delivery import senders as module
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.http.client import Client
from cmdrdata_exporter.delivery.http.connections import Connector
from cmdrdata_exporter.delivery.http.loop import Loop
from cmdrdata_exporter.delivery.senders import Done, Senders
from tests.faults.oracle import ACCEPTED, SILENCE, Oracle, Reply

Inbox: TypeAlias = "queue.SimpleQueue[Done | None]"

YES = Outcome(Verdict.DELIVERED, "HTTP 202")


@pytest.fixture(autouse=True)
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """A loop and threads that no other test has started."""
    loop = Loop()
    monkeypatch.setattr(module, "threads", module.Threads())
    monkeypatch.setattr(module, "loop", loop)
    return loop


@pytest.fixture
def oracle(tmp_path: Path) -> Iterator[Oracle]:
    """A backend."""
    with Oracle(tmp_path / "accepted") as running:
        yield running


def handed(*numbers: int, body: bytes = b"{}") -> list[Handed]:
    """Return events that are in flight."""
    return [
        Handed(number, number.to_bytes(16, "big"), f"id-{number}", body, 0, 0) for number in numbers
    ]


def senders(url: str, most: int = 8) -> tuple[Senders, Inbox]:
    """Return senders whose attempts the loop makes, and where outcomes come back."""
    done: Inbox = queue.SimpleQueue()
    client = Client(url, lambda: "key", "test", connections=most, clock=lambda: 0.0)
    return Senders(client.post, Gate(most), done, most=most), done


def take(done: Inbox, number: int) -> dict[int, Outcome | None]:
    """Wait for outcomes, and return them by the number of the event."""
    found: dict[int, Outcome | None] = {}
    for _ in range(number):
        came = done.get(timeout=10)
        assert came is not None
        found[came[0].seq] = came[1]
    assert done.empty()
    assert len(found) == number
    return found


def test_many_at_once(oracle: Oracle) -> None:
    """As many as may be are under way at once, over as many connections, which are used again."""
    barrier = threading.Barrier(8)

    def answer(_: object) -> Reply:
        barrier.wait(10)
        return ACCEPTED

    oracle.answer = answer
    sending, done = senders(oracle.url)
    sending.give(handed(*range(32)))
    assert take(done, 32) == dict.fromkeys(range(32), YES)
    assert len(oracle.keys) == oracle.received == 32
    assert len(oracle._connections) == 8
    sending.end()


def test_a_large_event_to_a_slow_reader() -> None:
    """What the socket does not take at once is sent as it is read, and all of it arrives."""
    body = os.urandom(8 << 20)
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sending, done = senders(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        sending.give(handed(1, body=body))
        connection, _ = listening.accept()
        with connection:
            while not received.endswith(body[-64:]):
                received += connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            assert take(done, 1) == {1: YES}
    assert received.partition(b"\r\n\r\n")[2] == body
    sending.end()


def test_a_silent_backend(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt without an answer ends in time, as ambiguous, and holds up no other one."""
    monkeypatch.setattr(module, "ATTEMPT_TIMEOUT", 0.2)
    oracle.answer = lambda request: SILENCE if request.key == "id-1" else ACCEPTED
    sending, done = senders(oracle.url)
    sending.give(handed(1, 2, 3))
    silent = Outcome(Verdict.RETRY, "ReadTimeoutError", ambiguous=True)
    assert take(done, 3) == {1: silent, 2: YES, 3: YES}
    sending.end()


def test_a_connection_that_takes_long(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a connection holds up nobody, and gives up in time: nothing has left."""
    monkeypatch.setattr(module, "ATTEMPT_TIMEOUT", 0.2)
    connect, over = Connector.connect, threading.Event()
    calls: list[float] = []

    def slow(connector: Connector, timeout: float) -> object:
        calls.append(timeout)
        if len(calls) == 1:
            assert over.wait(10)
        return connect(connector, timeout)

    monkeypatch.setattr(Connector, "connect", slow)
    sending, done = senders(oracle.url)
    sending.give(handed(1))
    sending.give(handed(2))
    assert take(done, 2) == {1: Outcome(Verdict.RETRY, "ConnectTimeoutError"), 2: YES}
    over.set()
    sending.end()


def test_a_program_that_closes_descriptors(oracle: Oracle, tmp_path: Path) -> None:
    """Where a program closes all descriptors of ours and opens its own, those get nothing, and events are sent."""
    before = {int(path.name) for path in Path("/dev/fd").iterdir()}
    sending, done = senders(oracle.url)
    sending.give(handed(1))
    assert take(done, 1) == {1: YES}
    theirs = {int(path.name) for path in Path("/dev/fd").iterdir()} - before
    own = os.open(tmp_path / "own", os.O_RDWR | os.O_CREAT)
    ends = {each.fileno() for each in oracle._connections}
    numbers = {number for number in theirs - ends if number != own and is_open(number)}
    for number in numbers:
        os.dup2(own, number)
    sending.give(handed(2))
    assert take(done, 1) == {2: YES}
    assert (tmp_path / "own").read_bytes() == b""
    for number in (*numbers, own):
        os.close(number)
    sending.end()


def is_open(number: int) -> bool:
    """Say whether a descriptor is open."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_an_interruption(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends the loop's work, whatever it is, ends its attempts, and the thread goes on."""
    advance = Loop._advance
    raised: list[bool] = []

    def interrupted(*arguments: object) -> None:
        if not raised:
            raised.append(True)
            raise SystemExit
        advance(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Loop, "_advance", interrupted)
    sending, done = senders(oracle.url)
    sending.give(handed(1))
    assert take(done, 1) == {1: Outcome(Verdict.RETRY, "interrupted", ambiguous=True)}
    sending.give(handed(2))
    assert take(done, 1) == {2: YES}
    assert faults.counts.pop("sender") == 1
    sending.end()


def test_the_end_of_the_loop(oracle: Oracle, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to do the loop leaves its thread, and comes again."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.http.loop.LONGEST_WAIT", 0.01)
    sending, done = senders(oracle.url)
    for number in range(3):
        sending.give(handed(number))
        assert take(done, 1) == {number: YES}
        deadline = time.monotonic() + 10
        while loop._runs:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    sending.end()


def test_where_no_thread_can_be_started(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no thread for the loop, who gives an event sends it."""

    def none(*_: object) -> bool:
        return False

    monkeypatch.setattr(module.Threads, "put", none)
    sending, done = senders(oracle.url)
    sending.give(handed(1, 2))
    assert take(done, 2) == {1: YES, 2: YES}
    sending.end()
