"""What a person decides of events in a fleet's ledger: who pays for one that is held, what becomes of a dead one."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from typing import Any

from cmdrdata_exporter.delivery.spool.schema import DEAD, HELD, PENDING
from cmdrdata_exporter.fleet.arrivals import Arrival
from cmdrdata_exporter.fleet.changes import Change
from cmdrdata_exporter.fleet.reading import read, storable_text
from cmdrdata_exporter.fleet.states import DROPPED
from cmdrdata_exporter.fleet.totals import Place, hour_of


def assign(change: Change, keys: Iterable[bytes], customer: str, state: int) -> int:
    """Have a customer pay for held events, which come into a state by it; return how many there were."""
    return _count(
        change, "assigned", (_assign(change, key, customer, state) for key in _ordered(keys))
    )


def replay(change: Change, keys: Iterable[bytes]) -> int:
    """Have dead events sent again; return how many there were."""
    return _count(change, "replayed", (_replay(change, key) for key in _ordered(keys)))


def drop(change: Change, keys: Iterable[bytes]) -> int:
    """Give dead events up; return how many there were."""
    return _count(change, "dropped", (_drop(change, key) for key in _ordered(keys)))


def _ordered(keys: Iterable[bytes]) -> list[bytes]:
    return sorted(set(keys))


def _count(change: Change, name: str, done: Iterable[bool]) -> int:
    number = sum(done)
    change.totals.counts[name] += number
    return number


def _find(
    change: Change, key: bytes, state: int
) -> tuple[dt.date, Place, dict[str, Any], bytes] | None:
    """Return the day, the place, the units and the body of an event in a state, which nobody else changes now."""
    row = change.connection.execute(
        "SELECT day, at, host, group_number, units, body FROM fleet_events"
        " WHERE day = (SELECT day FROM fleet_keys WHERE key = %b) AND key = %b AND state = %s FOR UPDATE",
        (key, key, state),
    ).fetchone()
    if row is None:
        return None
    day, at, host, group, units, body = row
    return day, Place(hour_of(at), host, group), json.loads(units), body


def _assign(change: Change, key: bytes, customer: str, state: int) -> bool:
    found = _find(change, key, HELD)
    if found is None or not customer:
        return False
    day, place, units, body = found
    known = read(Arrival(key.hex(), body, place.host, ""))
    at = known and known.event.header.customer_at
    if at is None:
        return False
    named = json.dumps(customer, ensure_ascii=False).encode("utf-8", "replace")
    after = change.totals.move(change.connection, place, units, customer=storable_text(customer))
    change.connection.execute(
        "UPDATE fleet_events SET state = %s, due = %s, recorded = %s, attempts = 0, reason = NULL, customer = %s,"
        " group_number = %s, body = %b WHERE day = %s AND key = %b",
        (
            *(state, change.now, change.now, storable_text(customer), after.group),
            *(body[:at] + named + body[at + len(b"null") :], day, key),
        ),
    )
    return True


def _replay(change: Change, key: bytes) -> bool:
    return bool(
        change.connection.execute(
            "UPDATE fleet_events SET state = %s, due = %s, recorded = %s, attempts = 0, reason = NULL"
            " WHERE day = (SELECT day FROM fleet_keys WHERE key = %b) AND key = %b AND state = %s",
            (PENDING, change.now, change.now, key, key, DEAD),
        ).rowcount
    )


def _drop(change: Change, key: bytes) -> bool:
    found = _find(change, key, DEAD)
    if found is None:
        return False
    day, place, units, _ = found
    after = change.totals.move(change.connection, place, units, fate="dropped")
    change.connection.execute(
        "UPDATE fleet_events SET state = %s, due = %s, reason = NULL, group_number = %s, body = NULL"
        " WHERE day = %s AND key = %b",
        (DROPPED, change.now, after.group, day, key),
    )
    return True
