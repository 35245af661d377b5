"""What may be known of a ledger without changing it: for commands, gauges and whoever waits for a delivery."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from cmdrdata_exporter.delivery import FOR_EVER, Event
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.delivery.spool import jobs
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.frames import scan
from cmdrdata_exporter.delivery.spool.records import intact, is_event
from cmdrdata_exporter.delivery.spool.schema import IN_FLIGHT, PENDING, STATES

if TYPE_CHECKING:
    from typing_extensions import Self


COLUMNS = {
    "day": "day",
    "month": "substr(day, 1, 7)",
    "customer": "customer",
    "model": "model",
    "endpoint": "endpoint",
    "status": "status",
}
"""What totals may be grouped by, in this order, and how SQL says it."""

PART = 500
"""How many events are read at once."""

_EXACT = 1 << 53
"""Up to this a float is as exact as an integer."""


class Kept(NamedTuple):
    """An event that is in a ledger."""

    key: bytes
    state: str
    since: float
    """Unix seconds since when it is in that state; of a pending one, when it may be sent."""
    recorded: float
    attempts: int
    reason: str | None
    event: Event | None
    """None where its record is damaged."""


class Total(NamedTuple):
    """What was used of one unit, by what the caller grouped."""

    group: tuple[str, ...]
    unit: str
    amount: float


class UnreadableError(Exception):
    """The ledger cannot be read now."""


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
                # https://www.sqlite.org/wal.html#read_only_databases
                self._db = sqlite3.connect(
                    f"file:{quote(os.fsencode(path))}?mode=ro",
                    uri=True,
                    isolation_level=None,
                    timeout=5.0,
                )
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

    def _query(self, query: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
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

    def offsets(self) -> dict[str, int]:
        """Return how far each journal was imported."""
        return dict(self._query("SELECT name, offset FROM journals"))

    def is_delivered(self, last: int) -> bool:
        """Say whether nothing up to the number `last` is left to send."""
        rows = self._query(
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
        counts |= dict(self._query("SELECT name, value FROM counters"))
        for state, number in self._query(
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
        return sum(map(is_event, self._not_imported()))

    def _not_imported(self) -> Iterator[bytes]:
        """Yield the records that are in journals only."""
        offsets = self.offsets()
        for path in self._directory.journals():
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(offsets.get(path.name, 0))
                yield from scan(file.read(), final=False).records

    def open_jobs(self) -> list[OpenJob]:
        """Return the jobs of the provider whose end was not seen, the oldest first; of journals, too."""
        # A ledger that an earlier version left has no table of them.
        has_table = any(self._query("SELECT 1 FROM sqlite_master WHERE name = 'jobs'"))
        rows = self._query("SELECT key, job, told FROM jobs") if has_table else ()
        return jobs.merged(rows, self._not_imported())

    def oldest_pending(self) -> float | None:
        """Return since when, in Unix seconds, the oldest event waits that is to be sent."""
        rows = self._query(
            "SELECT min(recorded) FROM events INDEXED BY by_state WHERE state IN (?, ?)",
            (PENDING, IN_FLIGHT),
        )
        return next(rows, (None,))[0]

    def facts(self) -> dict[str, Any]:
        """Return what the process that drains has written down of itself."""
        known: dict[str, Any] = {}
        for name, value in self._query("SELECT * FROM facts"):
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
                self._query(
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
        for (seq,) in self._query("SELECT seq FROM sqlite_sequence WHERE name = 'events'"):
            return seq
        return 0

    def new_records(self) -> Iterator[bytes]:
        """Yield the records that are in journals only."""
        return self._not_imported()

    def with_keys(self, keys: Sequence[bytes]) -> dict[bytes, Kept]:
        """Return those of some events that are here, by their keys; without their records."""
        found: dict[bytes, Kept] = {}
        for start in range(0, len(keys), PART):
            part = keys[start : start + PART]
            marks = ", ".join("?" * len(part))
            rows = self._query(
                f"SELECT key, state, due, recorded, attempts, reason FROM events WHERE key IN ({marks})",  # noqa: S608 - question marks
                part,
            )
            for key, state, due, recorded, attempts, reason in rows:
                found[key] = Kept(key, _state(state), due, recorded, attempts, reason, None)
        return found

    def latest(
        self,
        state: str | None = None,
        *,
        after: int = 0,
        before: int | None = None,
        holding: bytes = b"",
    ) -> Iterator[tuple[int, Kept]]:
        """
        Yield events and their numbers, the one that was imported last first.

        Args:
            state: in which they are; None: in any.
            after: the number after which they come.
            before: the number before which they come.
            holding: what is somewhere in their records.
        """
        # By an index that has all of it: the records may be large.
        condition, given = ("state = ? AND ", [STATES.index(state)]) if state else ("", [])
        numbers = sorted(
            (
                seq
                for (seq,) in self._query(
                    f"SELECT seq FROM events INDEXED BY by_state WHERE {condition}seq > ? AND seq < ?",  # noqa: S608 - see above
                    (*given, after, 1 << 62 if before is None else before),
                )
            ),
            reverse=True,
        )
        for start in range(0, len(numbers), PART):
            part = numbers[start : start + PART]
            yield from self._numbered(
                f"seq IN ({', '.join('?' * len(part))}) AND instr(record, ?) ORDER BY seq DESC",
                (*part, holding),
            )

    def beginning_with(self, low: bytes, high: bytes, limit: int) -> list[tuple[int, Kept]]:
        """Return events whose keys lie between two, both included, with their numbers."""
        return list(self._numbered("key BETWEEN ? AND ? LIMIT ?", (low, high, limit)))

    def _numbered(self, condition: str, values: Sequence[object]) -> Iterator[tuple[int, Kept]]:
        for seq, key, state, due, recorded, attempts, reason, crc, record in self._query(
            "SELECT seq, key, state, due, recorded, attempts, reason, crc, record FROM events"  # noqa: S608 - texts of this class
            f" WHERE {condition}",
            values,
        ):
            event = intact(key, crc, record)
            yield seq, Kept(key, _state(state), due, recorded, attempts, reason, event)

    def knows(self, key: bytes, now: float) -> bool:
        """Return whether a duplicate of this event would be recognised."""
        rows = self._query(
            "SELECT 1 FROM events WHERE key = ?"
            " UNION ALL SELECT 1 FROM tombstones WHERE key = ? AND (until = ? OR until >= ?)",
            (key, key, FOR_EVER, now),
        )
        return any(rows)

    def reasons(self, state: str) -> dict[str, int]:
        """Return how many events are in a state for each reason, the backend's words left out."""
        return {
            reason or "": number
            for reason, number in self._query(
                "SELECT substr(reason, 1, instr(reason || ': ', ': ') - 1) AS cause, count(*)"
                " FROM events INDEXED BY by_state WHERE state = ? GROUP BY cause ORDER BY cause",
                (STATES.index(state),),
            )
        }

    def totals(
        self,
        by: Sequence[str],
        *,
        since: str | None = None,
        until: str | None = None,
        customer: str | None = None,
    ) -> Iterator[Total]:
        """
        Yield what was used of each unit, summed by some of `COLUMNS`.

        Of an old month only its sum is known: by the day it is one row, whose day is `2026-09`.

        Args:
            by: what to group by.
            since: the first UTC day, `2026-11-01`.
            until: the last one.
            customer: of whom alone; the empty string is nobody.

        Raises:
            UnreadableError: it cannot be read, or a part of a month is asked for of which only the sum is known.
        """
        columns = [COLUMNS[name] for name in COLUMNS if name in by]
        self._require_whole_months(since, until)
        # A month comes before its first day.
        conditions = {
            "day >= ?": None if since is None else since.removesuffix("-01"),
            "day <= ?": until,
            "customer = ?": customer,
        }
        given = {text: value for text, value in conditions.items() if value is not None}
        where = f" WHERE {' AND '.join(given)}" if given else ""
        group = ", ".join([*columns, "unit"])
        # SQLite refuses to sum integers beyond 63 bits. https://www.sqlite.org/lang_aggfunc.html#sumunc
        amount = f"sum(CASE WHEN amount BETWEEN -{_EXACT} AND {_EXACT} THEN amount ELSE amount + 0.0 END)"
        # The names are the ones above. What was assigned to another customer has left zeros.
        query = (
            f"SELECT {group}, {amount} AS total FROM totals{where} GROUP BY {group}"  # noqa: S608
            f" HAVING total != 0 ORDER BY {group}"
        )
        for *values, unit, amount in self._query(query, list(given.values())):
            yield Total(tuple(values), unit, amount)

    def _require_whole_months(self, since: str | None, until: str | None) -> None:
        """Raise where a span of days begins or ends in the middle of a month of which only the sum is known."""
        for day, inner in ((since, since), (until, None if until is None else _day_after(until))):
            if day is None or inner is None or inner.endswith("-01"):
                continue
            month = day[:7]
            if any(self._query("SELECT 1 FROM totals WHERE day = ? LIMIT 1", (month,))):
                raise UnreadableError(
                    f"usage of {month} is known for the whole month only, since its days are longer ago than "
                    f"CMDRDATA_TOTALS_BY_DAY_FOR; ask for whole months, and {day} is in the middle of it"
                )


def _state(state: object) -> str:
    """Return the name of a state; where damage has made another one of it, nothing will be done with the event."""
    return STATES[state] if isinstance(state, int) and 0 <= state < len(STATES) else "dead"


def _day_after(day: str) -> str:
    """Return the day after one, as it is written."""
    return str(dt.date.fromisoformat(day) + dt.timedelta(days=1))
