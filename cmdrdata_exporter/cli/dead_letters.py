"""`cmdrdata dead-letters`: events that were given up, listed, shown and dropped."""

from __future__ import annotations

import click

from cmdrdata_exporter.cli.changes import by_ids, change, kept, report
from cmdrdata_exporter.cli.destination import Destination, on_destination
from cmdrdata_exporter.cli.kept_events import add_commands

NOUN = "dead letter"


@click.group("dead-letters")
def dead_letters() -> None:
    """
    See events that the backend refused, or that were given up.

    They stay until they are sent again (cmdrdata replay) or dropped.

    Example: cmdrdata dead-letters list
    """


@click.command()
@click.argument("event_ids", metavar="ID...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every one; needs --yes.")
@click.option("--yes", is_flag=True, help="Yes, their usage is never to be billed.")
@on_destination
def drop(
    destination: Destination, event_ids: tuple[str, ...], all_: bool, yes: bool, as_json: bool
) -> None:
    """
    Give dead letters up for good: their usage is never billed.

    Example: cmdrdata dead-letters drop 5f3a9c01d2e4
    """
    if all_ == bool(event_ids):
        raise click.UsageError("name the dead letters by their ids, or all of them with --all")
    if all_ and not yes:
        raise click.UsageError(
            "--all gives up every dead letter for good; if that is meant, add --yes"
        )
    dead = kept(destination, "dead")
    selected = dead if all_ else by_ids(dead, event_ids, NOUN)
    keys = [event.key for event in selected]
    found = change(destination, "drop", keys)
    report(destination, found, "dropped", NOUN, as_json=as_json)


add_commands(dead_letters, "dead", NOUN)
dead_letters.add_command(drop)
