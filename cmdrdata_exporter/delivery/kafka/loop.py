"""One thread for a topic: it produces what its sources have, in their order, and waits for the acknowledgements."""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.attempts import Attempt, Put, Source

if TYPE_CHECKING:
    from cmdrdata_exporter.delivery.kafka.client import Client

WAIT = 0.01
"""Seconds in which an acknowledgement is waited for before there may be more to produce."""
LATE = 5.0
"""Seconds beyond its time after which a record is given up that was never heard of again."""
AFTER_FAILURE = 0.1


class Loop(processes.ForkAware):
    """
    Attempts that are under way.

    Args:
        client: makes them.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.after_fork_child()
        processes.notify_of_forks(self)

    def after_fork_child(self) -> None:
        """Begin anew in a forked child: the attempts are its parent's."""
        self._lock = threading.Lock()
        self._runs = False
        self._sources: dict[Source, None] = {}
        """Those that may have an attempt to make."""
        self._active: dict[Attempt, None] = {}
        self._finished: dict[Source, None] = {}
        """Those that have outcomes to pass on."""
        self._answers: deque[tuple[Attempt, Outcome]] = deque()
        """What came of attempts. Who sends in a thread of its own may poll, so they come in any thread."""

    def serve(self, source: Source, put: Put) -> bool:
        """See `attempts.Loop`."""
        with self._lock:
            if not self._runs:
                if not put(self._run):
                    return False
                self._runs = True
            self._sources[source] = None
            return True

    def end(self, client: Client) -> None:
        """See `attempts.Loop`."""
        client.end()

    def _run(self) -> None:
        while self._goes_on():
            try:
                self._turn()
            except BaseException:  # noqa: BLE001, PERF203 - a thread that ends would take its events with it
                faults.report("sender", "usage events were interrupted", exc_info=True)
                self._take_answers()
                self._give_up(clocks.monotonic(), "interrupted", late=float("-inf"))
                time.sleep(AFTER_FAILURE)
        self._client.release()

    def _goes_on(self) -> bool:
        with self._lock:
            self._runs = bool(self._sources or self._active or self._finished)
            return self._runs

    def _turn(self) -> None:
        with self._lock:
            sources = list(self._sources)
            self._sources.clear()
        for source in sources:
            while (attempt := source.next_attempt()) is not None:
                self._active[attempt] = None
                event = attempt.event
                self._client.produce(event.id, event.body, partial(self._answered, attempt))
        self._client.poll(WAIT)
        self._take_answers()
        self._give_up(clocks.monotonic(), "timeout", late=LATE)
        finished = list(self._finished)
        self._finished.clear()
        with self._lock:
            # One that had no room for another attempt may have it now.
            self._sources.update(dict.fromkeys(finished))
        for source in finished:
            source.hand_over()

    def _answered(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take note of what came of an attempt, from any thread: a source is called in the loop's alone."""
        self._answers.append((attempt, outcome))

    def _take_answers(self) -> None:
        while self._answers:
            self._finish(*self._answers.popleft())

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        # One that was given up may be answered still.
        if attempt in self._active:
            del self._active[attempt]
            self._finished[attempt.source] = None
            attempt.source.finish(attempt, self._client.noted(outcome, attempt.began))

    def _give_up(self, now: float, reason: str, *, late: float) -> None:
        """End the attempts that are so late."""
        for attempt in [each for each in self._active if now >= each.deadline + late]:
            self._finish(attempt, Outcome(Verdict.RETRY, reason, ambiguous=True))
