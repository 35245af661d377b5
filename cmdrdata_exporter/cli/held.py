"""`cmdrdata held`: events that wait for a person's decision."""

from __future__ import annotations

import click

from cmdrdata_exporter.cli.kept_events import add_commands


@click.group()
def held() -> None:
    """
    See events that wait for you.

    Those without a customer are released by cmdrdata assign, those that may have been accepted
    (ambiguous) by cmdrdata replay.

    Example: cmdrdata held list
    """


add_commands(held, "held", "held event")
