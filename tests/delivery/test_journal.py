"""The journal: what was appended is there whatever happens next, and nothing else is ever read."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import shutil
import signal
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery.spool import backlog, journal_file
from cmdrdata_exporter.delivery.spool.backlog import QUEUE_BYTES
from cmdrdata_exporter.delivery.spool.directory import RESERVE, Directory
from cmdrdata_exporter.delivery.spool.file_systems import lock
from cmdrdata_exporter.delivery.spool.frames import Scan, frame, scan
from cmdrdata_exporter.delivery.spool.journal import (
    MAX_FILE_AGE,
    MAX_FILE_BYTES,
    ROOM_CHECK_BYTES,
    Journal,
)
from cmdrdata_exporter.delivery.spool.journal_file import JournalFile, JournalFullError
from cmdrdata_exporter.descriptors import OpenFile
from tests.delivery.samples import Clock

MAGIC = b"\xf5\xc1\xff\xc0"
END = MAGIC + struct.pack("<II", 0, zlib.crc32(b"\0\0\0\0"))


@pytest.fixture
def journal(directory: Directory) -> Iterator[Journal]:
    """A journal, sealed at the end of the test."""
    begun = Journal(directory)
    yield begun
    begun.seal()


def written(directory: Directory) -> list[bytes]:
    """Return all records of all journals of a directory, having checked that nothing else is in them."""
    records: list[bytes] = []
    for path in directory.journals():
        found = scan(path.read_bytes(), final=True)
        assert found.damaged == []
        records += found.records
    return records


# Frames


def test_a_frame() -> None:
    """A frame is magic, length, checksum and the record."""
    checksum = zlib.crc32(b"\x03\0\0\0abc")
    assert frame(b"abc") == MAGIC + struct.pack("<II", 3, checksum) + b"abc"
    assert frame(b"") == END


def test_what_a_scan_finds() -> None:
    """Records are found in their order, up to the end of the file or what is not whole yet."""
    one, two = frame(b"one"), frame(b"two")
    assert scan(b"", final=True) == Scan([], [], 0, sealed=False)
    assert scan(one + two, final=False) == Scan([b"one", b"two"], [], 30, sealed=False)
    assert scan(one + two[:-1], final=False) == Scan([b"one"], [], 15, sealed=False)
    assert scan(one + two[:-1], final=True) == Scan([b"one"], [(15, two[:-1])], 29, sealed=False)
    assert scan(one + END, final=False) == Scan([b"one"], [], 27, sealed=True)
    assert scan(one + b"\0\0" + two, final=False) == Scan(
        [b"one", b"two"], [(15, b"\0\0")], 32, sealed=False
    )
    assert scan(one[:-1] + two, final=False) == Scan([b"two"], [(0, one[:-1])], 29, sealed=False)


records_of_text = st.lists(st.text(min_size=1, max_size=40).map(str.encode), max_size=6)


@given(records_of_text, st.data())
def test_a_file_cut_anywhere(records: list[bytes], data: st.DataObject) -> None:
    """Of a file that ends anywhere, each record that is whole is found, and going on finds the others."""
    whole = b"".join(map(frame, records))
    cut = data.draw(st.integers(0, len(whole)))
    first = scan(whole[:cut], final=False)
    assert first.damaged == []
    assert first.records == records[: len(first.records)]
    second = scan(whole[first.end :], final=False)
    assert first.records + second.records == records
    assert sum(len(frame(record)) for record in first.records) == first.end <= cut
    torn = scan(whole[:cut], final=True)
    assert torn.records == first.records
    assert b"".join(content for _, content in torn.damaged) == whole[first.end : cut]


@given(records_of_text, st.binary(min_size=1, max_size=30), st.data())
def test_garbage_between_records(records: list[bytes], garbage: bytes, data: st.DataObject) -> None:
    """Garbage between two records costs none of them, and is never taken for one."""
    frames = [frame(record) for record in records]
    place = data.draw(st.integers(0, len(frames)))
    torn = b"".join([*frames[:place], garbage, *frames[place:]])
    found = scan(torn, final=True)
    assert found.records == records
    assert b"".join(content for _, content in found.damaged) == garbage


@given(records_of_text.filter(bool), st.data())
def test_a_flipped_bit(records: list[bytes], data: st.DataObject) -> None:
    """A bit that changed costs one record, and no altered one is found."""
    whole = bytearray(b"".join(map(frame, records)))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= 1 << data.draw(st.integers(0, 7))
    found = scan(bytes(whole), final=True)
    assert len(found.records) == len(records) - 1
    remaining = list(records)
    for record in found.records:
        remaining.remove(record)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(data: bytes, final: bool) -> None:
    """Garbage holds no record, and a scan of it ends."""
    found = scan(data, final=final)
    assert found.records == []
    assert found.end == (len(data) if final and not found.sealed else found.end)


# Appending


def test_what_was_appended_is_on_the_disk(directory: Directory, journal: Journal) -> None:
    """When `append` returns the record is in the file, whose lock the process holds."""
    journal.append(b"one")
    (path,) = directory.journals()
    assert path.read_bytes() == frame(b"one")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.name == journal.name
    assert f"-{os.getpid()}-" in path.name
    with path.open("rb") as file:
        assert not lock(file.fileno())
    journal.append(b"two")
    assert path.read_bytes() == frame(b"one") + frame(b"two")
    journal.seal()
    assert path.read_bytes() == frame(b"one") + frame(b"two") + END
    with path.open("rb") as file:
        assert lock(file.fileno())
    journal.append(b"three")
    assert written(directory) == [b"one", b"two", b"three"]
    assert len(directory.journals()) == 2
    assert journal.appended == 3


def test_rotation_by_size(directory: Directory, journal: Journal) -> None:
    """A file that has reached its size is sealed, and the next record begins another one."""
    journal.append(b"x" * MAX_FILE_BYTES)
    journal.append(b"one")
    first, second = directory.journals()
    assert first.read_bytes()[-12:] == END
    assert second.read_bytes() == frame(b"one")


def test_rotation_by_age(directory: Directory) -> None:
    """A file that is old is sealed by the next sync."""
    clock = Clock()
    aging = Journal(directory, clock=clock)
    aging.append(b"one")
    clock.now += MAX_FILE_AGE - 1
    aging.sync()
    assert [path.read_bytes()[-12:] == END for path in directory.journals()] == [False]
    clock.now += 1
    aging.sync()
    aging.append(b"two")
    aging.sync()
    assert [path.read_bytes()[-12:] == END for path in directory.journals()] == [True, False]
    assert written(directory) == [b"one", b"two"]


def test_a_sealed_journal_is_sealed_once(directory: Directory, journal: Journal) -> None:
    """Sealing what has no file, or was sealed, changes nothing."""
    journal.seal()
    assert directory.journals() == []
    journal.append(b"one")
    journal.seal()
    journal.seal()
    journal.sync()
    assert [path.read_bytes() for path in directory.journals()] == [frame(b"one") + END]


# Syncing


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced: `file` and `directory`."""
    found: list[str] = []
    real = journal_file._sync

    def sync(descriptor: int) -> None:
        found.append("file")
        real(descriptor)

    def sync_directory(directory: Directory) -> None:
        found.append("directory")

    monkeypatch.setattr(journal_file, "_sync", sync)
    monkeypatch.setattr(Directory, "sync", sync_directory)
    return found


def test_syncing(journal: Journal, synced: list[str]) -> None:
    """What was appended is synced once, and with a new file its name."""
    journal.sync()
    assert synced == []
    journal.append(b"one")
    journal.append(b"two")
    journal.sync()
    journal.sync()
    assert synced == ["file", "directory"]
    journal.append(b"three")
    journal.sync()
    assert synced == ["file", "directory", "file"]


def test_what_is_imported_is_not_synced(journal: Journal, synced: list[str]) -> None:
    """What the ledger has committed need not be synced here; what came later must be, and the name of the file."""
    assert journal.mark() is None
    journal.append(b"one")
    mark = journal.mark()
    assert mark is not None
    assert mark.size == len(frame(b"one"))
    mark.file.note_imported(mark.frames)
    journal.sync()
    assert synced == []
    journal.append(b"two")
    # An older mark takes nothing back.
    mark.file.note_imported(0)
    journal.sync()
    journal.sync()
    assert synced == ["file", "directory"]


def test_syncing_each_record(directory: Directory, synced: list[str]) -> None:
    """With `fsync` a record is on the disk when `append` returns."""
    strict = Journal(directory, fsync=True)
    strict.append(b"one")
    assert synced == ["file", "directory"]
    strict.append(b"two")
    strict.sync()
    assert synced == ["file", "directory", "file"]
    strict.seal()


def test_a_file_begun_while_another_one_is_synced(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is begun meanwhile is not taken for synced, and neither is its name."""
    found: list[str] = []

    def sync(descriptor: int) -> None:
        if not found:
            found.append("file")
            journal.seal()
            journal.append(b"two")
        else:
            found.append("file")

    def sync_directory(directory: Directory) -> None:
        found.append("directory")

    monkeypatch.setattr(journal_file, "_sync", sync)
    monkeypatch.setattr(Directory, "sync", sync_directory)
    journal.append(b"one")
    journal.sync()
    del found[1:]
    journal.sync()
    assert found == ["file", "file", "directory"]
    assert written(directory) == [b"one", b"two"]


def test_without_fdatasync(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS, where Python has no fdatasync, fsync does it."""
    found: list[int] = []
    monkeypatch.delattr(os, "fdatasync", raising=False)
    monkeypatch.setattr(os, "fsync", found.append)
    journal.append(b"one")
    journal.sync()
    assert len(found) == 2


# Full and failing disks


def full(*_: object) -> int:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_short_write(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of which only a part could be written is refused, and nothing of it stays."""
    journal.append(b"one")
    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        return real(descriptor, data[:-1])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        with pytest.raises(JournalFullError, match="no space is left on the device"):
            journal.append(b"two")
    journal.append(b"three")
    assert written(directory) == [b"one", b"three"]
    assert journal.appended == 2


def test_a_full_disk(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While there is no space a record is refused; as soon as there is, the next one is taken."""
    journal.append(b"one")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            journal.append(b"two")
    journal.append(b"three")
    assert written(directory) == [b"one", b"three"]


def test_the_end_on_a_full_disk(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be marked as sealed, or only in part, is let go of and complete without the mark."""
    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        return real(descriptor, data[:-1])

    for cannot in (full, short):
        journal.append(b"one")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", cannot)
            journal.seal()
        path = directory.journals()[-1]
        assert path.read_bytes() == frame(b"one")
        with path.open("rb") as file:
            assert lock(file.fileno())


def test_a_short_write_after_an_interruption(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between a write and what notes it does not make a later short write take a whole record with it."""
    journal.append(b"one")
    real = os.write

    def interrupted(descriptor: int, data: bytes) -> int:
        real(descriptor, data)
        raise KeyboardInterrupt

    def short(descriptor: int, data: bytes) -> int:
        return real(descriptor, data[:5])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append(b"two")
    journal.append(b"three")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        with pytest.raises(JournalFullError):
            journal.append(b"four")
    assert written(directory) == [b"one", b"two", b"three"]


def test_a_failed_fsync(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A record of which it cannot be known whether it is on the disk is refused and not in the file.

    Someone may have read it meanwhile: nothing takes its place there.
    """
    strict = Journal(directory, fsync=True)
    strict.append(b"one")
    with monkeypatch.context() as patch:
        patch.setattr(journal_file, "_sync", full)
        with pytest.raises(OSError, match="No space left"):
            strict.append(b"two")
    strict.append(b"three")
    strict.sync()
    assert [path.read_bytes() for path in directory.journals()] == [frame(b"one"), frame(b"three")]
    with directory.journals()[0].open("rb") as file:
        assert lock(file.fileno())
    strict.seal()


def test_syncs_are_shared(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, synced: list[str]
) -> None:
    """Threads that wait for the disk at once wait for one sync; the append lock is free meanwhile."""
    strict = Journal(directory, fsync=True)
    strict.append(b"one")
    del synced[:]
    sync = journal_file._sync
    threads: list[threading.Thread] = []

    def slow(descriptor: int) -> None:
        if not threads:
            threads.extend(
                started(strict.append, record) for record in (b"three", b"four", b"five")
            )
            until(lambda: strict.appended == 5)
        sync(descriptor)

    monkeypatch.setattr(journal_file, "_sync", slow)
    strict.append(b"two")
    for thread in threads:
        thread.join()
    assert synced == ["file", "file"]
    assert strict.handed_over == 0
    assert sorted(written(directory)) == [b"five", b"four", b"one", b"three", b"two"]
    strict.seal()


def test_a_failed_fsync_of_several_records(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The system tells of a failed sync once: who waits for it too does not take the next one for a success.

    A record that something follows stays in the file; it is not refused, and the fault is reported.
    """
    strict = Journal(directory, fsync=True)
    strict.append(b"one")
    errors: list[OSError] = []

    def append() -> None:
        try:
            strict.append(b"three")
        except OSError as error:
            errors.append(error)

    threads: list[threading.Thread] = []

    def fail(descriptor: int) -> None:
        threads.append(started(append))
        until(lambda: strict.appended == 3)
        monkeypatch.undo()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journal_file, "_sync", fail)
    strict.append(b"two")
    threads[0].join()
    strict.append(b"four")
    assert [error.errno for error in errors] == [errno.EIO]
    assert [scan(path.read_bytes(), final=True).records for path in directory.journals()] == [
        [b"one", b"two"],
        [b"four"],
    ]
    assert faults.counts.pop("sync") == 1
    strict.seal()


def test_an_fsync_of_what_was_closed(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record whose file the program has closed before the sync is not taken for synced."""
    strict = Journal(directory, fsync=True)
    strict.append(b"one")
    release = strict._release

    def close() -> None:
        release()
        assert strict._file is not None
        os.close(strict._file.descriptor)
        monkeypatch.undo()

    monkeypatch.setattr(strict, "_release", close)
    strict.append(b"two")
    assert faults.counts.pop("sync") == 1
    strict.append(b"three")
    assert written(directory) == [b"one", b"two", b"three"]
    strict.seal()


def test_a_failed_fsync_of_a_signal_handlers_record(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler's record is refused as any other, and the lock stays with what it has interrupted."""
    strict = Journal(directory, fsync=True)
    strict.append(b"one")
    write, sync = os.write, journal_file._sync

    def fail(descriptor: int) -> None:
        monkeypatch.setattr(journal_file, "_sync", sync)
        full()

    def append() -> None:
        with pytest.raises(OSError, match="No space left"):
            strict.append(b"handler's")
        assert strict._is_mine()

    with interrupted_by(append) as interrupt:

        def interrupted(descriptor: int, data: bytes) -> int:
            interrupt()
            return write(descriptor, data)

        monkeypatch.setattr(journal_file, "_sync", fail)
        monkeypatch.setattr(os, "write", interrupted)
        with pytest.raises(OSError, match="Input/output error"):
            strict.append(b"two")
    assert not strict._is_mine()
    strict.append(b"three")
    assert written(directory) == [b"one", b"three"]
    strict.seal()


def test_a_full_directory(directory: Directory, journal: Journal) -> None:
    """At its limit the directory takes no more."""
    journal.is_full = True
    with pytest.raises(
        JournalFullError, match="the spool directory, or its disk, has reached its limit"
    ):
        journal.append(b"one")
    assert directory.journals() == []


def test_the_room_that_new_records_leave(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room on the disk is checked now and then; once it is low, with each record until there is some again."""
    room = [RESERVE]

    def free(_: Directory) -> int:
        return room[0]

    monkeypatch.setattr(Directory, "free", free)
    journal.append(b"x" * ROOM_CHECK_BYTES)
    room[0] -= 1
    journal.append(b"one")
    journal.append(b"y" * (ROOM_CHECK_BYTES // 2))
    for record in (b"z" * (ROOM_CHECK_BYTES // 2), b"two"):
        with pytest.raises(JournalFullError, match="has reached its limit"):
            journal.append(record)
    room[0] += 1
    journal.append(b"three")
    assert [record[:5] for record in written(directory)] == [b"xxxxx", b"one", b"yyyyy", b"three"]


def locked(descriptor: int) -> bool:
    """Find a file locked."""
    return False


@pytest.mark.parametrize("what", ["lock", "rename"])
def test_a_file_that_cannot_be_begun(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What cannot be begun leaves neither a file nor a descriptor, and is tried with the next record."""
    files = len(list(Path("/dev/fd").iterdir()))
    with monkeypatch.context() as patch:
        if what == "lock":
            patch.setattr(journal_file, "lock", locked)
        else:
            patch.setattr(Path, "rename", full)
        with pytest.raises(OSError, match=r"locked a file|No space left"):
            journal.append(b"one")
    assert [path.name for path in directory.path.iterdir()] == ["destination.json"]
    assert len(list(Path("/dev/fd").iterdir())) == files
    journal.append(b"two")
    assert written(directory) == [b"two"]


# Threads, signals, finalizers


class Stall:
    """A disk that stands still in the middle of the first write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.over = threading.Event(), threading.Event()
        self._real = os.write
        monkeypatch.setattr(os, "write", self._write)

    def _write(self, descriptor: int, data: bytes) -> int:
        if not self.reached.is_set():
            self.reached.set()
            assert self.over.wait(10)
        return self._real(descriptor, data)


def started(function: Callable[..., object], *arguments: object) -> threading.Thread:
    """Run a function in a thread."""
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def test_a_stalled_disk_holds_up_one_thread(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one thread's write stands still the others leave their records to it, which is counted."""
    stall = Stall(monkeypatch)
    thread = started(journal.append, b"one")
    assert stall.reached.wait(10)
    journal.append(b"two")
    journal.append(b"three")
    journal.sync()
    assert not journal.catch_up()
    assert journal.handed_over == 2
    stall.over.set()
    thread.join()
    assert journal.catch_up()
    assert journal._backlog.size == 0
    assert written(directory) == [b"one", b"two", b"three"]


def test_what_waits_for_a_stalled_disk_is_bounded(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond so many bytes records are refused, so that memory does not grow."""
    stall = Stall(monkeypatch)
    thread = started(journal.append, b"one")
    assert stall.reached.wait(10)
    journal.append(b"x" * (QUEUE_BYTES - 12))
    with pytest.raises(JournalFullError, match="too many events wait for a disk"):
        journal.append(b"two")
    stall.over.set()
    thread.join()
    assert [len(record) for record in written(directory)] == [3, QUEUE_BYTES - 12]


def test_the_end_with_a_stalled_disk(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits when the process ends is refused, and told as such; nothing of it is written later as well."""
    refused: list[tuple[bytes, str]] = []
    ending = Journal(directory, refused=lambda record, error: refused.append((record, str(error))))
    stall = Stall(monkeypatch)
    thread = started(ending.append, b"one")
    assert stall.reached.wait(10)
    ending.append(b"two")
    ending.append(b"three")
    ending.seal(timeout=0.01)
    assert refused == [(b"two", "the disk is stalled"), (b"three", "the disk is stalled")]
    stall.over.set()
    thread.join()
    assert written(directory) == [b"one"]
    ending.seal()


def test_a_record_left_to_another_thread_that_cannot_be_written(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose record was left to another thread is told when it is refused."""
    refused: list[tuple[bytes, str | None]] = []
    telling = Journal(
        directory, refused=lambda record, error: refused.append((record, error.strerror))
    )
    stall = Stall(monkeypatch)
    refused_itself: list[OSError] = []

    def append() -> None:
        try:
            telling.append(b"one")
        except OSError as error:
            refused_itself.append(error)

    thread = started(append)
    assert stall.reached.wait(10)
    telling.append(b"two")
    monkeypatch.setattr(stall, "_real", full)
    stall.over.set()
    thread.join()
    assert len(refused_itself) == 1
    assert refused == [(b"two", "No space left on device")]
    assert written(directory) == []


def test_left_in_the_last_moment(directory: Directory, journal: Journal) -> None:
    """A record that is left just when the owner of the lock has emptied the queue is written at once."""
    held, ready = threading.Event(), threading.Event()

    def hold() -> None:
        with journal._lock:
            held.set()
            assert ready.wait(10)

    thread = started(hold)
    assert held.wait(10)
    put = journal._backlog.put

    def leave(data: bytes, kept: list[object]) -> None:
        put(data, kept)
        ready.set()
        thread.join()

    journal._backlog.put = leave
    journal.append(b"one")
    assert written(directory) == [b"one"]
    assert (journal.handed_over, journal.stalled) == (0, False)


class Lock:
    """The lock of a journal, so that a test can come in between."""

    def __init__(self, journal: Journal) -> None:
        self.real = journal._lock
        journal._lock = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def test_left_between_the_last_look_and_the_release(directory: Directory, journal: Journal) -> None:
    """So is one that is left after the queue was emptied and before the lock is free."""
    late = [b"two"]

    class Late(Lock):
        def release(self) -> None:
            """Release it, late."""
            if late:
                journal._backlog.put(frame(late.pop()), [])
            self.real.release()

    Late(journal)
    journal.append(b"one")
    assert written(directory) == [b"one", b"two"]


def test_an_append_waits_while_others_succeed(directory: Directory, journal: Journal) -> None:
    """A thread that others overtake again and again waits on: only what stands still keeps its record in memory."""

    class Overtaken(Lock):
        left = 3

        def acquire(self, *arguments: Any, **options: Any) -> bool:
            """Have others append first."""
            if threading.current_thread() is thread and self.left:
                self.left -= 1
                started(journal.append, b"%d" % self.left).join()
                return False
            acquired: bool = self.real.acquire(*arguments, **options)
            return acquired

    thread = threading.current_thread()
    Overtaken(journal)
    journal.append(b"last")
    assert (journal.handed_over, written(directory)) == (0, [b"2", b"1", b"0", b"last"])


def test_an_append_waits_for_another_one(directory: Directory, journal: Journal) -> None:
    """A thread whose append takes no longer than 50 milliseconds keeps nobody's record in memory."""
    timeouts: list[float] = []
    held, over = threading.Event(), threading.Event()

    class Watched(Lock):
        def acquire(self, *arguments: bool, timeout: float | None = None) -> bool:
            """Wait for as long as it takes."""
            if timeout is None:
                return False
            timeouts.append(timeout)
            over.set()
            acquired: bool = self.real.acquire()
            return acquired

    def hold() -> None:
        with journal._lock:
            held.set()
            assert over.wait(10)

    thread = started(hold)
    assert held.wait(10)
    Watched(journal)
    journal.append(b"one")
    thread.join()
    assert timeouts == [0.05]
    assert (journal.handed_over, written(directory)) == (0, [b"one"])


def test_many_threads(directory: Directory, journal: Journal) -> None:
    """Whatever threads append at once is there, each record once."""

    def append(first: int) -> None:
        for number in range(first, first + 200):
            journal.append(b"%d" % number)

    threads = [started(append, first) for first in range(0, 1600, 200)]
    for thread in threads:
        thread.join()
    journal.sync()
    assert sorted(written(directory), key=int) == [b"%d" % number for number in range(1600)]


def test_a_signal_handler_in_the_middle_of_an_append(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that interrupts an append may append, sync and seal itself, and waits for nothing."""
    real = os.write
    inside: list[int] = []

    def write(descriptor: int, data: bytes) -> int:
        if not inside:
            inside.append(descriptor)
            signal.raise_signal(signal.SIGUSR1)
        return real(descriptor, data)

    def handler(*_: object) -> None:
        journal.append(b"handler's")
        journal.sync()
        journal.seal()

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        monkeypatch.setattr(os, "write", write)
        journal.append(b"one")
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert written(directory) == [b"handler's", b"one"]
    assert journal.handed_over == 0


def test_a_finalizer_in_the_middle_of_an_append(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that is collected during an append may record an event."""

    class Ends:
        """Records that it ends."""

        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            journal.append(b"finalizer's")

    real = os.write
    Ends()

    def write(descriptor: int, data: bytes) -> int:
        gc.collect()
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    journal.append(b"one")
    assert written(directory) == [b"finalizer's", b"one"]
    assert journal.handed_over == 0


@contextlib.contextmanager
def interrupted_by(handler: Callable[[], None]) -> Generator[Callable[[], None]]:
    """Install a signal handler; yield what has it called, once."""
    calls = [handler]

    def handle(*_: object) -> None:
        calls.pop()()

    def interrupt() -> None:
        if calls:
            signal.raise_signal(signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGUSR1, previous)


@pytest.mark.parametrize("place", ["create", "seal"])
def test_a_signal_handler_where_there_is_no_file(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A record of a handler that interrupts the begin or the end of a file waits until that is done."""
    journal.append(b"one")
    real: Any = getattr(JournalFile, place)
    with interrupted_by(lambda: journal.append(b"handler's")) as interrupt:

        def interrupted(*arguments: Any) -> Any:
            interrupt()
            return real(*arguments)

        monkeypatch.setattr(JournalFile, place, interrupted)
        journal.seal()
        journal.append(b"two")
    assert (
        written(directory)
        == {
            "create": [b"one", b"two", b"handler's"],
            "seal": [b"one", b"handler's", b"two"],
        }[place]
    )
    assert (journal.handed_over, journal.stalled) == (1, False)


def test_a_signal_handler_while_a_file_is_cut(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of a handler that interrupts the removal of half a record is not cut off with that."""
    journal.append(b"one")
    write, truncate = os.write, os.ftruncate
    with interrupted_by(lambda: journal.append(b"handler's")) as interrupt:

        def short(descriptor: int, data: bytes) -> int:
            monkeypatch.setattr(os, "write", write)
            return write(descriptor, data[:5])

        def cut(descriptor: int, size: int) -> None:
            interrupt()
            truncate(descriptor, size)

        monkeypatch.setattr(os, "ftruncate", cut)
        monkeypatch.setattr(os, "write", short)
        with pytest.raises(JournalFullError):
            journal.append(b"two")
    assert written(directory) == [b"one", b"handler's"]
    assert (journal.handed_over, journal.stalled) == (1, False)


def test_a_signal_handler_behind_half_a_record(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a record that a handler has appended to is no longer cut off; a reader skips it."""
    journal.append(b"one")
    write = os.write
    with interrupted_by(lambda: journal.append(b"handler's")) as interrupt:

        def short(descriptor: int, data: bytes) -> int:
            monkeypatch.setattr(os, "write", write)
            size = write(descriptor, data[:5])
            interrupt()
            return size

        monkeypatch.setattr(os, "write", short)
        with pytest.raises(JournalFullError):
            journal.append(b"two")
    (path,) = directory.journals()
    found = scan(path.read_bytes(), final=True)
    assert found.records == [b"one", b"handler's"]
    assert found.damaged == [(15, frame(b"two")[:5])]


@pytest.mark.parametrize("first", [[], [b"one"]])
@pytest.mark.parametrize(
    ("place", "added"), [("acquire", []), ("_write", []), ("empty", [b"two", b"left"])]
)
def test_interrupted(  # noqa: PLR0917 - fixtures
    directory: Directory,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    added: list[bytes],
    first: list[bytes],
) -> None:
    """Ctrl-C anywhere in an append, even when the lock was just acquired, leaves the lock to the next one."""
    for record in first:
        journal.append(record)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    class Interrupted(Lock):
        def acquire(self, *arguments: Any, **options: Any) -> bool:
            """Have the lock, and be interrupted before anyone knows."""
            self.real.acquire(*arguments, **options)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if place == "acquire":
            patch.setattr(journal, "_lock", journal._lock)
            Interrupted(journal)
        else:
            patch.setattr(journal if place == "_write" else journal._backlog, place, interrupted)
        if place == "empty":
            journal._backlog.put(frame(b"left"), [])
        with pytest.raises(KeyboardInterrupt):
            journal.append(b"two")
    started(journal.append, b"three").join()
    assert journal.handed_over == 0
    assert sorted(written(directory)) == sorted([*first, *added, b"three"])


@pytest.mark.parametrize(
    ("method", "opcodes"),
    [("append", True), ("sync", False), ("seal", False), ("check_place", False)],
)
def test_interrupted_anywhere(directory: Directory, method: str, opcodes: bool) -> None:
    """Wherever Ctrl-C comes, the lock is free afterwards, and `kept` says whether the record is here."""
    ours = {backlog.__file__, journal_file.__file__, Journal.append.__code__.co_filename}
    before = sys.gettrace()
    for number in itertools.count():
        clock = Clock()
        journal = Journal(directory, clock=clock)
        journal.append(b"first")
        clock.now += MAX_FILE_AGE
        if method == "check_place":
            shutil.rmtree(directory.path)
        kept: list[object] = []
        left = iter(range(number))

        def step(frame: FrameType, event: str, _: object) -> Any:
            if frame.f_code.co_filename not in ours:
                return None
            frame.f_trace_opcodes = opcodes
            due = event == ("opcode" if opcodes else "line")
            if due and next(left, None) is None:  # noqa: B023 - it ends before the next one begins
                sys.settrace(None)
                raise KeyboardInterrupt
            return step

        sys._getframe().f_trace_opcodes = opcodes
        sys.settrace(step)
        try:
            journal.append(b"record", kept) if method == "append" else getattr(journal, method)()
        except KeyboardInterrupt:
            interrupted = True
        else:
            interrupted = False
        finally:
            sys.settrace(before)
        if method == "append":
            here = written(directory)[1:] == [b"record"]
            assert here == bool(kept), number
        started(journal.append, b"last").join()
        assert (journal.handed_over, written(directory)[-1]) == (0, b"last"), number
        journal.seal()
        shutil.rmtree(directory.path)
        if not interrupted:
            assert number > 10
            return


def test_interrupted_with_the_record_of_another_thread(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of writing what another thread has left loses none of it."""
    journal._backlog.put(frame(b"left"), [])
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if data == frame(b"left"):
            raise KeyboardInterrupt
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(KeyboardInterrupt):
            journal.append(b"one")
    journal.sync()
    assert written(directory) == [b"one", b"left"]


# Forks and directories that go


def test_a_forked_child(directory: Directory, journal: Journal) -> None:
    """A child begins a file of its own, and leaves that of its parent locked."""
    journal.append(b"one")
    (path,) = directory.journals()
    child = os.fork()
    if child == 0:  # pragma: no cover - measured in the parent only
        journal.forked()
        journal.append(b"child's")
        os._exit(0 if journal.appended == 1 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with path.open("rb") as file:
        assert not lock(file.fileno())
    journal.append(b"two")
    assert [scan(path.read_bytes(), final=True).records for path in directory.journals()] == [
        [b"one", b"two"],
        [b"child's"],
    ]


@pytest.mark.parametrize("sealed", [False, True])
def test_a_child_forked_while_a_file_is_synced(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    """A child keeps nothing of its parent's open: the file's lock would outlive the parent."""
    journal.append(b"one")
    codes: list[int] = []

    def fork(descriptor: int) -> None:
        child = os.fork()
        if child == 0:  # pragma: no cover - measured in the parent only
            journal.forked()
            try:
                os.fstat(descriptor)
            except OSError:
                os._exit(0)
            os._exit(1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    monkeypatch.setattr(journal_file, "_sync", fork)
    if sealed:
        journal.seal()
    else:
        journal.sync()
    assert codes == [0]


def test_a_child_without_its_parents_files(journal: Journal) -> None:
    """A child whose descriptors were all closed begins anew all the same."""
    journal.append(b"one")
    assert journal._file is not None
    os.close(journal._file.descriptor)
    journal.forked()
    journal.append(b"two")


def closed(journal: Journal, path: Path) -> int:
    """Close the descriptor of a journal behind its back, and have another file get its number."""
    assert journal._file is not None
    number = journal._file.descriptor
    own = os.open(path, os.O_RDWR | os.O_CREAT)
    os.dup2(own, number)
    os.close(own)
    return number


@pytest.mark.parametrize("how", ["append", "sync", "seal", "fork", "queue", "place", "gone"])
def test_a_descriptor_that_is_someone_elses(
    directory: Directory, journal: Journal, tmp_path: Path, how: str
) -> None:
    """A file that has the number of the journal's by now is neither written, cut, synced nor closed."""
    journal.append(b"one")
    program = tmp_path / "program"
    program.write_bytes(b"its own")
    assert journal._file is not None
    if how == "gone":
        os.close(number := journal._file.descriptor)
    else:
        number = closed(journal, program)
    if how == "sync":
        journal.sync()
    elif how == "seal":
        journal.seal()
    elif how == "fork":
        journal.forked()
    elif how == "queue":
        with journal._lock:
            thread = started(journal.append, b"zero")
            until(lambda: bool(journal._backlog.frames))
        thread.join()
        assert journal.catch_up()
    elif how == "place":
        journal.check_place()
    journal.append(b"two")
    journal.seal()
    assert written(directory) == [b"one", *([b"zero"] if how == "queue" else []), b"two"]
    assert program.read_bytes() == b"its own"
    if how != "gone":
        assert os.path.samestat(os.fstat(number), program.stat())
        os.close(number)


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(10_000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError


@pytest.mark.parametrize("noticed", ["by an append", "by a look"])
def test_a_directory_that_is_removed(
    directory: Directory, journal: Journal, caplog: pytest.LogCaptureFixture, noticed: str
) -> None:
    """Nothing is added to what others will not find any more: another file is begun, and the log says so once."""
    journal.check_place()
    journal.append(b"one")
    journal.check_place()
    assert caplog.messages == []
    path = directory.path / str(journal.name)
    shutil.rmtree(directory.path)
    if noticed == "by a look":
        journal.check_place()
        assert not journal.is_open
    journal.append(b"two")
    journal.check_place()
    journal.append(b"three")
    assert written(directory) == [b"two", b"three"]
    assert caplog.messages == [
        f"{path} was removed or replaced while it was in use: of its 1 usage events, those that were not imported yet "
        "are lost. A new journal is begun"
    ]


def test_a_directory_that_is_moved(directory: Directory, journal: Journal, tmp_path: Path) -> None:
    """So it is where the directory lies elsewhere by now: what is in it stays there."""
    journal.append(b"one")
    directory.path.rename(tmp_path / "elsewhere")
    journal.check_place()
    journal.append(b"two")
    assert written(directory) == [b"two"]
    (moved,) = (tmp_path / "elsewhere").glob("*.journal")
    journal.sync()
    assert moved.read_bytes() == frame(b"one")
    with moved.open("rb") as file:
        assert lock(file.fileno())


def test_a_file_that_is_done_with_while_it_is_looked_for(
    directory: Directory,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A file that was sealed, read and removed at that moment was in its place: nothing is said of it."""
    journal.append(b"one")
    real = OpenFile.is_at

    def is_at(file: OpenFile, path: Path) -> bool:
        monkeypatch.undo()
        journal.seal()
        path.unlink()
        journal.append(b"two")
        return real(file, path)

    monkeypatch.setattr(OpenFile, "is_at", is_at)
    journal.check_place()
    assert written(directory) == [b"two"]
    assert caplog.messages == []


@pytest.mark.parametrize("interrupted", ["frame", "_sync"])
def test_what_a_signal_handler_raises_while_a_file_ends(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    """A handler's TimeoutError is an OSError, and none of the disk's: it goes on to the application, once."""
    journal = Journal(directory)
    journal.append(b"one")

    def handler(number: int, interrupted: object) -> None:
        raise TimeoutError(number, interrupted)

    def interrupt(*_: object) -> None:
        signal.raise_signal(signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(journal_file, interrupted, interrupt)
            with pytest.raises(TimeoutError):
                journal.seal()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    journal.append(b"two")
    journal.seal()
    assert written(directory) == [b"one", b"two"]
