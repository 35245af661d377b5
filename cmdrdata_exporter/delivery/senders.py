"""The threads that send: each takes an event, asks the gate, makes one attempt and says what came of it."""

from __future__ import annotations

import _thread
import contextlib
import queue
from collections.abc import Sequence

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.http import ATTEMPT_TIMEOUT, Outcome, Post, Verdict
from cmdrdata_exporter.delivery.ledger import Handed

AT_ONCE = 4
"""Threads that are there from the beginning, since at the exit of the process none can be started any more."""

INTERRUPTED = Outcome(Verdict.RETRY, "interrupted", ambiguous=True)

Done = tuple[Handed, Outcome | None]
"""An event that was given to the senders and what came of it; None: the gate had been shut, it was not sent."""


class Senders:
    """
    At most as many threads as are needed, which end with the process.

    An interpreter that shuts down starts no thread; where there is none, who gives an event sends it.

    Args:
        post: makes an attempt.
        gate: says whether one may be made.
        done: where to put what came of each.
        most: how many threads there may be.
    """

    def __init__(
        self,
        post: Post,
        gate: Gate,
        done: queue.SimpleQueue[Done | None],
        *,
        most: int,
    ) -> None:
        self._post = post
        self._gate = gate
        self._done = done
        self._most = most
        # None ends a thread.
        self._work: queue.SimpleQueue[Handed | None] = queue.SimpleQueue()
        self._threads = 0
        self._ended = False
        self.busy = 0
        """How many events were given and have not been taken back. Kept by the drainer's thread alone."""
        self.busy_again = 0
        """How many of them had been tried before."""

    def give(self, events: Sequence[Handed]) -> None:
        """Have events sent."""
        self._count(events, 1)
        self.start(min(self.busy, self._most))
        for event in events:
            if self.alone:
                self._send(event)
            else:
                self._work.put(event)

    def taken_back(self, event: Handed) -> None:
        """Take note that an event has come back."""
        self._count([event], -1)

    def _count(self, events: Sequence[Handed], sign: int) -> None:
        self.busy += sign * len(events)
        self.busy_again += sign * sum(event.attempts > 0 for event in events)

    @property
    def alone(self) -> bool:
        """Whether there is no thread, and `give` itself sends."""
        return self._threads == 0

    def start(self, number: int) -> None:
        """Have so many threads at least, if they can be had."""
        with contextlib.suppress(RuntimeError):
            while self._threads < number:
                # Not a threading.Thread, which instrumentations have hand on the context of whoever starts it.
                _thread.start_new_thread(self._run, ())
                self._threads += 1

    def end(self) -> None:
        """Begin no further attempt: what waits for one comes back unsent, and the threads end."""
        self._ended = True
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._work.get_nowait()
                if event is not None:
                    self._done.put((event, None))
        for _ in range(self._threads):
            self._work.put(None)

    def _run(self) -> None:
        while (event := self._work.get()) is not None:
            self._send(event)

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


def attempt(post: Post, event_id: str, body: bytes, timeout: float) -> Outcome:
    """Make an attempt. What is raised instead of an outcome is no verdict on the event, which may have left."""
    try:
        return post(event_id, body, timeout)
    except Exception as error:  # noqa: BLE001 - the others shall be sent, whatever is wrong with this one
        faults.report("delivery", "usage event %r cannot be sent", event_id, exc_info=True)
        return Outcome(Verdict.RETRY, type(error).__name__, ambiguous=True)
