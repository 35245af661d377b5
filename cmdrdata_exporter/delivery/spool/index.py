"""
The index: a SQLite database in which an event is found by any of its ids, also when it has been delivered.

Its tables are in `index_tables`, `index_view` reads it.

It is no source of truth. The state of an event is asked from the ledger when it is read, so nothing is written here
when an event is sent. Whatever goes wrong with it, it is removed and begun anew, and filled with what the ledger still
has; no event waits for that, and none is lost.

It is written just before the ledger commits the import of the same events. A process that dies in between leaves rows
here whose numbers the ledger has not given: `Index.open` removes them, and the events come again from their journals.

One connection, of the process that leads, as the ledger's: see `ledger`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery import KEPT_DAYS, Event, Header
from cmdrdata_exporter.delivery.spool.details import details
from cmdrdata_exporter.delivery.spool.directory import INDEX, Directory
from cmdrdata_exporter.delivery.spool.index_tables import TABLES, VERSION, packed, unpacked, word
from cmdrdata_exporter.delivery.spool.storage import Storage

KEEP = KEPT_DAYS * 86400
"""Seconds for which an event is in it."""
LEAST_FREE = 64 << 20
"""Bytes of the disk that it leaves free: with less than these there is no index."""
AGAIN = 60.0
"""Seconds after which it is begun anew that could not be written."""
LOCK_TIMEOUT = 0.1
"""Seconds that delivery waits where somebody else has it, who should not."""
PRUNED = 200
"""How many events leave it at a time, besides twice as many as come in."""
FILLED = 1000
"""How many events of the ledger come into it in a round of upkeep."""
KINDS = 10_000
"""How many kinds are remembered."""

_ROW = "number, key, id, at, customer, kind, amounts, trace, response, request"
_FILES = ("", "-wal", "-shm", "-journal")


class Numbered(NamedTuple):
    """An event that is in the ledger."""

    number: int
    key: bytes
    event: Event
    recorded: float
    """When it was imported, in Unix seconds."""


Before = Callable[[int, int], tuple[list[Numbered], int]]
"""
Returns the events of the ledger whose numbers come before one, at most so many, and the least number that was looked
at; 0 where there is none before that.
"""


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
        self._storage: Storage | None = None
        self._again_at: float | None = None
        """When it is begun anew, in monotonic seconds; None: not at all."""
        self._reason: str | None = None
        """Why it is to be begun anew."""
        self._new: list[Numbered] = []
        self._assigned: list[tuple[str, bytes]] = []
        self._dropped: list[bytes] = []
        self._kinds: dict[tuple[str, ...], int] = {}
        self._fill = 0
        """Before which number events of the ledger are not in it; 0: all are."""
        self._last = 0
        """The number that the ledger gave last, as it is known here."""
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
                remove(self._directory)
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
            raise _OtherVersionError(f"it is of version {version}")
        if version == 0:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        # A crash of the host may damage it. It is begun anew then.
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        db.execute("PRAGMA journal_size_limit = 4194304").fetchone()
        with self._transaction(db):
            if version == 0:
                for statement in TABLES:
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")
            self._adopt(db, last, now)
        self._storage = Storage(db, self._directory, INDEX)
        self._kinds = {}

    def _adopt(self, db: sqlite3.Connection, last: int, now: float) -> None:
        """Make it the index of a ledger that has given numbers up to `last`."""
        facts = dict(db.execute("SELECT name, value FROM facts"))
        if self._most is None:
            self._most = int(facts.get("most", 0))
        self._fill = int(facts.get("fill", 0))
        known = facts.get("last")
        # What the ledger has not committed comes again.
        for number, row in _rows(db, "number > ?", (last,)):
            _delete(db, number, row)
        if known is None or known < last:
            # It is new, or somebody has led who keeps none.
            self._fill = last + 1 if last else 0
            facts["missing_before"] = now if last else 0.0
            if self._reason is not None:
                facts["reason"] = self._reason
        self._last = last
        facts |= {"most": self._most, "last": last, "fill": self._fill}
        db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    def close(self) -> None:
        """Close it."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def begin_anew(self, reason: str) -> None:
        """Remove it, and begin another one at the next occasion."""
        self.close()
        self.clear()
        self._storage = None
        # Where it cannot be removed it cannot be opened either, and that is tried again.
        with contextlib.suppress(OSError):
            remove(self._directory)
        self._reason = reason
        self._told(reason)

    # What comes into it, and what changes

    def add(self, number: int, key: bytes, event: Event, now: float) -> None:
        """Have an event in it that the ledger has given a number."""
        if self._db is not None:
            self._now = now
            self._new.append(Numbered(number, key, event, now))

    def assign(self, key: bytes, customer: str) -> None:
        """Note that an event has got a customer."""
        if self._db is not None:
            self._assigned.append((customer, key))

    def drop(self, key: bytes) -> None:
        """Note that a person gave an event up: the ledger may forget it."""
        if self._db is not None:
            self._dropped.append(key)

    def clear(self) -> None:
        """Forget what was not written: the ledger has not committed it."""
        self._new, self._assigned, self._dropped = [], [], []

    def write(self, last: int) -> None:
        """
        Write what came in. Called within the ledger's transaction, at its end.

        Args:
            last: the number that the ledger gave last. It gives some to events that it knows already, too.
        """
        if self._db is None or not (last != self._last or self._assigned or self._dropped):
            return
        new, assigned, dropped = self._new, self._assigned, self._dropped
        self.clear()
        with self._tolerance():
            self._require_room()
            with self._transaction(self._db) as db:
                self._insert(db, new)
                db.execute("INSERT OR REPLACE INTO facts VALUES ('last', ?)", (last,))
                db.executemany("UPDATE events SET customer = ? WHERE key = ?", assigned)
                db.executemany(
                    "UPDATE events SET dropped = 1 WHERE key = ?", [(key,) for key in dropped]
                )
                self._prune(db, self._now, PRUNED + 2 * len(new))
            self._last = last

    def _insert(self, db: sqlite3.Connection, new: Iterable[Numbered], since: float = 0.0) -> None:
        """Insert events, but for those whose calls ended before a time."""
        rows: list[tuple[object, ...]] = []
        words: list[tuple[int, int]] = []
        for number, key, event, recorded in new:
            header, said = event.header, details(event.body)
            at, ids = int(recorded), ("", "", "")
            if said is not None:
                at = said.at if abs(said.at) < 1 << 62 else at
                ids = _text(said.trace_id), _text(said.response_id), _text(said.request_id)
            if at < since:
                continue
            trace, response, request = ids
            rows.append(
                (
                    number,
                    key,
                    None if key.hex() == event.id else _text(event.id),
                    at,
                    None if header.customer is None else _text(header.customer),
                    self._kind(db, header),
                    _json(list(header.units.values())),
                    packed(trace),
                    response or None,
                    request or None,
                )
            )
            words += ((word(text), number) for text in set(ids) if text)
        # Of an import that the ledger has not committed there may be others with these numbers.
        db.executemany(
            f"INSERT OR REPLACE INTO events ({_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            rows,
        )
        db.executemany("INSERT OR IGNORE INTO words VALUES (?, ?)", words)

    def _kind(self, db: sqlite3.Connection, header: Header) -> int:
        """Return the number of what an event has in common with others."""
        known = (
            *map(_text, (header.model, header.endpoint, header.status)),
            _text(_json(list(header.units))),
        )
        kind = self._kinds.get(known)
        if kind is None:
            db.execute(
                "INSERT OR IGNORE INTO kinds (model, endpoint, status, units) VALUES (?, ?, ?, ?)",
                known,
            )
            (kind,) = db.execute(
                "SELECT kind FROM kinds WHERE (model, endpoint, status, units) = (?, ?, ?, ?)",
                known,
            ).fetchone()
            if len(self._kinds) >= KINDS:
                self._kinds.clear()
            self._kinds[known] = kind
        return kind

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
        if self._db is None:
            if self._again_at is None or clocks.monotonic() < self._again_at:
                return
            self.open(last, now)
        if self._db is None:
            return
        with self._tolerance():
            with self._transaction(self._db) as db:
                if self._fill:
                    self._fill_from(db, before, now)
                self._prune(db, now, PRUNED)
            # It steps once for each page, of which `execute` makes the first only on Python 3.11.
            db.executescript("PRAGMA incremental_vacuum(256)")

    def _fill_from(self, db: sqlite3.Connection, before: Before, now: float) -> None:
        """Add events that the ledger has kept since before the index was begun."""
        found, least = before(self._fill, FILLED)
        (last,) = db.execute("SELECT max(number) FROM events").fetchone()
        first = (last or 0) - (self._most or 0)
        there = {
            number
            for (number,) in db.execute(
                "SELECT number FROM events WHERE number >= ? AND number < ?", (least, self._fill)
            )
        }
        self._insert(
            db,
            [each for each in found if each.number > first and each.number not in there],
            now - KEEP,
        )
        self._fill = least
        db.execute("INSERT OR REPLACE INTO facts VALUES ('fill', ?)", (least,))

    def _prune(self, db: sqlite3.Connection, now: float, limit: int) -> None:
        """Let the first events go, where they are too many or too old."""
        first = db.execute(
            "SELECT number <= (SELECT max(number) FROM events) - ? OR at < ? FROM events ORDER BY number LIMIT 1",
            (self._most, now - KEEP),
        ).fetchone()
        if first is None or not first[0]:
            return
        rows = _rows(
            db,
            "number IN (SELECT number FROM events ORDER BY number LIMIT ?)"
            " AND (number <= (SELECT max(number) FROM events) - ? OR at < ?)",
            (limit, self._most, now - KEEP),
        )
        for number, row in rows:
            _delete(db, number, row)
        db.execute(
            "UPDATE facts SET value = max(value, ?) WHERE name = 'missing_before'",
            (max(row[3] for _, row in rows),),
        )

    def _require_room(self) -> None:
        if self._directory.free() < LEAST_FREE:
            raise _NoRoomError(f"less than {LEAST_FREE >> 20} MB are free on its disk")

    # What goes wrong

    @contextlib.contextmanager
    def _transaction(self, db: sqlite3.Connection) -> Generator[sqlite3.Connection]:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            self._kinds = {}
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

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


class _NoRoomError(Exception):
    """The disk is needed for events."""


class _OtherVersionError(Exception):
    """Another version wrote it."""


def _described(error: Exception) -> str:
    if isinstance(error, sqlite3.Error):
        return f"SQLite says {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def remove(directory: Directory) -> None:
    """Remove the index of a directory."""
    for suffix in _FILES:
        Path(f"{directory.path / INDEX}{suffix}").unlink(missing_ok=True)


def _json(values: Sequence[object]) -> str:
    return json.dumps(values, separators=(",", ":"))


def _text(text: str) -> str:
    """Return a text that SQLite takes: half of a surrogate pair becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _rows(
    db: sqlite3.Connection, condition: str, values: Sequence[object]
) -> list[tuple[int, tuple[str, str, str, int]]]:
    """Return the numbers of events, and of each its trace, response and request id and its time."""
    found = db.execute(
        f"SELECT number, trace, response, request, at FROM events WHERE {condition}",  # noqa: S608 - texts of this module
        values,
    )
    return [
        (number, (unpacked(trace), response or "", request or "", at))
        for number, trace, response, request, at in found
    ]


def _delete(db: sqlite3.Connection, number: int, row: tuple[str, str, str, int]) -> None:
    db.executemany(
        "DELETE FROM words WHERE word = ? AND number = ?",
        [(word(text), number) for text in set(row[:3]) if text],
    )
    db.execute("DELETE FROM events WHERE number = ?", (number,))
