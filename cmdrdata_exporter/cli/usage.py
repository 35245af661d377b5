"""`cmdrdata usage`: the usage that was recorded, by customer, model, day, month, endpoint and status."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cmdrdata_exporter.cli.days import day_option
from cmdrdata_exporter.cli.destination import Destination, on_destination
from cmdrdata_exporter.cli.terminal import (
    Json,
    Terminal,
    cell,
    customer,
    number,
    plain,
    plural,
    print_json,
    say,
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
@day_option("--since", "The first UTC day: 2026-11-01, 2026-11, yesterday, 7d, month ...")
@day_option("--until", "The last UTC day.", last=True)
@click.option("--customer", "of", metavar="ID", help="Only usage of this customer.")
@click.option("--no-customer", "--unattributed", is_flag=True, help="Only usage with no customer.")
@click.option("--csv", "as_csv", is_flag=True, help="Print one line per group and unit instead.")
@on_destination
def usage(
    destination: Destination,
    *,
    by: tuple[str, ...],
    since: str | None,
    until: str | None,
    of: str | None,
    no_customer: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """
    Show the usage that was recorded.

    Every recorded event counts, delivered or not, on the UTC day on which its call ended.

    Example: cmdrdata usage --by customer,model --since 7d
    """
    if of is not None and no_customer:
        raise click.UsageError("--customer and --no-customer exclude each other")
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other")
    found = usage_of(destination, by, since=since, until=until, customer="" if no_customer else of)
    if as_json:
        print_json(found)
    elif as_csv:
        click.echo(usage_as_csv(found), nl=False)
        for footnote in (too_low(found), not_counted(found)):
            if footnote is not None:
                say(f"Note: {footnote}", err=True)
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
        if (footnote := too_low(found)) is not None:
            console.print()
            console.print(footnote)
    if (footnote := not_counted(found)) is not None:
        console.print()
        console.print(footnote)


def too_low(found: Json) -> str | None:
    """Return for how many calls the usage is unknown, or known only in part: the totals are too low then."""
    known = [
        f"{plural(found['incomplete_usage'][status], 'call')} reported {what}"
        for status, what in (("missing", "no usage"), ("partial", "usage only in part"))
        if found["incomplete_usage"][status]
    ]
    if not known:
        return None
    return f"Totals are too low: {', '.join(known)}. To see which: --by endpoint,model,status"


def not_counted(found: Json) -> str | None:
    """Return how many events are not in the totals yet."""
    if not found["not_imported"]:
        return None
    return f"Not counted yet: {plural(found['not_imported'], 'more event')}, recorded just now."


def usage_as_csv(found: Json) -> str:
    """
    Return what `cmdrdata usage --csv` prints: a line for each unit of each group, `customer,model,unit,amount`.

    So a unit that nobody used before adds lines, never a column. The number of events is a unit, too; whoever has no
    customer is empty.
    """
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow([*found["by"], "unit", "amount"])
    for row in found["rows"]:
        for unit, amount in {EVENTS: row[EVENTS], **row["units"]}.items():
            lines.writerow([*(row[name] or "" for name in found["by"]), unit, amount])
    return written.getvalue()


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
