"""What `dead-letters` and `held` have in common: a list of events that go no further, and each of them whole."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click
from rich.console import Console
from rich.text import Text

from cmdrdata_exporter.cli.changes import by_ids, id_of, kept, metadata_of
from cmdrdata_exporter.cli.destination import Destination, on_destination
from cmdrdata_exporter.cli.terminal import (
    Json,
    Terminal,
    cell,
    customer,
    minute,
    moment,
    plural,
    print_json,
    table,
)
from cmdrdata_exporter.delivery.spool.ledger_view import Kept

SHORT = 12
"""How much of an id a list shows: enough to name the event."""
LONGEST_REASON = 80
"""How much of a reason a list shows: a backend may answer with all that it was sent."""


def add_commands(group: click.Group, state: str, noun: str) -> None:
    """
    Add `list` and `show` to a group of commands.

    Args:
        group: to which.
        state: of which events.
        noun: what one of them is called.
    """

    @click.command("list")
    @click.option(
        "--limit",
        type=click.IntRange(min=1),
        default=100,
        show_default=True,
        help="How many to show; --json has all.",
    )
    @on_destination
    def list_(destination: Destination, limit: int, as_json: bool) -> None:
        events = kept(destination, state)
        if as_json:
            print_json({"destination": destination.name, "events": [_row(e) for e in events]})
        else:
            _show(Terminal(), events, limit, noun)

    @click.command()
    @click.argument("event_id", metavar="ID")
    @on_destination
    def show(destination: Destination, event_id: str, as_json: bool) -> None:  # noqa: ARG001 - JSON it is
        [event] = by_ids(kept(destination, state), [event_id], noun)
        print_json({**_row(event), "event": _body(event)})

    list_.help = (
        f"List every {noun}: why it is one, since when, whose it is.\n\n"
        "IDs are cut; any beginning of one that names a single event will do."
    )
    show.help = f"Print one {noun} whole, as JSON: `event` is what would be sent."
    group.add_command(list_)
    group.add_command(show)


def _row(kept: Kept) -> Json:
    header = None if kept.event is None else kept.event.header
    return {
        "id": id_of(kept),
        "reason": kept.reason,
        "since": moment(kept.since),
        "customer": header and header.customer,
        "model": header and header.model,
        "endpoint": header and header.endpoint,
        "day": header and header.day,
        **_refused(kept),
    }


def _refused(kept: Kept) -> Json:
    """Return what is known of a customer that was named and cannot be billed."""
    names = ("customer_refused", "customer_refused_value")
    metadata = metadata_of(kept)
    return {name: metadata[name] for name in names if name in metadata}


def _reason(kept: Kept) -> str | None:
    """Return why an event goes no further, and of a customer that was refused why and how it was written."""
    refused = _refused(kept).values()
    if refused:
        return f"{kept.reason} ({': '.join(refused)})"
    if kept.reason is None or len(kept.reason) <= LONGEST_REASON:
        return kept.reason
    return f"{kept.reason[:LONGEST_REASON]}… (show has all)"


def _body(kept: Kept) -> Json | None:
    return None if kept.event is None else json.loads(kept.event.body, parse_int=_integer)


def _integer(digits: str) -> int | str:
    """Return an integer, as text where it has more digits than Python converts."""
    try:
        return int(digits)
    except ValueError:
        return digits


def _show(console: Console, events: Iterable[Kept], limit: int, noun: str) -> None:
    shown = table()
    shown.add_column("ID", no_wrap=True)
    shown.add_column("Since (UTC)", no_wrap=True)
    for name in ("Reason", "Customer", "Model"):
        shown.add_column(name, overflow="fold")
    count = 0
    for count, event in enumerate(events, 1):
        if count > limit:
            continue
        header = None if event.event is None else event.event.header
        shown.add_row(
            cell(id_of(event)[:SHORT]),
            minute(event.since),
            cell(_reason(event)),
            customer(header.customer) if header else Text("cannot be read"),
            cell(header.model if header else None),
        )
    if not count:
        console.print(cell(f"No {noun}s."))
        return
    console.print(shown)
    if count > limit:
        console.print()
        rest = plural(count - limit, noun)
        console.print(cell(f"And {rest} more: --limit shows more, --json all."))
