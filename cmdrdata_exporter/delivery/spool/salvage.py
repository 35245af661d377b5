"""
What is done with a damaged ledger: what can be read of it moves into a new one, and the damaged one is put aside.

The new one takes its place when it is complete, so that whatever fails before that leaves everything as it was; the
damaged one has a second name from then on, by which `finish` knows that the rest is to be done.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import struct
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from cmdrdata_exporter.delivery.groups import Group
from cmdrdata_exporter.delivery.spool import leaves
from cmdrdata_exporter.delivery.spool.directory import BROKEN, LEDGER, Directory
from cmdrdata_exporter.delivery.spool.records import intact
from cmdrdata_exporter.delivery.spool.schema import (
    DAMAGED,
    DEAD,
    MIGRATIONS,
    PAGE,
    STATES,
    connect,
    migrate,
)
from cmdrdata_exporter.delivery.spool.storage import SUFFIXES, remove

LARGEST_CHECKED = 64 << 20
"""Bytes up to which a database is checked as a whole when it is opened: that takes a second, at most."""

_NEW = f"{LEDGER}.new"
_COPY = ".copy"
_PASSING = ("full", "unable to open", "locked", "readonly")
"""What is no damage, but may pass, as SQLite says it."""

_Row = tuple[Any, ...]


def is_sound(directory: Directory) -> bool:
    """Say whether the ledger of a directory may be used; one that is large is taken to be."""
    path = directory.path / LEDGER
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return True
    if not 0 < size <= LARGEST_CHECKED:
        return True
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        try:
            return db.execute("PRAGMA integrity_check(1)").fetchall() == [("ok",)]
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "malformed" not in str(error):
                raise  # A full disk, for instance, is no damage.
            return False


def salvage(directory: Directory, now: float) -> tuple[Path, int]:
    """
    Start a new ledger with what can be read of the one of a directory, and put that aside.

    A row whose record was altered is set aside as dead; it is never sent.

    Returns:
        the path of the damaged database, and how many events in it are neither in the new one nor accounted for.

    Raises:
        sqlite3.Error: the new one cannot be written, or the old one not be opened now.
        OSError: likewise.
    """
    finish(directory)
    path, complete = directory.path / LEDGER, directory.path / _NEW
    version = _version(path)
    broken = directory.path / f"{BROKEN}{int(now)}-{os.urandom(2).hex()}"
    # Of an attempt that failed.
    remove(complete)
    # Of the same version, so that all that can be read has its place; it is brought up to date then.
    with contextlib.closing(connect(directory, _NEW, version=version)) as new:
        # Into the file itself: of a ledger without a beginning that of any other one does.
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        _mend_beginning(path, complete.read_bytes()[:PAGE], Path(f"{broken}.beginning"))
        lost = _copy_readable(path, new, version, now)
        migrate(new, len(MIGRATIONS))
        # Into the file itself, which is all that takes the place of the old one.
        new.execute("PRAGMA journal_mode = DELETE").fetchone()
    os.link(path, broken)
    finish(directory)
    return broken, lost


def _version(path: Path) -> int:
    """Return of which version the tables of a database are, as far as it can be read: else of the newest."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db, _tolerance([]):
        found = {row[1] for row in db.execute("PRAGMA table_info(events)")}
        return _UNGROUPED if found and _PLACE.isdisjoint(found) else len(MIGRATIONS)
    return len(MIGRATIONS)


def _copy_readable(path: Path, new: sqlite3.Connection, version: int, now: float) -> int:
    """Insert what can be read of the database at `path` into a new one; return how many events are lost."""
    errors: list[sqlite3.Error] = []
    new.execute("BEGIN IMMEDIATE")
    # It is closed, with its log in it, before its leaves are read, where nobody else reads it.
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
        # Of these the last column is a number that is reckoned with.
        for table, columns in _numbers(version).items():
            for row in _readable(old, table, columns, ", ".join(columns[:-1])):
                if isinstance(row[-1], int | float):
                    _insert(new, table, row)
        for row in _readable(old, "damaged", ("source", "position", "content"), "rowid"):
            _insert(new, "damaged", row)
        # Which days are known as one, and when nobody was there. Whoever reads them takes them for damaged, too.
        for row in _readable(old, "facts", ("name", "value"), "name"):
            _insert(new, "facts", row)
        for row in _groups(old, version):
            _insert(new, "groups", row)
        columns = _event(version)
        for row in _events(old, columns, errors):
            _insert(new, "events", _checked(row, now))
    if errors:
        for row in leaves.rows(path):
            _insert(new, "events", _checked(row, now)[: len(columns)])
    if version > _UNGROUPED:
        # Usage of a group whose row is lost is nobody's until an event of it comes again.
        new.execute(
            "INSERT OR IGNORE INTO groups SELECT DISTINCT group_number,"
            " '', '', '', '', '', '', '', '', '', '', '', '', '', '' FROM totals"
            " WHERE typeof(group_number) = 'integer'"
        )
    lost = _balance(new)
    new.execute("COMMIT")
    return lost


def renew(directory: Directory, name: str = LEDGER) -> int:
    """
    Put a copy of a database in its place, so that SQLite takes it for another one than what it has open of it.

    To be called by who holds the lock. Half done it is as it was: the log holds nothing that the copy has not.

    Args:
        directory: where it is.
        name: which: the ledger, if none is named.

    Returns:
        a descriptor of what was copied.

    Raises:
        sqlite3.Error: the copy cannot be written.
        OSError: likewise.
    """
    path, copy = directory.path / name, directory.path / f"{name}{_COPY}"
    remove(copy)
    old = directory.open_or_create(name)
    try:
        for suffix in ("-wal", ""):
            with contextlib.suppress(FileNotFoundError):
                os.close(directory.create(f"{copy.name}{suffix}"))
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as db:
            # Into the file itself.
            db.execute("PRAGMA journal_mode = DELETE").fetchone()
        copy.replace(path)
        directory.sync()
        for suffix in SUFFIXES[1:]:
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    except BaseException:
        os.close(old)
        raise
    return old


def finish(directory: Directory) -> None:
    """
    Put a new ledger that is complete in the place of the damaged one, as a process may have been about to that died.

    To be called before the ledger is opened: half done, the damaged one is without what was written to it last.

    Raises:
        OSError: it cannot be done now.
    """
    path, complete = directory.path / LEDGER, directory.path / _NEW
    if not (complete.exists() and path.exists()):
        return
    for broken in directory.path.glob(f"{BROKEN}*"):
        if broken.samefile(path):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}-wal").rename(f"{broken}-wal")
            Path(f"{path}-shm").unlink(missing_ok=True)
            complete.replace(path)
            directory.sync()
            return


def _mend_beginning(path: Path, beginning: bytes, kept: Path) -> None:
    """
    Give a database whose first page was damaged that of a new one: the trees of both begin at the same pages.

    Args:
        path: the damaged one.
        beginning: the first page of a new one.
        kept: where the damaged page goes.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db, _tolerance([]):
        if db.execute("SELECT name FROM sqlite_master").fetchall():
            return
    with path.open("r+b") as file:
        old = file.read(PAGE)
        size = path.stat().st_size // PAGE
        if size < 2:
            return  # There is nothing behind it.
        kept.write_bytes(old)
        kept.chmod(0o600)
        file.seek(0)
        # https://www.sqlite.org/fileformat2.html#the_database_header: the pages that there are, none of them free.
        file.write(beginning[:28] + struct.pack(">III", size, 0, 0) + beginning[40:])


@contextlib.contextmanager
def _tolerance(errors: list[sqlite3.Error]) -> Generator[None]:
    """Let damage be, and note it; what may pass, as a full disk does, is raised."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if any(phrase in str(error) for phrase in _PASSING):
            raise
        errors.append(error)


_UNGROUPED = 2
"""The last version without groups."""
_PLACE = {"time", "group_number"}
"""What events have since."""


def _numbers(version: int) -> dict[str, tuple[str, ...]]:
    """Return the tables of a version whose last column is a number."""
    totals = ("time", "unit", "group_number", "amount")
    if version <= _UNGROUPED:
        totals = ("day", "customer", "model", "endpoint", "status", "unit", "amount")
    return {
        "counters": ("name", "value"),
        "totals": totals,
        "journals": ("name", "offset"),
        "tombstones": ("key", "until"),
        "jobs": ("key", "job", "told"),
    }


def _event(version: int) -> tuple[str, ...]:
    """Return the columns of the events of a version."""
    return (
        *("seq", "key", "state", "due", "recorded"),
        *("attempts", "remember", "reason", "crc", "record"),
        *(("time", "group_number") if version > _UNGROUPED else ()),
    )


def _groups(db: sqlite3.Connection, version: int) -> Iterator[_Row]:
    """Yield the groups that are what they were: their number tells."""
    if version > _UNGROUPED:
        for row in _readable(db, "groups", ("number", *Group._fields), "number"):
            if all(isinstance(text, str) for text in row[1:]) and Group(*row[1:]).number == row[0]:
                yield row


def _readable(
    db: sqlite3.Connection,
    table: str,
    columns: tuple[str, ...],
    order: str,
    errors: list[sqlite3.Error] | None = None,
) -> Iterator[_Row]:
    """Yield the rows of a table from its beginning and its end up to where it is damaged."""
    seen: set[_Row] = set()
    for direction in ("", " DESC"):
        # The names are those of our own tables.
        ordered = ", ".join(f"{name}{direction}" for name in order.split(", "))
        query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {ordered}"  # noqa: S608
        with _tolerance([] if errors is None else errors):
            for row in db.execute(query):
                if row not in seen:
                    seen.add(row)
                    yield row
            return


def _events(
    db: sqlite3.Connection, columns: tuple[str, ...], errors: list[sqlite3.Error]
) -> Iterator[_Row]:
    """Yield every row of the table of events that can be read, each once, in order."""
    found: set[int] = set()
    # Table and indexes are trees of their own: what one has lost, another may know.
    for source in ("NOT INDEXED", "INDEXED BY by_state", "INDEXED BY sqlite_autoindex_events_1"):
        column = {"NOT INDEXED": "seq", "INDEXED BY by_state": "state, due"}.get(source, "key")
        for row in _readable(db, f"events {source}", ("seq",), column, errors):
            found.add(row[0])
    query = f"SELECT {', '.join(columns)} FROM events NOT INDEXED WHERE seq = ?"  # noqa: S608 - our own names
    for seq in sorted(found):
        with _tolerance(errors):
            yield from db.execute(query, (seq,))


def _checked(row: _Row, now: float) -> _Row:
    """Return a row as it may go on: dead, where a part of it was altered."""
    seq, key, state, due, recorded, attempts, remember, reason, crc, record, *place = row
    sound = (
        isinstance(key, bytes)
        and isinstance(crc, int)
        and isinstance(due, float)
        and isinstance(recorded, float)
        and isinstance(attempts, int)
        and isinstance(remember, int)
        and isinstance(reason, str | None)
        and state in range(len(STATES))
        and intact(key, crc, record) is not None
    )
    head = (state, due, recorded, attempts, remember, reason)
    return seq, key, *(head if sound else (DEAD, now, now, 0, 0, DAMAGED)), crc, record, *place


def _insert(db: sqlite3.Connection, table: str, row: _Row) -> None:
    marks = ", ".join("?" * len(row))
    # What is twice, or is nothing that such a column takes, was altered.
    with contextlib.suppress(sqlite3.IntegrityError, OverflowError):
        db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)  # noqa: S608 - our own names


def _balance(db: sqlite3.Connection) -> int:
    """Make `recorded` the sum of what is known, and return by how much it was more."""
    (rows,) = db.execute("SELECT count(*) FROM events").fetchone()
    counters = dict(db.execute("SELECT name, value FROM counters"))
    gone = sum(counters.get(name, 0) for name in ("delivered", "local", "dropped"))
    lost = max(0, counters.get("recorded", 0) - rows - gone)
    for name, value in (
        ("recorded", rows + gone),
        ("lost", counters.get("lost", 0) + lost),
        ("salvaged", counters.get("salvaged", 0) + 1),
    ):
        db.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, value))
    return lost
