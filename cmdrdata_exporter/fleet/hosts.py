"""What hosts say of themselves, as a fleet's ledger notes it."""

from __future__ import annotations

from cmdrdata_exporter.delivery.spool.details import LONGEST
from cmdrdata_exporter.fleet.arrivals import HostReport
from cmdrdata_exporter.fleet.changes import Change
from cmdrdata_exporter.fleet.reading import storable_text

_LARGEST = (1 << 63) - 1


def note(change: Change, report: HostReport) -> None:
    """Note how a host says that it is, unless it has said something later."""
    change.connection.execute(
        "INSERT INTO fleet_hosts AS known (host, version, at, recorded, pending, held, dead, unspooled, seen)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (host) DO UPDATE SET version = excluded.version, at = excluded.at, seen = excluded.seen,"
        " recorded = excluded.recorded, pending = excluded.pending, held = excluded.held,"
        " dead = excluded.dead, unspooled = excluded.unspooled WHERE known.at <= excluded.at",
        (
            *(storable_text(report.host)[:LONGEST], storable_text(report.version), report.at),
            *(min(number, _LARGEST) for number in report[3:]),
            change.now,
        ),
    )
