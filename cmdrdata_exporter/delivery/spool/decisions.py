"""What is to be done in a ledger by a command: what a person decides about its events, and what is told of jobs."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence

from cmdrdata_exporter.delivery import FOR_EVER, Event
from cmdrdata_exporter.delivery.groups import DROPPED
from cmdrdata_exporter.delivery.spool import jobs
from cmdrdata_exporter.delivery.spool.index import Index
from cmdrdata_exporter.delivery.spool.records import Command, assigned, intact
from cmdrdata_exporter.delivery.spool.retention import Retention
from cmdrdata_exporter.delivery.spool.schema import AMBIGUOUS, DEAD, HELD, PENDING, UNATTRIBUTED
from cmdrdata_exporter.delivery.spool.totals import Totals


class Decisions:
    """
    Applied in a transaction, each to the events for which it makes sense.

    Args:
        db: the ledger's database.
        totals: where it counts.
        retention: knows events that are dropped.
        arrival: the state of an event that gets a customer.
        index: what is told of events that get a customer, and of those that are dropped.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        totals: Totals,
        retention: Retention,
        arrival: int,
        index: Index,
    ) -> None:
        self._db = db
        self._totals = totals
        self._retention = retention
        self._arrival = arrival
        self._index = index

    def apply(self, command: Command, now: float) -> None:
        """Do with each event that a command names what it asks."""
        if command.action in ("job", "job_ended"):
            jobs.apply(self._db, command)
            return
        counts = self._totals.counts
        if command.action == "unspooled":
            counts["unspooled"] += command.number
        for key in command.keys:
            row = self._db.execute(
                "SELECT seq, state, reason, remember, crc, record, time, group_number FROM events"
                " WHERE key = ?",
                (key,),
            ).fetchone()
            if row is None:
                continue
            seq, state, reason, remember, crc, record, *place = row
            event = intact(key, crc, record)
            if command.action == "drop" and state == DEAD:
                self._db.execute("DELETE FROM events WHERE seq = ?", (seq,))
                self._retention.remember(key, remember, now)
                counts["dropped"] += 1
                self._move(event, place, fate=DROPPED)
                self._index.drop(key)
            elif event is None:
                continue
            elif command.action == "replay" and (
                state == DEAD or (state == HELD and reason == AMBIGUOUS)
            ):
                # Whatever sends it once more, it is the same event for ever.
                self._update(seq, PENDING, now, FOR_EVER, crc, record, *place)
                counts["replayed"] += 1
            elif (
                # What was sent once stays as it was sent.
                command.action == "assign"
                and (state, reason) == (HELD, UNATTRIBUTED)
                and command.customer
                and (new := assigned(record, command.customer)) is not None
            ):
                moved = self._move(event, place, customer=command.customer)
                self._update(seq, self._arrival, now, remember, zlib.crc32(new), new, *moved)
                counts["assigned"] += 1
                self._index.assign(key, command.customer)

    def _move(
        self, event: Event | None, place: Sequence[object], **changes: str
    ) -> Sequence[object]:
        """
        Have the usage of an event counted in another group, and return where.

        Of one whose record is damaged nobody knows the usage: it moves as an event, and what it used stays where it is.
        """
        counted = self._totals.counted(event, *place)
        if counted is None:
            return place
        return self._totals.move(counted, event.header.units if event else {}, **changes)

    def _update(self, seq: int, state: int, now: float, *columns: object) -> None:
        """Have an event go on as one that was recorded now."""
        self._db.execute(
            "UPDATE events SET state = ?, due = ?, recorded = ?, attempts = 0, reason = NULL, remember = ?,"
            " crc = ?, record = ?, time = ?, group_number = ? WHERE seq = ?",
            (state, now, now, *columns, seq),
        )
