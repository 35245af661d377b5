"""
Reads the journals of a directory, live ones too, and removes those that are complete and imported.

A file is complete if it ends with the frame that seals it, or if its lock can be had: then its writer has gone. It is
removed once the ledger has all of it. How far each file was read is in the ledger as well, committed in the same
transaction as the records, so that none is imported twice.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery.spool.directory import JOURNAL, NEW, Directory
from cmdrdata_exporter.delivery.spool.file_systems import lock
from cmdrdata_exporter.delivery.spool.frames import Scan, scan
from cmdrdata_exporter.delivery.spool.journal import MAX_FILE_AGE

WRITER_CHECK_INTERVAL = 1.0
"""Seconds between two attempts to have the lock of a journal in which nothing is new."""


class JournalReader:
    """
    Reads one journal. It is open only within `read`: thousands of processes may have left theirs.

    Args:
        path: the file.
        offset: how far it was imported before.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self.path = path
        self.offset = offset
        """How far it is imported."""
        self.finished = False
        """Whether it is complete, and all of it is imported."""
        self.has_more = False
        """Whether the last `read` ended at its limit."""
        self._writer_gone = False
        self._next_check = 0.0

    def read(self, limit: int, now: float) -> Scan | None:
        """
        Return about `limit` bytes that are new, or None. The same is returned again until `committed` is called.

        Args:
            limit: how many bytes to read, more if one record has more.
            now: monotonic seconds.

        Raises:
            OSError: it cannot be read.
        """
        self.has_more = False
        if self.path.stat().st_size == self.offset and now < self._next_check:
            return None
        self._next_check = now + WRITER_CHECK_INTERVAL
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return self._read(descriptor, limit)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, limit: int) -> Scan | None:
        while True:
            data = os.pread(descriptor, limit, self.offset)
            if len(data) < limit and not self._writer_gone:
                self._writer_gone = lock(descriptor)
                if self._writer_gone:  # What it has written last may not have been read.
                    data = os.pread(descriptor, limit, self.offset)
            complete = len(data) < limit
            if complete and not data:
                self.finished = self._writer_gone
                return None
            found = scan(data, final=self._writer_gone and complete)
            if found.end or complete:
                break
            limit *= 2  # One record is larger.
        if found.end == 0:
            return None
        self.has_more = not complete
        return found._replace(
            damaged=[(self.offset + begin, content) for begin, content in found.damaged],
            end=self.offset + found.end,
        )

    def committed(self, found: Scan) -> None:
        """Take note that what `read` returned is in the ledger."""
        self.offset = found.end
        self.finished = found.sealed


class JournalsReader:
    """
    Reads the journals of a directory, the oldest first.

    Args:
        directory: where they are.
        offsets: how far each journal was imported before, by its name.
    """

    def __init__(self, directory: Directory, offsets: dict[str, int]) -> None:
        self._directory = directory
        self._offsets = offsets
        self._readers: dict[str, JournalReader] = {}
        self._names = set(offsets)
        """The journals that the last `read` found. The name of one that is gone never comes again."""

    def read(self, limit: int) -> tuple[list[tuple[JournalReader, Scan]], bool]:
        """Return what is new, at most about `limit` bytes, and whether there may be more."""
        now = clocks.monotonic()
        found: list[tuple[JournalReader, Scan]] = []
        more = False
        names = self._directory.journal_names()
        self._names = set(names)
        for name in names:
            if limit <= 0:
                return found, True
            reader = self._readers.get(name)
            if reader is None:
                reader = JournalReader(self._directory.path / name, self._offsets.get(name, 0))
                self._readers[name] = reader
            try:
                new = reader.read(limit, now)
            except FileNotFoundError:
                continue
            except OSError as error:
                # It does not hold up the others.
                faults.report(
                    "journal", "%s cannot be read: %s. It is tried again", reader.path, error
                )
                continue
            if new is not None:
                found.append((reader, new))
                limit -= new.end - reader.offset
                # A record that did not fit in leaves a little of the limit.
                more = more or reader.has_more
        return found, more

    def offset(self, name: str) -> int:
        """Return how far a journal is imported, as far as this knows."""
        reader = self._readers.get(name)
        return 0 if reader is None else reader.offset

    def remove_finished(self) -> list[str]:
        """Remove the files that are finished, and return the names that the ledger may forget."""
        for name, reader in self._readers.items():
            if reader.finished:
                reader.path.unlink(missing_ok=True)
                self._names.discard(name)
        gone = [name for name in {*self._readers, *self._offsets} if name not in self._names]
        for name in gone:
            self._readers.pop(name, None)
            self._offsets.pop(name, None)
        return gone


def remove_unnamed(directory: Directory) -> None:
    """Remove files whose process died before it gave them their name."""
    for path in directory.path.glob(f"*{JOURNAL}{NEW}"):
        with contextlib.suppress(FileNotFoundError):
            if clocks.wall() - path.stat().st_mtime > MAX_FILE_AGE:
                path.unlink()
