"""
The thread that sends on to CmdrData what the ledger has for it. It does nothing else: what it has claimed waits for it.

Events are sent as a host sends its own, by the same senders and the same gate: committed as in flight before, their
outcomes after it. Of several gateways each claims other events.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery import Transport
from cmdrdata_exporter.delivery.backoff import backoff
from cmdrdata_exporter.delivery.gate import FIRST, Gate
from cmdrdata_exporter.delivery.options import SENDERS
from cmdrdata_exporter.delivery.senders import Done, Senders
from cmdrdata_exporter.fleet.gateway.health import Health
from cmdrdata_exporter.fleet.gateway.ledgers import Ledger, Open
from cmdrdata_exporter.fleet.gateway.shelving import plain_error
from cmdrdata_exporter.fleet.gateway.watching import Counts

LOOK = 0.5
"""Seconds between two looks for events to send, while none are under way."""
LINGER = 0.02
"""Seconds in which outcomes are waited for, so that they share a commit."""
RECOVER = 60.0
"""
Seconds between two looks for events that a dead gateway had in flight, and from the start, or a failure, to the first:
others that the database was away for say first what came of theirs.
"""


class Forwarding:
    """
    The thread.

    Args:
        open_ledger: opens the ledger.
        post: sends an event.
        counts: where to count.
    """

    def __init__(self, open_ledger: Open, post: Transport, counts: Counts) -> None:
        self._open = open_ledger
        self._counts = counts
        self._ledger: Ledger | None = None
        self._gate = Gate(SENDERS, first=FIRST)
        self._inbox: queue.SimpleQueue[Done | None] = queue.SimpleQueue()
        self._senders = Senders(post, self._gate, self._inbox, most=SENDERS)
        self._outcomes: list[Done] = []
        """Those that are not committed."""
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._next_recovery = clocks.monotonic() + RECOVER
        self.health = Health(
            counts,
            "forwarding",
            fault="events cannot be sent on",
            waits="events wait to be sent on",
            again="events are sent on again",
        )

    def start(self) -> None:
        """Start the thread."""
        processes.start_thread(self._run, name="cmdrdata-gateway-forwarding")

    def stop(self, seconds: float) -> bool:
        """Send nothing more, and commit what comes of what was sent; say whether it ended in time."""
        self._stop.set()
        self._inbox.put(None)
        return self._ended.wait(seconds)

    def _run(self) -> None:
        self._senders.start()
        failures = 0
        while not self._stop.is_set():
            wait = LOOK
            try:
                self._turn()
                self.health.worked()
                failures = 0
                if self._senders.busy:
                    wait = LINGER
            except Exception as error:  # noqa: BLE001 - the thread must live
                self._failed(error)
                wait, failures = backoff(failures), failures + 1
            self._receive(wait)
        self._end()

    def _turn(self) -> None:
        if self._ledger is None:
            self._ledger = self._open()
        ledger, now = self._ledger, clocks.monotonic()
        # What cannot be committed would have to be sent again: so this comes first.
        self._commit(ledger)
        if now >= self._next_recovery:
            ledger.recover()
            self._next_recovery = now + RECOVER
        if room := self._gate.room(self._senders.busy):
            self._senders.give(ledger.claim(room))

    def _commit(self, ledger: Ledger) -> None:
        if self._outcomes:
            late = ledger.record_outcomes(self._outcomes)
            if late:
                self._counts.add("outcomes_late", late)
                faults.say(
                    logging.WARNING,
                    "what came of %d events was noted too late; another gateway may have sent them again",
                    late,
                )
            for _, outcome in self._outcomes:
                if outcome is not None:
                    self._counts.add("forwarded", outcome=outcome.verdict.name.lower())
            self._outcomes.clear()

    def _receive(self, wait: float) -> None:
        """Receive outcomes, the first of which is waited for."""
        with contextlib.suppress(queue.Empty):
            done = self._inbox.get(timeout=wait)
            while True:
                if done is not None:
                    self._outcomes.append(done)
                    self._senders.taken_back(done[0])
                done = self._inbox.get_nowait()

    def _failed(self, error: Exception) -> None:
        self.health.failed(error)
        self._next_recovery = clocks.monotonic() + RECOVER
        if self._ledger is not None:
            ledger, self._ledger = self._ledger, None
            ledger.close()

    def _end(self) -> None:
        """Commit what comes of what was sent. What does not come in time is taken back by another gateway."""
        try:
            self._senders.end()
            while self._senders.busy:
                self._receive(LOOK)
            if self._ledger is not None:
                self._commit(self._ledger)
                self._ledger.close()
        except Exception as error:  # noqa: BLE001 - it ends all the same
            faults.report("last commit", "what was sent last is not noted: %s", plain_error(error))
        self._ended.set()
