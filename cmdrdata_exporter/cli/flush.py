"""`cmdrdata flush`: deliver pending events now."""

from __future__ import annotations

import time
from pathlib import Path

import click

from cmdrdata_exporter import clocks
from cmdrdata_exporter.cli.destination import location_options, no_ledger_option
from cmdrdata_exporter.cli.sending import delivery_of, left, report
from cmdrdata_exporter.cli.states import UNSENT
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.usage import UnreadableError

LOOK = 0.05
"""Seconds between two looks at what is left."""


@click.command()
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.0, max=86_400.0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="The longest that it may take.",
)
@location_options
@no_ledger_option
def flush(timeout: float, name: str | None, spool: Path | None, as_json: bool) -> None:
    """
    Deliver pending events now, and show what is left.

    Sends them itself, with the settings of the application, or waits for the process that already
    does. Exits with status 1 if events are left to send.

    Example: cmdrdata flush --timeout 60
    """
    deadline = clocks.monotonic() + timeout
    delivery, _ = delivery_of(spool, name)
    before = left(delivery.directory)
    delivery.start()
    try:
        why = _wait(delivery, deadline)
    finally:
        delivery.close(max(0.0, deadline - clocks.monotonic()) if timeout else 0.0)
    report(before, left(delivery.directory), why, as_json)


def _wait(delivery: DurableDelivery, deadline: float) -> str | None:
    """Wait until nothing is left to send or waiting is in vain; return what blocks the rest."""
    gate = delivery.drainer.gate
    while True:
        why = gate.reason
        remaining = deadline - clocks.monotonic()
        try:
            with LedgerReader(delivery.directory) as ledger:
                counts = ledger.counts()
                facts = ledger.facts()
            if not sum(counts[state] for state in UNSENT):
                return None
            leader = delivery.directory.leader()
            if not delivery.drainer.leads and leader and leader == facts.get("pid"):
                why = facts["reason"]
                if facts["paused"] and facts["next_attempt"] >= clocks.wall() + remaining:
                    return f"the leader, process {leader}, is paused: {why}"
        except UnreadableError as error:
            why = str(error)
        hopeless = delivery.drainer.leads and (gate.paused or gate.delay() >= remaining)
        if remaining <= 0 or hopeless:
            # It may have been paused since it was asked.
            return why or gate.reason or "the timeout"
        time.sleep(min(LOOK, remaining))
