"""
A delivery that keeps its events in memory until they are sent.

It serves where nothing can be written to disk, and what it holds dies with the process: the exit of the process
waits for it a few seconds, then writes what is left to the log, one recoverable JSON line an event.

A thread claims what is due, has the senders send it and takes back what came of it.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery import (
    ATTEMPT_TIMEOUT,
    Event,
    Handed,
    Header,
    Outcome,
    Verdict,
    keep,
)
from cmdrdata_exporter.delivery.backoff import backoff
from cmdrdata_exporter.delivery.gate import Entry, Gate
from cmdrdata_exporter.delivery.memory_queue import MemoryQueue, Waiting
from cmdrdata_exporter.delivery.options import Options
from cmdrdata_exporter.delivery.senders import INTERRUPTED, Done, Senders, attempt
from cmdrdata_exporter.delivery.status_log import StatusLog
from cmdrdata_exporter.delivery.write_off import NOTHING_KEPT, LogLine, log_lines, say_all

IDLE = 10.0
"""Seconds without an event after which the thread ends."""
_COUNTED = ("recorded", "delivered", "logged", "ambiguous")
_TURNED_AWAY = 0.05
"""Seconds until the gate is asked again, where it had room for an event and did not let it in."""


class MemoryDelivery(processes.ForkAware):
    """
    Has events sent, and each retried until the backend took or refused it.

    `counts` says where every event is: recorded = delivered + pending + in_flight + held + dead + logged.

    Args:
        options: how.
        capacity: how many events are kept at most, of those to be sent, held and refused each; others go to the log.
        most: how many attempts there are at once.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        options: Options,
        *,
        capacity: int = 10_000,
        most: int = 4,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        if options.post is None:
            raise ValueError("where nothing is sent the delivery is a LocalDelivery")
        self._options = options
        self._post = options.post
        self._capacity = capacity
        self._most = most
        self._clock = clock
        self._clear()
        processes.notify_of_forks(self)

    def _clear(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._gate = Gate(
            self._most, probe_interval=self._options.probe_interval, clock=self._clock
        )
        self._log = StatusLog(None, clock=self._clock)
        self._numbers = itertools.count()
        self._queue = MemoryQueue(self._gate, self._most, self._clock)
        self.held: deque[Event] = deque()
        self.dead: deque[tuple[Event, str]] = deque()
        self._counts: Counter[str] = Counter()
        self._end: float | None = None
        """When the end of the process, which has begun, waits no longer."""
        self.running = False
        """Whether a thread claims what is due. Where none can be started, whoever flushes sends."""
        self._inbox: queue.SimpleQueue[Done | None] = queue.SimpleQueue()
        self._lines: list[LogLine] = []
        """What is to be logged as errors, without the lock: a handler may wait. Messages with their arguments."""

    @property
    def counts(self) -> dict[str, int]:
        """How many events are in each state, and `ambiguous`: how many attempts may have been accepted unseen."""
        with self._changed:
            return {
                **{name: self._counts[name] for name in _COUNTED},
                "pending": len(self._queue.new) + len(self._queue.again),
                "in_flight": len(self._queue.in_flight),
                "held": len(self.held),
                "dead": len(self.dead),
            }

    def outcomes(self) -> dict[str, int]:
        """Return how many events were recorded, and how many went to the log."""
        counts = self.counts
        return {"recorded": counts["recorded"], "logged": counts["logged"]}

    def gauges(self) -> dict[str, float]:
        """Return the current gauge values."""
        counts = self.counts
        return {
            "delivery.durable": 0,
            "delivery.paused": int(self._gate.paused),
            "events.pending": counts["pending"] + counts["in_flight"],
            "events.held": counts["held"],
            "events.dead": counts["dead"],
        }

    def record(self, event_id: str, header: Header, body: bytes) -> None:
        """See `Delivery.record`."""
        event = Event(event_id, header, body)
        kept: list[object] = [] if header.kept is None else header.kept
        # The lock itself: a signal handler may raise inside the Python of `Condition`, which would keep the lock.
        with self._lock:
            if not kept:
                if header.hold:
                    self._hold(event, kept)
                elif self._queue.size < self._capacity:
                    keep(Waiting(self._clock(), next(self._numbers), event), self._queue.new, kept)
                else:
                    self._write_off([event], f"{self._capacity} events wait already")
                self._counts["recorded"] += 1
            if self._queue.new or self._queue.again:
                self._start()
            late = self._end is not None
            lines = self._taken_lines()
        self._inbox.put(None)
        say_all(lines)
        if not kept:
            kept.append(event)
        if late:
            self._finish()

    def flush(self, timeout: float) -> bool:
        """
        See `Delivery.flush`.

        The senders send. Where no thread claims events, as at the exit of the interpreter, which starts none any more,
        the calling thread makes the attempts.
        """
        deadline = self._clock() + timeout
        while True:
            with self._changed:
                if not self._queue.size:
                    return True
                remaining = deadline - self._clock()
                delay = self._queue.delay()
                if remaining <= 0 or (delay is not None and delay >= remaining):
                    return False
                entry = None if self.running or delay != 0 else self._gate.enter()
                if entry is None:
                    self._changed.wait(min(delay or remaining, remaining))
                    continue
                event = self._queue.claim()
            self._send(event, entry, min(remaining, ATTEMPT_TIMEOUT))

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
                # Our threads end with the process: whatever is being sent now may never be answered.
                self._write_off(
                    [waiting.event for waiting in self._queue.in_flight.values()],
                    "they were on their way when this process ended",
                    "unanswered",
                )
                waiting = (*self._queue.new, *sorted(self._queue.again))
                self._write_off(
                    [event for *_, event, _ in waiting]
                    + [*self.held, *(event for event, _ in self.dead)],
                    NOTHING_KEPT,
                )
                for events in (self._queue, self.held, self.dead):
                    events.clear()
                lines = self._taken_lines()
            say_all(lines)

    def _hold(self, event: Event, kept: list[object]) -> None:
        """Keep an event without sending it. Called under the lock."""
        keep(event, self.held, kept)
        if len(self.held) > self._capacity:
            self._write_off([self.held.popleft()], "too many are held")

    def _write_off(self, events: list[Event], reason: str, state: str = "undelivered") -> None:
        """Have events logged, each on a line whose `"event"` is exactly what would have been sent. Under the lock."""
        if not events:
            return
        self._counts["logged"] += len(events)
        self._lines += log_lines(events, reason, state)

    def _taken_lines(self) -> list[LogLine]:
        """Take what is to be logged, under the lock under which it was written off: who does so logs it, too."""
        lines, self._lines = self._lines, []
        return lines

    def after_fork_child(self) -> None:
        """Start anew: what its parent recorded, the parent sends."""
        self._clear()
        self._options.reset()

    # Attempts

    def _send(self, event: Handed, entry: Entry, timeout: float) -> None:
        """Make an attempt in this thread."""
        outcome = INTERRUPTED
        try:
            outcome = attempt(self._post, event.id, event.body, timeout)
        finally:
            self._note(event, self._gate.leave(entry, event.key, outcome))

    @faults.guarded
    def _note(self, event: Handed, outcome: Outcome | None) -> None:
        """Move an event by what came of it, and log what that says of the backend."""
        with self._changed:
            # It is not there any more if the end of the process has given it up.
            waiting = self._queue.in_flight.pop(event.seq, None)
            if waiting is not None:
                self._move(waiting, outcome)
                self._log.count_refusals([(event, outcome)])
            self._changed.notify_all()
            lines = self._taken_lines()
        self._log.log_refusals()
        self._log.backend_state(self._gate)
        say_all(lines)

    def _move(self, waiting: Waiting, outcome: Outcome | None) -> None:
        """Move an event that was in flight, by its outcome; None: it was not sent. Called under the lock."""
        if outcome is None:
            self._queue.put_back(waiting, _TURNED_AWAY, attempts=waiting.attempts)
            return
        event = waiting.event
        self._counts["ambiguous"] += outcome.ambiguous
        if outcome.verdict in (Verdict.DELIVERED, Verdict.DUPLICATE):
            self._counts["delivered"] += 1
        elif outcome.verdict is Verdict.REFUSED:
            self.dead.append((event, outcome.explanation))
            if len(self.dead) > self._capacity:
                oldest, reason = self.dead.popleft()
                self._write_off([oldest], f"refused: {reason}")
        elif outcome.ambiguous and self._options.hold_ambiguous:
            self._hold(event, [])
        else:
            delay = backoff(waiting.attempts) if outcome.verdict is Verdict.RETRY else 0.0
            self._queue.put_back(waiting, delay, attempts=waiting.attempts + 1)

    # The thread

    def _start(self) -> None:
        """Start the thread, if it does not run and the interpreter still starts any. Called under the lock."""
        if not self.running:
            self._inbox = queue.SimpleQueue()
            processes.start_running(self, self._run, self._inbox)

    def _run(self, inbox: queue.SimpleQueue[Done | None]) -> None:
        """Have events sent when they are due, until there is nothing to do for a while."""
        senders = Senders(self._post, self._gate, inbox, most=self._most)
        senders.start()
        while True:
            events, wait = self._claim_due()
            senders.give(events)
            try:
                done = inbox.get(timeout=wait)
            except queue.Empty:
                with self._lock:
                    # The next event starts another thread.
                    if not self._queue.size:
                        self.running = False
                        break
                continue
            if done is not None:
                senders.taken_back(done[0])
                self._note(*done)
        senders.end()

    def _claim_due(self) -> tuple[list[Handed], float]:
        """Claim what is due, and return it with the seconds until something else may be, unless an outcome comes."""
        events: list[Handed] = []
        with self._lock:
            while (delay := self._queue.delay()) == 0 and self._gate.room(
                len(self._queue.in_flight)
            ):
                events.append(self._queue.claim())
        return events, min(delay or IDLE, IDLE)
