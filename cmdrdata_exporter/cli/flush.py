"""`cmdrdata flush`: deliver what waits, now."""

from __future__ import annotations

import time
from pathlib import Path

import click

from cmdrdata_exporter import clocks
from cmdrdata_exporter.cli.destination import destination_option, json_option, spool_option
from cmdrdata_exporter.cli.sending import delivery_of, left, report
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader, UnreadableError

LOOK = 0.05
"""Seconds between two looks at what is left."""


@click.command()
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.0, max=86_400.0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it may take.",
)
@destination_option
@spool_option
@json_option
def flush(timeout: float, name: str | None, spool: Path | None, as_json: bool) -> None:
    """
    Deliver what waits, and say what is left.

    Sends as the application would, with the same settings, if no process does; otherwise it waits
    for that one. Ends with status 1 if something is left to send.

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
    """Wait until nothing is left to send or waiting is in vain; say what keeps the rest."""
    gate = delivery.drainer.gate
    while True:
        why = gate.reason
        remaining = deadline - clocks.monotonic()
        try:
            with LedgerReader(delivery.directory) as ledger:
                counts = ledger.counts()
                facts = ledger.facts()
            if not counts["pending"] + counts["in_flight"]:
                return None
            leader = delivery.directory.leader()
            if not delivery.drainer.leads and leader and leader == facts.get("pid"):
                why = facts["reason"]
                if facts["paused"] and facts["next_attempt"] >= clocks.wall() + remaining:
                    return f"process {leader} leads and is paused: {why}"
        except UnreadableError as error:
            why = str(error)
        hopeless = delivery.drainer.leads and (gate.paused or gate.delay() >= remaining)
        if remaining <= 0 or hopeless:
            return why or "there was not enough time"
        time.sleep(min(LOOK, remaining))
