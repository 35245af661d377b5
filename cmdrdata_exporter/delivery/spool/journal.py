"""
The journal: what a process has appended survives the death of the process at once.

**Invariants**
1. When `append` returns, the record is in a file, or it waits in memory for a stalled disk, which is counted.
2. `kept` is not empty if and only if the record is in a file or waits, at whatever instruction a signal handler raises.
3. Nobody waits for one append of another thread longer than `APPEND_LOCK_TIMEOUT`; a signal handler or finalizer
   never waits for what it has interrupted.
4. A file is written by one process, which holds the file's lock for as long. So whoever can have the lock knows that
   nothing follows.
5. What was appended never moves. Only bytes that no `append` has promised are cut off, and only at the end.

**Files** are called `<nanoseconds>-<pid>-<random>.journal`, so that their names sort by age and none comes again.
They are a sequence of frames, see `frames`. One is created as `.new`, locked, then given its name: no reader ever sees
one that is not locked by its writer.

**Writing** is one `write` to the end of the file. The `fstat` before it notices that the program has closed our
descriptor, or that somebody has removed the file. After a short write, on a full disk, the file is cut back.
At `MAX_FILE_BYTES` or `MAX_FILE_AGE` the file gets a frame without a record and another one is begun.
`sync` makes frames survive a crash of the host, outside the append lock; with `fsync` each `append` waits for that.
What the ledger has committed survives one, so a `mark` that is imported need not be synced here.

**Waiting**: where nobody's append succeeds for so long, the disk is stalled. Each thread that waits puts its record
into the `backlog`, which the owner of the lock writes before it lets go.
A signal handler or finalizer that has interrupted its own thread's append writes directly, since one `write` is
complete or was not begun; where there is no file at that moment, it uses the backlog.

**Reading and removing** is the work of the process that leads, see `journal_reader`.
A forked child begins a file of its own. Closing its copies of the parent's descriptors keeps the parent's locks.

**Rejected**
- Appends without the lock: whoever ends, cuts or closes a file must wait for those inside, which is more code.
- A queue and a thread that writes (who is killed loses what is in the queue).
- SQLite in the application's thread (commits of others held it up for 17 ms); `mmap` (a full disk is a signal).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery.spool.backlog import Backlog
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.frames import frame
from cmdrdata_exporter.delivery.spool.journal_file import JournalFile, JournalFullError

APPEND_LOCK_TIMEOUT = 0.05
"""Seconds without a successful append of another thread, before the record of one that waits goes to the queue."""
MAX_FILE_BYTES = 8 << 20
"""A file that has as many is sealed."""
MAX_FILE_AGE = 60.0
"""A file that is as old, in seconds, is sealed."""
ROOM_CHECK_BYTES = 64 << 10
"""After as many appended bytes the room on the disk is checked again."""


class Mark(NamedTuple):
    """How far a file had been written at some time."""

    file: JournalFile
    frames: int
    size: int


class Journal:
    """
    The journal of this process. Safe to use from several threads, signal handlers and finalizers.

    Args:
        directory: where the files are.
        fsync: whether a record is on the disk itself, not only with the operating system, when `append` returns.
        refused: is called with each record of the queue that could not be written.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        fsync: bool = False,
        refused: Callable[[bytes, OSError], None] = lambda record, error: None,  # noqa: ARG005
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._directory = directory
        self._fsync = fsync
        self._refused = refused
        self._clock = clock
        self._open: set[JournalFile] = set()
        """The files that this process has open, and a forked child too."""
        self.forked()

    def forked(self) -> None:
        """Begin a file of its own in a forked child. The parent keeps its files and their locks."""
        for file in self._open:
            file.close()
        self._open = set()
        self._file: JournalFile | None = None
        """What is appended to."""
        self._sealed: deque[JournalFile] = deque()
        """What is to be synced and closed, which no append waits for."""
        self.name: str | None = None
        """The file that was begun last."""
        # Always asked for its owner: what acquired it may have been interrupted before it knew.
        self._lock: Any = threading.RLock()
        self._is_mine: Callable[[], bool] = self._lock._is_owned  # noqa: SLF001 - as threading.Condition asks it
        """Says whether this thread has the append lock."""
        self.is_full = False
        """Whether records are refused, since the directory has reached its limit. The drainer says so."""
        self._unchecked_bytes = 0
        """How many bytes were appended since the room on the disk was checked."""
        self._reported_closed = False
        """Whether the log says that the program closes our descriptors."""
        self._backlog = Backlog(self._refused)
        self.appended = 0
        """How many records this process has appended."""
        self.handed_over = 0
        """How many records waited in memory: the disk was stalled, or the thread was interrupted without a file."""
        self.stalled = False
        """Whether the disk was stalled once."""

    @property
    def is_open(self) -> bool:
        """Whether there is a file that the next record goes into."""
        return self._file is not None

    def append(self, record: bytes, kept: list[object] | None = None) -> None:
        """
        Add a record. When this returns, the death of the process does not lose it.

        The exception is counted in `handed_over`: while another thread's write is stalled in the operating system the
        record waits in memory; so it does where this has interrupted its own thread while no file can be appended to.

        A signal handler may raise in the middle. `kept` is not empty then if the record is here, and only then. If it
        is not empty before, nothing is added.

        Raises:
            OSError: the record could not be written.
        """
        kept = [] if kept is None else kept
        if kept:
            if self._file is not None:
                self._file.frames += (
                    1  # Who was interrupted may not have counted it, and it must be synced.
                )
            return
        data = frame(record)
        written: tuple[JournalFile, int] | None = None
        nested = self._is_mine()
        try:
            try:
                if nested:
                    written = self._write_nested(data, kept)
                elif self._lock.acquire(False) or self._acquire():
                    written = self._write(data, kept)
                else:
                    self._backlog.put(data, kept)
                    # The owner may have emptied the queue just before.
                    if not self._lock.acquire(blocking=False):
                        self.handed_over += 1
                        self.stalled = True
            finally:
                if not nested and self._is_mine():
                    self._release()
        finally:
            # A signal handler may have raised just before the release.
            if not nested and self._is_mine():
                self._release()
        if self._fsync and written is not None:
            self._sync_frame(*written, len(data), kept)

    def sync(self) -> None:
        """Make what was appended survive a crash of the host, and seal a file that is old."""
        file = self._file
        if file is not None and self._clock() - file.begun >= MAX_FILE_AGE:
            self._locked(self._seal)
        self.catch_up()
        self._finish_sealed()
        if (file := self._file) is not None:
            file.sync()

    def mark(self) -> Mark | None:
        """Return what was appended so far, as far as it is in a file."""
        file = self._file
        if file is None:
            return None
        # Before the size: what is appended in between is for the next mark.
        frames, size = file.frames, file.size()
        return None if size is None else Mark(file, frames, size)

    def seal(self, timeout: float = 1.0) -> None:
        """End the file; the next record begins another one. Records that wait for a stalled disk are refused."""
        if self._is_mine():
            return  # What this has interrupted goes on, and the exit calls this again.
        # Again, if another thread has left a record meanwhile, and no disk is stalled.
        while self._locked(lambda: (self._backlog.empty(self._write), self._seal()), timeout):
            self._finish_sealed()
            if not self._backlog.frames:
                return
        self._backlog.refuse(JournalFullError("the disk is stalled"))

    def catch_up(self) -> bool:
        """Write what waits in memory, unless somebody else is about to; return whether nothing waits any more."""
        if self._backlog.frames:
            self._locked(lambda: None)  # Its release writes them.
        return not self._backlog.frames

    def check_place(self) -> None:
        """Begin another file with the next record, if others cannot find this one any more."""
        if (file := self._file) is not None and file.is_lost():
            # By then it may have been sealed, imported and removed.
            self._locked(lambda: self._leave() if self._file is file else None)

    # The lock and the queue

    def _acquire(self) -> bool:
        """Wait for the append lock, for as long as the appends of other threads succeed; return whether it was had."""
        while True:
            appended = self.appended
            if self._lock.acquire(timeout=APPEND_LOCK_TIMEOUT):
                return True
            if self.appended == appended:
                return False

    def _locked(self, action: Callable[[], object], timeout: float = 0) -> bool:
        """Do something with the append lock, unless this thread has it or it is not free in time; return whether."""
        if self._is_mine():
            return False
        try:
            try:
                acquired: bool = self._lock.acquire(timeout=timeout)
                if acquired:
                    action()
                return acquired
            finally:
                if self._is_mine():
                    self._release()
        finally:
            # As in `append`.
            if self._is_mine():
                self._release()

    def _release(self) -> None:
        """Write what is in the queue, and release the lock."""
        while True:
            try:
                if self._backlog.frames:
                    self._backlog.empty(self._write)
            finally:
                self._lock.release()
            # Something may have been put there just before the release.
            if not (self._backlog.frames and self._lock.acquire(blocking=False)):
                return

    def _write(self, data: bytes, kept: list[object]) -> tuple[JournalFile, int]:
        """Append a frame; return the file, and the size that it had before."""
        size = len(data)
        self._unchecked_bytes += size
        if self._unchecked_bytes >= ROOM_CHECK_BYTES or self.is_full:
            self._require_room()
        file = self._file
        position = None if file is None else file.size()
        if file is None or position is None:
            file, position = self._begin(), 0
        file.write(data, position, kept)
        self.appended += 1
        if position + size >= MAX_FILE_BYTES:
            self._seal()
        return file, position

    def _write_nested(self, data: bytes, kept: list[object]) -> tuple[JournalFile, int] | None:
        """
        Append a frame in a signal handler or finalizer that has interrupted what this thread does with the lock.

        The file is neither begun nor sealed here: what was interrupted may be about to write to it. Where that has no
        file, it finds the frame in the queue.
        """
        file = self._file
        position = None if file is None or file.is_being_cut else file.size()
        if file is None or position is None:
            self._backlog.put(data, kept)
            self.handed_over += 1
            return None
        if self.is_full:
            self._require_room()
        file.write(data, position, kept)
        self.appended += 1
        return file, position

    def _require_room(self) -> None:
        # While the disk is full, every record checks it.
        if self._unchecked_bytes >= ROOM_CHECK_BYTES and self._directory.has_room():
            self._unchecked_bytes = 0
        if self._unchecked_bytes >= ROOM_CHECK_BYTES or self.is_full:
            raise JournalFullError("the spool directory, or its disk, has reached its limit")

    def _begin(self) -> JournalFile:
        """Create a file, having left the one that was removed, or closed under us."""
        self._leave()
        file = JournalFile.create(self._directory)
        self._open.add(file)
        file.begun = self._clock()
        self.name, self._file = file.name, file
        return file

    def _seal(self) -> None:
        """End the file. It is synced and closed later, without the lock."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.seal()
            finally:
                self._sealed.append(file)

    def _leave(self) -> None:
        """Let go of a file that was removed, or closed under us, and report it."""
        file, self._file = self._file, None
        if file is None:
            return
        if file.is_ours:
            self._sealed.append(file)
            file.report_removed()
            return
        self._open.discard(file)
        if not self._reported_closed:
            self._reported_closed = True
            file.report_closed()

    def _sync_frame(self, file: JournalFile, position: int, size: int, kept: list[object]) -> None:
        """Wait until a frame is on the disk. If it may not be, refuse it, and write nothing behind it."""
        try:
            file.sync(file.frames)
        except OSError as error:
            if faults.is_interruption(error):
                raise

            def take_back() -> None:
                """Cut it off if it is the last one, so that it is not both here and refused."""
                if self._file is file:
                    self._file = None
                    self._sealed.append(file)
                kept.clear()
                if not file.take_back(position, position + size):
                    kept.append(None)

            if not self._locked(take_back, timeout=-1):
                take_back()  # in a signal handler, with the lock of what it has interrupted
            if not kept:
                raise
            faults.report("sync", "a crash of the host may lose usage events: %s", error)

    def _finish_sealed(self) -> None:
        """Sync and close the files that were sealed."""
        while self._sealed:
            try:
                file = self._sealed.popleft()
            except IndexError:  # Another thread was quicker.
                return
            try:
                file.finish()
            finally:
                self._open.discard(file)
