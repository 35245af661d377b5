"""One thread for a topic: it produces what its sources have, in their order, and waits for the acknowledgements."""

from __future__ import annotations

import threading
import time
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

    def serve(self, source: Source, put: Put) -> bool:
        """See `attempts.Loop`."""
        with self._lock:
            if not self._runs:
                if not put(self._run):
                    return False
                self._runs = True
            self._sources[source] = None
            return True

    def _run(self) -> None:
        while self._goes_on():
            try:
                self._turn()
            except BaseException:  # noqa: BLE001, PERF203 - a thread that ends would take its events with it
                faults.report("sender", "usage events were interrupted", exc_info=True)
                self._give_up(clocks.monotonic(), "interrupted", late=float("-inf"))
                time.sleep(AFTER_FAILURE)

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
                self._client.produce(event.id, event.body, partial(self._finish, attempt))
        self._client.poll(WAIT)
        self._give_up(clocks.monotonic(), "timeout", late=LATE)
        with self._lock:
            finished = list(self._finished)
            self._finished.clear()
            # One that had no room for another attempt may have it now.
            self._sources.update(dict.fromkeys(finished))
        for source in finished:
            source.hand_over()

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take note of what came of an attempt. Who sends in a thread of its own may poll: from any thread."""
        with self._lock:
            if attempt not in self._active:
                return
            del self._active[attempt]
            source = attempt.source
            source.finish(attempt, self._client.noted(outcome, attempt.began))
            self._finished[source] = None

    def _give_up(self, now: float, reason: str, *, late: float) -> None:
        """End the attempts that are so late."""
        for attempt in [each for each in self._active if now >= each.deadline + late]:
            self._finish(attempt, Outcome(Verdict.RETRY, reason, ambiguous=True))
