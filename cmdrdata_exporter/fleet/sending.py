"""
Events of a fleet's ledger that are sent on: who has one in flight, and what comes of it.

Each event that is claimed has a lease, a number. An outcome that comes after its lease was taken back moves nothing,
since the event may be in flight again: but that the backend has it is true whoever sent it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cmdrdata_exporter.delivery import Handed, Outcome, Verdict
from cmdrdata_exporter.delivery.backoff import backoff
from cmdrdata_exporter.delivery.spool.schema import DEAD, IN_FLIGHT, PENDING
from cmdrdata_exporter.fleet.changes import Change
from cmdrdata_exporter.fleet.reading import storable_text
from cmdrdata_exporter.fleet.states import DELIVERED

LEASE = 120.0
"""Seconds after which an event that is in flight is taken back: whoever had it has died. By the database's clock."""
_ACCEPTED = (Verdict.DELIVERED, Verdict.DUPLICATE)


def claim(change: Change, limit: int) -> list[Handed]:
    """Move due events into flight, those due longest first, and return them, with the lease for `seq`."""
    rows = change.connection.execute(
        "WITH due AS (SELECT day, key FROM fleet_events WHERE state = %s AND state < 4 AND due <= %s"
        " ORDER BY due, seq LIMIT %s FOR UPDATE SKIP LOCKED)"
        " UPDATE fleet_events AS event SET state = %s, due = extract(epoch FROM now()),"
        " lease = nextval('fleet_leases') FROM due"
        " WHERE event.day = due.day AND event.key = due.key"
        " RETURNING event.seq, event.lease, event.key, event.id, event.body, event.attempts",
        (PENDING, change.now, limit, IN_FLIGHT),
    ).fetchall()
    return [Handed(*row[1:], remember=0) for row in sorted(rows)]


def record_outcomes(change: Change, outcomes: Sequence[tuple[Handed, Outcome | None]]) -> int:
    """Move events by the backend's verdicts; return how many outcomes came too late to move one."""
    late = 0
    for event, outcome in sorted(outcomes, key=lambda each: each[0].key):
        if not _move(change, event, outcome):
            late += 1
        elif outcome is not None:
            change.totals.counts["ambiguous"] += outcome.ambiguous
            change.totals.counts["delivered"] += outcome.verdict in _ACCEPTED
    return late


def _move(change: Change, event: Handed, outcome: Outcome | None) -> int:
    reason: str | None = None
    state, due, attempts = PENDING, change.now, 0
    if outcome is None:
        pass
    elif outcome.verdict in _ACCEPTED:
        state = DELIVERED
    elif outcome.verdict is Verdict.REFUSED:
        state, reason = DEAD, outcome.explanation
    else:
        due += backoff(event.attempts) if outcome.verdict is Verdict.RETRY else 0.0
        reason, attempts = outcome.explanation, 1
    return change.connection.execute(
        "UPDATE fleet_events SET state = %s, due = %s, reason = %s, attempts = attempts + %s,"
        " body = CASE WHEN %s THEN NULL ELSE body END"
        " WHERE day = (SELECT day FROM fleet_keys WHERE key = %b) AND key = %b AND state < 4"
        " AND ((state = %s AND lease = %s) OR (%s AND state IN (%s, %s)))",
        (
            *(state, due, None if reason is None else storable_text(reason), attempts),
            *(state == DELIVERED, event.key, event.key),
            *(IN_FLIGHT, event.seq, state == DELIVERED, PENDING, IN_FLIGHT),
        ),
    ).rowcount


def recover(change: Change) -> int:
    """Take back what has been in flight for longer than `LEASE`; return how many."""
    found = change.connection.execute(
        "UPDATE fleet_events SET state = %s, due = %s, attempts = attempts + 1"
        " WHERE state = %s AND state < 4 AND due < extract(epoch FROM now()) - %s",
        (PENDING, change.now, IN_FLIGHT, LEASE),
    ).rowcount
    # Each may have been accepted unseen.
    change.totals.counts["ambiguous"] += found
    return found
