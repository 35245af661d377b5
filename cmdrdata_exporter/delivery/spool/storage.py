"""The room that a ledger's database and its log take on the disk, and what of it is reserved for outcomes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.schema import LOCK_TIMEOUT, PAGE

LARGEST_LOG = 64 << 20
"""Bytes that the log of a database may have, which grows while someone reads."""
SUFFIXES = ("", "-wal", "-shm", "-journal")
"""What the names of SQLite's files end in."""
RESERVED_PAGES = 128
"""How much room is reserved for outcomes in the database, and as much in its log."""


class Storage:
    """
    The files of a ledger. What changes their size is not for a transaction.

    Args:
        db: the ledger's database.
        directory: where its files are.
        name: what the database is called there.
    """

    def __init__(self, db: sqlite3.Connection, directory: Directory, name: str = LEDGER) -> None:
        self._db = db
        self._path = directory.path / name
        self._memory = directory.path / f"{name}-shm"
        found = self._path.lstat()
        self._file = found.st_dev, found.st_ino
        self._index_size = 0
        self._has_reserve = False
        """Whether there is room for outcomes in the files, whatever fills the disk."""

    def is_in_place(self) -> bool:
        """Return whether the database is where others will find it: someone may have removed or replaced it."""
        try:
            there = self._path.lstat()
        except OSError:
            return False
        return self._file == (there.st_dev, there.st_ino)

    def mend_index(self) -> None:
        """
        Give the index of the log, which SQLite has in memory that processes share, the size back that it had.

        Who reads beyond its end is killed by SIGBUS. SQLite finds it empty then, and makes it anew from the log.
        """
        with contextlib.suppress(OSError):
            size = self._memory.stat().st_size
            if size < self._index_size:
                os.truncate(self._memory, self._index_size)
            else:
                self._index_size = size

    def spare(self) -> int:
        """Return how many bytes of the database imports may take: half of what is reserved stays for outcomes."""
        return max(0, self._free_pages() - RESERVED_PAGES // 2) * PAGE

    def _free_pages(self) -> int:
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(free)

    def reserve(self) -> None:
        """
        Reserve room for outcomes in the database and its log, which nothing else can take then.

        What is in the log goes into the database, so that it is written from its beginning again, in the room it has.
        """
        # Where there is no room, the next time.
        with contextlib.suppress(sqlite3.OperationalError):
            self._checkpoint()
            if not self._has_reserve:
                self._db.execute(
                    "INSERT OR REPLACE INTO facts VALUES ('reserve', zeroblob(?))",
                    (RESERVED_PAGES * PAGE,),
                )
                self._db.execute("DELETE FROM facts WHERE name = 'reserve'")
                self._checkpoint()
                self._has_reserve = True

    def _checkpoint(self) -> None:
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def vacuum(self) -> None:
        """Give free pages back to the file system, a few at a time."""
        if self._free_pages() > 2 * RESERVED_PAGES:
            # It steps once for each page, of which `execute` makes the first only on Python 3.11.
            self._db.executescript("PRAGMA incremental_vacuum(1024)")

    def give_back(self) -> None:
        """Give what is not reserved back to a file system that is nearly full."""
        # Little by little, in the room that the log has.
        self._checkpoint()
        for _ in range(16):
            spare = min(self._free_pages() - RESERVED_PAGES, RESERVED_PAGES // 4)
            if spare <= 0:
                return
            self._db.executescript(f"PRAGMA incremental_vacuum({spare})")
            self._checkpoint()

    def empty_log(self) -> bool:
        """Make the log small again; return whether it is: whoever reads for long keeps it from that."""
        self._db.execute("PRAGMA busy_timeout = 0").fetchone()
        (busy, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._db.execute(f"PRAGMA busy_timeout = {LOCK_TIMEOUT * 1000:.0f}").fetchone()
        self._has_reserve = False
        return not busy


def remove(path: Path) -> None:
    """Remove a database, with what SQLite has beside it."""
    for suffix in SUFFIXES:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
