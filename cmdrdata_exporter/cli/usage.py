"""`cmdrdata usage`: the usage that was recorded, by customer, model, day, month, endpoint and status."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from datetime import datetime

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cmdrdata_exporter.cli.destination import Command, Destination, on_destination
from cmdrdata_exporter.cli.terminal import (
    Json,
    Terminal,
    cell,
    customer,
    number,
    plain,
    plural,
    print_json,
    table,
)
from cmdrdata_exporter.delivery.spool import ledger_view
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader

COLUMNS = ("customer", "model", "day", "month", "endpoint", "status")
"""What usage may be grouped by."""
FOLDING = ("customer", "model", "endpoint")
"""Those whose names may be long, and are folded where there is little room."""
EVENTS = "events"
"""The unit that each event has one of."""
FIRST = ("input_tokens", "output_tokens", "total_tokens")
"""The units that are shown first."""


def day_option(name: str, text: str) -> Callable[[Command], Command]:
    """Return an option that takes a UTC day, and gives it as a ledger has it: `2026-11-01`."""

    def written(ctx: click.Context, param: click.Parameter, day: datetime | None) -> str | None:  # noqa: ARG001 - click's signature
        return None if day is None else f"{day:%Y-%m-%d}"

    day = click.DateTime(["%Y-%m-%d"])
    return click.option(name, type=day, metavar="DAY", callback=written, help=text)


def _columns(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    """Read names that are separated by commas."""
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    wrong = [name for name in names if name not in COLUMNS]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is none of: {', '.join(COLUMNS)}", ctx, param)
    return names


@click.command()
@click.option(
    "--by",
    callback=_columns,
    default="customer",
    metavar="COLUMNS",
    help=f"What to group by, separated by commas: {', '.join(COLUMNS)}. Default: customer.",
)
@day_option("--since", "The first UTC day, 2026-11-01.")
@day_option("--until", "The last UTC day.")
@click.option("--customer", "of", metavar="ID", help="Only usage of this customer.")
@click.option("--no-customer", "--unattributed", is_flag=True, help="Only usage with no customer.")
@on_destination
def usage(
    destination: Destination,
    *,
    by: tuple[str, ...],
    since: str | None,
    until: str | None,
    of: str | None,
    no_customer: bool,
    as_json: bool,
) -> None:
    """
    Show the usage that was recorded.

    Every recorded event counts, delivered or not, on the UTC day on which its call ended.

    Example: cmdrdata usage --by customer,model --since 2026-11-01
    """
    if of is not None and no_customer:
        raise click.UsageError("--customer and --no-customer exclude each other")
    found = usage_of(destination, by, since=since, until=until, customer="" if no_customer else of)
    if as_json:
        print_json(found)
    else:
        show_usage(Terminal(), found)


def usage_of(
    destination: Destination,
    by: Sequence[str],
    *,
    since: str | None = None,
    until: str | None = None,
    customer: str | None = None,
) -> Json:
    """Return what `cmdrdata usage --json` prints; a customer of null is nobody."""
    groups: dict[tuple[str | None, ...], Json] = {}
    total: Json = {}
    read = [name for name in ledger_view.COLUMNS if name in by]
    with LedgerReader(destination.directory) as ledger:
        for found in ledger.totals(by, since=since, until=until, customer=customer):
            named = dict(zip(read, found.group, strict=True))
            group = tuple(named[name] or None for name in by)
            groups.setdefault(group, {})[found.unit] = found.amount
            total[found.unit] = total.get(found.unit, 0) + found.amount
        unknown = incomplete(ledger, since=since, until=until, customer=customer)
        waiting = ledger.not_imported()
    rows = [
        {**dict(zip(by, group, strict=True)), **_counted(units)}
        for group, units in sorted(
            groups.items(), key=lambda row: [(value is None, value or "") for value in row[0]]
        )
        # Of events that were given a customer nothing is left with nobody.
        if any(units.values())
    ]
    return {
        "destination": destination.name,
        "by": list(by),
        "since": since,
        "until": until,
        "rows": rows,
        "total": _counted(total),
        "incomplete_usage": unknown,
        "not_imported": waiting,
    }


def incomplete(
    ledger: LedgerReader,
    *,
    since: str | None = None,
    until: str | None = None,
    customer: str | None = None,
) -> dict[str, int]:
    """Return how many calls reported no usage, and how many only a part of it."""
    events = {
        found.group[0]: int(found.amount)
        for found in ledger.totals(["status"], since=since, until=until, customer=customer)
        if found.unit == EVENTS
    }
    return {status: events.get(status, 0) for status in ("missing", "partial")}


def _counted(units: Json) -> Json:
    return {
        EVENTS: units.get(EVENTS, 0),
        "units": {unit: units[unit] for unit in _ordered(units) if units[unit]},
    }


def _ordered(units: Json) -> list[str]:
    """Return the names of units, those that all have first."""
    rest = sorted(set(units) - {EVENTS, *FIRST})
    return [unit for unit in FIRST if unit in units] + rest


def show_usage(console: Console, found: Json) -> None:
    """Show a reader what was used, as far as there is room for it."""
    if not found["rows"]:
        console.print(
            cell(f"No usage recorded for {found['destination']} with these filters."),
            soft_wrap=True,
        )
    else:
        units = _ordered(found["total"]["units"])
        shown_table, shown = _fitting(console, found, units)
        console.print(shown_table)
        if left := [unit.replace("_", " ") for unit in units if unit not in shown]:
            console.print()
            console.print(cell(f"Not shown: {', '.join(left)}. Use a wider terminal or --json."))
        _show_incomplete(console, found["incomplete_usage"])
    if found["not_imported"]:
        console.print()
        more = plural(found["not_imported"], "more event")
        console.print(f"Not counted yet: {more}, recorded just now.")


def _show_incomplete(console: Console, calls: dict[str, int]) -> None:
    """Show for how many calls the usage is unknown, or known only in part: the totals are too low then."""
    known = [
        f"{plural(calls[status], 'call')} reported {what}"
        for status, what in (("missing", "no usage"), ("partial", "usage only in part"))
        if calls[status]
    ]
    if known:
        console.print()
        console.print(
            f"Totals are too low: {', '.join(known)}. To see which: --by endpoint,model,status"
        )


def _fitting(console: Console, found: Json, units: list[str]) -> tuple[Table, list[str]]:
    """Return a table with as many of the units as there is room for, and these; beside folded names two at most."""
    room = console.options.update(max_width=10_000)

    def spare(shown: Table) -> int:
        return console.width - console.measure(shown, options=room).maximum

    for count in range(len(units), 0, -1):
        shown = _table(found, units[:count])
        if spare(shown) >= 0:
            return shown, units[:count]
    for count in (2, 1, 0):
        left = spare(_table(found, units[:count], fold=0))
        if left >= 0:
            break
    # What is left is for the names; rich would take it from the numbers.
    share = max(left, 0) // max(1, len(set(found["by"]) & set(FOLDING)))
    return _table(found, units[:count], fold=share), units[:count]


def _table(found: Json, units: list[str], *, fold: int | None = None) -> Table:
    """
    Return the table.

    Args:
        found: what was used.
        units: the units to show.
        fold: how much longer than its head a folded name may be; None folds none.
    """
    by = found["by"]
    shown = table()
    for name in by:
        # The others are of one short word each, which is not to be broken.
        folds = name in FOLDING
        shown.add_column(
            name.capitalize(),
            overflow="fold",
            no_wrap=not folds,
            min_width=len(name),
            max_width=len(name) + fold if folds and fold is not None else None,
        )
    for unit in (EVENTS, *units):
        shown.add_column(_heading(unit), justify="right", no_wrap=True)
    for row in found["rows"]:
        shown.add_row(*(_cell(name, row[name]) for name in by), *_amounts(row, units))
    if len(found["rows"]) > 1:
        shown.add_section()
        first = Text("Total", style="bold")
        shown.add_row(first, *[""] * (len(by) - 1), *_amounts(found["total"], units))
    return shown


def _heading(unit: str) -> Text:
    """Return the name of a unit in lines so short that most numbers are as long."""
    return Text("\n".join(textwrap.wrap(plain(unit.replace("_", " ").capitalize()), 11)))


def _cell(name: str, value: str | None) -> Text:
    return customer(value) if name == "customer" else cell(value)


def _amounts(row: Json, units: list[str]) -> list[str]:
    amounts = [row[EVENTS], *(row["units"].get(unit, 0) for unit in units)]
    return [number(amount) for amount in amounts]
