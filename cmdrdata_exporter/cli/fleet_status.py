"""`cmdrdata status` of a fleet's ledger: where every event is, how each host is, and what needs a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from rich.console import Console
from rich.table import Table

from cmdrdata_exporter import clocks
from cmdrdata_exporter.cli.destination import Place
from cmdrdata_exporter.cli.states import COUNTED, UNSENT
from cmdrdata_exporter.cli.status import (
    LATE,
    known_of,
    needed,
    needs_of_events,
    show_counted,
    show_events,
    show_needs,
)
from cmdrdata_exporter.cli.terminal import (
    Json,
    cell,
    duration,
    heading,
    moment,
    number,
    plural,
    table,
)
from cmdrdata_exporter.delivery.usage import UnreadableError
from cmdrdata_exporter.fleet.positions import LOST, RENEWED
from cmdrdata_exporter.fleet.view import FleetReader, HostState

QUIET = 180.0
"""Seconds after which a host has gone quiet: it says how it is every minute."""
NAMED = 3
"""How many quiet hosts are named on a line."""
WIDE, USUAL = 100, 76
"""Columns of a terminal that has room for all of a host, and for all but its version and what it recorded."""
SET_ASIDE = {
    "damaged": "are no events as they are sent",
    "late": "are of a day so old that nobody knows whether they were counted",
}
"""Why what came is set aside, as it is counted."""


def status_of(place: Place) -> Json:
    """Return what `cmdrdata status --ledger URL --json` prints: as for destinations, of which this is one."""
    try:
        with place.ledger() as ledger:
            known = _known(cast("FleetReader", ledger))
        needs = _needs(known)
    except UnreadableError as error:
        known, needs = {}, {"unreadable": str(error)}
    found = {"name": place.name, "endpoint": None, "account": None, "directory": None, **known}
    found |= {"attention": list(needs.values()), "needs": needs}
    return {"spool_dir": None, "unusable": None, "destinations": [found]}


def _known(ledger: FleetReader) -> Json:
    counts, oldest, now = ledger.counts(), ledger.oldest_pending(), clocks.wall()
    return {
        **known_of(ledger, (name for name in COUNTED if name not in SET_ASIDE)),
        "waited": 0.0 if oldest is None else now - oldest,
        "set_aside": {name: counts.get(name, 0) for name in SET_ASIDE},
        "topics": {name: counts.get(name, 0) for name in (LOST, RENEWED)},
        "hosts": [_host(host, now) for host in ledger.hosts()],
    }


def _host(host: HostState, now: float) -> Json:
    return {
        **host._asdict(),
        "at": moment(host.at),
        "seen": moment(host.seen),
        "quiet": now - host.seen > QUIET,
        "silence": max(0.0, now - host.seen),
    }


def _needs(known: Json) -> dict[str, str]:
    """Return what needs a person, by its kind, and what to do about it."""
    events, hosts = known["events"], known["hosts"]
    quiet = [host["host"] for host in hosts if host["quiet"]]
    unspooled = sum(host["unspooled"] for host in hosts)
    topics = known["topics"]
    aside = {name: number for name, number in known["set_aside"].items() if number}
    needs = {
        **needs_of_events(
            known, "counted. To see which: cmdrdata usage --by endpoint,model,status"
        ),
        "quiet": (
            quiet,
            f"{plural(len(quiet), 'host')} gone quiet ({_some(quiet)}): "
            "look whether the application runs there, and reaches its topic",
        ),
        "late": (
            any(events[state] for state in UNSENT) and known["waited"] >= LATE,
            f"Events wait for {duration(known['waited'])} now: look at the log of the gateways. All are kept",
        ),
        "set_aside": (
            aside,
            f"{plural(sum(aside.values()), 'record')} set aside, of which no usage is counted "
            f"({'; '.join(f'{number:,} {SET_ASIDE[name]}' for name, number in aside.items())}): "
            "see the table fleet_set_aside",
        ),
        LOST: (
            topics[LOST],
            f"{plural(topics[LOST], 'record')} at most gone from topics before a gateway read them, which is usage "
            "that nobody knows: the log of the gateways has their places. Keep topics for longer",
        ),
        RENEWED: (
            topics[RENEWED],
            f"{plural(topics[RENEWED], 'partition')} of topics begun anew, of which what was not read before is lost: "
            "the log of the gateways has their names",
        ),
        "unspooled": (
            unspooled,
            f"{plural(unspooled, 'event')} could not be written to the disk of a host: "
            'look for "cmdrdata": "unspooled" in the log of its application',
        ),
    }
    return needed(needs)


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def show_status(console: Console, found: Json) -> None:
    """Show a reader where every event is, and how each host is."""
    [fleet] = found["destinations"]
    heading(console, fleet["name"])
    console.print("The ledger of a fleet.")
    if "events" in fleet:
        console.print()
        show_events(console, fleet)
        console.print()
        show_counted(console, fleet["counted"])
    show_hosts(console, found)


def show_hosts(console: Console, found: Json) -> None:
    """Show how each host is, on a line of its own."""
    [fleet] = found["destinations"]
    hosts = fleet.get("hosts", [])
    heading(console, "hosts")
    if hosts:
        console.print(_table(hosts, console.width))
    else:
        console.print("No host has said how it is yet.")
    console.print()
    show_needs(console, fleet["attention"])


def _table(hosts: Sequence[Json], wide: int) -> Table:
    columns = {
        "Host": ("host", True),
        "Version": ("version", wide >= WIDE),
        "Last seen": ("seen", True),
        "Recorded": ("recorded", wide >= WIDE),
        "Pending": ("pending", True),
        "Held": ("held", wide >= USUAL),
        "Dead": ("dead", wide >= USUAL),
        "Unspooled": ("unspooled", wide >= USUAL),
    }
    shown = table()
    names = {title: name for title, (name, has_room) in columns.items() if has_room}
    for title, name in names.items():
        texts = name in ("host", "version", "seen")
        shown.add_column(title, justify="left" if texts else "right", overflow="fold")
    for host in hosts:
        said = f"{duration(host['silence'])} ago{', quiet' * host['quiet']}"
        values: dict[str, str | int] = {**host, "seen": said}
        cells = [values[name] for name in names.values()]
        shown.add_row(
            *(cell(number(each) if isinstance(each, int) else each) for each in cells),
            style="yellow" if host["quiet"] else "",
        )
    return shown
