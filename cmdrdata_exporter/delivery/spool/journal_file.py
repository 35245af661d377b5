"""One file of a journal, as the process sees it that writes it."""

from __future__ import annotations

import errno
import logging
import math
import os
import threading
from typing import Any

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery.spool.directory import JOURNAL, NEW, Directory
from cmdrdata_exporter.delivery.spool.file_systems import lock
from cmdrdata_exporter.delivery.spool.frames import frame
from cmdrdata_exporter.descriptors import OpenFile


class JournalFullError(OSError):
    """A record is refused: the disk, the spool directory or the queue before them is full."""


class JournalFile(OpenFile):
    """
    A file that frames are appended to. `write`, `take_back` and `seal` are called with the journal's append lock.

    Args:
        directory: where it is.
        name: what it is called there.
        descriptor: of the file, which is open and locked.
    """

    __slots__ = (
        "_directory",
        "_is_named",
        "_sound",
        "_sync_lock",
        "_synced",
        "begun",
        "frames",
        "is_being_cut",
        "name",
        "path",
    )

    def __init__(self, directory: Directory, name: str, descriptor: int) -> None:
        super().__init__(descriptor)
        self._directory = directory
        self.name = name
        self.path = directory.path / name
        self.frames = 0
        """How many frames were written."""
        self._synced = 0
        """How many of them are on the disk itself, here or in the ledger."""
        self._is_named = False
        """Whether its name is."""
        self._sound = math.inf
        """How many were when a sync failed first. Whether later ones are will never be known."""
        self._sync_lock = threading.RLock()
        """Held while the file is synced or closed. Whoever has it never waits for the append lock."""
        self.begun = 0.0
        """Monotonic seconds."""
        self.is_being_cut = False
        """Whether its end is about to be cut off: nothing may be appended now."""

    @classmethod
    def create(cls, directory: Directory) -> JournalFile:
        """
        Create a file and take its lock, before others can see it.

        Raises:
            OSError: it cannot be created.
        """
        directory.check()
        name = f"{int(clocks.wall() * 1e9):020d}-{os.getpid()}-{os.urandom(4).hex()}{JOURNAL}"
        path, new = directory.path / name, directory.path / (name + NEW)
        descriptor = directory.create(new.name)
        try:
            if not lock(descriptor):
                raise BlockingIOError("another program has locked a file that was just created")
            new.rename(path)
            return cls(directory, name, descriptor)
        except OSError:
            os.close(descriptor)
            new.unlink(missing_ok=True)
            raise

    def is_lost(self) -> bool:
        """Return whether others cannot find the file: somebody removed, moved or replaced its directory."""
        # A descriptor that was closed under us is noticed by the next append.
        return self.is_ours and not self.is_at(self.path)

    def report_removed(self) -> None:
        """Log that somebody has removed it."""
        faults.say(
            logging.ERROR,
            "%s was removed or replaced while it was in use: of its %d usage events, those that were not imported "
            "yet are lost. A new journal is begun",
            self.path,
            self.frames,
        )

    def report_closed(self) -> None:
        """Log that the program has closed our descriptor."""
        faults.say(
            logging.ERROR,
            "this program has closed a descriptor that it has not opened, that of %s. Its usage events are kept, "
            "and a new journal is begun. Keep such code from closing all descriptors, or run it before metering "
            "begins",
            self.path,
        )

    def write(self, data: bytes, size: int, kept: list[object]) -> None:
        """
        Append a frame to the file, which has `size` bytes. `kept` is not empty as soon as it is there.

        Raises:
            OSError: it could not be written, and nothing of it is in the file.
        """
        # In one step of the interpreter, so that no signal handler comes between the two.
        kept.extend(map(os.write, (self.descriptor,), (data,)))
        written: Any = kept[-1]
        if written != len(data):
            kept.clear()
            self.take_back(size, size + written)
            raise JournalFullError("no space is left on the device")
        self.frames += 1

    def take_back(self, begin: int, end: int) -> bool:
        """Cut the file at `begin` if it still ends at `end`: nobody has appended meanwhile. Return whether it did."""
        self.is_being_cut = True
        try:
            if self.size() != end:
                return False
            os.ftruncate(self.descriptor, begin)
            return True
        finally:
            self.is_being_cut = False

    def seal(self) -> None:
        """Mark the end. Without the mark, a reader knows that the file is complete once it can have the lock."""
        try:
            size = self.size()
            if size is not None:
                self.write(frame(b""), size, [])
        except OSError as error:
            if faults.is_interruption(error):
                raise

    def sync(self, through: int = 0) -> None:
        """
        Wait until all frames, or at least the first `through`, survive a crash of the host.

        Threads that wait for each other here share one system call.

        Raises:
            OSError: they may not.
        """
        with self._sync_lock:
            frames = self.frames
            if through and self._sound < through:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            if self._synced >= (through or frames):
                return
            if not self.is_ours:
                if through:
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                return
            try:
                _sync(self.descriptor)
                if not self._is_named:
                    self._directory.sync()
                    self._is_named = True
            except OSError as error:
                # The operating system says so once, and takes the pages for written from then on.
                if not faults.is_interruption(error):
                    self._sound = min(self._sound, self._synced)
                raise
            self._synced = frames

    def note_imported(self, frames: int) -> None:
        """Take note that the ledger has so many frames, on the disk itself."""
        self._synced = max(self._synced, frames)

    def finish(self) -> None:
        """Sync what can be synced, and close the file, which ends its lock."""
        with self._sync_lock:
            try:
                self.sync()
            except OSError as error:
                # The frames are with the operating system.
                if faults.is_interruption(error):
                    raise
            finally:
                self.close()


def _sync(descriptor: int) -> None:
    """Wait until the content of a file is on the disk."""
    # Python has no fdatasync on macOS.
    getattr(os, "fdatasync", os.fsync)(descriptor)
