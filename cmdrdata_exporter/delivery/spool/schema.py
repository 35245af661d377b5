"""
The tables of a ledger, and how a ledger of an earlier version gets them.

`PRAGMA user_version` holds the version. Whoever holds the directory's lock applies the migrations that are missing,
all in one transaction: a process that dies meanwhile leaves the ledger as it was.
A migration that has been released is never changed. Each is tested with a spool of the version before it, which is kept
in `tests/recorded/spools`. `cmdrdata` commands read a ledger before it is migrated: they must understand both versions.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import NamedTuple

from cmdrdata_exporter.delivery.groups import Group
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory

PENDING, IN_FLIGHT, HELD, DEAD, LOCAL = range(5)
"""The states of events in a ledger, as they are stored."""
STATES = ("pending", "in_flight", "held", "dead", "local")
"""Their names."""

UNATTRIBUTED = "no customer"
"""Why an event is held."""
AMBIGUOUS = "ambiguous"
EXPIRED = "expired"
"""Why an event is dead; also the backend's answer, `HTTP 400` for instance."""
DAMAGED = "damaged"

PAGE = 4096

LOCK_TIMEOUT = 5.0
"""Seconds that SQLite waits for whoever has the database."""

_PLAUSIBLE = 1000
"""Below this a version is that of a release; above it is damage."""


class Migration(NamedTuple):
    """One change of the tables. The version of a ledger is the number of migrations that it has had."""

    name: str
    description: str
    """Why, in one sentence."""
    statements: tuple[str, ...]


MIGRATIONS = (
    Migration(
        "tables",
        "An empty ledger gets its tables.",
        (
            """
            CREATE TABLE events (
                seq INTEGER PRIMARY KEY AUTOINCREMENT, -- values are never reused; `flush` relies on it
                key BLOB NOT NULL UNIQUE,    -- 16 bytes that stand for the id
                state INTEGER NOT NULL,
                due REAL NOT NULL,           -- when it may be sent; of other states, since when it is in it
                recorded REAL NOT NULL,      -- when it was imported
                attempts INTEGER NOT NULL,
                remember INTEGER NOT NULL,   -- seconds for which a tombstone stays
                reason TEXT,                 -- why it is held, dead or pending still
                crc INTEGER NOT NULL,        -- of the record
                record BLOB NOT NULL         -- as in the journal
            )
            """,
            "CREATE INDEX by_state ON events (state, due, recorded)",
            "CREATE TABLE tombstones (key BLOB PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID",
            """
            CREATE TABLE totals (
                day TEXT, customer TEXT, model TEXT, endpoint TEXT, status TEXT, unit TEXT, amount,
                PRIMARY KEY (day, customer, model, endpoint, status, unit)
            ) WITHOUT ROWID
            """,
            "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
            "CREATE TABLE journals (name TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID",
            "CREATE TABLE damaged (source TEXT, position INTEGER, content BLOB)",
            "CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
        ),
    ),
    Migration(
        "jobs",
        "Jobs of the provider whose end was not seen are kept.",
        (
            """
            CREATE TABLE jobs (
                key BLOB PRIMARY KEY,        -- 16 bytes that stand for the host and the id
                job TEXT NOT NULL,           -- the rest, as in the journal; empty where it has ended
                told REAL NOT NULL           -- when: journals come in any order, and the latest word counts
            ) WITHOUT ROWID
            """,
        ),
    ),
    Migration(
        "groups",
        "Usage is summed by the hour, and by all that the body of an event says.",
        (
            """
            CREATE TABLE groups (
                number INTEGER PRIMARY KEY,  -- made of the others: see `Group.number`
                customer TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL, status TEXT NOT NULL,
                provider TEXT NOT NULL, host TEXT NOT NULL, request_model TEXT NOT NULL, service_tier TEXT NOT NULL,
                context TEXT NOT NULL, organization TEXT NOT NULL, project TEXT NOT NULL, key TEXT NOT NULL,
                labels TEXT NOT NULL,        -- the user's metadata keys by which usage is summed, as JSON
                fate TEXT NOT NULL           -- 'dropped', or empty
            )
            """,
            "ALTER TABLE totals RENAME TO totals_of_version_2",
            """
            CREATE TABLE totals (
                time TEXT,                   -- an hour, `2026-11-29T16`, or as much as is known: a day, a month
                unit TEXT, group_number INTEGER, amount,
                PRIMARY KEY (time, unit, group_number)
            ) WITHOUT ROWID
            """,
            """
            INSERT OR IGNORE INTO groups
            SELECT group_number(hex(customer), hex(model), hex(endpoint), hex(status)),
                customer, model, endpoint, status, '', '', '', '', '', '', '', '', '', ''
            FROM (SELECT DISTINCT customer, model, endpoint, status FROM totals_of_version_2)
            """,
            """
            INSERT INTO totals
            SELECT day, unit, number, amount FROM totals_of_version_2 JOIN groups
            USING (customer, model, endpoint, status) WHERE true
            ON CONFLICT DO UPDATE SET amount = amount + excluded.amount
            """,
            # Version 2 did not note which months are known as one; what comes late to one joins its sum.
            """
            INSERT OR REPLACE INTO facts SELECT 'folded', '["' || month || '", ""]'
            FROM (SELECT max(day) AS month FROM totals_of_version_2 WHERE day GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]')
            WHERE month IS NOT NULL
            """,
            "DROP TABLE totals_of_version_2",
            # Where an event was counted: NULL where an earlier version did it, by the line of its record.
            "ALTER TABLE events ADD COLUMN time TEXT",
            "ALTER TABLE events ADD COLUMN group_number INTEGER",
        ),
    ),
)
"""In order; the first one makes version 1."""


class UnknownVersionError(Exception):
    """The ledger was written by a later version, which may not be touched by this one."""


def connect(
    directory: Directory, name: str = LEDGER, *, version: int | None = None
) -> sqlite3.Connection:
    """
    Open a database of a directory for the process that holds its lock, and bring its tables up to date.

    Args:
        directory: whose.
        name: of its file.
        version: to which version; None is the newest.

    Raises:
        sqlite3.Error: it cannot be opened, or not be changed now.
        UnknownVersionError: a later version wrote it.
    """
    # SQLite gives the files beside it the mode of this one.
    os.close(directory.open_or_create(name))
    db = sqlite3.connect(
        directory.path / name, isolation_level=None, check_same_thread=False, timeout=LOCK_TIMEOUT
    )
    # What damage has made of a text can be read still, and holds nothing up.
    db.text_factory = readable
    try:
        _set_up(db, len(MIGRATIONS) if version is None else version)
    except BaseException:
        db.close()
        raise
    return db


def _set_up(db: sqlite3.Connection, newest: int) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if not 0 <= version < _PLAUSIBLE:
        raise sqlite3.DatabaseError("the header is malformed")
    if version > len(MIGRATIONS):
        raise UnknownVersionError(
            f"its ledger is of version {version}, and this release knows version {len(MIGRATIONS)}"
        )
    # Each commit is on the disk when it returns: a crash of the host loses no outcome.
    tune(db, is_new=version == 0, synchronous="FULL")
    if version < newest:
        migrate(db, newest)


def tune(db: sqlite3.Connection, *, is_new: bool, synchronous: str) -> None:
    """
    Have SQLite use a database as those of a spool are used.

    Args:
        db: it.
        is_new: whether it has no tables.
        synchronous: what a crash of the host leaves of a commit: `FULL` or `OFF`.
    """
    if is_new:
        db.execute(f"PRAGMA page_size = {PAGE}")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA journal_mode = WAL").fetchone()
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute("PRAGMA cell_size_check = ON")
    # Some systems' SQLite writes zeros over each page of what was delivered.
    db.execute("PRAGMA secure_delete = OFF").fetchone()
    db.execute("PRAGMA journal_size_limit = 4194304").fetchone()


def migrate(db: sqlite3.Connection, newest: int) -> None:
    """Apply the migrations that a database has not had, up to a version: all or none."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    db.create_function("group_number", 4, _group_number)
    db.execute("BEGIN IMMEDIATE")
    try:
        for migration in MIGRATIONS[version:newest]:
            for statement in migration.statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {newest}")
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def readable(data: bytes) -> str:
    """Return a text of a database, whatever damage has made of it."""
    return data.decode("utf-8", "replace")


def _group_number(*texts: str) -> int:
    """Return the number of a group of an earlier version, of texts in hexadecimal, which damage may have altered."""
    return Group(*(readable(bytes.fromhex(text)) for text in texts)).number


def is_broken(error: sqlite3.Error) -> bool:
    """Return whether an error means that the database itself is damaged, and not that the disk is full, say."""
    return any(
        phrase in str(error)
        for phrase in ("malformed", "not a database", "unsupported file format", "no such table")
    )
