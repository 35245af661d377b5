"""What a delivery in memory has to send: which event comes next, and when."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from cmdrdata_exporter.delivery import Event, Handed
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.spool.records import key_of


class Waiting(NamedTuple):
    """An event that is to be sent. In order of time."""

    due: float
    number: int
    event: Event
    attempts: int = 0


class MemoryQueue:
    """
    The events to be sent, and those that are being sent. Used under the delivery's lock.

    Args:
        gate: says when an attempt may begin.
        most: how many there are at once.
        clock: returns monotonic seconds.
    """

    def __init__(self, gate: Gate, most: int, clock: Callable[[], float]) -> None:
        self._gate = gate
        self._most = most
        self._clock = clock
        self.new: deque[Waiting] = deque()
        self.again: list[Waiting] = []
        """Those that were tried in vain, as a heap."""
        self.in_flight: dict[int, Waiting] = {}

    @property
    def size(self) -> int:
        """How many are to be sent or being sent."""
        return len(self.new) + len(self.again) + len(self.in_flight)

    def delay(self) -> float | None:
        """Return the seconds until an event may be claimed, None where that waits for something to change."""
        has_room = len(self.in_flight) < self._most
        if not has_room or not (self.new or (self.again and self._has_room_again())):
            return None
        delay = self._gate.delay()
        return delay if self.new else max(delay, self.again[0].due - self._clock())

    def _has_room_again(self) -> bool:
        """Say whether what was tried in vain leaves half of the senders to the others."""
        again = sum(waiting.attempts > 0 for waiting in self.in_flight.values())
        return again < max(1, self._most // 2)

    def claim(self) -> Handed:
        """Move an event into flight: the one that is due longest, if it can."""
        first = self.again[0].due if self.again and self._has_room_again() else None
        # In trouble those come first that were never tried.
        until = min(self._clock(), self.new[0].due) if self.new else None
        if until is None or (first is not None and first <= until and not self._gate.in_trouble):
            waiting = heapq.heappop(self.again)
        else:
            waiting = self.new.popleft()
        self.in_flight[waiting.number] = waiting
        event = waiting.event
        return Handed(waiting.number, key_of(event.id), event.id, event.body, waiting.attempts, 0)

    def put_back(self, waiting: Waiting, delay: float, *, attempts: int) -> None:
        """Have an event tried again, `delay` seconds from now."""
        again = waiting._replace(due=self._clock() + delay, attempts=attempts)
        heapq.heappush(self.again, again)

    def clear(self) -> None:
        """Forget them all."""
        for events in (self.new, self.again, self.in_flight):
            events.clear()
