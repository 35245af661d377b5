"""
The ledger: a SQLite database that knows where every event of one destination is.

| state | an event comes into it by | and leaves it by |
|---|---|---|
| pending | import; a failed attempt; `assign`; `replay` | `hand_out` → in flight; `expire` → dead |
| in flight | `hand_out`, committed before it may be sent | `settle` → delivered, pending, dead, held; `recover` |
| held | no customer; an ambiguous attempt, where those are held | `assign` → pending, local; `replay` → pending |
| dead | a refusal; 30 days in vain; damage on the disk | `replay` → pending; `drop` → dropped |
| local | import, where the destination is `local`; `assign` there | final; its body goes after 30 days |
| delivered | acceptance, now or before | final; a tombstone stays where its id may come again |
| dropped | a person who gave it up | final |

recorded = delivered + local + pending + in flight + held + dead + dropped, at any instant.
Of delivered and dropped events, and of local ones without a body, a counter is left; the others are rows.

One connection, used by one thread at a time, of the one process that holds the directory's lock: SQLite before 3.51.3
can corrupt a database in WAL mode that two connections write. https://www.sqlite.org/wal.html#the_wal_reset_bug
"""

from __future__ import annotations

import contextlib
import json
import math
import operator
import os
import sqlite3
import zlib
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

from cmdrdata_exporter.delivery import FOR_EVER, KEPT_DAYS, Event, Handed, Outcome, Verdict
from cmdrdata_exporter.delivery.backoff import LONGEST_BACKOFF, backoff
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.records import (
    Command,
    UnknownRecordError,
    assigned,
    decode,
    is_span,
    key_of,
)

PENDING, IN_FLIGHT, HELD, DEAD, LOCAL = range(5)
"""The states of rows, as they are stored."""
STATES = ("pending", "in_flight", "held", "dead", "local")
"""Their names."""

UNATTRIBUTED = "no customer"
"""Why an event is held."""
AMBIGUOUS = "ambiguous"
EXPIRED = "expired"
"""Why an event is dead; also the backend's answer, `HTTP 400` for instance."""
DAMAGED = "damaged"

KEEP = KEPT_DAYS * 86400.0
"""Seconds: undelivered events expire after these, local ones lose their bodies."""

PAGE = 4096
RESERVED_PAGES = 128
"""How much room is reserved for outcomes in the database, and as much in its log."""

CANDIDATES = 256
"""Among so many events that were tried in vain those are looked for that were tried least."""
AWAY = 3600.0
"""Seconds without a look at what is old, after which nobody is taken to have been there to deliver anything."""
MOST_BREAKS = 1000
"""How many such times are known."""
PRESENT, BREAKS = "present", "breaks"
"""The facts that say when somebody was there last, and when nobody was."""

_PATIENCE = 5.0
"""Seconds that SQLite waits for whoever has the database."""

_MOST = 10**100
"""No amount is counted as more than this."""

VERSION = 1
_PLAUSIBLE = 1000
"""Below this a version is that of a release; above it is damage."""
_SCHEMA = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, -- no number comes again: who waits for one waits for that event
    key BLOB NOT NULL UNIQUE,    -- 16 bytes that stand for the id
    state INTEGER NOT NULL,
    due REAL NOT NULL,           -- when it may be sent; of other states, since when it is in it
    recorded REAL NOT NULL,      -- when it was imported
    attempts INTEGER NOT NULL,
    remember INTEGER NOT NULL,   -- seconds for which a tombstone stays
    reason TEXT,                 -- why it is held, dead or pending still
    crc INTEGER NOT NULL,        -- of the record
    record BLOB NOT NULL         -- as in the journal
);
CREATE INDEX by_state ON events (state, due, recorded);
CREATE TABLE tombstones (key BLOB PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE totals (
    day TEXT, customer TEXT, model TEXT, endpoint TEXT, status TEXT, unit TEXT, amount,
    PRIMARY KEY (day, customer, model, endpoint, status, unit)
) WITHOUT ROWID;
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE journals (name TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE damaged (source TEXT, position INTEGER, content BLOB);
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""


class UnknownVersionError(Exception):
    """The ledger was written by a later version, which may not be touched by this one."""


class Ledger:
    """
    The ledger of one destination. Everything that changes it happens in a `transaction`.

    Args:
        directory: where it is.
        local: whether the destination is `local`, so that imported events are where they belong.
        hold_ambiguous: whether an event whose attempt may have been accepted unseen waits for a person.

    Raises:
        sqlite3.Error: it cannot be opened.
        UnknownVersionError: a later version wrote it.
    """

    def __init__(
        self, directory: Directory, *, local: bool = False, hold_ambiguous: bool = False
    ) -> None:
        self._directory = directory
        self._arrival = LOCAL if local else PENDING
        self._hold_ambiguous = hold_ambiguous
        self._totals: dict[tuple[str, ...], int | float] = {}
        self._counts: Counter[str] = Counter()
        self._db = connect(directory)
        self._index_size = 0
        self._has_reserve = False
        """Whether there is room for outcomes in its files, whatever fills the disk."""
        found = (directory.path / LEDGER).lstat()
        self._file = found.st_dev, found.st_ino

    def is_in_place(self) -> bool:
        """Say whether it is where others will find it: someone may have removed or replaced it."""
        try:
            there = (self._directory.path / LEDGER).lstat()
        except OSError:
            return False
        return self._file == (there.st_dev, there.st_ino)

    def mend_index(self) -> None:
        """
        Give the index of the log, which SQLite has in memory that processes share, the size back that it had.

        Who reads beyond its end is killed by SIGBUS. SQLite finds it empty then, and makes it anew from the log.
        """
        index = self._directory.path / f"{LEDGER}-shm"
        with contextlib.suppress(OSError):
            size = index.stat().st_size
            if size < self._index_size:
                os.truncate(index, self._index_size)
            else:
                self._index_size = size

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """Make what is done inside one change, on the disk when this returns, or none at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._write_totals()
            self._db.execute("COMMIT")
        except BaseException:
            self._totals.clear()
            self._counts.clear()
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    # Import

    def offsets(self) -> dict[str, int]:
        """Return how far each journal was imported."""
        return dict(self._db.execute("SELECT name, offset FROM journals"))

    def take_in(
        self,
        journal: str,
        offset: int,
        records: Iterable[bytes],
        damaged: Sequence[tuple[int, bytes]],
        now: float,
    ) -> None:
        """
        Import records of a journal that has been read up to `offset`.

        An event that is here already, or was delivered and is remembered, changes nothing but a count.
        """
        for record in records:
            try:
                read = decode(record)
            except UnknownRecordError:
                # From a later version, perhaps: kept for it.
                damaged = [*damaged, (offset, record)]
                continue
            if isinstance(read, Command):
                self._obey(read, now)
            else:
                self._add(read, record, now)
        self._db.executemany(
            "INSERT INTO damaged VALUES (?, ?, ?)",
            [(journal, position, content) for position, content in damaged],
        )
        self._counts["damaged"] += len(damaged)
        self._db.execute("INSERT OR REPLACE INTO journals VALUES (?, ?)", (journal, offset))

    def note_offsets(self, offsets: Mapping[str, int]) -> None:
        """Note how far another ledger has imported journals, so that none is imported again."""
        self._db.executemany("INSERT OR IGNORE INTO journals VALUES (?, ?)", offsets.items())

    def forget_journals(self, names: Iterable[str]) -> None:
        """Forget how far journals were imported, whose files are gone."""
        self._db.executemany("DELETE FROM journals WHERE name = ?", [(name,) for name in names])

    def _add(self, event: Event, record: bytes, now: float) -> None:
        header = event.header
        key = key_of(event.id)
        state = HELD if header.hold else self._arrival
        added = self._db.execute(
            "INSERT INTO events (key, state, due, recorded, attempts, remember, reason, crc, record)"
            " SELECT ?, ?, ?, ?, 0, ?, ?, ?, ? WHERE NOT EXISTS"
            " (SELECT 1 FROM tombstones WHERE key = ? AND (until = ? OR until >= ?)) ON CONFLICT DO NOTHING",
            (
                key,
                state,
                now,
                now,
                header.remember,
                UNATTRIBUTED if header.hold else None,
                zlib.crc32(record),
                record,
                key,
                FOR_EVER,
                now,
            ),
        )
        if not added.rowcount:
            self._counts["repeated"] += 1
            return
        self._counts["recorded"] += 1
        self._total(event, 1)

    # Delivery

    def recover(self, now: float) -> None:
        """Take back what a process that died had handed out: each may have been accepted unseen."""
        state, reason = (HELD, AMBIGUOUS) if self._hold_ambiguous else (PENDING, None)
        found = self._db.execute(
            "UPDATE events SET state = ?, due = ?, reason = ?, attempts = attempts + 1 WHERE state = ?",
            (state, now, reason, IN_FLIGHT),
        )
        self._counts["ambiguous"] += found.rowcount
        # A process may be there for a moment only, and whatever kept others from delivering may be over.
        self._make_due(now, now)

    def hand_out(self, limit: int, now: float, again: int | None = None) -> list[Handed]:
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
        new = self._due("due = recorded", now, limit, limit)
        until, room = now, limit - len(new)
        if new and not room:
            # Before the last of these, so that no more of the index is read: thousands may be due at its time.
            until, room = math.nextafter(new[-1][-1], 0.0), limit // 2
        old = self._due(
            "due <> recorded", until, CANDIDATES, room if again is None else min(again, room)
        )
        rows = sorted(old + new[: limit - len(old)], key=operator.itemgetter(-1, 0))
        handed: list[Handed] = []
        for seq, key, attempts, remember, crc, record, _ in rows:
            event = intact(key, crc, record)
            if event is None:
                self._db.execute(
                    "UPDATE events SET state = ?, due = ?, reason = ? WHERE seq = ?",
                    (DEAD, now, DAMAGED, seq),
                )
                self._counts["damaged"] += 1
            else:
                # Damage knows no types.
                tried = attempts if isinstance(attempts, int) else 0
                known = remember if is_span(remember) else FOR_EVER
                handed.append(Handed(seq, key, event.id, event.body, tried, known))
        if handed:
            marks = ", ".join("?" * len(handed))
            self._db.execute(
                f"UPDATE events SET state = ?, due = ? WHERE seq IN ({marks})",  # noqa: S608 - question marks
                (IN_FLIGHT, now, *(event.seq for event in handed)),
            )
        return handed

    def _due(self, which: str, until: float, window: int, limit: int) -> list[tuple[Any, ...]]:
        """Return pending events; of so many that are due longest those with the fewest attempts."""
        rows = self._db.execute(
            "SELECT seq, key, attempts, remember, crc, record, due FROM events"  # noqa: S608 - of two texts
            " WHERE seq IN (SELECT seq FROM events INDEXED BY by_state"
            f" WHERE state = ? AND due <= ? AND {which} ORDER BY due LIMIT ?)"
            " ORDER BY attempts, due LIMIT ?",
            (PENDING, until, window, limit),
        )
        return rows.fetchall()

    def settle(self, outcomes: Sequence[tuple[Handed, Outcome | None]], now: float) -> None:
        """
        Move events that were in flight by the backend's verdicts; None: it was not sent after all.

        The row may be another one by now, or none: someone may have removed the directory while it was sent.
        """
        for event, outcome in outcomes:
            if outcome is None:
                self._put_back(event, now)
                continue
            if outcome.verdict in (Verdict.DELIVERED, Verdict.DUPLICATE):
                found = self._db.execute(
                    "DELETE FROM events WHERE key = ? AND state IN (?, ?)",
                    (event.key, PENDING, IN_FLIGHT),
                ).rowcount
                self._counts["delivered"] += found
                if found:
                    self._remember(event.key, event.remember, now)
            elif outcome.verdict is Verdict.REFUSED:
                found = self._land(event, DEAD, now, outcome.explanation)
            elif outcome.ambiguous and self._hold_ambiguous:
                found = self._land(event, HELD, now, AMBIGUOUS)
            else:
                delay = backoff(event.attempts) if outcome.verdict is Verdict.RETRY else 0.0
                found = self._land(event, PENDING, now + delay, outcome.explanation, attempts=1)
            self._counts["ambiguous"] += found * outcome.ambiguous

    def _put_back(self, event: Handed, now: float) -> None:
        """Have an event that was in flight, and was not sent, where it was before."""
        self._db.execute(
            "UPDATE events SET state = ?, due = CASE attempts WHEN 0 THEN recorded ELSE ? END"
            " WHERE key = ? AND state = ?",
            (PENDING, now, event.key, IN_FLIGHT),
        )

    def _land(
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
        """Say whether nothing is left to send."""
        row = self._db.execute(
            "SELECT 1 FROM events INDEXED BY by_state WHERE state IN (?, ?) LIMIT 1",
            (PENDING, IN_FLIGHT),
        ).fetchone()
        return row is None

    # Time

    def make_due(self, now: float) -> None:
        """Make due what only a clock that has been set back, or damage, keeps from being sent."""
        self._make_due(now, now + LONGEST_BACKOFF)

    def _make_due(self, now: float, after: float) -> None:
        self._db.execute(
            "UPDATE events SET due = ? WHERE state = ? AND due > ?", (now, PENDING, after)
        )

    def expire(self, now: float) -> int:
        """
        Give up what could not be delivered for 30 days, and forget the bodies of local events as old.

        The time in which this was not called for long does not count for what is to be sent: nobody tried.

        Returns:
            how many events were given up.
        """
        old = self._db.execute(
            "UPDATE events SET state = ?, due = ?, reason = ?"
            " WHERE seq IN (SELECT seq FROM events INDEXED BY by_state WHERE state = ? AND recorded < ?)",
            (DEAD, now, EXPIRED, PENDING, _ago(now, KEEP, self._breaks(now))),
        )
        self._counts["expired"] += old.rowcount
        self._let_go("state = ? AND due < ?", (LOCAL, now - KEEP))
        return old.rowcount

    def _breaks(self, now: float) -> list[list[float]]:
        """Return from when to when nobody was there to deliver, the last one first, and note that someone is now."""
        names = (PRESENT, BREAKS, "at")
        known = dict(
            self._db.execute("SELECT name, value FROM facts WHERE name IN (?, ?, ?)", names)
        )
        try:
            # Earlier versions wrote down only when they had done something.
            present = json.loads(known.get(PRESENT) or known.get("at") or "null")
            breaks = json.loads(known.get(BREAKS) or "null")
            breaks = [[float(begin), float(end)] for begin, end in breaks or ()]
            if present is not None and now - present > AWAY:
                breaks.insert(0, [float(present), now])
        except (ValueError, TypeError, RecursionError):
            # Damaged: in doubt nobody was there.
            breaks = [[0.0, now]]
        kept = breaks[:MOST_BREAKS]
        self.note({PRESENT: now, BREAKS: kept})
        return kept

    def shrink_local(self, number: int) -> None:
        """Forget the bodies of the oldest local events: their totals stay, and room is needed."""
        self._let_go("state = ?", (LOCAL,), number)

    def _let_go(self, condition: str, values: tuple[object, ...], limit: int = -1) -> None:
        # The condition is one of the two above.
        rows = self._db.execute(
            f"SELECT seq, key, due, remember FROM events WHERE {condition} ORDER BY due LIMIT ?",  # noqa: S608
            (*values, limit),
        ).fetchall()
        for seq, key, since, remember in rows:
            self._db.execute("DELETE FROM events WHERE seq = ?", (seq,))
            self._remember(key, remember, since)
        self._counts["local"] += len(rows)

    def _remember(self, key: bytes, seconds: object, since: float) -> None:
        """Let the id of an event that has no row any more be known, for as long as it may come again."""
        if seconds == 0:
            return
        until = FOR_EVER
        # Damage knows no types.
        if is_span(seconds) and seconds != FOR_EVER and isinstance(since, float):  # pyright: ignore[reportUnnecessaryIsInstance]
            until = int(since) + seconds
        self._db.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?)", (key, until))

    def prune_tombstones(self, bucket: int, now: float) -> None:
        """Forget ids whose time is over, among one 256th of all."""
        upper = bytes([bucket + 1]) if bucket < 255 else b"\xff" * 17
        self._db.execute(
            "DELETE FROM tombstones WHERE key >= ? AND key < ? AND until BETWEEN 0 AND ?",
            (bytes([bucket]), upper, now),
        )

    def tidy_totals(self, after: str, before: str) -> tuple[str, int]:
        """
        Go on to the next day or month of the totals: one that is old becomes a part of its month.

        Args:
            after: the day or month that was the last; the empty string begins.
            before: the first month whose days are kept, `2026-11`.

        Returns:
            which one it was, the empty string where there is none; and about how many bytes its totals take.
        """
        (day,) = self._db.execute("SELECT min(day) FROM totals WHERE day > ?", (after,)).fetchone()
        # Damage knows no types.
        if not isinstance(day, str):
            return "", 0
        if len(day) > len(before) and day < before:
            self._db.execute(
                "INSERT INTO totals SELECT ?, customer, model, endpoint, status, unit, amount FROM totals"
                " WHERE day = ? ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
                (day[: len(before)], day),
            )
            self._db.execute("DELETE FROM totals WHERE day = ?", (day,))
        (size,) = self._db.execute(
            "SELECT sum(24 + length(day) + length(customer) + length(model) + length(endpoint) + length(status)"
            " + length(unit)) FROM totals WHERE day = ?",
            (day,),
        ).fetchone()
        return day, size or 0

    # Room

    def spare(self) -> int:
        """Return how many bytes of the database imports may take: half of what is reserved stays for outcomes."""
        return max(0, self._free_pages() - RESERVED_PAGES // 2) * PAGE

    def _free_pages(self) -> int:
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return int(free)

    def reserve(self) -> None:
        """
        Have room for outcomes in the database and its log, which nothing else can take then. Not in a transaction.

        What is in the log goes into the database, so that it is written from its beginning again, in the room it has.
        """
        # Where there is no room, the next time.
        with contextlib.suppress(sqlite3.OperationalError):
            self._checkpoint()
            if not self._has_reserve:
                self._db.execute(
                    "INSERT OR REPLACE INTO facts VALUES ('reserve', zeroblob(?))",
                    (RESERVED_PAGES * PAGE,),
                )
                self._db.execute("DELETE FROM facts WHERE name = 'reserve'")
                self._checkpoint()
                self._has_reserve = True

    def _checkpoint(self) -> None:
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def vacuum(self) -> None:
        """Give free pages back to the file system, a few at a time. Not in a transaction."""
        if self._free_pages() > 2 * RESERVED_PAGES:
            # It steps once for each page, of which `execute` makes the first only on Python 3.11.
            self._db.executescript("PRAGMA incremental_vacuum(1024)")

    def give_back(self) -> None:
        """Give what is not reserved back to a file system that is nearly full. Not in a transaction."""
        # Little by little, in the room that the log has.
        self._checkpoint()
        for _ in range(16):
            spare = min(self._free_pages() - RESERVED_PAGES, RESERVED_PAGES // 4)
            if spare <= 0:
                return
            self._db.executescript(f"PRAGMA incremental_vacuum({spare})")
            self._checkpoint()

    def empty_log(self) -> bool:
        """Make the log small again, and say whether nobody who reads keeps it from that. Not in a transaction."""
        self._db.execute("PRAGMA busy_timeout = 0").fetchone()
        (busy, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._db.execute(f"PRAGMA busy_timeout = {_PATIENCE * 1000:.0f}").fetchone()
        self._has_reserve = False
        return not busy

    def note(self, facts: dict[str, Any]) -> None:
        """Write down what commands should know of the process that drains."""
        self._db.executemany(
            "INSERT OR REPLACE INTO facts VALUES (?, ?)",
            [(name, json.dumps(value)) for name, value in facts.items()],
        )

    # Commands

    def _obey(self, command: Command, now: float) -> None:
        if command.action == "unspooled":
            self._counts["unspooled"] += command.number
        for key in command.keys:
            row = self._db.execute(
                "SELECT seq, state, reason, remember, crc, record FROM events WHERE key = ?", (key,)
            ).fetchone()
            if row is None:
                continue
            seq, state, reason, remember, crc, record = row
            event = intact(key, crc, record)
            if command.action == "drop" and state == DEAD:
                self._db.execute("DELETE FROM events WHERE seq = ?", (seq,))
                self._remember(key, remember, now)
                self._counts["dropped"] += 1
            elif event is None:
                continue
            elif command.action == "replay" and (
                state == DEAD or (state == HELD and reason == AMBIGUOUS)
            ):
                # Whatever sends it once more, it is the same event for ever.
                self._db.execute(
                    "UPDATE events SET state = ?, due = ?, recorded = ?, attempts = 0, reason = NULL, remember = ?"
                    " WHERE seq = ?",
                    (PENDING, now, now, FOR_EVER, seq),
                )
                self._counts["replayed"] += 1
            elif (
                # What was sent once stays as it was sent.
                command.action == "assign"
                and (state, reason) == (HELD, UNATTRIBUTED)
                and command.customer
            ):
                self._assign(seq, event, record, command.customer, now)

    def _assign(self, seq: int, event: Event, record: bytes, customer: str, now: float) -> None:
        new = assigned(record, customer)
        if new is None:
            return
        self._db.execute(
            "UPDATE events SET state = ?, due = ?, recorded = ?, reason = NULL, crc = ?, record = ? WHERE seq = ?",
            (self._arrival, now, now, zlib.crc32(new), new, seq),
        )
        self._counts["assigned"] += 1
        self._total(event, -1)
        read = decode(new)
        if isinstance(read, Event):
            self._total(read, 1)

    # What is shared

    def _total(self, event: Event, sign: int) -> None:
        header = event.header
        # No customer has the empty id.
        row = (header.day, header.customer or "", header.model, header.endpoint, header.status)
        for unit, amount in (("events", 1), *header.units.items()):
            if not isinstance(amount, bool):
                # Half of a surrogate pair is no character; it becomes a question mark, as in the body.
                key = tuple(text.encode("utf-8", "replace").decode() for text in (*row, unit))
                self._totals[key] = self._totals.get(key, 0) + _storable(amount) * sign

    def _write_totals(self) -> None:
        """Add what this transaction changed to the totals and counters."""
        self._db.executemany(
            "INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
            [(*row, _storable(amount)) for row, amount in self._totals.items() if amount],
        )
        self._db.executemany(
            "INSERT INTO counters VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
            [(name, number) for name, number in self._counts.items() if number],
        )
        self._totals.clear()
        self._counts.clear()


def connect(directory: Directory, name: str = LEDGER) -> sqlite3.Connection:
    """Open a database of a directory for the process that holds its lock, and make its tables."""
    # SQLite gives the files beside it the mode of this one.
    os.close(directory.open_or_create(name))
    db = sqlite3.connect(
        directory.path / name, isolation_level=None, check_same_thread=False, timeout=_PATIENCE
    )
    try:
        _set_up(db)
    except BaseException:
        db.close()
        raise
    return db


def _set_up(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if not 0 <= version < _PLAUSIBLE:
        raise sqlite3.DatabaseError("the header is malformed")
    if version > VERSION:
        raise UnknownVersionError(
            f"its ledger is of version {version}, and this release knows version {VERSION}"
        )
    if version == 0:
        db.execute(f"PRAGMA page_size = {PAGE}")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    # Each commit is on the disk when it returns: a crash of the host loses nothing that was settled.
    db.execute("PRAGMA journal_mode = WAL").fetchone()
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA cell_size_check = ON")
    db.execute("PRAGMA journal_size_limit = 4194304").fetchone()
    if version == 0:
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")


def is_broken(error: sqlite3.Error) -> bool:
    """Say whether an error means that the database itself is damaged, not only that the disk is full, say."""
    return any(
        phrase in str(error)
        for phrase in ("malformed", "not a database", "unsupported file format", "no such table")
    )


def intact(key: bytes, crc: int, record: bytes) -> Event | None:
    """Return the event of a row; None where a bit of it has changed."""
    if not isinstance(record, bytes) or zlib.crc32(record) != crc:  # pyright: ignore[reportUnnecessaryIsInstance] - damage knows no types
        return None
    try:
        event = decode(record)
    except UnknownRecordError:
        return None
    return event if isinstance(event, Event) and key_of(event.id) == key else None


def _ago(now: float, seconds: float, breaks: Iterable[Sequence[float]]) -> float:
    """Return the time since when so many seconds have passed, those of breaks left out, of which the last is first."""
    until = now
    for begin, end in breaks:
        if until - end >= seconds:
            break
        seconds -= max(0.0, until - end)
        until = begin
    return until - seconds


def _storable(amount: float) -> int | float:
    """Return an amount as SQLite can store it: beyond 63 bits only roughly, and within what a sum of floats can be."""
    if isinstance(amount, int) and -(2**63) <= amount < 2**63:
        return amount
    return float(min(max(amount, -_MOST), _MOST))
