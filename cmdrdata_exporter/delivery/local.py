"""
A delivery that goes nowhere: this process is the destination.

It serves where nobody is to get the events and nothing can be written to disk. The log gets them when the process
ends, one recoverable JSON line an event.
"""

from __future__ import annotations

import threading
from collections import deque

from cmdrdata_exporter import processes
from cmdrdata_exporter.delivery import Event, Header, keep
from cmdrdata_exporter.delivery.write_off import NOTHING_KEPT, log_lines, say_all

CAPACITY = 10_000
"""How many events are kept; older ones go to the log."""


class LocalDelivery(processes.ForkAware):
    """Keeps the latest events in memory, for whoever asks this process, until its log gets them."""

    def __init__(self) -> None:
        self.after_fork_child()
        processes.notify_of_forks(self)

    def after_fork_child(self) -> None:
        """Start anew in a forked child, which is a destination of its own."""
        self._lock = threading.RLock()
        self._recorded = 0
        self._logged = 0
        self._ended = False
        self.events: deque[Event] = deque()

    @property
    def counts(self) -> dict[str, int]:
        """How many events are in each state: recorded = local + logged."""
        return {"recorded": self._recorded, "local": len(self.events), "logged": self._logged}

    def outcomes(self) -> dict[str, int]:
        """Return how many events were recorded, and how many went to the log."""
        return {"recorded": self._recorded, "logged": self._logged}

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
            ended = self._ended
            oldest = [self.events.popleft()] if len(self.events) > CAPACITY else []
            self._logged += len(oldest)
        if oldest:
            say_all(log_lines(oldest, f"{CAPACITY} are kept already"))
        if ended:
            self._write_off()

    def flush(self, timeout: float) -> bool:  # noqa: ARG002 - nothing waits here
        """See `Delivery.flush`."""
        return True

    def shutdown(self, timeout: float) -> None:
        """See `Delivery.shutdown`."""

    def close(self, timeout: float) -> None:  # noqa: ARG002 - nothing waits here
        """Write what is kept to the log at the end of the process, and at once what is recorded later."""
        self._ended = True
        self._write_off()

    def _write_off(self) -> None:
        with self._lock:
            events = [*self.events]
            self.events.clear()
            self._logged += len(events)
        if events:
            say_all(log_lines(events, NOTHING_KEPT))
