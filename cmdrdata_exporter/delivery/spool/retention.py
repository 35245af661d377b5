"""For how long a ledger keeps what: events to be sent, bodies of local events, and the ids of events that are gone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence

from cmdrdata_exporter.delivery import FOR_EVER, KEPT_DAYS
from cmdrdata_exporter.delivery.spool import jobs
from cmdrdata_exporter.delivery.spool.facts import BREAKS, PRESENT, write_facts
from cmdrdata_exporter.delivery.spool.records import is_duration
from cmdrdata_exporter.delivery.spool.schema import DEAD, EXPIRED, LOCAL, PENDING
from cmdrdata_exporter.delivery.spool.totals import Totals

KEEP = KEPT_DAYS * 86400.0
"""Seconds: undelivered events expire after these, local ones lose their bodies."""
AWAY = 3600.0
"""Seconds without a call of `expire` after which no process is taken to have been there to deliver anything."""
MOST_BREAKS = 1000
"""How many such times are remembered."""


class Retention:
    """
    What time does to the events of a ledger. All of it in a transaction.

    Args:
        db: the ledger's database.
        totals: where it counts.
    """

    def __init__(self, db: sqlite3.Connection, totals: Totals) -> None:
        self._db = db
        self._counts = totals.counts

    def make_due(self, now: float, later_than: float) -> None:
        """Make due what is due too late: the clock has been set back, a row is damaged, or nobody was there."""
        self._db.execute(
            "UPDATE events SET due = ? WHERE state = ? AND due > ?", (now, PENDING, later_than)
        )

    def expire(self, now: float) -> int:
        """
        Give up what could not be delivered for 30 days, and forget the bodies of local events as old.

        The time in which this was not called for long does not count for what is to be sent: nobody tried.

        Returns:
            how many events were given up.
        """
        expired = self._db.execute(
            "UPDATE events SET state = ?, due = ?, reason = ?"
            " WHERE seq IN (SELECT seq FROM events INDEXED BY by_state WHERE state = ? AND recorded < ?)",
            (DEAD, now, EXPIRED, PENDING, _ago(now, KEEP, self._breaks(now))),
        ).rowcount
        self._counts["expired"] += expired
        self._forget_bodies("state = ? AND due < ?", (LOCAL, now - KEEP))
        jobs.give_up(self._db, self._counts, now)
        return expired

    def _breaks(self, now: float) -> list[list[float]]:
        """Return from when to when no process was there, the last break first, and note that one is now."""
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
            # Damaged: in doubt no process was there.
            breaks = [[0.0, now]]
        known_breaks = breaks[:MOST_BREAKS]
        write_facts(self._db, {PRESENT: now, BREAKS: known_breaks})
        return known_breaks

    def shrink_local(self, number: int) -> None:
        """Forget the bodies of the oldest local events: their totals stay, and room is needed."""
        self._forget_bodies("state = ?", (LOCAL,), number)

    def _forget_bodies(self, condition: str, values: tuple[object, ...], limit: int = -1) -> None:
        # The condition is one of the two above.
        rows = self._db.execute(
            f"SELECT seq, key, due, remember FROM events WHERE {condition} ORDER BY due LIMIT ?",  # noqa: S608
            (*values, limit),
        ).fetchall()
        for seq, key, since, remember in rows:
            self._db.execute("DELETE FROM events WHERE seq = ?", (seq,))
            self.remember(key, remember, since)
        self._counts["local"] += len(rows)

    def remember(self, key: bytes, seconds: object, since: float) -> None:
        """Keep a tombstone of an event that has no row any more, for as long as its id may come again."""
        if seconds == 0:
            return
        until = FOR_EVER
        # A damaged row may hold any type.
        if is_duration(seconds) and seconds != FOR_EVER and isinstance(since, float):  # pyright: ignore[reportUnnecessaryIsInstance]
            until = int(since) + seconds
        self._db.execute("INSERT OR REPLACE INTO tombstones VALUES (?, ?)", (key, until))

    def prune_tombstones(self, bucket: int, now: float) -> None:
        """Remove tombstones whose time is over, among one 256th of all."""
        upper = bytes([bucket + 1]) if bucket < 255 else b"\xff" * 17
        self._db.execute(
            "DELETE FROM tombstones WHERE key >= ? AND key < ? AND until BETWEEN 0 AND ?",
            (bytes([bucket]), upper, now),
        )


def _ago(now: float, seconds: float, breaks: Iterable[Sequence[float]]) -> float:
    """Return the time since when so many seconds have passed, those of breaks left out, of which the last is first."""
    until = now
    for begin, end in breaks:
        if until - end >= seconds:
            break
        seconds -= max(0.0, until - end)
        until = begin
    return until - seconds
