"""`cmdrdata status`: where every event is, of every destination, and what needs a person."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cmdrdata_exporter.cli.destination import (
    ELSEWHERE,
    Destination,
    all_of,
    json_option,
    spool_option,
    spool_path,
)
from cmdrdata_exporter.cli.terminal import (
    ATTENTION,
    Json,
    Terminal,
    age,
    cell,
    day,
    heading,
    moment,
    plural,
    print_json,
    size,
    span,
)
from cmdrdata_exporter.cli.usage import incomplete
from cmdrdata_exporter.delivery.options import LARGEST
from cmdrdata_exporter.delivery.spool.directory import unusable
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader, UnreadableError
from cmdrdata_exporter.delivery.status_log import NEARLY
from cmdrdata_exporter.settings import applications_drain

STATES = ("delivered", "local", "pending", "in_flight", "held", "dead", "dropped")
"""Where an event may be; together they are what was recorded."""
LATE = 900.0
"""Seconds for which events may wait for a backend that is down, until a person should look."""
DAYS = 7
"""Days for which calls that told no usage need a person: what made them is still there to be mended."""
COUNTED = {
    "repeated": "came again and were known",
    "ambiguous": "attempts that may have been accepted unseen; each may be billed twice",
    "replayed": "sent again by command",
    "assigned": "given a customer by command",
    "expired": "given up after 30 days",
    "unspooled": "could not be written and are in the application's log instead",
    "damaged": "records that the disk has altered; they are set aside",
    "lost": "were in a ledger that was damaged, and could not be read",
}
"""What else is counted, and what it means."""


@click.command()
@json_option
@spool_option
def status(spool: Path | None, as_json: bool) -> None:
    """
    Show where every event is, and what needs you.

    Shows each destination in the spool directory: how many events were recorded and where they are
    now, which process sends them, why they wait, and what to do. Ends with status 1 if something
    needs a person.

    Example: cmdrdata status --json | jq '.destinations[].attention'
    """
    path = spool_path(spool)
    found = status_of(path)
    if as_json:
        print_json(found)
    else:
        show_status(Terminal(), found)
    if found["unusable"] or any(destination["attention"] for destination in found["destinations"]):
        click.get_current_context().exit(ATTENTION)


def status_of(spool: Path) -> Json:
    """Return what `cmdrdata status --json` prints."""
    found = [_destination(destination) for destination in all_of(spool)]
    return {
        "spool_dir": str(spool),
        # What is there may be another user's, who can use it.
        "unusable": None if found else unusable(spool),
        "destinations": found,
    }


def _destination(destination: Destination) -> Json:
    head = {
        "name": destination.name,
        "endpoint": destination.endpoint,
        "account": destination.account,
        "directory": str(destination.directory.path),
    }
    try:
        with LedgerReader(destination.directory) as ledger:
            known = _known(destination, ledger)
    except (UnreadableError, OSError) as error:
        return {**head, "attention": [str(error)]}
    return {**head, **known, "attention": _attention(known)}


def _known(destination: Destination, ledger: LedgerReader) -> Json:
    directory = destination.directory
    counts = ledger.counts()
    since = day(DAYS - 1)
    oldest = ledger.oldest_pending()
    used = directory.size()
    sending = _sending(directory.leader(), ledger.facts())
    return {
        "events": {"recorded": counts["recorded"], **{name: counts[name] for name in STATES}},
        "oldest_pending": None if oldest is None else moment(oldest),
        "held": ledger.reasons("held"),
        "dead": ledger.reasons("dead"),
        "sending": sending,
        "spool": {
            "bytes": used,
            "limit": LARGEST,
            "nearly_full": used >= NEARLY * LARGEST,
            "journals": len(directory.journals()),
            "not_imported": ledger.not_imported(),
        },
        "counted": {name: counts.get(name, 0) for name in COUNTED},
        "incomplete_usage": {"since": since, **incomplete(ledger, since=since)},
    }


def _sending(leader: int | None, facts: dict[str, Any]) -> Json:
    """Return who sends and what keeps it from doing so, as the process has noted that leads or led last."""
    known = bool(facts) and leader in (None, 0, facts["pid"])
    state = "open"
    if known and facts["probing"]:
        state = "paused" if facts["paused"] else "probing"
    halted = state != "open"
    return {
        "leader": leader,
        "state": state,
        "reason": facts["reason"] if halted else None,
        "next_attempt": moment(facts["next_attempt"]) if halted and leader is not None else None,
        "as_of": moment(facts["at"]) if known else None,
    }


def _attention(known: Json) -> list[str]:
    """Return what needs a person, and what is to be done."""
    events, sending, spool, counted = (
        known[name] for name in ("events", "sending", "spool", "counted")
    )
    waiting = events["pending"] + events["in_flight"]
    found: list[str] = []
    if sending["state"] == "paused":
        found.append(
            f"CmdrData does not accept events ({sending['reason']}): check key and endpoint. Every event is kept"
        )
    oldest: str | None = known["oldest_pending"]
    waited = 0.0 if oldest is None else age(oldest)
    if sending["state"] == "probing" and waited >= LATE:
        found.append(
            f"CmdrData cannot be reached or does not answer as it should ({sending['reason']}) "
            f"for {span(waited)}. Every event is kept"
        )
    if waiting and sending["leader"] is None:
        who = (
            "start the application"
            if applications_drain()
            else "CMDRDATA_DRAIN is none, so start cmdrdata drain"
        )
        found.append(
            f"{plural(waiting, 'event')} to send and no process that sends: {who}, or: cmdrdata flush"
        )
    if unattributed := known["held"].get("no customer", 0):
        found.append(
            f"{plural(unattributed, 'event')} without a customer: cmdrdata held list, cmdrdata assign"
        )
    if ambiguous := known["held"].get("ambiguous", 0):
        found.append(
            f"{plural(ambiguous, 'event')} that may have been accepted: cmdrdata held list, cmdrdata replay --ambiguous"
        )
    if events["dead"]:
        found.append(
            f"{plural(events['dead'], 'dead letter')}: cmdrdata dead-letters list, cmdrdata replay"
        )
    if counted["damaged"]:
        found.append(
            f"{plural(counted['damaged'], 'record')} that the disk has altered: check the disk"
        )
    if counted["lost"]:
        found.append(f"{plural(counted['lost'], 'event')} lost in a damaged ledger: check the disk")
    if counted["unspooled"]:
        found.append(
            f"{plural(counted['unspooled'], 'event')} could not be written: "
            'look for "cmdrdata": "unspooled" in the application\'s log'
        )
    if missing := known["incomplete_usage"]["missing"]:
        found.append(
            f"{plural(missing, 'call')} of the last {DAYS} days reported no usage, so no tokens are billed: "
            "cmdrdata usage --by endpoint,model,status; for streams see CMDRDATA_STREAM_USAGE"
        )
    if spool["nearly_full"]:
        found.append(
            f"{size(spool['bytes'])} of {size(spool['limit'])} are used; beyond that new events go to the log"
        )
    return found


def show_status(console: Console, found: Json) -> None:
    """Show a reader where every event is."""
    destinations = found["destinations"]
    if not destinations:
        console.print(cell(f"No events have been kept in {found['spool_dir']} yet."))
        console.print(cell(ELSEWHERE))
    if found["unusable"]:
        console.print(cell(f"! {found['unusable']}"))
    for destination in destinations:
        heading(console, destination["name"])
        _show(console, destination)
    if len(destinations) > 1:
        console.print()
        console.print(
            "Commands use the destination from the environment unless --destination NAME is given."
        )


def _show(console: Console, destination: Json) -> None:
    endpoint, account = destination["endpoint"], destination["account"]
    goes = "stay on this host" if endpoint is None else f"go to {endpoint}, account {account}"
    console.print(cell(f"Events {goes}."))
    console.print(cell(f"Kept in {destination['directory']}."), soft_wrap=True)
    if "events" in destination:
        console.print(cell(_who_leads(destination)))
        console.print()
        _show_events(console, destination)
        console.print()
        _show_spool(console, destination["spool"])
        _show_counted(console, destination["counted"])
    console.print()
    if destination["attention"]:
        console.print("Needs you:")
        console.print(_items(("!", what) for what in destination["attention"]), style="yellow")
    else:
        console.print("Nothing needs you.")


def _items(rows: Iterable[tuple[str, str]]) -> Table:
    """Return lines that are indented where they wrap."""
    items = Table.grid(padding=(0, 1))
    for mark, text in rows:
        items.add_row(cell(mark), cell(text))
    return items


def _who_leads(destination: Json) -> str:
    sending = destination["sending"]
    leader = sending["leader"]
    does = "keeps the ledger" if destination["endpoint"] is None else "sends them"
    who = f"Process {leader} {does}" if leader else f"A process {does}"
    if leader is None:
        who = f"No process {does} now"
    if sending["state"] == "open":
        return f"{who}."
    what = {
        "paused": "paused: the backend refuses the key or endpoint",
        "probing": "trying them one by one",
    }[sending["state"]]
    if sending["next_attempt"] is None:
        return f"{who}. The last one was {what} ({sending['reason']}), as of {sending['as_of']}."
    return f"{who}. It is {what} ({sending['reason']}), next attempt at {sending['next_attempt']}."


def _show_events(console: Console, destination: Json) -> None:
    """Show the counts as the sum that they are."""
    events = destination["events"]
    width = max(len(f"{events['recorded']:,}"), 5)
    console.print(Text(f"  {events['recorded']:>{width},} recorded", style="bold"))
    for sign, name in zip("=++++++", STATES, strict=True):
        label = name.replace("_", " ")
        line = f"{sign} {events[name]:>{width},} {label:<10}{_why(destination, name)}"
        console.print(cell(line.rstrip(), "" if events[name] else "dim"))


def _why(destination: Json, name: str) -> str:
    if name in ("held", "dead"):
        reasons = destination[name]
        return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    if name == "pending" and destination["oldest_pending"]:
        return f"the oldest for {span(age(destination['oldest_pending']))}"
    return ""


def _show_spool(console: Console, spool: Json) -> None:
    part = spool["bytes"] / spool["limit"]
    said = f"Disk: {size(spool['bytes'])} of {size(spool['limit'])} ({part:.0%})"
    if spool["not_imported"]:
        said += (
            f"; {plural(spool['not_imported'], 'event')} of those pending "
            f"in {plural(spool['journals'], 'journal')} only"
        )
    console.print(Text(f"{said}."))


def _show_counted(console: Console, counted: Json) -> None:
    found = [(f"{count:,} {name}:", COUNTED[name]) for name, count in counted.items() if count]
    if found:
        console.print("Also counted:")
        console.print(_items(found))
