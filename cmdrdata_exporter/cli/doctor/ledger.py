"""Check of the ledger of a fleet: whether it can be read, and what in it needs a person."""

from __future__ import annotations

from collections.abc import Iterator

from cmdrdata_exporter.cli.destination import Place
from cmdrdata_exporter.cli.doctor.findings import WARNING, Finding, finding_of


def check(place: Place) -> Iterator[Finding]:
    """Yield what is wrong with a ledger."""
    # Only now: what it needs is an extra.
    from cmdrdata_exporter.cli.fleet_status import status_of

    [found] = status_of(place)["destinations"]
    for kind, text in found["needs"].items():
        if kind == "unreadable":
            yield Finding.error(
                "ledger-unreadable",
                f"{text[:1].upper()}{text[1:]}.",
                "Check the URL, who may connect, and whether a gateway has made the tables.",
            )
        else:
            yield finding_of("needs-you", WARNING, f"Ledger {place.name}: {text}", ": ")
