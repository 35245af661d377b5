"""`cmdrdata assign`: a customer for events that have none."""

from __future__ import annotations

import json

import click

from cmdrdata_exporter.cli.changes import by_ids, change, events_in, metadata_of, report
from cmdrdata_exporter.cli.days import day_option
from cmdrdata_exporter.cli.destination import Place, on_place
from cmdrdata_exporter.cli.states import HELD_EVENT, NO_CUSTOMER
from cmdrdata_exporter.delivery.spool.kept import Kept
from cmdrdata_exporter.ids import as_written, complaint


@click.command()
@click.option("--customer", required=True, metavar="ID", help="Who pays for them.")
@click.argument("event_ids", metavar="[EVENT_ID]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every event with no customer.")
@click.option("--model", metavar="MODEL", help="Events of this model.")
@day_option("--since", "Events of this UTC day and later.")
@click.option(
    "--refused-value",
    metavar="VALUE",
    help="Events whose customer was refused: the value that was named, a number or a text.",
)
@click.option(
    "--call-site",
    metavar="PLACE",
    help="Events of calls that are made here: a file, FILE:LINE, or the whole place as held list shows it.",
)
@click.option(
    "--metadata",
    metavar="KEY=VALUE",
    multiple=True,
    help="Events with this in their metadata. Repeat it to require several.",
)
@on_place
def assign(
    destination: Place,
    *,
    customer: str,
    event_ids: tuple[str, ...],
    all_: bool,
    model: str | None,
    since: str | None,
    refused_value: str | None,
    call_site: str | None,
    metadata: tuple[str, ...],
    as_json: bool,
) -> None:
    """
    Give held events a customer, and send them.

    Choose events by their ids (cmdrdata held list), by conditions, or all with --all.

    Example: cmdrdata assign --customer acme --model gpt-5-mini --since 2026-11-01
    """
    if message := complaint("--customer", customer):
        raise click.UsageError(message)
    if customer != customer.strip():
        click.echo(
            "Note: --customer begins or ends with a blank, which makes it another customer.",
            err=True,
        )
    pairs = [_pair(text) for text in metadata]
    conditions = (model, since, refused_value, call_site, *pairs)
    if bool(event_ids) + all_ + any(condition is not None for condition in conditions) != 1:
        raise click.UsageError(
            "choose the events by their ids, by --model, --since, --refused-value, --call-site and --metadata, "
            "or all of them with --all"
        )
    waiting = (event for event in events_in(destination, "held") if event.reason == NO_CUSTOMER)
    if event_ids:
        waiting = by_ids(waiting, event_ids, HELD_EVENT)
    elif not all_:
        waiting = (
            e for e in waiting if _fits(e, model, since, refused_value, pairs, call_site=call_site)
        )
    found = change(destination, "assign", [event.key for event in waiting], customer)
    report(destination, found, HELD_EVENT, all_=all_, as_json=as_json, more={"customer": customer})


def _pair(text: str) -> tuple[str, str]:
    """Return the key and the value of a `--metadata`."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise click.UsageError(
            f"--metadata is {key!r}; expected is KEY=VALUE, plan=pro for instance"
        )
    return key, value


def _fits(
    event: Kept,
    model: str | None,
    since: str | None,
    refused_value: str | None,
    pairs: list[tuple[str, str]],
    *,
    call_site: str | None,
) -> bool:
    """Say whether an event meets every condition that is given; a damaged one meets none."""
    if event.event is None:
        return False
    header, metadata = event.event.header, metadata_of(event)
    # A refused number is given as it is, a refused text with or without its quotes.
    return (
        model in (None, header.model)
        and (since is None or header.day >= since)
        and (
            refused_value is None
            or metadata.get("customer_refused_value") in (refused_value, as_written(refused_value))
        )
        and (call_site is None or _is_at(metadata.get("call_site"), call_site))
        and all(key in metadata and value == _text(metadata[key]) for key, value in pairs)
    )


def _is_at(site: object, place: str) -> bool:
    """Say whether a call site, `shop/chat.py:42 Bot.answer`, is at a place: that itself, its line or its file."""
    return site == place or str(site).startswith((f"{place}:", f"{place} "))


def _text(value: object) -> str:
    """Return a value of the metadata as the option gives it: a text as it is, all else as in JSON."""
    return value if isinstance(value, str) else json.dumps(value)
