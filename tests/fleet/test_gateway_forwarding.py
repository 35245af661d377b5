"""The thread that sends events on: it leaves alone what others may have in flight, and says what it noted too late."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from cmdrdata_exporter.delivery import Handed, Outcome, Verdict
from cmdrdata_exporter.fleet.gateway import forwarding
from cmdrdata_exporter.fleet.gateway.forwarding import Forwarding
from cmdrdata_exporter.fleet.gateway.watching import Counts

EVENT = Handed(1, b"key", "id", b"{}", 0, 0)


class Ledger:
    """A ledger that has one event, and says that what came of it came too late; once it may be away."""

    def __init__(self, *, away: bool = False) -> None:
        self._away = away
        self.did: list[str] = []
        self.noted = threading.Event()
        self.recovered = threading.Event()

    def claim(self, limit: int) -> list[Handed]:
        """Hand the event out, once."""
        assert limit > 0
        self.did.append("claim")
        return [EVENT] if self.did.count("claim") == 1 else []

    def record_outcomes(self, outcomes: Sequence[tuple[Handed, Outcome | None]]) -> int:
        """Be away the first time."""
        self.did.append("outcomes")
        if self._away and self.did.count("outcomes") == 1:
            raise psycopg.OperationalError("the ledger is away")
        self.noted.set()
        return len(outcomes)

    def recover(self) -> int:
        """Find nothing."""
        self.did.append("recover")
        self.recovered.set()
        return 0

    def close(self) -> None:
        """Do nothing."""


def start(ledger: Ledger, counts: Counts) -> Forwarding:
    """Start the thread."""

    def post(*_: object) -> Outcome:
        return Outcome(Verdict.DELIVERED, "200")

    opened: Any = lambda: ledger  # noqa: E731
    running = Forwarding(opened, post, counts)
    running.start()
    return running


def test_outcomes_are_noted_before_others_are_taken_back() -> None:
    """After the ledger was away nothing is taken back at once: others have to say first what came of theirs, too."""
    ledger, counts = Ledger(away=True), Counts()
    running = start(ledger, counts)
    assert ledger.noted.wait(30)
    assert running.stop(30)
    assert ledger.did[:3] == ["claim", "outcomes", "outcomes"]
    assert "recover" not in ledger.did
    assert "cmdrdata_gateway_outcomes_late_total 1\n" in counts.text({})


def test_what_the_dead_had_in_flight_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then it looks for what a gateway had in flight that has died."""
    monkeypatch.setattr(forwarding, "RECOVER", 0.0)
    ledger = Ledger()
    running = start(ledger, Counts())
    assert ledger.recovered.wait(30)
    assert running.stop(30)
