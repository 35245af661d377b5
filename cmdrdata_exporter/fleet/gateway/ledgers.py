"""What a gateway asks of the ledger of a fleet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from cmdrdata_exporter.delivery import Handed, Outcome
from cmdrdata_exporter.fleet.arrivals import Arrival, HostReport, Position
from cmdrdata_exporter.fleet.positions import Beginning, Bounds


class Ledger(Protocol):
    """The ledger, by a connection of its own. `FleetLedger` is one."""

    def connect(self) -> None:
        """Make the connection, and the tables where they are not there."""
        ...

    def store(self, arrivals: Sequence[Arrival], reached: Sequence[Position] = ()) -> int:
        """Store events, each id once, and positions, in one transaction; return how many were new."""
        ...

    def begin(
        self, group: str, topic: str, topic_id: str, bounds: Mapping[int, Bounds]
    ) -> Beginning:
        """Return which record of each partition is to be read next, and note it."""
        ...

    def report(self, report: HostReport) -> None:
        """Note what a host says of itself."""
        ...

    def claim(self, limit: int) -> list[Handed]:
        """Move events that are due into flight, and return them."""
        ...

    def record_outcomes(self, outcomes: Sequence[tuple[Handed, Outcome | None]]) -> int:
        """Note what came of them; return how many were taken back before."""
        ...

    def recover(self) -> int:
        """Take back what has been in flight for too long; return how many."""
        ...

    def tidy(self) -> bool:
        """Remove a part of what is old; say whether there is more."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


Open = Callable[[], Ledger]
"""Opens a ledger of one's own."""
