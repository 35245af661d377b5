"""What may be known of a ledger without changing it: for commands, gauges and whoever waits for a delivery."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from cmdrdata_exporter.delivery import FOR_EVER
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.delivery.spool import jobs
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.frames import scan
from cmdrdata_exporter.delivery.spool.kept import PART, Kept
from cmdrdata_exporter.delivery.spool.records import intact, is_event
from cmdrdata_exporter.delivery.spool.schema import IN_FLIGHT, PENDING, STATES, readable
from cmdrdata_exporter.delivery.spool.usage_view import LedgerUsage, label
from cmdrdata_exporter.delivery.usage import UnreadableError

if TYPE_CHECKING:
    from typing_extensions import Self


class LedgerReader:
    """
    A ledger at one instant, opened for reading only; use it as a context manager.

    Args:
        directory: whose.

    Raises:
        UnreadableError: it cannot be read. One that is not there yet is empty.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        path = directory.path / LEDGER
        self._db: sqlite3.Connection | None = None
        if path.exists():
            try:
                self._db = read_only(path)
                self._db.text_factory = readable
                self._db.create_function("label", 2, label)
            except sqlite3.Error as error:
                raise UnreadableError(f"{path} cannot be read: {error}") from error

    def __enter__(self) -> Self:
        if self._db is not None:
            # From the first query on all see one instant; the process that drains commits between any two.
            self._db.execute("BEGIN")
        return self

    def __exit__(self, *_: object) -> None:
        if self._db is not None:
            self._db.close()

    def query(self, query: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """
        Yield rows of its database, none where there is none yet.

        Raises:
            UnreadableError: it cannot be read.
        """
        if self._db is None:
            return
        try:
            yield from self._db.execute(query, values)
        except sqlite3.OperationalError as error:
            if not self._is_being_made(error):
                raise UnreadableError(f"the ledger cannot be read: {error}") from error
            # Nor has it any for what is asked next: all is of one instant.
            self._db.close()
            self._db = None
        except sqlite3.Error as error:
            raise UnreadableError(f"the ledger cannot be read: {error}") from error

    def _is_being_made(self, error: sqlite3.Error) -> bool:
        """Say whether it has no tables yet; or had none when the process died that was about to make them."""
        # Only until then SQLite has a rollback journal, which whoever may only read cannot roll back.
        making = self._directory.path / f"{LEDGER}-journal"
        return "no such table" in str(error) or making.exists()

    @property
    def usage(self) -> LedgerUsage:
        """What was used."""
        return LedgerUsage(self.query)

    def offsets(self) -> dict[str, int]:
        """Return how far each journal was imported."""
        return dict(self.query("SELECT name, offset FROM journals"))

    def is_delivered(self, last: int) -> bool:
        """Say whether nothing up to the number `last` is left to send."""
        rows = self.query(
            "SELECT 1 FROM events INDEXED BY by_state WHERE state IN (?, ?) AND seq <= ? LIMIT 1",
            (PENDING, IN_FLIGHT, last),
        )
        return not any(rows)

    def counts(self) -> dict[str, int]:
        """
        Return how many events are in each state, and what else is counted.

        What journals hold that was not imported yet is `recorded` and, so far, `pending`.
        recorded = delivered + local + pending + in_flight + held + dead + dropped.
        """
        names = ("recorded", "delivered", *STATES, "dropped", "repeated", "ambiguous", "damaged")
        counts: dict[str, int] = dict.fromkeys(names, 0)
        counts |= dict(self.query("SELECT name, value FROM counters"))
        for state, number in self.query(
            "SELECT state, count(*) FROM events INDEXED BY by_state GROUP BY state"
        ):
            # Where damage has made another state of it, nothing will be done with it.
            counts[STATES[state] if state in range(len(STATES)) else "dead"] += number
        new = self.not_imported()
        counts["recorded"] += new
        counts["pending"] += new
        return counts

    def not_imported(self) -> int:
        """Return how many events are in journals only."""
        return sum(map(is_event, self.new_records()))

    def new_records(self) -> Iterator[bytes]:
        """Yield the records that are in journals only."""
        offsets = self.offsets()
        for path in self._directory.journals():
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(offsets.get(path.name, 0))
                yield from scan(file.read(), final=False).records

    def open_jobs(self) -> list[OpenJob]:
        """Return the jobs of the provider whose end was not seen, the oldest first; of journals, too."""
        rows = self.query("SELECT key, job, told FROM jobs") if self._has_jobs() else ()
        return jobs.merged(rows, self.new_records())

    def count_open_jobs(self) -> tuple[int, float | None]:
        """
        Return how many jobs of the provider are open, and when the oldest was started, in Unix seconds.

        Those that are in journals only are left out: it is asked often.
        """
        if not self._has_jobs():
            return 0, None
        rows = self.query("SELECT count(*), min(told) FROM jobs WHERE job <> ''")
        number, oldest = next(rows, (0, None))
        # What has another type in a damaged row tells nothing.
        return number, oldest if isinstance(oldest, float) else None

    def _has_jobs(self) -> bool:
        """Say whether there is a table of jobs: an earlier version had none."""
        return any(self.query("SELECT 1 FROM sqlite_master WHERE name = 'jobs'"))

    def oldest_pending(self) -> float | None:
        """Return since when, in Unix seconds, the oldest event waits that is to be sent."""
        rows = self.query(
            "SELECT min(recorded) FROM events INDEXED BY by_state WHERE state IN (?, ?)",
            (PENDING, IN_FLIGHT),
        )
        return next(rows, (None,))[0]

    def facts(self) -> dict[str, Any]:
        """Return what the process that drains has written down of itself."""
        known: dict[str, Any] = {}
        for name, value in self.query("SELECT * FROM facts"):
            with contextlib.suppress(ValueError, TypeError):  # damaged
                known[name] = json.loads(value)
        return known

    def kept(self, state: str, limit: int = -1) -> Iterator[Kept]:
        """
        Yield the events in a state, the oldest first.

        They are read in parts, each of its own instant: whoever reads slowly, in a pager for instance, does not keep
        the process that drains from emptying the log of the database.
        """
        after, position = "", ()
        while limit:
            part = PART if limit < 0 else min(limit, PART)
            rows = list(
                self.query(
                    # One of the two that are here.
                    "SELECT key, due, recorded, attempts, reason, crc, record, seq FROM events INDEXED BY by_state"  # noqa: S608
                    f" WHERE state = ?{after} ORDER BY due, recorded, seq LIMIT ?",
                    (STATES.index(state), *position, part),
                )
            )
            if self._db is not None:
                self._db.execute("COMMIT")
                self._db.execute("BEGIN")
            for key, due, recorded, attempts, reason, crc, record, _ in rows:
                event = intact(key, crc, record)
                yield Kept(key, state, due, recorded, attempts, reason, event)
            if len(rows) < part:
                return
            limit -= part if limit > 0 else 0
            after, position = " AND (due, recorded, seq) > (?, ?, ?)", (*rows[-1][1:3], rows[-1][7])

    def last(self) -> int:
        """Return the number of the event that was imported last, whether or not it is there still."""
        for (seq,) in self.query("SELECT seq FROM sqlite_sequence WHERE name = 'events'"):
            return seq
        return 0

    def knows(self, key: bytes, now: float) -> bool:
        """Return whether a duplicate of this event would be recognised."""
        rows = self.query(
            "SELECT 1 FROM events WHERE key = ?"
            " UNION ALL SELECT 1 FROM tombstones WHERE key = ? AND (until = ? OR until >= ?)",
            (key, key, FOR_EVER, now),
        )
        return any(rows)

    def reasons(self, state: str) -> dict[str, int]:
        """Return how many events are in a state for each reason, the backend's words left out."""
        return {
            reason or "": number
            for reason, number in self.query(
                "SELECT substr(reason, 1, instr(reason || ': ', ': ') - 1) AS cause, count(*)"
                " FROM events INDEXED BY by_state WHERE state = ? GROUP BY cause ORDER BY cause",
                (STATES.index(state),),
            )
        }


def read_only(path: Path) -> sqlite3.Connection:
    """Open a database for reading: https://www.sqlite.org/wal.html#read_only_databases."""
    url = f"file:{quote(os.fsencode(path))}?mode=ro"
    return sqlite3.connect(url, uri=True, isolation_level=None, timeout=5.0)


_Answer = TypeVar("_Answer")


def ask(
    directory: Directory,
    database: threading.Lock,
    timeout: float,
    question: Callable[[LedgerReader], _Answer],
) -> _Answer | None:
    """
    Ask a ledger something while nobody else in this process uses it; None where it cannot be read, or in time.

    Args:
        directory: whose.
        database: is held by whoever uses it.
        timeout: seconds to wait for that.
        question: asks.
    """
    if not database.acquire(timeout=timeout):
        return None
    try:
        with LedgerReader(directory) as ledger:
            return question(ledger)
    except UnreadableError:
        return None
    finally:
        database.release()
