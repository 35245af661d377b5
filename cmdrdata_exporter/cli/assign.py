"""`cmdrdata assign`: a customer for events that have none."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime

import click

from cmdrdata_exporter.cli.changes import by_ids, change, kept, metadata_of, report
from cmdrdata_exporter.cli.destination import Destination, on_destination
from cmdrdata_exporter.cli.usage import DAY, day_of
from cmdrdata_exporter.delivery.spool.ledger_view import Kept
from cmdrdata_exporter.delivery.spool.schema import UNATTRIBUTED
from cmdrdata_exporter.ids import as_written, complaint

NOUN = "unattributed event"


@click.command()
@click.option("--customer", required=True, metavar="ID", help="Who pays for them.")
@click.argument("event_ids", metavar="[EVENT_ID]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every event without a customer.")
@click.option("--model", metavar="MODEL", help="Those of this model.")
@click.option("--since", type=DAY, metavar="DAY", help="Those of this UTC day and later ones.")
@click.option(
    "--refused-value",
    metavar="VALUE",
    help="Those for which this was named, and refused: a number or a text.",
)
@click.option("--call-site", metavar="PLACE", help="Those of this place in the application.")
@click.option(
    "--metadata",
    metavar="KEY=VALUE",
    multiple=True,
    help="Those with this in their metadata; more than one time, with all of it.",
)
@on_destination
def assign(
    destination: Destination,
    *,
    customer: str,
    event_ids: tuple[str, ...],
    all_: bool,
    model: str | None,
    since: datetime | None,
    refused_value: str | None,
    call_site: str | None,
    metadata: tuple[str, ...],
    as_json: bool,
) -> None:
    """
    Give held events a customer; they are sent then.

    Choose them by their ids (cmdrdata held list), by what they have in common, or --all.

    Example: cmdrdata assign --customer acme --model gpt-5-mini --since 2026-11-01
    """
    if message := complaint("--customer", customer):
        raise click.UsageError(message)
    if customer != customer.strip():
        click.echo(
            "--customer has blanks at its begin or end: that is another customer than without them.",
            err=True,
        )
    conditions = _conditions(model, day_of(since), refused_value, call_site, metadata)
    if bool(event_ids) + all_ + bool(conditions) != 1:
        raise click.UsageError(
            "choose the events by their ids, by --model, --since, --refused-value, --call-site and --metadata, "
            "or all of them with --all"
        )
    waiting = (event for event in kept(destination, "held") if event.reason == UNATTRIBUTED)
    selected = (
        by_ids(waiting, event_ids, NOUN)
        if event_ids
        else (event for event in waiting if all(holds(event) for holds in conditions))
    )
    keys = [event.key for event in selected]
    found = change(destination, "assign", keys, customer)
    report(destination, found, "assigned", NOUN, as_json=as_json, more={"customer": customer})


def _conditions(
    model: str | None,
    since: str | None,
    refused_value: str | None,
    call_site: str | None,
    metadata: tuple[str, ...],
) -> list[Callable[[Kept], bool]]:
    """
    Return what is asked of an event, each as a function that says whether that holds.

    Raises:
        click.UsageError: a pair of metadata is none.
    """
    conditions: list[Callable[[Kept], bool]] = []
    if model is not None:
        conditions.append(lambda kept: kept.event is not None and kept.event.header.model == model)
    if since is not None:
        conditions.append(lambda kept: kept.event is not None and kept.event.header.day >= since)
    if refused_value is not None:
        # A number as it is, a text as it is or in its quotes.
        written = {refused_value, as_written(refused_value)}
        conditions.append(lambda kept: metadata_of(kept).get("customer_refused_value") in written)
    pairs = [pair.partition("=") for pair in metadata]
    if call_site is not None:
        pairs.append(("call_site", "=", call_site))
    for key, equals, value in pairs:
        if not (key and equals):
            raise click.UsageError(
                f"--metadata is {key!r}; expected is KEY=VALUE, plan=pro for instance"
            )
        conditions.append(_has(key, value))
    return conditions


def _has(key: str, value: str) -> Callable[[Kept], bool]:
    """Return what says whether an event has a value in its metadata: a text as it is, all else as JSON has it."""

    def has(kept: Kept) -> bool:
        metadata = metadata_of(kept)
        if key not in metadata:
            return False
        found = metadata[key]
        return value == (found if isinstance(found, str) else json.dumps(found))

    return has
