"""How `flush` and `drain` send: as the application does, in its place or beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from cmdrdata_exporter.cli.changes import attempt
from cmdrdata_exporter.cli.destination import Refusal, require_owner, settings_of, spool_path
from cmdrdata_exporter.cli.terminal import ATTENTION, Json, plural, print_json, say
from cmdrdata_exporter.delivery.drainer import Options
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.directory import (
    LOCAL,
    Directory,
    UnsafeDirectoryError,
    name_of,
)
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.runtime import options


def delivery_of(spool: Path | None, name: str | None) -> tuple[DurableDelivery, str]:
    """
    Return the delivery of the environment's destination, and what to call that.

    Args:
        spool: the spool directory; None is that of the environment.
        name: the destination's name; None is that of the environment, if anything can be sent there.

    Raises:
        Refusal: there is no key and no endpoint here, or the directory cannot be used.
    """
    path = spool_path(spool)
    endpoint, account, how, description = None, "default", Options(post=None), LOCAL
    if name != LOCAL:
        settings = settings_of(path)
        own = name_of(settings.endpoint, settings.account)
        if settings.endpoint is None:
            raise Refusal(
                "there is neither CMDRDATA_API_KEY nor CMDRDATA_ENDPOINT, so nothing can be sent. "
                f"Set them as for the application; --destination {LOCAL} is for events that stay here"
            )
        if name not in (None, own):
            raise Refusal(
                f"only the events of {own} can be sent with the settings of this environment, "
                f"not those of {name!r}: its key, endpoint and account are needed"
            )
        endpoint, account, description = settings.endpoint, settings.account, settings.destination
        how = options(settings)
    if path.exists():
        require_owner(path)
    try:
        directory = Directory.prepare(path, endpoint, account)
    except (UnsafeDirectoryError, OSError) as error:
        raise Refusal(f"the spool directory cannot be used: {error}") from None
    return DurableDelivery(directory, replace(how, drains=True, stays=True)), description


def left(directory: Directory) -> Json:
    """Return where the events of a destination are."""

    def read() -> dict[str, int]:
        with LedgerReader(directory) as ledger:
            return ledger.counts()

    counts = attempt(read)
    return {name: counts[name] for name in ("delivered", "pending", "in_flight", "held", "dead")}


def report(before: Json, after: Json, why: str | None, as_json: bool) -> None:
    """Say what was delivered and what is left, and end with a status that says whether anything is."""
    waiting = after["pending"] + after["in_flight"]
    delivered = after["delivered"] - before["delivered"]
    if as_json:
        print_json(
            {
                "delivered": delivered,
                "left": {name: after[name] for name in ("pending", "in_flight", "held", "dead")},
                "reason": why,
            }
        )
    else:
        rest = [
            plural(waiting, "event") + " to send",
            f"{after['held']:,} held",
            plural(after["dead"], "dead letter"),
        ]
        say(f"{plural(delivered, 'event')} delivered. Left: {', '.join(rest)}.")
        if waiting and why:
            say(f"Blocked by: {why}. All events are kept.")
    if waiting:
        click.get_current_context().exit(ATTENTION)
