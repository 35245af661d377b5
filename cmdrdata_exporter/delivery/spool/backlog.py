"""The frames of a journal that wait in memory, for a disk that has stalled or for what was interrupted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery import keep
from cmdrdata_exporter.delivery.spool.frames import record_in
from cmdrdata_exporter.delivery.spool.journal_file import JournalFullError

QUEUE_BYTES = 16 << 20
"""How much may wait."""


class Backlog:
    """
    A bounded queue of frames: any thread puts some in, and the owner of the append lock takes them out.

    Args:
        refused: is called with each record that could not be written.
    """

    def __init__(self, refused: Callable[[bytes, OSError], None]) -> None:
        self._refused = refused
        self.frames: deque[bytes] = deque()
        self.size = 0
        """How many bytes they have."""

    def put(self, data: bytes, kept: list[object]) -> None:
        """Have the owner of the lock write a frame."""
        size = len(data)
        if self.size + size > QUEUE_BYTES:
            raise JournalFullError("too many events wait for a disk that does not answer")
        self.size += size
        keep(data, self.frames, kept)

    def _take(self) -> bytes | None:
        try:
            data = self.frames.popleft()
        except IndexError:  # On a stalled disk `refuse` takes them without the lock.
            return None
        self.size -= len(data)
        return data

    def empty(self, write: Callable[[bytes, list[object]], object]) -> None:
        """Write what waits. With the lock."""
        while data := self._take():
            kept: list[object] = []
            try:
                write(data, kept)
            except BaseException as error:
                if isinstance(error, OSError) and not faults.is_interruption(error):
                    self._refused(record_in(data), error)
                    continue
                if not kept:
                    self.frames.appendleft(data)  # Ctrl-C
                raise
        if self.size:
            # Threads count without a lock: it may be a little wrong by now.
            self.size = sum(map(len, list(self.frames)))

    def refuse(self, error: OSError) -> None:
        """Refuse what waits."""
        while data := self._take():
            self._refused(record_in(data), error)
