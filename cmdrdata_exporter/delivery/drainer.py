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
import queue
import sqlite3
import threading
import time
from typing import Any

from cmdrdata_exporter import clocks, faults, processes
from cmdrdata_exporter.delivery import Handed
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.options import SENDERS, Options
from cmdrdata_exporter.delivery.senders import AT_ONCE, Done, Senders
from cmdrdata_exporter.delivery.spool.directory import LEDGER, LOCK, RESERVE, Directory, OpenFile
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.journal_reader import JournalsReader, remove_unnamed
from cmdrdata_exporter.delivery.spool.ledger import Ledger, UnknownVersionError, is_broken
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader, UnreadableError
from cmdrdata_exporter.delivery.spool.salvage import finish, is_sound, renew, salvage
from cmdrdata_exporter.delivery.status_log import StatusLog, counted
from cmdrdata_exporter.delivery.watch import watch

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
SMALL_DISK = 128 << 20
"""Bytes that are free, from which on room for outcomes is reserved in the ledger's own files."""
SCARCE_OUTCOMES = 16
"""How many outcomes are committed at once where there is only that room."""
LARGEST_LOG = 64 << 20
"""Bytes that SQLite's log may have, which grows while someone reads."""
UPKEEP_INTERVAL = 10.0
"""Seconds between two rounds of what can wait."""
EXPIRY_INTERVAL = 600.0
DAYS = 8
"""Of how many days the totals are looked at in a round."""
IDLE = 60.0
"""Seconds in which nothing is recorded for a destination after which it is left until something is."""
CROWD = 32
"""Where more destinations than these are drained in a process, those with nothing to do are left sooner."""
AGAIN = 8
"""How many events may be on their way that were tried in vain before: some fail whenever they come, or never end."""


_abandoned: list[Ledger | int] = []
"""
Ledgers that this process can never close, since what they have open is not its own; and descriptors of their files,
whose inodes no other file may get: SQLite would take it for the ledger.
"""


_drained: set[object] = set()
"""What drains in this process."""


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
        self._log = StatusLog(directory)
        self._poisoned = False
        """Whether SQLite has descriptors of the ledger that may be those of other files by now."""
        self.may_lead = True
        """False where a child was forked in the middle of its parent's use of SQLite."""
        self._clear()

    def _clear(self) -> None:
        self.database = threading.Lock()
        """Held while this process uses SQLite, so that it is not forked then."""
        self._lock_file: OpenFile | None = None
        self._ledger: Ledger | None = None
        self._offsets: dict[str, int] = {}
        """How far journals were read by a ledger that was removed."""
        self._readings: JournalsReader | None = None
        self._starting: Any = threading.RLock()
        self.running = False
        self._ended = threading.Event()
        self.rests = False
        """Whether it has been left, with nothing to do, until something is recorded."""
        self._modified = 0
        """When the ledger was changed last, as far as this process knows."""
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
        self._log_is_full = False
        self._is_damaged = False
        """Whether the ledger was found to be damaged."""
        self._import_bytes = IMPORT_BYTES
        """How much of them is imported next, as far as the disk has room."""
        self._more = True
        """Whether the journals are to be read now."""
        self._may_shrink = False
        self._day: str | None = None
        """How far the totals were looked at; None: to their end."""
        self._totals = 0
        """How many bytes they take, up to there."""
        self._due: float | None = None
        self._empty = False
        """Whether nothing is left to send."""
        self._active = clocks.monotonic()
        """When something was to do last."""
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
            self.rests = False
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
        self.look()
        if self.running:
            self._looked = False
            self._stop_at = clocks.monotonic() + timeout
            self.wake()
            self._ended.wait(timeout + processes.LAST_COMMIT_TIMEOUT)

    def look(self) -> bool:
        """Drain again where there is something to do although it was left with nothing; say whether it rests still."""
        try:
            if self.rests and (
                self._journal.is_open or self._directory.journals() or self._has_more()
            ):
                self.start()
        except OSError as error:
            # The next time.
            if faults.is_interruption(error):
                raise
        return self.rests

    def _has_more(self) -> bool:
        """Say whether another process, a command for instance, has changed the ledger so that there is more to send."""
        modified = (self._directory.path / LEDGER).stat().st_mtime_ns
        if modified == self._modified:
            return False
        self._modified = modified
        try:
            with self.database, LedgerReader(self._directory) as ledger:
                return ledger.oldest_pending() is not None
        except UnreadableError:
            return True

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
                _abandoned.append(self._ledger)
        if self._lock_file is not None:
            # A copy; unlocking it would unlock the parent's.
            self._lock_file.close()
        _drained.discard(self)
        self._clear()
        self._options.reset()

    # The thread

    def _run(self, inbox: object) -> None:
        rests = False
        _drained.add(self)
        try:
            while inbox is self._inbox and not self._is_over() and not rests:
                self._turn()
                rests = self._may_rest()
        finally:
            if inbox is self._inbox:
                self._end()
                if rests:
                    self._rest()

    def _may_rest(self) -> bool:
        """Say whether there is nothing to do, and has not been for a while, for this process and for others."""
        patience = IDLE if len(_drained) <= CROWD else LEAD_INTERVAL
        if (
            self._options.stays
            or self._stop_at is not None
            or not (self.leads and self._empty)
            or self._more
            or self.in_flight
            or self._outcomes
            or clocks.monotonic() < self._active + patience
        ):
            return False
        if self._journal.is_open:
            self._journal.seal()
            self._more = True  # so that it is removed
            return False
        try:
            return not self._directory.journals()
        except OSError:
            return False

    def _rest(self) -> None:
        """Let go of what is left, and look for others' events, and for what was recorded in this moment."""
        self._options.reset()
        with contextlib.suppress(OSError):
            self._modified = (self._directory.path / LEDGER).stat().st_mtime_ns
        self.rests = True
        watch.add(self)
        self.look()

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
        _drained.discard(self)
        try:
            if self._senders is not None:
                self._senders.end()
            self._receive_all()
            with self.database:
                self._check_lead()
                while self.leads and self._outcomes:
                    self._step(self._open(), hand_out=False)
                    self._tidy_up()
            self._log.log_refusals()
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
                self._log.recovered()
                self._log.log_refusals()
                if self._log.backend_state(self.gate):
                    self._next_upkeep = 0.0  # so that commands know at once
                wait = self._wait()
            else:
                wait = TICK
        except (OSError, sqlite3.Error, UnknownVersionError) as error:
            # A full disk, a database that someone has locked: nothing is lost, and it may pass.
            self._reset_readings()
            self._is_damaged = self.leads and isinstance(error, sqlite3.Error) and is_broken(error)
            if self._is_damaged:
                wait = 0.0
            else:
                self._make_room()
                self._log.error(error)
        except Exception:  # noqa: BLE001 - the thread must live
            self._reset_readings()
            faults.report("drainer", "CmdrData's delivery failed; it tries again", exc_info=True)
        self._collect(wait)

    def _keep(self) -> None:
        """Look after the journal of this process."""
        now = clocks.monotonic()
        # Before the journals are looked for: one that is not there is taken to be done with.
        self._journal.check_place()
        with self.database:
            self._check_lead()
        if self._journal.stalled:
            self._log.disk_stalled()
        if now >= self._next_sync:
            self._next_sync = now + TICK
            try:
                self._journal.sync()
            except OSError as error:
                # What was recorded can be delivered all the same.
                faults.report("sync", "a crash of the host may lose usage events: %s", error)
        if now >= self._next_measure:
            self._next_measure = now + LEAD_INTERVAL
            self._measure()

    def _measure(self) -> None:
        full = self._log.size(self._directory.size(), self._options.largest)
        # What outcomes need is not for new events.
        with contextlib.suppress(FileNotFoundError):
            full = full or self._directory.free() < RESERVE
        self._journal.is_full = full
        log = self._directory.log_size()
        self._log.long_reader(log if log > LARGEST_LOG else None)
        self._log_is_full = log > LARGEST_LOG

    def _check_lead(self) -> None:
        """Lead no more where the lock or the ledger is not what it was. Called with the database."""
        lock_file, ledger = self._lock_file, self._ledger
        if lock_file is None:
            return
        if not lock_file.is_ours:
            self._lead_no_more()
        elif ledger is not None and not ledger.is_in_place():
            what = "what was in it"
            # It is open still, wherever it is.
            with contextlib.suppress(sqlite3.Error):
                what = counted(ledger.waiting())
                # What was taken over is not taken over again, where the journals are still there.
                self._offsets = ledger.offsets()
            self._log.directory_removed(self._directory.path / LEDGER, what)
            self._lead_no_more()
        elif not lock_file.is_at(self._directory.path / LOCK):
            # Another process may lead by now.
            self._log.directory_removed(self._directory.path / LOCK, "nothing else")
            self._lead_no_more()
        elif ledger is not None:
            ledger.mend_index()

    def _wait(self) -> float:
        """Return for how long nothing is to be done, unless an outcome comes."""
        if self._more or self._outcomes:
            return 0.0
        if self._stop_at is not None:
            return LINGER
        wait = max(0.0, self._next_import - clocks.monotonic())
        if self._due is not None and self.gate.room(self.in_flight) and not self._log_is_full:
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
            self._senders.taken_back(done[0])

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
            descriptor = self._directory.try_to_lead()
            self._lock_file = None if descriptor is None else OpenFile(descriptor)
        self._looked = True
        if self._lock_file is None:
            return False
        self._next_import = self._next_upkeep = self._next_expiry = 0.0
        self._more = True
        if self._senders is not None:
            self._senders.start()
        try:
            remove_unnamed(self._directory)
            with self.database:
                finish(self._directory)
                if self._poisoned:
                    _abandoned.append(renew(self._directory))
                    self._poisoned = False
                self._recover()
        except BaseException:
            # From the beginning, a second later.
            with self.database:
                self._lead_no_more()
            raise
        return True

    def _recover(self) -> None:
        """Open the ledger, salvaged if it is damaged, and take back what was in flight. Called with the database."""
        try:
            sound = is_sound(self._directory)
            if sound:
                self._begin_ledger()
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            sound = False
        if not sound:
            self._salvage()
            self._begin_ledger()

    def _begin_ledger(self) -> None:
        ledger = self._open()
        with ledger.transaction():
            ledger.recover(self._options.clock())
            ledger.note_offsets(self._offsets)
        self._offsets = {}

    def _lead_no_more(self) -> None:
        """Let another process lead. Called with the database."""
        self._close_ledger()
        self._reset_readings()
        if self._lock_file is not None:
            self._lock_file.close()
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
        if ledger is None:
            return
        if self._lock_file is not None and not self._lock_file.is_ours:
            # Someone has closed all descriptors. Closing the database would write to the files that have their numbers
            # by now, and SQLite would open it anew with what it has of it.
            self._log.descriptors_closed()
            _abandoned.append(ledger)
            self._poisoned = True
            return
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
        self._reset_readings()
        path, lost = salvage(self._directory, self._options.clock())
        self._is_damaged = False
        self._log.ledger_salvaged(path, lost)

    def _drain(self) -> list[Handed]:
        """Do one step, on a ledger that is sound. Called with the database."""
        if self._is_damaged:
            self._salvage()
        return self._step(self._open(), hand_out=True)

    def _step(self, ledger: Ledger, *, hand_out: bool) -> list[Handed]:
        """Import, commit outcomes and hand out what is due, in one transaction."""
        now, clock = clocks.monotonic(), self._options.clock()
        if self._readings is None:
            self._readings = JournalsReader(self._directory, ledger.offsets())
        chunks = []
        if self._more or now >= self._next_import:
            # Before the journals are read, so that what is woken for meanwhile is read in another step.
            self._more = False
            # The database takes several times as much, and what comes of it must find room too.
            free = self._directory.free() - RESERVE
            self._scarce = free < 4 * IMPORT_BYTES
            limit = min(self._import_bytes, (max(0, free) + ledger.spare()) // 4)
            if self._scarce:
                limit = min(limit, IMPORT_BYTES // 8)
            if limit >= LEAST_IMPORT and not self._log_is_full:
                chunks, more = self._readings.read(limit)
                if more:
                    self._more = True
            self._next_import = now + TICK
        # Where outcomes cannot be committed, this fails as a whole: nothing is handed out.
        room = again = 0
        if hand_out and self._senders is not None:
            room = self.gate.room(self.in_flight)
            again = max(0, AGAIN - self._senders.busy_again)
            if self._senders.alone:
                room = min(room, 1)
            if self._scarce:
                room = min(room, max(0, AT_ONCE - self.in_flight))
            if self._log_is_full:
                room = 0
        upkeep = now >= self._next_upkeep and not self._log_is_full
        outcomes = self._outcomes[: SCARCE_OUTCOMES if self._scarce else None]
        with ledger.transaction():
            for reading, found in chunks:
                ledger.take_in(reading.path.name, found.end, found.records, found.damaged, clock)
            ledger.settle(outcomes, clock)
            if clock < self._seen - 1:
                ledger.make_due(clock)
            handed = ledger.hand_out(room, clock, again) if room else []
            expired = self._upkeep(ledger, now, clock) if upkeep else 0
            due = ledger.next_due(new=again <= sum(event.attempts > 0 for event in handed))
            empty = due is None and ledger.is_empty()
        self._import_bytes = min(2 * max(self._import_bytes, LEAST_IMPORT), IMPORT_BYTES)
        # From here on nothing may fail: what is handed out must be sent.
        self._due, self._seen, self._empty = due, clock, empty
        if chunks or handed or outcomes:
            self._active = now
        self._log.count_refusals(outcomes)
        self._log.expired(expired)
        del self._outcomes[: len(outcomes)]
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
        if self._directory.free() < SMALL_DISK:
            # Nothing that was imported may need more room of the disk later.
            ledger.reserve()
        if self._scarce:
            ledger.give_back()
        if self._log_is_full and ledger.empty_log():
            self._log_is_full = False
        if self._may_shrink:
            self._may_shrink = False
            ledger.vacuum()

    def _upkeep(self, ledger: Ledger, now: float, clock: float) -> int:
        """Do what can wait, a little at a time; return how many events were given up. In a transaction."""
        expired = 0
        ledger.prune_tombstones(self._bucket, clock)
        self._bucket = (self._bucket + 1) % 256
        if now >= self._next_expiry:
            self._next_expiry = now + EXPIRY_INTERVAL
            expired = ledger.expire(clock)
            self._day, self._totals = "", 0
        self._tidy_totals(ledger, clock)
        if self._senders is None and self._log.nearly_full:
            ledger.shrink_local(10_000)
        ledger.note(self._log.facts(self.gate, clock))
        return expired

    def _tidy_totals(self, ledger: Ledger, clock: float) -> None:
        """Compact old totals, and measure all, a few days at a time. In a transaction."""
        first = clock - self._options.totals_by_day_for * 86400
        month = time.strftime("%Y-%m", time.gmtime(first))
        for _ in range(DAYS):
            if self._day is None:
                return
            day, size = ledger.tidy_totals(self._day, month)
            self._totals += size
            self._day = day or None
            if not day:
                # On a full disk it is an old number.
                with contextlib.suppress(OSError):
                    self._directory.note_totals(self._totals)
