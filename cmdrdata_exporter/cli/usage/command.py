"""The options of `cmdrdata usage`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click

from cmdrdata_exporter.cli.dashboard.report import usage_as_html
from cmdrdata_exporter.cli.days import day_option
from cmdrdata_exporter.cli.destination import Place, on_places
from cmdrdata_exporter.cli.terminal import Terminal, print_file, print_json, say
from cmdrdata_exporter.cli.usage import costs, focus
from cmdrdata_exporter.cli.usage.numbers import (
    COLUMNS,
    EVENTS,
    Question,
    columns_of,
    labels_of,
)
from cmdrdata_exporter.cli.usage.report import footnotes, show_usage
from cmdrdata_exporter.cli.usage.table import usage_as_csv
from cmdrdata_exporter.prices import PriceTable

SHORT = {"tier": "service_tier"}
"""Other names of columns."""
TAKEN = frozenset({EVENTS, "units", "unit", "amount", "cost", "cost_is_least"})
"""What rows have beside the columns: a label of such a name cannot be told from that."""


@click.command()
@click.option(
    "--by",
    "said",
    metavar="COLUMNS",
    help=f"What to group by, separated by commas: {', '.join(COLUMNS)}, or a metadata key of "
    "CMDRDATA_TOTAL_BY. Default: customer.",
)
@day_option("--since", "The first UTC day: 2026-11-01, 2026-11, yesterday, 7d, month ...")
@day_option("--until", "The last UTC day.", last=True)
@click.option("--customer", "of", metavar="ID", help="Only usage of this customer.")
@click.option("--no-customer", "--unattributed", is_flag=True, help="Only usage with no customer.")
@click.option(
    "--only",
    type=click.Choice(["billed"]),
    help="Leave out usage of events that were not delivered: pending, in flight, held, dead, dropped.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print one line per group and unit instead.")
@click.option(
    "--focus", "as_focus", is_flag=True, help="Print FOCUS 1.2, as CSV for finance tools."
)
@click.option(
    "--html",
    "html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a report to look at or to mail, with plots, as one file.",
)
@click.option("--cost", "with_cost", is_flag=True, help="Show what it costs, too, in US dollars.")
@costs.prices_option("With --cost: prices")
@on_places
def usage(
    destinations: Sequence[Place],
    *,
    said: str | None,
    since: str | None,
    until: str | None,
    of: str | None,
    no_customer: bool,
    only: str | None,
    as_csv: bool,
    as_focus: bool,
    html: Path | None,
    with_cost: bool,
    price_file: Path | None,
    as_json: bool,
) -> None:
    """
    Show the usage that was recorded.

    Every recorded event counts, delivered or not, on the UTC day on which its call ended.

    Example: cmdrdata usage --by customer,model --since 7d
    """
    if of is not None and no_customer:
        raise click.UsageError("--customer and --no-customer exclude each other")
    if as_csv + as_focus + as_json + (html is not None) > 1:
        raise click.UsageError("--csv, --focus, --html and --json exclude each other")
    if as_focus and said is not None:
        raise click.UsageError("--focus has columns of its own: leave --by away")
    if price_file is not None and not with_cost:
        raise click.UsageError("--prices has an effect only with --cost")
    prices = costs.load(price_file) if with_cost else None
    question = Question(since, until, "" if no_customer else of, billed=only is not None)
    if as_focus:
        _print_focus(destinations, question, prices)
        return
    by = chosen_columns(said or "customer", destinations)
    # A plot is by day, too.
    columns = by if html is None else tuple(dict.fromkeys((*by, "day")))
    numbers = costs.read_priced(destinations, columns, question, prices)
    found = costs.priced(numbers, by, question, prices)
    if as_json:
        print_json(found)
    elif as_csv:
        print_file(usage_as_csv(found))
        _say_notes(footnotes(found))
    elif html is not None:
        by_day = costs.priced(numbers, columns, question, prices)
        report = usage_as_html(found, by_day, footnotes(found), time.time())
        html.write_text(report, encoding="utf-8")
        say(f"Written to {html}.")
    else:
        show_usage(Terminal(), found)


def chosen_columns(said: str, destinations: Sequence[Place]) -> tuple[str, ...]:
    """
    Return the columns that are named, separated by commas.

    Raises:
        click.BadParameter: none of the ledgers knows one of them.
    """
    known = dict.fromkeys(name for name in columns_of(destinations) if name not in TAKEN)
    names = (name.strip() for name in said.split(","))
    by = dict.fromkeys(name if name in known else SHORT.get(name, name) for name in names)
    for name in by:
        if name not in known:
            raise click.BadParameter(
                f"{name!r} is none of: {', '.join(known)}", param_hint="'--by'"
            )
    return tuple(by)


def _print_focus(
    destinations: Sequence[Place], question: Question, prices: PriceTable | None
) -> None:
    labels = labels_of(destinations)
    numbers = costs.read_priced(destinations, (*focus.FINE, *labels), question, prices)
    lines = [focus.line_of(charge) for charge in focus.charges(numbers, labels, prices)]
    print_file(focus.as_focus(lines))
    notes = footnotes(costs.priced(numbers, (), question, prices))
    if wanted := focus.wanted(lines):
        notes.append(
            f"FOCUS wants a value in columns for which none is known: {', '.join(wanted)}."
        )
    _say_notes(notes)


def _say_notes(notes: Sequence[str]) -> None:
    """Say beside a file what is to be known of it."""
    for note in notes:
        say(f"Note: {note}", err=True)
