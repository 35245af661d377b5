"""What is to be done in a ledger by a command: what a person decides about its events, and what is told of jobs."""

from __future__ import annotations

import sqlite3
import zlib

from cmdrdata_exporter.delivery import FOR_EVER, Event
from cmdrdata_exporter.delivery.spool import jobs
from cmdrdata_exporter.delivery.spool.index import Index
from cmdrdata_exporter.delivery.spool.records import Command, assigned, decode, intact
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
                "SELECT seq, state, reason, remember, crc, record FROM events WHERE key = ?", (key,)
            ).fetchone()
            if row is None:
                continue
            seq, state, reason, remember, crc, record = row
            event = intact(key, crc, record)
            if command.action == "drop" and state == DEAD:
                self._db.execute("DELETE FROM events WHERE seq = ?", (seq,))
                self._retention.remember(key, remember, now)
                counts["dropped"] += 1
                self._index.drop(key)
            elif event is None:
                continue
            elif command.action == "replay" and (
                state == DEAD or (state == HELD and reason == AMBIGUOUS)
            ):
                # Whatever sends it once more, it is the same event for ever.
                self._update(seq, PENDING, now, remember=FOR_EVER, crc=crc, record=record)
                counts["replayed"] += 1
            elif (
                # What was sent once stays as it was sent.
                command.action == "assign"
                and (state, reason) == (HELD, UNATTRIBUTED)
                and command.customer
                and (new := assigned(record, command.customer)) is not None
            ):
                self._update(
                    seq, self._arrival, now, remember=remember, crc=zlib.crc32(new), record=new
                )
                counts["assigned"] += 1
                self._index.assign(key, command.customer)
                self._totals.add(event.header, -1)
                if isinstance(read := decode(new), Event):
                    self._totals.add(read.header)

    def _update(
        self, seq: int, state: int, now: float, *, remember: int, crc: int, record: bytes
    ) -> None:
        """Have an event go on as one that was recorded now."""
        self._db.execute(
            "UPDATE events SET state = ?, due = ?, recorded = ?, attempts = 0, reason = NULL, remember = ?,"
            " crc = ?, record = ? WHERE seq = ?",
            (state, now, now, remember, crc, record, seq),
        )
