"""
For how long a fleet's ledger keeps events, the spans that some are made of, ids, and the hours of usage.

All of it goes a part at a time, so that none of these transactions is long, and those who store and send go on.
"""

from __future__ import annotations

import datetime as dt

from cmdrdata_exporter.delivery import KEPT_DAYS
from cmdrdata_exporter.delivery.spool.schema import DEAD, EXPIRED, PENDING
from cmdrdata_exporter.delivery.spool.totals import HOURS_FOR
from cmdrdata_exporter.fleet import days, totals
from cmdrdata_exporter.fleet.changes import Change

KEYS_FOR = 400
"""Days for which the id of an event is known, at least; an event of an earlier day is set aside."""
SPANS_FOR = 2
"""
Days for which a span is known for longer than events are kept: the other spans of a call may be of another day, and
clocks differ.
"""
BATCH = 5000
"""How many rows are changed at a time."""
KEYS = 100_000
"""How many ids are forgotten at a time: nobody else needs them."""


def tidy(change: Change, keep: int) -> bool:
    """
    Do the next part of what is to be done by now; say whether there is more.

    Args:
        change: does it.
        keep: days after which what is settled is forgotten, but for its usage.
    """
    settled = "decided IS NOT NULL AND NOT charged AND latest"
    parts = [
        _expire(change),
        _forget_events(change, keep),
        _forget(change, "gateway_spans", settled, keep + SPANS_FOR, BATCH),
        _forget(change, "fleet_keys", "day", KEYS_FOR, KEYS),
        _fold(change),
    ]
    return any(parts)


def _expire(change: Change) -> bool:
    expired = change.connection.execute(
        "UPDATE fleet_events SET state = %s, due = %s, reason = %s WHERE (day, key) IN ("
        "SELECT day, key FROM fleet_events WHERE state = %s AND state < 4 AND recorded < %s"
        " LIMIT %s FOR UPDATE SKIP LOCKED)",
        (DEAD, change.now, EXPIRED, PENDING, change.now - KEPT_DAYS * 86400, BATCH),
    ).rowcount
    change.totals.counts["expired"] += expired
    return expired == BATCH


def _forget_events(change: Change, keep: int) -> bool:
    """Forget settled events of the oldest day that has any: with its table where nothing else is in it."""
    first = change.day(keep)
    for table, attached in days.tables(change.connection, first):
        if not attached:
            return _forgotten(change, days.drop(change.connection, table), first)
        if table != days.OTHER and days.has_few_open(change.connection, table, BATCH):
            if days.detach(change.connection, table, BATCH):
                # What the table has is counted when nobody waits for it.
                return True
            continue
        forgotten = change.connection.execute(
            f"DELETE FROM {table} WHERE ctid = ANY (ARRAY("  # noqa: S608 - a name of `tables`
            f"SELECT ctid FROM {table} WHERE day < %s AND state >= 4 LIMIT %s))".encode(),
            (first, BATCH),
        ).rowcount
        if forgotten:
            return _forgotten(change, forgotten, first)
    return False


def _forgotten(change: Change, number: int, first: dt.date) -> bool:
    change.totals.counts["forgotten"] += number
    change.note({"kept_since": first.isoformat()})
    return True


def _forget(change: Change, table: str, condition: str, kept: int, most: int) -> bool:
    """Forget the rows of a table that are older than so many days."""
    return (
        change.connection.execute(
            f"DELETE FROM {table} WHERE ctid = ANY (ARRAY("  # noqa: S608 - texts of this module
            f"SELECT ctid FROM {table} WHERE {condition} < %s LIMIT %s))".encode(),
            (change.day(kept), most),
        ).rowcount
        == most
    )


def _fold(change: Change) -> bool:
    """Make hours of the oldest day that has any a part of the day."""
    return bool(totals.fold(change.connection, change.day(HOURS_FOR).isoformat(), BATCH))
