"""Whether a descriptor is still that of our file."""

from __future__ import annotations

import errno
import os
from pathlib import Path


class OpenFile:
    """
    A file of ours that is open.

    An application may close descriptors that it has not opened, all of them perhaps, and the number is soon that of a
    file of its own. So whoever writes, locks, syncs or closes one makes sure first that it still is what it was.
    """

    __slots__ = ("_device", "_inode", "descriptor")

    def __init__(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        self.descriptor = descriptor
        self._device, self._inode = found.st_dev, found.st_ino

    def _stat(self) -> os.stat_result | None:
        try:
            found = os.fstat(self.descriptor)
        except OSError as error:
            if error.errno == errno.EBADF:
                return None
            raise  # A signal handler's TimeoutError is an OSError, too.
        # Not a tuple or another function: this is on the path of every call.
        if found.st_ino == self._inode and found.st_dev == self._device:
            return found
        return None

    def size(self) -> int | None:
        """Return its size; None where the descriptor is none of ours any more, or nobody else will find the file."""
        found = self._stat()
        return found.st_size if found is not None and found.st_nlink else None

    @property
    def is_ours(self) -> bool:
        """Whether the descriptor is still that of this file."""
        return self._stat() is not None

    def is_at(self, path: Path) -> bool:
        """Say whether that is its name still: a directory may be removed or replaced."""
        try:
            there = path.lstat()
        except OSError:
            return False
        return (self._device, self._inode) == (there.st_dev, there.st_ino)

    def close(self) -> None:
        """Close it, unless someone else has done so."""
        if self.is_ours:
            os.close(self.descriptor)
