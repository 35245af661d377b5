"""A disk that is full, read-only, slow or gone: the application goes on, and what is not kept is told."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter import CmdrDataSpanExporter, ConfigurationError, faults
from cmdrdata_exporter.delivery.relay import SMALLEST_IMPORT
from cmdrdata_exporter.delivery.spool import frames, journal_file
from cmdrdata_exporter.delivery.spool.directory import RESERVE, Directory
from tests.faults.application import Application, body_of, until
from tests.faults.hosts import Host
from tests.faults.oracle import SILENCE, Oracle, Reply


@pytest.fixture
def application(application: Application, oracle: Oracle) -> Application:
    """An application, which drains its directory."""
    application.call()
    application.settled(oracle)
    return application


def unspooled(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the ids of the events that are in the log, each of which could be sent from there."""
    lines = [json.loads(text) for text in caplog.messages if text.startswith('{"cmdrdata"')]
    assert all(body_of(line["id"]) == json.dumps(line["event"]).encode() for line in lines)
    assert {"unspooled"} >= {line["cmdrdata"] for line in lines}
    return [line["id"] for line in lines]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log says in words."""
    return [
        f"{record.levelname} {record.getMessage()}"
        for record in caplog.records
        if record.name == "cmdrdata" and not record.getMessage().startswith('{"cmdrdata"')
    ]


class Disk:
    """Replaces `os.write` where journals are written: a disk with so much space left."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 1 << 40
        self.error = errno.ENOSPC
        self.stalled = threading.Event()
        self.stalled.set()
        self._write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, descriptor: int, data: bytes) -> int:
        """Write, but no more than fits: the last write is a short one."""
        if data.startswith(frames.MAGIC):
            assert self.stalled.wait(30)
            if self.left <= 0:
                raise OSError(self.error, os.strerror(self.error))
            data = data[: self.left]
            self.left -= len(data)
        return self._write(descriptor, data)


class FailingCommits:
    """Stands before a connection to a ledger, of which no transaction can be committed."""

    def __init__(self, application: Application, message: str) -> None:
        self._drainer = application.delivery.drainer
        with self._drainer.database:
            ledger = self._drainer.leadership._ledger
            assert ledger is not None
            self._ledger, self._db, self._message = ledger, ledger._db, message
            ledger._db = self  # pyright: ignore[reportAttributeAccessIssue]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Execute, or fail."""
        if sql == "COMMIT":
            raise sqlite3.OperationalError(self._message)
        return self._db.execute(sql, *values)

    def end(self) -> None:
        """Let commits succeed again."""
        with self._drainer.database:
            self._ledger._db = self._db


def test_short_writes_and_no_space(
    application: Application,
    oracle: Oracle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On a full disk the missing events are exactly those in the log, and what came before and after is delivered."""
    disk = Disk(monkeypatch)
    before = application.call(20)
    disk.left = 300  # less than an event has
    missing = application.call(20)
    disk.left = 1 << 40
    after = application.call(20)
    assert missing == unspooled(caplog)
    application.ids[1:] = before + after
    application.settled(oracle, unspooled=20)
    assert 0 == oracle.duplicates
    assert {"no space is left on the device": 1, "No space left on device": 19} == dict(
        application.delivery.unspooled.counts
    )


def test_acknowledgements_that_cannot_be_stored(
    application: Application, oracle: Oracle, caplog: pytest.LogCaptureFixture
) -> None:
    """While outcomes cannot be committed nothing is sent that would have to be sent again; then it goes on."""
    released = threading.Event()

    def answer(_: object) -> Reply:
        assert released.wait(30)
        return Reply()

    # With each success there are twice as many at once.
    application.call(3)
    application.settled(oracle)
    oracle.answer = answer
    application.call(300)
    application.wait_for(in_flight=64)
    full = FailingCommits(application, "database or disk is full")
    released.set()
    oracle.wait_for_accepted(4 + 64)
    until(lambda: "database or disk is full" in caplog.text)
    application.call(10)
    # Two further turns of the drainer, each of which could send.
    turns = count_turns(application)
    until(lambda: turns() >= 2)
    assert (68, 0) == (len(oracle.accepted), oracle.duplicates)
    full.end()
    oracle.wait_for_accepted(69, timeout=2)
    application.settled(oracle)
    assert 0 == oracle.duplicates
    assert [
        f"ERROR usage events in {application.directory.path} wait: SQLite says database or disk is full."
        " None is lost; it is tried again",
        f"WARNING usage events in {application.directory.path} go on",
    ] == messages(caplog)


def count_turns(application: Application) -> Callable[[], int]:
    """Return a function that says how many turns its drainer has begun since."""
    drainer = application.delivery.drainer
    turns = [0]
    keep = drainer._keep

    def counting() -> None:
        turns[0] += 1
        keep()

    drainer._keep = counting  # pyright: ignore[reportAttributeAccessIssue]
    return lambda: turns[0]


def test_a_file_system_that_becomes_read_only(
    application: Application,
    oracle: Oracle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where nothing can be written any more the events are in the log; where it can again, they are kept again."""
    disk = Disk(monkeypatch)
    disk.left, disk.error = 0, errno.EROFS
    read_only = FailingCommits(application, "attempt to write a readonly database")
    missing = application.call(10)
    assert missing == unspooled(caplog)
    assert {"Read-only file system": 10} == dict(application.delivery.unspooled.counts)
    until(lambda: "readonly database" in caplog.text)
    disk.left = 1 << 40
    read_only.end()
    after = application.call(10)
    application.ids[1:] = after
    application.settled(oracle, unspooled=10)
    assert 0 == oracle.duplicates


def test_a_directory_that_is_removed(
    application: Application, oracle: Oracle, caplog: pytest.LogCaptureFixture
) -> None:
    """A spool directory that is removed under a running process begins anew, and the log says what was in it."""
    oracle.answer = lambda _: Reply(503, {"Retry-After": "2"})
    application.call(20)
    oracle.wait_for_requests(2)
    application.wait_for(in_flight=0, pending=20)
    shutil.rmtree(application.directory.path)
    after = application.call(5)
    until(lambda: "lost is: usage events (20 to be sent)" in caplog.text)
    after += application.call(5)
    oracle.answer = lambda _: Reply()
    application.ids = after
    application.wait_for(recorded=10, delivered=10)
    assert set(after) <= oracle.keys
    assert [] == unspooled(caplog)


def test_a_directory_that_is_replaced_by_a_link(
    application: Application, oracle: Oracle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No event is written through a link that someone has put in the place of the directory: each is in the log."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = application.directory.path
    path.rename(tmp_path / "moved")
    path.symlink_to(elsewhere)
    until(lambda: "is a symbolic link" in caplog.text)
    missing = application.call(10)
    assert [] == list(elsewhere.iterdir())
    assert missing == unspooled(caplog)
    path.unlink()
    (tmp_path / "moved").rename(path)
    after = application.call(10)
    application.ids[1:] = after
    application.settled(oracle, unspooled=10)


@pytest.mark.parametrize("kind", ["link", "file", "foreign", "writable by others"])
def test_a_directory_that_must_not_be_used(tmp_path: Path, kind: str) -> None:
    """A spool directory that is someone else's, or may be, is refused when the exporter is built."""
    spool = tmp_path / "spool"
    if kind == "link":
        (tmp_path / "real").mkdir()
        spool.symlink_to(tmp_path / "real")
    elif kind == "file":
        spool.touch()
    else:
        spool.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        if kind == "foreign":
            patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        elif kind == "writable by others":
            spool.chmod(0o770)
        with pytest.raises(ConfigurationError) as refusal:
            CmdrDataSpanExporter(spool_dir=spool)
    what = {
        "link": "is a symbolic link; events are kept in real directories",
        "file": "is no directory; events are kept in real directories",
        "foreign": f"belongs to user {os.getuid()}, this process is user {os.getuid() + 1}",
        "writable by others": "can be written by other users",
    }
    message = str(refusal.value)
    assert message.startswith(
        f"the spool directory cannot be used: {str(spool)!r} {what[kind]}. Set"
    )


def test_a_disk_that_stalls(
    application: Application, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not answer holds up one thread of the application; the others hand over, and nothing is lost."""
    disk = Disk(monkeypatch)
    disk.stalled.clear()
    began = threading.Barrier(9)
    quick: list[float] = []

    def call() -> None:
        began.wait()
        before = time.monotonic()
        application.call()
        if disk.stalled.is_set():
            return
        quick.append(time.monotonic() - before)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    began.wait()
    until(lambda: len(quick) == 7)
    assert not application.delivery.flush(0.1)
    disk.stalled.set()
    for thread in threads:
        thread.join()
    # A deadline that a busy machine meets; benchmarks measure.
    assert max(quick) < 0.5
    application.settled(oracle)
    assert 7 == application.delivery.outcomes()["handed_over"]
    assert 0 == oracle.duplicates


def test_flush_keeps_its_time(
    application: Application, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush waits no longer than it was told to, whatever holds up the disk or the database."""
    oracle.answer = lambda _: SILENCE
    application.call()
    with application.delivery.drainer.database:
        began = time.monotonic()
        assert not application.delivery.flush(0.2)
        assert 0.2 <= time.monotonic() - began < 2
    disk = Disk(monkeypatch)
    disk.stalled.clear()
    stalled = threading.Thread(target=application.call)
    stalled.start()
    began = time.monotonic()
    assert not application.delivery.flush(0.2)
    assert time.monotonic() - began < 2
    disk.stalled.set()
    stalled.join()


def test_flush_raises_nothing(application: Application, oracle: Oracle) -> None:
    """A flush whose directory has gone says that it did not succeed, and raises nothing into the application."""
    oracle.answer = lambda _: Reply(503, {"Retry-After": "1"})
    application.call()
    oracle.wait_for_requests(2)
    shutil.rmtree(application.directory.path)
    application.delivery.flush(0.05)
    faults.counts.pop("flush", None)  # Where the directory was not made anew meanwhile.


def test_a_disk_that_syncs_nothing(application: Application, oracle: Oracle) -> None:
    """Events are delivered from a disk that cannot promise to keep them."""

    def sync(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_file, "_sync", sync)
        application.call(10)
        until(lambda: faults.counts["sync"] > 1)
        application.settled(oracle)
    application.call(10)
    application.settled(oracle)
    assert {"sync"} == set(faults.counts)
    faults.counts.clear()


def test_a_disk_that_is_nearly_full(
    application: Application,
    oracle: Oracle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With little room, little is in flight; with none, what there is drains in the room of the ledger's own files."""
    room = [RESERVE + 4 * SMALLEST_IMPORT]

    def free(_: Directory) -> int:
        return room[0]

    monkeypatch.setattr(Directory, "free", free)
    most = [0]

    def answer(_: object) -> Reply:
        most[0] = max(most[0], application.delivery.drainer.relay.in_flight)
        return Reply()

    oracle.answer = answer
    application.call(200)
    application.settled(oracle)
    assert 0 < most[0] <= 4
    room[0] = RESERVE
    application.call(200)
    room[0] = 0
    application.settled(oracle)
    assert 0 < most[0] <= 4
    # New events are not for that room: after the next look each is in the log.
    until(lambda: application.delivery._journal.is_full)
    ids = application.ids[:]
    missing = application.call(3)
    assert missing == unspooled(caplog)
    room[0] = 1 << 30
    until(lambda: not application.delivery._journal.is_full)
    application.ids = ids + application.call()
    application.settled(oracle, unspooled=3)
    assert 0 == oracle.duplicates


def test_files_that_may_not_grow(host: Host) -> None:
    """Where the system lets no file grow, the ledger's neither, what is not kept is in the log, the rest goes on."""
    process = host.start("on_a_full_disk", count=300, largest=100_000)
    process.wait_for_note("limited")
    released = time.monotonic()
    process.send(signal.SIGUSR1)
    process.wait_for_note("free")
    tried = {words[0] for kind, *words in process.notes if kind == "tried"}
    logged = [words[0] for kind, *words in process.notes if kind == "logged"]
    assert (601, len(logged)) == (len(tried), len(set(logged)))
    assert 0 < len(logged) <= 300
    host.oracle.wait_for_accepted(len(tried) - len(logged))
    resumed = min(at for at, _, _ in host.oracle.requests if at > released) - released
    assert resumed < 2
    assert tried - set(logged) == host.oracle.keys
    assert 0 == host.oracle.duplicates
    process.send(signal.SIGUSR1)
    assert 0 == process.wait()
    host.drain()
    assert len(logged) == host.count()["unspooled"]


@contextlib.contextmanager
def mounted(path: Path, size: int) -> Generator[Path]:
    """Mount a file system of so many MiB."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}m,mode=700", "tmpfs", str(path)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    assert 0 == made.returncode, f"this test needs to mount a file system: {made.stderr}"
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    with mounted(tmp_path / "disk", 3) as path:
        yield path


@pytest.mark.long
@pytest.mark.parametrize("end", ["goes on", "ends"])
@pytest.mark.parametrize("size", [8, 64])
def test_a_volume_of_its_own_that_is_full(
    tmp_path: Path, oracle: Oracle, caplog: pytest.LogCaptureFixture, size: int, end: str
) -> None:
    """A volume that an outage has filled, to the last byte, drains once the backend is back, whoever drains it."""
    oracle.answer = lambda _: Reply(503, {"Retry-After": "1"})
    with mounted(tmp_path / "volume", size) as volume:
        with Application(volume / "spool", oracle.url) as application:
            ids: list[str] = []
            while not unspooled(caplog):
                ids += application.call(200)
            turns = count_turns(application)
            until(lambda: turns() > 3)
            if end == "goes on":
                # Somebody else takes what was left.
                with contextlib.suppress(OSError), (volume / "ballast").open("wb", 0) as file:
                    while True:
                        file.write(bytes(4096))
                ids += application.call(100)
            missing = set(unspooled(caplog))
            if end == "goes on":
                oracle.answer = lambda _: Reply()
                oracle.wait_for_accepted(len(ids) - len(missing), timeout=240)
        with Application(volume / "spool", oracle.url) as application:
            oracle.answer = lambda _: Reply()
            oracle.wait_for_accepted(len(ids) - len(missing), timeout=240)
            assert set(ids) - missing == oracle.keys
            assert 0 == oracle.duplicates


@pytest.mark.long
def test_a_file_system_that_is_full(
    small_disk: Path, oracle: Oracle, caplog: pytest.LogCaptureFixture
) -> None:
    """A real file system fills up: what did not fit is in the log; once there is space, all else is delivered once."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (256 << 10))
    oracle.answer = lambda _: Reply(503, {"Retry-After": "1"})
    with Application(small_disk / "spool", oracle.url) as application:
        ids = application.call(8000)
        missing = unspooled(caplog)
        assert 0 < len(missing) < 8000
        oracle.answer = lambda _: Reply()
        ballast.unlink()
        oracle.wait_for_accepted(1, timeout=2)
        application.ids = [event_id for event_id in ids if event_id not in set(missing)]
        application.wait_for(delivered=len(application.ids), pending=0, in_flight=0)
        # Something can be written again, and it says how much could not.
        application.call()
        application.settled(oracle, unspooled=len(missing))
        assert 0 == oracle.duplicates
