"""The journals of a directory as the process that drains reads them: what is new, and which file is done with."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery.spool.directory import JOURNAL, NEW, Directory, lock
from cmdrdata_exporter.delivery.spool.frames import Scan, scan
from cmdrdata_exporter.delivery.spool.journal import MAX_FILE_AGE

LOOK_INTERVAL = 1.0
"""Seconds between two looks at whether the writer of a journal has gone."""


class JournalReader:
    """
    A journal that is being read. It is open only while it is: thousands of processes may have left theirs.

    Args:
        path: the file.
        offset: how far it was read before.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self.path = path
        self.offset = offset
        """How far it was read, and all of that is in the ledger."""
        self.finished = False
        """All of it was read, and nothing will follow."""
        self.cut = False
        """What was read last ended at its limit: more is there already."""
        self._ended = False
        self._next_look = 0.0

    def read(self, limit: int, now: float) -> Scan | None:
        """
        Return what follows, about `limit` bytes; None where nothing does, for now or at all.

        `committed` says that it is in the ledger; until then the same is returned again.

        Args:
            limit: how many bytes to read, more if one record has more.
            now: monotonic seconds. Whether the writer has gone is looked at once a second.

        Raises:
            OSError: it cannot be read.
        """
        self.cut = False
        if self.path.stat().st_size == self.offset and now < self._next_look:
            return None
        self._next_look = now + LOOK_INTERVAL
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return self._read(descriptor, limit)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int, limit: int) -> Scan | None:
        while True:
            data = os.pread(descriptor, limit, self.offset)
            if len(data) < limit and not self._ended:
                # Only when its writer has gone is what is there all of it.
                self._ended = lock(descriptor)
                if self._ended:
                    data = os.pread(descriptor, limit, self.offset)
            complete = len(data) < limit
            if complete and not data:
                self.finished = self._ended
                return None
            found = scan(data, final=self._ended and complete)
            if found.end or complete:
                break
            # A record that is larger than the limit.
            limit *= 2
        if found.end == 0:
            return None
        self.cut = not complete
        return found._replace(
            damaged=[(self.offset + begin, content) for begin, content in found.damaged],
            end=self.offset + found.end,
        )

    def committed(self, found: Scan) -> None:
        """Go on behind what was read."""
        self.offset = found.end
        self.finished = found.sealed


class JournalsReader:
    """
    The journals of a directory.

    Args:
        directory: whose.
        offsets: how far each journal was read before, by its name.
    """

    def __init__(self, directory: Directory, offsets: dict[str, int]) -> None:
        self._directory = directory
        self._offsets = offsets
        self._readings: dict[str, JournalReader] = {}
        self._there = set(offsets)
        """The names that were there at the last look. None of them comes again when it has gone."""

    def read(self, limit: int) -> tuple[list[tuple[JournalReader, Scan]], bool]:
        """Return what is new, at most about `limit` bytes, and whether there may be more."""
        now = clocks.monotonic()
        found: list[tuple[JournalReader, Scan]] = []
        more = False
        paths = self._directory.journals()
        self._there = {path.name for path in paths}
        for path in paths:
            if limit <= 0:
                return found, True
            reading = self._readings.get(path.name)
            if reading is None:
                reading = JournalReader(path, self._offsets.get(path.name, 0))
                self._readings[path.name] = reading
            try:
                new = reading.read(limit, now)
            except FileNotFoundError:
                continue
            except OSError as error:
                # The others are not held up by it.
                faults.report("journal", "%s cannot be read: %s. It is tried again", path, error)
                continue
            if new is not None:
                found.append((reading, new))
                limit -= new.end - reading.offset
                # A record that did not fit in leaves a little of the limit.
                more = more or reading.cut
        return found, more

    def remove_finished(self) -> list[str]:
        """Remove the files of which everything is in the ledger, and return the names that may be forgotten."""
        for name, reading in self._readings.items():
            if reading.finished:
                reading.path.unlink(missing_ok=True)
                self._there.discard(name)
        gone = [name for name in {*self._readings, *self._offsets} if name not in self._there]
        for name in gone:
            self._readings.pop(name, None)
            self._offsets.pop(name, None)
        return gone


def clear_away(directory: Directory) -> None:
    """Remove files that were never given their name, because their process died right then."""
    for path in directory.path.glob(f"*{JOURNAL}{NEW}"):
        with contextlib.suppress(FileNotFoundError):
            if clocks.wall() - path.stat().st_mtime > MAX_FILE_AGE:
                path.unlink()
