"""
The thread that looks after the ledger: it sends on what is to go to CmdrData, and removes what is old.

Events are sent as a host sends its own, by the same senders and the same gate: committed as in flight before, their
outcomes after it. Of several gateways each claims other events.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading

import psycopg

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery import Transport
from cmdrdata_exporter.delivery.backoff import backoff
from cmdrdata_exporter.delivery.gate import FIRST, Gate
from cmdrdata_exporter.delivery.options import SENDERS
from cmdrdata_exporter.delivery.senders import Done, Senders
from cmdrdata_exporter.fleet.gateway.ledgers import Ledger, Open
from cmdrdata_exporter.fleet.gateway.shelving import plain_error
from cmdrdata_exporter.fleet.gateway.watching import Counts

LOOK = 0.5
"""Seconds between two looks for events to send, while none are under way."""
LINGER = 0.02
"""Seconds in which outcomes are waited for, so that they share a commit."""
RECOVER = 60.0
"""Seconds between two looks for events that a dead gateway had in flight."""
TIDY = 600.0
"""Seconds between two looks for what is old."""


class Forwarding:
    """
    The thread.

    Args:
        open_ledger: opens the ledger.
        post: sends an event; None: events stay where they are.
        counts: where to count.
    """

    def __init__(self, open_ledger: Open, post: Transport | None, counts: Counts) -> None:
        self._open = open_ledger
        self._post = post
        self._counts = counts
        self._ledger: Ledger | None = None
        self._gate = Gate(SENDERS, first=FIRST)
        self._inbox: queue.SimpleQueue[Done | None] = queue.SimpleQueue()
        self._senders = (
            None if post is None else Senders(post, self._gate, self._inbox, most=SENDERS)
        )
        self._outcomes: list[Done] = []
        """Those that are not committed."""
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._next_recovery = self._next_tidying = 0.0
        self.works = True
        """Whether the last turn has."""

    def start(self) -> None:
        """Start the thread."""
        processes.start_thread(self._run, name="cmdrdata-gateway-forwarding")

    def stop(self, seconds: float) -> bool:
        """Send nothing more, and commit what comes of what was sent; say whether it ended in time."""
        self._stop.set()
        self._inbox.put(None)
        return self._ended.wait(seconds)

    def _run(self) -> None:
        if self._senders is not None:
            self._senders.start()
        failures = 0
        while not self._stop.is_set():
            wait = LOOK
            try:
                self._turn()
                if not self.works:
                    faults.say(logging.WARNING, "the ledger is looked after again")
                self.works, failures = True, 0
                if self._senders is not None and self._senders.busy:
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
        if now >= self._next_tidying:
            # First, so that what keeps this from being done keeps no event from being sent.
            self._next_tidying = now + TIDY
            ledger.tidy()
        if self._senders is None:
            return
        if now >= self._next_recovery:
            ledger.recover()
            self._next_recovery = now + RECOVER
        if room := self._gate.room(self._senders.busy):
            self._senders.give(ledger.claim(room))

    def _commit(self, ledger: Ledger) -> None:
        if self._outcomes:
            ledger.record_outcomes(self._outcomes)
            for _, outcome in self._outcomes:
                if outcome is not None:
                    self._counts.add("forwarded", outcome=outcome.verdict.name.lower())
            self._outcomes.clear()

    def _receive(self, wait: float) -> None:
        """Receive outcomes, the first of which is waited for."""
        with contextlib.suppress(queue.Empty):
            done = self._inbox.get(timeout=wait)
            while True:
                if done is not None and self._senders is not None:
                    self._outcomes.append(done)
                    self._senders.taken_back(done[0])
                done = self._inbox.get_nowait()

    def _failed(self, error: Exception) -> None:
        self._counts.add("failures", part="forwarding")
        if not isinstance(error, psycopg.Error):
            faults.report("forwarding", "the ledger cannot be looked after", exc_info=True)
        elif self.works:
            faults.say(logging.WARNING, "the ledger waits: %s", plain_error(error))
        self.works = False
        if self._ledger is not None:
            ledger, self._ledger = self._ledger, None
            ledger.close()

    def _end(self) -> None:
        """Commit what comes of what was sent. What does not come in time is taken back by another gateway."""
        try:
            if self._senders is not None:
                self._senders.end()
                while self._senders.busy:
                    self._receive(LOOK)
            if self._ledger is not None:
                self._commit(self._ledger)
                self._ledger.close()
        except Exception as error:  # noqa: BLE001 - it ends all the same
            faults.report("last commit", "what was sent last is not noted: %s", plain_error(error))
        self._ended.set()
