"""The threads that send: each takes an event, asks the gate, makes one attempt and says what came of it."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Sequence

from cmdrdata_exporter import faults, processes
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.http import ATTEMPT_TIMEOUT, Outcome, Post, Verdict
from cmdrdata_exporter.delivery.ledger import Handed

AT_ONCE = 4
"""Threads that are there from the beginning, since at the exit of the process none can be started any more."""

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

    def give(self, events: Sequence[Handed]) -> None:
        """Have events sent."""
        self.busy += len(events)
        self.start(min(self.busy, self._most))
        for event in events:
            if self.alone:
                self._send(event)
            else:
                self._work.put(event)

    @property
    def alone(self) -> bool:
        """Whether there is no thread, and `give` itself sends."""
        return self._threads == 0

    def start(self, number: int) -> None:
        """Have so many threads at least, if they can be had."""
        with contextlib.suppress(RuntimeError):
            while self._threads < number:
                processes.start_thread(self._run)
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
        entered = None if self._ended else self._gate.enter()
        self._done.put((event, None if entered is None else self._attempt(event, entered)))

    def _attempt(self, event: Handed, entered: int) -> Outcome:
        outcome = Outcome(Verdict.RETRY, "interrupted", ambiguous=True)
        try:
            outcome = self._post(event.id, event.body, ATTEMPT_TIMEOUT)
        except Exception as error:  # noqa: BLE001 - the others shall be sent, whatever is wrong with this one
            faults.report("delivery", "usage event %r cannot be sent", event.id, exc_info=True)
            outcome = Outcome(Verdict.REFUSED, type(error).__name__)
        except BaseException:  # noqa: BLE001 - a thread that ends would take its event with it
            faults.report("sender", "usage event %r was interrupted", event.id, exc_info=True)
        finally:
            self._gate.leave(entered, outcome)
        return outcome
