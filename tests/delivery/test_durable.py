"""The durable delivery: what `record` has taken is on the disk, delivered once, and whole wherever it cannot be."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery import Outcome, gauges
from cmdrdata_exporter.delivery.drainer import Options
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.frames import frame, scan
from cmdrdata_exporter.delivery.spool.records import decode, encode_event
from tests.delivery.samples import (
    DELIVERED,
    REFUSED,
    UNAUTHORIZED,
    UNAVAILABLE,
    counts,
    event_id,
    header,
)

Transport = Callable[[str, bytes, float], Outcome]


class Backend:
    """Answers every attempt alike, and keeps what was posted."""

    def __init__(self, outcome: Outcome = DELIVERED) -> None:
        self.outcome = outcome
        self.posted: list[tuple[str, bytes]] = []

    def __call__(self, posted: str, body: bytes, timeout: float) -> Outcome:
        """Take an attempt."""
        self.posted.append((posted, body))
        return self.outcome


class Deliveries:
    """Makes deliveries, which end with the test."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.made: list[DurableDelivery] = []

    def __call__(self, post: Transport | None = None, **options: Any) -> DurableDelivery:
        """Make one."""
        self.made.append(
            DurableDelivery(self.directory, Options(post=post or Backend()), **options)
        )
        return self.made[-1]


@pytest.fixture
def make(directory: Directory) -> Iterator[Deliveries]:
    """Makes deliveries to a destination."""
    deliveries = Deliveries(directory)
    yield deliveries
    for delivery in deliveries.made:
        delivery.close(0)


def record(delivery: DurableDelivery, *numbers: int, **changes: Any) -> None:
    """Record events."""
    for number in numbers:
        delivery.record(event_id(number), header(**changes), b'{"n":%d}' % number)


def lines(caplog: pytest.LogCaptureFixture) -> list[object]:
    """Return the events that are in the log."""
    return [json.loads(message) for message in map(str, caplog.messages) if message.startswith("{")]


def unspooled(*numbers: int) -> list[object]:
    """Return the lines of events that could not be written."""
    return [
        {"cmdrdata": "unspooled", "id": event_id(number), "event": {"n": number}}
        for number in numbers
    ]


def test_delivering(make: Deliveries) -> None:
    """An event is delivered once, as it was recorded, without being asked for."""
    posted = threading.Event()
    backend = Backend()

    def post(event: str, body: bytes, timeout: float) -> Outcome:
        posted.set()
        return backend(event, body, timeout)

    delivery = make(post)
    delivery.start()
    record(delivery, 1)
    assert posted.wait(10)
    record(delivery, 2)
    assert delivery.flush(10)
    assert sorted(backend.posted) == [(event_id(1), b'{"n":1}'), (event_id(2), b'{"n":2}')]
    assert counts(make.directory) == {"recorded": 2, "delivered": 2}
    assert delivery.outcomes() == {"recorded": 2, "unspooled": 0, "handed_over": 0}


def test_on_the_disk_when_record_returns(make: Deliveries, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is in the journal when `record` returns, before any thread has seen it."""
    delivery = make()
    monkeypatch.setattr(delivery.drainer, "start", lambda: None)
    record(delivery, 1)
    (path,) = make.directory.journals()
    written = encode_event(event_id(1), header(), b'{"n":1}')
    assert path.read_bytes() == frame(written)


def test_after_the_end(make: Deliveries) -> None:
    """What is recorded after the end is kept, and delivered by the next flush or end."""
    delivery = make()
    record(delivery, 1)
    delivery.shutdown(10)
    record(delivery, 2)
    delivery.close(10)
    assert counts(make.directory) == {"recorded": 2, "delivered": 2}
    record(delivery, 3)
    assert delivery.flush(10)


# Flushing


@pytest.mark.parametrize("outcome", [DELIVERED, REFUSED], ids=repr)
def test_a_flush_that_succeeds(make: Deliveries, outcome: Outcome) -> None:
    """A flush is done when what was recorded before is delivered, refused for good or held."""
    delivery = make(Backend(outcome))
    assert delivery.flush(10)
    record(delivery, 1, 2)
    record(delivery, 3, customer=None, hold=True)
    assert delivery.flush(10)


@pytest.mark.parametrize("outcome", [UNAVAILABLE, UNAUTHORIZED], ids=repr)
def test_a_flush_that_does_not(make: Deliveries, outcome: Outcome) -> None:
    """A flush ends when its time is over, or nothing can come of it any more, and says so."""
    delivery = make(Backend(outcome))
    record(delivery, 1)
    began = time.monotonic()
    assert not delivery.flush(0.3 if outcome is UNAVAILABLE else 30)
    assert time.monotonic() - began < 10
    assert not delivery.flush(0)


def test_a_flush_under_load(make: Deliveries) -> None:
    """A flush waits for what was recorded before it, not for what keeps coming."""
    backend = Backend()

    def post(event: str, body: bytes, timeout: float) -> Outcome:
        # Each event that is sent makes another one.
        record(delivery, len(backend.posted) + 10)
        return backend(event, body, timeout)

    delivery = make(post)
    record(delivery, 1, 2, 3)
    assert delivery.flush(10)
    assert {event_id(1), event_id(2), event_id(3)} <= {event for event, _ in backend.posted}


def test_a_flush_of_several_journals(make: Deliveries) -> None:
    """Files that are removed because they were imported are no obstacle."""
    delivery = make()
    for number in range(5):
        record(delivery, number)
        delivery._journal.seal()
    assert delivery.flush(10)
    assert counts(make.directory) == {"recorded": 5, "delivered": 5}


def test_a_flush_while_files_go(make: Deliveries, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that goes between two looks is one that was imported."""
    delivery = make()
    record(delivery, 1)
    gone = make.directory.path / f"0-{os.getpid()}-0.journal"
    journals = make.directory.journals
    monkeypatch.setattr(make.directory, "journals", lambda: [*journals(), gone])
    assert delivery._sizes() is not None
    monkeypatch.undo()
    assert delivery.flush(10)


def test_a_flush_of_a_directory_that_is_removed(
    make: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is raised into the application."""
    delivery = make()

    def gone() -> list[Path]:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(delivery, "_sizes", gone)
    assert not delivery.flush(10)
    assert faults.counts.pop("flush") == 1


def test_a_flush_with_a_ledger_that_cannot_be_read(
    make: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that cannot be read for a moment is looked at again."""
    delivery = make()
    record(delivery, 1)
    real, failures = sqlite3.connect, [1, 2]

    def connect(path: Any, **options: Any) -> Any:
        if failures and "mode=ro" in str(path):
            failures.pop()
            raise sqlite3.OperationalError("unable to open database file")
        return real(path, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)
    assert delivery.flush(10)
    assert failures == []


class Stall:
    """A disk on which the next write of an event stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.over = threading.Event(), threading.Event()
        real = os.write

        def write(descriptor: int, data: bytes) -> int:
            if not self.reached.is_set():
                self.reached.set()
                assert self.over.wait(10)
            return real(descriptor, data)

        monkeypatch.setattr(os, "write", write)


def test_a_stalled_disk(
    make: Deliveries, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No flush succeeds while an event waits for the disk; its end puts what waits into the log."""
    delivery = make()
    delivery.start()
    stall = Stall(monkeypatch)
    thread = threading.Thread(target=record, args=(delivery, 1))
    thread.start()
    assert stall.reached.wait(10)
    record(delivery, 2)
    assert delivery.outcomes() == {"recorded": 0, "unspooled": 0, "handed_over": 1}
    assert not delivery.flush(0.05)
    began = time.monotonic()
    delivery.close(0.1)
    assert time.monotonic() - began < 5
    assert lines(caplog) == unspooled(2)
    stall.over.set()
    thread.join()
    assert delivery.flush(10)
    delivered = counts(make.directory)
    assert (delivered["recorded"], delivered["delivered"]) == (1, 1)


# What cannot be written


def test_a_full_disk(
    make: Deliveries, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be written is in the log, whole, and counted in the ledger once something can be again."""
    delivery = make()
    record(delivery, 1)
    assert delivery.flush(10)

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        record(delivery, 2, 3)
    assert lines(caplog) == unspooled(2, 3)
    assert [message for message in caplog.messages if "cannot be written" in message] == [
        f"usage events cannot be written to {make.directory.path} (No space left on device); one line of JSON each "
        "follows instead"
    ]
    assert delivery.outcomes() == {"recorded": 1, "unspooled": 2, "handed_over": 0}
    record(delivery, 4)
    assert delivery.flush(10)
    delivery.close(10)
    assert counts(make.directory) == {"recorded": 2, "delivered": 2, "unspooled": 2}


def test_two_that_tell_at_once(make: Deliveries) -> None:
    """Events in the log are counted in the ledger once, whoever tells of them at the same time."""

    class Overtaken(int):
        """A number of events, and another one tells of them when it is known how many are new."""

        def __sub__(self, told: int) -> int:
            new = int(self) - told
            delivery.unspooled.counts = Counter(delivery.unspooled.counts)
            delivery.unspooled.report()
            return new

    class Unspooled(Counter[str]):
        """Counts them so."""

        def total(self) -> int:
            """Return the sum."""
            return Overtaken(super().total())

    delivery = make()
    delivery.unspooled.counts = Unspooled({"No space left on device": 2})
    record(delivery, 1)
    assert delivery.flush(10)
    delivery.close(10)
    assert counts(make.directory) == {"recorded": 1, "delivered": 1, "unspooled": 2}


def test_a_full_directory(make: Deliveries, caplog: pytest.LogCaptureFixture) -> None:
    """At the limit of the directory new events go to the log, and those that are there stay."""
    delivery = make(Backend(UNAVAILABLE))
    delivery._journal.is_full = True
    record(delivery, 1)
    assert lines(caplog) == unspooled(1)
    assert dict(delivery.unspooled.counts) == {
        "the spool directory, or its disk, has reached its limit": 1
    }
    delivery._journal.is_full = False


@pytest.mark.parametrize("instead", ["link", "file"])
def test_a_directory_that_someone_replaced(
    make: Deliveries, tmp_path: Path, caplog: pytest.LogCaptureFixture, instead: str
) -> None:
    """Nothing is written to what took the place of the directory, and no event is lost."""
    delivery = make()
    for path in make.directory.path.iterdir():
        path.unlink()
    make.directory.path.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if instead == "link":
        make.directory.path.symlink_to(elsewhere)
    else:
        make.directory.path.touch()
    delivery.drainer.running = True  # Nobody is to look.
    record(delivery, 1)
    delivery.drainer.running = False
    assert lines(caplog) == unspooled(1)
    assert list(elsewhere.iterdir()) == []
    make.directory.path.unlink()
    record(delivery, 2)
    assert delivery.flush(10)


def test_what_was_refused_and_is_no_event(
    make: Deliveries, caplog: pytest.LogCaptureFixture
) -> None:
    """Only events are in the log."""
    delivery = make()
    delivery._refused(b"nonsense", OSError(errno.ENOSPC, "No space left on device"))
    delivery._refused(b'{"command":"drop","keys":[],"customer":null}\n', OSError("x"))
    assert caplog.messages == []


# What is reported


def test_gauges(make: Deliveries) -> None:
    """Whoever drains tells of the directory; another process of itself only."""
    backend = Backend(UNAUTHORIZED)
    delivery, other = make(backend), make(backend)
    assert other.gauges() == {"delivery.durable": 1}
    record(delivery, 1)
    assert not delivery.flush(10)
    found = delivery.gauges()
    assert 0 <= found.pop("events.oldest_pending") < 60
    assert found.pop("spool.size") > 0
    nothing = dict.fromkeys(("events.held", "events.dead", "jobs.open", "jobs.oldest_open"), 0)
    assert found == {
        "delivery.durable": 1,
        "delivery.paused": 1,
        "events.pending": 1,
        **nothing,
    }


def test_gauges_while_the_database_is_used(
    make: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who measures does not wait for ever: a signal handler may have interrupted who uses the database."""
    monkeypatch.setattr(gauges, "GAUGE_WAIT", 0.01)
    delivery = make()
    record(delivery, 1)
    assert delivery.flush(10)
    with delivery.drainer.database:
        found = delivery.gauges()
    assert found.pop("spool.size") > 0
    assert found == {"delivery.durable": 1, "delivery.paused": 0}


# Forks


def in_child(function: Callable[[], bool]) -> None:
    """Run a function in a forked child, which then ends at once, and check that it says True."""
    child = os.fork()
    if child == 0:  # pragma: no cover - measured in the parent only
        fine = False
        try:
            fine = function()
        finally:
            os._exit(0 if fine else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_child_that_ends_at_once(make: Deliveries) -> None:
    """What a forked child records is on the disk when it ends without a word, and is delivered by its parent."""
    delivery = make()
    record(delivery, 1)
    assert delivery.flush(10)

    def child() -> bool:
        record(delivery, 2)
        return delivery.outcomes()["recorded"] == 1

    in_child(child)
    assert delivery.flush(10)
    for path in make.directory.journals():
        assert scan(path.read_bytes(), final=True).damaged == []
    record(delivery, 3)
    delivery.close(10)
    assert counts(make.directory) == {"recorded": 3, "delivered": 3}


def test_a_child_forked_by_something_else(
    make: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork that Python was not told of shows in the process's id, before anything is written."""
    delivery = make()
    monkeypatch.setattr(delivery.drainer, "start", lambda: None)
    record(delivery, 1)
    before = delivery._journal.name
    delivery._pid = 1
    record(delivery, 2)
    assert delivery._pid == os.getpid()
    assert delivery._journal.name != before
    records = [scan(path.read_bytes(), final=True).records for path in make.directory.journals()]
    assert [[decode(record)[0] for record in found] for found in records] == [
        [event_id(1)],
        [event_id(2)],
    ]


def test_forking_while_it_drains(make: Deliveries) -> None:
    """However often a busy process is forked, each event is delivered once, by whoever drains."""
    backend = Backend()
    delivery = make(backend)
    for number in range(10):
        record(delivery, 2 * number)
        in_child(lambda number=number: record(delivery, 2 * number + 1) is None)
    assert delivery.flush(10)
    delivery.close(10)
    assert counts(make.directory) == {"recorded": 20, "delivered": 20}
    assert sorted(event for event, _ in backend.posted) == [
        event_id(number) for number in range(20)
    ]


def test_a_directory_whose_name_is_no_text(tmp_path: Path) -> None:
    """A path may be any bytes: events are kept, counted and read there."""
    directory = Directory.prepare(tmp_path / os.fsdecode(b"sp%ool\xff?#"), None, "default")
    delivery = DurableDelivery(directory, Options(post=None))
    record(delivery, 1)
    assert delivery.flush(10)
    assert counts(directory) == {"recorded": 1, "local": 1}
    delivery.close(10)
