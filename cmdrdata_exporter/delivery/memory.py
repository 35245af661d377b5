"""
A delivery that keeps its events in memory until they are sent.

It serves where nothing can be written to disk, and what it holds dies with the process: the exit of the process
waits for it a few seconds, then writes what is left to the log, one recoverable JSON line an event.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery import (
    ATTEMPT_TIMEOUT,
    Event,
    Header,
    Outcome,
    Transport,
    Verdict,
    keep,
)
from cmdrdata_exporter.delivery.backoff import PROBE_INTERVAL, backoff
from cmdrdata_exporter.delivery.gate import Entry, Gate
from cmdrdata_exporter.delivery.senders import INTERRUPTED, attempt
from cmdrdata_exporter.delivery.spool.records import key_of, line
from cmdrdata_exporter.delivery.status_log import BackendTrouble, Line

IDLE = 10.0
"""Seconds without an event after which a sender ends."""


@dataclass(order=True)
class _Waiting:
    """An event that is to be sent."""

    due: float
    event: Event = field(compare=False)
    attempts: int = field(compare=False, default=0)


class MemoryDelivery(processes.ForkAware):
    """
    Hands events to a few sender threads, which retry each until the backend took or refused it.

    `counts` says where every event is: recorded = delivered + pending + in_flight + held + dead + logged.

    Args:
        post: sends one event.
        reset: what a forked child does before it sends its own events.
        capacity: how many events are kept at most, of those to be sent, held and refused each; others go to the log.
        senders: how many threads send.
        hold_ambiguous: whether an event whose attempt may have been accepted unseen is held, until the process ends.
        probe_interval: seconds until a backend that refuses the key is asked again; see `Gate`.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        post: Transport,
        *,
        reset: Callable[[], None] = lambda: None,
        capacity: int = 10_000,
        senders: int = 4,
        hold_ambiguous: bool = False,
        probe_interval: float = PROBE_INTERVAL,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._post = post
        self._reset = reset
        self._capacity = capacity
        self._senders = senders
        self._hold_ambiguous = hold_ambiguous
        self._probe_interval = probe_interval
        self._clock = clock
        self._clear()
        processes.notify_of_forks(self)

    def _clear(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._gate = Gate(
            max(1, self._senders), probe_interval=self._probe_interval, clock=self._clock
        )
        self._trouble = BackendTrouble()
        self._new: deque[_Waiting] = deque()
        self._again: list[_Waiting] = []
        """Those that were tried in vain, as a heap."""
        self._in_flight: dict[int, _Waiting] = {}
        self.held: deque[Event] = deque()
        self.dead: deque[tuple[Event, str]] = deque()
        self._counts: Counter[str] = Counter()
        self._threads = 0
        self._end: float | None = None
        """When the end of the process, which has begun, waits no longer."""

    @property
    def _pending(self) -> int:
        return len(self._new) + len(self._again)

    @property
    def counts(self) -> dict[str, int]:
        """How many events are in each state, and `ambiguous`: how many attempts may have been accepted unseen."""
        with self._changed:
            return {
                "recorded": self._counts["recorded"],
                "delivered": self._counts["delivered"],
                "pending": self._pending,
                "in_flight": len(self._in_flight),
                "held": len(self.held),
                "dead": len(self.dead),
                "logged": self._counts["logged"],
                "ambiguous": self._counts["ambiguous"],
            }

    def outcomes(self) -> dict[str, int]:
        """Return how many events were recorded, and how many went to the log."""
        counts = self.counts
        return {"recorded": counts["recorded"], "logged": counts["logged"]}

    def gauges(self) -> dict[str, float]:
        """Return what is so now."""
        counts = self.counts
        return {
            "delivery.durable": 0,
            "delivery.paused": int(self._gate.paused),
            "events.pending": counts["pending"] + counts["in_flight"],
        }

    def record(self, event_id: str, header: Header, body: bytes) -> None:
        """See `Delivery.record`."""
        event = Event(event_id, header, body)
        kept: list[object] = [] if header.kept is None else header.kept
        lines: list[Line] = []
        # The lock itself: a signal handler may raise inside the Python of `Condition`, which would keep the lock.
        with self._lock:
            if not kept:
                if header.hold:
                    lines = self._hold(event, kept)
                elif self._pending + len(self._in_flight) < self._capacity:
                    keep(_Waiting(self._clock(), event), self._new, kept)
                else:
                    lines = self._write_off([event], f"{self._capacity} events wait already")
                self._counts["recorded"] += 1
            self._start_senders()
            self._changed.notify_all()
            late = self._end is not None
        _say(lines)
        if not kept:
            kept.append(event)
        if late:
            self._finish()

    def flush(self, timeout: float) -> bool:
        """
        See `Delivery.flush`.

        The senders send. Where there are none, as at the exit of the interpreter, which starts no thread any more, the
        calling thread does.
        """
        deadline = self._clock() + timeout
        while True:
            with self._changed:
                remaining = deadline - self._clock()
                delay = self._delay()
                if not self._pending and not self._in_flight:
                    return True
                if remaining <= 0 or (delay is not None and delay >= remaining):
                    return False
                entry = None if self._threads or delay != 0 else self._gate.enter()
                if entry is None:
                    self._changed.wait(min(delay or remaining, remaining))
                    continue
                waiting = self._take()
            self._send(waiting, entry, remaining)

    def shutdown(self, timeout: float) -> None:
        """See `Delivery.shutdown`."""
        self.flush(timeout)

    def close(self, timeout: float) -> None:
        """
        Flush at the end of the process, and write what stays behind to the log.

        What is recorded later is treated so at once, within what is left of the time.
        """
        if self._end is None:
            self._end = self._clock() + timeout
        self._finish()

    def _finish(self) -> None:
        try:
            self.flush((self._end or 0.0) - self._clock())
        finally:
            with self._changed:
                # The senders are daemon threads: whatever one of them holds now may never be answered.
                lines = self._write_off(
                    [waiting.event for waiting in self._in_flight.values()],
                    "they were on their way when this process ended",
                    "unanswered",
                )
                pending = [waiting.event for waiting in (*self._new, *sorted(self._again))]
                lines += self._write_off(
                    [*pending, *self.held, *(event for event, _ in self.dead)],
                    "this process ends and keeps nothing on disk",
                )
                for events in (self._in_flight, self._new, self._again, self.held, self.dead):
                    events.clear()
            _say(lines)

    def _hold(self, event: Event, kept: list[object]) -> list[Line]:
        """Keep an event without sending it. Called under the lock."""
        keep(event, self.held, kept)
        if len(self.held) > self._capacity:
            return self._write_off([self.held.popleft()], "too many are held")
        return []

    def _write_off(
        self, events: list[Event], reason: str, state: str = "undelivered"
    ) -> list[Line]:
        """
        Count events as logged, and return the lines: `"event"` is exactly what would have been sent.

        Called under the lock.
        """
        if not events:
            return []
        self._counts["logged"] += len(events)
        title = "%d usage events are %s (%s). One line each follows:"
        return [
            (logging.ERROR, title, (len(events), state, reason)),
            *((logging.ERROR, "%s", (line(state, event.id, event.body),)) for event in events),
        ]

    def _start_senders(self) -> None:
        """Start one more sender while all are busy. Called under the lock."""
        if self._threads < self._senders and self._pending > self._threads - len(self._in_flight):
            try:
                processes.start_thread(self._run, name="cmdrdata-sender")
            except RuntimeError as error:
                if faults.is_interruption(error):
                    raise
                # The interpreter is shutting down; `close` sends what is left.
                return
            self._threads += 1

    def _run(self) -> None:
        while True:
            with self._changed:
                while (delay := self._delay()) != 0 or (entry := self._gate.enter()) is None:
                    idle = not self._pending
                    if not self._changed.wait(IDLE if idle else delay or None) and idle:
                        self._threads -= 1
                        return
                waiting = self._take()
            self._send(waiting, entry, ATTEMPT_TIMEOUT)

    def _delay(self) -> float | None:
        """
        Return the seconds until an event may be taken, None where that waits for something to change.

        Called under the lock.
        """
        if not self._new and not (self._again and self._has_room_again()):
            return None
        delay = self._gate.delay()
        return delay if self._new else max(delay, self._again[0].due - self._clock())

    def _has_room_again(self) -> bool:
        """Say whether what was tried in vain leaves half of the senders to the others. Called under the lock."""
        again = sum(waiting.attempts > 0 for waiting in self._in_flight.values())
        return again < max(1, self._senders // 2)

    def _take(self) -> _Waiting:
        """Move an event into flight: the one that is due longest, if it can. Called under the lock."""
        first = self._again[0].due if self._again and self._has_room_again() else None
        # In trouble those come first that were never tried.
        until = min(self._clock(), self._new[0].due) if self._new else None
        if until is None or (first is not None and first <= until and not self._gate.in_trouble):
            waiting = heapq.heappop(self._again)
        else:
            waiting = self._new.popleft()
        self._in_flight[id(waiting)] = waiting
        return waiting

    def _send(self, waiting: _Waiting, entry: Entry, timeout: float) -> None:
        event = waiting.event
        outcome = INTERRUPTED
        try:
            outcome = attempt(self._post, event.id, event.body, min(timeout, ATTEMPT_TIMEOUT))
        finally:
            lines: list[Line] = []
            with self._changed:
                outcome = self._gate.leave(entry, key_of(event.id), outcome)
                # It is not there any more if the end of the process has given it up.
                if self._in_flight.pop(id(waiting), None):
                    lines = self._settle(waiting, outcome)
                news = self._trouble.news(self._gate)
                self._changed.notify_all()
            _say(lines if news is None else [*lines, news])

    def _settle(self, waiting: _Waiting, outcome: Outcome) -> list[Line]:
        """Move an event that was in flight, by the backend's verdict. Called under the lock."""
        event = waiting.event
        self._counts["ambiguous"] += outcome.ambiguous
        if outcome.verdict in (Verdict.DELIVERED, Verdict.DUPLICATE):
            self._counts["delivered"] += 1
            return []
        if outcome.verdict is Verdict.REFUSED:
            return self._refuse(event, outcome.explanation)
        if outcome.ambiguous and self._hold_ambiguous:
            return self._hold(event, [])
        delay = backoff(waiting.attempts) if outcome.verdict is Verdict.RETRY else 0.0
        again = _Waiting(self._clock() + delay, event, waiting.attempts + 1)
        heapq.heappush(self._again, again)
        return []

    def _refuse(self, event: Event, reason: str) -> list[Line]:
        self.dead.append((event, reason))
        message = "CmdrData refused usage event %s for good: %s"
        lines: list[Line] = [(logging.ERROR, message, (event.id, reason))]
        if len(self.dead) > self._capacity:
            oldest, reason = self.dead.popleft()
            lines += self._write_off([oldest], f"refused: {reason}")
        return lines

    def after_fork_child(self) -> None:
        """Start anew in a forked child: what its parent recorded, the parent sends."""
        self._clear()
        self._reset()


def _say(lines: list[Line]) -> None:
    """Log lines. Called without the lock, since a handler may wait."""
    for level, message, arguments in lines:
        faults.say(level, message, *arguments)
