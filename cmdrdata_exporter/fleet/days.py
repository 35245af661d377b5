"""The tables of days, which are partitions of `fleet_events`: how they are made, and how they go."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Generator, Iterable

import psycopg

from cmdrdata_exporter.fleet.changes import Change
from cmdrdata_exporter.fleet.connection import Connection
from cmdrdata_exporter.fleet.migrations import DAYS, LOCKS

PATIENCE = 1
"""Seconds for which a change of tables waits for those who use them."""
AHEAD = 2
"""Days from today for which there are tables."""
OTHER = "fleet_events_other"
"""The table of events whose day has none."""


class Days:
    """The tables of days, for one that writes events."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def clear(self) -> None:
        """Forget which tables there are."""
        self._known.clear()

    def make(self, change: Change, days: Iterable[str]) -> None:
        """Make the tables of days that have none. Days far ahead are of clocks that are wrong, and share one."""
        last = change.day(-AHEAD)
        for day in map(dt.date.fromisoformat, sorted({*days} - self._known)):
            if day > last:
                continue
            name = f"fleet_events_{day:%Y%m%d}"
            if not _is_there(change.connection, name):
                # Two that begin the same day do so one after the other.
                change.connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, DAYS))
                # Where some of its events are in the common table already, or someone reads all the time, it stays
                # with that; also where retention is about to drop one that had this name.
                with _briefly(
                    change.connection, psycopg.errors.CheckViolation, psycopg.errors.DuplicateTable
                ):
                    change.connection.execute(
                        f"CREATE TABLE {name} PARTITION OF fleet_events"
                        f" FOR VALUES FROM ('{day}') TO ('{day + dt.timedelta(days=1)}')".encode()
                    )
            self._known.add(day.isoformat())


def tables(connection: Connection, first: dt.date) -> list[tuple[str, bool]]:
    """Return the tables of events before a day, the oldest first, the common one last; and whether each is attached."""
    found = connection.execute(
        "SELECT relname, relispartition FROM pg_class"
        " WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'fleet_events'::regclass)"
        " AND relkind = 'r' AND (relname = %s OR (relname ~ '^fleet_events_[0-9]{8}$' AND relname < %s))"
        ' ORDER BY relname COLLATE "C"',
        (OTHER, f"fleet_events_{first:%Y%m%d}"),
    )
    return found.fetchall()


def has_few_open(connection: Connection, table: str, most: int) -> bool:
    """Say whether a table has no more than so many events that are not settled."""
    [(number,)] = connection.execute(
        f"SELECT count(*) FROM (SELECT FROM {table} WHERE state < 4 LIMIT %s) AS found".encode(),  # noqa: S608 - a name of `tables`
        (most + 1,),
    )
    return number <= most


def detach(connection: Connection, table: str, most: int) -> bool:
    """
    Have no more events come into the table of a day; say whether it is done. Those that are not settled go to `OTHER`.

    The next time, where someone reads all the time, or more than so many of them have come.
    """
    done = False
    with _briefly(connection):
        # Another gateway may have put an event there that nobody sees before its commit, which this waits for.
        connection.execute(b"LOCK TABLE ONLY fleet_events IN ACCESS EXCLUSIVE MODE")
        if has_few_open(connection, table, most):
            connection.execute(f"ALTER TABLE fleet_events DETACH PARTITION {table}".encode())
            connection.execute(
                f"WITH open AS (DELETE FROM {table} WHERE state < 4 RETURNING *)"  # noqa: S608 - a name of `tables`
                " INSERT INTO fleet_events SELECT * FROM open".encode()
            )
            done = True
    return done


def drop(connection: Connection, table: str) -> int:
    """Drop a table that is detached; return how many events it had."""
    [(number,)] = connection.execute(f"SELECT count(*) FROM {table}".encode())  # noqa: S608 - a name of `tables`
    connection.execute(f"DROP TABLE {table}".encode())
    return number


def _is_there(connection: Connection, table: str) -> bool:
    return connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() != (None,)


@contextlib.contextmanager
def _briefly(connection: Connection, *tolerated: type[psycopg.Error]) -> Generator[None]:
    """
    Change tables, or leave it where others use them: all who come later would wait behind this.

    Args:
        connection: in a transaction, which goes on.
        tolerated: what else may keep it from being done.
    """
    with (
        contextlib.suppress(psycopg.errors.LockNotAvailable, *tolerated),
        connection.transaction(),
    ):
        connection.execute(f"SET LOCAL lock_timeout = '{PATIENCE}s'".encode())
        yield
        connection.execute("SET LOCAL lock_timeout TO DEFAULT")
