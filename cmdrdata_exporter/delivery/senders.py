"""
What sends, for all destinations of a process: the loop of a transport, threads for what blocks.

For each event the gate is asked, one attempt is made, and its outcome is put into the drainer's inbox.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery import ATTEMPT_TIMEOUT, Handed, Outcome, Transport, Verdict
from cmdrdata_exporter.delivery.attempts import Attempt, Loop
from cmdrdata_exporter.delivery.gate import Gate

AT_ONCE = 2
"""
Threads that stay while anything is drained, since at the exit of the process none can be started any more: the loop's,
and one that opens connections for it.
"""
MOST_THREADS = 128
IDLE = 10.0
"""Seconds without anything to do after which a thread ends."""

INTERRUPTED = Outcome(Verdict.RETRY, "interrupted", ambiguous=True)

Done = tuple[Handed, Outcome | None]
"""An event that was given to the senders and what came of it; None: the gate had been shut, it was not sent."""


class Threads(processes.ForkAware):
    """The threads of this process that make attempts, which end when there is nothing to do for them."""

    def __init__(self) -> None:
        self.after_fork_child()
        processes.notify_of_forks(self)

    def after_fork_child(self) -> None:
        """Begin anew in a forked child, which has none of its parent's threads."""
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._busy = 0
        self._users = 0
        self.count = 0

    def use(self) -> None:
        """Have some at once, until `leave`, if they can be had."""
        with self._changed:
            self._users += 1
            while self.count < AT_ONCE and self._start():
                pass

    def leave(self) -> None:
        """Need them no more."""
        with self._changed:
            self._users -= 1

    def put(self, job: Callable[[], None]) -> bool:
        """Have one of them do something; say whether there is any."""
        with self._changed:
            is_idle = self.count - self._busy > len(self._jobs)
            if not (is_idle or self.count >= MOST_THREADS or self._start()) and not self.count:
                return False
            self._jobs.append(job)
            self._changed.notify()
            return True

    @property
    def are_wanted(self) -> bool:
        """Whether something waits for one of them."""
        return bool(self._jobs)

    def _start(self) -> bool:
        """Start one more, if the interpreter still does. Called under the lock."""
        started = processes.has_started(self._run)
        self.count += started
        return started

    def _run(self) -> None:
        while (job := self._next()) is not None:
            job()
            with self._changed:
                self._busy -= 1

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._jobs:
                least = AT_ONCE if self._users else 0
                if not self._changed.wait(IDLE) and not self._jobs and self.count > least:
                    self.count -= 1
                    return None
            self._busy += 1
            return self._jobs.popleft()


threads = Threads()


class Senders:
    """
    What sends the events of one destination.

    Where `post` is a method of what has a `loop`, that makes the attempts. Otherwise each has a thread, which calls it.
    An interpreter that shuts down starts no thread; where there is none, who gives an event sends it.

    Args:
        post: makes an attempt.
        gate: says whether one may be made.
        done: where to put what came of each.
        most: how many attempts there are at once.
    """

    def __init__(
        self,
        post: Transport,
        gate: Gate,
        done: queue.SimpleQueue[Done | None],
        *,
        most: int,
    ) -> None:
        self._post = post
        self._client = getattr(post, "__self__", None)
        self._loop: Loop | None = getattr(self._client, "loop", None)
        self._gate = gate
        self._done = done
        self._most = most
        self._threads = threads
        self._lock = threading.Lock()
        self._work: deque[Handed] = deque()
        self._at_work = 0
        """How many attempts are under way, or threads make them."""
        self._outcomes: list[Done] = []
        """What the loop has not handed over."""
        self._started = self._ended = False
        self.busy = 0
        """How many events were given and have not been taken back. Kept by the drainer's thread alone."""
        self.busy_again = 0
        """How many of them had been tried before."""

    def start(self) -> None:
        """Have some threads, if they can be had."""
        if not self._started:
            self._started = True
            self._threads.use()

    def give(self, events: Sequence[Handed]) -> None:
        """Have events sent."""
        if not events:
            return
        self.busy += len(events)
        self.busy_again += tried_before(events)
        self._work.extend(events)
        if self._loop is not None and self._loop.serve(self, self._threads.put):
            return
        for _ in events:
            with self._lock:
                if self._at_work >= self._most:
                    return
                self._at_work += 1
            if not self._threads.put(self._send_waiting):
                self._send_waiting()

    def taken_back(self, *events: Handed) -> None:
        """Take note that events have come back."""
        self.busy -= len(events)
        self.busy_again -= tried_before(events)

    @property
    def alone(self) -> bool:
        """Whether there is no thread, and `give` itself sends."""
        return self._threads.count == 0

    def end(self) -> None:
        """Begin no further attempt: what waits for one comes back unsent."""
        self._ended = True
        while (event := self._next()) is not None:
            self._done.put((event, None))
        if self._loop is not None:
            self._loop.end(self._client)
        if self._started:
            self._started = False
            self._threads.leave()

    def _next(self) -> Handed | None:
        try:
            return self._work.popleft()
        except IndexError:
            return None

    # In the loop

    @property
    def has_waiting(self) -> bool:
        """See `Source`."""
        return bool(self._work)

    def next_attempt(self) -> Attempt | None:
        """See `Source`."""
        while self._at_work < self._most and (event := self._next()) is not None:
            entry = None if self._ended else self._gate.enter()
            if entry is not None:
                self._at_work += 1
                now = clocks.monotonic()
                return Attempt(self, self._client, event, entry, now, now + ATTEMPT_TIMEOUT)
            self._done.put((event, None))
        return None

    def finish(self, attempt: Attempt, outcome: Outcome) -> None:
        """See `Source`."""
        self._at_work -= 1
        event = attempt.event
        self._outcomes.append((event, self._gate.leave(attempt.entry, event.key, outcome)))

    def hand_over(self) -> None:
        """See `Source`."""
        for each in self._outcomes:
            self._done.put(each)
        self._outcomes.clear()

    # In threads

    def _send_waiting(self) -> None:
        """Send what waits in this thread, unless another destination needs it."""
        while True:
            with self._lock:
                if (event := self._next()) is None:
                    self._at_work -= 1
                    return
            self._send(event)
            if self._threads.are_wanted and self._threads.put(self._send_waiting):
                return

    def _send(self, event: Handed) -> None:
        entry = None if self._ended else self._gate.enter()
        outcome = None
        try:
            if entry is not None:
                outcome = INTERRUPTED
                outcome = attempt(self._post, event.id, event.body, ATTEMPT_TIMEOUT)
        except BaseException:  # noqa: BLE001 - a thread that ends would take its event with it
            faults.report("sender", "usage event %r was interrupted", event.id, exc_info=True)
        if entry is not None and outcome is not None:
            outcome = self._gate.leave(entry, event.key, outcome)
        self._done.put((event, outcome))


def tried_before(events: Iterable[Handed]) -> int:
    """Return how many of them were tried in vain before."""
    return sum(1 for event in events if event.attempts)


def attempt(post: Transport, event_id: str, body: bytes, timeout: float) -> Outcome:
    """Make an attempt. What is raised instead of an outcome is no verdict on the event, which may have left."""
    try:
        return post(event_id, body, timeout)
    except Exception as error:  # noqa: BLE001 - the others shall be sent, whatever is wrong with this one
        faults.report("delivery", "usage event %r cannot be sent", event_id, exc_info=True)
        return Outcome(Verdict.RETRY, type(error).__name__, ambiguous=True)
