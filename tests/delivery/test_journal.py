"""The journal: what was appended is there whatever happens next, and nothing else is ever read."""

from __future__ import annotations

import errno
import gc
import os
import signal
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdrdata_exporter.delivery.spool import journal as module
from cmdrdata_exporter.delivery.spool.directory import Directory, OpenFile, lock
from cmdrdata_exporter.delivery.spool.journal import (
    LARGEST,
    OLDEST,
    QUEUE_BYTES,
    Journal,
    JournalFullError,
    Scan,
    frame,
    scan,
)
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
    journal.append(b"x" * LARGEST)
    journal.append(b"one")
    first, second = directory.journals()
    assert first.read_bytes()[-12:] == END
    assert second.read_bytes() == frame(b"one")


def test_rotation_by_age(directory: Directory) -> None:
    """A file is sealed when it is old, by an append or, where there is none, by what syncs."""
    clock = Clock()
    aging = Journal(directory, clock=clock)
    aging.append(b"one")
    clock.now += OLDEST
    aging.append(b"two")
    aging.append(b"three")
    clock.now += OLDEST - 1
    aging.sync()
    assert [path.read_bytes()[-12:] == END for path in directory.journals()] == [True, False]
    clock.now += 1
    aging.sync()
    assert [path.read_bytes()[-12:] == END for path in directory.journals()] == [True, True]
    assert written(directory) == [b"one", b"two", b"three"]


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
    real = module._sync

    def sync(descriptor: int) -> None:
        found.append("file")
        real(descriptor)

    def sync_directory(directory: Directory) -> None:
        found.append("directory")

    monkeypatch.setattr(module, "_sync", sync)
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

    monkeypatch.setattr(module, "_sync", sync)
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
        patch.setattr(module, "_sync", full)
        with pytest.raises(OSError, match="No space left"):
            strict.append(b"two")
    strict.append(b"three")
    strict.sync()
    assert [path.read_bytes() for path in directory.journals()] == [frame(b"one"), frame(b"three")]
    with directory.journals()[0].open("rb") as file:
        assert lock(file.fileno())
    strict.seal()


def test_a_full_directory(directory: Directory) -> None:
    """At its limit the directory takes no more."""
    limited = Journal(directory, is_full=lambda: True)
    with pytest.raises(
        JournalFullError, match="the spool directory, or its disk, has reached its limit"
    ):
        limited.append(b"one")
    assert directory.journals() == []


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
            patch.setattr(module, "lock", locked)
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
    assert journal._waiting_bytes == 0
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
    """A record that is left just when the other thread has looked for such for the last time is written at once."""
    journal.append(b"one")
    held, ready = threading.Event(), threading.Event()

    def hold() -> None:
        assert journal._file is not None
        with journal._lock:
            journal._before = journal._file.size()  # as if it wrote
            held.set()
            assert ready.wait(10)

    thread = started(hold)
    assert held.wait(10)
    hand_over = journal._hand_over

    def leave(data: bytes) -> None:
        hand_over(data)
        ready.set()
        thread.join()

    journal._hand_over = leave
    journal.append(b"two")
    assert written(directory) == [b"one", b"two"]


def test_left_between_the_last_look_and_the_release(directory: Directory, journal: Journal) -> None:
    """So is one that is left after the last look and before the lock is free."""
    journal.append(b"one")
    drain, late = journal._drain_waiting, [b"two"]

    def drain_then_leave() -> None:
        drain()
        if late:
            journal._hand_over(frame(late.pop()))

    journal._drain_waiting = drain_then_leave
    journal.append(b"three")
    assert written(directory) == [b"one", b"three", b"two"]


def test_a_thread_that_only_waits_for_the_interpreter(
    directory: Directory, journal: Journal
) -> None:
    """Who has the lock, and whose write is not under way, keeps nobody's record in memory."""
    journal.append(b"one")
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with journal._lock:
            held.set()
            assert over.wait(10)

    thread = started(hold)
    assert held.wait(10)
    journal.append(b"two")
    assert written(directory) == [b"one", b"two"]
    assert (journal.handed_over, journal.appended) == (0, 2)
    over.set()
    thread.join()


def test_a_file_that_is_ended_while_another_thread_waits(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the lock when the file ends waits for the next file too, and leaves no record in memory."""
    monkeypatch.setattr(module, "PATIENCE", 10)
    journal.append(b"one")
    real, held, timeouts = journal._lock, threading.Event(), list[float]()
    over = threading.Event()

    def hold() -> None:
        with real:
            held.set()
            assert over.wait(10)

    class Watched:
        """A lock whose owner ends the file and begins another one while it is waited for."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def acquire(self, timeout: float) -> bool:
            """Wait."""
            timeouts.append(timeout)
            if len(timeouts) == 2:
                over.set()
                return real.acquire(timeout=timeout)
            found = real.acquire(timeout=timeout)
            journal._seal()
            return found

    thread = started(hold)
    assert held.wait(10)
    monkeypatch.setattr(journal, "_lock", Watched())
    journal.append(b"two")
    thread.join()
    assert (journal.handed_over, written(directory)) == (0, [b"one", b"two"])


def test_nobody_writes_beside_who_mends_the_end(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a record that did not fit is cut off, another one waits in memory; it is not cut off with it."""
    journal.append(b"one")
    truncate = os.ftruncate
    threads: list[threading.Thread] = []

    def cut(descriptor: int, size: int) -> None:
        thread = started(journal.append, b"two")
        thread.join()
        threads.append(thread)
        truncate(descriptor, size)

    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        return real(descriptor, data[:20])

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", cut)
        patch.setattr(os, "write", short)
        patch.setattr(journal, "_finish", journal._lock.release)
        with pytest.raises(JournalFullError):
            journal.append(b"a record that does not fit")
    assert len(threads) == 1
    assert journal.catch_up()
    assert written(directory) == [b"one", b"two"]


def test_nobody_who_writes_beside_is_cut_off(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that another thread is writing beside stays, and what did not fit before it is no record."""
    journal.append(b"one")
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", real)
        written = real(descriptor, data[:20])
        journal._beside.add(-1)
        return written

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(JournalFullError):
        journal.append(b"a record that does not fit")
    journal.append(b"two")
    (path,) = directory.journals()
    assert scan(path.read_bytes(), final=True).records == [b"one", b"two"]
    # Neither is the file ended or let go of, as long as someone may write to it.
    journal.seal()
    with directory.journals()[0].open("rb") as file:
        assert not lock(file.fileno())
    journal._beside.clear()
    journal.seal()
    with directory.journals()[0].open("rb") as file:
        assert lock(file.fileno())


def test_a_signal_handler_beside(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that appends in the middle of an append beside does not hide that one from who ends the file."""
    journal.append(b"one")
    real = os.write
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with journal._lock:
            held.set()
            assert over.wait(10)
            journal._seal()
        journal._sync_sealed()

    thread = started(hold)
    assert held.wait(10)

    def write(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", real)
        journal.append(b"of the handler")
        over.set()
        thread.join()
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    journal.append(b"two")
    assert written(directory) == [b"one", b"of the handler", b"two"]


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


@pytest.mark.parametrize(
    ("method", "kept"),
    [("acquire", []), ("_write", []), ("_drain_waiting", [b"two"])],
)
def test_interrupted(
    directory: Directory,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    kept: list[bytes],
) -> None:
    """Ctrl-C anywhere in an append, even when the lock was just had, leaves the lock to the next one."""
    journal.append(b"one")
    target: Any = journal

    class Interrupted:
        """A lock during whose acquisition Ctrl-C comes."""

        def __init__(self, real: Any) -> None:
            self.real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def acquire(self, **options: Any) -> bool:
            """Have the lock, and be interrupted before anyone knows."""
            self.real.acquire(**options)
            raise KeyboardInterrupt

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if method == "acquire":
            patch.setattr(journal, "_lock", Interrupted(journal._lock))
        else:
            patch.setattr(target, method, interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append(b"two")
    thread = started(journal.append, b"three")
    thread.join()
    assert journal.handed_over == 0
    assert written(directory) == [b"one", *kept, b"three"]


def test_interrupted_before_a_file_is_begun(directory: Directory, journal: Journal) -> None:
    """So it does where there is no file yet, which nobody could write beside to."""
    real = journal._lock.acquire

    class Interrupted:
        """A lock that is had, and Ctrl-C comes before anyone knows."""

        def __init__(self) -> None:
            self.real = journal._lock

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

        def acquire(self, **options: Any) -> bool:
            """Have the lock, once in vain."""
            journal._lock = self.real
            real(**options)
            raise KeyboardInterrupt

    journal._lock = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        journal.append(b"one")
    journal.append(b"two")
    assert (journal.handed_over, written(directory)) == (0, [b"two"])


def test_interrupted_with_the_record_of_another_thread(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of writing what another thread has left loses none of it."""
    journal._hand_over(frame(b"left"))
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

    monkeypatch.setattr(module, "_sync", fork)
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


@pytest.mark.parametrize("how", ["append", "sync", "seal", "fork", "beside", "replaced", "gone"])
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
    elif how == "beside":
        with journal._lock:
            thread = started(journal.append, b"zero")
            until(lambda: bool(journal._waiting))
        thread.join()
        assert journal.catch_up()
    elif how == "replaced":
        assert journal.is_in_place()
        journal.let_go()
    journal.append(b"two")
    journal.seal()
    assert written(directory) == [b"one", *([b"zero"] if how == "beside" else []), b"two"]
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


def test_a_copy_of_someone_elses(journal: Journal, tmp_path: Path) -> None:
    """What became another file before it was copied is no copy, and the one that was made is closed."""
    journal.append(b"one")
    file = journal._file
    assert file is not None
    number = closed(journal, tmp_path / "program")
    before = len(list(Path("/dev/fd").iterdir()))
    assert file.copy() is None
    assert len(list(Path("/dev/fd").iterdir())) == before
    os.close(number)
    assert file.copy() is None


def test_a_directory_that_is_removed(directory: Directory, journal: Journal) -> None:
    """What others will not find any more is noticed before anything is added to it; another file is begun."""
    assert journal.is_in_place()
    journal.append(b"one")
    assert journal.is_in_place()
    for path in directory.path.iterdir():
        path.unlink()
    directory.path.rmdir()
    assert not journal.is_in_place()
    journal.append(b"two")
    assert journal.is_in_place()
    journal.let_go()
    assert written(directory) == [b"two"]


def test_a_directory_that_is_moved(directory: Directory, journal: Journal, tmp_path: Path) -> None:
    """So is one that lies elsewhere by now: what is in it stays there."""
    journal.append(b"one")
    directory.path.rename(tmp_path / "elsewhere")
    assert not journal.is_in_place()
    journal.let_go()
    journal.append(b"two")
    assert written(directory) == [b"two"]
    (moved,) = (tmp_path / "elsewhere").glob("*.journal")
    journal.sync()
    assert moved.read_bytes() == frame(b"one")
    with moved.open("rb") as file:
        assert lock(file.fileno())


def test_a_file_that_is_done_with_while_it_is_looked_for(
    directory: Directory, journal: Journal, monkeypatch: pytest.MonkeyPatch
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
    assert journal.is_in_place()
    journal.let_go()
    assert written(directory) == [b"two"]


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
            patch.setattr(module, interrupted, interrupt)
            with pytest.raises(TimeoutError):
                journal.seal()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    journal.append(b"two")
    journal.seal()
    assert written(directory) == [b"one", b"two"]
