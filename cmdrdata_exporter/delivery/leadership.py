"""
Leadership: of all processes that use a directory, the one that holds its lock has the ledger open.

The kernel drops the lock of a process that dies, and the others try every second to get it.
A process leads no more once the lock or the ledger is not the file that it was. The ledger is closed while the process
is forked; a child has neither the lock nor the ledger.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery.options import Options
from cmdrdata_exporter.delivery.spool.directory import INDEX, LEDGER, Directory
from cmdrdata_exporter.delivery.spool.index import Index
from cmdrdata_exporter.delivery.spool.journal_reader import remove_unnamed
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader, UnreadableError
from cmdrdata_exporter.delivery.spool.salvage import finish, is_sound, renew, salvage
from cmdrdata_exporter.delivery.spool.schema import is_broken
from cmdrdata_exporter.delivery.status_log import StatusLog, counted
from cmdrdata_exporter.descriptors import OpenFile

LEAD_INTERVAL = 1.0
"""Seconds between two attempts to lead."""
FORK_TIMEOUT = 1.0
"""Seconds that a fork waits until the ledger can be closed."""

_abandoned: list[Ledger | Index | int] = []
"""
Ledgers that this process can never close, since what they have open is not its own; and descriptors of their files,
whose inodes no other file may get: SQLite would take it for the ledger.
"""


class Leadership:
    """
    The lock of a directory and its ledger, as far as this process has them.

    Args:
        directory: which.
        options: how it is drained.
        log: what happens to the files.
    """

    def __init__(self, directory: Directory, options: Options, log: StatusLog) -> None:
        self._directory = directory
        self._options = options
        self._log = log
        self._poisoned = False
        """Whether SQLite has descriptors of the ledger that may be those of other files by now."""
        self.may_lead = options.drains
        """False, too, where a child was forked in the middle of its parent's use of SQLite."""
        self._clear()

    def _clear(self) -> None:
        self.database = threading.Lock()
        """Held while this process uses SQLite, so that it is not forked then."""
        self._lock_file: OpenFile | None = None
        self._ledger: Ledger | None = None
        self._index = self._new_index()
        self._offsets: dict[str, int] = {}
        """How far journals were imported by a ledger that was removed."""
        self.is_damaged = False
        """Whether the ledger was found to be damaged, and is to be salvaged."""
        self._modified = 0
        """When the ledger was changed last, as far as this process knows."""
        self.restart()

    def _new_index(self) -> Index:
        return Index(self._directory, self._options.index_events, self._log.index_begun_anew)

    def restart(self) -> None:
        """Try to lead at the next occasion."""
        self.tried_to_lead = not self.may_lead
        """Whether it is known if this process can lead."""
        self._next_attempt = 0.0

    @property
    def leads(self) -> bool:
        """Whether this process drains the directory."""
        return self._lock_file is not None

    def try_to_lead(self, begin: Callable[[], None]) -> bool:
        """
        Take the lock if nobody has it, a second after the last attempt at the earliest; return whether it has it.

        Args:
            begin: called once the ledger is open.
        """
        now = clocks.monotonic()
        if now < self._next_attempt or not self.may_lead:
            return False
        self._next_attempt = now + LEAD_INTERVAL
        self._directory.check()
        # A child that is forked in between would not know that it has the lock too, and keep it from everybody.
        with self.database:
            descriptor = self._directory.try_to_lead()
            self._lock_file = None if descriptor is None else OpenFile(descriptor)
        self.tried_to_lead = True
        if self._lock_file is None:
            return False
        try:
            remove_unnamed(self._directory)
            with self.database:
                finish(self._directory)
                if self._poisoned:
                    _abandoned.append(renew(self._directory))
                    self._renew_index()
                    self._poisoned = False
                self._recover()
        except BaseException:
            # From the beginning, a second later.
            with self.database:
                self.resign()
            raise
        begin()
        return True

    def _renew_index(self) -> None:
        """Put a copy of the index in its place, or none."""
        if (self._directory.path / INDEX).exists():
            # Whatever comes of it, no other file may get its inode.
            _abandoned.append(self._directory.open_or_create(INDEX))
            try:
                _abandoned.append(renew(self._directory, INDEX))
            except (OSError, sqlite3.Error):
                self._index.begin_anew("this program has closed its descriptors")

    def _recover(self) -> None:
        """Open the ledger, salvaged if it is damaged, and take back what was in flight. Called with the database."""
        try:
            sound = is_sound(self._directory)
            if sound:
                self._begin_ledger()
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            sound = False
        if not sound:
            self._salvage()
            self._begin_ledger()

    def _begin_ledger(self) -> None:
        ledger = self.ledger()
        with ledger.transaction():
            ledger.recover(self._options.clock())
            ledger.note_offsets(self._offsets)
        self._offsets = {}

    def ledger(self) -> Ledger:
        """Return the ledger, open and sound. Called with the database."""
        if self.is_damaged:
            self._salvage()
        if self._ledger is None:
            finish(self._directory)
            self._ledger = Ledger(
                self._directory,
                local=self._options.post is None,
                hold_ambiguous=self._options.hold_ambiguous,
                total_by=self._options.total_by,
                index=self._index,
            )
        return self._ledger

    def _salvage(self) -> None:
        self._close_ledger()
        # Of an event that is in neither it could not be told whether it was delivered or lost.
        self._index.begin_anew("its ledger had to be salvaged")
        path, lost = salvage(self._directory, self._options.clock())
        self.is_damaged = False
        self._log.ledger_salvaged(path, lost)

    def check(self) -> None:
        """Lead no more where the lock or the ledger is not what it was. Called with the database."""
        lock_file, ledger = self._lock_file, self._ledger
        if lock_file is None:
            return
        if not lock_file.is_ours:
            self.resign()
        elif ledger is not None and not ledger.storage.is_in_place():
            what = "what was in it"
            # It is open still, wherever it is.
            with contextlib.suppress(sqlite3.Error):
                what = counted(ledger.waiting())
                # What was imported is not imported again, where the journals are still there.
                self._offsets = ledger.offsets()
            self._log.directory_removed(self._directory.path / LEDGER, what)
            self.resign()
        elif not lock_file.is_at(self._directory.lock):
            # Another process may lead by now.
            self._log.directory_removed(self._directory.lock, "nothing else")
            self.resign()
        elif ledger is not None:
            ledger.storage.mend_index()
            ledger.index.check()

    def resign(self) -> None:
        """Let another process lead. Called with the database."""
        self._close_ledger()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def _close_ledger(self) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is None:
            return
        if self._lock_file is not None and not self._lock_file.is_ours:
            # Someone has closed all descriptors. Closing the database would write to the files that have their numbers
            # by now, and SQLite would open it anew with what it has of it.
            self._log.descriptors_closed()
            _abandoned.append(ledger)
            self._index = self._new_index()
            self._poisoned = True
            return
        with contextlib.suppress(sqlite3.Error):
            ledger.close()

    def give_back(self) -> None:
        """Give the disk back what the ledger can spare: it is full."""
        with self.database, contextlib.suppress(sqlite3.Error):
            if self._ledger is not None:
                self._ledger.storage.give_back()

    # Rest

    def note_modified(self) -> None:
        """Take note of when the ledger was changed last."""
        with contextlib.suppress(OSError):
            self._modified = (self._directory.path / LEDGER).stat().st_mtime_ns

    def has_more(self) -> bool:
        """
        Return whether another process, a command for instance, has changed the ledger so that there is more to send.

        Raises:
            OSError: there is no ledger.
        """
        modified = (self._directory.path / LEDGER).stat().st_mtime_ns
        if modified == self._modified:
            return False
        self._modified = modified
        try:
            with self.database, LedgerReader(self._directory) as ledger:
                return ledger.oldest_pending() is not None
        except UnreadableError:
            return True

    # Forks

    def park(self) -> bool:
        """Close the ledger before a fork, and keep it closed. Returns whether it is: a fork does not wait for ever."""
        if not self.database.acquire(timeout=FORK_TIMEOUT):
            return False
        self._close_ledger()
        return True

    def unpark(self) -> None:
        """Go on in the parent, after a fork."""
        self.database.release()

    def forked(self, *, parked: bool) -> None:
        """
        Begin anew in a forked child: no lock, nothing that its parent has open.

        Args:
            parked: whether the parent had closed its ledger.
        """
        if not parked and (self._ledger is not None or self.database.locked()):
            # Nobody can release SQLite's own locks here, and closing would undo those of the parent.
            self.may_lead = False
            _abandoned.append(self._index if self._ledger is None else self._ledger)
        if self._lock_file is not None:
            # A copy; unlocking it would unlock the parent's.
            self._lock_file.close()
        self._clear()
