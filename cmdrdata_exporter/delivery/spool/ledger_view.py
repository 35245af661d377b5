"""What may be known of a ledger without changing it: for commands, gauges and whoever waits for a delivery."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import quote

from cmdrdata_exporter.delivery import FOR_EVER, Event, groups
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.delivery.spool import jobs
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.facts import TOTAL_BY
from cmdrdata_exporter.delivery.spool.frames import scan
from cmdrdata_exporter.delivery.spool.records import intact, is_event
from cmdrdata_exporter.delivery.spool.schema import IN_FLIGHT, PENDING, STATES, readable
from cmdrdata_exporter.delivery.spool.usage_view import (
    EVENTS,
    Asked,
    Total,
    UnreadableError,
    UsageView,
    label,
)

if TYPE_CHECKING:
    from typing_extensions import Self


COLUMNS = groups.COLUMNS
"""What totals may be grouped by, in this order, and beside these by each of `LedgerReader.labels`."""

PART = 500
"""How many events are read at once."""


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
        rows = self._query("SELECT key, job, told FROM jobs") if self._has_jobs() else ()
        return jobs.merged(rows, self._not_imported())

    def count_open_jobs(self) -> tuple[int, float | None]:
        """
        Return how many jobs of the provider are open, and when the oldest was started, in Unix seconds.

        Those that are in journals only are left out: it is asked often.
        """
        if not self._has_jobs():
            return 0, None
        rows = self._query("SELECT count(*), min(told) FROM jobs WHERE job <> ''")
        number, oldest = next(rows, (0, None))
        # What has another type in a damaged row tells nothing.
        return number, oldest if isinstance(oldest, float) else None

    def _has_jobs(self) -> bool:
        """Say whether there is a table of jobs: an earlier version had none."""
        return any(self._query("SELECT 1 FROM sqlite_master WHERE name = 'jobs'"))

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

    def labels(self) -> tuple[str, ...]:
        """Return the user's metadata keys by which usage is summed, or was: `CMDRDATA_TOTAL_BY`."""
        declared = self.facts().get(TOTAL_BY)
        names = cast("list[object]", declared) if isinstance(declared, list) else []
        known = {name for name in names if isinstance(name, str)}
        return tuple(sorted(known | UsageView(self._query).labels()))

    def columns(self) -> tuple[str, ...]:
        """Return all that totals may be grouped by."""
        return tuple(dict.fromkeys((*COLUMNS, *self.labels())))

    def totals(
        self,
        by: Sequence[str],
        *,
        since: str | None = None,
        until: str | None = None,
        customer: str | None = None,
        billed: bool = False,
        where: Mapping[str, str] | None = None,
    ) -> Iterator[Total]:
        """
        Yield what was used of each unit, summed by some of `COLUMNS` and of `labels`.

        Of an old day or month only its sum is known: by the hour, or the day, it is one row, whose hour or day is
        `2026-09`. What an earlier version counted has the empty text in the columns that it did not know.

        Args:
            by: what to group by.
            since: the first UTC day, `2026-11-01`.
            until: the last one.
            customer: of whom alone; the empty string is nobody.
            billed: whether to leave out what is `outside` of what was delivered, or belongs here.
            where: what columns and labels must be, exactly.

        Raises:
            UnreadableError: it cannot be read, or a part of a month is asked for of which only the sum is known.
        """
        view, asked = self._asked(since, until, customer, where)
        yield from (view.billed if billed else view.sums)(by, asked)

    def outside(
        self, since: str | None = None, until: str | None = None, customer: str | None = None
    ) -> dict[str, tuple[int, dict[str, float]]]:
        """
        Return how many events were recorded that are neither delivered nor where they belong, and what they used.

        By their state: pending, in_flight, held, dead and dropped. What an earlier version dropped is not among it:
        nobody knows its usage any more, see `dropped_before`. Nor is what an event used whose record is damaged.

        Raises:
            UnreadableError: likewise as for `totals`.
        """
        view, asked = self._asked(since, until, customer, None)
        return view.outside(asked)

    def dropped_before(self) -> int:
        """Return how many events an earlier version dropped, which are not told from those that were delivered."""
        for (number,) in self._query("SELECT value FROM counters WHERE name = 'dropped'"):
            known = UsageView(self._query).dropped(Asked()).get(EVENTS, 0)
            return max(0, number - int(known))
        return 0

    def _asked(
        self,
        since: str | None,
        until: str | None,
        customer: str | None,
        where: Mapping[str, str] | None,
    ) -> tuple[UsageView, Asked]:
        view = UsageView(self._query)
        view.require_whole_months(since, until)
        of = {} if customer is None else {"customer": customer}
        return view, Asked(since, until, {**(where or {}), **of})


def _state(state: object) -> str:
    """Return the name of a state; where damage has made another one of it, nothing will be done with the event."""
    return STATES[state] if isinstance(state, int) and 0 <= state < len(STATES) else "dead"
