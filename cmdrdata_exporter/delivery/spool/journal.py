"""
The journal: one append-only file per process. What was appended survives the death of the process at once.

A frame is a magic number, the length of the record, the CRC-32 of length and record, and the record; a frame without
a record ends the file. The magic number is made of bytes that no UTF-8 text has, so that after damage the next frame
can be found.
A writer holds the lock of its file for as long as it may write to it: who can have the lock knows that nothing follows.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery.spool.directory import JOURNAL, RESERVE, Directory, OpenFile, lock

LARGEST = 8 << 20
"""Bytes after which a file is sealed and another one begun."""
OLDEST = 60.0
"""Seconds after which a file is sealed."""
PATIENCE = 0.05
"""Seconds that a thread waits for another one's write, before it takes the disk to be stalled."""
LOOK = 0.002
"""Seconds between two looks at what that one waits for: the disk, or only the interpreter."""
UNCHECKED = 64 << 10
"""Bytes that are appended until it is looked again how much room the disk has."""
QUEUE_BYTES = 16 << 20
"""How much may wait for a disk that has stalled."""

_MAGIC = b"\xf5\xc1\xff\xc0"
_HEAD = struct.Struct("<4sII")
_LENGTH = struct.Struct("<I")
NEW = ".new"
"""Ends the name of a file that has no lock yet."""


class JournalFullError(OSError):
    """A record that cannot be taken: the disk, the spool directory or the queue before them is full."""


def frame(record: bytes) -> bytes:
    """Return a record as it is written."""
    size = len(record)
    return _HEAD.pack(_MAGIC, size, zlib.crc32(record, zlib.crc32(_LENGTH.pack(size)))) + record


class Scan(NamedTuple):
    """What was found in a part of a journal."""

    records: list[bytes]
    damaged: list[tuple[int, bytes]]
    """What is no record: where it began, and its bytes."""
    end: int
    """Where the next scan begins."""
    sealed: bool
    """Nothing follows."""


def scan(data: bytes, *, final: bool) -> Scan:
    """
    Read the records of a part of a journal that begins with a frame.

    Args:
        data: the bytes. A frame that is not whole yet stays for the next scan.
        final: nothing will be added to them, so that what is not whole is damaged.
    """
    records: list[bytes] = []
    damaged: list[tuple[int, bytes]] = []
    position, size = 0, len(data)
    while position < size:
        begin = position + _HEAD.size
        if begin <= size:
            magic, length, checksum = _HEAD.unpack_from(data, position)
            end = begin + length
            if magic == _MAGIC and end <= size:
                record = data[begin:end]
                if zlib.crc32(record, zlib.crc32(_LENGTH.pack(length))) == checksum:
                    if not length:
                        return Scan(records, damaged, end, sealed=True)
                    records.append(record)
                    position = end
                    continue
        following = data.find(_MAGIC, position + 1)
        if following < 0:
            if not final:
                break  # It may only not be whole yet.
            following = size
        damaged.append((position, data[position:following]))
        position = following
    return Scan(records, damaged, position, sealed=False)


class Journal:
    """
    The journal of this process. Safe to use from several threads, signal handlers and finalizers.

    Args:
        directory: where the files are.
        fsync: whether a record is on the disk itself, not only with the operating system, when `append` returns.
        is_full: says that nothing may be added to the directory.
        refused: is told of a record that was left to another thread's append, and could not be written.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        fsync: bool = False,
        is_full: Callable[[], bool] = lambda: False,
        refused: Callable[[bytes, OSError], None] = lambda record, error: None,  # noqa: ARG005
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._directory = directory
        self._fsync = fsync
        self._is_full = is_full
        self._refused = refused
        self._clock = clock
        self._file: OpenFile | None = None
        self._sealed: deque[OpenFile] = deque()
        """Files that have their end and must be synced still, which nobody who appends shall wait for."""
        self._syncing: set[OpenFile] = set()
        """Those of them that are being synced, and copies of the current file: a child inherits them too."""
        self.name: str | None = None
        self.forked()

    def forked(self) -> None:
        """Begin a file of its own in a forked child. The parent keeps its file: its lock is not touched."""
        for file in (self._file, *self._sealed, *self._syncing):
            # Closing a copy leaves the lock alone.
            if file is not None:
                file.close()
        self._sealed.clear()
        self._syncing.clear()
        self._file = self.name = None
        # Taken once only by a thread: it knows its owner, which Ctrl-C between two statements cannot hide.
        self._lock: Any = threading.RLock()
        self._counting = threading.RLock()
        self._before: int | None = None
        """The size of the file before the write that is being made with the lock."""
        self._beside: set[object] = set()
        """One for each append that is made without the lock, beside the thread that has it."""
        self._torn = False
        """The end of the file is being mended: nobody may append beside."""
        self._written = 0
        """How many frames were written to the file, and `_synced`, how many of them are on the disk itself."""
        self._synced = 0
        self._begun = math.inf
        self._unchecked = 0
        """How many bytes were to be appended since it was looked how much room the disk has."""
        self._full_until = 0.0
        """Until when it is taken to have none."""
        self._was_closed = False
        """Whether the log says that someone closed the file."""
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self.appended = 0
        """How many records this process has appended."""
        self.handed_over = 0
        """How many records waited in memory while the disk was stalled, or in what their own thread has interrupted."""
        self.stalled = False
        """Whether the disk was stalled once."""

    @property
    def is_open(self) -> bool:
        """Whether there is a file that the next record goes into."""
        return self._file is not None

    def append(self, record: bytes, kept: list[object] | None = None) -> None:
        """
        Add a record. When this returns, the death of the process does not lose it.

        The one exception is counted in `handed_over`: while the write of another thread is stalled in the operating
        system, the record waits in memory for that write to return; so it does where this has interrupted its own
        thread while that begins a file, or mends the end of one.

        A signal handler may raise in the middle. `kept` is not empty then if the record is here, and only then; where
        it is not empty before, nothing is added.

        Raises:
            OSError: it could not be written.
        """
        kept = [] if kept is None else kept
        if kept:
            self._written += 1  # What was interrupted may not have counted it: it shall be synced.
            return
        data = frame(record)
        # A signal handler or finalizer may have interrupted this thread's own append: it must not wait for that.
        mine = self._is_mine()
        until = clocks.monotonic() + PATIENCE
        try:
            while True:
                if not mine and self._lock.acquire(timeout=LOOK):
                    self._write(data, kept)
                    return
                if self._write_beside(data, kept):
                    return
                if mine or clocks.monotonic() >= until:
                    break
            kept.extend(map(self._hand_over, (data,)))
            # Its owner may have looked for what is left to it just before.
            if mine or not self._lock.acquire(blocking=False):
                self.handed_over += 1
                self.stalled = self.stalled or not mine
        finally:
            # Not only where it is known to be had: Ctrl-C may have come between that and the next statement.
            if not mine and self._is_mine():
                self._finish()

    def sync(self) -> None:
        """Make what was appended survive a crash of the host."""
        old = self._clock() - self._begun >= OLDEST
        if self._synced == self._written and not (old or self._waiting or self._sealed):
            return
        if self._is_mine() or not self._lock.acquire(timeout=LOOK):
            return  # The next time.
        try:
            if old:
                self._seal()
            name, written = self.name, self._written
            copy = None if self._file is None else self._file.copy()
        finally:
            self._finish()
        self._sync_sealed()
        if copy is None:
            return
        self._syncing.add(copy)
        try:
            # Without the lock: whoever appends does not wait for it.
            _sync(copy.descriptor)
            if self._synced == 0:
                self._directory.sync()
        finally:
            self._syncing.discard(copy)
            copy.close()
        if name == self.name:
            self._synced = written

    def seal(self, timeout: float = 1.0) -> None:
        """End the file; the next record begins another one. Records that wait for a stalled disk are refused."""
        if self._is_mine():
            return  # What this has interrupted goes on, and this is called again at the exit.
        while self._lock.acquire(timeout=timeout):
            try:
                self._drain_waiting()
                self._seal()
            finally:
                self._lock.release()
            self._sync_sealed()
            if not self._waiting:
                return
            # Left here by another thread meanwhile, and no disk is stalled.
        while data := self._next_waiting():
            self._refused(data[_HEAD.size :], JournalFullError("the disk is stalled"))

    def catch_up(self) -> bool:
        """Write what waits in memory for a disk that had stalled; say whether nothing waits any more."""
        if self._waiting and not self._is_mine() and self._lock.acquire(timeout=LOOK):
            self._finish()
        return not self._waiting

    def is_in_place(self) -> bool:
        """Say whether the file is where others will find it: someone may have removed or replaced the directory."""
        if self._is_there():
            return True
        # It may have been sealed, read and removed since, or be another one by now: not while the lock is held.
        if self._is_mine() or not self._lock.acquire(timeout=LOOK):
            return True  # The next time.
        try:
            return self._is_there()
        finally:
            self._finish()

    def _is_there(self) -> bool:
        name, file = self.name, self._file
        # One that was closed under us is noticed by who appends next.
        return (
            name is None
            or file is None
            or not file.is_ours
            or file.is_at(self._directory.path / name)
        )

    def let_go(self) -> None:
        """Begin another file with the next record, if others will not find this one any more."""
        with self._lock:
            if not self._is_there():
                self._leave()

    def _hand_over(self, data: bytes) -> None:
        if self._waiting_bytes + len(data) > QUEUE_BYTES:
            raise JournalFullError("too many events wait for a disk that does not answer")
        self._waiting_bytes += len(data)
        self._waiting.append(data)

    def _is_mine(self) -> bool:
        """Say whether this thread has the lock."""
        mine: bool = self._lock._is_owned()  # noqa: SLF001 - as threading.Condition asks it, since Python 2
        return mine

    def _finish(self) -> None:
        """Write what other threads left here, and release the lock."""
        while True:
            try:
                self._drain_waiting()
            finally:
                self._lock.release()
            # Something may have been left between the last look and the release.
            if not (self._waiting and self._lock.acquire(blocking=False)):
                return

    def _drain_waiting(self) -> None:
        while data := self._next_waiting():
            self._write_or_refuse(data)
        if self._waiting_bytes:
            # Threads add to it without a lock, so that it may be a little wrong by now.
            self._waiting_bytes = sum(map(len, list(self._waiting)))

    def _next_waiting(self) -> bytes | None:
        try:
            data = self._waiting.popleft()
        except IndexError:  # `seal` takes them too, without the lock, when the disk is stalled.
            return None
        self._waiting_bytes -= len(data)
        return data

    def _write_or_refuse(self, data: bytes) -> None:
        kept: list[object] = []
        try:
            self._write(data, kept)
        except BaseException as error:
            if isinstance(error, OSError) and not faults.is_interruption(error):
                self._refused(data[_HEAD.size :], error)
                return
            if not kept:
                self._waiting.appendleft(data)  # Ctrl-C
            raise

    def _write(self, data: bytes, kept: list[object]) -> None:
        """Append a frame. Called with the lock."""
        self._require_room(len(data))
        file = self._file
        size = None if file is None else file.size()
        if file is None or size is None:
            self._leave()
            file, size = self._begin(), 0
        self._before = size
        try:
            written = _write(file.descriptor, data, kept)
        finally:
            self._before = None
        if written != len(data):
            kept.clear()
            self._take_back(file, size + written, written)
            raise JournalFullError("no space is left on the device")
        if self._fsync:
            try:
                self._sync_at_once(file)
            except OSError as error:
                if faults.is_interruption(error):
                    raise
                kept.clear()
                # Whether it is on the disk cannot be known any more: it must not be here and refused. Who reads may
                # have read it already, so that nothing may take its place.
                self._file = None
                self._take_back(file, size + written, written)
                self._sealed.append(file)
                raise
        self._count()
        if size + written >= LARGEST or self._clock() - self._begun >= OLDEST:
            self._seal()

    def _require_room(self, size: int) -> None:
        self._unchecked += size
        if self._unchecked >= UNCHECKED:
            self._unchecked = 0
            try:
                free = self._directory.free()
            except OSError as error:
                if faults.is_interruption(error):
                    raise
            else:
                if free < RESERVE:
                    self._full_until = self._clock() + 1.0
        if self._is_full() or (self._full_until and self._clock() < self._full_until):
            raise JournalFullError("the spool directory, or its disk, has reached its limit")

    def _write_beside(self, data: bytes, kept: list[object]) -> bool:
        """
        Append a frame without the lock, if its owner only waits for the interpreter; return whether it was.

        One write to the end of a file is one step for the operating system, whoever else writes. So the lock only
        keeps a disk that has stalled from holding up more than one thread: then the owner's write is not there yet.
        """
        # Not the thread: a signal handler may append in the middle of this, and leave before it.
        me = object()
        try:
            # In this order: who seals the file, or mends its end, lets nobody in and then looks who is inside.
            self._beside.add(me)
            before, file = self._before, self._file
            self._require_room(len(data))
            size = None if file is None else file.size()
            if file is None or size is None or self._torn:
                return False
            # Where each append waits for the disk, this one does too; what this thread has interrupted is not stalled.
            waits = before is None or self._fsync or self._is_mine()
            if not waits and size == before:
                return False
            written = _write(file.descriptor, data, kept)
            if written != len(data):
                kept.clear()
                # What is there of it is no record, and will be found to be none.
                raise JournalFullError("no space is left on the device")
            if self._fsync:
                self._sync_at_once(file)
            self._count()
            return True
        finally:
            self._beside.discard(me)

    def _count(self) -> None:
        with self._counting:
            self._written += 1
            self.appended += 1
            if self._fsync:
                self._synced = self._written

    def _sync_at_once(self, file: OpenFile) -> None:
        _sync(file.descriptor)
        if self._synced == 0:
            self._directory.sync()

    def _take_back(self, file: OpenFile, size: int, written: int) -> None:
        """Remove what was written last, if that is the end of the file still. Called with the lock."""
        self._torn = True
        try:
            # Where another thread appends beside, it stays, and will be found to be no record.
            if not self._beside and file.size() == size:
                os.ftruncate(file.descriptor, size - written)
        finally:
            self._torn = False

    def _leave(self) -> None:
        """Let go of a file that was closed under us or removed, and say so. Called with the lock."""
        file, self._file = self._file, None
        if file is None:
            return
        path = self._directory.path / (self.name or "")
        if file.is_ours:
            # Who appends beside may have it still.
            self._sealed.append(file)
            faults.say(
                logging.ERROR,
                "%s was removed or replaced under this process: of the %d usage events in it, those that were not "
                "taken over are lost. Another one is begun",
                path,
                self._written,
            )
        elif not self._was_closed:
            self._was_closed = True
            faults.say(
                logging.ERROR,
                "this program has closed a descriptor that it has not opened, that of %s. What is in it is kept, and "
                "another one is begun. Keep such code from closing all descriptors, or let it run before metering",
                path,
            )

    def _begin(self) -> OpenFile:
        """Create a file and take its lock, before others can see it."""
        self._directory.check()
        name = f"{int(clocks.wall() * 1e9):020d}-{os.getpid()}-{os.urandom(4).hex()}{JOURNAL}"
        path = self._directory.path / name
        descriptor = self._directory.create(name + NEW)
        try:
            if not lock(descriptor):
                raise BlockingIOError("another program has locked a file that was just created")
            path.with_name(name + NEW).rename(path)
            file = OpenFile(descriptor)
        except OSError:
            os.close(descriptor)
            path.with_name(name + NEW).unlink(missing_ok=True)
            raise
        self._written = self._synced = 0
        self._begun = self._clock()
        self.name, self._file = name, file
        return file

    def _seal(self) -> None:
        """Mark the end, and leave the file to be synced without the lock. Called with it."""
        file, self._file = self._file, None
        if file is None:
            return
        self._begun = math.inf
        size = file.size()
        # Without the mark it is found to be complete when its lock can be had. Who appends beside has the last word.
        try:
            if size is not None and not self._beside:
                data = frame(b"")
                written = os.write(file.descriptor, data)
                if written != len(data):
                    self._take_back(file, size + written, written)
        except OSError as error:
            if faults.is_interruption(error):
                raise
        finally:
            self._sealed.append(file)

    def _sync_sealed(self) -> None:
        """Make sealed files survive a crash of the host, and let go of them. Called without the lock."""
        # Who appends beside may have one of them still; the next time, then.
        while self._sealed and not self._beside:
            try:
                file = self._sealed.popleft()
            except IndexError:  # another thread was quicker
                return
            self._syncing.add(file)
            try:
                if file.is_ours:
                    _sync(file.descriptor)
                    self._directory.sync()
            except OSError as error:
                # What is not on the disk is with the operating system.
                if faults.is_interruption(error):
                    raise
            finally:
                self._syncing.discard(file)
                file.close()


def _write(descriptor: int, data: bytes, kept: list[object]) -> int:
    """Write to a file and tell so in `kept`, in one step of the interpreter: no signal handler comes between."""
    kept.extend(map(os.write, (descriptor,), (data,)))
    written: Any = kept[-1]
    return written


def _sync(descriptor: int) -> None:
    """Wait until the content of a file is on the disk."""
    # macOS has no fdatasync in Python.
    getattr(os, "fdatasync", os.fsync)(descriptor)
