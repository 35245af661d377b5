"""The thread that looks after the ledger sends events, whatever else fails."""

from __future__ import annotations

import threading
from typing import Any

import psycopg

from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.fleet.gateway.forwarding import Forwarding
from cmdrdata_exporter.fleet.gateway.watching import Counts


class Untidy:
    """A ledger of which nothing can be removed."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def tidy(self) -> None:
        """Fail."""
        raise psycopg.errors.InsufficientPrivilege("must be owner of table")

    def recover(self) -> int:
        """Find nothing."""
        return 0

    def claim(self, limit: int) -> list[Any]:
        """Have nothing to send."""
        del limit
        self.asked.set()
        return []

    def close(self) -> None:
        """Do nothing."""


def test_a_ledger_that_cannot_be_tidied() -> None:
    """Events are sent though what is old cannot be removed."""
    ledger = Untidy()

    def post(*_: object) -> Outcome:
        return Outcome(Verdict.DELIVERED, "200")

    forwarding = Forwarding(lambda: ledger, post, Counts())  # pyright: ignore[reportArgumentType] - in its place
    forwarding.start()
    assert ledger.asked.wait(30)
    assert forwarding.stop(30)
