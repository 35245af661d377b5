"""The thread that looks after the ledger: what it cannot do it does later, and nothing else waits for it."""

from __future__ import annotations

import threading

import psycopg
import pytest

from cmdrdata_exporter.fleet.gateway.upkeep import Upkeep
from cmdrdata_exporter.fleet.gateway.watching import Counts


class Untidy:
    """A ledger of which nothing can be removed until it is opened again."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.opened = 0

    def open(self) -> Untidy:
        """Open it."""
        self.opened += 1
        return self

    def tidy(self) -> bool:
        """Fail the first time, and have two parts to do the second time."""
        self.asked.release()
        if self.opened == 1:
            raise psycopg.errors.InsufficientPrivilege("must be owner of table")
        self.opened += 1
        return self.opened == 3

    def close(self) -> None:
        """Do nothing."""


def test_a_ledger_that_cannot_be_tidied(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be removed is tried again, is counted, and keeps the thread from nothing."""
    monkeypatch.setattr("cmdrdata_exporter.fleet.gateway.upkeep.TIDY", 0.01)
    ledger, counts = Untidy(), Counts()
    upkeep = Upkeep(ledger.open, counts)  # pyright: ignore[reportArgumentType] - in its place
    upkeep.start()
    for _ in range(3):
        assert ledger.asked.acquire(timeout=30)
    assert upkeep.stop(30)
    assert 'cmdrdata_gateway_failures_total{part="upkeep"} 1\n' in counts.text({})
