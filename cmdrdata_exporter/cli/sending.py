"""How `flush` and `drain` deliver: as the application does, in its place or beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from cmdrdata_exporter import runtime
from cmdrdata_exporter.cli.destination import (
    Refusal,
    all_of,
    of_account,
    prepared,
    require_owner,
    settings_of,
    spool_path,
)
from cmdrdata_exporter.cli.states import UNSENT, word
from cmdrdata_exporter.cli.terminal import ATTENTION, Json, plural, print_json, say
from cmdrdata_exporter.delivery.destination import Destination
from cmdrdata_exporter.delivery.drainer import Options
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.directory import LOCAL, Directory
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader

LEFT = (*UNSENT, "held", "dead")
"""The states of events that `flush` may leave."""


def delivery_of(spool: Path | None, name: str | None) -> tuple[DurableDelivery, str]:
    """
    Return the delivery of the environment's destination, and what to call that.

    Args:
        spool: the spool directory; None is that of the environment.
        name: the destination's name, or its account where no other has it; None is that of the environment, if
            anything can be sent there.

    Raises:
        Refusal: there is no key and no endpoint here, or the directory cannot be used.
    """
    path = spool_path(spool)
    target, settings, description = Destination(), None, LOCAL
    if name != LOCAL:
        settings = settings_of(path)
        own = settings.target.name
        if own == LOCAL:
            raise Refusal(
                "neither CMDRDATA_API_KEY nor CMDRDATA_ENDPOINT is set, so nothing can be sent. "
                f"Set them as for the application. For events that stay on this host: --destination {LOCAL}"
            )
        others = [
            other for other in of_account(all_of(path), settings.account) if other.name != own
        ]
        if name == settings.account and not others:
            name = own
        if name not in (None, own):
            raise Refusal(
                f"this environment has the key of {own}, not of {name!r}: "
                "set the key, endpoint and account of that destination"
            )
        target, description = settings.target, settings.destination
    if path.exists():
        require_owner(path)
    # It reports where OpenTelemetry is set up: by `opentelemetry-instrument cmdrdata drain`.
    telemetry = runtime.process.telemetry(target)
    how = Options(post=None) if settings is None else runtime.options(settings, telemetry)
    how = replace(how, drains=True, stays=True)
    delivery = DurableDelivery(prepared(path, *target), how)
    telemetry.watch(delivery)
    return delivery, description


def left(directory: Directory) -> Json:
    """Return how many events of a destination are in each state."""
    with LedgerReader(directory) as ledger:
        counts = ledger.counts()
    return {name: counts[name] for name in ("delivered", *LEFT)}


def report(before: Json, after: Json, why: str | None, as_json: bool) -> None:
    """Print what was delivered and what is left; exit with a status that says whether events are left to send."""
    delivered = after["delivered"] - before["delivered"]
    unsent = any(after[name] for name in UNSENT)
    if as_json:
        remaining = {name: after[name] for name in LEFT}
        print_json({"delivered": delivered, "left": remaining, "reason": why})
    else:
        remaining = ", ".join(f"{after[name]:,} {word(name)}" for name in LEFT)
        say(f"{plural(delivered, 'event')} delivered. Left: {remaining}.")
        if unsent and why:
            say(f"Blocked by: {why}. All events are kept.")
    if unsent:
        click.get_current_context().exit(ATTENTION)
