"""
The ledger of a fleet: a PostgreSQL database that knows each event of many hosts once.

| state | an event comes into it by | and leaves it by |
|---|---|---|
| local | `store`, where nothing is forwarded; `assign` there | final |
| pending | `store`, where events are forwarded; `assign`, `replay`, a failed attempt | `claim` → in flight; `tidy` |
| in flight | `claim` | an outcome → delivered, pending, dead; `recover` |
| held | `store`, where it has no customer | `assign` → pending, local |
| dead | a refusal; 30 days in vain | `replay` → pending; `drop` → dropped |
| delivered | acceptance | final |
| dropped | a person who gave it up | final |

recorded = delivered + local + pending + in flight + held + dead + dropped, at any instant.
An event's id is in `fleet_keys` from the moment it is counted on, and nothing is counted whose id is there.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery import KEPT_DAYS, Handed, Outcome, Verdict
from cmdrdata_exporter.delivery.backoff import backoff
from cmdrdata_exporter.delivery.spool.details import LONGEST
from cmdrdata_exporter.delivery.spool.facts import TOTAL_BY
from cmdrdata_exporter.delivery.spool.records import key_of
from cmdrdata_exporter.delivery.spool.schema import (
    DEAD,
    EXPIRED,
    HELD,
    IN_FLIGHT,
    LOCAL,
    PENDING,
    UNATTRIBUTED,
)
from cmdrdata_exporter.fleet.arrivals import Arrival, HostReport, Position
from cmdrdata_exporter.fleet.connection import Connected, Connection
from cmdrdata_exporter.fleet.migrations import DAYS, LOCKS, TIDY, migrate
from cmdrdata_exporter.fleet.reading import Read, read, storable_text
from cmdrdata_exporter.fleet.states import DELIVERED, DROPPED, OPEN
from cmdrdata_exporter.fleet.totals import Place, Totals, as_json, hour_of

LEASE = 120.0
"""Seconds after which an event that is in flight is taken back: whoever had it has died."""
PATIENCE = 1
"""Seconds for which a change of tables waits for those who use them."""
AHEAD = 2
"""Days from today for which there are tables."""
KEYS_FOR = 400
"""Days for which the id of an event is known, at least; an event of an earlier day is set aside."""

_DAY = 86400.0
_LARGEST = (1 << 63) - 1
_COLUMNS = (
    *(
        "key",
        "day",
        "id",
        "state",
        "due",
        "recorded",
        "reason",
        "host",
        "source",
        "customer",
        "model",
    ),
    *(
        "endpoint",
        "status",
        "units",
        "at",
        "group_number",
        "trace_id",
        "response_id",
        "request_id",
        "body",
    ),
)
_COPY = f"COPY fleet_events ({', '.join(_COLUMNS)}) FROM STDIN".encode()


class _New(NamedTuple):
    """An event that has come, and is not stored yet."""

    arrival: Arrival
    key: bytes
    read: Read


class FleetLedger(Connected):
    """
    The ledger of a fleet, for one that writes it. Any number of processes may; each method is one transaction.

    The tables are made, or brought up to date, when the first connection is made.

    Args:
        url: of the database, `postgresql://…`; what it does not say is taken from the environment, as by psql.
        forwards: whether events are sent on to CmdrData.
        total_by: the user's metadata keys by which usage is summed; None: as the last one did that knew.
        keep_events: days after which what is settled is forgotten, but for its usage.
        clock: returns Unix seconds.

    Raises:
        UnusableUrlError: it is no URL of a database.
    """

    def __init__(
        self,
        url: str,
        *,
        forwards: bool = False,
        total_by: Sequence[str] | None = None,
        keep_events: int = KEPT_DAYS,
        clock: Callable[[], float] = clocks.wall,
    ) -> None:
        super().__init__(url)
        self._arrival = PENDING if forwards else LOCAL
        self._total_by = total_by
        self._keep = keep_events
        self._clock = clock
        self._totals = Totals(total_by or ())
        self._days: set[str] = set()
        """Those that have a table."""

    def _prepare(self, connection: Connection) -> None:
        migrate(connection)
        self._days.clear()
        self._totals.clear()
        facts: dict[str, object] = {"forwards": self._arrival == PENDING}
        if self._total_by is not None:
            facts[TOTAL_BY] = self._total_by
        else:
            for (value,) in connection.execute(
                "SELECT value FROM fleet_facts WHERE name = %s", (TOTAL_BY,)
            ):
                self._totals.total_by = tuple(json.loads(value))
        _note(connection, facts)

    @contextlib.contextmanager
    def _change(self) -> Generator[Connection]:
        """Make what is done inside one transaction, with what it adds to the totals."""
        with self._lock:
            try:
                with self._transaction() as connection:
                    yield connection
                    self._totals.write(connection)
            except BaseException:
                self._totals.clear()
                raise
            self._totals.written()

    def connect(self) -> None:
        """
        Make the connection and the tables, where they are not there.

        Raises:
            psycopg.Error: they cannot be made.
            UnknownVersionError: a later version wrote the tables.
        """
        with self._transaction():
            pass

    # Events come

    def store(self, arrivals: Sequence[Arrival], positions: Sequence[Position] = ()) -> int:
        """
        Store events, and note how far a group has read, in one transaction. What is known already changes nothing.

        What cannot be read as an event, or is of a day so old that nobody knows whether it was counted, is set aside
        whole in `fleet_set_aside`, counted as `damaged` or `late`, and shown by `cmdrdata status`.

        Returns:
            How many events were new.

        Raises:
            psycopg.Error: nothing was changed, or all was, where the connection was lost at the end: to do it again is
                always right.
            UnknownVersionError: a later version wrote the tables.
        """
        now = self._clock()
        with self._change() as connection:
            new = self._new(connection, arrivals, now)
            if new:
                self._make_days(connection, {each.read.event.header.day for each in new})
                self._insert(connection, new, now)
            # A member that slept while its partitions moved on knows an old position.
            if positions:
                connection.cursor().executemany(
                    'INSERT INTO fleet_positions AS known ("group", topic, partition, next) VALUES (%s, %s, %s, %s)'
                    ' ON CONFLICT ("group", topic, partition) DO UPDATE'
                    " SET next = greatest(known.next, excluded.next)",
                    sorted(positions),
                )
            return len(new)

    def _new(self, connection: Connection, arrivals: Sequence[Arrival], now: float) -> list[_New]:
        """Return the events that are new, whose keys are taken by this; set aside what cannot be counted."""
        earliest = _day_of(now - KEYS_FOR * _DAY)
        found: dict[bytes, _New] = {}
        aside: dict[bytes, tuple[Arrival, str]] = {}
        for arrival in arrivals:
            key, known = key_of(arrival.id), read(arrival, self._totals.total_by)
            if known is None:
                aside.setdefault(key, (arrival, "damaged"))
            elif known.event.header.day < earliest.isoformat():
                aside.setdefault(key, (arrival, "late"))
            else:
                found.setdefault(key, _New(arrival, key, known))
        self._set_aside(connection, aside, now)
        if not found:
            return []
        # Others that store the same wait here; in the order of keys, so that no two wait for each other.
        keys = sorted(found)
        taken = connection.execute(
            "INSERT INTO fleet_keys SELECT * FROM unnest(%b::bytea[], %s::date[])"
            " ON CONFLICT DO NOTHING RETURNING key",
            (keys, [found[key].read.event.header.day for key in keys]),
        ).fetchall()
        new = {key for (key,) in taken}
        self._totals.counts["recorded"] += len(new)
        self._totals.counts["repeated"] += len(arrivals) - len(aside) - len(new)
        return [each for key, each in found.items() if key in new]

    def _set_aside(
        self, connection: Connection, aside: dict[bytes, tuple[Arrival, str]], now: float
    ) -> None:
        for key, (arrival, reason) in sorted(aside.items()):
            self._totals.counts[reason] += connection.execute(
                "INSERT INTO fleet_set_aside SELECT %b, %s, %s, %s, %s, %s, %b"
                " WHERE NOT EXISTS (SELECT FROM fleet_keys WHERE key = %b) ON CONFLICT DO NOTHING",
                (
                    *(key, storable_text(arrival.id), now, storable_text(arrival.host)),
                    *(arrival.source, reason, arrival.body, key),
                ),
            ).rowcount

    def _insert(self, connection: Connection, new: Iterable[_New], now: float) -> None:
        # All places first: nothing can be asked while rows are copied.
        rows = [self._row(connection, each, now) for each in new]
        with connection.cursor().copy(_COPY) as copy:
            for row in rows:
                copy.write_row(row)

    def _row(self, connection: Connection, new: _New, now: float) -> tuple[object, ...]:
        """Return an event as its table has it, and count it."""
        arrival, key, (event, said) = new
        header, host = event.header, storable_text(arrival.host)[:LONGEST]
        place = self._totals.place(connection, event, said, host)
        self._totals.add(place, header.units)
        state, reason = (HELD, UNATTRIBUTED) if header.customer is None else (self._arrival, None)
        return (
            *(key, header.day, storable_text(event.id), state, now, now, reason),
            *(host, arrival.source, header.customer, header.model, header.endpoint, header.status),
            *(as_json(header.units), said.at, place.group),
            *(said.trace_id, said.response_id, said.request_id, event.body),
        )

    def _make_days(self, connection: Connection, days: set[str]) -> None:
        """Make the tables of days that have none. Days far ahead are of clocks that are wrong, and share one."""
        last = _day_of(self._clock() + AHEAD * _DAY)
        for day in map(dt.date.fromisoformat, sorted(days - self._days)):
            if day > last:
                continue
            name = f"fleet_events_{day:%Y%m%d}"
            if connection.execute("SELECT to_regclass(%s)", (name,)).fetchone() == (None,):
                # Two that begin the same day do so one after the other.
                connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, DAYS))
                # Where some of its events are in the common table already, or someone reads all the time, it stays
                # with that.
                with _briefly(connection, psycopg.errors.CheckViolation):
                    connection.execute(
                        f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF fleet_events"
                        f" FOR VALUES FROM ('{day}') TO ('{day + dt.timedelta(days=1)}')".encode()
                    )
            self._days.add(day.isoformat())

    def positions(self, group: str, topic: str) -> dict[int, int]:
        """
        Return which record of each partition a group reads next.

        Raises:
            psycopg.Error: the database cannot be read.
        """
        with self._transaction() as connection:
            rows = connection.execute(
                'SELECT partition, next FROM fleet_positions WHERE "group" = %s AND topic = %s',
                (group, topic),
            )
            return dict(rows.fetchall())

    # Hosts

    def report(self, report: HostReport) -> None:
        """
        Note how a host says that it is, unless it has said something later.

        Raises:
            psycopg.Error: it cannot be noted.
        """
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO fleet_hosts AS known (host, version, at, recorded, pending, held, dead, unspooled, seen)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT (host) DO UPDATE SET version = excluded.version, at = excluded.at, seen = excluded.seen,"
                " recorded = excluded.recorded, pending = excluded.pending, held = excluded.held,"
                " dead = excluded.dead, unspooled = excluded.unspooled WHERE known.at <= excluded.at",
                (
                    *(
                        storable_text(report.host)[:LONGEST],
                        storable_text(report.version),
                        report.at,
                    ),
                    *(min(number, _LARGEST) for number in report[3:]),
                    self._clock(),
                ),
            )

    # Delivery

    def claim(self, limit: int) -> list[Handed]:
        """
        Move due events into flight, those due longest first, and return them. Others get other ones.

        Raises:
            psycopg.Error: none was moved, as far as is known; `recover` takes back what was.
        """
        now = self._clock()
        with self._transaction() as connection:
            rows = connection.execute(
                "WITH due AS (SELECT day, key FROM fleet_events WHERE state = %s AND state < 4 AND due <= %s"
                " ORDER BY due, seq LIMIT %s FOR UPDATE SKIP LOCKED)"
                " UPDATE fleet_events AS event SET state = %s, due = %s FROM due"
                " WHERE event.day = due.day AND event.key = due.key"
                " RETURNING event.seq, event.key, event.id, event.body, event.attempts",
                (PENDING, now, limit, IN_FLIGHT, now),
            ).fetchall()
        return [Handed(*row, remember=0) for row in sorted(rows)]

    def record_outcomes(self, outcomes: Sequence[tuple[Handed, Outcome | None]]) -> None:
        """
        Move events that were in flight by the backend's verdicts; None: it was not sent after all.

        Raises:
            psycopg.Error: none was moved; `recover` takes them back.
        """
        now = self._clock()
        with self._change() as connection:
            for event, outcome in sorted(outcomes, key=lambda each: each[0].key):
                found = self._move(connection, event, outcome, now)
                if outcome is not None and found:
                    self._totals.counts["ambiguous"] += outcome.ambiguous
                    if outcome.verdict in (Verdict.DELIVERED, Verdict.DUPLICATE):
                        self._totals.counts["delivered"] += 1

    def _move(
        self, connection: Connection, event: Handed, outcome: Outcome | None, now: float
    ) -> int:
        reason: str | None = None
        state, due, attempts = PENDING, now, 0
        if outcome is None:
            pass
        elif outcome.verdict in (Verdict.DELIVERED, Verdict.DUPLICATE):
            state = DELIVERED
        elif outcome.verdict is Verdict.REFUSED:
            state, reason = DEAD, outcome.explanation
        else:
            due += backoff(event.attempts) if outcome.verdict is Verdict.RETRY else 0.0
            reason, attempts = outcome.explanation, 1
        return connection.execute(
            "UPDATE fleet_events SET state = %s, due = %s, reason = %s, attempts = attempts + %s,"
            " body = CASE WHEN %s THEN NULL ELSE body END"
            " WHERE day = (SELECT day FROM fleet_keys WHERE key = %b) AND key = %b AND state IN (%s, %s)",
            (
                *(state, due, None if reason is None else storable_text(reason), attempts),
                *(state == DELIVERED, event.key, event.key, PENDING, IN_FLIGHT),
            ),
        ).rowcount

    def recover(self) -> int:
        """
        Take back what has been in flight for so long that whoever had it has died; return how many.

        Raises:
            psycopg.Error: none was.
        """
        now = self._clock()
        with self._change() as connection:
            found = connection.execute(
                "UPDATE fleet_events SET state = %s, due = %s, attempts = attempts + 1"
                " WHERE state = %s AND state < 4 AND due < %s",
                (PENDING, now, IN_FLIGHT, now - LEASE),
            ).rowcount
            # Each may have been accepted unseen.
            self._totals.counts["ambiguous"] += found
            return found

    # Decisions

    def apply(self, action: str, keys: Sequence[bytes], customer: str | None = None) -> int:
        """
        Do with events what a person asks, where it makes sense; return with how many it was done.

        Args:
            action: `assign` a customer to held events, `replay` or `drop` dead ones.
            keys: those of the events.
            customer: of `assign`.

        Raises:
            psycopg.Error: nothing was changed.
        """
        now, done = self._clock(), 0
        with self._change() as connection:
            for key in sorted(set(keys)):
                done += getattr(self, f"_{action}")(connection, key, now, customer)
            self._totals.counts[_COUNTED[action]] += done
        return done

    def _find(
        self, connection: Connection, key: bytes, state: int
    ) -> tuple[dt.date, Place, dict[str, Any], bytes] | None:
        """Return the day, the place, the units and the body of an event in a state, which nobody else changes now."""
        row = connection.execute(
            "SELECT day, at, host, group_number, units, body FROM fleet_events"
            " WHERE day = (SELECT day FROM fleet_keys WHERE key = %b) AND key = %b AND state = %s FOR UPDATE",
            (key, key, state),
        ).fetchone()
        if row is None:
            return None
        day, at, host, group, units, body = row
        return day, Place(hour_of(at), host, group), json.loads(units), body

    def _assign(self, connection: Connection, key: bytes, now: float, customer: str | None) -> bool:
        found = self._find(connection, key, HELD)
        if found is None or not customer:
            return False
        day, place, units, body = found
        known = read(Arrival(key.hex(), body, place.host, ""))
        at = known and known.event.header.customer_at
        if at is None:
            return False
        named = json.dumps(customer, ensure_ascii=False).encode("utf-8", "replace")
        after = self._totals.move(connection, place, units, customer=storable_text(customer))
        connection.execute(
            "UPDATE fleet_events SET state = %s, due = %s, recorded = %s, attempts = 0, reason = NULL, customer = %s,"
            " group_number = %s, body = %b WHERE day = %s AND key = %b",
            (
                *(self._arrival, now, now, storable_text(customer), after.group),
                *(body[:at] + named + body[at + len(b"null") :], day, key),
            ),
        )
        return True

    def _replay(self, connection: Connection, key: bytes, now: float, customer: str | None) -> bool:
        del customer
        return bool(
            connection.execute(
                "UPDATE fleet_events SET state = %s, due = %s, recorded = %s, attempts = 0, reason = NULL"
                " WHERE day = (SELECT day FROM fleet_keys WHERE key = %b) AND key = %b AND state = %s",
                (PENDING, now, now, key, key, DEAD),
            ).rowcount
        )

    def _drop(self, connection: Connection, key: bytes, now: float, customer: str | None) -> bool:
        del customer
        found = self._find(connection, key, DEAD)
        if found is None:
            return False
        day, place, units, _ = found
        after = self._totals.move(connection, place, units, fate="dropped")
        connection.execute(
            "UPDATE fleet_events SET state = %s, due = %s, reason = NULL, group_number = %s, body = NULL"
            " WHERE day = %s AND key = %b",
            (DROPPED, now, after.group, day, key),
        )
        return True

    # Time

    def tidy(self) -> None:
        """
        Give up what could not be sent for 30 days, forget settled events and ids as old as they are kept.

        Any process may, now and then: while one does it the others go on.

        Raises:
            psycopg.Error: it is not done, or in part; the next time does the rest.
        """
        now = self._clock()
        with self._change() as connection:
            [(alone,)] = connection.execute(
                "SELECT pg_try_advisory_xact_lock(%s, %s)", (LOCKS, TIDY)
            )
            if not alone:
                return
            self._totals.counts["expired"] += connection.execute(
                "UPDATE fleet_events SET state = %s, due = %s, reason = %s"
                " WHERE state = %s AND state < 4 AND recorded < %s",
                (DEAD, now, EXPIRED, PENDING, now - KEPT_DAYS * _DAY),
            ).rowcount
            self._forget(connection, _day_of(now - self._keep * _DAY))
            connection.execute(
                "DELETE FROM fleet_keys WHERE day < %s", (_day_of(now - KEYS_FOR * _DAY),)
            )

    def _forget(self, connection: Connection, first: dt.date) -> None:
        """Forget settled events of days before one: with the table of the day where nothing else is in it."""
        forgotten = connection.execute(
            "DELETE FROM fleet_events WHERE day < %s AND state <> ALL (%s)", (first, list(OPEN))
        ).rowcount
        if forgotten:
            self._totals.counts["forgotten"] += forgotten
            _note(connection, {"kept_since": first.isoformat()})
        tables = connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'fleet_events'::regclass"
        ).fetchall()
        for (name,) in tables:
            digits = name.rpartition("_")[2]
            if digits.isdecimal() and digits < f"{first:%Y%m%d}":
                self._drop_empty(connection, name)

    def _drop_empty(self, connection: Connection, name: str) -> None:
        """Drop the table of a day that has no events."""
        rest = f"SELECT FROM {name} LIMIT 1".encode()
        if connection.execute(rest).fetchone() is not None:
            return
        # The next time, where someone reads all the time.
        with _briefly(connection):
            # Another gateway may have put an event there that nobody sees before its commit, which this waits for.
            connection.execute(b"LOCK TABLE ONLY fleet_events IN ACCESS EXCLUSIVE MODE")
            if connection.execute(rest).fetchone() is None:
                connection.execute(f"DROP TABLE {name}".encode())
                self._days.clear()


_COUNTED = {"assign": "assigned", "replay": "replayed", "drop": "dropped"}


def _day_of(seconds: float) -> dt.date:
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).date()


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


def _note(connection: Connection, facts: Mapping[str, object]) -> None:
    """Write down what readers, and other gateways, should know."""
    connection.cursor().executemany(
        "INSERT INTO fleet_facts VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [(name, json.dumps(value)) for name, value in sorted(facts.items())],
    )
