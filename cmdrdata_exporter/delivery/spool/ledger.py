"""
The ledger: a SQLite database that knows where every event of one destination is.

| state | an event comes into it by | and leaves it by |
|---|---|---|
| pending | import; a failed attempt; `assign`; `replay` | `claim` → in flight; `expire` → dead |
| in flight | import or `claim`, committed before the send | an outcome → delivered, pending, dead, held; `recover` |
| held | no customer; an ambiguous attempt, where those are held | `assign` → pending, local; `replay` → pending |
| dead | a refusal; 30 days in vain; damage on the disk | `replay` → pending; `drop` → dropped |
| local | import, where the destination is `local`; `assign` there | final; its body goes after 30 days |
| delivered | acceptance, now or before | final; a tombstone stays where its id may come again |
| dropped | a person who gave it up | final |

recorded = delivered + local + pending + in flight + held + dead + dropped, at any instant.
Of delivered and dropped events, and of local ones without a body, a counter is left; the others are rows.

Its parts: `schema` has the tables, `totals` what is counted, `retention` what time does, `decisions` what a person
decides, `storage` the files.

One connection, used by one thread at a time, of the one process that holds the directory's lock: SQLite before 3.51.3
can corrupt a database in WAL mode that two connections write. https://www.sqlite.org/wal.html#the_wal_reset_bug
"""

from __future__ import annotations

import contextlib
import math
import operator
import sqlite3
import zlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery import FOR_EVER, Event, Handed, Outcome, Verdict
from cmdrdata_exporter.delivery.backoff import backoff
from cmdrdata_exporter.delivery.spool.decisions import Decisions
from cmdrdata_exporter.delivery.spool.details import Details
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.facts import TOTAL_BY, read_names, write_facts
from cmdrdata_exporter.delivery.spool.index import Index, Numbered
from cmdrdata_exporter.delivery.spool.records import (
    UnknownRecordError,
    decode,
    intact,
    is_duration,
    key_of,
)
from cmdrdata_exporter.delivery.spool.retention import Retention
from cmdrdata_exporter.delivery.spool.schema import (
    AMBIGUOUS,
    DAMAGED,
    DEAD,
    HELD,
    IN_FLIGHT,
    LOCAL,
    PENDING,
    STATES,
    UNATTRIBUTED,
    connect,
)
from cmdrdata_exporter.delivery.spool.storage import Storage
from cmdrdata_exporter.delivery.spool.totals import Place, Totals

CANDIDATES = 256
"""Among so many events that were tried in vain those are looked for that were tried least."""


class Ledger:
    """
    The ledger of one destination. Everything that changes it happens in a `transaction`.

    Args:
        directory: where it is.
        local: whether the destination is `local`, so that imported events are where they belong.
        hold_ambiguous: whether an event whose attempt may have been accepted unseen waits for a person.
        total_by: the user's metadata keys by which usage is summed; None: as the last leader did.
        index: in which events are found that come into it; None: as it was before, if there is one.

    Raises:
        sqlite3.Error: it cannot be opened.
        UnknownVersionError: a later version wrote it.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        local: bool = False,
        hold_ambiguous: bool = False,
        total_by: Sequence[str] | None = None,
        index: Index | None = None,
    ) -> None:
        self._arrival = LOCAL if local else PENDING
        self._hold_ambiguous = hold_ambiguous
        self._db = connect(directory)
        known = read_names(self._db, TOTAL_BY) if total_by is None else total_by
        self.totals = Totals(self._db, known)
        self.retention = Retention(self._db, self.totals)
        self.storage = Storage(self._db, directory)
        self.index = Index(directory, None) if index is None else index
        self._decisions = Decisions(
            self._db, self.totals, self.retention, self._arrival, self.index
        )
        self._counts = self.totals.counts
        try:
            self.index.open(self.last(), clocks.wall())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the database, and the index."""
        self.index.close()
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """Make what is done inside one change, on the disk when this returns, or none at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.totals.write()
            self.index.write(self.last())
            self._db.execute("COMMIT")
        except BaseException:
            self.totals.clear()
            self.index.clear()
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    # Import

    def offsets(self) -> dict[str, int]:
        """Return how far each journal was imported."""
        return dict(self._db.execute("SELECT name, offset FROM journals"))

    def import_records(
        self,
        journal: str,
        offset: int,
        records: Iterable[bytes],
        damaged: Sequence[tuple[int, bytes]],
        now: float,
        *,
        room: int = 0,
    ) -> list[Handed]:
        """
        Import records of a journal that has been read up to `offset`.

        An event that is here already, or was delivered and is remembered, changes nothing but a count.

        Args:
            journal: the name of its file.
            offset: how far it has been read.
            records: what follows there.
            damaged: what is no record, with its place.
            now: Unix seconds.
            room: how many events that may be sent at once come straight into flight.

        Returns:
            the events that are in flight, once the transaction is committed.
        """
        claimed: list[Handed] = []
        events: list[tuple[Event, bytes]] = []
        unknown: list[tuple[int, bytes]] = []
        for record in records:
            try:
                read = decode(record)
            except UnknownRecordError:
                # From a later version, perhaps: stored for it.
                unknown.append((offset, record))
                continue
            if isinstance(read, Event):
                events.append((read, record))
                continue
            # It may be about those before it.
            claimed += self._insert(events, now, room - len(claimed))
            events = []
            self._decisions.apply(read, now)
        claimed += self._insert(events, now, room - len(claimed))
        set_aside = [*damaged, *unknown]
        if set_aside:
            self._db.executemany(
                "INSERT INTO damaged VALUES (?, ?, ?)",
                [(journal, position, content) for position, content in set_aside],
            )
            self._counts["damaged"] += len(set_aside)
        self._db.execute("INSERT OR REPLACE INTO journals VALUES (?, ?)", (journal, offset))
        return claimed

    def _insert(self, events: Sequence[tuple[Event, bytes]], now: float, room: int) -> list[Handed]:
        """Insert events, each with its record, those that are here left out; return what comes into flight."""
        if not events:
            return []
        rows: list[tuple[object, ...]] = []
        new: list[tuple[bytes, int, Event, Details | None, Place]] = []
        for event, record in events:
            # Read once, for the totals and for the index.
            header, known = event.header, self.totals.details(event)
            state = HELD if header.hold else self._arrival
            if state == PENDING and room > 0:
                state = IN_FLIGHT
                room -= 1
            key, place = key_of(event.id), self.totals.place(event, known)
            reason = UNATTRIBUTED if header.hold else None
            row = (key, state, now, now, header.remember, reason, zlib.crc32(record), record)
            rows.append((*row, *place, key, FOR_EVER, now))
            new.append((key, state, event, known, place))
        last = self.last()
        self._db.executemany(
            "INSERT INTO events"
            " (key, state, due, recorded, attempts, remember, reason, crc, record, time, group_number)"
            " SELECT ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ? WHERE NOT EXISTS"
            " (SELECT 1 FROM tombstones WHERE key = ? AND (until = ? OR until >= ?)) ON CONFLICT DO NOTHING",
            rows,
        )
        numbers = dict(self._db.execute("SELECT key, seq FROM events WHERE seq > ?", (last,)))
        claimed: list[Handed] = []
        for key, state, event, known, place in new:
            # The second one of a key finds none.
            number = numbers.pop(key, None)
            if number is None:
                self._counts["repeated"] += 1
                continue
            self._counts["recorded"] += 1
            self.totals.add(place, event.header.units)
            self.index.add(Numbered(number, key, event, known, now))
            if state == IN_FLIGHT:
                claimed.append(Handed(number, key, event.id, event.body, 0, event.header.remember))
        return claimed

    def last(self) -> int:
        """Return the number of the event that was imported last."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return 0 if row is None else row[0]

    def before(self, seq: int, limit: int) -> tuple[list[Numbered], int]:
        """Return events that were imported before one; see `index.Before`."""
        rows = self._db.execute(
            "SELECT seq, key, crc, record, recorded FROM events WHERE seq < ? ORDER BY seq DESC LIMIT ?",
            (seq, limit),
        ).fetchall()
        found = [
            Numbered(seq, key, event, self.totals.details(event), recorded)
            for seq, key, crc, record, recorded in rows
            if isinstance(recorded, float) and (event := intact(key, crc, record)) is not None
        ]
        return found, rows[-1][0] if len(rows) == limit else 0

    def note_offsets(self, offsets: Mapping[str, int]) -> None:
        """Note how far another ledger has imported journals, so that none is imported again."""
        self._db.executemany("INSERT OR IGNORE INTO journals VALUES (?, ?)", offsets.items())

    def forget_journals(self, names: Iterable[str]) -> None:
        """Forget how far journals were imported, whose files are gone."""
        self._db.executemany("DELETE FROM journals WHERE name = ?", [(name,) for name in names])

    # Delivery

    def recover(self, now: float) -> None:
        """Take back what was in flight in a process that died: each event may have been accepted unseen."""
        state, reason = (HELD, AMBIGUOUS) if self._hold_ambiguous else (PENDING, None)
        found = self._db.execute(
            "UPDATE events SET state = ?, due = ?, reason = ?, attempts = attempts + 1 WHERE state = ?",
            (state, now, reason, IN_FLIGHT),
        )
        self._counts["ambiguous"] += found.rowcount
        # A process may be there for a moment only, and whatever kept others from delivering may be over.
        self.retention.make_due(now, now)

    def claim(self, limit: int, now: float, again: int | None = None) -> list[Handed]:
        """
        Move due events into flight, and return them.

        Those that are due longest come first. What was tried in vain takes turns with what was never tried: it has
        half of the room at most, and comes only if it is due longer.

        Args:
            limit: how many at most.
            now: Unix seconds.
            again: how many of those that were tried in vain, at most; None: as many as there is room for.
        """
        # What was never tried is due since it was recorded: the index alone tells it.
        new = _due(self._db, "due = recorded", now, limit, limit)
        until, room = now, limit - len(new)
        if new and not room:
            # Before the last of these, so that no more of the index is read: thousands may be due at its time.
            until, room = math.nextafter(new[-1][-1], 0.0), limit // 2
        old = _due(
            self._db,
            "due <> recorded",
            until,
            CANDIDATES,
            room if again is None else min(again, room),
        )
        rows = sorted(old + new[: limit - len(old)], key=operator.itemgetter(-1, 0))
        claimed: list[Handed] = []
        for seq, key, attempts, remember, crc, record, _ in rows:
            event = intact(key, crc, record)
            if event is None:
                self._db.execute(
                    "UPDATE events SET state = ?, due = ?, reason = ? WHERE seq = ?",
                    (DEAD, now, DAMAGED, seq),
                )
                self._counts["damaged"] += 1
            else:
                # A damaged row may hold any type.
                tried = attempts if isinstance(attempts, int) else 0
                known = remember if is_duration(remember) else FOR_EVER
                claimed.append(Handed(seq, key, event.id, event.body, tried, known))
        if claimed:
            marks = ", ".join("?" * len(claimed))
            self._db.execute(
                f"UPDATE events SET state = ?, due = ? WHERE seq IN ({marks})",  # noqa: S608 - question marks
                (IN_FLIGHT, now, *(event.seq for event in claimed)),
            )
        return claimed

    def record_outcomes(
        self, outcomes: Sequence[tuple[Handed, Outcome | None]], now: float
    ) -> None:
        """
        Move events that were in flight by the backend's verdicts; None: it was not sent after all.

        The row may be another one by now, or none: someone may have removed the directory while it was sent.
        """
        accepted: list[Handed] = []
        for event, outcome in outcomes:
            if outcome is None:
                # It is where it was before.
                self._db.execute(
                    "UPDATE events SET state = ?, due = CASE attempts WHEN 0 THEN recorded ELSE ? END"
                    " WHERE key = ? AND state = ?",
                    (PENDING, now, event.key, IN_FLIGHT),
                )
                continue
            if outcome.verdict in (Verdict.DELIVERED, Verdict.DUPLICATE):
                accepted.append(event)
                continue
            if outcome.verdict is Verdict.REFUSED:
                found = self._move(event, DEAD, now, outcome.explanation)
            elif outcome.ambiguous and self._hold_ambiguous:
                found = self._move(event, HELD, now, AMBIGUOUS)
            else:
                delay = backoff(event.attempts) if outcome.verdict is Verdict.RETRY else 0.0
                found = self._move(event, PENDING, now + delay, outcome.explanation, attempts=1)
            self._counts["ambiguous"] += found * outcome.ambiguous
        self._accept(accepted, now)

    def _accept(self, events: Sequence[Handed], now: float) -> None:
        """Delete events that the backend has, each of which leaves a tombstone where its id may come again."""
        delete = "DELETE FROM events WHERE key = ? AND state IN (?, ?)"
        plain = [(event.key, PENDING, IN_FLIGHT) for event in events if not event.remember]
        if plain:
            self._counts["delivered"] += self._db.executemany(delete, plain).rowcount
        for event in events:
            if event.remember:
                found = self._db.execute(delete, (event.key, PENDING, IN_FLIGHT)).rowcount
                self._counts["delivered"] += found
                if found:
                    self.retention.remember(event.key, event.remember, now)

    def _move(
        self, event: Handed, state: int, due: float, reason: str | None, *, attempts: int = 0
    ) -> int:
        """Move an event that was in flight, wherever it is by now, and return how many rows that were."""
        return self._db.execute(
            "UPDATE events SET state = ?, due = ?, reason = ?, attempts = attempts + ?"
            " WHERE key = ? AND state IN (?, ?)",
            (state, due, reason, attempts, event.key, PENDING, IN_FLIGHT),
        ).rowcount

    def waiting(self) -> dict[str, int]:
        """Return how many events are in each state that is not final."""
        rows = self._db.execute(
            "SELECT state, count(*) FROM events INDEXED BY by_state WHERE state IN (?, ?, ?, ?) GROUP BY state",
            (PENDING, IN_FLIGHT, HELD, DEAD),
        )
        return {STATES[state]: number for state, number in rows}

    def counted(self) -> dict[str, int]:
        """Return how many events were recorded and could not be written, and how many are in states that may last."""
        names = ("recorded", "unspooled")
        rows = self._db.execute("SELECT name, value FROM counters WHERE name IN (?, ?)", names)
        counted = dict.fromkeys(names, 0) | dict(rows)
        waiting = self.waiting()
        pending = waiting.get("pending", 0) + waiting.get("in_flight", 0)
        held, dead = waiting.get("held", 0), waiting.get("dead", 0)
        return counted | {"pending": pending, "held": held, "dead": dead}

    def next_due(self, *, new: bool = False) -> float | None:
        """Return when the next pending event may be sent, or the next `new` one, which was never tried."""
        which = "AND due = recorded" if new else ""
        row = self._db.execute(
            f"SELECT min(due) FROM events INDEXED BY by_state WHERE state = ? {which}",  # noqa: S608
            (PENDING,),
        ).fetchone()
        # What has another type in a damaged row comes last.
        return row[0] if isinstance(row[0], float) else None

    def is_empty(self) -> bool:
        """Return whether nothing is left to send."""
        row = self._db.execute(
            "SELECT 1 FROM events INDEXED BY by_state WHERE state IN (?, ?) LIMIT 1",
            (PENDING, IN_FLIGHT),
        ).fetchone()
        return row is None

    def note(self, facts: Mapping[str, Any]) -> None:
        """Write down what commands should know of the process that drains."""
        write_facts(self._db, facts)


def _due(
    db: sqlite3.Connection, which: str, until: float, window: int, limit: int
) -> list[tuple[Any, ...]]:
    """Return pending events; of so many that are due longest those with the fewest attempts."""
    rows = db.execute(
        "SELECT seq, key, attempts, remember, crc, record, due FROM events"  # noqa: S608 - of two texts
        " WHERE seq IN (SELECT seq FROM events INDEXED BY by_state"
        f" WHERE state = ? AND due <= ? AND {which} ORDER BY due LIMIT ?)"
        " ORDER BY attempts, due LIMIT ?",
        (PENDING, until, window, limit),
    )
    return rows.fetchall()
