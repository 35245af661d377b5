"""What a gateway asks of the ledger of a fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cmdrdata_exporter.delivery import Handed, Outcome
from cmdrdata_exporter.fleet.arrivals import Arrival, HostReport, Position


class Ledger(Protocol):
    """The ledger, by a connection of its own. `FleetLedger` is one."""

    def store(self, arrivals: Sequence[Arrival], positions: Sequence[Position] = ()) -> int:
        """Store events, each id once, and positions, in one transaction; return how many were new."""
        ...

    def positions(self, group: str, topic: str) -> Mapping[int, int]:
        """Return which record of each partition is to be read next."""
        ...

    def report(self, report: HostReport) -> None:
        """Note what a host says of itself."""
        ...

    def claim(self, limit: int) -> list[Handed]:
        """Move events that are due into flight, and return them."""
        ...

    def record_outcomes(self, outcomes: Sequence[tuple[Handed, Outcome | None]]) -> None:
        """Note what came of them."""
        ...

    def recover(self) -> int:
        """Take back what has been in flight for too long; return how many."""
        ...

    def tidy(self) -> None:
        """Remove what is old."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


Open = Callable[[], Ledger]
"""Opens a ledger of one's own."""
