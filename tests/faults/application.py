"""An application in this process: it records events as an exporter does, and knows which."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cmdrdata_exporter import runtime
from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import Command, encode_command, key_of
from cmdrdata_exporter.settings import Settings
from cmdrdata_exporter.telemetry import Telemetry
from tests.faults.oracle import PATIENCE, Oracle

if TYPE_CHECKING:
    from typing_extensions import Self

KEY = "tk-0123456789abcdefghij"
ACME = Header("acme", "gpt-4.1", "chat.completions", "reported", {"total_tokens": 7}, "2026-11-21")
FATES = ("delivered", "local", "pending", "in_flight", "held", "dead", "dropped")
"""What becomes of an event: where it is, or was last."""
_LOOK = 0.01
"""Seconds between two looks at a ledger, which tells nobody when it changes."""


class Application:
    """
    What meters in this process; use it as a context manager.

    Args:
        spool: where events are kept.
        url: the endpoint.
        variables: of the environment, beside those.
    """

    def __init__(self, spool: Path, url: str, **variables: str) -> None:
        settings = Settings.read(
            {
                "CMDRDATA_API_KEY": KEY,
                "CMDRDATA_ENDPOINT": url,
                "CMDRDATA_SPOOL_DIR": str(spool),
                **variables,
            }
        )
        delivery = runtime.build(settings, Telemetry(settings.endpoint, settings.account))
        assert isinstance(delivery, DurableDelivery)
        self.delivery = delivery
        self.directory = delivery.directory
        self.ids: list[str] = []
        """The events whose `record` has returned, in order."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.delivery.close(0)

    def call(self, number: int = 1) -> list[str]:
        """Meter so many calls; return the ids of their events."""
        ids = [os.urandom(16).hex() for _ in range(number)]
        self.record(*ids)
        return ids

    def record(self, *ids: str) -> None:
        """Record events."""
        for event_id in ids:
            self.delivery.record(event_id, ACME, body_of(event_id))
            self.ids.append(event_id)

    def command(self, action: str, *ids: str) -> None:
        """Ask for something to be done with events, as the command line does."""
        journal = Journal(self.directory)
        journal.append(encode_command(Command(action, tuple(map(key_of, ids)))))
        journal.seal()
        self.delivery.drainer.wake()

    def counts(self) -> dict[str, int]:
        """Return how many events are in each state."""
        return balanced(self.directory)

    def kept(self, state: str) -> dict[str, str | None]:
        """Return the events in a state, each with the reason for it."""
        with LedgerReader(self.directory) as ledger:
            return {each.event.id: each.reason for each in ledger.kept(state) if each.event}

    def wait_for(self, timeout: float = PATIENCE, **numbers: int) -> None:
        """Wait until so many events are in some states."""

        def found() -> dict[str, int]:
            counts = self.counts()
            return {name: counts[name] for name in numbers}

        until(lambda: found() == numbers, timeout, found)

    def settled(self, oracle: Oracle, **others: int) -> None:
        """
        Wait until every event is delivered but for those named, and check the account.

        Args:
            oracle: where it should be.
            others: how many events are in other states, and what else is counted.
        """
        elsewhere = sum(others.get(state, 0) for state in FATES)
        delivered = len(self.ids) - elsewhere
        self.wait_for(delivered=delivered, pending=0, in_flight=0)
        expected = dict.fromkeys((*FATES, "repeated", "ambiguous", "damaged"), 0)
        expected |= {"recorded": len(self.ids), "delivered": delivered, **others}
        assert expected == self.counts()
        assert set() == oracle.altered
        assert (delivered, set()) == (len(oracle.keys), oracle.keys - set(self.ids))


def body_of(event_id: str) -> bytes:
    """Return the body of an event, as long as one commonly is."""
    body = {"customer_id": "acme", "request": {"id": event_id}, "padding": "x" * 500}
    return json.dumps(body).encode()


def balanced(directory: Directory) -> dict[str, int]:
    """
    Return how many events are in each state, having checked that it is all of them.

    Recorded = delivered + local + pending + in flight + held + dead + dropped, at any instant.
    """
    with LedgerReader(directory) as ledger:
        counts = ledger.counts()
    assert counts["recorded"] == sum(counts[state] for state in FATES), counts
    return counts


def until(
    condition: Callable[[], bool],
    timeout: float = PATIENCE,
    shown: Callable[[], object] = lambda: "it did not come true",
) -> float:
    """Wait until something is true of what tells nobody when it changes. Return the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout, shown()
        time.sleep(_LOOK)
    return time.monotonic() - began
