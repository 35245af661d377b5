"""
A delivery that keeps its events in memory until they are sent.

It serves where nothing can be written to disk, and what it holds dies with the process: the exit of the process
waits for it a few seconds, then writes what is left to the log, one recoverable JSON line an event.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery import Event, Header, keep
from cmdrdata_exporter.delivery.backoff import LONGEST_BACKOFF, backoff
from cmdrdata_exporter.delivery.gate import PROBE_AFTER
from cmdrdata_exporter.delivery.http import ATTEMPT_TIMEOUT, Outcome, Post, Verdict
from cmdrdata_exporter.delivery.records import line

_Line = tuple[int, str, tuple[object, ...]]
"""What is to be logged: level, message and its arguments. It is logged without the lock, since a handler may wait."""

PROBE_INTERVAL = 60.0
"""Seconds between attempts while key or endpoint are refused."""


class MemoryDelivery:
    """
    Hands events to a few sender threads, which retry each until the backend took or refused it.

    `counts` says where every event is: recorded = delivered + pending + in_flight + held + dead + logged.

    Args:
        post: sends one event.
        reset: what a forked child does before it sends its own events.
        capacity: how many events are kept at most, of those to be sent, held and refused each; others go to the log.
        senders: how many threads send.
        hold_ambiguous: whether an event whose attempt may have been accepted unseen is held, until the process ends.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        post: Post,
        *,
        reset: Callable[[], None] = lambda: None,
        capacity: int = 10_000,
        senders: int = 4,
        hold_ambiguous: bool = False,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._post = post
        self._reset = reset
        self._capacity = capacity
        self._senders = senders
        self._hold_ambiguous = hold_ambiguous
        self._clock = clock
        self._clear()
        processes.renew_after_fork(self)

    def _clear(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._pending: deque[Event] = deque()
        self._in_flight: dict[int, Event] = {}
        self.held: deque[Event] = deque()
        self.dead: deque[tuple[Event, str]] = deque()
        self._counts: Counter[str] = Counter()
        self._threads = 0
        self._failures = 0
        self._closed_until = 0.0
        self._paused = False
        self._told = False
        """Whether the log says that the backend is in trouble."""
        self._end: float | None = None
        """When the end of the process, which has begun, waits no longer."""

    @property
    def counts(self) -> dict[str, int]:
        """How many events are in each state, and `ambiguous`: how many attempts may have been accepted unseen."""
        with self._changed:
            return {
                "recorded": self._counts["recorded"],
                "delivered": self._counts["delivered"],
                "pending": len(self._pending),
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
            "delivery.paused": int(self._paused),
            "events.pending": counts["pending"] + counts["in_flight"],
        }

    def record(self, event_id: str, header: Header, body: bytes) -> None:
        """See `Delivery.record`."""
        event = Event(event_id, header, body)
        kept: list[object] = [] if header.kept is None else header.kept
        lines: list[_Line] = []
        # The lock itself: a signal handler may raise inside the Python of `Condition`, which would keep the lock.
        with self._lock:
            if not kept:
                if header.hold:
                    lines = self._hold(event, kept)
                elif len(self._pending) + len(self._in_flight) < self._capacity:
                    keep(event, self._pending, kept)
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
                if remaining <= 0 or self._paused or (delay is not None and delay >= remaining):
                    return False
                if delay != 0 or self._threads:
                    self._changed.wait(delay or remaining)
                    continue
                event = self._take()
            self._send(event, remaining)

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
                    list(self._in_flight.values()),
                    "they were on their way when this process ended",
                    "unanswered",
                )
                lines += self._write_off(
                    [*self._pending, *self.held, *(event for event, _ in self.dead)],
                    "this process ends and keeps nothing on disk",
                )
                for events in (self._in_flight, self._pending, self.held, self.dead):
                    events.clear()
            _say(lines)

    def _hold(self, event: Event, kept: list[object]) -> list[_Line]:
        """Keep an event without sending it. Called under the lock."""
        keep(event, self.held, kept)
        if len(self.held) > self._capacity:
            return self._write_off([self.held.popleft()], "too many are held")
        return []

    def _write_off(
        self, events: list[Event], reason: str, state: str = "undelivered"
    ) -> list[_Line]:
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
        if self._threads < self._senders and len(self._pending) > self._threads - len(
            self._in_flight
        ):
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
                while (delay := self._delay()) != 0:
                    self._changed.wait(delay)
                event = self._take()
            self._send(event, ATTEMPT_TIMEOUT)

    def _delay(self) -> float | None:
        """
        Return the seconds until an event may be taken, None where that waits for something to change.

        A backend in trouble gets one attempt at a time. Called under the lock.
        """
        probing = self._paused or self._failures >= PROBE_AFTER
        if not self._pending or (probing and self._in_flight):
            return None
        return max(0.0, self._closed_until - self._clock())

    def _take(self) -> Event:
        """Move the oldest event into flight. Called under the lock."""
        event = self._pending.popleft()
        self._in_flight[id(event)] = event
        return event

    def _send(self, event: Event, timeout: float) -> None:
        outcome = Outcome(Verdict.RETRY, "interrupted", ambiguous=True)
        try:
            outcome = self._post(event.id, event.body, min(timeout, ATTEMPT_TIMEOUT))
        except Exception as error:  # noqa: BLE001 - the others shall be sent, whatever is wrong with this one
            faults.report("delivery", "usage event %r cannot be sent", event.id, exc_info=True)
            outcome = Outcome(Verdict.REFUSED, type(error).__name__)
        finally:
            lines: list[_Line] = []
            with self._changed:
                # It is not there any more if the end of the process has given it up.
                if self._in_flight.pop(id(event), None):
                    lines = self._settle(event, outcome)
                self._changed.notify_all()
            _say(lines)

    def _settle(self, event: Event, outcome: Outcome) -> list[_Line]:
        """Move an event that was in flight, by the backend's verdict. Called under the lock."""
        self._counts["ambiguous"] += outcome.ambiguous
        if outcome.verdict in (Verdict.DELIVERED, Verdict.DUPLICATE):
            self._counts["delivered"] += 1
            told = self._told
            self._failures, self._paused, self._told = 0, False, False
            return [(logging.WARNING, "CmdrData accepts events again", ())] if told else []
        if outcome.verdict is Verdict.REFUSED:
            self.dead.append((event, outcome.reason))
            lines: list[_Line] = [
                (
                    logging.ERROR,
                    "CmdrData refused usage event %s for good: %s",
                    (event.id, outcome.reason),
                )
            ]
            if len(self.dead) > self._capacity:
                oldest, reason = self.dead.popleft()
                lines += self._write_off([oldest], f"refused: {reason}")
            return lines
        held: list[_Line] = []
        if outcome.ambiguous and self._hold_ambiguous:
            held = self._hold(event, [])
        else:
            # Behind the others: what the backend cannot digest shall not keep them from it.
            self._pending.append(event)
        if outcome.verdict is Verdict.MISCONFIGURED:
            self._close_gate(PROBE_INTERVAL)
            paused, self._paused, self._told = self._paused, True, True
            return [] if paused else [_refusal(outcome.reason)]
        if outcome.retry_after is not None:
            self._close_gate(outcome.retry_after)
        else:
            self._close_gate(backoff(self._failures))
        self._failures += 1
        if self._failures != PROBE_AFTER:
            return held
        self._told = True
        return [*held, _trouble(outcome.reason, len(self._pending) + len(self._in_flight))]

    def _close_gate(self, seconds: float) -> None:
        self._closed_until = max(self._closed_until, self._clock() + seconds)

    def forked(self) -> None:
        """Start anew in a forked child: what its parent recorded, the parent sends."""
        self._clear()
        self._reset()


def _refusal(reason: str) -> _Line:
    message = (
        "CmdrData does not accept events (%s); check key and endpoint. "
        "Every event is kept, the next attempt is in %.0f s"
    )
    return logging.ERROR, message, (reason, PROBE_INTERVAL)


def _trouble(reason: str, waiting: int) -> _Line:
    message = (
        "CmdrData cannot be reached or does not answer as it should (%s, %d failures in a row). "
        "%d events wait, and more are kept; attempts go on, at most %.0f s apart"
    )
    return logging.WARNING, message, (reason, PROBE_AFTER, waiting, LONGEST_BACKOFF)


def _say(lines: list[_Line]) -> None:
    for level, message, arguments in lines:
        faults.say(level, message, *arguments)
