"""
The drainer: the thread of a process that takes care of one destination.

It syncs the journal of this process, tries to lead (`leadership`), and makes the relay's steps while it does. Where
nothing has been to do for a while it ends, until an event is recorded or `watch` finds something.
With `CMDRDATA_DRAIN=none` it only takes care of the journal: another process drains.
"""

from __future__ import annotations

import sqlite3
import threading
from typing import Any

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.leadership import LEAD_INTERVAL, Leadership
from cmdrdata_exporter.delivery.options import Options
from cmdrdata_exporter.delivery.relay import Relay
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.schema import UnknownVersionError, is_broken
from cmdrdata_exporter.delivery.status_log import StatusLog
from cmdrdata_exporter.delivery.watch import watch

TICK = 0.2
"""Seconds between two syncs of our own journal: a crash of the host loses no more."""
MEASURE_INTERVAL = 1.0
"""Seconds between two looks at how much room there is."""
RETRY_INTERVAL = 0.5
"""Seconds until a step that failed is tried again."""
IDLE = 60.0
"""Seconds in which nothing is recorded for a destination after which it is left until something is."""
CROWD = 32
"""Where more destinations than these are drained in a process, those with nothing to do are left sooner."""

_drained: set[object] = set()
"""What drains in this process."""


class Drainer:
    """
    Drains a directory while this process leads there. Its public methods may be called from any thread.

    Args:
        directory: whose journals.
        journal: this process's own, which is synced here.
        options: how.
    """

    def __init__(self, directory: Directory, journal: Journal, options: Options) -> None:
        self._directory = directory
        self._journal = journal
        self._options = options
        self._log = StatusLog(directory)
        self.leadership = Leadership(directory, options, self._log)
        self._clear()

    def _clear(self) -> None:
        self._starting: Any = threading.RLock()
        self._ended = threading.Event()
        self.running = False
        self.rests = False
        """Whether it has been left, with nothing to do, until something is recorded."""
        self._begin()

    def _begin(self) -> None:
        """Set up what a thread of this drainer has of its own."""
        self.relay = Relay(self._directory, self._options, self._log)
        self.leadership.restart()
        self._stop_at: float | None = None
        self._next_sync = self._next_measure = 0.0
        self._appended = 0

    @property
    def leads(self) -> bool:
        """Whether this process drains the directory."""
        return self.leadership.leads

    @property
    def gate(self) -> Gate:
        """What is known of the backend."""
        return self.relay.gate

    @property
    def database(self) -> threading.Lock:
        """Held while this process uses SQLite."""
        return self.leadership.database

    # Life

    def start(self) -> None:
        """Start the thread, if it does not run. Where none can be started any more, others will drain."""
        if self.running or self._starting._is_owned():  # noqa: SLF001 - as threading.Condition asks it
            return
        try:
            # Otherwise another thread is already starting it.
            if self._starting.acquire(blocking=False) and not self.running:
                self._begin()
                self._ended.clear()
                self.rests = False
                processes.start_running(self, self._run, self.relay)
        finally:
            # Not only where it is known to be had: Ctrl-C may have come between that and the next statement.
            if self._starting._is_owned():  # noqa: SLF001 - see above
                self._starting.release()

    def wake(self) -> None:
        """Look at the journals now."""
        self.leadership.restart()
        self.relay.wake()

    def stop(self, timeout: float) -> None:
        """Deliver what can be delivered within `timeout` seconds, commit, and let another process lead."""
        self.look()
        if self.running:
            self._stop_at = clocks.monotonic() + timeout
            self.wake()
            self._ended.wait(timeout + processes.LAST_COMMIT_TIMEOUT)

    def look(self) -> bool:
        """Drain again if there is something to do; return whether it still rests."""
        try:
            if self.rests and (
                self._journal.is_open
                or (
                    self._options.drains
                    and (self._directory.journals() or self.leadership.has_more())
                )
            ):
                self.start()
        except OSError as error:
            # The next time.
            if faults.is_interruption(error):
                raise
        return self.rests

    def forked(self, *, parked: bool) -> None:
        """Begin anew in a forked child, without a thread; `parked`: whether the parent had closed its ledger."""
        self.leadership.forked(parked=parked)
        _drained.discard(self)
        self._clear()
        self._options.reset()

    # The thread

    def _run(self, relay: Relay) -> None:
        rests = False
        _drained.add(self)
        try:
            while relay is self.relay and not self._is_over() and not rests:
                self._turn()
                rests = self._may_rest()
        finally:
            if relay is self.relay:
                self._end()
                if rests:
                    self._options.reset()
                    self.leadership.note_modified()
                    self.rests = True
                    if self._options.drains:
                        watch.add(self)
                    # For what was recorded in this moment.
                    self.look()

    def _may_rest(self) -> bool:
        """Return whether there is nothing to do, and has not been for a while, for this process and for others."""
        relay, drains = self.relay, self._options.drains
        if not drains and self._journal.appended != self._appended:
            self._appended, relay.active = self._journal.appended, clocks.monotonic()
        patience = IDLE if len(_drained) <= CROWD else LEAD_INTERVAL
        if (
            self._options.stays
            # Who says nothing any more is taken to be gone.
            or self._options.report is not None
            or self._stop_at is not None
            or (drains and not (self.leads and relay.is_at_rest))
            or clocks.monotonic() < relay.active + patience
        ):
            return False
        if self._journal.is_open:
            self._journal.seal()
            relay.journals_pending = True  # so that it is removed
            return False
        try:
            return not (drains and self._directory.journals())
        except OSError:
            return False

    def _is_over(self) -> bool:
        if self._stop_at is None:
            return False
        remaining = self._stop_at - clocks.monotonic()
        if remaining <= 0:
            return True
        if not self.leads:
            return self.leadership.tried_to_lead
        return not self.relay.has_more(remaining)

    def _end(self) -> None:
        """Commit what is known, and let another process lead."""
        _drained.discard(self)
        leadership, relay = self.leadership, self.relay
        try:
            if relay.senders is not None:
                relay.senders.end()
            relay.receive_all()
            with self.database:
                leadership.check()
                while leadership.leads and relay.outcomes:
                    ledger = leadership.ledger()
                    relay.step(ledger, claim=False)
                    relay.tidy_up(ledger)
            self._log.log_refusals()
        except (OSError, sqlite3.Error) as error:
            faults.report("last commit", "what was sent last could not be noted: %s", error)
        finally:
            with self.database:
                leadership.resign()
            # Set the event before `running`, because `start` clears it.
            self._ended.set()
            self.running = False

    def _turn(self) -> None:
        """Do what is due, and wait for what comes next."""
        wait = RETRY_INTERVAL
        leadership, relay = self.leadership, self.relay
        try:
            self._keep()
            if leadership.leads or leadership.try_to_lead(relay.begin):
                began, mark = clocks.monotonic(), self._journal.mark()
                with self.database:
                    claimed = relay.step(leadership.ledger())
                # Before anything else can fail: they are in flight.
                relay.send(claimed)
                if mark is not None and relay.has_imported(mark):
                    mark.file.note_imported(mark.frames)
                    self._next_sync = max(self._next_sync, began + TICK)
                with self.database:
                    relay.tidy_up(leadership.ledger())
                self._log.recovered()
                self._log.log_refusals()
                if self._log.backend_state(relay.gate):
                    relay.upkeep.next = 0.0  # so that commands know at once
                wait = relay.wait(ending=self._stop_at is not None)
            else:
                # Not so long again as the sync took: what was recorded since it began has waited through it.
                wait = max(0.0, self._next_sync - clocks.monotonic())
        except (OSError, sqlite3.Error, UnknownVersionError) as error:
            # A full disk, a database that someone has locked: nothing is lost, and it may pass.
            relay.reset()
            leadership.is_damaged = (
                leadership.leads and isinstance(error, sqlite3.Error) and is_broken(error)
            )
            if leadership.is_damaged:
                wait = 0.0
            else:
                relay.import_less()
                leadership.give_back()
                self._log.error(error)
        except Exception:  # noqa: BLE001 - the thread must live
            relay.reset()
            faults.report("drainer", "CmdrData's delivery failed; it tries again", exc_info=True)
        self._wait(wait)

    def _wait(self, seconds: float) -> None:
        """Wait for what comes next, and sync the journal meanwhile."""
        until = clocks.monotonic() + seconds
        while self._next_sync < until:
            if self.relay.collect(max(0.0, self._next_sync - clocks.monotonic())):
                return
            self._sync()
        self.relay.collect(max(0.0, until - clocks.monotonic()))

    def _keep(self) -> None:
        """Take care of the journal of this process."""
        now = clocks.monotonic()
        # Before the journals are looked for: one that is not there is taken to be done with.
        self._journal.check_place()
        with self.database:
            self.leadership.check()
        if self._journal.stalled:
            self._log.disk_stalled()
        self._sync()
        if now >= self._next_measure:
            self._next_measure = now + MEASURE_INTERVAL
            self._measure()

    def _sync(self) -> None:
        now = clocks.monotonic()
        if now < self._next_sync:
            return
        self._next_sync = now + TICK
        try:
            self._journal.sync()
        except Exception as error:  # noqa: BLE001 - the thread must live
            # What was recorded can be delivered all the same.
            faults.report("sync", "a crash of the host may lose usage events: %s", error)

    def _measure(self) -> None:
        self._journal.is_full = self.relay.measure()
