"""`cmdrdata assign`: a customer for events that have none."""

from __future__ import annotations

from datetime import datetime

import click

from cmdrdata_exporter.cli.changes import by_ids, change, kept, report
from cmdrdata_exporter.cli.destination import Destination, on_destination
from cmdrdata_exporter.cli.usage import DAY, day_of
from cmdrdata_exporter.delivery.ledger import UNATTRIBUTED
from cmdrdata_exporter.delivery.reading import Kept
from cmdrdata_exporter.ids import LONGEST, refusal

NOUN = "unattributed event"


@click.command()
@click.option("--customer", required=True, metavar="ID", help="Who pays for them.")
@click.argument("event_ids", metavar="[EVENT_ID]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every event without a customer.")
@click.option("--model", metavar="MODEL", help="Those of this model.")
@click.option("--since", type=DAY, metavar="DAY", help="Those of this UTC day and later ones.")
@on_destination
def assign(
    destination: Destination,
    *,
    customer: str,
    event_ids: tuple[str, ...],
    all_: bool,
    model: str | None,
    since: datetime | None,
    as_json: bool,
) -> None:
    """
    Give held events a customer; they are sent then.

    Choose them by their ids (cmdrdata held list), by --model and --since, or --all.

    Example: cmdrdata assign --customer acme --model gpt-5-mini --since 2026-11-01
    """
    if problem := refusal(customer):
        verb = "" if problem.startswith("holds") else "is "
        raise click.UsageError(
            f"--customer {verb}{problem}; expected are 1 to {LONGEST} characters, "
            "none of them a control character"
        )
    chosen = bool(event_ids) + all_ + (model is not None or since is not None)
    if chosen != 1:
        raise click.UsageError(
            "choose the events by their ids, by --model and --since, or all of them with --all"
        )
    waiting = (event for event in kept(destination, "held") if event.reason == UNATTRIBUTED)
    selected = (
        by_ids(waiting, event_ids, NOUN)
        if event_ids
        else (event for event in waiting if all_ or _is_of(event, model, day_of(since)))
    )
    keys = [event.key for event in selected]
    found = change(destination, "assign", keys, customer)
    report(destination, found, "assigned", NOUN, as_json=as_json, more={"customer": customer})


def _is_of(kept: Kept, model: str | None, since: str | None) -> bool:
    """Say whether an event is of a model and of a day or later, as far as these are asked for."""
    if kept.event is None:
        return False
    header = kept.event.header
    return model in (None, header.model) and header.day >= (since or "")
