"""`cmdrdata held` and `cmdrdata dead-letters`: events that go no further, listed, shown and dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cmdrdata_exporter.cli.changes import (
    SHORT,
    body_of,
    by_ids,
    change,
    events_in,
    id_of,
    metadata_of,
    report,
)
from cmdrdata_exporter.cli.destination import Place, on_place
from cmdrdata_exporter.cli.states import DEAD_LETTER, HELD_EVENT, NO_CUSTOMER
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
from cmdrdata_exporter.delivery.spool.kept import Kept

LEAST_REASON = 16
"""Characters of a reason in a line, or something is left out."""
GAP = 3
"""Blanks between two columns."""
LONGEST_REASON = 80
"""Characters of a reason in a list: a backend may answer with all that it was sent."""


def _add_commands(group: click.Group, state: str, noun: str) -> None:
    """Add `list` and `show` to the group of commands for the events in a state."""

    @click.command("list")
    @click.option(
        "--limit",
        type=click.IntRange(min=1),
        default=100,
        show_default=True,
        help="How many to show; --json has all.",
    )
    @on_place
    def list_(destination: Place, limit: int, as_json: bool) -> None:
        events = events_in(destination, state)
        if as_json:
            print_json({"destination": destination.name, "events": [_row(e) for e in events]})
        else:
            _show(Terminal(), events, limit, noun)

    @click.command()
    @click.argument("event_id", metavar="ID")
    @on_place
    def show(destination: Place, event_id: str, as_json: bool) -> None:  # noqa: ARG001 - JSON it is
        [event] = by_ids(events_in(destination, state), [event_id], noun)
        body = None if event.event is None else event.event.body
        print_json({**_row(event), "event": body_of(body)})

    list_.help = (
        f"List each {noun}: why it is one, since when, and its customer.\n\n"
        "IDs are shortened. Any beginning of an ID that names one event will do."
    )
    show.help = f"Print one {noun} whole, as JSON: `event` is what would be sent."
    group.add_command(list_)
    group.add_command(show)


def _row(event: Kept) -> Json:
    header = None if event.event is None else event.event.header
    return {
        "id": id_of(event),
        "reason": event.reason,
        "since": moment(event.since),
        "customer": header and header.customer,
        "model": header and header.model,
        "endpoint": header and header.endpoint,
        "day": header and header.day,
        **_told(event),
    }


_TOLD = ("customer_refused", "customer_refused_value", "call_site")
"""What the metadata say of why an event has no customer: who was named and cannot be billed, and where it was made."""


def _told(event: Kept) -> Json:
    metadata = metadata_of(event)
    return {name: metadata[name] for name in _TOLD if name in metadata}


def _reason(event: Kept) -> str | None:
    """Return why an event goes no further; of one without a customer also who was named, and where it was made."""
    told = _told(event)
    site = told.pop("call_site", None)
    reason = event.reason
    if told:
        reason = f"{reason} ({': '.join(told.values())})"
    elif reason is not None and len(reason) > LONGEST_REASON:
        reason = f"{reason[:LONGEST_REASON]}… (show has all)"
    return reason if site is None or event.reason != NO_CUSTOMER else f"{reason}: {site}"


def _show(console: Console, events: Iterable[Kept], limit: int, noun: str) -> None:
    rows: list[list[Text]] = []
    count = 0
    for count, event in enumerate(events, 1):
        if count > limit:
            continue
        header = None if event.event is None else event.event.header
        rows.append(
            [
                cell(id_of(event)[:SHORT]),
                Text(minute(event.since)),
                cell(_reason(event)),
                customer(header.customer) if header else Text("cannot be read"),
                cell(header.model if header else None),
            ]
        )
    if not count:
        console.print(cell(f"No {noun}s."))
        return
    shown = _table(rows, console.width)
    console.print(shown)
    if count > limit:
        console.print()
        console.print(cell(f"Not shown: {plural(count - limit, noun)}. Use --limit or --json."))


def _table(rows: Sequence[Sequence[Text]], wide: int) -> Table:
    """Return events below their headings; the time is left out before a name is broken that one may have to copy."""
    headings = ["ID", "Since (UTC)", "Reason", "Customer", "Model"]
    widths = [
        max(len(heading), *(row[column].cell_len for row in rows))
        for column, heading in enumerate(headings)
    ]
    columns = [0, 1, 2, 3, 4]
    if not _has_room(columns, widths, wide):
        columns.remove(1)
    whole = _has_room(columns, widths, wide)
    shown = table()
    for column in columns:
        if column < 2 or (whole and column > 2):
            shown.add_column(headings[column], no_wrap=True)
        else:
            shown.add_column(headings[column], overflow="fold")
    for row in rows:
        shown.add_row(*(row[column] for column in columns))
    return shown


def _has_room(columns: Sequence[int], widths: Sequence[int], wide: int) -> bool:
    """Say whether columns fit beside each other, of the reason at least a part in each line."""
    reason = min(LEAST_REASON, widths[2])
    return sum(widths[n] for n in columns if n != 2) + reason + GAP * (len(columns) - 1) + 2 <= wide


@click.group()
def held() -> None:
    """
    See events that wait for your decision.

    Those with no customer are released by cmdrdata assign, ambiguous ones by cmdrdata replay.

    Example: cmdrdata held list
    """


@click.group("dead-letters")
def dead_letters() -> None:
    """
    See dead letters: events refused, expired or damaged.

    They stay until they are sent again (cmdrdata replay) or dropped.

    Example: cmdrdata dead-letters list
    """


@dead_letters.command()
@click.argument("event_ids", metavar="ID...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every dead letter; needs --yes.")
@click.option("--yes", is_flag=True, help="Confirm that their usage is never to be billed.")
@on_place
def drop(
    destination: Place, event_ids: tuple[str, ...], all_: bool, yes: bool, as_json: bool
) -> None:
    """
    Give dead letters up for good: their usage is never billed.

    Example: cmdrdata dead-letters drop 5f3a9c01d2e4
    """
    if all_ == bool(event_ids):
        raise click.UsageError("name the dead letters by their ids, or all of them with --all")
    if all_ and not yes:
        raise click.UsageError("--all drops every dead letter for good; to confirm, add --yes")
    dead = events_in(destination, "dead")
    selected = dead if all_ else by_ids(dead, event_ids, DEAD_LETTER)
    found = change(destination, "drop", [event.key for event in selected])
    report(destination, found, DEAD_LETTER, all_=all_, as_json=as_json)


_add_commands(held, "held", HELD_EVENT)
_add_commands(dead_letters, "dead", DEAD_LETTER)
