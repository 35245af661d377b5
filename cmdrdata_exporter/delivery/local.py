"""A delivery that goes nowhere: this process is the destination, and its events are final."""

from __future__ import annotations

import threading
from collections import deque

from cmdrdata_exporter import processes
from cmdrdata_exporter.delivery import Event, Header, keep

CAPACITY = 10_000
"""How many events are kept; of older ones only the count."""


class LocalDelivery(processes.ForkAware):
    """Keeps the latest events in memory, for whoever asks this process."""

    def __init__(self) -> None:
        self.after_fork_child()
        processes.notify_of_forks(self)

    def after_fork_child(self) -> None:
        """Start anew in a forked child, which is a destination of its own."""
        self._lock = threading.RLock()
        self._recorded = 0
        self.events: deque[Event] = deque(maxlen=CAPACITY)

    @property
    def counts(self) -> dict[str, int]:
        """How many events are in each state."""
        return {"recorded": self._recorded, "local": self._recorded}

    def outcomes(self) -> dict[str, int]:
        """Return how many events were recorded."""
        return {"recorded": self._recorded}

    def gauges(self) -> dict[str, float]:
        """Return the current gauge values."""
        return {"delivery.durable": 0}

    def record(self, event_id: str, header: Header, body: bytes) -> None:
        """See `Delivery.record`."""
        kept = [] if header.kept is None else header.kept
        with self._lock:
            if not kept:
                keep(Event(event_id, header, body), self.events, kept)
                self._recorded += 1

    def flush(self, timeout: float) -> bool:  # noqa: ARG002 - nothing waits here
        """See `Delivery.flush`."""
        return True

    def shutdown(self, timeout: float) -> None:
        """See `Delivery.shutdown`."""

    def close(self, timeout: float) -> None:
        """End with the process, as announced."""
