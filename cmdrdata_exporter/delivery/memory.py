"""
A delivery that keeps its events in memory until they are sent.

It serves where nothing can be written to disk, and what it holds dies with the process: the exit of the process
waits for it a few seconds, then writes what is left to the log, one recoverable JSON line an event.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable

from cmdrdata_exporter.delivery import Event, Header
from cmdrdata_exporter.delivery.http import Outcome, Verdict

_logger = logging.getLogger("cmdrdata")

Post = Callable[[str, bytes, float], Outcome]
"""Sends an event's id and body within a number of seconds."""

ATTEMPT_TIMEOUT = 10.0
"""Seconds one attempt may take."""
PROBE_INTERVAL = 60.0
"""Seconds between attempts while key or endpoint are refused."""
PROBE_AFTER = 5
"""Failures in a row after which one event at a time is tried."""
FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 60.0


class MemoryDelivery:
    """
    Hands events to a few sender threads, which retry each until the backend took or refused it.

    `counts` says where every event is: recorded = delivered + pending + in_flight + held + dead + overflowed.

    Args:
        post: sends one event.
        reset: what a forked child does before it sends its own events.
        hold_unattributed: keep events without a customer instead of sending them.
        capacity: how many events are kept at most; further ones go to the log.
        senders: how many threads send.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        post: Post,
        *,
        reset: Callable[[], None] = lambda: None,
        hold_unattributed: bool = True,
        capacity: int = 10_000,
        senders: int = 4,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._post = post
        self._reset = reset
        self._hold_unattributed = hold_unattributed
        self._capacity = capacity
        self._senders = senders
        self._clock = clock
        self._clear()
        _deliveries.add(self)

    def _clear(self) -> None:
        self._changed = threading.Condition()
        self._pending: deque[Event] = deque()
        self.held: deque[Event] = deque()
        self.dead: list[tuple[Event, str]] = []
        self._counts: Counter[str] = Counter()
        self._in_flight = 0
        self._threads: list[threading.Thread] = []
        self._failures = 0
        self._closed_until = 0.0
        self._paused: str | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many events are in each state, and `ambiguous`: how many attempts may have been accepted unseen."""
        with self._changed:
            return {
                "recorded": self._counts["recorded"],
                "delivered": self._counts["delivered"],
                "pending": len(self._pending),
                "in_flight": self._in_flight,
                "held": len(self.held),
                "dead": len(self.dead),
                "overflowed": self._counts["overflowed"],
                "ambiguous": self._counts["ambiguous"],
            }

    def record(self, event_id: str, header: Header, body: bytes) -> None:
        """See `Delivery.record`."""
        event = Event(event_id, header, body)
        with self._changed:
            self._counts["recorded"] += 1
            kept = len(self._pending) + len(self.held) + len(self.dead)
            if kept >= self._capacity:
                self._counts["overflowed"] += 1
            elif header.customer is None and self._hold_unattributed:
                self.held.append(event)
                return
            else:
                self._pending.append(event)
                self._start_senders()
                self._changed.notify()
                return
        _log_lost([event], f"{self._capacity} events wait already")

    def flush(self, timeout: float) -> bool:
        """
        See `Delivery.flush`.

        The calling thread sends too: at the exit of the interpreter no thread can be started any more.
        """
        deadline = self._clock() + timeout
        while True:
            with self._changed:
                remaining = deadline - self._clock()
                delay = self._delay()
                if not self._pending and not self._in_flight:
                    return True
                if remaining <= 0 or self._paused or (delay is not None and delay >= remaining):
                    return False
                if delay != 0:
                    self._changed.wait(remaining if delay is None else delay)
                    continue
                event = self._take()
            self._send(event, remaining)

    def close(self, timeout: float) -> None:
        """Flush at the exit of the process, and write what stays behind to the log."""
        self.flush(timeout)
        with self._changed:
            lost = [*self._pending, *self.held, *(event for event, _ in self.dead)]
            # The senders are daemon threads: whatever one of them holds now may never be answered.
            unanswered = self._in_flight
        if lost:
            _log_lost(lost, "this process ends and keeps nothing on disk")
        if unanswered:
            _logger.warning("%d usage events were on their way when the process ended", unanswered)

    def _start_senders(self) -> None:
        """Start one more sender while all are busy. Called under the lock."""
        if (
            len(self._threads) < self._senders
            and len(self._pending) > len(self._threads) - self._in_flight
        ):
            thread = threading.Thread(target=self._run, name="cmdrdata-sender", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # The interpreter is shutting down; `close` sends what is left.
                return
            self._threads.append(thread)

    def _run(self) -> None:
        while True:
            with self._changed:
                while (delay := self._delay()) != 0:
                    self._changed.wait(delay)
                event = self._take()
            self._send(event, ATTEMPT_TIMEOUT)

    def _delay(self) -> float | None:
        """
        Return the seconds until an event may be taken, None where that waits for something to change.

        A backend in trouble gets one attempt at a time. Called under the lock.
        """
        probing = self._paused is not None or self._failures >= PROBE_AFTER
        if not self._pending or (probing and self._in_flight):
            return None
        return max(0.0, self._closed_until - self._clock())

    def _take(self) -> Event:
        """Move the oldest event into flight. Called under the lock."""
        self._in_flight += 1
        return self._pending.popleft()

    def _send(self, event: Event, timeout: float) -> None:
        outcome = Outcome(Verdict.RETRY, "interrupted", ambiguous=True)
        try:
            outcome = self._post(event.id, event.body, min(timeout, ATTEMPT_TIMEOUT))
        finally:
            with self._changed:
                self._in_flight -= 1
                self._settle(event, outcome)
                self._changed.notify_all()

    def _settle(self, event: Event, outcome: Outcome) -> None:
        """Move an event out of flight, by the backend's verdict. Called under the lock."""
        self._counts["ambiguous"] += outcome.ambiguous
        if outcome.verdict in (Verdict.DELIVERED, Verdict.DUPLICATE):
            self._counts["delivered"] += 1
            self._failures = 0
            if self._paused:
                _logger.warning("CmdrData accepts events again")
                self._paused = None
            return
        if outcome.verdict is Verdict.REFUSED:
            self.dead.append((event, outcome.reason))
            _logger.error("CmdrData refused usage event %s for good: %s", event.id, outcome.reason)
            return
        self._pending.appendleft(event)
        if outcome.verdict is Verdict.MISCONFIGURED:
            if not self._paused:
                _logger.error(
                    "CmdrData does not accept events (%s); check key and endpoint. "
                    "Every event is kept, the next attempt is in %.0f s",
                    outcome.reason,
                    PROBE_INTERVAL,
                )
            self._paused = outcome.reason
            self._close_gate(PROBE_INTERVAL)
        elif outcome.retry_after is not None:
            self._close_gate(outcome.retry_after)
        else:
            longest = min(FIRST_BACKOFF * 2**self._failures, LONGEST_BACKOFF)
            self._failures = min(self._failures + 1, 16)
            # Full jitter, so that the clients of a backend that was down do not return in step.
            self._close_gate(random.uniform(0, longest))  # noqa: S311 - no secret

    def _close_gate(self, seconds: float) -> None:
        self._closed_until = max(self._closed_until, self._clock() + seconds)

    def forked(self) -> None:
        """Start anew in a forked child: what its parent recorded, the parent sends."""
        self._clear()
        self._reset()


def _log_lost(events: list[Event], reason: str) -> None:
    """Write events to the log, from which they can be recovered: `"event"` is exactly what would have been sent."""
    _logger.error(
        "%d usage events were not delivered (%s). One line each follows:", len(events), reason
    )
    for event in events:
        _logger.error(
            '{"cmdrdata": "undelivered", "id": %s, "event": %s}',
            json.dumps(event.id),
            event.body.decode(),
        )


_deliveries: weakref.WeakSet[MemoryDelivery] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for delivery in list(_deliveries):
        delivery.forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
