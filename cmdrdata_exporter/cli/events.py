"""`cmdrdata events`: what was recorded, and what became of each event: listed, shown whole, exported."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import click
from rich.console import Console

from cmdrdata_exporter.cli.changes import body_of
from cmdrdata_exporter.cli.days import day_option
from cmdrdata_exporter.cli.destination import Command, Place, on_place
from cmdrdata_exporter.cli.event_rows import DAMAGED, GONE, Lines, about_json, show_whole, to_json
from cmdrdata_exporter.cli.reading import Index
from cmdrdata_exporter.cli.states import STATES
from cmdrdata_exporter.cli.terminal import (
    ATTENTION,
    Json,
    Terminal,
    cell,
    minute,
    plain,
    plural,
    print_json,
    say,
)
from cmdrdata_exporter.delivery.spool import schema
from cmdrdata_exporter.delivery.spool.index_view import About
from cmdrdata_exporter.delivery.spool.indexed import IndexedEvent, Wanted
from cmdrdata_exporter.delivery.spool.records import line

LOOK = 0.5
"""Seconds between two looks for new events."""
FIRST = 10
"""How many events are shown before those that come."""
UNDELIVERED = ("pending", "in_flight", "held", "dead")
"""The states of events that are found without an index."""
KEPT = ("local", "held", "dead", "pending", "in_flight")
"""The states of events whose bodies are here, in the order of their export."""


@click.group()
def events() -> None:
    """
    See what was recorded, and what became of each event.

    Delivered events are found for 30 days: CMDRDATA_INDEX_EVENTS says how many of them.

    Example: cmdrdata events show req_011CVzRkR
    """


def _filters(command: Command) -> Command:
    """Give a command the options that choose events, and what is wanted by its name."""

    @click.option("--customer", metavar="ID", help="Only events of this customer.")
    @click.option(
        "--no-customer", "--unattributed", is_flag=True, help="Only those with no customer."
    )
    @click.option("--model", metavar="NAME", help="Only events of this model.")
    @click.option("--endpoint", metavar="NAME", help="Only of this endpoint: chat.completions ...")
    @day_option("--since", "The first UTC day: 2026-11-01, 2026-11, yesterday, 7d, month ...")
    @day_option("--until", "The last UTC day.", last=True)
    @click.option("--no-usage", is_flag=True, help="Only calls whose usage is missing or partial.")
    @functools.wraps(command)
    def choosing(
        *arguments: Any,
        customer: str | None,
        no_customer: bool,
        model: str | None,
        endpoint: str | None,
        since: str | None,
        until: str | None,
        no_usage: bool,
        **options: Any,
    ) -> None:
        if customer is not None and no_customer:
            raise click.UsageError("--customer and --no-customer exclude each other")
        wanted = Wanted(
            customer="" if no_customer else customer,
            model=model,
            endpoint=endpoint,
            since=None if since is None else _second(since),
            until=None if until is None else _second(until, days=1),
            no_usage=no_usage,
        )
        command(*arguments, wanted=wanted, **options)

    return choosing


def _second(day: str, *, days: int = 0) -> int:
    """Return the Unix second at which a UTC day begins, or so many days after it."""
    begin = datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
    return int(begin.timestamp()) + days * int(timedelta(days=1).total_seconds())


def _state_of(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001 - click's signature
    return None if value is None else value.replace(" ", "_").replace("-", "_")


@events.command("list")
@click.option(
    "--state",
    type=click.Choice([*(name.replace("_", "-") for name in STATES)]),
    callback=_state_of,
    help="Only events in this state.",
)
@_filters
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"How many to show. Default: 100; with --follow {FIRST} of before.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is recorded from now on.")
@on_place
def list_(
    destination: Place,
    *,
    wanted: Wanted,
    state: str | None,
    limit: int | None,
    follow: bool,
    as_json: bool,
) -> None:
    """
    List events, the newest first.

    IDs are shortened. Any beginning of an ID that names one event will do. With --follow --json
    each event is one line of JSON, in the state in which it was seen first.

    Example: cmdrdata events list --no-usage --since 7d
    """
    wanted = wanted._replace(state=state)
    if follow:
        _follow(destination, wanted, limit or FIRST, as_lines=as_json)
        return
    limit = limit or 100
    with destination.events() as reader:
        # One more tells whether there are more.
        found = reader.newest(limit + 1, wanted)
        about = reader.about()
    shown, more = found[:limit], len(found) > limit
    if as_json:
        print_json(
            {
                "destination": destination.name,
                "index": about_json(about),
                "more": more,
                "events": [to_json(event) for event in shown],
            }
        )
        return
    console = Terminal()
    lines = Lines(console)
    if shown:
        lines.all(shown)
        console.print()
        if lines.hidden:
            _say(console, f"Not shown: {', '.join(lines.hidden)}. Use a wider terminal or --json.")
        if more:
            _say(
                console,
                f"These are the newest {limit:,}. For more: --limit, or choose by --state, --since ...",
            )
    else:
        _say(console, "No events.")
    if not more and state not in UNDELIVERED and (note := _incomplete(about)):
        _say(console, note)


def _say(console: Console, line: str) -> None:
    """Print a line that may hold text from others, wrapped between words."""
    console.print(cell(line))


def _follow(destination: Place, wanted: Wanted, limit: int, *, as_lines: bool) -> None:
    """Show events as they come, until Ctrl-C."""
    lines = Lines(Terminal())

    def show(event: IndexedEvent) -> None:
        if as_lines:
            click.echo(json.dumps(to_json(event)))
        else:
            lines.one(event)

    try:
        if not as_lines:
            lines.head()
        after: int | None = None
        seen: set[bytes] = set()
        while True:
            with destination.events() as reader:
                most = limit if after is None else sys.maxsize
                new = reader.newest(most, wanted, after=after)
                after = reader.last
            for event in reversed(new):
                if event.key not in seen:
                    show(event)
            sys.stdout.flush()
            # What the ledger did not have yet comes once more.
            seen = {event.key for event in new if event.number is None or event.number > after}
            time.sleep(LOOK)
    except KeyboardInterrupt:
        return


@events.command()
@click.argument("identifier", metavar="ID")
@on_place
def show(destination: Place, identifier: str, as_json: bool) -> None:
    """
    Show what became of an event, or of all events of a trace.

    ID is that of an event, or its beginning, or what the provider calls the response or the
    request, or a trace id. Exits with status 1 if there is no such event.

    Example: cmdrdata events show chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG
    """
    with destination.events() as reader:
        found = reader.find(identifier)
        whole = [(event, reader.body(event)) for event in found]
        about, searched = reader.about(), None if found else _searched(reader)
    if len(found) > 1 and not any(identifier.strip() in _ids(event) for event in found):
        raise click.UsageError(
            f"{len(found):,} events have an id that begins with {identifier!r}; expected is one: "
            "add a character or two"
        )
    if as_json:
        print_json(
            {
                "destination": destination.name,
                "looked_for": identifier,
                "index": about_json(about),
                "searched": searched,
                "events": [{**to_json(event), **_body(event, body)} for event, body in whole],
            }
        )
    else:
        console = Terminal()
        for number, (event, body) in enumerate(whole):
            if number:
                console.print()
            show_whole(console, event, body)
        if searched is not None:
            _say(
                console,
                f"No event has the id {identifier!r}: as its own, or of a response, request or trace.",
            )
            index, ledger, journals = (plural(number, "event") for number in searched.values())
            _say(
                console,
                f"Looked through: the index ({index}), the ledger ({ledger}), journals ({journals}).",
            )
            if note := _incomplete(about):
                _say(console, note)
    if not whole:
        click.get_current_context().exit(ATTENTION)


def _ids(event: IndexedEvent) -> tuple[str, ...]:
    return event.id, event.response_id, event.request_id, event.trace_id


def _searched(reader: Index) -> dict[str, int]:
    """Return how many events there are where one was looked for."""
    counts, new = reader.ledger.counts(), reader.ledger.not_imported()
    return {
        "index": reader.count(),
        "ledger": sum(counts[state] for state in schema.STATES) - new,
        "journals": new,
    }


def _body(event: IndexedEvent, body: bytes | None) -> Json:
    gone = None if body is not None else GONE.get(event.state, DAMAGED)
    return {"event": body_of(body), "body": gone}


def _incomplete(about: About) -> str | None:
    """Say which delivered events are not found; None: all are."""
    why = "" if about.reason is None else f" ({about.reason})"
    if not about.there:
        return f"There is no index{why}: events that were delivered are not found."
    if about.missing_before is None:
        return None
    return (
        f"Events that were delivered before {minute(about.missing_before)} UTC are not found{why}."
    )


@events.command()
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([name.replace("_", "-") for name in KEPT]),
    help="Only events in this state; may be given again. Default: all of these.",
)
@_filters
@on_place
def export(destination: Place, *, wanted: Wanted, states: tuple[str, ...], as_json: bool) -> None:
    """
    Print events whose bodies are here, one line of JSON each.

    `event` is the body, byte for byte as it would be sent; `id` is what its Idempotency-Key would
    be. The oldest come first, in the order of the states.

    Example: cmdrdata events export --state local --since month > november.jsonl
    """
    del as_json  # JSON it is
    chosen = [name for name in KEPT if not states or name.replace("_", "-") in states]
    write = _writer()
    damaged = 0
    with destination.events() as reader:
        for event, body in reader.bodies(chosen):
            if body is None:
                damaged += 1
            elif wanted.fits(event):
                write(line(event.state, event.id, body))
    if damaged:
        say(f"{plural(damaged, 'event')} not exported: damaged on the disk", err=True)
        click.get_current_context().exit(ATTENTION)


def _writer() -> Callable[[str], None]:
    """Return what writes a line: as it is into a file or a pipe, and nothing else that a terminal would obey."""
    out = sys.stdout
    buffer = getattr(out, "buffer", None)
    if buffer is None or out.isatty():
        return lambda text: click.echo(plain(text))
    return lambda text: buffer.write(f"{text}\n".encode())
