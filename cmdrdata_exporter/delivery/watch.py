"""
One thread that looks after the destinations that are not drained in this process, since there is nothing to do.

Each event of this process begins that again by itself; of those that others record, journals tell.
"""

from __future__ import annotations

import threading
import time
import weakref
from typing import Protocol

from cmdrdata_exporter import faults, processes

INTERVAL = 1.0
"""Seconds between two looks."""


class Resting(Protocol):
    """What rests while there is nothing to do."""

    rests: bool

    def look(self) -> bool:
        """Go on, if there is something to do; say whether it rests still."""
        ...


class Watch(processes.ForkAware):
    """Looks once a second whether any of those that rest has something to do."""

    def __init__(self) -> None:
        self.after_fork_child()
        processes.notify_of_forks(self)

    def after_fork_child(self) -> None:
        """Look after nothing in a forked child: what rests in its parent is its parent's."""
        self._lock = threading.Lock()
        self._resting: weakref.WeakSet[Resting] = weakref.WeakSet()
        self.running = False

    def add(self, resting: Resting) -> None:
        """Look after it, until it goes on."""
        with self._lock:
            self._resting.add(resting)
            if not self.running:
                processes.start_running(self, self._run)

    def _run(self) -> None:
        while True:
            time.sleep(INTERVAL)
            with self._lock:
                found = list(self._resting)
                if not found:
                    self.running = False
                    return
            while found:
                resting = found.pop()
                rests = _look(resting)
                # It may have gone on and come to rest again meanwhile.
                with self._lock:
                    if rests is False and not resting.rests:
                        self._resting.discard(resting)
                del resting


@faults.guarded
def _look(resting: Resting) -> bool:
    return resting.look()


watch = Watch()
