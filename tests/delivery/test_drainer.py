"""The drainer: what journals hold is sent, each outcome is kept, and whatever fails it goes on where it was."""

from __future__ import annotations

import _thread
import contextlib
import logging
import math
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery import Outcome, relay, upkeep, watch
from cmdrdata_exporter.delivery import drainer as module
from cmdrdata_exporter.delivery.drainer import Drainer, Options
from cmdrdata_exporter.delivery.spool import labels, salvage
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.journal_reader import JournalsReader
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.retention import KEEP
from cmdrdata_exporter.delivery.spool.schema import MIGRATIONS
from tests.delivery.samples import (
    BROKEN,
    DELIVERED,
    FORBIDDEN,
    NOW,
    REFUSED,
    UNAUTHORIZED,
    UNAVAILABLE,
    Clock,
    counts,
    event_id,
    held,
    open_files,
    record,
    told,
    wait_for,
)


class Backend:
    """Answers attempts as scripted, the last outcome from then on."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.posted: list[str] = []

    def __call__(self, posted: str, body: bytes, timeout: float) -> Outcome:
        """Take an attempt."""
        self.posted.append(posted)
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]


class Host:
    """A drainer without a thread: each turn is made by the test."""

    def __init__(
        self,
        directory: Directory,
        backend: Backend | None,
        clock: Clock,
        options: Options | None = None,
    ) -> None:
        self.directory, self.clock = directory, clock
        self.journal = Journal(directory)
        options = options or Options(post=backend, clock=clock)
        self.drainer = Drainer(directory, self.journal, options)

    def turn(self, until: Callable[[], bool], most: int = 50) -> None:
        """Make turns until something is so, one a second by the time of day."""
        for _ in range(most):
            self.drainer._turn()
            self.clock.now += 1
            if until():
                return
        raise AssertionError(f"it never comes to that: {counts(self.directory)}")

    def append(self, *numbers: int) -> None:
        """Record events."""
        for number in numbers:
            self.journal.append(record(number))

    def has(self, **expected: int) -> Callable[[], bool]:
        """Return what says whether the counts are as expected, those that are zero left out."""
        return lambda: counts(self.directory) == expected

    def close(self) -> None:
        """End it as the end of a process does."""
        self.journal.seal()
        self.drainer._end()


@pytest.fixture
def clock() -> Clock:
    """The time of day, which stands."""
    return Clock(NOW)


@pytest.fixture
def backend() -> Backend:
    """A backend that takes everything until it is scripted otherwise."""
    return Backend(DELIVERED)


@pytest.fixture
def host(directory: Directory, backend: Backend, clock: Clock) -> Iterator[Host]:
    """A host whose backend answers as scripted."""
    host = Host(directory, backend, clock)
    yield host
    host.close()


@pytest.fixture
def local(directory: Directory, clock: Clock) -> Iterator[Host]:
    """A host that is itself the destination."""
    host = Host(directory, None, clock)
    yield host
    host.close()


def ids(*numbers: int) -> list[str]:
    """Return the ids of events."""
    return [event_id(number) for number in numbers]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged."""
    return [record.getMessage() for record in caplog.records]


# Draining


def test_from_the_journal_to_the_backend(host: Host, backend: Backend) -> None:
    """What was appended is sent once, and a journal that is done with is removed."""
    host.append(1, 2, 3)
    host.turn(host.has(recorded=3, delivered=3))
    assert sorted(backend.posted) == ids(1, 2, 3)
    assert len(host.directory.journals()) == 1
    host.journal.seal()
    host.turn(lambda: host.directory.journals() == [])
    host.append(4)
    host.turn(host.has(recorded=4, delivered=4))
    assert sorted(backend.posted) == ids(1, 2, 3, 4)


def test_what_an_earlier_process_has_left(directory: Directory, host: Host) -> None:
    """A process that begins takes back what was in flight, and sends it as something ambiguous."""
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.import_records("0.journal", 7, [record(1), record(2)], [], NOW)
        ledger.claim(1, NOW)
    ledger.close()
    host.turn(host.has(recorded=2, delivered=2, ambiguous=1))


def test_where_events_stay(local: Host) -> None:
    """Without a backend events are imported, and nothing is sent."""
    local.append(1)
    local.journal.append(held(2))
    local.turn(local.has(recorded=2, local=1, held=1))
    assert local.drainer.relay.in_flight == 0


def test_local_events_make_room(local: Host, caplog: pytest.LogCaptureFixture) -> None:
    """Where the directory is nearly full bodies of local events go; the log says once that it is."""
    local.drainer.relay._options = replace(local.drainer._options, largest=100_000)
    local.append(*range(300))
    local.turn(local.has(recorded=300, local=300))
    local.drainer.relay.upkeep.next = local.drainer._next_measure = 0.0
    local.turn(lambda: local.journal.is_full)
    local.drainer.relay.upkeep.next = local.drainer._next_measure = 0.0
    local.drainer._turn()
    with LedgerReader(local.directory) as reader:
        assert list(reader.kept("local")) == []
    assert counts(local.directory) == {"recorded": 300, "local": 300}
    assert messages(caplog) == [
        f"{local.directory.path} has 0 MB of usage events, of 0 MB that it may have; beyond that new events go to the "
        "log"
    ]


def test_totals_of_long_ago(local: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days become months once they are old, a few in a round, and what totals take is no room that events miss."""
    monkeypatch.setattr(upkeep, "DAYS", 2)
    # NOW is in January 2027; the last days of which the month is old are in September.
    days = ("2026-08-31", "2026-09-01", "2026-09-30", "2026-10-01", "2027-01-01")
    for number, day in enumerate(days):
        local.journal.append(record(number, day=day))

    def known() -> list[str]:
        with LedgerReader(local.directory) as reader:
            return [
                total.group[0] for total in reader.usage.totals(["day"]) if total.unit == "events"
            ]

    local.turn(lambda: len(known()) > 0)
    local.drainer.relay.upkeep._next_expiry = 0.0
    for _ in range(4):
        local.drainer.relay.upkeep.next = 0.0
        local.drainer._turn()
    assert ["2026-08", "2026-09", "2026-10-01", "2027-01-01"] == known()
    assert 0 < int((local.directory.path / "totals.size").read_text()) < 2000


def test_hours_of_long_ago(local: Host) -> None:
    """Hours become days once they are nine days old."""
    # NOW is 2027-01-15.
    for number, day in enumerate(("2027-01-06", "2027-01-07", "2027-01-15")):
        local.journal.append(told(number, day=day))

    def known() -> list[str]:
        with LedgerReader(local.directory) as reader:
            return [
                total.group[0] for total in reader.usage.totals(["hour"]) if total.unit == "events"
            ]

    local.turn(lambda: len(known()) > 0)
    local.drainer.relay.upkeep.restart()
    local.drainer._turn()
    assert ["2027-01-06", "2027-01-07T10", "2027-01-15T10"] == known()


def test_labels_with_too_many_values(
    directory: Directory,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log says once of which metadata keys not all values are told apart, and commands can see it."""
    monkeypatch.setattr(labels, "MOST_VALUES", 2)
    options = Options(post=None, clock=clock, total_by=("plan", "user"))
    host = Host(directory, None, clock, options)
    for number in range(5):
        host.journal.append(told(number, plan="pro", user=number))
    host.turn(host.has(recorded=5, local=5))
    for _ in range(2):
        host.drainer.relay.upkeep.next = 0.0
        host.drainer._turn()
    assert [
        "usage is summed by 1,000 values of a metadata key at most: further ones of user count as (other). "
        "Leave keys with so many values out of CMDRDATA_TOTAL_BY"
    ] == messages(caplog)
    with LedgerReader(directory) as reader:
        known = reader.facts()
    assert (["plan", "user"], ["user"]) == (known["total_by"], known["full_labels"])
    host.close()


def test_one_leads(directory: Directory, clock: Clock) -> None:
    """Of two that drain one directory the first leads until it ends, then the other does; each event is sent once."""
    backend = Backend(DELIVERED)
    one, two = Host(directory, backend, clock), Host(directory, backend, clock)
    one.turn(lambda: one.drainer.leads)
    two.drainer._turn()
    two.append(1)
    assert not two.drainer.leads
    one.turn(one.has(recorded=1, delivered=1))
    assert not two.drainer._is_over()
    two.drainer._stop_at = time.monotonic() + 60
    assert two.drainer._is_over()
    two.drainer._stop_at = None
    one.close()
    two.append(2)
    two.drainer.leadership._next_attempt = 0.0
    two.turn(two.has(recorded=2, delivered=2))
    assert backend.posted == ids(1, 2)
    two.close()


def test_a_clock_that_goes_back(host: Host, backend: Backend, clock: Clock) -> None:
    """What would be due in a year only, since the clock was set back, is sent at once."""
    backend.outcomes = [UNAVAILABLE, DELIVERED]
    clock.now = NOW + 365 * 86400
    host.append(1)
    host.turn(lambda: len(backend.posted) == 1)
    host.turn(host.has(recorded=1, pending=1))
    clock.now = NOW
    host.turn(host.has(recorded=1, delivered=1))


# What fails


class Full:
    """A disk on which nothing can be committed while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self.failed = 0
        real = Ledger.transaction

        @contextlib.contextmanager
        def transaction(ledger: Ledger) -> Generator[None]:
            with real(ledger):
                yield
                if self.full:
                    self.failed += 1
                    raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(Ledger, "transaction", transaction)


def test_a_full_disk(
    host: Host,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While outcomes cannot be committed nothing is sent; then all goes on, and nothing was sent twice."""
    disk = Full(monkeypatch)
    host.append(1, 2)
    host.turn(host.has(recorded=2, delivered=2))
    host.append(3)

    def then_full(posted: str, body: bytes, timeout: float) -> Outcome:
        disk.full = True
        return Backend.__call__(backend, posted, body, timeout)

    monkeypatch.setattr(host.drainer.relay.senders, "_post", then_full)
    host.turn(lambda: disk.full)
    host.append(4)
    host.turn(lambda: disk.failed >= 3)
    assert sorted(backend.posted) == ids(1, 2, 3)
    assert counts(host.directory) == {"recorded": 4, "delivered": 2, "in_flight": 1, "pending": 1}
    monkeypatch.setattr(host.drainer.relay.senders, "_post", backend)
    disk.full = False
    host.turn(host.has(recorded=4, delivered=4))
    assert sorted(backend.posted) == ids(1, 2, 3, 4)
    assert messages(caplog) == [
        f"usage events in {host.directory.path} wait: SQLite says database or disk is full. None is lost; it is tried "
        "again",
        f"usage events in {host.directory.path} go on",
    ]


def test_a_failure_does_not_import_again(
    host: Host, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a turn that failed at any moment, no journal is imported a second time."""
    disk = Full(monkeypatch)
    host.append(1, 2)
    host.turn(host.has(recorded=2, delivered=2))
    disk.full = True
    host.drainer._turn()
    disk.full = False
    # In the moment in which journals are not to be looked at.
    host.drainer.relay.journals_pending = False
    host.drainer.relay._next_import = time.monotonic() + 3600
    with host.drainer.database:
        ledger = host.drainer.leadership.ledger()
        assert host.drainer.relay.step(ledger) == []
        host.drainer.relay.tidy_up(ledger)
    host.drainer.relay._next_import = 0.0
    host.append(3)
    host.turn(host.has(recorded=3, delivered=3))
    assert sorted(backend.posted) == ids(1, 2, 3)


def test_what_fails_after_a_commit(
    host: Host, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was handed out is sent, even where what comes after the commit fails."""

    def fail(readings: JournalsReader) -> list[str]:
        raise PermissionError(13, "Permission denied")

    host.append(1)
    with monkeypatch.context() as patch:
        patch.setattr(JournalsReader, "remove_finished", fail)
        host.turn(host.has(recorded=1, delivered=1))
    assert backend.posted == ids(1)


def test_a_defect_of_ours(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised in a turn, the next one is made."""

    def fail(ledger: Ledger) -> None:
        raise ZeroDivisionError

    host.append(1)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "next_due", fail)
        host.drainer._turn()
        host.drainer._turn()
    host.turn(host.has(recorded=1, delivered=1))
    assert faults.counts.pop("drainer") == 2


def test_a_ledger_of_a_later_version(
    host: Host, directory: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    """A ledger of a later version is left to that version: nobody leads, and nothing is sent."""
    ledger = Ledger(directory)
    ledger._db.execute("PRAGMA user_version = 9")
    ledger.close()
    host.append(1)
    host.drainer._turn()
    assert not host.drainer.leads
    assert directory.leader() is None
    assert messages(caplog) == [
        f"usage events in {directory.path} wait: its ledger is of version 9, and this release knows version "
        f"{len(MIGRATIONS)}. None is lost; it is tried again"
    ]


def test_a_reader_that_does_not_end(
    host: Host,
    backend: Backend,
    directory: Directory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A program that stays in a transaction lets the log of the database grow to its limit; then all waits for it."""
    monkeypatch.setattr(relay, "LARGEST_LOG", 100_000)
    host.append(1)
    host.turn(host.has(recorded=1, delivered=1))
    reader = sqlite3.connect(directory.path / "ledger.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchone()
    host.append(*range(2, 200))
    host.drainer._turn()
    host.drainer._next_measure = 0.0
    host.drainer._turn()
    sizes: set[int] = set()
    host.append(200)
    for _ in range(5):
        host.drainer.relay._next_import = host.drainer.relay.upkeep.next = 0.0
        host.drainer._turn()
        sizes.add(directory.log_size())
    # What was in flight was committed still.
    assert len(sizes) <= 2
    assert event_id(200) not in backend.posted
    reader.close()
    host.turn(host.has(recorded=200, delivered=200))
    assert 200 == len(backend.posted)
    assert 1 == sum("is read by a program that does not end" in text for text in messages(caplog))


@pytest.mark.parametrize("page", [1, 0])
def test_a_large_damaged_ledger(
    host: Host, directory: Directory, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """However large a ledger is, it is salvaged where opening it or taking back what was in flight finds it damaged."""
    monkeypatch.setattr(salvage, "LARGEST_CHECKED", 0)
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.import_records("0.journal", 7, [record(number) for number in range(300)], [], NOW)
    query = "SELECT rootpage FROM sqlite_master WHERE name = 'by_state'"
    (root,) = ledger._db.execute(query).fetchone()
    ledger.close()
    with (directory.path / "ledger.db").open("r+b") as file:
        file.seek((page or root) * 4096 - 4096)
        file.write(b"garbage!" * 512)
    host.turn(host.has(recorded=300, delivered=300, salvaged=1))


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_damaged_ledger(
    host: Host,
    backend: Backend,
    caplog: pytest.LogCaptureFixture,
    when: str,
) -> None:
    """A ledger that is found to be damaged, at the start or later, is salvaged, and its events are sent."""
    directory = host.directory
    if when == "before":
        (directory.path / "ledger.db").write_bytes(b"no database at all" * 100)
    host.append(1)
    host.turn(lambda: counts(directory).get("delivered", 0) == 1)
    if when == "meanwhile":
        backend.outcomes = [UNAVAILABLE]
        host.append(2, 3)
        host.turn(
            lambda: counts(directory).get("recorded") == 3 and not host.drainer.relay.in_flight
        )
        assert host.drainer.leadership._ledger is not None
        host.drainer.leadership._ledger._db.execute("DROP TABLE totals")
        backend.outcomes = [DELIVERED]
        host.append(4)
        host.turn(lambda: counts(directory).get("delivered") == 4)
        assert counts(directory)["salvaged"] == 1
    assert len(list(directory.path.glob("ledger.db.broken-*"))) == 1
    told = [message for message in messages(caplog) if "was damaged" in message]
    assert len(told) == 1
    assert "0 events could not" in told[0]


def test_a_directory_that_is_removed(
    host: Host, backend: Backend, directory: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    """A directory that someone removes begins anew, without what was in it, and the log says what that was."""
    backend.outcomes = [UNAVAILABLE]
    host.append(1, 2)
    host.turn(lambda: counts(directory) == {"recorded": 2, "pending": 2})
    shutil.rmtree(directory.path)
    backend.outcomes = [DELIVERED]
    host.drainer._next_measure = 0.0
    host.drainer.gate._shut_until = 0.0
    host.drainer._turn()
    host.append(3)
    host.drainer.leadership._next_attempt = 0.0
    host.turn(host.has(recorded=1, delivered=1))
    assert event_id(3) == backend.posted[-1]
    assert lost(caplog) == {"ledger.db": "usage events (2 to be sent)"}


def lost(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """Return what the log says to be lost, by the name of the file that was removed."""
    parts = [
        message.split(" was removed or replaced under this process.")
        for message in messages(caplog)
    ]
    return {
        part[0].rpartition("/")[2]: part[1].partition("lost is: ")[2]
        for part in parts
        if len(part) == 2
    }


def test_a_ledger_that_is_removed(
    host: Host, backend: Backend, directory: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    """A ledger alone that someone removes is noticed: what was delivered is not recorded and sent once more."""
    host.append(1)
    host.turn(host.has(recorded=1, delivered=1))
    backend.outcomes = [UNAVAILABLE]
    host.append(2)
    host.turn(host.has(recorded=2, delivered=1, pending=1))
    (directory.path / "ledger.db").unlink()
    backend.outcomes = [DELIVERED]
    host.drainer.gate._shut_until = 0.0
    host.append(3)
    host.drainer.leadership._next_attempt = math.inf
    host.drainer._turn()
    assert not host.drainer.leads
    host.drainer.leadership._next_attempt = 0.0
    host.turn(host.has(recorded=1, delivered=1))
    assert [event_id(1), event_id(3)] == [backend.posted[0], backend.posted[-1]]
    assert 1 == backend.posted.count(event_id(1))
    assert lost(caplog) == {"ledger.db": "usage events (1 to be sent)"}


@pytest.mark.parametrize("name", ["lock", "journal"])
def test_a_file_beside_the_ledger_that_is_removed(
    host: Host, backend: Backend, directory: Directory, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Where the lock or a journal is removed, what was delivered is neither recorded nor sent once more."""
    host.append(1, 2)
    host.turn(host.has(recorded=2, delivered=2))
    path = directory.path / "lock" if name == "lock" else directory.journals()[0]
    path.unlink()
    host.drainer._turn()
    host.append(3)
    host.drainer.leadership._next_attempt = 0.0
    host.turn(host.has(recorded=3, delivered=3))
    assert sorted(backend.posted) == ids(1, 2, 3)
    assert lost(caplog) == ({"lock": "nothing else"} if name == "lock" else {})


def test_an_index_that_is_cut(host: Host, directory: Directory) -> None:
    """Whoever cuts the memory that SQLite shares ends no process that is at rest, and loses nothing."""
    host.append(1)
    host.turn(host.has(recorded=1, delivered=1))
    host.drainer._turn()
    os.truncate(directory.path / "ledger.db-shm", 0)
    host.append(2)
    host.drainer._turn()
    host.turn(host.has(recorded=2, delivered=2))
    assert host.drainer.leads


def test_what_is_imported_is_not_synced(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a turn has committed in the ledger is on the disk, so that the journal need not be synced for it."""
    found: list[int] = []
    monkeypatch.setattr("cmdrdata_exporter.delivery.spool.journal_file._sync", found.append)
    host.drainer._next_sync = math.inf
    host.append(1)
    host.turn(host.has(recorded=1, delivered=1))
    host.journal.sync()
    assert found == []
    host.append(2)
    # What a turn leaves in the journal, since the disk is full, is synced there.
    monkeypatch.setattr(Directory, "free", lambda _: 0)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    host.drainer._turn()
    host.journal.sync()
    assert len(found) == 1
    monkeypatch.undo()
    host.close()


def close_all(directory: Directory, program: Path) -> list[int]:
    """Close every descriptor of a directory's files, and open others of a program's own in their place."""
    files = {(found.st_dev, found.st_ino) for found in map(Path.stat, directory.path.iterdir())}
    numbers: list[int] = []
    for name in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):
            found = os.fstat(int(name.name))
            if (found.st_dev, found.st_ino) in files:
                numbers.append(int(name.name))
    own = os.open(program, os.O_RDWR | os.O_CREAT)
    for number in numbers:
        os.dup2(own, number)
    return [own, *numbers]


def test_descriptors_that_are_closed(
    host: Host,
    backend: Backend,
    directory: Directory,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where a program closes our descriptors, nothing is written to or locked of its own files, and nothing is lost."""
    backend.outcomes = [UNAVAILABLE]
    host.append(1)
    host.turn(host.has(recorded=1, pending=1))
    host.append(2)
    program = tmp_path / "program"
    program.write_bytes(b"its own" * 1000)
    numbers = close_all(directory, program)
    # Journal, lock, and the database with its log and index.
    assert len(numbers) >= 6
    host.append(3)
    backend.outcomes = [DELIVERED]
    host.drainer.gate._shut_until = 0.0
    host.drainer.leadership._next_attempt = math.inf
    host.drainer._turn()
    assert host.drainer.leadership._poisoned
    host.drainer.leadership._next_attempt = 0.0
    host.turn(host.has(recorded=3, delivered=3))
    assert not host.drainer.leadership._poisoned
    assert set(ids(1, 2, 3)) == set(backend.posted)
    host.journal.seal()
    host.drainer._end()
    # Nothing of it was closed, either.
    assert b"its own" * 1000 == program.read_bytes()
    for number in numbers:
        os.close(number)
    assert "has closed descriptors that it has not opened" in caplog.text


def test_descriptors_that_are_closed_before_a_fork(
    host: Host, directory: Directory, tmp_path: Path
) -> None:
    """So it is where the process is forked before that was noticed."""
    host.append(1)
    host.turn(host.has(recorded=1, delivered=1))
    program = tmp_path / "program"
    program.write_bytes(b"its own" * 1000)
    numbers = close_all(directory, program)
    assert host.drainer.leadership.park()
    host.drainer.leadership.unpark()
    assert b"its own" * 1000 == program.read_bytes()
    host.append(2)
    host.drainer._turn()
    host.drainer.leadership._next_attempt = 0.0
    host.turn(host.has(recorded=2, delivered=2))
    for number in numbers:
        os.close(number)


# What the backend says


def test_a_wrong_key(
    host: Host, backend: Backend, directory: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    """While the key is refused all is kept, commands can see why, and the log says it at the beginning and the end."""
    backend.outcomes = [UNAUTHORIZED]
    host.append(1, 2)
    host.turn(lambda: counts(directory) == {"recorded": 2, "pending": 2} and backend.posted != [])
    host.turn(lambda: "pid" in facts(directory))
    assert facts(directory) == {
        "at": pytest.approx(NOW, abs=50),
        "breaks": [],
        "folded": ["", "2026-11-21"],
        "full_labels": [],
        "present": pytest.approx(NOW, abs=50),
        "index": None,
        "next_attempt": pytest.approx(NOW + 60, abs=50),
        "paused": True,
        "pid": os.getpid(),
        "probing": True,
        "reason": "HTTP 401",
        "total_by": [],
    }
    backend.outcomes = [DELIVERED]
    host.drainer.gate._shut_until = 0.0
    host.turn(host.has(recorded=2, delivered=2))
    host.drainer._turn()
    assert [message.partition("(")[0] for message in messages(caplog)] == [
        "delivery is paused: the backend refuses the key or endpoint ",
        "the backend accepts usage events again",
    ]


def facts(directory: Directory) -> dict[str, object]:
    """Return what the process that drains has noted."""
    with LedgerReader(directory) as reader:
        found = reader.facts()
    return found if found.get("paused") else {}


def test_a_backend_that_is_down(
    host: Host, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """A backend that does not answer is told once, after several failures."""
    backend.outcomes = [BROKEN]
    host.append(*range(6))
    host.turn(lambda: host.drainer.gate.in_trouble)
    host.turn(lambda: "cannot be reached" in caplog.text)
    (message,) = messages(caplog)
    assert message.startswith(
        "usage events wait: the backend cannot be reached or fails (HTTP 500, "
    )


def test_a_refused_event(
    host: Host, backend: Backend, directory: Directory, caplog: pytest.LogCaptureFixture
) -> None:
    """A refused event is dead, with its reason there and in the log, and those behind it are delivered."""
    backend.outcomes = [REFUSED, DELIVERED]
    host.append(1, 2, 3)
    host.turn(host.has(recorded=3, dead=1, delivered=2))
    with LedgerReader(directory) as reader:
        (dead,) = reader.kept("dead")
    assert dead.reason == "HTTP 400: no such model"
    assert dead.event is not None
    host.drainer._turn()
    assert messages(caplog) == [
        f"the backend refused 1 usage event for good, the last one {dead.event.id} with HTTP 400: no such model. "
        "Refused events are kept as dead letters: see `cmdrdata dead-letters list`"
    ]


def test_an_event_that_is_forbidden(host: Host, backend: Backend, directory: Directory) -> None:
    """One that a firewall dislikes is set aside with its reason; it holds up no other one."""
    host.append(1)
    real = backend.__call__

    def firewall(posted: str, body: bytes, timeout: float) -> Outcome:
        return FORBIDDEN if posted == event_id(1) else real(posted, body, timeout)

    assert host.drainer.relay.senders is not None
    host.drainer.relay.senders._post = firewall
    host.turn(lambda: host.drainer.gate.reason is not None)
    host.turn(host.has(recorded=1, pending=1))
    host.append(2)
    host.turn(host.has(recorded=2, delivered=1, dead=1))
    with LedgerReader(directory) as reader:
        assert [dead.reason for dead in reader.kept("dead")] == ["HTTP 403: blocked"]
    assert not host.drainer.gate.in_trouble


def test_what_was_tried_in_vain_leaves_room(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many events never get an answer, and come again and again, most senders are free for new ones."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.backoff.uniform", lambda low, high: 0.0)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    old = set(ids(*range(40)))
    with host.drainer.database:
        ledger = host.drainer.leadership.ledger()
        with ledger.transaction():
            ledger.import_records("0.journal", 7, list(map(record, range(40))), [], NOW - 9)
            ledger.record_outcomes(
                [(event, BROKEN) for event in ledger.claim(40, NOW - 8)], NOW - 7
            )
    hanging, over = list[str](), threading.Event()

    def post(posted: str, body: bytes, timeout: float) -> Outcome:
        if posted in old:
            hanging.append(posted)
            assert over.wait(10)
        return DELIVERED

    assert host.drainer.relay.senders is not None
    monkeypatch.setattr(host.drainer.relay.senders, "_post", post)
    host.append(*range(100, 150))
    host.turn(lambda: counts(host.directory).get("delivered") == 50)
    assert len(hanging) == relay.AGAIN
    # The others are due, and wait for an answer: nothing is to be done until then.
    assert host.drainer.relay._due is None
    over.set()
    host.turn(lambda: counts(host.directory).get("delivered") == 90)


def test_what_expires(host: Host, backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    """What could not be delivered for thirty days is told."""
    backend.outcomes = [UNAUTHORIZED]
    host.append(1, 2)
    host.turn(host.has(recorded=2, pending=2))
    caplog.clear()
    with host.drainer.database:
        ledger = host.drainer.leadership.ledger()
        with ledger.transaction():
            ledger._db.execute("UPDATE events SET recorded = recorded - ?", (KEEP,))
    host.drainer.relay.upkeep.restart()
    host.turn(host.has(recorded=2, dead=2, expired=2))
    assert messages(caplog) == [
        "2 usage events could not be delivered for 30 days. Expired events are kept as dead letters: see `cmdrdata "
        "dead-letters list`"
    ]


# The thread


class Running:
    """A drainer with its thread."""

    def __init__(self, directory: Directory, backend: Callable[..., Outcome]) -> None:
        self.journal = Journal(directory)
        self.drainer = Drainer(directory, self.journal, Options(post=backend))


def test_the_thread(directory: Directory) -> None:
    """Started, it delivers what is recorded; stopped, it has delivered what could be and lets another one lead."""
    posted = threading.Event()

    def post(*_: object) -> Outcome:
        posted.set()
        return DELIVERED

    running = Running(directory, post)
    running.drainer.start()
    running.drainer.start()
    running.journal.append(record(1))
    running.drainer.wake()
    assert posted.wait(10)
    running.journal.append(record(2))
    running.journal.seal()
    running.drainer.stop(10)
    assert (running.drainer.running, directory.leader()) == (False, None)
    assert counts(directory) == {"recorded": 2, "delivered": 2}
    running.drainer.stop(10)
    running.journal.append(record(3))
    running.drainer.start()
    running.journal.seal()
    running.drainer.stop(10)
    assert counts(directory) == {"recorded": 3, "delivered": 3}


@pytest.mark.parametrize(
    "outcome", [UNAVAILABLE, UNAUTHORIZED, Outcome(UNAVAILABLE.verdict, "HTTP 429", retry_after=99)]
)
def test_stopping_while_nothing_can_be_delivered(directory: Directory, outcome: Outcome) -> None:
    """The end waits as long as something may come of it, no longer, and what is left stays."""
    running = Running(directory, Backend(outcome))
    running.journal.append(record(1))
    running.drainer.start()
    running.drainer.stop(0.3)
    assert not running.drainer.running
    assert counts(directory) == {"recorded": 1, "pending": 1}
    running.journal.seal()


def test_stopping_with_a_backend_that_does_not_answer(directory: Directory) -> None:
    """An attempt that hangs does not hold up the end; its event is taken back by whoever drains next."""
    asked, answer = threading.Event(), threading.Event()

    def post(*_: object) -> Outcome:
        asked.set()
        assert answer.wait(10)
        return DELIVERED

    running = Running(directory, post)
    running.journal.append(record(1))
    running.drainer.start()
    assert asked.wait(10)
    running.drainer.stop(0)
    assert counts(directory) == {"recorded": 1, "in_flight": 1}
    answer.set()
    after = Running(directory, Backend(DELIVERED))
    after.drainer.start()
    after.drainer.stop(10)
    assert counts(directory) == {"recorded": 1, "delivered": 1, "ambiguous": 1}
    running.journal.seal()


def test_many_that_start_at_once(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads start it at once, one thread drains."""
    started: list[object] = []
    monkeypatch.setattr(_thread, "start_new_thread", lambda *arguments: started.append(arguments))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    drainer = Running(directory, Backend(DELIVERED)).drainer
    begin = drainer._begin

    def begin_slowly() -> None:
        # In the middle of one start another one begins.
        drainer.running = False
        drainer.start()
        drainer.running = True
        begin()

    drainer._begin = begin_slowly
    drainer.start()
    assert len(started) == 1


def test_an_interrupted_start(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a start leaves it to the next event."""
    drainer = Drainer(directory, Journal(directory), Options(post=Backend(DELIVERED)))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(drainer, "_begin", interrupt)
        with pytest.raises(KeyboardInterrupt):
            drainer.start()
    assert not drainer.running
    drainer.start()
    assert drainer.running
    drainer.stop(10)


def test_an_interruption_once_the_thread_runs(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C as soon as the thread runs starts no second one, which would send again what the first one sends."""
    start_thread = _thread.start_new_thread
    started: list[int] = []

    def start(*arguments: Any) -> int:
        # Python hears of it once the mask is as it was.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        started.append(start_thread(*arguments))
        return started[-1]

    backend = Backend(DELIVERED)
    running = Running(directory, backend)
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", start)
        with pytest.raises(KeyboardInterrupt):
            running.drainer.start()
    assert running.drainer.running
    first = running.drainer.relay
    running.journal.append(record(1))
    running.drainer.start()
    assert running.drainer.relay is first
    running.drainer.stop(10)
    assert backend.posted == ids(1)
    assert counts(directory) == {"recorded": 1, "delivered": 1}
    running.journal.seal()


def test_how_often_the_journal_is_synced(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another process drains, one sync begins 0.2 s after another one, however long each of them takes."""
    clock = Clock(100.0)
    monkeypatch.setattr(clocks, "monotonic", clock)
    journal = Journal(directory)
    began: list[float] = []

    def sync() -> None:
        began.append(clock.now - 100)
        clock.now += 0.03

    def wait(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(journal, "sync", sync)
    drainer = Drainer(directory, journal, Options(post=Backend(DELIVERED), drains=False))
    monkeypatch.setattr(drainer.relay, "collect", wait)
    for _ in range(3):
        drainer._turn()
    assert began == pytest.approx([0, module.TICK, 2 * module.TICK])


def test_where_no_thread_can_be_started(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interpreter that shuts down starts no thread: what is recorded stays in the journal."""

    def none(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", none)
    running = Running(directory, Backend(DELIVERED))
    running.drainer.start()
    assert not running.drainer.running
    running.journal.append(record(1))
    running.journal.seal()
    assert counts(directory) == {"recorded": 1, "pending": 1}


def test_a_thread_that_sends_itself(
    host: Host, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are no senders the drainer's own thread sends, one event after the other."""

    def none(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", none)
    host.append(1, 2)
    host.turn(host.has(recorded=2, delivered=2))
    assert backend.posted == ids(1, 2)


def test_a_last_commit_that_fails(
    directory: Directory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the last outcomes cannot be committed the end comes all the same, and the next process sends again."""
    host = Host(directory, Backend(DELIVERED), clock)
    host.append(1)
    host.turn(lambda: host.drainer.relay.outcomes != [])
    Full(monkeypatch).full = True
    host.drainer._end()
    assert directory.leader() is None
    assert faults.counts.pop("last commit") == 1
    assert counts(directory) == {"recorded": 1, "in_flight": 1}
    host.journal.seal()


# Destinations with nothing to do


@pytest.fixture
def resting(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A drainer whose destination has just been left, with one event delivered."""
    monkeypatch.setattr(module, "IDLE", 0.0)
    monkeypatch.setattr(watch, "INTERVAL", 0.01)
    monkeypatch.setattr(module, "watch", watch.Watch())
    running = Running(directory, Backend(DELIVERED))
    running.journal.append(record(1))
    running.drainer.start()
    wait_for(lambda: running.drainer.rests)
    yield running
    running.journal.seal()
    running.drainer.stop(10)


def test_a_destination_with_nothing_to_do(resting: Running, directory: Directory) -> None:
    """It keeps no thread, no lock, no file and no connection; all that it had is delivered."""
    assert (resting.drainer.running, resting.drainer.leads) == (False, False)
    assert counts(directory) == {"recorded": 1, "delivered": 1}
    assert (directory.journals(), directory.leader(), open_files(directory)) == ([], None, 0)


def test_the_next_event(resting: Running, directory: Directory) -> None:
    """The next event begins again, as often as there is one."""
    for number in range(2, 5):
        resting.journal.append(record(number))
        resting.drainer.start()
        wait_for(
            lambda number=number: counts(directory) == {"recorded": number, "delivered": number}
        )
        wait_for(lambda: resting.drainer.rests)


def test_what_others_record(resting: Running, directory: Directory) -> None:
    """What a process records that ends at once is delivered by one that rests."""
    other = Journal(directory)
    other.append(record(2))
    other.seal()
    wait_for(lambda: counts(directory) == {"recorded": 2, "delivered": 2})


def test_what_a_command_leaves(resting: Running, directory: Directory) -> None:
    """What a command has taken in itself, since nobody led, is delivered by one that rests."""
    lock = directory.try_to_lead()
    assert lock is not None
    ledger = Ledger(directory)
    with ledger.transaction():
        ledger.import_records("0.journal", 7, [record(2)], [], NOW)
    ledger.close()
    os.close(lock)
    wait_for(lambda: counts(directory) == {"recorded": 2, "delivered": 2})


def test_an_event_in_the_moment_of_leaving(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that finds the thread running still, which is about to end, is delivered all the same."""
    monkeypatch.setattr(module, "IDLE", 0.0)
    running = Running(directory, Backend(DELIVERED))
    end = running.drainer._end

    def record_and_end() -> None:
        if not running.drainer._stop_at and counts(directory).get("recorded", 0) < 3:
            running.journal.append(record(counts(directory).get("recorded", 0) + 1))
            assert running.drainer.running
        end()

    monkeypatch.setattr(running.drainer, "_end", record_and_end)
    running.drainer.start()
    wait_for(lambda: counts(directory) == {"recorded": 3, "delivered": 3})
    running.journal.seal()
    running.drainer.stop(10)


def test_what_waits_is_not_left(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """While anything waits, however long, somebody is there to deliver it."""
    monkeypatch.setattr(module, "IDLE", 0.0)
    refusing = Host(directory, Backend(UNAUTHORIZED), Clock(NOW))
    refusing.append(1)
    refusing.turn(lambda: refusing.drainer.gate.paused)
    refusing.journal.seal()
    refusing.turn(lambda: directory.journals() == [] and not refusing.drainer.relay.in_flight)
    assert counts(directory) == {"recorded": 1, "pending": 1}
    assert not refusing.drainer._may_rest()
    refusing.close()


def test_a_sidecar_stays(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What drains for others stays, with nothing to do."""
    monkeypatch.setattr(module, "IDLE", 0.0)
    drainer = Drainer(directory, Journal(directory), Options(post=Backend(DELIVERED), stays=True))
    for _ in range(3):
        drainer._turn()
    assert drainer.leads
    assert not drainer._may_rest()
    drainer._end()


# Where another process drains


@pytest.fixture
def recording(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """What takes care of the journal of an application that never drains."""
    monkeypatch.setattr(module, "IDLE", 0.0)
    monkeypatch.setattr(directory, "try_to_lead", lambda: pytest.fail("it looks for the lock"))
    running = Running(directory, Backend(DELIVERED))
    running.drainer = Drainer(
        directory, running.journal, Options(post=Backend(DELIVERED), drains=False)
    )
    yield running
    running.journal.seal()
    running.drainer.stop(10)


def test_an_application_that_never_drains(recording: Running, directory: Directory) -> None:
    """It syncs and ends its journals, and then has no thread; it neither leads nor looks whether it could."""
    recording.journal.append(record(1))
    recording.drainer.start()
    wait_for(lambda: recording.drainer.rests and not recording.drainer.running)
    assert (recording.journal.is_open, len(directory.journals())) == (False, 1)
    recording.journal.append(record(2))
    recording.drainer.start()
    wait_for(lambda: recording.drainer.rests and not recording.journal.is_open)
    assert counts(directory) == {"recorded": 2, "pending": 2}
    assert directory.leader() is None
    recording.journal.append(record(3))
    recording.drainer.start()
    began = time.monotonic()
    recording.drainer.stop(60)
    assert time.monotonic() - began < 10


def test_a_sidecar(recording: Running, directory: Directory, clock: Clock) -> None:
    """What an application that never drains has recorded is delivered by another process."""
    recording.journal.append(record(1))
    recording.drainer.start()
    backend = Backend(DELIVERED)
    sidecar = Host(Directory(directory.path), backend, clock)
    sidecar.turn(sidecar.has(recorded=1, delivered=1))
    sidecar.close()
    assert backend.posted == ids(1)


# Forks


def test_parking(host: Host) -> None:
    """Parked, the database is closed; afterwards the same process goes on."""
    host.append(1)
    host.turn(host.has(recorded=1, delivered=1))
    assert host.drainer.leadership.park()
    assert host.drainer.leadership._ledger is None
    host.drainer.leadership.unpark()
    host.append(2)
    host.turn(host.has(recorded=2, delivered=2))


def test_a_forked_child(host: Host, directory: Directory) -> None:
    """A child of a parked parent leads nowhere until its parent has ended, whose lock it leaves alone."""
    host.turn(lambda: host.drainer.leads)
    assert host.drainer.leadership.park()
    child = os.fork()
    if child == 0:  # pragma: no cover - measured in the parent only
        host.journal.forked()
        host.drainer.forked(parked=True)
        host.drainer._turn()
        fine = (
            host.drainer.leadership.may_lead
            and not host.drainer.leads
            and directory.leader() is not None
        )
        os._exit(0 if fine else 1)
    host.drainer.leadership.unpark()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert directory.leader() == os.getpid()
    host.append(1)
    host.turn(host.has(recorded=1, delivered=1))


def test_a_fork_while_it_begins_to_lead(
    host: Host, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who forks then waits: a child with a copy of the lock that it does not know would keep it from everybody."""
    real, locked = directory.try_to_lead, list[bool]()

    def lead() -> int | None:
        locked.append(host.drainer.database.locked())
        return real()

    monkeypatch.setattr(directory, "try_to_lead", lead)
    host.turn(lambda: host.drainer.leads)
    assert locked == [True]


def test_a_child_forked_in_the_middle(host: Host, directory: Directory) -> None:
    """A child whose parent could not be parked never uses SQLite: what it records, others send."""
    host.turn(lambda: host.drainer.leads)
    child = os.fork()
    if child == 0:  # pragma: no cover - measured in the parent only
        host.journal.forked()
        host.drainer.forked(parked=False)
        host.append(1)
        host.drainer._turn()
        host.drainer._stop_at = time.monotonic() + 60
        os._exit(0 if not host.drainer.leads and host.drainer._is_over() else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    host.turn(host.has(recorded=1, delivered=1))


def test_a_parent_that_cannot_be_parked(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork waits for the database, but not for ever."""

    class Busy:
        """A lock that is not had."""

        def acquire(self, timeout: float) -> bool:
            """Wait in vain."""
            assert timeout == 1.0
            return False

    with monkeypatch.context() as patch:
        patch.setattr(host.drainer.leadership, "database", Busy())
        assert not host.drainer.leadership.park()


def test_nothing_of_an_event_is_in_the_log(
    host: Host, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is told, no event is."""
    caplog.set_level(logging.DEBUG, "cmdrdata")
    backend.outcomes = [REFUSED, UNAUTHORIZED, DELIVERED]
    host.append(1, 2)
    host.turn(lambda: len(backend.posted) == 2)
    assert "acme" not in caplog.text
