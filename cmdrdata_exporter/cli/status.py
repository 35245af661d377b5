"""`cmdrdata status`: where every event is, of every destination, and what needs a person."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cmdrdata_exporter.cli.destination import (
    ELSEWHERE,
    Destination,
    Refusal,
    all_of,
    fleet,
    json_option,
    ledger_option,
    spool_option,
    spool_path,
)
from cmdrdata_exporter.cli.event_rows import about_json
from cmdrdata_exporter.cli.reading import Ledger
from cmdrdata_exporter.cli.states import (
    COUNTED,
    DEAD_LETTER,
    NEEDS,
    NO_CUSTOMER,
    SENDING,
    STATES,
    UNSENT,
    word,
)
from cmdrdata_exporter.cli.terminal import (
    ATTENTION,
    Json,
    Terminal,
    age,
    cell,
    day,
    duration,
    heading,
    moment,
    plural,
    print_json,
    size,
)
from cmdrdata_exporter.cli.usage import incomplete
from cmdrdata_exporter.cli.watching import Watching, needs_of
from cmdrdata_exporter.cli.webhook import webhook_in_file, webhook_url
from cmdrdata_exporter.delivery.options import LARGEST
from cmdrdata_exporter.delivery.spool.directory import unusable
from cmdrdata_exporter.delivery.spool.schema import AMBIGUOUS
from cmdrdata_exporter.delivery.status_log import BACKEND_TROUBLES, NEARLY
from cmdrdata_exporter.delivery.usage import Question, UnreadableError
from cmdrdata_exporter.settings import applications_drain

LATE = 900.0
"""Seconds for which events may wait for a backend that is down before a person should look."""
DAYS = 7
"""Days for which calls without usage need a person: later it is too late to find out why."""


@click.command(
    epilog="\b\nThe states of an event:\n"
    + "\n".join(f"  {word(name):<10} {meaning}" for name, meaning in STATES.items())
)
@click.option("--watch", is_flag=True, help="Show it anew every few seconds, until Ctrl-C.")
@click.option(
    "--every",
    type=click.FloatRange(min=1.0, max=3600.0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How often, with --watch.",
)
@click.option(
    "--webhook",
    metavar="URL",
    callback=webhook_url,
    help="With --watch: POST there when something begins to need you, and when it is over.",
)
@click.option(
    "--webhook-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    callback=webhook_in_file,
    help="The same, with the URL in a file, where nobody else sees it.",
)
@click.option(
    "--fleet", "hosts", is_flag=True, help="Show how each host of a fleet is; needs --ledger."
)
@json_option
@spool_option
@ledger_option
def status(
    *,
    spool: Path | None,
    url: str | None,
    hosts: bool,
    as_json: bool,
    watch: bool,
    every: float,
    webhook: str | None,
    webhook_file: str | None,
) -> None:
    """
    Show where every event is, and what needs you.

    Shows each destination in the spool directory: how many events were recorded, in which state
    they are, which process sends them, and what to do. Exits with status 1 if something needs you.

    Of the ledger of a fleet also how each host is, which has gone quiet after three minutes.

    Example: cmdrdata status --json | jq '.destinations[].attention'
    """
    if webhook is not None and webhook_file is not None:
        raise click.UsageError("--webhook and --webhook-file exclude each other")
    target = webhook or webhook_file
    if target is not None and not watch:
        raise click.UsageError("a webhook goes with --watch")
    look, show = _of_fleet(url, spool, hosts=hosts) or (
        partial(status_of, spool_path(spool)),
        show_status,
    )
    if watch:
        found = Watching(look, show, show_briefly, every, target, as_json=as_json).run()
    else:
        found = look()
        if as_json:
            print_json(found)
        else:
            show(Terminal(), found)
    if needs_of(found):
        click.get_current_context().exit(ATTENTION)


def _of_fleet(
    url: str | None, spool: Path | None, *, hosts: bool
) -> tuple[Callable[[], Json], Callable[[Console, Json], None]] | None:
    """Return what looks at the ledger of a fleet, and what shows it; None: it is not asked for."""
    place = fleet(url, spool)
    if place is None:
        if hosts:
            raise Refusal(
                "--fleet is about the ledger of a fleet: name it with --ledger or CMDRDATA_LEDGER"
            )
        return None
    # Only now: it imports what may be missing.
    from cmdrdata_exporter.cli import fleet_status

    show = fleet_status.show_hosts if hosts else fleet_status.show_status
    return partial(fleet_status.status_of, place), show


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
        with destination.events() as reader:
            known = {
                **_known(destination, reader.ledger),
                "index": {"events": reader.count(), **about_json(reader.about())},
            }
    except (UnreadableError, OSError) as error:
        needs = {"unreadable": str(error)}
    else:
        head |= known
        needs = _needs(known)
    return {**head, "attention": list(needs.values()), "needs": needs}


def _known(destination: Destination, ledger: Ledger) -> Json:
    directory = destination.directory
    used = directory.size()
    return {
        **known_of(ledger, COUNTED),
        "sending": _sending(directory.leader(), ledger.facts()),
        "spool": {
            "bytes": used,
            "limit": LARGEST,
            "nearly_full": used >= NEARLY * LARGEST,
            "journals": len(directory.journals()),
            "not_imported": ledger.not_imported(),
        },
    }


def known_of(ledger: Ledger, counted: Iterable[str]) -> Json:
    """
    Return what is known of the events of any ledger.

    Args:
        ledger: whose.
        counted: what else is counted.
    """
    counts, since, oldest = ledger.counts(), day(DAYS - 1), ledger.oldest_pending()
    return {
        "events": {"recorded": counts["recorded"], **{name: counts[name] for name in STATES}},
        "oldest_pending": None if oldest is None else moment(oldest),
        "held": ledger.reasons("held"),
        "dead": ledger.reasons("dead"),
        "counted": {name: counts.get(name, 0) for name in counted},
        "incomplete_usage": {"since": since, **incomplete(ledger, Question(since))},
    }


def needs_of_events(known: Json, see: str) -> dict[str, tuple[object, str]]:
    """
    Return what may need a person in any ledger, by its kind: whether it does, and what to do.

    Args:
        known: what `known_of` returns.
        see: how to see which calls reported no usage.
    """
    unassigned = known["held"].get(NO_CUSTOMER, 0)
    missing = known["incomplete_usage"]["missing"]
    dead = known["events"]["dead"]
    return {
        "no_customer": (
            unassigned,
            f"{unassigned:,} held, {NO_CUSTOMER}: cmdrdata held list, then cmdrdata assign",
        ),
        "dead": (
            dead,
            f"{plural(dead, DEAD_LETTER)}: cmdrdata dead-letters list, then cmdrdata replay",
        ),
        "no_usage": (
            missing,
            f"{plural(missing, 'call')} of the last {DAYS} days reported no usage, so no tokens are {see}",
        ),
    }


def needed(needs: Mapping[str, tuple[object, str]]) -> dict[str, str]:
    """Return what needs a person, in the order of `NEEDS`."""
    return {kind: needs[kind][1] for kind in NEEDS if kind in needs and needs[kind][0]}


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


def _needs(known: Json) -> dict[str, str]:
    """Return what needs a person, by its kind, and what to do about it."""
    events, sending, spool, counted = (
        known[name] for name in ("events", "sending", "spool", "counted")
    )
    oldest: str | None = known["oldest_pending"]
    waited = 0.0 if oldest is None else age(oldest)
    late = sending["state"] == "probing" and waited >= LATE
    unsent = sum(events[state] for state in UNSENT)
    ambiguous = known["held"].get(AMBIGUOUS, 0)
    who = (
        "start the application"
        if applications_drain()
        else "CMDRDATA_DRAIN is none, so start cmdrdata drain"
    )
    needs = {
        **needs_of_events(
            known,
            "billed: cmdrdata events list --no-usage; for streams see CMDRDATA_STREAM_USAGE",
        ),
        "paused": (
            sending["state"] == "paused",
            f"Paused: {SENDING['paused']} ({sending['reason']}). Check both; all events are kept",
        ),
        "late": (
            late,
            f"Events wait: {BACKEND_TROUBLES['probing']} ({sending['reason']}), for {duration(waited)} now. "
            "All events are kept",
        ),
        "nobody_sends": (
            unsent and sending["leader"] is None,
            f"{plural(unsent, 'event')} to send, but no process sends: {who}, or run cmdrdata flush",
        ),
        "ambiguous": (
            ambiguous,
            f"{ambiguous:,} held, {AMBIGUOUS}: cmdrdata held list, then cmdrdata replay --ambiguous",
        ),
        "damaged": (
            counted["damaged"],
            f"{plural(counted['damaged'], 'damaged record')}: check the disk",
        ),
        "lost": (
            counted["lost"],
            f"{plural(counted['lost'], 'event')} lost in a damaged ledger: check the disk",
        ),
        "unspooled": (
            counted["unspooled"],
            f"{plural(counted['unspooled'], 'event')} could not be written to the disk: "
            'look for "cmdrdata": "unspooled" in the application\'s log',
        ),
        "disk": (
            spool["nearly_full"],
            f"Disk: {size(spool['bytes'])} of {size(spool['limit'])} are used; "
            "beyond that new events go to the application's log",
        ),
    }
    return needed(needs)


def show_status(console: Console, found: Json) -> None:
    """Show a reader where every event is."""
    destinations = found["destinations"]
    if not destinations:
        console.print(cell(f"No events recorded in {found['spool_dir']} yet."))
        console.print(cell(f"{ELSEWHERE}."))
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


def show_briefly(console: Console, found: Json) -> None:
    """Show a reader with little room what needs a person, and the counts on a line."""
    for destination in found["destinations"]:
        heading(console, destination["name"])
        if "events" in destination:
            events = destination["events"]
            parts = [f"{events[name]:,} {word(name)}" for name in STATES if events[name]]
            console.print(cell(f"{events['recorded']:,} recorded = {' + '.join(parts) or 0}"))
        show_needs(console, destination["attention"])
    if found["unusable"]:
        show_needs(console, [found["unusable"]])


def show_needs(console: Console, needs: Sequence[str]) -> None:
    """Show a reader what needs a person."""
    if needs:
        console.print(_items(("!", what) for what in needs), style="yellow")
    else:
        console.print("Nothing needs you.")


def _show(console: Console, destination: Json) -> None:
    console.print(cell(where_to(destination)))
    console.print(cell(f"Kept in {destination['directory']}."), soft_wrap=True)
    if "events" in destination:
        console.print(cell(who_leads(destination)))
        console.print()
        show_events(console, destination)
        console.print()
        _show_spool(console, destination["spool"])
        index = destination["index"]
        if index["reason"]:
            state = "Index of events begun anew" if index["there"] else "No index of events"
            console.print(cell(f"{state}: {index['reason']}."))
        show_counted(console, destination["counted"])
    console.print()
    if destination["attention"]:
        console.print("Needs you:")
    show_needs(console, destination["attention"])


def where_to(destination: Json) -> str:
    """Return where the events of a destination go."""
    endpoint, account = destination["endpoint"], destination["account"]
    goes = "stay on this host" if endpoint is None else f"go to {endpoint}, account {account}"
    return f"Events {goes}."


def _items(rows: Iterable[tuple[str, str]]) -> Table:
    """Return lines that are indented where they wrap."""
    items = Table.grid(padding=(0, 1))
    for mark, text in rows:
        items.add_row(cell(mark), cell(text))
    return items


def who_leads(destination: Json) -> str:
    """Return which process sends, and what keeps it from doing so."""
    sending = destination["sending"]
    leader = sending["leader"]
    does = "keeps the ledger" if destination["endpoint"] is None else "sends them"
    # 0 is a leader whose number is unknown.
    process = "No process" if leader is None else f"Process {leader}" if leader else "A process"
    who = f"{process} {does}{' now' if leader is None else ''}."
    if sending["state"] == "open":
        return who
    why = f"{sending['state']}: {SENDING[sending['state']]} ({sending['reason']})"
    if sending["next_attempt"] is None:
        return f"{who} The last one was {why}, as of {sending['as_of']}."
    return f"{who} It is {why}, next attempt at {sending['next_attempt']}."


def show_events(console: Console, destination: Json) -> None:
    """Show the counts as the sum that they are."""
    events = destination["events"]
    width = max(len(f"{events['recorded']:,}"), 5)
    console.print(Text(f"  {events['recorded']:>{width},} recorded", style="bold"))
    for sign, name in zip("=++++++", STATES, strict=True):
        line = f"{sign} {events[name]:>{width},} {word(name):<10}{why_there(destination, name)}"
        console.print(cell(line.rstrip(), "" if events[name] else "dim"))


def why_there(destination: Json, name: str) -> str:
    """Return why events of a destination are in a state, as far as there is more to say than its name."""
    if name in ("held", "dead"):
        reasons = destination[name]
        return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    if name == "pending" and destination["oldest_pending"]:
        return f"the oldest for {duration(age(destination['oldest_pending']))}"
    return ""


def _show_spool(console: Console, spool: Json) -> None:
    used = f"Disk: {size(spool['bytes'])} of {size(spool['limit'])}"
    console.print(Text(f"{used} ({spool['bytes'] / spool['limit']:.0%})."))
    if spool["not_imported"]:
        events = plural(spool["not_imported"], "pending event")
        console.print(f"Not imported yet: {events}, in {plural(spool['journals'], 'journal')}.")


def show_counted(console: Console, counted: Json) -> None:
    """Show what else is counted."""
    found = [(f"{count:,} {name}:", COUNTED[name]) for name, count in counted.items() if count]
    if found:
        console.print("Also counted:")
        console.print(_items(found))
