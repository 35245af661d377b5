"""The ledger of a fleet, as the commands take it for a destination. Needs the extra `fleet`."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import psycopg

from cmdrdata_exporter.cli.destination import Refusal
from cmdrdata_exporter.delivery.usage import UnreadableError
from cmdrdata_exporter.fleet.connection import UnusableUrlError, name_of
from cmdrdata_exporter.fleet.events_view import FleetEvents
from cmdrdata_exporter.fleet.store import FleetLedger
from cmdrdata_exporter.fleet.view import FleetReader


class FleetPlace:
    """
    The ledger of a fleet. See `Place`.

    Args:
        url: of its database. It is never shown: it may have a password.
        name: by which it is called.
    """

    knows_jobs = False
    """Each host has those that it began."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self.name = name

    @classmethod
    def of(cls, url: str) -> FleetPlace:
        """
        Return the ledger of a URL.

        Raises:
            Refusal: it is no URL of a database.
        """
        try:
            return cls(url, name_of(url))
        except UnusableUrlError as error:
            raise Refusal(str(error)) from None

    @functools.cached_property
    def forwards(self) -> bool:
        """Whether gateways send its events on."""
        with self.ledger() as ledger:
            return bool(ledger.facts().get("forwards"))

    @property
    def settles_as(self) -> str:
        """See `Place`."""
        return "delivered" if self.forwards else "local"

    def ledger(self) -> FleetReader:
        """See `Place`."""
        return FleetReader(self._url)

    def events(self) -> FleetEvents:
        """See `Place`."""
        return FleetEvents(self._url)

    def change(self, action: str, keys: Sequence[bytes], customer: str | None) -> tuple[int, bool]:
        """See `Place`. It is done at once, for events that are as they were when they were chosen."""
        with self.ledger():
            pass  # A command makes no tables.
        ledger = FleetLedger(self._url, forwards=self.forwards)
        try:
            return ledger.apply(action, keys, customer), True
        except psycopg.Error as error:
            said = " ".join(str(error).split())
            raise UnreadableError(
                f"the fleet's ledger at {self.name} cannot be changed: {said}"
            ) from None
        finally:
            ledger.close()

    def who_sends(self) -> str | None:
        """See `Place`."""
        return "A gateway sends them as soon as it can." if self.forwards else None
