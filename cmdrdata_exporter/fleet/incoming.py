"""Events that come to a fleet's ledger: each is counted once, or set aside."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cmdrdata_exporter.delivery.spool.details import LONGEST
from cmdrdata_exporter.delivery.spool.records import key_of
from cmdrdata_exporter.delivery.spool.schema import HELD, UNATTRIBUTED
from cmdrdata_exporter.fleet.arrivals import Arrival
from cmdrdata_exporter.fleet.changes import Change
from cmdrdata_exporter.fleet.days import Days
from cmdrdata_exporter.fleet.reading import Read, read, storable_text
from cmdrdata_exporter.fleet.totals import as_json

_COLUMNS = (
    "key, day, id, state, due, recorded, reason, host, source, customer, model, endpoint, status, units, at,"
    " group_number, trace_id, response_id, request_id, body"
)
_COPY = f"COPY fleet_events ({_COLUMNS}) FROM STDIN".encode()


class _New(NamedTuple):
    """An event that has come, and is not stored yet."""

    arrival: Arrival
    key: bytes
    read: Read


def store(
    change: Change,
    arrivals: Sequence[Arrival],
    *,
    state: int,
    days: Days,
    earliest: Mapping[str, dt.date],
) -> int:
    """
    Store events; return how many were new.

    Args:
        change: stores them.
        arrivals: the events.
        state: into which they come where they have a customer.
        days: the tables.
        earliest: by source, the first day of whose events it is known whether they were counted.
    """
    new = _new(change, arrivals, earliest)
    if new:
        days.make(change, (each.read.event.header.day for each in new))
        # All places first: nothing can be asked while rows are copied.
        rows = [_row(change, each, state) for each in new]
        with change.connection.cursor().copy(_COPY) as copy:
            for row in rows:
                copy.write_row(row)
    return len(new)


def _new(
    change: Change, arrivals: Sequence[Arrival], earliest: Mapping[str, dt.date]
) -> list[_New]:
    """Return the events that are new, whose keys are taken by this; set aside what cannot be counted."""
    found: dict[bytes, _New] = {}
    aside: dict[bytes, tuple[Arrival, str]] = {}
    for arrival in arrivals:
        key, known = key_of(arrival.id), read(arrival, change.totals.total_by)
        if known is None:
            aside.setdefault(key, (arrival, "damaged"))
        elif known.event.header.day < earliest[arrival.source].isoformat():
            aside.setdefault(key, (arrival, "late"))
        else:
            found.setdefault(key, _New(arrival, key, known))
    _set_aside(change, aside)
    # Others that store the same wait here; in the order of keys, so that no two wait for each other.
    keys = sorted(found)
    taken = change.connection.execute(
        "INSERT INTO fleet_keys SELECT * FROM unnest(%b::bytea[], %s::date[])"
        " ON CONFLICT DO NOTHING RETURNING key",
        (keys, [found[key].read.event.header.day for key in keys]),
    ).fetchall()
    new = {key for (key,) in taken}
    change.totals.counts["recorded"] += len(new)
    change.totals.counts["repeated"] += len(arrivals) - len(aside) - len(new)
    return [each for key, each in found.items() if key in new]


def _set_aside(change: Change, aside: Mapping[bytes, tuple[Arrival, str]]) -> None:
    for key, (arrival, reason) in sorted(aside.items()):
        change.totals.counts[reason] += change.connection.execute(
            "INSERT INTO fleet_set_aside SELECT %b, %s, %s, %s, %s, %s, %b"
            " WHERE NOT EXISTS (SELECT FROM fleet_keys WHERE key = %b) ON CONFLICT DO NOTHING",
            (
                *(key, storable_text(arrival.id), change.now, storable_text(arrival.host)),
                *(arrival.source, reason, arrival.body, key),
            ),
        ).rowcount


def _row(change: Change, new: _New, state: int) -> tuple[object, ...]:
    """Return an event as its table has it, and count it."""
    arrival, key, (event, said) = new
    header, host, now = event.header, storable_text(arrival.host)[:LONGEST], change.now
    place = change.totals.place(change.connection, event, said, host)
    change.totals.add(place, header.units)
    reason = None
    if header.customer is None:
        state, reason = HELD, UNATTRIBUTED
    return (
        *(key, header.day, storable_text(event.id), state, now, now, reason),
        *(host, arrival.source, header.customer, header.model, header.endpoint, header.status),
        *(as_json(header.units), said.at, place.group),
        *(said.trace_id, said.response_id, said.request_id, event.body),
    )
