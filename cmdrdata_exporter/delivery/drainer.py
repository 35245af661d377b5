"""
The drainer: of all processes that use a directory, one imports the journals and sends what is due.

A thread of its own keeps the time; the process whose thread holds the directory's lock leads, and the others look
every second whether they could. The kernel drops the lock of a process that dies.
What is to be sent is committed as being in flight before a sender may send it, and what became of it afterwards:
a process that dies between the two leaves behind what may have been accepted, and nothing else.
While outcomes cannot be committed nothing is handed out, since it would have to be sent again.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery.directory import LOCK, Directory
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.http import Post
from cmdrdata_exporter.delivery.journal import Journal
from cmdrdata_exporter.delivery.ledger import Handed, Ledger, UnknownVersionError, is_broken
from cmdrdata_exporter.delivery.readings import Readings, clear_away
from cmdrdata_exporter.delivery.salvage import finish, is_sound, salvage
from cmdrdata_exporter.delivery.senders import AT_ONCE, Done, Senders
from cmdrdata_exporter.delivery.trouble import Trouble

TICK = 0.2
"""Seconds between two looks at the journals, and between two syncs of our own: a crash of the host loses no more."""
LEAD_INTERVAL = 1.0
"""Seconds between two attempts to lead."""
LINGER = 0.008
"""Seconds in which further outcomes are waited for, so that they share a commit."""
RETRY_INTERVAL = 0.5
"""Seconds until a commit that failed is tried again."""
IMPORT_BYTES = 256 << 10
"""How much is imported in a transaction: what the senders do not wait for longer than for an answer."""
LEAST_IMPORT = 4096
"""The same on a disk that was full a moment ago."""
RESERVE = 128 << 10
"""Bytes that are left free by imports, so that outcomes can be committed."""
UPKEEP_INTERVAL = 10.0
"""Seconds between two rounds of what can wait."""
EXPIRY_INTERVAL = 600.0
SENDERS = 32
LARGEST = 1 << 30
"""Bytes that a directory may have."""
LAST_COMMIT = 0.4
"""Seconds that the end of the process waits longer than it was told to, so that outcomes are committed."""


@dataclass(frozen=True)
class Options:
    """How a directory is drained."""

    post: Post | None
    """None for the destination `local`, where nothing is sent."""
    reset: Callable[[], None] = lambda: None
    """What a forked child does before it sends."""
    hold_ambiguous: bool = False
    probe_interval: float = 60.0
    largest: int = LARGEST
    """Bytes that the directory may have."""
    clock: Callable[[], float] = clocks.wall
    """Returns Unix seconds."""


class Drainer:
    """
    Drains a directory while this process leads there. Its methods may be called from any thread.

    Args:
        directory: whose journals.
        journal: this process's own, which is synced here.
        options: how.
    """

    def __init__(self, directory: Directory, journal: Journal, options: Options) -> None:
        self._directory = directory
        self._journal = journal
        self._options = options
        self._trouble = Trouble(directory)
        self._inherited: list[Ledger] = []
        self.may_lead = True
        """False where a child was forked in the middle of its parent's use of SQLite."""
        self._clear()

    def _clear(self) -> None:
        self.database = threading.Lock()
        """Held while this process uses SQLite, so that it is not forked then."""
        self._lock_file: int | None = None
        self._ledger: Ledger | None = None
        self._readings: Readings | None = None
        self._starting: Any = threading.RLock()
        self.running = False
        self.full = False
        """Whether the directory has reached its limit."""
        self._ended = threading.Event()
        self._begin()

    def _begin(self) -> None:
        """Set up what a thread of this drainer has of its own."""
        # What came of attempts; None says only that there is something to do.
        self._inbox: queue.SimpleQueue[Done | None] = queue.SimpleQueue()
        self._outcomes: list[Done] = []
        self.gate = Gate(SENDERS, probe_interval=self._options.probe_interval)
        post = self._options.post
        self._senders = (
            None if post is None else Senders(post, self.gate, self._inbox, most=SENDERS)
        )
        self._stop_at: float | None = None
        self._looked = False
        self._next_look = self._next_sync = self._next_measure = 0.0
        self._next_import = self._next_upkeep = self._next_expiry = 0.0
        self._scarce = False
        """Whether the disk is nearly full."""
        self._import_bytes = IMPORT_BYTES
        """How much of them is imported next, as far as the disk has room."""
        self._more = True
        """Whether the journals are to be read now."""
        self._may_shrink = False
        self._due: float | None = None
        self._bucket = 0
        self._seen = self._options.clock()

    @property
    def leads(self) -> bool:
        """Whether this process drains the directory."""
        return self._lock_file is not None

    @property
    def in_flight(self) -> int:
        """How many events this process is sending."""
        return 0 if self._senders is None else self._senders.busy

    # Life

    def start(self) -> None:
        """Start the thread, if it does not run. Where none can be started any more, others will drain."""
        if self.running or self._starting._is_owned():  # noqa: SLF001 - as threading.Condition asks it
            return
        try:
            # Whoever finds the lock taken finds the thread started a moment later.
            if self._starting.acquire(blocking=False):
                self._start()
        finally:
            # Not only where it is known to be had: Ctrl-C may have come between that and the next statement.
            if self._starting._is_owned():  # noqa: SLF001 - see above
                self._starting.release()

    def _start(self) -> None:
        if self.running:
            return
        self.running = True
        try:
            self._begin()
            self._ended.clear()
            processes.start_thread(self._run, self._inbox)
        except BaseException as error:
            self.running = False
            # What a signal handler raised, Ctrl-C for one, goes on; the next event starts the thread.
            if faults.is_interruption(error) or not isinstance(error, RuntimeError):
                raise

    def wake(self) -> None:
        """Look at the journals now."""
        self._more = True
        self._next_look = 0.0
        self._inbox.put(None)

    def stop(self, timeout: float) -> None:
        """Deliver what can be delivered within `timeout` seconds, commit, and let another process lead."""
        if self.running:
            self._looked = False
            self._stop_at = clocks.monotonic() + timeout
            self.wake()
            self._ended.wait(timeout + LAST_COMMIT)

    def park(self) -> bool:
        """Close the database before a fork, for a second at most. Returns whether it is."""
        if not self.database.acquire(timeout=1.0):
            return False
        self._close_ledger()
        return True

    def unpark(self) -> None:
        """Go on in the parent, after a fork."""
        self.database.release()

    def forked(self, *, parked: bool) -> None:
        """
        Begin anew in a forked child: no thread, no lock, nothing that its parent has open.

        Args:
            parked: whether the parent had closed its database.
        """
        if not parked and (self._ledger is not None or self.database.locked()):
            # Nobody can release SQLite's own locks here, and closing would undo those of the parent.
            self.may_lead = False
            if self._ledger is not None:
                self._inherited.append(self._ledger)
        if self._lock_file is not None:
            # A copy; unlocking it would unlock the parent's.
            os.close(self._lock_file)
        self._clear()
        self._options.reset()

    # The thread

    def _run(self, inbox: object) -> None:
        try:
            while inbox is self._inbox and not self._is_over():
                self._turn()
        finally:
            if inbox is self._inbox:
                self._end()

    def _is_over(self) -> bool:
        if self._stop_at is None:
            return False
        remaining = self._stop_at - clocks.monotonic()
        if remaining <= 0:
            return True
        if not self.leads:
            return self._looked
        if self._more or self.in_flight or self._outcomes:
            return False
        if self._senders is None or self.gate.paused or self.gate.delay() >= remaining:
            return True
        return self._due is None or self._due - self._options.clock() >= remaining

    def _end(self) -> None:
        """Commit what is known, and let another process lead."""
        try:
            if self._senders is not None:
                self._senders.end()
            self._receive_all()
            if self.leads and self._outcomes:
                with self.database:
                    self._step(self._open(), hand_out=False)
                    self._tidy_up()
                self._trouble.refused()
        except (OSError, sqlite3.Error) as error:
            faults.report("last commit", "what was sent last could not be noted: %s", error)
        finally:
            with self.database:
                self._lead_no_more()
            # In this order: who starts another thread clears it.
            self._ended.set()
            self.running = False

    def _turn(self) -> None:
        """Do what is due, and wait for what comes next."""
        wait = RETRY_INTERVAL
        try:
            self._keep()
            if self.leads or self._try_to_lead():
                with self.database:
                    handed = self._drain()
                # Before anything else can fail: they are in flight.
                if self._senders is not None:
                    self._senders.give(handed)
                with self.database:
                    self._tidy_up()
                self._trouble.over()
                self._trouble.refused()
                if self._trouble.answered(self.gate):
                    self._next_upkeep = 0.0  # so that commands know at once
                wait = self._wait()
            else:
                wait = TICK
        except (OSError, sqlite3.Error, UnknownVersionError) as error:
            # A full disk, a database that someone has locked: nothing is lost, and it may pass.
            self._reset_readings()
            self._make_room()
            self._trouble.met(error)
        except Exception:  # noqa: BLE001 - the thread must live
            self._reset_readings()
            faults.report("drainer", "CmdrData's delivery failed; it tries again", exc_info=True)
        self._collect(wait)

    def _keep(self) -> None:
        """Look after the journal of this process."""
        now = clocks.monotonic()
        # Before the journals are looked for: one that is not there is taken to be done with.
        if not self._is_in_place():
            self._move()
        if now >= self._next_sync:
            self._next_sync = now + TICK
            try:
                self._journal.sync()
            except OSError as error:
                # What was recorded can be delivered all the same.
                faults.report("sync", "a crash of the host may lose usage events: %s", error)
        if now >= self._next_measure:
            self._next_measure = now + LEAD_INTERVAL
            self.full = self._trouble.measured(self._directory.size(), self._options.largest)

    def _is_in_place(self) -> bool:
        lock_file = self._lock_file
        return self._journal.is_in_place() and (
            lock_file is None or self._directory.has(LOCK, lock_file)
        )

    def _move(self) -> None:
        """Write what this process has of a directory that was removed or replaced into the one that is there now."""
        self._trouble.removed()
        with self.database:
            records: list[bytes] = []
            offset = 0
            if self.leads and self._ledger is not None:
                # It is open still, wherever it is.
                with contextlib.suppress(sqlite3.Error):
                    records = self._ledger.undelivered()
                    offset = self._ledger.offsets().get(self._journal.name or "", 0)
            self._lead_no_more()
        self._journal.write_anew(offset, records)

    def _wait(self) -> float:
        """Return for how long nothing is to be done, unless an outcome comes."""
        if self._more:
            return 0.0
        if self._stop_at is not None:
            return LINGER
        wait = max(0.0, self._next_import - clocks.monotonic())
        if self._due is not None and self.gate.room(self.in_flight):
            wait = min(wait, max(0.0, self._due - self._options.clock()))
        return wait

    def _collect(self, wait: float) -> None:
        """Wait for an outcome or a wake-up; of outcomes, for a few more."""
        with contextlib.suppress(queue.Empty):
            self._receive(self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait())
            if self.in_flight > SENDERS:  # The senders have enough to do.
                time.sleep(LINGER)
        self._receive_all()

    def _receive_all(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._receive(self._inbox.get_nowait())

    def _receive(self, done: Done | None) -> None:
        if done is not None and self._senders is not None:
            self._outcomes.append(done)
            self._senders.busy -= 1

    # Leading

    def _try_to_lead(self) -> bool:
        now = clocks.monotonic()
        if now < self._next_look or not self.may_lead:
            self._looked = self._looked or not self.may_lead
            return False
        self._next_look = now + LEAD_INTERVAL
        self._directory.check()
        # A child that is forked in between would not know that it has the lock too, and keep it from everybody.
        with self.database:
            self._lock_file = self._directory.try_to_lead()
        self._looked = True
        if self._lock_file is None:
            return False
        self._next_import = self._next_upkeep = self._next_expiry = 0.0
        self._more = True
        if self._senders is not None:
            self._senders.start(AT_ONCE)
        try:
            clear_away(self._directory)
            with self.database:
                finish(self._directory)
                if not is_sound(self._directory):
                    self._salvage()
                ledger = self._open()
                with ledger.transaction():
                    ledger.recover(self._options.clock())
        except BaseException:
            # From the beginning, a second later.
            with self.database:
                self._lead_no_more()
            raise
        return True

    def _lead_no_more(self) -> None:
        """Let another process lead. Called with the database."""
        self._close_ledger()
        self._reset_readings()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _open(self) -> Ledger:
        """Return the ledger, open. Called with the database."""
        if self._ledger is None:
            finish(self._directory)
            self._ledger = Ledger(
                self._directory,
                local=self._options.post is None,
                hold_ambiguous=self._options.hold_ambiguous,
            )
        return self._ledger

    def _close_ledger(self) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            with contextlib.suppress(sqlite3.Error):
                ledger.close()

    def _reset_readings(self) -> None:
        """Read again what was not committed."""
        self._more = True
        self._readings = None

    def _make_room(self) -> None:
        """Ask for less of a disk that is full: outcomes of what was sent come first, and they are small."""
        self._import_bytes //= 16
        with self.database, contextlib.suppress(sqlite3.Error):
            if self._ledger is not None:
                self._ledger.give_back()

    def _salvage(self) -> None:
        self._close_ledger()
        path, lost = salvage(self._directory, self._options.clock())
        self._trouble.salvaged(path, lost)

    def _drain(self) -> list[Handed]:
        """Do one step, on a ledger that is sound. Called with the database."""
        try:
            return self._step(self._open(), hand_out=True)
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            self._reset_readings()
            self._salvage()
            return []

    def _step(self, ledger: Ledger, *, hand_out: bool) -> list[Handed]:
        """Import, commit outcomes and hand out what is due, in one transaction."""
        now, clock = clocks.monotonic(), self._options.clock()
        if self._readings is None:
            self._readings = Readings(self._directory, ledger.offsets())
        chunks = []
        if self._more or now >= self._next_import:
            # Before the journals are read, so that what is woken for meanwhile is read in another step.
            self._more = False
            # The database takes several times as much, and what comes of it must find room too.
            limit = min(self._import_bytes, (self._directory.free() - RESERVE) // 4)
            self._scarce = limit < IMPORT_BYTES
            if limit >= LEAST_IMPORT:
                chunks, more = self._readings.read(limit)
                if more:
                    self._more = True
            self._next_import = now + TICK
        # Where outcomes cannot be committed, this fails as a whole: nothing is handed out.
        room = 0
        if hand_out and self._senders is not None:
            room = self.gate.room(self.in_flight)
            if self._senders.alone:
                room = min(room, 1)
            if self._scarce:
                room = min(room, max(0, AT_ONCE - self.in_flight))
        upkeep = now >= self._next_upkeep
        with ledger.transaction():
            for reading, found in chunks:
                ledger.take_in(reading.path.name, found.end, found.records, found.damaged, clock)
            ledger.settle(self._outcomes, clock)
            if clock < self._seen - 1:
                ledger.make_due(clock)
            handed = ledger.hand_out(room, clock) if room else []
            if upkeep:
                self._upkeep(ledger, now, clock)
            due = ledger.next_due()
        self._import_bytes = min(2 * max(self._import_bytes, LEAST_IMPORT), IMPORT_BYTES)
        # From here on nothing may fail: what is handed out must be sent.
        self._due, self._seen = due, clock
        self._trouble.settled(self._outcomes)
        self._outcomes.clear()
        for reading, found in chunks:
            reading.committed(found)
        if upkeep:
            self._next_upkeep = now + UPKEEP_INTERVAL
            self._may_shrink = True
        return handed

    def _tidy_up(self) -> None:
        """Remove what is not needed any more. Called with the database."""
        ledger = self._open()
        if self._readings is not None and (gone := self._readings.remove_finished()):
            with ledger.transaction():
                ledger.forget_journals(gone)
        if self._scarce:
            ledger.give_back()
        if self._may_shrink:
            self._may_shrink = False
            ledger.vacuum()

    def _upkeep(self, ledger: Ledger, now: float, clock: float) -> None:
        """Do what can wait, a little at a time. In a transaction."""
        ledger.prune_tombstones(self._bucket, clock)
        self._bucket = (self._bucket + 1) % 256
        if now >= self._next_expiry:
            self._next_expiry = now + EXPIRY_INTERVAL
            ledger.expire(clock)
        if self._senders is None and self._trouble.nearly_full:
            ledger.shrink_local(10_000)
        ledger.note(self._trouble.facts(self.gate, clock))
