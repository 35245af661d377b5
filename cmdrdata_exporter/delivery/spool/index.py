"""
The index: a SQLite database in which an event is found by any of its ids, also when it has been delivered.

Its tables are in `index_tables`, `index_rows` is what is done to them, `index_view` reads it.

It is no source of truth. The state of an event is asked from the ledger when it is read, so nothing is written here
when an event is sent. Whatever goes wrong with it, it is removed and begun anew, and filled with what the ledger still
has; no event waits for that, and none is lost.

It is written just before the ledger commits the import of the same events. A process that dies in between leaves rows
here whose numbers the ledger has not given: `Index.open` removes them, and the events come again from their journals.

One connection, of the process that leads, as the ledger's: see `ledger`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Generator

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery import KEPT_DAYS
from cmdrdata_exporter.delivery.spool.directory import INDEX, Directory
from cmdrdata_exporter.delivery.spool.index_rows import Before, Numbered, Rows
from cmdrdata_exporter.delivery.spool.index_tables import TABLES, VERSION
from cmdrdata_exporter.delivery.spool.schema import tune
from cmdrdata_exporter.delivery.spool.storage import LARGEST_LOG, Storage, remove

KEEP = KEPT_DAYS * 86400
"""Seconds for which an event is in it."""
LEAST_FREE = 64 << 20
"""Bytes of the disk that it leaves free: with less than these there is no index."""
AGAIN = 60.0
"""Seconds after which it is begun anew that could not be written."""
LOCK_TIMEOUT = 0.1
"""Seconds that delivery waits where somebody else has it, who should not."""
UNCOMMITTED = 10_000
"""How many events may be in it that the ledger has not committed; with more it belongs to another ledger."""
PRUNED = 200
"""How many events leave it at a time, besides twice as many as come in."""


class Index:
    """
    The index of one destination, for the process that leads. None of its methods fails.

    Args:
        directory: where it is.
        most: how many events it may have; 0: there is none; None: as many as it was given before, if there is one.
        told: is told why it is begun anew.
    """

    def __init__(
        self, directory: Directory, most: int | None, told: Callable[[str], None] = lambda _: None
    ) -> None:
        self._directory = directory
        self._most = most
        self._told = told
        self._path = directory.path / INDEX
        self._db: sqlite3.Connection | None = None
        self._rows: Rows | None = None
        self._storage: Storage | None = None
        self._again_at: float | None = None
        """When it is begun anew, in monotonic seconds; None: not at all."""
        self._reason: str | None = None
        """Why it is to be begun anew."""
        self._new: list[Numbered] = []
        self._assigned: list[tuple[str, bytes]] = []
        self._dropped: list[bytes] = []
        self._fill = 0
        """Before which number events of the ledger are not in it; 0: all are."""
        self._last: int | None = 0
        """The number that the ledger gave last, as it is known here; None: it has not committed, perhaps, what is."""
        self._now = 0.0
        """When something came into it last, in Unix seconds."""

    # Life

    def open(self, last: int, now: float) -> None:
        """
        Open it, or begin it.

        Args:
            last: the number that the ledger gave last.
            now: Unix seconds.
        """
        if self._most == 0:
            with contextlib.suppress(OSError):
                remove(self._path)
            return
        if self._most is None and not self._path.exists():
            return
        with self._tolerance():
            self._connect(last, now)

    def _connect(self, last: int, now: float) -> None:
        self._again_at = None
        self._require_room()
        # SQLite gives the files beside it the mode of this one.
        os.close(self._directory.open_or_create(INDEX))
        db = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=LOCK_TIMEOUT
        )
        self._db = db
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise _UnusableError(f"it is of version {version}")
        # A crash of the host may damage it. It is begun anew then.
        tune(db, is_new=version == 0, synchronous="OFF")
        self._rows = rows = Rows(db)
        with rows.transaction():
            if version == 0:
                for statement in TABLES:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")
            self._adopt(rows, last, now)
        self._storage = Storage(db, self._directory, INDEX)

    def _adopt(self, rows: Rows, last: int, now: float) -> None:
        """Make it the index of a ledger that has given numbers up to `last`."""
        facts = rows.facts()
        if self._most is None:
            self._most = int(facts.get("most", 0))
        self._fill = int(facts.get("fill", 0))
        known = facts.get("last")
        if known is not None and known - last > UNCOMMITTED:
            raise _UnusableError("its ledger is another one")
        # What the ledger has not committed comes again.
        rows.remove_after(last)
        if known is None or known < last:
            # It is new, or somebody has led who keeps none.
            self._fill = last + 1 if last else 0
            facts["missing_before"] = now if last else 0.0
            if self._reason is not None:
                facts["reason"] = self._reason
        self._last = last
        noted = {**facts, "most": self._most, "last": last, "fill": self._fill}
        # Where a process forks often it is opened as often.
        if noted != rows.facts():
            rows.note(noted)

    def close(self) -> None:
        """Close it."""
        db, self._db = self._db, None
        self._rows = None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def begin_anew(self, reason: str) -> None:
        """Remove it, and begin another one at the next occasion."""
        if self._most == 0:
            return
        self.close()
        self.clear()
        self._storage = None
        # Where it cannot be removed it cannot be opened either, and that is tried again.
        with contextlib.suppress(OSError):
            remove(self._path)
        self._reason = reason
        self._told(reason)

    # What comes into it, and what changes

    def add(self, event: Numbered) -> None:
        """Have an event in it that has come into the ledger."""
        if self._db is not None:
            self._now = event.recorded
            self._new.append(event)

    def assign(self, key: bytes, customer: str) -> None:
        """Note that an event has got a customer."""
        if self._db is not None:
            self._assigned.append((customer, key))

    def drop(self, key: bytes) -> None:
        """Note that a person gave an event up: the ledger may forget it."""
        if self._db is not None:
            self._dropped.append(key)

    def clear(self) -> None:
        """Forget what was not written, and doubt what was: the ledger has not committed it."""
        self._new, self._assigned, self._dropped = [], [], []
        self._last = None

    def write(self, last: int) -> None:
        """
        Write what came in. Called within the ledger's transaction, at its end.

        Args:
            last: the number that the ledger gave last. It gives some to events that it knows already, too.
        """
        rows = self._rows
        if rows is None or not (last != self._last or self._assigned or self._dropped):
            return
        new, assigned, dropped = self._new, self._assigned, self._dropped
        is_in_doubt = self._last is None
        self.clear()
        with self._tolerance():
            self._require_room()
            with rows.transaction():
                if is_in_doubt and new:
                    # The ledger gives these numbers now: what has them, or later ones, was not committed.
                    rows.remove_after(new[0].number - 1)
                rows.insert(new)
                rows.note({"last": last})
                rows.assign(assigned)
                rows.drop(dropped)
                rows.prune(self._most or 0, self._now - KEEP, PRUNED + 2 * len(new))
            self._last = last

    # Upkeep

    def check(self) -> None:
        """Begin it anew where somebody removed or replaced it."""
        if self._storage is None or self._db is None:
            return
        if not self._storage.is_in_place():
            self.begin_anew("it was removed or replaced")
            self._again_at = clocks.monotonic()
        else:
            self._storage.mend_index()

    def tidy(self, before: Before, last: int, now: float) -> None:
        """
        Begin it where that is due, fill it with what the ledger has, and let go what is old: a little at a time.

        Args:
            before: gives the events of the ledger.
            last: the number that the ledger gave last.
            now: Unix seconds.
        """
        if (
            self._rows is None
            and self._again_at is not None
            and clocks.monotonic() >= self._again_at
        ):
            self.open(last, now)
        rows = self._rows
        if rows is None:
            return
        with self._tolerance():
            if self._directory.log_size(INDEX) > LARGEST_LOG:
                raise _UnusableError("a program reads it and does not end")
            with rows.transaction():
                if self._fill:
                    self._fill = rows.fill(before, self._fill, self._most or 0, now - KEEP)
                    rows.note({"fill": self._fill})
                rows.prune(self._most or 0, now - KEEP, PRUNED)
            rows.vacuum()

    def _require_room(self) -> None:
        if self._directory.free() < LEAST_FREE:
            raise _UnusableError(f"less than {LEAST_FREE >> 20} MB are free on its disk")

    # What goes wrong

    @contextlib.contextmanager
    def _tolerance(self) -> Generator[None]:
        """Begin it anew, a minute later, where anything fails."""
        try:
            yield
        except Exception as error:
            if faults.is_interruption(error):
                raise
            self.begin_anew(_described(error))
            self._again_at = clocks.monotonic() + AGAIN


class _UnusableError(Exception):
    """There may be no such index."""


def _described(error: Exception) -> str:
    if isinstance(error, sqlite3.Error):
        return f"SQLite says {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
